//! The MBR: four primary partitions, and a chain of boot records for the logical ones in an extended partition.
//!
//! What always holds here: a chain visits no sector twice and no more than [`MOST_LINKS`]; its links and what they name
//! lie within the extended partition, or are told as findings.

use lazaret_policy::corruption::Rule;
use lazaret_policy::planted;
use lazaret_policy::scan::{MOST_PARTITIONS, PartitionKind, TableKind};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Draft;
use crate::device::Device;
use crate::error::Result;

/// A boot record ends with it.
const MAGIC: u16 = 0xaa55;
/// The type of an entry that protects a GPT.
const PROTECTS: u8 = 0xee;
/// The types of an extended partition: CHS, LBA, and Linux's own.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// The first number of a logical partition.
const FIRST_LOGICAL: u32 = 5;
/// The most links of all chains together.
const MOST_LINKS: usize = MOST_PARTITIONS;

/// The first 512 bytes of a device, or of a link of a chain.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BootRecord {
    code: [u8; 440],
    signature: U32,
    reserved: U16,
    entries: [Entry; 4],
    magic: U16,
}
const _: () = assert!(size_of::<BootRecord>() == 512 && core::mem::offset_of!(BootRecord, entries) == 446);

/// A partition, or the next link of a chain.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    status: u8,
    first: [u8; 3],
    kind: u8,
    last: [u8; 3],
    start: U32,
    sectors: U32,
}
const _: () = assert!(size_of::<Entry>() == 16);

/// Whether an entry of this type holds logical partitions.
pub(super) fn is_extended(kind: u8) -> bool {
    EXTENDED.contains(&kind)
}

/// The boot record at this byte; none if its magic number is missing, or if what would be its entries is not.
pub(super) fn boot_record(device: &Device, offset: u64) -> Result<Option<BootRecord>> {
    let mut record = BootRecord::new_zeroed();
    device.read_at(offset, record.as_mut_bytes())?;
    // A boot sector of another kind has code there.
    let sound = record.magic.get() == MAGIC && record.entries.iter().all(|entry| entry.status & 0x7f == 0);
    Ok(sound.then_some(record))
}

/// Adds the primary and the logical partitions.
pub(super) fn read(device: &Device, draft: &mut Draft, record: &BootRecord) {
    draft.table.kind = TableKind::Mbr;
    if let Some(to) = draft.table.disk.first_chunk_mut::<4>() {
        *to = record.signature.get().to_le_bytes();
    }
    let partitions = || (1..).zip(&record.entries).filter(|(_, entry)| entry.is_partition());
    for (number, entry) in partitions() {
        draft.add(number, PartitionKind::Mbr(entry.kind), entry.start.get().into(), entry.sectors.get().into());
    }
    let mut chain = Chain { number: FIRST_LOGICAL, visited: Vec::new() };
    for (_, container) in partitions().filter(|(_, entry)| is_extended(entry.kind)) {
        chain.follow(device, draft, container);
    }
}

/// The way through the chains of a device.
struct Chain {
    number: u32,
    visited: Vec<u64>,
}

impl Chain {
    fn follow(&mut self, device: &Device, draft: &mut Draft, container: &Entry) {
        let start = u64::from(container.start.get());
        let end = start.saturating_add(container.sectors.get().into());
        let mut at = start;
        loop {
            if self.visited.contains(&at) && !planted("chain") {
                return draft.find(Rule::ExtendedChain, at);
            }
            if self.visited.len() >= MOST_LINKS && !planted("chain") {
                return draft.find(Rule::PartitionCount, at);
            }
            self.visited.push(at);
            let record = boot_record(device, draft.byte(at)).ok().flatten().filter(|_| at < end);
            let Some(record) = record else { return draft.find(Rule::ExtendedLink, at) };
            // The third and the fourth entry mean nothing here.
            let [first, second, ..] = record.entries;
            for entry in [first, second].iter().filter(|entry| entry.is_partition() && !is_extended(entry.kind)) {
                let (first, sectors) = (at.saturating_add(entry.start.get().into()), u64::from(entry.sectors.get()));
                let inside = first.saturating_add(sectors) <= end;
                if let Some(partition) = draft.add(self.number, PartitionKind::Mbr(entry.kind), first, sectors)
                    && !inside
                {
                    partition.finding.get_or_insert(Rule::LogicalInExtended);
                }
                self.number = self.number.saturating_add(1);
            }
            let next = [first, second].into_iter().find(|entry| entry.is_partition() && is_extended(entry.kind));
            let Some(next) = next else { return };
            at = start.saturating_add(next.start.get().into());
        }
    }
}

impl BootRecord {
    /// Whether a GPT stands behind it.
    pub(super) fn protects(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTS)
    }

    /// Whether it names partitions of its own.
    pub(super) fn has_partitions(&self) -> bool {
        self.entries.iter().any(Entry::is_partition)
    }
}

impl Entry {
    fn is_partition(&self) -> bool {
        ![0, PROTECTS].contains(&self.kind) && self.sectors.get() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Disk, Entry, LINUX};
    use super::super::table;
    use super::*;
    use lazaret_policy::scan::Table;

    const CONTAINER: Entry = Entry { kind: 5, start: 100, sectors: 800 };

    fn read(disk: &Disk) -> Table {
        table(&disk.device(), Some(512), &|_| false).unwrap()
    }

    fn shown(table: &Table) -> Vec<(u32, u64, u64, Option<Rule>)> {
        let one = |p: &lazaret_policy::scan::Partition| (p.number, p.offset / 512, p.length / 512, p.finding);
        table.partitions.iter().map(one).collect()
    }

    fn rules(table: &Table) -> Vec<Rule> {
        table.findings.iter().map(|finding| finding.rule).collect()
    }

    fn link(start: u32) -> Entry {
        Entry { kind: 5, start, sectors: 100 }
    }

    #[test]
    fn primary_and_logical_partitions_have_their_numbers() {
        let disk = Disk::new(1 << 20)
            .with_record(0, &[Entry { kind: LINUX, start: 10, sectors: 50 }, CONTAINER])
            .with_record(100, &[Entry { kind: LINUX, start: 5, sectors: 90 }, link(100)])
            .with_record(200, &[Entry { kind: 0x82, start: 5, sectors: 90 }]);
        let table = read(&disk);
        assert_eq!((table.kind, rules(&table)), (TableKind::Mbr, vec![]));
        let expected = [(1, 10, 50, None), (2, 100, 800, None), (5, 105, 90, None), (6, 205, 90, None)];
        assert_eq!(shown(&table), expected);
    }

    #[test]
    fn a_chain_that_comes_back_ends_and_is_told() {
        for back in [0, 100] {
            let disk = Disk::new(1 << 20)
                .with_record(0, &[CONTAINER])
                .with_record(100, &[Entry { kind: LINUX, start: 5, sectors: 90 }, link(100)])
                .with_record(200, &[Entry { kind: LINUX, start: 5, sectors: 90 }, link(back)]);
            let table = read(&disk);
            assert_eq!(table.partitions.len(), 3);
            assert_eq!(rules(&table), [Rule::ExtendedChain]);
        }
    }

    #[test]
    fn a_link_that_leads_out_or_to_no_record_is_told() {
        for (next, sectors) in [(300, 800), (5000, 800), (u32::MAX, 800), (100, 50)] {
            let disk = Disk::new(1 << 20)
                .with_record(0, &[Entry { sectors, ..CONTAINER }])
                .with_record(100, &[Entry { kind: LINUX, start: 5, sectors: 20 }, link(next)])
                .with_record(200, &[]);
            let table = read(&disk);
            assert_eq!((table.partitions.len(), rules(&table)), (2, vec![Rule::ExtendedLink]), "{next}");
        }
    }

    #[test]
    fn a_logical_partition_outside_the_extended_one_is_told() {
        let disk = Disk::new(1 << 20)
            .with_record(0, &[CONTAINER])
            .with_record(100, &[Entry { kind: LINUX, start: 5, sectors: 796 }]);
        assert_eq!(shown(&read(&disk))[1], (5, 105, 796, Some(Rule::LogicalInExtended)));
    }

    #[test]
    fn a_chain_without_end_is_cut() {
        let mut disk = Disk::new(8 << 20).with_record(0, &[Entry { kind: 5, start: 100, sectors: 16_000 }]);
        for number in 0..1000 {
            let logical = Entry { kind: LINUX, start: 1, sectors: 5 };
            disk = disk.with_record(100 + number * 10, &[logical, link(10 + number as u32 * 10)]);
        }
        let table = read(&disk);
        assert_eq!(table.partitions.len(), MOST_PARTITIONS);
        assert!(table.findings.len() <= 2 && rules(&table).contains(&Rule::PartitionCount));
    }

    #[test]
    fn what_has_code_where_entries_would_be_is_no_table() {
        let disk = Disk::new(1 << 20).with_record(0, &[CONTAINER]).damaged(446);
        assert_eq!(read(&disk).kind, TableKind::None);
    }
}
