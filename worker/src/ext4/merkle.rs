//! Merkle trees: hashes of a file's blocks, hashes of the blocks of those hashes, and so on up to one root.
//!
//! The format is fs-verity's (kernel's `Documentation/filesystems/fsverity.rst`). A block is hashed behind a salt that is
//! filled up to a block of the hash function. The levels lie one behind the other, the highest first. What always holds
//! here: a level is checked against the one above it before a hash is taken from it, and there are at most eight. On the
//! way of a read this comes last, between the device and whoever asked.

use lazaret_policy::corruption::{Corruption, Place, Rule};
use sha2::{Digest as _, Sha256, Sha512};

use super::units::{u64_from, usize_from};
use crate::error::{Error, Result};

/// The most levels of hashes, as in the kernel.
const MOST_LEVELS: usize = 8;

/// A hash; a shorter one is followed by zeros.
pub(super) type Hash = [u8; 64];

/// The hash function of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// By its number in the descriptor.
    pub(super) fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// The logarithm of a hash's length in bytes to base 2.
    fn bits(self) -> u32 {
        match self {
            Self::Sha256 => 5,
            Self::Sha512 => 6,
        }
    }

    /// The hash of a block behind a salt.
    fn hash(self, salt: &[u8], block: &[u8]) -> Hash {
        let filled = |length: usize| salt.iter().chain(&[0; 128]).copied().take(length);
        let mut hash = [0; 64];
        match self {
            Self::Sha256 => {
                let salt: Vec<u8> = filled(if salt.is_empty() { 0 } else { 64 }).collect();
                let digest = Sha256::new().chain_update(salt).chain_update(block).finalize();
                hash.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
            }
            Self::Sha512 => {
                let salt: Vec<u8> = filled(if salt.is_empty() { 0 } else { 128 }).collect();
                hash = Sha512::new().chain_update(salt).chain_update(block).finalize().into();
            }
        }
        hash
    }
}

/// What a tree is made of.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) algorithm: Algorithm,
    /// At most 32 bytes.
    pub(super) salt: Vec<u8>,
    /// The logarithm of a block's length to base 2: 10 to 16.
    pub(super) block_bits: u32,
    pub(super) root: Hash,
    /// How many blocks of hashes each level has, the lowest first. None where the root is the hash of the only block.
    levels: Vec<u64>,
}

impl Tree {
    /// The tree over so many bytes; none if it took more levels than there may be.
    pub(super) fn over(size: u64, algorithm: Algorithm, salt: &[u8], block_bits: u32, root: Hash) -> Option<Self> {
        let per_block = block_bits.checked_sub(algorithm.bits())?;
        let mut blocks = size.div_ceil(1u64.checked_shl(block_bits)?);
        let mut levels = Vec::new();
        while blocks > 1 {
            blocks = blocks.div_ceil(1u64.checked_shl(per_block)?);
            levels.push(blocks);
            if levels.len() > MOST_LEVELS {
                return None;
            }
        }
        Some(Self { algorithm, salt: salt.to_vec(), block_bits, root, levels })
    }

    /// Bytes of a block, of data and of hashes.
    pub(super) fn block_length(&self) -> usize {
        usize_from(1u32.wrapping_shl(self.block_bits))
    }

    /// Bytes of the whole tree.
    pub(super) fn length(&self) -> u64 {
        let blocks = self.levels.iter().fold(0u64, |sum, &level| sum.saturating_add(level));
        blocks.saturating_mul(u64_from(self.block_length()))
    }

    /// How many hashes a block holds, as the logarithm to base 2.
    fn per_block(&self) -> u32 {
        self.block_bits.saturating_sub(self.algorithm.bits())
    }

    /// Where a level begins, counted in blocks of the tree: behind all that are above it.
    fn start(&self, level: usize) -> u64 {
        self.levels.iter().skip(level.saturating_add(1)).fold(0u64, |sum, &above| sum.saturating_add(above))
    }
}

/// The way from the root to the block that was checked last: whoever goes on behind it reads few blocks of hashes anew.
pub(super) struct Walk<'a> {
    inode: u32,
    tree: &'a Tree,
    /// Of each level, the lowest first, the block that was checked last and its number within the level.
    path: Vec<Option<(u64, Vec<u8>)>>,
}

impl<'a> Walk<'a> {
    /// `inode` is only named where something is wrong.
    pub(super) fn new(tree: &'a Tree, inode: u32) -> Self {
        Self { inode, tree, path: vec![None; tree.levels.len()] }
    }

    /// Checks a block of data, filled up with zeros; `read` gives blocks of the tree by their number.
    pub(super) fn check(
        &mut self,
        index: u64,
        data: &[u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut expected = self.tree.root;
        let per_block = self.tree.per_block();
        // From the highest level downwards; each gives the hash that the next must have.
        for (level, kept) in self.path.iter_mut().enumerate().rev() {
            let hash = shifted(index, per_block, level);
            let number = hash.wrapping_shr(per_block);
            if kept.as_ref().is_none_or(|(kept, _)| *kept != number) {
                let block = self.tree.start(level).saturating_add(number);
                let mut bytes = vec![0; self.tree.block_length()];
                read(block, &mut bytes)?;
                compare(self.tree, &bytes, &expected, Place::Merkle { inode: self.inode, block })?;
                *kept = Some((number, bytes));
            }
            let bytes = kept.as_ref().map_or(&[][..], |(_, bytes)| bytes);
            expected = nth(bytes, hash & 1u64.wrapping_shl(per_block).wrapping_sub(1), self.tree.algorithm);
        }
        compare(self.tree, data, &expected, Place::Data { inode: self.inode, block: index })
    }
}

/// Which hash of a level a block of data lies beneath.
fn shifted(index: u64, per_block: u32, level: usize) -> u64 {
    let bits = u32::try_from(level).unwrap_or(u32::MAX).saturating_mul(per_block);
    index.checked_shr(bits).unwrap_or(0)
}

fn nth(block: &[u8], index: u64, algorithm: Algorithm) -> Hash {
    let length = 1usize.wrapping_shl(algorithm.bits());
    let found = usize::try_from(index).ok().and_then(|index| block.chunks_exact(length).nth(index));
    let mut hash = [0; 64];
    hash.iter_mut().zip(found.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    hash
}

fn compare(tree: &Tree, block: &[u8], expected: &Hash, place: Place) -> Result<()> {
    if tree.algorithm.hash(&tree.salt, block) == *expected {
        return Ok(());
    }
    Err(Error::Checksum(Corruption { rule: Rule::VerityHash, place }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_is_filled_up_to_a_block_of_the_hash_function() {
        let salted = [&b"salt"[..], &[0; 60], b"data"].concat();
        assert_eq!(Algorithm::Sha256.hash(b"salt", b"data"), Algorithm::Sha256.hash(b"", &salted));
        let salted = [&b"salt"[..], &[0; 124], b"data"].concat();
        assert_eq!(Algorithm::Sha512.hash(b"salt", b"data"), Algorithm::Sha512.hash(b"", &salted));
        assert_eq!(Algorithm::Sha256.hash(b"", b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(Algorithm::Sha512.hash(b"", b"abc")[..4], [0xdd, 0xaf, 0x35, 0xa1]);
        assert_eq!(Algorithm::of(3), None);
    }

    #[test]
    fn levels_lie_one_behind_the_other_the_highest_first() {
        let tree = |size, algorithm, bits| Tree::over(size, algorithm, b"", bits, [0; 64]);
        assert!(tree(4096, Algorithm::Sha256, 12).unwrap().levels.is_empty());
        assert_eq!(tree(4097, Algorithm::Sha256, 12).unwrap().levels, [1]);
        let large = tree((128 * 128 + 1) << 12, Algorithm::Sha256, 12).unwrap();
        assert_eq!(large.levels, [129, 2, 1]);
        assert_eq!([0, 1, 2].map(|level| large.start(level)), [3, 1, 0]);
        assert_eq!(large.length(), 132 << 12);
        assert!(tree(u64::MAX, Algorithm::Sha512, 10).is_none());
        assert!(tree(1 << 48, Algorithm::Sha256, 16).is_some());
    }
}
