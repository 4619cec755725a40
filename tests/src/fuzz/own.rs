//! The blocks that are a file system's own, found by the words of the format and without the reader's list of them: what no
//! file may hold.

use std::ops::Range;

use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use lazaret_worker::ext4::superblock::Superblock;
use lazaret_worker::ext4::{FileOffset, Filesystem, GroupNumber, InodeNumber, MappingKind};

/// Groups that are looked at.
const MOST_GROUPS: u32 = 64;
/// Runs of a journal that are looked at.
const MOST_RUNS: usize = 8;

/// What no file may hold; nothing, if nothing is to be held against it.
#[derive(Default)]
pub struct Own {
    blocks: Vec<Range<u64>>,
    /// What only this inode may hold.
    journal: Vec<Range<u64>>,
    journal_inode: Option<InodeNumber>,
}

impl Own {
    /// Superblocks and descriptors with their copies, bitmaps and inode tables, as far as descriptors can be read; and the
    /// journal, as far as its inode can.
    ///
    /// # Panics
    /// If a group's structures lie beyond the file system.
    pub fn of(fs: &Filesystem) -> Self {
        let journal_inode = fs.superblock().journal_inode;
        let journal = journal_inode.map(|number| journal(fs, number)).unwrap_or_default();
        Self { journal, journal_inode, ..Self::but_journal(fs) }
    }

    /// The same without the journal, for who opens a file system a million times in a minute.
    ///
    /// # Panics
    /// If a group's structures lie beyond the file system.
    pub fn but_journal(fs: &Filesystem) -> Self {
        let superblock = fs.superblock();
        let table = u64::from(superblock.inodes_per_group) * u64::from(superblock.inode_size);
        let table = table.div_ceil(superblock.block_size.bytes().into());
        let mut blocks = Vec::from([Range { start: 0, end: superblock.first_data_block.0 + 1 }]);
        for number in 0..superblock.groups.min(MOST_GROUPS) {
            blocks.extend(copy(superblock, number));
            if let Ok(group) = fs.group(GroupNumber(number)) {
                let lengths = [(group.block_bitmap, 1), (group.inode_bitmap, 1), (group.inode_table, table)];
                blocks.extend(lengths.map(|(start, length)| start.0..start.0.saturating_add(length)));
                let last = blocks.iter().map(|own| own.end).max().unwrap_or(0);
                assert!(last <= superblock.blocks, "a group's own {last} lies beyond the file system");
            }
        }
        Self { blocks, ..Self::default() }
    }

    pub(super) fn is_known(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// What of these blocks the inode may not hold.
    pub(super) fn taken(&self, inode: InodeNumber, blocks: &Range<u64>) -> Option<&Range<u64>> {
        let journal = if self.journal_inode == Some(inode) { &[][..] } else { &self.journal };
        self.blocks.iter().chain(journal).find(|own| own.start < blocks.end && blocks.start < own.end)
    }
}

/// The superblock of a group that has a copy of it, with the descriptors behind it and the room for more.
fn copy(superblock: &Superblock, group: u32) -> Option<Range<u64>> {
    let sparse = || {
        [3, 5, 7].into_iter().any(|base| {
            std::iter::successors(Some(1), |n| Some(n * base)).take_while(|n| *n <= group).any(|n| n == group)
        })
    };
    let has_copy = group == 0
        || if superblock.compat.contains(Compat::SPARSE_SUPER2) {
            superblock.backup_groups.contains(&GroupNumber(group))
        } else {
            !superblock.ro_compat.contains(RoCompat::SPARSE_SUPER) || sparse()
        };
    // With meta_bg descriptors lie elsewhere.
    if !has_copy || superblock.incompat.contains(Incompat::META_BG) {
        return None;
    }
    let descriptors = u64::from(superblock.groups) * u64::from(superblock.descriptor_size);
    let descriptors = descriptors.div_ceil(superblock.block_size.bytes().into());
    let start = superblock.first_data_block.0 + u64::from(group) * u64::from(superblock.blocks_per_group);
    let end = start + 1 + descriptors + u64::from(superblock.reserved_descriptor_blocks);
    Some(start..end.min(superblock.blocks))
}

/// Where the journal lies.
fn journal(fs: &Filesystem, number: InodeNumber) -> Vec<Range<u64>> {
    let (mut runs, mut at) = (Vec::new(), 0);
    let Ok(inode) = fs.any_inode(number) else { return runs };
    let size = fs.superblock().block_size;
    while runs.len() < MOST_RUNS && at < inode.size {
        let Ok(mapping) = fs.map(&inode, FileOffset(at), inode.size - at) else { break };
        let MappingKind::Data(start) = mapping.kind else { break };
        runs.push(start.0 >> size.bits()..(start.0 + mapping.length).div_ceil(size.bytes().into()));
        at += mapping.length;
    }
    runs
}
