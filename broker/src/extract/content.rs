//! The content of a file on its way out of an image, part by part, as whoever writes it asks for it.
//!
//! What holds here: bytes are counted before they are given, and what comes is what `gather.rs` has checked.

use super::limits::{Limits, Taken};
use super::report::Report;
use crate::exit::Failure;
use crate::gather::{Data, End, Gathering, Part};
use crate::tool::Image;
use lazaret_policy::message::Range;

/// The most runs of data that one file may have where they are all needed before the first byte.
const MOST_RUNS: usize = 4 << 20;

/// A content that is being read.
pub(crate) struct Content<'a, 'b> {
    image: &'a mut Image<'b>,
    gathering: &'a mut Gathering,
    inode: u32,
    length: u64,
    part: Option<Part>,
    end: Option<End>,
    /// Bytes that were given.
    data: u64,
    /// Behind the last of them.
    reached: u64,
    limits: &'a Limits,
    taken: &'a mut Taken,
}

impl<'a, 'b> Content<'a, 'b> {
    /// That of an inode of this length, which begins with this part.
    pub(crate) fn new(
        (image, gathering): (&'a mut Image<'b>, &'a mut Gathering),
        (inode, length): (u32, u64),
        part: Part,
        (limits, taken): (&'a Limits, &'a mut Taken),
    ) -> Self {
        let part = Some(part);
        Self { image, gathering, inode, length, part, end: None, data: 0, reached: 0, limits, taken }
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What was taken of the image so far.
    pub(crate) fn taken(&self) -> &Taken {
        self.taken
    }

    /// Places and bytes that come next; none behind the last.
    pub(crate) fn next(&mut self, report: &mut Report<'_>) -> Result<Option<Vec<Data>>, Failure> {
        let part = match self.part.take() {
            Some(part) => part,
            None if self.end.is_some() => return Ok(None),
            None => self.gathering.more(self.image)?,
        };
        report.signals.check()?;
        self.end = part.end;
        let bytes = part.data.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.taken.data(bytes, self.limits)?;
        report.progress(bytes);
        self.data += bytes;
        if let Some((offset, bytes)) = part.data.last() {
            self.reached = offset + bytes.len() as u64;
        }
        Ok(Some(part.data))
    }

    /// Where it holds data. To be asked before the first part is.
    pub(crate) fn runs(&mut self) -> Result<Vec<Range>, Failure> {
        match &self.part {
            Some(Part { data, end: Some(_) }) => {
                let mut runs: Vec<Range> = vec![];
                for (offset, bytes) in data {
                    let length = bytes.len() as u64;
                    match runs.last_mut() {
                        Some(last) if last.offset + last.length == *offset => last.length += length,
                        _ => runs.push(Range { offset: *offset, length }),
                    }
                }
                Ok(runs)
            }
            _ => self.image.runs(self.inode, self.length, MOST_RUNS),
        }
    }

    /// Whether it is known that it cannot be read whole, and from which byte on.
    pub(crate) fn damage(&self) -> Option<(i32, u64)> {
        match (&self.part, self.end) {
            (Some(Part { data, end: Some(End::Broken(errno)) }), _) => {
                Some((*errno, data.last().map_or(0, |(offset, bytes)| offset + bytes.len() as u64)))
            }
            (None, Some(End::Broken(errno))) => Some((errno, self.reached)),
            _ => None,
        }
    }

    /// Counts the holes of a content that was read to its end. More of them than are allowed is a failure.
    pub(crate) fn count_holes(&mut self) -> Result<(), Failure> {
        self.taken.hole(self.length.saturating_sub(self.data), self.limits)
    }
}
