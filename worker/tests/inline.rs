//! Files, directories and links that lie in their inode, as the kernel and mke2fs made them, and damaged ones.

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
use lazaret_worker::error::Error;
use lazaret_worker::ext4::{FileKind, FileOffset, Filesystem, Inode, InodeFlags, InodeNumber, MappingKind};
use rustix::fs::{SeekFrom, XattrFlags, lsetxattr, seek};

const GEOMETRIES: &[&str] = &[
    "-t ext4 -b 4096 -O inline_data -I 256",
    "-t ext4 -b 1024 -O inline_data -I 512",
    "-t ext4 -b 4096 -O inline_data -I 1024",
    "-t ext4 -b 4096 -O inline_data -I 4096 -N 2048",
    "-t ext4 -b 1024 -O inline_data,^metadata_csum,uninit_bg -I 256",
    "-t ext4 -b 4096 -O inline_data,ea_inode -I 512",
];

/// Sizes around the ends of both places, at every size of an inode.
const SIZES: &[usize] = &[
    0, 1, 30, 59, 60, 61, 80, 127, 128, 129, 160, 161, 200, 300, 380, 384, 400, 416, 600, 896, 900, 930, 1000, 3900,
    4096,
];

fn fill(root: &Path) {
    for &size in SIZES {
        fs::write(root.join(format!("file{size}")), pattern(size)).unwrap();
    }
    // The file's length changed after it was in the inode.
    for (name, from, to) in [("cut", 100, 70), ("cut_to_head", 100, 20), ("emptied", 100, 0), ("grown", 20, 50)] {
        let path = root.join(name);
        fs::write(&path, pattern(from)).unwrap();
        File::options().write(true).open(path).unwrap().set_len(to).unwrap();
    }
    // Attributes that share the inode's body with the data.
    let _ = lsetxattr(root.join("file61"), "user.small", b"value", XattrFlags::empty());
    let _ = lsetxattr(root.join("file30"), "user.large", &pattern(900), XattrFlags::empty());
    for count in [0, 1, 2, 3, 4, 5, 8, 12, 40, 300] {
        let directory = root.join(format!("directory{count}"));
        fs::create_dir_all(directory.join("within/deeper")).unwrap();
        for index in 0..count {
            fs::write(directory.join(format!("name{index}")), b"").unwrap();
        }
    }
    // Entries that were removed leave gaps.
    for index in [0, 2, 3] {
        fs::remove_file(root.join(format!("directory5/name{index}"))).unwrap();
    }
    fs::create_dir(root.join("long")).unwrap();
    fs::write(root.join("long").join("n".repeat(255)), b"").unwrap();
    for length in [1, 59, 60, 61, 80, 100, 128, 129, 200, 1000] {
        // mke2fs makes links in the inode, the kernel reads them.
        let _ = symlink("t".repeat(length), root.join(format!("link{length}")));
    }
}

/// What can be seen of a file.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    number: u64,
    length: u64,
    content: Content,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// The bytes, and for each of some offsets where data and where a hole begins.
    File(Vec<u8>, Vec<(u64, Option<u64>, Option<u64>)>),
    /// Names and numbers.
    Directory(BTreeMap<Vec<u8>, u64>),
    Link(Vec<u8>),
}

fn offsets(length: u64) -> impl Iterator<Item = u64> {
    [0, 1, 59, 60, 61, length / 2, length.saturating_sub(1)].into_iter().filter(move |&offset| offset < length)
}

/// What the kernel says.
fn ask(root: &Path) -> BTreeMap<PathBuf, Seen> {
    use std::os::unix::fs::MetadataExt;
    let mut answers = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap());
            let entry = |name: &[u8], path: &Path| (name.to_vec(), fs::symlink_metadata(path).unwrap().ino());
            let named = entries.map(|named| {
                open.push(named.path());
                entry(named.file_name().as_bytes(), &named.path())
            });
            let mut entries: BTreeMap<_, _> = named.collect();
            let parent = if path == root { path.clone() } else { path.join("..") };
            entries.extend([entry(b".", &path), entry(b"..", &parent)]);
            Content::Directory(entries)
        } else if metadata.is_symlink() {
            Content::Link(fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
        } else {
            let file = File::open(&path).unwrap();
            let positions = offsets(metadata.len());
            let found = positions.map(|offset| {
                (offset, seek(&file, SeekFrom::Data(offset)).ok(), seek(&file, SeekFrom::Hole(offset)).ok())
            });
            Content::File(fs::read(&path).unwrap(), found.collect())
        };
        let seen = Seen { number: metadata.ino(), length: metadata.len(), content };
        answers.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
    }
    answers
}

fn find(fs: &Filesystem, path: &Path) -> Inode {
    let start = fs.inode(InodeNumber::ROOT).unwrap();
    path.iter()
        .fold(start, |directory, name| fs.inode(fs.lookup(&directory, name.as_bytes()).unwrap().unwrap()).unwrap())
}

/// Where data or a hole begins, by mapping from here to the end.
fn next(fs: &Filesystem, inode: &Inode, offset: u64, data: bool) -> Option<u64> {
    let mut at = offset;
    while at < inode.size {
        let mapping = fs.map(inode, FileOffset(at), inode.size - at).unwrap();
        if matches!(mapping.kind, MappingKind::Data(_) | MappingKind::Inline) == data {
            return Some(at);
        }
        at += mapping.length;
    }
    (!data).then_some(inode.size)
}

/// The names of a directory, in pieces of one entry, with rising cookies.
fn entries(fs: &Filesystem, directory: &Inode) -> BTreeMap<Vec<u8>, u64> {
    let (mut found, mut cookie) = (BTreeMap::new(), 0);
    loop {
        let before = cookie;
        fs.read_dir(directory, before, &mut |entry| {
            assert!(entry.cookie > cookie);
            cookie = entry.cookie;
            assert!(found.insert(entry.name.to_vec(), entry.inode.value().into()).is_none());
            assert_eq!(fs.lookup(directory, entry.name), Ok(Some(entry.inode)));
            assert_eq!(entry.kind, Some(fs.inode(entry.inode).unwrap().kind));
            ControlFlow::Break(())
        })
        .unwrap();
        if cookie == before {
            return found;
        }
    }
}

/// What we say of the same path.
fn seen(fs: &Filesystem, path: &Path) -> Seen {
    let inode = find(fs, path);
    let content = match inode.kind {
        FileKind::Directory => Content::Directory(entries(fs, &inode)),
        FileKind::Symlink => Content::Link(fs.read_link(&inode).unwrap()),
        _ => {
            let positions = offsets(inode.size);
            let found = positions
                .map(|offset| (offset, next(fs, &inode, offset, true), next(fs, &inode, offset, false)))
                .collect();
            Content::File(content(fs, &inode), found)
        }
    };
    Seen { number: inode.number.value().into(), length: inode.size, content }
}

fn is_inline(fs: &Filesystem, path: &str) -> bool {
    find(fs, Path::new(path)).flags.contains(InodeFlags::INLINE_DATA)
}

fn compare(options: &str, fs: &Filesystem, expected: &BTreeMap<PathBuf, Seen>) {
    for (path, theirs) in expected {
        assert_eq!(seen(fs, path), *theirs, "{options}: {}", path.display());
    }
    let inline = expected.keys().filter(|path| is_inline(fs, path.to_str().unwrap())).count();
    assert!(inline > 20, "{options}: only {inline}");
}

#[test]
fn what_the_kernel_put_into_inodes_is_what_it_says() {
    for options in GEOMETRIES {
        let Some((image, expected)) = kernel::filled(options, "32M", fill, ask) else { return };
        let fs = image.open();
        compare(options, &fs, &expected);
        for name in ["file1", "file60", "file61", "directory0", "directory2"] {
            assert!(is_inline(&fs, name), "{options}: {name}");
        }
        assert!(!is_inline(&fs, "file4096") && !is_inline(&fs, "directory300"));
    }
}

#[test]
fn what_mke2fs_put_into_inodes_is_what_the_kernel_says() {
    for options in GEOMETRIES {
        let image = Image::make(options, "32M", fill);
        let Some(mounted) = kernel::Mounted::with(&image.path(), "ro,noload") else { return };
        let expected = ask(mounted.path());
        let fs = image.open();
        compare(options, &fs, &expected);
        assert!(is_inline(&fs, "link80"), "{options}");
    }
}

#[test]
fn a_read_in_the_middle_goes_over_the_joint_and_stops_at_the_end() {
    let image = Image::make(GEOMETRIES[0], "16M", fill);
    let fs = image.open();
    let (inode, expected) = (inode(&fs, &image, "file128"), pattern(128));
    assert!(inode.flags.contains(InodeFlags::INLINE_DATA));
    for begin in 0..130 {
        let mut out = [0xee; 40];
        let count = fs.read(&inode, begin, &mut out).unwrap();
        let begin = begin as usize;
        assert_eq!(count, 128_usize.saturating_sub(begin).min(40));
        assert_eq!(out[..count], expected[begin.min(128)..][..count]);
        assert!(out[count..].iter().all(|&byte| byte == 0xee));
    }
    let mapping = fs.map(&inode, FileOffset(100), 1000).unwrap();
    assert_eq!((mapping.kind, mapping.length), (MappingKind::Inline, 28));
    assert_eq!(fs.map(&inode, FileOffset(1 << 50), 1000).unwrap().kind, MappingKind::Hole);
    assert_eq!(fs.map(&inode, FileOffset(0), 0).unwrap().length, 0);
}

/// Where the first entry in an inode's body lies within it, behind the magic number.
const BODY: usize = 0x80 + 32 + 4;

fn corrupt(rule: Rule, place: Place) -> Error {
    Error::Corrupt(Corruption { rule, place })
}

#[test]
fn one_broken_field_is_told_by_its_rule_and_the_neighbours_go_on() {
    let mut image = Image::make(GEOMETRIES[0], "16M", fill);
    let (sound, number) = (image.bytes.clone(), image.number("file128"));
    let flags = image.u32(image.inode(number) + 0x20);
    let both = (flags | 0x8_0000).to_le_bytes();
    let cases: &[(usize, &[u8], Rule)] = &[
        (0x20, &both, Rule::InlineFlags),
        (0x04, &[129], Rule::InlineSize),
        (0x05, &[1], Rule::InlineSize),
        // No attributes at all, one of another name, one of another kind, one with an inode.
        (BODY - 4, &[1], Rule::InlineData),
        (BODY + 16, b"D", Rule::InlineData),
        (BODY + 1, &[6], Rule::InlineData),
        (BODY + 4, &[12], Rule::InlineData),
        (BODY + 2, &[0xff], Rule::XattrValue),
        (BODY + 8, &[0xff], Rule::XattrValue),
        (BODY, &[0xff], Rule::XattrEntry),
    ];
    for &(field, bytes, rule) in cases {
        image.bytes.clone_from(&sound);
        image.break_inode(number, field, bytes);
        let fs = image.open();
        let file = fs.inode(number).unwrap();
        let expected = corrupt(rule, Place::Inode(number.value()));
        assert_eq!(fs.read(&file, 0, &mut [0; 10]), Err(expected), "{field:#x}");
        assert_eq!(fs.map(&file, FileOffset(0), 1), Err(expected), "{field:#x}");
        let neighbour = inode(&fs, &image, "file127");
        assert_eq!(content(&fs, &neighbour), pattern(127));
    }
}

#[test]
fn damage_in_one_place_of_a_directory_hides_no_name_of_another() {
    // mke2fs puts no directory into both places.
    let Some((mut image, _)) = kernel::filled(GEOMETRIES[0], "16M", fill, |_| ()) else { return };
    let (sound, number) = (image.bytes.clone(), image.number("directory4"));
    let names = |image: &Image| {
        let fs = image.open();
        let directory = fs.inode(number).unwrap();
        let mut names = Vec::new();
        let result = fs.read_dir(&directory, 0, &mut |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            ControlFlow::Continue(())
        });
        for name in &names {
            assert!(fs.lookup(&directory, name.as_bytes()).unwrap().is_some());
        }
        (names, result)
    };
    let (all, result) = names(&image);
    assert!(all.len() == 7 && all[..2] == [".", ".."] && result == Ok(()), "{all:?}");
    let place = |block, offset| Place::Directory { inode: number.value(), block, offset };
    let data = BODY + usize::from(image.u16(image.inode(number) + BODY + 2));

    // Parent, first entry where the map would be, first entry in the attribute.
    let cases: &[(usize, &[u8], Rule, Place, usize)] = &[
        (0x28, &[0xff; 4], Rule::DirectoryInode, place(0, 12), 1),
        (0x2c + 4, &[7], Rule::DirectoryRecordLength, place(1, 0), 2),
        (data + 4, &[0xfc], Rule::DirectoryRecordEnd, place(2, 0), 2),
    ];
    for &(field, bytes, rule, place, least) in cases {
        image.bytes.clone_from(&sound);
        image.break_inode(number, field, bytes);
        let (left, result) = names(&image);
        assert_eq!(result, Err(corrupt(rule, place)));
        assert!((least..all.len()).contains(&left.len()), "{left:?}");
        assert!(left.iter().all(|name| all.contains(name)));
    }
}

#[test]
fn a_link_in_an_inode_has_no_nul_and_fits() {
    let mut image = Image::make(GEOMETRIES[0], "16M", fill);
    let (sound, number) = (image.bytes.clone(), image.number("link80"));
    for (field, bytes, rule) in [
        (0x28, &[0][..], Rule::SymlinkTarget),
        (0x04, &[0], Rule::SymlinkTarget),
        (0x04, &[200], Rule::InlineSize),
        (0x05, &[0x10], Rule::SymlinkTarget),
    ] {
        image.bytes.clone_from(&sound);
        image.break_inode(number, field, bytes);
        let fs = image.open();
        let link = fs.inode(number).unwrap();
        assert_eq!(fs.read_link(&link), Err(corrupt(rule, Place::Inode(number.value()))), "{field:#x}");
    }
}

#[test]
fn without_the_feature_no_inode_has_data_in_itself() {
    let mut image = Image::make(GEOMETRIES[0], "16M", fill);
    let number = image.number("file60");
    let incompat = image.u32(1024 + 0x60) & !0x8000;
    image.break_superblock(0x60, &incompat.to_le_bytes());
    let expected = corrupt(Rule::InodeFlags, Place::Inode(number.value()));
    assert_eq!(image.open().inode(number).err(), Some(expected));
}
