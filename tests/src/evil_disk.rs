//! A disk that misbehaves as it is told: one file served over FUSE, whose bytes are those of an image but for a range
//! that fails. As a file it is a source, and a loop device over it is a block device that fails in the same way.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};
use rustix::mount::{UnmountFlags, unmount};

use crate::Result;
use crate::mutate::random::Random;

const NAME: &str = "disk.img";
const DISK: INodeNo = INodeNo(2);
const ATTRIBUTES: Duration = Duration::from_secs(3600);

/// What happens to a read that touches the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered as it should be.
    None,
    /// EIO.
    Error,
    /// EIO the first time, then nothing more.
    ErrorOnce,
    /// ENODEV, as from a device that was pulled out.
    Gone,
    /// Other bytes each time.
    Noise,
    /// Zeros, as if nothing were wrong.
    Zeros,
    /// The bytes before the range and a page more, as if the file ended there.
    Short,
    /// No answer until the fault is over.
    Stall,
}

struct Script {
    fault: Fault,
    range: Range<u64>,
    length: u64,
    random: Random,
    stalled: Vec<(u64, u32, ReplyData)>,
    faults: u64,
}

struct Disk {
    image: File,
    script: Mutex<Script>,
}

/// Serves the file for as long as it lives.
pub struct EvilDisk {
    disk: Arc<Disk>,
    directory: PathBuf,
    session: Option<BackgroundSession>,
}

struct Served(Arc<Disk>);

impl EvilDisk {
    /// The image under another name, without a fault yet.
    pub fn over(image: &Path, directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let image = File::open(image)?;
        let length = image.metadata()?.len();
        let script =
            Script { fault: Fault::None, range: 0..0, length, random: Random::new(7), stalled: vec![], faults: 0 };
        let disk = Arc::new(Disk { image, script: Mutex::new(script) });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("evil-disk".to_owned()), MountOption::RO];
        config.acl = SessionACL::Owner;
        let session = Session::new(Served(disk.clone()), directory, &config)?.spawn()?;
        Ok(Self { disk, directory: directory.to_owned(), session: Some(session) })
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// From now on reads that touch the range end so. What the kernel has kept of it is forgotten; what has stalled is
    /// answered as it should have been.
    pub fn fault(&self, fault: Fault, range: Range<u64>) -> Result {
        let mut script = self.disk.script();
        (script.fault, script.range) = (fault, range);
        let stalled = std::mem::take(&mut script.stalled);
        drop(script);
        stalled.into_iter().for_each(|(offset, size, reply)| self.disk.read(offset, size, reply));
        self.forget()
    }

    /// From now on the file is this long.
    pub fn resize(&self, length: u64) -> Result {
        self.disk.script().length = length;
        self.forget()?;
        // The kernel learns of it by asking.
        assert_eq!(std::fs::metadata(self.path())?.len(), length);
        Ok(())
    }

    /// How many reads have met a fault.
    pub fn faults(&self) -> u64 {
        self.disk.script().faults
    }

    fn forget(&self) -> Result {
        let session = self.session.as_ref().ok_or("it is served")?;
        match session.notifier().inval_inode(DISK, 0, 0) {
            // The kernel does not know the file yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            told => Ok(told?),
        }
    }
}

impl Drop for EvilDisk {
    fn drop(&mut self) {
        // Nobody is left waiting, and a mount that is in use is taken away all the same.
        let _ = self.fault(Fault::None, 0..0);
        let _ = unmount(&self.directory, UnmountFlags::DETACH);
        drop(self.session.take());
    }
}

impl Disk {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no holder panics")
    }

    fn attributes(&self, node: INodeNo) -> FileAttr {
        let (kind, perm, size) = match node {
            DISK => (FileType::RegularFile, 0o600, self.script().length),
            _ => (FileType::Directory, 0o700, 0),
        };
        let (time, blksize) = (UNIX_EPOCH, 4096);
        let (ino, blocks, nlink, uid, gid, rdev, flags) = (node, size.div_ceil(512), 1, 0, 0, 0, 0);
        let (atime, mtime, ctime, crtime) = (time, time, time, time);
        FileAttr { ino, size, blocks, atime, mtime, ctime, crtime, kind, perm, nlink, uid, gid, rdev, blksize, flags }
    }

    fn read(&self, offset: u64, size: u32, reply: ReplyData) {
        let mut script = self.script();
        let end = (offset + u64::from(size)).min(script.length);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(0)];
        if self.image.read_exact_at(&mut bytes, offset).is_err() {
            return reply.error(Errno::EIO);
        }
        let touched = offset < script.range.end && script.range.start < end;
        let fault = if touched { script.fault } else { Fault::None };
        script.faults += u64::from(fault != Fault::None);
        match fault {
            Fault::None => reply.data(&bytes),
            Fault::Error => reply.error(Errno::EIO),
            Fault::ErrorOnce => {
                script.fault = Fault::None;
                reply.error(Errno::EIO);
            }
            Fault::Gone => reply.error(Errno::ENODEV),
            Fault::Noise => {
                let range = script.range.clone();
                for (place, byte) in (offset..).zip(&mut bytes).filter(|(place, _)| range.contains(place)) {
                    *byte = (script.random.below(256) as u8).wrapping_add(place as u8);
                }
                reply.data(&bytes);
            }
            Fault::Zeros => {
                let hit = (offset..).zip(&mut bytes).filter(|(place, _)| script.range.contains(place));
                hit.for_each(|(_, byte)| *byte = 0);
                reply.data(&bytes);
            }
            Fault::Short => {
                let rest = script.range.start.max(offset).saturating_add(4096).saturating_sub(offset);
                bytes.truncate(usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len()));
                reply.data(&bytes);
            }
            Fault::Stall => script.stalled.push((offset, size, reply)),
        }
    }
}

impl fuser::Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &std::ffi::OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&ATTRIBUTES, &self.0.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&ATTRIBUTES, &self.0.attributes(node));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.0.read(offset, size, reply);
    }
}
