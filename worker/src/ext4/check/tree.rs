//! The hash tree of a directory: each of its blocks has one place in it, and the names in a leaf lie in its range.

use lazaret_policy::corruption::Rule;
use lazaret_policy::feature::Incompat;

use super::{Check, push};
use crate::error::{Error, Result};
use crate::ext4::Inode;
use crate::ext4::dir::{Role, broken};
use crate::ext4::hash::{NameHash, SIPHASH};
use crate::ext4::htree::Level;
use crate::ext4::name::{Naming, Wanted};
use crate::ext4::record::Record;
use crate::ext4::units::{LogicalBlock, u64_from};

/// Where the hash version lies in the root.
const HASH_VERSION: usize = 28;
/// Where the number of levels lies in the root.
const LEVELS: usize = 30;
/// The highest version of a hash that is written to the disk, but for [`SIPHASH`].
const HIGHEST_VERSION: u8 = 2;

/// A tree that was walked.
pub(super) struct Tree {
    /// None where names have a hash with a key, or of a kind that this reader does not know.
    hash: Option<NameHash>,
    /// By block.
    leaves: Vec<Leaf>,
}

/// A block of names and the hashes that they have, the lowest and the highest.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    block: u32,
    low: u32,
    high: u32,
}

/// What is left to look at: a block of so many levels above the leaves, with its range.
struct Open {
    leaf: Leaf,
    above: u8,
}

impl Tree {
    /// Whether an entry may lie in this block.
    pub(super) fn may_hold(&self, block: LogicalBlock, naming: Naming, record: &Record<'_>) -> bool {
        let leaf = self.leaves.binary_search_by_key(&block.0, |leaf| leaf.block).ok();
        let Some(leaf) = leaf.and_then(|index| self.leaves.get(index)) else { return true };
        let hash = match (self.hash, record.hash) {
            (_, Some([hash, _])) => hash & !1,
            (Some(hash), None) if naming.is_encrypted() => hash.of(record.name),
            (Some(hash), None) => match naming.wanted(record.name) {
                Ok(Some(wanted @ Wanted::AnyCase(..))) => wanted.hash(Some(hash)).unwrap_or(leaf.low),
                _ => hash.of(record.name),
            },
            (None, None) => return true,
        };
        (leaf.low..=leaf.high).contains(&hash)
    }
}

impl Check<'_> {
    /// Walks the tree of a directory; none if it is broken, which is told.
    pub(super) fn tree(&mut self, directory: &Inode, naming: Naming) -> Result<Option<Tree>> {
        let begin = self.findings.counts.damage;
        match self.walk_tree(directory, naming) {
            Ok(tree) if self.findings.counts.damage == begin => Ok(Some(tree)),
            Ok(_) => Ok(None),
            Err(error) => self.keep(error).map(|()| None),
        }
    }

    fn walk_tree(&mut self, directory: &Inode, naming: Naming) -> Result<Tree> {
        let root = LogicalBlock(0);
        let level = Level::read(self.fs, directory, root, Role::Root, &mut self.fs.budget())?;
        let info = level.info().copied();
        let (version, depth) = info.map_or((0, 0), |info| (info.hash_version, info.indirect_levels));
        let known = if naming.keeps_hashes() { version == SIPHASH } else { version <= HIGHEST_VERSION };
        let flagged = info.is_some_and(|info| info.unused_flags & 1 != 0);
        if !known || flagged {
            return Err(broken(directory, root, Rule::HtreeFlag, HASH_VERSION));
        }
        if depth > if self.fs.superblock().incompat.contains(Incompat::LARGEDIR) { 2 } else { 1 } {
            return Err(broken(directory, root, Rule::HtreeDepth, LEVELS));
        }
        drop(level);

        let mut tree = Tree { hash: self.fs.superblock().name_hash(version), leaves: Vec::new() };
        let mut inner: Vec<u32> = Vec::new();
        let mut open = vec![Open { leaf: Leaf { block: 0, low: 0, high: u32::MAX }, above: depth.saturating_add(1) }];
        // A directory that says it has more blocks than there are lacks some.
        let blocks = self.fs.directory_blocks(directory).min(self.fs.superblock().blocks);
        // Each turn takes a block out, and puts in only what is one level nearer to the leaves; there are never more
        // blocks in than the directory has, or it is broken.
        while let Some(Open { leaf, above }) = open.pop() {
            if u64_from(tree.leaves.len()).saturating_add(u64_from(inner.len())) >= blocks {
                return Err(broken(directory, LogicalBlock(leaf.block), Rule::HtreeReference, 0));
            }
            let Some(below) = above.checked_sub(1) else {
                push(&mut tree.leaves, leaf)?;
                continue;
            };
            push(&mut inner, leaf.block)?;
            let role = if leaf.block == 0 { Role::Root } else { Role::Node };
            let level = Level::read(self.fs, directory, LogicalBlock(leaf.block), role, &mut self.fs.budget())?;
            for child in children(&level, leaf) {
                if u64::from(child.block) >= blocks || child.block == 0 {
                    return Err(broken(directory, LogicalBlock(leaf.block), Rule::HtreeBlock, 0));
                }
                push(&mut open, Open { leaf: child, above: below })?;
            }
            self.spend(1);
        }
        tree.leaves.sort_unstable_by_key(|leaf| leaf.block);
        self.hold_references(directory, &tree, inner, blocks)?;
        Ok(tree)
    }

    /// Every block of the directory is in the tree, and only once.
    fn hold_references(&mut self, directory: &Inode, tree: &Tree, mut inner: Vec<u32>, blocks: u64) -> Result<()> {
        let all = inner.len().saturating_add(tree.leaves.len());
        inner.try_reserve_exact(tree.leaves.len()).map_err(|_| Error::OutOfMemory)?;
        inner.extend(tree.leaves.iter().map(|leaf| leaf.block));
        inner.sort_unstable();
        let double = inner.windows(2).find(|pair| matches!(pair, [one, other] if one == other));
        if let Some(&block) = double.and_then(<[u32]>::first) {
            return Err(broken(directory, LogicalBlock(block), Rule::HtreeReference, 0));
        }
        if u64_from(all) != blocks {
            let missing = (0..).zip(&inner).find(|(block, found)| block != *found).map_or(0, |(block, _)| block);
            return Err(broken(directory, LogicalBlock(missing), Rule::HtreeReference, 0));
        }
        Ok(())
    }
}

/// The children of a block of a tree with the ranges of hashes that it gives them. A name may lie before a block that
/// goes on with its hash.
fn children(level: &Level, parent: Leaf) -> Vec<Leaf> {
    let entries = level.entries();
    let behind = entries.iter().skip(1).map(|entry| entry.hash.get() & !1).chain([parent.high]);
    let lows = [parent.low].into_iter().chain(entries.iter().skip(1).map(|entry| entry.hash.get() & !1));
    let ranges = lows.zip(behind);
    let blocks = entries.iter().map(|entry| entry.block.get() & 0x0fff_ffff);
    blocks.zip(ranges).map(|(block, (low, high))| Leaf { block, low, high }).collect()
}
