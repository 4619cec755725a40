//! File systems for tests: one directory full of names, made by e2fsprogs, and damaged on purpose.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use super::checksum::crc32c;
use super::{Filesystem, Inode, InodeNumber, LogicalBlock, MappingKind, Settings, htree};
use crate::device::Device;

/// An image whose root holds the directory `d`.
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
}

impl Sample {
    /// `options` are mke2fs's; `indexed` sorts the directory into a hash tree, by the hash that tune2fs calls so.
    pub(super) fn new(options: &[&str], indexed: Option<&str>, names: &[Vec<u8>]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("tree/d");
        fs::create_dir_all(&directory).unwrap();
        for name in names {
            File::create(directory.join(OsStr::from_bytes(name))).unwrap();
        }
        let image = place.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let mut mke2fs = tool("mke2fs");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-N", "4096", "-d"]);
        run(mke2fs.arg(place.path().join("tree")).args(options).arg(&image), &[0]);
        if let Some(hash) = indexed {
            let (algorithm, signedness) = hash.split_once('_').map_or((hash, "1"), |(algorithm, _)| (algorithm, "2"));
            let algorithm = if algorithm == "half" { "half_md4" } else { algorithm };
            for (field, value) in [("flags", signedness), ("def_hash_version", algorithm)] {
                run(tool("debugfs").args(["-w", "-R", &format!("set_super_value {field} {value}")]).arg(&image), &[0]);
            }
            run(tool("e2fsck").args(["-f", "-y", "-D"]).arg(&image), &[0, 1]);
        }
        Self { bytes: fs::read(image).unwrap() }
    }

    pub(super) fn open(&self) -> Filesystem {
        self.open_with(Settings::default())
    }

    pub(super) fn open_with(&self, settings: Settings) -> Filesystem {
        let device = Device::from_bytes(self.bytes.clone());
        Filesystem::open(device, settings).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// Changes a block of `d`, and makes its checksum right again where there is room for one.
    pub(super) fn damage(&mut self, block: u32, change: impl FnOnce(&mut [u8])) {
        let fs = self.open();
        let directory = directory(&fs);
        let size = fs.superblock().block_size;
        let start = fs.map(&directory, size.file_offset(LogicalBlock(block)), 1).unwrap().kind;
        let MappingKind::Data(start) = start else { panic!("block {block} is not there") };
        let bytes = &mut self.bytes[start.0 as usize..][..size.length()];
        change(bytes);
        let tail = bytes.len() - 12;
        if bytes[tail..][..8] == [0, 0, 0, 0, 12, 0, 0, 0xde] {
            let crc = crc32c(directory.checksum_seed, &bytes[..tail]);
            bytes[tail + 8..].copy_from_slice(&crc.to_le_bytes());
        } else {
            htree::seal(&fs, &directory, block, bytes);
        }
    }

    /// Overwrites bytes of a block of `d`.
    pub(super) fn write(&mut self, block: u32, offset: usize, new: &[u8]) {
        self.damage(block, |bytes| bytes[offset..][..new.len()].copy_from_slice(new));
    }
}

/// The directory `d`.
pub(super) fn directory(fs: &Filesystem) -> Inode {
    let root = fs.inode(InodeNumber::ROOT).unwrap();
    fs.inode(fs.lookup(&root, b"d").unwrap().unwrap()).unwrap()
}

/// So many names, each of them of this length and told apart by its number.
pub(super) fn names(count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{number:0>length$}").into_bytes()).collect()
}

/// e2fsprogs lie where an ordinary user's PATH does not lead.
pub(super) fn tool(name: &str) -> Command {
    let path = ["/usr/sbin", "/sbin", "/usr/bin"].iter().map(|directory| Path::new(directory).join(name));
    let path = path.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("install e2fsprogs: no {name}"));
    Command::new(path)
}

fn run(command: &mut Command, statuses: &[i32]) {
    let output = command.output().unwrap();
    let sound = output.status.code().is_some_and(|status| statuses.contains(&status));
    assert!(sound, "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
