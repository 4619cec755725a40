//! Fast commits: what follows the log, in a room of its own. Not yet replayed: an image that has them is refused.

use lazaret_policy::corruption::{Place, Rule};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::log::Log;
use crate::error::{Error, Result};
use crate::ext4::format::layout;
use crate::ext4::units::{JournalBlock, TransactionId};

/// `EXT4_FC_TAG_HEAD`.
const HEAD: u16 = 9;

/// What the fast commits of a transaction begin with: `struct ext4_fc_tl` and `struct ext4_fc_head`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    fc_tag: U16,
    fc_len: U16,
    fc_features: U32,
    fc_tid: U32,
}
layout!(Head: 12, fc_len @ 2, fc_features @ 4, fc_tid @ 8);

/// Refuses fast commits that belong to the transaction after the last one in the log.
pub(super) fn refuse(log: &Log<'_>, next: Option<TransactionId>) -> Result<()> {
    let Some(next) = next.filter(|_| !log.superblock.fast.is_empty()) else { return Ok(()) };
    let mut bytes = log.buffer();
    let block = JournalBlock(log.superblock.fast.start);
    log.read(block, &mut bytes)?;
    let Ok((head, _)) = Head::ref_from_prefix(&bytes) else { return Ok(()) };
    if head.fc_tag.get() == HEAD && head.fc_tid.get() == next.0 {
        return Err(Error::corrupt(Rule::FastCommit, Place::Journal(block.0)));
    }
    Ok(())
}
