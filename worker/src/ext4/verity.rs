//! Files with a Merkle tree (fs-verity): where the tree lies, and reading with every block checked against it.
//!
//! The tree begins behind the end of the file at the next multiple of 64 KiB, whatever the block size; behind it lies the
//! descriptor, and the last four bytes of the file's last block are the descriptor's length (kernel's
//! `Documentation/filesystems/ext4/verity.rst` and `fs/ext4/verity.c`'s layout). `i_size` is that of the data alone.
//!
//! What always holds with `verity=verify`: a byte that is given was copied once, and lies in a block whose hash, by way of
//! the tree, is the root hash of the descriptor. A block that does not match answers EBADMSG, as any checksum does: the
//! medium gave it, but it is not what was sealed. The kernel says EIO there. The signature in a descriptor is **not**
//! checked: this tells damage from soundness, and nothing about who sealed the file.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::message::Verity;
use zerocopy::{FromBytes, IntoBytes};

use super::Filesystem;
use super::extent;
use super::format;
use super::inode::{FileKind, Inode, InodeFlags};
use super::merkle::{Algorithm, Tree, Walk};
use super::units::u64_from;
use crate::error::{Error, Result};

/// The tree begins at a multiple of it. Bytes.
const ALIGNMENT: u64 = 1 << 16;
/// The longest descriptor, with its signature, as in the kernel. Bytes.
const LONGEST: u32 = 1 << 14;

impl Filesystem {
    /// Whether what is read of a file is checked against its Merkle tree, and so cannot be lent but has to be read.
    pub fn is_sealed(&self, inode: &Inode) -> bool {
        self.settings.verity == Verity::Verify
            && inode.kind == FileKind::Regular
            && inode.flags.contains(InodeFlags::VERITY)
    }
}

/// Fills `out` with bytes of a file from `offset` on, all of them within its size.
///
/// # Errors
/// A block that does not match: [`Error::Checksum`]. No tree, or none that can be: [`Error::Corrupt`].
pub(super) fn read(fs: &Filesystem, inode: &Inode, offset: u64, out: &mut [u8]) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let (tree, begin) = locate(fs, inode)?;
    let mut walk = Walk::new(&tree, inode.number.value());
    let length = u64_from(tree.block_length());
    let mut block = vec![0; tree.block_length()];
    let (mut at, mut rest) = (offset, out);
    while !rest.is_empty() {
        let index = at.wrapping_shr(tree.block_bits);
        let start = index.saturating_mul(length);
        // The last block is hashed with zeros behind the end, whatever lies there.
        let inside = usize::try_from(inode.size.saturating_sub(start).min(length)).unwrap_or(0);
        block.fill(0);
        fs.fill(inode, start, block.get_mut(..inside).unwrap_or_default())?;
        walk.check(index, &block, |number, bytes| {
            fs.fill(inode, begin.saturating_add(number.saturating_mul(length)), bytes)
        })?;

        let skipped = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        let found = block.get(skipped..inside).filter(|found| !found.is_empty()).ok_or(Error::Invalid)?;
        let (part, behind) = rest.split_at_mut(found.len().min(rest.len()));
        part.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
        at = at.saturating_add(u64_from(part.len()));
        rest = behind;
    }
    Ok(())
}

/// The tree of a file, and the byte of the file at which it begins.
fn locate(fs: &Filesystem, inode: &Inode) -> Result<(Tree, u64)> {
    let broken = |rule| Error::corrupt(rule, Place::Inode(inode.number.value()));
    if !inode.flags.contains(InodeFlags::EXTENTS) {
        return Err(broken(Rule::VerityPlace));
    }
    let size = fs.superblock().block_size;
    let begin = inode.size.checked_next_multiple_of(ALIGNMENT).ok_or(broken(Rule::VerityPlace))?;
    let end = size.bytes_of(extent::end(fs, inode)?).ok_or(broken(Rule::VerityPlace))?;

    let mut length = [0; 4];
    let length_at = end.checked_sub(4).ok_or(broken(Rule::VerityPlace))?;
    fs.fill(inode, length_at, &mut length)?;
    let length = Some(u32::from_le_bytes(length)).filter(|&length| length <= LONGEST);
    let descriptor_at = length.and_then(|length| length_at.checked_sub(length.into()));
    let descriptor_at = descriptor_at.map(|at| at.saturating_sub(size.within_block(super::FileOffset(at)).into()));
    let descriptor_at = descriptor_at.filter(|&at| at >= begin).ok_or(broken(Rule::VerityPlace))?;

    let mut raw = format::VerityDescriptor::read_from_bytes(&[0; 256]).map_err(|_| broken(Rule::VerityDescriptor))?;
    if length.is_none_or(|length| u64::from(length) < u64_from(size_of_val(&raw))) {
        return Err(broken(Rule::VerityDescriptor));
    }
    fs.fill(inode, descriptor_at, raw.as_mut_bytes())?;
    let tree = check(&raw, inode)?;
    if begin.saturating_add(tree.length()) > descriptor_at {
        return Err(broken(Rule::VerityPlace));
    }
    Ok((tree, begin))
}

fn check(raw: &format::VerityDescriptor, inode: &Inode) -> Result<Tree> {
    let broken = |rule| Error::corrupt(rule, Place::Inode(inode.number.value()));
    let algorithm = Algorithm::of(raw.hash_algorithm).ok_or(Error::Unsupported("this hash of a Merkle tree"))?;
    let sound = raw.version == 1 && (10..=16).contains(&raw.log_blocksize) && raw.reserved == [0; 144];
    let salt = raw.salt.get(..raw.salt_size.into()).filter(|_| sound).ok_or(broken(Rule::VerityDescriptor))?;
    if raw.data_size.get() != inode.size {
        return Err(broken(Rule::VeritySize));
    }
    let tree = Tree::over(inode.size, algorithm, salt, raw.log_blocksize.into(), root(raw, algorithm));
    tree.ok_or(broken(Rule::VerityDescriptor))
}

/// What lies behind a shorter hash is nobody's.
fn root(raw: &format::VerityDescriptor, algorithm: Algorithm) -> [u8; 64] {
    let mut root = raw.root_hash;
    if let (Algorithm::Sha256, Some(rest)) = (algorithm, root.get_mut(32..)) {
        rest.fill(0);
    }
    root
}
