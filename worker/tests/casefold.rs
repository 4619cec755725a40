//! Directories that fold case, sorted into trees by e2fsprogs with its own tables of Unicode 12.1, and compared with
//! the kernel where that has them.

mod image;
mod kernel;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use image::Image;
use kernel::Mounted;
use lazaret_policy::warning::Warnings;
use lazaret_worker::error::Error;
use lazaret_worker::ext4::casefold::Encoding;
use lazaret_worker::ext4::{Filesystem, Inode, InodeFlags, InodeNumber};

/// Where the superblock says how names are encoded, and its flags.
const ENCODING: usize = 0x27c;
const ENCODING_FLAGS: usize = 0x27e;
const STRICT: u16 = 1;
const HASHED_ONLY: u16 = 2;

const FILE_SYSTEM: &str = "-t ext4 -b 1024 -O casefold,^resize_inode";

/// Names and others that mean the same.
const ALIKE: &[(&str, &[&str])] = &[
    ("Readme.TXT", &["readme.txt", "README.TXT", "Readme\u{ad}.TXT"]),
    ("Straße", &["STRASSE", "straSSe", "STRA\u{1e9e}E"]),
    ("Caf\u{e9}", &["CAFE\u{301}", "caf\u{c9}"]),
    ("\u{212b}ngstr\u{f6}m", &["\u{e5}NGSTRO\u{308}M"]),
    ("\u{39f}\u{394}\u{39f}\u{3a3}", &["\u{3bf}\u{3b4}\u{3bf}\u{3c2}", "\u{3bf}\u{3b4}\u{3bf}\u{3c3}"]),
    ("\u{ac01}\u{ac00}", &["\u{1100}\u{1161}\u{11a8}\u{1100}\u{1161}"]),
    ("\u{416}\u{443}\u{43a}", &["\u{436}\u{423}\u{41a}"]),
    ("\u{1f600}X", &["\u{1f600}x"]),
    // Assigned after 12.1: it stands for itself, and lies in the tree where that leads.
    ("\u{a7c7}Y\u{1f9cc}", &["\u{a7c7}y\u{1f9cc}"]),
];

/// Names that are not UTF-8, and so are only their own bytes.
const OPAQUE: &[&[u8]] = &[b"Opaque\xff", b"\xc3(", b"\xed\xa0\x80S"];

/// Enough names of one letter case to fill a tree of two levels.
fn many() -> impl Iterator<Item = String> {
    (0..900)
        .map(|number| format!("A Long Name To Fill The Directory With, So That Its Tree Has Nodes, Number {number}"))
}

/// Names of the directory `d`: e2fsck 1.47.0 sorts no directory that folds case and has a name which is not UTF-8.
fn opaque(sorted: bool) -> &'static [&'static [u8]] {
    if sorted { &[] } else { OPAQUE }
}

/// The directory `d` folds case. Sorted, it has a hash tree.
fn folding(sorted: bool) -> Image {
    let mut image = Image::make(FILE_SYSTEM, "16M", |root| {
        std::fs::create_dir(root.join("d")).unwrap();
        let names =
            ALIKE.iter().map(|(name, _)| name.as_bytes()).chain(opaque(sorted).iter().copied()).map(<[u8]>::to_vec);
        for name in names.chain(many().filter(|_| sorted).map(String::into_bytes)) {
            File::create(root.join("d").join(OsStr::from_bytes(&name))).unwrap();
        }
    });
    let flags = image.u32(image.inode(image.number("d")) + 0x20);
    image.change(&format!("set_inode_field d flags {}", flags | InodeFlags::CASEFOLD.bits()));
    if sorted {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut e2fsck = Command::new("e2fsck");
        e2fsck.env("PATH", format!("{path}:/usr/sbin:/sbin")).arg("-fyD").arg(image.path());
        assert!(e2fsck.output().unwrap().status.code().is_some_and(|code| code <= 1));
        image.reload();
    }
    image
}

fn directory(fs: &Filesystem, image: &Image) -> Inode {
    let directory = fs.inode(image.number("d")).unwrap();
    assert!(directory.flags.contains(InodeFlags::CASEFOLD));
    directory
}

/// Whether looking for `asked` finds the entry that is spelt `stored`.
fn finds(fs: &Filesystem, directory: &Inode, asked: &[u8], stored: &[u8]) -> bool {
    let mut number = None;
    fs.read_dir(directory, 0, &mut |entry| {
        number = number.or((entry.name == stored).then_some(entry.inode));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let number = number.unwrap_or_else(|| panic!("{stored:?} is not listed"));
    fs.lookup(directory, asked).unwrap() == Some(number)
}

fn assert_folds(image: &Image, sorted: bool) {
    let fs = image.open();
    let directory = directory(&fs, image);
    for (name, others) in ALIKE {
        for other in others.iter().chain([name]) {
            assert!(finds(&fs, &directory, other.as_bytes(), name.as_bytes()), "{name} by {other}");
        }
    }
    for name in opaque(sorted) {
        assert!(finds(&fs, &directory, name, name), "{name:?}");
        let other = name.to_ascii_lowercase();
        assert!(other == *name || fs.lookup(&directory, &other) == Ok(None), "{name:?}");
    }
    for absent in ["Readme.TX", "Cafe", "\u{131}", ".\u{ad}", "..\u{200d}", "\u{ad}", "\u{a7c8}y\u{1f9cd}"] {
        assert_eq!(fs.lookup(&directory, absent.as_bytes()), Ok(None), "{absent:?}");
    }
}

#[test]
fn names_are_found_in_any_case_block_by_block() {
    assert_folds(&folding(false), false);
}

#[test]
fn names_are_found_in_any_case_in_a_tree_that_e2fsprogs_sorted() {
    let mut image = folding(true);
    let fs = image.open();
    assert!(directory(&fs, &image).flags.contains(InodeFlags::INDEX));
    assert_eq!(fs.superblock().encoding, Some(Encoding::Utf8 { strict: false, hashed_only: false }));
    assert_folds(&image, true);

    // Without a search block by block the tree must lead to every name in ASCII.
    image.break_superblock(ENCODING_FLAGS, &HASHED_ONLY.to_le_bytes());
    assert_folds(&image, true);
    let fs = image.open();
    let directory = directory(&fs, &image);
    for name in many() {
        let number = fs.lookup(&directory, name.as_bytes()).unwrap();
        assert!(number.is_some(), "{name}");
        for other in [name.to_lowercase(), name.to_uppercase()] {
            assert_eq!(fs.lookup(&directory, other.as_bytes()).unwrap(), number, "{other}");
        }
        let absent = name.replace("Fill", "fell");
        assert_eq!(fs.lookup(&directory, absent.as_bytes()), Ok(None));
    }
}

/// The same names through the kernel, if it folds.
#[test]
fn the_kernel_finds_the_same_names() {
    if !Path::new("/sys/fs/ext4/features/casefold").exists() {
        eprintln!("skipped: this kernel's ext4 does not fold case; e2fsprogs' tables are compared instead");
        return;
    }
    for sorted in [false, true] {
        let image = folding(sorted);
        let Some(mounted) = Mounted::of(&image.path()) else { return };
        let fs = image.open();
        let directory = directory(&fs, &image);
        let alike = ALIKE.iter().flat_map(|(name, others)| others.iter().chain([name])).map(|name| name.as_bytes());
        for name in alike.chain(opaque(sorted).iter().copied()).chain([&b"absent"[..], b"opaque\xff"]) {
            let theirs = mounted.path().join("d").join(OsStr::from_bytes(name)).symlink_metadata();
            let ours = fs.lookup(&directory, name).unwrap().map(|number| u64::from(number.value()));
            assert_eq!(ours, theirs.ok().map(|stat| stat.ino()), "{name:?}");
        }
    }
}

#[test]
fn what_is_spelt_so_comes_before_what_is_alike() {
    let mut image = Image::make(FILE_SYSTEM, "16M", |root| {
        std::fs::create_dir(root.join("d")).unwrap();
        for name in ["same", "Same", "SAMe", "other"] {
            File::create(root.join("d").join(name)).unwrap();
        }
    });
    let flags = image.u32(image.inode(image.number("d")) + 0x20);
    image.break_inode(image.number("d"), 0x20, &(flags | InodeFlags::CASEFOLD.bits()).to_le_bytes());
    let fs = image.open();
    let directory = directory(&fs, &image);
    for name in ["same", "Same", "SAMe"] {
        assert_eq!(fs.lookup(&directory, name.as_bytes()), Ok(Some(image.number(&format!("d/{name}")))));
    }
    let any = ["same", "Same", "SAMe"].map(|name| image.number(&format!("d/{name}")));
    assert!(fs.lookup(&directory, b"sAmE").unwrap().is_some_and(|number| any.contains(&number)));

    // The directory above does not fold.
    let root = fs.inode(InodeNumber::ROOT).unwrap();
    assert_eq!(fs.lookup(&root, b"D"), Ok(None));
    assert_eq!(fs.lookup(&root, b"d"), Ok(Some(directory.number)));
}

#[test]
fn where_only_utf_8_may_be_other_names_make_no_sense() {
    for sorted in [false, true] {
        let mut image = folding(sorted);
        image.break_superblock(ENCODING_FLAGS, &STRICT.to_le_bytes());
        let fs = image.open();
        let directory = directory(&fs, &image);
        assert_eq!(fs.lookup(&directory, b"absent\xff"), Err(Error::Invalid));
        assert_eq!(fs.lookup(&directory, b"absent"), Ok(None));
        for name in opaque(sorted) {
            assert!(finds(&fs, &directory, name, name), "what is there is found all the same");
        }
        assert!(finds(&fs, &directory, b"README.txt", b"Readme.TXT"));
    }
}

#[test]
fn in_an_unknown_encoding_names_are_found_by_their_own_bytes() {
    for sorted in [false, true] {
        let mut image = folding(sorted);
        image.break_superblock(ENCODING, &9_u16.to_le_bytes());
        let fs = image.open();
        assert_eq!(fs.superblock().encoding, Some(Encoding::Unknown));
        assert!(fs.warnings().contains(Warnings::ENCODING));
        let directory = directory(&fs, &image);
        for name in ALIKE.iter().map(|(name, _)| name.as_bytes()).chain(opaque(sorted).iter().copied()) {
            assert!(finds(&fs, &directory, name, name), "{name:?}");
        }
        assert_eq!(fs.lookup(&directory, b"readme.txt"), Ok(None));
    }
}
