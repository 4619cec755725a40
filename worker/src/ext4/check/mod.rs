//! Whether a file system is sound: every table and everything that can be reached, held against each other.
//!
//! What always holds here: the walk goes in slices of bounded work, no deeper than a constant, and what it keeps is
//! asked of the heap in a way that can fail. All slices together cost what the device is long, whatever the image claims:
//! a block of a map, of a directory or of attributes is read for the first who names it, clusters are marked four times
//! their number at the most, directories have no more blocks than there are. The readers of this crate do the reading, so that damage has the same name
//! here as in a mount; what only a whole view can tell (counts, bitmaps, names) has rules of its own. The verdict is
//! that of `e2fsck -fn`: a [`Severity::Notice`] is nothing that it would ask to repair.
//!
//! - `clusters`, `inodes`: what was seen in use. `findings`: what was found.
//! - `groups` → `scan` (the inode tables; `inode`, `reserved`, `blocks`, `attributes` look at one) → `shared` (blocks of
//!   attributes) → `directory` (`tree` for hashed ones) → `links` → `quota` → `bitmaps` → `copies`: the stages, in this
//!   order.
//!
//! Not looked at: the data of files, and so neither is a Merkle tree: a mount with `verity=verify` holds each block against
//! it where it is read.

mod attributes;
mod bitmaps;
mod blocks;
mod clusters;
mod copies;
mod directory;
mod findings;
mod groups;
mod inode;
mod inodes;
mod links;
mod orphans;
mod quota;
mod reserved;
mod resize;
mod scan;
mod shared;
mod tree;

use lazaret_policy::message::Checked;
use zerocopy::{FromZeros, IntoBytes};

use self::clusters::Clusters;
use self::directory::{Directory, Opened};
use self::findings::Findings;
use self::inodes::Inodes;
use self::quota::Quotas;
use super::budget::{Budget, MOST_BYTES};
use super::units::u64_from;
use super::{Filesystem, format};
use crate::error::{Error, Result};

/// How much one call of [`Check::advance`] does: about so many inodes or names are looked at.
const SLICE: u64 = 20_000;

/// How often a value in an inode is read, one with another, for the attributes that share it.
const MOST_SHARED: u64 = 8;

/// What the stages count together, whatever the file system: progress is told in these.
const STEPS: u64 = 1000;

/// A check under way.
pub struct Check<'a> {
    fs: &'a Filesystem,
    raw: format::Superblock,
    stage: Stage,
    /// How far the stage has come: groups, or directories.
    at: u64,
    /// How far it has come within that: blocks of an inode table.
    within: u32,
    /// The directory that is being looked at.
    open: Option<Opened>,
    /// Work that this slice may still do.
    budget: u64,
    /// Blocks of directories that are left to be looked at: no more than there are blocks.
    directory_blocks: u64,
    /// Bytes of values in inodes that are left to be read.
    values: Budget,
    findings: Findings,
    clusters: Clusters,
    inodes: Inodes,
    /// What the groups whose bitmap was never written have elsewhere: it is in use whatever the bitmaps say.
    implied: Clusters,
    /// Structures of groups lie one upon the other; then the tables that were looked at.
    overlapping: bool,
    scanned: Clusters,
    /// In each group, the first inode that no name may lead to. All but a few may be named.
    unused_from: Vec<u32>,
    /// The clusters of each group that are the file system's own.
    own_clusters: Vec<u32>,
    /// The directories of each group.
    group_directories: Vec<u32>,
    /// By number.
    directories: Vec<Directory>,
    /// Each block of attributes with an inode that has it.
    attribute_blocks: Vec<(u64, u32)>,
    /// The inode of each value of an attribute, as often as it is named.
    value_inodes: Vec<u32>,
    /// Some file is so long that it needs the feature large_file.
    large: bool,
    /// By number.
    orphans: Vec<u32>,
    quotas: Quotas,
}

/// What is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Groups,
    Orphans,
    Scan,
    Shared,
    Directories,
    Links,
    Quotas,
    Bitmaps,
    Copies,
    Over,
}

impl Stage {
    /// The next stage, and the steps up to its begin.
    fn next(self) -> Self {
        match self {
            Self::Groups => Self::Orphans,
            Self::Orphans => Self::Scan,
            Self::Scan => Self::Shared,
            Self::Shared => Self::Directories,
            Self::Directories => Self::Links,
            Self::Links => Self::Quotas,
            Self::Quotas => Self::Bitmaps,
            Self::Bitmaps => Self::Copies,
            Self::Copies | Self::Over => Self::Over,
        }
    }

    /// The steps before it.
    fn begin(self) -> u64 {
        match self {
            Self::Groups => 0,
            Self::Orphans => 40,
            Self::Scan => 50,
            Self::Shared => 580,
            Self::Directories => 600,
            Self::Links => 880,
            Self::Quotas => 915,
            Self::Bitmaps => 920,
            Self::Copies => 990,
            Self::Over => STEPS,
        }
    }
}

impl<'a> Check<'a> {
    /// A check that has not begun.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; a superblock that cannot be read any more.
    pub fn new(fs: &'a Filesystem) -> Result<Self> {
        let superblock = fs.superblock();
        let mut raw = format::Superblock::new_zeroed();
        fs.device().read_at(format::SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
        Ok(Self {
            fs,
            raw,
            stage: Stage::Groups,
            at: 0,
            within: 0,
            open: None,
            budget: 0,
            directory_blocks: superblock.blocks,
            values: Budget::of(fs.device().len().saturating_mul(MOST_SHARED).max(MOST_BYTES)),
            findings: Findings::default(),
            clusters: Clusters::new(superblock)?,
            implied: Clusters::new(superblock)?,
            overlapping: false,
            scanned: Clusters::new(superblock)?,
            inodes: Inodes::new(superblock)?,
            unused_from: all(superblock.groups, u32::MAX)?,
            own_clusters: all(superblock.groups, 0)?,
            group_directories: all(superblock.groups, 0)?,
            directories: Vec::new(),
            attribute_blocks: Vec::new(),
            value_inodes: Vec::new(),
            large: false,
            orphans: Vec::new(),
            quotas: Quotas::default(),
        })
    }

    /// Goes on for a slice of bounded work, and tells what it found.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Device`] where a part of the device cannot be read, [`Error::Budget`] where
    /// attributes ask for more work than their device is long: then nobody can say whether the file system is sound.
    pub fn advance(&mut self) -> Result<Checked> {
        self.budget = SLICE;
        while self.budget > 0 && self.stage != Stage::Over && self.findings.has_room() {
            self.step()?;
        }
        let mut told = self.findings.take();
        (told.done, told.total, told.over) = (self.done(), STEPS, self.stage == Stage::Over && self.findings.is_told());
        Ok(told)
    }

    /// A piece of the stage, and on to the next where it was the last.
    fn step(&mut self) -> Result<()> {
        let over = match self.stage {
            Stage::Groups => self.groups()?,
            Stage::Orphans => self.orphan_lists()?,
            Stage::Scan => self.scan()?,
            Stage::Shared => self.shared()?,
            Stage::Directories => self.next_directory()?,
            Stage::Links => self.links()?,
            Stage::Quotas => self.quotas()?,
            Stage::Bitmaps => self.bitmaps()?,
            Stage::Copies => self.copies()?,
            Stage::Over => true,
        };
        if over {
            (self.stage, self.at) = (self.stage.next(), 0);
        }
        Ok(())
    }

    /// Takes work from the slice.
    fn spend(&mut self, work: u64) {
        self.budget = self.budget.saturating_sub(work.max(1));
    }

    /// How far it is, in steps.
    fn done(&self) -> u64 {
        let (begin, end) = (self.stage.begin(), self.stage.next().begin());
        let whole = match self.stage {
            Stage::Directories => u64_from(self.directories.len()),
            _ => self.fs.superblock().groups.into(),
        };
        let part = self.at.saturating_mul(end.saturating_sub(begin)).checked_div(whole).unwrap_or(0);
        begin.saturating_add(part).min(end)
    }

    /// Keeps an error as a finding if it is damage.
    ///
    /// # Errors
    /// Any other error.
    fn keep(&mut self, error: Error) -> Result<()> {
        self.findings.keep(error)
    }
}

/// Appends an element, if there is memory for it.
fn push<T>(vector: &mut Vec<T>, element: T) -> Result<()> {
    if vector.len() == vector.capacity() {
        vector.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
    }
    vector.push(element);
    Ok(())
}

/// So many of the same number, if there is memory for them.
fn all(count: u32, number: u32) -> Result<Vec<u32>> {
    let count = usize::try_from(count).map_err(|_| Error::OutOfMemory)?;
    let mut vector = Vec::new();
    vector.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
    vector.resize(count, number);
    Ok(vector)
}
