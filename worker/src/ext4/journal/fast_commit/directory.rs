//! The names that fast commits changed, as blocks of their directories.
//!
//! What always holds here: a block that is written has the form and the checksum that any reader demands. A name that
//! is gone or stands for something else is left out of the block that has it; a new one goes where there is room, or
//! into a block behind the directory's own, in memory only, at a number that no device has. A hash tree does not know
//! of such blocks: [`Changes::append`](super::ranges::Changes::append) tells a lookup.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat};
use lazaret_policy::message::Refusal;
use zerocopy::IntoBytes;

use super::replay::{Blocks, Replay, key};
use crate::error::{Error, Result};
use crate::ext4::casefold::COST;
use crate::ext4::checksum::crc32c;
use crate::ext4::dir::Role;
use crate::ext4::format;
use crate::ext4::map::RunKind;
use crate::ext4::record::Records;
use crate::ext4::units::{BlockNumber, InodeNumber, LogicalBlock};
use crate::ext4::{FileKind, Inode, InodeFlags, MappingKind};

/// What fast commits changed in a directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// They made it: nothing of what is on the disk counts.
    pub(super) fresh: bool,
    /// What a name stands for now, by [`key`].
    pub(super) names: Names,
}

/// Names by what tells them apart, which is not their bytes where case is folded.
pub(super) type Names = BTreeMap<Box<[u8]>, Name>;

/// A name that fast commits changed.
#[derive(Debug)]
pub(super) struct Name {
    /// As it is stored.
    pub(super) spelling: Box<[u8]>,
    /// What it stands for; none if it is gone.
    pub(super) inode: Option<InodeNumber>,
}

/// An entry to be written.
struct Entry {
    name: Box<[u8]>,
    inode: InodeNumber,
    file_type: u8,
}

impl Replay<'_, '_> {
    /// An inode becomes a directory with nothing in it.
    pub(super) fn make_directory(&mut self, number: InodeNumber, parent: InodeNumber) -> Result<(), Refusal> {
        self.empty_directory(number)?;
        self.directories.insert(number, Directory { fresh: true, ..Directory::default() });
        self.set_name(number, b".", Some(number))?;
        self.set_name(number, b"..", Some(parent))
    }

    /// Adds the blocks of all directories whose names changed.
    pub(super) fn write_directories(&mut self, blocks: &mut Blocks) -> Result<(), Refusal> {
        let numbers: Vec<_> = self.directories.keys().copied().collect();
        for number in numbers {
            if self.live(number.value())? != Some(FileKind::Directory) {
                continue;
            }
            let fresh = self.directories.get(&number).is_some_and(|directory| directory.fresh);
            let inode = if fresh { None } else { self.fs.inode(number).map(Some)? };
            if inode.as_ref().is_some_and(|inode| inode.flags.contains(InodeFlags::ENCRYPT)) {
                return Err(Error::corrupt(Rule::FastCommitName, Place::Inode(number.value())).into());
            }
            let inode = match inode {
                Some(inode) if inode.flags.contains(InodeFlags::INLINE_DATA) => {
                    self.take_out(&inode)?;
                    None
                }
                inode => inode,
            };
            self.write_directory(number, inode.as_ref(), blocks)?;
        }
        Ok(())
    }

    /// A directory that lies in its inode gets blocks instead.
    fn take_out(&mut self, inode: &Inode) -> Result<(), Refusal> {
        let mut entries = Vec::new();
        self.fs.read_dir(inode, 0, &mut |entry| {
            entries.push((entry.name.to_vec(), entry.inode));
            ControlFlow::Continue(())
        })?;
        let folds = self.folds(inode.number);
        for (name, target) in entries {
            let changed = self.directories.get(&inode.number);
            let known = changed.is_some_and(|changed| changed.names.contains_key(&*key(folds, &name)));
            if !known {
                self.set_name(inode.number, &name, Some(target))?;
            }
        }
        self.empty_directory(inode.number)
    }

    fn write_directory(
        &mut self,
        number: InodeNumber,
        inode: Option<&Inode>,
        blocks: &mut Blocks,
    ) -> Result<(), Refusal> {
        let names = std::mem::take(&mut self.directories.entry(number).or_default().names);
        let mut new = self.new_entries(&names)?.into_iter().peekable();
        let mut count = 0;
        if let Some(inode) = inode {
            count = self.fs.directory_blocks(inode);
            self.rewrite(inode, &names, &mut new, blocks)?;
        }
        let appended = count;
        while new.peek().is_some() {
            let mut block = Packer::new(self, number);
            while new.next_if(|entry| block.push(entry.inode, entry.file_type, &entry.name)).is_some() {}
            let at = self.unused;
            self.unused = self.unused.saturating_add(1);
            self.keep(blocks, at, block.finish())?;
            let kind = RunKind::Data(BlockNumber(at));
            self.changes.ranges(number).set(count, count.saturating_add(1), kind);
            count = count.saturating_add(1);
        }
        if count > appended {
            self.changes.append(number, appended);
            let size = self.fs.superblock().block_size.bytes_of(count).unwrap_or(u64::MAX);
            self.load(number)?;
            self.edit(number, |raw| {
                let [a, b, c, d, e, f, g, h] = size.to_le_bytes();
                raw.i_size_lo = [a, b, c, d].into();
                raw.i_size_high = [e, f, g, h].into();
            });
        }
        Ok(())
    }

    /// The names that stand for something, `.` and `..` in front.
    fn new_entries(&mut self, names: &Names) -> Result<Vec<Entry>, Refusal> {
        let typed = self.fs.superblock().incompat.contains(Incompat::FILETYPE);
        let mut entries = Vec::with_capacity(names.len());
        for Name { spelling, inode } in names.values() {
            let Some(inode) = *inode else { continue };
            let kind = if typed { self.live(inode.value())? } else { None };
            entries.push(Entry { name: spelling.clone(), inode, file_type: kind.map_or(0, file_type) });
        }
        entries.sort_by_key(|entry| !matches!(&entry.name[..], b"." | b".."));
        Ok(entries)
    }

    /// Goes over a directory's own blocks: what changed is left out, and what is new goes where there is room, but not
    /// into a hash tree.
    fn rewrite(
        &mut self,
        inode: &Inode,
        names: &Names,
        new: &mut std::iter::Peekable<impl Iterator<Item = Entry>>,
        blocks: &mut Blocks,
    ) -> Result<(), Refusal> {
        let size = self.fs.superblock().block_size;
        let inodes = self.fs.superblock().inodes;
        let hashed = self.fs.superblock().compat.contains(Compat::DIR_INDEX) && inode.flags.contains(InodeFlags::INDEX);
        let folds = self.folds(inode.number);
        let cost = if folds { COST } else { 1 };
        for index in 0..self.fs.directory_blocks(inode) {
            self.search(cost.saturating_mul(size.bytes().into()))?;
            let block = LogicalBlock(u32::try_from(index).unwrap_or(u32::MAX));
            // What is damaged stays so, and hides its own names.
            let Ok(Some((bytes, Role::Leaf))) = self.fs.directory_block(inode, block, &mut self.work) else {
                continue;
            };
            let Ok(records) = Records::of(&bytes, inodes).collect::<Result<Vec<_>, _>>() else { continue };
            let used = records.iter().filter_map(|record| Some((record, record.inode?)));
            let mut changed = false;
            let mut packer = Packer::new(self, inode.number);
            for (record, target) in used {
                if names.contains_key(&*key(folds, record.name)) {
                    changed = true;
                } else {
                    packer.push(target, record.file_type, record.name);
                }
            }
            while !hashed && new.next_if(|entry| packer.push(entry.inode, entry.file_type, &entry.name)).is_some() {
                changed = true;
            }
            if !changed {
                continue;
            }
            let run = self.fs.map(inode, size.file_offset(block), size.bytes().into())?;
            let MappingKind::Data(start) = run.kind else { continue };
            let at = start.0.checked_shr(size.bits().into()).unwrap_or(0);
            self.keep(blocks, at, packer.finish())?;
        }
        Ok(())
    }

    fn keep(&mut self, blocks: &mut Blocks, at: u64, bytes: Box<[u8]>) -> Result<(), Refusal> {
        self.spend_block()?;
        blocks.insert(at, bytes);
        Ok(())
    }
}

/// A block of a directory that is being written.
struct Packer {
    bytes: Box<[u8]>,
    /// Where the last entry begins, and where it could end.
    last: usize,
    next: usize,
    /// Where entries end: there stands the checksum, if there is one.
    end: usize,
    seed: Option<u32>,
}

impl Packer {
    fn new(replay: &Replay<'_, '_>, directory: InodeNumber) -> Self {
        let size = replay.fs.superblock().block_size.length();
        let seed = replay.fs.has_directory_tails().then(|| replay.checksum_seed(directory));
        let tail = if seed.is_some() { size_of::<format::DirEntryTail>() } else { 0 };
        Self { bytes: vec![0; size].into_boxed_slice(), last: 0, next: 0, end: size.saturating_sub(tail), seed }
    }

    /// Adds an entry, unless there is no room.
    fn push(&mut self, inode: InodeNumber, file_type: u8, name: &[u8]) -> bool {
        let begin = self.next;
        let name_begin = begin.saturating_add(size_of::<format::DirEntry>());
        let name_end = name_begin.saturating_add(name.len());
        let next = name_end.next_multiple_of(4);
        let Ok(name_len) = u8::try_from(name.len()) else { return false };
        if next > self.end {
            return false;
        }
        let entry = format::DirEntry { inode: inode.value().into(), rec_len: 0.into(), name_len, file_type };
        self.put(begin, entry.as_bytes());
        self.put(name_begin, name);
        self.set_length(begin.saturating_sub(self.last));
        (self.last, self.next) = (begin, next);
        true
    }

    /// The last entry reaches to the end.
    fn finish(mut self) -> Box<[u8]> {
        self.set_length(self.end.saturating_sub(self.last));
        if let Some(seed) = self.seed {
            let crc = crc32c(seed, self.bytes.get(..self.end).unwrap_or_default());
            let tail = format::DirEntryTail {
                det_reserved_zero1: 0.into(),
                det_rec_len: 12.into(),
                det_reserved_zero2: 0,
                det_reserved_ft: format::DIR_TAIL_TYPE,
                det_checksum: crc.into(),
            };
            self.put(self.end, tail.as_bytes());
        }
        self.bytes
    }

    /// The length of the last entry: a whole block of 64 KiB does not fit 16 bits and is told otherwise.
    fn set_length(&mut self, length: usize) {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        if length > 0 {
            self.put(self.last.saturating_add(4), &length.to_le_bytes());
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }
}

fn file_type(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharacterDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
    }
}
