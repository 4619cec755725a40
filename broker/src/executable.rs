//! The executables of the worker and of the agent: where they lie, and whether they may be started.
//!
//! What holds here: nothing in the environment names it; what anyone but root or the caller could have written is not
//! executed; it is opened once, and what was checked is what is executed.

use crate::exit::{Failure, words};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::getuid;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Opens the executable of this name. It lies beside the broker's or in libexec; nothing in the environment names it.
pub(crate) fn open(name: &str) -> Result<OwnedFd, Failure> {
    let own = std::fs::read_link("/proc/self/exe")
        .map_err(|error| Failure::system(format!("/proc/self/exe cannot be read: {}", words(error))))?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let places: [PathBuf; 3] =
        [beside.join(name), beside.join("../libexec/lazaret").join(name), Path::new("/usr/libexec/lazaret").join(name)];
    for place in &places {
        match fs::open(place, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()) {
            Ok(fd) => return check(&fd).map(|()| fd).map_err(|failure| failure.about(place)),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(Failure::system(format!("cannot be opened: {}", words(errno))).about(place)),
        }
    }
    Err(Failure::system(format!("{name} is neither beside this program nor in /usr/libexec/lazaret")))
}

/// What anyone but root or the caller could have written is not executed with the caller's rights.
fn check(fd: &OwnedFd) -> Result<(), Failure> {
    let status = fs::fstat(fd).map_err(|errno| Failure::system(words(errno)))?;
    let caller = getuid().as_raw();
    let others_write = if caller == 0 { 0o022 } else { 0o002 };
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        Err(Failure::system("is not a regular file"))
    } else if status.st_uid != 0 && status.st_uid != caller {
        Err(Failure::system(format!("belongs to uid {}; only root's or your own worker is started", status.st_uid)))
    } else if status.st_mode & others_write != 0 {
        Err(Failure::system(format!("can be written by others (mode {:o})", status.st_mode & 0o7777)))
    } else {
        Ok(())
    }
}
