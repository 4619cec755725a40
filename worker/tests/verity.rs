//! Files with a Merkle tree: read as they are, and with every block checked against the tree.
//!
//! The trees are made here, from the words of the format alone, and held to those of fsverity-utils where that is
//! installed; the kernel that these tests run on need not know fs-verity. mke2fs puts data, tree and descriptor into one
//! file, and then the file is said to end where its data does.

mod image;

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{Image, content, inode, pattern};
use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::Verity;
use lazaret_worker::device::Device;
use lazaret_worker::error::Error;
use lazaret_worker::ext4::{Filesystem, Inode, Settings};
use sha2::{Digest, Sha256, Sha512};

/// How a file is sealed.
#[derive(Clone, Copy, Debug)]
struct Seal {
    sha512: bool,
    block: usize,
    salt: &'static [u8],
}

const PLAIN: Seal = Seal { sha512: false, block: 4096, salt: b"" };

impl Seal {
    fn hash(&self, block: &[u8]) -> Vec<u8> {
        let mut bytes = self.salt.to_vec();
        if !bytes.is_empty() {
            bytes.resize(if self.sha512 { 128 } else { 64 }, 0);
        }
        bytes.extend(block);
        bytes.resize(bytes.len() - block.len() + self.block, 0);
        if self.sha512 { Sha512::digest(&bytes).to_vec() } else { Sha256::digest(&bytes).to_vec() }
    }

    /// The levels, the lowest first, and the root.
    fn tree(&self, data: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut levels = Vec::new();
        let mut hashes: Vec<_> = data.chunks(self.block).map(|block| self.hash(block)).collect();
        while hashes.len() > 1 {
            let mut level = hashes.concat();
            let filled = level.len().next_multiple_of(self.block);
            level.resize(filled, 0);
            hashes = level.chunks(self.block).map(|block| self.hash(block)).collect();
            levels.push(level);
        }
        (levels, hashes.pop().unwrap_or_else(|| vec![0; if self.sha512 { 64 } else { 32 }]))
    }

    fn descriptor(&self, size: usize, root: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, 1 + u8::from(self.sha512), self.block.ilog2() as u8, self.salt.len() as u8, 0, 0, 0, 0];
        bytes.extend((size as u64).to_le_bytes());
        bytes.extend(root);
        bytes.resize(0x50, 0);
        bytes.extend(self.salt);
        bytes.resize(256, 0);
        bytes
    }

    /// What lies on the disk, with blocks of this size: data, tree, descriptor, its length.
    fn sealed(&self, data: &[u8], block_size: usize) -> Vec<u8> {
        let (levels, root) = self.tree(data);
        let mut bytes = data.to_vec();
        bytes.resize(data.len().next_multiple_of(65536), 0);
        bytes.extend(levels.iter().rev().flatten());
        bytes.resize(bytes.len().next_multiple_of(block_size), 0);
        bytes.extend(self.descriptor(data.len(), &root));
        bytes.resize((bytes.len() + 4).next_multiple_of(block_size) - 4, 0);
        bytes.extend(256u32.to_le_bytes());
        bytes
    }

    fn image(&self, data: &[u8], options: &str) -> Image {
        let options = format!("-t ext4 -O verity,^has_journal {options}");
        let mut image = Image::make(&options, "48M", |root| {
            let size = options.split_once("-b ").map_or(4096, |(_, size)| size.parse().unwrap());
            fs::write(root.join("sealed"), self.sealed(data, size)).unwrap();
            fs::write(root.join("other"), pattern(5000)).unwrap();
        });
        let number = image.number("sealed");
        let flags = image.u32(image.inode(number) + 0x20) | 0x10_0000;
        image.break_inode(number, 4, &(data.len() as u32).to_le_bytes());
        image.break_inode(number, 0x20, &flags.to_le_bytes());
        image
    }
}

fn open(image: &Image, verity: Verity) -> Filesystem {
    let settings = Settings { verity, ..Settings::default() };
    Filesystem::open(Device::from_bytes(image.bytes.clone()), settings).unwrap()
}

/// Which byte of the device holds this byte of a file.
fn place(fs: &Filesystem, inode: &Inode, offset: usize) -> usize {
    use lazaret_worker::ext4::{FileOffset, MappingKind};
    match fs.map(inode, FileOffset(offset as u64), 1).unwrap().kind {
        MappingKind::Data(start) => start.0 as usize,
        other => panic!("{offset}: {other:?}"),
    }
}

/// The blocks of a file that cannot be read, with what is said of each.
fn unreadable(fs: &Filesystem, inode: &Inode, block: usize) -> Vec<(usize, Error)> {
    let blocks = (inode.size as usize).div_ceil(block);
    let mut out = vec![0; block];
    (0..blocks).filter_map(|index| Some((index, fs.read(inode, (index * block) as u64, &mut out).err()?))).collect()
}

fn mismatch(place: Place) -> Error {
    Error::Checksum(Corruption { rule: Rule::VerityHash, place })
}

#[test]
fn sound_files_come_out_whole_by_every_hash_and_every_size() {
    let seals = [
        (PLAIN, "-b 4096"),
        (PLAIN, "-b 1024"),
        (Seal { sha512: true, block: 1024, salt: b"salt" }, "-b 1024"),
        (Seal { block: 1024, salt: &[7; 32], ..PLAIN }, "-b 4096"),
        (Seal { sha512: true, salt: &[9; 32], ..PLAIN }, "-b 4096"),
        (Seal { block: 65536, ..PLAIN }, "-b 65536"),
    ];
    for (seal, options) in seals {
        for size in [0, 1, seal.block, seal.block + 1, seal.block * 128, seal.block * 129 - 1] {
            let data = pattern(size.min(9_000_000));
            let image = seal.image(&data, options);
            for verity in [Verity::Verify, Verity::Ignore] {
                let fs = open(&image, verity);
                let inode = inode(&fs, &image, "sealed");
                assert_eq!(fs.is_sealed(&inode), verity == Verity::Verify);
                assert!(content(&fs, &inode) == data, "{seal:?} {options} {size}");
            }
        }
    }
}

#[test]
fn a_read_that_begins_and_ends_anywhere_gives_what_is_there() {
    let data = [pattern(300_000), vec![0; 700_000], pattern(123_456)].concat();
    let seal = Seal { block: 1024, salt: b"x", ..PLAIN };
    let image = seal.image(&data, "-b 4096");
    let fs = open(&image, Verity::Verify);
    let inode = inode(&fs, &image, "sealed");
    for offset in (0..data.len()).step_by(77_777) {
        for length in [1, 1023, 1024, 5000, 131_072] {
            let mut out = vec![0xee; length];
            let count = fs.read(&inode, offset as u64, &mut out).unwrap();
            assert_eq!(count, length.min(data.len() - offset));
            assert!(out[..count] == data[offset..offset + count], "{offset} {length}");
        }
    }
    assert_eq!(fs.read(&inode, data.len() as u64, &mut [0; 10]), Ok(0));
}

#[test]
fn a_broken_block_of_data_is_an_error_there_and_nowhere_else() {
    let data = pattern(4096 * 300 + 100);
    for broken in [0, 5, 127, 128, 299, 300] {
        let mut image = PLAIN.image(&data, "-b 4096");
        let fs = open(&image, Verity::Ignore);
        let sealed = inode(&fs, &image, "sealed");
        let at = place(&fs, &sealed, broken * 4096 + 99);
        image.bytes[at] ^= 1;
        let fs = open(&image, Verity::Verify);
        let place = Place::Data { inode: sealed.number.value(), block: broken as u64 };
        assert_eq!(unreadable(&fs, &sealed, 4096), [(broken, mismatch(place))]);
        let other = inode(&fs, &image, "other");
        assert!(content(&fs, &other) == pattern(5000));
        assert!(unreadable(&open(&image, Verity::Ignore), &sealed, 4096).is_empty());
    }
}

#[test]
fn a_broken_block_of_hashes_hides_what_lies_beneath_it() {
    // Four blocks of hashes beneath one.
    let data = pattern(4096 * 400);
    let tree_begins = data.len().next_multiple_of(65536);
    let cases = [(0, 0..400), (1, 0..128), (2, 128..256), (4, 384..400)];
    for (block, hidden) in cases {
        let mut image = PLAIN.image(&data, "-b 4096");
        let fs = open(&image, Verity::Ignore);
        let inode = inode(&fs, &image, "sealed");
        let at = place(&fs, &inode, tree_begins + block * 4096 + 17);
        image.bytes[at] ^= 0x80;
        let fs = open(&image, Verity::Verify);
        let error = mismatch(Place::Merkle { inode: inode.number.value(), block: block as u64 });
        assert_eq!(unreadable(&fs, &inode, 4096), hidden.map(|index| (index, error)).collect::<Vec<_>>());
    }
}

/// Bytes that lie behind the end, in the same block, are no part of the file.
#[test]
fn what_lies_behind_the_end_is_not_hashed() {
    let data = pattern(4096 + 100);
    let mut image = PLAIN.image(&data, "-b 4096");
    let fs = open(&image, Verity::Verify);
    let inode = inode(&fs, &image, "sealed");
    let at = place(&fs, &inode, 4096 + 50);
    image.bytes[at + 60] = 1;
    assert!(content(&open(&image, Verity::Verify), &inode) == data);
}

#[test]
fn each_rule_of_the_descriptor_is_found_broken() {
    let data = pattern(4096 * 3);
    let sound = PLAIN.image(&data, "-b 4096");
    let fs = open(&sound, Verity::Ignore);
    let file = inode(&fs, &sound, "sealed");
    // Data, filled up; one block of hashes; the descriptor in the block behind it.
    let descriptor = place(&fs, &file, 65536 + 4096);
    let length = descriptor + 4092;
    let cases: &[(Rule, usize, &[u8])] = &[
        (Rule::VerityDescriptor, descriptor, &[2]),
        (Rule::VerityDescriptor, descriptor + 2, &[9]),
        (Rule::VerityDescriptor, descriptor + 2, &[17]),
        (Rule::VerityDescriptor, descriptor + 3, &[33]),
        (Rule::VerityDescriptor, descriptor + 0x70, &[1]),
        (Rule::VeritySize, descriptor + 8, &[1]),
        (Rule::VeritySize, descriptor + 15, &[1]),
        (Rule::VerityHash, descriptor + 0x10, &[0; 3]),
        (Rule::VerityDescriptor, length, &[0, 0, 0, 0]),
        (Rule::VerityDescriptor, length, &[255, 0, 0, 0]),
        (Rule::VerityPlace, length, &[0xff, 0xff, 0xff, 0xff]),
        (Rule::VerityPlace, length, &[1, 0x40, 0, 0]),
        // Where it would lie in the tree.
        (Rule::VerityPlace, length, &[0, 0x20, 0, 0]),
    ];
    for &(rule, at, bytes) in cases {
        let mut image = PLAIN.image(&data, "-b 4096");
        image.write(at, bytes);
        let fs = open(&image, Verity::Verify);
        match fs.read(&file, 0, &mut [0; 10]) {
            Err(Error::Corrupt(broken) | Error::Checksum(broken)) => assert_eq!(broken.rule, rule, "{at} {bytes:?}"),
            other => panic!("{rule}: {other:?}"),
        }
        assert!(content(&fs, &inode(&fs, &image, "other")) == pattern(5000));
    }
    let mut image = PLAIN.image(&data, "-b 4096");
    image.write(descriptor + 1, &[3]);
    let read = open(&image, Verity::Verify).read(&file, 0, &mut [0; 10]);
    assert!(matches!(read, Err(Error::Unsupported(_))), "{read:?}");
}

#[test]
fn a_file_that_only_claims_a_tree_is_an_error() {
    for (options, rule) in [("", Rule::VerityPlace), ("-O ^extents,^64bit", Rule::VerityPlace)] {
        let mut image = Image::make(&format!("-t ext4 {options}"), "32M", |root| {
            fs::write(root.join("file"), pattern(9000)).unwrap();
        });
        let number = image.number("file");
        let flags = image.u32(image.inode(number) + 0x20) | 0x10_0000;
        image.break_inode(number, 0x20, &flags.to_le_bytes());
        let fs = open(&image, Verity::Verify);
        let read = fs.read(&inode(&fs, &image, "file"), 0, &mut [0; 10]);
        assert_eq!(read, Err(Error::corrupt(rule, Place::Inode(number.value()))), "{options}");
    }
}

/// The trees that these tests make are those that fsverity-utils makes.
#[test]
fn the_trees_of_these_tests_are_those_of_fsverity_utils() {
    if Command::new("fsverity").arg("--version").output().is_err() {
        let all = std::env::var_os("LAZARET_REQUIRE_ALL").is_some_and(|all| all == "1");
        assert!(!all, "fsverity of fsverity-utils is not installed");
        eprintln!("skipped: fsverity-utils is not installed");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for (seal, size) in [(PLAIN, 4096 * 300 + 5), (Seal { sha512: true, block: 1024, salt: b"\x01\x02\x03" }, 70_001)] {
        let data = pattern(size);
        fs::write(at("data"), &data).unwrap();
        let salt: String = seal.salt.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut digest = Command::new("fsverity");
        digest.arg("digest").arg(at("data")).arg(format!("--block-size={}", seal.block));
        digest.arg(format!("--hash-alg={}", if seal.sha512 { "sha512" } else { "sha256" }));
        if !salt.is_empty() {
            digest.arg(format!("--salt={salt}"));
        }
        let out = |option: &str, path: &Path| format!("--out-{option}={}", path.display());
        digest.arg(out("merkle-tree", &at("tree"))).arg(out("descriptor", &at("descriptor")));
        let output = digest.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (levels, root) = seal.tree(&data);
        assert!(fs::read(at("tree")).unwrap() == levels.iter().rev().flatten().copied().collect::<Vec<_>>());
        assert_eq!(fs::read(at("descriptor")).unwrap(), seal.descriptor(size, &root));
    }
}
