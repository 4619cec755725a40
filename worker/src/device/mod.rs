//! The medium: copies bytes out of it and checks every range.
//!
//! What always holds here: whoever looks at bytes has a copy that is his and does not change; a range that is not on
//! the device, and a page that the device cannot give, are errors and never a signal; and a block of which a journal
//! holds a newer copy is read there. On the way of a read everything that wants bytes comes through here.

mod mapping;
mod overlay;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use lazaret_policy::{confine::Confined, message::Range};
use rustix::io::Errno;

use crate::error::{Error, Result};

pub use mapping::EXIT_SIGBUS;
pub use overlay::{Overlay, Substitute};

/// A device, or the part of one that is a file system. Offsets count from its first byte.
#[derive(Debug)]
pub struct Device {
    source: Source,
    overlay: Overlay,
    /// Where its first byte lies on what was handed over.
    begin: u64,
}

enum Source {
    Mapped(mapping::Mapping),
    Memory(Vec<u8>),
    Answered { length: u64, answer: Box<Answer> },
}

/// Fills the slice with the bytes from this offset on, or says that they cannot be read.
type Answer = dyn Fn(u64, &mut [u8]) -> bool + Send + Sync;

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mapped(_) => "Mapped",
            Self::Memory(_) => "Memory",
            Self::Answered { .. } => "Answered",
        })
    }
}

impl Device {
    /// Maps a range of a device and closes the fd. It is not asked how long it is: where it ends before the range
    /// does, reading fails. The error is the host's and not the image's. The first call installs the handlers
    /// of SIGBUS and SIGSEGV, so it comes before the last filter.
    pub fn map(fd: OwnedFd, range: Range, _: &Confined) -> Result<Self, Errno> {
        // What is longer than the address space is longer than any mapping, and refused as that.
        let length = usize::try_from(range.length).unwrap_or(usize::MAX);
        let mapping = mapping::Mapping::new(fd, range.offset, length)?;
        Ok(Self { begin: range.offset, ..Self::over(Source::Mapped(mapping)) })
    }

    /// A device in memory, for tests and the fuzzer.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self::over(Source::Memory(bytes))
    }

    /// A device of this length in bytes that a function answers for, for tests and the fuzzer: it may answer the same
    /// question otherwise each time.
    pub fn answered(length: u64, answer: impl Fn(u64, &mut [u8]) -> bool + Send + Sync + 'static) -> Self {
        Self::over(Source::Answered { length, answer: Box::new(answer) })
    }

    fn over(source: Source) -> Self {
        Self { source, overlay: Overlay::default(), begin: 0 }
    }

    /// Where its first byte lies on the device that was handed over, which may be a whole disk.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// From now on blocks are read where the overlay says.
    pub fn set_overlay(&mut self, overlay: Overlay) {
        self.overlay = overlay;
    }

    /// From now on these blocks are what they are here, and not what they are on the device or in its overlay.
    pub fn own(&mut self, block_size: u32, blocks: BTreeMap<u64, Box<[u8]>>) {
        self.overlay.own(block_size, blocks);
    }

    /// Whether any block is read elsewhere than where it lies.
    pub fn has_substitutes(&self) -> bool {
        !self.overlay.is_empty()
    }

    /// Whether a byte of this range is read elsewhere than where it lies.
    pub fn is_substituted(&self, offset: u64, length: u64) -> bool {
        !self.overlay.within(offset..offset.saturating_add(length)).is_empty()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match &self.source {
            Source::Mapped(mapping) => mapping.len() as u64,
            Source::Memory(bytes) => bytes.len() as u64,
            Source::Answered { length, .. } => *length,
        }
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the bytes from `offset` on. If one cannot be read, the error names it and `out` is not to be
    /// looked at.
    #[inline]
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if self.overlay.is_empty() {
            return self.copy(offset, out);
        }
        self.read_through_overlay(offset, out)
    }

    /// Lends `length` bytes of file data from `offset` on without copying them.
    ///
    /// `to` **must not look at the bytes**: it passes the slice to one `writev` to /dev/fuse and that is all. A slice
    /// promises that its bytes stay what they are, and a device does not, so code that read them here might see a
    /// byte change between two looks; and a page that is missing would end the worker ([`EXIT_SIGBUS`]). The kernel
    /// has neither trouble: it copies each byte once, and a missing page makes that `writev` fail with EFAULT
    /// and the application's read with EIO. There is no other way to let file data pass through the worker untouched:
    /// fuser answers with a `&[u8]` and asks nothing of it but its address and its length. The compiler on its
    /// side makes up no reads of a slice that no code reads.
    ///
    /// Where a journal holds a newer copy of any block of the range the bytes lie in several places, and `to` gets a
    /// copy of `length` bytes; the caller bounds it.
    pub fn lend<R>(&self, offset: u64, length: u64, to: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let length = usize::try_from(length).map_err(|_| Error::Device { offset })?;
        let bytes = offset..offset.saturating_add(length as u64);
        if !self.overlay.within(bytes).is_empty() || matches!(self.source, Source::Answered { .. }) {
            let mut copy = Vec::new();
            copy.try_reserve_exact(length).map_err(|_| Error::OutOfMemory)?;
            copy.resize(length, 0);
            self.read_through_overlay(offset, &mut copy)?;
            return Ok(to(&copy));
        }
        match &self.source {
            Source::Mapped(mapping) => {
                let start = usize::try_from(offset).map_err(|_| Error::Device { offset })?;
                mapping.lend(start, length, to).map_err(missing)
            }
            _ => Ok(to(self.in_memory(offset, length)?)),
        }
    }

    /// The range in pieces: what lies before a substitute, the substitute, and so on; then the rest.
    fn read_through_overlay(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        let (mut at, mut rest) = (offset, out);
        for substitute in self.overlay.within(offset..end) {
            let block = self.overlay.bytes_of(substitute);
            // Substitutes rise, so no block begins before what is already read.
            let (from, to) = (block.start.max(at), block.end.min(end));
            let (before, beyond) = rest.split_at_mut((from - at) as usize);
            let (piece, beyond) = beyond.split_at_mut((to - from) as usize);
            self.copy(at, before)?;
            let skipped = from - block.start;
            if let Some(bytes) = self.overlay.owned(substitute) {
                let bytes = bytes.get(skipped as usize..).unwrap_or_default();
                piece.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                (at, rest) = (to, beyond);
                continue;
            }
            self.copy(substitute.address.checked_add(skipped).ok_or(Error::Device { offset: from })?, piece)?;
            if substitute.escaped {
                let magic = overlay::ESCAPED.iter().skip(skipped as usize);
                piece.iter_mut().zip(magic).for_each(|(byte, magic)| *byte = *magic);
            }
            (at, rest) = (to, beyond);
        }
        self.copy(at, rest)
    }

    /// Copies from where the bytes lie.
    #[inline]
    fn copy(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        // A block that is in memory only may lie where the device has none.
        if out.is_empty() {
            return Ok(());
        }
        match &self.source {
            Source::Mapped(mapping) => {
                let start = usize::try_from(offset).map_err(|_| Error::Device { offset })?;
                mapping.copy(start, out).map_err(missing)
            }
            Source::Memory(_) => {
                out.copy_from_slice(self.in_memory(offset, out.len())?);
                Ok(())
            }
            Source::Answered { length, answer } => {
                let inside = offset.checked_add(out.len() as u64).is_some_and(|end| end <= *length);
                if !inside {
                    return Err(Error::Device { offset: offset.max(*length) });
                }
                if answer(offset, out) { Ok(()) } else { Err(Error::Device { offset }) }
            }
        }
    }

    /// A range of a device in memory.
    fn in_memory(&self, offset: u64, length: usize) -> Result<&[u8]> {
        let Source::Memory(bytes) = &self.source else { return Err(Error::Device { offset }) };
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| bytes.get(start..start.checked_add(length)?));
        range.ok_or(Error::Device { offset: offset.max(bytes.len() as u64) })
    }
}

/// The first byte that cannot be read, as an error.
fn missing(byte: usize) -> Error {
    Error::Device { offset: byte as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight blocks of 16 bytes, each filled with its number; blocks 1 and 4 have newer copies in 6 and 7.
    fn device() -> Device {
        let mut device = Device::from_bytes((0..128).map(|i| i / 16).collect());
        let moved = |block, copy: u64, escaped| Substitute { block, address: copy * 16, escaped };
        device.set_overlay(Overlay::new(16, vec![moved(4, 7, true), moved(1, 6, false)]));
        device
    }

    #[test]
    fn every_range_is_read_through_the_overlay() {
        let mut newest: Vec<u8> = [0, 6, 2, 3, 7, 5, 6, 7].iter().flat_map(|&block| [block; 16]).collect();
        newest[64..68].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        let device = device();
        for begin in 0..newest.len() {
            for end in begin..=newest.len() {
                let mut out = vec![0xee; end - begin];
                device.read_at(begin as u64, &mut out).unwrap();
                assert_eq!(out, newest[begin..end]);
                device.lend(begin as u64, out.len() as u64, |lent| assert_eq!(lent, out)).unwrap();
            }
        }
    }

    #[test]
    fn what_lies_outside_is_an_error_with_and_without_an_overlay() {
        for device in [device(), Device::from_bytes(vec![0; 128])] {
            assert_eq!(device.read_at(120, &mut [0; 9]), Err(Error::Device { offset: 128 }));
            assert_eq!(device.read_at(u64::MAX, &mut [0; 9]), Err(Error::Device { offset: u64::MAX }));
            assert_eq!(device.lend(60, 69, |_| ()), Err(Error::Device { offset: 128 }));
            assert!(device.lend(0, 1 << 62, |_| ()).is_err());
        }
    }

    #[test]
    fn a_copy_that_lies_outside_is_an_error_for_its_block_alone() {
        let mut device = device();
        device.set_overlay(Overlay::new(16, vec![Substitute { block: 2, address: u64::MAX - 8, escaped: false }]));
        assert!(device.read_at(40, &mut [0; 2]).is_err());
        assert!(device.read_at(16, &mut [0; 16]).is_ok());
    }

    #[test]
    fn a_device_that_is_answered_for_is_asked_each_time_and_never_beyond_its_end() {
        let asked = std::sync::atomic::AtomicU8::new(0);
        let device = Device::answered(64, move |offset, out| {
            out.fill(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            offset < 32
        });
        let mut out = [9; 4];
        for time in 0..3 {
            device.read_at(3, &mut out).unwrap();
            assert_eq!(out, [time; 4]);
        }
        device.lend(0, 4, |lent| assert_eq!(lent, [3; 4])).unwrap();
        assert_eq!(device.read_at(40, &mut out), Err(Error::Device { offset: 40 }));
        assert_eq!(device.read_at(61, &mut out), Err(Error::Device { offset: 64 }));
        assert_eq!(device.read_at(u64::MAX, &mut out), Err(Error::Device { offset: u64::MAX }));
        assert_eq!(device.len(), 64);
    }

    #[test]
    fn lending_without_an_overlay_lends_the_bytes_themselves() {
        let device = Device::from_bytes(vec![3; 64]);
        let Source::Memory(bytes) = &device.source else { panic!() };
        device.lend(5, 9, |lent| assert_eq!(lent.as_ptr_range(), bytes[5..14].as_ptr_range())).unwrap();
    }
}
