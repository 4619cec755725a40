//! Makes every checksum of an image right again, as far as its place can still be found.

use lazaret_worker::ext4::checksum::{crc16, crc32c};

use super::bytes::{be32, put, u16, u32};
use super::layout::{Kind, Layout, Piece};

const SUPERBLOCK: usize = 1024;
const UUID: usize = SUPERBLOCK + 0x68;

/// Seals all pieces.
pub(crate) fn seal(bytes: &mut [u8], layout: &Layout) {
    seal_those(bytes, layout, &layout.pieces);
}

/// Seals the pieces that are wanted: those first that others do not depend on. Whoever wants a bitmap wants its group.
pub(crate) fn seal_those(bytes: &mut [u8], layout: &Layout, wanted: &[Piece]) {
    let seed = if u32(bytes, SUPERBLOCK + 0x60) & 0x2000 != 0 {
        u32(bytes, SUPERBLOCK + 0x270)
    } else {
        crc32c(!0, &bytes[UUID..UUID + 16])
    };
    log(bytes, layout, wanted);
    let ro_compat = u32(bytes, SUPERBLOCK + 0x64);
    if ro_compat & 0x400 == 0 {
        if ro_compat & 0x10 != 0 {
            let groups = wanted.iter().filter(|piece| piece.kind == Kind::Group);
            groups.for_each(|piece| old_group(bytes, *piece));
        }
        return;
    }
    for piece in wanted {
        match piece.kind {
            Kind::ExtentNode => node(bytes, *piece, inode_seed(bytes, layout, seed, piece.owner)),
            Kind::Directory => directory(bytes, *piece, layout, inode_seed(bytes, layout, seed, piece.owner)),
            Kind::Attributes => attributes(bytes, *piece, layout, seed),
            Kind::Guard => word(bytes, *piece, 0x3fc, seed),
            _ => {}
        }
    }
    for piece in wanted {
        match piece.kind {
            Kind::Inode => inode(bytes, *piece, inode_seed(bytes, layout, seed, piece.owner)),
            Kind::BlockBitmap => bitmap(bytes, *piece, layout, seed, [0x18, 0x38]),
            Kind::InodeBitmap => bitmap(bytes, *piece, layout, seed, [0x1a, 0x3a]),
            _ => {}
        }
    }
    for piece in wanted.iter().filter(|piece| piece.kind == Kind::Group) {
        put(bytes, piece.at + 0x1e, &[0; 2]);
        let sum = crc32c(crc32c(seed, &piece.owner.to_le_bytes()), of(bytes, *piece));
        put(bytes, piece.at + 0x1e, &sum.to_le_bytes()[..2]);
    }
    if let Some(superblock) = wanted.iter().find(|piece| piece.kind == Kind::Superblock) {
        word(bytes, *superblock, 0x3fc, !0);
    }
}

fn of(bytes: &[u8], piece: Piece) -> &[u8] {
    &bytes[piece.at..piece.at + piece.length]
}

/// A checksum at this place, over what lies before it.
fn word(bytes: &mut [u8], piece: Piece, field: usize, seed: u32) {
    let sum = crc32c(seed, &bytes[piece.at..piece.at + field]);
    put(bytes, piece.at + field, &sum.to_le_bytes());
}

fn old_group(bytes: &mut [u8], piece: Piece) {
    let seed = crc16(crc16(!0, &bytes[UUID..UUID + 16]), &piece.owner.to_le_bytes());
    let descriptor = of(bytes, piece);
    let sum = crc16(crc16(seed, &descriptor[..0x1e]), &descriptor[0x20..]);
    put(bytes, piece.at + 0x1e, &sum.to_le_bytes());
}

fn inode_seed(bytes: &[u8], layout: &Layout, seed: u32, number: u32) -> u32 {
    let inode = layout.pieces.iter().find(|piece| piece.kind == Kind::Inode && piece.owner == number);
    let generation = inode.map_or(0, |piece| u32(bytes, piece.at + 0x64));
    crc32c(crc32c(seed, &number.to_le_bytes()), &generation.to_le_bytes())
}

fn inode(bytes: &mut [u8], piece: Piece, seed: u32) {
    let wide = piece.length > 128 && u16(bytes, piece.at + 0x80) >= 4;
    put(bytes, piece.at + 0x7c, &[0; 2]);
    if wide {
        put(bytes, piece.at + 0x82, &[0; 2]);
    }
    let sum = crc32c(seed, of(bytes, piece)).to_le_bytes();
    put(bytes, piece.at + 0x7c, &sum[..2]);
    if wide {
        put(bytes, piece.at + 0x82, &sum[2..]);
    }
}

fn node(bytes: &mut [u8], piece: Piece, seed: u32) {
    let field = 12 + 12 * usize::from(u16(bytes, piece.at + 4));
    if field + 4 <= piece.length {
        word(bytes, piece, field, seed);
    }
}

fn directory(bytes: &mut [u8], piece: Piece, layout: &Layout, seed: u32) {
    let (at, size) = (piece.at, piece.length);
    let owner = layout.pieces.iter().find(|other| other.kind == Kind::Inode && other.owner == piece.owner);
    let indexed = owner.is_some_and(|inode| u32(bytes, inode.at + 0x20) & 0x1000 != 0);
    let begin = match u16(bytes, at + 4) {
        12 if indexed && usize::from(u16(bytes, at + 16)) == size - 12 => 32,
        length if indexed && usize::from(length) == size => 8,
        _ => 0,
    };
    if begin == 0 {
        let sum = crc32c(seed, &bytes[at..at + size - 12]);
        return put(bytes, at + size - 4, &sum.to_le_bytes());
    }
    let (limit, count) = (usize::from(u16(bytes, at + begin)), usize::from(u16(bytes, at + begin + 2)));
    let tail = begin + limit * 8;
    if count <= limit && tail + 8 <= size {
        let sum = crc32c(seed, &bytes[at..at + begin + count * 8]);
        let sum = crc32c(crc32c(sum, &bytes[at + tail..at + tail + 4]), &[0; 4]);
        put(bytes, at + tail + 4, &sum.to_le_bytes());
    }
}

fn attributes(bytes: &mut [u8], piece: Piece, layout: &Layout, seed: u32) {
    put(bytes, piece.at + 0x10, &[0; 4]);
    let number = (piece.at / layout.block) as u64;
    let sum = crc32c(crc32c(seed, &number.to_le_bytes()), of(bytes, piece));
    put(bytes, piece.at + 0x10, &sum.to_le_bytes());
}

/// The checksum of a bitmap stands in the descriptor, in two halves.
fn bitmap(bytes: &mut [u8], piece: Piece, layout: &Layout, seed: u32, [low, high]: [usize; 2]) {
    let Some(group) = layout.pieces.iter().find(|other| other.kind == Kind::Group && other.owner == piece.owner) else {
        return;
    };
    let bits = u32(bytes, SUPERBLOCK + if piece.kind == Kind::InodeBitmap { 0x28 } else { 0x24 }) as usize;
    let sum = crc32c(seed, &of(bytes, piece)[..(bits / 8).min(piece.length)]).to_le_bytes();
    put(bytes, group.at + low, &sum[..2]);
    if group.length >= 64 {
        put(bytes, group.at + high, &sum[2..]);
    }
}

/// The journal: its superblock, the ends of its own blocks, and of fast commits the last tail that is found. The
/// checksums of blocks of data stand in tags, and stay: data is not what is changed there.
fn log(bytes: &mut [u8], layout: &Layout, wanted: &[Piece]) {
    let Some(&superblock) = layout.journal.first() else { return };
    let seed = crc32c(!0, &bytes[superblock + 0x30..superblock + 0x40]);
    for piece in wanted {
        let checksum = match piece.kind {
            Kind::JournalSuperblock => 0xfc,
            Kind::Log if be32(bytes, piece.at + 4) == 2 => 0x10,
            Kind::Log => piece.length - 4,
            Kind::FastCommit => {
                fast_commit(bytes, *piece);
                continue;
            }
            _ => continue,
        };
        let seed = if piece.kind == Kind::JournalSuperblock { !0 } else { seed };
        if be32(bytes, superblock + 0x28) & 0x18 == 0 {
            continue;
        }
        put(bytes, piece.at + checksum, &[0; 4]);
        let sum = crc32c(seed, of(bytes, *piece));
        put(bytes, piece.at + checksum, &sum.to_be_bytes());
    }
}

fn fast_commit(bytes: &mut [u8], piece: Piece) {
    let (mut at, mut sum) = (0, 0);
    while at + 4 <= piece.length {
        let (tag, length) = (u16(bytes, piece.at + at), usize::from(u16(bytes, piece.at + at + 2)));
        let end = at + 4 + length;
        if end > piece.length {
            return;
        }
        if tag == 8 && length >= 8 {
            sum = crc32c(sum, &bytes[piece.at + at..piece.at + at + 8]);
            put(bytes, piece.at + at + 8, &sum.to_le_bytes());
            sum = 0;
        } else {
            sum = crc32c(sum, &bytes[piece.at + at..piece.at + end]);
        }
        at = end;
    }
}
