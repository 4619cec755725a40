//! The FUSE connection behind a mount, as `/sys/fs/fuse/connections/N` shows it: how many requests wait, and the
//! switch that ends them all; and as its end at /dev/fuse shows it: whether it is there still.
//!
//! What holds here: all is found at the start and held, so that no path has to be looked up when the worker has gone
//! silent, and a number that another mount has got since is not taken for ours. Where fusectl is not mounted, root
//! looks at it through a mount that is attached nowhere; without root neither is there. The worker's end of /dev/fuse is
//! watched and not held: the kernel keeps no file open for an epoll.

use crate::signal::wait;
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Where fusectl is mounted.
const PLACE: &str = "/sys/fs/fuse/connections";

/// A connection, seen from the side.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Only the place: the file gives its number once for each time it is opened.
    waiting: Option<OwnedFd>,
    abort: Option<File>,
    /// An epoll on the worker's end.
    end: Option<OwnedFd>,
}

impl Connection {
    /// Finds what there is of the connection with this number.
    pub(crate) fn open(number: u32) -> Self {
        let attached = open(PLACE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        attached
            .ok()
            .and_then(|place| Self::find(place, number))
            .or_else(|| Self::find(detached().ok()?, number))
            .unwrap_or(Self { waiting: None, abort: None, end: None })
    }

    /// Watches this end of it, too.
    pub(crate) fn watching(mut self, fuse: BorrowedFd<'_>) -> Self {
        let end = epoll::create(epoll::CreateFlags::CLOEXEC).and_then(|end| {
            // Asked for nothing, it tells of errors.
            epoll::add(&end, fuse, epoll::EventData::new_u64(0), epoll::EventFlags::empty())?;
            Ok(end)
        });
        self.end = end.ok();
        self
    }

    fn find(place: OwnedFd, number: u32) -> Option<Self> {
        let look =
            |name: &str, flags| openat(&place, format!("{number}/{name}"), flags | OFlags::CLOEXEC, Mode::empty()).ok();
        let waiting = look("waiting", OFlags::PATH)?;
        Some(Self { waiting: Some(waiting), abort: look("abort", OFlags::WRONLY).map(File::from), end: None })
    }

    /// Requests that wait for an answer; `None` where that is not to be seen.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let place = format!("/proc/self/fd/{}", self.waiting.as_ref()?.as_raw_fd());
        std::fs::read_to_string(place).ok()?.trim().parse().ok()
    }

    /// Whether it can be seen at all.
    pub(crate) fn is_seen(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether its end can be told by a look now and then.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_seen() || self.end.is_some()
    }

    /// Whether nobody is answered over it any more: it was aborted, by the kernel or by somebody, or its file system has gone.
    pub(crate) fn is_over(&self) -> bool {
        let aborted = self.end.as_ref().is_some_and(|end| wait([end.as_fd()], Some(Duration::ZERO)) == [true]);
        aborted || self.is_gone()
    }

    /// Whether it has ended: its file system is mounted nowhere any more. False where it cannot be seen.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_seen() && self.waiting().is_none()
    }

    /// Ends every request that waits with an error. Clients of a silent server cannot even be killed before this.
    pub(crate) fn abort(&self) {
        if let Some(mut abort) = self.abort.as_ref() {
            let _ = abort.write_all(b"1");
        }
    }
}

/// Whether the connection with this number is to be seen where fusectl is mounted.
pub(crate) fn is_listed(number: u32) -> bool {
    std::path::Path::new(&format!("{PLACE}/{number}")).exists()
}

/// fusectl, attached nowhere: it is gone with its last fd.
fn detached() -> Result<OwnedFd, Errno> {
    let context = fsopen(c"fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)
}
