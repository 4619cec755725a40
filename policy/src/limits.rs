//! What the process itself is limited to: resource limits, capabilities, dumpability.
//!
//! All of it is a second line behind seccomp: each limit stands for a call that the filter already forbids.
#![expect(unsafe_code, reason = "prctl and setsockopt options that rustix does not name, and closing fds by number")]

use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The limits at the start: room for the fds of the start and no more.
///
/// Bytes where the resource is a size, else a number: setrlimit(2).
pub fn set_resource_limits() -> io::Result<()> {
    let highest_fd = crate::FUSE_FD + 1;
    let table = [
        (Resource::Nofile, u64::from(highest_fd.unsigned_abs()) + 1), // channel, 1, 2, /dev/fuse, device
        (Resource::Core, 0),                                          // a core would hold the stick's data
        (Resource::Fsize, 0),                                         // it writes no file
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
        (Resource::Sigpending, 16),
    ];
    for (resource, value) in table {
        set(resource, value)?;
    }
    Ok(())
}

/// The limits once threads run, fds are in place and the heap is mapped: not one more of any. What is there stays.
pub fn close_resource_limits() -> io::Result<()> {
    set(Resource::Data, 0)?;
    set(Resource::Nofile, 0)?;
    set(Resource::Nproc, 0)
}

fn set(resource: Resource, value: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// Empties every capability set. False where the bounding set could not be emptied because the process never had
/// CAP_SETPCAP; with no_new_privs nothing can be gained from it then.
pub fn drop_capabilities() -> Result<bool, caps::errors::CapsError> {
    let bounding = caps::clear(None, caps::CapSet::Bounding).is_ok();
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, caps::CapSet::Ambient)?;
    }
    for set in [caps::CapSet::Inheritable, caps::CapSet::Effective, caps::CapSet::Permitted] {
        caps::clear(None, set)?;
    }
    Ok(bounding || caps::read(None, caps::CapSet::Bounding)?.is_empty())
}

/// Nobody of the same uid can trace this process or look into it, and it leaves no core.
pub fn make_undumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// `PR_SET_MDWE`: no page becomes executable that was not. False on kernels before 6.3.
pub fn deny_write_execute() -> bool {
    // SAFETY: PR_SET_MDWE takes numbers only and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_MDWE, libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN), 0, 0, 0) == 0 }
}

/// `SO_PASSRIGHTS` off: the kernel (6.16 and later) refuses fds sent to this socket. Without it they are dropped on
/// receipt, because nobody makes room for them.
pub fn refuse_fds(socket: BorrowedFd<'_>) {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    // SAFETY: the pointer and the length are those of one int that outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of_val(&off) as libc::socklen_t,
        );
    }
}

/// Closes standard output and standard error, which keep the caller's terminal or pipe open.
///
/// Nothing may own these fds as an object. Called once, before the last filter.
pub fn close_output() {
    // SAFETY: 1 and 2 belong to no object: Rust's handles for them hold no fd and answer EBADF as success.
    unsafe {
        libc::close(libc::STDOUT_FILENO);
        libc::close(libc::STDERR_FILENO);
    }
}
