//! The mappings that the kernel keeps of a file: a record replaces what it overlaps, neighbours become one, and a fork
//! that holds more than its budget is emptied as a whole before the next record comes in.

use std::collections::BTreeMap;

use super::wire::{Io, TO_EOF};

/// One fork of one file.
#[derive(Debug, Default)]
pub struct Cache {
    /// By where they begin.
    records: BTreeMap<u64, Io>,
    /// How often it was emptied for its budget.
    pub wiped: u32,
}

impl Cache {
    /// Takes a record in. `budget` is in bytes, of which each record is 32.
    pub fn upsert(&mut self, new: Io, budget: u64) {
        self.remove(new.offset, new.length);
        if (self.records.len() * Io::LENGTH) as u64 > budget {
            self.records.clear();
            self.wiped += 1;
        }
        let mut new = new;
        if let Some((_, left)) = self.records.range(..new.offset).next_back().filter(|(_, left)| goes_on(left, &new)) {
            new = Io { length: left.length + new.length, ..*left };
        }
        if let Some(right) = self.records.get(&new.end()).copied().filter(|right| goes_on(&new, right)) {
            self.records.remove(&right.offset);
            new.length += right.length;
        }
        self.records.insert(new.offset, new);
    }

    /// Forgets a range; what is partly in it is cut.
    pub fn remove(&mut self, offset: u64, length: u64) {
        let end = if length == TO_EOF { u64::MAX } else { offset.saturating_add(length) };
        let overlaps: Vec<Io> =
            self.records.range(..end).rev().map(|(_, io)| *io).take_while(|io| io.end() > offset).collect();
        for io in overlaps {
            self.records.remove(&io.offset);
            let further = |from: u64| if io.has_space() { io.addr + (from - io.offset) } else { io.addr };
            if io.offset < offset {
                self.records.insert(io.offset, Io { length: offset - io.offset, ..io });
            }
            if io.end() > end {
                self.records.insert(end, Io { offset: end, length: io.end() - end, addr: further(end), ..io });
            }
        }
    }

    /// What is kept of this byte, cut to the blocks that are asked for.
    pub fn lookup(&self, pos: u64, count: u64, block: u64) -> Option<Io> {
        let io = self.records.range(..=pos).next_back().map(|(_, io)| *io).filter(|io| io.end() > pos)?;
        let offset = pos - pos % block;
        let end = pos.saturating_add(count).checked_next_multiple_of(block).unwrap_or(u64::MAX).min(io.end());
        let addr = if io.has_space() { io.addr + (offset - io.offset) } else { io.addr };
        Some(Io { offset, length: end - offset, addr, ..io })
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets everything, as under pressure.
    pub fn clear(&mut self) {
        self.records.clear();
    }
}

/// Whether two that touch in the file are one.
fn goes_on(left: &Io, right: &Io) -> bool {
    let same = left.kind == right.kind && left.flags == right.flags && left.dev == right.dev;
    let place = if left.has_space() { left.addr + left.length == right.addr } else { left.addr == right.addr };
    same && place && left.end() == right.offset
}

#[cfg(test)]
mod tests {
    use super::super::wire::{HOLE, MAPPED, NULL_ADDR};
    use super::*;

    fn mapped(offset: u64, length: u64, addr: u64) -> Io {
        Io { offset, length, addr, kind: MAPPED, flags: 0, dev: 1 }
    }

    #[test]
    fn what_overlaps_is_cut_and_what_touches_is_joined() {
        let mut cache = Cache::default();
        cache.upsert(mapped(0, 4096, 1 << 20), 1 << 20);
        cache.upsert(mapped(4096, 4096, (1 << 20) + 4096), 1 << 20);
        assert_eq!(cache.len(), 1);
        assert_eq!(cache.lookup(5000, 100, 1024), Some(mapped(4096, 1024, (1 << 20) + 4096)));
        let hole = Io { kind: HOLE, addr: NULL_ADDR, dev: 0, ..mapped(2048, 1024, 0) };
        cache.upsert(hole, 1 << 20);
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.lookup(2048, 9000, 1024), Some(hole));
        assert_eq!(cache.lookup(3072, 9000, 1024), Some(mapped(3072, 5120, (1 << 20) + 3072)));
        cache.remove(4096, TO_EOF);
        assert_eq!(cache.lookup(4096, 1, 1024), None);
        assert_eq!(cache.lookup(3072, 9000, 1024), Some(mapped(3072, 1024, (1 << 20) + 3072)));
    }

    #[test]
    fn more_than_the_budget_empties_the_fork() {
        let mut cache = Cache::default();
        for number in 0..9 {
            cache.upsert(mapped(number * 8192, 4096, number << 20), 256);
        }
        assert_eq!((cache.len(), cache.wiped), (9, 0));
        cache.upsert(mapped(1 << 20, 4096, 0), 256);
        assert_eq!((cache.len(), cache.wiped), (1, 1));
        cache.upsert(mapped(1 << 20, 4096, 0), 256);
        assert_eq!(cache.len(), 1, "a record replaces itself");
    }
}
