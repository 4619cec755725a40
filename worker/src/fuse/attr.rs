//! From an inode of the image to the attributes that the kernel shows, with the mount's own idea of owner and mode.

use crate::ext4::{FileKind, Inode, Timestamp};
use fuser::{FileAttr, FileType, INodeNo};
use lazaret_policy::message::Start;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the mount lays over every inode: `uid=`, `gid=`, `umask=`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
    umask: u16,
}

impl Owner {
    pub(super) fn of(start: &Start) -> Self {
        Self { uid: start.uid, gid: start.gid, umask: start.umask & 0o777 }
    }

    /// What `stat` shows of an inode. `block_size` is the file system's, in bytes.
    pub(super) fn attributes(&self, inode: &Inode, block_size: u32) -> FileAttr {
        FileAttr {
            ino: INodeNo(u64::from(inode.number.value())),
            size: inode.size,
            blocks: inode.shown_blocks(),
            atime: system_time(inode.atime),
            mtime: system_time(inode.mtime),
            ctime: system_time(inode.ctime),
            crtime: UNIX_EPOCH,
            kind: file_type(inode.kind),
            perm: inode.permissions & !self.umask,
            nlink: u32::from(inode.links),
            uid: self.uid.unwrap_or(inode.uid),
            gid: self.gid.unwrap_or(inode.gid),
            rdev: inode.rdev,
            blksize: block_size,
            flags: 0,
        }
    }
}

/// A stand-in for an inode that was not, or cannot be, read: its entry is listed, and whoever asks for more gets the rest,
/// or the error.
pub(super) fn blank(number: u32, kind: Option<FileKind>) -> FileAttr {
    FileAttr {
        ino: INodeNo(u64::from(number)),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind.map_or(FileType::RegularFile, file_type),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharacterDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(u64::from(time.nanoseconds)))).unwrap_or(UNIX_EPOCH)
}
