//! What a READ is answered with.
//!
//! What holds here: file data in one piece goes from the mapping to /dev/fuse.

use super::frontend::{answered, errno};
use crate::error::Error;
use crate::ext4::{FileKind, FileOffset, Filesystem, Inode, MappingKind};
use fuser::ReplyData;

/// Bytes of a file. One piece of data is lent to the reply where it lies; anything else is put together first.
pub(super) fn send(filesystem: &Filesystem, inode: &Inode, offset: u64, size: u32, reply: ReplyData) {
    if inode.kind != FileKind::Regular {
        return reply.error(errno(&Error::Invalid));
    }
    let length = u64::from(size).min(inode.size.saturating_sub(offset));
    if length == 0 {
        return reply.data(&[]);
    }
    if filesystem.is_sealed(inode) {
        return assemble(filesystem, inode, offset, length, reply);
    }
    match filesystem.map(inode, FileOffset(offset), length) {
        Ok(mapping) if mapping.length == length => match mapping.kind {
            MappingKind::Data(place) => lend(filesystem, place.0, length, reply),
            _ => assemble(filesystem, inode, offset, length, reply),
        },
        Ok(_) => assemble(filesystem, inode, offset, length, reply),
        Err(error) => reply.error(answered(filesystem, &error)),
    }
}

fn lend(filesystem: &Filesystem, place: u64, length: u64, reply: ReplyData) {
    let mut waiting = Some(reply);
    let lent = filesystem.device().lend(place, length, |bytes| {
        if let Some(reply) = waiting.take() {
            reply.data(bytes);
        }
    });
    if let (Err(error), Some(reply)) = (lent, waiting) {
        reply.error(answered(filesystem, &error));
    }
}

fn assemble(filesystem: &Filesystem, inode: &Inode, offset: u64, length: u64, reply: ReplyData) {
    let mut bytes = Vec::new();
    let Some(length) = usize::try_from(length).ok().filter(|&length| bytes.try_reserve_exact(length).is_ok()) else {
        return reply.error(errno(&Error::OutOfMemory));
    };
    bytes.resize(length, 0);
    match filesystem.read(inode, offset, &mut bytes) {
        Ok(count) => reply.data(bytes.get(..count).unwrap_or_default()),
        Err(error) => reply.error(answered(filesystem, &error)),
    }
}
