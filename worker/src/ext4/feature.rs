//! Which features this reader reads. What is not in these sets is refused at the door, by name, and never half-read.

use lazaret_policy::feature::{Incompat, RoCompat};
use lazaret_policy::message::Refusal;

/// What may be set in `s_feature_incompat`. An inode for a long extended attribute changes nothing about a file's
/// data, and a guard against a second mount (mmp) nothing about reading.
pub const READ: Incompat = Incompat::FILETYPE
    .union(Incompat::META_BG)
    .union(Incompat::EXTENTS)
    .union(Incompat::SIXTY_FOUR_BIT)
    .union(Incompat::MMP)
    .union(Incompat::FLEX_BG)
    .union(Incompat::EA_INODE)
    .union(Incompat::CSUM_SEED)
    .union(Incompat::LARGEDIR);

/// What may not be set in `s_feature_ro_compat`. All the others concern writers only, the unknown ones by the rule of
/// the format; clusters change what the bitmaps and the free counts mean.
pub const NOT_READ: RoCompat = RoCompat::BIGALLOC;

/// Refuses what this reader does not read.
pub fn check(incompat: Incompat, ro_compat: RoCompat) -> Result<(), Refusal> {
    let strange = incompat.difference(READ);
    if !strange.is_empty() {
        return Err(Refusal::Incompat(strange.bits()));
    }
    let strange = ro_compat.intersection(NOT_READ);
    if !strange.is_empty() {
        return Err(Refusal::RoCompat(strange.bits()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_named_and_the_rest_is_not() {
        let asked = READ | Incompat::ENCRYPT | Incompat::from_bits_retain(0x8000_0000);
        assert_eq!(check(asked, RoCompat::empty()), Err(Refusal::Incompat(0x8001_0000)));
        let asked = RoCompat::VERITY | RoCompat::BIGALLOC | RoCompat::from_bits_retain(0x4000_0000);
        assert_eq!(check(READ, asked), Err(Refusal::RoCompat(0x200)));
        assert_eq!(check(READ, RoCompat::all() - RoCompat::BIGALLOC), Ok(()));
    }

    #[test]
    fn a_dirty_journal_and_data_in_inodes_are_refused() {
        for refused in [Incompat::RECOVER, Incompat::JOURNAL_DEV, Incompat::INLINE_DATA, Incompat::COMPRESSION] {
            assert_eq!(check(refused, RoCompat::empty()), Err(Refusal::Incompat(refused.bits())));
        }
    }
}
