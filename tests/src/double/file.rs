//! What programs do with a file of a mount: read it through the page cache, past it or by mapping it, ask where it lies
//! and where its holes are. As the kernel's iomap library does each, in windows of its sizes.

use std::os::unix::fs::FileExt;

use super::kernel::{Answered, Kernel};
use super::wire::{self, Io, bytes, number};
use crate::Result;
use crate::extents::{Kind, Piece, push};

/// Bytes of a page, and of a sector.
const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

/// A way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// read(2), by windows of read-ahead.
    Buffered,
    /// With O_DIRECT.
    Direct,
    /// Through a mapping.
    Fault,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Buffered, Self::Direct, Self::Fault];

    /// How much is asked for at once.
    pub fn window(self) -> u64 {
        match self {
            Self::Buffered => 128 << 10,
            // No multiple of a block: each begins somewhere in one.
            Self::Direct => (96 << 10) + SECTOR,
            Self::Fault => 64 << 10,
        }
    }

    fn operation(self) -> u32 {
        match self {
            Self::Buffered => 0,
            Self::Direct => wire::OP_DIRECT,
            Self::Fault => wire::OP_FAULT,
        }
    }

    fn unit(self) -> u64 {
        if self == Self::Direct { SECTOR } else { PAGE }
    }
}

impl Kernel {
    /// open(2) for reading. The flags of the answer are held to what a file that is mapped needs.
    pub fn open(&mut self, node: u64) -> Result<Answered<()>> {
        let reply = match self.call(wire::OPEN, node, &bytes(&[(0, 4), (0, 4)]))? {
            Ok(reply) => reply,
            Err(errno) => return Ok(Err(errno)),
        };
        self.may_open(node, &reply).map(Ok)
    }

    /// Holds the answer to OPEN to what a file that is mapped needs.
    pub fn may_open(&self, node: u64, reply: &[u8]) -> Result {
        let flags = number(reply, 8, 4) as u32;
        let forbidden = wire::FOPEN_DIRECT_IO | wire::FOPEN_NONSEEKABLE | wire::FOPEN_STREAM | wire::FOPEN_PASSTHROUGH;
        if reply.len() != 16 || flags & forbidden != 0 || flags & wire::FOPEN_KEEP_CACHE == 0 {
            return Err(format!("node {node}: OPEN answered with flags {flags:#x}").into());
        }
        Ok(())
    }

    /// The bytes of a file from `begin` on, one window of them or less.
    pub fn read(&mut self, node: u64, way: Way, begin: u64) -> Result<Answered<Vec<u8>>> {
        let known = self.nodes.get(&node).ok_or("an inode that nobody knows")?;
        let (size, mapped) = (known.size, known.mapped);
        let end = size.min(begin.saturating_add(way.window()));
        if begin >= end {
            return Ok(Ok(Vec::new()));
        }
        if mapped { self.read_mapped(node, way, begin, end) } else { self.plain_read(node, begin, end - begin) }
    }

    /// The bytes of a file that is mapped, between these two of them.
    pub fn read_mapped(&mut self, node: u64, way: Way, begin: u64, end: u64) -> Result<Answered<Vec<u8>>> {
        let size = self.nodes.get(&node).ok_or("an inode that nobody knows")?.size;
        let end = end.min(size);
        if begin >= end {
            return Ok(Ok(Vec::new()));
        }
        let (mut out, mut pos) = (Vec::new(), begin);
        let asked_to = end.next_multiple_of(way.unit());
        while pos < asked_to {
            let io = match self.begin(node, pos, asked_to - pos, way.operation())? {
                Ok(io) => io,
                Err(errno) => return Ok(Err(errno)),
            };
            let until = io.end().min(asked_to);
            match self.take(node, &io, pos, until, asked_to, size)? {
                Ok(bytes) => out.extend(bytes),
                Err(errno) => return Ok(Err(errno)),
            }
            pos = until;
        }
        out.truncate((end - begin) as usize);
        Ok(Ok(out))
    }

    /// The bytes of a part of one mapping, of what was asked for.
    fn take(
        &mut self,
        node: u64,
        io: &Io,
        pos: u64,
        until: u64,
        asked_to: u64,
        size: u64,
    ) -> Result<Answered<Vec<u8>>> {
        let length = (until - pos) as usize;
        match io.kind {
            wire::HOLE | wire::UNWRITTEN => Ok(Ok(vec![0; length])),
            wire::MAPPED => {
                // Nothing behind the end of the file is read.
                let wanted = until.min(size.next_multiple_of(self.limits.block_size)).saturating_sub(pos);
                let place = io.addr + (pos - io.offset);
                if place + wanted > self.limits.device_bytes
                    || !place.is_multiple_of(SECTOR) && pos.is_multiple_of(SECTOR)
                {
                    return Ok(Err(libc::EIO));
                }
                let mut bytes = vec![0; length];
                let device = self.image.as_ref().ok_or("a mapping, and no device")?;
                match device.read_exact_at(&mut bytes[..wanted as usize], self.base + place) {
                    Ok(()) => Ok(Ok(bytes)),
                    Err(_) => Ok(Err(libc::EIO)),
                }
            }
            wire::INLINE => {
                if io.offset != 0 || size > io.length {
                    return Err(format!("node {node} of {size} bytes within the inode: {io:?}").into());
                }
                // All that was asked for, which may be more than the inode has.
                let read = match self.plain_read(node, pos, asked_to - pos)? {
                    Ok(read) => read,
                    Err(errno) => return Ok(Err(errno)),
                };
                // The kernel has room for the mapping, and takes nothing for an error.
                if read.is_empty() || read.len() as u64 > io.length - pos {
                    return Err(format!("node {node}: READ of {pos} has {} bytes of {io:?}", read.len()).into());
                }
                let mut bytes = read;
                bytes.resize(length, 0);
                Ok(Ok(bytes))
            }
            other => Err(format!("node {node}: a mapping of type {other}").into()),
        }
    }

    /// READ, without a handle, as the kernel asks for data in an inode.
    pub fn plain_read(&mut self, node: u64, pos: u64, count: u64) -> Result<Answered<Vec<u8>>> {
        self.counts.reads += 1;
        let body = bytes(&[(0, 8), (pos, 8), (count, 4), (0, 4), (0, 8), (0, 4), (0, 4)]);
        let reply = self.call(wire::READ, node, &body)?;
        match reply {
            Ok(bytes) if bytes.len() as u64 > count => Err(format!("READ of {count} has {}", bytes.len()).into()),
            reply => Ok(reply),
        }
    }

    /// FIEMAP of the whole file, with what lies behind its end.
    pub fn fiemap(&mut self, node: u64) -> Result<Answered<Vec<Piece>>> {
        let size = self.nodes.get(&node).ok_or("an inode that nobody knows")?.size;
        let (mut pieces, mut pos, end) = (Vec::new(), 0, self.limits.most_bytes);
        while pos < end {
            let io = match self.begin(node, pos, end - pos, wire::OP_REPORT)? {
                Ok(io) => io,
                Err(errno) => return Ok(Err(errno)),
            };
            let length = io.end().min(end) - pos;
            let (kind, device) = match io.kind {
                wire::MAPPED => (Some(Kind::Mapped), io.addr + (pos - io.offset)),
                wire::UNWRITTEN => (Some(Kind::Unwritten), io.addr + (pos - io.offset)),
                wire::INLINE => (Some(Kind::Inline), 0),
                _ => (None, 0),
            };
            if let Some(kind) = kind {
                let length = if kind == Kind::Inline { length.min(size) } else { length };
                push(&mut pieces, Piece { offset: pos, length, device, kind });
            }
            pos += length;
        }
        Ok(Ok(pieces))
    }

    /// SEEK_DATA or SEEK_HOLE from a byte of the file on; none if there is no data any more, or no file.
    pub fn seek(&mut self, node: u64, from: u64, data: bool) -> Result<Answered<Option<u64>>> {
        let size = self.nodes.get(&node).ok_or("an inode that nobody knows")?.size;
        if from >= size {
            return Ok(Ok(None));
        }
        let mut pos = from;
        while pos < size {
            let io = match self.begin(node, pos, size - pos, wire::OP_REPORT)? {
                Ok(io) => io,
                Err(errno) => return Ok(Err(errno)),
            };
            if matches!(io.kind, wire::MAPPED | wire::INLINE) == data {
                return Ok(Ok(Some(pos)));
            }
            pos = io.end();
        }
        Ok(Ok((!data).then_some(size)))
    }
}
