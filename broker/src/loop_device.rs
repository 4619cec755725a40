//! A read-only block device over just the range that is the file system: what the kernel may read from when a worker answers
//! with mappings.
//!
//! What holds here: read-only and the range are properties of the device, not of the fd it is known by. It stands over the fd
//! that was opened and claimed, so no path is looked up again. It is gone when nobody has it open any more, whoever was
//! killed. It is claimed and locked before it shows anything: nobody else mounts it, and udevd, which keeps away from what is
//! locked, has nobody look into it.

use crate::exit::words;
use crate::ioctl::{self, AUTOCLEAR, DIRECT_IO, LoopInfo, PARTSCAN, READ_ONLY};
use lazaret_policy::message::Range;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bytes of its sectors: no file system has smaller blocks, and each of its blocks can be read alone.
const SECTOR: u32 = 512;
/// How often a free device is asked for, where others are after them, too, and the pause between.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// The device, for as long as somebody has it open.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    fd: OwnedFd,
}

impl LoopDevice {
    /// Makes it. An error is the reason why there is none, and nothing of it is left.
    pub(crate) fn over(beneath: BorrowedFd<'_>, range: Range) -> Result<Self, String> {
        // Else the kernel would parse what lies there, for every loop device.
        if max_part() > 0 {
            return Err("the kernel looks for partitions in loop devices (loop.max_part)".to_owned());
        }
        let mut wanted = LoopInfo::EMPTY;
        wanted.lo_offset = range.offset;
        wanted.lo_sizelimit = range.length / u64::from(SECTOR) * u64::from(SECTOR);
        // Around the cache beneath where that can be, since the files' pages are cached already.
        wanted.lo_flags = READ_ONLY | AUTOCLEAR | DIRECT_IO;
        let name = b"lazaret";
        wanted.lo_file_name[..name.len()].copy_from_slice(name);
        let fd = attach(beneath, wanted)?;
        check(fd.as_fd(), beneath, &wanted)?;
        Ok(Self { fd })
    }
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why this host gives no loop device; nothing where it may.
pub(crate) fn missing() -> Option<String> {
    match control() {
        Err(errno) => Some(unavailable(errno)),
        Ok(_) if max_part() > 0 => Some("the kernel looks for partitions in loop devices (loop.max_part)".to_owned()),
        Ok(_) => None,
    }
}

fn control() -> Result<OwnedFd, Errno> {
    open(c"/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn unavailable(errno: Errno) -> String {
    format!("no loop device: {}", words(errno))
}

/// In how many partitions the kernel would cut a loop device unasked.
fn max_part() -> u64 {
    let told = std::fs::read_to_string("/sys/module/loop/parameters/max_part");
    told.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn attach(beneath: BorrowedFd<'_>, wanted: LoopInfo) -> Result<OwnedFd, String> {
    let control = control().map_err(unavailable)?;
    let mut last = Errno::BUSY;
    for _ in 0..TRIES {
        match try_one(control.as_fd(), beneath, wanted) {
            Ok(fd) => return Ok(fd),
            // Another has it, has just taken it, or looks at it.
            Err(errno @ (Errno::BUSY | Errno::WOULDBLOCK | Errno::NXIO)) => last = errno,
            Err(errno) => return Err(unavailable(errno)),
        }
        std::thread::sleep(PAUSE);
    }
    Err(unavailable(last))
}

fn try_one(control: BorrowedFd<'_>, beneath: BorrowedFd<'_>, wanted: LoopInfo) -> Result<OwnedFd, Errno> {
    let path = format!("/dev/loop{}", ioctl::free_loop_device(control)?);
    // The claim: on a block device that is what O_EXCL without O_CREAT means.
    let fd = open(path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
    flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    ioctl::configure_loop(fd.as_fd(), beneath, SECTOR, wanted)?;
    Ok(fd)
}

/// Whether it is what was asked for, by what the kernel says of it.
fn check(device: BorrowedFd<'_>, beneath: BorrowedFd<'_>, wanted: &LoopInfo) -> Result<(), String> {
    let seen = ioctl::loop_info(device).map_err(unavailable)?;
    let file = fstat(beneath).map_err(unavailable)?;
    let wrong = |what: &str| Err(format!("no loop device: the kernel made {what}"));
    if seen.lo_flags & !DIRECT_IO != wanted.lo_flags & !DIRECT_IO || seen.lo_flags & PARTSCAN != 0 {
        return wrong("one with other flags");
    }
    if (seen.lo_offset, seen.lo_sizelimit) != (wanted.lo_offset, wanted.lo_sizelimit)
        || ioctl::length(device) != Ok(wanted.lo_sizelimit)
    {
        return wrong("one of another range");
    }
    if seen.lo_inode != file.st_ino {
        return wrong("one over another file");
    }
    if ioctl::is_read_only(device) != Ok(true) {
        return wrong("one that can be written to");
    }
    Ok(())
}
