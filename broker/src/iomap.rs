//! `-o iomap`: the worker answers where the bytes of a file lie, and the kernel reads them itself from a block device.
//!
//! What holds here: this is for a series that is not in mainline, and a kernel is asked before anything is done. The worker
//! gets no fd and no call more than without. What the kernel may read from is a read-only loop device of the range that the
//! worker has mapped anyway; with the connection it ends.

use crate::device::Source;
use crate::escape::escaped;
use crate::exit::{Failure, say, words};
use crate::ioctl;
use crate::loop_device::{self, LoopDevice};
use lazaret_policy::message::COOKIES;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// `iomap`, `iomap=require`, or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The worker gives the bytes.
    #[default]
    No,
    /// The kernel takes them where it can.
    IfOffered,
    /// There is no mount without.
    Required,
}

impl Wanted {
    /// Whether it was asked for at all.
    pub(crate) fn is_wanted(self) -> bool {
        self != Self::No
    }

    /// It is not to be had, and why: an end, or a line about it.
    pub(crate) fn do_without(self, source: &Path, why: &str) -> Result<(), Failure> {
        match self {
            Self::Required => Err(Failure::mount(format!("iomap=require: {why}")).about(source)),
            Self::IfOffered => {
                say(&format!("{}: mounted without iomap: {why}", escaped(source.as_os_str())));
                Ok(())
            }
            Self::No => Ok(()),
        }
    }
}

/// A mount that is to be of this kind: its /dev/fuse is marked, the device stands.
#[derive(Debug)]
pub(crate) struct Prepared {
    device: LoopDevice,
}

impl Prepared {
    /// Before the mount is made: the kernel settles then whether the connection may use iomap. An error is the reason why it
    /// will not.
    pub(crate) fn make(fuse: BorrowedFd<'_>, source: &Source) -> Result<Self, String> {
        offered(fuse)?;
        let device = LoopDevice::over(source.as_fd(), source.range())?;
        ioctl::add_iomap(fuse).map_err(|errno| format!("the kernel refuses it: {}", words(errno)))?;
        Ok(Self { device })
    }

    /// After FUSE_INIT was answered: the number by which the connection knows the device. The kernel holds it from here on.
    pub(crate) fn register(self, fuse: BorrowedFd<'_>) -> Result<u32, String> {
        let cookie = ioctl::open_backing(fuse, self.device.as_fd())
            .map_err(|errno| format!("the kernel does not take the device: {}", words(errno)))?;
        if COOKIES.contains(&cookie) {
            return Ok(cookie);
        }
        Err(format!("the kernel gave the device an impossible number, {cookie}"))
    }
}

/// Whether this kernel offers iomap to this caller on this /dev/fuse; else why not.
fn offered(fuse: BorrowedFd<'_>) -> Result<(), String> {
    const FILES: u64 = 1;
    match ioctl::iomap_support(fuse) {
        Ok(flags) if flags & FILES != 0 => Ok(()),
        Ok(_) if is_switched_on() == Some(false) => {
            Err("this kernel has it switched off (fuse.enable_iomap)".to_owned())
        }
        Ok(_) if geteuid().is_root() => Err("this kernel does not grant it here (CAP_SYS_RAWIO)".to_owned()),
        Ok(_) => Err("it needs root".to_owned()),
        Err(Errno::NOTTY) => Err("this kernel does not have it".to_owned()),
        Err(errno) => Err(format!("this kernel cannot be asked: {}", words(errno))),
    }
}

/// The module's own switch, where the kernel has the series.
fn is_switched_on() -> Option<bool> {
    let told = std::fs::read_to_string("/sys/module/fuse/parameters/enable_iomap").ok()?;
    Some(matches!(told.trim(), "Y" | "y" | "1"))
}

/// Whether a mount can be had with it here; else why not. Nothing is changed.
pub(crate) fn available() -> Result<(), String> {
    let fuse = open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| format!("/dev/fuse: {}", words(errno)))?;
    offered(fuse.as_fd())?;
    match loop_device::missing() {
        _ if !geteuid().is_root() => Err("it needs root".to_owned()),
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Whether the kernel reads for a mount by mappings: it then writes pages by other rules, which have this name.
pub(crate) fn is_used(device: u32) -> bool {
    Path::new(&format!("/sys/class/bdi/{}:{}-fuse.iomap", device >> 20, device & 0xf_ffff)).exists()
}
