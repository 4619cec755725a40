//! Whether the medium of a mount is still in its device: pulled out, or taken out of a reader.
//!
//! What holds here: its place in sysfs is found at the start and held, so a device that has got the same number since is
//! not taken for it, and the device itself is not asked. A medium that has only become shorter is still there.

use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
use rustix::io::Errno;
use std::fmt::Display;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// The medium of a block device, seen from the side. A file has none.
#[derive(Debug)]
pub(crate) struct Medium {
    /// Only the place of its size: the file gives it once for each time it is opened.
    size: Option<OwnedFd>,
}

impl Medium {
    /// What there is of this source's, where sysfs is mounted.
    pub(crate) fn of(source: impl AsFd) -> Self {
        let device =
            fstat(source).ok().filter(|status| FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice);
        Self { size: device.and_then(|status| find(major(status.st_rdev), minor(status.st_rdev)).ok()) }
    }

    /// Whether it can be seen at all.
    pub(crate) fn is_seen(&self) -> bool {
        self.size.is_some()
    }

    /// Whether it was there and is not any more.
    pub(crate) fn is_gone(&self) -> bool {
        let Some(size) = &self.size else { return false };
        match std::fs::read_to_string(format!("/proc/self/fd/{}", size.as_raw_fd())) {
            Ok(text) => text.trim() == "0",
            Err(error) => {
                error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) || error.kind() == ErrorKind::NotFound
            }
        }
    }
}

/// The place of its size; of a partition that of its disk, since a partition that is in use keeps its own.
fn find(major: impl Display, minor: impl Display) -> Result<OwnedFd, Errno> {
    let place = format!("/sys/dev/block/{major}:{minor}");
    let disk = if Path::new(&place).join("partition").exists() { "/.." } else { "" };
    open(format!("{place}{disk}/size"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_has_no_medium_that_could_go() {
        let file = tempfile::tempfile().unwrap();
        let medium = Medium::of(&file);
        assert!(!medium.is_seen() && !medium.is_gone());
    }

    /// A compressed memory disk is added and removed by a line each, where the kernel has it and we are root.
    #[test]
    fn a_device_that_is_removed_is_gone_though_its_number_comes_again() {
        const CONTROL: &str = "/sys/class/zram-control";
        let Ok(number) = fs::read_to_string(format!("{CONTROL}/hot_add")) else {
            println!("skipped: no {CONTROL}, or not root");
            return;
        };
        let (number, place) = (number.trim().to_owned(), format!("/sys/block/zram{}", number.trim()));
        fs::write(format!("{place}/disksize"), "1M").unwrap();
        let dev = fs::read_to_string(format!("{place}/dev")).unwrap();
        let (major, minor) = dev.trim().split_once(':').unwrap();
        let medium = Medium { size: Some(find(major, minor).unwrap()) };
        let before = medium.is_gone();
        let removed = fs::write(format!("{CONTROL}/hot_remove"), &number);
        let after = medium.is_gone();
        removed.unwrap();
        assert!(!before && after);
    }
}
