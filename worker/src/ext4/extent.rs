//! Extent trees. (body follows)
use super::Filesystem;
use super::inode::Inode;
use super::map::{Run, RunKind};
use super::units::LogicalBlock;
use crate::error::Result;

pub(super) fn find(_fs: &Filesystem, _inode: &Inode, _block: LogicalBlock) -> Result<Run> {
    Ok(Run { blocks: 1, kind: RunKind::Hole })
}
