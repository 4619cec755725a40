//! Data in inodes.

use std::fs;
use std::os::unix::fs::symlink;

use lazaret_policy::corruption::{Place, Rule};

use crate::case::{Case, Shape, Sound, at, hold};
use crate::image::{Image, pattern};

static SHAPE: Sound = Sound(|| {
    Shape::of(Image::make("-t ext4 -b 4096 -I 256 -O inline_data,^has_journal", "8M", |root| {
        fs::write(root.join("file"), pattern(128)).unwrap();
        fs::write(root.join("other"), pattern(127)).unwrap();
        fs::write(root.join("large"), pattern(30_000)).unwrap();
        symlink("x".repeat(80), root.join("link")).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
        fs::write(root.join("directory/inside"), b"inside").unwrap();
    }))
});

/// Where the first entry in an inode's body lies within it, behind the magic number.
const BODY: usize = 0x80 + 32 + 4;

/// Breaks a field of the inode of `path`.
macro_rules! inode {
    ($rule:ident, $path:literal, $field:expr, $bytes:expr) => {
        inode!($rule, $path, $field, $bytes, at)
    };
    ($rule:ident, $path:literal, $field:expr, $bytes:expr, $place:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &SHAPE,
            lost: &[$path],
            damage: |image| {
                let number = image.number($path);
                image.break_inode(number, $field, &$bytes);
                $place(number)
            },
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    // The flag of extents beside that of data in the inode.
    inode!(InlineFlags, "/file", 0x22, [0x08]),
    inode!(InlineSize, "/file", 0x04, [129]),
    inode!(InlineSize, "/file", 0x05, [1]),
    inode!(InlineSize, "/link", 0x04, [200]),
    // No attributes at all, one of another name, one of another kind, one with an inode.
    inode!(InlineData, "/file", BODY - 4, [1]),
    inode!(InlineData, "/file", BODY + 16, *b"D"),
    inode!(InlineData, "/link", BODY + 1, [6]),
    inode!(SymlinkTarget, "/link", 0x28, [0]),
    inode!(SymlinkTarget, "/link", 0x04, [0]),
    // The number of the parent, and the first entry.
    inode!(DirectoryInode, "/directory", 0x28, [0xff; 4], |number: lazaret_worker::ext4::InodeNumber| {
        Place::Directory { inode: number.value(), block: 0, offset: 12 }
    }),
    inode!(DirectoryRecordLength, "/directory", 0x2c + 4, [7], |number: lazaret_worker::ext4::InodeNumber| {
        Place::Directory { inode: number.value(), block: 1, offset: 0 }
    }),
];

#[test]
fn data_in_inodes() {
    hold(CASES);
}
