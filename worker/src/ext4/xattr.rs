//! Extended attributes: names with values that a file carries, in its inode, in a block, or each in an inode of its own.
//!
//! What always holds here: the entries of a place are checked all before any is used, against the place and against each
//! other, so that one answer looks at no more than an inode's body, one block and one value of at most
//! [`LONGEST_VALUE`]. Damage concerns the attributes and not the file. On the way of a question: inode → entries → value.

use std::ops::ControlFlow;

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::Incompat;
use lazaret_policy::message::Xattrs;
use zerocopy::FromBytes;

use super::checksum::{Kind, crc32c};
use super::inode::{FileKind, Inode, InodeFlags};
use super::units::{InodeNumber, u64_from, usize_from};
use super::xattr_entry::{Entry, Value, entries, laid_out};
use super::{Block, Filesystem, acl, format};
use crate::error::{Error, Result};

/// The longest value that is read, in bytes: the most that a system call takes, `XATTR_SIZE_MAX`.
pub const LONGEST_VALUE: u32 = 65536;

/// An attribute by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xattr<'a> {
    /// What the name begins with.
    pub namespace: Namespace,
    /// What follows: at least one byte, or none if the namespace is one name. No NUL.
    pub name: &'a [u8],
}

/// What the name of an attribute begins with: `e_name_index`. Those that no system call reaches have none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// For whoever may read the file.
    User,
    /// The access control list: one name.
    AclAccess,
    /// The access control list that new files in a directory inherit: one name.
    AclDefault,
    /// For privileged processes.
    Trusted,
    /// For security modules and file capabilities.
    Security,
    /// The file system's own: `data` continues what lies in the inode.
    System,
    /// A list in the style of NFS: one name. No released kernel reads it.
    RichAcl,
}

impl Filesystem {
    /// Visits the names of a file's attributes, those in the inode first, until `visit` breaks. The file system's own are
    /// among them ([`Namespace::System`]).
    ///
    /// # Errors
    /// The inode's body or the block breaks a rule: [`Error::Corrupt`], [`Error::Checksum`]. What lies before was visited.
    pub fn xattrs(&self, inode: &Inode, visit: &mut dyn FnMut(Xattr<'_>) -> ControlFlow<()>) -> Result<()> {
        if tell(&self.inner_attributes(inode)?, visit).is_break() {
            return Ok(());
        }
        if let Some(block) = self.attribute_block(inode)? {
            let _ = tell(&self.outer_attributes(inode, &block)?, visit);
        }
        Ok(())
    }

    /// The value of the attribute with this whole name, such as `user.mime_type`; none if the file does not have it. An
    /// access control list comes in the form of the system calls.
    ///
    /// # Errors
    /// As [`Self::xattrs`], and a value that breaks a rule.
    pub fn xattr(&self, inode: &Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(wanted) = Xattr::parse(name) else { return Ok(None) };
        let found = |entries: &[Entry<'_>]| match entries.iter().find(|entry| entry.xattr() == Some(wanted)) {
            Some(entry) => self.value(inode, entry).map(Some),
            None => Ok(None),
        };
        let value = match found(&self.inner_attributes(inode)?)? {
            Some(value) => Some(value),
            None => match self.attribute_block(inode)? {
                Some(block) => found(&self.outer_attributes(inode, &block)?)?,
                None => None,
            },
        };
        match (value, wanted.namespace) {
            (Some(value), Namespace::AclAccess | Namespace::AclDefault) => {
                acl::decode(&value).map_err(|rule| Error::corrupt(rule, Place::Inode(inode.number.value())))
            }
            (value, _) => Ok(value),
        }
    }

    /// The attributes in the inode's body.
    pub(super) fn inner_attributes<'a>(&self, inode: &'a Inode) -> Result<Vec<Entry<'a>>> {
        let Some(body) = &inode.body else { return Ok(Vec::new()) };
        entries(body, 0).map_err(|rule| Error::corrupt(rule, Place::Inode(inode.number.value())))
    }

    /// The same whatever their names are.
    pub(super) fn inner_laid_out<'a>(&self, inode: &'a Inode) -> Result<Vec<Entry<'a>>> {
        let Some(body) = &inode.body else { return Ok(Vec::new()) };
        laid_out(body, 0).map_err(|rule| Error::corrupt(rule, Place::Inode(inode.number.value())))
    }

    /// The attributes in a block, whatever their names are.
    pub(super) fn outer_laid_out<'a>(&self, inode: &Inode, block: &'a Block) -> Result<Vec<Entry<'a>>> {
        let place = Place::XattrBlock { inode: inode.number.value(), block: inode.attribute_block.map_or(0, |b| b.0) };
        laid_out(block, size_of::<format::XattrHeader>()).map_err(|rule| Error::corrupt(rule, place))
    }

    /// The attributes in a block.
    pub(super) fn outer_attributes<'a>(&self, inode: &Inode, block: &'a Block) -> Result<Vec<Entry<'a>>> {
        let place = Place::XattrBlock { inode: inode.number.value(), block: inode.attribute_block.map_or(0, |b| b.0) };
        entries(block, size_of::<format::XattrHeader>()).map_err(|rule| Error::corrupt(rule, place))
    }

    /// The block of attributes, if there is one: of the right kind, and matching its checksum.
    pub(super) fn attribute_block(&self, inode: &Inode) -> Result<Option<Block>> {
        let Some(number) = inode.attribute_block else { return Ok(None) };
        let place = Place::Inode(inode.number.value());
        self.zone().check(inode.number, number, 1).map_err(|rule| Error::corrupt(rule, place))?;
        let size = self.superblock().block_size;
        let offset = size.byte_offset(number).ok_or(Error::corrupt(Rule::BlockInFileSystem, place))?;
        let mut block = vec![0; size.length()].into_boxed_slice();
        self.device().read_at(offset.0, &mut block)?;

        let place = Place::XattrBlock { inode: inode.number.value(), block: number.0 };
        let broken = Error::corrupt(Rule::XattrHeader, place);
        let (header, _) = format::XattrHeader::ref_from_prefix(&block).map_err(|_| broken)?;
        if header.h_magic.get() != format::XATTR_MAGIC || header.h_blocks.get() != 1 {
            return Err(broken);
        }
        if self.verifier().kind() == Kind::Crc32c {
            let matches = checksum(self.verifier().seed(), number.0, &block) == Some(header.h_checksum.get());
            self.verifier().judge(matches, Rule::XattrChecksum, place)?;
        }
        Ok(Some(block))
    }

    pub(super) fn value(&self, owner: &Inode, entry: &Entry<'_>) -> Result<Vec<u8>> {
        match entry.value {
            Value::Here(bytes) => Ok(bytes.to_vec()),
            Value::Inode { number, size } => self.value_in_inode(owner, entry, number, size),
        }
    }

    /// The hash that an inode for a value says its value has.
    pub(super) fn stated_hash(&self, holder: InodeNumber) -> Result<u32> {
        Ok(low_half(self.any_inode(holder)?.atime.seconds))
    }

    /// A value that has an inode: one that is for nothing else, as long as the entry says, and with the hash that both
    /// know.
    fn value_in_inode(&self, owner: &Inode, entry: &Entry<'_>, number: InodeNumber, size: u32) -> Result<Vec<u8>> {
        let place = Place::Inode(owner.number.value());
        if size > LONGEST_VALUE {
            return Err(Error::corrupt(Rule::XattrSize, place));
        }
        let superblock = self.superblock();
        let may_be = superblock.incompat.contains(Incompat::EA_INODE)
            && number != owner.number
            && (superblock.first_inode..=superblock.inodes).contains(&number.value());
        if !may_be {
            return Err(Error::corrupt(Rule::XattrInode, place));
        }
        let holder = self.any_inode(number)?;
        let place = Place::Inode(number.value());
        if !is_holder(&holder) {
            return Err(Error::corrupt(Rule::XattrInode, place));
        }
        if holder.size != u64::from(size) {
            return Err(Error::corrupt(Rule::XattrInodeSize, place));
        }
        let mut value = vec![0; usize_from(size)];
        let length = self.read(&holder, 0, &mut value)?;
        debug_assert_eq!(u64_from(length), holder.size);

        // Where the hash would stand, Lustre once had something else, and the owner's number and generation beside it.
        let stored = low_half(holder.atime.seconds);
        let of_lustre = stored != entry.hash
            && low_half(holder.mtime.seconds) == owner.number.value()
            && holder.generation == owner.generation;
        if !of_lustre {
            let hash = crc32c(self.verifier().seed(), &value);
            self.verifier().judge(hash == stored && entry.has_hash_of(hash), Rule::XattrHash, place)?;
        }
        // Last, for a check: with all else right it is no damage to e2fsck.
        if has_attributes(&holder) {
            return Err(Error::corrupt(Rule::XattrInode, place));
        }
        Ok(value)
    }

    /// Whether an inode for a value lacks nothing to be one but that it has attributes itself.
    pub(super) fn is_value_with_attributes(&self, holder: InodeNumber) -> bool {
        self.any_inode(holder).is_ok_and(|holder| is_holder(&holder) && has_attributes(&holder))
    }
}

/// Whether an inode is made for a value.
fn is_holder(inode: &Inode) -> bool {
    inode.flags.contains(InodeFlags::EA_INODE)
        && !inode.flags.contains(InodeFlags::INLINE_DATA)
        && inode.kind == FileKind::Regular
}

fn has_attributes(inode: &Inode) -> bool {
    inode.body.is_some() || inode.attribute_block.is_some()
}

/// Visits those that a system call can reach.
fn tell(entries: &[Entry<'_>], visit: &mut dyn FnMut(Xattr<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    entries.iter().filter_map(Entry::xattr).try_for_each(visit)
}

/// The checksum of a block of attributes: over its number, and over it with the checksum as zeros.
fn checksum(seed: u32, number: u64, block: &[u8]) -> Option<u32> {
    const CHECKSUM: usize = std::mem::offset_of!(format::XattrHeader, h_checksum);
    let (before, rest) = block.split_at_checked(CHECKSUM)?;
    let (_, behind) = rest.split_first_chunk::<4>()?;
    let crc = crc32c(crc32c(seed, &number.to_le_bytes()), before);
    Some(crc32c(crc32c(crc, &[0; 4]), behind))
}

/// The word of a time that every inode has.
fn low_half(seconds: i64) -> u32 {
    u32::try_from(seconds & 0xffff_ffff).unwrap_or(0)
}

impl<'a> Xattr<'a> {
    /// From a whole name; none if no attribute can have it.
    pub fn parse(name: &'a [u8]) -> Option<Self> {
        Namespace::ALL.into_iter().find_map(|namespace| {
            let name = name.strip_prefix(namespace.prefix().as_bytes())?;
            (name.is_empty() == namespace.is_one_name()).then_some(Self { namespace, name })
        })
    }
}

impl Namespace {
    const ALL: [Self; 7] =
        [Self::User, Self::AclAccess, Self::AclDefault, Self::RichAcl, Self::Trusted, Self::Security, Self::System];

    /// What a whole name begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::User => "user.",
            Self::AclAccess => "system.posix_acl_access",
            Self::AclDefault => "system.posix_acl_default",
            Self::Trusted => "trusted.",
            Self::Security => "security.",
            Self::System => "system.",
            Self::RichAcl => "system.richacl",
        }
    }

    /// Whether attributes of this kind are shown where these are. The file system's own are shown by nobody, the kernel
    /// neither.
    pub fn is_shown(self, which: Xattrs) -> bool {
        match self {
            Self::User | Self::AclAccess | Self::AclDefault => which != Xattrs::None,
            Self::Trusted | Self::Security => which == Xattrs::All,
            Self::System | Self::RichAcl => false,
        }
    }

    /// Whether nothing follows the prefix.
    pub fn is_one_name(self) -> bool {
        matches!(self, Self::AclAccess | Self::AclDefault | Self::RichAcl)
    }

    pub(super) fn of(index: u8) -> Option<Self> {
        Some(match index {
            1 => Self::User,
            2 => Self::AclAccess,
            3 => Self::AclDefault,
            4 => Self::Trusted,
            6 => Self::Security,
            7 => Self::System,
            8 => Self::RichAcl,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_the_namespace_it_begins_with() {
        let parse = |name: &'static str| Xattr::parse(name.as_bytes()).map(|xattr| (xattr.namespace, xattr.name));
        assert_eq!(parse("user.a.b"), Some((Namespace::User, &b"a.b"[..])));
        assert_eq!(parse("system.posix_acl_access"), Some((Namespace::AclAccess, &b""[..])));
        assert_eq!(parse("system.richacl"), Some((Namespace::RichAcl, &b""[..])));
        assert_eq!(parse("system.data"), Some((Namespace::System, &b"data"[..])));
        assert_eq!(parse("security.capability"), Some((Namespace::Security, &b"capability"[..])));
        for name in ["", "user.", "user", "users.a", "trusted.", "gnu.translator"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn an_index_and_a_name_are_the_same_namespace() {
        let known = (0..=255).filter_map(Namespace::of).collect::<Vec<_>>();
        assert_eq!(known.len(), Namespace::ALL.len());
        for namespace in known {
            let name = format!("{}{}", namespace.prefix(), if namespace.is_one_name() { "" } else { "x" });
            assert_eq!(Xattr::parse(name.as_bytes()).map(|xattr| xattr.namespace), Some(namespace));
        }
    }

    #[test]
    fn the_low_half_of_a_time_is_the_word_on_the_disk() {
        assert_eq!(low_half(-1), u32::MAX);
        assert_eq!(low_half(0x3_8000_0001), 0x8000_0001);
    }
}
