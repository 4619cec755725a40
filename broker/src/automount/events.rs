//! When to look again: udev has dealt with a device, or the mount table has changed.
//!
//! What holds here: what is received is not read. A message says that something has changed and nothing else, so a lost
//! one, a late one and a thousand at once come to the same; what there is stands in udev's database and in the mount
//! table. The `udev` crate needs a shared libudev, which a static program cannot have; rustix has the socket.

use crate::exit::{Failure, words};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::fs::File;
use std::os::fd::OwnedFd;

/// The group to which udev sends when its rules have run and its database is written; the kernel's own is 1.
const UDEV: u32 = 2;

/// Something to wait for.
pub(super) struct Events {
    udev: OwnedFd,
    table: File,
}

impl Events {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |errno: Errno| Failure::system(format!("udev cannot be listened to: {}", words(errno)));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let udev =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT)).map_err(failed)?;
        bind(&udev, &SocketAddrNetlink::new(0, UDEV)).map_err(failed)?;
        let table = File::open("/proc/self/mountinfo")
            .map_err(|error| Failure::system(format!("the mount table cannot be read: {}", words(error))))?;
        Ok(Self { udev, table })
    }

    /// What to wait for.
    pub(super) fn watched(&self) -> [PollFd<'_>; 2] {
        // A change of the table is urgent data, and is over once it was waited for.
        [PollFd::new(&self.udev, PollFlags::IN), PollFd::new(&self.table, PollFlags::PRI)]
    }

    /// Throws away what has come so far.
    pub(super) fn drain(&self) {
        let mut byte = [0; 1];
        // A queue that ran over is an error once, and says that something was lost.
        while matches!(recv(&self.udev, &mut byte[..], RecvFlags::TRUNC), Ok(_) | Err(Errno::NOBUFS | Errno::INTR)) {}
    }
}
