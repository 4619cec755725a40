//! What a worker tells of the damage that it meets while it serves a mount: numbers, few, and fewer the more there is.
//!
//! What holds here: a kind of damage is told when it is met for the first time, the second, the fourth, and so on, and
//! no mount brings more than [`Met::MOST`] reports, whatever lies on it: as many as the channel holds without a reader,
//! so that a worker never waits for a broker that is slow. The end of a mount brings the whole [`Toll`].

use crate::corruption::Corruption;
use serde::{Deserialize, Serialize};

/// Damage, and how often damage of its kind was met so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// What was met now.
    pub damage: Damage,
    /// How often what breaks the same rule was met: a power of two.
    pub count: u64,
}

impl Met {
    /// The most reports of one mount.
    pub const MOST: u32 = 128;
}

/// One thing that is not as it should be, and what became of who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// A rule is broken, and the answer was EUCLEAN.
    Broken(Corruption),
    /// A checksum is wrong, and the answer was EBADMSG.
    Checksum(Corruption),
    /// A checksum is wrong, and what it is about was used: `checksum=warn`.
    Passed(Corruption),
    /// The device could not be read at this byte, and the answer was EIO.
    Device {
        /// The byte.
        offset: u64,
    },
}

/// How often damage was met in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toll {
    /// [`Damage::Broken`].
    pub broken: u64,
    /// [`Damage::Checksum`].
    pub checksums: u64,
    /// [`Damage::Passed`].
    pub passed: u64,
    /// [`Damage::Device`].
    pub device: u64,
}

impl Toll {
    /// The count that a kind of damage belongs to.
    pub fn of(&mut self, damage: &Damage) -> &mut u64 {
        match damage {
            Damage::Broken(_) => &mut self.broken,
            Damage::Checksum(_) => &mut self.checksums,
            Damage::Passed(_) => &mut self.passed,
            Damage::Device { .. } => &mut self.device,
        }
    }
}
