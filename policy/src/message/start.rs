//! What a worker is told when it starts: what it is for, and how it is to read.
//!
//! What holds here: all of it comes from the caller's options, nothing from an image.

use serde::{Deserialize, Serialize};

/// What a worker is for, and how it is to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// To serve a mount, or to answer a tool.
    pub purpose: Purpose,
    /// What a wrong checksum does.
    pub checksum: Checksum,
    /// Whether a group descriptor is used whatever its checksum: a check holds it to that itself.
    pub trust_descriptors: bool,
    /// What is done about Merkle trees.
    pub verity: Verity,
    /// Where the superblock to be used lies, in units of 1 KiB: a copy of it, where the primary is gone.
    pub superblock: Option<u64>,
    /// Whether device nodes, sockets and FIFOs are shown as what they are.
    pub special: Special,
    /// Which extended attributes are shown.
    pub xattrs: Xattrs,
    /// Owner of everything, where the mount overrides it.
    pub uid: Option<u32>,
    /// Group of everything, where the mount overrides it.
    pub gid: Option<u32>,
    /// Permission bits taken away from everything.
    pub umask: u16,
    /// Whether the kernel may be told to open files and directories without asking.
    pub open_without_asking: bool,
    /// Seconds after which the kernel itself ends the connection if a request has no answer; 0 for never.
    pub request_timeout: u16,
    /// The kernel may be answered with mappings instead of data, if it offers that in FUSE_INIT, too: it has said that it can
    /// where the broker asked, and the mount is to be of that kind.
    pub iomap: bool,
    /// Threads that answer FUSE, 1 to 16.
    pub threads: u8,
    /// Bytes the worker may use for its heap.
    pub memory: u64,
}

/// Why a worker was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Answer the kernel over /dev/fuse.
    Mount,
    /// Answer questions over the channel.
    Tool,
    /// Answer over the channel what the partitions of a whole device are ([`crate::scan`]).
    Scan,
}

/// `checksum=`: what happens where metadata does not match its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Checksum {
    /// The object answers EBADMSG.
    #[default]
    Strict,
    /// It is used, and counted.
    Warn,
    /// It is not computed.
    Ignore,
}

/// `verity=`: files with a Merkle tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verity {
    /// They are read as other files.
    #[default]
    Ignore,
    /// Every block is checked against the tree before it is given.
    Verify,
}

/// `special=`: device nodes, sockets and FIFOs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Special {
    /// As the kernel's own mount shows them. `nodev` makes device nodes inert.
    #[default]
    Show,
    /// Not at all: they are neither listed nor found.
    Hide,
}

/// `xattrs=`: extended attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Xattrs {
    /// Those of users, `user.*`, and the access control lists, which the kernel then keeps to.
    #[default]
    User,
    /// Also `trusted.*`, for privileged processes, and `security.*`. No program gains anything by them: a mount is
    /// `nosuid`.
    All,
    /// None at all, and access goes by the mode.
    None,
}
