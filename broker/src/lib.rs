//! Lazaret's broker: the privileged half. It opens, mounts, starts the worker and watches it; it parses nothing of an
//! image.
//!
//! The way of a mount through these files: `options` → `device` → `mount` → `spawn` → `attest` → `worker` (the
//! conversation) → `supervise`.
//!
//! A library for two: the program, and what makes its man pages and completions of the same command line.

mod attest;
mod automount;
mod background;
mod cgroup;
mod cli;
mod connection;
mod damage;
mod device;
mod escape;
mod executable;
mod exit;
mod extract;
mod filter;
mod fusermount;
mod gather;
mod host;
mod ioctl;
mod iomap;
mod layout;
mod log;
mod loop_device;
mod meaning;
mod medium;
mod mount;
mod mount_id;
mod mountinfo;
mod options;
mod path;
mod process;
mod proof;
mod quarters;
mod refusal;
mod served;
mod signal;
mod silence;
mod spawn;
mod spool;
mod supervise;
mod text;
mod tool;
mod unmounter;
mod vulnerability;
mod warning;
mod worker;

use std::process::ExitCode;

pub use cli::commands;
pub use escape::acts;

/// The program: does what the command line says, and says why where it does not.
#[must_use]
pub fn run() -> ExitCode {
    // Before anything is opened: what the caller left open is for no program that is started from here.
    spawn::disinherit();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
