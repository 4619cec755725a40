//! Partition tables: an input is the sectors of a disk, the first ones and, in its last quarter, the last ones.

use std::ops::Range;

use lazaret_worker::device::Device;

use super::grammar::{Structures, grammar};
use super::target::partitions;
use crate::mutate::random::Random;

/// Bytes of the disk.
const LENGTH: usize = 64 << 20;
/// Bytes at its begin and at its end that an input gives.
const BEGIN: usize = 20 << 10;
const END: usize = 17 << 10;

/// Reads the table.
pub fn run(input: &[u8]) {
    let (begin, end) = input.split_at(input.len().min(BEGIN));
    let places = [(0, begin.to_vec()), (LENGTH - END, end[..end.len().min(END)].to_vec())];
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
    let Some(table) = partitions(&device) else { return };
    for one in &table.partitions {
        let end = one.offset.checked_add(one.length);
        let inside = end.is_some_and(|end| end <= LENGTH as u64);
        assert!(inside || one.finding.is_some(), "beyond the disk, and nothing is said of it: {one:?}");
        assert!(one.number > 0 && (one.offset < LENGTH as u64 || !one.ext), "{one:?}");
    }
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A boot record with these entries: type, first sector, sectors.
fn record(disk: &mut [u8], sector: usize, entries: &[(u8, u32, u32)]) {
    for (index, (kind, start, sectors)) in entries.iter().enumerate() {
        let at = sector * 512 + 446 + index * 16;
        disk[at + 4] = *kind;
        put(disk, at + 8, &start.to_le_bytes());
        put(disk, at + 12, &sectors.to_le_bytes());
    }
    put(disk, sector * 512 + 510, &[0x55, 0xaa]);
}

/// First inputs: primary partitions, and a chain of logical ones.
pub fn mbr_seeds() -> Vec<Vec<u8>> {
    let mut plain = vec![0; 4096];
    record(&mut plain, 0, &[(0x83, 2, 1000), (0x82, 1002, 1000), (0x07, 2002, 100), (0, 0, 0)]);
    let mut chain = vec![0; 8192];
    record(&mut chain, 0, &[(0x83, 20, 100), (5, 2, 60_000)]);
    record(&mut chain, 2, &[(0x83, 1, 2), (5, 3, 100)]);
    record(&mut chain, 5, &[(0x83, 1, 2), (5, 6, 100)]);
    record(&mut chain, 8, &[(0x83, 1, 2)]);
    let mut protecting = vec![0; 4096];
    record(&mut protecting, 0, &[(0xee, 1, u32::MAX), (0x83, 20, 100)]);
    vec![plain, chain, protecting]
}

/// First inputs: a GPT with its copy, in sectors of both lengths.
pub fn gpt_seeds() -> Vec<Vec<u8>> {
    [512, 4096].into_iter().map(gpt).collect()
}

fn gpt(sector: usize) -> Vec<u8> {
    let mut disk = vec![0; BEGIN + END];
    record(&mut disk, 0, &[(0xee, 1, u32::MAX)]);
    let last = LENGTH / sector - 1;
    let rows = 4096_usize.div_ceil(sector);
    let linux: [u8; 16] = *b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4";
    let mut entries = vec![0; 4096];
    for (index, (first, end)) in [(100_u64, 200_u64), (300, 400)].into_iter().enumerate() {
        let entry = &mut entries[index * 256..];
        put(entry, 0, &linux);
        put(entry, 16, &[index as u8 + 1; 16]);
        put(entry, 32, &first.to_le_bytes());
        put(entry, 40, &end.to_le_bytes());
        put(entry, 56, b"n\0a\0m\0e\0");
    }
    for (own, other, at) in [(1, last, 2), (last, 1, last - rows)] {
        let place = |sector_number: usize| {
            let at = sector_number * sector;
            if at < BEGIN { at } else { BEGIN + at - (LENGTH - END) }
        };
        let (head, table) = (place(own), place(at));
        put(&mut disk, head, b"EFI PART");
        put(&mut disk, head + 8, &0x1_0000_u32.to_le_bytes());
        put(&mut disk, head + 12, &92_u32.to_le_bytes());
        for (field, number) in [(24, own), (32, other), (40, 10), (48, last - 10), (72, at)] {
            put(&mut disk, head + field, &(number as u64).to_le_bytes());
        }
        put(&mut disk, head + 56, &[9; 16]);
        put(&mut disk, head + 80, &32_u32.to_le_bytes());
        put(&mut disk, head + 84, &128_u32.to_le_bytes());
        put(&mut disk, table, &entries);
    }
    seal(&mut disk, sector);
    disk
}

/// Where the headers and their entries lie in an input.
fn headers(sector: usize) -> [(usize, usize); 2] {
    let rows = 4096_usize.div_ceil(sector);
    [(sector, 2 * sector), (BEGIN + END - sector, BEGIN + END - sector * (rows + 1))]
}

/// Makes the checksums right again.
fn seal(disk: &mut [u8], sector: usize) {
    for (head, table) in headers(sector) {
        if disk.len() < head + 92 || disk.len() < table + 4096 || disk[head..head + 8] != *b"EFI PART" {
            continue;
        }
        let sum = crc32(&disk[table..table + 4096]);
        put(disk, head + 88, &sum.to_le_bytes());
        put(disk, head + 16, &[0; 4]);
        let length = (u32::from_le_bytes([disk[head + 12], disk[head + 13], disk[head + 14], disk[head + 15]])
            as usize)
            .clamp(92, 512);
        let end = (head + length).min(disk.len());
        let sum = crc32(&disk[head..end]);
        put(disk, head + 16, &sum.to_le_bytes());
    }
}

/// The crc32 of Ethernet, bit by bit: the tests have no crate for it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// Changes a field of one of the entries, a link of the chain, or the magic number.
pub fn mutate_mbr(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let mut disk = input.to_vec();
    disk.resize(disk.len().max(4096).min(most), 0);
    let sectors = (disk.len() / 512).min(16);
    for _ in 0..=random.below(3) {
        let at = random.below(sectors.max(1)) * 512;
        let entry = at + 446 + random.below(4) * 16;
        if at + 512 > disk.len() {
            break;
        }
        match random.below(8) {
            0 => disk[entry + 4] = *random.pick(&[0, 5, 0x0f, 0x85, 0x83, 0xee, 0xef]),
            1 => put(&mut disk, at + 510, random.pick::<[u8; 2]>(&[[0x55, 0xaa], [0, 0]])),
            2 => disk.copy_within(at + 446..at + 462, entry),
            _ => field(&mut disk, entry, &grammar().mbr, "Entry", sectors as u64, random),
        }
    }
    disk
}

/// Changes a field of a header or of an entry; in half of the cases the checksums are right afterwards.
pub fn mutate_gpt(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let mut disk = input.to_vec();
    disk.resize((BEGIN + END).min(most), 0);
    let sector = *random.pick(&[512, 4096]);
    for _ in 0..=random.below(3) {
        let (head, table) = *random.pick(&headers(sector));
        if disk.len() < BEGIN + END {
            break;
        }
        let range: Range<usize> = if random.below(2) == 0 { head..head + 92 } else { table..table + 4096 };
        if range.len() == 92 {
            field(&mut disk, head, &grammar().gpt, "Header", (LENGTH / sector) as u64, random);
        } else {
            let entry = range.start + random.below(4) * 128;
            field(&mut disk, entry, &grammar().gpt, "Entry", (LENGTH / sector) as u64, random);
        }
    }
    if random.below(2) == 0 && disk.len() == BEGIN + END {
        seal(&mut disk, sector);
    }
    disk
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
