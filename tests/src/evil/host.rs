//! A host that lacks namespaces: a user namespace in which the number is 0 that says how many of a kind there may be.
#![allow(unsafe_code, reason = "what a child does before it executes is in no safe library")]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{getpid, waitpid};
use rustix::thread::UnshareFlags;

/// Every kind, and how many there may be of it where a worker is to get none: of mount namespaces there is the broker's,
/// and that of the mount that is attached nowhere.
pub const NONE: &[(&str, u32)] =
    &[("cgroup", 0), ("ipc", 0), ("mnt", 2), ("net", 0), ("pid", 0), ("time", 0), ("user", 0), ("uts", 0)];

/// A program that runs as root, with all the uids that there are, where there may be no more namespaces than so many.
pub fn command(program: impl AsRef<OsStr>, most: &[(&str, u32)]) -> Command {
    let limits =
        most.iter().map(|(kind, most)| format!("echo {most} >/proc/sys/user/max_{kind}_namespaces || exit 99\n"));
    let script = limits.chain(["exec \"$0\" \"$@\"".to_owned()]).collect::<String>();
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program);
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
