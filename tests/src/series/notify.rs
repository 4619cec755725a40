//! System calls of other programs, answered by a test instead of by the kernel: seccomp's user notification.
//!
//! What holds here: the programs under test are those that are shipped; they only run beneath a filter that hands some
//! calls to this process, such as some requests of ioctl(2).
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

/// Calls that are handed over: those of this number where this argument, by its lower half, is one of these.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// The call's number.
    pub call: i64,
    /// Which argument, from 0.
    pub argument: u32,
    /// What it may be.
    pub values: &'a [u32],
}

/// From now on these calls of this thread and of all that it starts are answered by the listener.
pub fn listen(watched: &[Watched<'_>]) -> Result<Listener> {
    /// Where a call's number lies in what a filter is given, and where its arguments begin.
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;
    const ALLOW: u32 = 0x7fff_0000;
    let load = |offset: u32| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let equal = |k: u32, jt: usize, jf: usize| libc::sock_filter { code: 0x15, jt: jt as u8, jf: jf as u8, k };
    let answer = |k: u32| libc::sock_filter { code: 6, jt: 0, jf: 0, k };
    let mut program = vec![load(NUMBER)];
    // The last instruction hands over, and the one before it does not.
    let last = watched.iter().map(|one| one.values.len() + 3).sum::<usize>() + 2;
    for Watched { call, argument, values } in watched {
        program.push(equal(*call as u32, 0, values.len() + 2));
        program.push(load(ARGUMENTS + 8 * argument));
        for value in *values {
            program.push(equal(*value, last - program.len() - 1, 0));
        }
        program.push(answer(ALLOW));
    }
    program.push(answer(ALLOW));
    program.push(answer(libc::SECCOMP_RET_USER_NOTIF));
    assert_eq!(program.len(), last + 1, "the jumps are counted by it");
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

    /// Answers it. False where nobody waits for it any more: he was killed, or a signal has come to him.
    pub fn answer(&self, asked: &Asked, answer: Answer) -> bool {
        let (val, error, flags) = match answer {
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno, 0),
            Answer::Kernel => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let mut answer = libc::seccomp_notif_resp { id: asked.id, val, error, flags };
        // SAFETY: the structure is the one that this request reads.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, &raw mut answer) == 0 }
    }
}

impl Asked {
    /// Bytes of the caller's memory.
    pub fn read<const N: usize>(&self, place: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.memory()?.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }

    /// What `writev` is to write: at most `most` bytes from `count` pieces that are listed at `place`.
    pub fn gather(&self, place: u64, count: u64, most: usize) -> Result<Vec<u8>> {
        let (memory, mut list, mut all) = (self.memory()?, vec![0; 16 * usize::try_from(count)?.min(64)], Vec::new());
        memory.read_exact_at(&mut list, place)?;
        for piece in list.chunks_exact(16) {
            let word = |at: usize| piece[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            let (from, begin) = (word(0), all.len());
            all.resize((begin + usize::try_from(word(8))?).min(most), 0);
            memory.read_exact_at(&mut all[begin..], from)?;
        }
        Ok(all)
    }

    fn memory(&self) -> Result<File> {
        Ok(File::open(format!("/proc/{}/mem", self.pid))?)
    }

    /// Writes into the caller's memory.
    pub fn write(&self, place: u64, bytes: &[u8]) -> Result {
        Ok(File::options().write(true).open(format!("/proc/{}/mem", self.pid))?.write_all_at(bytes, place)?)
    }
}
