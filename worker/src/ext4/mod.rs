//! An ext2, ext3 or ext4 file system on a device, read-only. Knows nothing of FUSE.
//!
//! What always holds here: bytes are copied out of the device once and checked before they are used; a name with the
//! kernel's prefix (`s_`, `bg_`, `i_`, `ee_`) is such bytes, a name without was checked. No number of the image bounds a
//! loop or a size in memory, trees go strictly down, and damage is local: one broken object leaves the others readable.
//!
//! The way of a read: [`units`] → [`Filesystem::inode`] (`group.rs`, `inode.rs`) → [`Filesystem::map`] (`map.rs`, over
//! `extent.rs` or `indirect.rs`, held off the file system's own blocks by `system_zone.rs`) → the device.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing, clippy::unwrap_used)
)]

pub mod acl;
mod backup;
pub mod budget;
mod cache;
pub mod casefold;
pub mod check;
pub mod checksum;
pub mod dir;
mod encrypt;
mod extent;
pub mod feature;
pub mod format;
pub mod group;
pub mod hash;
mod htree;
mod indirect;
mod inline;
pub mod inode;
mod journal;
pub mod map;
mod mappings;
mod merkle;
mod name;
mod record;
#[cfg(test)]
mod sample;
pub mod seek;
pub mod statfs;
pub mod superblock;
mod system_zone;
pub mod units;
mod verity;
pub mod volume;
mod warning;
pub mod xattr;
mod xattr_entry;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::Incompat;
use lazaret_policy::message::{Checksum, Refusal, Replayed, Verity};
use lazaret_policy::planted;

pub use self::dir::DirEntry;
pub use self::inode::{FileKind, Inode, InodeFlags, Timestamp};
pub use self::map::{Mapping, MappingKind};
pub use self::statfs::Statfs;
pub use self::superblock::Superblock;
pub use self::units::{BlockNumber, BlockSize, ByteOffset, FileOffset, GroupNumber, InodeNumber, LogicalBlock};
pub use self::xattr::{Namespace, Xattr};

use self::budget::Budget;
use self::cache::Kept;
use self::checksum::Verifier;
use self::journal::Changes;
use self::system_zone::{SystemZone, Totals};
use self::units::u64_from;
use crate::device::Device;
use crate::error::{Error, Result};

/// A file system that was opened. Shared between threads; nothing in it changes but caches and counters.
pub struct Filesystem {
    device: Device,
    settings: Settings,
    superblock: Superblock,
    verifier: Verifier,
    zone: SystemZone,
    /// What was checked last.
    kept: Kept,
    totals: Totals,
    journal_blocks: u64,
    replayed: Replayed,
    changes: Changes,
}

/// How a file system is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What a wrong checksum does.
    pub checksum: Checksum,
    /// Whether a group descriptor is used whatever its checksum, as [`check::Check`] wants it.
    pub trust_descriptors: bool,
    /// What is done about Merkle trees.
    pub verity: Verity,
    /// Where the superblock to be used lies, in units of 1 KiB; none for the primary one.
    pub superblock: Option<u64>,
    /// Bytes of the worker's heap. What is kept of a journal may take half of them.
    pub memory: u64,
    /// Bytes that one request may look at: see [`budget`].
    pub work: u64,
    /// Whether what was checked is kept: not where the device is to be another the next time.
    pub keeps: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            checksum: Checksum::default(),
            trust_descriptors: false,
            verity: Verity::default(),
            superblock: None,
            memory: 64 << 20,
            work: budget::MOST_BYTES,
            keeps: true,
        }
    }
}

/// One block of a directory or of attributes, a copy.
pub type Block = Box<[u8]>;

impl Filesystem {
    /// Reads and checks the superblock, and goes once over the group descriptors. A journal that was not replayed is
    /// read as if it had been; the device stays as it is.
    ///
    /// # Errors
    /// Why this is not, or not yet, a file system that can be read.
    pub fn open(device: Device, settings: Settings) -> Result<Self, Refusal> {
        let fs = Self::open_unrecovered(device, settings)?;
        if !fs.superblock.incompat.contains(Incompat::RECOVER) {
            return Ok(fs);
        }
        if fs.superblock.external_journal {
            return Err(Refusal::ExternalJournal);
        }
        let mut recovered = journal::recover(&fs, settings.memory >> 1)?;
        // Nothing of what was read before holds any more, the superblock neither.
        let mut device = fs.into_device();
        device.set_overlay(std::mem::take(&mut recovered.overlay));
        let mut fs = Self::open_unrecovered(device, settings)?;
        fs.replayed = recovered.finish(&mut fs)?;
        // Nor does what was read on the way.
        fs.kept = Kept::new(fs.superblock.block_size, fs.superblock.inode_size, settings.memory, settings.keeps);
        Ok(fs)
    }

    /// What one request may cost.
    pub fn budget(&self) -> Budget {
        Budget::of(self.settings.work)
    }

    fn into_device(self) -> Device {
        self.device
    }

    /// As the device has it, whatever a journal may say.
    fn open_unrecovered(device: Device, settings: Settings) -> Result<Self, Refusal> {
        let superblock = Superblock::read(&device, settings)?;
        let verifier = Verifier::new(&superblock, settings.checksum);
        let (zone, totals) = SystemZone::survey(&device, &superblock).ok_or(Refusal::OutOfMemory)?;
        let kept = Kept::new(superblock.block_size, superblock.inode_size, settings.memory, settings.keeps);
        let (replayed, changes) = (Replayed::default(), Changes::default());
        let journal_blocks = 0;
        let mut fs =
            Self { device, settings, superblock, verifier, zone, kept, totals, journal_blocks, replayed, changes };

        // A broken journal is nothing to a reader of a clean file system.
        let journal = fs.superblock.journal_inode.and_then(|number| fs.any_inode(number).ok());
        if let Some(journal) = journal {
            let runs = system_zone::journal_runs(&fs, &journal);
            fs.zone.add_journal(runs.into_iter());
            fs.journal_blocks = journal.size.checked_shr(fs.superblock.block_size.bits().into()).unwrap_or(0);
        }
        Ok(fs)
    }

    /// The superblock, checked.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// What was replayed of the journal; all zeros for a clean file system.
    pub fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// The device that the file system is read from.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The checksums of this file system, and what is done about wrong ones.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The blocks that no file may hold.
    fn zone(&self) -> &SystemZone {
        &self.zone
    }

    /// The target of a symbolic link: 1 to 4095 bytes without a NUL. That of an encrypted one as it is shown without a
    /// key.
    ///
    /// # Errors
    /// Not a symbolic link: [`Error::Invalid`]. Its inode or its block breaks a rule: [`Error::Corrupt`].
    pub fn read_link(&self, link: &Inode) -> Result<Vec<u8>> {
        const LONGEST: usize = 4095;
        if link.kind != FileKind::Symlink {
            return Err(Error::Invalid);
        }
        if link.flags.contains(InodeFlags::ENCRYPT) {
            return self.encrypted_target(link);
        }
        let broken = Error::corrupt(Rule::SymlinkTarget, Place::Inode(link.number.value()));
        let length = usize::try_from(link.size).ok().filter(|length| (1..=LONGEST).contains(length)).ok_or(broken)?;
        let (block, mut inline);
        let bytes = if link.flags.contains(InodeFlags::INLINE_DATA) {
            inline = vec![0; length.saturating_add(1)];
            self.read(link, 0, &mut inline)?;
            &inline[..]
        } else if link.is_fast_symlink(&self.superblock) {
            &link.map[..]
        } else {
            block = self.read_block(link, LogicalBlock(0))?.ok_or(broken)?;
            &block[..]
        };
        // A NUL ends it, and there is room for one, as the kernel wants.
        let target =
            bytes.get(..length).filter(|target| length < bytes.len() && (planted("target") || !target.contains(&0)));
        target.map(<[u8]>::to_vec).ok_or(broken)
    }

    /// Copies bytes of a file; fewer than `out` has room for only where the file ends. Holes read as zeros.
    ///
    /// # Errors
    /// As [`Self::map`], and a device that cannot be read. Nothing is said of how much was copied before. A block that
    /// does not match its Merkle tree, if that is asked for: [`Error::Checksum`].
    pub fn read(&self, inode: &Inode, offset: u64, out: &mut [u8]) -> Result<usize> {
        let length = inode.size.saturating_sub(offset).min(u64_from(out.len()));
        let length = usize::try_from(length).unwrap_or(out.len());
        let out = out.get_mut(..length).unwrap_or_default();
        if self.is_sealed(inode) {
            verity::read(self, inode, offset, out)?;
        } else {
            self.fill(inode, offset, out)?;
        }
        Ok(length)
    }

    /// Fills `out` with bytes of a file, and of what its blocks hold behind its end.
    fn fill(&self, inode: &Inode, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut budget = self.budget();
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let mapping = self.map_within(inode, FileOffset(at), u64_from(rest.len()), &mut budget)?;
            let (part, behind) = usize::try_from(mapping.length)
                .ok()
                .filter(|&length| length > 0)
                .and_then(|length| rest.split_at_mut_checked(length))
                .ok_or(Error::Invalid)?;
            match mapping.kind {
                MappingKind::Data(start) => self.device.read_at(start.0, part)?,
                MappingKind::Unwritten(_) | MappingKind::Hole => part.fill(0),
                MappingKind::Inline => self.inline(inode)?.copy(at, part),
            }
            at = at.saturating_add(mapping.length);
            rest = behind;
        }
        Ok(())
    }

    /// One block of a directory or of a symbolic link; none where there is a hole, or space never written to.
    ///
    /// # Errors
    /// As [`Self::map`], and a device that cannot be read.
    pub fn read_block(&self, inode: &Inode, block: LogicalBlock) -> Result<Option<Block>> {
        let place = self.place_of_block(inode, block, &mut self.budget())?;
        place.map(|place| self.copy_block(place)).transpose()
    }

    /// Where a block of a file lies; none where there is a hole, or space never written to.
    fn place_of_block(&self, inode: &Inode, block: LogicalBlock, budget: &mut Budget) -> Result<Option<ByteOffset>> {
        let size = self.superblock.block_size;
        let mapping = self.map_within(inode, size.file_offset(block), size.bytes().into(), budget)?;
        Ok(if let MappingKind::Data(place) = mapping.kind { Some(place) } else { None })
    }

    /// The block of the device that begins here.
    fn copy_block(&self, place: ByteOffset) -> Result<Block> {
        let mut bytes = vec![0; self.superblock.block_size.length()].into_boxed_slice();
        self.device.read_at(place.0, &mut bytes)?;
        Ok(bytes)
    }
}
