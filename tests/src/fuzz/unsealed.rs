//! Structures that do not match their checksums, and so are never to be shown where checksums count.

use std::ops::{ControlFlow, Range};

use lazaret_worker::ext4::{FileOffset, Filesystem, InodeNumber};

use super::scratch::{Changes, Seals};
use super::stock::Sound;
use crate::mutate::layout::{Kind, Piece};

/// Where `i_extra_isize` stands.
const EXTRA_SIZE: usize = 0x80;
/// Pieces of a file whose map is looked for.
const MOST_PIECES: usize = 64;

/// Those of a window's pieces that would be others with their checksums right, and that nothing else which was changed may
/// keep from being looked at.
pub(super) fn unsealed(
    sound: &Sound,
    pieces: &[(Piece, Range<usize>)],
    seals: &Seals,
    changes: &mut Changes<'_>,
) -> Vec<Piece> {
    let counted =
        |piece: &Piece| matches!(piece.kind, Kind::Inode | Kind::ExtentNode | Kind::Directory | Kind::Attributes);
    if !pieces.iter().any(|(piece, _)| counted(piece)) {
        return Vec::new();
    }
    let of = |piece: &Piece| &sound.bytes[piece.at..piece.at + piece.length];
    let before: Vec<Vec<u8>> = pieces.iter().map(|(piece, _)| changes.look(*piece).to_vec()).collect();
    let changed: Vec<&Piece> = pieces
        .iter()
        .zip(&before)
        .filter(|((piece, _), before)| of(piece) != &before[..])
        .map(|((piece, _), _)| piece)
        .collect();
    let alone = |piece: &Piece| changed.iter().all(|other| other.owner != piece.owner || other.at == piece.at);
    changes.seal_after(seals);
    let mut unsealed = Vec::new();
    for ((piece, _), before) in pieces.iter().zip(&before) {
        // With a shorter tail there are but 16 bits of checksum, which a fuzzer hits now and then: such are left out.
        let whole = before.get(EXTRA_SIZE..EXTRA_SIZE + 2) == of(piece).get(EXTRA_SIZE..EXTRA_SIZE + 2);
        let counts = if piece.kind == Kind::Inode { whole } else { alone(piece) };
        if counted(piece) && counts && changes.look(*piece) != before {
            unsealed.push(*piece);
        }
        changes.piece(*piece).copy_from_slice(before);
    }
    unsealed
}

/// Whether whoever asks for what the piece is of gets an error.
pub(super) fn is_refused(fs: &Filesystem, piece: &Piece) -> bool {
    let Some(number) = InodeNumber::new(piece.owner) else { return true };
    let Ok(inode) = fs.inode(number) else { return true };
    match piece.kind {
        Kind::Directory => fs.read_dir(&inode, 0, &mut |_| ControlFlow::Continue(())).is_err(),
        Kind::Attributes => fs.xattrs(&inode, &mut |_| ControlFlow::Continue(())).is_err(),
        Kind::ExtentNode => {
            let mut at = 0;
            for _ in 0..MOST_PIECES {
                match fs.map(&inode, FileOffset(at), inode.size.saturating_sub(at)) {
                    Ok(mapping) if mapping.length > 0 => at += mapping.length,
                    Ok(_) => return false,
                    Err(_) => return true,
                }
            }
            true
        }
        _ => false,
    }
}
