//! The way through the log: block after block, from its last back to its first, and round once at the most.

use super::log::Log;
use crate::ext4::units::JournalBlock;

/// A place in the log that only moves forward.
#[derive(Debug)]
pub(super) struct Walk {
    first: u32,
    end: u32,
    next: u32,
    left: u32,
}

impl Walk {
    /// From a block of the log on.
    pub(super) fn new(log: &Log<'_>, start: JournalBlock) -> Self {
        let (first, end) = (log.superblock.log.start, log.superblock.log.end);
        Self { first, end, next: start.0, left: end.saturating_sub(first) }
    }

    /// The next block, and goes on behind it. None where the log would come back to where it began: what is there was
    /// seen, and is not what follows.
    pub(super) fn step(&mut self) -> Option<JournalBlock> {
        self.left = self.left.checked_sub(1)?;
        let here = JournalBlock(self.next);
        let behind = self.next.saturating_add(1);
        self.next = if behind < self.end { behind } else { self.first };
        Some(here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_round_once() {
        let mut walk = Walk { first: 1, end: 5, next: 3, left: 4 };
        let blocks: Vec<_> = std::iter::from_fn(|| walk.step()).map(|block| block.0).collect();
        assert_eq!(blocks, [3, 4, 1, 2]);
    }
}
