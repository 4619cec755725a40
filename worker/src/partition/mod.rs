//! Where the file systems lie on a whole device: the partition table, an MBR or a GPT.
//!
//! What always holds here: bytes are copied out of the device once; no number of the table bounds a loop or a size in
//! memory; what is wrong is told beside what could still be read, and what lies outside the device is told and never
//! read. On the way of a read this comes before everything: device → partition → file system, each in a worker of its
//! own.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing, clippy::unwrap_used)
)]

mod gpt;
mod mbr;
#[cfg(test)]
mod sample;

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::planted;
use lazaret_policy::scan::{MOST_FINDINGS, MOST_PARTITIONS, Partition, PartitionKind, Table, TableKind};

use crate::device::Device;
use crate::error::Result;

/// The lengths of a sector by which tables count, in bytes, the usual one first.
const SECTORS: [u32; 2] = [512, 4096];

/// Reads the partition table of a whole device.
///
/// Where the host does not know how long a sector is, both lengths are tried, and that one holds by which more ext file
/// systems are found, then more partitions, then less that is wrong. `is_ext` says whether one begins at this byte.
///
/// # Errors
/// The device cannot be read at its very begin.
pub fn table(device: &Device, sector: Option<u32>, is_ext: &dyn Fn(u64) -> bool) -> Result<Table> {
    let mut best = Table::default();
    for sector in SECTORS.into_iter().filter(|one| sector.is_none_or(|known| known == *one)) {
        let table = by_sector(device, sector, is_ext)?;
        if best.sector == 0 || merit(&table) > merit(&best) {
            best = table;
        }
    }
    Ok(best)
}

/// How much speaks for a reading of the table.
fn merit(table: &Table) -> (usize, bool, std::cmp::Reverse<usize>) {
    let ext = table.partitions.iter().filter(|partition| partition.ext).count();
    let wrong = table.partitions.iter().filter(|partition| partition.finding.is_some()).count();
    (ext, !table.partitions.is_empty(), std::cmp::Reverse(wrong.saturating_add(table.findings.len())))
}

/// The table, if sectors are so long.
fn by_sector(device: &Device, sector: u32, is_ext: &dyn Fn(u64) -> bool) -> Result<Table> {
    let mut draft = Draft::new(device, sector);
    let record = mbr::boot_record(device, 0)?;
    let protects = record.as_ref().is_some_and(mbr::BootRecord::protects);
    let others = record.as_ref().is_some_and(mbr::BootRecord::has_partitions);
    // As the kernel has it, an MBR that names partitions and protects no GPT is what counts.
    if protects || !others {
        gpt::read(device, &mut draft, protects);
        draft.table.kind = match draft.table.kind {
            TableKind::Gpt if others => TableKind::Hybrid,
            kind => kind,
        };
    }
    if let Some(record) = record.filter(|_| draft.table.partitions.is_empty() && others) {
        mbr::read(device, &mut draft, &record);
    }
    Ok(draft.finish(is_ext))
}

/// A table that is being read.
struct Draft {
    table: Table,
    length: u64,
}

impl Draft {
    fn new(device: &Device, sector: u32) -> Self {
        Self { table: Table { sector, ..Table::default() }, length: device.len() }
    }

    /// The byte at which a sector begins; the highest number, where no device is so long.
    fn byte(&self, sector: u64) -> u64 {
        sector.saturating_mul(self.table.sector.into())
    }

    /// Something is wrong with what lies in the sectors from this one on.
    fn find(&mut self, rule: Rule, sector: u64) {
        let place = Place::Device { offset: self.byte(sector), length: self.table.sector.into() };
        if self.table.findings.len() < MOST_FINDINGS {
            self.table.findings.push(Corruption { rule, place });
        }
    }

    /// A partition of so many sectors. False if there is no room for it.
    fn add(&mut self, number: u32, kind: PartitionKind, first: u64, sectors: u64) -> Option<&mut Partition> {
        if self.table.partitions.len() >= MOST_PARTITIONS {
            if !self.table.findings.iter().any(|finding| finding.rule == Rule::PartitionCount) {
                self.find(Rule::PartitionCount, 0);
            }
            return None;
        }
        let (offset, length) = (self.byte(first), self.byte(sectors));
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length || planted("partition"));
        let finding = (!inside).then_some(Rule::PartitionInDevice);
        let (guid, name) = ([0; 16], Vec::new());
        self.table.partitions.push(Partition { number, kind, guid, name, offset, length, finding, ext: false });
        self.table.partitions.last_mut()
    }

    /// The table with what concerns all partitions together.
    fn finish(mut self, is_ext: &dyn Fn(u64) -> bool) -> Table {
        for partition in self.table.partitions.iter_mut().filter(|partition| !is_container(partition.kind)) {
            partition.ext = partition.offset < self.length && is_ext(partition.offset);
        }
        self.find_overlaps();
        self.table.partitions.sort_by_key(|partition| partition.number);
        self.table
    }

    fn find_overlaps(&mut self) {
        self.table.partitions.sort_by_key(|partition| (partition.offset, partition.number));
        let mut end = 0;
        let apart = |partition: &&mut Partition| !is_container(partition.kind) && partition.length > 0;
        for partition in self.table.partitions.iter_mut().filter(apart) {
            if partition.offset < end {
                partition.finding.get_or_insert(Rule::PartitionsApart);
            }
            end = end.max(partition.offset.saturating_add(partition.length));
        }
    }
}

/// An extended partition holds the logical ones, and overlaps them by nature.
fn is_container(kind: PartitionKind) -> bool {
    matches!(kind, PartitionKind::Mbr(kind) if mbr::is_extended(kind))
}

#[cfg(test)]
mod tests {
    use super::sample::{Disk, Entry};
    use super::*;

    fn read(disk: &Disk) -> Table {
        table(&disk.device(), None, &|offset| disk.ext.contains(&offset)).unwrap()
    }

    #[test]
    fn a_device_without_a_table_has_none() {
        for disk in [Disk::new(1 << 20), Disk::new(512), Disk::new(1 << 20).with_magic(0)] {
            let table = read(&disk);
            assert_eq!((table.kind, table.partitions.len(), table.findings.len()), (TableKind::None, 0, 0));
        }
        assert!(table(&Device::from_bytes(vec![0; 100]), None, &|_| true).is_err());
    }

    #[test]
    fn sectors_are_as_long_as_the_file_systems_say() {
        let entries = [Entry { kind: 0x83, start: 16, sectors: 16 }];
        let short = Disk::new(1 << 20).with_record(0, &entries).with_ext(16 * 512);
        let long = Disk::new(1 << 20).with_record(0, &entries).with_ext(16 * 4096);
        for (disk, sector) in [(short, 512), (long, 4096)] {
            let table = read(&disk);
            assert_eq!((table.sector, table.partitions.len()), (sector, 1));
            assert_eq!(table.partitions[0].offset, 16 * u64::from(sector));
            assert!(table.partitions[0].ext);
            // What the host knows counts more.
            let told = super::table(&disk.device(), Some(512), &|_| false).unwrap();
            assert_eq!(told.sector, 512);
        }
    }

    #[test]
    fn partitions_that_overlap_or_end_outside_are_told_and_listed() {
        let entries = [
            Entry { kind: 0x83, start: 100, sectors: 100 },
            Entry { kind: 0x83, start: 150, sectors: 100 },
            Entry { kind: 0x83, start: 1000, sectors: 100_000 },
            Entry { kind: 0x83, start: u32::MAX, sectors: u32::MAX },
        ];
        let table = read(&Disk::new(1 << 20).with_record(0, &entries).with_ext(150 * 512));
        let findings: Vec<_> = table.partitions.iter().map(|partition| partition.finding).collect();
        let outside = Some(Rule::PartitionInDevice);
        assert_eq!(findings, [None, Some(Rule::PartitionsApart), outside, outside]);
        assert_eq!(
            table.partitions.iter().map(|partition| partition.ext).collect::<Vec<_>>(),
            [false, true, false, false]
        );
    }
}
