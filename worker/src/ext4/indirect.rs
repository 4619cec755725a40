//! Block maps of ext2 and ext3: twelve pointers in the inode, then blocks of pointers, one, two and three levels deep.
//!
//! A pointer of 0 is a hole, as long as everything that it could have led to. The level falls with each step, and every
//! block named on the way is one that a file may hold. Nothing is kept: a step reads as many pointers as the request
//! spans, at most 256, so that a run is found as long as a request can be.

use lazaret_policy::corruption::Place;

use super::Filesystem;
use super::inode::Inode;
use super::map::{Part, PartKind, Run, RunKind};
use super::units::{BlockNumber, BlockSize, LogicalBlock, u64_from};
use crate::error::{Error, Result};

/// Pointers in the inode that lead to data.
const DIRECT: u64 = 12;
/// The most pointers that are looked at for one run.
const MOST_POINTERS: usize = 256;

/// How many blocks a map reaches.
pub(super) fn reach(size: BlockSize) -> u64 {
    (1..=3).map(|level| covered(size, level)).fold(DIRECT, u64::saturating_add)
}

/// The run of a file from this block on; `wanted` is how many of its blocks are of use.
pub(super) fn find(fs: &Filesystem, inode: &Inode, block: LogicalBlock, wanted: u64) -> Result<Run> {
    let size = fs.superblock().block_size;
    let place = Place::Inode(inode.number.value());
    let mut index = u64::from(block.0);
    if index < DIRECT {
        let from = usize::try_from(index).unwrap_or(0).saturating_mul(4);
        let pointers = inode.map.get(from..48).unwrap_or_default();
        return run(fs, inode, pointers, place);
    }
    index = index.saturating_sub(DIRECT);
    for level in 1..=3 {
        let covered = covered(size, level);
        if index < covered {
            let slot = usize::try_from(level).unwrap_or(0).saturating_add(11).saturating_mul(4);
            let pointer = inode.map.get(slot..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
            return descend(fs, inode, u32::from_le_bytes(pointer), level, index, wanted);
        }
        index = index.saturating_sub(covered);
    }
    // Beyond what any pointer reaches: nothing, as far as blocks of a file can be counted.
    let end = 1u64 << 32;
    Ok(Run { blocks: end.saturating_sub(block.0.into()), kind: RunKind::Hole })
}

/// Visits every block of a map and every run of data, from the first block of the file on. A pointer that breaks a rule
/// is told as such, and what it leads to is left out; a block of pointers that `visit` does not want is not read.
pub(super) fn walk(fs: &Filesystem, inode: &Inode, visit: &mut dyn FnMut(Result<Part>) -> bool) {
    let size = fs.superblock().block_size;
    let number = inode.number.value();
    let (direct, levels) = inode.map.split_at_checked(48).unwrap_or_default();
    runs(fs, inode, direct, 0, Place::Inode(number), visit);
    let mut first = DIRECT;
    for (pointer, level) in levels.as_chunks::<4>().0.iter().zip(1..) {
        // Blocks of pointers on the way down: what is left of each, how much a pointer of it covers, where it lies.
        let mut path = vec![(vec![*pointer].into_iter(), level, first, Place::Inode(number))];
        while let Some((pointers, level, at, place)) = path.last_mut() {
            let Some(pointer) = pointers.next() else {
                path.pop();
                continue;
            };
            let (begin, below, place) = (*at, u32::saturating_sub(*level, 1), *place);
            *at = at.saturating_add(covered(size, *level));
            let block = BlockNumber(u32::from_le_bytes(pointer).into());
            if block.0 == 0 {
                continue;
            }
            if let Err(rule) = fs.zone().check(inode.number, block, 1) {
                visit(Err(Error::corrupt(rule, place)));
                continue;
            }
            if !visit(Ok(Part { first: begin, start: block, count: 1, kind: PartKind::Map })) {
                continue;
            }
            let mut bytes = vec![0; size.length()];
            let start = size.byte_offset(block).map_or(u64::MAX, |start| start.0);
            if let Err(error) = fs.device().read_at(start, &mut bytes) {
                visit(Err(error));
                continue;
            }
            let place = Place::IndirectBlock { inode: number, block: block.0 };
            if below == 0 {
                runs(fs, inode, &bytes, begin, place, visit);
            } else {
                path.push((bytes.as_chunks().0.to_vec().into_iter(), below, begin, place));
            }
        }
        first = first.saturating_add(covered(size, level));
    }
}

/// Visits the runs that a row of pointers to data has.
fn runs(
    fs: &Filesystem,
    inode: &Inode,
    pointers: &[u8],
    first: u64,
    place: Place,
    visit: &mut dyn FnMut(Result<Part>) -> bool,
) {
    let (mut rest, mut first) = (pointers, first);
    // Each turn takes a pointer at least.
    while !rest.is_empty() {
        let blocks = match run(fs, inode, rest, place) {
            Ok(Run { blocks, kind: RunKind::Data(start) }) => {
                visit(Ok(Part { first, start, count: blocks, kind: PartKind::Data }));
                blocks
            }
            Ok(Run { blocks, .. }) => blocks,
            Err(error) => {
                visit(Err(error));
                1
            }
        };
        first = first.saturating_add(blocks);
        let bytes = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(4);
        rest = rest.get(bytes..).unwrap_or_default();
    }
}

/// From a pointer in the inode down to the data: `index` counts the blocks beneath the pointer.
fn descend(fs: &Filesystem, inode: &Inode, root: u32, level: u32, index: u64, wanted: u64) -> Result<Run> {
    let size = fs.superblock().block_size;
    let number = inode.number.value();
    if root == 0 {
        return Ok(Run { blocks: covered(size, level).saturating_sub(index), kind: RunKind::Hole });
    }
    let (mut pointer, mut index, mut place) = (root, index, Place::Inode(number));
    let mut buffer = [0; MOST_POINTERS * 4];
    for below in (0..level).rev() {
        let block = BlockNumber(pointer.into());
        fs.zone().check(inode.number, block, 1).map_err(|rule| Error::corrupt(rule, place))?;
        place = Place::IndirectBlock { inode: number, block: block.0 };

        // How many blocks each pointer of this block leads to, which of them it is, and how far beneath it.
        let each = covered(size, below);
        let entry = index.checked_div(each).unwrap_or(0);
        index = index.checked_rem(each).unwrap_or(0);
        let start = size.byte_offset(block).and_then(|start| start.0.checked_add(entry.saturating_mul(4)));
        let start = start.ok_or(Error::Invalid)?;
        let left = pointers_per_block(size).saturating_sub(entry);
        let row = left.min(wanted.saturating_add(index).div_ceil(each).max(1));
        let row = usize::try_from(row).unwrap_or(MOST_POINTERS).min(MOST_POINTERS);
        let pointers = buffer.get_mut(..row.saturating_mul(4)).unwrap_or_default();
        fs.device().read_at(start, pointers)?;
        if below == 0 {
            return run(fs, inode, pointers, place);
        }
        pointer = pointers.first_chunk().copied().map(u32::from_le_bytes).ok_or(Error::Invalid)?;
        if pointer == 0 {
            let holes = u64_from(pointers.as_chunks::<4>().0.iter().take_while(|&&pointer| pointer == [0; 4]).count());
            return Ok(Run { blocks: holes.saturating_mul(each).saturating_sub(index), kind: RunKind::Hole });
        }
    }
    Err(Error::Invalid)
}

/// The run that a row of pointers begins with.
fn run(fs: &Filesystem, inode: &Inode, pointers: &[u8], place: Place) -> Result<Run> {
    let mut pointers = pointers.as_chunks::<4>().0.iter().map(|&bytes| u64::from(u32::from_le_bytes(bytes)));
    let start = pointers.next().ok_or(Error::Invalid)?;
    if start == 0 {
        let more = pointers.take_while(|&pointer| pointer == 0).count();
        return Ok(Run { blocks: u64_from(more).saturating_add(1), kind: RunKind::Hole });
    }
    let behind = (1..).map(|step| start.saturating_add(step));
    let more = pointers.zip(behind).take_while(|(pointer, expected)| pointer == expected).count();
    let blocks = u64_from(more).saturating_add(1);
    let kind = RunKind::Data(BlockNumber(start));
    let check = |blocks| fs.zone().check(inode.number, BlockNumber(start), blocks);
    if check(blocks).is_ok() {
        return Ok(Run { blocks, kind });
    }
    // One bad pointer does not take the good ones before it along.
    check(1).map_err(|rule| Error::corrupt(rule, place))?;
    Ok(Run { blocks: 1, kind })
}

/// How many blocks of data a pointer leads to with so many levels of pointers beneath it.
fn covered(size: BlockSize, level: u32) -> u64 {
    pointers_per_block(size).saturating_pow(level)
}

fn pointers_per_block(size: BlockSize) -> u64 {
    u64::from(size.bytes() >> 2)
}
