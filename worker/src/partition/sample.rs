//! Disks in memory for the tests of this room.

use crate::device::Device;

/// The type of a partition for Linux.
pub(super) const LINUX: u8 = 0x83;

/// The bytes of a disk, and where a file system is said to begin.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) bytes: Vec<u8>,
    pub(super) ext: Vec<u64>,
}

/// An entry of an MBR.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) kind: u8,
    pub(super) start: u32,
    pub(super) sectors: u32,
}

impl Disk {
    pub(super) fn new(length: usize) -> Self {
        Self { bytes: vec![0; length], ext: vec![] }
    }

    pub(super) fn device(&self) -> Device {
        Device::from_bytes(self.bytes.clone())
    }

    /// With another value in this byte.
    pub(super) fn damaged(mut self, offset: u64) -> Self {
        self.bytes[offset as usize] ^= 0x77;
        self
    }

    pub(super) fn with_ext(mut self, offset: u64) -> Self {
        self.ext.push(offset);
        self
    }

    pub(super) fn with_magic(mut self, sector: usize) -> Self {
        self.bytes[sector * 512 + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
        self
    }

    /// A boot record with these entries, in a sector of 512 bytes.
    pub(super) fn with_record(mut self, sector: usize, entries: &[Entry]) -> Self {
        for (index, entry) in entries.iter().enumerate() {
            let to = &mut self.bytes[sector * 512 + 446 + index * 16..][..16];
            to[4] = entry.kind;
            to[8..12].copy_from_slice(&entry.start.to_le_bytes());
            to[12..].copy_from_slice(&entry.sectors.to_le_bytes());
        }
        self.with_magic(sector)
    }
}

/// A GPT with its copy: partitions in the first and the third entry.
pub(super) struct Gpt {
    pub(super) sector: u64,
    pub(super) count: u32,
    pub(super) entry_size: u32,
    /// So many entries are used instead, one sector each.
    pub(super) used: u32,
    /// The partitions end before they begin.
    pub(super) backwards: bool,
}

impl Default for Gpt {
    fn default() -> Self {
        Self { sector: 512, count: 128, entry_size: 128, used: 0, backwards: false }
    }
}

impl Gpt {
    pub(super) fn write(&self, disk: Disk) -> Disk {
        let last = disk.bytes.len() as u64 / self.sector - 1;
        let entries = self.entries();
        let copy = last - (entries.len() as u64).div_ceil(self.sector);
        let mut disk = disk.with_record(0, &[Entry { kind: 0xee, start: 1, sectors: u32::MAX }]);
        for (own, other, list) in [(1, last, 2), (last, 1, copy)] {
            let (from, header) = ((list * self.sector) as usize, self.header(own, other, list, &entries));
            disk.bytes[from..from + entries.len()].copy_from_slice(&entries);
            disk.bytes[(own * self.sector) as usize..][..header.len()].copy_from_slice(&header);
        }
        disk
    }

    fn entries(&self) -> Vec<u8> {
        let size = self.entry_size.clamp(128, 4096) as usize;
        let mut bytes = vec![0; size * (self.count as usize).min((128 << 10) / size)];
        let mut entry = |index: usize, first: u64, sectors: u64| {
            let Some(to) = bytes.get_mut(index * size..(index + 1) * size) else { return };
            to[..16].fill(0x11);
            to[16..32].fill((index as u8).wrapping_add(1));
            let last = if self.backwards { first - 1 } else { first + sectors - 1 };
            to[32..40].copy_from_slice(&first.to_le_bytes());
            to[40..48].copy_from_slice(&last.to_le_bytes());
            for (at, unit) in "Überfluß".encode_utf16().enumerate() {
                to[56 + at * 2..][..2].copy_from_slice(&unit.to_le_bytes());
            }
        };
        if self.used > 0 {
            (0..self.used).for_each(|index| entry(index as usize, 1000 + u64::from(index), 1));
        } else {
            entry(0, 64, 100);
            entry(2, 200, 100);
        }
        bytes
    }

    fn header(&self, own: u64, other: u64, list: u64, entries: &[u8]) -> Vec<u8> {
        let mut header = Vec::from(*b"EFI PART");
        for number in [0x1_0000, 92, 0, 0] {
            header.extend(u32::to_le_bytes(number));
        }
        for number in [own, other, 34, 5000] {
            header.extend(u64::to_le_bytes(number));
        }
        header.extend([0xdd; 16]);
        header.extend(list.to_le_bytes());
        for number in [self.count, self.entry_size, crc32fast::hash(entries)] {
            header.extend(number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        header
    }
}
