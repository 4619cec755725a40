//! What each feature of a file system asks of a reader: what it changes is read rightly, and what it does not is left.

mod image;
mod kernel;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use image::{Image, content, inode, pattern};
use kernel::Mounted;
use lazaret_worker::ext4::{FileKind, InodeNumber};

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
        ("-t ext2 -r 0 -b 1024", None, 0u32),
        ("-t ext2 -r 0 -b 4096", None, 0),
        ("-t ext2 -o hurd -b 4096 -I 128", None, 0),
        ("-t ext2 -I 128", Some(0x48), 3),
        ("-t ext2 -I 128", Some(0x48), 4),
    ] {
        let mut image = Image::make(options, "64M", fill);
        if let Some(field) = field {
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
}
