//! Where a stick is mounted: a directory whose name is made of the stick's label, in a directory of the user's.
//!
//! What holds here: a label names one plain directory and nothing else. Only root can write to the directory above, so
//! nobody changes the way to a mountpoint; what was made here bears a mark, and nothing else is taken or removed. No
//! directory that carries a mount is looked into.

use super::users::User;
use crate::escape::acts;
use crate::exit::{Failure, words};
use crate::mountinfo;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, XattrFlags, fchmod, fchown, fgetxattr, fsetxattr, fstat, mkdirat, open, openat,
    unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest name, in letters; a letter has up to four bytes, and a name 255.
const LETTERS: usize = 48;
/// So many sticks of one name are told apart.
const NAMESAKES: u32 = 100;
/// The mark of a directory that was made here. None but root sees or sets an attribute of this kind.
const MARK: &str = "trusted.lazaret.place";

/// A text from a stick as the name of a directory, if there is anything left of it.
pub(super) fn safe(text: &OsStr) -> Option<String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || " ._-+,@=()".contains(letter);
    let fit = |letter: char| {
        plain(letter) || !letter.is_ascii() && !letter.is_control() && !acts(letter) && letter != '\u{fffd}'
    };
    let text = String::from_utf8_lossy(text.as_bytes());
    let letters = text.trim().chars().map(|letter| if fit(letter) { letter } else { '_' }).take(LETTERS);
    let mut name: String = letters.collect::<String>().trim().to_owned();
    // Neither hidden, nor `.` or `..`, nor an option to a command.
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    name.contains(|letter: char| letter != '_' && letter != ' ').then_some(name)
}

/// Makes the directory for a mount, this one or one with a number behind its name. `taken` are those that are to be mounted
/// on.
pub(super) fn make(wish: &Path, user: &User, taken: &BTreeSet<PathBuf>) -> Result<PathBuf, Failure> {
    let (Some(directory), Some(wish)) = (wish.parent(), wish.file_name().and_then(OsStr::to_str)) else {
        return Err(Failure::system("is no place to mount at").about(wish));
    };
    let failed = |errno: Errno| Failure::system(format!("no directory can be made: {}", words(errno))).about(directory);
    let above = users_own(directory, user)?;
    for number in 1..=NAMESAKES {
        let name = if number == 1 { wish.to_owned() } else { format!("{wish}-{number}") };
        let path = directory.join(&name);
        match mkdirat(&above, &name, Mode::RWXU) {
            Ok(()) => mark(open_below(&above, &name).map_err(failed)?.as_fd()),
            Err(Errno::EXIST) if taken.contains(&path) || is_mounted(&path) => continue,
            // One that was left when this program or the machine was struck.
            Err(Errno::EXIST) if open_below(&above, &name).is_ok_and(|found| is_marked(found.as_fd())) => {}
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(failed(errno)),
        }
        return Ok(path);
    }
    Err(Failure::mount(format!("{NAMESAKES} of this name are there already")).about(directory.join(wish)))
}

/// The directory in which a user's sticks are mounted: root's, and the user's group may pass through it.
fn users_own(directory: &Path, user: &User) -> Result<OwnedFd, Failure> {
    let failed = |errno: Errno| Failure::system(words(errno)).about(directory);
    let wrong = |what: &str| Err(Failure::system(what).about(directory));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (parent, name) = (directory.parent().unwrap_or(Path::new("/")), directory.file_name().unwrap_or_default());
    fs::create_dir_all(parent).map_err(|error| Failure::system(words(error)).about(parent))?;
    let above = open(parent, flags & !OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    let fresh = match mkdirat(&above, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(failed(errno)),
    };
    let own = openat(&above, name, flags, Mode::empty()).map_err(failed)?;
    if fresh {
        mark(own.as_fd());
        fchown(&own, None::<Uid>, Some(Gid::from_raw(user.gid))).map_err(failed)?;
        fchmod(&own, Mode::RWXU | Mode::RGRP | Mode::XGRP).map_err(failed)?;
    }
    for place in [&above, &own] {
        let status = fstat(place).map_err(failed)?;
        let others_write = status.st_mode & 0o022 != 0 && status.st_mode & 0o1000 == 0;
        if status.st_uid != 0 || others_write {
            return wrong("is not root's alone, so nothing is mounted in it");
        }
    }
    Ok(own)
}

fn open_below(above: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty())
}

/// Where the file system has no room for a mark, what was made is not taken again, and not removed after a restart.
fn mark(directory: std::os::fd::BorrowedFd<'_>) {
    let _ = fsetxattr(directory, MARK, b"1", XattrFlags::empty());
}

fn is_marked(directory: std::os::fd::BorrowedFd<'_>) -> bool {
    fgetxattr(directory, MARK, &mut [0_u8; 8][..]).is_ok()
}

fn is_mounted(path: &Path) -> bool {
    // Where that cannot be known it is left alone.
    mountinfo::at(path).map_or(true, |line| line.is_some())
}

/// Removes a directory that was made here and carries nothing any more, and the one above it.
pub(super) fn remove(path: &Path) {
    for path in [Some(path), path.parent()].into_iter().flatten() {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(above) = open(parent, flags, Mode::empty()) else { return };
        if is_mounted(path) {
            return;
        }
        let found = openat(&above, name, flags | OFlags::NOFOLLOW, Mode::empty());
        if !found.is_ok_and(|found| is_marked(found.as_fd())) || unlinkat(&above, name, AtFlags::REMOVEDIR).is_err() {
            return;
        }
    }
}

/// Removes what was left in the places of a policy: directories that were made here and that nothing is or will be
/// mounted on.
pub(super) fn tidy(places: &[String], taken: &BTreeSet<PathBuf>) {
    for directory in places.iter().flat_map(|place| each_user(place)) {
        let entries = directories(&directory);
        if entries.is_empty() {
            remove(&directory);
        }
        entries.iter().filter(|path| !taken.contains(*path)).for_each(|path| remove(path));
    }
}

/// Every directory that there may be for a place with `%u` in it.
fn each_user(place: &str) -> Vec<PathBuf> {
    let Some((before, _)) = place.split_once("%u") else { return vec![place.into()] };
    let above = before.rsplit_once('/').map_or("/", |(above, _)| if above.is_empty() { "/" } else { above });
    let found = directories(Path::new(above)).into_iter();
    let names = found.filter_map(|path| path.to_str()?.strip_prefix(before).map(str::to_owned));
    names.map(|name| PathBuf::from(place.replace("%u", &name))).collect()
}

/// The directories in one, without looking into any of them: something may be mounted on each.
fn directories(above: &Path) -> Vec<PathBuf> {
    if is_mounted_and_ours(above) {
        return vec![];
    }
    let entries = fs::read_dir(above).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Whether a mount of ours is there, which may not answer.
fn is_mounted_and_ours(path: &Path) -> bool {
    mountinfo::at(path).is_ok_and(|line| line.is_some_and(|line| line.is_lazaret()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_safe(bytes: &[u8]) -> Option<String> {
        safe(OsStr::from_bytes(bytes))
    }

    #[test]
    fn a_label_becomes_one_plain_name() {
        let cases: [(&[u8], Option<&str>); 14] = [
            (b"Holiday 2024", Some("Holiday 2024")),
            ("Überfluß 文字".as_bytes(), Some("Überfluß 文字")),
            (b"../../etc/cron.d", Some("_._.._etc_cron.d")),
            (b"..", Some("_.")),
            (b".", None),
            (b"/", None),
            (b"", None),
            (b" \t\n ", None),
            (b"___", None),
            (b"-rf", Some("_rf")),
            (b".hidden", Some("_hidden")),
            (b"<b>&\"'$(x)`\\", Some("_b_____(x)__")),
            (b"a\x1b[2Jb\xff", Some("a__2Jb_")),
            ("a\u{202e}gpj\u{200b}\u{2066}".as_bytes(), Some("a_gpj__")),
        ];
        for (label, expected) in cases {
            assert_eq!(made_safe(label).as_deref(), expected, "{}", label.escape_ascii());
        }
    }

    #[test]
    fn whatever_the_label_the_name_fits_a_directory() {
        for letter in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text: String = [letter, 'a', letter].into_iter().cycle().take(300).collect();
            let name = made_safe(text.as_bytes()).expect("there is an a in it");
            let inert = |letter: char| !letter.is_control() && !acts(letter) && !"/\\<>&\"'".contains(letter);
            assert!(name.len() < 250 && name.chars().all(inert) && !name.starts_with(['.', '-']), "{name:?}");
            assert_eq!(made_safe(name.as_bytes()), Some(name.clone()), "what is safe stays");
        }
    }
}
