//! Images that ask for endless work: each request ends within a time that the image has no say in, with the error that
//! says so, and what lies beside stays readable.
//!
//! Time is that of the processor, so that a busy machine fails nothing.

#[path = "../image/mod.rs"]
mod image;

mod check;
mod groups;
mod journal;

use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;

use image::{Image, content, inode, pattern};
use lazaret_policy::message::Checksum;
use lazaret_worker::device::Device;
use lazaret_worker::error::Error;
use lazaret_worker::ext4::seek::Wanted;
use lazaret_worker::ext4::{FileOffset, Filesystem, Inode, InodeNumber, MappingKind, Settings};

/// The most that one request may take.
const MOST: Duration = Duration::from_secs(2);

/// What this thread has run on a processor.
fn used() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn within_bounds<T>(what: &str, request: impl FnOnce() -> T) -> T {
    let before = used();
    let answer = request();
    let taken = used() - before;
    eprintln!("{what}: {taken:?}");
    assert!(taken < MOST, "{what} took {taken:?}");
    answer
}

/// An image without checksums, so that a field is all that has to be changed, with one large file in one piece.
fn hostile(fill: impl FnOnce(&std::path::Path)) -> Image {
    hostile_with("-O ^has_journal", fill)
}

/// The same with more options.
fn hostile_with(options: &str, fill: impl FnOnce(&std::path::Path)) -> Image {
    let options = format!("-t ext4 -b 1024 -O ^metadata_csum,^resize_inode,large_dir -N 1024 {options}");
    Image::make(&options, "96M", |root| {
        fs::write(root.join("space"), pattern(60 << 20)).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
        fs::write(root.join("file"), b"x").unwrap();
        fs::write(root.join("short"), b"short").unwrap();
        fill(root);
    })
}

fn open(image: &Image) -> Filesystem {
    Filesystem::open(Device::from_bytes(image.bytes.clone()), Settings::default()).unwrap()
}

/// Blocks of the device that may be used for anything: those of the large file.
fn space(image: &Image) -> Vec<u64> {
    let fs = open(image);
    let space = inode(&fs, image, "space");
    (0..60 << 10)
        .map(|block| match fs.map(&space, FileOffset(block << 10), 1).unwrap().kind {
            MappingKind::Data(start) => start.0 >> 10,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The first of 4096 blocks in one piece.
fn run_of_4096(space: &[u64]) -> u64 {
    let run = space.windows(4097).position(|run| run[4096] - run[0] == 4096);
    space[run.expect("the large file has so many blocks in one piece")]
}

/// A node of an extent tree: a header and its entries.
fn node(depth: u16, most: u16, entries: &[[u8; 12]]) -> Vec<u8> {
    let mut bytes = 0xf30au16.to_le_bytes().to_vec();
    for field in [entries.len() as u16, most, depth, 0, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(entries.as_flattened());
    bytes
}

fn extent(first: u32, length: u16, start: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&first.to_le_bytes());
    bytes[4..6].copy_from_slice(&length.to_le_bytes());
    bytes[6..8].copy_from_slice(&((start >> 32) as u16).to_le_bytes());
    bytes[8..].copy_from_slice(&(start as u32).to_le_bytes());
    bytes
}

fn child(first: u32, block: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&first.to_le_bytes());
    bytes[4..8].copy_from_slice(&(block as u32).to_le_bytes());
    bytes
}

/// Gives a file a tree with these leaves, in blocks of `space`, and the length of what it maps.
fn plant(image: &mut Image, number: InodeNumber, leaves: Vec<Vec<[u8; 12]>>, size: u64, space: &mut Vec<u64>) {
    let mut depth = 0;
    let mut level = leaves;
    while depth == 0 || level.len() > 1 || level[0].len() > 4 {
        let mut above = Vec::new();
        for entries in &level {
            let block = space.pop().unwrap();
            image.write((block << 10) as usize, &node(depth, 84, entries));
            let first = u32::from_le_bytes(entries[0][..4].try_into().unwrap());
            above.push(child(first, block));
        }
        depth += 1;
        let room = if above.len() <= 4 { 4 } else { 84 };
        level = above.chunks(room).map(<[_]>::to_vec).collect();
    }
    let mut root = node(depth, 4, &level[0]);
    root.resize(60, 0);
    image.break_inode(number, 0x28, &root);
    image.break_inode(number, 4, &(size as u32).to_le_bytes());
    image.break_inode(number, 0x6c, &((size >> 32) as u32).to_le_bytes());
}

/// Every one of 40 000 leaves holds one block, and they go on one behind the other: nothing but data, none of it joined.
fn scattered(image: &mut Image, number: InodeNumber) -> u32 {
    let mut space = space(image);
    let data = space.remove(0);
    let count = 40_000;
    let leaves = (0..count).map(|block| vec![extent(block, 1, data)]).collect();
    plant(image, number, leaves, u64::from(count) << 10, &mut space);
    count
}

fn list(fs: &Filesystem, directory: &Inode, cookie: u64) -> (usize, Result<(), Error>) {
    let mut count = 0;
    let result = fs.read_dir(directory, cookie, &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    (count, result)
}

#[test]
fn a_tree_of_many_leaves_is_sought_through_in_bounded_time() {
    let mut image = hostile(|_| ());
    let number = image.number("file");
    let count = scattered(&mut image, number);
    let fs = open(&image);
    let file = fs.inode(number).unwrap();
    let size = u64::from(count) << 10;
    let found = within_bounds("SEEK_HOLE", || fs.seek(&file, 0, Wanted::Hole));
    assert_eq!(found, Ok(Some(size)), "40 000 leaves are not too many");
    assert_eq!(within_bounds("SEEK_DATA", || fs.seek(&file, 5, Wanted::Data)), Ok(Some(5)));
    let mut out = vec![0; 1 << 20];
    assert_eq!(within_bounds("a read of 1 MiB", || fs.read(&file, 0, &mut out)), Ok(1 << 20));
}

/// Leaves of 84 extents each of which is one block, and none goes on with the one before: millions of runs.
#[test]
fn more_runs_than_a_request_may_look_at_are_an_error() {
    let mut image = hostile(|_| ());
    let number = image.number("file");
    let mut space = space(&image);
    let data = space.remove(0);
    let leaves = (0..50_000u32).map(|leaf| (0..84).map(|entry| extent(leaf * 84 + entry, 1, data)).collect()).collect();
    plant(&mut image, number, leaves, (50_000 * 84) << 10, &mut space);
    let fs = open(&image);
    let file = fs.inode(number).unwrap();
    assert_eq!(within_bounds("SEEK_HOLE", || fs.seek(&file, 0, Wanted::Hole)), Err(Error::Budget));
    // Whoever begins further on gets an answer.
    assert_eq!(fs.seek(&file, file.size - (1 << 20), Wanted::Hole), Ok(Some(file.size)));
}

#[test]
fn a_file_as_long_as_can_be_is_sought_through_at_once() {
    let mut image = hostile(|_| ());
    let number = image.number("file");
    image.break_inode(number, 0x6c, &0x3ffu32.to_le_bytes());
    let fs = open(&image);
    let file = fs.inode(number).unwrap();
    assert_eq!(within_bounds("SEEK_DATA", || fs.seek(&file, 1 << 20, Wanted::Data)), Ok(None));
    assert_eq!(within_bounds("SEEK_HOLE", || fs.seek(&file, 0, Wanted::Hole)), Ok(Some(1 << 10)));
}

/// Blocks of pointers that lead to themselves, as far as levels go: 16 million blocks out of one.
#[test]
fn pointers_that_lead_round_are_followed_only_so_far() {
    let mut image = hostile(|_| ());
    let number = image.number("file");
    let mut space = space(&image);
    let own = space.pop().unwrap();
    let pointers = (own as u32).to_le_bytes().repeat(256);
    image.write((own << 10) as usize, &pointers);
    image.break_inode(number, 0x20, &[0; 4]);
    image.break_inode(number, 0x28, &(own as u32).to_le_bytes().repeat(15));
    image.break_inode(number, 0x6c, &3u32.to_le_bytes());
    let fs = open(&image);
    let file = fs.inode(number).unwrap();
    assert_eq!(within_bounds("SEEK_HOLE", || fs.seek(&file, 0, Wanted::Hole)), Err(Error::Budget));
    let mut out = vec![0; 1 << 20];
    assert_eq!(within_bounds("a read of 1 MiB", || fs.read(&file, 1 << 30, &mut out)), Ok(1 << 20));
    assert_eq!(content(&fs, &inode(&fs, &image, "short")), b"short");
}

/// One block of the device, empty or full of names, again and again: gigabytes of a directory.
#[test]
fn a_directory_of_gigabytes_is_listed_and_searched_in_bounded_time() {
    for name in [None, Some(*b"a/b")] {
        let mut image = hostile(|_| ());
        let number = image.number("directory");
        let mut space = space(&image);
        let from = run_of_4096(&space);
        let to = from + 4096;
        let mut block = vec![0; 1024];
        match name {
            None => block[4..6].copy_from_slice(&1024u16.to_le_bytes()),
            // Names that are none: every record is looked at, and none is shown.
            Some(name) => {
                for record in block.chunks_mut(12) {
                    let length = if record.len() < 12 { continue } else { 12u16 };
                    record[0] = 11;
                    record[4..6].copy_from_slice(&length.to_le_bytes());
                    record[6] = 3;
                    record[8..11].copy_from_slice(&name);
                }
                block[1012 - 4..1012 - 2].copy_from_slice(&16u16.to_le_bytes());
            }
        }
        for block_number in from..to {
            image.write((block_number << 10) as usize, &block);
        }
        let extents = (0..84u32).map(|index| extent(index * 4096, 4096, from)).collect();
        plant(&mut image, number, vec![extents], 84 << 22, &mut space.split_off(20_000));
        let fs = open(&image);
        let directory = fs.inode(number).unwrap();
        let (listed, result) = within_bounds("readdir", || list(&fs, &directory, 0));
        assert_eq!((listed, result), (0, Err(Error::Budget)));
        let found = within_bounds("lookup", || fs.lookup(&directory, b"absent"));
        assert_eq!(found, Err(Error::Budget));
        let root = fs.inode(InodeNumber::ROOT).unwrap();
        assert_eq!(fs.lookup(&root, b"short"), Ok(Some(image.number("short"))));
    }
}

/// Holes and unwritten space by turns, up to the last block a directory can have.
#[test]
fn a_directory_of_holes_is_listed_in_bounded_time() {
    let mut image = hostile(|_| ());
    let number = image.number("directory");
    let mut space = space(&image);
    let data = space.remove(0);
    let leaves = (0..40_000u32)
        .map(|leaf| (0..84).map(|entry| extent((leaf * 84 + entry) * 1000, 0x8001, data)).collect())
        .collect();
    plant(&mut image, number, leaves, (u64::from(u32::MAX) - 1) << 10, &mut space);
    let fs = open(&image);
    let directory = fs.inode(number).unwrap();
    assert_eq!(within_bounds("readdir", || list(&fs, &directory, 0)), (0, Err(Error::Budget)));
    assert_eq!(within_bounds("lookup", || fs.lookup(&directory, b"absent")), Err(Error::Budget));
}

/// Any cookie, also one that nobody was given, leads on or to the end.
#[test]
fn no_cookie_leads_back() {
    let image = hostile(|root| {
        for number in 0..200 {
            fs::write(root.join("directory").join(format!("name{number}")), b"").unwrap();
        }
    });
    let fs = open(&image);
    let directory = inode(&fs, &image, "directory");
    let cookies = (0..5000).chain((0..64).map(|bit| 1 << bit)).chain([u64::MAX, u64::MAX >> 1, (1 << 62) - 1]);
    for cookie in cookies {
        let mut last = cookie & !(1 << 62);
        let _ = fs.read_dir(&directory, cookie, &mut |entry| {
            assert!(entry.cookie & !(1 << 62) > last, "{cookie:#x}");
            last = entry.cookie & !(1 << 62);
            ControlFlow::Continue(())
        });
    }
}

/// As many groups as there are blocks, and descriptors for each.
fn a_million_groups() -> (Image, u32) {
    let mut image = hostile(|_| ());
    image.bytes.resize(1 << 30, 0);
    let blocks = 1u32 << 20;
    let groups = blocks - 1;
    for (field, value) in [(0x4, blocks), (0x20, 1), (0x24, 1), (0x28, 8), (0x0, groups * 8)] {
        image.break_superblock(field, &value.to_le_bytes());
    }
    (image, groups)
}

#[test]
fn a_million_groups_are_opened_in_bounded_time() {
    let (mut image, groups) = a_million_groups();
    let device = Device::from_bytes(std::mem::take(&mut image.bytes));
    let settings = Settings { checksum: Checksum::Ignore, ..Settings::default() };
    let opened = within_bounds("opening", || Filesystem::open(device, settings));
    assert_eq!(opened.unwrap().superblock().groups, groups);
}
