//! What each feature of a file system asks of a reader: what it changes is read rightly, and what it does not is left.

mod image;
mod kernel;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use image::{Image, content, inode, pattern};
use kernel::Mounted;
use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::{Checksum, Refusal};
use lazaret_policy::warning::Warnings;
use lazaret_worker::device::Device;
use lazaret_worker::ext4::checksum::crc32c;
use lazaret_worker::ext4::{FileKind, Filesystem, InodeNumber, Settings};

fn fill(root: &Path) {
    fs::create_dir(root.join("directory")).unwrap();
    fs::write(root.join("directory/large"), pattern(3_000_001)).unwrap();
    fs::write(root.join("short"), b"short").unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for offset in [0, 70_000, 5_000_000] {
        sparse.write_all_at(&pattern(100), offset).unwrap();
    }
}

fn assert_read_back(image: &Image, options: &str) {
    let fs = image.open();
    for name in ["directory/large", "short", "sparse"] {
        let expected = fs::read(image.source().join(name)).unwrap();
        assert!(content(&fs, &inode(&fs, image, name)) == expected, "{options}: {name}");
    }
    let root = fs.inode(InodeNumber::ROOT).unwrap();
    assert_eq!(root.kind, FileKind::Directory);
    assert_eq!(fs.lookup(&root, b"short"), Ok(Some(image.number("short"))), "{options}");
}

/// Everything that statfs(2) says must be what the kernel's mount says.
fn assert_counts_of_the_kernel(image: &Image, options: &str) {
    let Some(mounted) = Mounted::of(&image.path()) else { return };
    let theirs = rustix::fs::statfs(mounted.path()).unwrap();
    let ours = image.open().statfs();
    assert_eq!(ours.block_size as i64, theirs.f_bsize, "{options}");
    assert_eq!(
        (ours.blocks, ours.free, ours.available, ours.files, ours.free_files),
        (theirs.f_blocks, theirs.f_bfree, theirs.f_bavail, theirs.f_files, theirs.f_ffree),
        "{options}"
    );
}

#[test]
fn files_in_clusters_are_read_and_counted() {
    let geometries = [
        "-b 1024 -C 16384",
        "-b 1024 -C 2048",
        "-b 2048 -C 4096",
        "-b 4096 -C 65536",
        "-b 4096 -C 1048576",
        "-b 1024 -C 8192 -g 8192 -O meta_bg,^resize_inode",
        "-b 1024 -C 8192 -O meta_bg,^resize_inode,^flex_bg",
        "-b 4096 -C 16384 -O ^has_journal,^metadata_csum",
    ];
    for geometry in geometries {
        let options = format!("-t ext4 -O bigalloc {geometry}");
        let image = Image::make(&options, "128M", fill);
        assert_read_back(&image, &options);
        assert_counts_of_the_kernel(&image, &options);
        assert!(image.open().superblock().cluster_ratio > 1);
    }
}

/// Some writers leave the count of what is the file system's own at 0; then it is counted, as the kernel does.
#[test]
fn clusters_of_the_file_system_itself_are_counted_where_nobody_has() {
    for geometry in ["-b 1024 -C 16384", "-b 4096 -C 65536", "-b 4096 -C 16384 -O ^flex_bg,^has_journal -g 32768"] {
        let options = format!("-t ext4 -O bigalloc,^resize_inode {geometry}");
        let mut image = Image::make(&options, "128M", fill);
        image.break_superblock(0x248, &[0; 4]);
        image.save();
        assert_counts_of_the_kernel(&image, &options);
    }
}

#[test]
fn blocks_of_every_size_are_read_also_where_a_page_is_smaller() {
    for log in 0..=6 {
        for kind in ["ext2", "ext4 -O ^has_journal"] {
            let options = format!("-t {kind} -b {}", 1024 << log);
            let image = Image::make(&options, "32M", fill);
            let fs = image.open();
            // Not the kernel but debugfs is asked: it mounts none of these over its own page size.
            for name in ["directory/large", "sparse"] {
                let copy = image.path().with_extension("copy");
                image.debugfs(&format!("dump {name} {}", copy.display()));
                let inode = inode(&fs, &image, name);
                assert!(content(&fs, &inode) == fs::read(&copy).unwrap(), "{options}: {name}");
                assert!(content(&fs, &inode) == fs::read(image.source().join(name)).unwrap(), "{options}: {name}");
            }
        }
    }
}

#[test]
fn old_revisions_and_other_systems_are_read() {
    for (options, field, value) in [
        ("-t ext2 -O none -I 128 -b 1024", Some(0x4c), 0u32),
        ("-t ext2 -O none -I 128 -b 4096", Some(0x4c), 0),
        ("-t ext2 -o hurd -b 4096 -I 128", None, 0),
        ("-t ext2 -I 128", Some(0x48), 3),
        ("-t ext2 -I 128", Some(0x48), 4),
    ] {
        let mut image = Image::make(options, "64M", fill);
        if field == Some(0x4c) {
            image.become_revision_0();
        } else if let Some(field) = field {
            image.break_superblock(field, &u32::to_le_bytes(value));
        }
        assert_read_back(&image, options);
    }
}

/// The field of an inode that is the upper half of a block's number elsewhere has permissions in it on the Hurd.
#[test]
fn what_the_hurd_keeps_in_an_inode_is_not_taken_for_ours() {
    let mut image = Image::make("-t ext2 -o hurd -b 4096 -I 128", "64M", fill);
    let number = image.number("short");
    let at = image.inode(number);
    image.write(at + 0x76, &[7, 0]);
    image.write(at + 0x7c, &1000u32.to_le_bytes());
    assert_read_back(&image, "hurd");
}

#[test]
fn features_that_concern_writers_only_change_nothing() {
    let features = "stable_inodes,quota,project,sparse_super2,orphan_file,ea_inode,large_dir,mmp,verity,fast_commit";
    for feature in features.split(',') {
        let mut options = format!("-t ext4 -b 4096 -O {feature}");
        if feature == "sparse_super2" {
            options += ",^resize_inode";
        }
        let image = Image::make(&options, "64M", fill);
        assert_read_back(&image, &options);
    }
    // What mke2fs does not make: snapshot, replica, read-only, shared blocks, orphans present.
    for bits in [0x80u32, 0x800, 0x1000, 0x4000, 0x1_0000, 0x4] {
        let mut image = Image::make("-t ext4", "64M", fill);
        let features = image.u32(1024 + 0x64) | bits;
        image.break_superblock(0x64, &features.to_le_bytes());
        assert_read_back(&image, &format!("ro_compat {bits:#x}"));
    }
    // Blocks made ready for directories, inodes of AFS, bitmaps of what snapshots leave out.
    for bits in [0x1u32, 0x2, 0x100] {
        let mut image = Image::make("-t ext4", "64M", fill);
        let features = image.u32(1024 + 0x5c) | bits;
        image.break_superblock(0x5c, &features.to_le_bytes());
        assert_read_back(&image, &format!("compat {bits:#x}"));
    }
}

/// The feature of spread descriptors, and none of them is spread: resizing makes it so where no room is left in front.
#[test]
fn descriptors_that_are_all_in_front_are_found_there() {
    let mut image = Image::make("-t ext4 -b 1024 -g 256 -N 512 -O ^resize_inode,^meta_bg,^has_journal", "12M", fill);
    let per_block = 1024 / u32::from(u16::from_le_bytes([image.bytes[1024 + 0xfe], image.bytes[1024 + 0xff]]));
    let groups = (image.u32(1024 + 4) - 1).div_ceil(256);
    let features = image.u32(1024 + 0x60) | 0x10;
    image.break_superblock(0x60, &features.to_le_bytes());
    let in_front = groups.div_ceil(per_block);
    image.break_superblock(0x104, &in_front.to_le_bytes());
    assert_read_back(&image, "all in front");
    image.break_superblock(0x104, &(in_front + 1).to_le_bytes());
    let broken = Corruption { rule: Rule::FirstMetaGroup, place: Place::Superblock };
    assert_eq!(image.open_with(Checksum::Strict).err(), Some(Refusal::Corrupt(broken)));
}

/// Some groups hold copies; with so many, one of them is the first whose place is looked at.
fn with_copies(options: &str) -> Image {
    Image::make(&format!("-t ext4 -b 1024 {options}"), "64M", fill)
}

#[test]
fn without_its_superblock_the_copies_are_told_and_each_can_be_taken() {
    for (options, expected) in [
        ("", [8193, 24577, 40961]),
        ("-O ^sparse_super,^resize_inode", [8193, 24577, 40961]),
        ("-O ^metadata_csum", [8193, 24577, 40961]),
        ("-O meta_bg,^resize_inode", [8193, 24577, 40961]),
        ("-O sparse_super2,^resize_inode", [8193, 57345, 0]),
    ] {
        let mut image = with_copies(options);
        image.bytes[1024..2048].fill(0);
        let refusal = image.open_with(Checksum::Strict).err();
        assert_eq!(refusal, Some(Refusal::SuperblockLost { broken: None, copies: expected }), "{options}");
        for copy in expected.into_iter().filter(|&copy| copy > 0) {
            let settings = Settings { superblock: Some(copy), ..Settings::default() };
            let fs = Filesystem::open(Device::from_bytes(image.bytes.clone()), settings).unwrap();
            let root = fs.inode(InodeNumber::ROOT).unwrap();
            let number = fs.lookup(&root, b"short").unwrap().unwrap();
            assert_eq!(content(&fs, &fs.inode(number).unwrap()), b"short", "{options} {copy}");
            assert_eq!(fs.warnings(), Warnings::empty(), "{options} {copy}");
        }
    }
}

/// The descriptors beside a copy are taken with it: those of the primary superblock may be gone, too.
#[test]
fn a_copy_comes_with_its_own_descriptors() {
    let mut image = with_copies("");
    image.bytes[1024..1024 * 4].fill(0xff);
    let settings = Settings { superblock: Some(24577), ..Settings::default() };
    let fs = Filesystem::open(Device::from_bytes(image.bytes.clone()), settings).unwrap();
    let root = fs.inode(InodeNumber::ROOT).unwrap();
    let number = fs.lookup(&root, b"sparse").unwrap().unwrap();
    assert!(content(&fs, &fs.inode(number).unwrap()) == fs::read(image.source().join("sparse")).unwrap());
}

#[test]
fn a_superblock_that_breaks_a_rule_is_told_with_the_rule_and_the_copies() {
    let mut image = with_copies("");
    image.break_superblock(0x58, &[255, 0]);
    let broken = Corruption { rule: Rule::InodeSize, place: Place::Superblock };
    let lost = Refusal::SuperblockLost { broken: Some(broken), copies: [8193, 24577, 40961] };
    assert_eq!(image.open_with(Checksum::Strict).err(), Some(lost));
    // A copy that is damaged itself is not told, and neither is one that says it belongs elsewhere.
    image.bytes[8193 * 1024 + 0x70] ^= 1;
    image.bytes[24577 * 1024 + 0x5a] = 9;
    let told = image.open_with(Checksum::Strict).err();
    assert!(matches!(told, Some(Refusal::SuperblockLost { copies: [40961, ..], .. })), "{told:?}");
}

#[test]
fn what_is_no_copy_is_not_taken() {
    let mut image = with_copies("");
    let sound = image.bytes.clone();
    let open = |bytes: &[u8], place| {
        let settings = Settings { superblock: Some(place), ..Settings::default() };
        Filesystem::open(Device::from_bytes(bytes.to_vec()), settings).err()
    };
    assert_eq!(open(&sound, 1), None);
    assert_eq!(open(&sound, 8193), None);
    assert_eq!(open(&sound, 8194), Some(Refusal::NotExt));
    assert!(matches!(open(&sound, 1 << 40), Some(Refusal::TooShort { .. })));
    assert!(matches!(open(&sound, u64::MAX), Some(Refusal::TooShort { .. })));
    // A sound superblock in the middle of a group may be anybody's.
    image.bytes.copy_within(8193 * 1024..8194 * 1024, 10_000 * 1024);
    let misplaced = Corruption { rule: Rule::SuperblockPlace, place: Place::Superblock };
    assert_eq!(open(&image.bytes, 10_000), Some(Refusal::Corrupt(misplaced)));
}

#[test]
fn there_is_nothing_to_warn_of_in_a_sound_file_system() {
    for options in ["-t ext4", "-t ext2", "-t ext4 -O mmp", "-t ext4 -O mmp,^metadata_csum", "-t ext4 -O quota,project"]
    {
        assert_eq!(Image::make(options, "64M", fill).open().warnings(), Warnings::empty(), "{options}");
    }
}

#[test]
fn a_file_system_that_another_host_has_mounted_is_read_with_a_warning() {
    for options in ["-t ext4 -b 4096 -O mmp", "-t ext4 -b 4096 -O mmp,^metadata_csum"] {
        let mut image = Image::make(options, "64M", fill);
        let seed = crc32c(!0, &image.bytes[1024 + 0x68..1024 + 0x78]);
        let block = image.u32(1024 + 0x168) as usize * 4096;
        let sound = image.bytes.clone();
        let cases: [(usize, &[u8], bool, Warnings); 4] = [
            (4, &[5, 0, 0, 0], true, Warnings::IN_USE),
            (4, &0xe24d_4d50u32.to_le_bytes(), true, Warnings::IN_USE),
            (0, &[0], true, Warnings::GUARD_DAMAGED),
            (0x10, b"x", false, Warnings::GUARD_DAMAGED),
        ];
        for (field, bytes, seal, warning) in cases {
            image.bytes.clone_from(&sound);
            image.write(block + field, bytes);
            if seal {
                let sum = crc32c(seed, &image.bytes[block..block + 0x3fc]);
                image.write(block + 0x3fc, &sum.to_le_bytes());
            }
            let unsealed = !seal && options.contains("^metadata_csum");
            assert_eq!(
                image.open().warnings(),
                if unsealed { Warnings::empty() } else { warning },
                "{options} {field}"
            );
            assert_read_back(&image, options);
        }
        for place in [0u64, 1 << 40, u64::MAX] {
            image.bytes.clone_from(&sound);
            image.break_superblock(0x168, &place.to_le_bytes());
            assert_eq!(image.open().warnings(), Warnings::GUARD_DAMAGED, "{options} {place}");
        }
    }
}

#[test]
fn what_the_superblock_says_of_its_state_is_a_warning() {
    let mut image = Image::make("-t ext4", "64M", fill);
    image.break_superblock(0x3a, &[2, 0]);
    assert_eq!(image.open().warnings(), Warnings::ERRORS | Warnings::NOT_CLEAN);
    image.break_superblock(0x3a, &[1, 0]);
    let features = image.u32(1024 + 0x64);
    for (bit, warning) in [(0x80, true), (0x800, true), (1 << 31, true), (0x4000, false), (0x1000, false)] {
        image.break_superblock(0x64, &(features | bit).to_le_bytes());
        assert_eq!(image.open().warnings().contains(Warnings::FEATURES), warning, "{bit:#x}");
    }
}

#[test]
fn wrong_checksums_that_were_let_pass_at_opening_are_counted() {
    let mut image = Image::make("-t ext4", "64M", fill);
    image.bytes[1024 + 0x88] ^= 1;
    assert!(image.open_with(Checksum::Strict).is_err());
    let fs = image.open_with(Checksum::Warn).unwrap();
    assert_eq!((fs.warnings(), fs.verifier().failures()), (Warnings::CHECKSUMS, 1));
    assert_eq!(image.open_with(Checksum::Ignore).unwrap().warnings(), Warnings::empty());
}

#[test]
fn a_journal_on_another_device_is_missed_only_where_it_is_needed() {
    let mut image = Image::make("-t ext4", "32M", fill);
    // No inode of a journal, but the UUID of one that is elsewhere, and the number of its device.
    image.break_superblock(0xe0, &[0; 4]);
    image.break_superblock(0xe4, &7u32.to_le_bytes());
    image.break_superblock(0xd0, b"another journal!");
    let fs = image.open();
    assert!(fs.superblock().external_journal && fs.inode(InodeNumber::ROOT).is_ok());
    assert_eq!(fs.warnings(), Warnings::JOURNAL_ELSEWHERE);
    let incompat = image.u32(1024 + 0x60) | 4;
    image.break_superblock(0x60, &incompat.to_le_bytes());
    assert_eq!(image.open_with(Checksum::Strict).err(), Some(Refusal::ExternalJournal));
}

#[test]
fn the_journal_of_another_file_system_is_none() {
    for options in ["-O journal_dev", "-O journal_dev -b 1024", "-O journal_dev,metadata_csum"] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal");
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        let mut mke2fs = std::process::Command::new("/sbin/mke2fs");
        let output = mke2fs.args(["-q", "-F"]).args(options.split(' ')).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let device = Device::from_bytes(fs::read(&path).unwrap());
        let refusal = Filesystem::open(device, Settings::default()).err();
        assert_eq!(refusal, Some(Refusal::JournalDevice), "{options}");
    }
}
