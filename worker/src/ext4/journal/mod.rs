//! A journal that was not replayed: read as if it had been, and never written.
//!
//! What always holds here: the device stays as it is. What a replay would write is kept as an [`Overlay`], which says
//! where the newest copy of a block lies; the memory for it is bounded ([`Budget`]), and an image that needs more is
//! refused. On the way of a read this comes once, when the file system is opened: superblock → journal → overlay, then
//! everything is read again through the overlay.
//!
//! - `format`: the structures, big-endian, only there.
//! - `superblock`: the journal's own superblock, checked. `log`: its blocks on the device.
//! - `walk`: the blocks of a transaction, one after the other. `tag`: what a descriptor says.
//! - `recovery`: scan, revoke, replay. `fast_commit`: what follows the log.

mod checksum;
mod fast_commit;
mod format;
mod log;
mod recovery;
mod superblock;
mod tag;
mod walk;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::message::{Refusal, Replayed};

use self::fast_commit::Commits;
pub(super) use self::fast_commit::{Change, Changes};
use self::log::Log;
use super::units::u64_from;
use super::{Filesystem, InodeNumber};
use crate::device::Overlay;
use crate::error::{Error, Result};

/// What a replay would have written.
pub(super) struct Recovered {
    /// The newest copies.
    pub(super) overlay: Overlay,
    replayed: Replayed,
    commits: Option<Commits>,
    budget: Budget,
}

/// Reads the journal of a file system that says it has to be replayed, in at most so many bytes of memory.
///
/// # Errors
/// The journal is not within the file system, or is damaged where the kernel would not replay it either; or the memory
/// is not enough.
pub(super) fn recover(fs: &Filesystem, memory: u64) -> Result<Recovered, Refusal> {
    let mut budget = Budget(memory);
    let log = Log::open(fs, fs.superblock().journal_inode, &mut budget)?;
    let recovery = recovery::run(&log, &mut budget)?;
    let overlay = Overlay::new(fs.superblock().block_size.bytes(), recovery.substitutes);
    let commits = match recovery.next {
        Some(next) => fast_commit::scan(&log, next, &mut budget)?,
        None => None,
    };
    let blocks = u32::try_from(overlay.len()).unwrap_or(u32::MAX);
    let replayed = Replayed { blocks, ..recovery.replayed };
    Ok(Recovered { overlay, replayed, commits, budget })
}

impl Recovered {
    /// Finishes on the file system as it is read through the overlay.
    ///
    /// # Errors
    /// Fast commits that do not fit it, or more of them than there is memory for.
    pub(super) fn finish(mut self, fs: &mut Filesystem) -> Result<Replayed, Refusal> {
        let fast = match &self.commits {
            Some(commits) => fast_commit::apply(fs, commits, &mut self.budget)?,
            None => Replayed::default(),
        };
        let Replayed { fast_commits, fast_changes, .. } = fast;
        Ok(Replayed { fast_commits, fast_changes, ..self.replayed })
    }
}

/// The fewest blocks of a journal that a kernel mounts.
const FEWEST_BLOCKS: u32 = 1024;

/// Checks the inode of a journal, which the superblock names, and the journal's superblock: whether there is something to
/// replay.
///
/// # Errors
/// The rule that is broken; the memory is not enough.
pub(super) fn inspect(fs: &Filesystem, number: Option<InodeNumber>, memory: u64) -> Result<bool> {
    let log = Log::open(fs, number, &mut Budget(memory)).map_err(|refusal| match refusal {
        Refusal::Corrupt(corruption) => Error::Corrupt(corruption),
        Refusal::Checksum(corruption) => Error::Checksum(corruption),
        Refusal::Device { offset } => Error::Device { offset },
        _ => Error::OutOfMemory,
    })?;
    if log.superblock.users > 1 {
        return Err(Error::corrupt(Rule::JournalAlone, Place::Journal(0)));
    }
    if log.blocks < FEWEST_BLOCKS {
        return Err(Error::corrupt(Rule::JournalLength, Place::Journal(0)));
    }
    Ok(log.superblock.start.is_some())
}

/// Whether the journal's superblock lacks nothing but a place where the log begins.
pub(super) fn begins_nowhere(fs: &Filesystem, number: Option<InodeNumber>) -> bool {
    let Some(inode) = number.and_then(|number| fs.any_inode(number).ok()) else { return false };
    let size = fs.superblock().block_size;
    let mut bytes = vec![0; size.length()];
    let blocks = inode.size.checked_shr(size.bits().into()).unwrap_or(0);
    let (length, users) = match fs.read(&inode, 0, &mut bytes) {
        Ok(_) => superblock::length_and_users(&bytes),
        Err(_) => return false,
    };
    u64::from(length) <= blocks && blocks >= FEWEST_BLOCKS.into() && users <= 1
}

/// Bytes of memory that may still be taken.
pub(super) struct Budget(u64);

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.0 = self.0.checked_sub(u64_from(bytes)).ok_or(Refusal::OutOfMemory)?;
        Ok(())
    }

    /// Room for so many elements, and half of it again for as long as they are sorted.
    fn vector<T>(&mut self, length: usize) -> Result<Vec<T>, Refusal> {
        let bytes = length.checked_mul(size_of::<T>()).ok_or(Refusal::OutOfMemory)?;
        self.spend(bytes.saturating_add(bytes >> 1))?;
        let mut vector = Vec::new();
        vector.try_reserve_exact(length).map_err(|_| Refusal::OutOfMemory)?;
        Ok(vector)
    }

    /// Appends an element. A vector that is full doubles, and for a moment exists twice.
    fn push<T>(&mut self, vector: &mut Vec<T>, element: T) -> Result<(), Refusal> {
        if vector.len() == vector.capacity() {
            let more = vector.len().max(64);
            self.spend(more.saturating_mul(size_of::<T>()).saturating_mul(2))?;
            vector.try_reserve_exact(more).map_err(|_| Refusal::OutOfMemory)?;
        }
        vector.push(element);
        Ok(())
    }

    /// Appends bytes, likewise.
    fn append(&mut self, vector: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
        let room = vector.capacity().saturating_sub(vector.len());
        if room < bytes.len() {
            let more = vector.len().max(bytes.len());
            self.spend(more.saturating_mul(2))?;
            vector.try_reserve_exact(more).map_err(|_| Refusal::OutOfMemory)?;
        }
        vector.extend_from_slice(bytes);
        Ok(())
    }
}
