//! Where the structures of a sound image lie: found once, from the words of the format and without the reader's help.

use super::bytes::{be32, u16, u32};

/// A structure that one checksum covers, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its first byte in the image.
    pub(crate) at: usize,
    /// How many bytes it has.
    pub(crate) length: usize,
    /// The inode it belongs to, or is; 0 for none. Of a group's structures the group.
    pub(crate) owner: u32,
}

/// What a structure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The superblock.
    Superblock,
    /// A group's descriptor.
    Group,
    /// A group's bitmap of blocks.
    BlockBitmap,
    /// A group's bitmap of inodes.
    InodeBitmap,
    /// An inode in use.
    Inode,
    /// A node of an extent tree, but the root.
    ExtentNode,
    /// A block of pointers.
    Pointers,
    /// A block of a directory: records, or a part of a hash tree.
    Directory,
    /// A block of attributes.
    Attributes,
    /// A block of data: of a file, or of a link.
    Data,
    /// The journal's superblock.
    JournalSuperblock,
    /// A block of the log that is the journal's own.
    Log,
    /// A block of fast commits.
    FastCommit,
    /// The block that guards against two hosts.
    Guard,
}

/// The structures of an image.
#[derive(Debug)]
pub(crate) struct Layout {
    /// All of them.
    pub(crate) pieces: Vec<Piece>,
    /// The same, those of each kind that there is by themselves, in the order of the kinds.
    pub(crate) by_kind: Vec<Vec<Piece>>,
    /// Bytes a block.
    pub(crate) block: usize,
    /// Blocks of the file system.
    pub(crate) blocks: u32,
    /// Inodes of the file system.
    pub(crate) inodes: u32,
    /// The blocks of the journal, as bytes of the image.
    pub(crate) journal: Vec<usize>,
}

const SUPERBLOCK: usize = 1024;
const JOURNAL_INODE: u32 = 8;
const JOURNAL_MAGIC: u32 = 0xc03b_3998;
const MOST_DATA: usize = 4;

/// Finds them.
pub(crate) fn of(bytes: &[u8]) -> Layout {
    let block = 1024 << u32(bytes, SUPERBLOCK + 0x18);
    let (blocks, inodes) = (u32(bytes, SUPERBLOCK + 4), u32(bytes, SUPERBLOCK));
    let mut layout = Layout { pieces: Vec::new(), by_kind: Vec::new(), block, blocks, inodes, journal: Vec::new() };
    layout.add(Kind::Superblock, SUPERBLOCK, 1024, 0);
    let wide = u32(bytes, SUPERBLOCK + 0x60) & 0x80 != 0;
    let size = if wide { u16(bytes, SUPERBLOCK + 0xfe).into() } else { 32 };
    let first = u32(bytes, SUPERBLOCK + 0x14);
    let groups = (blocks - first).div_ceil(u32(bytes, SUPERBLOCK + 0x20));
    for group in 0..groups {
        let at = descriptor_place(bytes, block, group, size);
        layout.add(Kind::Group, at, size, group);
        layout.add(Kind::BlockBitmap, u32(bytes, at) as usize * block, block, group);
        layout.add(Kind::InodeBitmap, u32(bytes, at + 4) as usize * block, block, group);
    }
    for number in 1..=inodes {
        layout.inode(bytes, number, size);
    }
    if u32(bytes, SUPERBLOCK + 0x60) & 0x100 != 0 {
        layout.add(Kind::Guard, u32(bytes, SUPERBLOCK + 0x168) as usize * block, 1024, 0);
    }
    layout.log(bytes);
    layout.pieces.retain(|piece| piece.at + piece.length <= bytes.len());
    let mut sorted = layout.pieces.clone();
    sorted.sort_by_key(|piece| piece.kind);
    layout.by_kind = sorted.chunk_by(|one, next| one.kind == next.kind).map(<[Piece]>::to_vec).collect();
    layout
}

/// Behind the superblock, or spread over the groups: then behind the copy that the first group of each block may have.
fn descriptor_place(bytes: &[u8], block: usize, group: u32, size: usize) -> usize {
    let (per_block, spread) = ((block / size) as u32, u32(bytes, SUPERBLOCK + 0x60) & 0x10 != 0);
    let (index, within) = (group / per_block, (group % per_block) as usize * size);
    if !spread || index < u32(bytes, SUPERBLOCK + 0x104) {
        return (SUPERBLOCK / block + 1) * block + group as usize * size;
    }
    let first = index * per_block;
    let is_power = |base: u32| (0..20).any(|exponent| base.checked_pow(exponent) == Some(first));
    let copy = first == 0 || [3, 5, 7].into_iter().any(is_power);
    let begin = u32(bytes, SUPERBLOCK + 0x14) + first * u32(bytes, SUPERBLOCK + 0x20);
    (begin as usize + usize::from(copy)) * block + within
}

impl Layout {
    fn add(&mut self, kind: Kind, at: usize, length: usize, owner: u32) {
        self.pieces.push(Piece { kind, at, length, owner });
    }

    fn inode(&mut self, bytes: &[u8], number: u32, descriptor: usize) {
        let size = if u32(bytes, SUPERBLOCK + 0x4c) == 0 { 128 } else { u16(bytes, SUPERBLOCK + 0x58).into() };
        let per_group = u32(bytes, SUPERBLOCK + 0x28);
        let (group, within) = ((number - 1) / per_group, (number - 1) % per_group);
        let table = u32(bytes, descriptor_place(bytes, self.block, group, descriptor) + 8) as usize;
        let at = table * self.block + within as usize * size;
        let (mode, links, flags) = (u16(bytes, at), u16(bytes, at + 0x1a), u32(bytes, at + 0x20));
        if links == 0 && number != JOURNAL_INODE {
            return;
        }
        self.add(Kind::Inode, at, size, number);
        let attributes = u32(bytes, at + 0x68) as usize;
        if attributes != 0 {
            self.add(Kind::Attributes, attributes * self.block, self.block, number);
        }
        let is_mapped = matches!(mode & 0xf000, 0x4000 | 0x8000 | 0xa000) && flags & 0x1000_0000 == 0;
        let is_short = mode & 0xf000 == 0xa000 && u32(bytes, at + 4) < 60;
        if !is_mapped || is_short {
            return;
        }
        let mut data = Vec::new();
        if flags & 0x8_0000 != 0 {
            self.extents(bytes, number, at + 0x28, &mut data);
        } else {
            for slot in 0..15 {
                self.pointer(bytes, number, u32(bytes, at + 0x28 + slot * 4), slot.saturating_sub(11), &mut data);
            }
        }
        let places = data.into_iter().map(|block| block as usize * self.block);
        if number == JOURNAL_INODE {
            self.journal = places.collect();
            return;
        }
        let (kind, most) =
            if mode & 0xf000 == 0x4000 { (Kind::Directory, usize::MAX) } else { (Kind::Data, MOST_DATA) };
        for place in places.take(most).collect::<Vec<_>>() {
            self.add(kind, place, self.block, number);
        }
    }

    /// The blocks of data beneath a node of an extent tree.
    fn extents(&mut self, bytes: &[u8], inode: u32, node: usize, data: &mut Vec<u32>) {
        let (entries, depth) = (usize::from(u16(bytes, node + 2)), u16(bytes, node + 6));
        for entry in (1..=entries).map(|index| node + index * 12) {
            if depth == 0 {
                let (length, start) = (u16(bytes, entry + 4), u32(bytes, entry + 8));
                data.extend((0..u32::from(length.min(0x8000))).map(|index| start + index));
            } else {
                let child = u32(bytes, entry + 4) as usize * self.block;
                self.add(Kind::ExtentNode, child, self.block, inode);
                self.extents(bytes, inode, child, data);
            }
        }
    }

    fn pointer(&mut self, bytes: &[u8], inode: u32, block: u32, levels: usize, data: &mut Vec<u32>) {
        if block == 0 {
            return;
        }
        if levels == 0 {
            return data.push(block);
        }
        let at = block as usize * self.block;
        self.add(Kind::Pointers, at, self.block, inode);
        for slot in 0..self.block / 4 {
            self.pointer(bytes, inode, u32(bytes, at + slot * 4), levels - 1, data);
        }
    }

    /// What of the journal is in use.
    fn log(&mut self, bytes: &[u8]) {
        let Some(&superblock) = self.journal.first() else { return };
        self.add(Kind::JournalSuperblock, superblock, 1024, JOURNAL_INODE);
        for at in self.journal.clone().into_iter().skip(1) {
            if be32(bytes, at) == JOURNAL_MAGIC {
                self.add(Kind::Log, at, self.block, JOURNAL_INODE);
            } else if u32(bytes, at) == 0x0008_0009 {
                self.add(Kind::FastCommit, at, self.block, JOURNAL_INODE);
            }
        }
    }
}
