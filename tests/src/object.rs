//! One object of a mounted file system, and all that can be asked of it.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, StatxFlags, fgetxattr, flistxattr, openat, seek, statat, statx,
};
use rustix::io::Errno;

/// A name in a directory: the name's bytes, the inode it names, the type the entry gives.
pub type Listed = (Vec<u8>, u64, FileType);

/// Named numbers of an object.
pub type Facts = Vec<(&'static str, i128)>;

/// Everything that `stat` says of `name` below `directory`, but the device; an empty name is the directory itself.
pub fn attributes(directory: impl AsFd, name: &CStr) -> Result<Facts, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let stat = statat(directory, name, flags)?;
    let time = |seconds: i64, nanoseconds: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    Ok(vec![
        ("inode number", stat.st_ino.into()),
        ("mode", stat.st_mode.into()),
        ("links", stat.st_nlink.into()),
        ("owner", stat.st_uid.into()),
        ("group", stat.st_gid.into()),
        ("device number", stat.st_rdev.into()),
        ("size", stat.st_size.into()),
        ("block size", stat.st_blksize.into()),
        ("blocks of 512 bytes", stat.st_blocks.into()),
        ("atime in ns", time(stat.st_atime, stat.st_atime_nsec)),
        ("mtime in ns", time(stat.st_mtime, stat.st_mtime_nsec)),
        ("ctime in ns", time(stat.st_ctime, stat.st_ctime_nsec)),
    ])
}

/// When the object was made, in ns; `None` where the file system does not say.
pub fn birth(directory: impl AsFd, name: &CStr) -> Result<Option<i128>, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let statx = statx(directory, name, flags, StatxFlags::BTIME)?;
    let given = StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::BTIME);
    let time = statx.stx_btime;
    Ok(given.then(|| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)))
}

/// The extended attributes of an open object, sorted by name, with their values.
pub fn extended_attributes(object: impl AsFd) -> Result<Vec<(String, Vec<u8>)>, Errno> {
    let mut names = vec![0; 65_536];
    let length = flistxattr(&object, &mut names[..])?;
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let length = fgetxattr(&object, name, &mut value[..])?;
        value.truncate(length);
        found.push((name.escape_ascii().to_string(), value));
    }
    found.sort();
    Ok(found)
}

/// What `statfs` says, but the type and the id, which belong to the one who mounted.
pub fn file_system(root: impl AsFd) -> Result<Facts, Errno> {
    let statfs = rustix::fs::fstatfs(root)?;
    Ok(vec![
        ("statfs block size", statfs.f_bsize.into()),
        ("statfs blocks", statfs.f_blocks.into()),
        ("statfs free blocks", statfs.f_bfree.into()),
        ("statfs available blocks", statfs.f_bavail.into()),
        ("statfs inodes", statfs.f_files.into()),
        ("statfs free inodes", statfs.f_ffree.into()),
        ("statfs longest name", statfs.f_namelen.into()),
        ("statfs fragment size", statfs.f_frsize.into()),
        ("statfs mount flags", statfs.f_flags.into()),
    ])
}

/// Opens a file or a directory for reading; never follows a link, never waits for a FIFO.
pub fn open(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// Every entry of a directory, sorted by name; `.` and `..` too. An entry may leave its type open: then it is asked for.
pub fn list(directory: impl AsFd) -> Result<Vec<Listed>, Errno> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        entries.push((entry.file_name().to_bytes().to_vec(), entry.ino(), kind));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// The runs of a file that hold data, from its first byte to its last, as SEEK_DATA and SEEK_HOLE tell.
///
/// To be asked before the file is read: what was read lies in the page cache, and there unwritten space counts as data.
pub fn data_runs(file: impl AsFd) -> Result<Vec<(u64, u64)>, Errno> {
    let mut runs = Vec::new();
    let mut at = 0;
    while runs.len() < MOST_RUNS {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = seek(&file, SeekFrom::Hole(start))?;
        if start < at || end <= start {
            return Err(Errno::RANGE);
        }
        runs.push((start, end));
        at = end;
    }
    Ok(runs)
}

/// The most runs that are looked at in one file.
const MOST_RUNS: usize = 100_000;

/// Files up to this length are read whole, longer ones where they hold data and around it, and here and there.
const WHOLE: u64 = 256 << 20;

/// The ranges of a file to read: its runs of data come from [`data_runs`].
pub fn ranges_to_read(size: u64, runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    if size <= WHOLE {
        return vec![(0, size)];
    }
    let around = |(start, end): &(u64, u64)| (start.saturating_sub(65_536), (end + 65_536).min(size));
    let here_and_there = (0..64).map(|part| (size / 64 * part, (size / 64 * part + 5000).min(size)));
    runs.iter().map(around).chain(here_and_there).collect()
}

/// Fills as much of `buffer` as the file has from `offset` on; says how much that was.
pub fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(filled)
}
