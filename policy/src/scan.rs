//! The messages of a scan: which partitions a whole device has, and what a superblock says of itself.
//!
//! A worker that scans has the whole device and opens no file system. What it finds is numbers and, for names and
//! labels, bytes of the image of bounded length; whoever prints those escapes them first.

use crate::corruption::{Corruption, Rule};
use crate::message::{Message, decoded};
use serde::{Deserialize, Serialize};

/// The most partitions that are told of one device.
pub const MOST_PARTITIONS: usize = 128;
/// The most findings that are told of one partition table.
pub const MOST_FINDINGS: usize = 32;
/// The most bytes of a partition's name: 36 letters of at most 3 bytes each.
pub const MOST_NAME: usize = 108;

/// A question to a worker that scans, after [`crate::message::Report::Mapped`]; one [`Scanned`] to each.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scan {
    /// What is the partition table? With the length of a sector in bytes, where the host knows it.
    Table {
        /// 512 or 4096.
        sector: Option<u32>,
    },
    /// What does the superblock say that belongs to a file system which begins here?
    Volume {
        /// In bytes from the begin of the device.
        offset: u64,
    },
}

/// What a worker that scans answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Scanned {
    /// The partition table.
    Table(Table),
    /// The superblock; none if there is no ext file system.
    Volume(Option<Box<Volume>>),
    /// The device cannot be read there: an error number as FUSE would have given it.
    Failed(i32),
}

/// A partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What it is.
    pub kind: TableKind,
    /// Bytes of a sector, as the table counts: 512 or 4096.
    pub sector: u32,
    /// The disk's GUID as it lies in a GPT, or the signature of an MBR in the first four bytes.
    pub disk: [u8; 16],
    /// It was read from its copy at the end of the device, because the first is damaged.
    pub backup: bool,
    /// What is wrong with the table as a whole.
    pub findings: Vec<Corruption>,
    /// The partitions by number, at most [`MOST_PARTITIONS`].
    pub partitions: Vec<Partition>,
}

/// The kinds of partition tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableKind {
    /// None that is known here.
    #[default]
    None,
    /// An MBR, perhaps with logical partitions.
    Mbr,
    /// A GPT.
    Gpt,
    /// A GPT of which an MBR names some partitions again.
    Hybrid,
}

/// A partition, or the container of the logical ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number: 1 to 4 and from 5 on for logical partitions in an MBR, its place in a GPT.
    pub number: u32,
    /// What it is for.
    pub kind: PartitionKind,
    /// Its own GUID as it lies in a GPT, else zeros.
    pub guid: [u8; 16],
    /// Its name in a GPT as UTF-8: what the image says. Escape before printing.
    pub name: Vec<u8>,
    /// Where it begins, in bytes of the device.
    pub offset: u64,
    /// How long the table says it is, in bytes.
    pub length: u64,
    /// A rule that it breaks.
    pub finding: Option<Rule>,
    /// An ext superblock lies where that of a file system in it would.
    pub ext: bool,
}

/// What a partition is for, as the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartitionKind {
    /// The type of an MBR's entry.
    Mbr(u8),
    /// The type's GUID as it lies in a GPT.
    Gpt([u8; 16]),
}

/// What a superblock says of its file system, whether or not that can be read. None of it was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `s_volume_name`: bytes of the image. Escape before printing.
    pub label: [u8; 16],
    /// `s_uuid`.
    pub uuid: [u8; 16],
    /// `s_feature_compat`.
    pub compat: u32,
    /// `s_feature_incompat`.
    pub incompat: u32,
    /// `s_feature_ro_compat`.
    pub ro_compat: u32,
    /// It matches its checksum, or has none.
    pub checksum_matches: bool,
    /// `s_log_block_size`.
    pub log_block_size: u32,
    /// Blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub free_blocks: u64,
    /// Blocks kept for root.
    pub reserved_blocks: u64,
    /// Inodes.
    pub inodes: u32,
    /// Inodes that are free.
    pub free_inodes: u32,
    /// Bytes of an inode.
    pub inode_size: u16,
    /// `s_rev_level`.
    pub revision: u32,
    /// `s_creator_os`.
    pub creator: u32,
    /// `s_state`.
    pub state: u16,
    /// `s_last_orphan`: the first inode that was deleted while it was open.
    pub last_orphan: u32,
    /// When it was made, in seconds since 1970; 0 where it is not said, as in all that follow.
    pub made: i64,
    /// When it was mounted for writing last.
    pub mounted: i64,
    /// When it was written to last.
    pub written: i64,
    /// When it was checked last.
    pub checked: i64,
    /// Mounts since the last check.
    pub mounts: u16,
    /// `s_max_mnt_count`: mounts after which it wants a check, if above 0.
    pub most_mounts: i16,
    /// `s_checkinterval` in seconds.
    pub check_interval: u32,
    /// `s_last_mounted`: bytes of the image, at most 64. Escape before printing.
    pub last_mounted: Vec<u8>,
    /// KiB written in its life.
    pub written_kib: u64,
    /// `s_journal_inum`.
    pub journal_inode: u32,
    /// `s_journal_uuid`: that of an external journal.
    pub journal_uuid: [u8; 16],
    /// How many errors the kernel has met and recorded.
    pub errors: u32,
    /// The first of them.
    pub first_error: RecordedError,
    /// The last of them.
    pub last_error: RecordedError,
}

/// An error that the kernel has recorded in a superblock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedError {
    /// When, in seconds since 1970.
    pub time: i64,
    /// The kernel's function: bytes of the image, at most 32. Escape before printing.
    pub function: Vec<u8>,
    /// The line of the kernel's source.
    pub line: u32,
    /// The inode, or 0.
    pub inode: u32,
    /// The block, or 0.
    pub block: u64,
}

impl Volume {
    /// Bytes of a block, if it is one.
    #[must_use]
    pub fn block_size(&self) -> Option<u64> {
        (self.log_block_size <= 6).then(|| 1024 << self.log_block_size)
    }

    /// Bytes that the superblock says the file system has, if that can be; never 0.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.blocks.checked_mul(self.block_size()?).filter(|&length| length > 0)
    }
}

impl Message for Scan {
    const MAX: usize = 16;
    decoded!();
}

impl Message for Scanned {
    const MAX: usize = 64 * 1024;
    decoded!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corruption::Place;

    #[test]
    fn the_longest_table_fits_its_message() {
        let partition = Partition {
            number: u32::MAX,
            kind: PartitionKind::Gpt([0xff; 16]),
            guid: [0xff; 16],
            name: vec![0xff; MOST_NAME],
            offset: u64::MAX,
            length: u64::MAX,
            finding: Some(Rule::ALL[Rule::ALL.len() - 1]),
            ext: true,
        };
        let place = Place::Device { offset: u64::MAX, length: u64::MAX };
        let table = Scanned::Table(Table {
            kind: TableKind::Hybrid,
            sector: u32::MAX,
            disk: [0xff; 16],
            backup: true,
            findings: vec![Corruption { rule: Rule::ALL[Rule::ALL.len() - 1], place }; MOST_FINDINGS],
            partitions: vec![partition; MOST_PARTITIONS],
        });
        assert!(postcard::to_allocvec(&table).unwrap().len() <= Scanned::MAX);
        assert!(postcard::to_allocvec(&Scan::Volume { offset: u64::MAX }).unwrap().len() <= Scan::MAX);
    }
}
