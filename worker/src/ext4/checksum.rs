//! The checksums of metadata: how they are computed, and what a wrong one does.
//!
//! Two kinds: crc16 in the group descriptors of old file systems, crc32c everywhere in those with `metadata_csum`.
//! `checksum=` decides whether a wrong one is an error, is counted, or is not computed. Whoever copies a structure out
//! of the device comes here before looking at any other of its fields but those that say where the checksum is.

use std::sync::Arc;

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::feature::RoCompat;
use lazaret_policy::message::Checksum;
use lazaret_policy::planted;

use super::superblock::Superblock;
use super::units::InodeNumber;
use crate::error::{Error, Result};
use crate::ledger::Ledger;

/// What the checksums of one file system are, and what is done about wrong ones.
#[derive(Debug)]
pub struct Verifier {
    policy: Checksum,
    kind: Kind,
    seed: u32,
    ledger: Arc<Ledger>,
}

/// Which checksums a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None.
    None,
    /// crc16 over the group descriptors.
    Crc16,
    /// crc32c over all metadata.
    Crc32c,
}

impl Kind {
    /// With both flags set, the newer kind holds.
    pub fn of(features: RoCompat) -> Self {
        if features.contains(RoCompat::METADATA_CSUM) {
            Self::Crc32c
        } else if features.contains(RoCompat::GDT_CSUM) {
            Self::Crc16
        } else {
            Self::None
        }
    }
}

impl Verifier {
    pub(super) fn new(superblock: &Superblock, policy: Checksum) -> Self {
        let ledger = Arc::new(Ledger::new());
        if policy == Checksum::Warn && !superblock.checksum_matches {
            ledger.passed(Corruption { rule: Rule::SuperblockChecksum, place: Place::Superblock });
        }
        let kind = if policy == Checksum::Ignore { Kind::None } else { Kind::of(superblock.ro_compat) };
        Self { policy, kind, seed: superblock.checksum_seed, ledger }
    }

    /// The checksums to be computed: none, where they are ignored.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The seed of the whole file system.
    pub fn seed(&self) -> u32 {
        self.seed
    }

    /// The seed of everything that belongs to one inode: its own checksum, its extent nodes, its directory blocks.
    pub fn inode_seed(&self, number: InodeNumber, generation: u32) -> u32 {
        let both = u64::from(generation) << 32 | u64::from(number.value());
        crc32c(self.seed, &both.to_le_bytes())
    }

    /// Passes what matches. What does not is an error, or is counted, as `checksum=` says.
    pub fn judge(&self, matches: bool, rule: Rule, place: Place) -> Result<()> {
        if matches || planted("checksum") {
            return Ok(());
        }
        match self.policy {
            Checksum::Strict => Err(Error::Checksum(Corruption { rule, place })),
            Checksum::Warn => {
                self.ledger.passed(Corruption { rule, place });
                Ok(())
            }
            Checksum::Ignore => Ok(()),
        }
    }

    /// Whether what has a wrong checksum is used all the same, and each use is counted.
    pub fn counts_uses(&self) -> bool {
        self.policy == Checksum::Warn
    }

    /// How many wrong checksums were let pass.
    pub fn failures(&self) -> u64 {
        self.ledger.toll().passed
    }

    /// The damage that was met on this file system.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

/// crc32c as ext4 continues it: neither the seed nor the result is inverted.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    !::crc32c::crc32c_append(!seed, bytes)
}

/// CRC-16/ARC, polynomial 0x8005 reflected, not inverted.
pub fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0xa001 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_values_come_out() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }

    #[test]
    fn a_checksum_goes_on_where_it_stopped() {
        assert_eq!(crc32c(crc32c(7, b"1234"), b"56789"), crc32c(7, b"123456789"));
        assert_eq!(crc16(crc16(7, b"1234"), b"56789"), crc16(7, b"123456789"));
    }
}
