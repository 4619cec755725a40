//! The structures of ext2, ext3 and ext4 as they lie on the disk: little-endian, with the kernel's names.
//!
//! Everything here is bytes from the disk and nothing of it was checked; what was checked has a type of its own in the
//! file of the same subject. The layout is asserted beneath each structure against `Documentation/filesystems/ext4`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::layout::layout;

/// Where the superblock begins, whatever the block size.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// `s_magic`.
pub const SUPERBLOCK_MAGIC: u16 = 0xef53;
/// `s_checksum_type`: crc32c, the only one there is.
pub const CHECKSUM_CRC32C: u8 = 1;
/// The largest `s_log_cluster_size`: 1 GiB.
pub const LARGEST_LOG_CLUSTER_SIZE: u32 = 20;
/// `s_rev_level` before inodes had a size and feature flags a meaning.
pub const GOOD_OLD_REVISION: u32 = 0;
/// The size of an inode then, and the part of an inode that always exists.
pub const GOOD_OLD_INODE_SIZE: u16 = 128;
/// The first inode that is not reserved, then.
pub const GOOD_OLD_FIRST_INODE: u32 = 11;
/// `s_creator_os`: Linux.
pub const CREATOR_LINUX: u32 = 0;
/// `s_flags`: directory hashes take bytes as signed.
pub const FLAG_SIGNED_HASH: u32 = 1;
/// `s_flags`: directory hashes take bytes as unsigned.
pub const FLAG_UNSIGNED_HASH: u32 = 2;
/// `s_encoding`: UTF-8, folded by Unicode 12.1.
pub const ENCODING_UTF8_12_1: u16 = 1;
/// `s_encoding_flags`: names are UTF-8 and nothing else.
pub const ENCODING_STRICT: u16 = 1;
/// `s_encoding_flags`: what a hash tree does not have is not searched for block by block.
pub const ENCODING_NO_COMPAT_FALLBACK: u16 = 2;

/// `struct ext4_super_block`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct Superblock {
    pub s_inodes_count: U32,
    pub s_blocks_count_lo: U32,
    pub s_r_blocks_count_lo: U32,
    pub s_free_blocks_count_lo: U32,
    pub s_free_inodes_count: U32,
    pub s_first_data_block: U32,
    pub s_log_block_size: U32,
    pub s_log_cluster_size: U32,
    pub s_blocks_per_group: U32,
    pub s_clusters_per_group: U32,
    pub s_inodes_per_group: U32,
    pub s_mtime: U32,
    pub s_wtime: U32,
    pub s_mnt_count: U16,
    pub s_max_mnt_count: U16,
    pub s_magic: U16,
    pub s_state: U16,
    pub s_errors: U16,
    pub s_minor_rev_level: U16,
    pub s_lastcheck: U32,
    pub s_checkinterval: U32,
    pub s_creator_os: U32,
    pub s_rev_level: U32,
    pub s_def_resuid: U16,
    pub s_def_resgid: U16,
    pub s_first_ino: U32,
    pub s_inode_size: U16,
    pub s_block_group_nr: U16,
    pub s_feature_compat: U32,
    pub s_feature_incompat: U32,
    pub s_feature_ro_compat: U32,
    pub s_uuid: [u8; 16],
    pub s_volume_name: [u8; 16],
    pub s_last_mounted: [u8; 64],
    pub s_algorithm_usage_bitmap: U32,
    pub s_prealloc_blocks: u8,
    pub s_prealloc_dir_blocks: u8,
    pub s_reserved_gdt_blocks: U16,
    pub s_journal_uuid: [u8; 16],
    pub s_journal_inum: U32,
    pub s_journal_dev: U32,
    pub s_last_orphan: U32,
    pub s_hash_seed: [U32; 4],
    pub s_def_hash_version: u8,
    pub s_jnl_backup_type: u8,
    pub s_desc_size: U16,
    pub s_default_mount_opts: U32,
    pub s_first_meta_bg: U32,
    pub s_mkfs_time: U32,
    pub s_jnl_blocks: [U32; 17],
    pub s_blocks_count_hi: U32,
    pub s_r_blocks_count_hi: U32,
    pub s_free_blocks_count_hi: U32,
    pub s_min_extra_isize: U16,
    pub s_want_extra_isize: U16,
    pub s_flags: U32,
    pub s_raid_stride: U16,
    pub s_mmp_update_interval: U16,
    pub s_mmp_block: U64,
    pub s_raid_stripe_width: U32,
    pub s_log_groups_per_flex: u8,
    pub s_checksum_type: u8,
    pub s_encryption_level: u8,
    pub s_reserved_pad: u8,
    pub s_kbytes_written: U64,
    pub s_snapshot_inum: U32,
    pub s_snapshot_id: U32,
    pub s_snapshot_r_blocks_count: U64,
    pub s_snapshot_list: U32,
    pub s_error_count: U32,
    pub s_first_error_time: U32,
    pub s_first_error_ino: U32,
    pub s_first_error_block: U64,
    pub s_first_error_func: [u8; 32],
    pub s_first_error_line: U32,
    pub s_last_error_time: U32,
    pub s_last_error_ino: U32,
    pub s_last_error_line: U32,
    pub s_last_error_block: U64,
    pub s_last_error_func: [u8; 32],
    pub s_mount_opts: [u8; 64],
    pub s_usr_quota_inum: U32,
    pub s_grp_quota_inum: U32,
    pub s_overhead_clusters: U32,
    pub s_backup_bgs: [U32; 2],
    pub s_encrypt_algos: [u8; 4],
    pub s_encrypt_pw_salt: [u8; 16],
    pub s_lpf_ino: U32,
    pub s_prj_quota_inum: U32,
    pub s_checksum_seed: U32,
    pub s_wtime_hi: u8,
    pub s_mtime_hi: u8,
    pub s_mkfs_time_hi: u8,
    pub s_lastcheck_hi: u8,
    pub s_first_error_time_hi: u8,
    pub s_last_error_time_hi: u8,
    pub s_first_error_errcode: u8,
    pub s_last_error_errcode: u8,
    pub s_encoding: U16,
    pub s_encoding_flags: U16,
    pub s_orphan_file_inum: U32,
    pub s_reserved: [U32; 94],
    /// crc32c of everything before it.
    pub s_checksum: U32,
}
layout!(Superblock: 1024, s_blocks_per_group @ 0x20, s_magic @ 0x38, s_rev_level @ 0x4c, s_feature_incompat @ 0x60,
    s_volume_name @ 0x78, s_reserved_gdt_blocks @ 0xce, s_journal_inum @ 0xe0, s_hash_seed @ 0xec, s_desc_size @ 0xfe,
    s_first_meta_bg @ 0x104, s_blocks_count_hi @ 0x150, s_flags @ 0x160, s_mmp_block @ 0x168,
    s_checksum_type @ 0x175, s_error_count @ 0x194, s_mount_opts @ 0x200, s_overhead_clusters @ 0x248,
    s_backup_bgs @ 0x24c, s_checksum_seed @ 0x270, s_encoding @ 0x27c, s_orphan_file_inum @ 0x280,
    s_checksum @ 0x3fc);

/// `s_state`: it was unmounted.
pub const STATE_VALID: u16 = 1;
/// `s_state`: errors were found.
pub const STATE_ERROR: u16 = 2;

/// `mmp_magic`.
pub const MMP_MAGIC: u32 = 0x004d_4d50;
/// `mmp_seq` of a file system that nobody has mounted.
pub const MMP_CLEAN: u32 = 0xff4d_4d50;

/// The guard against a second mount: `struct mmp_struct`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct Mmp {
    pub mmp_magic: U32,
    /// Rises while somebody has it mounted.
    pub mmp_seq: U32,
    pub mmp_time: U64,
    pub mmp_nodename: [u8; 64],
    pub mmp_bdevname: [u8; 32],
    pub mmp_check_interval: U16,
    pub mmp_pad1: U16,
    pub mmp_pad2: [U32; 226],
    /// crc32c of everything before it.
    pub mmp_checksum: U32,
}
layout!(Mmp: 1024, mmp_seq @ 4, mmp_nodename @ 0x10, mmp_bdevname @ 0x50, mmp_check_interval @ 0x70,
    mmp_checksum @ 0x3fc);

/// `struct ext4_group_desc`. Without the feature 64bit only the first 32 bytes exist.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct GroupDescriptor {
    pub bg_block_bitmap_lo: U32,
    pub bg_inode_bitmap_lo: U32,
    pub bg_inode_table_lo: U32,
    pub bg_free_blocks_count_lo: U16,
    pub bg_free_inodes_count_lo: U16,
    pub bg_used_dirs_count_lo: U16,
    pub bg_flags: U16,
    pub bg_exclude_bitmap_lo: U32,
    pub bg_block_bitmap_csum_lo: U16,
    pub bg_inode_bitmap_csum_lo: U16,
    pub bg_itable_unused_lo: U16,
    pub bg_checksum: U16,
    pub bg_block_bitmap_hi: U32,
    pub bg_inode_bitmap_hi: U32,
    pub bg_inode_table_hi: U32,
    pub bg_free_blocks_count_hi: U16,
    pub bg_free_inodes_count_hi: U16,
    pub bg_used_dirs_count_hi: U16,
    pub bg_itable_unused_hi: U16,
    pub bg_exclude_bitmap_hi: U32,
    pub bg_block_bitmap_csum_hi: U16,
    pub bg_inode_bitmap_csum_hi: U16,
    pub bg_reserved: U32,
}
layout!(GroupDescriptor: 64, bg_inode_table_lo @ 0x8, bg_flags @ 0x12, bg_checksum @ 0x1e, bg_block_bitmap_hi @ 0x20,
    bg_free_blocks_count_hi @ 0x2c, bg_reserved @ 0x3c);

/// `struct ext4_inode`, with the fields that Linux uses of what each system once had for its own. The first 128 bytes
/// always exist, the others as far as `i_extra_isize` says.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct Inode {
    pub i_mode: U16,
    pub i_uid: U16,
    pub i_size_lo: U32,
    pub i_atime: U32,
    pub i_ctime: U32,
    pub i_mtime: U32,
    pub i_dtime: U32,
    pub i_gid: U16,
    pub i_links_count: U16,
    pub i_blocks_lo: U32,
    pub i_flags: U32,
    pub i_version: U32,
    /// Extent tree, block map, target of a short link or number of a device.
    pub i_block: [u8; 60],
    pub i_generation: U32,
    pub i_file_acl_lo: U32,
    pub i_size_high: U32,
    pub i_obso_faddr: U32,
    pub i_blocks_high: U16,
    pub i_file_acl_high: U16,
    pub i_uid_high: U16,
    pub i_gid_high: U16,
    pub i_checksum_lo: U16,
    pub i_reserved: U16,
    pub i_extra_isize: U16,
    pub i_checksum_hi: U16,
    pub i_ctime_extra: U32,
    pub i_mtime_extra: U32,
    pub i_atime_extra: U32,
    pub i_crtime: U32,
    pub i_crtime_extra: U32,
    pub i_version_hi: U32,
    pub i_projid: U32,
}
layout!(Inode: 160, i_size_lo @ 0x4, i_links_count @ 0x1a, i_flags @ 0x20, i_block @ 0x28, i_generation @ 0x64,
    i_size_high @ 0x6c, i_blocks_high @ 0x74, i_uid_high @ 0x78, i_checksum_lo @ 0x7c, i_extra_isize @ 0x80,
    i_checksum_hi @ 0x82, i_atime_extra @ 0x8c, i_crtime @ 0x90, i_crtime_extra @ 0x94, i_projid @ 0x9c);

/// `eh_magic`.
pub const EXTENT_MAGIC: u16 = 0xf30a;

/// What a node of an extent tree begins with: `struct ext4_extent_header`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct ExtentHeader {
    pub eh_magic: U16,
    pub eh_entries: U16,
    pub eh_max: U16,
    /// How many levels lie beneath; 0 for a leaf.
    pub eh_depth: U16,
    pub eh_generation: U32,
}
layout!(ExtentHeader: 12, eh_entries @ 2, eh_max @ 4, eh_depth @ 6, eh_generation @ 8);

/// A child of an inner node of an extent tree: `struct ext4_extent_idx`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct ExtentIndex {
    pub ei_block: U32,
    pub ei_leaf_lo: U32,
    pub ei_leaf_hi: U16,
    pub ei_unused: U16,
}
layout!(ExtentIndex: 12, ei_leaf_lo @ 4, ei_leaf_hi @ 8);

/// A run of blocks in a leaf of an extent tree: `struct ext4_extent`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct Extent {
    pub ee_block: U32,
    /// Above 32768: unwritten, and the length is `ee_len - 32768`.
    pub ee_len: U16,
    pub ee_start_hi: U16,
    pub ee_start_lo: U32,
}
layout!(Extent: 12, ee_block @ 0, ee_len @ 4, ee_start_hi @ 6, ee_start_lo @ 8);

/// What a file with a Merkle tree ends with: `struct fsverity_descriptor`. A signature follows.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct VerityDescriptor {
    pub version: u8,
    pub hash_algorithm: u8,
    pub log_blocksize: u8,
    pub salt_size: u8,
    pub sig_size: U32,
    pub data_size: U64,
    pub root_hash: [u8; 64],
    pub salt: [u8; 32],
    pub reserved: [u8; 144],
}
layout!(VerityDescriptor: 256, sig_size @ 4, data_size @ 8, root_hash @ 0x10, salt @ 0x50, reserved @ 0x70);

/// What a directory entry begins with: `struct ext4_dir_entry_2`. The name follows.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct DirEntry {
    /// 0 for an entry that is not in use.
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    /// Without the feature filetype, the upper half of the length of the name: 0.
    pub file_type: u8,
}
layout!(DirEntry: 8, rec_len @ 4, name_len @ 6, file_type @ 7);

/// `det_reserved_ft` of a [`DirEntryTail`].
pub const DIR_TAIL_TYPE: u8 = 0xde;

/// What a leaf of a directory ends with if it has a checksum: `struct ext4_dir_entry_tail`, an empty entry to whoever
/// does not know it.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct DirEntryTail {
    pub det_reserved_zero1: U32,
    pub det_rec_len: U16,
    pub det_reserved_zero2: u8,
    pub det_reserved_ft: u8,
    /// crc32c of the block before the tail.
    pub det_checksum: U32,
}
layout!(DirEntryTail: 12, det_rec_len @ 4, det_reserved_ft @ 7, det_checksum @ 8);

/// What the root of a hash tree begins with: `struct dx_root` up to its entries.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct HtreeRoot {
    pub dot: DirEntry,
    pub dot_name: [u8; 4],
    pub dotdot: DirEntry,
    pub dotdot_name: [u8; 4],
    pub reserved_zero: U32,
    pub hash_version: u8,
    pub info_length: u8,
    pub indirect_levels: u8,
    /// Bit 0: the hash is none that is known.
    pub unused_flags: u8,
}
layout!(HtreeRoot: 32, dotdot @ 12, reserved_zero @ 24, hash_version @ 28, indirect_levels @ 30);

/// What lies in the place of the first entry's hash: `struct dx_countlimit`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct HtreeCount {
    pub limit: U16,
    pub count: U16,
}
layout!(HtreeCount: 4, count @ 2);

/// A child in a block of a hash tree: `struct dx_entry`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct HtreeEntry {
    /// The lowest hash in the child. Bit 0: names of this hash lie in the child before it, too.
    pub hash: U32,
    /// A block of the directory: the lower 28 bits.
    pub block: U32,
}
layout!(HtreeEntry: 8, block @ 4);

/// What lies behind the room for entries if there is a checksum: `struct dx_tail`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct HtreeTail {
    pub dt_reserved: U32,
    /// crc32c of everything up to the last entry, of `dt_reserved` and of four zeros.
    pub dt_checksum: U32,
}
layout!(HtreeTail: 8, dt_checksum @ 4);

/// What stands behind a name in a directory that is encrypted and folds case, at the next multiple of 4 bytes:
/// `struct ext4_dir_entry_hash`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct DirEntryHash {
    pub hash: U32,
    pub minor_hash: U32,
}
layout!(DirEntryHash: 8, minor_hash @ 4);

/// `h_magic`, in the body of an inode and in a block alike.
pub const XATTR_MAGIC: u32 = 0xea02_0000;

/// What a block of extended attributes begins with: `struct ext4_xattr_header`. In the body of an inode there is only
/// the magic number.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct XattrHeader {
    pub h_magic: U32,
    /// How many inodes share the block.
    pub h_refcount: U32,
    pub h_blocks: U32,
    pub h_hash: U32,
    /// crc32c of the block's number and of the whole block with this as 0.
    pub h_checksum: U32,
    pub h_reserved: [U32; 3],
}
layout!(XattrHeader: 32, h_refcount @ 4, h_blocks @ 8, h_hash @ 0xc, h_checksum @ 0x10, h_reserved @ 0x14);

/// An extended attribute: `struct ext4_xattr_entry`. Its name follows, filled up to a multiple of 4 bytes. Four zero
/// bytes stand behind the last.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct XattrEntry {
    pub e_name_len: u8,
    /// What the name begins with.
    pub e_name_index: u8,
    /// Counted in the body of an inode from the first entry on, in a block from its begin.
    pub e_value_offs: U16,
    /// The inode that holds the value, or 0.
    pub e_value_inum: U32,
    pub e_value_size: U32,
    pub e_hash: U32,
}
layout!(XattrEntry: 16, e_name_index @ 1, e_value_offs @ 2, e_value_inum @ 4, e_value_size @ 8, e_hash @ 12);

/// `a_version` of an access control list, `ext4_acl_header`, which is this one number.
pub const ACL_VERSION: u32 = 1;

/// An entry of an access control list that names nobody: `ext4_acl_entry_short`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct AclEntryShort {
    pub e_tag: U16,
    pub e_perm: U16,
}
layout!(AclEntryShort: 4, e_perm @ 2);

/// An entry of an access control list as the system calls have it: `struct posix_acl_xattr_entry`. On the disk those that
/// name a user or a group look the same: `ext4_acl_entry`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the kernel's and documented there")]
pub struct AclEntry {
    pub e_tag: U16,
    pub e_perm: U16,
    pub e_id: U32,
}
layout!(AclEntry: 8, e_perm @ 2, e_id @ 4);
