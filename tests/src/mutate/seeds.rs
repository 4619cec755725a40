//! The sound images: small, so that a copy costs little, and of many shapes. None needs root.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use lazaret_worker::ext4::checksum::crc32c;

use super::bytes::{be32, put, u32};
use super::layout::{self, Layout};
use super::sealed;
use crate::fill::noise;
use crate::{Result, command};

/// A sound image.
pub struct Seed {
    /// What it is.
    pub name: &'static str,
    /// The image.
    pub bytes: Vec<u8>,
    pub(crate) layout: Layout,
}

/// How one is made.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Words of mke2fs.
    pub(crate) format: &'static str,
    pub(crate) kibibytes: u64,
    /// Requests to debugfs, one a line; `DIR` is a directory with the files `value` and `block`.
    pub(crate) requests: &'static [&'static str],
    /// Directories become hash trees.
    pub(crate) hashed: bool,
    pub(crate) finish: fn(&mut [u8], &Layout),
}

pub(crate) const PLAIN: Shape =
    Shape { name: "", format: "", kibibytes: 512, requests: &[], hashed: false, finish: |_, _| () };

pub(crate) const ATTRIBUTES: &[&str] = &[
    "ea_set /file user.short value",
    "ea_set -f DIR/value /file user.long",
    "ea_set -f DIR/acl /file system.posix_acl_access",
    "ea_set -f DIR/acl /d system.posix_acl_default",
    "ea_set -f DIR/value /sparse user.long",
];

/// When everything was made, in seconds.
const TIME: u32 = 1_500_000_000;

/// A log with three transactions: blocks of data, one of which begins with the journal's magic number, and revokes.
const LOG: &[&str] = &["jo -c", "jw -b 200,201 DIR/blocks", "jw -r 202,203", "jw -b 204 DIR/block", "jc"];

/// The same without checksums: those of version 1 debugfs leaves empty.
const OLD_LOG: &[&str] = &["jo", "jw -b 200,201 DIR/blocks", "jw -r 202,203", "jw -b 204 DIR/block", "jc"];

const SHAPES: &[Shape] = &[
    Shape { name: "ext4", format: "-t ext4 -b 1024 -O ^has_journal", requests: ATTRIBUTES, ..PLAIN },
    Shape {
        name: "ext4-4k",
        format: "-t ext4 -b 4096 -O ^has_journal",
        kibibytes: 1024,
        requests: ATTRIBUTES,
        ..PLAIN
    },
    Shape { name: "ext2", format: "-t ext2 -b 1024 -I 128", requests: ATTRIBUTES, ..PLAIN },
    Shape { name: "ext2-hashed", format: "-t ext2 -b 1024 -I 128", hashed: true, ..PLAIN },
    Shape { name: "crc16", format: "-t ext4 -b 1024 -g 256 -O ^metadata_csum,uninit_bg,^has_journal", ..PLAIN },
    Shape { name: "groups", format: "-t ext4 -b 1024 -g 256 -N 128 -O ^resize_inode,^has_journal", ..PLAIN },
    Shape { name: "hashed", format: "-t ext4 -b 1024 -O ^has_journal", hashed: true, kibibytes: 768, ..PLAIN },
    Shape { name: "hashed-large-dir", format: "-t ext4 -b 1024 -O large_dir,^has_journal", hashed: true, ..PLAIN },
    Shape {
        name: "inline",
        format: "-t ext4 -b 1024 -I 256 -O inline_data,^has_journal",
        requests: ATTRIBUTES,
        ..PLAIN
    },
    Shape {
        name: "inline-1024",
        format: "-t ext4 -b 4096 -I 1024 -O inline_data,^has_journal",
        kibibytes: 1024,
        ..PLAIN
    },
    Shape { name: "ea-inode", format: "-t ext4 -b 1024 -O ea_inode,^has_journal", requests: ATTRIBUTES, ..PLAIN },
    Shape { name: "clusters", format: "-t ext4 -b 1024 -C 4096 -O bigalloc,^has_journal", kibibytes: 1024, ..PLAIN },
    Shape { name: "casefold", format: "-t ext4 -b 1024 -O casefold,^has_journal", finish: fold, ..PLAIN },
    Shape {
        name: "casefold-hashed",
        format: "-t ext4 -b 1024 -O casefold,^has_journal",
        hashed: true,
        finish: fold,
        ..PLAIN
    },
    Shape { name: "encrypt", format: "-t ext4 -b 1024 -O encrypt,^has_journal", finish: encrypt, ..PLAIN },
    Shape {
        name: "encrypt-hashed",
        format: "-t ext4 -b 1024 -O encrypt,^has_journal",
        hashed: true,
        finish: encrypt,
        ..PLAIN
    },
    Shape {
        name: "verity",
        format: "-t ext4 -b 1024 -O verity,^has_journal",
        requests: &["write DIR/sealed sealed", "write DIR/sealed-deep sealed-deep"],
        finish: seal_files,
        ..PLAIN
    },
    Shape { name: "mmp", format: "-t ext4 -b 1024 -O mmp,^has_journal", ..PLAIN },
    Shape { name: "csum-seed", format: "-t ext4 -b 2048 -O metadata_csum_seed,^has_journal", ..PLAIN },
    Shape { name: "orphan-quota", format: "-t ext4 -b 1024 -O quota,project,^has_journal", ..PLAIN },
    Shape { name: "64k", format: "-t ext4 -b 65536 -N 64 -O ^has_journal,^resize_inode", kibibytes: 4096, ..PLAIN },
    Shape { name: "journal", format: "-t ext4 -b 1024 -J size=1", kibibytes: 3072, requests: LOG, ..PLAIN },
    Shape { name: "journal-old", format: "-t ext3 -b 1024 -J size=1", kibibytes: 3072, requests: OLD_LOG, ..PLAIN },
    Shape {
        name: "fast-commit",
        format: "-t ext4 -b 1024 -O fast_commit -J size=1,fast_commit_size=16",
        kibibytes: 3072,
        requests: LOG,
        finish: fast_commits,
        ..PLAIN
    },
];

/// All of them.
pub fn all() -> Result<Vec<Seed>> {
    made(SHAPES)
}

/// The images of these shapes.
pub(crate) fn made(shapes: &[Shape]) -> Result<Vec<Seed>> {
    let place = tempfile::Builder::new().prefix("lazaret-tests-").tempdir()?;
    fill(place.path())?;
    shapes
        .iter()
        .map(|shape| make(shape, place.path()).map_err(|error| format!("{}: {error}", shape.name).into()))
        .collect()
}

fn make(shape: &Shape, place: &Path) -> Result<Seed> {
    let image = place.join("image");
    File::create(&image)?.set_len(shape.kibibytes << 10)?;
    let tree = place.join(if shape.hashed { "many" } else { "few" });
    let tool = |name: &str| {
        let (mut tool, time) = (Command::new(name), TIME.to_string());
        // Where it lies gets into some images.
        tool.current_dir(place).env("E2FSPROGS_FAKE_TIME", &time).env("E2FSCK_TIME", &time);
        tool
    };
    let mut mke2fs = tool("mke2fs");
    mke2fs.args(["-q", "-F", "-m", "0", "-U", "5ca1ab1e-0000-4000-8000-1a2a4e700001", "-E"]);
    // Of several -E the last counts alone.
    let (format, extended) = shape.format.split_once(" -E ").unwrap_or((shape.format, ""));
    let extended = if extended.is_empty() { String::new() } else { format!(",{extended}") };
    mke2fs.arg(format!("hash_seed=5ca1ab1e-0000-4000-8000-1a2a4e700001,root_owner=0:0{extended}"));
    mke2fs.args(format.split(' '));
    if !shape.format.contains("-N") {
        mke2fs.args(["-N", "128"]);
    }
    command::run(mke2fs.arg("-d").arg(&tree).arg("image"))?;
    if !shape.requests.is_empty() {
        let script = shape.requests.join("\n").replace("DIR", &place.display().to_string());
        fs::write(place.join("script"), script)?;
        command::run(tool("debugfs").args(["-w", "-f", "script", "image"]))?;
    }
    if shape.hashed {
        let finished = command::finish(tool("e2fsck").args(["-fyD", "image"]), command::PATIENCE)?;
        if finished.code().is_none_or(|code| code > 1) {
            return Err(format!("e2fsck: {}", finished.stdout).into());
        }
    }
    let mut bytes = fs::read(&image)?;
    let found = layout::of(&bytes);
    settle(&mut bytes, &found);
    (shape.finish)(&mut bytes, &found);
    let layout = layout::of(&bytes);
    super::seal::seal(&mut bytes, &layout);
    Ok(Seed { name: shape.name, bytes, layout })
}

/// The two trees that images are filled from, and the values that debugfs sets.
fn fill(place: &Path) -> Result {
    for (name, many) in [("few", 8), ("many", 60)] {
        let root = place.join(name);
        fs::create_dir(&root)?;
        fs::write(root.join("file"), noise(1, 9000))?;
        fs::write(root.join("tiny"), b"tiny")?;
        fs::write(root.join("some"), noise(2, 130))?;
        symlink("file", root.join("fast"))?;
        symlink("x/".repeat(100), root.join("slow"))?;
        symlink(OsStr::from_bytes(b"\x14\x01abcdefghijklmnopqrst"), root.join("cipher"))?;
        let sparse = File::create(root.join("sparse"))?;
        for index in 0..100_u64 {
            sparse.write_all_at(&[1 + index as u8], index * 3072)?;
        }
        fs::create_dir(root.join("d"))?;
        for number in 0..many {
            let directory = root.join(if number % 2 == 0 || many > 8 { "d" } else { "" });
            fs::hard_link(
                root.join("tiny"),
                directory.join(format!("a Name with some Bytes in it, number {number:0>180}")),
            )?;
        }
        fs::create_dir(root.join("d/e"))?;
        fs::write(root.join("d/e/deep"), b"deep")?;
    }
    for (name, (_, file)) in ["sealed", "sealed-deep"].into_iter().zip(sealed_files()) {
        fs::write(place.join(name), file)?;
    }
    fs::write(place.join("value"), noise(3, 700))?;
    fs::write(place.join("block"), noise(4, 1024))?;
    fs::write(place.join("blocks"), [noise(5, 1024), 0xc03b_3998_u32.to_be_bytes().to_vec(), noise(6, 1020)].concat())?;
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 6, 1000), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 4, u32::MAX)];
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        acl.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    Ok(fs::write(place.join("acl"), acl)?)
}

/// Gives every object, and every transaction, the same time: mke2fs takes them from the tree, which was made just now, and
/// debugfs asks the clock. An inode that holds the value of an attribute has other things there.
fn settle(bytes: &mut [u8], layout: &Layout) {
    const HOLDS_VALUE: u32 = 0x20_0000;
    const COMMIT: u32 = 2;
    for piece in layout.pieces.iter().filter(|piece| piece.kind == layout::Kind::Log) {
        if be32(bytes, piece.at + 4) == COMMIT {
            put(bytes, piece.at + 0x30, &[u64::from(TIME).to_be_bytes(), [0; 8]].concat());
        }
    }
    // Who guards it, and since when.
    for piece in layout.pieces.iter().filter(|piece| piece.kind == layout::Kind::Guard) {
        put(bytes, piece.at + 8, &[u64::from(TIME).to_le_bytes(), [0; 8]].concat());
    }
    for piece in layout.pieces.iter().filter(|piece| piece.kind == layout::Kind::Inode) {
        let (at, used) = (piece.at, super::bytes::u16(bytes, piece.at + 0x1a) != 0);
        if !used || u32(bytes, at + 0x20) & HOLDS_VALUE != 0 {
            continue;
        }
        for time in [0x08, 0x0c, 0x10] {
            put(bytes, at + time, &TIME.to_le_bytes());
        }
        if piece.length > 128 && super::bytes::u16(bytes, at + 0x80) >= 16 {
            put(bytes, at + 0x84, &[0; 12]);
        }
    }
}

/// Sets flags of the inodes of this type.
fn flag(bytes: &mut [u8], layout: &Layout, kind: u16, flags: u32) {
    for piece in layout.pieces.iter().filter(|piece| piece.kind == layout::Kind::Inode && piece.owner > 11) {
        if super::bytes::u16(bytes, piece.at) & 0xf000 == kind {
            let flags = u32(bytes, piece.at + 0x20) | flags;
            put(bytes, piece.at + 0x20, &flags.to_le_bytes());
        }
    }
}

/// Directories fold case. Those with a tree have it by other hashes, and are read all the same.
fn fold(bytes: &mut [u8], layout: &Layout) {
    flag(bytes, layout, 0x4000, 0x4000_0000);
}

/// What stands in directories and links is taken for ciphertext.
fn encrypt(bytes: &mut [u8], layout: &Layout) {
    flag(bytes, layout, 0x4000, 0x800);
    flag(bytes, layout, 0xa000, 0x800);
}

/// All files say that they have trees. Two have them; of the others a mutation may come close to one.
fn seal_files(bytes: &mut [u8], layout: &Layout) {
    flag(bytes, layout, 0x8000, 0x10_0000);
    for inode in layout.pieces.iter().filter(|piece| piece.kind == layout::Kind::Inode) {
        let whole = u32(bytes, inode.at + 4);
        if let Some((length, _)) = sealed_files().iter().find(|(_, file)| file.len() == whole as usize) {
            put(bytes, inode.at + 4, &(*length as u32).to_le_bytes());
        }
    }
}

/// Files with a tree of one block, and with one of two levels: how many bytes each has, and all of it. The first one has no
/// more blocks than a mutation knows of.
fn sealed_files() -> [(usize, Vec<u8>); 2] {
    let sealed = |length: usize, function, salt: &[u8]| (length, sealed::file(&noise(7, length), function, salt));
    [sealed(2000, sealed::SHA256, b"salt"), sealed(40_000, sealed::SHA512, b"")]
}

/// Fast commits behind the log: an inode as it is, names that come and go, and blocks that a file loses and gains.
fn fast_commits(bytes: &mut [u8], layout: &Layout) {
    let superblock = layout.journal[0];
    // Behind the three transactions of the log. The feature is the kernel's to set, when it mounts.
    let transaction = be32(bytes, superblock + 0x18) + 3;
    let features = be32(bytes, superblock + 0x28) | 0x20;
    put(bytes, superblock + 0x28, &features.to_be_bytes());
    let tag =
        |number: u16, value: &[u8]| [&number.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let name = |inode: u32, name: &str| [words(&[2, inode]), name.as_bytes().to_vec()].concat();
    let file = layout.pieces.iter().find(|piece| piece.kind == layout::Kind::Inode && piece.owner == 12);
    let mut inode = file.map_or(Vec::new(), |file| bytes[file.at..file.at + 160].to_vec());
    // Its checksum is made anew, and not yet right.
    for at in [0x7c, 0x7d, 0x82, 0x83] {
        inode.get_mut(at).into_iter().for_each(|byte| *byte = 0);
    }
    let mut commit = [
        tag(9, &words(&[0, transaction])),
        tag(6, &[words(&[12]), inode].concat()),
        tag(3, &name(12, "made")),
        tag(5, &name(13, "tiny")),
        tag(4, &name(12, "new")),
        tag(2, &words(&[12, 1, 3])),
        tag(1, &[words(&[12, 20]), vec![2, 0, 0, 0], words(&[layout.blocks - 100])].concat()),
    ]
    .concat();
    let sum = crc32c(0, &commit);
    let tail = tag(8, &[words(&[transaction]), vec![0; 4]].concat());
    let sum = crc32c(sum, &tail[..8]);
    commit.extend(&tail[..8]);
    commit.extend(sum.to_le_bytes());
    commit.resize(layout.block, 0);
    let fast = be32(bytes, superblock + 0x10) - be32(bytes, superblock + 0x54) + 1;
    if let Some(&at) = layout.journal.get(fast as usize) {
        put(bytes, at, &commit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input is changes of an image: on another it is another.
    #[test]
    fn images_are_the_same_whenever_they_are_made() {
        let images = || all().unwrap().into_iter().map(|seed| (seed.name, seed.bytes)).collect::<Vec<_>>();
        let before = images();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        for ((name, before), (_, after)) in before.into_iter().zip(images()) {
            assert!(before == after, "{name}");
        }
    }
}
