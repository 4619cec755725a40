//! One change of an image: a field becomes what somebody would try who knows the format.

use super::bytes::{put, u16, u32};
use super::layout::{Kind, Layout, Piece};
use super::random::Random;

/// Changes something, in one of the structures.
pub(super) fn damage(bytes: &mut [u8], layout: &Layout, random: &mut Random) {
    let piece = pick(layout, random);
    match random.below(32) {
        0..=21 => field(bytes, layout, piece, random),
        22..=24 => swap(bytes, piece, random),
        25..=27 => repeat(bytes, piece, random),
        28..=30 => another(bytes, layout, piece, random),
        _ => noise(bytes, pick(layout, random), random),
    }
}

/// Every kind comes as often as any other, however many there are of each.
fn pick(layout: &Layout, random: &mut Random) -> Piece {
    let kind = random.pick(&layout.by_kind);
    *random.pick(kind)
}

/// Where a field is, and how many bytes it has.
fn place(bytes: &[u8], piece: Piece, random: &mut Random) -> (usize, usize) {
    let (at, length) = (piece.at, piece.length);
    let width = *random.pick(&[1, 2, 4, 4]);
    let aligned = |random: &mut Random, from: usize, to: usize, width: usize| {
        (at + from + random.below((to - from) / width) * width, width)
    };
    match piece.kind {
        Kind::Superblock => match random.below(4) {
            0 => *random.pick(&[0x58, 0xce, 0xfe, 0x3e].map(|field| (at + field, 2))),
            1 => *random.pick(
                &[0x00, 0x04, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x5c, 0x60, 0x64, 0x104, 0x150]
                    .map(|field| (at + field, 4)),
            ),
            2 => *random.pick(&[0xe0, 0xfc, 0x174, 0x175, 0x27c].map(|field| (at + field, 1))),
            _ => aligned(random, 0, 0x280, 4),
        },
        Kind::Inode => match random.below(8) {
            0 => (at, 2),
            1 => *random.pick(&[0x04, 0x1c, 0x20, 0x68, 0x6c, 0x74].map(|field| (at + field, 4))),
            2 => *random.pick(&[0x1a, 0x80].map(|field| (at + field.min(length - 2), 2))),
            3 => aligned(random, 0x28, 0x28 + 12, 2),
            4 | 5 => aligned(random, 0x28, 0x64, 4),
            _ if length > 160 => aligned(random, 0x80, length, width),
            _ => aligned(random, 0, length, 4),
        },
        Kind::ExtentNode | Kind::Log | Kind::JournalSuperblock | Kind::FastCommit => {
            let end = if random.below(4) == 0 { length } else { 128 };
            aligned(random, 0, end, width.max(2))
        }
        Kind::Pointers => {
            let end = if random.below(2) == 0 { 64 } else { length };
            aligned(random, 0, end, 4)
        }
        Kind::Directory => record(bytes, piece, random),
        Kind::Attributes => match random.below(4) {
            0 => aligned(random, 0, 32, 4),
            1 => aligned(random, 32, 128, 1),
            _ => aligned(random, 32, 160, width.max(2)),
        },
        Kind::Group | Kind::Guard => aligned(random, 0, length.min(64), width.max(2)),
        Kind::BlockBitmap | Kind::InodeBitmap | Kind::Data => aligned(random, 0, length, width),
    }
}

/// A field of one of a directory's records, or of what describes a hash tree.
fn record(bytes: &[u8], piece: Piece, random: &mut Random) -> (usize, usize) {
    if random.below(3) == 0 {
        return *random.pick(&[24, 28, 29, 30, 31, 32, 34, 36, 40, 44, 8, 10, 12, 16, 20].map(|field| {
            (
                piece.at + field,
                if matches!(field, 28..=31) {
                    1
                } else if matches!(field, 32 | 34 | 8 | 10) {
                    2
                } else {
                    4
                },
            )
        }));
    }
    let (mut at, end) = (piece.at, piece.at + piece.length);
    for _ in 0..random.below(20) {
        let next = at + usize::from(u16(bytes, at + 4)).max(12);
        if next + 12 > end {
            break;
        }
        at = next;
    }
    *random.pick(&[(at, 4), (at + 4, 2), (at + 4, 2), (at + 6, 1), (at + 7, 1), (at + 8, 1), (at + 8, 4)])
}

/// A field gets a value that is wrong in a way of its own.
fn field(bytes: &mut [u8], layout: &Layout, piece: Piece, random: &mut Random) {
    let (at, width) = place(bytes, piece, random);
    let journal = matches!(piece.kind, Kind::Log | Kind::JournalSuperblock);
    let old = u32(bytes, at) & mask(width);
    let old = if journal { old.swap_bytes() >> (32 - 8 * width as u32) } else { old };
    let value = wrong(old, width, layout, piece, random);
    let new = if journal { (value & mask(width)) << (32 - 8 * width as u32) } else { value };
    let new = if journal { new.to_be_bytes() } else { new.to_le_bytes() };
    put(bytes, at, &new[..width]);
}

/// What somebody would write there who knows the format: an end of the range, something beside what was there, the
/// structure's own block or inode, a neighbour's, one just outside.
pub(crate) fn wrong(old: u32, width: usize, layout: &Layout, piece: Piece, random: &mut Random) -> u32 {
    let own = (piece.at / layout.block) as u32;
    let other = pick(layout, random);
    let neighbour = (other.at / layout.block) as u32;
    match random.below(16) {
        0 => 0,
        1 => u32::MAX,
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => own,
        5 => neighbour,
        6 => piece.owner,
        7 => other.owner,
        8 => layout.blocks - random.below(3) as u32 + 1,
        9 => layout.inodes + 1 - random.below(2) as u32,
        10 => old ^ 1 << random.below(8 * width),
        11 => old.wrapping_mul(2),
        12 => 1 << random.below(32),
        13 => (1_u32 << random.below(32)).wrapping_sub(1),
        14 => random.below(64) as u32,
        _ => random.next() as u32,
    }
}

fn mask(width: usize) -> u32 {
    if width >= 4 { u32::MAX } else { (1 << (8 * width)) - 1 }
}

/// Two fields of a structure change places: pointers, entries, records.
fn swap(bytes: &mut [u8], piece: Piece, random: &mut Random) {
    let width = *random.pick(&[4, 8, 12, 28]);
    let slots = piece.length.min(256) / width;
    let (one, other) = (random.below(slots) * width, random.below(slots) * width);
    for byte in 0..width {
        bytes.swap(piece.at + one + byte, piece.at + other + byte);
    }
}

/// An entry is there twice.
fn repeat(bytes: &mut [u8], piece: Piece, random: &mut Random) {
    let width = *random.pick(&[4, 8, 12, 16]);
    let slots = piece.length.min(256) / width;
    let (from, to) = (piece.at + random.below(slots) * width, piece.at + random.below(slots) * width);
    bytes.copy_within(from..from + width, to);
}

/// A run of bytes is anything.
fn noise(bytes: &mut [u8], piece: Piece, random: &mut Random) {
    let length = 1 + random.below(piece.length.min(64));
    let at = piece.at + random.below(piece.length - length + 1);
    let fill = *random.pick(&[Some(0), Some(0xff), None]);
    for byte in &mut bytes[at..at + length] {
        *byte = fill.unwrap_or(random.next() as u8);
    }
}

/// A structure becomes another of its kind.
fn another(bytes: &mut [u8], layout: &Layout, piece: Piece, random: &mut Random) {
    let all: Vec<&Piece> = layout.pieces.iter().filter(|other| other.kind == piece.kind).collect();
    let other = **random.pick(&all);
    let length = piece.length.min(other.length);
    bytes.copy_within(other.at..other.at + length, piece.at);
}
