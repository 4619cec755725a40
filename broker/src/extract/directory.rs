//! Files into a directory of the host.
//!
//! What holds here: the target is opened once and everything is made beneath it, name by name; no link is followed, whoever
//! put it there; nothing that exists is overwritten. A file has another name, which ends in `.partial`, until it is
//! complete with its time, so that one of its own name, length and time is complete. A directory gets its permissions and
//! its time when all that lies in it is there.

use super::dress;
use super::{Content, Destination, Facts, Place, Report, Siblings, damaged};
use crate::escape::escaped;
use crate::exit::{Failure, words};
use crate::gather::reason;
use crate::text;
use lazaret_policy::message::Attributes;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, chmod, fstat, ftruncate, linkat, mkdirat,
    mknodat, openat2, readlinkat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the name of a file ends in that is not complete.
const PARTIAL: &str = ".partial";
/// How often another name is tried for a file that is not complete.
const NAMES: u32 = 100;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 255;

/// Nothing on the way to a name is a link, and it leads nowhere above.
pub(super) const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A directory that is being filled.
pub(crate) struct Directory {
    path: PathBuf,
    root: OwnedFd,
    /// It was made now.
    made: bool,
    goes_on: bool,
    /// Directories from the root down to where things are made.
    levels: Vec<Level>,
    /// Whether anything was made.
    begun: bool,
}

struct Level {
    place: Place,
    fd: OwnedFd,
    facts: Facts,
}

impl Directory {
    /// Opens the target, or makes it. It has to be empty, unless `goes_on` says that what is complete there was extracted
    /// before.
    pub(crate) fn open(path: &Path, goes_on: bool) -> Result<Self, Failure> {
        let unopened = |errno: Errno| Failure::system(words(errno)).about(path);
        // What is made gets its permissions explicitly.
        rustix::process::umask(Mode::empty());
        let made = match mkdirat(rustix::fs::CWD, path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(unopened(errno)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(unopened)?;
        if !made && !goes_on && !is_empty(&root).map_err(unopened)? {
            let reason = "is not empty; nothing is overwritten, and --continue adds what is missing";
            return Err(Failure::system(reason).about(path));
        }
        Ok(Self { path: path.to_owned(), root, made, goes_on, levels: vec![], begun: false })
    }

    /// Where things are made now.
    fn here(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or(self.root.as_fd(), |level| level.fd.as_fd())
    }

    /// The directory that was entered for this place, or the same found again from the root, name by name.
    fn directory_of(&self, place: Option<&Place>) -> Result<OwnedFd, Errno> {
        let Some(place) = place else {
            return self.root.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        };
        if let Some(level) = self.levels.iter().find(|level| level.place.is(place)) {
            return rustix::io::fcntl_dupfd_cloexec(&level.fd, 0);
        }
        let mut fd = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
        for name in place.names() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fd = openat2(&fd, &*name, flags, Mode::empty(), BENEATH)?;
        }
        Ok(fd)
    }

    /// Opens a directory that is there, also one that its owner may not enter for now.
    fn open_directory(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.goes_on {
            let place = openat2(self.here(), name, flags | OFlags::PATH, Mode::empty(), BENEATH)?;
            let mode = Mode::from_raw_mode(fstat(&place)?.st_mode);
            if !mode.contains(Mode::RWXU) {
                chmod(dress::by_fd(&place), mode | Mode::RWXU)?;
            }
        }
        openat2(self.here(), name, flags | OFlags::RDONLY, Mode::empty(), BENEATH)
    }

    /// A new file under a name that tells it is not complete, and that nothing else in its directory has.
    fn create(&self, name: &[u8], siblings: &Siblings) -> Result<(File, Vec<u8>), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 1..=NAMES {
            let partial = partial_name(name, number);
            if siblings.contains(&partial[..]) {
                continue;
            }
            let mode = Mode::RUSR | Mode::WUSR;
            let mut opened = openat2(self.here(), &*partial, flags, mode, BENEATH);
            let there = opened.as_ref().err() == Some(&Errno::EXIST);
            if there && self.goes_on && self.kind(&partial) == Ok(FileType::RegularFile) {
                // It has no name of the image: it is what an earlier extraction did not complete.
                unlinkat(self.here(), &*partial, AtFlags::empty()).map_err(refused)?;
                opened = openat2(self.here(), &*partial, flags, mode, BENEATH);
            }
            match opened {
                Ok(fd) => return Ok((fd.into(), partial)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
        Err(Failure::system(format!("no name that ends in {PARTIAL} is free for it")).local())
    }

    fn kind(&self, name: &[u8]) -> Result<FileType, Errno> {
        Ok(FileType::from_raw_mode(statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
    }

    /// Gives a file its name. What has the name stays.
    fn complete(&self, partial: &[u8], name: &[u8]) -> Result<(), Errno> {
        let here = self.here();
        match renameat_with(here, partial, here, name, RenameFlags::NOREPLACE) {
            // Not every file system can; each can refuse a second link of one name.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(here, partial, here, name, AtFlags::empty())?;
                unlinkat(here, partial, AtFlags::empty())
            }
            other => other,
        }
    }

    /// Writes a file to its end. How much of it could be read if that is not all.
    fn write(file: &File, content: &mut Content<'_, '_>, report: &mut Report<'_>) -> Result<(), Failure> {
        let mut reached = 0;
        while let Some(data) = content.next(report)? {
            for (offset, bytes) in data {
                file.write_all_at(&bytes, offset)
                    .map_err(|error| refused(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
                reached = offset + bytes.len() as u64;
            }
        }
        if content.damage().is_none() {
            content.count_holes()?;
            if reached < content.length() {
                ftruncate(file, content.length()).map_err(refused)?;
            }
        }
        Ok(())
    }
}

impl Destination for Directory {
    fn enter(&mut self, place: &Place, facts: &Facts) -> Result<(), Failure> {
        self.begun = true;
        let fd = if place.parent.is_none() {
            rustix::io::fcntl_dupfd_cloexec(&self.root, 0).map_err(refused)?
        } else {
            match mkdirat(self.here(), &*place.name, Mode::RWXU) {
                Err(Errno::EXIST) if self.goes_on => {}
                made => made.map_err(refused)?,
            }
            self.open_directory(&place.name).map_err(|errno| match errno {
                Errno::NOTDIR | Errno::LOOP => {
                    Failure::system("exists already in the target, and is no directory: what lies in it is left out")
                        .local()
                }
                errno => refused(errno),
            })?
        };
        let Facts { attributes, mode, owner, ref xattrs } = *facts;
        let facts = Facts { attributes, mode, owner, xattrs: xattrs.clone() };
        self.levels.push(Level { place: place.clone(), fd, facts });
        Ok(())
    }

    fn leave(&mut self, report: &mut Report<'_>) -> Result<(), Failure> {
        match self.levels.pop() {
            Some(level) if level.place.parent.is_some() || self.made || self.goes_on => {
                dress::open(level.fd.as_fd(), &level.facts, report)
            }
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        place: &Place,
        facts: &Facts,
        siblings: &Siblings,
        content: &mut Content<'_, '_>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        self.begun = true;
        if self.kind(&place.name).is_ok() {
            return Err(refused(Errno::EXIST));
        }
        let (file, partial) = self.create(&place.name, siblings)?;
        let written = Self::write(&file, content, report);
        let kept = escaped(OsStr::from_bytes(&partial)).to_string();
        if let Err(failure) = written {
            return Err(failure.adding(&format!("; what was extracted of it is {kept}")));
        }
        match content.damage() {
            Some((errno, 0)) => {
                unlinkat(self.here(), &*partial, AtFlags::empty()).map_err(refused)?;
                Err(damaged(&reason(errno)))
            }
            Some((errno, reached)) => {
                let (reason, good) = (reason(errno), text::size(reached));
                Err(damaged(&format!("{reason}; the first {good}, which can be read, are in {kept}")))
            }
            None => {
                dress::open(file.as_fd(), facts, report)?;
                self.complete(&partial, &place.name).map_err(refused)
            }
        }
    }

    fn link(&mut self, place: &Place, facts: &Facts, target: &[u8], report: &mut Report<'_>) -> Result<(), Failure> {
        symlinkat(target, self.here(), &*place.name).map_err(refused)?;
        dress::named(self.here(), &place.name, facts, report)
    }

    fn hard_link(&mut self, place: &Place, first: &Place) -> Result<(), Failure> {
        let from = self.directory_of(first.parent.as_ref()).map_err(refused)?;
        let linked = linkat(&from, &*first.name, self.here(), &*place.name, AtFlags::empty());
        let same = || -> Result<bool, Errno> {
            let [one, other] = [(from.as_fd(), &first.name), (self.here(), &place.name)]
                .map(|(directory, name)| statat(directory, &**name, AtFlags::SYMLINK_NOFOLLOW));
            let (one, other) = (one?, other?);
            Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
        };
        match linked {
            Err(Errno::EXIST) if self.goes_on && same() == Ok(true) => Ok(()),
            linked => linked.map_err(refused),
        }
    }

    fn special(&mut self, place: &Place, facts: &Facts, report: &mut Report<'_>) -> Result<(), Failure> {
        let kind = FileType::from_raw_mode(facts.attributes.mode.into());
        let (major, minor) = text::device(&facts.attributes).unwrap_or_default();
        let device = rustix::fs::makedev(major, minor);
        mknodat(self.here(), &*place.name, kind, Mode::RUSR | Mode::WUSR, device).map_err(refused)?;
        dress::named(self.here(), &place.name, facts, report)
    }

    fn has(&mut self, place: &Place, attributes: &Attributes) -> bool {
        let Ok(status) = statat(self.here(), &*place.name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        if status.st_mode & libc::S_IFMT != u32::from(attributes.mode) & libc::S_IFMT {
            return false;
        }
        // Not every file system keeps the whole of a time.
        let nanoseconds = [u64::from(attributes.mtime.nanoseconds), 0];
        let untouched = status.st_mtime == attributes.mtime.seconds && nanoseconds.contains(&status.st_mtime_nsec);
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => false,
            FileType::RegularFile => untouched && u64::try_from(status.st_size) == Ok(attributes.size),
            FileType::Symlink => {
                let target = readlinkat(self.here(), &*place.name, vec![]);
                untouched && target.is_ok_and(|target| target.as_bytes().len() as u64 == attributes.size)
            }
            _ => untouched,
        }
    }

    fn may_have(&self) -> bool {
        self.goes_on
    }

    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn abandon(&mut self) -> Option<String> {
        if !self.begun && self.made {
            let _ = rustix::fs::rmdir(&self.path);
        }
        self.begun.then(|| format!("{} is not complete; --continue goes on with it", escaped(&self.path)))
    }
}

/// `NAME.partial`, shortened where it would be too long, and with a number from the second on.
fn partial_name(name: &[u8], number: u32) -> Vec<u8> {
    let ending = if number == 1 { PARTIAL.to_owned() } else { format!("{PARTIAL}-{number}") };
    let room = LONGEST_NAME - ending.len();
    [&name[..name.len().min(room)], ending.as_bytes()].concat()
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut space);
    while let Some(entry) = entries.next() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the host refuses for one object; or for all that would come, and then it is the end.
pub(super) fn refused(errno: Errno) -> Failure {
    let reason = match errno {
        Errno::EXIST => "exists already in the target, and is left as it is".to_owned(),
        Errno::LOOP | Errno::XDEV => "a link stands in the target on the way to it, and is not followed".to_owned(),
        Errno::NOSYS => "this kernel has no openat2, by which links are not followed".to_owned(),
        errno => format!("cannot be written: {}", words(errno)),
    };
    let failure = Failure::system(reason);
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO | Errno::NOSYS | Errno::MFILE | Errno::NFILE => failure,
        _ => failure.local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_complete_has_a_name_of_its_own() {
        assert_eq!(partial_name(b"a", 1), b"a.partial");
        assert_eq!(partial_name(b"a", 2), b"a.partial-2");
        assert_eq!(partial_name(&[b'x'; 255], 12).len(), 255);
    }

    #[test]
    fn a_target_has_to_be_empty() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new");
        assert!(Directory::open(&path, false).is_ok());
        assert!(Directory::open(&path, false).is_ok());
        std::fs::write(path.join("file"), "").unwrap();
        let failure = Directory::open(&path, false).err().unwrap();
        assert!(failure.to_string().contains("is not empty"), "{failure}");
        assert!(Directory::open(&path, true).is_ok());
        assert!(Directory::open(&path.join("file"), true).is_err());
    }
}
