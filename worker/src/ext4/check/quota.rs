//! Quota files: what they count for each owner, group and project, against what the inodes take.
//!
//! What holds here: a file is walked as its tree says, but no block of it is entered twice on the same level, so that the
//! work goes by the file's length; limits are nobody's concern. The format is that of `quota_v2` (version 1 of it, kernel's
//! `fs/quota/quotaio_v2.h`): blocks of 1 KiB, a tree of four levels by the bytes of an id, and leaves of 14 entries.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::RoCompat;

use super::{Check, push};
use crate::error::{Error, Result};
use crate::ext4::units::{InodeNumber, u64_from, usize_from};
use crate::ext4::{Inode, InodeFlags, format};

/// `dqh_magic` of the three kinds: of users, groups, projects.
const MAGIC: [u32; 3] = [0xd9c0_1f11, 0xd9c0_1927, 0xd9c0_3f14];
/// `dqh_version`.
const VERSION: u32 = 1;
/// Bytes of a block of a quota file.
const BLOCK: usize = 1024;
/// Bytes before the entries of a leaf, and of an entry.
const HEADER: usize = 16;
const ENTRY: usize = 72;
/// Levels of blocks above the leaves.
const LEVELS: u8 = 4;
/// The block where the tree begins.
const ROOT: u32 = 1;
/// The most blocks of a quota file that are looked at: 4 GiB, sixty million owners.
const MOST_BLOCKS: u32 = 1 << 22;

/// What was counted for an id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    id: u32,
    /// Bytes.
    space: u64,
    inodes: u64,
    /// The quota file knows of it.
    seen: bool,
}

/// The usage by owner, group and project, as far as there are quota files for them.
#[derive(Default)]
pub(super) struct Quotas([Vec<Usage>; 3]);

impl Check<'_> {
    /// The inodes of the quota files; 0 for none.
    pub(super) fn quota_files(&self) -> [u32; 3] {
        if !self.fs.superblock().ro_compat.contains(RoCompat::QUOTA) {
            return [0; 3];
        }
        [self.raw.s_usr_quota_inum, self.raw.s_grp_quota_inum, self.raw.s_prj_quota_inum].map(|number| number.get())
    }

    /// Counts an inode that takes so many clusters, and so many inodes with those of its attributes' values.
    pub(super) fn count_usage(&mut self, inode: &Inode, raw: &format::Inode, clusters: u64, inodes: u64) -> Result<()> {
        /// Where `i_projid` ends, in an inode's tail.
        const PROJECT_END: u16 = 0x20;
        let superblock = self.fs.superblock();
        let counts = inode.number == InodeNumber::ROOT || inode.number.value() >= superblock.first_inode;
        let files = self.quota_files();
        let own =
            files.get(2) == Some(&inode.number.value()) || self.raw.s_orphan_file_inum.get() == inode.number.value();
        if !counts || own || inode.flags.contains(InodeFlags::EA_INODE) {
            return Ok(());
        }
        let project = if raw.i_extra_isize.get() >= PROJECT_END { raw.i_projid.get() } else { 0 };
        let blocks = clusters.saturating_mul(self.clusters.ratio());
        let space = superblock.block_size.bytes_of(blocks).unwrap_or(u64::MAX);
        for ((usages, file), id) in self.quotas.0.iter_mut().zip(files).zip([inode.uid, inode.gid, project]) {
            if file != 0 {
                add(usages, Usage { id, space, inodes, seen: false })?;
            }
        }
        Ok(())
    }

    /// All quota files. Gives whether the stage is over.
    pub(super) fn quotas(&mut self) -> Result<bool> {
        for (kind, number) in self.quota_files().into_iter().enumerate() {
            let Some(number) = InodeNumber::new(number) else { continue };
            let mut usages = self.quotas.0.get_mut(kind).map(std::mem::take).unwrap_or_default();
            merge(&mut usages);
            let place = Place::Inode(number.value());
            match self.read_quotas(number, MAGIC.get(kind).copied().unwrap_or(0), &mut usages) {
                Ok(same) => {
                    let all = usages.iter().all(|usage| usage.seen);
                    self.findings.hold(same && all, Rule::QuotaUsage, place);
                }
                Err(error) => self.keep(error)?,
            }
        }
        Ok(true)
    }

    /// Whether what the file counts is what was seen.
    fn read_quotas(&mut self, number: InodeNumber, magic: u32, usages: &mut [Usage]) -> Result<bool> {
        let broken = Error::corrupt(Rule::QuotaFile, Place::Inode(number.value()));
        let file = self.fs.any_inode(number)?;
        let mut block = vec![0; BLOCK];
        let length = self.fs.read(&file, 0, &mut block)?;
        let head = |index: usize| word(&block, index);
        let (blocks, free_block, free_entry) = (head(5), head(6), head(7));
        let inside = u64::from(blocks) <= file.size.div_ceil(u64_from(BLOCK)) && free_block.max(free_entry) < blocks;
        if length < BLOCK || head(1) != VERSION || !inside {
            return Err(broken);
        }
        if head(0) != magic {
            // The kernel counts nothing with such a file; e2fsck does not look.
            self.findings.notice(Rule::QuotaFile, Place::Inode(number.value()));
        }
        let blocks = usize_from(blocks.min(MOST_BLOCKS));
        // Of each block, a bit for each level on which it was entered.
        let mut entered: Vec<u8> = Vec::new();
        entered.try_reserve_exact(blocks).map_err(|_| Error::OutOfMemory)?;
        entered.resize(blocks, 0);

        let mut same = true;
        let mut open = vec![(ROOT, LEVELS)];
        while let Some((number, above)) = open.pop() {
            let levels = entered.get_mut(usize_from(number)).filter(|_| number >= ROOT).ok_or(broken)?;
            // Ids that lie near each other share a leaf. On another level a block says something else, and e2fsck reads it
            // as that: what counts is what comes of it.
            let level = 1_u8 << (above & 7);
            if *levels & level != 0 {
                continue;
            }
            *levels |= level;
            let offset = u64::from(number).saturating_mul(u64_from(BLOCK));
            if self.fs.read(&file, offset, &mut block)? < BLOCK {
                return Err(broken);
            }
            self.spend(1);
            match above.checked_sub(1) {
                Some(below) => {
                    let children = block.as_chunks::<4>().0.iter().map(|&child| u32::from_le_bytes(child));
                    for child in children.filter(|&child| child != 0) {
                        push(&mut open, (child, below))?;
                    }
                }
                None => same &= leaf(&block, usages),
            }
        }
        Ok(same)
    }
}

/// Whether the entries of a leaf count what was seen.
fn leaf(block: &[u8], usages: &mut [Usage]) -> bool {
    let mut same = true;
    for entry in block.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY) {
        if entry.iter().all(|&byte| byte == 0) {
            continue;
        }
        let long =
            |index| u64::from(word(entry, index)) | u64::from(word(entry, usize::saturating_add(index, 1))) << 32;
        let (id, inodes, space) = (word(entry, 0), long(6), long(12));
        let found = usages.binary_search_by_key(&id, |usage| usage.id).ok().and_then(|index| usages.get_mut(index));
        match found {
            Some(usage) => {
                usage.seen = true;
                same &= (usage.inodes, usage.space) == (inodes, space);
            }
            None => same &= (inodes, space) == (0, 0),
        }
    }
    same
}

/// Adds to the last where it is of the same id, as neighbours mostly are.
fn add(usages: &mut Vec<Usage>, more: Usage) -> Result<()> {
    match usages.last_mut().filter(|last| last.id == more.id) {
        Some(last) => last.add(&more),
        None => {
            if usages.len() == usages.capacity() {
                merge(usages);
            }
            push(usages, more)?;
        }
    }
    Ok(())
}

/// One for each id, rising.
fn merge(usages: &mut Vec<Usage>) {
    usages.sort_unstable_by_key(|usage| usage.id);
    usages.dedup_by(|next, usage| {
        let same = next.id == usage.id;
        if same {
            usage.add(next);
        }
        same
    });
}

impl Usage {
    fn add(&mut self, more: &Self) {
        self.space = self.space.saturating_add(more.space);
        self.inodes = self.inodes.saturating_add(more.inodes);
    }
}

/// A number of 32 bits, counted in such numbers; 0 behind the end.
fn word(bytes: &[u8], index: usize) -> u32 {
    bytes.as_chunks::<4>().0.get(index).map_or(0, |&word| u32::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_summed_by_id() {
        let mut usages = Vec::new();
        for id in [5, 5, 1, 5, 7, 1, 1, 0] {
            add(&mut usages, Usage { id, space: 1024, inodes: 1, seen: false }).unwrap();
        }
        merge(&mut usages);
        let sums: Vec<_> = usages.iter().map(|usage| (usage.id, usage.space >> 10, usage.inodes)).collect();
        assert_eq!(sums, [(0, 1, 1), (1, 3, 3), (5, 3, 3), (7, 1, 1)]);
    }

    #[test]
    fn a_leaf_counts_what_was_seen() {
        let mut block = vec![0; BLOCK];
        for (slot, (id, inodes, space)) in [(3_u32, 2_u64, 8192_u64), (9, 0, 0)].into_iter().enumerate() {
            let at = HEADER + slot * 2 * ENTRY;
            block[at..at + 4].copy_from_slice(&id.to_le_bytes());
            block[at + 24..at + 32].copy_from_slice(&inodes.to_le_bytes());
            block[at + 48..at + 56].copy_from_slice(&space.to_le_bytes());
        }
        let mut usages = [Usage { id: 3, space: 8192, inodes: 2, seen: false }];
        assert!(leaf(&block, &mut usages) && usages[0].seen);
        usages[0].space = 4096;
        assert!(!leaf(&block, &mut usages));
        assert!(!leaf(&block, &mut []), "what the file counts is nobody's");
    }
}
