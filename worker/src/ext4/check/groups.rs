//! The first stage: the descriptors of the groups, and the blocks that are the file system's own.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};

use super::Check;
use super::findings::Findings;
use crate::error::{Error, Result};
use crate::ext4::casefold::Encoding;
use crate::ext4::checksum::{Kind, crc32c};
use crate::ext4::group::{self, Located};
use crate::ext4::superblock::Superblock;
use crate::ext4::units::{BlockNumber, GroupNumber, InodeNumber, usize_from};
use crate::ext4::{Filesystem, format, journal};

/// `bg_flags`: the inode bitmap and table were never written.
pub(super) const INODES_UNINIT: u16 = 1;
/// `bg_flags`: the block bitmap was never written.
pub(super) const BLOCKS_UNINIT: u16 = 2;
/// Memory that a journal's map may take while it is looked at, in bytes.
const JOURNAL: u64 = 4 << 20;

/// Blocks of one structure.
type Range = (u64, u64);

impl Check<'_> {
    /// All of it at once: what there is to do for a group is little. Gives whether the stage is over.
    pub(super) fn groups(&mut self) -> Result<bool> {
        let superblock = self.fs.superblock();
        let (mut ranges, mut implied): (Vec<Range>, Vec<Range>) = (Vec::new(), Vec::new());
        ranges.try_reserve_exact(usize_from(superblock.groups).saturating_mul(4)).map_err(|_| Error::OutOfMemory)?;
        for number in 0..superblock.groups {
            let group = GroupNumber(number);
            let begin = superblock.first_block(group).0;
            ranges.push((begin, begin.saturating_add(own_blocks(superblock, group))));
            match self.fs.group(group).and_then(|_| self.fs.stored_group(group)) {
                Ok((raw, matches)) => {
                    // e2fsck -n asks, and goes on as if it had not.
                    if !matches {
                        self.findings.notice(Rule::GroupChecksum, Place::GroupDescriptor(number));
                    }
                    self.hold_without_checksums(group, &raw);
                    let located = Located::of(superblock, &raw);
                    let structures = structures(superblock, &located);
                    hold_group(&mut self.findings, superblock, group, &raw, &located, &structures);
                    ranges.extend(structures);
                    if matches && has_flag(self.fs, &raw, BLOCKS_UNINIT) {
                        implied.try_reserve(structures.len()).map_err(|_| Error::OutOfMemory)?;
                        implied.extend(structures);
                    }
                }
                Err(error) => self.keep(error)?,
            }
        }
        self.hold_apart(&mut ranges);
        // Each block once, however many groups claim it.
        for (own, clusters) in [(ranges, &mut self.clusters), (implied, &mut self.implied)] {
            for (start, end) in joined(own) {
                clusters.mark_blocks(BlockNumber(start), end.saturating_sub(start))?;
            }
        }
        if superblock.incompat.contains(Incompat::MMP) {
            self.guard()?;
        }
        for (own, number) in self.own_clusters.iter_mut().zip(0..) {
            let count = self.clusters.count(self.clusters.of_group(GroupNumber(number)));
            *own = u32::try_from(count).unwrap_or(u32::MAX);
        }
        self.hold_superblock();
        self.hold_totals();
        self.journal()?;
        self.spend(superblock.groups.into());
        Ok(true)
    }

    /// Without checksums nothing is unused until it is written. A descriptor that says so all the same is like one with
    /// a wrong checksum, but that no name may lead to what it calls unused.
    fn hold_without_checksums(&mut self, group: GroupNumber, raw: &format::GroupDescriptor) {
        let superblock = self.fs.superblock();
        let flagged = raw.bg_flags.get() & (INODES_UNINIT | BLOCKS_UNINIT) != 0;
        let unused = stored_unused(superblock, raw);
        if Kind::of(superblock.ro_compat) != Kind::None || (!flagged && unused == 0) {
            return;
        }
        self.findings.notice(Rule::GroupUnusedInodes, Place::GroupDescriptor(group.0));
        let per_group = superblock.inodes_per_group;
        let unused = if raw.bg_flags.get() & INODES_UNINIT != 0 { per_group } else { unused };
        // As e2fsck counts it: a number that is too high takes the groups before with it, but for those before the first.
        let behind = group.0.saturating_add(1).saturating_mul(per_group).saturating_add(1);
        if let (Some(first), Some(slot)) = (behind.checked_sub(unused), self.unused_from.get_mut(usize_from(group.0))) {
            *slot = first;
        }
    }

    /// What the superblock says and no reader needs.
    fn hold_superblock(&mut self) {
        /// The most clusters of a group, whatever its bitmap could hold.
        const MOST_CLUSTERS: u64 = 65_528;
        let superblock = self.fs.superblock();
        let in_clusters = superblock.ro_compat.contains(RoCompat::BIGALLOC);
        let (blocks, size) = (u64::from(superblock.blocks_per_group), superblock.block_size.bytes());
        let most = MOST_CLUSTERS.saturating_mul(superblock.cluster_ratio.into());
        let clusters = in_clusters || self.raw.s_clusters_per_group.get() == superblock.blocks_per_group;
        let in_block = u64::from(size.checked_div(superblock.inode_size.into()).unwrap_or(1));
        let inodes = in_block.saturating_mul(blocks.saturating_sub(4)).min(65_536_u64.saturating_sub(in_block));
        let flex = self.raw.s_log_groups_per_flex < 32;
        let sizes =
            flex && (8..=most).contains(&blocks) && clusters && u64::from(superblock.inodes_per_group) <= inodes;
        self.findings.hold(sizes, Rule::GroupSizes, Place::Superblock);
        self.findings.hold(
            superblock.reserved_blocks <= superblock.blocks >> 1,
            Rule::ReservedBlocks,
            Place::Superblock,
        );
        let known = superblock.encoding.is_none_or(|encoding| encoding != Encoding::Unknown);
        self.findings.hold(known, Rule::Encoding, Place::Superblock);
        let orphans = self.raw.s_orphan_file_inum.get();
        let file = !superblock.compat.contains(Compat::ORPHAN_FILE) || (1..=superblock.inodes).contains(&orphans);
        self.findings.hold(file, Rule::OrphanFile, Place::Superblock);
        let descriptor = self.raw.s_desc_size.get();
        self.findings.hold(descriptor & descriptor.wrapping_sub(1) == 0, Rule::DescriptorSize, Place::Superblock);
        let same = self.raw.s_log_cluster_size == self.raw.s_log_block_size;
        self.findings.hold(in_clusters || same, Rule::ClusterSize, Place::Superblock);
        self.findings.hold(self.raw.s_rev_level.get() <= 1, Rule::Revision, Place::Superblock);
    }

    /// The block that is written while the file system is mounted.
    fn guard(&mut self) -> Result<()> {
        /// `mmp_magic`.
        const MAGIC: [u8; 4] = 0x004d_4d50_u32.to_le_bytes();
        /// `mmp_seq` of a file system that nobody has, and the highest of one that is mounted.
        const CLEAN: u32 = 0xff4d_4d50;
        const LAST: u32 = 0xe24d_4d4f;
        let superblock = self.fs.superblock();
        let block = BlockNumber(self.raw.s_mmp_block.get());
        let inside = block.0 > superblock.first_data_block.0 && block.0 < superblock.blocks;
        let mut bytes = [0; 1024];
        if let Some(offset) = superblock.block_size.byte_offset(block).filter(|_| inside) {
            self.fs.device().read_at(offset.0, &mut bytes)?;
            self.clusters.mark_blocks(block, 1)?;
        }
        let matches = bytes.split_last_chunk::<4>().is_some_and(|(covered, &sum)| {
            self.fs.verifier().kind() != Kind::Crc32c
                || crc32c(self.fs.verifier().seed(), covered) == u32::from_le_bytes(sum)
        });
        let sequence = bytes.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |&bytes| u32::from_le_bytes(bytes));
        let known = sequence == CLEAN || sequence <= LAST;
        self.findings.hold(inside && bytes.starts_with(&MAGIC) && matches && known, Rule::MmpBlock, Place::Superblock);
        Ok(())
    }

    fn hold_apart(&mut self, ranges: &mut Vec<Range>) {
        ranges.retain(|(start, end)| start < end);
        ranges.sort_unstable();
        let superblock = self.fs.superblock();
        let mut behind = 0;
        for &(start, end) in ranges.iter() {
            if start < behind {
                let size = superblock.block_size;
                let offset = size.bytes_of(start).unwrap_or(u64::MAX);
                let length = size.bytes_of(end.saturating_sub(start)).unwrap_or(u64::MAX);
                self.overlapping = true;
                self.findings.damage(Rule::GroupStructuresApart, Place::Device { offset, length });
            }
            behind = end.max(behind);
        }
    }

    /// The superblock's counts against those of the groups. Kernels write them late, and nobody relies on them.
    fn hold_totals(&mut self) {
        let (superblock, totals) = (self.fs.superblock(), &self.fs.totals);
        let free_inodes = u64::from(self.raw.s_free_inodes_count.get());
        if superblock.free_blocks != totals.free_blocks {
            self.findings.notice(Rule::FreeBlocks, Place::Superblock);
        }
        if free_inodes != totals.free_inodes {
            self.findings.notice(Rule::FreeInodes, Place::Superblock);
        }
    }

    /// The journal's superblock, also of one that no feature speaks of. What the log holds was read when the file system
    /// was opened, if it had to be.
    fn journal(&mut self) -> Result<()> {
        let superblock = self.fs.superblock();
        if superblock.external_journal {
            // It cannot be looked at, and there is no other.
            return Ok(());
        }
        if self.raw.s_journal_uuid != [0; 16] {
            self.findings.damage(Rule::JournalAlone, Place::Superblock);
            return Ok(());
        }
        let number = self.raw.s_journal_inum.get();
        if number == 0 && !superblock.compat.contains(Compat::HAS_JOURNAL) {
            return Ok(());
        }
        let number = InodeNumber::new(number).filter(|_| number <= superblock.inodes);
        match journal::inspect(self.fs, number, JOURNAL) {
            Ok(holds_data) => {
                let marked =
                    superblock.incompat.contains(Incompat::RECOVER) || self.fs.replayed() != Default::default();
                if holds_data && !marked {
                    self.findings.notice(Rule::JournalClean, Place::Journal(0));
                }
                Ok(())
            }
            // Nobody reads a log that is not marked for it.
            Err(Error::Corrupt(found))
                if matches!(found.rule, Rule::JournalStart | Rule::JournalLength)
                    && journal::begins_nowhere(self.fs, number) =>
            {
                self.findings.notice(found.rule, found.place);
                Ok(())
            }
            Err(error) => self.keep(error),
        }
    }
}

/// The blocks at a group's begin that are the file system's own. Where descriptors are spread there is no room for more of
/// them, whatever the superblock says.
fn own_blocks(superblock: &Superblock, group: GroupNumber) -> u64 {
    let room = superblock.incompat.contains(Incompat::META_BG) && group::has_superblock(superblock, group);
    let room = if room { superblock.reserved_descriptor_blocks } else { 0 };
    group::base_blocks(superblock, group).saturating_sub(room.into())
}

/// The same blocks in rising ranges that lie apart.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let touches = next.0 <= range.1;
        if touches {
            range.1 = range.1.max(next.1);
        }
        touches
    });
    ranges
}

/// The bitmaps and the inode table of a group.
fn structures(superblock: &Superblock, located: &Located) -> [Range; 3] {
    let range = |start: u64, count| (start, start.saturating_add(count));
    [
        range(located.block_bitmap, 1),
        range(located.inode_bitmap, 1),
        range(located.inode_table, superblock.table_blocks()),
    ]
}

fn hold_group(
    findings: &mut Findings,
    superblock: &Superblock,
    group: GroupNumber,
    raw: &format::GroupDescriptor,
    located: &Located,
    structures: &[Range],
) {
    let place = Place::GroupDescriptor(group.0);
    if !superblock.incompat.contains(Incompat::FLEX_BG) {
        let begin = superblock.first_block(group).0;
        let end = begin.saturating_add(superblock.blocks_per_group.into()).min(superblock.blocks);
        let inside = structures.iter().all(|&(from, to)| from >= begin && to <= end);
        findings.hold(inside, Rule::GroupOwnStructures, place);
    }
    let per_group = u64::from(superblock.inodes_per_group);
    let clusters = superblock.blocks_per_group.checked_div(superblock.cluster_ratio).unwrap_or(0);
    findings.hold(located.free_blocks <= clusters.into(), Rule::FreeBlocks, place);
    findings.hold(located.free_inodes <= per_group, Rule::FreeInodes, place);
    findings.hold(u64::from(unused_inodes(superblock, raw)) <= per_group, Rule::GroupUnusedInodes, place);
}

/// How many inodes at the end of a group's table were never written.
pub(super) fn unused_inodes(superblock: &Superblock, raw: &format::GroupDescriptor) -> u32 {
    if Kind::of(superblock.ro_compat) == Kind::None {
        return 0;
    }
    if raw.bg_flags.get() & INODES_UNINIT != 0 {
        return superblock.inodes_per_group;
    }
    stored_unused(superblock, raw)
}

/// The same number as it is stored.
fn stored_unused(superblock: &Superblock, raw: &format::GroupDescriptor) -> u32 {
    wide(superblock, raw.bg_itable_unused_lo.get(), raw.bg_itable_unused_hi.get())
}

/// The directories that a descriptor counts.
pub(super) fn used_directories(superblock: &Superblock, raw: &format::GroupDescriptor) -> u32 {
    wide(superblock, raw.bg_used_dirs_count_lo.get(), raw.bg_used_dirs_count_hi.get())
}

fn wide(superblock: &Superblock, low: u16, high: u16) -> u32 {
    let high = if superblock.descriptor_size >= 64 { u32::from(high) << 16 } else { 0 };
    high | u32::from(low)
}

/// Whether a flag of a descriptor is set, and means something.
pub(super) fn has_flag(fs: &Filesystem, raw: &format::GroupDescriptor, flag: u16) -> bool {
    Kind::of(fs.superblock().ro_compat) != Kind::None && raw.bg_flags.get() & flag != 0
}
