//! Merkle trees. The file has two blocks, so that there is one block of hashes between the root and the data.

use std::fs;

use lazaret_policy::corruption::{Place, Rule};
use sha2::{Digest, Sha256};

use crate::case::{Case, Shape, Sound, at, block_of, hold};
use crate::image::{Image, pattern};

const BLOCK: usize = 4096;
const LENGTH: usize = BLOCK + 1000;
/// In blocks of the file: the tree begins at 64 KiB, the descriptor behind it.
const TREE: u64 = 16;
const DESCRIPTOR: u64 = TREE + 1;

static SHAPE: Sound = Sound(|| {
    let mut image = Image::make("-t ext4 -b 4096 -O verity,^has_journal", "8M", |root| {
        fs::write(root.join("sealed"), sealed()).unwrap();
        fs::write(root.join("other"), pattern(5000)).unwrap();
    });
    let number = image.number("/sealed");
    let flags = image.bytes[image.inode(number) + 0x22];
    image.break_inode(number, 0x22, &[flags | 0x10]);
    image.break_inode(number, 0x04, &(LENGTH as u32).to_le_bytes());
    Shape::of(image)
});

/// Data, tree, descriptor and its length, as they lie on the disk.
fn sealed() -> Vec<u8> {
    let mut bytes = pattern(LENGTH);
    bytes.resize(2 * BLOCK, 0);
    let mut hashes: Vec<u8> = bytes.chunks(BLOCK).flat_map(Sha256::digest).collect();
    hashes.resize(BLOCK, 0);
    let mut descriptor = vec![1, 1, 12, 0, 0, 0, 0, 0];
    descriptor.extend((LENGTH as u64).to_le_bytes());
    descriptor.extend(Sha256::digest(&hashes));
    descriptor.resize(BLOCK - 4, 0);
    bytes.resize(TREE as usize * BLOCK, 0);
    bytes.extend(hashes);
    bytes.extend(descriptor);
    bytes.extend(256_u32.to_le_bytes());
    bytes
}

/// Writes bytes into a block of the file.
macro_rules! block {
    ($rule:ident, $block:expr, $field:expr, $bytes:expr, $place:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &SHAPE,
            lost: &["/sealed"],
            damage: |image| {
                let number = image.number("/sealed");
                let place = block_of(image, number, $block) as usize * BLOCK + $field;
                image.write(place, &$bytes);
                $place(number)
            },
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    block!(VerityDescriptor, DESCRIPTOR, 0, [2], at),
    block!(VerityDescriptor, DESCRIPTOR, 2, [9], at),
    block!(VerityDescriptor, DESCRIPTOR, 2, [17], at),
    block!(VerityDescriptor, DESCRIPTOR, 3, [33], at),
    block!(VerityDescriptor, DESCRIPTOR, 0x70, [1], at),
    block!(VerityDescriptor, DESCRIPTOR, BLOCK - 4, [255, 0, 0, 0], at),
    block!(VeritySize, DESCRIPTOR, 8, [1], at),
    block!(VeritySize, DESCRIPTOR, 15, [1], at),
    block!(VerityPlace, DESCRIPTOR, BLOCK - 4, [0xff; 4], at),
    block!(VerityPlace, DESCRIPTOR, BLOCK - 4, [0, 0x20, 0, 0], at),
    block!(VerityHash, DESCRIPTOR, 0x10, [0; 3], |number: lazaret_worker::ext4::InodeNumber| Place::Merkle {
        inode: number.value(),
        block: 0
    }),
    block!(VerityHash, TREE, 4000, [1], |number: lazaret_worker::ext4::InodeNumber| Place::Merkle {
        inode: number.value(),
        block: 0
    }),
    block!(VerityHash, 0, 7, [0, 0], |number: lazaret_worker::ext4::InodeNumber| Place::Data {
        inode: number.value(),
        block: 0
    }),
    // A file that only says that it has a tree.
    Case {
        rule: Rule::VerityPlace,
        shape: &SHAPE,
        lost: &["/other"],
        damage: |image| {
            let number = image.number("/other");
            let flags = image.bytes[image.inode(number) + 0x22];
            image.break_inode(number, 0x22, &[flags | 0x10]);
            at(number)
        },
    },
];

#[test]
fn merkle_trees() {
    hold(CASES);
}
