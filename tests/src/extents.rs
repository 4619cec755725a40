//! Where a file lies on the device, as the kernel tells it of a mount: FIEMAP, and FIBMAP block by block.
#![allow(unsafe_code, reason = "three ioctls that no library here has")]

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::Result;

/// A piece of a file that is no hole. Neighbours that lie behind each other are one. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// Where it begins on the device.
    pub device: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data.
    Mapped,
    /// Space that was never written to.
    Unwritten,
    /// Data within the inode.
    Inline,
}

/// `FS_IOC_FIEMAP`, `FIBMAP` and `FIGETBSZ`, and the flags of an extent (include/uapi/linux/fiemap.h, fs.h).
const FIEMAP: u64 = 0xc020_660b;
const FIBMAP: u64 = 1;
const FIGETBSZ: u64 = 2;
const LAST: u64 = 0x1;
const INLINE: u64 = 0x200;
const UNWRITTEN: u64 = 0x800;
/// What else may be said of one: it is at the end of its block, or of several records.
const HARMLESS: u64 = 0x100 | 0x1000;

/// Words of `struct fiemap` before its extents, and of one of these.
const HEAD: usize = 4;
const EXTENT: usize = 7;
/// Extents that are asked for at once.
const AT_ONCE: usize = 256;

/// Adds a piece, as part of the last one where it goes on with it.
pub fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        Some(last)
            if last.kind == piece.kind
                && last.offset + last.length == piece.offset
                && last.device + last.length == piece.device =>
        {
            last.length += piece.length;
        }
        _ => pieces.push(piece),
    }
}

/// What FIEMAP says of a file, all of it.
pub fn fiemap(file: &File) -> Result<Vec<Piece>> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    loop {
        let mut words = [0_u64; HEAD + AT_ONCE * EXTENT];
        (words[0], words[1], words[3]) = (at, u64::MAX - at, AT_ONCE as u64);
        // SAFETY: the words are a `struct fiemap` with room for as many extents as it says, and outlive the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, words.as_mut_ptr()) } != 0 {
            return Err(format!("FIEMAP: {}", std::io::Error::last_os_error()).into());
        }
        let count = (words[2] >> 32) as usize;
        for extent in words[HEAD..].chunks_exact(EXTENT).take(count) {
            let [offset, device, length, _, _, flags, _] = *extent else { return Err("an extent of 7 words".into()) };
            let kind = match flags & u64::from(u32::MAX) & !(LAST | HARMLESS) {
                0 => Kind::Mapped,
                UNWRITTEN => Kind::Unwritten,
                INLINE => Kind::Inline,
                other => return Err(format!("FIEMAP says {other:#x}").into()),
            };
            push(&mut pieces, Piece { offset, length, device, kind });
            at = offset + length;
            if flags & LAST != 0 {
                return Ok(pieces);
            }
        }
        if count == 0 {
            return Ok(pieces);
        }
    }
}

/// The block of the device that FIBMAP names for a block of a file; 0 where there is none. As root.
pub fn fibmap(file: &File, block: u32) -> Result<u32> {
    let mut number = block.cast_signed();
    // SAFETY: the number is an int that outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), FIBMAP, &raw mut number) } != 0 {
        return Err(format!("FIBMAP: {}", std::io::Error::last_os_error()).into());
    }
    Ok(number.cast_unsigned())
}

/// Bytes of the blocks that FIBMAP counts in.
pub fn unit(file: &File) -> Result<u32> {
    let mut number = 0_i32;
    // SAFETY: the number is an int that outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), FIGETBSZ, &raw mut number) } != 0 {
        return Err(format!("FIGETBSZ: {}", std::io::Error::last_os_error()).into());
    }
    Ok(number.cast_unsigned())
}
