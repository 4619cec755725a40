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
use lazaret_worker::ext4::checksum::crc32c;
use lazaret_worker::ext4::{
    FileKind, FileOffset, Filesystem, Inode, InodeFlags, InodeNumber, LogicalBlock, MappingKind,
};

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
                Err(error) => error.raw_os_error() == Some(rustix::io::Errno::from(&Error::NoKey).raw_os_error()),
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

/// Where names are encrypted and fold case, a hash with a key stands behind each. This kernel may not fold case, so it
/// encrypts a directory in which there is room left, the hashes are put in by hand, and e2fsck sorts a tree by them.
#[test]
fn hashes_that_stand_behind_the_names_are_shown_and_lead_to_them() {
    // Enough for a tree with nodes between root and leaves.
    const ROOM: u32 = 6000;
    let fill = |root: &Path| {
        fs::create_dir(root.join("d")).unwrap();
        let path = |number: u32| root.join(format!("d/{number} is a name that is encrypted"));
        for number in 0..ROOM {
            File::create(path(number)).unwrap();
        }
        for number in ROOM / 2..ROOM {
            fs::remove_file(path(number)).unwrap();
        }
        File::create(root.join("d").join("x".repeat(220))).unwrap();
    };
    let options = "-t ext4 -O encrypt,^dir_index,^metadata_csum,^has_journal -b 1024";
    let Some(mut image) = encrypted(options, "v2", &[], fill) else { return };
    let number = image.number("d");
    let plain = image.open();
    let directory = plain.inode(number).unwrap();

    // Each record as it is, or none, with room for a hash: in the order they have, as many as fit into each block.
    let mut records = Vec::new();
    for block in 0..(directory.size / 1024) as u32 {
        let bytes = plain.read_block(&directory, LogicalBlock(block)).unwrap().unwrap();
        let mut at = 0;
        while at < bytes.len() {
            let (inode, length) = (&bytes[at..at + 4], usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]])));
            let name = &bytes[at + 8..][..bytes[at + 6].into()];
            // To e2fsck names that fold are equal up to a NUL, and it clears one of two that have the same before it.
            if inode != [0; 4] && !name.contains(&0) {
                records.push((inode.to_vec(), bytes[at + 7], name.to_vec()));
            }
            at += length;
        }
    }
    let hash = |name: &[u8]| [crc32c(7, name) & !1, crc32c(8, name)];
    let mut expected = BTreeMap::new();
    let mut records = records.into_iter().peekable();
    for block in 0..(directory.size / 1024) as u32 {
        let (mut bytes, mut last) = (Vec::new(), 0);
        let room = |name: &[u8]| 8 + name.len().next_multiple_of(4) + if name.len() > 2 { 8 } else { 0 };
        while let Some((inode, kind, name)) = records.next_if(|(_, _, name)| bytes.len() + room(name) <= 1024) {
            last = bytes.len();
            bytes.extend(&inode);
            bytes.extend((room(&name) as u16).to_le_bytes());
            bytes.extend([name.len() as u8, kind]);
            bytes.extend(&name);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            if name.len() > 2 {
                bytes.extend(hash(&name).map(u32::to_le_bytes).concat());
                expected.insert(name, u32::from_le_bytes(inode.try_into().unwrap()));
            }
        }
        let rest = (1024 - last) as u16;
        bytes.resize(1024, 0);
        bytes[last + 4..last + 6].copy_from_slice(&rest.to_le_bytes());
        let MappingKind::Data(start) = plain.map(&directory, FileOffset(u64::from(block) * 1024), 1024).unwrap().kind
        else {
            panic!("a hole")
        };
        image.write(start.0 as usize, &bytes);
    }
    assert!(records.next().is_none() && expected.len() > 2000);
    let incompat = image.u32(1024 + 0x60);
    image.break_superblock(0x60, &(incompat | 0x20000).to_le_bytes());
    image.break_superblock(0x27c, &1_u16.to_le_bytes());
    let flags = image.u32(image.inode(number) + 0x20);
    image.break_inode(number, 0x20, &(flags | 0x4000_0000).to_le_bytes());

    let check = |image: &Image| {
        let fs = image.open();
        let directory = fs.inode(number).unwrap();
        let names = list(&fs, &directory).unwrap();
        assert_eq!(names.len(), expected.len());
        for (shown, inode) in names {
            let bytes = data_encoding::BASE64URL_NOPAD.decode(&shown).unwrap();
            let begin = &bytes[8..bytes.len().min(8 + 149)];
            let (name, number) = expected.iter().find(|(name, _)| name.starts_with(begin)).unwrap();
            assert_eq!(bytes[..8], hash(name).map(u32::to_le_bytes).concat());
            assert_eq!(inode.value(), *number);
            assert_eq!(fs.lookup(&directory, &shown), Ok(Some(inode)));
            assert_eq!(fs.lookup(&directory, &shown.to_ascii_lowercase()).ok().flatten(), None);
        }
        directory.flags.contains(InodeFlags::INDEX)
    };
    assert!(!check(&image));
    let compat = image.u32(1024 + 0x5c);
    image.break_superblock(0x5c, &(compat | 0x20).to_le_bytes());
    image.save();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut e2fsck = std::process::Command::new("e2fsck");
    e2fsck.env("PATH", format!("{path}:/usr/sbin:/sbin")).arg("-fyD").arg(image.path());
    let output = e2fsck.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code().is_some_and(|code| code <= 1), "{said}");
    image.reload();
    assert!(check(&image), "{said}");
    let fs = image.open();
    let directory = fs.inode(number).unwrap();
    let root = fs.read_block(&directory, LogicalBlock(0)).unwrap().unwrap();
    assert_eq!((root[28], root[30]), (6, 1), "{said}");

    // The kernel writes nodes for one entry less than e2fsck does.
    let count = usize::from(u16::from_le_bytes([root[34], root[35]]));
    let mut changed = 0;
    for node in root[36..].chunks(8).take(count) {
        let block = u64::from(u32::from_le_bytes(node[..4].try_into().unwrap()));
        let MappingKind::Data(start) = fs.map(&directory, FileOffset(block * 1024), 1024).unwrap().kind else {
            panic!("a hole")
        };
        let [limit, used] = [8, 10].map(|at| image.u16(start.0 as usize + at));
        assert_eq!(limit, 127);
        if used < limit {
            image.write(start.0 as usize + 8, &(limit - 1).to_le_bytes());
            changed += 1;
        }
    }
    assert!(changed > 0 && check(&image), "{changed}");
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
