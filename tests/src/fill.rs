//! Writes one of everything to a mounted file system: every type, every mode bit, odd owners, odd times, odd names,
//! holes, links, and the traces that deleting leaves.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, Timespec, Timestamps, XattrFlags, fallocate, mknodat, setxattr,
    utimensat,
};
use rustix::io::Errno;

use crate::Result;

/// A directory's name, and what fills it.
type Room = (&'static str, fn(&Path) -> Result);

/// All of the below.
pub fn everything(root: &Path) -> Result {
    everything_but_attributes(root)?;
    let directory = root.join("attributes");
    fs::create_dir(&directory)?;
    attributes(&directory).map_err(|error| format!("attributes: {error}").into())
}

/// All of the below, but extended attributes.
pub fn everything_but_attributes(root: &Path) -> Result {
    let rooms: [Room; 11] = [
        ("sizes", sizes),
        ("holes", holes),
        ("preallocated", preallocated),
        ("directories", directories),
        ("symlinks", symlinks),
        ("special", special),
        ("modes", modes),
        ("owners", owners),
        ("times", times),
        ("names", names),
        ("deleted", deleted),
    ];
    for (name, room) in rooms {
        let directory = root.join(name);
        fs::create_dir(&directory)?;
        room(&directory).map_err(|error| format!("{name}: {error}"))?;
    }
    hard_links(root)
}

/// Bytes that look like nothing else, so that a block in the wrong place shows.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Files whose lengths lie around the edges of blocks.
fn sizes(directory: &Path) -> Result {
    for length in [0, 1, 59, 60, 61, 1023, 1024, 1025, 4095, 4096, 4097, 65536, (1 << 20) + 3, 6 << 20] {
        fs::write(directory.join(length.to_string()), noise(length as u64, length))?;
    }
    let mut grown = File::create(directory.join("grown-in-turns"))?;
    let mut other = File::create(directory.join("grown-in-turns-too"))?;
    for turn in 0..40 {
        grown.write_all(&noise(turn, 5000))?;
        grown.sync_data()?;
        other.write_all(&noise(turn + 1000, 3000))?;
        other.sync_data()?;
    }
    Ok(())
}

/// Sparse files: a hole in front, between and behind; nothing but a hole; single blocks far apart.
fn holes(directory: &Path) -> Result {
    let put = |name: &str, length: u64, writes: &[(u64, usize)]| -> Result {
        let file = File::create(directory.join(name))?;
        for (offset, bytes) in writes {
            file.write_all_at(&noise(*offset, *bytes), *offset)?;
        }
        Ok(file.set_len(length)?)
    };
    put("only", 3 << 20, &[])?;
    put("only-odd", (3 << 20) + 77, &[])?;
    put("front", (1 << 20) + 100, &[(1 << 20, 100)])?;
    put("behind", 1 << 20, &[(0, 100)])?;
    put("between", 1 << 20, &[(0, 8192), (500_000, 10_000), ((1 << 20) - 1, 1)])?;
    put("far-apart", 100 << 20, &[(0, 1), (12 << 12, 1), (1 << 20, 1), (5 << 20, 1), (99 << 20, 4096)])?;
    put("cut-in-a-block", 10_001, &[(0, 50_000)])?;
    let every_other = File::create(directory.join("every-other"))?;
    for block in 0..100 {
        every_other.write_all_at(&noise(block, 4096), block * 8192)?;
    }
    Ok(())
}

/// Space that was given but never written. File systems without extents do not offer it: then there is nothing to do.
fn preallocated(directory: &Path) -> Result {
    let file = File::create(directory.join("longer"))?;
    match fallocate(&file, FallocateFlags::empty(), 0, 300_000) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    }
    let keep = File::create(directory.join("kept-size"))?;
    keep.write_all_at(&noise(1, 5000), 0)?;
    fallocate(&keep, FallocateFlags::KEEP_SIZE, 0, 1 << 20)?;
    let empty = File::create(directory.join("kept-size-empty"))?;
    fallocate(&empty, FallocateFlags::KEEP_SIZE, 65536, 65536)?;
    let island = File::create(directory.join("written-in-the-middle"))?;
    fallocate(&island, FallocateFlags::empty(), 0, 1 << 20)?;
    island.write_all_at(&noise(2, 10_000), 500_000)?;
    let punched = File::create(directory.join("punched"))?;
    punched.write_all_at(&noise(3, 1 << 20), 0)?;
    punched.sync_all()?;
    fallocate(&punched, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 100_000, 300_000)?;
    let zeroed = File::create(directory.join("zero-range"))?;
    zeroed.write_all_at(&noise(4, 1 << 20), 0)?;
    zeroed.sync_all()?;
    fallocate(&zeroed, FallocateFlags::ZERO_RANGE, 65536, 131_072)?;
    let large = File::create(directory.join("more-than-one-extent-holds"))?;
    Ok(fallocate(&large, FallocateFlags::KEEP_SIZE, 0, 2 << 20)?)
}

/// Empty, deep, and with more names than a block holds.
fn directories(directory: &Path) -> Result {
    fs::create_dir(directory.join("empty"))?;
    let mut deep = directory.to_owned();
    for level in 0..24 {
        deep.push(format!("level-{level}"));
        fs::create_dir(&deep)?;
        fs::write(deep.join("file"), level.to_string())?;
    }
    let many = directory.join("many");
    fs::create_dir(&many)?;
    for number in 0..1500 {
        File::create(many.join(format!("a name of some length, number {number:05}")))?;
    }
    let subdirectories = directory.join("subdirectories");
    for number in 0..100 {
        fs::create_dir_all(subdirectories.join(format!("{number}")))?;
    }
    Ok(())
}

/// Targets that fit the inode and targets that need a block; the longest is one byte short of a block.
fn symlinks(directory: &Path) -> Result {
    let block = usize::try_from(rustix::fs::statfs(directory)?.f_bsize)?;
    for length in [1, 2, 58, 59, 60, 61, 62, 255, 1000, block - 2, block - 1] {
        let target: Vec<u8> = (0..length).map(|at| if at % 64 == 63 { b'/' } else { b'a' + (at % 26) as u8 }).collect();
        symlink(OsStr::from_bytes(&target), directory.join(format!("of-{length}")))?;
    }
    symlink(OsStr::from_bytes(b"\xff\xfe\n\x1b[31m\x80"), directory.join("of-odd-bytes"))?;
    symlink("../sizes/4097", directory.join("leads-to-a-file"))?;
    Ok(symlink("..", directory.join("leads-up"))?)
}

/// Devices with numbers of both encodings, FIFOs, sockets.
fn special(directory: &Path) -> Result {
    let node = |name: &str, kind, major, minor| {
        let device = rustix::fs::makedev(major, minor);
        mknodat(CWD, directory.join(name), kind, Mode::from(0o640), device).map_err(|error| format!("{name}: {error}"))
    };
    for (major, minor) in [(0, 0), (1, 3), (8, 1), (255, 255), (256, 0), (0, 256), (255, 256), (4095, 1_048_575)] {
        node(&format!("character-{major}-{minor}"), FileType::CharacterDevice, major, minor)?;
        node(&format!("block-{major}-{minor}"), FileType::BlockDevice, major, minor)?;
    }
    node("fifo", FileType::Fifo, 0, 0)?;
    node("socket", FileType::Socket, 0, 0)?;
    Ok(())
}

/// Every permission bit alone, and the familiar sums.
fn modes(directory: &Path) -> Result {
    for mode in (0..12).map(|bit| 1 << bit).chain([0, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777]) {
        let (file, folder) = (directory.join(format!("file-{mode:04o}")), directory.join(format!("folder-{mode:04o}")));
        File::create(&file)?;
        fs::create_dir(&folder)?;
        fs::set_permissions(file, PermissionsExt::from_mode(mode))?;
        fs::set_permissions(folder, PermissionsExt::from_mode(mode))?;
    }
    Ok(())
}

/// Owners on both sides of 16 bits.
fn owners(directory: &Path) -> Result {
    for owner in [0, 1, 1000, 65_534, 65_535, 65_536, 65_537, 3_000_000_000, u32::MAX - 1] {
        let path = directory.join(owner.to_string());
        File::create(&path)?;
        lchown(&path, Some(owner), Some(owner ^ 1))?;
        let link = directory.join(format!("link-{owner}"));
        symlink("x", &link)?;
        lchown(&link, Some(owner ^ 1), Some(owner))?;
    }
    Ok(())
}

/// Times before 1970 and past each end of what 32, 33 and 34 bits of seconds hold. What the disk cannot hold, the
/// kernel cuts: it is the same for both readers.
fn times(directory: &Path) -> Result {
    let seconds: [i64; 14] = [
        -1,
        0,
        1,
        -2_147_483_648,
        -2_147_483_647,
        2_147_483_647,
        2_147_483_648,
        4_294_967_295,
        4_294_967_296,
        6_442_450_943,
        6_442_450_944,
        10_737_418_239,
        15_032_385_534,
        15_032_385_535,
    ];
    for (number, second) in seconds.into_iter().enumerate() {
        let name = directory.join(format!("{second}"));
        if number % 2 == 0 {
            fs::write(&name, "x")?
        } else {
            fs::create_dir(&name)?
        }
        let stamp = |nanosecond| Timespec { tv_sec: second, tv_nsec: nanosecond };
        let stamps = Timestamps { last_access: stamp(999_999_999), last_modification: stamp(123_456_789) };
        utimensat(CWD, &name, &stamps, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Names of every length's edge, of every byte, and that are not text.
fn names(directory: &Path) -> Result {
    let put = |name: &[u8]| fs::write(directory.join(OsStr::from_bytes(name)), name);
    for byte in (1..=255_u8).filter(|byte| !b"/.".contains(byte)) {
        put(&[byte])?;
    }
    put(&(1..=255_u8).filter(|byte| *byte != b'/').collect::<Vec<u8>>())?;
    for length in [2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 127, 128, 251, 252, 253, 254, 255] {
        put(&vec![b'n'; length])?;
        put(&vec![0xff; length])?;
    }
    for name in ["...", " ", ".hidden", "-rf", "new\nline", "\u{202e}dlrow", "ä", "a\u{308}", "日本語", "🦀"] {
        put(name.as_bytes())?;
    }
    for name in [&b"\x80"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"a\xff\xfe"] {
        put(&[name, b" is not UTF-8"].concat())?;
    }
    Ok(fs::create_dir(directory.join("d".repeat(255)))?)
}

/// What deleting leaves: gaps between entries, blocks without entries, space that was used before.
fn deleted(directory: &Path) -> Result {
    let path = |number: u32| directory.join(format!("entry number {number}"));
    for number in 0..800 {
        fs::write(path(number), noise(u64::from(number), 300))?;
    }
    for number in (0..800).filter(|number| number % 3 != 0 || (200..600).contains(number)) {
        fs::remove_file(path(number))?;
    }
    let emptied = directory.join("emptied");
    fs::create_dir(&emptied)?;
    for number in 0..600 {
        File::create(emptied.join(format!("soon gone {number}")))?;
    }
    for number in 0..600 {
        fs::remove_file(emptied.join(format!("soon gone {number}")))?;
    }
    let renamed = directory.join("renamed");
    fs::create_dir(&renamed)?;
    Ok(fs::rename(path(0), renamed.join("entry"))?)
}

/// Extended attributes: in the inode and in a block of their own, of every kind, and access control lists.
fn attributes(directory: &Path) -> Result {
    let set = |name: &str, attribute: &str, value: &[u8]| -> Result {
        let path = directory.join(name);
        if !path.exists() {
            File::create(&path)?;
        }
        Ok(setxattr(&path, attribute, value, XattrFlags::empty())
            .map_err(|error| format!("{name}: {attribute}: {error}"))?)
    };
    set("small", "user.small", b"value")?;
    set("empty", "user.empty", b"")?;
    set("binary", "user.\u{e9}", &[0, 255, b'\n', 0])?;
    set("large", "user.large", &noise(1, 700))?;
    for number in 0..8 {
        set("many", &format!("user.number-{number}"), &noise(number, 40))?;
    }
    set("kinds", "trusted.t", b"trusted")?;
    set("kinds", "security.s", b"security")?;
    // Version 2; owner rw-, user 1000 r--, group r--, mask rw-, others ---: tag, permissions, id.
    let entries = [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let entries = entries.map(|(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    let list = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    set("list", "system.posix_acl_access", &list)?;
    let folder = directory.join("folder");
    fs::create_dir(&folder)?;
    set("folder", "system.posix_acl_default", &list)?;
    set("folder", "user.of-a-folder", b"yes")?;
    File::create(folder.join("inherits"))?;
    // Two files with the same attributes share a block.
    for name in ["shares", "shares-too"] {
        set(name, "user.shared", &noise(2, 600))?;
    }
    Ok(())
}

/// One inode under several names, in several directories; links to every type that can have them.
fn hard_links(root: &Path) -> Result {
    let directory = root.join("hard-links");
    fs::create_dir(&directory)?;
    let first = directory.join("first");
    fs::write(&first, "the same")?;
    for number in 0..9 {
        let other = directory.join(format!("in-{number}"));
        fs::create_dir(&other)?;
        fs::hard_link(&first, other.join("same"))?;
    }
    fs::hard_link(root.join("special/fifo"), directory.join("fifo"))?;
    fs::hard_link(root.join("special/block-8-1"), directory.join("block"))?;
    Ok(fs::hard_link(root.join("symlinks/of-61"), directory.join("symlink"))?)
}
