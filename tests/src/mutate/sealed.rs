//! Files of fs-verity as FS_IOC_ENABLE_VERITY leaves them: the data, and from the next multiple of 64 KiB on a Merkle tree,
//! the highest level first, and a descriptor (kernel's `Documentation/filesystems/fsverity.rst`, `fs/ext4/verity.c`).
//!
//! Made without the reader's help. They are written as files that are as long as all of it; whoever has written them sets
//! the length to that of the data.

use sha2::{Digest, Sha256, Sha512};

/// Bytes of a block, of data and of hashes.
const BLOCK: usize = 1024;
const ALIGNMENT: usize = 1 << 16;
/// Bytes of a descriptor.
const DESCRIPTOR: usize = 256;

/// A hash function: its number, the length of its blocks, and itself.
#[derive(Clone, Copy)]
pub(crate) struct Function(u8, usize, fn(&[u8]) -> Vec<u8>);

pub(crate) const SHA256: Function = Function(1, 64, |bytes| Sha256::digest(bytes).to_vec());
pub(crate) const SHA512: Function = Function(2, 128, |bytes| Sha512::digest(bytes).to_vec());

/// The data with all that lies behind it.
pub(crate) fn file(data: &[u8], Function(number, room, hash): Function, salt: &[u8]) -> Vec<u8> {
    let mut before = salt.to_vec();
    before.resize(if salt.is_empty() { 0 } else { room }, 0);
    let hashes = |bytes: &[u8]| -> Vec<u8> {
        let whole = |block: &[u8]| [&before, block, &vec![0; BLOCK - block.len()]].concat();
        bytes.chunks(BLOCK).flat_map(|block| hash(&whole(block))).collect()
    };
    let (mut tree, mut level) = (Vec::new(), hashes(data));
    // What is one hash is the root.
    while level.len() > hash(&[]).len() {
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        tree = [level.clone(), tree].concat();
        level = hashes(&level);
    }
    let mut whole = data.to_vec();
    whole.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    whole.extend(tree);

    let mut descriptor = vec![1, number, BLOCK.ilog2() as u8, salt.len() as u8, 0, 0, 0, 0];
    descriptor.extend((data.len() as u64).to_le_bytes());
    descriptor.extend(level);
    descriptor.resize(0x50, 0);
    descriptor.extend(salt);
    descriptor.resize(BLOCK - 4, 0);
    descriptor.extend((DESCRIPTOR as u32).to_le_bytes());
    whole.extend(descriptor);
    whole
}
