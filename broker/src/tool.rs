//! Looking into an image without mounting it: questions to a worker that answers over the channel.
//!
//! What holds here: an answer comes from a process that may lie. Names are checked, every loop has a bound of ours, and
//! what is printed is escaped by whoever prints.

use crate::device::Source;
use crate::exit::{Code, Failure, words};
use crate::options::Options;
use crate::signal::Signals;
use crate::worker::Worker;
use crate::{layout, refusal};
use lazaret_policy::message::{Answer, Ask, Attributes, Entry, Mapped, MappedKind, Purpose, Range, Refusal, Summary};
use rustix::io::Errno;

/// The root directory's inode.
pub(crate) const ROOT: u32 = 2;
/// The most entries that are read of one directory.
const ENTRIES: usize = 10_000_000;
/// The most bytes that the entries of one directory take where they are kept.
const KEPT: usize = 1 << 30;

/// Starts a worker that opens the file system: the partition that is asked for, else the whole source, else its only
/// partition with an ext file system. The source is limited to what was opened, or refused.
pub(crate) fn start<'a>(
    source: &mut Source,
    options: &'a Options,
    signals: &'a Signals,
) -> Result<(Worker<'a>, Result<Summary, Refusal>), Failure> {
    if options.part.is_some() {
        layout::select(source, options, signals)?;
    }
    let begun = begin(source, options, signals)?;
    match begun.1 {
        Err(refusal) if layout::instead(source, refusal, options, signals)? => begin(source, options, signals),
        _ => Ok(begun),
    }
}

/// Starts a worker that opens the file system in the source's range.
pub(crate) fn begin<'a>(
    source: &Source,
    options: &'a Options,
    signals: &'a Signals,
) -> Result<(Worker<'a>, Result<Summary, Refusal>), Failure> {
    let mut worker = Worker::start(Purpose::Tool, options, signals)?;
    worker.initialize(None)?;
    let opened = worker.open(source)?;
    Ok((worker, opened))
}

/// An image, through its worker.
pub(crate) struct Image<'a> {
    worker: Worker<'a>,
    summary: Summary,
    ahead: Ahead,
}

/// A question whose answer is fetched later.
#[derive(Debug, Default)]
enum Ahead {
    /// There is none.
    #[default]
    None,
    /// It was asked.
    Asked,
    /// It was answered before another was.
    Answered(Answer),
}

impl<'a> Image<'a> {
    /// The file system of a source, opened by a worker: see [`start`].
    pub(crate) fn open(source: &mut Source, options: &'a Options, signals: &'a Signals) -> Result<Self, Failure> {
        let (worker, opened) = start(source, options, signals)?;
        let summary = opened.map_err(refusal::failure)?;
        Ok(Self { worker, summary, ahead: Ahead::None })
    }

    /// What it says of itself.
    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Worker<'a> {
        &self.worker
    }

    /// One question, one answer.
    pub(crate) fn ask(&mut self, question: &Ask) -> Result<Answer, Failure> {
        if matches!(self.ahead, Ahead::Asked) {
            self.ahead = Ahead::Answered(self.worker.answer()?);
        }
        self.worker.ask(question)
    }

    /// Asks, and does not wait. There is one such question at a time.
    pub(crate) fn ask_ahead(&mut self, question: &Ask) -> Result<(), Failure> {
        self.forget()?;
        self.worker.tell(question)?;
        self.ahead = Ahead::Asked;
        Ok(())
    }

    /// The answer to what was asked ahead.
    pub(crate) fn hear_ahead(&mut self) -> Result<Answer, Failure> {
        match std::mem::take(&mut self.ahead) {
            Ahead::Answered(answer) => Ok(answer),
            _ => self.worker.answer(),
        }
    }

    /// What was asked ahead is not wanted any more.
    pub(crate) fn forget(&mut self) -> Result<(), Failure> {
        match std::mem::take(&mut self.ahead) {
            Ahead::Asked => self.worker.answer().map(drop),
            _ => Ok(()),
        }
    }

    /// What an inode is.
    pub(crate) fn attributes(&mut self, inode: u32) -> Result<Attributes, Failure> {
        match self.ask(&Ask::Inode(inode))? {
            Answer::Inode(attributes) => Ok(attributes),
            other => Err(failed(&other)),
        }
    }

    /// Every entry of a directory but `.` and `..`, in its own order; with what each is, where that can be read.
    pub(crate) fn list(&mut self, inode: u32) -> Result<Vec<Entry>, Failure> {
        self.entries(inode, false)
    }

    /// The same, with `.` and `..` if `dots`.
    pub(crate) fn entries(&mut self, inode: u32, dots: bool) -> Result<Vec<Entry>, Failure> {
        let (mut all, mut kept) = (vec![], 0);
        self.each(inode, true, &mut |entry| {
            kept += size_of::<Entry>() + entry.name.len();
            if kept > KEPT {
                return Err(Failure::mount("has more entries than are kept at once (1 GiB)").local());
            }
            if dots || entry.name != b"." && entry.name != b".." {
                all.push(entry);
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Gives every entry of a directory in its own order, `.` and `..` too; with `attributes` also what each is.
    pub(crate) fn each(
        &mut self,
        inode: u32,
        attributes: bool,
        take: &mut dyn FnMut(Entry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut cookie, mut count) = (0, 0);
        loop {
            let entries = match self.ask(&Ask::List { inode, cookie, attributes })? {
                Answer::List(entries) => entries,
                other => return Err(failed(&other)),
            };
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                count += 1;
                // Cookies rise, so that a listing goes on.
                if !is_name(&entry.name) || entry.cookie <= cookie || count > ENTRIES {
                    return Err(impossible());
                }
                cookie = entry.cookie;
                take(entry)?;
            }
        }
    }

    /// Where a file holds data, in runs that rise, do not touch and lie within its length; at most so many. What cannot
    /// be told any more is left out.
    pub(crate) fn runs(&mut self, inode: u32, length: u64, most: usize) -> Result<Vec<Range>, Failure> {
        let (mut all, mut offset) = (Vec::<Range>::new(), 0);
        loop {
            let (runs, next) = match self.ask(&Ask::Runs { inode, offset })? {
                Answer::Runs { runs, next } => (runs, next),
                // Whoever reads the file gets the same error where it belongs.
                Answer::Failed(_) => return Ok(all),
                other => return Err(failed(&other)),
            };
            let mut at = offset;
            for run in runs {
                let end = run.offset.checked_add(run.length).filter(|&end| end <= length);
                let end = end.filter(|_| run.offset >= at && run.length > 0).ok_or_else(impossible)?;
                match all.last_mut() {
                    Some(last) if last.offset + last.length == run.offset => last.length += run.length,
                    _ => all.push(run),
                }
                if all.len() > most {
                    return Err(Failure::new(Code::Unreadable, format!("lies in more than {most} pieces")).local());
                }
                at = end;
            }
            match next {
                None => return Ok(all),
                Some(next) if next > offset && next >= at => offset = next,
                Some(_) => return Err(impossible()),
            }
        }
    }

    /// How a file lies on the device, in pieces that rise and do not overlap; neighbours of one kind that lie behind each
    /// other are one. At most so many.
    pub(crate) fn map(&mut self, inode: u32, most: usize) -> Result<Vec<Mapped>, Failure> {
        let (mut all, mut offset, mut end) = (Vec::<Mapped>::new(), 0, 0);
        loop {
            let (pieces, next) = match self.ask(&Ask::Map { inode, offset })? {
                Answer::Mapped { pieces, next } => (pieces, next),
                other => return Err(failed(&other)),
            };
            for piece in pieces {
                if piece.length == 0 || piece.offset < end {
                    return Err(impossible());
                }
                end = piece.offset.checked_add(piece.length).ok_or_else(impossible)?;
                match all.last_mut().filter(|last| goes_on(last, &piece)) {
                    Some(last) => last.length += piece.length,
                    None => all.push(piece),
                }
                if all.len() > most {
                    return Err(Failure::new(Code::Unreadable, format!("lies in more than {most} pieces")).local());
                }
            }
            match next {
                None => return Ok(all),
                Some(next) if next > offset && next >= end => offset = next,
                Some(_) => return Err(impossible()),
            }
        }
    }

    /// The inode of a name in a directory.
    pub(crate) fn find(&mut self, directory: u32, name: &[u8]) -> Result<u32, Failure> {
        if !is_name(name) {
            return Err(Failure::mount(words(if name.len() > 255 { Errno::NAMETOOLONG } else { Errno::NOENT })).local());
        }
        match self.ask(&Ask::Find { directory, name: name.to_vec() })? {
            Answer::Found(found) => found.ok_or_else(|| Failure::mount(words(Errno::NOENT)).local()),
            other => Err(failed(&other)),
        }
    }

    /// Where a symbolic link leads to.
    pub(crate) fn link(&mut self, inode: u32) -> Result<Vec<u8>, Failure> {
        match self.ask(&Ask::Link(inode))? {
            Answer::Bytes(target) => Ok(target),
            other => Err(failed(&other)),
        }
    }

    /// Gives the bytes of a file in pieces, and never more than its attributes say.
    pub(crate) fn read(
        &mut self,
        inode: u32,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let size = self.attributes(inode)?.size;
        let mut offset = 0;
        while offset < size {
            let bytes = match self.ask(&Ask::Read { inode, offset })? {
                Answer::Bytes(bytes) => bytes,
                other => return Err(failed(&other)),
            };
            let rest = usize::try_from(size - offset).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(rest)];
            if bytes.is_empty() {
                return Err(Failure::mount("the worker gave less of a file than it has"));
            }
            take(bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Whether a piece is where another ends, in the file and on the device.
fn goes_on(last: &Mapped, next: &Mapped) -> bool {
    let behind = |start: u64| start.checked_add(last.length);
    last.offset.checked_add(last.length) == Some(next.offset)
        && match (last.kind, next.kind) {
            (MappedKind::Data(one), MappedKind::Data(other))
            | (MappedKind::Unwritten(one), MappedKind::Unwritten(other)) => behind(one) == Some(other),
            (MappedKind::Hole, MappedKind::Hole) => true,
            _ => false,
        }
}

fn impossible() -> Failure {
    Failure::mount("the worker listed what cannot be a directory or a file")
}

fn failed(answer: &Answer) -> Failure {
    match answer {
        Answer::Failed(errno) => Failure::mount(words(Errno::from_raw_os_error((*errno).clamp(1, 4095)))).local(),
        _ => Failure::system("the worker answered another question"),
    }
}

fn is_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len()) && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_name_is_none() {
        assert!(is_name(b"a") && is_name(&[b'x'; 255]) && is_name(b"\xff\x1b"));
        assert!(!is_name(b"") && !is_name(&[b'x'; 256]) && !is_name(b"a/b") && !is_name(b"a\0"));
    }

    #[test]
    fn pieces_that_lie_behind_each_other_are_one() {
        let piece = |offset, kind| Mapped { offset, length: 4096, kind };
        let first = piece(0, MappedKind::Data(8192));
        assert!(goes_on(&first, &piece(4096, MappedKind::Data(12288))));
        assert!(!goes_on(&first, &piece(4096, MappedKind::Data(16384))));
        assert!(!goes_on(&first, &piece(8192, MappedKind::Data(12288))));
        assert!(!goes_on(&first, &piece(4096, MappedKind::Unwritten(12288))));
        assert!(goes_on(&piece(0, MappedKind::Hole), &piece(4096, MappedKind::Hole)));
        assert!(!goes_on(&piece(0, MappedKind::Data(u64::MAX)), &piece(4096, MappedKind::Data(4095))));
    }

    #[test]
    fn an_answer_of_another_kind_is_a_failure() {
        assert!(failed(&Answer::Failed(5)).to_string().contains("input/output error"));
        assert!(failed(&Answer::Failed(-7)).to_string().len() > 3);
        assert!(failed(&Answer::List(vec![])).to_string().contains("another question"));
    }
}
