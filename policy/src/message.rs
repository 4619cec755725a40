//! Every message between broker and worker, in both directions.
//!
//! A message is one packet, postcard inside, with a fixed maximum and an exact number of fds (`channel.rs`). What a
//! worker says is fixed-size numbers; the broker turns them into words. Only [`Answer`], which a worker gives to the
//! tools that look into an image, carries bytes of the image, and whoever prints them escapes them first.

use crate::corruption::Corruption;
use crate::damage::{Met, Toll};
use crate::gather::{Begin, MOST_INODES, Piece};
use crate::warning::Warnings;
use serde::{Deserialize, Serialize};

/// What goes over the channel: its longest form in bytes, and the fds that come with it.
pub trait Message: Serialize + for<'de> Deserialize<'de> {
    /// Longest encoding. A longer packet is an error, not a longer message.
    const MAX: usize;
    /// The most fds a message of this type brings. With 0 the receiver has no room for any, and the kernel drops them.
    const FDS: usize = 0;
    /// How many fds this very message brings: never more, never fewer.
    fn fds(&self) -> usize {
        0
    }
}

/// From the broker to the worker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// What this worker is for. With `Purpose::Mount` it brings /dev/fuse, and the worker answers FUSE_INIT.
    Start(Start),
    /// The device: one fd, and the range of it that is the file system.
    Device(Range),
}

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

/// A range of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// From the worker to the broker: numbers only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// `confine()` is through; these layers hold. The broker does not believe it but looks.
    Confined(Layers),
    /// FUSE_INIT is answered; the device may come.
    Initialized,
    /// The last filter is on, the file system is open.
    Ready(Summary),
    /// The last filter is on, no byte was read: a worker that scans may be asked.
    Mapped,
    /// It will not be served, and why. The worker ends after this.
    Refused(Refusal),
    /// Damage was met on the mount that is served; at most [`Met::MOST`] of these.
    Met(Met),
    /// The mount is gone, and the worker ends: what was met on it in all.
    Ended(Toll),
    /// The worker met a bug of its own and ends with [`crate::exit::PANIC`]. A line and a column of its own source.
    Panicked {
        /// The line.
        line: u32,
        /// The column.
        column: u32,
    },
}

impl Message for Order {
    const MAX: usize = 128;
    const FDS: usize = 1;
    fn fds(&self) -> usize {
        match self {
            Self::Start(start) => usize::from(start.purpose == Purpose::Mount),
            Self::Device(_) => 1,
        }
    }
}

impl Message for Report {
    const MAX: usize = 256;
}

/// The layers of confinement that the worker found and put on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// Every capability set, the bounding set too, is empty.
    pub capabilities: bool,
    /// no_new_privs is set.
    pub no_new_privs: bool,
    /// The first seccomp filter is on.
    pub seccomp: bool,
    /// The Landlock ABI that was enforced; 0 for none.
    pub landlock: u8,
    /// Landlock scopes (signals, abstract sockets) hold.
    pub scopes: bool,
    /// `PR_SET_MDWE` holds: no page becomes executable.
    pub mdwe: bool,
    /// The process cannot be dumped or traced by others of its uid.
    pub undumpable: bool,
}

/// The file system that is ready, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Bytes a block.
    pub block_size: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Blocks that are free, as the superblock says.
    pub free_blocks: u64,
    /// Inodes of the file system.
    pub inodes: u32,
    /// `s_feature_compat`.
    pub compat: u32,
    /// `s_feature_incompat`.
    pub incompat: u32,
    /// `s_feature_ro_compat`.
    pub ro_compat: u32,
    /// What it should not be trusted with.
    pub warnings: Warnings,
    /// Wrong checksums that were let pass while it was opened.
    pub wrong_checksums: u64,
    /// `s_uuid`.
    pub uuid: [u8; 16],
    /// `s_volume_name`: bytes of the image. Escape before printing.
    pub label: [u8; 16],
    /// What was replayed of the journal, in memory; all zeros for a clean file system.
    pub journal: Replayed,
}

/// What a journal held that was not yet in its place. Nothing of it is written to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Transactions with a commit block.
    pub transactions: u32,
    /// Blocks of the file system that are read from the journal.
    pub blocks: u32,
    /// Blocks that the journal held, and revoked.
    pub revoked: u32,
    /// Fast commits after the last transaction.
    pub fast_commits: u32,
    /// Inodes, names and ranges that these changed.
    pub fast_changes: u32,
}

/// Why an image is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No superblock of an ext file system: the magic number is missing.
    NotExt,
    /// The image ends before the file system does, or before a superblock could be.
    TooShort {
        /// Bytes that are there.
        length: u64,
        /// Bytes that were needed.
        needed: u64,
    },
    /// A feature that this reader does not read: bits of `s_feature_incompat`.
    Incompat(u32),
    /// The journal of another file system, and no file system itself.
    JournalDevice,
    /// It has to be read with a journal that lies on another device.
    ExternalJournal,
    /// The superblock cannot be used, but copies of it can.
    SuperblockLost {
        /// What is wrong with it; none if it is not there at all.
        broken: Option<Corruption>,
        /// Where copies lie, in units of 1 KiB as [`Start::superblock`] takes them; 0 for none.
        copies: [u64; 3],
    },
    /// A rule of the format is broken where nothing can be read without it.
    Corrupt(Corruption),
    /// A checksum is wrong where nothing can be read without it.
    Checksum(Corruption),
    /// The device gave an error for this byte.
    Device {
        /// The byte.
        offset: u64,
    },
    /// The memory granted was not enough.
    OutOfMemory,
    /// The worker could not set itself up: not the image's fault.
    Setup {
        /// What it was about to do.
        step: Step,
        /// The error number.
        errno: i32,
    },
}

/// The steps of a worker's start that can fail on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Resource limits.
    Limits,
    /// Dropping capabilities.
    Capabilities,
    /// no_new_privs.
    NoNewPrivs,
    /// Landlock.
    Landlock,
    /// A seccomp filter.
    Seccomp,
    /// Answering FUSE_INIT.
    Init,
    /// Mapping the device.
    Map,
    /// Starting threads.
    Threads,
    /// A message that was not expected here.
    Protocol,
}

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

impl Mapped {
    /// The most pieces of one answer.
    pub const MOST_AT_ONCE: usize = 4096;
}

/// How far a check has come, and what it has found since the last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Steps that are done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// It is over.
    pub over: bool,
    /// New findings, at most [`Checked::MOST_AT_ONCE`].
    pub findings: Vec<Finding>,
    /// Everything that was found so far, listed or not.
    pub counts: CheckCounts,
}

impl Checked {
    /// The most findings of one answer.
    pub const MOST_AT_ONCE: usize = 1000;
    /// The most findings that are listed at all; behind them they are only counted.
    pub const MOST: usize = 10_000;
}

/// What a check counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCounts {
    /// Broken rules that are damage.
    pub damage: u64,
    /// Broken rules that harm nobody who reads or writes: copies that differ, for instance.
    pub notices: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Blocks in use.
    pub blocks: u64,
    /// Inodes on the list of orphans: deleted or cut while they were open.
    pub orphans: u64,
}

/// A broken rule, its place, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule and the place.
    pub corruption: Corruption,
    /// What it means.
    pub severity: Severity,
}

/// What a finding means for the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// It is damaged.
    Damage,
    /// It is worth to know, and no damage.
    Notice,
}

impl Message for Ask {
    /// Five bytes for each inode.
    const MAX: usize = 32 + 5 * MOST_INODES;
}

impl Message for Answer {
    const MAX: usize = Self::CHUNK + 16 * 1024;
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
