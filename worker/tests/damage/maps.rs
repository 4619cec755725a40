//! The maps of files: extent trees and indirect blocks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_worker::ext4::InodeNumber;

use crate::case::{Case, Shape, Sound, at, hold};
use crate::image::{Image, pattern};

fn fill(root: &Path) {
    fs::write(root.join("file"), pattern(10_000)).unwrap();
    fs::write(root.join("other"), pattern(300_000)).unwrap();
    let many = File::create(root.join("many")).unwrap();
    for index in 0..200u32 {
        many.write_all_at(&(index + 1).to_le_bytes(), u64::from(index) * 8192).unwrap();
    }
}

static EXTENTS: Sound = Sound(|| Shape::of(Image::make("-t ext4 -b 1024", "8M", fill)));
static POINTERS: Sound = Sound(|| Shape::of(Image::make("-t ext2 -b 1024", "8M", fill)));

/// Breaks a field of the inode of a file: its map begins there.
macro_rules! root {
    ($rule:ident, $shape:ident, $path:literal, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &$shape,
            lost: &[$path],
            damage: |image| {
                let number = image.number($path);
                let bytes: fn(&Image) -> Vec<u8> = $bytes;
                let bytes = bytes(image);
                image.break_inode(number, $field, &bytes);
                at(number)
            },
        }
    };
}

/// Breaks a field of the second leaf of `/many`; or, behind the header, of its entry of this number.
macro_rules! leaf {
    ($rule:ident, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &EXTENTS,
            lost: &["/many"],
            damage: |image| {
                let (number, block) = second_leaf(image);
                image.break_node(number, block, $field, &$bytes);
                Place::ExtentNode { inode: number.value(), block }
            },
        }
    };
}

/// Writes a pointer into the inode of `/other`, or into a block of pointers.
macro_rules! pointer {
    ($rule:ident, $where:expr, $pointer:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &POINTERS,
            lost: &["/other"],
            damage: |image| {
                let number = image.number("/other");
                let map = image.inode(number) + 0x28;
                let (block, index): (Option<usize>, usize) = $where;
                let pointer: fn(&Image) -> u32 = $pointer;
                let pointer = pointer(image).to_le_bytes();
                let Some(slot) = block else {
                    image.write(map + index * 4, &pointer);
                    return at(number);
                };
                let block = image.u32(map + slot * 4);
                image.write(block as usize * 1024 + index * 4, &pointer);
                Place::IndirectBlock { inode: number.value(), block: block.into() }
            },
        }
    };
}

fn second_leaf(image: &Image) -> (InodeNumber, u64) {
    let number = image.number("/many");
    let root = image.inode(number) + 0x28;
    assert_eq!((image.u16(root + 2), image.u16(root + 6)), (3, 1), "200 extents in three leaves");
    (number, image.u32(root + 12 + 12 + 4).into())
}

/// A block of the inode table.
fn table(image: &Image) -> u32 {
    image.u32(image.group(0) + 8)
}

/// The last block of the journal.
fn journal(image: &Image) -> u32 {
    let map = image.inode(InodeNumber::new(8).unwrap()) + 0x28;
    image.u32(map + 12 + 8) + u32::from(image.u16(map + 12 + 4)) - 1
}

pub(crate) const CASES: &[Case] = &[
    root!(ExtentMagic, EXTENTS, "/file", 0x28, |_| vec![0]),
    root!(ExtentDepth, EXTENTS, "/file", 0x2e, |_| vec![6]),
    root!(ExtentCount, EXTENTS, "/file", 0x2a, |_| vec![5]),
    root!(ExtentCount, EXTENTS, "/file", 0x2c, |_| vec![0]),
    root!(ExtentCount, EXTENTS, "/file", 0x2c, |_| vec![5]),
    root!(ExtentCount, EXTENTS, "/file", 0x2a, |_| vec![0, 0, 4, 0, 1]),
    root!(ExtentLength, EXTENTS, "/file", 0x38, |_| vec![0, 0]),
    root!(ExtentRange, EXTENTS, "/file", 0x34, |_| vec![0xff; 4]),
    root!(BlockInFileSystem, EXTENTS, "/file", 0x3a, |_| vec![1, 0]),
    root!(BlockInFileSystem, EXTENTS, "/file", 0x3c, |_| vec![0xff, 0x1f, 0, 0]),
    root!(BlockInFileSystem, EXTENTS, "/file", 0x3c, |_| vec![0; 4]),
    root!(BlockNotSystem, EXTENTS, "/file", 0x3c, |_| vec![2, 0, 0, 0]),
    root!(BlockNotSystem, EXTENTS, "/file", 0x3c, |image| table(image).to_le_bytes().to_vec()),
    root!(BlockNotSystem, EXTENTS, "/file", 0x3c, |image| journal(image).to_le_bytes().to_vec()),
    leaf!(ExtentMagic, 0, [0]),
    leaf!(ExtentDepth, 6, [1]),
    leaf!(ExtentDepth, 6, [0xff, 0xff]),
    leaf!(ExtentCount, 2, [200]),
    leaf!(ExtentCount, 4, [86, 0]),
    leaf!(ExtentRange, 12, [0; 4]),
    leaf!(ExtentRange, 24, [0; 4]),
    leaf!(ExtentOrder, 12 + 5 * 12 + 4, [200, 0]),
    leaf!(ExtentRange, 12 + 4, [0, 0x80]),
    leaf!(ExtentLength, 12 + 4, [0, 0]),
    leaf!(BlockNotSystem, 12 + 8, [2, 0, 0, 0]),
    leaf!(BlockInFileSystem, 12 + 6, [1, 0]),
    Case {
        rule: Rule::ExtentChecksum,
        shape: &EXTENTS,
        lost: &["/many"],
        damage: |image| {
            let (number, block) = second_leaf(image);
            image.bytes[block as usize * 1024 + 8] ^= 1;
            Place::ExtentNode { inode: number.value(), block }
        },
    },
    pointer!(BlockInFileSystem, (None, 0), |_| 8192),
    pointer!(BlockInFileSystem, (None, 12), |_| u32::MAX),
    pointer!(BlockNotSystem, (None, 13), table),
    pointer!(BlockInFileSystem, (Some(12), 20), |_| 1),
    pointer!(BlockNotSystem, (Some(12), 255), |image| table(image) + 1),
    pointer!(BlockNotSystem, (Some(13), 0), |_| 2),
];

#[test]
fn the_maps_of_files() {
    hold(CASES);
}
