//! Hash trees: which leaf of a directory may hold a name.
//!
//! What always holds here: the tree has at most three levels over its leaves and goes strictly down; a block of it was
//! checked before a child is taken from it. Names of equal hash may run over into the leaves behind, so the search goes
//! on while the tree says that the next leaf begins with the same hash. On the way of a lookup: name → hash → leaf.

use std::sync::Arc;

use lazaret_policy::corruption::Rule;
use lazaret_policy::feature::Incompat;
use zerocopy::FromBytes;

use super::budget::Budget;
use super::checksum::crc32c;
use super::dir::{Role, Search, broken};
use super::hash::{NameHash, SIPHASH};
use super::inode::Inode;
use super::name::Naming;
use super::record::record_length;
use super::units::{InodeNumber, LogicalBlock};
use super::{Block, Filesystem, format};
use crate::error::Result;

/// What a hash tree says of a name.
pub(super) enum Answer {
    /// The inode it stands for.
    Found(InodeNumber),
    /// The directory does not have it.
    Absent,
    /// Nothing: the tree is sorted by a hash that this reader does not know.
    Unknown,
}

/// Looks a name up by its hash: reads one block a level, and more leaves only where hashes collide.
pub(super) fn lookup(fs: &Filesystem, directory: &Inode, search: Search<'_>) -> Result<Answer> {
    let (naming, wanted) = (search.naming, search.wanted);
    let root = Level::read(fs, directory, LogicalBlock(0), Role::Root, search.budget)?;
    let hash = match root.version() {
        // Where a hash with a key stands behind each name, it is also what the tree is sorted by, and nowhere else.
        Some(SIPHASH) if naming.keeps_hashes() => wanted.hash(None),
        Some(version) if !naming.keeps_hashes() => {
            fs.superblock().name_hash(version).and_then(|hash| wanted.hash(Some(hash)))
        }
        _ => None,
    };
    let Some(hash) = hash else { return Ok(Answer::Unknown) };
    let depth = root.info().map_or(0, |info| info.indirect_levels);
    if depth > if fs.superblock().incompat.contains(Incompat::LARGEDIR) { 2 } else { 1 } {
        return Err(broken(directory, LogicalBlock(0), Rule::HtreeDepth, INDIRECT_LEVELS));
    }

    let mut path = Path { fs, directory, depth: depth.into(), levels: vec![root], search };
    path.start(hash)?;
    loop {
        let leaf = path.child()?;
        path.search.budget.spend(fs.superblock().block_size.bytes().into())?;
        if let Some((bytes, _)) = fs.directory_block(directory, leaf, path.search.budget)?
            && let Some(number) = fs.find(directory, leaf, &bytes, &mut path.search)?
        {
            return Ok(Answer::Found(number));
        }
        if !path.advance(hash)? {
            return Ok(path.search.alike.map_or(Answer::Absent, Answer::Found));
        }
    }
}

/// How the names of a directory with a tree are hashed; none if this reader cannot.
pub(super) fn hash(fs: &Filesystem, directory: &Inode) -> Result<Option<NameHash>> {
    let root = Level::read(fs, directory, LogicalBlock(0), Role::Root, &mut fs.budget())?;
    Ok(root.version().and_then(|version| fs.superblock().name_hash(version)))
}

/// Where `indirect_levels` lies.
const INDIRECT_LEVELS: usize = 30;

/// The blocks from the root down to the one above a leaf, each with the child that is being looked at.
struct Path<'a> {
    fs: &'a Filesystem,
    directory: &'a Inode,
    /// How many levels of nodes lie beneath the root.
    depth: usize,
    levels: Vec<Level>,
    search: Search<'a>,
}

impl Path<'_> {
    /// Goes from the root to the last leaf that begins at or below a hash.
    fn start(&mut self, hash: u32) -> Result<()> {
        if let Some(root) = self.levels.last_mut() {
            root.at = root.covering(hash);
        }
        self.descend(|level| level.covering(hash))
    }

    /// Goes on to the next leaf, if it begins with this hash.
    fn advance(&mut self, hash: u32) -> Result<bool> {
        while let Some(level) = self.levels.last_mut() {
            level.at = level.at.saturating_add(1);
            match level.entries().get(level.at) {
                Some(entry) if entry.hash.get() & !1 == hash => {
                    self.descend(|_| 0)?;
                    return Ok(true);
                }
                Some(_) => return Ok(false),
                None => self.levels.pop(),
            };
        }
        Ok(false)
    }

    /// Fills the path up to the level above the leaves; `which` picks the child in each block that comes in.
    fn descend(&mut self, which: impl Fn(&Level) -> usize) -> Result<()> {
        while self.levels.len() <= self.depth {
            let child = self.child()?;
            let mut level = Level::read(self.fs, self.directory, child, Role::Node, self.search.budget)?;
            level.at = which(&level);
            self.levels.push(level);
        }
        Ok(())
    }

    /// The block that the path leads to.
    fn child(&self) -> Result<LogicalBlock> {
        let last = self.levels.last().and_then(|level| Some((level.block, *level.entries().get(level.at)?)));
        let parent = last.map_or(LogicalBlock(0), |(block, _)| block);
        // The upper four bits are kept for other uses, and the kernel does not look at them either.
        let child = last.map_or(0, |(_, entry)| entry.block.get() & 0x0fff_ffff);
        let inside = u64::from(child) < self.fs.directory_blocks(self.directory);
        let ancestor = self.levels.iter().any(|level| level.block.0 == child);
        if inside && !ancestor {
            Ok(LogicalBlock(child))
        } else {
            Err(broken(self.directory, parent, Rule::HtreeBlock, 0))
        }
    }
}

/// A block of a hash tree, a copy that was checked.
pub(super) struct Level {
    bytes: Arc<Block>,
    block: LogicalBlock,
    shape: Shape,
    /// Which entry leads on.
    at: usize,
}

impl Level {
    pub(super) fn read(
        fs: &Filesystem,
        directory: &Inode,
        block: LogicalBlock,
        role: Role,
        budget: &mut Budget,
    ) -> Result<Self> {
        budget.spend(fs.superblock().block_size.bytes().into())?;
        let (bytes, found) =
            fs.directory_block(directory, block, budget)?.ok_or(broken(directory, block, Rule::HtreeBlock, 0))?;
        if found != role {
            return Err(broken(directory, block, Rule::HtreeNode, 0));
        }
        let shape = Shape::of(fs, directory, &bytes, role).map_err(|rule| broken(directory, block, rule, 0))?;
        let level = Self { bytes, block, shape, at: 0 };
        if !level.hashes().is_sorted() {
            return Err(broken(directory, block, Rule::HtreeOrder, shape.begin));
        }
        Ok(level)
    }

    /// The description of the whole tree, if this is its root.
    pub(super) fn info(&self) -> Option<&format::HtreeRoot> {
        format::HtreeRoot::ref_from_prefix(&self.bytes).ok().map(|(root, _)| root)
    }

    /// Which hash the tree is sorted by, in its root.
    pub(super) fn version(&self) -> Option<u8> {
        self.info().filter(|info| info.unused_flags & 1 == 0).map(|info| info.hash_version)
    }

    pub(super) fn entries(&self) -> &[format::HtreeEntry] {
        let bytes = self.bytes.get(self.shape.begin..).unwrap_or_default();
        <[format::HtreeEntry]>::ref_from_prefix_with_elems(bytes, self.shape.count).map_or(&[], |(entries, _)| entries)
    }

    /// The lowest hash of each child but the first, which takes whatever is lower.
    fn hashes(&self) -> impl Iterator<Item = u32> {
        self.entries().iter().skip(1).map(|entry| entry.hash.get() & !1)
    }

    /// The last child that begins at or below a hash. One that goes on with the hash of the child before it has bit 0
    /// set, and so begins above it.
    fn covering(&self, hash: u32) -> usize {
        let (_, after_first) = self.entries().split_at_checked(1).unwrap_or_default();
        after_first.partition_point(|entry| entry.hash.get() <= hash)
    }
}

/// Where the entries lie in a block of a hash tree.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// The byte at which the first begins.
    begin: usize,
    /// How many there are: at least 1.
    count: usize,
    /// How many there could be: they fit into the block, with a tail if there is one.
    limit: usize,
}

impl Shape {
    fn of(fs: &Filesystem, directory: &Inode, bytes: &[u8], role: Role) -> Result<Self, Rule> {
        let begin = match role {
            Role::Root => {
                let (root, _) = format::HtreeRoot::ref_from_prefix(bytes).map_err(|_| Rule::HtreeRoot)?;
                let length = |record: &format::DirEntry| record_length(record.rec_len.get(), bytes.len());
                let hidden = length(&root.dot) == 12 && length(&root.dotdot).checked_add(12) == Some(bytes.len());
                if !hidden || root.reserved_zero.get() != 0 || root.info_length != 8 {
                    return Err(Rule::HtreeRoot);
                }
                size_of::<format::HtreeRoot>()
            }
            Role::Node => size_of::<format::DirEntry>(),
            Role::Leaf => return Err(Rule::HtreeNode),
        };
        let tail = if fs.has_directory_tails() { size_of::<format::HtreeTail>() } else { 0 };
        let room = bytes.len().saturating_sub(begin.saturating_add(tail));
        let fitting = room.checked_div(size_of::<format::HtreeEntry>()).unwrap_or(0);

        let behind = bytes.get(begin..).unwrap_or_default();
        let (head, _) = format::HtreeCount::ref_from_prefix(behind).map_err(|_| Rule::HtreeLimit)?;
        let (limit, count) = (usize::from(head.limit.get()), usize::from(head.count.get()));
        // In a directory whose entries hold hashes the kernel leaves room for that of the hidden entry, too, and takes a
        // node for damaged that has it in use; e2fsck writes those.
        let hashes = Naming::of(fs, directory).keeps_hashes();
        let is_smaller = role == Role::Node && hashes && limit.checked_add(1) == Some(fitting);
        let sound = (limit == fitting || is_smaller) && (1..=limit).contains(&count);
        if sound { Ok(Self { begin, count, limit }) } else { Err(Rule::HtreeLimit) }
    }

    /// The byte behind so many entries.
    fn end_of(&self, entries: usize) -> usize {
        entries.saturating_mul(size_of::<format::HtreeEntry>()).saturating_add(self.begin)
    }
}

/// The checksum of a block of a hash tree stands behind the room for its entries, and covers those in use.
pub(super) fn checksum_matches(
    fs: &Filesystem,
    directory: &Inode,
    block: LogicalBlock,
    bytes: &[u8],
    role: Role,
) -> Result<bool> {
    let shape = Shape::of(fs, directory, bytes, role).map_err(|rule| broken(directory, block, rule, 0))?;
    let covered = bytes.get(..shape.end_of(shape.count)).unwrap_or_default();
    let behind = bytes.get(shape.end_of(shape.limit)..).unwrap_or_default();
    let Ok((tail, _)) = format::HtreeTail::ref_from_prefix(behind) else { return Ok(false) };
    let crc = crc32c(directory.checksum_seed, covered);
    let crc = crc32c(crc32c(crc, &tail.dt_reserved.get().to_le_bytes()), &[0; 4]);
    Ok(crc == tail.dt_checksum.get())
}

/// Makes the checksum of a changed block right again, if the place of the checksum is.
#[cfg(test)]
pub(super) fn seal(fs: &Filesystem, directory: &Inode, block: u32, bytes: &mut [u8]) {
    let role = if block == 0 { Role::Root } else { Role::Node };
    if let (true, Ok(shape)) = (fs.has_directory_tails(), Shape::of(fs, directory, bytes, role)) {
        let crc = crc32c(directory.checksum_seed, &bytes[..shape.end_of(shape.count)]);
        let tail = shape.end_of(shape.limit);
        let crc = crc32c(crc32c(crc, &bytes[tail..][..4]), &[0; 4]);
        bytes[tail + 4..][..4].copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use lazaret_policy::corruption::Corruption;
    use lazaret_policy::message::Checksum;

    use super::super::Settings;
    use super::super::hash::HashVersion;
    use super::super::inode::InodeFlags;
    use super::super::sample::{Sample, directory, names};
    use super::*;
    use crate::error::Error;

    const SMALL: &[&str] = &["-b", "1024"];

    fn root_of(fs: &Filesystem, directory: &Inode) -> Level {
        Level::read(fs, directory, LogicalBlock(0), Role::Root, &mut Budget::new()).unwrap()
    }

    fn assert_complete(fs: &Filesystem, names: &[Vec<u8>]) {
        let directory = directory(fs);
        assert!(directory.flags.contains(InodeFlags::INDEX));
        for name in names {
            assert!(fs.lookup(&directory, name).unwrap().is_some(), "{name:?}");
            let absent = [b"!", &name[1..]].concat();
            assert_eq!(fs.lookup(&directory, &absent), Ok(None));
        }
        assert_eq!(fs.lookup(&directory, b".").unwrap(), Some(directory.number));
        assert_eq!(fs.lookup(&directory, b"..").unwrap(), Some(InodeNumber::ROOT));
    }

    #[test]
    fn every_name_is_found_by_each_hash() {
        let bytes = |number: u32| number.to_be_bytes().iter().map(|byte| byte | 0x80).collect::<Vec<u8>>();
        let names: Vec<_> =
            (0..60).map(|number| [&names(1, number)[0][..], &bytes(number as u32 * 7)].concat()).collect();
        for hash in ["legacy", "half", "tea", "legacy_unsigned", "half_unsigned", "tea_unsigned"] {
            let fs = Sample::new(SMALL, Some(hash), &names).open();
            assert_eq!(fs.superblock().hash_unsigned, hash.contains("unsigned"));
            let version = ["legacy", "half", "tea"].iter().position(|name| hash.starts_with(name));
            let root = root_of(&fs, &directory(&fs));
            assert_eq!(root.version().map(usize::from), version);
            assert_complete(&fs, &names);
        }
    }

    /// As e2fsprogs know them, whatever the superblock says of the sign.
    #[test]
    fn every_name_is_found_by_the_versions_that_are_unsigned_by_themselves() {
        let names: Vec<_> = (0..60_u8).map(|number| [&[0x80 | number; 9][..], &[b'x'; 90]].concat()).collect();
        for (version, hash) in [(3, "legacy_unsigned"), (4, "half_unsigned"), (5, "tea_unsigned")] {
            let mut sample = Sample::new(SMALL, Some(hash), &names);
            sample.write(0, 28, &[version]);
            // The flag of the superblock, and no checksum is looked at but the block's.
            sample.bytes[1024 + 0x160] = 1;
            let fs = sample.open_with(Settings { checksum: Checksum::Warn, ..Settings::default() });
            assert!(!fs.superblock().hash_unsigned);
            assert_complete(&fs, &names);
        }
    }

    #[test]
    fn every_name_is_found_in_a_tree_of_two_levels_with_and_without_checksums() {
        let names = names(900, 255);
        for options in [SMALL, &["-b", "1024", "-O", "^metadata_csum"]] {
            let fs = Sample::new(options, Some("half"), &names).open();
            assert_eq!(root_of(&fs, &directory(&fs)).info().unwrap().indirect_levels, 1);
            assert_complete(&fs, &names);
        }
    }

    /// Of 300 000 names some twenty pairs have the same hash, and with three names a leaf some of them are parted.
    #[test]
    fn names_of_the_same_hash_are_found_in_the_leaf_behind() {
        let hash = NameHash { version: HashVersion::HalfMd4, unsigned: false, seed: [1, 2, 3, 4] };
        let mut seen = HashMap::new();
        let mut chosen = names(200, 250);
        for name in names(300_000, 10).into_iter().map(|name| [&name[..], &[b'c'; 240]].concat()) {
            if let Some(other) = seen.insert(hash.of(&name), name.clone()) {
                chosen.extend([name, other]);
            }
        }
        let options = ["-b", "1024", "-E", "hash_seed=01000000-0200-0000-0300-000004000000"];
        let fs = Sample::new(&options, Some("half"), &chosen).open();
        assert_eq!(fs.superblock().hash_seed, hash.seed);
        assert_complete(&fs, &chosen);

        let directory = directory(&fs);
        let root = root_of(&fs, &directory);
        assert_eq!(root.info().unwrap().indirect_levels, 0);
        let parted = root.entries().iter().skip(1).filter(|entry| entry.hash.get() & 1 == 1).count();
        assert!(parted > 0, "no pair was parted: choose other names");
    }

    #[test]
    fn an_unknown_hash_is_answered_block_after_block() {
        let names = names(40, 100);
        let mut sample = Sample::new(SMALL, Some("tea"), &names);
        sample.write(0, 28, &[6]);
        assert_complete(&sample.open(), &names);
        sample.write(0, 28, &[2, 8, 0, 1]);
        assert_complete(&sample.open(), &names);
    }

    #[test]
    fn each_rule_is_found_broken_where_it_is() {
        let names = names(900, 255);
        let mut sample = Sample::new(SMALL, Some("half"), &names);
        let fs = sample.open();
        let found = directory(&fs);
        let inner = root_of(&fs, &found).entries()[0].block.get();
        let blocks = fs.directory_blocks(&found) as u32;
        let sound = sample.bytes.clone();
        let root_entry = |bytes: [u8; 4]| (0, 36, bytes.to_vec());
        let damages = [
            (Rule::HtreeRoot, (0, 4, vec![16, 0])),
            (Rule::HtreeRoot, (0, 16, vec![12, 0])),
            (Rule::HtreeRoot, (0, 24, vec![1])),
            (Rule::HtreeRoot, (0, 29, vec![12])),
            (Rule::HtreeDepth, (0, 30, vec![2])),
            (Rule::HtreeDepth, (0, 30, vec![255])),
            (Rule::HtreeLimit, (0, 32, vec![124])),
            (Rule::HtreeLimit, (0, 34, vec![0, 0])),
            (Rule::HtreeLimit, (0, 34, vec![124, 0])),
            (Rule::HtreeLimit, (inner, 8, vec![1])),
            (Rule::HtreeLimit, (inner, 10, vec![0xff, 0xff])),
            (Rule::HtreeOrder, (inner, 16 + 8, vec![2, 0, 0, 0])),
            (Rule::HtreeBlock, root_entry([0; 4])),
            (Rule::HtreeBlock, root_entry(blocks.to_le_bytes())),
            (Rule::HtreeBlock, root_entry([0xff; 4])),
            (Rule::HtreeBlock, (inner, 12, inner.to_le_bytes().to_vec())),
        ];
        for (rule, (block, offset, bytes)) in damages {
            sample.bytes.clone_from(&sound);
            sample.write(block, offset, &bytes);
            let fs = sample.open();
            let broken = names.iter().filter(|name| {
                match fs.lookup(&found, name) {
                    Ok(found) => assert!(found.is_some()),
                    Err(Error::Corrupt(Corruption { rule: broken, .. })) if broken == rule => return true,
                    Err(error) => panic!("{rule}: {error}"),
                }
                false
            });
            let broken = broken.count();
            assert!(broken > 0, "{rule} at {block}:{offset}");
            // What breaks an inner node hides only what lies beneath it.
            assert!(block == 0 || broken < 900);
        }
    }

    #[test]
    fn a_leaf_in_the_place_of_a_node_is_none() {
        let mut sample = Sample::new(SMALL, Some("half"), &names(900, 255));
        let fs = sample.open();
        let directory = directory(&fs);
        let inner = LogicalBlock(root_of(&fs, &directory).entries()[0].block.get());
        let node = Level::read(&fs, &directory, inner, Role::Node, &mut Budget::new()).unwrap();
        sample.write(0, 36, &node.entries()[0].block.get().to_le_bytes());
        let fs = sample.open();
        let errors = names(900, 255).iter().filter_map(|name| fs.lookup(&directory, name).err()).collect::<Vec<_>>();
        assert!(!errors.is_empty());
        for error in errors {
            assert!(matches!(error, Error::Corrupt(Corruption { rule: Rule::HtreeNode, .. })), "{error}");
        }
    }
}
