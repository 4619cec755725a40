//! What a worker says of itself and of the file system that it was to open: that it is confined, that it is ready, or why it
//! will not serve.
//!
//! What holds here: numbers of fixed size. The one text, a label, is bytes of the image.

use crate::corruption::Corruption;
use crate::warning::Warnings;
use serde::{Deserialize, Serialize};

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
        /// Where copies lie, in units of 1 KiB as [`Start::superblock`](super::Start::superblock) takes them; 0 for none.
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
