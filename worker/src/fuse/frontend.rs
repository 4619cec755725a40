//! One short method a request. It decides nothing: it asks the file system and puts the answer into FUSE's words.
//!
//! What holds here: the node id is the inode number (1 stands for the root, 2), so there is no table of nodes and
//! `forget` has nothing to do; every error number comes from the one table in `error.rs`.

use super::attr::{Owner, blank, file_type};
use super::content::send;
use super::listing::Listings;
use super::opener::{Opened, Opener};
use super::xattr::{self, Shown};
use super::{iomap, reply};
use crate::error::{Error, Result};
use crate::ext4::budget::Budget;
use crate::ext4::dir::DirEntry;
use crate::ext4::seek::Wanted;
use crate::ext4::{FileKind, Filesystem, Inode, InodeNumber};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner, OpenAccMode,
    OpenFlags, ReplyAttr, ReplyBmap, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use lazaret_policy::feature::Incompat;
use lazaret_policy::message::{Special, Start};
use lazaret_policy::planted;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the kernel may keep what it was told: nobody else changes a read-only mount. A year.
const KEEP: Duration = Duration::from_secs(365 * 24 * 3600);
/// Not at all: for what could not be read, so that the next request gets the error.
const FORGET: Duration = Duration::ZERO;

/// Entries in a row that one listing leaves out. Each costs the reading of an inode.
const MOST_HIDDEN: u32 = 1 << 17;

/// Answers the kernel's requests from a file system.
pub struct Frontend {
    opened: Arc<Opened>,
    wants_iomap: bool,
    owner: Owner,
    special: Special,
    xattrs: Shown,
    open_without_asking: bool,
    listings: Listings,
}

impl Frontend {
    pub(super) fn new(start: &Start) -> (Self, Opener) {
        let opened = Arc::<Opened>::default();
        let opener = Opener { opened: Arc::clone(&opened), agreed: None };
        let (owner, xattrs) = (Owner::of(start), Shown::of(start));
        let (special, open_without_asking) = (start.special, start.open_without_asking);
        let (wants_iomap, listings) = (start.iomap, Listings::default());
        (Self { opened, wants_iomap, owner, special, xattrs, open_without_asking, listings }, opener)
    }

    fn filesystem(&self) -> &Filesystem {
        self.opened.filesystem()
    }

    fn is_mapped(&self) -> bool {
        self.opened.mapped.load(Ordering::Relaxed)
    }

    /// The mark of an inode that the kernel is to ask mappings of; `reply.rs` puts it into other words.
    fn mark(&self, inode: &Inode, budget: &mut Budget) -> Generation {
        let mapped = self.is_mapped() && inode.kind == FileKind::Regular;
        if mapped && iomap::is_mapped(self.filesystem(), inode, budget) { reply::MAPPED } else { Generation(0) }
    }

    fn inode(&self, node: INodeNo) -> Result<Arc<Inode>> {
        let inode = self.filesystem().kept_inode(number(node).ok_or(Error::NotFound)?)?;
        if self.is_hidden(Some(inode.kind)) { Err(Error::NotFound) } else { Ok(inode) }
    }

    fn is_hidden(&self, kind: Option<FileKind>) -> bool {
        let special =
            matches!(kind, Some(FileKind::CharacterDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket));
        special && self.special == Special::Hide
    }

    fn attributes(&self, inode: &Inode) -> FileAttr {
        let block_size = self.filesystem().superblock().block_size.bytes();
        FileAttr { size: self.filesystem().shown_size(inode), ..self.owner.attributes(inode, block_size) }
    }

    /// The inode that a name leads to; `None` where there is no such name.
    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Option<Inode>> {
        let directory = self.inode(parent)?;
        match self.filesystem().lookup(&directory, name.as_bytes())? {
            Some(number) => {
                Ok(Some(self.filesystem().inode(number)?).filter(|inode| !self.is_hidden(Some(inode.kind))))
            }
            None => Ok(None),
        }
    }

    /// The kind that a directory's entry claims, or where it claims none, the inode's.
    fn kind_of(&self, entry: &DirEntry<'_>) -> Option<FileKind> {
        entry.kind.or_else(|| Some(self.filesystem().inode(entry.inode).ok()?.kind))
    }

    fn list(&self, node: INodeNo, cookie: u64, reply: &mut ReplyDirectory) -> Result<()> {
        let directory = self.inode(node)?;
        let (mut listed, mut hidden) = (false, 0);
        let result = self.filesystem().read_dir(&directory, cookie, &mut |entry| {
            let kind = self.kind_of(&entry);
            if self.is_hidden(kind) {
                return left_out(&mut hidden);
            }
            let number = INodeNo(u64::from(entry.inode.value()));
            let file_type = kind.map_or(FileType::RegularFile, file_type);
            listed = true;
            full(reply.add(number, entry.cookie, file_type, OsStr::from_bytes(entry.name)))
        });
        let result = if hidden > MOST_HIDDEN { Err(Error::Budget) } else { result };
        damage_is_last(listed, result)
    }

    /// Whether some of the entries are only names.
    fn list_with_attributes(&self, node: INodeNo, cookie: u64, reply: &mut ReplyDirectoryPlus) -> Result<bool> {
        let directory = self.inode(node)?;
        // Who goes on by this request asked for attributes in between.
        let by_name = cookie == 0 && !self.is_mapped() && self.listings.begin(directory.number);
        let (mut listed, mut hidden, mut budget) = (false, 0, self.filesystem().budget());
        let result = self.filesystem().read_dir(&directory, cookie, &mut |entry| {
            let name = OsStr::from_bytes(entry.name);
            if by_name && entry.kind.is_some_and(|kind| kind != FileKind::Directory) {
                if self.is_hidden(entry.kind) {
                    return left_out(&mut hidden);
                }
                listed = true;
                let attributes = blank(entry.inode.value(), entry.kind);
                return full(reply.add(attributes.ino, entry.cookie, name, &FORGET, &attributes, reply::BY_NAME));
            }
            let (attributes, keep, mark) = match self.filesystem().inode(entry.inode) {
                Ok(inode) if self.is_hidden(Some(inode.kind)) => return left_out(&mut hidden),
                Ok(inode) => (self.attributes(&inode), KEEP, self.mark(&inode, &mut budget)),
                Err(_) => (blank(entry.inode.value(), entry.kind), FORGET, Generation(0)),
            };
            listed = true;
            full(reply.add(attributes.ino, entry.cookie, name, &keep, &attributes, mark))
        });
        let result = if hidden > MOST_HIDDEN { Err(Error::Budget) } else { result };
        damage_is_last(listed, result).map(|()| by_name)
    }

    /// Where somebody asks for what was listed by names, one by one, the listings of such directories are to be made anew.
    fn looked_up(&self, parent: INodeNo, inode: &Inode) {
        if inode.kind == FileKind::Directory || self.listings.are_settled() {
            return;
        }
        for listed in number(parent).map(|directory| self.listings.asked(directory)).unwrap_or_default() {
            // Of one that the kernel has forgotten by itself there is nothing to tell.
            let _ = self.opened.notifier.get().map(|notifier| notifier.inval_inode(node(listed), 0, 0));
        }
    }

    /// Where the next data or hole begins, at or after `offset`: lseek(2)'s SEEK_DATA and SEEK_HOLE.
    fn seek(&self, node: INodeNo, offset: i64, whence: i32) -> Result<i64> {
        let inode = self.inode(node)?;
        let offset = u64::try_from(offset).ok().filter(|&start| start < inode.size).ok_or(Error::NoMore)?;
        let wanted = match whence {
            libc::SEEK_DATA => Wanted::Data,
            libc::SEEK_HOLE => Wanted::Hole,
            _ => return Err(Error::Invalid),
        };
        let found = self.filesystem().seek(&inode, offset, wanted)?.ok_or(Error::NoMore)?;
        i64::try_from(found).map_err(|_| Error::NoMore)
    }
}

/// The inode that a node id stands for.
fn number(node: INodeNo) -> Option<InodeNumber> {
    if node == INodeNo::ROOT {
        return Some(InodeNumber::ROOT);
    }
    u32::try_from(node.0).ok().and_then(InodeNumber::new)
}

/// The node id of an inode.
fn node(number: InodeNumber) -> INodeNo {
    if number == InodeNumber::ROOT { INodeNo::ROOT } else { INodeNo(u64::from(number.value())) }
}

/// Entries before a damaged block are told first; whoever goes on from there gets the error.
fn damage_is_last(listed: bool, result: Result<()>) -> Result<()> {
    if listed { Ok(()) } else { result }
}

/// An entry that is not shown, as long as there are not too many of them.
fn left_out(hidden: &mut u32) -> ControlFlow<()> {
    *hidden += 1;
    full(*hidden > MOST_HIDDEN)
}

fn full(full: bool) -> ControlFlow<()> {
    if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The number of an error that is the answer to a request. Damage is entered in the ledger.
pub(super) fn answered(filesystem: &Filesystem, error: &Error) -> Errno {
    filesystem.verifier().ledger().answered(error);
    errno(error)
}

pub(super) fn errno(error: &Error) -> Errno {
    Errno::from_i32(rustix::io::Errno::from(error).raw_os_error())
}

/// Says EROFS to a request that would change the file system. The kernel stops nearly all of them at the mount's
/// read-only flag; this answers what a remount would let through.
macro_rules! refuse_to_write {
    ($($method:ident($($argument:ty),*) -> $reply:ty;)*) => {
        $(#[allow(unused_variables, clippy::too_many_arguments)]
        fn $method(&self, _: &Request, $(_: $argument,)* reply: $reply) {
            reply.error(errno(&Error::ReadOnly));
        })*
    };
}

impl fuser::Filesystem for Frontend {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        super::configure(config, self.xattrs.wanted());
        let iomap = self.wants_iomap && super::configure_iomap(config);
        self.opened.iomap.store(iomap, Ordering::Release);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok(Some(inode)) => {
                let mark = self.mark(&inode, &mut self.filesystem().budget());
                reply.entry(&KEEP, &self.attributes(&inode), mark);
                self.looked_up(parent, &inode);
            }
            // Node 0: there is no such name, and the kernel may remember that.
            Ok(None) => reply.entry(&KEEP, &blank(0, None), Generation(0)),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(node) {
            Ok(inode) => reply.attr(&KEEP, &self.attributes(&inode)),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        match self.inode(node).and_then(|inode| self.filesystem().read_link(&inode)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(errno(&Error::ReadOnly));
        }
        // The first answer speaks for every file: the kernel asks no more. What may be encrypted has to be asked for; and
        // what is mapped keeps its pages only if that is said each time.
        if self.open_without_asking
            && !self.is_mapped()
            && !self.filesystem().superblock().incompat.contains(Incompat::ENCRYPT)
        {
            return reply.error(errno(&Error::NotServed));
        }
        match self.inode(node).and_then(|inode| self.filesystem().check_key(&inode)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    /// Nobody else changes a directory, so what the kernel was told of one it may keep and list again by itself. That is
    /// also what it does with one that it opens without asking.
    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.open_without_asking {
            return reply.error(errno(&Error::NotServed));
        }
        match self.inode(node) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.inode(node) {
            Ok(inode) => send(self.filesystem(), &inode, offset, size, reply),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(node, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    fn readdirplus(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        match self.list_with_attributes(node, offset, &mut reply) {
            Ok(true) => reply::list_by_name(|| reply.ok()),
            Ok(false) => reply.ok(),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    fn lseek(&self, _: &Request, node: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.seek(node, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    /// FIBMAP: asked only of a mount that stands on its block device.
    fn bmap(&self, _: &Request, node: INodeNo, size: u32, index: u64, reply: ReplyBmap) {
        match self.inode(node).and_then(|inode| self.filesystem().block_on_device(&inode, index, size)) {
            Ok(block) => reply.bmap(block),
            Err(error) => reply.error(answered(self.filesystem(), &error)),
        }
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let inode = self.inode(node);
        let value = inode.and_then(|inode| self.xattrs.value(self.filesystem(), &inode, name.as_bytes()));
        xattr::send(value, size, reply, |error| answered(self.filesystem(), error));
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let (inode, privileged) = (self.inode(node), request.uid() == 0);
        let names = inode.and_then(|inode| self.xattrs.names(self.filesystem(), &inode, privileged));
        xattr::send(names, size, reply, |error| answered(self.filesystem(), error));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        if planted("silent") {
            return std::mem::forget(reply);
        }
        let s = self.filesystem().statfs();
        reply.statfs(
            s.blocks,
            s.free,
            s.available,
            s.files,
            s.free_files,
            s.block_size,
            s.name_length,
            s.fragment_size,
        );
    }

    /// There is nothing to write back. The first answer speaks for every file: the kernel asks no more, and a close
    /// succeeds.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(errno(&Error::NotServed));
    }

    refuse_to_write! {
        mknod(INodeNo, &OsStr, u32, u32, u32) -> ReplyEntry;
        mkdir(INodeNo, &OsStr, u32, u32) -> ReplyEntry;
        unlink(INodeNo, &OsStr) -> ReplyEmpty;
        rmdir(INodeNo, &OsStr) -> ReplyEmpty;
        symlink(INodeNo, &OsStr, &std::path::Path) -> ReplyEntry;
        rename(INodeNo, &OsStr, INodeNo, &OsStr, fuser::RenameFlags) -> ReplyEmpty;
        link(INodeNo, INodeNo, &OsStr) -> ReplyEntry;
        write(INodeNo, FileHandle, u64, &[u8], fuser::WriteFlags, OpenFlags, Option<LockOwner>) -> fuser::ReplyWrite;
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) -> ReplyEmpty;
        removexattr(INodeNo, &OsStr) -> ReplyEmpty;
        create(INodeNo, &OsStr, u32, u32, i32) -> fuser::ReplyCreate;
        fallocate(INodeNo, FileHandle, u64, u64, i32) -> ReplyEmpty;
        copy_file_range(INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, fuser::CopyFileRangeFlags) -> fuser::ReplyWrite;
        setattr(INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<fuser::TimeOrNow>,
            Option<fuser::TimeOrNow>, Option<std::time::SystemTime>, Option<FileHandle>,
            Option<std::time::SystemTime>, Option<std::time::SystemTime>, Option<std::time::SystemTime>,
            Option<fuser::BsdFileFlags>) -> ReplyAttr;
    }
}
