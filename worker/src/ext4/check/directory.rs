//! Directories: what each entry names, and each name only once.

use std::sync::Arc;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::Incompat;

use super::inodes::Role;
use super::tree::Tree;
use super::{Check, push};
use crate::error::Result;
use crate::ext4::checksum::crc32c;
use crate::ext4::dir;
use crate::ext4::name::Naming;
use crate::ext4::record::{Record, Records, is_name};
use crate::ext4::units::{InodeNumber, LogicalBlock, usize_from};
use crate::ext4::{Block, Inode, InodeFlags};

/// What is kept of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory {
    pub(super) number: u32,
    /// The directory that names it; 0 while none did.
    pub(super) parent: u32,
    /// What its second entry names; 0 if it has none.
    pub(super) dotdot: u32,
    /// For the search for the root: when it was come by last.
    pub(super) passed: u32,
}

/// A directory that is being looked at.
pub(super) struct Opened {
    inode: Inode,
    naming: Naming,
    tree: Option<Tree>,
    /// The next block of it.
    block: u64,
    /// How many entries came before: the first two are special.
    position: u64,
}

/// A block of a directory that is being looked at.
struct Page<'a> {
    directory: &'a Inode,
    naming: Naming,
    block: LogicalBlock,
    tree: Option<&'a Tree>,
    /// A checksum of each name, and the name.
    names: Vec<(u32, &'a [u8])>,
}

impl Directory {
    pub(super) fn new(number: InodeNumber) -> Self {
        let root = if number == InodeNumber::ROOT { number.value() } else { 0 };
        Self { number: number.value(), parent: root, dotdot: 0, passed: 0 }
    }
}

impl Check<'_> {
    /// One directory, or a part of it. Gives whether the stage is over.
    pub(super) fn next_directory(&mut self) -> Result<bool> {
        let directory = usize::try_from(self.at).ok().and_then(|at| self.directories.get(at).copied());
        let Some(directory) = directory else { return Ok(true) };
        let mut opened = match self.open.take() {
            Some(opened) => opened,
            None => match self.open_directory(directory)? {
                Some(opened) => opened,
                None => {
                    self.at = self.at.saturating_add(1);
                    return Ok(false);
                }
            },
        };
        if self.directory(&mut opened)? {
            self.at = self.at.saturating_add(1);
        } else {
            self.open = Some(opened);
        }
        Ok(false)
    }

    fn open_directory(&mut self, directory: Directory) -> Result<Option<Opened>> {
        self.spend(1);
        let Some(number) = InodeNumber::new(directory.number) else { return Ok(None) };
        let bytes = self.inode_bytes(number)?;
        // What is wrong with the inode was told.
        let Ok(inode) = self.fs.inode_of(number, &bytes, false) else { return Ok(None) };
        let naming = Naming::of(self.fs, &inode);
        let tree = if self.fs.is_hashed(&inode) { self.tree(&inode, naming)? } else { None };
        Ok(Some(Opened { inode, naming, tree, block: 0, position: 0 }))
    }

    /// Goes on with a directory. Gives whether it is at its end.
    fn directory(&mut self, opened: &mut Opened) -> Result<bool> {
        let Opened { inode: directory, naming, tree, block: next, position } = opened;
        while let Some(block) = u32::try_from(*next).ok().filter(|_| *next < self.fs.directory_blocks(directory)) {
            if self.budget == 0 {
                return Ok(false);
            }
            *next = next.saturating_add(1);
            self.spend(1);
            let block = LogicalBlock(block);
            let Some(bytes) = self.page(directory, block)? else { break };
            if let Some(bytes) = bytes {
                let records = Records::of(&bytes, self.fs.superblock().inodes).with_hashes(naming.keeps_hashes());
                let mut page = Page { directory, naming: *naming, block, tree: tree.as_ref(), names: Vec::new() };
                for record in records {
                    match record {
                        Ok(record) => {
                            if *position < 2 {
                                self.hold_terminated(&page, &bytes, &record, *position);
                            }
                            self.record(&mut page, &record, *position)?;
                        }
                        Err((rule, offset)) => self.keep(dir::broken(directory, block, rule, offset))?,
                    }
                    *position = position.saturating_add(1);
                    self.spend(1);
                }
                self.hold_unique(page);
            }
            // The second block has no entry `.` to begin with, even where the first was broken.
            *position = (*position).max(2);
        }
        self.findings.hold(*position >= 2, Rule::DirectoryDotDot, Place::Inode(directory.number.value()));
        Ok(true)
    }

    /// Behind the names of the first two entries comes a NUL.
    fn hold_terminated(&mut self, page: &Page<'_>, bytes: &[u8], record: &Record<'_>, position: u64) {
        /// Bytes of an entry before its name.
        const HEAD: usize = 8;
        let behind = record.begin.saturating_add(HEAD).saturating_add(record.name.len());
        let rule = if position == 0 { Rule::DirectoryDot } else { Rule::DirectoryDotDot };
        let offset = u32::try_from(record.begin).unwrap_or(u32::MAX);
        let place = Place::Directory { inode: page.directory.number.value(), block: page.block.0, offset };
        let dots = matches!(record.name, b"." | b"..");
        self.findings.hold(!dots || bytes.get(behind).is_none_or(|&byte| byte == 0), rule, place);
    }

    /// A block of a directory, or none if it cannot be read; and none at all where the directory is not to be looked at
    /// any further.
    fn page(&mut self, directory: &Inode, block: LogicalBlock) -> Result<Option<Option<Arc<Block>>>> {
        if !directory.flags.contains(InodeFlags::INLINE_DATA) {
            let Some(left) = self.directory_blocks.checked_sub(1) else {
                // More than there are: some were seen before, as another's or its own.
                self.findings.damage(Rule::DirectoryWhole, Place::Inode(directory.number.value()));
                return Ok(None);
            };
            self.directory_blocks = left;
        }
        match self.fs.directory_block(directory, block, &mut self.fs.budget()) {
            Ok(Some((bytes, _))) => Ok(Some(Some(bytes))),
            Ok(None) => {
                // Where a hole is, the blocks behind it have no bound but the size.
                let place = Place::Directory { inode: directory.number.value(), block: block.0, offset: 0 };
                self.findings.damage(Rule::DirectoryHole, place);
                Ok(None)
            }
            Err(error) => self.keep(error).map(|()| Some(None)),
        }
    }

    /// An entry, or the room of one.
    fn record<'a>(&mut self, page: &mut Page<'a>, record: &Record<'a>, position: u64) -> Result<()> {
        let directory = page.directory;
        let place = Place::Directory {
            inode: directory.number.value(),
            block: page.block.0,
            offset: u32::try_from(record.begin).unwrap_or(u32::MAX),
        };
        match position {
            0 => self.findings.hold(
                record.name == b"." && record.inode == Some(directory.number),
                Rule::DirectoryDot,
                place,
            ),
            1 => {
                let named = record.inode.filter(|_| record.name == b"..");
                self.findings.hold(named.is_some(), Rule::DirectoryDotDot, place);
                if let (Some(named), Some(own)) = (named, self.find_directory(directory.number.value())) {
                    own.dotdot = named.value();
                }
            }
            _ => (),
        }
        let Some(number) = record.inode else { return Ok(()) };
        if position > 1 && !self.hold_name(page, record, place)? {
            return Ok(());
        }
        self.hold_named(directory, number, record, position, place);
        Ok(())
    }

    /// The name of an entry, its place in the hash tree, and that there is no other of it in the block.
    fn hold_name<'a>(&mut self, page: &mut Page<'a>, record: &Record<'a>, place: Place) -> Result<bool> {
        let rule = match page.naming.is_encrypted() {
            true => page.naming.show(record, None).err(),
            false if is_name(record.name) => None,
            false => Some(Rule::DirectoryName),
        };
        if let Some(rule) = rule {
            self.findings.damage(rule, place);
            return Ok(false);
        }
        if record.name == b"." || record.name == b".." {
            self.findings.damage(Rule::DirectoryDuplicate, place);
            return Ok(false);
        }
        push(&mut page.names, (crc32c(0, record.name), record.name))?;
        if let Some(tree) = page.tree {
            self.findings.hold(tree.may_hold(page.block, page.naming, record), Rule::HtreeRange, place);
        }
        Ok(true)
    }

    /// Whether the descriptor of its group says that this inode was never written.
    fn is_said_unused(&self, number: InodeNumber) -> bool {
        let group = number.value().saturating_sub(1).checked_div(self.fs.superblock().inodes_per_group);
        group.and_then(|group| self.unused_from.get(usize_from(group))).is_some_and(|&first| number.value() >= first)
    }

    /// What an entry names.
    fn hold_named(&mut self, directory: &Inode, number: InodeNumber, record: &Record<'_>, position: u64, place: Place) {
        let superblock = self.fs.superblock();
        let reserved = (number != InodeNumber::ROOT && number.value() < superblock.first_inode)
            || self.is_named_by_superblock(number);
        let typed = superblock.incompat.contains(Incompat::FILETYPE);
        if self.is_said_unused(number) {
            self.findings.damage(Rule::DirectoryEntryInUse, place);
        }
        let Some(seen) = self.inodes.find(number).filter(|seen| !reserved && seen.role != Role::Free) else {
            self.findings.damage(Rule::DirectoryEntryInUse, place);
            return;
        };
        let (file_type, role) = (seen.file_type, seen.role);
        // That an attribute names it stands for the one name of a value.
        if role != Role::Value {
            seen.named = seen.named.saturating_add(1);
        }
        if matches!(role, Role::Flagged | Role::Value) && position > 1 {
            // No reader gives it to a name, and e2fsck lets it stand.
            self.findings.notice(Rule::DirectoryEntryInUse, place);
        }
        let sound = if typed { file_type == 0 || record.file_type == file_type } else { record.file_type == 0 };
        if typed && !sound && record.file_type == 0 {
            // It was written before there were types, and readers look into the inode.
            self.findings.notice(Rule::DirectoryType, place);
        } else {
            self.findings.hold(sound, Rule::DirectoryType, place);
        }
        if position < 2 {
            return;
        }
        if number == directory.number || number == InodeNumber::ROOT {
            self.findings.damage(Rule::DirectoryParent, place);
            return;
        }
        let parent = directory.number.value();
        let Some(child) = self.find_directory(number.value()) else { return };
        if child.parent == 0 {
            child.parent = parent;
        } else {
            self.findings.damage(Rule::DirectoryParent, place);
        }
    }

    /// Two entries of one name in a block. Where case is folded, names that fold alike are not told.
    fn hold_unique(&mut self, page: Page<'_>) {
        let mut names = page.names;
        names.sort_unstable();
        let double = names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
        let place = Place::Directory { inode: page.directory.number.value(), block: page.block.0, offset: 0 };
        self.findings.hold(!double, Rule::DirectoryDuplicate, place);
    }

    /// What is kept of a directory: they were met in the order of their numbers.
    pub(super) fn find_directory(&mut self, number: u32) -> Option<&mut Directory> {
        let index = self.directories.binary_search_by_key(&number, |directory| directory.number).ok()?;
        self.directories.get_mut(index)
    }
}
