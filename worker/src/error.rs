//! What can go wrong while reading, and the only table of error numbers in the worker.

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::Refusal;
use rustix::io::Errno;

/// What the caller should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A rule of the format is broken.
    #[error("{0}")]
    Corrupt(Corruption),
    /// A checksum is wrong.
    #[error("checksum: {0}")]
    Checksum(Corruption),
    /// The device could not be read at this byte.
    #[error("the device cannot be read at byte {offset}")]
    Device {
        /// The byte.
        offset: u64,
    },
    /// The image uses this here, and this reader does not read it.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The memory granted is used up.
    #[error("out of memory")]
    OutOfMemory,
    /// The answer would cost more work than one request may.
    #[error("more work than one request may cost")]
    Budget,
    /// There is no such inode or name.
    #[error("no such file or directory")]
    NotFound,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something other than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// A name of more than 255 bytes.
    #[error("name too long")]
    NameTooLong,
    /// The content of an encrypted file.
    #[error("encrypted, and there is no key")]
    NoKey,
    /// The file has no extended attribute of this name.
    #[error("no such attribute")]
    NoAttribute,
    /// The answer is longer than the room that the asker has for it.
    #[error("no room for the answer")]
    NoRoom,
    /// Not done on this mount, for no file.
    #[error("not served")]
    NotServed,
    /// Nothing of the kind wanted comes after this offset.
    #[error("nothing more after this offset")]
    NoMore,
    /// A change was asked for.
    #[error("read-only")]
    ReadOnly,
    /// The request makes no sense for this object.
    #[error("invalid argument")]
    Invalid,
}

/// What a function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A broken rule at its place.
    pub fn corrupt(rule: Rule, place: Place) -> Self {
        Self::Corrupt(Corruption { rule, place })
    }
}

/// Why a file system is not served, for what happened on the way to opening it. A device error is that; what only a
/// request could meet does not occur there.
impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::Device { offset } => Self::Device { offset },
            Error::Corrupt(corruption) => Self::Corrupt(corruption),
            Error::Checksum(corruption) => Self::Checksum(corruption),
            _ => Self::OutOfMemory,
        }
    }
}

impl From<&Error> for Errno {
    fn from(error: &Error) -> Errno {
        match error {
            Error::Corrupt(_) => Errno::UCLEAN,
            Error::Checksum(_) => Errno::BADMSG,
            Error::Device { .. } => Errno::IO,
            Error::Unsupported(_) => Errno::OPNOTSUPP,
            Error::OutOfMemory => Errno::NOMEM,
            Error::Budget => Errno::FBIG,
            Error::NotFound => Errno::NOENT,
            Error::NotDirectory => Errno::NOTDIR,
            Error::IsDirectory => Errno::ISDIR,
            Error::NameTooLong => Errno::NAMETOOLONG,
            Error::NoKey => Errno::NOKEY,
            Error::NoAttribute => Errno::NODATA,
            Error::NoRoom => Errno::RANGE,
            Error::NotServed => Errno::NOSYS,
            Error::NoMore => Errno::NXIO,
            Error::ReadOnly => Errno::ROFS,
            Error::Invalid => Errno::INVAL,
        }
    }
}

/// Whether a request could not be taken from the kernel this time, and the next may be: it was interrupted, or taken back.
pub(crate) fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::INTR | Errno::AGAIN | Errno::NOENT)
}
