//! A medium that was exchanged for another under its mount, in a reader: what udev has found on the new one is not to be
//! believed yet.
//!
//! What holds here: udev reads by the kernel's cache of the device, and what the worker of the mount before had mapped stays in
//! there for as long as anybody has the device open. So udev is made to look once more when who served it has ended, and
//! nothing is decided before it has.

use super::stick;
use crate::mountinfo::MountLine;
use crate::served;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

/// One that is not known yet.
pub(super) struct Exchange {
    /// Who served the medium before, until he has ended.
    broker: Option<OwnedFd>,
    /// How often udev was asked, and when it had looked last at that time.
    asked: u32,
    before: Option<SystemTime>,
}

/// The first time that it has looked then may be an end of what it had begun before it was asked.
const LOOKS: u32 = 2;

impl Exchange {
    /// Begins where nothing is known of who serves the medium before.
    pub(super) fn new() -> Self {
        Self { broker: None, asked: 0, before: None }
    }

    /// What to wait for, beside udev.
    pub(super) fn watched(&self) -> Option<PollFd<'_>> {
        self.broker.as_ref().map(|broker| PollFd::from_borrowed_fd(broker.as_fd(), PollFlags::IN))
    }

    /// Sees the mount of the medium before, which is there still.
    pub(super) fn see(&mut self, line: &MountLine) {
        let broker = || pidfd_open(served::pair(line.device)?.broker, PidfdFlags::empty()).ok();
        self.broker = self.broker.take().or_else(broker);
    }

    /// Whether udev has looked at the new one in the device of this name, on which nothing is mounted any more. Asks it to once
    /// nobody is in the way.
    pub(super) fn is_over(&mut self, name: &str) -> bool {
        if self.watched().is_some_and(|broker| poll(&mut [broker], Some(&Timespec::default())) == Ok(0)) {
            return false;
        }
        self.broker = None;
        let looked = stick::looked_at(name);
        if self.asked > 0 && looked == self.before {
            return false;
        }
        if self.asked == LOOKS {
            return true;
        }
        (self.asked, self.before) = (self.asked + 1, looked);
        // Where udev cannot be asked, what it has found is all there is.
        !stick::look_again(name)
    }
}
