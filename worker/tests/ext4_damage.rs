//! What single broken fields (`damage/`) do not show: refusals, wrong checksums under each policy, what is read beside a
//! broken place, and trees that lead back to themselves.

mod image;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use image::{Image, content, inode, pattern};
use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::{Checksum, Refusal};
use lazaret_worker::device::Device;
use lazaret_worker::error::Error;
use lazaret_worker::ext4::{FileOffset, Filesystem, InodeNumber, Settings};

fn fill(root: &Path) {
    fs::write(root.join("file"), pattern(10_000)).unwrap();
    fs::write(root.join("other"), pattern(300_000)).unwrap();
    symlink("file", root.join("fast")).unwrap();
    symlink("x/".repeat(200), root.join("slow")).unwrap();
    let many = File::create(root.join("many")).unwrap();
    for index in 0..200u32 {
        many.write_all_at(&(index + 1).to_le_bytes(), u64::from(index) * 8192).unwrap();
    }
}

fn modern() -> Image {
    Image::make("-t ext4 -b 4096 -J size=4", "16M", fill)
}

/// With blocks of 1 KiB the file `many` has more leaves than one.
fn small_blocks() -> Image {
    Image::make("-t ext4 -b 1024 -g 2048", "8M", fill)
}

fn corrupt(rule: Rule, place: Place) -> Error {
    Error::Corrupt(Corruption { rule, place })
}

fn read(fs: &Filesystem, number: InodeNumber) -> Result<usize, Error> {
    let inode = fs.inode(number)?;
    fs.read(&inode, 0, &mut vec![0; inode.size as usize])
}

#[test]
fn what_is_no_file_system_or_is_cut_short_is_refused_as_that() {
    let open = |bytes: &[u8]| Filesystem::open(Device::from_bytes(bytes.to_vec()), Settings::default()).err();
    let image = modern();
    let length = image.bytes.len() as u64;
    assert_eq!(open(&[]), Some(Refusal::TooShort { length: 0, needed: 2048 }));
    assert_eq!(open(&image.bytes[..2047]), Some(Refusal::TooShort { length: 2047, needed: 2048 }));
    assert_eq!(open(&[0; 4096]), Some(Refusal::NotExt));
    let cut = image.bytes.len() - 1;
    assert_eq!(open(&image.bytes[..cut]), Some(Refusal::TooShort { length: length - 1, needed: length }));
}

#[test]
fn a_feature_that_is_not_read_is_refused_by_its_bit() {
    let mut image = modern();
    let sound = image.bytes.clone();
    let (incompat, ro_compat) = (image.u32(1024 + 0x60), image.u32(1024 + 0x64));
    for bit in [0x1, 0x1000, 0x8000_0000] {
        image.bytes.clone_from(&sound);
        image.break_superblock(0x60, &(incompat | bit).to_le_bytes());
        assert_eq!(image.open_with(Checksum::Strict).err(), Some(Refusal::Incompat(bit)));
    }
    image.bytes.clone_from(&sound);
    image.break_superblock(0x60, &(incompat | 0x8).to_le_bytes());
    assert_eq!(image.open_with(Checksum::Strict).err(), Some(Refusal::JournalDevice));
    for bit in [0x100, 0x8000, 0x4000_0000] {
        image.bytes.clone_from(&sound);
        image.break_superblock(0x64, &(ro_compat | bit).to_le_bytes());
        assert_eq!(image.open_with(Checksum::Strict).err(), None);
    }
}

#[test]
fn a_wrong_checksum_is_an_error_is_counted_or_is_not_computed() {
    let mut image = small_blocks();
    let sound = image.bytes.clone();
    let many = image.number("many");
    let node = u64::from(image.u32(image.inode(many) + 0x38));
    let (group, inode) = (image.group(0), image.inode(many));
    let place = Place::Inode(many.value());
    let cases = [
        // A count of the superblock, of a group, the time of an inode, the generation of a node.
        (1024 + 0x34, Rule::SuperblockChecksum, Place::Superblock),
        (group + 0x1c, Rule::GroupChecksum, Place::GroupDescriptor(0)),
        (inode + 0x08, Rule::InodeChecksum, place),
        (inode + 0xf0, Rule::InodeChecksum, place),
        (node as usize * 1024 + 8, Rule::ExtentChecksum, Place::ExtentNode { inode: many.value(), block: node }),
    ];
    for (at, rule, place) in cases {
        image.bytes.clone_from(&sound);
        image.bytes[at] ^= 0x20;
        let wrong = Corruption { rule, place };
        match image.open_with(Checksum::Strict) {
            Ok(fs) => assert_eq!(read(&fs, many), Err(Error::Checksum(wrong))),
            Err(refusal) => assert_eq!(refusal, Refusal::Checksum(wrong)),
        }
        let warned = image.open_with(Checksum::Warn).unwrap();
        assert!(read(&warned, many).is_ok());
        assert!(warned.verifier().failures() > 0, "{rule}");
        let ignored = image.open_with(Checksum::Ignore).unwrap();
        assert!(read(&ignored, many).is_ok());
        assert_eq!(ignored.verifier().failures(), 0);
    }
}

#[test]
fn an_old_group_descriptor_has_a_crc16() {
    let mut image = Image::make("-t ext4 -O ^metadata_csum,uninit_bg", "16M", fill);
    let at = image.group(0) + 0x1c;
    image.bytes[at] ^= 1;
    let wrong = Corruption { rule: Rule::GroupChecksum, place: Place::GroupDescriptor(0) };
    assert_eq!(image.open().inode(InodeNumber::ROOT).err(), Some(Error::Checksum(wrong)));
    let table = image.u32(image.group(0) + 8);
    image.break_group(0, 8, &table.to_le_bytes());
    assert!(image.open().inode(InodeNumber::ROOT).is_ok());
}

#[test]
fn numbers_that_no_file_has_are_refused() {
    let image = modern();
    let fs = image.open();
    for number in [1, 7, 8, 10, fs.superblock().inodes + 1, u32::MAX] {
        let expected = corrupt(Rule::InodeNumber, Place::Inode(number));
        assert_eq!(fs.inode(InodeNumber::new(number).unwrap()).err(), Some(expected));
    }
    assert!(fs.any_inode(InodeNumber::new(8).unwrap()).is_ok());
}

#[test]
fn a_node_of_extents_that_breaks_a_rule_is_named_by_its_block() {
    let mut image = small_blocks();
    let sound = image.bytes.clone();
    let many = image.number("many");
    let root = image.inode(many) + 0x28;
    assert_eq!((image.u16(root + 2), image.u16(root + 6)), (3, 1), "200 extents in three leaves");
    let second = u64::from(image.u32(root + 12 + 12 + 4));
    let first_of_third = image.u32(root + 12 + 24);
    let last = 12 * usize::from(image.u16(second as usize * 1024 + 2));
    let cases: &[(usize, &[u8], Rule)] = &[
        (0, &[0], Rule::ExtentMagic),
        (6, &[1], Rule::ExtentDepth),
        (2, &[200], Rule::ExtentCount),
        (12, &[0, 0, 0, 0], Rule::ExtentRange),
        (24, &[0, 0, 0, 0], Rule::ExtentRange),
        (last, &first_of_third.to_le_bytes(), Rule::ExtentRange),
        (12 + 5 * 12 + 4, &[200, 0], Rule::ExtentOrder),
        (12 + 4, &[0, 0x80], Rule::ExtentRange),
        (12 + 8, &[2, 0, 0, 0], Rule::BlockNotSystem),
    ];
    for &(field, bytes, rule) in cases {
        image.bytes.clone_from(&sound);
        image.break_node(many, second, field, bytes);
        let fs = image.open();
        let place = Place::ExtentNode { inode: many.value(), block: second };
        assert_eq!(read(&fs, many), Err(corrupt(rule, place)), "{field} {bytes:?}");
        // The first leaf is whole, and so is what it maps.
        let inode = fs.inode(many).unwrap();
        let mut out = [0; 4];
        assert_eq!((fs.read(&inode, 8192, &mut out), out), (Ok(4), 2u32.to_le_bytes()));
        assert_eq!(content(&fs, &self::inode(&fs, &image, "other")), pattern(300_000));
    }
}

#[test]
fn a_tree_that_leads_back_to_itself_ends() {
    let mut image = small_blocks();
    let many = image.number("many");
    let root = image.inode(many) + 0x28;
    let first = u64::from(image.u32(root + 12 + 4));
    // The root five levels up, its child an inner node that names itself.
    image.break_inode(many, 0x2e, &[5]);
    let mut node = vec![0x0a, 0xf3, 1, 0, 84, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    node.extend((first as u32).to_le_bytes());
    node.extend([0; 4]);
    image.break_node(many, first, 0, &node);
    let place = Place::ExtentNode { inode: many.value(), block: first };
    assert_eq!(read(&image.open(), many), Err(corrupt(Rule::ExtentDepth, place)));
}

#[test]
fn a_pointer_of_a_block_map_is_held_to_the_same_blocks() {
    let mut image = Image::make("-t ext2 -b 1024", "8M", fill);
    let sound = image.bytes.clone();
    let file = image.number("other");
    let map = image.inode(file) + 0x28;
    let (indirect, double) = (image.u32(map + 48), image.u32(map + 52));
    let table = image.u32(image.group(0) + 8);
    let at_inode = Place::Inode(file.value());
    let at = |block: u32| Place::IndirectBlock { inode: file.value(), block: block.into() };
    let cases = [
        (map, 8192, Rule::BlockInFileSystem, at_inode),
        (map + 48, u32::MAX, Rule::BlockInFileSystem, at_inode),
        (map + 52, table, Rule::BlockNotSystem, at_inode),
        (indirect as usize * 1024 + 80, 1, Rule::BlockInFileSystem, at(indirect)),
        (indirect as usize * 1024 + 1020, table + 1, Rule::BlockNotSystem, at(indirect)),
        (double as usize * 1024, 2, Rule::BlockNotSystem, at(double)),
    ];
    for (field, pointer, rule, place) in cases {
        image.bytes.clone_from(&sound);
        image.write(field, &pointer.to_le_bytes());
        let fs = image.open();
        assert_eq!(read(&fs, file), Err(corrupt(rule, place)), "{field:#x}");
        assert_eq!(content(&fs, &inode(&fs, &image, "file")), pattern(10_000));
    }
    // What comes before a bad pointer is still read.
    image.bytes.clone_from(&sound);
    image.write(indirect as usize * 1024 + 80, &1u32.to_le_bytes());
    let fs = image.open();
    let inode = fs.inode(file).unwrap();
    let mut out = vec![0; 32 * 1024];
    assert_eq!(fs.read(&inode, 0, &mut out), Ok(32 * 1024));
    assert!(out == pattern(32 * 1024));
    assert!(fs.map(&inode, FileOffset(32 * 1024), 1).is_err());
}
