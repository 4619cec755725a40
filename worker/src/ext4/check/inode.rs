//! One inode of a table: whether it is in use, and what it says of itself.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};

use super::inodes::{Role, Seen};
use super::reserved::Office;
use super::{Check, push};
use crate::error::{Error, Result};
use crate::ext4::checksum::Kind;
use crate::ext4::format;
use crate::ext4::inode;
use crate::ext4::units::InodeNumber;
use crate::ext4::{FileKind, Inode, InodeFlags};

/// `i_flags`: an inode of AFS.
const IMAGIC: u32 = 0x2000;

impl Check<'_> {
    /// Looks at the bytes of an inode in its table.
    pub(super) fn inode(&mut self, number: InodeNumber, bytes: &[u8]) -> Result<()> {
        let office = self.office(number);
        let raw = inode::raw(bytes);
        if office == Office::None && number.value() == self.raw.s_orphan_file_inum.get() {
            // No feature speaks of the file of orphans that the superblock names.
            let map = raw.i_block.iter().take(4).any(|&byte| byte != 0);
            let empty = raw.i_links_count.get() == 0 && raw.i_blocks_lo.get() == 0 && !map;
            self.findings.hold(empty, Rule::OrphanFile, Place::Inode(number.value()));
        }
        if office == Office::None && raw.i_links_count.get() == 0 {
            return self.free_inode(number, &raw, bytes);
        }
        if !matches!(office, Office::None | Office::Root) {
            return self.reserved_inode(number, office, &raw, bytes);
        }
        self.file(number, &raw, bytes)
    }

    /// An inode that is not in use: its checksum holds if it was ever written, and it says when it was deleted.
    fn free_inode(&mut self, number: InodeNumber, raw: &format::Inode, bytes: &[u8]) -> Result<()> {
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let place = Place::Inode(number.value());
        self.checksum(number, bytes)?;
        let (mode, deleted) = (raw.i_mode.get(), raw.i_dtime.get());
        self.findings.hold((mode == 0 || deleted != 0) && !self.is_orphan_link(raw), Rule::InodeDeleted, place);
        Ok(())
    }

    /// Whether its time of deletion is a link of the list of orphans.
    pub(super) fn is_orphan_link(&self, raw: &format::Inode) -> bool {
        let deleted = raw.i_dtime.get();
        deleted != 0 && deleted < self.fs.superblock().inodes && self.dates_are_late()
    }

    /// Only the checksum of an inode, whatever else it is.
    pub(super) fn checksum(&mut self, number: InodeNumber, bytes: &[u8]) -> Result<()> {
        match self.fs.inode_of(number, bytes, false) {
            Err(error @ Error::Checksum(_)) => self.keep(error),
            // The checksum cannot be right where the length of what it covers is not.
            Err(Error::Corrupt(found)) if found.rule == Rule::InodeExtraSize => {
                let counts = self.fs.verifier().kind() == Kind::Crc32c;
                self.findings.hold(!counts, found.rule, found.place);
                Ok(())
            }
            Err(error @ (Error::Device { .. } | Error::OutOfMemory)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether every date of the file system is above every inode number: only then a low time of deletion is a link of
    /// the list of orphans.
    fn dates_are_late(&self) -> bool {
        let dates = [self.raw.s_wtime.get(), self.raw.s_mtime.get(), self.raw.s_mkfs_time.get()];
        dates.iter().all(|&date| date == 0 || date >= self.fs.superblock().inodes)
    }

    /// An inode in use that is no reserved one.
    fn file(&mut self, number: InodeNumber, raw: &format::Inode, bytes: &[u8]) -> Result<()> {
        self.findings.counts.inodes = self.findings.counts.inodes.saturating_add(1);
        let place = Place::Inode(number.value());
        let inode = match self.fs.inode_of(number, bytes, true) {
            Ok(inode) => inode,
            Err(error) => {
                self.see(number, raw, 0, Role::File);
                if number == InodeNumber::ROOT {
                    self.directory_seen(number)?;
                }
                return self.keep(error);
            }
        };
        let role = if inode.flags.contains(InodeFlags::EA_INODE) { Role::Flagged } else { Role::File };
        self.see(number, raw, inode.kind.entry_type(), role);
        // Of others that is told where a name leads to them. The kernel mounts no such root, and e2fsck takes it.
        if role == Role::Flagged && number == InodeNumber::ROOT {
            self.findings.notice(Rule::InodeFlags, place);
        }
        self.fields(&inode, raw, bytes);
        if inode.kind == FileKind::Directory {
            self.directory_seen(number)?;
        } else {
            self.findings.hold(number != InodeNumber::ROOT, Rule::InodeMode, place);
        }
        self.contents(&inode, raw)
    }

    pub(super) fn see(&mut self, number: InodeNumber, raw: &format::Inode, file_type: u8, role: Role) {
        if let Some(seen) = self.inodes.find(number) {
            *seen = Seen { stated: raw.i_links_count.get(), named: 0, file_type, role };
        }
    }

    fn directory_seen(&mut self, number: InodeNumber) -> Result<()> {
        self.findings.counts.directories = self.findings.counts.directories.saturating_add(1);
        let index = number.value().saturating_sub(1).checked_div(self.fs.superblock().inodes_per_group);
        let count = index.and_then(|group| self.group_directories.get_mut(usize::try_from(group).ok()?));
        if let Some(count) = count {
            *count = count.saturating_add(1);
        }
        push(&mut self.directories, super::Directory::new(number))
    }

    /// What the features say of single fields.
    fn fields(&mut self, inode: &Inode, raw: &format::Inode, bytes: &[u8]) {
        let superblock = self.fs.superblock();
        let place = Place::Inode(inode.number.value());
        let flags = inode.flags;
        self.findings.hold(raw.i_dtime.get() == 0, Rule::InodeDeleted, place);

        let unused = raw.i_obso_faddr.get() != 0
            || (!self.is_of_hurd()
                && !superblock.incompat.contains(Incompat::SIXTY_FOUR_BIT)
                && raw.i_file_acl_high.get() != 0)
            // Where Linux has the upper half of the space, the Hurd has its fragments.
            || ((self.is_of_hurd() || !superblock.ro_compat.contains(RoCompat::HUGE_FILE))
                && raw.i_blocks_high.get() != 0)
            || (inode.kind == FileKind::Directory
                && !superblock.incompat.contains(Incompat::LARGEDIR)
                && raw.i_size_high.get() != 0);
        self.findings.hold(!unused, Rule::InodeUnusedFields, place);

        let extents = flags.contains(InodeFlags::EXTENTS);
        let has_header = u16::from_le_bytes([raw.i_block[0], raw.i_block[1]]) == format::EXTENT_MAGIC;
        let mapped = matches!(inode.kind, FileKind::Regular | FileKind::Directory);
        let allowed = superblock.incompat.contains(Incompat::EXTENTS);
        let wrong = (extents && !allowed)
            || (allowed
                && !extents
                && mapped
                && !flags.contains(InodeFlags::INLINE_DATA)
                && has_header
                && looks_like_tree(raw))
            || (extents && flags.contains(InodeFlags::INLINE_DATA))
            || (extents && inode.is_fast_symlink(superblock))
            || (flags.contains(InodeFlags::CASEFOLD) && inode.kind != FileKind::Directory)
            || (flags.bits() & IMAGIC != 0 && !superblock.compat.contains(Compat::IMAGIC_INODES));
        self.findings.hold(!wrong, Rule::InodeFlags, place);

        let hashed = flags.contains(InodeFlags::INDEX);
        let may_be = inode.kind == FileKind::Directory && superblock.compat.contains(Compat::DIR_INDEX);
        self.findings.hold(!hashed || may_be, Rule::HtreeFlag, place);
        self.findings.hold(!has_old_times(raw, bytes), Rule::InodeTimes, place);
    }
}

/// Whether what lies in the place of the map could be the root of an extent tree.
fn looks_like_tree(raw: &format::Inode) -> bool {
    let [_, _, c, d, e, f, ..] = raw.i_block;
    let (entries, most) = (u16::from_le_bytes([c, d]), u16::from_le_bytes([e, f]));
    entries <= most && (2..=4).contains(&most)
}

/// Kernels before 3.14 set the two upper bits of years before 1970 as if they were beyond 2310.
fn has_old_times(raw: &format::Inode, bytes: &[u8]) -> bool {
    let tail = bytes.len().saturating_sub(usize::from(format::GOOD_OLD_INODE_SIZE));
    let extra = usize::from(raw.i_extra_isize.get());
    if tail == 0 || extra == 0 || extra >= tail.saturating_sub(4) {
        return false;
    }
    let old = |end: usize, seconds: u32, more: u32| end <= extra && seconds.cast_signed() < 0 && more & 3 == 3;
    old(8, raw.i_ctime.get(), raw.i_ctime_extra.get())
        || old(12, raw.i_mtime.get(), raw.i_mtime_extra.get())
        || old(16, raw.i_atime.get(), raw.i_atime_extra.get())
        || old(24, raw.i_crtime.get(), raw.i_crtime_extra.get())
}

impl FileKind {
    /// As a directory entry has it.
    fn entry_type(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::CharacterDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }
}
