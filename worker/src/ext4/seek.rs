//! Where the next data or the next hole of a file begins: lseek(2)'s SEEK_DATA and SEEK_HOLE, through the one mapping.

use super::Filesystem;
use super::inode::Inode;
use super::map::MappingKind;
use super::units::FileOffset;
use crate::error::Result;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Bytes that were written.
    Data,
    /// Bytes that were not, or the end of the file.
    Hole,
}

impl Filesystem {
    /// The first byte at or after `offset` that is of the kind wanted; none if there is none before the end of the file,
    /// where the last hole begins.
    ///
    /// # Errors
    /// As [`Self::map`]; a file of so many runs that looking at them is more than a request may cost:
    /// [`Error::Budget`](crate::error::Error::Budget).
    pub fn seek(&self, inode: &Inode, mut offset: u64, wanted: Wanted) -> Result<Option<u64>> {
        let mut budget = self.budget();
        while offset < inode.size {
            let rest = inode.size.saturating_sub(offset);
            let mapping = self.map_within(inode, FileOffset(offset), rest, &mut budget)?;
            let is_data = matches!(mapping.kind, MappingKind::Data(_) | MappingKind::Inline);
            if is_data == (wanted == Wanted::Data) {
                return Ok(Some(offset));
            }
            offset = offset.saturating_add(mapping.length.max(1));
        }
        Ok((wanted == Wanted::Hole).then_some(inode.size))
    }
}
