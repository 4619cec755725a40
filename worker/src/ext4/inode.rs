//! Inodes: what a file is, who owns it, when it changed, and the root of the map of its data.
//!
//! An [`Inode`] is a copy, made once and checked; the map within it ([`Inode::map`]) is raw bytes that `extent.rs` or
//! `indirect.rs` check when the file's data is asked for, so that a broken map leaves the rest of the inode readable.
//! On the way of a read this comes first: node id → inode → mapping.

use std::sync::Arc;

use bitflags::bitflags;
use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use lazaret_policy::planted;
use zerocopy::{FromZeros, IntoBytes};

use super::Filesystem;
use super::checksum::{Kind, crc32c};
use super::format;
use super::group;
use super::superblock::Superblock;
use super::units::{BlockNumber, ByteOffset, GroupNumber, InodeNumber};
use crate::error::{Error, Result};

/// What `stat` shows of a file, and what its data is mapped by.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number.
    pub number: InodeNumber,
    /// `i_generation`: differs between the files that had this number.
    pub generation: u32,
    /// The type of the file.
    pub kind: FileKind,
    /// Permissions with set-uid, set-gid and sticky: the lower 12 bits of the mode.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links to it; 1 for a directory may mean "many". 0 only for an orphan that was asked for as such.
    pub links: u16,
    /// Length in bytes: at most what its map can reach.
    pub size: u64,
    /// Space it takes in units of 512 bytes, as `stat` shows.
    pub blocks: u64,
    /// `i_flags`.
    pub flags: InodeFlags,
    /// The number of a device as FUSE and the kernel's `new_encode_dev` have it: minor 0–7, major 8–19, minor 20–31.
    pub rdev: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, where the inode is long enough to say.
    pub crtime: Option<Timestamp>,
    /// The seed of every checksum that belongs to this inode.
    pub checksum_seed: u32,
    /// `i_block`: raw bytes. Only the maps and the short links look at it.
    pub(super) map: [u8; 60],
    /// Extended attributes in the inode: raw bytes behind their magic number, up to the end. `xattr_entry.rs` checks them.
    pub(super) body: Option<Box<[u8]>>,
    /// The block of extended attributes: a raw number.
    pub(super) attribute_block: Option<BlockNumber>,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// S_IFREG.
    Regular,
    /// S_IFDIR.
    Directory,
    /// S_IFLNK.
    Symlink,
    /// S_IFCHR.
    CharacterDevice,
    /// S_IFBLK.
    BlockDevice,
    /// S_IFIFO.
    Fifo,
    /// S_IFSOCK.
    Socket,
}

/// A time: seconds since 1970, and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Before 1970: negative.
    pub seconds: i64,
    /// At most 999 999 999.
    pub nanoseconds: u32,
}

bitflags! {
    /// `i_flags`, as far as a reader looks at them; the others are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InodeFlags: u32 {
        /// May not be changed.
        const IMMUTABLE = 0x10;
        /// May only be appended to.
        const APPEND = 0x20;
        /// Data or names are encrypted.
        const ENCRYPT = 0x800;
        /// A directory with a hash tree.
        const INDEX = 0x1000;
        /// Space is counted in blocks of the file system.
        const HUGE_FILE = 0x4_0000;
        /// Mapped by extents.
        const EXTENTS = 0x8_0000;
        /// Carries a Merkle tree behind its end.
        const VERITY = 0x10_0000;
        /// The value of an extended attribute.
        const EA_INODE = 0x20_0000;
        /// The data lies in the inode.
        const INLINE_DATA = 0x1000_0000;
        /// A directory that folds case.
        const CASEFOLD = 0x4000_0000;
        const _ = !0;
    }
}

impl Filesystem {
    /// A file by its number, copied out of the inode table and checked.
    ///
    /// # Errors
    /// A number that no file can have, an inode that is not in use or breaks a rule: [`Error::Corrupt`]. A wrong
    /// checksum, of the inode or of its group's descriptor: [`Error::Checksum`].
    pub fn inode(&self, number: InodeNumber) -> Result<Inode> {
        let reserved = number != InodeNumber::ROOT && number.value() < self.superblock().first_inode;
        if reserved {
            return Err(Error::corrupt(Rule::InodeNumber, Place::Inode(number.value())));
        }
        let inode = self.any_inode(number)?;
        // The value of an extended attribute is no file, and no directory names it.
        if inode.flags.contains(InodeFlags::EA_INODE) {
            return Err(Error::corrupt(Rule::InodeFlags, Place::Inode(number.value())));
        }
        Ok(inode)
    }

    /// As [`Self::inode`], for whoever will ask for it again: it was checked when it was asked for first.
    ///
    /// # Errors
    /// As [`Self::inode`].
    pub fn kept_inode(&self, number: InodeNumber) -> Result<Arc<Inode>> {
        if let Some(inode) = self.kept.inodes.find(&number) {
            return Ok(inode);
        }
        let inode = Arc::new(self.inode(number)?);
        if !self.verifier().counts_uses() {
            self.kept.inodes.keep(number, Arc::clone(&inode));
        }
        Ok(inode)
    }

    /// As [`Self::inode`], but also one of the file system's own: the journal, a quota file.
    pub fn any_inode(&self, number: InodeNumber) -> Result<Inode> {
        let offset = self.inode_address(number)?;

        // Most inodes are 128 or 256 bytes long and need no heap.
        let size = usize::from(self.superblock().inode_size);
        let (mut short, mut long) = ([0; 256], Vec::new());
        let bytes = match short.get_mut(..size) {
            Some(bytes) => bytes,
            None => {
                long.resize(size, 0);
                &mut long[..]
            }
        };
        self.device().read_at(offset.0, bytes)?;
        self.inode_of(number, bytes, true)
    }

    /// Where an inode begins on the device.
    pub(super) fn inode_address(&self, number: InodeNumber) -> Result<ByteOffset> {
        let superblock = self.superblock();
        let place = Place::Inode(number.value());
        let index = number.value().checked_sub(1).filter(|_| number.value() <= superblock.inodes);
        let index = index.ok_or(Error::corrupt(Rule::InodeNumber, place))?;
        let group = index.checked_div(superblock.inodes_per_group).map(GroupNumber);
        let within = index.checked_rem(superblock.inodes_per_group);
        let (Some(group), Some(within)) = (group, within) else {
            return Err(Error::corrupt(Rule::InodeNumber, place));
        };
        let table = self.group(group)?.inode_table;
        group::inode_offset(superblock, table, within).ok_or(Error::corrupt(Rule::InodeNumber, place))
    }

    /// The inode that these bytes of the table are. One without links is none, unless it need not be `linked`: those on
    /// the list of orphans still have their blocks.
    pub(super) fn inode_of(&self, number: InodeNumber, bytes: &[u8], linked: bool) -> Result<Inode> {
        let place = Place::Inode(number.value());
        let broken = |rule| Error::corrupt(rule, place);
        let superblock = self.superblock();

        let raw = raw(bytes);
        let tail = Tail::check(bytes, raw.i_extra_isize.get()).ok_or(broken(Rule::InodeExtraSize))?;

        let checksum_seed = self.verifier().inode_seed(number, raw.i_generation.get());
        if self.verifier().kind() == Kind::Crc32c && superblock.by_linux {
            let matches = checksum_matches(bytes, &raw, tail, checksum_seed);
            self.verifier().judge(matches, Rule::InodeChecksum, place)?;
        }

        if linked && raw.i_links_count.get() == 0 {
            return Err(broken(Rule::InodeInUse));
        }
        let mode = raw.i_mode.get();
        let kind = FileKind::of(mode).ok_or(broken(Rule::InodeMode))?;
        let flags = InodeFlags::from_bits_retain(raw.i_flags.get());
        if flags.contains(InodeFlags::INLINE_DATA) && !superblock.incompat.contains(Incompat::INLINE_DATA) {
            return Err(broken(Rule::InodeFlags));
        }
        let unnamed = (flags.contains(InodeFlags::ENCRYPT) && !superblock.incompat.contains(Incompat::ENCRYPT))
            || (flags.contains(InodeFlags::CASEFOLD) && !superblock.incompat.contains(Incompat::CASEFOLD));
        if unnamed {
            return Err(broken(Rule::InodeFlags));
        }
        // Its hash tree would be taken for empty entries, and they have checksums elsewhere.
        let hashed = kind == FileKind::Directory && flags.contains(InodeFlags::INDEX);
        if hashed
            && superblock.ro_compat.contains(RoCompat::METADATA_CSUM)
            && !superblock.compat.contains(Compat::DIR_INDEX)
        {
            return Err(broken(Rule::InodeFlags));
        }

        let times = tail.of_times(bytes);
        let inode = Inode {
            number,
            generation: raw.i_generation.get(),
            kind,
            permissions: mode & 0o7777,
            uid: u32::from(raw.i_uid_high.get()) << 16 | u32::from(raw.i_uid.get()),
            gid: u32::from(raw.i_gid_high.get()) << 16 | u32::from(raw.i_gid.get()),
            links: raw.i_links_count.get(),
            size: self.size(&raw, kind),
            blocks: self.space(&raw, flags),
            flags,
            rdev: rdev(&raw, kind),
            atime: Timestamp::of(raw.i_atime.get(), times.word(0x8c, raw.i_atime_extra.get())),
            mtime: Timestamp::of(raw.i_mtime.get(), times.word(0x88, raw.i_mtime_extra.get())),
            ctime: Timestamp::of(raw.i_ctime.get(), times.word(0x84, raw.i_ctime_extra.get())),
            crtime: times
                .word(0x90, raw.i_crtime.get())
                .map(|seconds| Timestamp::of(seconds, times.word(0x94, raw.i_crtime_extra.get()))),
            checksum_seed,
            map: raw.i_block,
            body: tail.body(bytes),
            attribute_block: self.attribute_block_of(&raw),
        };
        if matches!(kind, FileKind::Regular | FileKind::Directory) && inode.size > self.longest(&inode) {
            return Err(broken(Rule::FileSize));
        }
        Ok(inode)
    }

    /// Only files may be longer than 4 GiB, and directories where a feature says so; elsewhere the upper half meant
    /// something else once.
    fn size(&self, raw: &format::Inode, kind: FileKind) -> u64 {
        let large = kind == FileKind::Regular || self.superblock().incompat.contains(Incompat::LARGEDIR);
        let high = if large { u64::from(raw.i_size_high.get()) << 32 } else { 0 };
        high | u64::from(raw.i_size_lo.get())
    }

    /// The upper half counts only where block numbers are so long.
    pub(super) fn attribute_block_of(&self, raw: &format::Inode) -> Option<BlockNumber> {
        let wide = self.superblock().incompat.contains(Incompat::SIXTY_FOUR_BIT);
        let high = if wide { u64::from(raw.i_file_acl_high.get()) << 32 } else { 0 };
        Some(high | u64::from(raw.i_file_acl_lo.get())).filter(|&number| number != 0).map(BlockNumber)
    }

    fn space(&self, raw: &format::Inode, flags: InodeFlags) -> u64 {
        let low = u64::from(raw.i_blocks_lo.get());
        if !self.superblock().ro_compat.contains(RoCompat::HUGE_FILE) {
            return low;
        }
        // 48 bits, and at most 7 more for the unit: it cannot overflow.
        let blocks = u64::from(raw.i_blocks_high.get()) << 32 | low;
        let unit = self.superblock().block_size.bytes() >> 9;
        if flags.contains(InodeFlags::HUGE_FILE) { blocks.saturating_mul(unit.into()) } else { blocks }
    }
}

/// The fields of an inode; those that it is too short for are 0.
pub(super) fn raw(bytes: &[u8]) -> format::Inode {
    let mut raw = format::Inode::new_zeroed();
    let known = bytes.len().min(size_of::<format::Inode>());
    if let (Some(to), Some(from)) = (raw.as_mut_bytes().get_mut(..known), bytes.get(..known)) {
        to.copy_from_slice(from);
    }
    raw
}

/// How far the part of an inode behind the first 128 bytes is in use.
#[derive(Clone, Copy)]
struct Tail {
    end: usize,
}

impl Tail {
    /// Within the inode, and a multiple of 4.
    fn check(bytes: &[u8], extra: u16) -> Option<Self> {
        let base = usize::from(format::GOOD_OLD_INODE_SIZE);
        if bytes.len() <= base {
            return Some(Self { end: base });
        }
        let end = base.checked_add(extra.into())?;
        (end <= bytes.len() && extra.is_multiple_of(4)).then_some(Self { end })
    }

    /// An inode that has room for a tail and none in use: the kernel takes the times from there all the same, as its
    /// first change to the inode would write them (`ext4_iget`).
    fn of_times(self, bytes: &[u8]) -> Self {
        let unused = self.end == usize::from(format::GOOD_OLD_INODE_SIZE) && bytes.len() > self.end;
        if unused { Self { end: size_of::<format::Inode>().min(bytes.len()) } } else { self }
    }

    /// Whether a field that ends at this byte is in use.
    fn covers(self, end: usize) -> bool {
        end <= self.end
    }

    /// What is left of the inode, if it begins with the magic number of extended attributes. Without a tail nothing is
    /// kept behind it.
    fn body(self, bytes: &[u8]) -> Option<Box<[u8]>> {
        let rest = bytes.get(self.end..).filter(|_| self.end > usize::from(format::GOOD_OLD_INODE_SIZE))?;
        let (&magic, rest) = rest.split_first_chunk()?;
        (u32::from_le_bytes(magic) == format::XATTR_MAGIC).then(|| rest.into())
    }

    /// The word that begins at this byte, if it is in use.
    fn word(self, offset: usize, value: u32) -> Option<u32> {
        self.covers(offset.saturating_add(4)).then_some(value)
    }
}

/// The checksum covers the whole inode with the checksum itself as zeros; its upper half exists only where the tail
/// reaches over it.
fn checksum_matches(bytes: &[u8], raw: &format::Inode, tail: Tail, seed: u32) -> bool {
    const LOW: usize = 0x7c;
    let from = |begin: usize| bytes.get(begin..).unwrap_or(&[]);
    let low = u32::from(raw.i_checksum_lo.get());
    // The words that hold the halves, without them: one piece of eight bytes, since each piece costs as much as many bytes.
    let (before, halves) = (bytes.get(..LOW).unwrap_or(&[]), from(LOW).first_chunk::<8>());
    let crc = crc32c(seed, before);
    match halves {
        Some(&[_, _, c, d, e, f, _, _]) if tail.covers(0x84) => {
            let crc = crc32c(crc32c(crc, &[0, 0, c, d, e, f, 0, 0]), from(0x84));
            crc == u32::from(raw.i_checksum_hi.get()) << 16 | low
        }
        _ => crc32c(crc32c(crc, &[0; 2]), from(0x7e)) & 0xffff == low,
    }
}

impl Inode {
    /// Space as `stat` shows it, in units of 512 bytes. A file whose data lies in the inode takes none, but is shown
    /// with what its length would take, so that nobody believes it to be a hole: as the kernel does.
    pub fn shown_blocks(&self) -> u64 {
        let inline = self.kind == FileKind::Regular && self.flags.contains(InodeFlags::INLINE_DATA);
        if inline { self.blocks.saturating_add(self.size.div_ceil(512)) } else { self.blocks }
    }

    /// The whole mode: type and permissions.
    pub fn mode(&self) -> u16 {
        self.kind.bits() | self.permissions
    }

    /// A link whose target lies in the inode: it has no blocks but perhaps one for an attribute.
    pub(super) fn is_fast_symlink(&self, superblock: &Superblock) -> bool {
        if self.kind != FileKind::Symlink || self.flags.contains(InodeFlags::INLINE_DATA) {
            return false;
        }
        // A long attribute's inode counts among the blocks, so there only the length tells.
        if superblock.incompat.contains(Incompat::EA_INODE) {
            return self.size < 60;
        }
        let cluster = u64::from(superblock.block_size.bytes() >> 9).saturating_mul(superblock.cluster_ratio.into());
        let attributes = self.attribute_block.map_or(0, |_| cluster);
        self.blocks.saturating_sub(attributes) == 0
    }
}

impl FileKind {
    pub(super) fn of(mode: u16) -> Option<Self> {
        Some(match mode & 0o170000 {
            0o100000 => Self::Regular,
            0o040000 => Self::Directory,
            0o120000 => Self::Symlink,
            0o020000 => Self::CharacterDevice,
            0o060000 => Self::BlockDevice,
            0o010000 => Self::Fifo,
            0o140000 => Self::Socket,
            _ => return None,
        })
    }

    /// The type's bits of the mode.
    pub fn bits(self) -> u16 {
        match self {
            Self::Regular => 0o100000,
            Self::Directory => 0o040000,
            Self::Symlink => 0o120000,
            Self::CharacterDevice => 0o020000,
            Self::BlockDevice => 0o060000,
            Self::Fifo => 0o010000,
            Self::Socket => 0o140000,
        }
    }
}

impl Timestamp {
    /// The word that every inode has, and the one of the tail: 2 bits that count the seconds on beyond 2038, and the
    /// nanoseconds above them. There is room for more of these than a second has; the kernel carries them over.
    fn of(seconds: u32, extra: Option<u32>) -> Self {
        let signed = i64::from(seconds.cast_signed());
        let Some(extra) = extra else { return Self { seconds: signed, nanoseconds: 0 } };
        let epoch = i64::from(extra & 3) << 32;
        let more = (extra >> 2).checked_sub(1_000_000_000).filter(|_| !planted("nanoseconds"));
        Self {
            seconds: signed.saturating_add(epoch).saturating_add(more.is_some().into()),
            nanoseconds: more.unwrap_or(extra >> 2),
        }
    }
}

/// A small number stands in the first word, one of the larger kind, in the form it is shown in, in the second.
fn rdev(raw: &format::Inode, kind: FileKind) -> u32 {
    let device = matches!(kind, FileKind::CharacterDevice | FileKind::BlockDevice);
    let words = raw.i_block.first_chunk::<8>().filter(|_| device);
    let Some(&[a, b, c, d, e, f, g, h]) = words else { return 0 };
    if [a, b, c, d] != [0; 4] { u16::from_le_bytes([a, b]).into() } else { u32::from_le_bytes([e, f, g, h]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_signed_and_counted_on_by_the_lowest_bits_of_the_second_word() {
        let time = |seconds, extra| Timestamp::of(seconds, extra);
        assert_eq!(time(0xffff_ffff, None), Timestamp { seconds: -1, nanoseconds: 0 });
        assert_eq!(time(0x8000_0000, Some(0)).seconds, -0x8000_0000);
        // The table in the format's documentation, by its ends.
        assert_eq!(time(0x7fff_ffff, Some(0)).seconds, 0x7fff_ffff);
        assert_eq!(time(0x8000_0000, Some(1)).seconds, 0x8000_0000);
        assert_eq!(time(0x7fff_ffff, Some(3)).seconds, 0x3_7fff_ffff);
        assert_eq!(time(5, Some(123_456_789 << 2 | 2)), Timestamp { seconds: (2 << 32) + 5, nanoseconds: 123_456_789 });
        assert_eq!(time(0, Some(!3)), Timestamp { seconds: 1, nanoseconds: 73_741_823 });
    }

    #[test]
    fn times_stand_in_a_tail_of_which_none_is_in_use() {
        let (short, long) = ([0; 128], [0; 256]);
        let of_times = |bytes: &[u8], extra| Tail::check(bytes, extra).unwrap().of_times(bytes).end;
        assert_eq!(of_times(&short, 0), 128);
        assert_eq!(of_times(&long, 0), 160);
        assert_eq!(of_times(&long, 4), 132);
        assert_eq!(of_times(&long, 64), 192);
    }

    #[test]
    fn the_number_of_a_device_stands_in_one_of_two_words() {
        let mut raw = format::Inode::new_zeroed();
        raw.i_block[..2].copy_from_slice(&[3, 1]);
        assert_eq!(rdev(&raw, FileKind::CharacterDevice), 0x103);
        assert_eq!(rdev(&raw, FileKind::Regular), 0);
        // Major 300, minor 70000.
        let wide = 70000 & 0xff | 300 << 8 | (70000 & !0xff) << 12;
        raw.i_block = [0; 60];
        raw.i_block[4..8].copy_from_slice(&u32::to_le_bytes(wide));
        assert_eq!(rdev(&raw, FileKind::BlockDevice), wide);
    }

    #[test]
    fn the_tail_ends_within_the_inode_on_a_word() {
        assert!(Tail::check(&[0; 128], 0xffff).is_some_and(|tail| !tail.covers(129)));
        assert!(Tail::check(&[0; 256], 128).is_some_and(|tail| tail.covers(256)));
        assert!(Tail::check(&[0; 256], 132).is_none());
        assert!(Tail::check(&[0; 256], 30).is_none());
        assert!(
            Tail::check(&[0; 256], 8).is_some_and(|tail| tail.word(0x84, 1) == Some(1) && tail.word(0x88, 1).is_none())
        );
    }

    #[test]
    fn a_type_and_its_bits_are_the_same() {
        for bits in 0..16 {
            let mode = bits << 12 | 0o644;
            if let Some(kind) = FileKind::of(mode) {
                assert_eq!(kind.bits() | 0o644, mode);
            }
        }
        assert_eq!(FileKind::of(0o644), None);
        assert_eq!(FileKind::of(0o150644), None);
    }
}
