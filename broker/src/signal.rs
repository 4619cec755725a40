//! The signals by which somebody ends a command, as something to wait for among other things.
//!
//! What holds here: from [`Signals::block`] on, none of them ends the process by itself, so whatever was begun is
//! undone on the way out.
#![expect(unsafe_code, reason = "sigprocmask and signalfd are in no safe library that the broker links")]

use crate::exit::{Failure, words};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::time::Duration;

const ENDING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Readable as soon as a signal has come that ends the command.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Holds these signals back for the rest of this process. Call it while there is one thread.
    pub(crate) fn block() -> Result<Self, Failure> {
        match block() {
            Ok(fd) => Ok(Self { fd }),
            Err(error) => Err(Failure::system(format!("signals cannot be waited for: {}", words(error)))),
        }
    }

    /// Whether one has come. It stays so.
    pub(crate) fn came(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Takes one that has come: its number. For a program that one of them does not end.
    pub(crate) fn take(&self) -> Option<i32> {
        // A signalfd_siginfo(2), whose first word is the number.
        let mut info = [0; 128];
        let taken = rustix::io::read(&self.fd, &mut info[..]).is_ok_and(|count| count == info.len());
        let word = info.first_chunk().filter(|_| taken)?;
        Some(i32::from_ne_bytes(*word))
    }

    /// An end on somebody's wish, if a signal has come.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.came() { Err(interrupted()) } else { Ok(()) }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The failure that a signal is.
pub(crate) fn interrupted() -> Failure {
    Failure::mount("ended by a signal")
}

/// Waits until one of these can be read or is gone; which, in their order. After this time, or with `None` never, all
/// are false.
pub(crate) fn wait<const N: usize>(fds: [BorrowedFd<'_>; N], time: Option<Duration>) -> [bool; N] {
    let mut watched = fds.each_ref().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let time = time.and_then(|time| Timespec::try_from(time).ok());
    match rustix::io::retry_on_intr(|| poll(&mut watched, time.as_ref())) {
        Ok(_) => watched.map(|fd| !fd.revents().is_empty()),
        Err(_) => [false; N],
    }
}

fn block() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it; every pointer is to this one set and lives
    // through the calls; the new fd belongs to nobody else.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in ENDING {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}
