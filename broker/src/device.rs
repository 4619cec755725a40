//! The source: an image file or a block device, opened for reading and claimed.
//!
//! What holds here: the broker learns what kind of file it is and how long, and never reads a byte of it; there is no
//! fd that could write; nothing but a regular file or a block device is opened at all.

use crate::exit::{Code, Failure, refused, words};
use lazaret_policy::message::Range;
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, fstat, ioctl_blksszget, major, minor, open, seek};
use rustix::io::Errno;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long another may still have a device that he has let go of.
const MOMENT: Duration = Duration::from_millis(500);

/// A source that is ours to read. For a block device the claim is exclusive: nobody mounts it while this lives.
///
/// It outlives the worker: whoever closes a stalled block device last has to wait for it.
#[derive(Debug)]
pub(crate) struct Source {
    fd: OwnedFd,
    length: u64,
    range: Range,
    sector: Option<u32>,
    device: Option<(u32, u32)>,
    sequence: Option<u64>,
    path: PathBuf,
}

impl Source {
    /// Opens and claims it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Self::open_file(path, true).map_err(|failure| failure.about(path))
    }

    /// Opens a block device that the kernel is to claim for the mount: it refuses what we have claimed ourselves.
    pub(crate) fn open_for_kernel(path: &Path) -> Result<Self, Failure> {
        let opened = Self::open_file(path, false).and_then(|source| match source.device {
            Some(_) => Ok(source),
            None => Err(Failure::mount("is not a block device, which 'blkdev' and 'uhelper=udisks2' need")),
        });
        opened.map_err(|failure| failure.about(path))
    }

    fn open_file(path: &Path, claim: bool) -> Result<Self, Failure> {
        // First without opening what it leads to: opening a FIFO waits, and opening a tape rewinds it.
        let place =
            open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| unopened(errno, false))?;
        let status = fstat(&place).map_err(|errno| unopened(errno, false))?;
        let kind = FileType::from_raw_mode(status.st_mode);
        if let Some(what) = other_kind(kind) {
            return Err(Failure::mount(format!("is {what}, not an image file or a block device")));
        }
        // On a block device O_EXCL without O_CREAT is the claim; on a file it says nothing.
        let link = format!("/proc/self/fd/{}", place.as_raw_fd());
        let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        flags.set(OFlags::EXCL, claim);
        let fd = claimed(|| open(&link, flags, Mode::empty()))
            .map_err(|errno| unopened(errno, kind == FileType::BlockDevice))?;
        let length = match kind {
            FileType::BlockDevice => seek(&fd, SeekFrom::End(0)),
            _ => fstat(&fd).map(|status| u64::try_from(status.st_size).unwrap_or(0)),
        };
        match length.map_err(|errno| unopened(errno, false))? {
            0 => Err(Failure::mount("is empty")),
            length => {
                let range = Range { offset: 0, length };
                let sector = ioctl_blksszget(&fd).ok().filter(|sector| [512, 4096].contains(sector));
                let device = (kind == FileType::BlockDevice).then(|| (major(status.st_rdev), minor(status.st_rdev)));
                Ok(Self {
                    fd,
                    length,
                    range,
                    sector,
                    device,
                    sequence: device.and_then(sequence),
                    path: fs::canonicalize(path).unwrap_or_else(|_| path.into()),
                })
            }
        }
    }

    /// The same under another name.
    #[must_use]
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.path = name.into();
        self
    }

    /// The range that is the file system: all of it, until it is limited.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Range {
        Range { offset: 0, length: self.length }
    }

    /// Bytes of a sector, where the host knows them.
    pub(crate) fn sector(&self) -> Option<u32> {
        self.sector
    }

    /// Major and minor number of a block device.
    pub(crate) fn device(&self) -> Option<(u32, u32)> {
        self.device
    }

    /// The number of its medium when it was opened, where the kernel (5.15) tells.
    pub(crate) fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Whether a block device still is the one that was opened: its number may be given to another, and another medium may
    /// have come into the same drive.
    pub(crate) fn check_same(&self) -> Result<(), Failure> {
        let Some(device) = self.device else { return Ok(()) };
        let number = fstat(&self.fd).map(|status| (major(status.st_rdev), minor(status.st_rdev)));
        if number == Ok(device) && sequence(device) == self.sequence {
            return Ok(());
        }
        Err(Failure::mount("was exchanged for another medium meanwhile").about(&self.path))
    }

    /// Bytes of a block in which the kernel caches the device: as many as it has chosen when the device was opened, so that
    /// nothing that is cached has to go.
    pub(crate) fn block(&self) -> u64 {
        let sector = self.sector.map_or(512, u64::from);
        (1 << self.length.trailing_zeros().min(12)).max(sector)
    }

    /// From now on this is the file system: the part of the range that the source has.
    pub(crate) fn limit(&mut self, range: Range) -> Result<(), Failure> {
        let length = self.length.saturating_sub(range.offset).min(range.length);
        if length == 0 {
            return Err(Failure::mount("the partition lies outside"));
        }
        self.range = Range { length, ..range };
        Ok(())
    }

    /// Its path from the root, as a mount table shows it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What is unmounted belongs to its broker for a moment more, and to the next mount then.
fn claimed(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let start = Instant::now();
    loop {
        match open() {
            Err(Errno::BUSY) if start.elapsed() < MOMENT => sleep(Duration::from_millis(5)),
            opened => return opened,
        }
    }
}

/// The number of a medium, which no other gets until the next boot (`BLKGETDISKSEQ`; Linux 5.15). A partition has that of
/// its disk.
fn sequence((major, minor): (u32, u32)) -> Option<u64> {
    let place = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    ["diskseq", "../diskseq"]
        .into_iter()
        .find_map(|name| fs::read_to_string(place.join(name)).ok()?.trim().parse().ok())
}

/// What it is if it can be no source.
fn other_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::BlockDevice => None,
        FileType::Directory => Some("a directory"),
        FileType::CharacterDevice => Some("a character device"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        _ => Some("a special file"),
    }
}

/// Another has claimed the device.
pub(crate) fn in_use() -> Failure {
    Failure::mount("is in use: mounted, or claimed by another program")
}

fn unopened(errno: Errno, device: bool) -> Failure {
    match errno {
        Errno::BUSY if device => in_use(),
        Errno::NXIO | Errno::NODEV | Errno::NOMEDIUM => Failure::mount("the device is not there, or has no medium"),
        _ if refused(errno) => Failure::new(Code::System, format!("cannot be opened for reading: {}", words(errno))),
        _ => Failure::mount(words(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(path: &Path) -> String {
        Source::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_opened_with_its_length_and_cannot_be_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(reason(file.path()).ends_with(": is empty"));
        file.as_file().set_len(4096).unwrap();
        let mut source = Source::open(file.path()).unwrap();
        assert_eq!(source.range(), Range { offset: 0, length: 4096 });
        assert_eq!((source.sector(), source.device(), source.block()), (None, None, 4096));
        assert!(Source::open_for_kernel(file.path()).unwrap_err().to_string().contains("is not a block device"));
        assert_eq!(rustix::io::write(&source, b"x"), Err(Errno::BADF));
        let limits = [(512, 512, Some(512)), (512, 9000, Some(3584)), (1, u64::MAX, Some(4095)), (4096, 1, None)];
        for (offset, length, expected) in limits {
            let limited = source.limit(Range { offset, length }).map(|()| source.range());
            assert_eq!(limited.ok(), expected.map(|length| Range { offset, length }));
        }
        assert!(source.limit(Range { offset: u64::MAX, length: u64::MAX }).is_err());
        assert_eq!(source.whole(), Range { offset: 0, length: 4096 });
        assert!(source.check_same().is_ok());
    }

    #[test]
    fn what_is_no_source_is_named_and_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        assert!(reason(place.path()).contains("is a directory"));
        let fifo = place.path().join("fifo");
        let made = rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0);
        assert!(made.is_err() || reason(&fifo).contains("is a FIFO"));
        let socket = place.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(reason(&socket).contains("is a socket"));
        assert!(reason(Path::new("/dev/null")).contains("is a character device"));
        assert!(reason(&place.path().join("none")).ends_with("no such file or directory"));
    }
}
