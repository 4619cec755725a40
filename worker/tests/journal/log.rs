//! A journal written by hand into a small image, so that exactly one thing in it can be wrong.
//!
//! What holds here: everything that is not broken on purpose is right, checksums included. The image is made once by
//! mke2fs, without root; where that is missing the tests are skipped, or fail with LAZARET_REQUIRE_ALL=1.

use std::process::Command;
use std::sync::OnceLock;

use lazaret_policy::message::{Checksum, Refusal};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::checksum::crc32c;
use lazaret_worker::ext4::{FileOffset, Filesystem, InodeNumber, MappingKind, Settings};

pub(crate) const BLOCK: usize = 1024;
/// The journal's length in blocks, and that of the log where the journal has room for fast commits.
pub(crate) const JOURNAL: u32 = 2048;
pub(crate) const FAST: u32 = 64;
const MAGIC: u32 = 0xc03b_3998;

/// How the log is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    V1,
    V2,
    V3,
}

/// An image with a log in it.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) wide: bool,
    /// Where each block of the journal lies.
    journal: Vec<usize>,
    /// The transaction that comes next, where it goes, and when.
    pub(crate) sequence: u32,
    pub(crate) next: u32,
    pub(crate) time: u64,
}

impl Image {
    /// A file system with metadata checksums whose journal is empty and to be replayed; none where mke2fs is missing.
    pub(crate) fn new(kind: Kind, wide: bool) -> Option<Self> {
        static MADE: OnceLock<Option<Vec<u8>>> = OnceLock::new();
        let bytes = MADE.get_or_init(make).clone()?;
        let filesystem = Filesystem::open(Device::from_bytes(bytes.clone()), Settings::default()).unwrap();
        let inode = filesystem.any_inode(InodeNumber::new(8).unwrap()).unwrap();
        let address = |block: u32| {
            let mapping = filesystem.map(&inode, FileOffset(u64::from(block) * 1024), 1024).unwrap();
            let MappingKind::Data(start) = mapping.kind else { panic!() };
            usize::try_from(start.0).unwrap()
        };
        let journal = (0..JOURNAL).map(address).collect();
        let mut image = Self { bytes, kind, wide, journal, sequence: 100, next: 1, time: 1_000_000 };
        image.begin(100);
        Some(image)
    }

    /// Empties the log and lets it begin with this transaction.
    pub(crate) fn begin(&mut self, sequence: u32) {
        for block in 0..JOURNAL {
            self.block(block).fill(0);
        }
        self.sequence = sequence;
        let incompat = 1
            | if self.wide { 2 } else { 0 }
            | match self.kind {
                Kind::None | Kind::V1 => 0,
                Kind::V2 => 8,
                Kind::V3 => 0x10,
            };
        let compat = u32::from(self.kind == Kind::V1);
        let words = [MAGIC, 4, 0, 1024, JOURNAL, 1, sequence, 1, 0, compat, incompat, 0];
        for (index, word) in words.into_iter().enumerate() {
            self.set(0, index * 4, word);
        }
        self.block(0)[0x30..0x40].copy_from_slice(b"0123456789abcdef");
        if matches!(self.kind, Kind::V2 | Kind::V3) {
            self.block(0)[0x50] = 4;
        }
        self.seal_superblock();
        let incompat = u32::from_le_bytes(self.bytes[1024 + 0x60..][..4].try_into().unwrap()) | 4;
        self.set_superblock(0x60, &incompat.to_le_bytes());
    }

    /// Changes the file system's superblock, whose checksum stays right.
    pub(crate) fn set_superblock(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[1024 + at..][..bytes.len()].copy_from_slice(bytes);
        let crc = crc32c(!0, &self.bytes[1024..2048 - 4]);
        self.bytes[2048 - 4..2048].copy_from_slice(&crc.to_le_bytes());
    }

    /// A block of the journal.
    pub(crate) fn block(&mut self, number: u32) -> &mut [u8] {
        let at = self.journal[number as usize];
        &mut self.bytes[at..at + BLOCK]
    }

    /// Writes a big-endian word into a block of the journal.
    pub(crate) fn set(&mut self, block: u32, at: usize, word: u32) {
        self.block(block)[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }

    /// Changes the journal's superblock, whose checksum stays right.
    pub(crate) fn set_journal(&mut self, at: usize, word: u32) {
        self.set(0, at, word);
        self.seal_superblock();
    }

    fn seal_superblock(&mut self) {
        self.set(0, 0xfc, 0);
        let crc = crc32c(!0, self.block(0));
        self.set(0, 0xfc, crc);
    }

    fn seed(&self) -> u32 {
        crc32c(!0, b"0123456789abcdef")
    }

    fn has_tails(&self) -> bool {
        matches!(self.kind, Kind::V2 | Kind::V3)
    }

    /// Takes the next block of the log: it wraps.
    pub(crate) fn step(&mut self) -> u32 {
        let here = self.next;
        self.next = after(here);
        here
    }

    /// Writes a header of the log into the next block.
    fn header(&mut self, kind: u32) -> u32 {
        let block = self.step();
        self.block(block).fill(0);
        for (index, word) in [MAGIC, kind, self.sequence].into_iter().enumerate() {
            self.set(block, index * 4, word);
        }
        block
    }

    /// Gives a descriptor or revoke records their checksum.
    pub(crate) fn seal(&mut self, block: u32) {
        if self.has_tails() {
            self.set(block, BLOCK - 4, 0);
            let crc = crc32c(self.seed(), self.block(block));
            self.set(block, BLOCK - 4, crc);
        }
    }

    /// A descriptor with blocks: where each belongs, and what it is. Where the descriptor is.
    pub(crate) fn blocks(&mut self, blocks: &[(u64, Vec<u8>)]) -> u32 {
        let descriptor = self.header(1);
        let mut tags = Vec::new();
        for (index, (target, bytes)) in blocks.iter().enumerate() {
            let mut bytes = bytes.clone();
            let mut flags = if index == 0 { 0 } else { 2 };
            flags |= if index + 1 == blocks.len() { 8 } else { 0 };
            if bytes[..4] == MAGIC.to_be_bytes() {
                bytes[..4].fill(0);
                flags |= 1;
            }
            let sum = crc32c(crc32c(self.seed(), &self.sequence.to_be_bytes()), &bytes);
            let (low, high) = ((*target as u32).to_be_bytes(), ((target >> 32) as u32).to_be_bytes());
            match self.kind {
                Kind::V3 => {
                    tags.extend(low);
                    tags.extend(u32::to_be_bytes(flags));
                    tags.extend(high);
                    tags.extend(sum.to_be_bytes());
                }
                kind => {
                    tags.extend(low);
                    let sum = if kind == Kind::V2 { sum as u16 } else { 0 };
                    tags.extend(sum.to_be_bytes());
                    tags.extend((flags as u16).to_be_bytes());
                    tags.extend(if self.wide { &high[..] } else { &[] });
                    tags.extend(if kind == Kind::V2 { &[0, 0][..] } else { &[] });
                }
            }
            if index == 0 {
                tags.extend(b"0123456789abcdef");
            }
            let block = self.step();
            self.block(block).copy_from_slice(&bytes);
        }
        self.block(descriptor)[12..12 + tags.len()].copy_from_slice(&tags);
        self.seal(descriptor);
        descriptor
    }

    /// Revoke records. Where they are.
    pub(crate) fn revoke(&mut self, targets: &[u64]) -> u32 {
        let block = self.header(5);
        let mut records = Vec::new();
        for target in targets {
            if self.wide {
                records.extend(target.to_be_bytes());
            } else {
                records.extend((*target as u32).to_be_bytes());
            }
        }
        self.set(block, 12, 16 + records.len() as u32);
        self.block(block)[16..16 + records.len()].copy_from_slice(&records);
        self.seal(block);
        block
    }

    /// The commit block; `sum` is the crc32 of version 1. Where it is.
    pub(crate) fn commit_with(&mut self, sum: Option<u32>) -> u32 {
        let block = self.header(2);
        let time = self.time.to_be_bytes();
        self.block(block)[48..56].copy_from_slice(&time);
        if let Some(sum) = sum {
            self.block(block)[12..14].copy_from_slice(&[1, 4]);
            self.set(block, 16, sum);
        }
        self.seal_commit(block);
        self.sequence = self.sequence.wrapping_add(1);
        self.time += 1;
        block
    }

    /// Gives a commit block its checksum.
    pub(crate) fn seal_commit(&mut self, block: u32) {
        if self.has_tails() {
            self.set(block, 16, 0);
            let crc = crc32c(self.seed(), self.block(block));
            self.set(block, 16, crc);
        }
    }

    /// The commit block of a transaction that is all descriptors from this block on.
    pub(crate) fn commit(&mut self, first: u32) -> u32 {
        let sum = (self.kind == Kind::V1).then(|| {
            let (end, mut at, mut bytes) = (self.next, first, Vec::new());
            while at != end {
                bytes.extend_from_slice(self.block(at));
                at = after(at);
            }
            crc32_be(&bytes)
        });
        self.commit_with(sum)
    }

    /// A whole transaction. Where its descriptor and its commit block are.
    pub(crate) fn transaction(&mut self, blocks: &[(u64, Vec<u8>)]) -> (u32, u32) {
        let descriptor = self.blocks(blocks);
        (descriptor, self.commit(descriptor))
    }

    pub(crate) fn open(&self) -> Result<Filesystem, Refusal> {
        self.open_with(Settings::default())
    }

    pub(crate) fn open_with(&self, settings: Settings) -> Result<Filesystem, Refusal> {
        Filesystem::open(Device::from_bytes(self.bytes.clone()), settings)
    }

    pub(crate) fn open_leniently(&self) -> Filesystem {
        self.open_with(Settings { checksum: Checksum::Warn, ..Settings::default() }).unwrap()
    }
}

/// The block of the log that follows.
fn after(block: u32) -> u32 {
    if block + 1 < JOURNAL { block + 1 } else { 1 }
}

/// A block of the file system that nothing depends on, as it is read.
pub(crate) fn read(filesystem: &Filesystem, block: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    filesystem.device().read_at(block * BLOCK as u64, &mut bytes).unwrap();
    bytes
}

fn make() -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let mke2fs = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "1024", "-J", "size=2", "-O", "metadata_csum"])
        .arg(&image)
        .output();
    match mke2fs {
        Ok(output) if output.status.success() => Some(std::fs::read(&image).unwrap()),
        _ => {
            assert!(std::env::var_os("LAZARET_REQUIRE_ALL").is_none_or(|all| all != "1"), "skipped: needs mke2fs");
            println!("skipped: needs mke2fs");
            None
        }
    }
}

/// The crc32 of version 1, bit by bit.
fn crc32_be(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    })
}
