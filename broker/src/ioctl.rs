//! The requests to devices that no safe library makes for us: to loop devices, to block devices, and to /dev/fuse where a
//! kernel has the series that lets a server answer with mappings ("fuse: use fs-iomap", version 7 of 2026-02-23).
//!
//! What holds here: each request goes out with the structure that the kernel's header gives it, whose size is asserted, so a
//! caller cannot pair them wrongly. None of them writes to a medium.
#![expect(unsafe_code, reason = "ioctl(2) writes where it is told, and only its number says how much")]

use rustix::io;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const LOOP_CTL_GET_FREE: Opcode = 0x4c82;
const LOOP_CONFIGURE: Opcode = 0x4c0a;
const LOOP_GET_STATUS64: Opcode = 0x4c05;
const BLKROGET: Opcode = opcode::none(0x12, 94);
const BLKGETSIZE64: Opcode = opcode::read::<usize>(0x12, 114);
/// Numbers of the series; on a kernel without it they are nobody's.
const FUSE_BACKING_OPEN: Opcode = opcode::write::<BackingMap>(229, 1);
const FUSE_IOMAP_SUPPORT: Opcode = opcode::read::<IomapSupport>(229, 99);
const FUSE_ADD_IOMAP: Opcode = opcode::none(229, 101);

/// `LO_FLAGS_*`: the device refuses what would write.
pub(crate) const READ_ONLY: u32 = 1;
/// It is free again when nobody has it open any more.
pub(crate) const AUTOCLEAR: u32 = 4;
/// The kernel looks for partitions in it.
pub(crate) const PARTSCAN: u32 = 8;
/// It goes around the cache of what lies beneath.
pub(crate) const DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct LoopInfo {
    /// Device and inode of what lies beneath; the kernel's answer.
    pub lo_device: u64,
    pub lo_inode: u64,
    pub lo_rdevice: u64,
    /// Where it begins in what lies beneath, and how long it is, in bytes.
    pub lo_offset: u64,
    pub lo_sizelimit: u64,
    pub lo_number: u32,
    pub lo_encrypt_type: u32,
    pub lo_encrypt_key_size: u32,
    pub lo_flags: u32,
    pub lo_file_name: [u8; 64],
    pub lo_crypt_name: [u8; 64],
    pub lo_encrypt_key: [u8; 32],
    pub lo_init: [u64; 2],
}

/// `struct loop_config`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct fuse_backing_map`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// `struct fuse_iomap_support`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct IomapSupport {
    flags: u64,
    padding: u64,
}

const _: () = {
    assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);
    assert!(size_of::<BackingMap>() == 16 && size_of::<IomapSupport>() == 16);
};

impl LoopInfo {
    /// All zeros, as a caller begins.
    pub(crate) const EMPTY: Self = Self {
        lo_device: 0,
        lo_inode: 0,
        lo_rdevice: 0,
        lo_offset: 0,
        lo_sizelimit: 0,
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: 0,
        lo_file_name: [0; 64],
        lo_crypt_name: [0; 64],
        lo_encrypt_key: [0; 32],
        lo_init: [0; 2],
    };
}

/// The number of a loop device that is free; another may take it before we do.
pub(crate) fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    ask(control, LOOP_CTL_GET_FREE, &mut ()).map(i32::unsigned_abs)
}

/// Lets a loop device stand over a file, all at once: there is no moment in which it is writable or lasts.
pub(crate) fn configure_loop(
    device: BorrowedFd<'_>,
    beneath: BorrowedFd<'_>,
    block: u32,
    info: LoopInfo,
) -> io::Result<()> {
    let fd = beneath.as_raw_fd().unsigned_abs();
    ask(device, LOOP_CONFIGURE, &mut LoopConfig { fd, block_size: block, info, reserved: [0; 8] }).map(drop)
}

/// What a loop device stands over, and how.
pub(crate) fn loop_info(device: BorrowedFd<'_>) -> io::Result<LoopInfo> {
    let mut info = LoopInfo::EMPTY;
    ask(device, LOOP_GET_STATUS64, &mut info).map(|_| info)
}

/// Whether a block device refuses what would write.
pub(crate) fn is_read_only(device: BorrowedFd<'_>) -> io::Result<bool> {
    let mut answer = 0_i32;
    ask(device, BLKROGET, &mut answer).map(|_| answer != 0)
}

/// Bytes of a block device.
pub(crate) fn length(device: BorrowedFd<'_>) -> io::Result<u64> {
    let mut answer = 0_u64;
    ask(device, BLKGETSIZE64, &mut answer).map(|_| answer)
}

/// What this caller may have of iomap on this /dev/fuse: bit 0 is reading and writing of files. ENOTTY where the kernel has
/// nothing of the kind.
pub(crate) fn iomap_support(fuse: BorrowedFd<'_>) -> io::Result<u64> {
    let mut answer = IomapSupport { flags: 0, padding: 0 };
    ask(fuse, FUSE_IOMAP_SUPPORT, &mut answer).map(|_| answer.flags)
}

/// The mount that is made with this /dev/fuse next may use iomap.
pub(crate) fn add_iomap(fuse: BorrowedFd<'_>) -> io::Result<()> {
    ask(fuse, FUSE_ADD_IOMAP, &mut ()).map(drop)
}

/// Makes a block device known to the connection behind this /dev/fuse: its number there. Waits until it is mounted.
pub(crate) fn open_backing(fuse: BorrowedFd<'_>, device: BorrowedFd<'_>) -> io::Result<u32> {
    /// The type is that of iomap.
    const IOMAP: u32 = 1;
    let mut map = BackingMap { fd: device.as_raw_fd(), flags: IOMAP, padding: 0 };
    ask(fuse, FUSE_BACKING_OPEN, &mut map).map(i32::unsigned_abs)
}

/// One request, and what it writes to.
struct Request<'a, T> {
    opcode: Opcode,
    argument: &'a mut T,
}

/// The kernel's own answer; it is never negative.
fn ask<T>(device: BorrowedFd<'_>, opcode: Opcode, argument: &mut T) -> io::Result<i32> {
    // SAFETY: this function is private, and every caller above gives the structure of its request, which holds no pointer.
    unsafe { rustix::ioctl::ioctl(device.as_fd(), Request { opcode, argument }) }
}

// SAFETY: the pointer is to a structure that outlives the call and is borrowed for writing.
unsafe impl<T> Ioctl for Request<'_, T> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.argument).cast()
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> io::Result<i32> {
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn the_numbers_are_those_of_the_headers() {
        assert_eq!((BLKROGET, FUSE_ADD_IOMAP), (0x125e, 0xe565));
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            assert_eq!((BLKGETSIZE64, FUSE_BACKING_OPEN, FUSE_IOMAP_SUPPORT), (0x8008_1272, 0x4010_e501, 0x8010_e563));
        }
    }

    #[test]
    fn a_file_is_none_of_these_devices() {
        let file = tempfile::tempfile().unwrap();
        for answer in [
            loop_info(file.as_fd()).map(drop),
            is_read_only(file.as_fd()).map(drop),
            length(file.as_fd()).map(drop),
            iomap_support(file.as_fd()).map(drop),
            add_iomap(file.as_fd()),
            open_backing(file.as_fd(), file.as_fd()).map(drop),
            free_loop_device(file.as_fd()).map(drop),
            configure_loop(file.as_fd(), file.as_fd(), 512, LoopInfo::EMPTY),
        ] {
            assert_eq!(answer, Err(Errno::NOTTY));
        }
    }
}
