//! The end of a mount whose stick is gone.
//!
//! What holds here: its broker is asked to end it, which frees every client at once; the mount itself is not touched.
//! Who the broker is, the kernel says, and a number that has come to mean another process is not signalled.

use crate::mountinfo::MountLine;
use crate::served;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The kernel's name of the device that a mount of ours is of, if it is of a device.
pub(super) fn device(line: &MountLine) -> Option<&str> {
    let name = line.source.strip_prefix(b"/dev/").filter(|_| line.is_lazaret())?;
    std::str::from_utf8(name).ok().filter(|name| !name.contains('/') && !name.is_empty())
}

/// Ends a mount. It may take a moment until it has ended.
pub(super) fn end(line: &MountLine) {
    let Some(pair) = served::pair(line.device) else {
        // Its broker was killed: what is left answers nobody.
        let _ = unmount(&line.mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        return;
    };
    let Ok(broker) = pidfd_open(pair.broker, PidfdFlags::empty()) else { return };
    if served::pair(line.device).is_some_and(|again| again.broker == pair.broker) {
        let _ = pidfd_send_signal(&broker, Signal::TERM);
    }
}
