//! What mke2fs put into an image comes out of it: contents, holes, attributes, links, in every geometry.

mod image;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use image::{Image, content, inode, pattern};
use lazaret_worker::ext4::{FileKind, FileOffset, Filesystem, InodeNumber, LogicalBlock, MappingKind};

/// What is made into revision 0 afterwards.
const REVISION_0: &str = "-t ext2 -O none -I 128";

/// Every kind of geometry: mke2fs options and a size.
const GEOMETRIES: &[(&str, &str)] = &[
    ("-t ext4", "16M"),
    ("-t ext2", "16M"),
    ("-t ext3", "16M"),
    ("-t ext4 -b 1024", "16M"),
    ("-t ext4 -b 2048", "16M"),
    ("-t ext2 -b 1024", "16M"),
    ("-t ext4 -b 8192 -O ^has_journal", "16M"),
    ("-t ext4 -b 65536 -O ^has_journal", "32M"),
    ("-t ext2 -b 65536", "32M"),
    ("-t ext4 -I 128", "16M"),
    ("-t ext4 -I 1024", "16M"),
    (REVISION_0, "16M"),
    ("-t ext4 -O ^metadata_csum,uninit_bg", "16M"),
    ("-t ext4 -O ^metadata_csum,uninit_bg,^64bit", "16M"),
    ("-t ext4 -O metadata_csum,metadata_csum_seed", "16M"),
    ("-t ext4 -O metadata_csum,^64bit", "16M"),
    ("-t ext4 -E desc_size=256", "16M"),
    ("-t ext4 -O meta_bg,^resize_inode -b 1024 -g 256", "16M"),
    ("-t ext4 -O ^flex_bg -b 1024 -g 1024", "16M"),
    ("-t ext4 -O sparse_super2,^resize_inode -b 1024", "16M"),
    ("-t ext4 -O ^sparse_super,^resize_inode -b 1024", "16M"),
    ("-t ext4 -O mmp,ea_inode,large_dir,^huge_file,^has_journal", "16M"),
];

fn fill(root: &Path) {
    fs::create_dir(root.join("directory")).unwrap();
    fs::write(root.join("directory/large"), pattern(3_000_001)).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("short"), b"short").unwrap();
    fs::set_permissions(root.join("short"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("short"), root.join("linked")).unwrap();
    symlink("short", root.join("fast")).unwrap();
    symlink("x".repeat(59), root.join("fast59")).unwrap();
    symlink("x".repeat(60), root.join("slow60")).unwrap();
    symlink("x/".repeat(500), root.join("slow1000")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for (index, offset) in islands() {
        sparse.write_all_at(&[index; 100], offset).unwrap();
    }
    sparse.set_len(40_000_000).unwrap();
}

/// Where the sparse file has bytes: in the direct, the indirect and the doubly indirect part of a block map.
fn islands() -> impl Iterator<Item = (u8, u64)> {
    (1..=30).map(|index| (index, u64::from(index).pow(3) * 1111))
}

#[test]
fn what_was_put_in_comes_out_of_every_geometry() {
    for &(options, size) in GEOMETRIES {
        let mut image = Image::make(options, size, fill);
        if options == REVISION_0 {
            image.become_revision_0();
        }
        let fs = image.open();
        contents_are_those_of_the_source(options, &image, &fs);
        attributes_are_those_of_the_source(options, &image, &fs);
        targets_are_those_of_the_source(options, &image, &fs);
        holes_are_where_nothing_was_written(options, &image, &fs);
        counts_are_those_of_debugfs(options, &image, &fs);
    }
}

fn contents_are_those_of_the_source(options: &str, image: &Image, fs: &Filesystem) {
    for name in ["directory/large", "empty", "short", "sparse"] {
        let inode = inode(fs, image, name);
        assert_eq!(inode.kind, FileKind::Regular);
        let expected = fs::read(image.source().join(name)).unwrap();
        assert!(content(fs, &inode) == expected, "{options}: {name}");
    }
}

#[test]
fn a_read_in_the_middle_gives_what_is_there_and_stops_at_the_end() {
    for options in ["-t ext4 -b 1024", "-t ext2 -b 1024"] {
        let image = Image::make(options, "16M", fill);
        let (fs, expected) = (image.open(), pattern(3_000_001));
        let inode = inode(&fs, &image, "directory/large");
        let mut out = [0; 5000];
        for offset in (0..3_000_001).step_by(70_001) {
            let count = fs.read(&inode, offset, &mut out).unwrap();
            let from = offset as usize;
            assert_eq!(count, 5000.min(expected.len() - from));
            assert!(out[..count] == expected[from..from + count], "{options}: {offset}");
        }
        assert_eq!(fs.read(&inode, 3_000_000, &mut out), Ok(1));
        assert_eq!(fs.read(&inode, 3_000_001, &mut out), Ok(0));
        assert_eq!(fs.read(&inode, u64::MAX, &mut out), Ok(0));
        assert_eq!(fs.read(&inode, 0, &mut []), Ok(0));
    }
}

fn attributes_are_those_of_the_source(options: &str, image: &Image, fs: &Filesystem) {
    for name in ["directory", "directory/large", "short", "linked", "sparse", "slow1000", "fast"] {
        let source = fs::symlink_metadata(image.source().join(name)).unwrap();
        let inode = inode(fs, image, name);
        assert_eq!(u32::from(inode.mode()), source.mode(), "{options}: {name}");
        assert_eq!((inode.uid, inode.gid), (source.uid(), source.gid()), "{options}: {name}");
        assert_eq!(inode.mtime.seconds, source.mtime(), "{options}: {name}");
        if inode.kind != FileKind::Directory {
            assert_eq!(inode.size, source.len(), "{options}: {name}");
            assert_eq!(u64::from(inode.links), source.nlink(), "{options}: {name}");
        }
        let stat = image.debugfs(&format!("stat {name}"));
        let blocks = stat.split_once("Blockcount: ").unwrap().1.split_whitespace().next().unwrap();
        assert_eq!(inode.blocks.to_string(), blocks, "{options}: {name}");
    }
    assert_eq!(image.number("short"), image.number("linked"));
}

fn targets_are_those_of_the_source(options: &str, image: &Image, fs: &Filesystem) {
    for name in ["fast", "fast59", "slow60", "slow1000"] {
        let target = fs.read_link(&inode(fs, image, name)).unwrap();
        let expected = fs::read_link(image.source().join(name)).unwrap();
        assert_eq!(target, expected.as_os_str().as_encoded_bytes(), "{options}: {name}");
    }
}

/// The ranges of data by mapping from the start to the end, neighbours joined.
fn data(fs: &Filesystem, inode: &lazaret_worker::ext4::Inode) -> Vec<(u64, u64)> {
    let (mut ranges, mut at) = (Vec::<(u64, u64)>::new(), 0);
    while at < inode.size {
        let mapping = fs.map(inode, FileOffset(at), inode.size - at).unwrap();
        assert!(mapping.offset == FileOffset(at) && (1..=inode.size - at).contains(&mapping.length));
        let end = at + mapping.length;
        if let MappingKind::Data(_) = mapping.kind {
            match ranges.last_mut() {
                Some(last) if last.1 == at => last.1 = end,
                _ => ranges.push((at, end)),
            }
        }
        at = end;
    }
    ranges
}

fn holes_are_where_nothing_was_written(options: &str, image: &Image, fs: &Filesystem) {
    let size = u64::from(fs.superblock().block_size.bytes());
    let mut expected = Vec::<(u64, u64)>::new();
    for (_, offset) in islands() {
        let (start, end) = (offset / size * size, (offset + 100).div_ceil(size) * size);
        match expected.last_mut() {
            Some(last) if last.1 >= start => last.1 = end,
            _ => expected.push((start, end)),
        }
    }
    assert_eq!(data(fs, &inode(fs, image, "sparse")), expected, "{options}");
}

#[test]
fn a_mapping_is_cut_to_what_was_asked_and_names_the_byte() {
    let image = Image::make("-t ext4 -b 1024", "16M", fill);
    let fs = image.open();
    let inode = inode(&fs, &image, "directory/large");
    let expected = pattern(3_000_001);
    for (offset, length) in [(0, 1), (1023, 2), (5000, 100_000), (2_999_999, 2)] {
        let mapping = fs.map(&inode, FileOffset(offset), length).unwrap();
        let MappingKind::Data(start) = mapping.kind else { panic!("{mapping:?}") };
        assert_eq!(mapping.offset, FileOffset(offset));
        assert_eq!(mapping.length, length);
        let (from, to) = (start.0 as usize, offset as usize);
        assert_eq!(image.bytes[from..from + length as usize], expected[to..to + length as usize]);
    }
    assert_eq!(fs.map(&inode, FileOffset(7), 0).unwrap().length, 0);
    let beyond = fs.map(&inode, FileOffset(u64::MAX - 5), 5).unwrap();
    assert_eq!((beyond.length, beyond.kind), (5, MappingKind::Hole));
    let last = fs.map(&inode, FileOffset(0xffff_ffff << 10), 1 << 40).unwrap();
    assert_eq!((last.length, last.kind), (1 << 40, MappingKind::Hole));
}

#[test]
fn a_tree_of_two_levels_above_its_leaves_is_walked() {
    let every_other = |root: &Path| {
        let file = File::create(root.join("many")).unwrap();
        for index in 0..10_000u32 {
            file.write_all_at(&(index + 1).to_le_bytes(), u64::from(index) * 2048).unwrap();
        }
        file.set_len(10_000 * 2048).unwrap();
    };
    let image = Image::make("-t ext4 -b 1024", "64M", every_other);
    assert!(image.debugfs("dump_extents /many").contains(" 2/ 2"), "not so deep as it was meant to be");
    let fs = image.open();
    let inode = inode(&fs, &image, "many");
    for round in 0..2 {
        for index in (0..10_000u32).map(|index| index * 7919 % 10_000) {
            let mut out = [0xff; 2048];
            assert_eq!(fs.read(&inode, u64::from(index) * 2048, &mut out), Ok(2048), "round {round}");
            assert_eq!(out[..4], (index + 1).to_le_bytes());
            assert!(out[4..].iter().all(|&byte| byte == 0));
        }
    }
    assert_eq!(data(&fs, &inode).len(), 10_000);
}

#[test]
fn three_levels_of_pointers_are_followed() {
    // With blocks of 1 KiB the third level begins behind 12 + 256 + 65536 blocks.
    let marks = [0, 11, 12, 267, 268, 65_803, 65_804, 65_805, 131_340, 300_000u64];
    let image = Image::make("-t ext2 -b 1024", "16M", |root| {
        let file = File::create(root.join("deep")).unwrap();
        for mark in marks {
            file.write_all_at(&(mark + 1).to_le_bytes(), mark * 1024).unwrap();
        }
    });
    let fs = image.open();
    let inode = inode(&fs, &image, "deep");
    for mark in marks {
        let mut out = [0; 8];
        assert_eq!(fs.read(&inode, mark * 1024, &mut out), Ok(8));
        assert_eq!(u64::from_le_bytes(out), mark + 1);
    }
    let ranges = data(&fs, &inode);
    assert_eq!(ranges.first(), Some(&(0, 1024)));
    assert_eq!(ranges[1], (11 * 1024, 13 * 1024));
    assert_eq!(ranges.last(), Some(&(300_000 * 1024, 300_000 * 1024 + 8)));
    // A hole beneath one pointer of the third level is one mapping.
    let hole = fs.map(&inode, FileOffset(200_000 << 10), 1 << 40).unwrap();
    assert_eq!((hole.kind, hole.length), (MappingKind::Hole, 100_000 << 10));
}

#[test]
fn space_that_was_never_written_reads_as_zeros() {
    let mut image = Image::make("-t ext4 -b 4096", "16M", |root| fs::write(root.join("file"), pattern(9000)).unwrap());
    image.change("fallocate /file 0 20");
    let fs = image.open();
    let mut inode = inode(&fs, &image, "file");
    let mapping = fs.map(&inode, FileOffset(3 * 4096), 1 << 20).unwrap();
    let MappingKind::Unwritten(start) = mapping.kind else { panic!("{mapping:?}") };
    assert_eq!((start.0 % 4096, mapping.length), (0, 18 * 4096));
    inode.size = 20 * 4096;
    let bytes = content(&fs, &inode);
    assert!(bytes[..9000] == pattern(9000) && bytes[9000..].iter().all(|&byte| byte == 0));
    assert_eq!(fs.read_block(&inode, LogicalBlock(10)), Ok(None));
}

#[test]
fn special_files_have_numbers_and_no_data() {
    let mut image = Image::make("-t ext4", "16M", |_| ());
    image.change("mknod null c 1 3");
    image.change("mknod disk b 8 17");
    image.change("mknod pipe p");
    let fs = image.open();
    let rdev = |path| inode(&fs, &image, path).rdev;
    assert_eq!(rdev("null"), 0x103);
    assert_eq!(rdev("disk"), 0x811);
    let pipe = inode(&fs, &image, "pipe");
    assert_eq!((pipe.kind, pipe.rdev), (FileKind::Fifo, 0));
    assert!(fs.map(&pipe, FileOffset(0), 1).is_err());
}

#[test]
fn times_have_nanoseconds_where_the_inode_has_room() {
    for (options, wide) in [("-t ext4 -I 256", true), ("-t ext4 -I 128", false)] {
        let mut image = Image::make(options, "16M", |root| fs::write(root.join("file"), b"x").unwrap());
        image.change("set_inode_field file mtime 19011214000000");
        if wide {
            image.change("set_inode_field file mtime_extra 493827156");
            image.change("set_inode_field file crtime 20010101000000");
        }
        let fs = image.open();
        let inode = inode(&fs, &image, "file");
        let nanoseconds = if wide { 123_456_789 } else { 0 };
        assert_eq!((inode.mtime.seconds, inode.mtime.nanoseconds), (-2_147_472_000, nanoseconds), "{options}");
        assert_eq!(inode.crtime.map(|time| time.seconds), wide.then_some(978_307_200), "{options}");
    }
}

fn counts_are_those_of_debugfs(options: &str, image: &Image, fs: &Filesystem) {
    let (statfs, superblock) = (fs.statfs(), fs.superblock());
    let header = image.debugfs("show_super_stats -h");
    let number = |label: &str| -> u64 {
        let (_, rest) = header.split_once(label).unwrap_or_else(|| panic!("{label} in {header}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!(statfs.free, number("Free blocks:"), "{options}");
    assert_eq!(statfs.free_files, number("Free inodes:"), "{options}");
    assert_eq!(statfs.files, number("Inode count:"), "{options}");
    assert_eq!(superblock.blocks, number("Block count:"), "{options}");
    assert!(statfs.blocks < superblock.blocks && statfs.available <= statfs.free, "{options}");
    // mke2fs counts the same overhead, and the journal in it.
    if header.contains("Overhead clusters:") {
        assert_eq!(superblock.blocks - statfs.blocks, number("Overhead clusters:"), "{options}");
    }
}

#[test]
fn one_file_system_serves_many_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Filesystem>();
    let image = Image::make("-t ext4 -b 1024", "16M", fill);
    let fs = image.open();
    let number = image.number("sparse");
    let expected = fs::read(image.source().join("sparse")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(content(&fs, &fs.inode(number).unwrap()) == expected));
        }
    });
    assert_eq!(fs.inode(InodeNumber::ROOT).unwrap().kind, FileKind::Directory);
}
