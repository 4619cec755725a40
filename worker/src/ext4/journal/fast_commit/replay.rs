//! The tags of fast commits one after the other, as changes of inodes, of ranges and of names, all in memory.
//!
//! What always holds here: the outcome is what the kernel's replay would have written (`fs/ext4/fast_commit.c`), with
//! its peculiarities: an inode's map stays as it is on the disk and only ranges change it; a directory that is created
//! has one link. What is not there any more is passed over where the kernel passes over it. The memory is bounded by
//! the [`Budget`], the work by the tags and by [`MOST_SEARCHED`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry::Vacant;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Incompat, RoCompat};
use lazaret_policy::message::Refusal;
use lazaret_policy::planted;
use zerocopy::{FromZeros, IntoBytes};

use super::directory::{Directory, Name};
use super::ranges::Changes;
use super::tag::{Dentry, Tag};
use crate::error::{Error, Result};
use crate::ext4::budget::Budget as Work;
use crate::ext4::casefold::{COST, Encoding, Folded};
use crate::ext4::checksum::crc32c;
use crate::ext4::format;
use crate::ext4::journal::Budget;
use crate::ext4::map::RunKind;
use crate::ext4::record::is_name;
use crate::ext4::units::{BlockNumber, InodeNumber, u64_from, usize_from};
use crate::ext4::{FileKind, Filesystem, InodeFlags};

/// How many bytes of directories and inodes the tags of all fast commits may be looked for in. A bound of this reader.
const MOST_SEARCHED: u64 = 1 << 30;
/// Bytes that an entry of a map costs beside its content, generously.
const ENTRY: usize = 96;

/// What the tags so far have changed.
pub(super) struct Replay<'a, 'b> {
    pub(super) fs: &'a Filesystem,
    pub(super) budget: &'b mut Budget,
    /// Inodes that were changed, whole.
    pub(super) inodes: BTreeMap<InodeNumber, Box<[u8]>>,
    pub(super) changes: Changes,
    pub(super) directories: BTreeMap<InodeNumber, Directory>,
    /// The next block that no device has.
    pub(super) unused: u64,
    /// Of directories and inodes, bytes that may still be searched.
    pub(super) work: Work,
    place: Place,
}

/// Blocks in memory, by their number on the device.
pub(super) type Blocks = BTreeMap<u64, Box<[u8]>>;

impl<'a, 'b> Replay<'a, 'b> {
    /// Nothing is changed yet. `place` is for what is wrong with the tags themselves.
    pub(super) fn new(fs: &'a Filesystem, budget: &'b mut Budget, place: Place) -> Self {
        let (inodes, changes, directories) = (BTreeMap::new(), Changes::default(), BTreeMap::new());
        let size = fs.superblock().block_size;
        let unused = size.blocks_for(fs.device().len()).max(fs.superblock().blocks);
        Self { fs, budget, inodes, changes, directories, unused, work: Work::of(MOST_SEARCHED), place }
    }

    /// Takes one tag.
    pub(super) fn tag(&mut self, tag: &Tag<'_>) -> Result<(), Refusal> {
        match tag {
            Tag::AddRange { inode, extent } => self.add_range(*inode, extent),
            Tag::DelRange { inode, first, length } => {
                let end = u64::from(*first).saturating_add((*length).into());
                match self.ranged(*inode)? {
                    Some(number) => self.set_range(number, (*first).into(), end, RunKind::Hole),
                    None => Ok(()),
                }
            }
            Tag::Create(dentry) => self.create(dentry),
            Tag::Link(dentry) => match self.live(dentry.inode)? {
                Some(_) => self.link(dentry),
                None => Ok(()),
            },
            Tag::Unlink(dentry) => self.unlink(dentry),
            Tag::Inode { inode, raw } => self.inode(*inode, raw),
            Tag::Pad | Tag::Tail { .. } | Tag::Head { .. } => Ok(()),
        }
    }

    /// The blocks that are different now, and where data is.
    pub(super) fn finish(mut self) -> Result<(Blocks, Changes), Refusal> {
        let mut blocks = Blocks::new();
        self.write_directories(&mut blocks)?;
        let size = self.fs.superblock().block_size;
        for (number, mut raw) in std::mem::take(&mut self.inodes) {
            self.seal(number, &mut raw);
            let address = self.fs.inode_address(number)?;
            let block = address.0.checked_shr(size.bits().into()).unwrap_or(0);
            let start = size.byte_offset(BlockNumber(block)).ok_or(Error::Invalid)?;
            if let Vacant(place) = blocks.entry(block) {
                self.spend_block()?;
                let mut bytes = vec![0; size.length()].into_boxed_slice();
                self.fs.device().read_at(start.0, &mut bytes)?;
                place.insert(bytes);
            }
            let within = usize::try_from(address.0.saturating_sub(start.0)).unwrap_or(usize::MAX);
            let place = blocks.get_mut(&block).and_then(|bytes| bytes.get_mut(within..)?.get_mut(..raw.len()));
            place.ok_or(Error::Invalid)?.copy_from_slice(&raw);
        }
        Ok((blocks, self.changes))
    }

    fn add_range(&mut self, inode: u32, extent: &format::Extent) -> Result<(), Refusal> {
        const WRITTEN: u16 = 0x8000;
        let length = extent.ee_len.get();
        let unwritten = length > WRITTEN;
        let length = u64::from(if unwritten { length.saturating_sub(WRITTEN) } else { length });
        let start = BlockNumber(u64::from(extent.ee_start_hi.get()) << 32 | u64::from(extent.ee_start_lo.get()));
        let Some(number) = self.ranged(inode)? else { return Ok(()) };
        if !planted("range") {
            self.fs.zone().check(number, start, length).map_err(|rule| Error::corrupt(rule, Place::Inode(inode)))?;
        }
        let first = u64::from(extent.ee_block.get());
        let kind = if unwritten { RunKind::Unwritten(start) } else { RunKind::Data(start) };
        self.set_range(number, first, first.saturating_add(length), kind)
    }

    /// Whose range it is. One of an inode that no file can have, or that is gone, is passed over.
    fn ranged(&mut self, inode: u32) -> Result<Option<InodeNumber>, Refusal> {
        Ok(self.live(inode)?.and_then(|_| self.number(inode).ok()))
    }

    fn set_range(&mut self, number: InodeNumber, first: u64, end: u64, kind: RunKind) -> Result<(), Refusal> {
        // It may cut another in two.
        self.budget.spend(ENTRY.saturating_mul(2))?;
        self.changes.ranges(number).set(first, end, kind);
        Ok(())
    }

    /// The inode as the tag has it, but for its map: that stays, unless it is none.
    fn inode(&mut self, inode: u32, new: &[u8]) -> Result<(), Refusal> {
        const MAP: usize = 0x28;
        const GENERATION: usize = 0x64;
        let number = self.number(inode)?;
        self.load(number)?;
        let raw = self.inodes.get_mut(&number).ok_or(Error::Invalid)?;
        let mut take = |from: usize, to: usize| {
            if let (Some(old), Some(new)) = (raw.get_mut(from..to), new.get(from..to)) {
                old.copy_from_slice(new);
            }
        };
        take(0, MAP);
        take(GENERATION, new.len());
        let flags = InodeFlags::from_bits_retain(self.raw(number).i_flags.get());
        if flags.contains(InodeFlags::EXTENTS) {
            let map = self.raw(number).i_block;
            if map.first_chunk() != Some(&format::EXTENT_MAGIC.to_le_bytes()) {
                self.edit(number, |raw| raw.i_block = empty_tree());
            }
        } else if flags.contains(InodeFlags::INLINE_DATA) {
            let raw = self.inodes.get_mut(&number).ok_or(Error::Invalid)?;
            if let (Some(old), Some(new)) = (raw.get_mut(MAP..GENERATION), new.get(MAP..GENERATION)) {
                old.copy_from_slice(new);
            }
        }
        Ok(())
    }

    fn create(&mut self, dentry: &Dentry<'_>) -> Result<(), Refusal> {
        let kind = self.live(dentry.inode)?.ok_or(Error::corrupt(Rule::FastCommitInode, self.place))?;
        let number = self.number(dentry.inode)?;
        if kind == FileKind::Directory {
            let Some(parent) = self.parent(dentry.parent)? else { return Ok(()) };
            self.make_directory(number, parent)?;
        }
        self.link(dentry)?;
        self.edit(number, |raw| raw.i_links_count.set(1));
        Ok(())
    }

    /// A directory without blocks, whatever the inode was before; its names come into memory, its size with them.
    pub(super) fn empty_directory(&mut self, number: InodeNumber) -> Result<(), Refusal> {
        self.load(number)?;
        self.changes.forget(number);
        let by_extents = self.fs.superblock().incompat.contains(Incompat::EXTENTS);
        self.edit(number, |raw| {
            let gone = InodeFlags::INDEX | InodeFlags::INLINE_DATA | InodeFlags::EXTENTS;
            let flags = InodeFlags::from_bits_retain(raw.i_flags.get()).difference(gone);
            let extents = if by_extents { InodeFlags::EXTENTS } else { InodeFlags::empty() };
            raw.i_flags.set((flags | extents).bits());
            raw.i_block = if by_extents { empty_tree() } else { [0; 60] };
            raw.i_size_lo.set(0);
            raw.i_size_high.set(0);
        });
        Ok(())
    }

    /// A name that is there already stays what it is. One in a directory that was removed later is nowhere.
    fn link(&mut self, dentry: &Dentry<'_>) -> Result<(), Refusal> {
        let Some(parent) = self.parent(dentry.parent)? else { return Ok(()) };
        if self.find(parent, dentry.name)?.is_some() {
            return Ok(());
        }
        let number = self.number(dentry.inode)?;
        self.set_name(parent, dentry.name, Some(number))?;
        self.load(number)?;
        self.edit(number, |raw| raw.i_links_count.set(raw.i_links_count.get().saturating_add(1)));
        Ok(())
    }

    /// A name that stands for another inode by now stays, but the link counts as gone.
    fn unlink(&mut self, dentry: &Dentry<'_>) -> Result<(), Refusal> {
        if self.live(dentry.inode)?.is_none() {
            return Ok(());
        }
        let Some(parent) = self.parent(dentry.parent)? else { return Ok(()) };
        let number = self.number(dentry.inode)?;
        match self.find(parent, dentry.name)? {
            None => return Ok(()),
            Some(found) if found == number => self.set_name(parent, dentry.name, None)?,
            Some(_) => (),
        }
        self.load(number)?;
        self.edit(number, |raw| raw.i_links_count.set(raw.i_links_count.get().saturating_sub(1)));
        if self.raw(number).i_links_count.get() == 0 {
            // The file is gone, and its blocks with it.
            self.changes.forget(number);
            self.edit(number, |raw| {
                if raw.i_flags.get() & InodeFlags::EXTENTS.bits() != 0 {
                    raw.i_block = empty_tree();
                }
            });
        }
        Ok(())
    }

    /// What a name stands for now.
    fn find(&mut self, directory: InodeNumber, name: &[u8]) -> Result<Option<InodeNumber>, Refusal> {
        if !is_name(name) {
            return Err(Error::corrupt(Rule::FastCommitName, self.place).into());
        }
        let folds = self.folds(directory);
        if folds {
            // Here, and where the name is kept.
            self.search(COST.saturating_mul(2).saturating_mul(u64_from(name.len())))?;
        }
        if let Some(changed) = self.directories.get(&directory) {
            if let Some(now) = changed.names.get(&*key(folds, name)) {
                return Ok(now.inode);
            }
            if changed.fresh {
                return Ok(None);
            }
        }
        self.search(self.fs.superblock().inode_size.into())?;
        let inode = self.fs.inode(directory)?;
        match self.fs.lookup_within(&inode, name, &mut self.work) {
            Err(Error::Budget) => Err(self.too_much().into()),
            found => Ok(found?),
        }
    }

    /// So many bytes of a directory or of inodes are gone through.
    pub(super) fn search(&mut self, bytes: u64) -> Result<()> {
        self.work.spend(bytes).map_err(|_| self.too_much())
    }

    fn too_much(&self) -> Error {
        Error::corrupt(Rule::FastCommitWork, self.place)
    }

    /// A block comes into memory, and stays.
    pub(super) fn spend_block(&mut self) -> Result<(), Refusal> {
        self.budget.spend(self.fs.superblock().block_size.length().saturating_add(ENTRY))
    }

    /// The seed of all checksums that belong to an inode as it is now.
    pub(super) fn checksum_seed(&self, number: InodeNumber) -> u32 {
        if self.inodes.contains_key(&number) {
            return self.fs.verifier().inode_seed(number, self.raw(number).i_generation.get());
        }
        self.fs.inode(number).map_or(0, |inode| inode.checksum_seed)
    }

    pub(super) fn set_name(
        &mut self,
        directory: InodeNumber,
        name: &[u8],
        inode: Option<InodeNumber>,
    ) -> Result<(), Refusal> {
        // It is kept twice, and folded it may be longer.
        self.budget.spend(name.len().saturating_mul(4).saturating_add(ENTRY))?;
        let key = key(self.folds(directory), name).into();
        self.directories.entry(directory).or_default().names.insert(key, Name { spelling: name.into(), inode });
        Ok(())
    }

    /// Whether a directory takes names for the same whose case differs.
    pub(super) fn folds(&self, directory: InodeNumber) -> bool {
        if !matches!(self.fs.superblock().encoding, Some(Encoding::Utf8 { .. })) {
            return false;
        }
        let flags = if self.inodes.contains_key(&directory) {
            InodeFlags::from_bits_retain(self.raw(directory).i_flags.get())
        } else {
            self.fs.inode(directory).map_or(InodeFlags::empty(), |inode| inode.flags)
        };
        flags.contains(InodeFlags::CASEFOLD)
    }

    /// The directory of a name, if there is such an inode.
    fn parent(&mut self, number: u32) -> Result<Option<InodeNumber>, Refusal> {
        match self.live(number)? {
            None => Ok(None),
            Some(FileKind::Directory) => Ok(Some(self.number(number)?)),
            Some(_) => Err(Error::corrupt(Rule::FastCommitParent, self.place).into()),
        }
    }

    /// What an inode is now, if it is in use and can be read.
    pub(super) fn live(&mut self, number: u32) -> Result<Option<FileKind>, Refusal> {
        let Some(number) = InodeNumber::new(number) else { return Ok(None) };
        if self.inodes.contains_key(&number) {
            let raw = self.raw(number);
            let kind = FileKind::of(raw.i_mode.get());
            return Ok(kind.filter(|_| raw.i_links_count.get() > 0));
        }
        self.search(self.fs.superblock().inode_size.into())?;
        match self.fs.inode(number) {
            Ok(inode) => Ok(Some(inode.kind)),
            Err(error @ Error::Device { .. }) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// A number that a file can have.
    fn number(&self, number: u32) -> Result<InodeNumber> {
        let superblock = self.fs.superblock();
        let range = superblock.first_inode..=superblock.inodes;
        InodeNumber::new(number)
            .filter(|&inode| inode == InodeNumber::ROOT || range.contains(&number))
            .ok_or(Error::corrupt(Rule::FastCommitInode, self.place))
    }

    /// Brings an inode into memory as it is on the disk.
    pub(super) fn load(&mut self, number: InodeNumber) -> Result<(), Refusal> {
        if !self.inodes.contains_key(&number) {
            let size = usize::from(self.fs.superblock().inode_size);
            self.budget.spend(size.saturating_add(ENTRY))?;
            let mut bytes = vec![0; size].into_boxed_slice();
            self.fs.device().read_at(self.fs.inode_address(number)?.0, &mut bytes)?;
            self.inodes.insert(number, bytes);
        }
        Ok(())
    }

    /// The fields of an inode in memory; all zeros for one that is not there.
    pub(super) fn raw(&self, number: InodeNumber) -> format::Inode {
        fields(self.inodes.get(&number).map_or(&[][..], |bytes| bytes))
    }

    /// Changes an inode in memory.
    pub(super) fn edit(&mut self, number: InodeNumber, change: impl FnOnce(&mut format::Inode)) {
        let mut raw = self.raw(number);
        change(&mut raw);
        if let Some(bytes) = self.inodes.get_mut(&number) {
            bytes.iter_mut().zip(raw.as_bytes()).for_each(|(to, from)| *to = *from);
        }
    }

    /// Gives an inode the checksum that belongs to what is in it.
    fn seal(&self, number: InodeNumber, bytes: &mut [u8]) {
        const LOW: usize = 0x7c;
        const HIGH: usize = 0x82;
        let superblock = self.fs.superblock();
        if !superblock.ro_compat.contains(RoCompat::METADATA_CSUM) || !superblock.by_linux {
            return;
        }
        let raw = fields(bytes);
        let base = usize_from(format::GOOD_OLD_INODE_SIZE.into());
        let wide = bytes.len() > base && raw.i_extra_isize.get() >= 4;
        let put = |[low, high]: [[u8; 2]; 2], bytes: &mut [u8]| {
            let places = [(LOW, low), (HIGH, high)];
            for (at, value) in places.into_iter().take(if wide { 2 } else { 1 }) {
                if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                    *place = value;
                }
            }
        };
        // It covers itself as zeros.
        put([[0; 2]; 2], bytes);
        let seed = self.fs.verifier().inode_seed(number, raw.i_generation.get());
        let [a, b, c, d] = crc32c(seed, bytes).to_le_bytes();
        put([[a, b], [c, d]], bytes);
    }
}

/// What tells a name of a directory apart from others: a tag has what was typed, and where case is folded that need not be
/// what is stored.
pub(super) fn key(folds: bool, name: &[u8]) -> Cow<'_, [u8]> {
    let folded = if folds && !matches!(name, b"." | b"..") { Folded::of(name) } else { None };
    folded.map_or(Cow::Borrowed(name), |folded| Cow::Owned(folded.as_bytes().to_vec()))
}

/// The fields of an inode; those that it is too short for are 0.
fn fields(bytes: &[u8]) -> format::Inode {
    let mut raw = format::Inode::new_zeroed();
    raw.as_mut_bytes().iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    raw
}

/// The root of an extent tree without extents.
fn empty_tree() -> [u8; 60] {
    let mut map = [0; 60];
    let mut header = format::ExtentHeader::new_zeroed();
    header.eh_magic.set(format::EXTENT_MAGIC);
    header.eh_max.set(4);
    map.iter_mut().zip(header.as_bytes()).for_each(|(to, from)| *to = *from);
    map
}
