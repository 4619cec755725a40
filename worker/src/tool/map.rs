//! How a file lies on the device, as far as one answer goes: `lazaret map`.

use std::ops::ControlFlow;

use lazaret_policy::message::{Answer, Mapped, MappedKind};

use crate::error::{Error, Result};
use crate::ext4::{FileKind, FileOffset, Filesystem, Inode, Mapping, MappingKind};

/// Pieces of a file from this byte on. Space behind the end of the file is told, too; a hole there is not.
pub(super) fn map(filesystem: &Filesystem, inode: &Inode, offset: u64) -> Result<Answer> {
    if inode.kind != FileKind::Regular {
        return Err(Error::Invalid);
    }
    let longest = filesystem.longest(inode);
    let (mut pieces, mut next, mut broken) = (Vec::new(), None, None);
    let told = filesystem.mappings(inode, FileOffset(offset), longest, &mut |mapping| {
        let end = mapping.offset.0.saturating_add(mapping.length);
        match piece(filesystem, inode, &mapping) {
            Ok(piece) => pieces.extend(piece),
            Err(error) => broken = Some(error),
        }
        next = (end < longest).then_some(end);
        if broken.is_none() && pieces.len() < Mapped::MOST_AT_ONCE {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    match told.err().or(broken) {
        // There was much to look at before this.
        Some(Error::Budget) if next.is_some_and(|next| next > offset) => Ok(Answer::Mapped { pieces, next }),
        // Those before are told first; whoever goes on after them gets the error.
        Some(error) if pieces.is_empty() => Err(error),
        _ => Ok(Answer::Mapped { pieces, next }),
    }
}

/// A mapping as a piece; none for a hole behind the end of the file.
fn piece(filesystem: &Filesystem, inode: &Inode, mapping: &Mapping) -> Result<Option<Mapped>> {
    let offset = mapping.offset.0;
    let left = inode.size.saturating_sub(offset);
    let (kind, length) = match mapping.kind {
        MappingKind::Data(start) => (MappedKind::Data(start.0), mapping.length),
        MappingKind::Unwritten(start) => (MappedKind::Unwritten(start.0), mapping.length),
        MappingKind::Hole => (MappedKind::Hole, mapping.length.min(filesystem.whole_blocks(left))),
        MappingKind::Inline => {
            let start = filesystem.inline_place(inode)?.0.saturating_add(offset);
            (MappedKind::Inline(start), mapping.length.min(left))
        }
    };
    Ok((length > 0).then_some(Mapped { offset, length, kind }))
}
