//! What a tool asks of a worker, and what it is answered.
//!
//! What holds here: an answer may carry bytes of the image, names and contents. Whoever prints them escapes them first.

use super::{Checked, Message, Range, decoded};
use crate::gather::{Begin, MOST_INODES, Piece};
use serde::{Deserialize, Serialize};

/// A tool's question, after `Report::Ready`; one [`Answer`] to each. Inode 2 is the root directory.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// What is this inode?
    Inode(u32),
    /// Which inode does a name stand for?
    Find {
        /// The directory.
        directory: u32,
        /// 1 to 255 bytes.
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
    },
    /// The next entries of a directory after this cookie; 0 begins.
    List {
        /// The directory.
        inode: u32,
        /// Where to go on.
        cookie: u64,
        /// With the attributes of what is named.
        attributes: bool,
    },
    /// Bytes of a file, at most [`Answer::CHUNK`].
    Read {
        /// The file.
        inode: u32,
        /// Where to begin, in bytes.
        offset: u64,
    },
    /// The target of a symbolic link.
    Link(u32),
    /// Go on checking the file system; the first begins.
    Check,
    /// All that there is to tell of some inodes, as far as one answer goes.
    Gather {
        /// At most [`MOST_INODES`].
        inodes: Vec<u32>,
        /// Where to begin with the first.
        begin: Begin,
    },
    /// Where a file holds data.
    Runs {
        /// The file.
        inode: u32,
        /// From where on, in bytes.
        offset: u64,
    },
    /// How a file lies on the device.
    Map {
        /// The file.
        inode: u32,
        /// From where on, in bytes.
        offset: u64,
    },
}

/// What the worker answers a tool.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// An inode's attributes.
    Inode(Attributes),
    /// The inode that the name stands for, if there is one.
    Found(Option<u32>),
    /// Entries in the directory's own order; empty at the end.
    List(Vec<Entry>),
    /// Bytes; empty at the end.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// How far the check has come.
    Check(Checked),
    /// Some inodes, as far as there was room; at least one piece.
    Gathered(Vec<Piece>),
    /// Runs of data that rise and do not touch, at most [`crate::gather::MOST_RUNS`].
    Runs {
        /// In bytes of the file.
        runs: Vec<Range>,
        /// Where to go on; none at the end of the file.
        next: Option<u64>,
    },
    /// How a file lies on the device: pieces of which each begins where the one before ended, at most
    /// [`Mapped::MOST_AT_ONCE`]. Holes behind the end of the file are left out.
    Mapped {
        /// In order.
        pieces: Vec<Mapped>,
        /// Where to go on; none when nothing more is there.
        next: Option<u64>,
    },
    /// The object cannot be read: an error number as FUSE would have given it.
    Failed(i32),
}

/// A piece of a file, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub length: u64,
    /// Where it lies.
    pub kind: MappedKind,
}

impl Mapped {
    /// The most pieces of one answer.
    pub const MOST_AT_ONCE: usize = 4096;
}

/// Where a piece of a file lies. The numbers are bytes from the begin of the file system's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MappedKind {
    /// Data.
    Data(u64),
    /// Space that was never written to.
    Unwritten(u64),
    /// Nothing.
    Hole,
    /// Data within the inode.
    Inline(u64),
}

impl Message for Ask {
    /// Five bytes for each inode.
    const MAX: usize = 32 + 5 * MOST_INODES;
    decoded!();
}

impl Message for Answer {
    const MAX: usize = Self::CHUNK + 16 * 1024;
    decoded!();
}

/// What `stat` would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// `i_mode`: type and permissions.
    pub mode: u16,
    /// Links to the inode.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space it takes in units of 512 bytes.
    pub blocks: u64,
    /// The number of a device: minor 0–7, major 8–19, minor 20–31.
    pub rdev: u32,
    /// Last read.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Creation, where the inode is long enough to say.
    pub crtime: Option<Time>,
    /// It has an access control list, for itself or for what is made in it.
    pub acl: bool,
}

/// A time: seconds since 1970, and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Before 1970: negative.
    pub seconds: i64,
    /// At most 999 999 999.
    pub nanoseconds: u32,
}

/// A directory's entry. The name is bytes of the image: check it, and escape it before printing.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The inode it names.
    pub inode: u32,
    /// Where to go on after it.
    pub cookie: u64,
    /// Its name, 1 to 255 bytes.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// What the inode is, where that was asked for and can be read.
    pub attributes: Option<Attributes>,
}
