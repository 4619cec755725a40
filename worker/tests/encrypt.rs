//! Encrypted files without their key, compared with what the kernel shows of them: it fills the images with a key of
//! its own (`test_dummy_encryption`), forgets it at the unmount, and is asked again.

mod image;
mod kernel;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use image::Image;
use kernel::Mounted;
use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_worker::error::Error;
use lazaret_worker::ext4::{FileKind, FileOffset, Filesystem, Inode, InodeNumber, MappingKind};

/// Whether this kernel encrypts; where it does not, that is said and nothing is compared.
fn kernel_encrypts() -> bool {
    let features = ["encryption", "test_dummy_encryption_v2"].map(|name| Path::new("/sys/fs/ext4/features").join(name));
    let there = features.iter().all(|feature| feature.exists());
    if !there {
        eprintln!("skipped: this kernel's ext4 does not encrypt");
    }
    there
}

/// An image that the kernel filled while it had the key.
fn encrypted(options: &str, policy: &str, before: &[&str], fill: impl FnOnce(&Path)) -> Option<Image> {
    let mut image = Image::make(options, "48M", |_| ());
    for request in before {
        image.change(request);
    }
    if !kernel_encrypts() {
        return None;
    }
    let mounted = Mounted::with(&image.path(), &format!("test_dummy_encryption={policy}"))?;
    fill(mounted.path());
    drop(mounted);
    image.reload();
    Some(image)
}

/// Directories of one block, of many, and empty; every length of a name; every kind of file; short and long links.
fn fill(root: &Path) {
    for name in ["one", "many", "empty"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let one = root.join("one");
    fs::write(one.join("file"), vec![7; 100_000]).unwrap();
    fs::write(one.join("void"), b"").unwrap();
    fs::create_dir(one.join("inner")).unwrap();
    fs::write(one.join("inner/x"), b"x").unwrap();
    fs::hard_link(one.join("file"), one.join("second name")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, one.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for length in [1, 16, 40, 60, 100, 147, 160, 250, 900] {
        symlink("t".repeat(length), root.join(format!("one/link{length}"))).unwrap();
    }
    for length in 1..=255 {
        File::create(root.join("many").join("n".repeat(length))).unwrap();
    }
    for number in 0..400 {
        File::create(root.join(format!("many/file number {number}"))).unwrap();
    }
}

/// What stat, readlink and open say of a file.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: u64,
    blocks: u64,
    mtime: (i64, i64),
    target: Option<Vec<u8>>,
    locked: bool,
}

fn by_kernel(root: &Path, path: &Path, all: &mut BTreeMap<Vec<u8>, Shown>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        let locked = stat.is_file()
            && match File::open(&path) {
                Ok(_) => false,
                Err(error) => error.raw_os_error() == Some(rustix::io::Errno::NOKEY.raw_os_error()),
            };
        let shown = Shown {
            inode: stat.ino(),
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            links: stat.nlink(),
            size: stat.size(),
            blocks: stat.blocks(),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            target: stat.is_symlink().then(|| fs::read_link(&path).unwrap().into_os_string().into_vec()),
            locked,
        };
        all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), shown);
        if stat.is_dir() {
            by_kernel(root, &path, all);
        }
    }
}

/// The names of a directory without `.` and `..`, each with the inode that its entry has.
fn list(fs: &Filesystem, directory: &Inode) -> Result<Vec<(Vec<u8>, InodeNumber)>, Error> {
    let mut names = Vec::new();
    let result = fs.read_dir(directory, 0, &mut |entry| {
        assert!((1..=255).contains(&entry.name.len()) && !entry.name.contains(&b'/') && !entry.name.contains(&0));
        if entry.name != b"." && entry.name != b".." {
            names.push((entry.name.to_vec(), entry.inode));
        }
        ControlFlow::Continue(())
    });
    result.map(|()| names)
}

fn by_us(fs: &Filesystem, directory: &Inode, path: &[u8], all: &mut BTreeMap<Vec<u8>, Shown>) {
    for (name, number) in list(fs, directory).unwrap() {
        assert_eq!(fs.lookup(directory, &name), Ok(Some(number)), "{}", String::from_utf8_lossy(&name));
        let inode = fs.inode(number).unwrap();
        let locked = fs.check_key(&inode) == Err(Error::NoKey);
        if locked {
            assert_eq!(fs.map(&inode, FileOffset(0), 1), Err(Error::NoKey));
            assert_eq!(fs.read(&inode, 0, &mut [0]), if inode.size == 0 { Ok(0) } else { Err(Error::NoKey) });
        }
        let shown = Shown {
            inode: number.value().into(),
            mode: inode.mode().into(),
            owner: (inode.uid, inode.gid),
            links: inode.links.into(),
            size: fs.shown_size(&inode),
            blocks: inode.blocks,
            mtime: (inode.mtime.seconds, inode.mtime.nanoseconds.into()),
            target: (inode.kind == FileKind::Symlink).then(|| fs.read_link(&inode).unwrap()),
            locked,
        };
        let path = if path.is_empty() { name } else { [path, b"/", &name].concat() };
        if inode.kind == FileKind::Directory {
            by_us(fs, &inode, &path, all);
        }
        all.insert(path, shown);
    }
}

fn assert_like_kernel(image: &Image, what: &str) {
    let Some(mounted) = Mounted::of(&image.path()) else { return };
    let (mut theirs, mut ours) = (BTreeMap::new(), BTreeMap::new());
    by_kernel(mounted.path(), mounted.path(), &mut theirs);
    let fs = image.open();
    by_us(&fs, &fs.inode(InodeNumber::ROOT).unwrap(), b"", &mut ours);
    assert!(theirs.values().filter(|shown| shown.locked).count() > 600, "{what}: nothing is encrypted");
    for (name, shown) in &theirs {
        let name_shown = String::from_utf8_lossy(name);
        assert_eq!(ours.get(name), Some(shown), "{what}: {name_shown}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");

    // Any name that is not there is not there for either.
    let names: Vec<_> = theirs.keys().filter(|name| name.starts_with(b"many/")).collect();
    let directory = fs.inode(image.number("many")).unwrap();
    for (index, path) in names.iter().enumerate() {
        let mut name = path[5..].to_vec();
        // Behind the hash, which is only a hint.
        let place = 11 + index % (name.len() - 11);
        name[place] = if name[place] == b'A' { b'B' } else { b'A' };
        let theirs = mounted.path().join("many").join(std::ffi::OsStr::from_bytes(&name)).symlink_metadata().is_ok();
        let ours = fs.lookup(&directory, &name).unwrap().is_some();
        assert_eq!(ours, theirs, "{what}: {}", String::from_utf8_lossy(&name));
    }
    for absent in [&b"n"[..], b"file number 1", b"AAAA", &[b'A'; 255], b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/"] {
        assert_eq!(fs.lookup(&directory, absent), Ok(None));
    }
}

#[test]
fn names_links_and_attributes_are_those_that_the_kernel_shows_without_a_key() {
    for (options, policy, before) in [
        ("-t ext4 -O encrypt", "v2", &[][..]),
        ("-t ext4 -O encrypt", "v1", &[]),
        ("-t ext4 -O encrypt -b 1024", "v2", &[]),
        ("-t ext4 -O encrypt,^metadata_csum -b 2048 -I 128", "v1", &[]),
        ("-t ext4 -O encrypt,^dir_index -b 1024", "v2", &[]),
        ("-t ext4 -O encrypt,ea_inode,large_dir -b 1024", "v2", &[]),
        ("-t ext4 -O encrypt -b 1024", "v2", &["set_super_value def_hash_version legacy"]),
        ("-t ext4 -O encrypt -b 1024", "v2", &["set_super_value def_hash_version tea"]),
        ("-t ext4 -O encrypt -b 1024", "v2", &["set_super_value flags 2"]),
        ("-t ext4 -O encrypt -b 1024", "v2", &["set_super_value def_hash_version tea", "set_super_value flags 2"]),
    ] {
        if let Some(image) = encrypted(options, policy, before, fill) {
            assert_like_kernel(&image, &format!("{options} {policy} {before:?}"));
        }
    }
}

/// Where a large directory has no tree the kernel computes no hash, and shows zeros.
#[test]
fn a_directory_that_lost_its_tree_shows_no_hashes() {
    let Some(mut image) = encrypted("-t ext4 -O encrypt,^metadata_csum -b 1024", "v2", &[], fill) else { return };
    let flags = image.u32(image.inode(image.number("many")) + 0x20);
    assert!(flags & 0x1000 != 0);
    image.change(&format!("set_inode_field many flags {}", flags & !0x1000));
    assert_like_kernel(&image, "without a tree");
    let fs = image.open();
    let names = list(&fs, &fs.inode(image.number("many")).unwrap()).unwrap();
    assert!(names.iter().all(|(name, _)| name.starts_with(b"AAAAAAAAAA")));
}

#[test]
fn a_broken_name_or_target_hides_nothing_else() {
    let Some(mut image) = encrypted("-t ext4 -O encrypt,^metadata_csum -b 4096", "v2", &[], fill) else { return };
    let fs = image.open();
    let one = fs.inode(image.number("one")).unwrap();
    let names = list(&fs, &one).unwrap();
    let of_target = |wanted: u64| {
        let links = names.iter().map(|&(_, number)| fs.inode(number).unwrap());
        links.into_iter().find(|inode| inode.kind == FileKind::Symlink && inode.size == wanted).unwrap()
    };
    let fast = of_target(2 + 16 + 1 - 1);
    assert!(fs.read_link(&fast).is_ok());

    // The length in front of the target: it does not fit its place, or is too short for ciphertext.
    let sound = image.bytes.clone();
    for length in [0_u16, 15, 59, u16::MAX] {
        image.break_inode(fast.number, 0x28, &length.to_le_bytes());
        let fs = image.open();
        let link = fs.inode(fast.number).unwrap();
        let broken = Corruption { rule: Rule::EncryptedTarget, place: Place::Inode(fast.number.value()) };
        assert_eq!(fs.read_link(&link), Err(Error::Corrupt(broken)), "{length}");
        assert_eq!(fs.shown_size(&link), link.size);
        assert_eq!(list(&fs, &one).unwrap(), names);
    }
    image.bytes = sound;

    // The third entry's name becomes one byte shorter than ciphertext can be.
    let MappingKind::Data(start) = fs.map(&one, FileOffset(0), 4096).unwrap().kind else { panic!("a hole") };
    image.write(start.0 as usize + 24 + 6, &[15]);
    let fs = image.open();
    let place = Place::Directory { inode: one.number.value(), block: 0, offset: 24 };
    assert_eq!(list(&fs, &one), Err(Error::Corrupt(Corruption { rule: Rule::EncryptedName, place })));
    for (index, (name, number)) in names.iter().enumerate() {
        assert_eq!(fs.lookup(&one, name), Ok((index != 0).then_some(*number)));
    }
}

/// A flag of an inode means what it says only with the feature.
#[test]
fn an_encrypted_inode_without_the_feature_is_broken() {
    let mut image = Image::make("-t ext4", "16M", |root| fs::write(root.join("file"), b"x").unwrap());
    let file = image.number("file");
    for flag in [0x800_u32, 0x4000_0000] {
        let flags = image.u32(image.inode(file) + 0x20);
        image.break_inode(file, 0x20, &(flags | flag).to_le_bytes());
        let broken = Corruption { rule: Rule::InodeFlags, place: Place::Inode(file.value()) };
        assert_eq!(image.open().inode(file).err(), Some(Error::Corrupt(broken)));
        image.break_inode(file, 0x20, &flags.to_le_bytes());
    }
}
