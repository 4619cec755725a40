//! What `statfs` says: the counts that the kernel's own mount would show, to the block.
//!
//! They come from the one pass over the group descriptors at opening, not from the superblock, which is allowed to lag
//! behind. Without clusters what is the file system's own is counted anew; with them (bigalloc) the count that was made
//! with the file system holds, as the kernel has it.

use lazaret_policy::feature::Incompat;

use super::Filesystem;

/// What `statfs` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    /// Bytes a block.
    pub block_size: u32,
    /// The unit of the counts below, in bytes: the same.
    pub fragment_size: u32,
    /// Blocks, without those that are the file system's own.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks, without those that are reserved.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub free_files: u64,
    /// Bytes that a name may have.
    pub name_length: u32,
}

impl Filesystem {
    /// What the kernel's own mount would answer: without the file system's own blocks, and with its reserve.
    pub fn statfs(&self) -> Statfs {
        let superblock = &self.superblock;
        let free = self.totals.free_blocks;
        Statfs {
            block_size: superblock.block_size.bytes(),
            fragment_size: superblock.block_size.bytes(),
            blocks: superblock.blocks.saturating_sub(self.overhead()),
            free,
            available: free.saturating_sub(superblock.reserved_blocks.saturating_add(self.kept())),
            files: superblock.inodes.into(),
            free_files: self.totals.free_inodes,
            name_length: 255,
        }
    }

    /// Blocks that are the file system's own, the journal's among them.
    fn overhead(&self) -> u64 {
        let superblock = &self.superblock;
        let ratio = u64::from(superblock.cluster_ratio);
        let counted = u64::from(superblock.overhead_clusters);
        if ratio > 1 && counted > 0 && counted <= superblock.blocks {
            return counted.saturating_mul(ratio);
        }
        self.totals.overhead.saturating_add(self.journal_blocks.next_multiple_of(ratio.max(1)))
    }

    /// With extents the kernel keeps a fiftieth, at most 4096 clusters, for splitting them.
    fn kept(&self) -> u64 {
        if !self.superblock.incompat.contains(Incompat::EXTENTS) {
            return 0;
        }
        let ratio = u64::from(self.superblock.cluster_ratio);
        let clusters = self.superblock.blocks.checked_div(ratio).unwrap_or(0);
        (clusters / 50).min(4096).saturating_mul(ratio)
    }
}
