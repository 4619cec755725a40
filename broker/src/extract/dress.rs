//! Owner, attributes, permissions and times of what was made.
//!
//! What holds here: what cannot be set is told, and all else is set. Nothing is reached by a name that could be a link.

use super::directory::{BENEATH, refused};
use super::{Facts, Report};
use crate::escape::escaped;
use crate::exit::{Failure, words};
use crate::path::is;
use lazaret_policy::message::{Attributes, Time};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod, fchown, fsetxattr,
    futimens, lsetxattr, openat2, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// Those of what is open.
pub(super) fn open(fd: BorrowedFd<'_>, facts: &Facts, report: &mut Report<'_>) -> Result<(), Failure> {
    // A change of the owner takes bits and capabilities away, a list of access changes the mode: the mode comes behind.
    if let Some((uid, gid)) = facts.owner {
        let owned = fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        owned.or_else(|errno| report.miss_here(unset("its owner", errno)))?;
    }
    for (name, value) in &facts.xattrs {
        let set = fsetxattr(fd, &name[..], value, XattrFlags::empty());
        set.or_else(|errno| report.miss_here(unset(&called(name), errno)))?;
    }
    fchmod(fd, Mode::from_raw_mode(facts.mode)).or_else(|errno| report.miss_here(unset("its mode", errno)))?;
    futimens(fd, &times(&facts.attributes)).or_else(|errno| report.miss_here(unset("its times", errno)))
}

/// Those of what cannot be opened: a link, a special file.
pub(super) fn named(
    directory: BorrowedFd<'_>,
    name: &[u8],
    facts: &Facts,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    if let Some((uid, gid)) = facts.owner {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let owned = chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        owned.or_else(|errno| report.miss_here(unset("its owner", errno)))?;
    }
    // The directory is the one that is open, and the last name of a path is not followed.
    let path = [by_fd(&directory).as_bytes(), b"/", name].concat();
    for (attribute, value) in &facts.xattrs {
        let set = lsetxattr(&path[..], &attribute[..], value, XattrFlags::empty());
        set.or_else(|errno| report.miss_here(unset(&called(attribute), errno)))?;
    }
    if !is(&facts.attributes, libc::S_IFLNK) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat2(directory, name, flags, Mode::empty(), BENEATH).map_err(refused)?;
        let set = chmod(by_fd(&place), Mode::from_raw_mode(facts.mode));
        set.or_else(|errno| report.miss_here(unset("its mode", errno)))?;
    }
    let set = utimensat(directory, name, &times(&facts.attributes), AtFlags::SYMLINK_NOFOLLOW);
    set.or_else(|errno| report.miss_here(unset("its times", errno)))
}

/// What is open without being opened, as a path that leads to it and nowhere else.
pub(super) fn by_fd(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn times(attributes: &Attributes) -> Timestamps {
    let time = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time(attributes.atime), last_modification: time(attributes.mtime) }
}

fn called(attribute: &[u8]) -> String {
    format!("the attribute {}", escaped(OsStr::from_bytes(attribute)))
}

fn unset(what: &str, errno: Errno) -> Failure {
    Failure::system(format!("{what} cannot be set: {}", words(errno))).local()
}
