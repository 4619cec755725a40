//! Fast commits: small changes since the last transaction, in a room of their own behind the log.
//!
//! What always holds here: they count only if they belong to the transaction that would have come next, and only up to
//! the last tail with the right checksum. Nothing is written: inodes and directories that they change become blocks in
//! memory over the device's own, the data of files a list of ranges ([`Changes`]) before the files' own maps. That way
//! everything that reads an inode or a directory sees what a replay would have written, and needs not know of it.
//!
//! - `tag`: what is on the disk. `replay`: the tags one after the other, as changes of inodes, ranges and names.
//! - `directory`: names become blocks. `ranges`: where the data of a file is now.

mod directory;
mod ranges;
mod replay;
mod tag;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::message::{Refusal, Replayed};

pub(in crate::ext4) use self::ranges::{Change, Changes};
use self::tag::Tag;
use super::Budget;
use super::log::Log;
use crate::error::Error;
use crate::ext4::Filesystem;
use crate::ext4::checksum::crc32c;
use crate::ext4::units::{JournalBlock, TransactionId};

/// The tags of all fast commits that count, one after the other.
pub(super) struct Commits {
    tags: Vec<u8>,
    count: u32,
    /// Where they begin, for whoever has to say where something is wrong.
    place: Place,
}

/// Finds the fast commits that follow the last transaction; none if there are none.
///
/// # Errors
/// There are some, and the first is cut short or damaged: the kernel does not mount such a file system either.
pub(super) fn scan(log: &Log<'_>, next: TransactionId, budget: &mut Budget) -> Result<Option<Commits>, Refusal> {
    let blocks = log.superblock.fast.clone();
    let place = Place::Journal(blocks.start);
    let mut scan = Scan { next, commits: Commits { tags: Vec::new(), count: 0, place }, valid: 0, crc: 0 };
    let mut bytes = log.buffer();
    for block in blocks.clone() {
        log.read(JournalBlock(block), &mut bytes)?;
        let inode_size = log.fs.superblock().inode_size;
        let is_head = || matches!(tag::first(&bytes, inode_size), Some((Tag::Head { .. }, ..)));
        if block == blocks.start && !is_head() {
            return Ok(None);
        }
        match scan.block(&bytes, inode_size, budget)? {
            Next::GoOn => (),
            Next::End => break,
            Next::Broken => {
                log.fs.verifier().judge(scan.commits.count > 0, Rule::FastCommitTail, Place::Journal(block))?;
                break;
            }
        }
    }
    scan.commits.tags.truncate(scan.valid);
    Ok(Some(scan.commits).filter(|commits| commits.count > 0))
}

/// Makes the file system show what fast commits say. What was replayed, in numbers.
pub(super) fn apply(fs: &mut Filesystem, commits: &Commits, budget: &mut Budget) -> Result<Replayed, Refusal> {
    let mut replay = replay::Replay::new(fs, budget, commits.place);
    let inode_size = fs.superblock().inode_size;
    let (mut rest, mut changes) = (&commits.tags[..], 0_u32);
    while let Some((tag, _, after)) = tag::first(rest, inode_size) {
        replay.tag(&tag)?;
        changes = changes.saturating_add(1);
        rest = after;
    }
    let (blocks, ranges) = replay.finish()?;
    fs.device.own(fs.superblock.block_size.bytes(), blocks);
    fs.changes = ranges;
    Ok(Replayed { fast_commits: commits.count, fast_changes: changes, ..Replayed::default() })
}

/// What has been found so far.
struct Scan {
    next: TransactionId,
    commits: Commits,
    /// How many bytes of tags belong to fast commits with a tail.
    valid: usize,
    /// Of the tags since the last tail.
    crc: u32,
}

/// What follows a block of fast commits.
enum Next {
    /// Another may.
    GoOn,
    /// The end, in order.
    End,
    /// The end, in the middle of a fast commit.
    Broken,
}

impl Scan {
    fn block(&mut self, bytes: &[u8], inode_size: u16, budget: &mut Budget) -> Result<Next, Refusal> {
        let mut rest = bytes;
        // What the next tail covers of this block begins here, and comes into the checksum in one piece.
        let mut open = bytes;
        let until = |open: &[u8], rest: &[u8]| open.len().saturating_sub(rest.len());
        // What is left of a block after its last tag is too short for another.
        while rest.len() >= 4 {
            let Some((tag, whole, after)) = tag::first(rest, inode_size) else { return Ok(Next::Broken) };
            match tag {
                Tag::Head { transaction, .. } if transaction != self.next => return Ok(Next::End),
                Tag::Head { features, .. } if features != 0 => {
                    return Err(Error::corrupt(Rule::FastCommitFeatures, self.commits.place).into());
                }
                Tag::Tail { transaction, crc } => {
                    let covered = until(open, rest).saturating_add(tag::TAIL_COVERED);
                    let covered = open.get(..covered).unwrap_or_default();
                    if transaction != self.next || crc != crc32c(self.crc, covered) {
                        return Ok(Next::Broken);
                    }
                    (self.crc, open) = (0, after);
                    self.commits.count = self.commits.count.saturating_add(1);
                    self.valid = self.commits.tags.len();
                }
                Tag::Head { .. } | Tag::Pad => (),
                _ => budget.append(&mut self.commits.tags, whole)?,
            }
            rest = after;
        }
        self.crc = crc32c(self.crc, open.get(..until(open, rest)).unwrap_or_default());
        Ok(Next::GoOn)
    }
}
