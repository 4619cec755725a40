//! Which mount is ours: the number that the kernel shows in the mount table, and the one that it never gives again.
//!
//! What holds here: who serves a mount is not asked, so one that does not answer can be told from another.

use crate::exit::{Failure, words};
use crate::mountinfo;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, openat, statx};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

/// `STATX_MNT_ID_UNIQUE`.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// One mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MountId {
    /// That of the mount table. The next mount may get it once this one has ended.
    number: u64,
    /// Given once (Linux 6.8); `None` where the kernel has none, or to whom the mount is closed.
    unique: Option<u64>,
}

impl MountId {
    /// The mount that this lies in.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Result<Self, Failure> {
        let number = look(fd)?.stx_mnt_id;
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let seen = statx(fd, c"", flags, UNIQUE).ok();
        let unique = seen.filter(|seen| seen.stx_mask & UNIQUE.bits() != 0).map(|seen| seen.stx_mnt_id);
        Ok(Self { number, unique })
    }

    /// Whether no other mount can be taken for it.
    pub(crate) fn is_unique(self) -> bool {
        self.unique.is_some()
    }

    /// Its root and where that is, if it is still mounted and nothing over it.
    pub(crate) fn find(self) -> Option<(OwnedFd, PathBuf)> {
        let place = mountinfo::with_id(self.number).ok()??.mountpoint;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, &place, flags, Mode::empty()).ok()?;
        // Whatever was mounted there since is another's.
        (Self::of(root.as_fd()).ok()? == self).then_some((root, place))
    }
}

/// The number of a mount and of its file system, without asking who serves it.
pub(crate) fn look(fd: BorrowedFd<'_>) -> Result<Statx, Failure> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    // Asked for nothing, FUSE refuses nobody, and the mount's number is told all the same: root may not enter a mount
    // that is another user's.
    statx(fd, c"", flags, StatxFlags::empty()).map_err(|errno| Failure::system(format!("statx: {}", words(errno))))
}

/// As one word of a command line.
impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unique {
            Some(unique) => write!(f, "{}:{unique}", self.number),
            None => write!(f, "{}", self.number),
        }
    }
}

impl FromStr for MountId {
    type Err = std::num::ParseIntError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let (number, unique) = word.split_once(':').map_or((word, None), |(number, unique)| (number, Some(unique)));
        Ok(Self { number: number.parse()?, unique: unique.map(str::parse).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::open;

    fn of(path: &str) -> MountId {
        MountId::of(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn a_mount_is_found_and_one_that_has_its_number_since_is_not() {
        let here = of("/proc");
        assert_ne!(here, of("/"));
        assert_eq!(here.find().unwrap().1, PathBuf::from("/proc"));
        if let Some(unique) = here.unique {
            assert!(MountId { unique: Some(unique + 1), ..here }.find().is_none());
        }
        assert!(MountId { number: u64::MAX, ..here }.find().is_none());
    }

    #[test]
    fn it_is_one_word() {
        for id in [MountId { number: 36, unique: None }, MountId { number: 36, unique: Some(1 << 33) }] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("36:".parse::<MountId>().is_err() && "x".parse::<MountId>().is_err());
    }
}
