//! Extent trees: the map of a file as runs of blocks, in a tree of at most five levels above its leaves.
//!
//! Walked from the root in the inode downwards, one level a step: a node's depth is its parent's less one, its entries
//! are in order, apart from each other and within what the parent gave it, and every block they name is one that a file
//! may hold. A node is checked whole before any entry of it is used, and then kept (`cache.rs`).

use std::sync::Arc;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::planted;
use zerocopy::FromBytes;

use super::Filesystem;
use super::budget::Budget;
use super::checksum::{Kind, crc32c};
use super::format;
use super::inode::Inode;
use super::map::{Part, PartKind, Run, RunKind};
use super::units::{BlockNumber, InodeNumber, LogicalBlock};
use crate::error::{Error, Result};

/// The most levels above the leaves. Five hold more extents than a file has blocks.
const DEEPEST: u16 = 5;
/// The longest extent, and what the length of an unwritten one has on top.
const WRITTEN: u16 = 0x8000;
/// What looking for a block costs where every node is kept. Bytes of a [`Budget`].
const A_LOOK: u64 = 128;
/// One behind the last block that a file can have.
const END: u64 = 1 << 32;

/// An entry of a node, checked: a run of blocks in a leaf, a child in an inner node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// The first block of the file.
    first: u32,
    /// How many; 0 for a child.
    length: u16,
    unwritten: bool,
    /// The first block of the device, or the child's block.
    start: u64,
}

/// A node that is not the root, checked.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: NodeKey,
    pub(super) entries: Arc<[Entry]>,
    /// It uses all of its room.
    pub(super) is_roomy: bool,
}

/// Everything that the check of a node depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeKey {
    /// The inode's checksum seed.
    pub(super) seed: u32,
    pub(super) inode: u32,
    pub(super) block: BlockNumber,
    pub(super) depth: u16,
    /// The blocks of the file that the parent gave it: from here to before `to`.
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The run of a file from this block on.
pub(super) fn find(fs: &Filesystem, inode: &Inode, block: LogicalBlock, budget: &mut Budget) -> Result<Run> {
    let (entry, to) = descend(fs, inode, block, budget)?;
    let at = u64::from(block.0);
    Ok(entry.and_then(|entry| run(&entry, at)).unwrap_or(hole(at, to)))
}

/// One behind the last block of a file that an extent names.
pub(super) fn end(fs: &Filesystem, inode: &Inode) -> Result<u64> {
    let (last, _) = descend(fs, inode, LogicalBlock(u32::MAX), &mut fs.budget())?;
    Ok(last.map_or(0, |last| u64::from(last.first).saturating_add(last.length.into())))
}

/// The last extent that begins at or before a block, and the first block behind it that another may have.
fn descend(fs: &Filesystem, inode: &Inode, block: LogicalBlock, budget: &mut Budget) -> Result<(Option<Entry>, u64)> {
    budget.spend(A_LOOK)?;
    let number = inode.number.value();
    let (header, rest) = header(&inode.map, Place::Inode(number))?;
    let mut depth = header.eh_depth.get();
    if depth > DEEPEST {
        return Err(Error::corrupt(Rule::ExtentDepth, Place::Inode(number)));
    }
    let (mut from, mut to) = (0, END);
    let mut root = [Entry::default(); 4];
    let count = usize::from(header.eh_entries.get());
    let root = root.get_mut(..count).ok_or(Error::corrupt(Rule::ExtentCount, Place::Inode(number)))?;
    check(fs, inode.number, rest, root, depth, (from, to))
        .map_err(|rule| Error::corrupt(rule, Place::Inode(number)))?;

    let mut node: Option<Arc<Node>> = None;
    // The depth falls with each turn.
    loop {
        let entries = node.as_ref().map_or(&*root, |node| &node.entries);
        let behind = entries.partition_point(|entry| entry.first <= block.0);
        to = entries.get(behind).map_or(to, |next| next.first.into());
        let Some(entry) = behind.checked_sub(1).and_then(|index| entries.get(index)) else {
            return Ok((None, to));
        };
        from = from.max(entry.first.into());
        let Some(below) = depth.checked_sub(1) else {
            return Ok((Some(*entry), to));
        };
        depth = below;
        let block = BlockNumber(entry.start);
        let key = NodeKey { seed: inode.checksum_seed, inode: number, block, depth, from, to };
        let next = match fs.kept.nodes.find(&key) {
            Some(node) => node,
            None => {
                if !planted("depth") {
                    budget.spend(fs.superblock().block_size.bytes().into())?;
                }
                load(fs, inode.number, key)?
            }
        };
        if planted("depth") {
            depth = next.key.depth;
        }
        node = Some(next);
    }
}

/// Visits the nodes beneath the root and the extents of a whole tree, from the first block of the file on. A node that
/// breaks a rule is told as such, and what it leads to is left out; one that `visit` does not want is not read.
pub(super) fn walk(fs: &Filesystem, inode: &Inode, visit: &mut dyn FnMut(Result<Part>) -> bool) {
    let number = inode.number.value();
    let mut levels: Vec<Level> = Vec::new();
    match root(fs, inode) {
        Ok(level) => levels.push(level),
        Err(error) => {
            visit(Err(error));
        }
    }
    // No more levels than the root's depth and one; each entry is looked at once.
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.get(level.at).copied() else {
            levels.pop();
            continue;
        };
        level.at = level.at.saturating_add(1);
        let to = level.entries.get(level.at).map_or(level.to, |next| next.first.into());
        let (first, start) = (u64::from(entry.first), BlockNumber(entry.start));
        let Some(depth) = level.depth.checked_sub(1) else {
            let kind = if entry.unwritten { PartKind::Unwritten } else { PartKind::Data };
            visit(Ok(Part { first, start, count: entry.length.into(), kind }));
            continue;
        };
        if !visit(Ok(Part { first, start, count: 1, kind: PartKind::Map })) {
            continue;
        }
        let key = NodeKey { seed: inode.checksum_seed, inode: number, block: start, depth, from: first, to };
        match read(fs, inode.number, key) {
            Ok(node) => {
                let place = Place::ExtentNode { inode: number, block: start.0 };
                let begins = node.entries.first().is_none_or(|entry| u64::from(entry.first) == first);
                if !begins {
                    visit(Err(Error::corrupt(Rule::ExtentIndex, place)));
                }
                if !node.is_roomy {
                    visit(Err(Error::corrupt(Rule::ExtentRoom, place)));
                }
                levels.push(Level { entries: Arc::clone(&node.entries), at: 0, depth, to });
            }
            Err(error) => {
                visit(Err(error));
            }
        }
    }
}

/// The entries of a node on the way down, and how far they have been visited.
struct Level {
    entries: Arc<[Entry]>,
    at: usize,
    depth: u16,
    to: u64,
}

/// The root, checked, as the first level of a walk.
fn root(fs: &Filesystem, inode: &Inode) -> Result<Level> {
    let place = Place::Inode(inode.number.value());
    let (header, rest) = header(&inode.map, place)?;
    let depth = header.eh_depth.get();
    if depth > DEEPEST {
        return Err(Error::corrupt(Rule::ExtentDepth, place));
    }
    let mut entries = vec![Entry::default(); header.eh_entries.get().into()];
    check(fs, inode.number, rest, &mut entries, depth, (0, END)).map_err(|rule| Error::corrupt(rule, place))?;
    if !is_roomy(header, rest) {
        return Err(Error::corrupt(Rule::ExtentRoom, place));
    }
    Ok(Level { entries: entries.into(), at: 0, depth, to: END })
}

/// Whether a node says that it has the room it has. e2fsprogs leave up to two entries for what may follow them.
fn is_roomy(header: &format::ExtentHeader, rest: &[u8]) -> bool {
    let room = rest.len().checked_div(size_of::<format::Extent>()).unwrap_or(0);
    usize::from(header.eh_max.get()).saturating_add(2) >= room
}

/// What an extent has from this block on, if it reaches so far.
fn run(entry: &Entry, at: u64) -> Option<Run> {
    let within = at.checked_sub(entry.first.into())?;
    let blocks = u64::from(entry.length).checked_sub(within).filter(|&blocks| blocks > 0)?;
    let start = BlockNumber(entry.start.checked_add(within)?);
    let kind = if entry.unwritten { RunKind::Unwritten(start) } else { RunKind::Data(start) };
    Some(Run { blocks, kind })
}

fn hole(at: u64, to: u64) -> Run {
    Run { blocks: to.saturating_sub(at), kind: RunKind::Hole }
}

/// A node that is kept, or from the device.
fn read(fs: &Filesystem, inode: InodeNumber, key: NodeKey) -> Result<Arc<Node>> {
    fs.kept.nodes.find(&key).map_or_else(|| load(fs, inode, key), Ok)
}

/// A node from the device, verified and checked, and kept from now on.
fn load(fs: &Filesystem, inode: InodeNumber, key: NodeKey) -> Result<Arc<Node>> {
    let place = Place::ExtentNode { inode: inode.value(), block: key.block.0 };
    let broken = |rule| Error::corrupt(rule, place);
    let size = fs.superblock().block_size;
    let offset = size.byte_offset(key.block).ok_or(broken(Rule::BlockInFileSystem))?;
    let mut bytes = vec![0; size.length()];
    fs.device().read_at(offset.0, &mut bytes)?;

    let (header, rest) = header(&bytes, place)?;
    if header.eh_depth.get() != key.depth && !planted("depth") {
        return Err(broken(Rule::ExtentDepth));
    }
    let key = if planted("depth") { NodeKey { depth: header.eh_depth.get(), ..key } } else { key };
    let matches = fs.verifier().kind() != Kind::Crc32c || checksum_matches(&bytes, header, key.seed);
    fs.verifier().judge(matches, Rule::ExtentChecksum, place)?;
    let mut entries = vec![Entry::default(); header.eh_entries.get().into()];
    check(fs, inode, rest, &mut entries, key.depth, (key.from, key.to)).map_err(broken)?;
    let node = Arc::new(Node { key, entries: entries.into(), is_roomy: is_roomy(header, rest) });
    if matches {
        fs.kept.nodes.keep(key, Arc::clone(&node));
    }
    Ok(node)
}

/// The header of a node and what follows it: long enough for the entries.
fn header(bytes: &[u8], place: Place) -> Result<(&format::ExtentHeader, &[u8])> {
    let broken = |rule| Error::corrupt(rule, place);
    let (header, rest) = format::ExtentHeader::ref_from_prefix(bytes).map_err(|_| broken(Rule::ExtentMagic))?;
    if header.eh_magic.get() != format::EXTENT_MAGIC {
        return Err(broken(Rule::ExtentMagic));
    }
    let (entries, most) = (header.eh_entries.get(), header.eh_max.get());
    let room = rest.len().checked_div(size_of::<format::Extent>()).unwrap_or(0);
    let childless = entries == 0 && header.eh_depth.get() > 0;
    if most == 0 || usize::from(most) > room || entries > most || childless {
        return Err(broken(Rule::ExtentCount));
    }
    Ok((header, rest))
}

/// The checksum stands behind the last entry that there is room for, used or not.
fn checksum_matches(bytes: &[u8], header: &format::ExtentHeader, seed: u32) -> bool {
    let covered = usize::from(header.eh_max.get()).saturating_add(1).saturating_mul(size_of::<format::Extent>());
    let Some((covered, rest)) = bytes.split_at_checked(covered) else { return false };
    rest.first_chunk().is_some_and(|&stored| crc32c(seed, covered) == u32::from_le_bytes(stored))
}

/// Fills `out` with the entries that follow a header, each of them checked.
fn check(
    fs: &Filesystem,
    inode: InodeNumber,
    bytes: &[u8],
    out: &mut [Entry],
    depth: u16,
    (from, to): (u64, u64),
) -> Result<(), Rule> {
    // The first block that the next entry may have.
    let mut next = from;
    let entries = bytes.chunks_exact(size_of::<format::Extent>());
    for (entry, raw) in out.iter_mut().zip(entries) {
        *entry = if depth == 0 { leaf(raw)? } else { child(raw)? };
        let first = u64::from(entry.first);
        if first < next {
            return Err(if first < from { Rule::ExtentRange } else { Rule::ExtentOrder });
        }
        // A child has at least one block of the file.
        let length = u64::from(entry.length.max(1));
        next = first.saturating_add(length);
        if next > to {
            return Err(Rule::ExtentRange);
        }
        fs.zone().check(inode, BlockNumber(entry.start), length)?;
    }
    Ok(())
}

fn leaf(raw: &[u8]) -> Result<Entry, Rule> {
    let raw = format::Extent::ref_from_bytes(raw).map_err(|_| Rule::ExtentCount)?;
    let length = raw.ee_len.get();
    let unwritten = length > WRITTEN;
    let length = if unwritten { length.saturating_sub(WRITTEN) } else { length };
    if length == 0 {
        return Err(Rule::ExtentLength);
    }
    let start = u64::from(raw.ee_start_hi.get()) << 32 | u64::from(raw.ee_start_lo.get());
    Ok(Entry { first: raw.ee_block.get(), length, unwritten, start })
}

fn child(raw: &[u8]) -> Result<Entry, Rule> {
    let raw = format::ExtentIndex::ref_from_bytes(raw).map_err(|_| Rule::ExtentCount)?;
    let start = u64::from(raw.ei_leaf_hi.get()) << 32 | u64::from(raw.ei_leaf_lo.get());
    Ok(Entry { first: raw.ei_block.get(), length: 0, unwritten: false, start })
}
