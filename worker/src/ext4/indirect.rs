//! Indirect maps. (body follows)
use super::Filesystem;
use super::inode::Inode;
use super::map::{Run, RunKind};
use super::units::{BlockSize, LogicalBlock};
use crate::error::Result;

/// Blocks that a map reaches.
pub(super) fn reach(size: BlockSize) -> u64 {
    let pointers = u64::from(size.bytes() >> 2);
    let double = pointers.saturating_mul(pointers);
    double.saturating_mul(pointers).saturating_add(double).saturating_add(pointers).saturating_add(12)
}

pub(super) fn find(_fs: &Filesystem, _inode: &Inode, _block: LogicalBlock, _wanted: u64) -> Result<Run> {
    Ok(Run { blocks: 1, kind: RunKind::Hole })
}
