//! What a file system that can be read should not be trusted with: the worker finds it, the broker says it.

use bitflags::bitflags;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

bitflags! {
    /// Warnings about a file system that was opened. There are no others: a bit without a name is not kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Warnings: u8 {
        /// Its guard against a second mount (mmp) says that it is mounted or being checked.
        const IN_USE = 0x1;
        /// That guard cannot be read, or is damaged.
        const GUARD_DAMAGED = 0x2;
        /// Bits of `s_feature_ro_compat` that are not understood: those outside of
        /// [`RoCompat::UNDERSTOOD`](crate::feature::RoCompat::UNDERSTOOD).
        const FEATURES = 0x4;
        /// Errors were found by somebody and not repaired.
        const ERRORS = 0x8;
        /// It was not unmounted, and has no journal that would have kept it whole.
        const NOT_CLEAN = 0x10;
        /// Wrong checksums were let pass while it was opened.
        const CHECKSUMS = 0x20;
        /// Names in directories that fold case are encoded in a way that is not known (casefold).
        const ENCODING = 0x40;
        /// Its journal lies on another device, and nothing says that it would be needed.
        const JOURNAL_ELSEWHERE = 0x80;
    }
}

impl Serialize for Warnings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bits().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Warnings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(Self::from_bits_truncate)
    }
}
