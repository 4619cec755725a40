//! THE mapping: where the bytes of a file lie on the device. Read, iomap, bmap and the search for holes all ask here.
//!
//! The answer is one run that begins at the byte asked for. Neighbours that lie one behind the other on the device are
//! joined, as far as a fixed number of steps goes; whoever wants more asks again behind the run's end. A run of data
//! lies within the file system and outside its own structures, and the device is as long: that was checked beneath.

use super::Filesystem;
use super::budget::Budget;
use super::inode::{FileKind, Inode, InodeFlags};
use super::journal::Change;
use super::units::{BlockNumber, ByteOffset, FileOffset, LogicalBlock};
use super::{extent, indirect};
use crate::error::{Error, Result};

/// How many runs one call joins at the most.
const MOST_JOINED: u32 = 64;
/// What looking for a block in a map of pointers costs. Bytes of a [`Budget`].
const A_ROW: u64 = 1024;

/// Where a range of a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The byte asked for.
    pub offset: FileOffset,
    /// How many bytes from there on: at least 1, unless none was asked for, and never more than was asked for.
    pub length: u64,
    /// Where they are.
    pub kind: MappingKind,
}

/// What is at a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// Data, in one piece, from this byte of the device on.
    Data(ByteOffset),
    /// Space is taken from this byte of the device on, but nothing was ever written to it: it reads as zeros.
    Unwritten(ByteOffset),
    /// Nothing: it reads as zeros.
    Hole,
    /// Data within the inode: it is on the device, but not in blocks of its own.
    Inline,
}

/// Blocks of a file in one piece, as the maps give them: `first` is the block asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How many blocks from the one asked for: at least 1.
    pub(super) blocks: u64,
    /// Where they are.
    pub(super) kind: RunKind,
}

/// What a run of blocks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunKind {
    Data(BlockNumber),
    Unwritten(BlockNumber),
    Hole,
}

/// A piece of a file's whole map, as `check` walks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The first block of the file that it is about.
    pub(super) first: u64,
    /// Where it begins on the device.
    pub(super) start: BlockNumber,
    /// How many blocks it has.
    pub(super) count: u64,
    pub(super) kind: PartKind,
}

/// What a piece of a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    /// A block of the map itself.
    Map,
    Data,
    Unwritten,
}

impl RunKind {
    /// Whether another run, so many blocks further on, goes on with this one.
    fn goes_on(self, blocks: u64, next: Self) -> bool {
        match (self, next) {
            (Self::Data(here), Self::Data(there)) | (Self::Unwritten(here), Self::Unwritten(there)) => {
                here.0.checked_add(blocks) == Some(there.0)
            }
            (Self::Hole, Self::Hole) => true,
            _ => false,
        }
    }

    /// The same, so many blocks further on.
    pub(super) fn advanced(self, blocks: u64) -> Self {
        let further = |start: BlockNumber| BlockNumber(start.0.saturating_add(blocks));
        match self {
            Self::Data(start) => Self::Data(further(start)),
            Self::Unwritten(start) => Self::Unwritten(further(start)),
            Self::Hole => Self::Hole,
        }
    }
}

impl Filesystem {
    /// The run of a file that begins at `offset`, at most `length` bytes of it. It does not end at the end of the file:
    /// there may be space behind it.
    ///
    /// # Errors
    /// A file without a map, such as a device: [`Error::Invalid`]. A map that breaks a rule on the way to this offset: [`Error::Corrupt`], [`Error::Checksum`]. Other parts of
    /// the same file may still be found.
    pub fn map(&self, inode: &Inode, offset: FileOffset, length: u64) -> Result<Mapping> {
        self.map_within(inode, offset, length, &mut self.budget())
    }

    /// As [`Self::map`], for one who maps more than once in a request.
    ///
    /// # Errors
    /// Besides, when the budget is used up: [`Error::Budget`].
    pub fn map_within(&self, inode: &Inode, offset: FileOffset, length: u64, budget: &mut Budget) -> Result<Mapping> {
        let size = self.superblock().block_size;
        let mapped = matches!(inode.kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink);
        if !mapped || inode.is_fast_symlink(self.superblock()) {
            return Err(Error::Invalid);
        }
        self.check_key(inode)?;
        if inode.flags.contains(InodeFlags::INLINE_DATA) {
            return self.map_inline(inode, offset, length);
        }
        let hole = Mapping { offset, length, kind: MappingKind::Hole };
        let Some(first) = size.logical_block(offset) else { return Ok(hole) };
        if length == 0 {
            return Ok(hole);
        }
        let within = u64::from(size.within_block(offset));
        let wanted = size.blocks_for(length.saturating_add(within));
        let run = self.joined(inode, first, wanted, budget)?;

        let bytes = size.bytes_of(run.blocks).unwrap_or(u64::MAX).saturating_sub(within);
        // No block lies beyond the last that can be counted: from there on is a hole without end.
        let to_the_end = u64::from(first.0).saturating_add(run.blocks) > u64::from(u32::MAX);
        let length = if to_the_end && run.kind == RunKind::Hole { length } else { length.min(bytes) };
        let place = |block| {
            let start = size.byte_offset(block).and_then(|start| start.0.checked_add(within));
            start.map(ByteOffset).ok_or(Error::Invalid)
        };
        let kind = match run.kind {
            RunKind::Unwritten(block) => MappingKind::Unwritten(place(block)?),
            RunKind::Hole => MappingKind::Hole,
            RunKind::Data(block) => MappingKind::Data(place(block)?),
        };
        Ok(Mapping { offset, length, kind })
    }

    /// The longest that a file can be whose map is of this inode's kind: `s_maxbytes` and its like for block maps. Bytes.
    pub fn longest(&self, inode: &Inode) -> u64 {
        let size = self.superblock().block_size;
        let blocks = if inode.flags.contains(InodeFlags::EXTENTS) {
            u32::MAX.into()
        } else {
            indirect::reach(size).min(u32::MAX.into())
        };
        size.bytes_of(blocks).unwrap_or(u64::MAX)
    }

    /// The longest that any file can be: `s_maxbytes`. Bytes.
    pub fn longest_of_all(&self) -> u64 {
        self.superblock().block_size.bytes_of(u32::MAX.into()).unwrap_or(u64::MAX)
    }

    fn joined(&self, inode: &Inode, first: LogicalBlock, wanted: u64, budget: &mut Budget) -> Result<Run> {
        let mut run = self.run(inode, first, wanted, budget)?;
        for _ in 1..MOST_JOINED {
            let left = wanted.saturating_sub(run.blocks);
            let next = u64::from(first.0).saturating_add(run.blocks);
            let Some(next) = u32::try_from(next).ok().filter(|_| left > 0) else { break };
            // An error behind this run belongs to whoever asks for what is there.
            match self.run(inode, LogicalBlock(next), left, budget) {
                Ok(more) if run.kind.goes_on(run.blocks, more.kind) => {
                    run.blocks = run.blocks.saturating_add(more.blocks);
                }
                _ => break,
            }
        }
        Ok(run)
    }

    /// One run of the map itself; `wanted` only says how far looking is worth while.
    fn run(&self, inode: &Inode, block: LogicalBlock, wanted: u64, budget: &mut Budget) -> Result<Run> {
        let unchanged = match self.changes.of(inode.number, block) {
            Change::To(run) => return Ok(run),
            Change::None(blocks) => blocks,
        };
        let run = if inode.flags.contains(InodeFlags::EXTENTS) {
            extent::find(self, inode, block, budget)
        } else {
            budget.spend(A_ROW)?;
            indirect::find(self, inode, block, wanted)
        }?;
        Ok(Run { blocks: run.blocks.min(unchanged), ..run })
    }
}
