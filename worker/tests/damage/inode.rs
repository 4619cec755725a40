//! Inodes and short links.

use std::fs;
use std::os::unix::fs::symlink;

use lazaret_policy::corruption::Rule;

use crate::case::{Case, Shape, Sound, at, block_of, hold};
use crate::image::{Image, pattern};

static SHAPE: Sound = Sound(|| {
    Shape::of(Image::make("-t ext4 -b 4096 -O ^has_journal", "8M", |root| {
        fs::write(root.join("file"), pattern(10_000)).unwrap();
        fs::write(root.join("other"), pattern(300_000)).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
        fs::write(root.join("directory/inside"), b"inside").unwrap();
        symlink("file", root.join("fast")).unwrap();
        symlink("x/".repeat(200), root.join("slow")).unwrap();
    }))
});

/// Breaks a field of the inode of `path`: the object is lost, with what is beneath it.
macro_rules! inode {
    ($rule:ident, $path:literal, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &SHAPE,
            lost: &[$path],
            damage: |image| {
                let number = image.number($path);
                image.break_inode(number, $field, &$bytes);
                at(number)
            },
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    inode!(InodeExtraSize, "/file", 0x80, [0xfc, 0xff]),
    inode!(InodeExtraSize, "/file", 0x80, [30, 0]),
    inode!(InodeExtraSize, "/directory", 0x80, [132, 0]),
    inode!(InodeInUse, "/file", 0x1a, [0, 0]),
    inode!(InodeInUse, "/directory", 0x1a, [0, 0]),
    inode!(InodeMode, "/file", 0x00, [0xa4, 0x01]),
    inode!(InodeMode, "/slow", 0x01, [0xb1]),
    // Data in the inode, ciphertext, folded case, the value of an attribute: each without its feature.
    inode!(InodeFlags, "/file", 0x23, [0x10]),
    inode!(InodeFlags, "/file", 0x21, [0x08]),
    inode!(InodeFlags, "/directory", 0x23, [0x40]),
    inode!(InodeFlags, "/file", 0x22, [0x28]),
    inode!(FileSize, "/file", 0x6c, [0xff, 0xff, 0xff, 0x7f]),
    inode!(SymlinkTarget, "/fast", 0x04, [0]),
    inode!(SymlinkTarget, "/fast", 0x29, [0]),
    inode!(SymlinkTarget, "/slow", 0x05, [0x10]),
    inode!(SymlinkTarget, "/fast", 0x04, [60]),
    Case {
        rule: Rule::SymlinkTarget,
        shape: &SHAPE,
        lost: &["/slow"],
        damage: |image| {
            let number = image.number("/slow");
            let block = block_of(image, number, 0) as usize;
            image.write(block * 4096 + 100, &[0]);
            at(number)
        },
    },
    Case {
        rule: Rule::InodeChecksum,
        shape: &SHAPE,
        lost: &["/file"],
        damage: |image| {
            let number = image.number("/file");
            let place = image.inode(number) + 0x08;
            image.bytes[place] ^= 1;
            at(number)
        },
    },
    // The upper half, and what lies behind the fields that are in use.
    Case {
        rule: Rule::InodeChecksum,
        shape: &SHAPE,
        lost: &["/directory"],
        damage: |image| {
            let number = image.number("/directory");
            let place = image.inode(number) + 0x82;
            image.bytes[place] ^= 1;
            at(number)
        },
    },
    Case {
        rule: Rule::InodeChecksum,
        shape: &SHAPE,
        lost: &["/other"],
        damage: |image| {
            let number = image.number("/other");
            let place = image.inode(number) + 0xf0;
            image.bytes[place] ^= 1;
            at(number)
        },
    },
];

#[test]
fn inodes_and_links() {
    hold(CASES);
}
