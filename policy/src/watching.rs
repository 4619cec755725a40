//! The system calls that the broker itself may make once the mount is there: it watches and ends it, and no more.
//!
//! What holds here: from then on nothing is mounted, executed, connected to or opened for writing, and nobody is
//! signalled but the worker, by its pidfd.

use crate::seccomp::{Answer::Allow, Condition, Row, row};
use Condition::{Is, Lacks};
use libc::{
    AT_REMOVEDIR, CLOCK_MONOTONIC, MNT_DETACH, O_ACCMODE, O_CREAT, O_TRUNC, P_PIDFD, PROT_EXEC, SIGKILL, SYS_umount2,
};

const ALWAYS: &[Condition] = &[];
const WRITING: u64 = (O_ACCMODE | O_CREAT | O_TRUNC) as u64;
const EXECUTABLE: u64 = PROT_EXEC as u64;
const CLOCK: u64 = CLOCK_MONOTONIC as u64;
const KILL: u64 = SIGKILL as u64;
const DETACH: u64 = MNT_DETACH as u64;
const DIRECTORY: u64 = AT_REMOVEDIR as u64;
const BY_PIDFD: u64 = P_PIDFD as u64;

/// While a mount is watched, as root.
pub const WATCHING: &[Row] = &[
    row!(SYS_brk, ALWAYS, Allow, "heap"),
    row!(SYS_clock_gettime, &[Is(0, CLOCK)], Allow, "tell the time where the clock needs a call"),
    row!(SYS_close, ALWAYS, Allow, "files of /proc that were read"),
    row!(SYS_exit_group, ALWAYS, Allow, "end"),
    row!(SYS_getdents64, ALWAYS, Allow, "the worker's threads in /proc"),
    row!(SYS_mmap, &[Lacks(2, EXECUTABLE)], Allow, "heap, where brk has no room"),
    row!(SYS_munmap, ALWAYS, Allow, "end: std gives back the stack for signals"),
    row!(SYS_openat, &[Lacks(2, WRITING)], Allow, "read /proc and the number of waiting requests"),
    row!(SYS_pidfd_send_signal, &[Is(1, KILL), Is(2, 0)], Allow, "kill the worker"),
    row!(SYS_ppoll, ALWAYS, Allow, "wait for the worker's end or word, a signal, the next look"),
    row!(SYS_read, ALWAYS, Allow, "read /proc and the number of waiting requests"),
    row!(SYS_recvfrom, &[Is(3, 0), Is(4, 0)], Allow, "what the worker says of damage, and its last words, without fds"),
    row!(SYS_sigaltstack, ALWAYS, Allow, "end: std gives back the stack for signals"),
    row!(SYS_statx, ALWAYS, Allow, "know the own mount from another, without asking it"),
    row!(SYS_umount2, &[Is(1, DETACH)], Allow, "take the mount away"),
    row!(SYS_unlinkat, &[Is(2, DIRECTORY)], Allow, "take the worker's cgroup away: a directory that is empty"),
    row!(SYS_waitid, &[Is(0, BY_PIDFD)], Allow, "reap the worker"),
    row!(
        SYS_write,
        ALWAYS,
        Allow,
        "end waiting requests; say on stderr or to the log what was met and why a mount ended"
    ),
];

/// The same without root: who unmounts then is a process of its own, and this one has no right to.
pub const WATCHING_AS_USER: &[Row] = &without_unmounting();

const fn without_unmounting() -> [Row; WATCHING.len() - 1] {
    let mut rows = [WATCHING[0]; WATCHING.len() - 1];
    let (mut from, mut to) = (0, 0);
    while from < WATCHING.len() {
        if WATCHING[from].call != SYS_umount2 {
            // Does not compile where no row is left out.
            rows[to] = WATCHING[from];
            to += 1;
        }
        from += 1;
    }
    rows
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
        assert!(crate::seccomp::compile(WATCHING, Allow).is_ok());
    }

    #[test]
    fn without_root_nothing_is_unmounted() {
        let left = WATCHING.iter().filter(|row| row.name != "umount2").map(|row| row.name);
        assert!(WATCHING_AS_USER.iter().map(|row| row.name).eq(left));
        assert!(crate::seccomp::compile(WATCHING_AS_USER, Allow).is_ok());
    }
}
