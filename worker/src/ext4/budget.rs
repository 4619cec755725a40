//! What one request may cost. The bound is this reader's, and no image can raise it.
//!
//! Work is counted in bytes looked at, because that is what takes the time: a block of a directory, a node of an extent
//! tree that has to be checked anew. Whoever runs over image data in a loop has a budget and spends from it in each turn.

use crate::error::{Error, Result};

/// How many bytes one request may look at: a fraction of a second.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// What is left of the bytes that one request may look at.
#[derive(Debug)]
pub struct Budget(u64);

impl Budget {
    /// That of one request.
    pub fn new() -> Self {
        Self(MOST_BYTES)
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// There are not as many left: [`Error::Budget`].
    pub fn spend(&mut self, bytes: u64) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or(Error::Budget)?;
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}
