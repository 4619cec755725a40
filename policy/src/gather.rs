//! The messages by which files are taken out of an image whole: many short ones in one answer, a long one in many.
//!
//! A tool names inodes, the worker tells of each all that there is, in this order: what it is, its extended attributes,
//! its content, its end. An answer ends where its room does; whoever asks says where to go on. Names, values and contents
//! are bytes of the image, and so is the order of an answer until somebody has checked it.

use crate::message::{Answer, Attributes};
use serde::{Deserialize, Serialize};

/// The most inodes of one question.
pub const MOST_INODES: usize = 256;
/// The most runs of one answer.
pub const MOST_RUNS: usize = 1024;

/// Where to begin with the first inode of a question; the others are told whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begin {
    /// With what it is.
    Whole,
    /// Behind so many of its extended attributes.
    Attributes(u32),
    /// With this byte of its content.
    Content(u64),
}

/// A part of what there is to tell of an inode.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// What it is.
    Inode(Attributes),
    /// An extended attribute. Only those are told that were asked for at the start ([`crate::message::Xattrs`]).
    Attribute {
        /// Its whole name, 1 to 255 bytes.
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
        /// Its value, at most 65536 bytes; of an access control list the form of the system calls.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
    },
    /// An extended attribute, or the rest of them, cannot be read: an error number as FUSE would have given it.
    Unread(i32),
    /// Bytes of a file, or the target of a symbolic link.
    Data {
        /// Where they begin in the file.
        offset: u64,
        /// At least one.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Nothing was written to the file from the last byte told to this one: it reads as zeros.
    Hole(u64),
    /// That was all, and what is missing of the content reads as zeros; or it cannot be read from here on, and why.
    End(Option<i32>),
}

impl Piece {
    /// The most bytes that a piece takes in an answer, beside those that it carries.
    pub const NUMBERS: usize = 24;
    /// The same for what an inode is.
    pub const INODE: usize = 112;
}

impl Answer {
    /// The most bytes that the pieces or entries of one answer take.
    pub const CHUNK: usize = 128 * 1024;
}
