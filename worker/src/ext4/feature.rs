//! Which features this reader reads. What is not in these sets is refused at the door, by name, and never half-read.

use lazaret_policy::feature::Incompat;
use lazaret_policy::message::Refusal;

/// What may be set in `s_feature_incompat`. A guard against a second mount (mmp) changes nothing about reading.
pub const READ: Incompat = Incompat::FILETYPE
    .union(Incompat::RECOVER)
    .union(Incompat::META_BG)
    .union(Incompat::EXTENTS)
    .union(Incompat::SIXTY_FOUR_BIT)
    .union(Incompat::MMP)
    .union(Incompat::FLEX_BG)
    .union(Incompat::EA_INODE)
    .union(Incompat::CSUM_SEED)
    .union(Incompat::LARGEDIR)
    .union(Incompat::INLINE_DATA)
    .union(Incompat::ENCRYPT)
    .union(Incompat::CASEFOLD);

/// Refuses what this reader does not read. `s_feature_ro_compat` refuses nothing: by the rule of the format it concerns
/// writers only, and clusters (bigalloc) only change what is counted.
pub fn check(incompat: Incompat) -> Result<(), Refusal> {
    if incompat.contains(Incompat::JOURNAL_DEV) {
        return Err(Refusal::JournalDevice);
    }
    let strange = incompat.difference(READ);
    if strange.is_empty() { Ok(()) } else { Err(Refusal::Incompat(strange.bits())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_named_and_the_rest_is_not() {
        let asked = READ | Incompat::COMPRESSION | Incompat::from_bits_retain(0x8000_0000);
        assert_eq!(check(asked), Err(Refusal::Incompat(0x8000_0001)));
        assert_eq!(check(READ), Ok(()));
        assert_eq!(check(Incompat::empty()), Ok(()));
    }

    #[test]
    fn a_journal_device_and_compressed_files_are_refused() {
        assert_eq!(check(Incompat::JOURNAL_DEV | Incompat::FILETYPE), Err(Refusal::JournalDevice));
        assert_eq!(check(Incompat::COMPRESSION), Err(Refusal::Incompat(1)));
    }
}
