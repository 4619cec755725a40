//! A host that gives a worker no namespace: a user namespace in which every number is 0 that says how many there may be.
//! Of mount namespaces there is the broker's, and that of the mount that is attached nowhere.
#![allow(unsafe_code, reason = "what a child does before it executes is in no safe library")]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{getpid, waitpid};
use rustix::thread::UnshareFlags;

/// A program that runs there as root, with all the uids that there are.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let script = "for most in /proc/sys/user/max_*_namespaces; do
            case $most in */max_mnt_*) echo 2;; *) echo 0;; esac >\"$most\" || exit 99
        done
        exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program);
    // SAFETY: the child has one thread and allocates little; what it calls is the kernel's and libc's own fork.
    unsafe { command.pre_exec(enter) };
    command
}

/// A user and a mount namespace. Whoever maps the uids has to be outside: a child that was left there.
fn enter() -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    let pid = getpid();
    // SAFETY: there is one thread, and the child ends by `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _ = rustix::io::read(&reader, &mut [0_u8]);
            let place = format!("/proc/{}", pid.as_raw_nonzero());
            let map = |name: &str| fs::write(format!("{place}/{name}"), "0 0 4294967295");
            let mapped = map("uid_map").is_ok() && map("gid_map").is_ok();
            // SAFETY: ends this process and does nothing else.
            unsafe { libc::_exit(i32::from(!mapped)) }
        }
        helper => {
            // SAFETY: no fd is shared with anybody by this.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?;
            rustix::io::write(&writer, b"x")?;
            let ended = waitpid(rustix::process::Pid::from_raw(helper), rustix::process::WaitOptions::empty())?;
            match ended {
                Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
                _ => Err(io::Error::other("the uids cannot be mapped")),
            }
        }
    }
}
