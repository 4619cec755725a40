//! The medium: copies bytes out and checks every range.
use crate::error::Result;

/// skeleton
pub struct Device {
    bytes: Vec<u8>,
}

impl Device {
    /// A device in memory, for tests and the fuzzer.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    /// Copies bytes out.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).ok();
        let part = start
            .and_then(|s| self.bytes.get(s..s.checked_add(out.len())?))
            .ok_or(crate::error::Error::Device { offset })?;
        out.copy_from_slice(part);
        Ok(())
    }
}
