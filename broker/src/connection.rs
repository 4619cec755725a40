//! The FUSE connection behind a mount, as `/sys/fs/fuse/connections/N` shows it: how many requests wait, and the
//! switch that ends them all.
//!
//! What holds here: both are found at the start and held, so that no path has to be looked up when the worker has gone
//! silent, and a number that another mount has got since is not taken for ours. Where fusectl is not mounted, neither
//! is there.

use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// A connection, seen from the side.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Only the place: the file gives its number once for each time it is opened.
    waiting: Option<OwnedFd>,
    abort: Option<File>,
}

impl Connection {
    /// Finds what there is of the connection with this number.
    pub(crate) fn open(number: u32) -> Self {
        let place = Path::new("/sys/fs/fuse/connections").join(number.to_string());
        let waiting = open(place.join("waiting"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
        Self { waiting, abort: File::options().write(true).open(place.join("abort")).ok() }
    }

    /// Requests that wait for an answer; `None` where that is not to be seen.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let place = format!("/proc/self/fd/{}", self.waiting.as_ref()?.as_raw_fd());
        std::fs::read_to_string(place).ok()?.trim().parse().ok()
    }

    /// Ends every request that waits with an error. Clients of a silent server cannot even be killed before this.
    pub(crate) fn abort(&self) {
        if let Some(mut abort) = self.abort.as_ref() {
            let _ = abort.write_all(b"1");
        }
    }
}
