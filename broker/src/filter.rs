//! The system calls that the broker itself may make once the mount is there: it watches and ends it, and no more.
//!
//! What holds here: from then on nothing is mounted, executed, connected to or opened for writing, and nobody is
//! signalled but the worker, by its pidfd. Without root there is no such filter: fusermount3, which unmounts then,
//! could not become root under it.

use crate::exit::Failure;
use lazaret_policy::seccomp::{self, Answer, Condition, Row};
use rustix::process::geteuid;

const ALWAYS: &[Condition] = &[];
const WRITING: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
const KILL: u64 = libc::SIGKILL as u64;
const DETACH: u64 = libc::MNT_DETACH as u64;

macro_rules! row {
    ($call:ident, $when:expr, $why:literal) => {
        Row { call: libc::$call, name: stringify!($call).split_at(4).1, when: $when, answer: Answer::Allow, why: $why }
    };
}

/// While a mount is watched.
const WATCHING: &[Row] = &[
    row!(SYS_brk, ALWAYS, "heap"),
    row!(
        SYS_clock_gettime,
        &[Condition::Is(0, libc::CLOCK_MONOTONIC as u64)],
        "tell the time where the clock needs a call"
    ),
    row!(SYS_close, ALWAYS, "files of /proc that were read"),
    row!(SYS_exit_group, ALWAYS, "end"),
    row!(SYS_getdents64, ALWAYS, "the worker's threads in /proc"),
    row!(SYS_madvise, &[Condition::Is(2, libc::MADV_DONTNEED as u64)], "give memory back"),
    row!(SYS_mmap, &[Condition::Lacks(2, EXECUTABLE)], "heap"),
    row!(SYS_mremap, ALWAYS, "heap"),
    row!(SYS_munmap, ALWAYS, "give memory back"),
    row!(SYS_openat, &[Condition::Lacks(2, WRITING)], "read /proc and the number of waiting requests"),
    row!(SYS_pidfd_send_signal, &[Condition::Is(1, KILL)], "kill the worker"),
    row!(SYS_ppoll, ALWAYS, "wait for the worker's end, a signal, the next look"),
    row!(SYS_read, ALWAYS, "read /proc and the number of waiting requests"),
    row!(SYS_recvfrom, ALWAYS, "what the worker says of damage, and its last words, without fds"),
    row!(SYS_restart_syscall, ALWAYS, "go on waiting after a stop"),
    row!(SYS_rt_sigreturn, ALWAYS, "libc's own"),
    row!(SYS_sigaltstack, ALWAYS, "end"),
    row!(SYS_statx, ALWAYS, "know the own mount from another, without asking it"),
    row!(SYS_umount2, &[Condition::Is(1, DETACH)], "take the mount away"),
    row!(SYS_waitid, ALWAYS, "reap the worker"),
    row!(SYS_write, ALWAYS, "end waiting requests; say on stderr or to the log what was met and why a mount ended"),
];

/// Holds this process to the table for the rest of its life.
pub(crate) fn install() -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Ok(());
    }
    seccomp::install(WATCHING).map_err(|error| Failure::system(format!("the broker's own filter: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_none_starts_or_opens_anything() {
        assert!(WATCHING.windows(2).all(|pair| pair[0].name < pair[1].name));
        for call in
            ["clone", "clone3", "execve", "execveat", "mount", "move_mount", "open", "ptrace", "setuid", "socket"]
        {
            assert!(WATCHING.iter().all(|row| row.name != call), "{call}");
        }
        assert!(seccomp::compile(WATCHING, Answer::Allow).is_ok());
    }
}
