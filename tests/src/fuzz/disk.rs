//! Partition tables: an input is what a disk has of them, and all else of the disk is zeros. Of an MBR and of a chain of
//! logical partitions it is the end of each of the first sectors; of a GPT a byte for how long a sector is, the end of the
//! first sector, and twice a header and its first entries.

use std::ops::Range;

use lazaret_policy::scan::Table;
use lazaret_worker::device::Device;

use super::grammar::{Structures, grammar};
use super::target::partitions;
use crate::mutate::random::Random;

/// Bytes of the disk.
const LENGTH: usize = 64 << 20;
/// The end of a boot record: where in the sector, and how many bytes: four entries and the magic number.
const RECORD_AT: usize = 446;
const RECORD: usize = 66;
/// The most sectors that an input gives the end of.
const MOST_RECORDS: usize = 16;
/// Bytes of a GPT's header, and of those entries that an input gives.
const HEADER: usize = 92;
const ENTRIES: usize = 512;
/// Bytes of all entries that a table can have here: those of the copy lie before its header.
const ALL_ENTRIES: usize = 16 << 10;
/// The longest list of entries that the worker takes a checksum of (`gpt.rs`).
const LONGEST_LIST: usize = 1 << 20;
/// Bytes of an input with a GPT.
const GPT: usize = 1 + RECORD + 2 * (HEADER + ENTRIES);

/// Reads boot records.
pub fn run_mbr(input: &[u8]) {
    let _ = mbr(input);
}

fn mbr(input: &[u8]) -> Option<Table> {
    let records = input.chunks(RECORD).take(MOST_RECORDS).enumerate();
    read(records.map(|(sector, bytes)| (sector * 512 + RECORD_AT, bytes.to_vec())).collect())
}

/// Reads a GPT.
pub fn run_gpt(input: &[u8]) {
    let _ = gpt(input);
}

fn gpt(input: &[u8]) -> Option<Table> {
    let sector = sector(input);
    let parts = [(1..1 + RECORD, RECORD_AT)].into_iter().chain(gpt_parts(sector));
    let there = |range: Range<usize>| &input[range.start.min(input.len())..range.end.min(input.len())];
    read(parts.map(|(range, at)| (at, there(range).to_vec())).collect())
}

/// Reads the table of a disk with these bytes at these places.
fn read(places: Vec<(usize, Vec<u8>)>) -> Option<Table> {
    let device = Device::answered(LENGTH as u64, move |offset, out| {
        out.fill(0);
        let from = offset as usize;
        for (at, bytes) in &places {
            let (low, high) = (from.max(*at), (from + out.len()).min(at + bytes.len()));
            if low < high {
                out[low - from..high - from].copy_from_slice(&bytes[low - at..high - at]);
            }
        }
        true
    });
    let table = partitions(&device)?;
    for one in &table.partitions {
        let end = one.offset.checked_add(one.length);
        let inside = end.is_some_and(|end| end <= LENGTH as u64);
        assert!(inside || one.finding.is_some(), "beyond the disk, and nothing is said of it: {one:?}");
        assert!(one.number > 0 && (one.offset < LENGTH as u64 || !one.ext), "{one:?}");
    }
    Some(table)
}

/// Bytes of a sector, as an input with a GPT says.
fn sector(input: &[u8]) -> usize {
    if input.first().is_some_and(|first| first & 1 != 0) { 4096 } else { 512 }
}

/// Header and entries, and their copies: where in an input, and where on the disk.
fn gpt_parts(sector: usize) -> [(Range<usize>, usize); 4] {
    let part = |begin: usize, length: usize, at: usize| (begin..begin + length, at);
    let (first, copy) = (1 + RECORD, 1 + RECORD + HEADER + ENTRIES);
    [
        part(first, HEADER, sector),
        part(first + HEADER, ENTRIES, 2 * sector),
        part(copy, HEADER, LENGTH - sector),
        part(copy + HEADER, ENTRIES, LENGTH - sector - ALL_ENTRIES),
    ]
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// The end of a boot record with these entries: type, first sector, sectors.
fn record(entries: &[(u8, u32, u32)]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    for (index, (kind, start, sectors)) in entries.iter().enumerate() {
        record[index * 16 + 4] = *kind;
        put(&mut record, index * 16 + 8, &start.to_le_bytes());
        put(&mut record, index * 16 + 12, &sectors.to_le_bytes());
    }
    put(&mut record, 64, &[0x55, 0xaa]);
    record
}

/// First inputs: primary partitions, a chain of logical ones, and one that protects a GPT.
pub fn mbr_seeds() -> Vec<Vec<u8>> {
    let plain = record(&[(0x83, 2, 1000), (0x82, 1002, 1000), (0x07, 2002, 100), (0, 0, 0)]);
    let chain = [
        record(&[(0x83, 20, 100), (5, 2, 60_000)]),
        [0; RECORD],
        record(&[(0x83, 1, 2), (5, 3, 100)]),
        [0; RECORD],
        [0; RECORD],
        record(&[(0x83, 1, 2), (5, 6, 100)]),
        [0; RECORD],
        [0; RECORD],
        record(&[(0x83, 1, 2)]),
    ];
    let protecting = record(&[(0xee, 1, u32::MAX), (0x83, 20, 100)]);
    vec![plain.to_vec(), chain.concat(), protecting.to_vec()]
}

/// First inputs: a GPT with its copy, in sectors of both lengths.
pub fn gpt_seeds() -> Vec<Vec<u8>> {
    [512, 4096].into_iter().map(sound_gpt).collect()
}

fn sound_gpt(sector: usize) -> Vec<u8> {
    let mut input = vec![0; GPT];
    input[0] = u8::from(sector == 4096);
    put(&mut input, 1, &record(&[(0xee, 1, u32::MAX)]));
    let last = LENGTH / sector - 1;
    let linux: [u8; 16] = *b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4";
    let mut entries = [0; ENTRIES];
    for (index, (first, end)) in [(100_u64, 200_u64), (300, 400)].into_iter().enumerate() {
        let entry = &mut entries[index * 256..];
        put(entry, 0, &linux);
        put(entry, 16, &[index as u8 + 1; 16]);
        put(entry, 32, &first.to_le_bytes());
        put(entry, 40, &end.to_le_bytes());
        put(entry, 56, b"n\0a\0m\0e\0");
    }
    let parts = gpt_parts(sector);
    for (pair, (own, other, at)) in parts.chunks(2).zip([(1, last, 2), (last, 1, last - ALL_ENTRIES / sector)]) {
        let (head, table) = (pair[0].0.start, pair[1].0.start);
        put(&mut input, head, b"EFI PART");
        put(&mut input, head + 8, &0x1_0000_u32.to_le_bytes());
        put(&mut input, head + 12, &(HEADER as u32).to_le_bytes());
        for (field, number) in [(24, own), (32, other), (40, 34), (48, last - 34), (72, at)] {
            put(&mut input, head + field, &(number as u64).to_le_bytes());
        }
        put(&mut input, head + 56, &[9; 16]);
        put(&mut input, head + 80, &4_u32.to_le_bytes());
        put(&mut input, head + 84, &128_u32.to_le_bytes());
        put(&mut input, table, &entries);
    }
    seal(&mut input);
    input
}

/// Makes the checksums right again: where a header says that it or its entries are longer than what is given, zeros follow.
fn seal(input: &mut [u8]) {
    let sum = |bytes: &[u8], length: usize| {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes[..length.min(bytes.len())]);
        let mut zeros = length.min(LONGEST_LIST).saturating_sub(bytes.len());
        while zeros > 0 {
            let some = zeros.min(ZEROS.len());
            sum.update(&ZEROS[..some]);
            zeros -= some;
        }
        sum.finalize().to_le_bytes()
    };
    for pair in gpt_parts(sector(input)).chunks(2) {
        let (head, table) = (pair[0].0.start, pair[1].0.start);
        let number = |input: &[u8], field: usize| {
            u32::from_le_bytes([0, 1, 2, 3].map(|byte| input[head + field + byte])) as usize
        };
        let length = number(input, 80).saturating_mul(number(input, 84));
        let entries = sum(&input[table..table + ENTRIES], length);
        put(input, head + 88, &entries);
        put(input, head + 16, &[0; 4]);
        let length = number(input, 12).clamp(HEADER, 512);
        let header = sum(&input[head..head + HEADER], length);
        put(input, head + 16, &header);
    }
}

/// Changes a field of one of the entries, a link of the chain, or the magic number; repeats an entry, or swaps two.
pub fn mutate_mbr(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let mut records = input.to_vec();
    records.resize(records.len().next_multiple_of(RECORD).clamp(RECORD, MOST_RECORDS * RECORD), 0);
    let sectors = records.len() / RECORD;
    for _ in 0..=random.below(3) {
        let at = random.below(sectors) * RECORD;
        let entry = at + random.below(4) * 16;
        let other = random.below(sectors) * RECORD + random.below(4) * 16;
        match random.below(10) {
            0 => records[entry + 4] = *random.pick(&[0, 5, 0x0f, 0x85, 0x83, 0xee, 0xef]),
            1 => put(&mut records, at + 64, random.pick::<[u8; 2]>(&[[0x55, 0xaa], [0, 0]])),
            2 => records.copy_within(other..other + 16, entry),
            3 => swap(&mut records, entry, other, 16),
            4 if sectors < MOST_RECORDS => {
                let link = (random.below(MOST_RECORDS) as u32, 1 + random.below(MOST_RECORDS) as u32);
                records.extend(record(&[(0x83, 1, 2), (5, link.0, link.1)]));
            }
            _ => field(&mut records, entry, &grammar().mbr, "Entry", sectors as u64, random),
        }
    }
    records.truncate(most);
    records
}

/// Changes a field of a header or of an entry, repeats an entry or swaps two; in half of the cases the checksums are right
/// afterwards.
pub fn mutate_gpt(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let mut input = input.to_vec();
    input.resize(GPT, 0);
    if random.below(32) == 0 {
        input[0] ^= 1;
    }
    let sectors = (LENGTH / sector(&input)) as u64;
    for _ in 0..=random.below(3) {
        let parts = gpt_parts(sector(&input));
        let part = random.pick(&parts).0.clone();
        let mut entry = || parts[1 + 2 * random.below(2)].0.start + random.below(4) * 128;
        let (one, other) = (entry(), entry());
        match random.below(24) {
            1 => input.copy_within(other..other + 128, one),
            2 => swap(&mut input, one, other, 128),
            0 => field(&mut input, 1 + random.below(4) * 16, &grammar().mbr, "Entry", sectors, random),
            _ if part.len() == HEADER => field(&mut input, part.start, &grammar().gpt, "Header", sectors, random),
            _ => field(&mut input, part.start + random.below(4) * 128, &grammar().gpt, "Entry", sectors, random),
        }
    }
    if random.below(2) == 0 {
        seal(&mut input);
    }
    input.truncate(most);
    input
}

fn swap(bytes: &mut [u8], one: usize, other: usize, length: usize) {
    (0..length).for_each(|index| bytes.swap(one + index, other + index));
}

/// Writes a number to a field of a structure that begins here.
fn field(disk: &mut [u8], at: usize, structures: &Structures, name: &str, last: u64, random: &mut Random) {
    let place = structures[name].pick(at, false, random);
    if place.at + place.width > disk.len() {
        return;
    }
    let mut old = [0; 8];
    old[..place.width].copy_from_slice(&disk[place.at..place.at + place.width]);
    let old = u64::from_le_bytes(old);
    let new = match random.below(10) {
        0 => 0,
        1 => u64::MAX,
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => last,
        5 => last.wrapping_sub(1),
        6 => old ^ 1 << random.below(8 * place.width),
        7 => 1 << random.below(64),
        8 => random.below(64) as u64,
        _ => old.wrapping_mul(2),
    };
    put(disk, place.at, &new.to_le_bytes()[..place.width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_inputs_are_sound_and_half_of_what_is_made_of_a_gpt_is_sealed() {
        for (input, count) in mbr_seeds().iter().zip([3, 5]) {
            let table = mbr(input).unwrap();
            assert_eq!((table.partitions.len(), table.findings.len()), (count, 0), "{table:?}");
        }
        let mut random = Random::new(1);
        for input in gpt_seeds() {
            let table = gpt(&input).unwrap();
            assert_eq!((table.partitions.len(), table.findings.len(), table.backup), (2, 0, false), "{table:?}");
            let sealed = (0..200).filter(|_| {
                let mutant = mutate_gpt(&input, GPT, &mut random);
                let mut sealed = mutant.clone();
                seal(&mut sealed);
                mutant == sealed
            });
            assert!((60..160).contains(&sealed.count()));
            // As many entries as a table has most often, of which all but four are zeros.
            let mut usual = input.clone();
            for pair in gpt_parts(sector(&input)).chunks(2) {
                put(&mut usual, pair[0].0.start + 80, &128_u32.to_le_bytes());
            }
            assert_ne!(gpt(&usual).unwrap().findings.len(), 0);
            seal(&mut usual);
            let table = gpt(&usual).unwrap();
            assert_eq!((table.partitions.len(), table.findings.len(), table.backup), (2, 0, false), "{table:?}");
            // The copy is as good.
            usual[1 + RECORD] ^= 1;
            let table = gpt(&usual).unwrap();
            assert_eq!((table.partitions.len(), table.backup), (2, true), "{table:?}");
        }
    }
}
