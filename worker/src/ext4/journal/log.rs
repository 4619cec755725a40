//! The journal as an array of blocks: where each lies on the device, and reading one.
//!
//! What always holds here: every block below the journal's length is mapped, by at most [`MOST_RUNS`] runs, and a block
//! is read as it lies on the device. However long the journal says it is, no more of it is looked at than [`MOST_BYTES`].
//! It stands between recovery and the device.

use std::cell::Cell;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::message::Refusal;

use super::Budget;
use super::superblock::Superblock;
use crate::error::{Error, Result};
use crate::ext4::budget::Budget as Work;
use crate::ext4::units::{ByteOffset, FileOffset, JournalBlock, u64_from, usize_from};
use crate::ext4::{FileKind, Filesystem, Inode, InodeNumber, MappingKind};

/// The most runs that a journal may lie in. mke2fs makes it in one piece where it can.
const MOST_RUNS: usize = 1 << 16;
/// How many bytes of a journal are read: four times the longest that mke2fs makes with blocks of 4 KiB, and a second's
/// work. A bound of this reader.
const MOST_BYTES: u64 = 4 << 30;

/// A journal whose superblock was checked.
pub(super) struct Log<'a> {
    pub(super) fs: &'a Filesystem,
    pub(super) superblock: Superblock,
    /// Blocks of its inode.
    pub(super) blocks: u32,
    /// Rising and without a gap.
    runs: Vec<Run>,
    /// Bytes that may still be read.
    left: Cell<u64>,
}

/// Blocks of the journal in one piece.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    start: ByteOffset,
}

impl<'a> Log<'a> {
    /// The journal in this inode, which the file system's superblock names.
    pub(super) fn open(fs: &'a Filesystem, number: Option<InodeNumber>, budget: &mut Budget) -> Result<Self, Refusal> {
        let number = number.ok_or(Error::corrupt(Rule::JournalInside, Place::Superblock))?;
        let inode = fs.any_inode(number)?;
        let broken = Error::corrupt(Rule::JournalInode, Place::Inode(number.value()));
        let size = fs.superblock().block_size;
        if inode.kind != FileKind::Regular || inode.size < size.bytes().into() {
            return Err(broken.into());
        }
        // What is beyond 2^32 blocks cannot be named.
        let blocks = inode.size.checked_shr(size.bits().into()).unwrap_or(0);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);

        let mut bytes = vec![0; size.length()];
        fs.read(&inode, 0, &mut bytes)?;
        let superblock = Superblock::check(&bytes, size, blocks, fs.verifier())?;
        let length = superblock.fast.end.max(superblock.log.end);
        let runs = runs(fs, &inode, length, budget)?;
        Ok(Self { fs, superblock, blocks, runs, left: Cell::new(MOST_BYTES) })
    }

    /// Copies a block out of the journal.
    pub(super) fn read(&self, block: JournalBlock, out: &mut [u8]) -> Result<()> {
        self.spend(block, out.len())?;
        self.fs.device().read_at(self.address(block)?.0, out)
    }

    /// So many bytes of this block come into a sum of version 1, which takes several times as long as to read them.
    pub(super) fn spend_on_sum(&self, block: JournalBlock, bytes: usize) -> Result<()> {
        self.spend(block, bytes.saturating_mul(4))
    }

    /// So many bytes are worked on, which stand in this block.
    fn spend(&self, block: JournalBlock, bytes: usize) -> Result<()> {
        let left = self.left.get().checked_sub(u64_from(bytes));
        self.left.set(left.ok_or(Error::corrupt(Rule::JournalWork, Place::Journal(block.0)))?);
        Ok(())
    }

    /// Where a block of the journal lies.
    pub(super) fn address(&self, block: JournalBlock) -> Result<ByteOffset> {
        let broken = Error::corrupt(Rule::JournalInode, Place::Journal(block.0));
        let behind = self.runs.partition_point(|run| run.first <= block.0);
        let run = behind.checked_sub(1).and_then(|index| self.runs.get(index)).ok_or(broken)?;
        let within = self.fs.superblock().block_size.bytes_of(block.0.saturating_sub(run.first).into());
        let address = within.and_then(|within| run.start.0.checked_add(within));
        address.map(ByteOffset).ok_or(broken)
    }

    /// A buffer for one block.
    pub(super) fn buffer(&self) -> Vec<u8> {
        vec![0; usize_from(self.fs.superblock().block_size.bytes())]
    }
}

/// Where the first so many blocks of the journal lie.
fn runs(fs: &Filesystem, inode: &Inode, length: u32, budget: &mut Budget) -> Result<Vec<Run>, Refusal> {
    let size = fs.superblock().block_size;
    let broken = Error::corrupt(Rule::JournalInode, Place::Inode(inode.number.value()));
    let end = size.bytes_of(length.into()).ok_or(broken)?;
    let (mut runs, mut offset, mut work) = (Vec::new(), 0, Work::new());
    while offset < end {
        let mapping = match fs.map_within(inode, FileOffset(offset), end.saturating_sub(offset), &mut work) {
            Err(Error::Budget) => {
                return Err(Error::corrupt(Rule::JournalWork, Place::Inode(inode.number.value())).into());
            }
            mapping => mapping?,
        };
        let MappingKind::Data(start) = mapping.kind else { return Err(broken.into()) };
        if mapping.length == 0 || runs.len() >= MOST_RUNS {
            return Err(broken.into());
        }
        budget.spend(size_of::<Run>().saturating_mul(2))?;
        let first = offset.checked_shr(size.bits().into()).and_then(|first| u32::try_from(first).ok()).ok_or(broken)?;
        runs.push(Run { first, start });
        offset = offset.saturating_add(mapping.length);
    }
    Ok(runs)
}
