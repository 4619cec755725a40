//! The superblock: read once when the file system is opened, and checked whole before anything else is believed.
//!
//! [`Superblock`] has no field that can be impossible: sizes are powers of two in their ranges, counts fit each other,
//! and the device is as long as it says. Every later read divides and multiplies by what was checked here.

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use lazaret_policy::message::{Checksum, Refusal};
use zerocopy::{FromZeros, IntoBytes};

use super::Settings;
use super::backup;
use super::casefold::Encoding;
use super::checksum::{Kind, crc32c};
use super::feature;
use super::format;
use super::hash::NameHash;
use super::units::{BlockNumber, BlockSize, GroupNumber, InodeNumber, u64_from};
use crate::device::Device;

/// The most groups that are read: 256 TiB with blocks of 4 KiB. A bound of this reader, on work and memory at opening.
const MOST_GROUPS: u64 = 1 << 21;

/// What the superblock says, checked.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Bytes a block.
    pub block_size: BlockSize,
    /// Blocks of the file system, those before the first group included.
    pub blocks: u64,
    /// `s_state`, when the file system was last written to.
    pub state: u16,
    /// The block of the guard against a second mount, if the feature mmp is set. Not checked.
    pub guard: BlockNumber,
    /// The block that holds this copy of the superblock. The descriptors lie behind it.
    pub location: BlockNumber,
    /// Where group 0 begins: 1 with blocks of 1 KiB, unless they come in clusters, else 0.
    pub first_data_block: BlockNumber,
    /// Blocks a group has; the last has what is left.
    pub blocks_per_group: u32,
    /// Blocks a cluster has: what a bit of a bitmap stands for. A power of two, 1 without the feature bigalloc.
    pub cluster_ratio: u32,
    /// How many groups there are.
    pub groups: u32,
    /// How many inodes there are.
    pub inodes: u32,
    /// Inodes a group has.
    pub inodes_per_group: u32,
    /// Bytes an inode takes in the table: a power of two from 128 to the block size.
    pub inode_size: u16,
    /// The first inode that is not reserved: at least 11.
    pub first_inode: u32,
    /// Bytes of a group descriptor: 32, or a power of two from 64 to 1024.
    pub descriptor_size: u16,
    /// Features that do not concern a reader.
    pub compat: Compat,
    /// Features that a reader must know.
    pub incompat: Incompat,
    /// Features that a writer must know.
    pub ro_compat: RoCompat,
    /// Blocks kept for root.
    pub reserved_blocks: u64,
    /// Free blocks as the superblock has them. `statfs` sums the groups.
    pub free_blocks: u64,
    /// Clusters that are the file system's own, as it was counted when it was made; 0 if it was not.
    pub overhead_clusters: u32,
    /// Blocks kept behind each full copy of the group descriptors.
    pub reserved_descriptor_blocks: u16,
    /// From which block of descriptors on they are spread over the device, if the feature meta_bg is set.
    pub first_meta_group: u32,
    /// The groups that hold copies, if the feature sparse_super2 is set.
    pub backup_groups: [GroupNumber; 2],
    /// The inode of an internal journal.
    pub journal_inode: Option<InodeNumber>,
    /// The journal lies on another device.
    pub external_journal: bool,
    /// What every crc32c begins with, but the superblock's own.
    pub checksum_seed: u32,
    /// The seed of directory hashes.
    pub hash_seed: [u32; 4],
    /// The hash of directories that do not name one.
    pub hash_version: u8,
    /// Directory hashes take bytes as unsigned.
    pub hash_unsigned: bool,
    /// How names are encoded, if the feature casefold is set.
    pub encoding: Option<Encoding>,
    /// It matched its checksum, or has none. Without that it is used only where `checksum=` lets it pass.
    pub checksum_matches: bool,
    /// Made by Linux: only then do inodes have checksums.
    pub by_linux: bool,
    /// `s_uuid`.
    pub uuid: [u8; 16],
    /// `s_volume_name`: bytes of the image.
    pub label: [u8; 16],
}

impl Superblock {
    /// Copies the superblock out of the device and checks it: magic, checksum, features, geometry, length. The primary
    /// one, unless another was asked for.
    pub(super) fn read(device: &Device, settings: Settings) -> Result<Self, Refusal> {
        match settings.superblock {
            Some(unit) => Self::read_at(device, unit.saturating_mul(1024), settings.checksum),
            None => Self::read_at(device, format::SUPERBLOCK_OFFSET, settings.checksum)
                .map_err(|refusal| backup::refusal(device, refusal)),
        }
    }

    /// Whether a copy that lies at this byte could be taken.
    pub(super) fn is_sound(raw: &format::Superblock, place: u64) -> bool {
        checksum_matches(raw) && Self::check(raw, place, true).is_ok()
    }

    fn read_at(device: &Device, place: u64, policy: Checksum) -> Result<Self, Refusal> {
        let mut raw = format::Superblock::new_zeroed();
        let needed = place.saturating_add(u64_from(size_of::<format::Superblock>()));
        if device.len() < needed {
            return Err(Refusal::TooShort { length: device.len(), needed });
        }
        device.read_at(place, raw.as_mut_bytes()).map_err(Refusal::from)?;

        if raw.s_magic.get() != format::SUPERBLOCK_MAGIC {
            return Err(Refusal::NotExt);
        }
        let matches = checksum_matches(&raw);
        if policy == Checksum::Strict && !matches {
            return Err(Refusal::Checksum(broken(Rule::SuperblockChecksum)));
        }
        feature::check(Incompat::from_bits_retain(raw.s_feature_incompat.get()))?;
        // An image that was cut short is told as that, whatever else may be wrong with it.
        let needed = length(&raw).unwrap_or(u64::MAX);
        if device.len() < needed {
            return Err(Refusal::TooShort { length: device.len(), needed });
        }
        Self::check(&raw, place, matches).map_err(Refusal::Corrupt)
    }

    /// Checks everything that the superblock can say by itself.
    fn check(raw: &format::Superblock, place: u64, checksum_matches: bool) -> Result<Self, Corruption> {
        let compat = Compat::from_bits_retain(raw.s_feature_compat.get());
        let incompat = Incompat::from_bits_retain(raw.s_feature_incompat.get());
        let ro_compat = RoCompat::from_bits_retain(raw.s_feature_ro_compat.get());
        let wide = incompat.contains(Incompat::SIXTY_FOUR_BIT);
        let old = raw.s_rev_level.get() == format::GOOD_OLD_REVISION;

        let block_size = BlockSize::from_log(raw.s_log_block_size.get()).ok_or(broken(Rule::BlockSize))?;
        let bytes = block_size.bytes();
        // A bitmap of one block has to hold a group.
        let bits = bytes.saturating_mul(8);

        let inode_size = if old { format::GOOD_OLD_INODE_SIZE } else { raw.s_inode_size.get() };
        let sound = inode_size.is_power_of_two() && inode_size >= 128 && u32::from(inode_size) <= bytes;
        hold(sound, Rule::InodeSize)?;
        let first_inode = if old { format::GOOD_OLD_FIRST_INODE } else { raw.s_first_ino.get() };
        hold(first_inode >= format::GOOD_OLD_FIRST_INODE, Rule::FirstInode)?;

        let descriptor_size = if wide { raw.s_desc_size.get() } else { 32 };
        let sound = descriptor_size.is_power_of_two() && (32..=1024).contains(&descriptor_size);
        hold(sound && (descriptor_size >= 64 || !wide), Rule::DescriptorSize)?;

        let blocks = wide_number(wide, raw.s_blocks_count_lo.get(), raw.s_blocks_count_hi.get());
        let cluster_ratio = cluster_ratio(raw, ro_compat)?;
        let first_data_block = u64::from(raw.s_first_data_block.get());
        let behind_boot_sector = first_data_block == u64::from(bytes == 1024);
        hold(behind_boot_sector || first_data_block == 0 && cluster_ratio > 1, Rule::FirstDataBlock)?;
        let in_groups = blocks.checked_sub(first_data_block).filter(|&count| count > 0);
        let in_groups = in_groups.ok_or(broken(Rule::BlockCount))?;
        hold(block_size.bytes_of(blocks).is_some(), Rule::BlockCount)?;

        let blocks_per_group = raw.s_blocks_per_group.get();
        let most = u64::from(bits).saturating_mul(cluster_ratio.into());
        hold((1..=most).contains(&blocks_per_group.into()), Rule::BlocksPerGroup)?;
        if cluster_ratio > 1 {
            let clusters = raw.s_clusters_per_group.get();
            hold(clusters.checked_mul(cluster_ratio) == Some(blocks_per_group), Rule::BlocksPerGroup)?;
        }
        let groups = in_groups.div_ceil(u64::from(blocks_per_group));
        hold(groups <= MOST_GROUPS, Rule::GroupCount)?;
        let groups = u32::try_from(groups).map_err(|_| broken(Rule::GroupCount))?;

        let location = location(place, block_size, first_data_block, blocks_per_group)?;

        let inodes_per_group = raw.s_inodes_per_group.get();
        let inodes_per_block = bytes.checked_div(inode_size.into()).unwrap_or(0);
        hold((inodes_per_block..=bits).contains(&inodes_per_group), Rule::InodesPerGroup)?;
        let inodes = raw.s_inodes_count.get();
        hold(groups.checked_mul(inodes_per_group) == Some(inodes), Rule::InodeCount)?;
        hold(inodes >= first_inode, Rule::InodeCount)?;

        let reserved_descriptor_blocks = raw.s_reserved_gdt_blocks.get();
        hold(u32::from(reserved_descriptor_blocks) <= bytes >> 2, Rule::ReservedDescriptorBlocks)?;
        let descriptor_blocks = groups.div_ceil(bytes.checked_div(descriptor_size.into()).unwrap_or(1));
        let first_meta_group = raw.s_first_meta_bg.get();
        hold(!incompat.contains(Incompat::META_BG) || first_meta_group <= descriptor_blocks, Rule::FirstMetaGroup)?;

        if ro_compat.contains(RoCompat::METADATA_CSUM) {
            hold(raw.s_checksum_type == format::CHECKSUM_CRC32C, Rule::ChecksumType)?;
        }
        let checksum_seed =
            if incompat.contains(Incompat::CSUM_SEED) { raw.s_checksum_seed.get() } else { crc32c(!0, &raw.s_uuid) };

        let journal_inode = match raw.s_journal_inum.get() {
            number if compat.contains(Compat::HAS_JOURNAL) && number <= inodes => InodeNumber::new(number),
            _ => None,
        };
        let [one, other] = raw.s_backup_bgs;

        Ok(Self {
            block_size,
            blocks,
            state: raw.s_state.get(),
            guard: BlockNumber(raw.s_mmp_block.get()),
            location,
            first_data_block: BlockNumber(first_data_block),
            blocks_per_group,
            cluster_ratio,
            groups,
            inodes,
            inodes_per_group,
            inode_size,
            first_inode,
            descriptor_size,
            compat,
            incompat,
            ro_compat,
            reserved_blocks: wide_number(wide, raw.s_r_blocks_count_lo.get(), raw.s_r_blocks_count_hi.get()),
            free_blocks: wide_number(wide, raw.s_free_blocks_count_lo.get(), raw.s_free_blocks_count_hi.get()),
            overhead_clusters: raw.s_overhead_clusters.get(),
            reserved_descriptor_blocks,
            first_meta_group,
            backup_groups: [GroupNumber(one.get()), GroupNumber(other.get())],
            journal_inode,
            external_journal: compat.contains(Compat::HAS_JOURNAL)
                && raw.s_journal_inum.get() == 0
                && raw.s_journal_uuid != [0; 16],
            checksum_seed,
            hash_seed: raw.s_hash_seed.map(|word| word.get()),
            hash_version: raw.s_def_hash_version,
            hash_unsigned: raw.s_flags.get() & format::FLAG_UNSIGNED_HASH != 0,
            encoding: incompat
                .contains(Incompat::CASEFOLD)
                .then(|| Encoding::of(raw.s_encoding.get(), raw.s_encoding_flags.get())),
            checksum_matches,
            by_linux: raw.s_creator_os.get() == format::CREATOR_LINUX,
            uuid: raw.s_uuid,
            label: raw.s_volume_name,
        })
    }

    /// How names are hashed by this version; none if this reader cannot.
    pub(super) fn name_hash(&self, version: u8) -> Option<NameHash> {
        NameHash::by_version(version, self.hash_unsigned, self.hash_seed)
    }

    /// Descriptors that one block holds: at least 1.
    pub(super) fn descriptors_per_block(&self) -> u32 {
        self.block_size.bytes().checked_div(self.descriptor_size.into()).unwrap_or(1).max(1)
    }

    /// Blocks that it takes to hold every group's descriptor.
    pub(super) fn descriptor_blocks(&self) -> u32 {
        self.groups.div_ceil(self.descriptors_per_block())
    }

    /// Blocks of the inode table of one group.
    pub(super) fn table_blocks(&self) -> u64 {
        let bytes = u64::from(self.inodes_per_group).saturating_mul(self.inode_size.into());
        self.block_size.blocks_for(bytes)
    }

    /// Where a group begins.
    pub(super) fn first_block(&self, group: GroupNumber) -> BlockNumber {
        let before = u64::from(group.0).saturating_mul(self.blocks_per_group.into());
        BlockNumber(self.first_data_block.0.saturating_add(before))
    }
}

/// The block that a superblock at this byte lies in. A copy begins its group.
fn location(place: u64, size: BlockSize, first: u64, blocks_per_group: u32) -> Result<BlockNumber, Corruption> {
    let block = place.checked_shr(size.bits().into()).unwrap_or(0);
    let begins = block.checked_sub(first).is_some_and(|within| within.is_multiple_of(blocks_per_group.into()));
    let whole = size.bytes_of(block) == Some(place);
    hold(place == format::SUPERBLOCK_OFFSET || whole && begins, Rule::SuperblockPlace)?;
    Ok(BlockNumber(block))
}

/// Clusters have the size of a block, or, with the feature bigalloc, of some more.
fn cluster_ratio(raw: &format::Superblock, ro_compat: RoCompat) -> Result<u32, Corruption> {
    if !ro_compat.contains(RoCompat::BIGALLOC) {
        return Ok(1);
    }
    let log = raw.s_log_cluster_size.get();
    let more = log.checked_sub(raw.s_log_block_size.get()).filter(|_| log <= format::LARGEST_LOG_CLUSTER_SIZE);
    more.and_then(|more| 1u32.checked_shl(more)).ok_or(broken(Rule::ClusterSize))
}

/// The bytes of the whole file system: none with a block size that is impossible, which is another rule's to tell.
fn length(raw: &format::Superblock) -> Option<u64> {
    let Some(size) = BlockSize::from_log(raw.s_log_block_size.get()) else { return Some(0) };
    let wide = Incompat::from_bits_retain(raw.s_feature_incompat.get()).contains(Incompat::SIXTY_FOUR_BIT);
    size.bytes_of(wide_number(wide, raw.s_blocks_count_lo.get(), raw.s_blocks_count_hi.get()))
}

/// Whether it matches its checksum, or has none.
pub(super) fn checksum_matches(raw: &format::Superblock) -> bool {
    if Kind::of(RoCompat::from_bits_retain(raw.s_feature_ro_compat.get())) != Kind::Crc32c {
        return true;
    }
    let covered = raw.as_bytes().split_last_chunk::<4>().map_or(&[][..], |(covered, _)| covered);
    crc32c(!0, covered) == raw.s_checksum.get()
}

/// A number of 64 bits, if there are so many.
pub(super) fn wide_number(wide: bool, low: u32, high: u32) -> u64 {
    let high = if wide { u64::from(high) << 32 } else { 0 };
    high | u64::from(low)
}

fn broken(rule: Rule) -> Corruption {
    Corruption { rule, place: Place::Superblock }
}

fn hold(holds: bool, rule: Rule) -> Result<(), Corruption> {
    if holds { Ok(()) } else { Err(broken(rule)) }
}
