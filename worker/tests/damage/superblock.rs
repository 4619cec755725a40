//! The superblock and the group descriptors.

use std::fs;

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::Refusal;
use lazaret_worker::device::Device;
use lazaret_worker::ext4::{Filesystem, Settings};

use crate::case::{Case, Shape, Sound, hold};
use crate::image::{Image, pattern};

static MODERN: Sound = Sound(|| Shape::of(make("-t ext4 -b 4096 -O ^has_journal", "8M")));
static SMALL_GROUPS: Sound = Sound(|| Shape::of(make("-t ext4 -b 1024 -g 2048 -N 64 -O ^has_journal", "8M")));
static CLUSTERS: Sound = Sound(|| Shape::of(make("-t ext4 -b 4096 -C 16384 -O bigalloc,^has_journal", "16M")));
static SPREAD: Sound = Sound(|| Shape::of(make("-t ext4 -b 1024 -g 2048 -O meta_bg,^resize_inode,^has_journal", "8M")));
static CRC16: Sound =
    Sound(|| Shape::of(make("-t ext4 -b 1024 -g 2048 -N 64 -O ^metadata_csum,uninit_bg,^has_journal", "8M")));

fn make(options: &str, size: &str) -> Image {
    Image::make(options, size, |root| {
        for number in 0..20 {
            fs::write(root.join(format!("file {number}")), pattern(number * 700)).unwrap();
        }
    })
}

/// Breaks a field of the superblock: all is refused.
macro_rules! superblock {
    ($rule:ident, $shape:ident, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &$shape,
            lost: &["/"],
            damage: |image| {
                image.break_superblock($field, &$bytes);
                Place::Superblock
            },
        }
    };
}

/// Breaks a field of the descriptor of group 1: its inodes are lost, and those of the others are not.
macro_rules! descriptor {
    ($rule:ident, $shape:ident, $field:expr, $bytes:expr) => {
        Case {
            rule: Rule::$rule,
            shape: &$shape,
            lost: &[],
            damage: |image| {
                image.break_group(1, $field, &$bytes);
                Place::GroupDescriptor(1)
            },
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    superblock!(BlockSize, MODERN, 0x18, [7]),
    superblock!(BlockSize, MODERN, 0x18, [0xff; 4]),
    superblock!(InodeSize, MODERN, 0x58, [100, 0]),
    superblock!(InodeSize, MODERN, 0x58, [64, 0]),
    superblock!(InodeSize, MODERN, 0x58, [0, 32]),
    superblock!(FirstInode, MODERN, 0x54, [10, 0]),
    superblock!(DescriptorSize, MODERN, 0xfe, [48, 0]),
    superblock!(DescriptorSize, MODERN, 0xfe, [32, 0]),
    superblock!(DescriptorSize, MODERN, 0xfe, [0, 8]),
    superblock!(FirstDataBlock, MODERN, 0x14, [1]),
    superblock!(FirstDataBlock, SMALL_GROUPS, 0x14, [0]),
    superblock!(BlockCount, MODERN, 0x04, [0; 4]),
    superblock!(BlocksPerGroup, MODERN, 0x20, [0; 4]),
    superblock!(BlocksPerGroup, MODERN, 0x20, [1, 0x80, 0, 0]),
    superblock!(BlocksPerGroup, CLUSTERS, 0x24, [1, 0, 0, 0]),
    superblock!(InodesPerGroup, MODERN, 0x28, [1, 0, 0, 0]),
    superblock!(InodesPerGroup, MODERN, 0x28, [1, 0x80, 0, 0]),
    superblock!(InodeCount, MODERN, 0x00, [1]),
    superblock!(ReservedDescriptorBlocks, MODERN, 0xce, [0xff, 0xff]),
    superblock!(FirstMetaGroup, SPREAD, 0x104, [9, 0, 0, 0]),
    superblock!(ChecksumType, MODERN, 0x175, [2]),
    superblock!(ClusterSize, CLUSTERS, 0x1c, [1]),
    superblock!(ClusterSize, CLUSTERS, 0x1c, [21]),
    Case {
        rule: Rule::SuperblockChecksum,
        shape: &MODERN,
        lost: &["/"],
        damage: |image| {
            image.bytes[1024 + 0x88] ^= 1;
            Place::Superblock
        },
    },
    descriptor!(GroupInFileSystem, SMALL_GROUPS, 8, [0xf0, 0xff, 0xff, 0xff]),
    descriptor!(GroupInFileSystem, SMALL_GROUPS, 0, [0; 4]),
    descriptor!(GroupInFileSystem, SMALL_GROUPS, 4, [1, 0, 0, 0]),
    descriptor!(GroupInFileSystem, CRC16, 8, [0xfe, 0x1f, 0, 0]),
    Case {
        rule: Rule::GroupChecksum,
        shape: &SMALL_GROUPS,
        lost: &[],
        damage: |image| {
            let at = image.group(1) + 0x10;
            image.bytes[at] ^= 1;
            Place::GroupDescriptor(1)
        },
    },
    Case {
        rule: Rule::GroupChecksum,
        shape: &CRC16,
        lost: &[],
        damage: |image| {
            let at = image.group(1) + 0x1e;
            image.bytes[at] ^= 1;
            Place::GroupDescriptor(1)
        },
    },
];

#[test]
fn the_superblock_and_the_descriptors() {
    hold(CASES);
}

/// It takes a device of so many blocks: 2 GiB of zeros that nobody touches.
#[test]
fn there_are_only_so_many_groups() {
    const BLOCKS: u32 = (1 << 21) + 2;
    let mut image = make("-t ext4 -b 1024 -O ^has_journal", "8M");
    image.break_superblock(0x20, &[1, 0, 0, 0]);
    image.break_superblock(0x04, &BLOCKS.to_le_bytes());
    let mut bytes = vec![0; BLOCKS as usize * 1024];
    bytes[..4096].copy_from_slice(&image.bytes[..4096]);
    let refusal = Filesystem::open(Device::from_bytes(bytes), Settings::default()).err();
    let broken = Corruption { rule: Rule::GroupCount, place: Place::Superblock };
    assert_eq!(refusal, Some(Refusal::Corrupt(broken)));
}
