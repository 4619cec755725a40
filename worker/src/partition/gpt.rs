//! The GPT: a header with a checksum, a list of entries with another, and a copy of both at the end of the device.
//!
//! What always holds here: a header is believed only where it lies where it says and matches its checksum, its entries
//! only where they match theirs; the copy is used only where the first is not sound. Field names are ours, the layout
//! is that of the UEFI specification, section 5.3.

use lazaret_policy::corruption::Rule;
use lazaret_policy::scan::{MOST_NAME, PartitionKind, TableKind};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Draft;
use crate::device::Device;

const SIGNATURE: [u8; 8] = *b"EFI PART";
/// The most bytes of entries that are read. Usual are 16 KiB.
const MOST_ENTRIES: u64 = 1 << 20;
/// The longest entry. Usual are 128 bytes, and an entry is a power of two.
const LONGEST_ENTRY: usize = 4096;

#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    size: U32,
    checksum: U32,
    reserved: U32,
    own: U64,
    other: U64,
    first_usable: U64,
    last_usable: U64,
    guid: [u8; 16],
    entries: U64,
    count: U32,
    entry_size: U32,
    entries_checksum: U32,
}
const _: () = assert!(size_of::<Header>() == 92 && core::mem::offset_of!(Header, entries) == 72);

#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    kind: [u8; 16],
    guid: [u8; 16],
    first: U64,
    last: U64,
    attributes: U64,
    name: [U16; 36],
}
const _: () = assert!(size_of::<Entry>() == 128 && core::mem::offset_of!(Entry, name) == 56);

/// Adds the partitions of a GPT, if there is one. Where no boot record protects it, it has to have its first header.
pub(super) fn read(device: &Device, draft: &mut Draft, protected: bool) {
    let (first, raw) = header(device, draft, 1);
    if !protected && raw.signature != SIGNATURE {
        return;
    }
    draft.table.kind = TableKind::Gpt;
    if !protected {
        draft.find(Rule::GptProtected, 0);
    }
    match first {
        Ok(header) => {
            // The copy is not needed, but whoever relies on it should know.
            if let (Err(rule), _) = self::header(device, draft, header.other.get()) {
                draft.find(rule, header.other.get());
            }
            add(device, draft, &header);
        }
        Err(rule) => {
            draft.find(rule, 1);
            // At the end of the device; or, on a device that is longer than its disk was, where the first says.
            let last = draft.length.checked_div(draft.table.sector.into()).unwrap_or(0).saturating_sub(1);
            let copies = [last, raw.other.get()];
            let copy = copies.into_iter().filter(|&sector| sector > 1).find_map(|at| header(device, draft, at).0.ok());
            if let Some(copy) = copy {
                draft.table.backup = true;
                add(device, draft, &copy);
            }
        }
    }
}

/// The header in this sector: as it is, and if it and its entries are sound.
fn header(device: &Device, draft: &Draft, sector: u64) -> (Result<Header, Rule>, Header) {
    let mut raw = Header::new_zeroed();
    if device.read_at(draft.byte(sector), raw.as_mut_bytes()).is_err() {
        return (Err(Rule::GptHeader), Header::new_zeroed());
    }
    (check(device, draft, &raw, sector).map(|()| raw), raw)
}

fn check(device: &Device, draft: &Draft, raw: &Header, sector: u64) -> Result<(), Rule> {
    let size = usize::try_from(raw.size.get()).map_err(|_| Rule::GptHeader)?;
    let longest = usize::try_from(draft.table.sector).map_err(|_| Rule::GptHeader)?;
    if raw.signature != SIGNATURE || !(size_of::<Header>()..=longest).contains(&size) {
        return Err(Rule::GptHeader);
    }
    // The checksum is over the header with a checksum of zero, and over what newer versions add to it.
    let mut bytes = vec![0; size];
    device.read_at(draft.byte(sector), &mut bytes).map_err(|_| Rule::GptHeader)?;
    let known = bytes.get_mut(..size_of::<Header>()).ok_or(Rule::GptHeader)?;
    known.copy_from_slice(Header { checksum: U32::new(0), ..*raw }.as_bytes());
    if crc32fast::hash(&bytes) != raw.checksum.get() {
        return Err(Rule::GptHeaderChecksum);
    }
    let entry_size = usize::try_from(raw.entry_size.get()).map_err(|_| Rule::GptHeader)?;
    let sound = entry_size.is_power_of_two() && (size_of::<Entry>()..=LONGEST_ENTRY).contains(&entry_size);
    let length = u64::from(raw.count.get()).saturating_mul(raw.entry_size.get().into());
    if raw.own.get() != sector || !sound || length > MOST_ENTRIES {
        return Err(Rule::GptHeader);
    }
    let mut checksum = crc32fast::Hasher::new();
    let read = each_entry(device, draft, raw, &mut |_, bytes| checksum.update(bytes));
    match read {
        Some(()) if checksum.finalize() == raw.entries_checksum.get() => Ok(()),
        Some(()) => Err(Rule::GptEntriesChecksum),
        None => Err(Rule::GptHeader),
    }
}

/// Adds the partitions of a header that was checked. The device may have changed since: that only makes other numbers.
fn add(device: &Device, draft: &mut Draft, header: &Header) {
    draft.table.disk = header.guid;
    let mut used = Vec::new();
    let _ = each_entry(device, draft, header, &mut |number, bytes| {
        if let Ok((entry, _)) = Entry::read_from_prefix(bytes)
            && entry.kind != [0; 16]
        {
            used.push((number, entry));
        }
    });
    for (number, entry) in used {
        let (first, last) = (entry.first.get(), entry.last.get());
        let sectors = last.checked_sub(first).map_or(0, |more| more.saturating_add(1));
        let Some(partition) = draft.add(number, PartitionKind::Gpt(entry.kind), first, sectors) else { return };
        partition.guid = entry.guid;
        partition.name = name(&entry.name);
        if last < first {
            partition.finding = Some(Rule::PartitionLength);
        }
    }
}

/// Visits the entries with their numbers, from 1 on. None if one cannot be read.
fn each_entry(device: &Device, draft: &Draft, header: &Header, visit: &mut dyn FnMut(u32, &[u8])) -> Option<()> {
    let mut bytes = vec![0; usize::try_from(header.entry_size.get()).ok()?];
    let mut offset = draft.byte(header.entries.get());
    for number in 1..=header.count.get() {
        device.read_at(offset, &mut bytes).ok()?;
        visit(number, &bytes);
        offset = offset.checked_add(header.entry_size.get().into())?;
    }
    Some(())
}

/// A name up to its NUL, as UTF-8. What is no letter becomes U+FFFD.
fn name(units: &[U16; 36]) -> Vec<u8> {
    let units = units.iter().map(|unit| unit.get()).take_while(|&unit| unit != 0);
    let letters = char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER));
    let mut name = letters.collect::<String>().into_bytes();
    name.truncate(MOST_NAME);
    name
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Disk, Gpt, LINUX};
    use super::super::table;
    use super::*;
    use lazaret_policy::scan::{MOST_PARTITIONS, Table};

    fn read(disk: &Disk) -> Table {
        table(&disk.device(), None, &|_| false).unwrap()
    }

    fn rules(table: &Table) -> Vec<Rule> {
        table.findings.iter().map(|finding| finding.rule).collect()
    }

    /// With two partitions.
    fn disk(sector: u64) -> Disk {
        Gpt { sector, ..Gpt::default() }.write(Disk::new(4 << 20))
    }

    #[test]
    fn partitions_are_read_by_both_lengths_of_a_sector() {
        for sector in [512, 4096] {
            let table = read(&disk(sector));
            assert_eq!((table.kind, rules(&table), table.backup), (TableKind::Gpt, vec![], false), "{sector}");
            assert_eq!(u64::from(table.sector), sector);
            let [one, two] = &table.partitions[..] else { panic!("{table:?}") };
            assert_eq!((one.number, one.offset, one.length), (1, 64 * sector, 100 * sector));
            assert_eq!((two.number, two.offset, two.length), (3, 200 * sector, 100 * sector));
            assert_eq!((&one.name[..], two.guid), ("Überfluß".as_bytes(), [3; 16]));
            assert_eq!(table.disk, [0xdd; 16]);
        }
    }

    #[test]
    fn the_copy_is_used_where_the_first_is_damaged() {
        for sector in [512, 4096] {
            let end = (4 << 20) / sector - 1;
            let damaged = [
                (sector, Rule::GptHeader),              // its signature
                (sector + 17, Rule::GptHeaderChecksum), // its checksum
                (sector + 60, Rule::GptHeaderChecksum), // its disk
                (2 * sector + 5, Rule::GptEntriesChecksum),
            ];
            for (byte, rule) in damaged {
                let broken = disk(sector).damaged(byte);
                let table = read(&broken);
                assert!(table.backup && table.partitions.len() == 2, "{sector} {byte}: {table:?}");
                assert_eq!(rules(&table), [rule]);
                // And with both damaged nothing is believed.
                let table = read(&broken.damaged(end * sector + 17));
                assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 0));
                let table = read(&disk(sector).damaged(end * sector + 17));
                assert_eq!((table.partitions.len(), rules(&table)), (2, vec![Rule::GptHeaderChecksum]));
            }
        }
    }

    #[test]
    fn the_copy_is_found_on_a_device_that_is_longer_than_the_disk_was() {
        let mut disk = disk(512).damaged(512 + 60);
        disk.bytes.resize(6 << 20, 0);
        let table = read(&disk);
        assert!(table.backup && table.partitions.len() == 2);
    }

    #[test]
    fn a_hybrid_is_told_and_the_gpt_counts() {
        let entries =
            [sample::Entry { kind: 0xee, start: 1, sectors: 63 }, sample::Entry { kind: LINUX, start: 70, sectors: 9 }];
        let hybrid = disk(512).with_record(0, &entries);
        assert_eq!((read(&hybrid).kind, read(&hybrid).partitions.len()), (TableKind::Hybrid, 2));
        // Nothing but the MBR is left to be believed.
        let end = (4 << 20) - 512;
        let table = read(&hybrid.damaged(512).damaged(end));
        assert_eq!((table.kind, table.partitions.len(), rules(&table)), (TableKind::Mbr, 1, vec![Rule::GptHeader]));
        assert_eq!(table.partitions[0].offset, 70 * 512);
    }

    #[test]
    fn without_protection_an_mbr_with_partitions_counts() {
        let table = read(&disk(512).with_record(0, &[sample::Entry { kind: LINUX, start: 70, sectors: 9 }]));
        assert_eq!((table.kind, table.partitions.len()), (TableKind::Mbr, 1));
        let table = read(&disk(512).damaged(510));
        assert_eq!((table.kind, rules(&table)), (TableKind::Gpt, vec![Rule::GptProtected]));
        assert_eq!(table.partitions.len(), 2);
    }

    #[test]
    fn numbers_that_would_cost_too_much_are_refused() {
        let sizes = [(u32::MAX, 128), (128, 0), (128, 64), (128, 192), (1 << 16, 4096), (1, u32::MAX)];
        for (count, entry_size) in sizes {
            let table = read(&Gpt { count, entry_size, ..Gpt::default() }.write(Disk::new(4 << 20)));
            assert_eq!((table.partitions.len(), rules(&table)), (0, vec![Rule::GptHeader]), "{count} {entry_size}");
        }
        let table = read(&Gpt { count: 512, used: 300, ..Gpt::default() }.write(Disk::new(4 << 20)));
        assert_eq!((table.partitions.len(), rules(&table)), (MOST_PARTITIONS, vec![Rule::PartitionCount]));
    }

    #[test]
    fn a_partition_that_ends_before_it_begins_has_no_length() {
        let table = read(&Gpt { backwards: true, ..Gpt::default() }.write(Disk::new(4 << 20)));
        assert_eq!((table.partitions[0].length, table.partitions[0].finding), (0, Some(Rule::PartitionLength)));
    }

    #[test]
    fn a_name_ends_at_its_nul_and_is_letters() {
        let mut units = [U16::new(0xd800); 36];
        assert_eq!(name(&units).len(), MOST_NAME);
        units[1] = U16::new(0);
        assert_eq!(name(&units), "\u{fffd}".as_bytes());
    }
}
