//! Where the bytes of a file lie, for a kernel that moves them itself: the requests of fuse-iomap.
//!
//! What holds here: a mapping comes from the file system's one mapping, is held once more against the file system's
//! range, its own structures and the newer copies in a journal, and counts from the first byte of the file system, where
//! the device that the broker registered begins. Whatever would write is refused.
//!
//! The kernel is told to keep what it is told, so that a file that is read from its beginning costs one question for as
//! many mappings as the kernel keeps. The answer itself is always the mapping, never "look again at what you keep": nothing
//! changes on a read-only mount, so an answer needs no second look, and whatever became of what was to be kept (the
//! kernel had no room, forgot the file or refuses) no question comes twice. Stands beside `frontend.rs`; the way in is
//! `request.rs`.

use super::abi::{self, BeginIn, BeginOut, EndIn, FileRange, InHeader, Inval, Io, Operation, Upsert, kind, request};
use super::opener::Opened;
use crate::error::{Error, Result};
use crate::ext4::budget::Budget;
use crate::ext4::{FileKind, FileOffset, Filesystem, Inode, InodeFlags, InodeNumber, Mapping, MappingKind};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::FromBytes;

/// The unit of all mappings, which the kernel is told before the image is there: the smallest block of a file system.
/// What is whole in larger blocks is whole in these.
pub(super) const UNIT: u32 = 1024;
/// The longest data in an inode that the kernel takes: its smallest page.
const PAGE: u64 = 4096;
/// The largest page that a kernel for this processor may have: which it has would be a system call to ask.
const LARGEST_PAGE: u64 = if cfg!(target_arch = "x86_64") { PAGE } else { 64 << 10 };
/// The most bytes of mappings that the kernel is asked to keep of a file: its own default.
const MOST_KEPT: u32 = 256 << 10;
/// As much of it where it does not say what it keeps.
const LITTLE_KEPT: u32 = 4096;
/// How many mappings are told to who reads here and there.
const A_FEW: usize = 16;
/// The kernel's offsets are signed: no byte of a file lies from here on.
const BEYOND: u64 = 1 << 63;
/// How many files are remembered of which a part was told. A power of two.
const REMEMBERED: usize = 64;

/// What was agreed with the kernel when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Bytes of mappings that it keeps of a file.
    kept: u32,
}

impl Agreed {
    /// The answer to `FUSE_IOMAP_CONFIG`. No byte of the image is near yet, so nothing of it is in the answer.
    pub(super) fn answer(body: &[u8]) -> Result<(Self, abi::ConfigOut)> {
        let asked = abi::ConfigIn::read_from_bytes(body).map_err(|_| Error::Invalid)?;
        let says = asked.flags & abi::CONFIG_CACHE_MAXBYTES != 0 && asked.cache_maxbytes > 0;
        let kept = if says { asked.cache_maxbytes.min(MOST_KEPT) } else { LITTLE_KEPT };
        let answer = abi::ConfigOut {
            flags: asked.flags & (abi::CONFIG_BLOCKSIZE | if says { abi::CONFIG_CACHE_MAXBYTES } else { 0 }),
            s_id: [0; 32],
            s_uuid: [0; 16],
            s_uuid_len: 0,
            s_pad: [0; 3],
            s_blocksize: UNIT,
            s_max_links: 0,
            s_time_gran: 0,
            s_time_min: 0,
            s_time_max: 0,
            s_maxbytes: 0,
            cache_maxbytes: if says { kept } else { 0 },
            padding: 0,
        };
        // The unit is what everything hangs on.
        if answer.flags & abi::CONFIG_BLOCKSIZE == 0 { Err(Error::Invalid) } else { Ok((Self { kept }, answer)) }
    }
}

/// A word to the kernel that is no answer.
pub(super) enum Notice {
    Keep(Upsert),
    Forget(Inval),
}

/// An answer that is no error.
#[derive(Debug)]
pub(super) enum Answer {
    Mapping(BeginOut),
    Done,
}

/// Whether the file's bytes may be had by mappings. Others are read.
pub(super) fn is_mapped(filesystem: &Filesystem, inode: &Inode, budget: &mut Budget) -> bool {
    let fits = !is_inline(inode) || inode.size <= PAGE;
    fits && filesystem.is_in_place(inode, budget)
}

fn is_inline(inode: &Inode) -> bool {
    inode.flags.contains(InodeFlags::INLINE_DATA)
}

/// Answers where bytes lie.
pub struct Mapper {
    opened: Arc<Opened>,
    /// The kernel's number for the device.
    device: u32,
    /// How many mappings of a file the kernel keeps.
    most: usize,
    /// Of some files, up to which block it was told: the inode's number and the block's.
    told: [AtomicU64; REMEMBERED],
}

impl Mapper {
    pub(super) fn new(opened: Arc<Opened>, device: u32, agreed: Agreed) -> Self {
        let most = usize::try_from(agreed.kept).unwrap_or(0) / size_of::<Io>();
        Self { opened, device, most: most.max(1), told: [const { AtomicU64::new(0) }; REMEMBERED] }
    }

    /// One of a file system that stands alone, for tests and the fuzzer.
    pub fn alone(filesystem: Filesystem, device: u32, kept: u32) -> Self {
        Self::new(Arc::new(Opened::with(filesystem)), device, Agreed { kept })
    }

    /// The file system.
    pub fn filesystem(&self) -> &Filesystem {
        self.opened.filesystem()
    }

    /// Whether this is a request of fuse-iomap.
    pub(super) fn is_for(opcode: u32) -> bool {
        (request::FREEZE_FS..=request::IOMAP_END).contains(&opcode)
    }

    /// The answer to one. `notify` tells the kernel something beforehand, and whether it took it.
    pub(super) fn answer(
        &self,
        header: &InHeader,
        body: &[u8],
        notify: &mut dyn FnMut(&Notice) -> bool,
    ) -> Result<Answer> {
        match header.opcode {
            request::IOMAP_BEGIN => {
                let filesystem = self.filesystem();
                let mapping = self.begin(filesystem, header.nodeid, body, notify);
                mapping.inspect_err(|error| filesystem.verifier().ledger().answered(error)).map(Answer::Mapping)
            }
            request::IOMAP_END => end(body),
            request::IOMAP_IOEND => Err(Error::ReadOnly),
            // Nothing is on its way to the device that would have to stop.
            request::FREEZE_FS | request::UNFREEZE_FS | request::SHUTDOWN_FS => Ok(Answer::Done),
            _ => Err(Error::Invalid),
        }
    }

    /// The mapping that holds the first byte asked for.
    fn begin(
        &self,
        filesystem: &Filesystem,
        node: u64,
        body: &[u8],
        notify: &mut dyn FnMut(&Notice) -> bool,
    ) -> Result<BeginOut> {
        let asked = BeginIn::read_from_bytes(body).map_err(|_| Error::Invalid)?;
        may_be_asked(Operation::from_bits_retain(asked.opflags))?;
        let inode = inode(filesystem, node, asked.attr_ino)?;
        if asked.pos >= BEYOND || asked.count == 0 {
            return Err(Error::Invalid);
        }
        let mapping = if is_inline(&inode) {
            inline(filesystem, &inode, &asked)?
        } else {
            self.tell(filesystem, &inode, &asked, notify)?
        };
        let block = u64::from(filesystem.superblock().block_size.bytes());
        if holds(&mapping, asked.pos, block.min(PAGE)) { Ok(answer(mapping)) } else { Err(Error::Invalid) }
    }

    /// The mapping at the first byte asked for; it and those behind it are told to the kernel, as many as it is worth.
    fn tell(
        &self,
        filesystem: &Filesystem,
        inode: &Inode,
        asked: &BeginIn,
        notify: &mut dyn FnMut(&Notice) -> bool,
    ) -> Result<Io> {
        let whole = filesystem.whole_blocks(inode.size).min(BEYOND);
        // The last page is asked for whole.
        let pages = whole.checked_next_multiple_of(LARGEST_PAGE).unwrap_or(BEYOND).min(BEYOND);
        let to = filesystem.whole_blocks(asked.pos.saturating_add(asked.count)).clamp(pages, BEYOND);
        let most = self.worth(filesystem, inode, asked.pos);
        let (node, mut first, mut broken, mut count, mut told) = (asked.attr_ino, None, None, 0, None);
        let done = filesystem.mappings(inode, FileOffset(asked.pos), to, &mut |mapping| {
            let piece = match filesystem.checked_again(inode, mapping) {
                Ok(mapping) => self.piece(&mapping),
                Err(error) => {
                    broken = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let end = piece.offset.saturating_add(piece.length);
            if first.is_none() {
                first = Some(piece);
                // What the kernel has of another part of the file is not to take the room of this.
                if most == self.most && end < whole {
                    notify(&forget(node));
                }
            }
            let Some(kept) = worth_keeping(piece, pages).filter(|kept| notify(&keep(node, *kept))) else {
                return ControlFlow::Break(());
            };
            (count, told) = (count + 1, Some(kept.offset.saturating_add(kept.length)));
            if count < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if let Some(told) = told {
            self.remember(filesystem, inode, told);
        }
        // What lies behind the first mapping is for whoever asks for it.
        match first {
            Some(first) => Ok(first),
            None => Err(broken.or(done.err()).unwrap_or(Error::Invalid)),
        }
    }

    /// How many mappings are worth telling: all that the kernel keeps to who begins with the file or goes on where it was
    /// told to last.
    fn worth(&self, filesystem: &Filesystem, inode: &Inode, pos: u64) -> usize {
        let goes_on = self.slot(inode).load(Ordering::Relaxed) == mark(filesystem, inode, pos);
        let begins = pos < u64::from(filesystem.superblock().block_size.bytes());
        if begins || goes_on { self.most } else { A_FEW.min(self.most) }
    }

    fn remember(&self, filesystem: &Filesystem, inode: &Inode, end: u64) {
        self.slot(inode).store(mark(filesystem, inode, end), Ordering::Relaxed);
    }

    fn slot(&self, inode: &Inode) -> &AtomicU64 {
        let number = usize::try_from(inode.number.value()).unwrap_or(0);
        &self.told[number % REMEMBERED]
    }

    fn piece(&self, mapping: &Mapping) -> Io {
        let none = (abi::NO_ADDRESS, abi::NO_DEVICE);
        let (kind, (addr, dev)) = match mapping.kind {
            MappingKind::Data(start) => (kind::MAPPED, (start.0, self.device)),
            MappingKind::Unwritten(start) => (kind::UNWRITTEN, (start.0, self.device)),
            MappingKind::Hole => (kind::HOLE, none),
            MappingKind::Inline => (kind::INLINE, none),
        };
        Io { offset: mapping.offset.0, length: mapping.length, addr, kind, flags: 0, dev }
    }
}

/// The end of a mapping's use: nothing hangs on it.
fn end(body: &[u8]) -> Result<Answer> {
    let asked = EndIn::read_from_bytes(body).map_err(|_| Error::Invalid)?;
    may_be_asked(Operation::from_bits_retain(asked.opflags)).map(|()| Answer::Done)
}

fn may_be_asked(operation: Operation) -> Result<()> {
    if operation.intersects(Operation::WRITING) {
        return Err(Error::ReadOnly);
    }
    let known = Operation::READING.contains(operation);
    if known { Ok(()) } else { Err(Error::Unsupported("a mapping for something unknown")) }
}

/// The inode that a kernel asks for by its node, which is the number that it was told with its attributes.
fn inode(filesystem: &Filesystem, node: u64, number: u64) -> Result<Inode> {
    let known = u32::try_from(node).ok().filter(|_| node == number).and_then(InodeNumber::new);
    let inode = filesystem.inode(known.ok_or(Error::Invalid)?)?;
    filesystem.check_key(&inode)?;
    if inode.kind != FileKind::Regular || filesystem.is_sealed(&inode) {
        return Err(Error::Invalid);
    }
    Ok(inode)
}

/// Data in the inode: the kernel reads it as of any file. Behind it is nothing.
fn inline(filesystem: &Filesystem, inode: &Inode, asked: &BeginIn) -> Result<Io> {
    let length = u64::from(filesystem.superblock().block_size.bytes()).min(PAGE);
    let mapping = filesystem.map(inode, FileOffset(0), inode.size.max(1))?;
    let kind = if mapping.kind == MappingKind::Inline && inode.size > 0 { kind::INLINE } else { kind::HOLE };
    if inode.size > length {
        return Err(Error::Invalid);
    }
    let nothing = Io { offset: 0, length, addr: abi::NO_ADDRESS, kind, flags: 0, dev: abi::NO_DEVICE };
    if asked.pos < length {
        return Ok(nothing);
    }
    let end = filesystem.whole_blocks(asked.pos.saturating_add(asked.count)).min(BEYOND);
    Ok(Io { offset: length, length: end.saturating_sub(length), kind: kind::HOLE, ..nothing })
}

/// A mapping as the kernel is to keep it: no hole behind the last page of the file, where it has no end.
fn worth_keeping(piece: Io, pages: u64) -> Option<Io> {
    let left = pages.saturating_sub(piece.offset);
    let length = if piece.kind == kind::HOLE { piece.length.min(left) } else { piece.length };
    let end = piece.offset.checked_add(length)?;
    (left > 0 && end < BEYOND).then_some(Io { length, ..piece })
}

/// What the kernel holds every answer to.
fn holds(piece: &Io, pos: u64, unit: u64) -> bool {
    let end = piece.offset.checked_add(piece.length);
    let whole = |number: u64| number.checked_rem(unit) == Some(0);
    let on_a_device = matches!(piece.kind, kind::MAPPED | kind::UNWRITTEN);
    piece.length > 0
        && whole(piece.offset)
        && whole(piece.length)
        && piece.offset <= pos
        && end.is_some_and(|end| pos < end)
        && on_a_device == (piece.addr != abi::NO_ADDRESS)
        && on_a_device == (piece.dev != abi::NO_DEVICE)
        && (!on_a_device || whole(piece.addr) && piece.addr.checked_add(piece.length).is_some())
}

fn answer(read: Io) -> BeginOut {
    BeginOut { read, write: as_read(read) }
}

/// Where one would write: where one reads. That, too, has to say for which bytes.
fn as_read(read: Io) -> Io {
    Io { addr: abi::NO_ADDRESS, kind: kind::PURE_OVERWRITE, flags: 0, dev: abi::NO_DEVICE, ..read }
}

fn keep(node: u64, read: Io) -> Notice {
    Notice::Keep(Upsert { nodeid: node, attr_ino: node, read, write: as_read(read) })
}

fn forget(node: u64) -> Notice {
    let all = FileRange { offset: 0, length: abi::TO_THE_END };
    Notice::Forget(Inval { nodeid: node, attr_ino: node, read: all, write: FileRange::default() })
}

/// A file and a block of it in one number; none is 0.
fn mark(filesystem: &Filesystem, inode: &Inode, pos: u64) -> u64 {
    let block = pos.checked_shr(filesystem.superblock().block_size.bits().into()).unwrap_or(0);
    u64::from(inode.number.value()) << 32 | block & u64::from(u32::MAX)
}
