//! Directories: from a name to an inode, and the list of names.
//!
//! What always holds here: a name that is passed on has 1 to 255 bytes without a slash or NUL, and its inode number is
//! one that exists. Cookies are positions and rise, whatever the image says. A damaged block hides its own names and no
//! others. One call looks at no more than its [`Budget`] allows. On the way of a read this comes first: name → inode.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use zerocopy::FromBytes;

use super::budget::Budget;
use super::checksum::{Kind, crc32c};
use super::format;
use super::hash::NameHash;
use super::htree::{self, Answer};
use super::inode::{FileKind, Inode, InodeFlags};
use super::map::MappingKind;
use super::name::{Match, Naming, Wanted};
use super::record::{Records, record_length};
use super::units::{ByteOffset, FileOffset, InodeNumber, LogicalBlock, u64_from, usize_from};
use super::{Block, Filesystem};
use crate::error::{Error, Result};

/// How many bytes it is worth to show a name of ciphertext.
const ENCODING: u64 = 512;

/// The bit of a cookie that remembers damage before it, above any position: a directory ends below 2^48.
const DAMAGED: u64 = 1 << 62;

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// What it names.
    pub inode: InodeNumber,
    /// The type of the file, as far as the directory says it: a hint, the inode is what counts.
    pub kind: Option<FileKind>,
    /// 1 to 255 bytes, without a slash or NUL.
    pub name: &'a [u8],
    /// Where to go on after it. Never 0, and higher than that of the entry before.
    pub cookie: u64,
}

impl Filesystem {
    /// The inode that a name stands for, if the directory has the name.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; [`Error::NameTooLong`]; [`Error::Invalid`] for what is not UTF-8 where only that may be,
    /// unless there is such a name; the damage of a block in which the name may be, if it is in no
    /// other: [`Error::Corrupt`], [`Error::Checksum`], [`Error::Device`]; [`Error::Budget`].
    pub fn lookup(&self, directory: &Inode, name: &[u8]) -> Result<Option<InodeNumber>> {
        self.lookup_within(directory, name, &mut self.budget())
    }

    /// As [`Self::lookup`], for one who looks up more than one name.
    pub(super) fn lookup_within(
        &self,
        directory: &Inode,
        name: &[u8],
        budget: &mut Budget,
    ) -> Result<Option<InodeNumber>> {
        check_kind(directory)?;
        let naming = Naming::of(self, directory);
        let Some(wanted) = naming.wanted(name)? else { return Ok(None) };
        let blocks = 0..self.directory_blocks(directory);
        let found = if !self.is_hashed(directory) {
            self.lookup_linear(directory, blocks, Search::new(naming, &wanted, budget))?
        } else if name == b"." || name == b".." {
            // They stand in front of the tree's root and are in no leaf.
            self.lookup_linear(directory, 0..1, Search::new(naming, &wanted, budget))?
        } else {
            match htree::lookup(self, directory, Search::new(naming, &wanted, budget))? {
                Answer::Found(number) => Some(number),
                Answer::Absent if !naming.may_lie_elsewhere(name) => match self.changes.appended(directory.number) {
                    Some(first) => {
                        self.lookup_linear(directory, first..blocks.end, Search::new(naming, &wanted, budget))?
                    }
                    None => None,
                },
                Answer::Absent | Answer::Unknown => {
                    self.lookup_linear(directory, blocks, Search::new(naming, &wanted, budget))?
                }
            }
        };
        found.map_or_else(|| naming.absent(name), |number| Ok(Some(number)))
    }

    /// Visits the entries after `cookie` in the order they lie in, until `visit` breaks; 0 begins. `.` and `..` are
    /// entries like others.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]. Damage, **after all entries that could be read were visited**; the cookies after it
    /// remember it, so that whoever reads a directory piece by piece gets the error at its end. [`Error::Budget`] where
    /// there is more to come: go on from the last cookie.
    pub fn read_dir(
        &self,
        directory: &Inode,
        cookie: u64,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        check_kind(directory)?;
        let size = self.superblock().block_size;
        let mut damage = None;
        if cookie & DAMAGED != 0 {
            damage = Some(Error::corrupt(Rule::DirectoryWhole, Place::Inode(directory.number.value())));
        }
        let naming = Naming::of(self, directory);
        let hash = self.shown_hash(directory, naming);
        let mut budget = self.budget();
        let mut at = FileOffset(cookie & !DAMAGED);
        while let Some((block, begin)) = self.within(directory, at) {
            budget.spend(size.bytes().into())?;
            let skip = usize_from(size.within_block(at));
            at = FileOffset(begin.saturating_add(size.bytes().into()));
            match self.directory_block(directory, block, &mut budget) {
                Ok(Some((bytes, _))) => {
                    let records = Records::of(&bytes, self.superblock().inodes);
                    for record in records.with_hashes(naming.keeps_hashes()) {
                        let record = match record {
                            Ok(record) => record,
                            Err((rule, offset)) => {
                                damage.get_or_insert(broken(directory, block, rule, offset));
                                break;
                            }
                        };
                        let Some(inode) = record.inode.filter(|_| record.begin >= skip) else { continue };
                        if naming.is_encrypted() {
                            budget.spend(ENCODING)?;
                        }
                        let name = match naming.show(&record, hash) {
                            Ok(name) => name,
                            Err(rule) => {
                                damage.get_or_insert(broken(directory, block, rule, record.begin));
                                continue;
                            }
                        };
                        let flag = if damage.is_some() { DAMAGED } else { 0 };
                        let cookie = begin.saturating_add(u64_from(record.end)) | flag;
                        let entry = DirEntry { inode, kind: self.kind(record.file_type), name: &name, cookie };
                        if visit(entry).is_break() {
                            return Ok(());
                        }
                    }
                }
                Ok(None) => at = self.behind_hole(directory, begin, &mut budget)?,
                Err(error) if is_damage(&error) => {
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(()), Err)
    }

    /// Block after block. What is found counts, though a block before it may be damaged.
    fn lookup_linear(
        &self,
        directory: &Inode,
        blocks: Range<u64>,
        mut search: Search<'_>,
    ) -> Result<Option<InodeNumber>> {
        let size = self.superblock().block_size;
        let begin = size.bytes_of(blocks.start).unwrap_or(u64::MAX);
        let (mut damage, mut at) = (None, FileOffset(begin));
        while let Some((block, begin)) = self.within(directory, at).filter(|(block, _)| u64::from(block.0) < blocks.end)
        {
            search.budget.spend(size.bytes().into())?;
            at = FileOffset(begin.saturating_add(size.bytes().into()));
            let found = match self.directory_block(directory, block, search.budget) {
                Ok(Some((bytes, _))) => self.find(directory, block, &bytes, &mut search),
                Ok(None) => {
                    at = self.behind_hole(directory, begin, search.budget)?;
                    Ok(None)
                }
                Err(error) => Err(error),
            };
            match found {
                Ok(None) => (),
                Ok(found) => return Ok(found),
                Err(error) if is_damage(&error) => {
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match damage {
            Some(error) if search.alike.is_none() => Err(error),
            _ => Ok(search.alike),
        }
    }

    /// The inode that the name stands for in one block. What is only alike is kept with the search.
    pub(super) fn find(
        &self,
        directory: &Inode,
        block: LogicalBlock,
        bytes: &[u8],
        search: &mut Search<'_>,
    ) -> Result<Option<InodeNumber>> {
        for record in Records::of(bytes, self.superblock().inodes).with_hashes(search.naming.keeps_hashes()) {
            let record = record.map_err(|(rule, offset)| broken(directory, block, rule, offset))?;
            let Some(inode) = record.inode else { continue };
            match search.wanted.matches(record.name, search.budget)? {
                Match::Same => return Ok(Some(inode)),
                Match::Alike => search.alike = search.alike.or(Some(inode)),
                Match::No => (),
            }
        }
        Ok(None)
    }

    /// The hash that the kernel shows ciphertext with. It goes by a tree where there is one, and where one block is all,
    /// as if there were; elsewhere it computes none.
    fn shown_hash(&self, directory: &Inode, naming: Naming) -> Option<NameHash> {
        let superblock = self.superblock();
        if !naming.is_encrypted() || naming.keeps_hashes() || !superblock.compat.contains(Compat::DIR_INDEX) {
            None
        } else if self.is_hashed(directory) {
            htree::hash(self, directory).ok().flatten()
        } else {
            let alone = superblock.block_size.blocks_for(directory.size) == 1;
            superblock.name_hash(superblock.hash_version).filter(|_| alone)
        }
    }

    /// A block of a directory that matches its checksum, and what it is; none where there is a hole. Looking for it is
    /// charged.
    pub(super) fn directory_block(
        &self,
        directory: &Inode,
        block: LogicalBlock,
        budget: &mut Budget,
    ) -> Result<Option<(Arc<Block>, Role)>> {
        if directory.flags.contains(InodeFlags::INLINE_DATA) {
            return Ok(self.inline_directory_block(directory, block)?.map(|bytes| (Arc::new(bytes), Role::Leaf)));
        }
        let Some(place) = self.place_of_block(directory, block, budget)? else { return Ok(None) };
        let (inode, seed, hashed) = (directory.number.value(), directory.checksum_seed, self.is_hashed(directory));
        let key = BlockKey { seed, inode, block, place, hashed };
        if let Some(kept) = self.kept.blocks.find(&key) {
            return Ok(Some(kept));
        }
        let bytes = self.copy_block(place)?;
        let hidden = || format::DirEntry::ref_from_prefix(&bytes).is_ok_and(|(first, _)| fills(first, &bytes));
        let role = match block {
            LogicalBlock(0) if hashed => Role::Root,
            _ if hashed && hidden() => Role::Node,
            _ => Role::Leaf,
        };
        let mut matches = true;
        if self.verifier().kind() == Kind::Crc32c {
            matches = match role {
                Role::Root | Role::Node => htree::checksum_matches(self, directory, block, &bytes, role)?,
                Role::Leaf => checksum_matches(&bytes, seed),
            };
            let place = Place::Directory { inode, block: block.0, offset: 0 };
            self.verifier().judge(matches, Rule::DirectoryChecksum, place)?;
        }
        let found = (Arc::new(bytes), role);
        if matches {
            self.kept.blocks.keep(key, found.clone());
        }
        Ok(Some(found))
    }

    /// How many blocks a directory has, the last one perhaps in part.
    pub(super) fn directory_blocks(&self, directory: &Inode) -> u64 {
        if directory.flags.contains(InodeFlags::INLINE_DATA) {
            return Self::INLINE_DIRECTORY_BLOCKS.into();
        }
        self.superblock().block_size.blocks_for(directory.size)
    }

    /// The block that a position lies in, and where it begins; none behind the end.
    fn within(&self, directory: &Inode, at: FileOffset) -> Option<(LogicalBlock, u64)> {
        let size = self.superblock().block_size;
        let block = size.logical_block(at).filter(|&block| u64::from(block.0) < self.directory_blocks(directory))?;
        Some((block, size.file_offset(block).0))
    }

    /// Where to look on where no block is: behind the hole, at the begin of a block.
    fn behind_hole(&self, directory: &Inode, begin: u64, budget: &mut Budget) -> Result<FileOffset> {
        let size = self.superblock().block_size;
        let rest = directory.size.saturating_sub(begin);
        let run = match self.map_within(directory, FileOffset(begin), rest, budget) {
            Err(Error::Budget) => return Err(Error::Budget),
            run => run.ok(),
        };
        let run = run.filter(|run| !matches!(run.kind, MappingKind::Data(_))).map_or(0, |run| run.length);
        let length = size.bytes_of(size.blocks_for(run)).unwrap_or(rest);
        Ok(FileOffset(begin.saturating_add(length.max(size.bytes().into()))))
    }

    pub(super) fn is_hashed(&self, directory: &Inode) -> bool {
        let flags = directory.flags;
        let flagged = flags.contains(InodeFlags::INDEX) && !flags.contains(InodeFlags::INLINE_DATA);
        flagged && self.superblock().compat.contains(Compat::DIR_INDEX)
    }

    /// Whether the blocks of directories have room for a checksum, be it computed or not.
    pub(super) fn has_directory_tails(&self) -> bool {
        self.superblock().ro_compat.contains(RoCompat::METADATA_CSUM)
    }

    fn kind(&self, file_type: u8) -> Option<FileKind> {
        if !self.superblock().incompat.contains(Incompat::FILETYPE) {
            return None;
        }
        Some(match file_type {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::CharacterDevice,
            4 => FileKind::BlockDevice,
            5 => FileKind::Fifo,
            6 => FileKind::Socket,
            7 => FileKind::Symlink,
            _ => return None,
        })
    }
}

/// What a block of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Entries.
    Leaf,
    /// The root of a hash tree, behind `.` and `..`.
    Root,
    /// An inner node of a hash tree, behind an empty entry.
    Node,
}

/// Everything that the check of a block of a directory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockKey {
    /// The inode's checksum seed.
    pub(super) seed: u32,
    pub(super) inode: u32,
    pub(super) block: LogicalBlock,
    /// Where it lies.
    pub(super) place: ByteOffset,
    /// Whether the directory has a hash tree.
    pub(super) hashed: bool,
}

/// A search for a name through blocks of a directory.
pub(super) struct Search<'a> {
    pub(super) naming: Naming,
    pub(super) wanted: &'a Wanted<'a>,
    /// What it may still cost.
    pub(super) budget: &'a mut Budget,
    /// The first entry that has the name in another case.
    pub(super) alike: Option<InodeNumber>,
}

impl<'a> Search<'a> {
    pub(super) fn new(naming: Naming, wanted: &'a Wanted<'a>, budget: &'a mut Budget) -> Self {
        Self { naming, wanted, budget, alike: None }
    }
}

/// A rule of this directory's format that is broken at a byte of one of its blocks.
pub(super) fn broken(directory: &Inode, block: LogicalBlock, rule: Rule, offset: usize) -> Error {
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    Error::corrupt(rule, Place::Directory { inode: directory.number.value(), block: block.0, offset })
}

/// Damage concerns a block; any other error whoever asked.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_) | Error::Checksum(_) | Error::Device { .. })
}

fn check_kind(directory: &Inode) -> Result<()> {
    if directory.kind == FileKind::Directory { Ok(()) } else { Err(Error::NotDirectory) }
}

/// Whether the block is one single record.
fn fills(first: &format::DirEntry, block: &[u8]) -> bool {
    record_length(first.rec_len.get(), block.len()) == block.len()
}

/// The checksum of a leaf stands in what looks like an empty entry at its end, and covers everything before that. A leaf
/// without one does not match.
fn checksum_matches(block: &[u8], seed: u32) -> bool {
    let Ok((covered, tail)) = format::DirEntryTail::ref_from_suffix(block) else { return false };
    tail.det_reserved_zero1.get() == 0
        && usize::from(tail.det_rec_len.get()) == size_of::<format::DirEntryTail>()
        && tail.det_reserved_zero2 == 0
        && tail.det_reserved_ft == format::DIR_TAIL_TYPE
        && crc32c(seed, covered) == tail.det_checksum.get()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lazaret_policy::corruption::Corruption;
    use lazaret_policy::message::Checksum;

    use super::super::Settings;
    use super::super::record::is_name;
    use super::super::sample::{Sample, directory, names};
    use super::*;

    const LINEAR: &[&str] = &["-b", "1024", "-O", "^dir_index"];

    /// The names that are listed from a cookie on, at most `most` at a time; the last result.
    fn list(fs: &Filesystem, directory: &Inode, mut cookie: u64, most: usize) -> (Vec<Vec<u8>>, Result<()>) {
        let mut listed = Vec::new();
        loop {
            let (before, mut room) = (listed.len(), most);
            let result = fs.read_dir(directory, cookie, &mut |entry| {
                if room == 0 {
                    return ControlFlow::Break(());
                }
                assert!(entry.cookie > cookie, "cookies rise");
                (room, cookie) = (room - 1, entry.cookie);
                assert!(entry.inode.value() <= fs.superblock().inodes);
                listed.push(entry.name.to_vec());
                ControlFlow::Continue(())
            });
            if listed.len() == before {
                return (listed, result);
            }
        }
    }

    fn sorted(names: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        names.iter().cloned().collect()
    }

    fn with_dots(names: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        names.iter().cloned().chain([b".".to_vec(), b"..".to_vec()]).collect()
    }

    /// Every byte that a name can have, and every length.
    fn strange_names() -> Vec<Vec<u8>> {
        let bytes = (1..=255).filter(|&byte| byte != b'/').map(|byte| vec![b'x', byte]);
        bytes.chain((1..=255).map(|length| vec![0xff; length])).collect()
    }

    #[test]
    fn every_name_is_listed_once_and_found_whatever_its_bytes() {
        let names = strange_names();
        for options in [LINEAR, &["-b", "65536"], &["-b", "4096", "-O", "^metadata_csum,^filetype"]] {
            let fs = Sample::new(options, None, &names).open();
            let directory = directory(&fs);
            for most in [1, 7, usize::MAX] {
                let (listed, result) = list(&fs, &directory, 0, most);
                assert_eq!((listed.len(), result), (names.len() + 2, Ok(())));
                assert_eq!(sorted(&listed), with_dots(&names));
            }
            fs.read_dir(&directory, 0, &mut |entry| {
                assert_eq!(fs.lookup(&directory, entry.name), Ok(Some(entry.inode)));
                let kind = fs.inode(entry.inode).unwrap().kind;
                assert_eq!(entry.kind, options.concat().contains("filetype").then_some(kind).xor(Some(kind)));
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(fs.lookup(&directory, b".").unwrap(), Some(directory.number));
            assert_eq!(fs.lookup(&directory, b"..").unwrap(), Some(InodeNumber::ROOT));
            for absent in [&b""[..], b"x", b"x/", b"xx\0", b"..."] {
                assert_eq!(fs.lookup(&directory, absent), Ok(None));
            }
            assert_eq!(fs.lookup(&directory, &[b'a'; 256]), Err(Error::NameTooLong));
            let file = fs.inode(fs.lookup(&directory, b"xx").unwrap().unwrap()).unwrap();
            assert_eq!(fs.lookup(&file, b"xx"), Err(Error::NotDirectory));
        }
    }

    #[test]
    fn a_cookie_inside_a_record_goes_on_with_the_next() {
        let fs = Sample::new(LINEAR, None, &names(50, 20)).open();
        let directory = directory(&fs);
        let (all, _) = list(&fs, &directory, 0, 1);
        // `.` and `..` take 12 bytes each, a name of 20 bytes 28.
        for (cookie, skipped) in [(1, 1), (12, 1), (13, 2), (24, 2), (25, 3), (52, 3), (53, 4)] {
            assert_eq!(list(&fs, &directory, cookie, 9).0, all[skipped..]);
        }
        for cookie in [directory.size, u64::MAX >> 2, u64::MAX >> 1 & !DAMAGED] {
            assert_eq!(list(&fs, &directory, cookie, 9), (vec![], Ok(())));
        }
    }

    #[test]
    fn a_broken_record_hides_what_follows_in_its_block_and_nothing_else() {
        let names = names(200, 20);
        let mut sample = Sample::new(LINEAR, None, &names);
        sample.write(2, 28 * 5 + 4, &[13, 0]);
        let fs = sample.open();
        let directory = directory(&fs);
        let error = broken(&directory, LogicalBlock(2), Rule::DirectoryRecordLength, 28 * 5);

        let mut listed = Vec::new();
        let visit = &mut |entry: DirEntry<'_>| {
            listed.push(entry.name.to_vec());
            ControlFlow::Continue(())
        };
        assert_eq!(fs.read_dir(&directory, 0, visit), Err(error));
        let hidden = with_dots(&names).len() - listed.len();
        assert!((20..40).contains(&hidden), "{hidden}");

        let (in_pieces, result) = list(&fs, &directory, 0, 3);
        assert_eq!(in_pieces, listed);
        assert!(matches!(result, Err(Error::Corrupt(Corruption { rule: Rule::DirectoryWhole, .. }))));

        for name in &names {
            let expected = if listed.contains(name) { Ok(true) } else { Err(error) };
            assert_eq!(fs.lookup(&directory, name).map(|found| found.is_some()), expected);
        }
    }

    #[test]
    fn a_name_with_a_slash_or_none_is_not_passed_on() {
        let names = names(20, 20);
        let mut sample = Sample::new(LINEAR, None, &names);
        sample.write(0, 24 + 28 + 12, b"/");
        sample.write(0, 24 + 28 * 2 + 6, &[0]);
        let fs = sample.open();
        let (listed, result) = list(&fs, &directory(&fs), 0, usize::MAX);
        assert_eq!(listed.len(), names.len());
        assert!(listed.iter().all(|name| is_name(name)));
        assert!(result.is_err());
    }

    #[test]
    fn a_wrong_checksum_hides_its_block_unless_it_is_let_pass() {
        let names = names(200, 20);
        let mut sample = Sample::new(LINEAR, None, &names);
        sample.damage(3, |_| ());
        let sound = sample.bytes.clone();
        sample.write(3, 8, b"-");
        let offset = sound.iter().zip(&sample.bytes).position(|(old, new)| old != new).unwrap();
        sample.bytes = sound;
        sample.bytes[offset] = b'-';

        let fs = sample.open();
        let directory = directory(&fs);
        let place = Place::Directory { inode: directory.number.value(), block: 3, offset: 0 };
        let error = Error::Checksum(Corruption { rule: Rule::DirectoryChecksum, place });
        let (listed, _) = list(&fs, &directory, 0, usize::MAX);
        assert!((130..=180).contains(&listed.len()));
        assert_eq!(fs.lookup(&directory, b"absent"), Err(error));

        let fs = sample.open_with(Settings { checksum: Checksum::Warn, ..Settings::default() });
        assert_eq!(list(&fs, &directory, 0, usize::MAX).0.len(), names.len() + 2);
        assert!(fs.verifier().failures() > 0);
    }

    #[test]
    fn holes_are_skipped_in_runs_however_long_they_are() {
        let names = names(100, 20);
        let options = ["-b", "1024", "-O", "^dir_index,^extents,^64bit,^metadata_csum"];
        let fs = Sample::new(&options, None, &names).open();
        let mut directory = directory(&fs);
        let (all, _) = list(&fs, &directory, 0, usize::MAX);
        directory.size = 4 << 30;
        assert_eq!(list(&fs, &directory, 0, usize::MAX), (all.clone(), Ok(())));
        assert_eq!(fs.lookup(&directory, b"absent"), Ok(None));
        // The second pointer: what lay there is gone, the rest is where it was.
        directory.map[4..8].fill(0);
        let (listed, result) = list(&fs, &directory, 0, 5);
        assert_eq!((result, all.len() - listed.len()), (Ok(()), 36));
    }

    #[test]
    fn an_endless_directory_is_given_up_and_goes_on_from_its_last_cookie() {
        let options = ["-b", "1024", "-O", "^dir_index,^extents,^64bit,^metadata_csum"];
        let fs = Sample::new(&options, None, &names(40, 20)).open();
        let mut directory = directory(&fs);
        // One block of pointers, all of them to itself, three times.
        let own = directory.map[0..4].to_vec();
        directory.map[56..60].copy_from_slice(&own);
        directory.size = 8 << 30;
        let mut number = 0_u64;
        let result = fs.read_dir(&directory, 0, &mut |_| {
            number += 1;
            ControlFlow::Continue(())
        });
        assert!(result.is_err() && number <= super::super::budget::MOST_BYTES / 12);
        assert!(fs.lookup(&directory, b"absent").is_err());
    }
}
