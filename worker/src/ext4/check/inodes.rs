//! The inodes that were seen: of what type, how often they say they are named, and how often they are.
//!
//! Kept for those parts of the inode tables that are in use, 6 bytes an inode.

use crate::error::{Error, Result};
use crate::ext4::superblock::Superblock;
use crate::ext4::units::{GroupNumber, InodeNumber, usize_from};

/// What is kept of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// `i_links_count`.
    pub(super) stated: u16,
    /// Entries that name it.
    pub(super) named: u16,
    /// As a directory entry has it: 1 to 7; 0 where the inode does not say.
    pub(super) file_type: u8,
    /// What it is for.
    pub(super) role: Role,
}

/// What an inode is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing: it is free.
    #[default]
    Free,
    /// A file that has names.
    File,
    /// It has no names: reserved, or on the list of orphans.
    Nameless,
    /// Its flag says that it is the value of an extended attribute.
    Flagged,
    /// The value of an extended attribute, which names it.
    Value,
}

/// The inodes of all groups.
pub(super) struct Inodes {
    groups: Vec<Option<Box<[Seen]>>>,
    per_group: u32,
}

impl Inodes {
    pub(super) fn new(superblock: &Superblock) -> Result<Self> {
        let count = usize_from(superblock.groups);
        let mut groups = Vec::new();
        groups.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
        groups.resize_with(count, || None);
        Ok(Self { groups, per_group: superblock.inodes_per_group.max(1) })
    }

    /// Makes room for the first so many inodes of a group.
    pub(super) fn make_room(&mut self, group: GroupNumber, count: u32) -> Result<()> {
        let mut room = Vec::new();
        room.try_reserve_exact(usize_from(count)).map_err(|_| Error::OutOfMemory)?;
        room.resize(usize_from(count), Seen::default());
        if let Some(group) = self.groups.get_mut(usize_from(group.0)) {
            *group = Some(room.into_boxed_slice());
        }
        Ok(())
    }

    /// The inodes of a group, as far as its table is in use.
    pub(super) fn of_group(&self, group: GroupNumber) -> &[Seen] {
        self.groups.get(usize_from(group.0)).and_then(Option::as_deref).unwrap_or_default()
    }

    pub(super) fn find(&mut self, number: InodeNumber) -> Option<&mut Seen> {
        let index = number.value().saturating_sub(1);
        let group = self.groups.get_mut(usize_from(index.checked_div(self.per_group)?))?.as_mut()?;
        group.get_mut(usize_from(index.checked_rem(self.per_group)?))
    }

    /// The number of an inode of a group.
    pub(super) fn number(&self, group: GroupNumber, within: u32) -> u32 {
        group.0.saturating_mul(self.per_group).saturating_add(within).saturating_add(1)
    }
}
