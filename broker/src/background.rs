//! A mount that goes on after the command has returned: the command starts itself again and waits for one byte.
//!
//! What holds here: there is no fork of a running program and no pid file. Until the mount is ready the second process
//! is the caller's child and speaks on the caller's stderr; from then on it holds nothing of the caller's, and speaks to the
//! system log.

use crate::exit::{Failure, say, words};
use crate::log;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{chdir, setsid};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// What the second process says first when its mount is ready. What follows is for the caller's stdout.
const READY: u8 = b'R';
/// What it says instead when it ends, and has said why on stderr. The exit code follows: its end itself may have to wait
/// for a medium that has stalled.
const FAILED: u8 = b'F';

/// Starts this program again with these arguments and waits until its mount is ready or has failed.
pub(crate) fn start<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::system(format!("the background process: {}", words(error)));
    let mut child = Command::new("/proc/self/exe")
        .arg0("lazaret")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut said = vec![];
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said).map_err(failed)?;
    }
    if let Some((&READY, rest)) = said.split_first() {
        // The mount is there, whether or not somebody reads about it.
        if let Err(error) = std::io::stdout().write_all(rest) {
            say(&format!("stdout: {}", words(error)));
        }
        return Ok(());
    }
    // It has said on stderr why it ends.
    if let [FAILED, code] = *said {
        return Err(Failure::said(code));
    }
    let status = child.wait().map_err(failed)?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) if code != 0 => Err(Failure::said(code)),
        _ => Err(Failure::system("the background process ended before the mount was ready")),
    }
}

/// In the second process, before the mount is ready: says why it ends, and tells the first.
pub(crate) fn fail(failure: Failure) -> Failure {
    failure.report();
    let _ = std::io::stdout().write_all(&[FAILED, failure.code()]).and_then(|()| std::io::stdout().flush());
    let _ = null().and_then(let_go);
    Failure::said(failure.code())
}

/// In the second process: tells the first that the mount is ready, with this text for its stdout, and lets go of
/// everything that is the caller's.
pub(crate) fn detach(text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::system(format!("going to the background: {}", words(error)));
    let null = null().map_err(|errno| failed(errno.into()))?;
    chdir(c"/").map_err(|errno| failed(errno.into()))?;
    // By the name it was executed as it would be `exe`.
    let _ = rustix::thread::set_name(c"lazaret");
    // Refused to a leader of a process group, who has a session to lose only if somebody started us so by hand.
    let _ = setsid();
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&[READY]).and_then(|()| stdout.write_all(text.as_bytes())).map_err(failed)?;
    stdout.flush().map_err(failed)?;
    log::open();
    let_go(null).map_err(|errno| failed(errno.into()))
}

fn null() -> Result<OwnedFd, Errno> {
    open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Lets go of the caller's terminal, files and pipes.
fn let_go(null: OwnedFd) -> Result<(), Errno> {
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    rustix::stdio::dup2_stdout(&null)
}
