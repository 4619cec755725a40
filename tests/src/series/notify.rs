//! System calls of other programs, answered by a test instead of by the kernel: seccomp's user notification.
//!
//! What holds here: the programs under test are those that are shipped; they only run beneath a filter that hands some
//! requests of ioctl(2), and word of some of fsconfig(2), to this process.
#![allow(unsafe_code, reason = "installing a filter with a listener, and taking and answering what it notifies of")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;

const RECEIVE: libc::Ioctl = 0xc050_2100u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101u32 as libc::Ioctl;

/// One call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    id: u64,
    /// Who calls.
    pub pid: u32,
    /// The call's number.
    pub call: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This value.
    Value(i64),
    /// This error.
    Error(i32),
    /// What the kernel itself says.
    Kernel,
}

/// Where calls are taken.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// From now on these requests of ioctl, and these commands of fsconfig, of this thread and of all that it starts are
/// answered by the listener.
pub fn listen(requests: &[u32], commands: &[u32]) -> Result<Listener> {
    let load = |offset: u32| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let equal = |k: u32, jt: usize, jf: usize| libc::sock_filter { code: 0x15, jt: jt as u8, jf: jf as u8, k };
    let answer = |k: u32| libc::sock_filter { code: 6, jt: 0, jf: 0, k };
    const ALLOW: u32 = 0x7fff_0000;
    let (first, second) = (requests.len(), commands.len());
    let mut program = vec![
        load(0),
        equal(libc::SYS_ioctl as u32, 0, first + 2),
        // The lower half of the second argument is the request.
        load(24),
    ];
    program.extend(requests.iter().enumerate().map(|(at, request)| equal(*request, first - at + second + 3, 0)));
    program.push(answer(ALLOW));
    program.push(equal(libc::SYS_fsconfig as u32, 0, second + 1));
    program.push(load(24));
    program.extend(commands.iter().enumerate().map(|(at, command)| equal(*command, second - at, 0)));
    program.push(answer(ALLOW));
    program.push(answer(libc::SECCOMP_RET_USER_NOTIF));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the program outlives the call, which gives a new fd or an error.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::c_ulong::from(mode), flags, &raw const filter) };
    if fd < 0 {
        return Err(format!("a filter that notifies: {}", io::Error::last_os_error()).into());
    }
    // SAFETY: it is ours, and nobody else knows of it.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

impl Listener {
    /// Takes a call, if one comes in this time.
    pub fn take(&self, milliseconds: i64) -> Option<Asked> {
        let time = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&time)) != Ok(1) {
            return None;
        }
        // SAFETY: all zeros are what the kernel asks for, and mean nothing.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the one that this request writes to.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE, &raw mut notice) } != 0 {
            return None;
        }
        let libc::seccomp_notif { id, pid, data, .. } = notice;
        Some(Asked { id, pid, call: data.nr.into(), arguments: data.args })
    }

    /// Answers it. One who was killed meanwhile needs none.
    pub fn answer(&self, asked: &Asked, answer: Answer) {
        let (val, error, flags) = match answer {
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno, 0),
            Answer::Kernel => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let mut answer = libc::seccomp_notif_resp { id: asked.id, val, error, flags };
        // SAFETY: the structure is the one that this request reads.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, &raw mut answer) };
    }
}

impl Asked {
    /// Bytes of the caller's memory.
    pub fn read<const N: usize>(&self, place: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        File::open(format!("/proc/{}/mem", self.pid))?.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }

    /// Writes into the caller's memory.
    pub fn write(&self, place: u64, bytes: &[u8]) -> Result {
        Ok(File::options().write(true).open(format!("/proc/{}/mem", self.pid))?.write_all_at(bytes, place)?)
    }
}
