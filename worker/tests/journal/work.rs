//! What is done on a file system before it crashes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// A bit of everything: some of it reaches its place, some only the journal, some only memory.
pub(crate) fn mixed(root: &Path) {
    for directory in 0..6 {
        let at = root.join(format!("d{directory}"));
        fs::create_dir(&at).unwrap();
        for file in 0..25 {
            write(&at.join(format!("file {file}")), &pattern(directory * 100 + file, file as usize * 700));
        }
        symlink("a short target", at.join("short")).unwrap();
        symlink("x".repeat(200), at.join("long")).unwrap();
    }
    sync(root);
    fs::rename(root.join("d0/file 3"), root.join("d1/moved")).unwrap();
    fs::hard_link(root.join("d1/file 4"), root.join("d2/linked")).unwrap();
    fs::remove_dir_all(root.join("d5")).unwrap();
    fs::set_permissions(root.join("d2/file 7"), fs::Permissions::from_mode(0o4711)).unwrap();
    File::options().write(true).open(root.join("d3/file 20")).unwrap().set_len(5000).unwrap();
    commit(root);
    write(&root.join("sparse"), b"begin");
    let sparse = File::options().write(true).open(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", 3_000_000).unwrap();
    for number in 0..40 {
        write(&root.join(format!("d4/late {number}")), &pattern(number, 100));
    }
    File::open(root.join("d4/late 39")).unwrap().sync_all().unwrap();
    // Of this nothing is in the journal.
    fs::remove_file(root.join("d1/file 8")).unwrap();
    write(&root.join("lost"), b"lost");
}

/// One of many transactions: a directory that an earlier one may have made is made anew.
pub(crate) fn transaction(root: &Path, number: i32) {
    let directory = root.join(format!("r{}", number % 10));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    for file in 0..12 {
        write(&directory.join(format!("{number} {file}")), &pattern(number, 300));
    }
    commit(root);
}

/// Directories whose blocks are journaled are deleted, and their blocks hold data of files afterwards.
pub(crate) fn revokes(root: &Path) {
    for round in 0..3 {
        for directory in 0..40 {
            let at = root.join(format!("{round} {directory}"));
            fs::create_dir(&at).unwrap();
            for file in 0..60 {
                File::create(at.join(format!("a rather long name, so that it takes space {file}"))).unwrap();
            }
        }
        commit(root);
        for directory in 0..40 {
            fs::remove_dir_all(root.join(format!("{round} {directory}"))).unwrap();
        }
        commit(root);
        // As much as there is room for.
        let mut file = File::create(root.join(format!("data {round}"))).unwrap();
        let block = pattern(round, 4096);
        while file.write_all(&block).is_ok() && file.metadata().unwrap().len() < 3 << 20 {}
        commit(root);
    }
    File::create(root.join("last")).unwrap().sync_all().unwrap();
}

/// With `data=journal`: blocks of files that begin with the journal's magic number, whole and in part.
pub(crate) fn escapes(root: &Path) {
    let magic = [0xc0, 0x3b, 0x39, 0x98];
    for number in 0..30 {
        let mut bytes = Vec::new();
        for block in 0..9_u8 {
            bytes.extend(magic);
            bytes.extend(vec![block.wrapping_add(number); 1020]);
        }
        write(&root.join(format!("escaped {number}")), &bytes);
        write(&root.join(format!("zeros {number}")), &[&[0; 4], &bytes[4..]].concat());
    }
    commit(root);
    write(&root.join("escaped 3"), &pattern(3, 5000));
    let mut file = OpenOptions::new().append(true).open(root.join("zeros 4")).unwrap();
    file.write_all(&magic).unwrap();
    file.sync_all().unwrap();
}

/// Names in fast commits. There is room for 15 of them before a transaction follows.
pub(crate) fn fast_commits_of_names(root: &Path) {
    for name in ["old", "gone", "renamed"] {
        write(&root.join(name), &pattern(1, 3000));
    }
    for directory in ["d", "empty"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    for name in ["d/a", "d/b", "d/c"] {
        write(&root.join(name), &pattern(2, 9000));
    }
    sync(root);
    write(&root.join("first"), b"first");
    fsync(&root.join("first"));
    fs::create_dir(root.join("new")).unwrap();
    fs::create_dir(root.join("new/below")).unwrap();
    write(&root.join("new/below/file"), &pattern(4, 12_345));
    fsync(&root.join("new/below/file"));
    fs::hard_link(root.join("d/a"), root.join("d/link")).unwrap();
    fs::remove_file(root.join("d/b")).unwrap();
    fs::rename(root.join("d/a"), root.join("new/moved")).unwrap();
    fsync(&root.join("new/moved"));
    fs::rename(root.join("renamed"), root.join("d/c")).unwrap();
    fs::remove_dir(root.join("empty")).unwrap();
    fs::set_permissions(root.join("old"), fs::Permissions::from_mode(0o640)).unwrap();
    fsync(&root.join("old"));
    // A name that is taken again, an inode number too.
    fs::remove_file(root.join("gone")).unwrap();
    write(&root.join("gone"), &pattern(5, 5000));
    fsync(&root.join("gone"));
    fs::rename(root.join("gone"), root.join("first")).unwrap();
    fsync(&root.join("first"));
    // Of this nothing is in the journal.
    write(&root.join("lost"), b"lost");
}

/// Ranges in fast commits.
pub(crate) fn fast_commits_of_ranges(root: &Path) {
    write(&root.join("big"), &pattern(3, 300_000));
    write(&root.join("scattered"), b"");
    sync(root);
    write(&root.join("first"), b"first");
    fsync(&root.join("first"));
    let big = File::options().write(true).open(root.join("big")).unwrap();
    write_at(&big, &pattern(6, 20_000), 100_000);
    big.sync_all().unwrap();
    big.set_len(150_000).unwrap();
    write_at(&big, &pattern(7, 5000), 400_000);
    big.sync_all().unwrap();
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&big, punch, 8192, 40_960).unwrap();
    big.sync_all().unwrap();
    rustix::fs::fallocate(&big, rustix::fs::FallocateFlags::empty(), 500_000, 100_000).unwrap();
    write_at(&big, b"within", 550_000);
    big.sync_all().unwrap();
    // More extents than an inode has room for.
    let scattered = File::options().write(true).open(root.join("scattered")).unwrap();
    for part in 0..12 {
        write_at(&scattered, &pattern(8 + part, 5000), u64::from(part.unsigned_abs()) * 40_000);
    }
    scattered.sync_all().unwrap();
}

/// Many changes before one fsync.
pub(crate) fn long_fast_commits(root: &Path) {
    fs::create_dir(root.join("d")).unwrap();
    sync(root);
    write(&root.join("first"), b"first");
    fsync(&root.join("first"));
    for round in 0..3 {
        for file in 0..25 {
            write(&root.join(format!("d/{round} a name of some length {file}")), &pattern(file, 700));
        }
        if round > 0 {
            for file in 0..10 {
                fs::remove_file(root.join(format!("d/{} a name of some length {file}", round - 1))).unwrap();
            }
        }
        fsync(&root.join(format!("d/{round} a name of some length 24")));
    }
}

/// Names come and go in a directory that has a hash tree.
pub(crate) fn fast_commits_in_a_large_directory(root: &Path) {
    fs::create_dir(root.join("large")).unwrap();
    for file in 0..700 {
        write(&root.join(format!("large/a rather long name, so that it takes space {file}")), b"");
    }
    sync(root);
    write(&root.join("first"), b"first");
    fsync(&root.join("first"));
    for file in 0..20 {
        write(&root.join(format!("large/new {file}")), &pattern(file, 50));
        fs::remove_file(root.join(format!("large/a rather long name, so that it takes space {}", file * 30))).unwrap();
        if file % 7 == 0 {
            fsync(&root.join(format!("large/new {file}")));
        }
    }
    fsync(&root.join("large/new 19"));
}

/// Names in directories that are made and removed again before anything is committed.
pub(crate) fn fast_commits_in_directories_that_are_gone(root: &Path) {
    write(&root.join("a"), &pattern(1, 3000));
    commit(root);
    fs::create_dir(root.join("d")).unwrap();
    fs::hard_link(root.join("a"), root.join("d/b")).unwrap();
    fs::remove_file(root.join("d/b")).unwrap();
    fs::remove_dir(root.join("d")).unwrap();
    fsync(&root.join("a"));
    fs::create_dir(root.join("e")).unwrap();
    write(&root.join("e/f"), &pattern(2, 5000));
    fs::rename(root.join("e/f"), root.join("x")).unwrap();
    fs::remove_dir(root.join("e")).unwrap();
    fsync(&root.join("x"));
}

fn fsync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn write_at(file: &File, bytes: &[u8], at: u64) {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at).unwrap();
}

/// Commits what was done so far to the journal, and nothing to its place.
pub(crate) fn commit(root: &Path) {
    let mark = root.join("committed");
    write(&mark, b"x");
    File::open(&mark).unwrap().sync_all().unwrap();
    fs::remove_file(mark).unwrap();
}

/// Writes everything to its place.
pub(crate) fn sync(root: &Path) {
    rustix::fs::syncfs(File::open(root).unwrap()).unwrap();
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

/// Bytes that differ from block to block and from seed to seed.
pub(crate) fn pattern(seed: i32, length: usize) -> Vec<u8> {
    let mut state = u32::from_ne_bytes(seed.to_ne_bytes()).wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}
