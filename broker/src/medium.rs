//! Whether the medium of a mount is still in its device: pulled out, taken out of a reader, or exchanged for another there.
//!
//! What holds here: its place in sysfs is found at the start and held, so a device that has got the same number since is
//! not taken for it, and the device itself is not asked. A medium that has only become shorter is still there.

use crate::device::Source;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::fs::read_to_string;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// The medium of a block device, seen from the side. A file has none.
#[derive(Debug)]
pub(crate) struct Medium {
    /// Only the place of its size: the file gives it once for each time it is opened.
    size: Option<OwnedFd>,
    /// The place of its number, likewise, and which it was when the source was opened. Readers are asked every second or two,
    /// and a medium that was exchanged meanwhile is known by this alone.
    sequence: Option<(OwnedFd, u64)>,
}

impl Medium {
    /// What there is of this source's, where sysfs is mounted.
    pub(crate) fn of(source: &Source) -> Self {
        let place = |name| source.device().and_then(|number| find(number, name).ok());
        Self { size: place("size"), sequence: place("diskseq").zip(source.sequence()) }
    }

    /// Whether it can be seen at all.
    pub(crate) fn is_seen(&self) -> bool {
        self.size.is_some()
    }

    /// Whether it was there and is not any more.
    pub(crate) fn is_gone(&self) -> bool {
        let is_empty = |size: &OwnedFd| match text(size) {
            Ok(text) => text.trim() == "0",
            Err(error) => {
                error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) || error.kind() == ErrorKind::NotFound
            }
        };
        let is_another = |(now, then): &(OwnedFd, u64)| {
            text(now).is_ok_and(|text| text.trim().parse().is_ok_and(|number: u64| number != *then))
        };
        self.size.as_ref().is_some_and(is_empty) || self.sequence.as_ref().is_some_and(is_another)
    }
}

fn text(place: &OwnedFd) -> Result<String, Error> {
    read_to_string(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// The place of one of its values; of a partition that of its disk, since a partition that is in use keeps its size and has no
/// number.
fn find((major, minor): (u32, u32), name: &str) -> Result<OwnedFd, Errno> {
    let place = format!("/sys/dev/block/{major}:{minor}");
    let disk = if Path::new(&place).join("partition").exists() { "/.." } else { "" };
    open(format!("{place}{disk}/{name}"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_has_no_medium_that_could_go() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let medium = Medium::of(&Source::open(file.path()).unwrap());
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
        let pair = (major.parse().unwrap(), minor.parse().unwrap());
        let medium = Medium { size: Some(find(pair, "size").unwrap()), sequence: None };
        let before = medium.is_gone();
        let removed = fs::write(format!("{CONTROL}/hot_remove"), &number);
        let after = medium.is_gone();
        removed.unwrap();
        assert!(!before && after);
    }
}
