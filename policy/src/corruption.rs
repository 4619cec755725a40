//! What can be wrong with an image, in numbers: which rule of the format is broken, and where.
//!
//! The worker finds it, the broker and the tools print it. Nothing here can carry a byte of the image.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A broken rule and its place. The same words for the reader, for `check` and for the refusal of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corruption {
    /// What must hold and does not.
    pub rule: Rule,
    /// Where.
    pub place: Place,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

/// Where in the file system a structure lies. Block numbers count file-system blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The superblock that was read.
    Superblock,
    /// The descriptor of a group.
    GroupDescriptor(u32),
    /// An inode.
    Inode(u32),
    /// A node of an inode's extent tree, in this block of the device.
    ExtentNode {
        /// The file.
        inode: u32,
        /// The node's block.
        block: u64,
    },
    /// A block of an inode's indirect map, in this block of the device.
    IndirectBlock {
        /// The file.
        inode: u32,
        /// The map's block.
        block: u64,
    },
    /// A block of an inode's extended attributes, in this block of the device.
    XattrBlock {
        /// The file, or one of those that share the block.
        inode: u32,
        /// The block.
        block: u64,
    },
    /// A byte of a directory's block: the block counted within the directory, the byte within the block.
    Directory {
        /// The directory.
        inode: u32,
        /// Its logical block.
        block: u32,
        /// The byte within it.
        offset: u32,
    },
    /// A block of the journal, counted within the journal.
    Journal(u32),
    /// A bitmap of a group.
    Bitmap {
        /// The group.
        group: u32,
        /// The first block or inode that is wrong: a block of the device, the number of an inode, 0 for the whole.
        first: u64,
    },
    /// What a group keeps as a copy: the superblock and the descriptors at its begin.
    Backup(u32),
    /// A block that a file claims.
    Claim {
        /// The file.
        inode: u32,
        /// The block.
        block: u64,
    },
    /// A block of a file's data, counted in blocks of its Merkle tree.
    Data {
        /// The file.
        inode: u32,
        /// The block.
        block: u64,
    },
    /// A block of hashes, counted within a file's Merkle tree.
    Merkle {
        /// The file.
        inode: u32,
        /// The block.
        block: u64,
    },
    /// A range of the device in bytes.
    Device {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// A partition of a whole device, by its number.
    Partition(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Superblock => write!(f, "superblock"),
            Self::GroupDescriptor(group) => write!(f, "descriptor of group {group}"),
            Self::Inode(inode) => write!(f, "inode {inode}"),
            Self::ExtentNode { inode, block } => write!(f, "extent node in block {block} of inode {inode}"),
            Self::IndirectBlock { inode, block } => write!(f, "indirect block {block} of inode {inode}"),
            Self::XattrBlock { inode, block } => write!(f, "block {block} of attributes of inode {inode}"),
            Self::Directory { inode, block, offset } => {
                write!(f, "directory inode {inode}, block {block}, byte {offset}")
            }
            Self::Journal(block) => write!(f, "block {block} of the journal"),
            Self::Bitmap { group, first: 0 } => write!(f, "bitmap of group {group}"),
            Self::Bitmap { group, first } => write!(f, "bitmap of group {group}, from {first} on"),
            Self::Backup(group) => write!(f, "copies at the begin of group {group}"),
            Self::Claim { inode, block } => write!(f, "block {block} of inode {inode}"),
            Self::Data { inode, block } => write!(f, "block {block} of the data of inode {inode}"),
            Self::Merkle { inode, block } => write!(f, "block {block} of the Merkle tree of inode {inode}"),
            Self::Device { offset, length } => {
                write!(f, "bytes {offset} to {} of the device", offset.saturating_add(length))
            }
            Self::Partition(number) => write!(f, "partition {number}"),
        }
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// A rule of the on-disk format (kernel's `Documentation/filesystems/ext4`), or a bound that this reader sets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Rule {
            $(#[doc = $text] $name,)*
        }
        impl Rule {
            /// Every rule, so that a test can show each one broken.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];

            /// Its place in [`Self::ALL`].
            pub fn number(self) -> usize {
                self as usize
            }
        }
        impl fmt::Display for Rule {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

rules! {
    // Partition tables.
    PartitionInDevice => "a partition lies within the device",
    PartitionsApart => "partitions lie apart",
    PartitionLength => "a partition does not end before it begins",
    PartitionCount => "at most 128 partitions are read",
    ExtendedLink => "every link of a chain of logical partitions lies within the extended partition and is a boot record",
    ExtendedChain => "a chain of logical partitions does not come back to where it was",
    LogicalInExtended => "a logical partition lies within the extended one",
    GptHeader => "the header of a GPT says where it lies, and its entries fit the device",
    GptHeaderChecksum => "the header of a GPT matches its checksum",
    GptEntriesChecksum => "the entries of a GPT match their checksum",
    GptProtected => "a GPT stands behind a boot record that protects it",
    // Superblock.
    BlockSize => "the block size is between 1 KiB and 64 KiB",
    DeviceHoldsFileSystem => "the device is as long as the superblock says",
    SuperblockChecksum => "the superblock matches its checksum",
    InodeSize => "the inode size is a power of two from 128 to the block size",
    FirstInode => "the first inode that is not reserved is at least 11",
    DescriptorSize => "the size of a group descriptor is 32, or with 64bit a power of two from 64 to 1024",
    FirstDataBlock => "the first group begins at block 1 with blocks of 1 KiB that do not come in clusters, and else at block 0",
    BlockCount => "the file system has blocks, and they can be counted in bytes",
    BlocksPerGroup => "a group has blocks, and no more than a bitmap of one block has bits",
    GroupCount => "there are at most 2097152 groups",
    InodesPerGroup => "a group's inodes fill a block, and are no more than a bitmap of one block has bits",
    InodeCount => "the number of inodes is that of all groups together",
    ReservedDescriptorBlocks => "at most a quarter of a block's bytes is the number of blocks reserved for descriptors",
    FirstMetaGroup => "the first spread block of descriptors is one of them, or would be the next",
    SuperblockPlace => "a copy of the superblock lies where a group begins",
    ChecksumType => "the checksums are crc32c",
    ClusterSize => "a cluster is as large as a block or larger, and at most 1 GiB",
    // Groups.
    GroupNumber => "there is such a group",
    GroupChecksum => "a group descriptor matches its checksum",
    GroupInFileSystem => "a group's bitmaps and inode table lie within the file system",
    // Inodes.
    InodeNumber => "an inode number is one that a file can have",
    InodeChecksum => "an inode matches its checksum",
    InodeExtraSize => "the tail of an inode lies within it, and its length is a multiple of 4",
    InodeInUse => "an inode that is named has links",
    InodeMode => "an inode is of one of the seven file types",
    InodeFlags => "an inode uses only features that the superblock names",
    FileSize => "a file is no longer than its map can reach",
    SymlinkTarget => "a symbolic link's target has 1 to 4095 bytes, none of them NUL, and fits its place",
    // Maps of files.
    BlockInFileSystem => "a file's blocks lie within the file system",
    BlockNotSystem => "a file holds none of the blocks that are the file system's own",
    ExtentMagic => "a node of an extent tree begins with its magic number",
    ExtentDepth => "a node of an extent tree is one level beneath its parent, and the root at most 5 above the leaves",
    ExtentCount => "a node of an extent tree has room for its entries, and an inner node has at least one",
    ExtentOrder => "the entries of a node of an extent tree are in order and apart",
    ExtentRange => "the entries of a node of an extent tree lie within its parent's",
    ExtentLength => "an extent has blocks",
    ExtentChecksum => "a node of an extent tree matches its checksum",
    // Directories.
    DirectoryChecksum => "a block of a directory matches its checksum",
    DirectoryRecordLength => "a directory entry is as long as its name needs, and its length is a multiple of 4",
    DirectoryRecordEnd => "a directory entry ends with its block, or leaves room for another",
    DirectoryInode => "a directory entry names an inode that exists",
    DirectoryName => "a name has 1 to 255 bytes, none of them a slash or NUL",
    DirectoryWhole => "every block of a directory can be read",
    HtreeRoot => "the root of a hash tree hides behind the entries . and .., and describes itself in 8 bytes",
    HtreeNode => "an inner node of a hash tree hides behind an empty entry as long as the block",
    HtreeDepth => "a hash tree has at most one level of nodes between root and leaves, with large_dir two",
    HtreeLimit => "a block of a hash tree says how many entries fit into it, and has at least one and no more",
    HtreeOrder => "the hashes in a block of a hash tree do not fall",
    HtreeBlock => "the children of a hash tree lie within the directory, and are none of their own ancestors",
    // Extended attributes.
    XattrHeader => "extended attributes that do not fit an inode begin with their magic number and have one block",
    XattrChecksum => "a block of extended attributes matches its checksum",
    XattrEntry => "the entries of extended attributes lie within their place, and four zero bytes behind the last",
    XattrName => "the name of an extended attribute has 1 to 255 bytes with its prefix, none of them NUL",
    XattrValue => "the value of an extended attribute lies behind the entries and within their place",
    XattrOverlap => "the values of extended attributes lie apart",
    XattrSize => "the value of an extended attribute has at most 65536 bytes",
    XattrInode => "an extended attribute with an inode for its value names one that is made for it and is not its own",
    XattrInodeSize => "an inode for the value of an extended attribute is as long as the attribute says",
    XattrHash => "the value of an extended attribute in an inode of its own matches its hash",
    AclForm => "an access control list is of version 1 and made of whole entries",
    AclEntry => "an entry of an access control list is of one of the six kinds and grants no more than rwx",
    AclOrder => "the entries of an access control list are in order, and none that must be there is missing",
    // Verity.
    VerityPlace => "a file with a Merkle tree has it in extents behind its end, and the descriptor behind the tree",
    VerityDescriptor => "the descriptor of a Merkle tree is of version 1 and describes at most 8 levels",
    VeritySize => "the descriptor of a Merkle tree says how long the file is",
    VerityHash => "a block matches its hash in the Merkle tree",
    // Inline data.
    InlineData => "an inode with data in itself has room for it in an extended attribute, though it may be empty",
    InlineFlags => "an inode has its data in itself or in extents",
    InlineSize => "data in an inode is no longer than the room for it",
    // Journal.
    JournalInside => "a journal that has to be replayed lies in an inode of the file system",
    JournalInode => "the journal's inode is a regular file, and every block of it is mapped",
    JournalMagic => "the journal begins with its superblock, of version 1 or 2",
    JournalBlockSize => "the journal's blocks are as long as those of the file system",
    JournalLength => "the journal is no longer than its inode, and the log has blocks",
    JournalStart => "the log begins within the journal",
    JournalFeatures => "the journal uses only features that this reader knows",
    JournalChecksumType => "the journal has one kind of checksums, and from version 2 on they are crc32c",
    JournalSuperblockChecksum => "the journal's superblock matches its checksum",
    JournalBlockChecksum => "the descriptors and revoke records of a transaction match their checksums",
    JournalCommitChecksum => "a commit block matches its checksum, or the checksum of its transaction",
    JournalDataChecksum => "a block in the log matches the checksum in its tag",
    JournalRevoke => "the revoke records lie within their block",
    JournalTarget => "a block in the log belongs to a block of the file system",
    FastCommitTail => "the first fast commit is whole and matches its checksum",
    FastCommitFeatures => "fast commits use only features that this reader knows",
    FastCommitInode => "a fast commit names inodes that a file can have, and creates only what there is",
    FastCommitParent => "a fast commit names files in directories",
    FastCommitName => "a name in a fast commit is one that its directory can have",
    FastCommitWork => "the names in fast commits are looked for in at most 1 GiB of directories",
    JournalWork => "at most 4 GiB of the journal are looked at",
    // Casefold and encryption.
    EncryptedName => "the name of an entry in an encrypted directory has at least 16 bytes",
    EncryptedTarget => "the target of an encrypted symbolic link has at least 16 bytes and fits its place",
    // Found by check only.
    FreeBlocks => "the number of free blocks is that of the bitmaps",
    FreeInodes => "the number of free inodes is that of the bitmaps",
    SuperblockThere => "a file system whose copies of the superblock are there has it at its begin",
    ReservedBlocks => "at most half of the blocks are kept for root",
    GroupSizes => "a group has at least 8 blocks, no more than 65528 clusters, as many clusters as its blocks need, fewer inodes than fit its blocks, and no more than 2147483648 groups belong together",
    Encoding => "names that fold case are encoded in a way that kernels know",
    LargeFile => "a file of 2 GiB or more needs the feature large_file",
    UsedDirectories => "the number of a group's directories is that of its inodes",
    Revision => "the format is of revision 0 or 1",
    BackupSuperblock => "a copy of the superblock describes the same file system",
    BackupDescriptors => "a copy of the group descriptors says where the same structures lie",
    GroupOwnStructures => "without flex_bg a group's bitmaps and inode table lie within the group",
    GroupStructuresApart => "the structures of all groups lie apart",
    GroupUnusedInodes => "the unused part of an inode table is no longer than the table, and nothing in it is named",
    BlockBitmap => "the bitmap of a group's blocks has those that are in use, and no others",
    InodeBitmap => "the bitmap of a group's inodes has those that are in use, and no others",
    BitmapPadding => "a bitmap is filled up with ones",
    BlockBitmapChecksum => "the bitmap of a group's blocks matches its checksum",
    InodeBitmapChecksum => "the bitmap of a group's inodes matches its checksum",
    ReservedInode => "a reserved inode is of the kind it is reserved for, or empty",
    ResizeInode => "the inode for resizing maps the blocks that are reserved for descriptors, and nothing else",
    OrphanFile => "the orphan file has entries if the superblock says so, and its blocks match their checksums",
    OrphanList => "the list of orphans leads through inodes that exist, and ends",
    BadBlocks => "the list of bad blocks has none of the file system's own but of inode tables",
    MmpBlock => "the block that guards against a second mount lies within the file system, has its magic number and a state that is known",
    JournalAlone => "a journal in an inode is that of one file system, which names no other journal",
    JournalClean => "a journal that holds data is marked for recovery",
    InodeDeleted => "an inode has a time of deletion if it is deleted, and only then",
    InodeUnusedFields => "fields of an inode that the features do not use are zero",
    InodeTimes => "a time is not kept in the old form for years before 1970",
    InodeBlocks => "the space of an inode is that of its blocks and attributes",
    InodeSizeMapped => "a file is as long as its blocks, up to space that was never written",
    SpecialFile => "a device, FIFO or socket has no size, no map and no hash tree",
    ExtentIndex => "an entry of an inner node of an extent tree begins where its child begins",
    ExtentRoom => "a node of an extent tree uses all of the room for its entries",
    BlockOnce => "a block belongs to one file only",
    ClusterMap => "where blocks come in clusters, files and directories are mapped by extents",
    ClusterAligned => "the blocks of a file lie in their clusters as in the file",
    DirectoryHole => "the blocks of a directory have no holes, and all were written",
    DirectoryDot => "a directory begins with the entry . that names itself",
    DirectoryDotDot => "the second entry of a directory is .. and names its parent",
    DirectoryEntryInUse => "a directory entry names an inode that is in use, and none that is reserved",
    DirectoryType => "a directory entry has the type of the inode",
    DirectoryDuplicate => "a directory has a name only once",
    DirectoryParent => "a directory has one name, and it is not in itself",
    DirectoryReachable => "a directory is reached from the root",
    HtreeFlag => "only directories have hash trees, and the hash is one that the format knows",
    HtreeReference => "every block of a hashed directory has one place in its tree",
    HtreeRange => "the names in a leaf of a hash tree have the hashes that the tree says",
    LinkCount => "the links of an inode are those of the directories",
    InodeNamed => "an inode in use has a name",
    QuotaFile => "a quota file is of its kind and of version 1, and every block of its tree lies within it",
    QuotaUsage => "a quota file counts the space and the inodes that each owner has, and knows of all owners",
    XattrReferences => "a block of attributes is counted once for each inode that has it",
    XattrValueHash => "the hash of an extended attribute is that of its name and value",
    XattrInodeReferences => "an inode for the value of an attribute is counted once for each attribute that has it",
}
