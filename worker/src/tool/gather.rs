//! Whole files over the channel: what each is, its extended attributes, its content, as far as one answer goes.
//!
//! What holds here: an answer has its room and its budget, whatever the image says, and every answer goes on by at least
//! one piece, so that whoever asks again comes to an end. What cannot be read of a file ends that file and no other.

use std::ops::ControlFlow;

use lazaret_policy::gather::{Begin, MOST_INODES, MOST_RUNS, Piece};
use lazaret_policy::message::{Answer, Range, Xattrs};

use super::{attributes, errno};
use crate::error::{Error, Result};
use crate::ext4::budget::Budget;
use crate::ext4::{FileKind, FileOffset, Filesystem, Inode, InodeNumber, Mapping, MappingKind};

/// How often one answer asks where a file lies.
const MOST_STEPS: u32 = 1024;
/// A shorter part of a file's content waits for the next answer, if more of it is to come.
const LEAST: u64 = 4096;

/// As much of these inodes as one answer holds.
pub(super) fn gather(filesystem: &Filesystem, shown: Xattrs, inodes: &[u32], mut begin: Begin) -> Answer {
    let (room, steps) = (Answer::CHUNK, MOST_STEPS);
    let mut bag = Bag { filesystem, shown, pieces: Vec::new(), room, steps, budget: filesystem.budget() };
    for &number in inodes.iter().take(MOST_INODES) {
        if bag.inode(number, begin).is_break() {
            break;
        }
        begin = Begin::Whole;
    }
    Answer::Gathered(bag.pieces)
}

/// Where a file holds data, from this byte on, as far as one answer goes.
pub(super) fn runs(filesystem: &Filesystem, inode: &Inode, mut offset: u64) -> Result<Answer> {
    if inode.kind != FileKind::Regular {
        return Err(Error::Invalid);
    }
    let (mut runs, mut budget) = (Vec::<Range>::new(), filesystem.budget());
    for step in 0..MOST_RUNS {
        if offset >= inode.size {
            return Ok(Answer::Runs { runs, next: None });
        }
        let mapping = match run(filesystem, inode, offset, &mut budget) {
            Ok(mapping) => mapping,
            // Those before are told first; whoever goes on after them gets the error.
            Err(error) if step == 0 => return Err(error),
            Err(_) => break,
        };
        let end = offset.saturating_add(mapping.length.max(1));
        if is_data(&mapping) {
            match runs.last_mut() {
                Some(last) if last.offset.saturating_add(last.length) == offset => {
                    last.length = last.length.saturating_add(mapping.length);
                }
                _ => runs.push(Range { offset, length: mapping.length }),
            }
        }
        offset = end;
    }
    Ok(Answer::Runs { runs, next: Some(offset) })
}

/// What is at a byte of a file, and for how far. A hole in what is to be checked against a Merkle tree is checked, too.
fn run(filesystem: &Filesystem, inode: &Inode, offset: u64, budget: &mut Budget) -> Result<Mapping> {
    let left = inode.size.saturating_sub(offset);
    if filesystem.is_sealed(inode) {
        return Ok(Mapping { offset: FileOffset(offset), length: left, kind: MappingKind::Inline });
    }
    filesystem.map_within(inode, FileOffset(offset), left, budget)
}

fn is_data(mapping: &Mapping) -> bool {
    matches!(mapping.kind, MappingKind::Data(_) | MappingKind::Inline)
}

/// An answer that is being filled. To break is to end it.
struct Bag<'a> {
    filesystem: &'a Filesystem,
    shown: Xattrs,
    pieces: Vec<Piece>,
    room: usize,
    steps: u32,
    budget: Budget,
}

impl Bag<'_> {
    fn inode(&mut self, number: u32, begin: Begin) -> ControlFlow<()> {
        // The end of what was begun has its room in any case.
        self.take(Piece::INODE.saturating_add(Piece::NUMBERS))?;
        let found = InodeNumber::new(number).ok_or(Error::NotFound).and_then(|number| self.filesystem.inode(number));
        let inode = match found {
            Ok(inode) => inode,
            Err(error) => return self.end(Some(error)),
        };
        if begin == Begin::Whole {
            self.pieces.push(Piece::Inode(attributes(self.filesystem, &inode)));
        }
        match begin {
            Begin::Whole => self.attributes(&inode, 0)?,
            Begin::Attributes(known) => self.attributes(&inode, known)?,
            Begin::Content(_) => {}
        }
        let from = if let Begin::Content(from) = begin { from } else { 0 };
        match inode.kind {
            FileKind::Regular => self.content(&inode, from),
            FileKind::Symlink => self.target(&inode),
            _ => self.end(None),
        }
    }

    /// One piece for each attribute behind those that are known, and one if there may be more that cannot be listed.
    fn attributes(&mut self, inode: &Inode, known: u32) -> ControlFlow<()> {
        let mut names = Vec::new();
        let listed = self.filesystem.xattrs(inode, &mut |xattr| {
            if xattr.namespace.is_shown(self.shown) {
                names.push([xattr.namespace.prefix().as_bytes(), xattr.name].concat());
            }
            ControlFlow::Continue(())
        });
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        for name in names.iter().skip(known) {
            let piece = match self.filesystem.xattr(inode, name) {
                Ok(value) => Piece::Attribute { name: name.clone(), value: value.unwrap_or_default() },
                Err(error) => Piece::Unread(errno(&error)),
            };
            let carried = if let Piece::Attribute { value, .. } = &piece { value.len() } else { 0 };
            self.take(Piece::NUMBERS.saturating_add(name.len()).saturating_add(carried))?;
            self.pieces.push(piece);
        }
        match listed {
            Err(error) if known <= names.len() => {
                self.take(Piece::NUMBERS)?;
                self.pieces.push(Piece::Unread(errno(&error)));
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn target(&mut self, link: &Inode) -> ControlFlow<()> {
        match self.filesystem.read_link(link) {
            Ok(bytes) => {
                self.take(Piece::NUMBERS.saturating_add(bytes.len()))?;
                self.pieces.push(Piece::Data { offset: 0, bytes });
                self.end(None)
            }
            Err(error) => self.end(Some(error)),
        }
    }

    fn content(&mut self, inode: &Inode, from: u64) -> ControlFlow<()> {
        let (mut at, mut told) = (from, from);
        while at < inode.size {
            let left = inode.size.saturating_sub(at);
            let room = u64::try_from(self.room.saturating_sub(Piece::NUMBERS.saturating_mul(2))).unwrap_or(0);
            let step = self.steps.checked_sub(1).filter(|_| room >= left.min(LEAST));
            let Some(step) = step else { return self.pause(at, told) };
            self.steps = step;
            let mapping = match run(self.filesystem, inode, at, &mut self.budget) {
                Ok(mapping) => mapping,
                // There was much to look at before this.
                Err(Error::Budget) if !self.pieces.is_empty() || at > told => return self.pause(at, told),
                Err(error) => return self.end(Some(error)),
            };
            if !is_data(&mapping) {
                at = at.saturating_add(mapping.length.max(1));
                continue;
            }
            let (bytes, error) = self.read(inode, at, mapping.length.min(room));
            if !bytes.is_empty() {
                let offset = at;
                at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
                told = at;
                self.take(Piece::NUMBERS.saturating_add(bytes.len()))?;
                self.pieces.push(Piece::Data { offset, bytes });
            }
            if let Some(error) = error {
                return self.end(Some(error));
            }
        }
        self.end(None)
    }

    /// The bytes of a file, or those before the first that cannot be read.
    fn read(&self, inode: &Inode, at: u64, length: u64) -> (Vec<u8>, Option<Error>) {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let Err(whole) = self.filesystem.read(inode, at, &mut bytes) else { return (bytes, None) };
        let block = usize::try_from(self.filesystem.superblock().block_size.bytes()).unwrap_or(usize::MAX);
        let mut good = 0_usize;
        // The first part ends where a block does, the others are blocks.
        let within = usize::try_from(at).unwrap_or(0).checked_rem(block).unwrap_or(0);
        let mut end = block.saturating_sub(within);
        let error = loop {
            let end_of_part = end.min(bytes.len());
            let Some(part) = bytes.get_mut(good..end_of_part).filter(|part| !part.is_empty()) else { break whole };
            let offset = at.saturating_add(u64::try_from(good).unwrap_or(0));
            if let Err(error) = self.filesystem.read(inode, offset, part) {
                break error;
            }
            good = end_of_part;
            end = end.saturating_add(block);
        };
        bytes.truncate(good);
        (bytes, Some(error))
    }

    /// The answer ends within a file, which was looked at up to `at` and told up to `told`.
    fn pause(&mut self, at: u64, told: u64) -> ControlFlow<()> {
        if at > told {
            self.pieces.push(Piece::Hole(at));
        }
        ControlFlow::Break(())
    }

    fn end(&mut self, error: Option<Error>) -> ControlFlow<()> {
        self.pieces.push(Piece::End(error.map(|error| errno(&error))));
        ControlFlow::Continue(())
    }

    fn take(&mut self, bytes: usize) -> ControlFlow<()> {
        match self.room.checked_sub(bytes) {
            Some(left) => {
                self.room = left;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        }
    }
}
