//! What a file system that can be read should not be trusted with: said once, when it is opened.
//!
//! Nothing here keeps a file system from being read: a reader takes no harm from another host that writes, but what it
//! sees may be neither old nor new.

use lazaret_policy::feature::{Incompat, RoCompat};
use lazaret_policy::warning::Warnings;
use zerocopy::{FromZeros, IntoBytes};

use super::Filesystem;
use super::casefold::Encoding;
use super::checksum::{Kind, crc32c};
use super::format;

impl Filesystem {
    /// All that there is to warn of.
    pub fn warnings(&self) -> Warnings {
        let superblock = self.superblock();
        let mut warnings = Warnings::empty();
        if superblock.incompat.contains(Incompat::MMP) {
            warnings |= self.guard();
        }
        warnings.set(Warnings::FEATURES, !RoCompat::UNDERSTOOD.contains(superblock.ro_compat));
        warnings.set(Warnings::ERRORS, superblock.state & format::STATE_ERROR != 0);
        // Whoever writes the copies leaves this out of them.
        let primary = self.settings.superblock.is_none();
        warnings.set(Warnings::NOT_CLEAN, primary && superblock.state & format::STATE_VALID == 0);
        warnings.set(Warnings::CHECKSUMS, self.verifier().failures() > 0);
        warnings.set(Warnings::ENCODING, superblock.encoding == Some(Encoding::Unknown));
        warnings.set(Warnings::JOURNAL_ELSEWHERE, superblock.external_journal);
        warnings
    }

    /// What the guard against a second mount says.
    fn guard(&self) -> Warnings {
        let mut raw = format::Mmp::new_zeroed();
        let superblock = self.superblock();
        let place = superblock.block_size.byte_offset(superblock.guard).filter(|_| superblock.guard.0 > 0);
        let read = place.is_some_and(|place| self.device().read_at(place.0, raw.as_mut_bytes()).is_ok());
        let sealed =
            self.verifier().kind() != Kind::Crc32c || checksum(&raw, self.verifier().seed()) == raw.mmp_checksum.get();
        if !read || raw.mmp_magic.get() != format::MMP_MAGIC || !sealed {
            Warnings::GUARD_DAMAGED
        } else if raw.mmp_seq.get() != format::MMP_CLEAN {
            Warnings::IN_USE
        } else {
            Warnings::empty()
        }
    }
}

fn checksum(raw: &format::Mmp, seed: u32) -> u32 {
    let covered = raw.as_bytes().split_last_chunk::<4>().map_or(&[][..], |(covered, _)| covered);
    crc32c(seed, covered)
}
