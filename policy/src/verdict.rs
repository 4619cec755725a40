//! What a check comes to say where the worker's findings alone do not: of a file system that does not open, and of one
//! with features that a check would have to know.

use crate::corruption::{Corruption, Place, Rule};
use crate::feature::{Compat, RoCompat};
use crate::message::Refusal;

/// The damage that a refusal tells of; none where there is nothing to be judged.
pub fn damage(refusal: Refusal) -> Option<Corruption> {
    /// Where the superblock ends: an image that is shorter holds no file system that could be cut.
    const SUPERBLOCK_END: u64 = 2048;
    match refusal {
        Refusal::Corrupt(corruption) | Refusal::Checksum(corruption) => Some(corruption),
        // There is a file system: its copies say so.
        Refusal::SuperblockLost { broken, .. } => {
            Some(broken.unwrap_or(Corruption { rule: Rule::SuperblockThere, place: Place::Superblock }))
        }
        Refusal::TooShort { needed, .. } if needed > SUPERBLOCK_END => {
            Some(Corruption { rule: Rule::DeviceHoldsFileSystem, place: Place::Superblock })
        }
        _ => None,
    }
}

/// Features that are in the way of a check, though not of a reader: their names.
pub fn unknown(compat: u32, ro_compat: u32) -> Vec<String> {
    let compat = Compat::from_bits_retain(compat).difference(Compat::CHECKED);
    let ro_compat = RoCompat::from_bits_retain(ro_compat).difference(RoCompat::CHECKED);
    [compat.names(), ro_compat.names()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_damaged_and_what_is_nothing_is_not_read() {
        assert!(damage(Refusal::TooShort { length: 5000, needed: 9000 }).is_some());
        assert!(damage(Refusal::TooShort { length: 5, needed: 2048 }).is_none());
        assert!(damage(Refusal::NotExt).is_none());
        let gone = Refusal::SuperblockLost { broken: None, copies: [8193, 0, 0] };
        assert_eq!(damage(gone).map(|found| found.rule), Some(Rule::SuperblockThere));
    }

    #[test]
    fn what_a_check_does_not_know_is_named() {
        assert!(unknown(0x1e3f, 0x1_f77b).is_empty());
        let names = ["snapshot_bitmap", "FEATURE_C30", "replica", "FEATURE_R30"];
        assert_eq!(unknown(1 << 30 | 0x100, 1 << 30 | 0x800), names);
    }
}
