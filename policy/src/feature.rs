//! The feature flags of an ext2, ext3 or ext4 file system, with the names a person knows them by.
//!
//! The worker decides what it can read (`worker/src/ext4/feature.rs`); the broker only prints names. The values are
//! those of the kernel's `fs/ext4/ext4.h`, the names those of `tune2fs -O` (e2fsprogs `lib/e2p/feature.c`).

use bitflags::bitflags;

bitflags! {
    /// `s_feature_compat`: a reader that knows none of them reads rightly.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Compat: u32 {
        /// Directory blocks are allocated ahead.
        const DIR_PREALLOC = 0x1;
        /// Inodes of AFS.
        const IMAGIC_INODES = 0x2;
        /// There is a journal.
        const HAS_JOURNAL = 0x4;
        /// There are extended attributes.
        const EXT_ATTR = 0x8;
        /// Space is kept for more group descriptors.
        const RESIZE_INODE = 0x10;
        /// Directories may be hashed.
        const DIR_INDEX = 0x20;
        /// Never used in a released kernel.
        const LAZY_BG = 0x40;
        /// Never used in a released kernel.
        const EXCLUDE_INODE = 0x80;
        /// Bitmaps that exclude blocks from snapshots.
        const EXCLUDE_BITMAP = 0x100;
        /// Two backup superblocks, at the groups the superblock names.
        const SPARSE_SUPER2 = 0x200;
        /// The journal may end with fast commits.
        const FAST_COMMIT = 0x400;
        /// Inode numbers and the UUID may not change.
        const STABLE_INODES = 0x800;
        /// Orphans are listed in a file.
        const ORPHAN_FILE = 0x1000;
    }

    /// `s_feature_incompat`: a reader that does not know one of them must refuse.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Incompat: u32 {
        /// Never implemented upstream.
        const COMPRESSION = 0x1;
        /// Directory entries hold the file's type.
        const FILETYPE = 0x2;
        /// The journal has to be replayed.
        const RECOVER = 0x4;
        /// This is a journal and not a file system.
        const JOURNAL_DEV = 0x8;
        /// Group descriptors are spread over the device.
        const META_BG = 0x10;
        /// Files are mapped by extents.
        const EXTENTS = 0x40;
        /// Block numbers have 64 bits.
        const SIXTY_FOUR_BIT = 0x80;
        /// Guarded against being mounted by two hosts.
        const MMP = 0x100;
        /// Bitmaps and inode tables of several groups lie together.
        const FLEX_BG = 0x200;
        /// Values of extended attributes may have inodes of their own.
        const EA_INODE = 0x400;
        /// Data in directory entries (Lustre).
        const DIRDATA = 0x1000;
        /// The seed of the checksums stands in the superblock.
        const CSUM_SEED = 0x2000;
        /// Directories over 2 GiB and hash trees of three levels.
        const LARGEDIR = 0x4000;
        /// Small files and directories lie in their inode.
        const INLINE_DATA = 0x8000;
        /// Files may be encrypted.
        const ENCRYPT = 0x10000;
        /// Directories may fold case.
        const CASEFOLD = 0x20000;
    }

    /// `s_feature_ro_compat`: a reader that does not know one of them may read, but not write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RoCompat: u32 {
        /// Only some groups hold copies of the superblock.
        const SPARSE_SUPER = 0x1;
        /// Files over 2 GiB.
        const LARGE_FILE = 0x2;
        /// Never used in a released kernel.
        const BTREE_DIR = 0x4;
        /// Files may count their blocks in blocks of the file system.
        const HUGE_FILE = 0x8;
        /// Group descriptors have a crc16.
        const GDT_CSUM = 0x10;
        /// A link count of 1 means "many".
        const DIR_NLINK = 0x20;
        /// Inodes have a tail of known length.
        const EXTRA_ISIZE = 0x40;
        /// Never merged.
        const HAS_SNAPSHOT = 0x80;
        /// Quota files are inodes of the file system.
        const QUOTA = 0x100;
        /// Space is allocated in clusters.
        const BIGALLOC = 0x200;
        /// Metadata has crc32c checksums.
        const METADATA_CSUM = 0x400;
        /// Never merged.
        const REPLICA = 0x800;
        /// Marked read-only.
        const READONLY = 0x1000;
        /// Projects have quotas.
        const PROJECT = 0x2000;
        /// Blocks may belong to several files.
        const SHARED_BLOCKS = 0x4000;
        /// Files may carry a Merkle tree.
        const VERITY = 0x8000;
        /// The orphan file is not empty.
        const ORPHAN_PRESENT = 0x10000;
    }
}

impl Compat {
    /// Those that a check knows: with any other there may be structures that it takes for damage, or for sound. e2fsck
    /// 1.47 refuses the same.
    pub const CHECKED: Self =
        Self::all().difference(Self::LAZY_BG).difference(Self::EXCLUDE_INODE).difference(Self::EXCLUDE_BITMAP);
}

impl RoCompat {
    /// Those that a check knows, likewise.
    pub const CHECKED: Self = Self::UNDERSTOOD.difference(Self::BTREE_DIR);
    /// Those whose meaning for a reader is known. With any other the file system is read and a warning given: what a
    /// kernel that knows them made may not be all there.
    pub const UNDERSTOOD: Self = Self::all().difference(Self::HAS_SNAPSHOT).difference(Self::REPLICA);
}

macro_rules! spoken {
    ($type:ident, $word:literal, $($flag:ident => $name:literal),* $(,)?) => {
        impl $type {
            /// What `tune2fs -l` would call the flags that are set; a bit without a name as `feature_I31` and the like.
            pub fn names(self) -> Vec<String> {
                (0..u32::BITS).map(|bit| (bit, 1u32 << bit)).filter(|(_, mask)| self.bits() & mask != 0).map(|(bit, mask)| {
                    $(if mask == Self::$flag.bits() { return $name.to_owned(); })*
                    format!(concat!("FEATURE_", $word, "{}"), bit)
                }).collect()
            }
        }
    };
}

spoken!(Compat, "C",
    DIR_PREALLOC => "dir_prealloc", IMAGIC_INODES => "imagic_inodes", HAS_JOURNAL => "has_journal",
    EXT_ATTR => "ext_attr", RESIZE_INODE => "resize_inode", DIR_INDEX => "dir_index", LAZY_BG => "lazy_bg",
    EXCLUDE_INODE => "snapshot_inode", EXCLUDE_BITMAP => "snapshot_bitmap", SPARSE_SUPER2 => "sparse_super2",
    FAST_COMMIT => "fast_commit", STABLE_INODES => "stable_inodes", ORPHAN_FILE => "orphan_file");
spoken!(Incompat, "I",
    COMPRESSION => "compression", FILETYPE => "filetype", RECOVER => "needs_recovery", JOURNAL_DEV => "journal_dev",
    META_BG => "meta_bg", EXTENTS => "extent", SIXTY_FOUR_BIT => "64bit", MMP => "mmp", FLEX_BG => "flex_bg",
    EA_INODE => "ea_inode", DIRDATA => "dirdata", CSUM_SEED => "metadata_csum_seed", LARGEDIR => "large_dir",
    INLINE_DATA => "inline_data", ENCRYPT => "encrypt", CASEFOLD => "casefold");
spoken!(RoCompat, "R",
    SPARSE_SUPER => "sparse_super", LARGE_FILE => "large_file", BTREE_DIR => "btree_dir", HUGE_FILE => "huge_file",
    GDT_CSUM => "uninit_bg", DIR_NLINK => "dir_nlink", EXTRA_ISIZE => "extra_isize", HAS_SNAPSHOT => "snapshot",
    QUOTA => "quota", BIGALLOC => "bigalloc", METADATA_CSUM => "metadata_csum", REPLICA => "replica",
    READONLY => "read-only", PROJECT => "project", SHARED_BLOCKS => "shared_blocks", VERITY => "verity",
    ORPHAN_PRESENT => "orphan_present");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_flag_has_its_name_and_an_unknown_one_its_number() {
        let flags = Incompat::from_bits_retain(0x8000 | 0x80 | 0x8000_0000);
        assert_eq!(flags.names(), ["64bit", "inline_data", "FEATURE_I31"]);
        assert_eq!(RoCompat::METADATA_CSUM.names(), ["metadata_csum"]);
        assert!(Compat::empty().names().is_empty());
    }
}
