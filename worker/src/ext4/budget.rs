//! What one request may cost. The bound is this reader's, and no image can raise it.
//!
//! Work is counted in bytes looked at, because that is what takes the time: a block of a directory, a node of an extent
//! tree that has to be checked anew. Whoever runs over image data in a loop has a budget and spends from it in each turn,
//! or has a bound of another kind:
//!
//! - a request: one budget, for maps (`map.rs`, `extent.rs`), directories (`dir.rs`, `htree.rs`) and searches (`seek.rs`);
//! - attributes: an inode's body, one block, one value of 64 KiB (`xattr.rs`); a Merkle tree: eight levels (`merkle.rs`);
//! - opening: 2^21 groups (`superblock.rs`), 2^19 ranges of the file system's own (`system_zone.rs`);
//! - a journal: its memory, 4 GiB of it looked at (`journal/log.rs`), 1 GiB of directories (`fast_commit/replay.rs`);
//! - a check: slices, and a sum that goes by the device's length (`check/`);
//! - partitions: 128 of them (`partition/`).

use lazaret_policy::planted;

use crate::error::{Error, Result};

/// How many bytes one request may look at: a fraction of a second.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// What is left of the bytes that one request may look at.
#[derive(Debug)]
pub struct Budget(u64);

impl Budget {
    /// That of one request.
    pub fn new() -> Self {
        Self::of(MOST_BYTES)
    }

    /// So many bytes, for what is no request.
    pub(super) fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// There are not as many left: [`Error::Budget`].
    pub fn spend(&mut self, bytes: u64) -> Result<()> {
        let left = self.0.checked_sub(bytes).or_else(|| planted("budget").then_some(0));
        self.0 = left.ok_or(Error::Budget)?;
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}
