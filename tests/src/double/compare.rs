//! Every file of a mount by the kernel's own ext4, held to what the same file is by mappings.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::file::Way;
use super::kernel::{Counts, Kernel};
use crate::Result;
use crate::extents::{Kind, Piece, fiemap};

/// A longer file is read only where something is, and at its end.
const READ_WHOLE: u64 = 224 << 20;
/// How many places of a file the search for holes begins at.
const MOST_SOUGHT: usize = 64;

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Files that are had by mappings.
    pub mapped: u64,
    /// Those among them whose data is in the inode.
    pub inline: u64,
    /// Files that are read.
    pub read: u64,
    /// Questions for all that were read whole through the page cache.
    pub begins: u64,
}

/// Compares a directory and all beneath it. `lies` also asks where the files lie.
pub fn directory(kernel: &mut Kernel, node: u64, mounted: &Path, lies: bool) -> Result<Compared> {
    let mut all = Compared::default();
    for entry in fs::read_dir(mounted)? {
        let entry = entry?;
        let found = kernel.lookup(node, entry.file_name().as_bytes())?;
        let found = found.map_err(|errno| format!("{}: error {errno}", entry.path().display()))?;
        let kind = entry.file_type()?;
        let one = if kind.is_dir() {
            directory(kernel, found, &entry.path(), lies)?
        } else if kind.is_file() {
            file(kernel, found, &entry.path(), lies).map_err(|error| format!("{}: {error}", entry.path().display()))?
        } else {
            Compared::default()
        };
        all.mapped += one.mapped;
        all.inline += one.inline;
        all.read += one.read;
        all.begins += one.begins;
    }
    Ok(all)
}

/// Compares a file in every way that it can be read, and where it lies.
fn file(kernel: &mut Kernel, node: u64, path: &Path, lies: bool) -> Result<Compared> {
    let theirs = File::open(path)?;
    let status = theirs.metadata()?;
    let known = kernel.nodes.get(&node).ok_or("an inode that nobody knows")?;
    if (known.ino, known.size) != (status.ino(), status.len()) {
        return Err(format!("it is {known:?}, and {status:?}").into());
    }
    let (mapped, mut compared) = (known.mapped, Compared { read: 1, ..Compared::default() });
    kernel.open(node)?.map_err(|errno| format!("OPEN: error {errno}"))?;
    if mapped {
        // Before any byte is read: what is unwritten counts as data where its pages are in the kernel's cache.
        let pieces = kernel.fiemap(node)?.map_err(|errno| format!("FIEMAP: error {errno}"))?;
        holes(kernel, node, &theirs, &pieces)?;
        (compared.mapped, compared.read) = (1, 0);
        compared.inline = u64::from(pieces.iter().any(|piece| piece.kind == Kind::Inline));
        if lies {
            same_place(&pieces, &fiemap(&theirs)?)?;
        }
        kernel.evict(node);
    }
    for way in Way::ALL {
        let before = kernel.counts;
        let whole = bytes(kernel, node, &theirs, status.len(), way)?;
        if way == Way::Buffered && mapped && whole {
            compared.begins = few_questions(before, kernel)?;
        }
    }
    Ok(compared)
}

/// A file that is read whole costs one question, one more for each time that the kernel keeps no more, and no request
/// for bytes; unless its data is in the inode.
fn few_questions(before: Counts, kernel: &Kernel) -> Result<u64> {
    let now = kernel.counts;
    let (begins, told, reads) = (now.begins - before.begins, now.upserts - before.upserts, now.reads - before.reads);
    // The page goes on behind the inode's data.
    let most = if reads > 0 { 2 } else { 1 + told / kernel.most_kept() };
    if begins > most || reads > 1 {
        return Err(format!("{begins} questions and {reads} requests for bytes, {told} mappings told").into());
    }
    Ok(begins)
}

/// Compares the bytes; whether all of them.
fn bytes(kernel: &mut Kernel, node: u64, theirs: &File, size: u64, way: Way) -> Result<bool> {
    let (mut at, whole) = (0, size <= READ_WHOLE);
    let mut known = vec![0; way.window() as usize];
    while at < size {
        if !whole {
            at = next(theirs, at, size, way.window())?;
        }
        let ours = kernel.read(node, way, at)?.map_err(|errno| format!("{way:?} at {at}: error {errno}"))?;
        let known = &mut known[..way.window().min(size - at) as usize];
        theirs.read_exact_at(known, at)?;
        if let Some(wrong) = (0..known.len().max(ours.len())).find(|&byte| known.get(byte) != ours.get(byte)) {
            return Err(format!("{way:?}: byte {} differs", at + wrong as u64).into());
        }
        at += way.window();
    }
    Ok(whole)
}

/// The window that holds the next data, or the last one.
fn next(theirs: &File, at: u64, size: u64, window: u64) -> Result<u64> {
    let data = match rustix::fs::seek(theirs, SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(Errno::NXIO) => size - 1,
        Err(errno) => return Err(errno.into()),
    };
    Ok((data / window * window).max(at))
}

/// Where it lies is where FIEMAP says. Of data in an inode the worker tells no place.
fn same_place(ours: &[Piece], theirs: &[Piece]) -> Result {
    let known: Vec<Piece> = theirs
        .iter()
        .map(|piece| match piece.kind {
            Kind::Inline => Piece { device: 0, ..*piece },
            _ => *piece,
        })
        .filter(|piece| piece.length > 0)
        .collect();
    if ours == known { Ok(()) } else { Err(format!("it lies at {ours:?}, FIEMAP says {theirs:?}").into()) }
}

/// The holes and the data are where lseek(2) finds them.
fn holes(kernel: &mut Kernel, node: u64, theirs: &File, pieces: &[Piece]) -> Result {
    let size = theirs.metadata()?.len();
    let edges = pieces.iter().flat_map(|piece| [piece.offset, piece.offset + piece.length]);
    let mut places: Vec<u64> = edges.flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]).collect();
    places.truncate(MOST_SOUGHT);
    places.extend([0, size / 2, size.saturating_sub(1)]);
    for place in places.into_iter().filter(|place| *place < size) {
        for (data, whence) in [(true, SeekFrom::Data(place)), (false, SeekFrom::Hole(place))] {
            let ours = kernel.seek(node, place, data)?.map_err(|errno| format!("lseek: error {errno}"))?;
            let known = match rustix::fs::seek(theirs, whence) {
                Ok(found) => Some(found),
                Err(Errno::NXIO) => None,
                Err(errno) => return Err(errno.into()),
            };
            if ours != known {
                return Err(format!("lseek from {place}, data {data}: {ours:?}, and {known:?}").into());
            }
        }
    }
    Ok(())
}
