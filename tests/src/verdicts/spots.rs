//! Where the metadata of an image lies, by what a check does with it: more finely than [`layout`](crate::mutate::layout),
//! and with what a reader never looks at.

use std::collections::BTreeMap;

use crate::mutate::bytes::{u16, u32};
use crate::mutate::layout::{Kind, Layout};

/// A piece of metadata.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) at: usize,
    pub(super) length: usize,
    /// Its inode, or its group.
    pub(super) owner: u32,
    /// Its numbers have the highest byte first.
    pub(super) big_endian: bool,
}

const SUPERBLOCK: usize = 1024;
/// What of the superblock has a meaning.
const MEANING: usize = 0x2a0;
const RESIZE_INODE: u32 = 7;

/// All of them, by name.
pub(super) fn of(bytes: &[u8], layout: &Layout) -> Vec<(&'static str, Vec<Spot>)> {
    let mut spots = BTreeMap::<&'static str, Vec<Spot>>::new();
    let mut add = |name, at: usize, length: usize, owner| {
        if length > 0 && at + length <= bytes.len() {
            let big_endian = name == "journal" || name == "log";
            spots.entry(name).or_default().push(Spot { at, length, owner, big_endian });
        }
    };
    let field = |at| u32(bytes, SUPERBLOCK + at);
    let first_free = if field(0x4c) == 0 { 11 } else { field(0x54) };
    let quotas = [field(0x240), field(0x244), field(0x26c)];
    let orphans = field(0x280);
    add("superblock", SUPERBLOCK, 0x100, 0);
    add("superblock's features", SUPERBLOCK + 0x5c, 12, 0);
    add("superblock's second half", SUPERBLOCK + 0x100, MEANING - 0x100, 0);
    for piece in &layout.pieces {
        let owner = piece.owner;
        let reserved = owner < first_free || quotas.contains(&owner) || owner == orphans;
        let name = match piece.kind {
            Kind::Superblock => continue,
            Kind::Group => "descriptor",
            Kind::BlockBitmap => "block bitmap",
            Kind::InodeBitmap => "inode bitmap",
            Kind::Inode if owner == 2 => "root",
            Kind::Inode if reserved => "reserved inode",
            Kind::Inode => "inode",
            Kind::ExtentNode => "extent node",
            Kind::Pointers if owner == RESIZE_INODE => "pointers for resizing",
            Kind::Pointers => "pointers",
            Kind::Directory => "directory",
            Kind::Attributes => "attributes",
            Kind::Data if quotas.contains(&owner) => "quota file",
            Kind::Data if owner == orphans => "orphan file",
            Kind::Data => "data",
            Kind::JournalSuperblock => "journal",
            Kind::Log | Kind::FastCommit => "log",
            Kind::Guard => "guard",
        };
        // What is in front has all the meaning, and of what is behind there is much.
        match piece.kind {
            Kind::Data | Kind::Attributes | Kind::Guard | Kind::JournalSuperblock | Kind::Pointers => {
                add(name, piece.at, piece.length.min(128), owner);
                add(name, piece.at, piece.length, owner);
            }
            _ => add(name, piece.at, piece.length, owner),
        }
    }
    unused(bytes, layout, &mut add);
    spots.into_iter().collect()
}

/// Inodes that are not in use, the reserved ones by a name of their own, and the copies at the begin of group 1.
fn unused(bytes: &[u8], layout: &Layout, add: &mut impl FnMut(&'static str, usize, usize, u32)) {
    let field = |at| u32(bytes, SUPERBLOCK + at);
    let size = if field(0x4c) == 0 { 128 } else { usize::from(u16(bytes, SUPERBLOCK + 0x58)) };
    let per_group = field(0x28);
    for group in layout.pieces.iter().filter(|piece| piece.kind == Kind::Group) {
        let table = u32(bytes, group.at + 8) as usize * layout.block;
        for within in 0..per_group {
            let (at, number) = (table + within as usize * size, group.owner * per_group + within + 1);
            let in_use = layout.pieces.iter().any(|piece| piece.kind == Kind::Inode && piece.at == at);
            let weight = if number < 12 { 3 } else { 1 };
            if !in_use && (number < 12 || within % 16 == 5) {
                let name = if number < 12 { "reserved inode" } else { "free inode" };
                (0..weight).for_each(|_| add(name, at, size.min(160), number));
            }
        }
    }
    let copy = (field(0x14) + field(0x20)) as usize * layout.block;
    if u16(bytes, copy + 0x38) == 0xef53 {
        add("copy of the superblock", copy, MEANING, 1);
        add("copy of descriptors", copy + layout.block, 64, 1);
    }
}
