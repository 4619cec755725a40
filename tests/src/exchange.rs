//! Another medium in the same drive: a loop device that stands on another file from one moment to the next.
#![allow(unsafe_code, reason = "an ioctl that no library here has")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::Result;
use crate::block::LoopDevice;

/// `LOOP_CHANGE_FD`: for devices that are read-only, and files of the same length.
const LOOP_CHANGE_FD: libc::Ioctl = 0x4c06;

/// Lets the device stand on this file, whoever has it open.
pub fn exchange(device: &LoopDevice, image: &Path) -> Result {
    let (device, image) = (File::open(device.path())?, File::open(image)?);
    // SAFETY: the kernel takes two fds that are open, and keeps a file of its own of the second.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CHANGE_FD, image.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
