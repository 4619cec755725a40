//! Where the data of a file is, as far as fast commits changed it: ranges before the file's own map.
//!
//! What always holds here: the ranges of a file are in order and apart, and each range of data was checked to lie where
//! a file may have data, or is a block in memory. On the way of a read the mapping asks here before it asks the map in
//! the inode; a file system without fast commits pays one look into an empty map.

use std::collections::BTreeMap;

use crate::ext4::map::{Run, RunKind};
use crate::ext4::units::{InodeNumber, LogicalBlock};

/// What fast commits changed of where data is.
#[derive(Debug, Default)]
pub(in crate::ext4) struct Changes {
    ranges: BTreeMap<InodeNumber, Ranges>,
    /// Directories with blocks behind their own, and the first such block.
    appended: BTreeMap<InodeNumber, u64>,
}

/// What is known of a block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ext4) enum Change {
    /// It is here.
    To(Run),
    /// Nothing: it is where the file's own map says, and so are so many blocks.
    None(u64),
}

impl Changes {
    /// Where a block of a file is now.
    pub(in crate::ext4) fn of(&self, inode: InodeNumber, block: LogicalBlock) -> Change {
        self.ranges.get(&inode).map_or(Change::None(u64::MAX), |ranges| ranges.at(block.0.into()))
    }

    /// The first block of a directory that its hash tree does not know of.
    pub(in crate::ext4) fn appended(&self, directory: InodeNumber) -> Option<u64> {
        self.appended.get(&directory).copied()
    }

    /// A file's ranges.
    pub(super) fn ranges(&mut self, inode: InodeNumber) -> &mut Ranges {
        self.ranges.entry(inode).or_default()
    }

    /// Forgets all changes of where a file's data is.
    pub(super) fn forget(&mut self, inode: InodeNumber) {
        self.ranges.remove(&inode);
    }

    /// From this block on a directory has blocks that its hash tree does not know of.
    pub(super) fn append(&mut self, directory: InodeNumber, first: u64) {
        self.appended.insert(directory, first);
    }
}

/// Ranges of one file: from the key to before the first number.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, (u64, RunKind)>);

impl Ranges {
    /// Blocks from `first` to before `end` are here now, whatever was said of them before.
    pub(super) fn set(&mut self, first: u64, end: u64, kind: RunKind) {
        if first >= end {
            return;
        }
        // Each turn takes one range away, and puts back only what lies outside.
        while let Some((&begin, &(stop, old))) = self.0.range(..end).next_back().filter(|(_, (stop, _))| *stop > first)
        {
            self.0.remove(&begin);
            if stop > end {
                self.0.insert(end, (stop, old.advanced(end.saturating_sub(begin))));
            }
            if begin < first {
                self.0.insert(begin, (first, old));
            }
        }
        self.0.insert(first, (end, kind));
    }

    fn at(&self, block: u64) -> Change {
        match self.0.range(..=block).next_back() {
            Some((begin, &(stop, kind))) if stop > block => {
                let kind = kind.advanced(block.saturating_sub(*begin));
                Change::To(Run { blocks: stop.saturating_sub(block), kind })
            }
            _ => {
                let next = self.0.range(block..).next().map_or(u64::MAX, |(&begin, _)| begin);
                Change::None(next.saturating_sub(block))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::units::BlockNumber;

    /// Every way in which two ranges can lie to each other, against an array of blocks.
    #[test]
    fn what_was_said_last_counts() {
        for (a, b, c, d) in (0..4096).map(|n| (n & 7, n >> 3 & 7, n >> 6 & 7, n >> 9)) {
            let mut ranges = Ranges::default();
            let mut blocks = [None; 8];
            let unwritten = RunKind::Unwritten(BlockNumber(200));
            let steps = [(a, b, RunKind::Data(BlockNumber(100))), (c, d, RunKind::Hole), (b, c, unwritten)];
            for (first, end, kind) in steps {
                ranges.set(first, end, kind);
                for block in first..end.max(first) {
                    blocks[block as usize] = Some(kind.advanced(block - first));
                }
            }
            for block in 0..8 {
                match ranges.at(block) {
                    Change::To(run) => (0..run.blocks).for_each(|step| {
                        assert_eq!(blocks[(block + step) as usize], Some(run.kind.advanced(step)));
                    }),
                    Change::None(count) => {
                        (block..block.saturating_add(count).min(8))
                            .for_each(|at| assert_eq!(blocks[at as usize], None));
                    }
                }
            }
        }
    }
}
