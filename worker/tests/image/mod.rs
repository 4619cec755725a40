//! Images made by mke2fs, what debugfs says of them, and single fields broken with every checksum made right again.
//!
//! Nothing here needs root: mke2fs fills an image from a directory. The places and lengths of fields are written out as
//! numbers, so that a wrong layout in the reader is not repeated by its tests.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use lazaret_policy::message::{Checksum, Refusal};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::checksum::{crc16, crc32c};
use lazaret_worker::ext4::{Filesystem, Inode, InodeNumber, Settings};

/// An image in a directory of its own, and its bytes in memory to be broken. A clone has bytes of its own.
#[derive(Clone)]
pub struct Image {
    directory: Arc<tempfile::TempDir>,
    pub bytes: Vec<u8>,
}

impl Image {
    /// `options` as for mke2fs, then the image's size as it takes it; `fill` makes the files.
    pub fn make(options: &str, size: &str, fill: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::create_dir(&source).unwrap();
        fill(&source);
        let mut mke2fs = tool("mke2fs");
        mke2fs.args(["-q", "-F", "-U", "01234567-89ab-cdef-0123-456789abcdef", "-d"]).arg(&source);
        mke2fs.args(["-E", "hash_seed=11111111-2222-3333-4444-555555555555"]);
        mke2fs.args(options.split_whitespace()).arg(directory.path().join("image")).arg(size);
        run(&mut mke2fs);
        let bytes = fs::read(directory.path().join("image")).unwrap();
        Self { directory: Arc::new(directory), bytes }
    }

    /// Makes one of revision 1 without features into one of revision 0, as mke2fs did until 1.47.0: there the fields for
    /// the length of an inode and for the first inode of a file are nothing yet.
    pub fn become_revision_0(&mut self) {
        for (field, length) in [(0x4c, 4), (0x54, 4), (0x58, 2)] {
            self.write(1024 + field, &[0; 4][..length]);
        }
        self.save();
    }

    /// The directory that the image was filled from.
    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// Where the image lies.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Writes the bytes back, for other programs to look at.
    pub fn save(&self) {
        fs::write(self.path(), &self.bytes).unwrap();
    }

    /// Takes the bytes of the file again, after somebody else wrote to it.
    pub fn reload(&mut self) {
        self.bytes = fs::read(self.path()).unwrap();
    }

    /// What debugfs prints.
    pub fn debugfs(&self, request: &str) -> String {
        let output = run(tool("debugfs").args(["-R", request]).arg(self.directory.path().join("image")));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Lets debugfs change the image.
    pub fn change(&mut self, request: &str) {
        let path = self.directory.path().join("image");
        let output = run(tool("debugfs").args(["-w", "-R", request]).arg(&path));
        // It says its version there, and otherwise only what went wrong; its exit code says nothing.
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{request}: {said}");
        self.bytes = fs::read(path).unwrap();
    }

    /// The number of a file, as debugfs finds it.
    pub fn number(&self, path: &str) -> InodeNumber {
        let stat = self.debugfs(&format!("stat {path}"));
        let number = stat.split_once("Inode: ").and_then(|(_, rest)| rest.split_whitespace().next()).unwrap();
        InodeNumber::new(number.parse().unwrap()).unwrap()
    }

    pub fn open(&self) -> Filesystem {
        self.open_with(Checksum::Strict).unwrap()
    }

    pub fn open_with(&self, checksum: Checksum) -> Result<Filesystem, Refusal> {
        Filesystem::open(Device::from_bytes(self.bytes.clone()), Settings { checksum, ..Settings::default() })
    }

    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Changes a field of the superblock, and its checksum with it.
    pub fn break_superblock(&mut self, field: usize, bytes: &[u8]) {
        self.write(1024 + field, bytes);
        let sum = crc32c(!0, &self.bytes[1024..1024 + 0x3fc]);
        self.write(1024 + 0x3fc, &sum.to_le_bytes());
    }

    pub fn block_size(&self) -> usize {
        1024 << self.u32(1024 + 0x18)
    }

    /// The seed of all checksums: that of the UUID.
    fn seed(&self) -> u32 {
        crc32c(!0, &self.bytes[1024 + 0x68..1024 + 0x78])
    }

    /// Where a group's descriptor lies: behind the superblock.
    pub fn group(&self, group: usize) -> usize {
        let first = if self.block_size() == 1024 { 2048 } else { self.block_size() };
        first + group * self.descriptor_size()
    }

    fn descriptor_size(&self) -> usize {
        if self.u32(1024 + 0x60) & 0x80 != 0 { self.u16(1024 + 0xfe).into() } else { 32 }
    }

    /// Changes a field of a group's descriptor, and its checksum with it: crc32c or crc16.
    pub fn break_group(&mut self, group: usize, field: usize, bytes: &[u8]) {
        let (at, size) = (self.group(group), self.descriptor_size());
        self.write(at + field, bytes);
        self.write(at + 0x1e, &[0; 2]);
        let number = (group as u32).to_le_bytes();
        let descriptor = &self.bytes[at..at + size];
        let sum = if self.u32(1024 + 0x64) & 0x400 != 0 {
            crc32c(crc32c(self.seed(), &number), descriptor) as u16
        } else {
            let seed = crc16(crc16(!0, &self.bytes[1024 + 0x68..1024 + 0x78]), &number);
            crc16(crc16(seed, &descriptor[..0x1e]), &descriptor[0x20..])
        };
        self.write(at + 0x1e, &sum.to_le_bytes());
    }

    fn inode_size(&self) -> usize {
        if self.u32(1024 + 0x4c) == 0 { 128 } else { self.u16(1024 + 0x58).into() }
    }

    /// Where an inode lies.
    pub fn inode(&self, number: InodeNumber) -> usize {
        let index = number.value() as usize - 1;
        let per_group = self.u32(1024 + 0x28) as usize;
        let table = self.u32(self.group(index / per_group) + 8) as usize;
        table * self.block_size() + index % per_group * self.inode_size()
    }

    fn inode_seed(&self, number: InodeNumber) -> u32 {
        let generation = self.inode(number) + 0x64;
        let seed = crc32c(self.seed(), &number.value().to_le_bytes());
        crc32c(seed, &self.bytes[generation..generation + 4])
    }

    /// Changes a field of an inode, and its checksum with it.
    pub fn break_inode(&mut self, number: InodeNumber, field: usize, bytes: &[u8]) {
        let (at, size) = (self.inode(number), self.inode_size());
        self.write(at + field, bytes);
        self.write(at + 0x7c, &[0; 2]);
        let wide = size > 128 && self.u16(at + 0x80) >= 4;
        if wide {
            self.write(at + 0x82, &[0; 2]);
        }
        let sum = crc32c(self.inode_seed(number), &self.bytes[at..at + size]).to_le_bytes();
        self.write(at + 0x7c, &sum[..2]);
        if wide {
            self.write(at + 0x82, &sum[2..]);
        }
    }

    /// Changes a field in a block of extended attributes, and its checksum with it.
    pub fn break_attributes(&mut self, block: u64, field: usize, bytes: &[u8]) {
        let size = self.block_size();
        let at = block as usize * size;
        self.write(at + field, bytes);
        self.write(at + 0x10, &[0; 4]);
        let sum = crc32c(crc32c(self.seed(), &block.to_le_bytes()), &self.bytes[at..at + size]);
        self.write(at + 0x10, &sum.to_le_bytes());
    }

    /// Changes a field of a directory's block, which lies in this block of the device, and its checksum with it: that at
    /// its end, or that of a hash tree's root or node.
    pub fn break_directory(&mut self, number: InodeNumber, block: u64, field: usize, bytes: &[u8]) {
        let size = self.block_size();
        let at = block as usize * size;
        let indexed = self.u32(self.inode(number) + 0x20) & 0x1000 != 0;
        let begin = match self.u16(at + 4) {
            12 if indexed && self.u16(at + 16) as usize == size - 12 => 32,
            length if indexed && usize::from(length) == size && self.u32(at) == 0 => 8,
            _ => 0,
        };
        self.write(at + field, bytes);
        let seed = self.inode_seed(number);
        if begin == 0 {
            let sum = crc32c(seed, &self.bytes[at..at + size - 12]);
            return self.write(at + size - 4, &sum.to_le_bytes());
        }
        let (limit, count) = (usize::from(self.u16(at + begin)), usize::from(self.u16(at + begin + 2)));
        let tail = at + begin + limit * 8;
        if count <= limit && tail + 8 <= at + size {
            let sum = crc32c(seed, &self.bytes[at..at + begin + count * 8]);
            let sum = crc32c(crc32c(sum, &self.bytes[tail..tail + 4]), &[0; 4]);
            self.write(tail + 4, &sum.to_le_bytes());
        }
    }

    /// Changes a field of an extent node in this block of the device, and its checksum with it.
    pub fn break_node(&mut self, number: InodeNumber, block: u64, field: usize, bytes: &[u8]) {
        let at = block as usize * self.block_size();
        self.write(at + field, bytes);
        let covered = 12 + 12 * usize::from(self.u16(at + 4));
        let sum = crc32c(self.inode_seed(number), &self.bytes[at..at + covered]);
        self.write(at + covered, &sum.to_le_bytes());
    }
}

/// The inode of a file.
pub fn inode(fs: &Filesystem, image: &Image, path: &str) -> Inode {
    fs.inode(image.number(path)).unwrap()
}

/// All bytes of a file.
pub fn content(fs: &Filesystem, inode: &Inode) -> Vec<u8> {
    let mut bytes = vec![0xaa; inode.size as usize];
    assert_eq!(fs.read(inode, 0, &mut bytes), Ok(bytes.len()));
    bytes
}

/// Bytes that repeat nowhere near: what stands at a place says which place it is.
pub fn pattern(length: usize) -> Vec<u8> {
    (0u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).take(length).collect()
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; is e2fsprogs installed?"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
