//! The contract between Lazaret's two processes: what the privileged broker and the confined worker may say to each
//! other, and what the worker may do.
//!
//! Both link this crate and nothing else of each other. The broker reads here what a worker can say; the worker
//! confines itself with what stands here; the tests hold the kernel to the same tables.

pub mod channel;
pub mod confine;
pub mod corruption;
pub mod damage;
pub mod exit;
pub mod feature;
pub mod gather;
pub mod landlock;
pub mod limits;
pub mod message;
pub mod notice;
pub mod scan;
pub mod seccomp;
pub mod verdict;
pub mod warning;
pub mod watching;

use std::os::fd::RawFd;

/// Whether the bug of this name is planted: never. Only a build with `--cfg planted`, which shows that the fuzzers find
/// what is there to be found, has bugs, and of those the one that `LAZARET_PLANTED` names.
#[cfg(not(planted))]
#[inline(always)]
pub const fn planted(_bug: &str) -> bool {
    false
}

/// Whether the bug of this name is planted.
#[cfg(planted)]
pub fn planted(bug: &str) -> bool {
    static NAMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAMED.get_or_init(|| std::env::var("LAZARET_PLANTED").ok()).as_deref() == Some(bug)
}

/// The worker's end of the channel: its standard input, because the broker leaves it no other fd but stderr.
pub const CHANNEL_FD: RawFd = 0;
/// Where /dev/fuse lands in the worker: the lowest free number. The last filter pins it.
pub const FUSE_FD: RawFd = 3;
/// The first uid of those that workers run under. One a mount: this plus the broker's pid, which nobody else has.
pub const WORKER_UID_BASE: u32 = 3_000_000_000;
/// The worker's uid as its own user namespace shows it.
pub const WORKER_UID_INSIDE: u32 = 65_533;
