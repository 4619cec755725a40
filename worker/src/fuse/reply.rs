//! The replies to which something is added that fuser 0.18 leaves out: that to FUSE_INIT gets the seconds after which
//! the kernel itself ends a connection that leaves a request without an answer (`request_timeout`, Linux 6.15), and the
//! minor version that fuse-iomap asks for; those that make an inode known to the kernel get the flags of its attributes;
//! and in a list what is only a name gets the node id that says so.
//!
//! What holds here: only replies of these kinds are changed, told by what was asked and never by their bytes; every other
//! goes out as it is, and nobody looks at what is in it. FUSE_INIT is answered before any byte of the image is near. The
//! kernel keeps the promise of the timeout also where a lost worker only pretends to be at work.
#![expect(unsafe_code, reason = "takes the place of libc's writev, whose arguments are pointers")]

use super::abi::{ATTR_MAPPED, MINOR, OutHeader, entry, request};
use super::request::answering;
use crate::error::Error;
use fuser::Generation;
use rustix::io::{Errno, IoSlice, writev};
use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::IntoBytes;

/// What the frontend says of an inode that the kernel is to ask mappings of, in the one number of an entry that it has no
/// other use for. It stands in no reply.
pub(super) const MAPPED: Generation = Generation(1);
/// The same of one that is listed by its name only: no inode is to be made of it, and the node id becomes 0, which fuser
/// has no words for where the directory's entry has a number.
pub(super) const BY_NAME: Generation = Generation(2);

/// `struct fuse_init_out`: its length, and where `minor`, `flags2` and `request_timeout` lie (include/uapi/linux/fuse.h).
const LENGTH: usize = 64;
const INIT_MINOR: usize = 4;
const FLAGS2: usize = 32;
const REQUEST_TIMEOUT: usize = 40;
/// Bit 42 of the flags, the way fuser was told it.
const HAS_TIMEOUT: u32 = 1 << (42 - 32);

/// What is to be added: the seconds for the next reply to FUSE_INIT, and the other two.
static ADDED: AtomicU32 = AtomicU32::new(0);
const SECONDS: u32 = u16::MAX as u32;
const IOMAP: u32 = 1 << 16;
const ENTRIES: u32 = 1 << 17;

thread_local! {
    /// In the list that goes out next are entries that are only names.
    static LIST_BY_NAME: Cell<bool> = const { Cell::new(false) };
}

/// A `struct iovec`.
pub type Piece = libc::iovec;

/// From now on the first reply to FUSE_INIT asks for this many seconds. 0: for nothing.
pub(super) fn ask_for(seconds: u16) {
    ADDED.store(seconds.into(), Ordering::Release);
}

/// The reply to FUSE_INIT that is about to go out is one to a kernel with fuse-iomap.
pub(super) fn ask_for_iomap() {
    ADDED.fetch_or(IOMAP, Ordering::AcqRel);
}

/// From now on the kernel is told of inodes that are [`MAPPED`].
pub(super) fn add_to_entries() {
    ADDED.fetch_or(ENTRIES, Ordering::AcqRel);
}

/// Sends a list in which there are entries [`BY_NAME`].
pub(super) fn list_by_name(send: impl FnOnce()) {
    LIST_BY_NAME.set(true);
    send();
    LIST_BY_NAME.set(false);
}

/// writev(2).
///
/// # Safety
/// As for writev(2): `pieces` points to `count` pieces, and each to as many bytes as it says.
pub unsafe fn write_reply(fd: i32, pieces: *const Piece, count: i32) -> isize {
    let count = if pieces.is_null() { 0 } else { usize::try_from(count).unwrap_or(0) };
    // SAFETY: the caller promises that the pieces are there, and that its fd is open; an `IoSlice` has the layout of an
    // iovec.
    let (fd, pieces) = unsafe {
        let pieces = if count == 0 { &[] } else { std::slice::from_raw_parts(pieces.cast::<IoSlice<'_>>(), count) };
        (BorrowedFd::borrow_raw(fd), pieces)
    };
    let sent = match (pieces, ADDED.load(Ordering::Acquire)) {
        ([head, list], _) if LIST_BY_NAME.get() => write_list(fd, *head, list),
        (_, 0) => writev(fd, pieces),
        ([head, reply], added) if added & (SECONDS | IOMAP) > 0 => match init(reply, added) {
            Some(reply) => {
                ask_for(0);
                writev(fd, &[*head, IoSlice::new(&reply)])
            }
            None => writev(fd, pieces),
        },
        ([head, reply], _) => match answering() {
            request::LOOKUP => write_entry(fd, *head, reply),
            request::READDIRPLUS => write_list(fd, *head, reply),
            _ => writev(fd, pieces),
        },
        _ => writev(fd, pieces),
    };
    sent.map_or_else(failed, |length| isize::try_from(length).unwrap_or(isize::MAX))
}

/// What libc's functions return when they fail.
pub(super) fn failed(errno: Errno) -> isize {
    // SAFETY: libc's errno of this thread is always there.
    unsafe { *libc::__errno_location() = errno.raw_os_error() };
    -1
}

/// The reply to FUSE_INIT with what it has a place for, if it is one.
fn init(reply: &[u8], added: u32) -> Option<[u8; LENGTH]> {
    let mut reply = <[u8; LENGTH]>::try_from(reply).ok()?;
    let flags = reply.get(FLAGS2..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
    let (timeout, iomap) = (flags & HAS_TIMEOUT > 0 && added & SECONDS > 0, added & IOMAP > 0);
    if timeout {
        let seconds = u16::try_from(added & SECONDS).ok()?;
        *reply.get_mut(REQUEST_TIMEOUT..)?.first_chunk_mut()? = seconds.to_ne_bytes();
    }
    if iomap {
        *reply.get_mut(INIT_MINOR..)?.first_chunk_mut()? = MINOR.to_ne_bytes();
    }
    (timeout || iomap).then_some(reply)
}

fn write_entry(fd: BorrowedFd<'_>, head: IoSlice<'_>, reply: &[u8]) -> Result<usize, Errno> {
    let Ok(mut reply) = <[u8; entry::LENGTH]>::try_from(reply) else {
        return writev(fd, &[head, IoSlice::new(reply)]);
    };
    translate(&mut reply);
    writev(fd, &[head, IoSlice::new(&reply)])
}

fn write_list(fd: BorrowedFd<'_>, head: IoSlice<'_>, reply: &[u8]) -> Result<usize, Errno> {
    let mut list = Vec::new();
    if list.try_reserve_exact(reply.len()).is_err() {
        // Whoever waits for the list is told that there is none.
        let unique = head.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let error = -Errno::from(&Error::OutOfMemory).raw_os_error();
        let head = OutHeader { len: 16, error, unique };
        return writev(fd, &[IoSlice::new(head.as_bytes())]);
    }
    list.extend_from_slice(reply);
    let mut rest = &mut list[..];
    // Each turn goes on by an entry at least.
    while translate(rest) {
        let Some(length) = rest.get(entry::NAME_LENGTH..).and_then(|rest| rest.first_chunk()) else { break };
        let name = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let next = entry::NAME.saturating_add(name).checked_next_multiple_of(8);
        rest = next.and_then(|next| rest.get_mut(next..)).unwrap_or_default();
    }
    writev(fd, &[head, IoSlice::new(&list)])
}

/// Turns the frontend's mark at an entry into what it stands for. False where there is no entry.
fn translate(reply: &mut [u8]) -> bool {
    let Some(reply) = reply.first_chunk_mut::<{ entry::LENGTH }>() else { return false };
    let Some(mark) = reply[entry::GENERATION..].first_chunk_mut() else { return false };
    match Generation(u64::from_ne_bytes(std::mem::take(mark))) {
        MAPPED => reply[entry::FLAGS..].copy_from_slice(&ATTR_MAPPED.to_ne_bytes()),
        BY_NAME => reply[entry::NODE..entry::GENERATION].fill(0),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_that_offers_it_gets_the_timeout() {
        let mut reply = [7; LENGTH];
        reply[FLAGS2..FLAGS2 + 4].copy_from_slice(&HAS_TIMEOUT.to_ne_bytes());
        let changed = init(&reply, 300).unwrap();
        assert_eq!(changed[REQUEST_TIMEOUT..REQUEST_TIMEOUT + 2], 300_u16.to_ne_bytes());
        assert!((0..LENGTH).filter(|at| changed[*at] != reply[*at]).all(|at| (40..42).contains(&at)));
        reply[FLAGS2..FLAGS2 + 4].copy_from_slice(&(!HAS_TIMEOUT).to_ne_bytes());
        assert!(init(&reply, 300).is_none());
        assert!(init(&reply[1..], 300).is_none());
    }

    #[test]
    fn once_nothing_is_asked_for_data_that_looks_like_that_reply_is_left_alone() {
        use std::io::Read;
        let mut data = [7; LENGTH];
        data[FLAGS2..FLAGS2 + 4].copy_from_slice(&HAS_TIMEOUT.to_ne_bytes());
        let sent = || {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let pieces = [IoSlice::new(b"head"), IoSlice::new(&data)];
            // SAFETY: both pieces are there, and the pipe is open.
            unsafe { write_reply(std::os::fd::AsRawFd::as_raw_fd(&writer), pieces.as_ptr().cast(), 2) };
            drop(writer);
            let mut read = vec![];
            reader.read_to_end(&mut read).unwrap();
            read[4..].to_vec()
        };
        ask_for(300);
        assert_ne!(sent(), data);
        assert_eq!(sent(), data, "asked for once");
        ask_for(300);
        ask_for(0);
        assert_eq!(sent(), data, "asked for no more");
    }

    #[test]
    fn everything_else_is_written_as_it_is() {
        use std::io::Read;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let pieces = [IoSlice::new(b"ab"), IoSlice::new(b"cde")];
        let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
        // SAFETY: both pieces are there, and the pipe is open.
        assert_eq!(unsafe { write_reply(fd, pieces.as_ptr().cast(), 2) }, 5);
        drop(writer);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "abcde");
    }
}
