//! Directories: records one behind the other, and hash trees.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::process::Command;

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_worker::error::Error;
use lazaret_worker::ext4::InodeNumber;

use crate::case::{Case, Shape, Sound, block_of, hold};
use crate::image::{Image, pattern};

static LINEAR: Sound = Sound(|| Shape::of(linear()));
/// Names so long that the tree has a level of nodes between its root and the leaves.
static HASHED: Sound = Sound(|| {
    let mut image = with_names("-t ext4 -b 1024 -O ^has_journal -N 2048", 900, 255);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut e2fsck = Command::new("e2fsck");
    e2fsck.env("PATH", format!("{path}:/usr/sbin:/sbin")).arg("-fyD").arg(image.path());
    let output = e2fsck.output().unwrap();
    assert!(output.status.code().is_some_and(|code| code <= 1), "{}", String::from_utf8_lossy(&output.stdout));
    image.reload();
    let directory = image.number("/d");
    assert_eq!(image.bytes[block_of(&image, directory, 0) as usize * 1024 + 30], 1, "one level of nodes");
    Shape::of(image)
});

fn linear() -> Image {
    with_names("-t ext4 -b 1024 -O ^has_journal", 100, 20)
}

/// The directory `d`, full of names, and beside it others.
fn with_names(options: &str, count: u32, length: usize) -> Image {
    Image::make(options, "8M", |root| {
        fs::create_dir(root.join("d")).unwrap();
        for number in 0..count {
            File::create(root.join(format!("d/{number:0>length$}"))).unwrap();
        }
        fs::create_dir(root.join("beside")).unwrap();
        fs::write(root.join("beside/file"), pattern(3000)).unwrap();
    })
}

fn place(directory: InodeNumber, block: u64, offset: u32) -> Place {
    Place::Directory { inode: directory.value(), block: block as u32, offset }
}

/// Breaks a field of a record in the second block of `d`: the sixth, each 28 bytes long.
macro_rules! record {
    ($rule:ident, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &LINEAR,
            lost: &["/d"],
            damage: |image| {
                const SIXTH: usize = 28 * 5;
                let directory = image.number("/d");
                image.break_directory(directory, block_of(image, directory, 1), SIXTH + $field, &$bytes);
                place(directory, 1, SIXTH as u32)
            },
        }
    };
}

/// Bits of a byte of a block, with the checksum left as it was.
macro_rules! unsealed {
    ($shape:ident, $block:literal, $at:expr, $bits:literal) => {
        Case {
            rule: Rule::DirectoryChecksum,
            shape: &$shape,
            lost: &["/d"],
            damage: |image| {
                let directory = image.number("/d");
                let block = block_of(image, directory, $block) as usize;
                image.bytes[block * 1024 + $at] ^= $bits;
                place(directory, $block, 0)
            },
        }
    };
}

/// Breaks a field of the tree's root, or of its first node; `$offset` is the byte that is told.
macro_rules! tree {
    ($rule:ident, root, $field:expr, $bytes:expr, $offset:expr) => {
        tree!($rule, |_| 0, $field, |_| $bytes.to_vec(), |_| 0, $offset)
    };
    ($rule:ident, node, $field:expr, $bytes:expr, $offset:expr) => {
        tree!($rule, first_node, $field, |_| $bytes.to_vec(), first_node, $offset)
    };
    ($rule:ident, $block:expr, $field:expr, $bytes:expr, $told:expr, $offset:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &HASHED,
            lost: &["/d"],
            damage: |image| {
                let directory = image.number("/d");
                let (block, told): (fn(&Image) -> u64, fn(&Image) -> u64) = ($block, $told);
                let bytes: fn(&Image) -> Vec<u8> = $bytes;
                let (block, told, bytes) = (block(image), told(image), bytes(image));
                image.break_directory(directory, block_of(image, directory, block), $field, &bytes);
                place(directory, told, $offset)
            },
        }
    };
}

/// The first child in a block of the tree, whose entries begin at this byte: a block of the directory.
fn first_child(image: &Image, block: u64, begin: usize) -> u64 {
    let at = block_of(image, image.number("/d"), block) as usize * 1024;
    image.u32(at + begin + 4).into()
}

fn first_node(image: &Image) -> u64 {
    first_child(image, 0, 32)
}

fn first_leaf(image: &Image) -> u64 {
    first_child(image, first_node(image), 8)
}

fn word(number: u64) -> Vec<u8> {
    (number as u32).to_le_bytes().to_vec()
}

pub(crate) const CASES: &[Case] = &[
    record!(DirectoryRecordLength, 4, [13, 0]),
    record!(DirectoryRecordLength, 4, [8, 0]),
    record!(DirectoryRecordLength, 6, [200]),
    record!(DirectoryRecordEnd, 4, [0, 8]),
    record!(DirectoryInode, 0, [0xff; 4]),
    record!(DirectoryName, 6, [0]),
    record!(DirectoryName, 8, *b"/"),
    record!(DirectoryName, 12, [0]),
    unsealed!(LINEAR, 1, 1020, 1),
    // What looks like an empty record around the checksum.
    unsealed!(LINEAR, 0, 1024 - 12 + 7, 3),
    unsealed!(HASHED, 0, 36, 0x10),
    tree!(HtreeRoot, root, 4, [16, 0], 0),
    tree!(HtreeRoot, root, 24, [1], 0),
    tree!(HtreeRoot, root, 29, [12], 0),
    tree!(HtreeDepth, root, 30, [2], 30),
    tree!(HtreeDepth, root, 30, [255], 30),
    tree!(HtreeLimit, root, 32, [124], 0),
    tree!(HtreeLimit, root, 34, [0, 0], 0),
    tree!(HtreeLimit, root, 34, [125, 0], 0),
    tree!(HtreeLimit, node, 8, [1], 0),
    tree!(HtreeLimit, node, 10, [0xff, 0xff], 0),
    tree!(HtreeOrder, node, 16 + 8, [2, 0, 0, 0], 8),
    tree!(HtreeBlock, root, 36, [0; 4], 0),
    tree!(HtreeBlock, root, 36, [0xff; 4], 0),
    // A child that is its own parent; one behind the end.
    tree!(HtreeBlock, first_node, 12, |image| word(first_node(image)), first_node, 0),
    tree!(HtreeBlock, first_node, 12, |_| word(4000), first_node, 0),
    // A leaf in the place of a node.
    tree!(HtreeNode, |_| 0, 36, |image| word(first_leaf(image)), first_leaf, 0),
];

#[test]
fn directories() {
    hold(CASES);
}

/// Whoever reads a directory piece by piece was given the damage with one of the pieces, or is told of it at the end.
#[test]
fn damage_in_a_directory_is_told_at_its_end() {
    let mut image = linear();
    let directory = image.number("/d");
    image.break_directory(directory, block_of(&image, directory, 1), 28 * 5 + 4, &[13, 0]);
    let fs = image.open();
    let inode = fs.inode(directory).unwrap();
    let (mut cookie, mut count) = (0, 0);
    let result = loop {
        let before = cookie;
        let result = fs.read_dir(&inode, before, &mut |entry| {
            if cookie != before {
                return ControlFlow::Break(());
            }
            (cookie, count) = (entry.cookie, count + 1);
            ControlFlow::Continue(())
        });
        if cookie == before {
            break result;
        }
    };
    let whole = Corruption { rule: Rule::DirectoryWhole, place: Place::Inode(directory.value()) };
    assert_eq!(result, Err(Error::Corrupt(whole)));
    assert!((40..102).contains(&count), "{count}");
}
