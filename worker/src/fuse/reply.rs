//! The reply to FUSE_INIT with the one field that fuser 0.18 knows only as reserved: the seconds after which the kernel
//! itself ends a connection that leaves a request without an answer (`request_timeout`, Linux 6.15).
//!
//! What holds here: only the first reply is changed, which is written before any byte of the image is near; every other
//! goes out as it is. The kernel keeps the promise also where a lost worker only pretends to be at work.
#![expect(unsafe_code, reason = "takes the place of libc's writev, whose arguments are pointers")]

use rustix::io::{IoSlice, writev};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU16, Ordering};

/// `struct fuse_init_out`: its length, and where `flags2` and `request_timeout` lie (include/uapi/linux/fuse.h).
const LENGTH: usize = 64;
const FLAGS2: usize = 32;
const REQUEST_TIMEOUT: usize = 40;
/// Bit 42 of the flags, the way fuser was told it.
const HAS_TIMEOUT: u32 = 1 << (42 - 32);

/// What the next reply to FUSE_INIT is to ask for, in seconds.
static SECONDS: AtomicU16 = AtomicU16::new(0);

/// Puts [`write_reply`] in the place of libc's `writev`, by which fuser answers; a worker's `main.rs` says it once.
#[macro_export]
macro_rules! request_timeout {
    () => {
        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn writev(fd: i32, pieces: *const $crate::fuse::Piece, count: i32) -> isize {
            // SAFETY: the caller's promises are those of writev(2).
            unsafe { $crate::fuse::write_reply(fd, pieces, count) }
        }
    };
}

/// A `struct iovec`.
pub type Piece = libc::iovec;

/// From now on the first reply to FUSE_INIT asks for this. 0: for nothing.
pub(super) fn ask_for(seconds: u16) {
    SECONDS.store(seconds, Ordering::Release);
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
    let seconds = SECONDS.load(Ordering::Acquire);
    let sent = match pieces {
        [head, reply] if seconds > 0 => match with_timeout(reply, seconds) {
            Some(reply) => {
                ask_for(0);
                writev(fd, &[*head, IoSlice::new(&reply)])
            }
            None => writev(fd, pieces),
        },
        _ => writev(fd, pieces),
    };
    match sent {
        Ok(length) => isize::try_from(length).unwrap_or(isize::MAX),
        Err(errno) => {
            // SAFETY: libc's errno of this thread is always there.
            unsafe { *libc::__errno_location() = errno.raw_os_error() };
            -1
        }
    }
}

/// The same reply with the field, if it is one that has it.
fn with_timeout(reply: &[u8], seconds: u16) -> Option<[u8; LENGTH]> {
    let mut reply = <[u8; LENGTH]>::try_from(reply).ok()?;
    let flags = reply.get(FLAGS2..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
    if flags & HAS_TIMEOUT == 0 {
        return None;
    }
    *reply.get_mut(REQUEST_TIMEOUT..)?.first_chunk_mut()? = seconds.to_ne_bytes();
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_that_offers_it_gets_the_timeout() {
        let mut reply = [7; LENGTH];
        reply[FLAGS2..FLAGS2 + 4].copy_from_slice(&HAS_TIMEOUT.to_ne_bytes());
        let changed = with_timeout(&reply, 300).unwrap();
        assert_eq!(changed[REQUEST_TIMEOUT..REQUEST_TIMEOUT + 2], 300_u16.to_ne_bytes());
        assert!((0..LENGTH).filter(|at| changed[*at] != reply[*at]).all(|at| (40..42).contains(&at)));
        reply[FLAGS2..FLAGS2 + 4].copy_from_slice(&(!HAS_TIMEOUT).to_ne_bytes());
        assert!(with_timeout(&reply, 300).is_none());
        assert!(with_timeout(&reply[1..], 300).is_none());
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
