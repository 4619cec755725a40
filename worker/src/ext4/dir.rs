//! Directories: from a name to an inode, and the list of names.
//!
//! What always holds here: a name that is passed on has 1 to 255 bytes without a slash or NUL, and its inode number is
//! one that exists. Cookies are positions and rise, whatever the image says. A damaged block hides its own names and no
//! others. One call looks at no more than [`MOST_BYTES`]. On the way of a read this comes first: name → inode.

use std::ops::ControlFlow;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use zerocopy::FromBytes;

use super::checksum::{Kind, crc32c};
use super::format;
use super::htree::{self, Answer};
use super::inode::{FileKind, Inode, InodeFlags};
use super::map::MappingKind;
use super::record::{Records, is_name, record_length};
use super::units::{FileOffset, InodeNumber, LogicalBlock, u64_from, usize_from};
use super::{Block, Filesystem};
use crate::error::{Error, Result};

/// How many bytes of a directory one call may look at.
const MOST_BYTES: u64 = 256 << 20;

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
    /// [`Error::NotDirectory`]; [`Error::NameTooLong`]; the damage of a block in which the name may be, if it is in no
    /// other: [`Error::Corrupt`], [`Error::Checksum`], [`Error::Device`]; [`Error::Budget`].
    pub fn lookup(&self, directory: &Inode, name: &[u8]) -> Result<Option<InodeNumber>> {
        check_kind(directory)?;
        if name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        if !is_name(name) {
            return Ok(None);
        }
        if !self.is_hashed(directory) {
            return self.lookup_linear(directory, name, self.directory_blocks(directory));
        }
        // They stand in front of the tree's root and are in no leaf.
        if name == b"." || name == b".." {
            return self.lookup_linear(directory, name, 1);
        }
        match htree::lookup(self, directory, name)? {
            Answer::Found(number) => Ok(Some(number)),
            Answer::Absent => Ok(None),
            Answer::Unknown => self.lookup_linear(directory, name, self.directory_blocks(directory)),
        }
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
        let mut budget = Budget::new();
        let mut at = FileOffset(cookie & !DAMAGED);
        while let Some((block, begin)) = self.within(directory, at) {
            budget.spend(size.bytes().into())?;
            let skip = usize_from(size.within_block(at));
            at = FileOffset(begin.saturating_add(size.bytes().into()));
            match self.directory_block(directory, block) {
                Ok(Some((bytes, _))) => {
                    for record in Records::of(&bytes, self.superblock()) {
                        let record = match record {
                            Ok(record) => record,
                            Err((rule, offset)) => {
                                damage.get_or_insert(broken(directory, block, rule, offset));
                                break;
                            }
                        };
                        let Some(inode) = record.inode.filter(|_| record.begin >= skip) else { continue };
                        if !is_name(record.name) {
                            damage.get_or_insert(broken(directory, block, Rule::DirectoryName, record.begin));
                            continue;
                        }
                        let flag = if damage.is_some() { DAMAGED } else { 0 };
                        let cookie = begin.saturating_add(u64_from(record.end)) | flag;
                        let entry = DirEntry { inode, kind: self.kind(record.file_type), name: record.name, cookie };
                        if visit(entry).is_break() {
                            return Ok(());
                        }
                    }
                }
                Ok(None) => at = self.behind_hole(directory, begin),
                Err(error) if is_damage(&error) => {
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(()), Err)
    }

    /// Block after block. What is found counts, though a block before it may be damaged.
    fn lookup_linear(&self, directory: &Inode, name: &[u8], blocks: u64) -> Result<Option<InodeNumber>> {
        let size = self.superblock().block_size;
        let mut budget = Budget::new();
        let (mut damage, mut at) = (None, FileOffset(0));
        while let Some((block, begin)) = self.within(directory, at).filter(|(block, _)| u64::from(block.0) < blocks) {
            budget.spend(size.bytes().into())?;
            at = FileOffset(begin.saturating_add(size.bytes().into()));
            let found = match self.directory_block(directory, block) {
                Ok(Some((bytes, _))) => self.find(directory, block, &bytes, name),
                Ok(None) => {
                    at = self.behind_hole(directory, begin);
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
        damage.map_or(Ok(None), Err)
    }

    /// The inode that a name stands for in one block.
    pub(super) fn find(
        &self,
        directory: &Inode,
        block: LogicalBlock,
        bytes: &[u8],
        name: &[u8],
    ) -> Result<Option<InodeNumber>> {
        for record in Records::of(bytes, self.superblock()) {
            let record = record.map_err(|(rule, offset)| broken(directory, block, rule, offset))?;
            if record.name == name && record.inode.is_some() {
                return Ok(record.inode);
            }
        }
        Ok(None)
    }

    /// A block of a directory that matches its checksum, and what it is; none where there is a hole.
    pub(super) fn directory_block(&self, directory: &Inode, block: LogicalBlock) -> Result<Option<(Block, Role)>> {
        let Some(bytes) = self.read_block(directory, block)? else { return Ok(None) };
        let hidden = || format::DirEntry::ref_from_prefix(&bytes).is_ok_and(|(first, _)| fills(first, &bytes));
        let role = match block {
            LogicalBlock(0) if self.is_hashed(directory) => Role::Root,
            _ if self.is_hashed(directory) && hidden() => Role::Node,
            _ => Role::Leaf,
        };
        if self.verifier().kind() == Kind::Crc32c {
            let matches = match role {
                Role::Root | Role::Node => htree::checksum_matches(self, directory, block, &bytes, role)?,
                Role::Leaf => checksum_matches(&bytes, directory.checksum_seed),
            };
            let place = Place::Directory { inode: directory.number.value(), block: block.0, offset: 0 };
            self.verifier().judge(matches, Rule::DirectoryChecksum, place)?;
        }
        Ok(Some((bytes, role)))
    }

    /// How many blocks a directory has, the last one perhaps in part.
    pub(super) fn directory_blocks(&self, directory: &Inode) -> u64 {
        self.superblock().block_size.blocks_for(directory.size)
    }

    /// The block that a position lies in, and where it begins; none behind the end.
    fn within(&self, directory: &Inode, at: FileOffset) -> Option<(LogicalBlock, u64)> {
        let size = self.superblock().block_size;
        let block = size.logical_block(at).filter(|_| at.0 < directory.size)?;
        Some((block, size.file_offset(block).0))
    }

    /// Where to look on where no block is: behind the hole, at the begin of a block.
    fn behind_hole(&self, directory: &Inode, begin: u64) -> FileOffset {
        let size = self.superblock().block_size;
        let rest = directory.size.saturating_sub(begin);
        let run = self.map(directory, FileOffset(begin), rest);
        let run = run.ok().filter(|run| !matches!(run.kind, MappingKind::Data(_))).map_or(0, |run| run.length);
        let length = size.bytes_of(size.blocks_for(run)).unwrap_or(rest);
        FileOffset(begin.saturating_add(length.max(size.bytes().into())))
    }

    fn is_hashed(&self, directory: &Inode) -> bool {
        self.superblock().compat.contains(Compat::DIR_INDEX) && directory.flags.contains(InodeFlags::INDEX)
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

/// What is left of the bytes that one call may look at.
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(MOST_BYTES)
    }

    pub(super) fn spend(&mut self, bytes: u64) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or(Error::Budget)?;
        Ok(())
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
