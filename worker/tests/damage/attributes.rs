//! Extended attributes: in an inode, in a block, in an inode of their own; and access control lists.

use std::fs;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_worker::ext4::InodeNumber;

use crate::case::{Case, Shape, Sound, at, block_of, hold};
use crate::image::{Image, pattern};

static SHAPE: Sound = Sound(|| {
    let mut image = Image::make("-t ext4 -b 4096 -I 256 -O ea_inode,^has_journal", "8M", |root| {
        for name in ["broken", "sound", "large", "listed"] {
            fs::write(root.join(name), name).unwrap();
        }
    });
    for path in ["/broken", "/sound"] {
        set(&mut image, path, "user.inner", &pattern(12));
        set(&mut image, path, "user.second", &pattern(8));
        set(&mut image, path, "user.outer", &pattern(500));
        set(&mut image, path, "user.third", &pattern(300));
    }
    // As long as debugfs takes it, and too long for a block.
    set(&mut image, "/large", "user.large", &pattern(4096));
    set(&mut image, "/listed", "system.posix_acl_access", &list());
    Shape::of(image)
});

/// e2fsprogs put it into the inode if there is room, and else where there is.
fn set(image: &mut Image, path: &str, name: &str, value: &[u8]) {
    let file = image.path().with_file_name("value");
    fs::write(&file, value).unwrap();
    image.change(&format!("ea_set -f {} {path} {name}", file.display()));
}

/// The owner, a user, the group, the mask, everybody else; in the form of the system calls.
fn list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 6, 1000), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 4, u32::MAX)];
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [vec![2, 0, 0, 0], entries.into_iter().flat_map(entry).collect()].concat()
}

/// Where the first entry in an inode's body lies within it, behind the magic number.
const BODY: usize = 0x80 + 32 + 4;

/// Where in a place of attributes the entry of this name begins.
fn entry(place: &[u8], name: &str) -> usize {
    place.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() - 16
}

/// Where in the inode of `path` the entry of this name begins.
fn inner(image: &Image, path: &str, name: &str) -> usize {
    let begin = image.inode(image.number(path)) + BODY;
    BODY + entry(&image.bytes[begin..begin + 256 - BODY], name)
}

fn block(image: &Image, path: &str) -> u64 {
    image.u32(image.inode(image.number(path)) + 0x68).into()
}

/// The inode of the large value.
fn holder(image: &Image) -> InodeNumber {
    let owner = image.inode(image.number("/large"));
    InodeNumber::new(image.u32(owner + inner(image, "/large", "large") + 4)).unwrap()
}

/// Breaks a field of an entry in the body of `/broken`.
macro_rules! body {
    ($rule:ident, $name:literal, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &SHAPE,
            lost: &["/broken"],
            damage: |image| {
                let (number, begin) = (image.number("/broken"), inner(image, "/broken", $name));
                image.break_inode(number, begin + $field, &$bytes);
                at(number)
            },
        }
    };
}

/// Breaks a field of the block of `/broken`, or, with a name, of the entry of this name there.
macro_rules! outer {
    ($rule:ident, header, $field:expr, $bytes:expr) => {
        outer!($rule, |_: &[u8]| 0, $field, $bytes)
    };
    ($rule:ident, $name:literal, $field:expr, $bytes:expr) => {
        outer!($rule, |place: &[u8]| entry(place, $name), $field, $bytes)
    };
    ($rule:ident, $begin:expr, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &SHAPE,
            lost: &["/broken"],
            damage: |image| {
                let (number, block) = (image.number("/broken"), block(image, "/broken"));
                let begin = $begin(&image.bytes[block as usize * 4096..][..4096]);
                image.break_attributes(block, begin + $field, &$bytes);
                Place::XattrBlock { inode: number.value(), block }
            },
        }
    };
}

/// Breaks a field of the entry of the large value (told of the owner or of the value's inode), or of the value's inode.
macro_rules! large {
    ($rule:ident, entry, $field:expr, $bytes:expr, $told:ident) => {
        large!($rule, owner, |image: &Image| inner(image, "/large", "large") + $field, $bytes, $told)
    };
    ($rule:ident, inode, $field:expr, $bytes:expr) => {
        large!($rule, holder, |_: &Image| $field, $bytes, holder)
    };
    ($rule:ident, $which:ident, $field:expr, $bytes:expr, $told:ident) => {
        Case {
            rule: Rule::$rule,
            shape: &SHAPE,
            lost: &["/large"],
            damage: |image| {
                let (number, told, field) = ($which(image), $told(image), $field(image));
                image.break_inode(number, field, &$bytes);
                at(told)
            },
        }
    };
}

fn owner(image: &Image) -> InodeNumber {
    image.number("/large")
}

/// Breaks a byte of the list of `/listed` as it stands on the disk.
macro_rules! acl {
    ($rule:ident, $field:expr, $byte:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &SHAPE,
            lost: &["/listed"],
            damage: |image| {
                let number = image.number("/listed");
                let begin = image.inode(number);
                let disk = [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0];
                let place = image.bytes[begin..begin + 256].windows(12).position(|window| window == disk).unwrap();
                image.break_inode(number, place + $field, &[$byte]);
                at(number)
            },
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    body!(XattrEntry, "inner", 0, [255]),
    body!(XattrName, "inner", 0, [0]),
    body!(XattrName, "inner", 16, [0]),
    body!(XattrName, "inner", 1, [2]),
    body!(XattrValue, "inner", 2, [0, 0]),
    body!(XattrValue, "inner", 2, [250, 0]),
    body!(XattrValue, "inner", 8, [0, 1]),
    body!(XattrValue, "inner", 11, [0xff]),
    Case {
        rule: Rule::XattrOverlap,
        shape: &SHAPE,
        lost: &["/broken"],
        damage: |image| {
            let number = image.number("/broken");
            let begin = image.inode(number);
            let (first, second) = (inner(image, "/broken", "inner"), inner(image, "/broken", "second"));
            let value = image.u16(begin + first + 2);
            image.break_inode(number, second + 2, &value.to_le_bytes());
            at(number)
        },
    },
    outer!(XattrHeader, header, 0, [1]),
    outer!(XattrHeader, header, 8, [2]),
    outer!(XattrHeader, header, 8, [0]),
    outer!(XattrName, "outer", 1, [3]),
    outer!(XattrName, "outer", 17, [0]),
    outer!(XattrValue, "outer", 2, [20, 0]),
    outer!(XattrValue, "outer", 8, [0xff, 0xff]),
    outer!(XattrEntry, |_: &[u8]| 32, 0, [0xff; 4096 - 32]),
    Case {
        rule: Rule::XattrChecksum,
        shape: &SHAPE,
        lost: &["/broken"],
        damage: |image| {
            let (number, block) = (image.number("/broken"), block(image, "/broken"));
            image.bytes[block as usize * 4096 + 2000] ^= 1;
            Place::XattrBlock { inode: number.value(), block }
        },
    },
    Case {
        rule: Rule::BlockNotSystem,
        shape: &SHAPE,
        lost: &["/broken"],
        damage: |image| {
            let number = image.number("/broken");
            let bitmap = image.u32(image.group(0));
            image.break_inode(number, 0x68, &bitmap.to_le_bytes());
            at(number)
        },
    },
    Case {
        rule: Rule::BlockInFileSystem,
        shape: &SHAPE,
        lost: &["/broken"],
        damage: |image| {
            let number = image.number("/broken");
            image.break_inode(number, 0x76, &[1]);
            at(number)
        },
    },
    large!(XattrSize, entry, 8, 65_537_u32.to_le_bytes(), owner),
    large!(XattrInodeSize, entry, 8, 4097_u32.to_le_bytes(), holder),
    large!(XattrInode, entry, 4, 2_u32.to_le_bytes(), owner),
    large!(XattrInode, entry, 4, u32::MAX.to_le_bytes(), owner),
    large!(XattrInode, inode, 0x68, [1]),
    large!(XattrInode, inode, 0x01, [0x61]),
    large!(XattrInodeSize, inode, 0x04, [1]),
    large!(InodeInUse, inode, 0x1a, [0, 0]),
    large!(XattrHash, inode, 0x08, [0, 0, 0, 0]),
    large!(XattrHash, entry, 12, [0, 0, 0, 0], holder),
    Case {
        rule: Rule::XattrHash,
        shape: &SHAPE,
        lost: &["/large"],
        damage: |image| {
            let holder = holder(image);
            let value = block_of(image, holder, 0) as usize * 4096;
            image.bytes[value] ^= 1;
            at(holder)
        },
    },
    acl!(AclForm, 0, 2),
    acl!(AclEntry, 6, 8),
    acl!(AclEntry, 4, 3),
    acl!(AclOrder, 8, 8),
];

#[test]
fn extended_attributes_and_lists() {
    hold(CASES);
}
