//! A file read through a mapping of it, as programs do that never call read(2).
#![allow(unsafe_code, reason = "mapping a file is unsafe: whoever cuts the file short takes the pages away")]

use std::fs::File;
use std::path::Path;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::Result;

/// The whole file, copied out of a private mapping. The file must not become shorter meanwhile.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    look(path, <[u8]>::to_vec)
}

/// Reads one byte of each page, in order; gives the number of pages. The file must not become shorter meanwhile.
pub fn touch(path: &Path) -> Result<u64> {
    look(path, |bytes| {
        bytes.iter().step_by(4096).map(|byte| u64::from(std::hint::black_box(*byte).count_zeros() <= 8)).sum()
    })
}

fn look<R>(path: &Path, at: impl FnOnce(&[u8]) -> R) -> Result<R> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len())?;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) }?;
    // SAFETY: `length` bytes from `start` on are mapped and readable, and the caller sees that the file stays so long.
    let seen = at(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) });
    // SAFETY: the mapping is the one made above, and nothing refers to it any more.
    unsafe { munmap(start, length) }?;
    Ok(seen)
}
