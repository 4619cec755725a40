//! Whole inodes of an image: what each is, its extended attributes, its content, many short ones with one question.
//!
//! What holds here: the pieces come from a process that may lie. Their order, their lengths and their places are checked
//! before anybody sees one: a content has no more bytes than its length, and they rise; an answer that does not go on is
//! none. The question for what comes next is asked before what came is used, so that both processes have work.

use crate::exit::{Failure, words};
use crate::tool::Image;
use lazaret_policy::gather::{Begin, MOST_INODES, Piece};
use lazaret_policy::message::{Answer, Ask, Attributes};
use rustix::io::Errno;
use std::collections::VecDeque;

/// The most bytes of extended attributes, names and values, that one inode may have.
const MOST_ATTRIBUTES: usize = 1 << 20;
/// The longest value of one: the most that a system call takes.
const LONGEST_VALUE: usize = 65_536;
/// The longest target of a symbolic link.
const LONGEST_TARGET: u64 = 4095;
/// How many answers in a row may bring neither a byte nor an end: far more than a sound file needs.
const MOST_IDLE: u32 = 1 << 16;

/// An inode, as far as one answer goes.
#[derive(Debug)]
pub(crate) struct Object {
    /// Which of the inodes asked for.
    pub(crate) index: usize,
    /// What it is; none if that cannot be read.
    pub(crate) attributes: Option<Attributes>,
    /// Its extended attributes: names and values.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Why some of them cannot be read.
    pub(crate) unread: Vec<i32>,
    /// The begin of its content.
    pub(crate) part: Part,
}

/// A place in a content, and the bytes from there on.
pub(crate) type Data = (u64, Vec<u8>);

/// A part of a content.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Places and bytes. They rise; what lies between them reads as zeros.
    pub(crate) data: Vec<Data>,
    /// Whether this is the last part.
    pub(crate) end: Option<End>,
}

/// How a content ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// That was all.
    Whole,
    /// The rest cannot be read: the error number.
    Broken(i32),
}

/// What was said in words, as the reason of a failure.
pub(crate) fn reason(errno: i32) -> String {
    words(Errno::from_raw_os_error(errno.clamp(1, 4095)))
}

/// Inodes that are being asked for.
pub(crate) struct Gathering {
    inodes: Vec<u32>,
    /// Of the last answer, what nobody took yet.
    pieces: VecDeque<Piece>,
    /// To which inode these belong.
    current: usize,
    /// Where the next answer begins.
    check: Check,
    idle: u32,
    /// The next question was asked.
    asked: bool,
    /// The content that was given last goes on.
    open: bool,
}

impl Gathering {
    /// Of these inodes, at most [`MOST_INODES`], in this order.
    pub(crate) fn new(inodes: Vec<u32>) -> Self {
        debug_assert!(inodes.len() <= MOST_INODES);
        let check = Check { index: 0, stage: Stage::New };
        Self { inodes, pieces: VecDeque::new(), current: 0, check, idle: 0, asked: false, open: false }
    }

    /// The next inode; none behind the last. What was not taken of the one before is skipped.
    pub(crate) fn next(&mut self, image: &mut Image<'_>) -> Result<Option<Object>, Failure> {
        if self.open {
            self.skip(image)?;
        }
        if self.current >= self.inodes.len() {
            return Ok(None);
        }
        let (xattrs, unread, part) = (vec![], vec![], Part::default());
        let mut object = Object { index: self.current, attributes: None, xattrs, unread, part };
        loop {
            while let Some(piece) = self.pieces.pop_front() {
                match piece {
                    Piece::Inode(attributes) => object.attributes = Some(attributes),
                    Piece::Attribute { name, value } => object.xattrs.push((name, value)),
                    Piece::Unread(errno) => object.unread.push(errno),
                    content => {
                        self.pieces.push_front(content);
                        object.part = self.part();
                        return Ok(Some(object));
                    }
                }
            }
            self.fetch(image)?;
        }
    }

    /// More of the content of the inode that came last, which did not end yet.
    pub(crate) fn more(&mut self, image: &mut Image<'_>) -> Result<Part, Failure> {
        if self.pieces.is_empty() {
            self.fetch(image)?;
        }
        Ok(self.part())
    }

    fn skip(&mut self, image: &mut Image<'_>) -> Result<(), Failure> {
        image.forget()?;
        (self.asked, self.open) = (false, false);
        self.pieces.clear();
        self.current += 1;
        self.check = Check { index: self.current, stage: Stage::New };
        Ok(())
    }

    /// What is at hand of a content.
    fn part(&mut self) -> Part {
        let mut part = Part::default();
        self.open = true;
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Data { offset, bytes } => part.data.push((offset, bytes)),
                Piece::End(error) => {
                    self.current += 1;
                    self.open = false;
                    part.end = Some(error.map_or(End::Whole, End::Broken));
                    break;
                }
                // It is known by what comes behind it.
                Piece::Hole(_) => {}
                Piece::Inode(_) | Piece::Attribute { .. } | Piece::Unread(_) => debug_assert!(false, "was checked"),
            }
        }
        part
    }

    fn fetch(&mut self, image: &mut Image<'_>) -> Result<(), Failure> {
        let answer = if self.asked { image.hear_ahead()? } else { image.ask(&self.question())? };
        self.asked = false;
        let Answer::Gathered(pieces) = answer else {
            return Err(Failure::system("the worker answered another question"));
        };
        let goes_on = pieces.iter().any(|piece| matches!(piece, Piece::Data { .. } | Piece::End(_)));
        self.idle = if goes_on { 0 } else { self.idle + 1 };
        if pieces.is_empty() || self.idle > MOST_IDLE {
            return Err(Failure::system("the worker does not come to an end"));
        }
        for piece in &pieces {
            let sound = self.check.index < self.inodes.len() && self.check.take(piece);
            sound.then_some(()).ok_or_else(|| Failure::system("the worker told of what cannot be a file"))?;
        }
        if self.check.index < self.inodes.len() {
            image.ask_ahead(&self.question())?;
            self.asked = true;
        }
        self.pieces = pieces.into();
        Ok(())
    }

    fn question(&self) -> Ask {
        let begin = match self.check.stage {
            Stage::New => Begin::Whole,
            Stage::Attributes { count, .. } => Begin::Attributes(count),
            Stage::Content { at, .. } => Begin::Content(at),
        };
        Ask::Gather { inodes: self.inodes[self.check.index..].to_vec(), begin }
    }
}

/// What may come next.
#[derive(Debug)]
struct Check {
    index: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    New,
    Attributes { count: u32, bytes: usize, length: u64, link: bool },
    Content { at: u64, length: u64, link: bool },
}

impl Check {
    /// Whether this piece may come here. It is what comes before the next.
    fn take(&mut self, piece: &Piece) -> bool {
        let next = match (self.stage, piece) {
            (Stage::New, Piece::Inode(attributes)) => begun(attributes),
            (Stage::New, Piece::End(Some(_))) => Some(Stage::New),
            (Stage::New, _) => None,
            (Stage::Attributes { count, bytes, length, link }, Piece::Attribute { name, value }) => {
                let bytes = bytes + name.len() + value.len();
                let sound = (1..=255).contains(&name.len())
                    && !name.contains(&0)
                    && value.len() <= LONGEST_VALUE
                    && bytes <= MOST_ATTRIBUTES;
                sound.then_some(Stage::Attributes { count: count + 1, bytes, length, link })
            }
            (Stage::Attributes { count, bytes, length, link }, Piece::Unread(_)) => {
                // Each counts, so that their number has a bound.
                let bytes = bytes + 256;
                (bytes <= MOST_ATTRIBUTES).then_some(Stage::Attributes { count: count + 1, bytes, length, link })
            }
            (Stage::Attributes { length, link, .. }, piece) => content(0, length, link, piece),
            (Stage::Content { at, length, link }, piece) => content(at, length, link, piece),
        };
        let Some(next) = next else { return false };
        self.stage = next;
        if matches!(piece, Piece::End(_)) {
            (self.index, self.stage) = (self.index + 1, Stage::New);
        }
        true
    }
}

/// What comes behind the attributes of an inode, if they can be.
fn begun(attributes: &Attributes) -> Option<Stage> {
    let times = [attributes.atime, attributes.mtime, attributes.ctime];
    let kind = u32::from(attributes.mode) & libc::S_IFMT;
    let (length, link) = match kind {
        libc::S_IFREG => (attributes.size, false),
        libc::S_IFLNK => (LONGEST_TARGET, true),
        libc::S_IFDIR | libc::S_IFCHR | libc::S_IFBLK | libc::S_IFIFO | libc::S_IFSOCK => (0, false),
        _ => return None,
    };
    let sound = times.iter().all(|time| time.nanoseconds < 1_000_000_000);
    sound.then_some(Stage::Attributes { count: 0, bytes: 0, length, link })
}

/// What comes behind a piece of content, if it lies behind `at` and within `length`.
fn content(at: u64, length: u64, link: bool, piece: &Piece) -> Option<Stage> {
    let at = match piece {
        Piece::Data { offset, bytes } => {
            let end = offset.checked_add(bytes.len() as u64)?;
            let target = !link || *offset == 0 && at == 0 && !bytes.contains(&0);
            (*offset >= at && end <= length && !bytes.is_empty() && target).then_some(end)?
        }
        Piece::Hole(to) => (*to > at && *to <= length && !link).then_some(*to)?,
        // A link leads somewhere.
        Piece::End(error) => (error.is_some() || !link || at > 0).then_some(at)?,
        Piece::Inode(_) | Piece::Attribute { .. } | Piece::Unread(_) => return None,
    };
    Some(Stage::Content { at, length, link })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::message::Time;

    fn attributes(mode: u32, size: u64) -> Attributes {
        let (mode, time) = (mode as u16, Time::default());
        let (atime, mtime, ctime) = (time, time, time);
        let (uid, gid, blocks, rdev, crtime, acl) = (0, 0, 0, 0, None, false);
        Attributes { mode, links: 1, uid, gid, size, blocks, rdev, atime, mtime, ctime, crtime, acl }
    }

    fn inode(mode: u32, size: u64) -> Piece {
        Piece::Inode(attributes(mode, size))
    }

    fn data(offset: u64, length: usize) -> Piece {
        Piece::Data { offset, bytes: vec![1; length] }
    }

    fn attribute(name: &[u8], length: usize) -> Piece {
        Piece::Attribute { name: name.to_vec(), value: vec![0; length] }
    }

    /// How many of these pieces are believed.
    fn believed(pieces: &[Piece]) -> usize {
        let mut check = Check { index: 0, stage: Stage::New };
        pieces.iter().take_while(|piece| check.take(piece)).count()
    }

    #[test]
    fn what_a_sound_worker_says_is_believed() {
        let file = [inode(libc::S_IFREG, 100), attribute(b"user.a", 3), data(0, 10), Piece::Hole(50), data(60, 40)];
        assert_eq!(believed(&file), file.len());
        let several = [
            Piece::End(Some(5)),
            inode(libc::S_IFDIR, 4096),
            Piece::Unread(74),
            Piece::End(None),
            inode(libc::S_IFLNK, 9),
            data(0, 3),
            Piece::End(None),
            inode(libc::S_IFREG, 5),
            Piece::End(None),
        ];
        assert_eq!(believed(&several), several.len());
    }

    #[test]
    fn what_cannot_be_is_not() {
        let lies: [&[Piece]; 16] = [
            &[data(0, 1)],
            &[Piece::End(None)],
            &[inode(0, 1)],
            &[inode(libc::S_IFREG, 10), data(0, 11)],
            &[inode(libc::S_IFREG, 10), data(u64::MAX, 1)],
            &[inode(libc::S_IFREG, 10), data(0, 0)],
            &[inode(libc::S_IFREG, 10), data(4, 2), data(5, 1)],
            &[inode(libc::S_IFREG, 10), Piece::Hole(11)],
            &[inode(libc::S_IFREG, 10), Piece::Hole(5), Piece::Hole(5)],
            &[inode(libc::S_IFREG, 10), data(0, 1), attribute(b"user.a", 1)],
            &[inode(libc::S_IFREG, 10), attribute(b"", 1)],
            &[inode(libc::S_IFREG, 10), attribute(b"user.\0", 1)],
            &[inode(libc::S_IFREG, 10), attribute(b"user.a", LONGEST_VALUE + 1)],
            &[inode(libc::S_IFDIR, 10), data(0, 1)],
            &[inode(libc::S_IFLNK, 10), Piece::End(None)],
            &[inode(libc::S_IFLNK, 10), Piece::Data { offset: 0, bytes: vec![0] }],
        ];
        for lie in lies {
            assert_eq!(believed(lie), lie.len() - 1, "{lie:?}");
        }
        let many: Vec<_> =
            std::iter::once(inode(libc::S_IFREG, 0)).chain((0..5000).map(|_| Piece::Unread(5))).collect();
        assert!(believed(&many) < many.len(), "attributes without end");
    }
}
