//! Which extended attributes a mount shows, `xattrs=`, and how they are told.
//!
//! What holds here: a name that is not shown can be neither listed nor read. Access control lists are shown unless nothing
//! is, and then the kernel is asked to keep to them (`FUSE_POSIX_ACL`): a mode alone would give the group of a file what
//! the list's mask allows, which may be more than the list gives to the group. Enforcing them trusts the worker with
//! nothing that it could not say with a mode, and the kernel reads no attribute for it that it would not read for
//! getfacl(1). It costs one question a file, asked where a process that is not the owner opens it, and the kernel keeps
//! the answer. With `xattrs=none` the mode counts, as on the kernel's own mount with `noacl`.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::ext4::{Filesystem, Inode, Namespace, Xattr, acl};
use fuser::{Errno, InitFlags, ReplyXattr};
use lazaret_policy::message::{Start, Xattrs};

/// What a mount shows of the attributes on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    which: Xattrs,
    umask: u16,
}

impl Shown {
    pub(super) fn of(start: &Start) -> Self {
        Self { which: start.xattrs, umask: start.umask & 0o777 }
    }

    /// What the kernel must do for this mount.
    pub(super) fn wanted(self) -> InitFlags {
        if self.which == Xattrs::None { InitFlags::empty() } else { InitFlags::FUSE_POSIX_ACL }
    }

    /// The value of an attribute by its whole name. A `umask=` takes from lists as it takes from modes.
    pub(super) fn value(self, filesystem: &Filesystem, inode: &Inode, name: &[u8]) -> Result<Vec<u8>> {
        self.check()?;
        let namespace =
            Xattr::parse(name).map(|xattr| xattr.namespace).filter(|&namespace| namespace.is_shown(self.which));
        let namespace = namespace.ok_or(Error::Unsupported("attributes of this kind"))?;
        let mut value = filesystem.xattr(inode, name)?.ok_or(Error::NoAttribute)?;
        if matches!(namespace, Namespace::AclAccess | Namespace::AclDefault) {
            acl::narrow(&mut value, self.umask);
        }
        Ok(value)
    }

    /// Whole names, each with a NUL behind it. As on the kernel's own mount, those for privileged processes are told to
    /// no others.
    pub(super) fn names(self, filesystem: &Filesystem, inode: &Inode, privileged: bool) -> Result<Vec<u8>> {
        self.check()?;
        let mut names = Vec::new();
        filesystem.xattrs(inode, &mut |xattr| {
            if xattr.namespace.is_shown(self.which) && (privileged || xattr.namespace != Namespace::Trusted) {
                names.extend_from_slice(xattr.namespace.prefix().as_bytes());
                names.extend_from_slice(xattr.name);
                names.push(0);
            }
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// Where nothing is shown the kernel need not ask again.
    fn check(self) -> Result<()> {
        if self.which == Xattrs::None { Err(Error::NotServed) } else { Ok(()) }
    }
}

/// The answer to a process that has room for so many bytes; with 0 it asks how many there are. An error is told by the
/// number that it is given.
pub(super) fn send(answer: Result<Vec<u8>>, room: u32, reply: ReplyXattr, number: impl FnOnce(&Error) -> Errno) {
    let answer = answer.and_then(|bytes| {
        let length = u32::try_from(bytes.len()).map_err(|_| Error::NoRoom)?;
        if room == 0 || length <= room { Ok((bytes, length)) } else { Err(Error::NoRoom) }
    });
    match answer {
        Ok((_, length)) if room == 0 => reply.size(length),
        Ok((bytes, _)) => reply.data(&bytes),
        Err(error) => reply.error(number(&error)),
    }
}
