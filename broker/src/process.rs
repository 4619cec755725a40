//! A process that was started here, by its pidfd: a number may come to mean another process, a pidfd cannot.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process that was started here. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Process {
    /// The process behind this pidfd.
    pub(crate) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, reaped: false }
    }

    /// Its number as this process sees it.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Kills it, whatever it is doing.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Lets it live on without this program.
    pub(crate) fn leave(mut self) {
        self.reaped = true;
    }

    /// Waits for its end and says how it ended; `None` if that is not to be known.
    pub(crate) fn reap(&mut self) -> Option<WaitIdStatus> {
        self.reaped = true;
        let waited = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED));
        waited.ok().flatten()
    }
}

/// Readable once the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            self.reap();
        }
    }
}
