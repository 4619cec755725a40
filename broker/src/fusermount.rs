//! Mounting without root: fusermount3, which is setuid root, mounts and hands back /dev/fuse.
//!
//! What holds here: it mounts at once, so whoever enters the mountpoint before the worker is ready waits; every path
//! that goes into its option string is escaped.

use crate::escape::escaped;
use crate::exit::{Failure, words};
use crate::mountinfo;
use crate::options::Options;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};

const PLACES: [&str; 3] = ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"];

/// What fusermount3 looks a mount up in before it unmounts it. Minimal roots lack it.
const TABLE: &str = "/etc/mtab";

/// Mounts there. Gives /dev/fuse and the number of its connection.
pub(crate) fn mount(source: &Path, mountpoint: &Path, options: &Options) -> Result<(OwnedFd, u32), Failure> {
    let program = program()?;
    if options.nosymfollow {
        return Err(Failure::usage("option 'nosymfollow' needs root"));
    }
    if !Path::new("/dev/fuse").exists() {
        return Err(Failure::system("is missing: this kernel or container has no FUSE").about("/dev/fuse"));
    }
    if !Path::new(TABLE).exists() {
        // A mount that could not be ended is not begun.
        let reason = "is missing, and fusermount3 does not unmount without it: ln -s ../proc/self/mounts /etc/mtab";
        return Err(Failure::system(reason).about(TABLE));
    }
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None);
    let (ours, theirs) = pair.map_err(|errno| Failure::system(words(errno)))?;
    fcntl_setfd(&ours, FdFlags::CLOEXEC).map_err(|errno| Failure::system(words(errno)))?;
    let child = Command::new(program)
        .env_clear()
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .arg("-o")
        .arg(option_string(source, options))
        .arg("--")
        .arg(mountpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    drop(theirs);
    let child = child.map_err(|error| Failure::system(words(error)).about(program))?;
    let fuse = receive_fd(&ours);
    let output = child.wait_with_output().map_err(|error| Failure::system(words(error)).about(program))?;
    let Some(fuse) = fuse.filter(|_| output.status.success()) else {
        return Err(refusal(&String::from_utf8_lossy(&output.stderr)).about(mountpoint));
    };
    match mountinfo::at(mountpoint) {
        Ok(Some(line)) if line.is_lazaret() => Ok((fuse, line.device)),
        _ => {
            let _ = unmount(mountpoint, true);
            Err(Failure::system("the mount is not in the mount table").about(mountpoint))
        }
    }
}

/// Unmounts there; `lazy` also where it is in use.
pub(crate) fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), Failure> {
    let program = program()?;
    let mut command = Command::new(program);
    command.env_clear().arg("-u").stdin(Stdio::null());
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output();
    let output = output.map_err(|error| Failure::system(words(error)).about(program))?;
    if output.status.success() { Ok(()) } else { Err(refusal(&String::from_utf8_lossy(&output.stderr))) }
}

/// What fusermount3 said, as one line of ours. The host is to blame where FUSE or the mount itself is not permitted.
fn refusal(said: &str) -> Failure {
    let line = said.lines().next().unwrap_or("refused");
    let line = line.rsplit_once("fusermount3: ").map_or(line, |(_, rest)| rest);
    if line.starts_with("failed to unmount") && line.ends_with(": Device or resource busy") {
        return busy();
    }
    let reason = format!("fusermount3: {}", escaped(line));
    let host =
        ["failed to open", "mount failed: Operation not permitted", "mount failed: No such device", "not allowed"];
    if host.iter().any(|words| line.contains(words)) { Failure::system(reason) } else { Failure::mount(reason) }
}

/// What keeps a mount from being unmounted most often.
pub(crate) fn busy() -> Failure {
    Failure::mount("is busy: a process has a file or its working directory there")
}

/// Whether it is installed.
pub(crate) fn is_there() -> bool {
    program().is_ok()
}

fn program() -> Result<&'static str, Failure> {
    let found = PLACES.into_iter().find(|place| Path::new(place).exists());
    found.ok_or_else(|| {
        Failure::system("without root, fusermount3 mounts, and it is missing; on Debian it is in the package fuse3")
    })
}

fn option_string(source: &Path, options: &Options) -> OsString {
    let mut text = b"ro,nosuid,nodev,default_permissions,subtype=lazaret".to_vec();
    if !options.exec {
        text.extend(b",noexec");
    }
    if options.allow_other {
        text.extend(b",allow_other");
    }
    text.extend(b",fsname=");
    for &byte in source.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    OsString::from_vec(text)
}

/// One fd, or none if the other end closed without one.
fn receive_fd(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)).ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str, options: &Options) -> String {
        option_string(Path::new(source), options).into_string().unwrap()
    }

    #[test]
    fn what_fusermount_says_is_told_in_one_line() {
        let failure = refusal("/usr/bin/fusermount3: user has no write access to mountpoint /m\nmore\n");
        assert_eq!(failure.to_string(), "fusermount3: user has no write access to mountpoint /m");
        assert_eq!(refusal("").to_string(), "fusermount3: refused");
        let failure = refusal("/usr/bin/fusermount3: failed to unmount /m: Device or resource busy\n");
        assert_eq!(failure.to_string(), busy().to_string());
    }

    #[test]
    fn a_comma_in_a_path_adds_no_option() {
        assert!(text("/a,suid\\b", &Options::default()).ends_with(",noexec,fsname=/a\\,suid\\\\b"));
        let open = Options { exec: true, allow_other: true, ..Options::default() };
        assert!(text("/x", &open).ends_with("lazaret,allow_other,fsname=/x"));
    }
}
