//! Directories that only the feature large_dir allows: hash trees of three levels, and more than 4 GiB.

mod image;
mod kernel;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::ControlFlow;

use image::Image;
use kernel::Mounted;
use lazaret_policy::corruption::{Corruption, Rule};
use lazaret_worker::error::Error;
use lazaret_worker::ext4::{Filesystem, Inode, InodeFlags, LogicalBlock};

/// As long as names can be, so that few of them fill a block.
fn name(number: u32) -> String {
    format!("{number:0>255}")
}

fn list(fs: &Filesystem, directory: &Inode) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    let visit = &mut |entry: lazaret_worker::ext4::DirEntry<'_>| {
        assert!(names.insert(entry.name.to_vec()), "listed twice");
        ControlFlow::Continue(())
    };
    fs.read_dir(directory, 0, visit).unwrap();
    names
}

#[test]
fn a_tree_of_three_levels_that_the_kernel_grew_has_every_name() {
    const NAMES: u32 = 40_000;
    let mut image = Image::make("-t ext4 -O large_dir -b 1024", "96M", |_| ());
    let Some(mounted) = Mounted::with(&image.path(), "rw") else { return };
    let directory = mounted.path().join("d");
    fs::create_dir(&directory).unwrap();
    File::create(directory.join("file")).unwrap();
    for number in 0..NAMES {
        fs::hard_link(directory.join("file"), directory.join(name(number))).unwrap();
    }
    drop(mounted);
    image.reload();

    let fs = image.open();
    let directory = fs.inode(image.number("d")).unwrap();
    assert!(directory.flags.contains(InodeFlags::INDEX));
    let root = fs.read_block(&directory, LogicalBlock(0)).unwrap().unwrap();
    assert_eq!(root[30], 2, "there are two levels of nodes beneath the root");
    let file = fs.lookup(&directory, b"file").unwrap();
    assert!(file.is_some());
    for number in 0..NAMES {
        assert_eq!(fs.lookup(&directory, name(number).as_bytes()).unwrap(), file, "{number}");
    }
    for number in NAMES..NAMES + 1000 {
        assert_eq!(fs.lookup(&directory, name(number).as_bytes()), Ok(None));
    }
    let expected = (0..NAMES).map(name).chain([".", "..", "file"].map(str::to_owned)).map(String::into_bytes);
    assert!(list(&fs, &directory) == expected.collect());

    // Without the feature it is a level too many, and still listed.
    let incompat = image.u32(1024 + 0x60);
    image.break_superblock(0x60, &(incompat & !0x4000).to_le_bytes());
    let fs = image.open();
    let broken = fs.lookup(&directory, b"file");
    assert!(matches!(broken, Err(Error::Corrupt(Corruption { rule: Rule::HtreeDepth, .. }))), "{broken:?}");
    assert_eq!(list(&fs, &directory).len(), NAMES as usize + 3);
}

/// Two blocks, the second moved behind the first 5 GiB.
#[test]
fn a_directory_goes_on_behind_4_gib() {
    const FAR: u32 = 5 << 20;
    let mut image = Image::make("-t ext4 -O large_dir -b 1024", "16M", |root| {
        fs::create_dir(root.join("d")).unwrap();
        for number in 0..5 {
            File::create(root.join("d").join(name(number))).unwrap();
        }
    });
    let number = image.number("d");
    let at = image.inode(number) + 0x28;
    let (header, start) = (image.u16(at + 2), image.u32(at + 12 + 8));
    assert_eq!((header, image.u32(at + 4), image.u16(at + 12 + 4)), (1, 4, 2), "one extent of two blocks");
    let sound = list(&image.open(), &image.open().inode(number).unwrap());

    let extent = |block: u32, start: u32| {
        let [block, start] = [block, start].map(u32::to_le_bytes);
        [&block[..], &1_u16.to_le_bytes(), &[0; 2], &start].concat()
    };
    image.break_inode(number, 0x28 + 2, &2_u16.to_le_bytes());
    image.break_inode(number, 0x28 + 12, &[extent(0, start), extent(FAR, start + 1)].concat());
    let size = (u64::from(FAR) + 1) * 1024;
    image.break_inode(number, 0x04, &(size as u32).to_le_bytes());
    image.break_inode(number, 0x6c, &((size >> 32) as u32).to_le_bytes());

    let fs = image.open();
    let directory = fs.inode(number).unwrap();
    assert_eq!(directory.size, size);
    assert_eq!(list(&fs, &directory), sound);
    for number in 0..5 {
        let path = format!("d/{}", name(number));
        assert!(fs.lookup(&directory, name(number).as_bytes()).unwrap().is_some(), "{path}");
    }

    // Without the feature the upper half of the length meant something else once, and what lies there is not reached.
    let incompat = image.u32(1024 + 0x60);
    image.break_superblock(0x60, &(incompat & !0x4000).to_le_bytes());
    let fs = image.open();
    let directory = fs.inode(number).unwrap();
    assert_eq!(directory.size, size & 0xffff_ffff);
    assert!(list(&fs, &directory).len() < sound.len());
}
