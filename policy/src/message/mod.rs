//! Every message between broker and worker, in both directions.
//!
//! A message is one packet, postcard inside, with a fixed maximum and an exact number of fds (`channel.rs`). What a
//! worker says is fixed-size numbers; the broker turns them into words. Only [`Answer`], which a worker gives to the
//! tools that look into an image, carries bytes of the image, and whoever prints them escapes them first.

mod check;
mod opened;
mod question;
mod start;

use crate::damage::{Met, Toll};
use serde::{Deserialize, Serialize};

pub use check::{CheckCounts, Checked, Finding, Severity};
pub use opened::{Layers, Refusal, Replayed, Step, Summary};
pub use question::{Answer, Ask, Attributes, Entry, Mapped, MappedKind, Time};
pub use start::{Checksum, Purpose, Special, Start, Verity, Xattrs};

/// What goes over the channel: its longest form in bytes, and the fds that come with it.
pub trait Message: Sized + Serialize + for<'de> Deserialize<'de> {
    /// Longest encoding. A longer packet is an error, not a longer message.
    const MAX: usize;
    /// The most fds a message of this type brings. With 0 the receiver has no room for any, and the kernel drops them.
    const FDS: usize = 0;
    /// How many fds this very message brings: never more, never fewer.
    fn fds(&self) -> usize {
        0
    }
    /// The message that a packet begins with, and what is left of the packet. By [`decoded!`].
    fn decode(packet: &[u8]) -> postcard::Result<(Self, &[u8])>;
}

/// [`Message::decode`], made here for each type and not where it is called: a fuzzer's counters are in this crate.
macro_rules! decoded {
    () => {
        fn decode(packet: &[u8]) -> postcard::Result<(Self, &[u8])> {
            postcard::take_from_bytes(packet)
        }
    };
}
pub(crate) use decoded;

/// The numbers under which the kernel can know a device that mappings lead into.
pub const COOKIES: std::ops::RangeInclusive<u32> = 1..=1024;

/// From the broker to the worker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// What this worker is for. With `Purpose::Mount` it brings /dev/fuse, and the worker answers FUSE_INIT.
    Start(Start),
    /// The device: one fd.
    Device {
        /// The part of it that is the file system.
        range: Range,
        /// By which number the kernel knows a block device of just that range ([`COOKIES`]): mappings into it may be answered
        /// instead of data. Only for a worker that has said so ([`Report::Initialized`]).
        iomap: Option<u32>,
    },
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
    Initialized {
        /// The kernel takes mappings instead of data: it has offered that, and it was taken up.
        iomap: bool,
    },
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
            Self::Device { .. } => 1,
        }
    }
    decoded!();
}

impl Message for Report {
    const MAX: usize = 256;
    decoded!();
}
