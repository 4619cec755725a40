//! Mutated images: a sound one, in which fields of the format are changed as somebody would who knows it.
//!
//! The same number gives the same image, whatever was asked for before. Every second one has all its checksums made
//! right again ([`seal`]), so that what lies behind them is reached; the others try the checksums.
//!
//! - [`seeds`]: the sound images, of many shapes.
//! - [`layout`]: where the structures of an image lie.
//! - [`damage`]: what is done to them.
//! - [`sealed`]: files with Merkle trees.

pub(crate) mod bytes;
pub(crate) mod damage;
pub(crate) mod layout;
pub mod random;
pub(crate) mod seal;
pub(crate) mod sealed;
pub mod seeds;

use self::random::Random;
use self::seeds::Seed;

/// A mutated image.
pub struct Mutant {
    /// The image it was made of.
    pub seed: &'static str,
    /// Whether the checksums were made right again.
    pub sealed: bool,
    /// The image.
    pub bytes: Vec<u8>,
}

/// The mutant of this number.
pub fn mutant(seeds: &[Seed], number: u64) -> Mutant {
    let mut random = Random::new(number);
    let seed = &seeds[random.below(seeds.len())];
    let mut bytes = seed.bytes.clone();
    // Most have one or two changes: with many, nothing but the first is reached.
    let changes = [1, 1, 1, 2, 2, 3, 4, 8][random.below(8)];
    for _ in 0..changes {
        damage::damage(&mut bytes, &seed.layout, &mut random);
    }
    let sealed = number.is_multiple_of(2);
    if sealed {
        seal::seal(&mut bytes, &seed.layout);
    }
    Mutant { seed: seed.name, sealed, bytes }
}
