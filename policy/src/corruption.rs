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
    /// A byte of a directory's block: the block counted within the directory, the byte within the block.
    Directory {
        /// The directory.
        inode: u32,
        /// Its logical block.
        block: u32,
        /// The byte within it.
        offset: u32,
    },
    /// A range of the device in bytes.
    Device {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Superblock => write!(f, "superblock"),
            Self::GroupDescriptor(group) => write!(f, "descriptor of group {group}"),
            Self::Inode(inode) => write!(f, "inode {inode}"),
            Self::ExtentNode { inode, block } => write!(f, "extent node in block {block} of inode {inode}"),
            Self::IndirectBlock { inode, block } => write!(f, "indirect block {block} of inode {inode}"),
            Self::Directory { inode, block, offset } => {
                write!(f, "directory inode {inode}, block {block}, byte {offset}")
            }
            Self::Device { offset, length } => {
                write!(f, "bytes {offset} to {} of the device", offset.saturating_add(length))
            }
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
        }
        impl fmt::Display for Rule {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

rules! {
    // Superblock.
    BlockSize => "the block size is between 1 KiB and 64 KiB",
    DeviceHoldsFileSystem => "the device is as long as the superblock says",
}
