//! What is mounted where, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! What holds here: no path is touched, so a mount that does not answer can be read about without waiting for it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The types under which our mounts appear: the second stands on a block device that the kernel has claimed for it.
pub(crate) const KINDS: [&[u8]; 2] = [b"fuse.lazaret", b"fuseblk.lazaret"];

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// Its number, unique while it is mounted.
    pub id: u64,
    /// The number of its file system as the kernel writes it in one; for FUSE also the number of the connection.
    pub device: u32,
    /// Where it is attached.
    pub mountpoint: PathBuf,
    /// The type with its subtype.
    pub kind: Vec<u8>,
    /// What is mounted, as whoever mounted it has named it.
    pub source: Vec<u8>,
    /// Whose mount it is: `user_id=` of a FUSE file system.
    pub user: Option<u32>,
    /// The words of the mount and of its file system.
    pub options: Vec<u8>,
}

impl MountLine {
    /// Whether it is one of ours.
    pub(crate) fn is_lazaret(&self) -> bool {
        KINDS.contains(&&*self.kind)
    }
}

/// Every mount of this mount namespace, in the kernel's order: a later one at the same place covers an earlier one.
pub(crate) fn read() -> io::Result<Vec<MountLine>> {
    lines()?.collect()
}

/// The mount that is seen at this path. The path is compared as text and has to be absolute and without links.
pub(crate) fn at(path: &Path) -> io::Result<Option<MountLine>> {
    Ok(read()?.into_iter().rfind(|line| line.mountpoint == path))
}

/// The mount with this number.
pub(crate) fn with_id(id: u64) -> io::Result<Option<MountLine>> {
    lines()?.find(|line| line.as_ref().map_or(true, |line| line.id == id)).transpose()
}

/// Line by line: the broker's filter lets it have memory in small pieces only.
fn lines() -> io::Result<impl Iterator<Item = io::Result<MountLine>>> {
    let lines = BufReader::new(File::open("/proc/self/mountinfo")?).split(b'\n');
    Ok(lines.filter_map(|line| line.map(|line| parse(&line)).transpose()))
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let device = fields.nth(1)?;
    let mut numbers = device.split(|&byte| byte == b':').map(|part| number(part).and_then(|part| part.try_into().ok()));
    let device = device_number(numbers.next()??, numbers.next()??);
    let mountpoint = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let flags = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source, words) = (unescape(fields.next()?), unescape(fields.next()?), fields.next()?);
    let user = words.split(|&byte| byte == b',').find_map(|word| number(word.strip_prefix(b"user_id=")?));
    let options = [flags, words].join(&b',');
    let user = user.and_then(|user| u32::try_from(user).ok());
    Some(MountLine { id, device, mountpoint, kind, source, user, options })
}

/// Major and minor number in one, as inside the kernel: the minor number has 20 bits. A file system without a device has
/// the major number 0.
pub(crate) fn device_number(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok()));
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_decoded_with_its_octal_escapes() {
        let line = b"85 28 0:41 / /mnt/a\\040b\\134c ro,nosuid shared:2 master:1 - fuse.lazaret /x\\011y ro,user_id=0";
        let expected = MountLine {
            id: 85,
            device: 41,
            mountpoint: "/mnt/a b\\c".into(),
            kind: b"fuse.lazaret".to_vec(),
            source: b"/x\ty".to_vec(),
            user: Some(0),
            options: b"ro,nosuid,ro,user_id=0".to_vec(),
        };
        assert_eq!(parse(line), Some(expected));
        assert!(parse(line).unwrap().is_lazaret());
        let block = parse(b"85 28 8:17 / /mnt ro - fuseblk.lazaret /dev/sdb1 ro,user_id=0").unwrap();
        assert!(block.is_lazaret() && block.device == 0x80_0011);
    }

    #[test]
    fn optional_fields_may_be_absent_and_nonsense_is_skipped() {
        assert_eq!(parse(b"1 0 8:1 / / rw - ext4 /dev/root rw").unwrap().kind, b"ext4");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 0 8:1 / / rw"), None);
        assert_eq!(unescape(b"\\04\\x\\0"), b"\\04\\x\\0");
    }

    #[test]
    fn the_root_of_this_process_is_listed() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert!(at(Path::new("/no such place")).unwrap().is_none());
    }
}
