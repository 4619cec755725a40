//! The way in for the requests that fuser does not know: it takes requests from /dev/fuse with libc's `read`, and this
//! stands in its place. A request of fuse-iomap is answered here, on the same thread, and the next one taken; every other
//! is given to fuser as it came. Its answer passes by `reply.rs`, which adds what fuser leaves out.
//!
//! What holds here: a mount without mappings pays one comparison for it; the bytes of a request are looked at only here
//! or only by fuser; and nothing is allocated.
//!
//! It was chosen by measuring, against threads that stand between /dev/fuse and fuser with a pair of sockets. Of a request
//! that fuser answers, by the CPU time of both ends (median of 7 runs on a busy machine): 2 system calls and one copy of
//! the answer against 6 and 3; 14.8 µs against 32.5 with an answer of 80 bytes, 22.8 against 54.3 with one of 128 KiB.
//! Doing without fuser is 2 calls and one copy as well, and some 1 500 lines that it has and we have not.
#![expect(unsafe_code, reason = "takes the place of libc's read, whose arguments are a pointer and a length")]

use super::abi::{InHeader, OutHeader, notify};
use super::iomap::{Agreed, Answer, Mapper, Notice};
use crate::error::{Error, is_passing};
use lazaret_policy::FUSE_FD;
use rustix::io::{Errno, IoSlice, read, writev};
use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use zerocopy::{FromBytes, IntoBytes};

/// Room for one request: at least as much as the kernel demands of who reads, which is a little more than the longest write.
/// One of this length has pages of its own, and only the first is touched.
const ROOM: usize = 16 << 20;

/// Who answers where bytes lie, once there is a device to say it of.
static MAPPER: OnceLock<Mapper> = OnceLock::new();

thread_local! {
    /// The operation that fuser answers on this thread.
    static ANSWERING: Cell<u32> = const { Cell::new(0) };
}

/// Puts [`take_request`] and [`write_reply`](crate::fuse::write_reply) in the places of libc's `read` and `writev`, by
/// which fuser talks; a worker's `main.rs` says it once.
#[macro_export]
macro_rules! beside_fuser {
    () => {
        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn read(fd: i32, buffer: *mut u8, room: usize) -> isize {
            // SAFETY: the caller's promises are those of read(2).
            unsafe { $crate::fuse::take_request(fd, buffer, room) }
        }

        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn writev(fd: i32, pieces: *const $crate::fuse::Piece, count: i32) -> isize {
            // SAFETY: the caller's promises are those of writev(2).
            unsafe { $crate::fuse::write_reply(fd, pieces, count) }
        }
    };
}

/// read(2), of what is not answered here.
///
/// # Safety
/// As for read(2): `buffer` points to `room` bytes that nobody else uses, and the fd is open.
pub unsafe fn take_request(fd: i32, buffer: *mut u8, room: usize) -> isize {
    // SAFETY: the caller promises both.
    let (file, buffer) = unsafe {
        let room = if buffer.is_null() { 0 } else { room };
        let start = if room == 0 { std::ptr::dangling_mut() } else { buffer.cast::<MaybeUninit<u8>>() };
        (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts_mut(start, room))
    };
    let taken = match MAPPER.get().filter(|_| fd == FUSE_FD) {
        None => read(file, &mut *buffer).map(|(request, _)| request.len()),
        Some(mapper) => next_for_fuser(mapper, file, buffer),
    };
    taken.map_or_else(super::reply::failed, |length| isize::try_from(length).unwrap_or(isize::MAX))
}

/// From now on this one answers, on every thread. Where there is one already, it stays.
pub(super) fn answer_by(mapper: Mapper) {
    let first = MAPPER.set(mapper).is_ok();
    debug_assert!(first, "a worker serves one mount");
}

/// The operation that is answered on this thread, if its answer may need more than fuser says.
pub(super) fn answering() -> u32 {
    ANSWERING.get()
}

/// Takes the kernel's first request after FUSE_INIT, which says what it knows of mappings, and answers it.
pub(super) fn agree(fuse: impl AsFd) -> io::Result<Agreed> {
    let mut room = vec![0; ROOM];
    let length = loop {
        match read(&fuse, &mut *room) {
            Err(errno) if is_passing(errno) => {}
            length => break length?,
        }
    };
    let unknown = || io::Error::from(io::ErrorKind::InvalidData);
    let (header, body) = InHeader::read_from_prefix(&room[..length]).map_err(|_| unknown())?;
    if header.opcode != super::abi::request::IOMAP_CONFIG {
        return Err(unknown());
    }
    let agreed = Agreed::answer(body);
    let answer = agreed.as_ref().map(|(_, answer)| answer.as_bytes());
    if !reply(header.unique, answer, &mut |packet| writev(&fuse, packet).is_ok()) {
        return Err(unknown());
    }
    agreed.map(|(agreed, _)| agreed).map_err(|_| unknown())
}

fn next_for_fuser(mapper: &Mapper, file: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> Result<usize, Errno> {
    loop {
        let (request, _) = read(file, &mut *buffer)?;
        let Ok((header, body)) = InHeader::read_from_prefix(request) else { return Ok(request.len()) };
        ANSWERING.set(header.opcode);
        if !Mapper::is_for(header.opcode) {
            return Ok(request.len());
        }
        answer(mapper, &header, body, &mut |packet| writev(file, packet).is_ok());
    }
}

/// Sends one packet, and whether the kernel took it.
type Send<'a> = dyn FnMut(&[IoSlice<'_>]) -> bool + 'a;

impl Mapper {
    /// Answers a packet as [`take_request`] does, for tests and the fuzzer; false where it is one for fuser.
    pub fn take(&self, packet: &[u8], send: &mut Send<'_>) -> bool {
        let Ok((header, body)) = InHeader::read_from_prefix(packet) else { return false };
        let ours = Self::is_for(header.opcode);
        if ours {
            answer(self, &header, body, send);
        }
        ours
    }
}

fn answer(mapper: &Mapper, header: &InHeader, body: &[u8], send: &mut Send<'_>) {
    let answer = mapper.answer(header, body, &mut |notice| tell(notice, send));
    let bytes = answer.as_ref().map(|answer| match answer {
        Answer::Mapping(mapping) => mapping.as_bytes(),
        Answer::Done => &[],
    });
    // A request that was interrupted takes no answer; of one that is wrong the kernel tells whoever asked.
    reply(header.unique, bytes, send);
}

fn reply(unique: u64, answer: Result<&[u8], &Error>, send: &mut Send<'_>) -> bool {
    let error = answer.err().map_or(0, |error| -Errno::from(error).raw_os_error());
    packet(OutHeader { len: 0, error, unique }, answer.unwrap_or_default(), send)
}

/// Tells the kernel something that it did not ask, and whether it took it.
fn tell(notice: &Notice, send: &mut Send<'_>) -> bool {
    let (code, body) = match notice {
        Notice::Keep(keep) => (notify::UPSERT_MAPPINGS, keep.as_bytes()),
        Notice::Forget(forget) => (notify::INVAL_MAPPINGS, forget.as_bytes()),
    };
    packet(OutHeader { len: 0, error: code, unique: 0 }, body, send)
}

/// One packet, which says how long it is.
fn packet(header: OutHeader, body: &[u8], send: &mut Send<'_>) -> bool {
    let length = size_of::<OutHeader>() + body.len();
    let header = OutHeader { len: u32::try_from(length).unwrap_or(u32::MAX), ..header };
    send(&[IoSlice::new(header.as_bytes()), IoSlice::new(body)])
}
