//! What the kernel here cannot mount, mounted by Lazaret and held to what `debugfs` says of the same image: blocks of
//! 64 KiB where pages are smaller, and names that fold case where the kernel was built without.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lazaret_tests::fill::noise;
use lazaret_tests::lazaret::Mount;
use lazaret_tests::many::debugfs;
use lazaret_tests::requirement::{self, Requirement, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, command, digest, leftover};

const NEEDS: &[Requirement] =
    &[Requirement::Root, Requirement::Fuse, Requirement::Tool("mke2fs"), Requirement::Tool("debugfs")];

/// A name, and words of mke2fs.
const IMAGES: &[(&str, &str)] = &[
    ("64k-blocks", "-t ext4 -b 65536"),
    ("64k-blocks-ext2", "-t ext2 -b 65536"),
    ("32k-blocks-inodes-of-1024", "-t ext4 -b 32768 -I 1024"),
    ("16k-blocks-ext3", "-t ext3 -b 16384"),
    ("8k-blocks-inline-data", "-t ext4 -b 8192 -O inline_data"),
    ("casefold", "-t ext4 -b 4096 -O casefold -E encoding=utf8"),
    ("casefold-1k-strict", "-t ext4 -b 1024 -O casefold -E encoding=utf8,encoding_flags=strict"),
];

/// What [`fill`] writes, and `lost+found`.
const OBJECTS: u32 = 117;

fn main() {
    requirement::main(|workshop| {
        let each = IMAGES.iter();
        each.map(|(name, format)| trial(*name, NEEDS, workshop, |workshop| same_as_debugfs(name, format, workshop)))
            .collect()
    })
}

fn same_as_debugfs(name: &str, format: &str, workshop: &Workshop) -> Result {
    let place = workshop.directory(name)?;
    let (source, image) = (place.join("source"), place.join("image"));
    fs::create_dir(&source)?;
    fill(&source)?;
    File::create(&image)?.set_len(96 << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    command::run(mke2fs.args(["-q", "-F", "-d"]).arg(&source).args(format.split(' ')).arg(&image))?;
    let before = digest::of_file(&image)?;

    let mount = Mount::new(&image, &place.join("lazaret"))?;
    let compared = directory(&image, mount.path(), "/")?;
    mount.unmount(Duration::from_secs(5))?;
    assert_eq!(compared, OBJECTS, "everything that was written was compared");
    assert!(digest::of_file(&image)? == before, "the image was written to");
    leftover::nothing_of(&place.join("lazaret"))
}

fn fill(root: &Path) -> Result {
    for length in [0, 1, 60, 100, 4096, 65_535, 65_536, 65_537, 300_000] {
        fs::write(root.join(format!("of {length}")), noise(length as u64, length))?;
    }
    let sparse = File::create(root.join("sparse"))?;
    for block in 0..20 {
        sparse.write_all_at(&noise(block, 5000), block * 200_000)?;
    }
    fs::create_dir_all(root.join("directory/inner"))?;
    for number in 0..100 {
        fs::write(root.join(format!("directory/A Name in Both Cases, number {number}")), number.to_string())?;
    }
    fs::write(root.join("directory/inner/\u{c4}rger"), "not ASCII")?;
    symlink("of 60", root.join("short"))?;
    symlink("x/".repeat(300), root.join("long"))?;
    fs::set_permissions(root.join("of 1"), fs::Permissions::from_mode(0o4751))?;
    Ok(fs::hard_link(root.join("of 100"), root.join("directory/linked"))?)
}

/// Compares a directory and all beneath it; says how many objects that were.
fn directory(image: &Path, root: &Path, path: &str) -> Result<u32> {
    let mut compared = 0;
    let here = root.join(path.trim_start_matches('/'));
    let mut ours = BTreeMap::new();
    for entry in fs::read_dir(&here)? {
        let entry = entry?;
        ours.insert(entry.file_name().into_string().map_err(|_| "a name that is no text")?, entry.metadata()?.ino());
    }
    // inode/mode/user/group/name/size/ in each line.
    let listing = debugfs(image, &format!("ls -p \"{path}\""))?;
    let lines = listing.lines().map(|line| line.split('/').collect::<Vec<_>>()).filter(|line| line.len() >= 7);
    let theirs: BTreeMap<String, u64> = lines
        .filter(|line| !matches!(line[5], "." | "..") && line[1] != "0")
        .map(|line| Ok((line[5].to_owned(), line[1].parse()?)))
        .collect::<Result<_>>()?;
    assert_eq!(ours, theirs, "{path}");
    for name in theirs.keys() {
        let below = format!("{}/{name}", path.trim_end_matches('/'));
        let metadata = fs::symlink_metadata(here.join(name))?;
        object(image, &here.join(name), &below, &metadata)?;
        compared += 1;
        if metadata.is_dir() {
            compared += directory(image, root, &below)?;
        }
    }
    Ok(compared)
}

fn object(image: &Path, ours: &Path, path: &str, metadata: &fs::Metadata) -> Result {
    let stat = debugfs(image, &format!("stat \"{path}\""))?;
    let word = |before: &str| {
        let rest = stat.split_once(before).map(|(_, rest)| rest.trim_start()).unwrap_or_default();
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!(word("Links:"), metadata.nlink().to_string(), "{path}");
    assert_eq!(word("Mode:"), format!("0{:03o}", metadata.mode() & 0o7777), "{path}");
    assert_eq!(word("User:"), metadata.uid().to_string(), "{path}");
    let inline = stat.contains("Flags: 0x10000000");
    // A file in its inode has no blocks; for those who copy files the kernel shows as many as it would fill.
    let shown = if inline && metadata.is_file() { metadata.size().div_ceil(512) } else { 0 };
    assert_eq!(word("Blockcount:").parse::<u64>()? + shown, metadata.blocks(), "{path}");
    let time = word("mtime: 0x");
    let seconds = u32::from_str_radix(time.split(':').next().unwrap_or_default(), 16)?;
    assert_eq!(i64::from(seconds), metadata.mtime(), "{path}");
    if metadata.is_file() {
        assert_eq!(word("Size:"), metadata.size().to_string(), "{path}");
        let dumped = tempfile::NamedTempFile::new()?;
        debugfs(image, &format!("dump \"{path}\" {}", dumped.path().display()))?;
        let mut content = fs::read(dumped.path())?;
        if inline {
            // Of data in an inode it gives all of the room.
            content.truncate(metadata.size().try_into()?);
        }
        assert!(content == fs::read(ours)?, "{path}: the content is another");
    } else if metadata.is_symlink() {
        let target = fs::read_link(ours)?;
        assert_eq!(word("Size:"), target.as_os_str().len().to_string(), "{path}");
    }
    Ok(())
}
