//! Extended attributes as the kernel wrote them, and what is said of damaged ones.

mod image;
mod kernel;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use image::{Image, content, inode, pattern};
use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::Checksum;
use lazaret_worker::error::{Error, Result};
use lazaret_worker::ext4::{FileOffset, Filesystem, Inode, InodeNumber, MappingKind, Namespace};
use rustix::fs::{Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, mkfifoat};
use rustix::io::Errno;

/// By path, by name: values.
type Answers = BTreeMap<PathBuf, BTreeMap<Vec<u8>, Vec<u8>>>;

fn set(path: &Path, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    lsetxattr(path, name, value, XattrFlags::empty())
}

/// An access control list in the form of the system calls.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |&(tag, permissions, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat()
}

const NOBODY: u32 = u32::MAX;
const LIST: [(u16, u16, u32); 7] =
    [(1, 7, NOBODY), (2, 6, 1000), (2, 0, 70_000), (4, 5, NOBODY), (8, 1, 12), (0x10, 5, NOBODY), (0x20, 4, NOBODY)];

fn fill(root: &Path) {
    let file = |name: &str| {
        let path = root.join(name);
        fs::write(&path, name).unwrap();
        path
    };
    file("none");
    set(&file("empty"), b"user.empty", b"").unwrap();
    set(&file("one"), b"user.a", b"1").unwrap();
    // What the file system has room for, and no more.
    for size in [10, 100, 500, 900, 2000, 3900, 4096, 10_000, 61_440, 65_536] {
        let _ = set(&file(&format!("size{size}")), b"user.value", &pattern(size));
    }
    let many = file("many");
    for index in 0.. {
        if set(&many, format!("user.{index}").as_bytes(), &pattern(index % 40)).is_err() {
            break;
        }
    }
    let long = file("long_name");
    let _ = set(&long, &[&b"user."[..], &[b'n'; 250]].concat(), b"value");
    let strange: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    let _ = set(&file("strange"), &[&b"user."[..], &strange[100..]].concat(), &pattern(7));
    // The same attributes in several files are kept once.
    for copy in ["copy1", "copy2", "copy3"] {
        let path = file(copy);
        let _ = set(&path, b"user.same", &pattern(700));
        let _ = set(&path, &[&b"user.large\xff\x80"[..], &[0xe9; 5]].concat(), &pattern(50_000));
    }
    let several = file("several");
    for name in ["user.x", "trusted.x", "security.x", "user.x.y", "trusted.overlay.opaque"] {
        set(&several, name.as_bytes(), name.as_bytes()).unwrap();
    }
    set(&several, b"system.posix_acl_access", &acl(&LIST)).unwrap();

    let directory = root.join("directory");
    fs::create_dir(&directory).unwrap();
    set(&directory, b"system.posix_acl_default", &acl(&LIST)).unwrap();
    set(&directory, b"system.posix_acl_access", &acl(&LIST[..7])).unwrap();
    set(&directory, b"user.directory", b"d").unwrap();
    fs::write(directory.join("inherits"), b"").unwrap();
    fs::create_dir(directory.join("inherits_too")).unwrap();

    symlink("none", root.join("link")).unwrap();
    set(&root.join("link"), b"trusted.link", &pattern(400)).unwrap();
    symlink("x".repeat(100), root.join("slow_link")).unwrap();
    set(&root.join("slow_link"), b"trusted.link", &pattern(80)).unwrap();
    mkfifoat(rustix::fs::CWD, root.join("fifo"), Mode::RUSR).unwrap();
    set(&root.join("fifo"), b"security.fifo", &pattern(300)).unwrap();
}

/// What the kernel says.
fn ask(root: &Path) -> Answers {
    let mut answers = Answers::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let mut list = vec![0; 65_536];
        let length = llistxattr(&path, &mut list).unwrap();
        let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
        let values = names.map(|name| {
            let mut value = vec![0; 65_536];
            let length = lgetxattr(&path, name, &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        });
        answers.insert(path.strip_prefix(root).unwrap().to_owned(), values.collect());
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    answers
}

fn find(fs: &Filesystem, path: &Path) -> Inode {
    let start = fs.inode(InodeNumber::ROOT).unwrap();
    path.iter()
        .fold(start, |directory, name| fs.inode(fs.lookup(&directory, name.as_bytes()).unwrap().unwrap()).unwrap())
}

/// The whole names of a file's attributes that the kernel would list.
fn names(fs: &Filesystem, inode: &Inode) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    fs.xattrs(inode, &mut |xattr| {
        if !matches!(xattr.namespace, Namespace::System | Namespace::RichAcl) {
            names.push([xattr.namespace.prefix().as_bytes(), xattr.name].concat());
        }
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// What we say, of the same paths.
fn told(fs: &Filesystem, paths: &Answers) -> Answers {
    let of = |path: &PathBuf| {
        let inode = find(fs, path);
        let names = names(fs, &inode).unwrap();
        let count = names.len();
        let values = names.into_iter().map(|name| {
            let value = fs.xattr(&inode, &name).unwrap().unwrap();
            (name, value)
        });
        let values: BTreeMap<_, _> = values.collect();
        assert_eq!(values.len(), count, "{}: a name twice", path.display());
        (path.clone(), values)
    };
    paths.keys().map(of).collect()
}

const GEOMETRIES: &[&str] = &[
    "-t ext4 -b 4096",
    "-t ext4 -b 4096 -I 128",
    "-t ext4 -b 4096 -I 512",
    "-t ext4 -b 4096 -I 1024",
    "-t ext4 -b 1024",
    "-t ext4 -b 1024 -I 1024",
    "-t ext2",
    "-t ext3 -b 2048",
    "-t ext4 -O ^metadata_csum,uninit_bg",
    "-t ext4 -O metadata_csum_seed",
    "-t ext4 -b 4096 -O ea_inode",
    "-t ext4 -b 4096 -O ea_inode -I 1024",
    "-t ext4 -b 1024 -O ea_inode,^metadata_csum",
    "-t ext4 -b 1024 -O bigalloc -C 16384",
    "-t ext4 -b 4096 -O inline_data -I 512",
    "-t ext4 -b 4096 -O inline_data,ea_inode",
];

#[test]
fn every_attribute_is_what_the_kernel_says() {
    for options in GEOMETRIES {
        let Some((image, expected)) = kernel::filled(options, "32M", fill, ask) else { return };
        let fs = image.open();
        let told = told(&fs, &expected);
        for (path, values) in &expected {
            let names = |values: &BTreeMap<Vec<u8>, _>| {
                values.keys().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>()
            };
            assert_eq!(names(&told[path]), names(values), "{options}: {}", path.display());
            assert!(told[path] == *values, "{options}: {}", path.display());
        }
        // The blocks of attributes are not taken for the link's own.
        for (link, target) in [("link", "none".to_owned()), ("slow_link", "x".repeat(100))] {
            assert_eq!(fs.read_link(&inode(&fs, &image, link)), Ok(target.into_bytes()), "{options}");
        }
        let longest = expected.values().flat_map(BTreeMap::values).map(Vec::len).max();
        assert_eq!(longest == Some(65_536), options.contains("ea_inode"), "{options}");
        assert!(expected[Path::new("many")].len() > 10, "{options}");
    }
}

#[test]
fn a_name_that_is_not_there_is_none() {
    let Some((image, _)) = kernel::filled("-t ext4", "32M", fill, |_| ()) else { return };
    let fs = image.open();
    for path in ["none", "one", "many", "several", "link", "directory"] {
        let inode = inode(&fs, &image, path);
        for name in ["user.none", "user.", "user", "", "trusted.a", "system.richacl", "gnu.author", "os2.ea"] {
            assert_eq!(fs.xattr(&inode, name.as_bytes()), Ok(None), "{path} {name}");
        }
    }
    assert!(names(&fs, &inode(&fs, &image, "none")).unwrap().is_empty());
}

#[test]
fn visiting_ends_when_it_is_told_to() {
    let Some((image, expected)) = kernel::filled("-t ext4", "32M", fill, ask) else { return };
    let fs = image.open();
    let many = inode(&fs, &image, "many");
    for count in 1..expected[Path::new("many")].len() {
        let mut seen = 0;
        let visited = fs.xattrs(&many, &mut |_| {
            seen += 1;
            if seen == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((visited, seen), (Ok(()), count));
    }
}

/// Sound but for what a test breaks: a file with attributes in its inode and in a block, one with a value in an inode,
/// and one with nothing to fear.
fn sample() -> Option<Image> {
    let fill = |root: &Path| {
        for name in ["broken", "sound"] {
            let path = root.join(name);
            fs::write(&path, b"content").unwrap();
            set(&path, b"user.inner", &pattern(12)).unwrap();
            set(&path, b"user.second", &pattern(8)).unwrap();
            let outer = [name.as_bytes(), &pattern(500)].concat();
            set(&path, b"user.outer", &outer).unwrap();
            set(&path, b"user.third", &outer[..300]).unwrap();
            set(&path, b"system.posix_acl_access", &acl(&LIST)).unwrap();
        }
        let large = root.join("large");
        File::create(&large).unwrap();
        set(&large, b"user.large", &pattern(60_000)).unwrap();
    };
    Some(kernel::filled("-t ext4 -b 4096 -I 256 -O ea_inode", "32M", fill, |_| ())?.0)
}

/// Where the first entry in an inode's body lies within it, behind the magic number.
const BODY: usize = 0x80 + 32 + 4;

/// Where in a place of attributes the entry of this name begins.
fn entry(place: &[u8], name: &[u8]) -> usize {
    place.windows(name.len()).position(|window| window == name).unwrap() - 16
}

fn block_of(image: &Image, number: InodeNumber) -> u64 {
    image.u32(image.inode(number) + 0x68).into()
}

fn corrupt(rule: Rule, place: Place) -> Error {
    Error::Corrupt(Corruption { rule, place })
}

/// The other attributes, the other file and this file's data are what they were.
fn the_rest_is_sound(image: &Image) {
    let fs = image.open();
    assert_eq!(content(&fs, &inode(&fs, image, "broken")), b"content");
    assert_eq!(names(&fs, &inode(&fs, image, "sound")).unwrap().len(), 5);
    assert_eq!(fs.xattr(&inode(&fs, image, "sound"), b"user.inner"), Ok(Some(pattern(12))));
}

#[test]
fn one_broken_field_in_an_inodes_body_is_told_by_its_rule() {
    let Some(mut image) = sample() else { return };
    let number = image.number("broken");
    let (sound, at) = (image.bytes.clone(), image.inode(number) + BODY);
    let body = &image.bytes[at..at + 256 - BODY];
    let (inner, second) = (entry(body, b"inner"), entry(body, b"second"));
    let value = image.u16(at + inner + 2);
    let cases: &[(usize, &[u8], Rule)] = &[
        (inner, &[255], Rule::XattrEntry),
        (inner, &[0], Rule::XattrName),
        (inner + 16, &[0], Rule::XattrName),
        (inner + 1, &[2], Rule::XattrName),
        (inner + 2, &[0, 0], Rule::XattrValue),
        (inner + 2, &[250, 0], Rule::XattrValue),
        (inner + 8, &[0, 1], Rule::XattrValue),
        (inner + 11, &[0xff], Rule::XattrValue),
        (second + 2, &value.to_le_bytes(), Rule::XattrOverlap),
    ];
    for &(field, bytes, rule) in cases {
        image.bytes.clone_from(&sound);
        image.break_inode(number, BODY + field, bytes);
        let fs = image.open();
        let broken = inode(&fs, &image, "broken");
        let expected = corrupt(rule, Place::Inode(number.value()));
        assert_eq!(names(&fs, &broken), Err(expected), "{field} {bytes:?}");
        assert_eq!(fs.xattr(&broken, b"user.second"), Err(expected), "{field} {bytes:?}");
        the_rest_is_sound(&image);
    }
}

#[test]
fn without_its_magic_number_an_inodes_body_has_no_attributes() {
    let Some(mut image) = sample() else { return };
    let number = image.number("broken");
    image.break_inode(number, BODY - 4, &[1]);
    let fs = image.open();
    let broken = inode(&fs, &image, "broken");
    assert_eq!(fs.xattr(&broken, b"user.inner"), Ok(None));
    assert!(fs.xattr(&broken, b"user.outer").unwrap().is_some());
}

#[test]
fn one_broken_field_in_a_block_is_told_by_its_rule() {
    let Some(mut image) = sample() else { return };
    let number = image.number("broken");
    let (sound, block) = (image.bytes.clone(), block_of(&image, number));
    let at = block as usize * 4096;
    let bytes = &image.bytes[at..at + 4096];
    let (outer, third) = (entry(bytes, b"outer"), entry(bytes, b"third"));
    let value = image.u16(at + outer + 2);
    let cases: &[(usize, &[u8], Rule)] = &[
        (0, &[1], Rule::XattrHeader),
        (8, &[2], Rule::XattrHeader),
        (8, &[0], Rule::XattrHeader),
        (outer + 1, &[3], Rule::XattrName),
        (outer + 17, &[0], Rule::XattrName),
        (outer + 2, &[20, 0], Rule::XattrValue),
        (outer + 2, &[0xff, 0xff], Rule::XattrValue),
        (outer + 8, &[0xff, 0xff], Rule::XattrValue),
        (third + 2, &value.to_le_bytes(), Rule::XattrOverlap),
    ];
    let place = Place::XattrBlock { inode: number.value(), block };
    for &(field, bytes, rule) in cases {
        image.bytes.clone_from(&sound);
        image.break_attributes(block, field, bytes);
        let fs = image.open();
        let broken = inode(&fs, &image, "broken");
        assert_eq!(names(&fs, &broken), Err(corrupt(rule, place)), "{field} {bytes:?}");
        assert_eq!(fs.xattr(&broken, b"user.outer"), Err(corrupt(rule, place)), "{field} {bytes:?}");
        // Those in the inode do not depend on it.
        assert_eq!(fs.xattr(&broken, b"user.inner"), Ok(Some(pattern(12))));
        the_rest_is_sound(&image);
    }

    image.bytes.clone_from(&sound);
    image.bytes[at + 4000] ^= 1;
    let wrong = Corruption { rule: Rule::XattrChecksum, place };
    let fs = image.open();
    assert_eq!(fs.xattr(&inode(&fs, &image, "broken"), b"user.outer"), Err(Error::Checksum(wrong)));
    let fs = image.open_with(Checksum::Ignore).unwrap();
    assert!(fs.xattr(&inode(&fs, &image, "broken"), b"user.outer").is_ok());
}

#[test]
fn a_block_that_is_full_of_entries_has_no_end_mark() {
    let Some(mut image) = sample() else { return };
    let number = image.number("broken");
    let block = block_of(&image, number);
    image.break_attributes(block, 32, &[0xff; 4096 - 32]);
    let place = Place::XattrBlock { inode: number.value(), block };
    let fs = image.open();
    let found = names(&fs, &inode(&fs, &image, "broken"));
    assert_eq!(found, Err(corrupt(Rule::XattrEntry, place)));
}

#[test]
fn a_block_of_attributes_is_none_of_the_file_systems_own() {
    let Some(mut image) = sample() else { return };
    let number = image.number("broken");
    let (sound, place) = (image.bytes.clone(), Place::Inode(number.value()));
    let bitmap = image.u32(image.group(0)).to_le_bytes();
    let cases = [
        (0x68, &bitmap[..], Rule::BlockNotSystem),
        (0x6b, &[1], Rule::BlockInFileSystem),
        (0x76, &[1], Rule::BlockInFileSystem),
    ];
    for (field, bytes, rule) in cases {
        image.bytes.clone_from(&sound);
        image.break_inode(number, field, bytes);
        let fs = image.open();
        assert_eq!(fs.xattr(&inode(&fs, &image, "broken"), b"user.outer"), Err(corrupt(rule, place)));
        the_rest_is_sound(&image);
    }
}

/// Inode and field, bytes, and what is told of it.
type Case<'a> = ((InodeNumber, usize), &'a [u8], Rule, Place);

#[test]
fn a_value_in_an_inode_is_held_to_its_size_its_flag_and_its_hash() {
    let Some(mut image) = sample() else { return };
    let owner = image.number("large");
    let at = image.inode(owner) + BODY;
    let large = entry(&image.bytes[at..at + 256 - BODY], b"large");
    let holder = InodeNumber::new(image.u32(at + large + 4)).unwrap();
    let (sound, flags) = (image.bytes.clone(), image.u32(image.inode(holder) + 0x20));
    let (from, to) = (Place::Inode(owner.value()), Place::Inode(holder.value()));

    let entry = |field: usize| (owner, BODY + large + field);
    let unflagged = (flags & !0x20_0000).to_le_bytes();
    let cases: [Case<'_>; 11] = [
        (entry(8), &60_001_u32.to_le_bytes(), Rule::XattrInodeSize, to),
        (entry(8), &65_537_u32.to_le_bytes(), Rule::XattrSize, from),
        (entry(4), &owner.value().to_le_bytes(), Rule::XattrInode, from),
        (entry(4), &2_u32.to_le_bytes(), Rule::XattrInode, from),
        (entry(4), &u32::MAX.to_le_bytes(), Rule::XattrInode, from),
        ((holder, 0x20), &unflagged, Rule::XattrInode, to),
        ((holder, 0x68), &[1], Rule::XattrInode, to),
        ((holder, BODY - 4), &0xea02_0000_u32.to_le_bytes(), Rule::XattrInode, to),
        ((holder, 0x01), &[0x61], Rule::XattrInode, to),
        ((holder, 0x04), &[0], Rule::XattrInodeSize, to),
        ((holder, 0x1a), &[0, 0], Rule::InodeInUse, to),
    ];
    for ((number, field), bytes, rule, place) in cases {
        image.bytes.clone_from(&sound);
        image.break_inode(number, field, bytes);
        let fs = image.open();
        let file = inode(&fs, &image, "large");
        assert_eq!(fs.xattr(&file, b"user.large"), Err(corrupt(rule, place)), "{rule:?} {bytes:?}");
        assert_eq!(names(&fs, &file).unwrap(), [b"user.large"]);
        the_rest_is_sound(&image);
    }

    // The hash of the value in its inode, that of both in the entry, and the value.
    let wrong = Error::Checksum(Corruption { rule: Rule::XattrHash, place: to });
    for (number, field) in [(holder, 0x08), entry(12)] {
        image.bytes.clone_from(&sound);
        let old = image.bytes[image.inode(number) + field];
        image.break_inode(number, field, &[old ^ 1]);
        let fs = image.open();
        assert_eq!(fs.xattr(&inode(&fs, &image, "large"), b"user.large"), Err(wrong));
    }
    image.bytes.clone_from(&sound);
    let fs = image.open();
    let mapping = fs.map(&fs.any_inode(holder).unwrap(), FileOffset(30_000), 1).unwrap();
    let MappingKind::Data(start) = mapping.kind else { panic!("{mapping:?}") };
    let value = start.0 as usize;
    image.bytes[value] ^= 1;
    let fs = image.open();
    assert_eq!(fs.xattr(&inode(&fs, &image, "large"), b"user.large"), Err(wrong));
    let fs = image.open_with(Checksum::Warn).unwrap();
    assert_eq!(fs.xattr(&inode(&fs, &image, "large"), b"user.large").unwrap().unwrap().len(), 60_000);
    assert_eq!(fs.verifier().failures(), 1);
}

#[test]
fn a_list_that_grants_to_nobody_knows_whom_is_told() {
    let Some(mut image) = sample() else { return };
    let number = image.number("broken");
    let block = block_of(&image, number);
    let at = block as usize * 4096;
    // The entry of the group without a name, in the list on the disk: behind the owner and two users.
    let list = [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0];
    let inner = image.bytes[image.inode(number)..][..256].windows(12).position(|window| window == list);
    let outer = image.bytes[at..][..4096].windows(12).position(|window| window == list);
    let sound = image.bytes.clone();
    for (offset, byte, rule) in [(0, 2, Rule::AclForm), (24, 1, Rule::AclOrder), (26, 8, Rule::AclEntry)] {
        image.bytes.clone_from(&sound);
        match (inner, outer) {
            (Some(at), _) => image.break_inode(number, at + offset, &[byte]),
            (None, Some(at)) => image.break_attributes(block, at + offset, &[byte]),
            (None, None) => panic!("the list is nowhere"),
        }
        let fs = image.open();
        let broken = inode(&fs, &image, "broken");
        let expected = corrupt(rule, Place::Inode(number.value()));
        assert_eq!(fs.xattr(&broken, b"system.posix_acl_access"), Err(expected), "{offset}");
        assert_eq!(names(&fs, &broken).unwrap().len(), 5);
        the_rest_is_sound(&image);
    }
}
