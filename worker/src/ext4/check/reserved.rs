//! The inodes that the file system keeps for itself: each for one thing, and empty if that thing is not there.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};

use super::Check;
use super::blocks::is_large;
use super::inodes::Role;
use crate::error::{Error, Result};
use crate::ext4::format;
use crate::ext4::units::{BlockNumber, InodeNumber};
use crate::ext4::{FileKind, InodeFlags, indirect};

/// What an inode is reserved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Office {
    /// Nothing.
    None,
    Root,
    BadBlocks,
    Journal,
    Quota,
    BootLoader,
    Resize,
    Orphans,
    /// Something that no file system has.
    Other,
}

impl Check<'_> {
    pub(super) fn office(&self, number: InodeNumber) -> Office {
        let value = number.value();
        match value {
            1 => Office::BadBlocks,
            2 => Office::Root,
            8 => Office::Journal,
            3 | 4 => Office::Quota,
            // It is reserved whether or not a feature speaks of it.
            _ if value == self.raw.s_prj_quota_inum.get() => Office::Quota,
            _ if self.has_orphan_file() && value == self.raw.s_orphan_file_inum.get() => Office::Orphans,
            _ if value >= self.fs.superblock().first_inode => Office::None,
            5 => Office::BootLoader,
            7 => Office::Resize,
            _ => Office::Other,
        }
    }

    fn has_orphan_file(&self) -> bool {
        self.fs.superblock().compat.contains(Compat::ORPHAN_FILE)
    }

    /// Whether the superblock names an inode for quotas or orphans: then no directory may, whatever features there are.
    pub(super) fn is_named_by_superblock(&self, number: InodeNumber) -> bool {
        let raw = &self.raw;
        let files = [raw.s_usr_quota_inum, raw.s_grp_quota_inum, raw.s_prj_quota_inum, raw.s_orphan_file_inum];
        files.iter().any(|file| file.get() == number.value())
    }

    /// Whether an inode is what its office is for: the superblock says so.
    fn is_in_service(&self, number: InodeNumber, office: Office) -> bool {
        let superblock = self.fs.superblock();
        let number_is = |stored: u32| stored == number.value();
        match office {
            Office::Journal => number_is(self.raw.s_journal_inum.get()),
            Office::Quota => {
                let [user, of_group, project] =
                    [self.raw.s_usr_quota_inum, self.raw.s_grp_quota_inum, self.raw.s_prj_quota_inum];
                superblock.ro_compat.contains(RoCompat::QUOTA)
                    && [user, of_group, project].iter().any(|stored| number_is(stored.get()))
            }
            Office::Orphans => self.has_orphan_file(),
            _ => false,
        }
    }

    pub(super) fn reserved_inode(
        &mut self,
        number: InodeNumber,
        office: Office,
        raw: &format::Inode,
        bytes: &[u8],
    ) -> Result<()> {
        self.see(number, raw, 0, Role::Nameless);
        let place = Place::Inode(number.value());
        let kind = FileKind::of(raw.i_mode.get());
        let flags = InodeFlags::from_bits_retain(raw.i_flags.get());
        let is_empty = raw.i_links_count.get() == 0
            && raw.i_blocks_lo.get() == 0
            && raw.i_block.iter().take(4).all(|&byte| byte == 0);
        let in_service = self.is_in_service(number, office);
        let sound = match office {
            _ if in_service => kind == Some(FileKind::Regular),
            Office::BadBlocks => {
                let extents = self.fs.superblock().incompat.contains(Incompat::EXTENTS)
                    && raw.i_block.iter().all(|&byte| byte == 0);
                let fields = [raw.i_mode, raw.i_uid, raw.i_gid, raw.i_links_count];
                fields.iter().all(|field| field.get() == 0)
                    && raw.i_file_acl_lo.get() == 0
                    && !flags.contains(InodeFlags::INLINE_DATA)
                    && (extents || !flags.contains(InodeFlags::EXTENTS))
            }
            Office::BootLoader => kind != Some(FileKind::Directory),
            Office::Resize => raw.i_mode.get() == 0 || kind == Some(FileKind::Regular),
            Office::Other => raw.i_mode.get() == 0,
            _ => is_empty,
        };
        self.findings.hold(sound, Rule::ReservedInode, place);
        self.findings.hold(!self.is_orphan_link(raw), Rule::InodeDeleted, place);
        let extents = flags.contains(InodeFlags::EXTENTS);
        let allowed = self.fs.superblock().incompat.contains(Incompat::EXTENTS);
        let wrong = flags.contains(InodeFlags::CASEFOLD)
            || (extents && flags.contains(InodeFlags::INLINE_DATA))
            || (extents && !allowed && (raw.i_links_count.get() > 0 || office == Office::Journal));
        self.findings.hold(!wrong, Rule::InodeFlags, place);
        if !bytes.iter().all(|&byte| byte == 0) {
            self.checksum(number, bytes)?;
        }
        match (office, kind) {
            (Office::BadBlocks, _) => self.bad_blocks(number, raw),
            (Office::Journal | Office::Quota | Office::Orphans, _) if !in_service => Ok(()),
            (_, Some(FileKind::Regular | FileKind::Directory | FileKind::Symlink)) if sound => {
                self.in_service(number, office, raw, bytes)
            }
            _ => {
                self.without_map(number, raw);
                Ok(())
            }
        }
    }

    /// A block of attributes outside of the file system is none to e2fsck, where nothing names the inode.
    fn hold_attributes(&mut self, number: InodeNumber, block: BlockNumber) -> bool {
        let superblock = self.fs.superblock();
        let inside = (superblock.first_data_block.0..superblock.blocks).contains(&block.0);
        let allowed = superblock.compat.contains(Compat::EXT_ATTR);
        if inside && allowed {
            self.findings.damage(Rule::ReservedInode, Place::Inode(number.value()));
        } else {
            self.findings.notice(Rule::ReservedInode, Place::Inode(number.value()));
        }
        inside && allowed
    }

    /// One that has a map.
    fn in_service(&mut self, number: InodeNumber, office: Office, raw: &format::Inode, bytes: &[u8]) -> Result<()> {
        let mut inode = match self.fs.inode_of(number, bytes, false) {
            Ok(inode) => inode,
            // A wrong checksum was told.
            Err(Error::Checksum(_)) => return Ok(()),
            // Where it has no checksum, nobody looks behind the first 128 bytes of the inode for resizing.
            Err(Error::Corrupt(found)) if found.rule == Rule::InodeExtraSize && office == Office::Resize => {
                self.findings.notice(found.rule, found.place);
                let short = bytes.get(..format::GOOD_OLD_INODE_SIZE.into()).unwrap_or_default();
                match self.fs.inode_of(number, short, false) {
                    Ok(inode) => inode,
                    Err(Error::Checksum(_)) => return Ok(()),
                    Err(error) => return self.keep(error),
                }
            }
            Err(error) => return self.keep(error),
        };
        if inode.attribute_block.is_some_and(|block| !self.hold_attributes(number, block)) {
            inode.attribute_block = None;
        }
        match office {
            Office::Resize => self.resize_inode(&inode, raw),
            Office::Orphans => {
                self.orphan_file(&inode)?;
                self.contents(&inode, raw)
            }
            _ => self.contents(&inode, raw),
        }
    }

    /// One of no type that has a map: it has no blocks and no attributes, and may say what length it likes that a map by
    /// pointers could have.
    fn without_map(&mut self, number: InodeNumber, raw: &format::Inode) {
        let place = Place::Inode(number.value());
        let superblock = self.fs.superblock();
        let flags = InodeFlags::from_bits_retain(raw.i_flags.get());
        let size = u64::from(raw.i_size_high.get()) << 32 | u64::from(raw.i_size_lo.get());
        let extents = flags.contains(InodeFlags::EXTENTS) && superblock.incompat.contains(Incompat::EXTENTS);
        let longest = if extents {
            superblock.block_size.bytes_of(1 << 32).map_or(u64::MAX, |end| end.saturating_sub(1))
        } else {
            let blocks = indirect::reach(superblock.block_size);
            superblock.block_size.bytes_of(blocks).unwrap_or(u64::MAX)
        };
        self.findings.hold(size <= longest, Rule::FileSize, place);
        if let Some(attributes) = self.fs.attribute_block_of(raw) {
            self.hold_attributes(number, attributes);
        }
        self.findings.hold(!flags.contains(InodeFlags::INDEX), Rule::HtreeFlag, place);
        self.large |= FileKind::of(raw.i_mode.get()) == Some(FileKind::Regular) && is_large(raw);
        self.space(number, raw, 0);
    }
}
