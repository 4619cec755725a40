//! Files into a tar archive, with their holes.
//!
//! What holds here: a header and what follows it have the length that the header says, whatever the image gives; a file of
//! which is known that it cannot be read whole is named so in the archive.

use super::header::{BLOCK, Member, map};
use super::output::Output;
use super::{Content, Destination, Facts, Place, Report, Siblings, damaged};
use crate::escape::escaped;
use crate::exit::{Code, Failure};
use crate::gather::reason;
use crate::path::is;
use crate::text;
use lazaret_policy::message::{Attributes, Range};
use rustix::process::{getegid, geteuid};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// An archive that is being written.
pub(crate) struct Archive<'a> {
    output: Output<'a>,
    /// To whom files belong if owners were not asked for: who would unpack them.
    owner: (u32, u32),
    begun: bool,
}

impl<'a> Archive<'a> {
    /// To this output.
    pub(crate) fn new(output: Output<'a>) -> Self {
        Self { output, owner: (geteuid().as_raw(), getegid().as_raw()), begun: false }
    }

    /// What a header says of this, but its kind.
    fn member<'b>(&self, path: &'b [u8], facts: &'b Facts) -> Member<'b> {
        let Attributes { mtime, atime, ctime, .. } = facts.attributes;
        Member {
            path,
            kind: b'0',
            mode: facts.mode,
            owner: facts.owner.unwrap_or(self.owner),
            size: 0,
            sparse: None,
            times: Some([mtime, atime, ctime]),
            target: b"",
            device: (0, 0),
            xattrs: &facts.xattrs,
        }
    }

    fn header(&mut self, member: &Member<'_>) -> Result<(), Failure> {
        self.begun = true;
        self.output.write(&member.header())
    }
}

impl Destination for Archive<'_> {
    fn enter(&mut self, place: &Place, facts: &Facts) -> Result<(), Failure> {
        let path = [&place.path()[..], b"/"].concat();
        let member = Member { kind: b'5', ..self.member(&path, facts) };
        self.header(&member)
    }

    fn leave(&mut self, _: &mut Report<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn file(
        &mut self,
        place: &Place,
        facts: &Facts,
        _: &Siblings,
        content: &mut Content<'_, '_>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let known = content.damage();
        if let Some((errno, 0)) = known {
            return Err(damaged(&reason(errno)));
        }
        let mut path = place.path();
        if known.is_some() {
            path.extend_from_slice(b".partial");
        }
        let length = known.map_or(content.length(), |(_, reached)| reached);
        let runs = whole_blocks(&content.runs()?, length);
        let data: u64 = runs.iter().map(|(_, length)| length).sum();
        let mut member = self.member(&path, facts);
        if data == length {
            member.size = length;
            self.header(&member)?;
        } else {
            // The end of the file is where the last run ends.
            let mut listed = runs.clone();
            if listed.last().is_none_or(|(offset, run)| offset + run < length) {
                listed.push((length, 0));
            }
            let map = map(&listed);
            (member.size, member.sparse) = (map.len() as u64 + data, Some(length));
            self.header(&member)?;
            self.output.write(&map)?;
        }
        let mut fill = Fill { output: &mut self.output, runs: &runs, run: 0, at: 0, lost: false };
        while let Some(data) = content.next(report)? {
            data.iter().try_for_each(|(offset, bytes)| fill.put(*offset, bytes))?;
        }
        fill.end()?;
        let lost = fill.lost;
        self.output.zeros((BLOCK as u64 - data % BLOCK as u64) % BLOCK as u64)?;
        match content.damage() {
            Some((errno, reached)) => {
                let (reason, good) = (reason(errno), text::size(reached));
                let rest = if known.is_some() { "" } else { "; zeros stand for the rest" };
                let shown = escaped(OsStr::from_bytes(&path));
                Err(damaged(&format!(
                    "{reason}; the first {good}, which can be read, are in the archive as {shown}{rest}"
                )))
            }
            None if lost => Err(damaged("has changed while it was read; its copy in the archive is not complete")),
            None => content.count_holes(),
        }
    }

    fn link(&mut self, place: &Place, facts: &Facts, target: &[u8], _: &mut Report<'_>) -> Result<(), Failure> {
        let path = place.path();
        let member = Member { kind: b'2', target, ..self.member(&path, facts) };
        self.header(&member)
    }

    fn hard_link(&mut self, place: &Place, first: &Place) -> Result<(), Failure> {
        let (path, target) = (place.path(), first.path());
        let member = Member {
            path: &path,
            kind: b'1',
            mode: 0o644,
            owner: self.owner,
            size: 0,
            sparse: None,
            times: None,
            target: &target,
            device: (0, 0),
            xattrs: &[],
        };
        self.header(&member)
    }

    fn special(&mut self, place: &Place, facts: &Facts, _: &mut Report<'_>) -> Result<(), Failure> {
        let kind = match u32::from(facts.attributes.mode) & libc::S_IFMT {
            libc::S_IFCHR => b'3',
            libc::S_IFBLK => b'4',
            libc::S_IFIFO => b'6',
            _ => return Err(Failure::new(Code::System, "is a socket, which no archive can hold").local()),
        };
        debug_assert!(!is(&facts.attributes, libc::S_IFREG));
        let path = place.path();
        let device = text::device(&facts.attributes).unwrap_or_default();
        let member = Member { kind, device, ..self.member(&path, facts) };
        self.header(&member)
    }

    fn has(&mut self, _: &Place, _: &Attributes) -> bool {
        false
    }

    fn may_have(&self) -> bool {
        false
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.output.zeros(2 * BLOCK as u64)?;
        self.output.finish()
    }

    fn abandon(&mut self) -> Option<String> {
        if !self.begun {
            self.output.discard();
            return None;
        }
        match self.output.partial() {
            Some(partial) => Some(format!("what there is of the archive is {}", escaped(partial))),
            None => Some("the archive is not complete".to_owned()),
        }
    }
}

/// The same runs, beginning and ending at whole blocks of the archive or at the end of the file.
fn whole_blocks(runs: &[Range], length: u64) -> Vec<(u64, u64)> {
    let block = BLOCK as u64;
    let mut all: Vec<(u64, u64)> = vec![];
    for run in runs {
        let begin = run.offset / block * block;
        let end = run.offset.saturating_add(run.length).checked_next_multiple_of(block).unwrap_or(u64::MAX).min(length);
        match all.last_mut() {
            Some((last, size)) if *last + *size >= begin => *size = end.max(*last + *size) - *last,
            _ if begin < end => all.push((begin, end - begin)),
            _ => {}
        }
    }
    all
}

/// The data of one file on its way into the runs that were announced.
struct Fill<'a, 'b> {
    output: &'a mut Output<'b>,
    runs: &'a [(u64, u64)],
    run: usize,
    /// How much of this run is written.
    at: u64,
    /// Bytes came that have no place.
    lost: bool,
}

impl Fill<'_, '_> {
    /// Writes what belongs here, and zeros for what was announced before it and did not come.
    fn put(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let Some(&(begin, length)) = self.runs.get(self.run) else {
                self.lost = true;
                return Ok(());
            };
            let (end, next) = (begin + length, begin + self.at);
            if offset >= end {
                self.output.zeros(end - next)?;
                (self.run, self.at) = (self.run + 1, 0);
            } else if offset < next {
                self.lost = true;
                let skipped = usize::try_from(next - offset).unwrap_or(usize::MAX).min(bytes.len());
                (offset, bytes) = (offset + skipped as u64, &bytes[skipped..]);
            } else {
                self.output.zeros(offset - next)?;
                let now = usize::try_from(end - offset).unwrap_or(usize::MAX).min(bytes.len());
                self.output.write(&bytes[..now])?;
                self.at = offset + now as u64 - begin;
                (offset, bytes) = (offset + now as u64, &bytes[now..]);
            }
        }
        Ok(())
    }

    /// Zeros for all that was announced and did not come.
    fn end(&mut self) -> Result<(), Failure> {
        while let Some((_, length)) = self.runs.get(self.run) {
            self.output.zeros(length - self.at)?;
            (self.run, self.at) = (self.run + 1, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_widened_to_whole_blocks_within_the_file() {
        let runs = |runs: &[(u64, u64)], length| {
            let runs: Vec<_> = runs.iter().map(|&(offset, length)| Range { offset, length }).collect();
            whole_blocks(&runs, length)
        };
        assert_eq!(runs(&[(0, 100)], 100), [(0, 100)]);
        assert_eq!(runs(&[(1000, 10), (1100, 10), (5000, 1)], 5001), [(512, 1024), (4608, 393)]);
        assert_eq!(runs(&[], 100), []);
    }
}
