//! An image that is changed for one input and is whole again for the next, without being copied in between.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use lazaret_worker::device::Device;

use super::stock::Sound;
use crate::mutate::layout::{Kind, Piece};
use crate::mutate::seal::seal_those;

/// Where the superblock lies.
const SUPERBLOCK: usize = 1024;

/// The image of a device, and what of it is not as it was.
#[derive(Clone)]
pub struct Scratch {
    sound: &'static Sound,
    bytes: Arc<RwLock<Vec<u8>>>,
}

thread_local! {
    /// One for each sound image, kept from input to input.
    static KEPT: RefCell<HashMap<*const Sound, Scratch>> = RefCell::default();
    /// Bytes that this thread has copied out of images.
    static COPIED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that this thread has copied out of images so far: the work that a reader was put to, counted where it cannot
/// miscount.
pub(super) fn copied() -> u64 {
    COPIED.get()
}

/// Which pieces are to be sealed when these are changed.
pub(crate) struct Seals {
    superblock: bool,
    journal: Option<usize>,
    changed: Vec<Piece>,
    pieces: Vec<Piece>,
}

/// The changes that are made before a run, and undone after it.
pub struct Changes<'a> {
    sound: &'static Sound,
    bytes: &'a mut [u8],
    dirty: Vec<Range<usize>>,
}

impl Scratch {
    /// The one of this image.
    pub fn of(sound: &'static Sound) -> Self {
        KEPT.with_borrow_mut(|kept| {
            let fresh = || Self { sound, bytes: Arc::new(RwLock::new(sound.bytes.clone())) };
            kept.entry(std::ptr::from_ref(sound)).or_insert_with(fresh).clone()
        })
    }

    /// Changes the image, runs something that may look at it, and undoes the changes.
    pub fn with<R>(&self, change: impl FnOnce(&mut Changes<'_>), run: impl FnOnce(&Self) -> R) -> R {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Changes { sound: self.sound, bytes: &mut bytes, dirty: Vec::new() };
        change(&mut changes);
        let dirty = changes.dirty;
        drop(bytes);
        let undo = Undo { scratch: self, dirty };
        let result = run(undo.scratch);
        drop(undo);
        result
    }

    /// The image as it is now.
    pub fn bytes(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device that reads it.
    pub fn device(&self) -> Device {
        let bytes = Arc::clone(&self.bytes);
        Device::answered(self.sound.bytes.len() as u64, move |offset, out| {
            COPIED.set(COPIED.get() + out.len() as u64);
            let bytes = bytes.read().unwrap_or_else(PoisonError::into_inner);
            let start = usize::try_from(offset).ok();
            let found = start.and_then(|start| bytes.get(start..start.checked_add(out.len())?));
            found.map(|found| out.copy_from_slice(found)).is_some()
        })
    }
}

/// Undoes the changes also where what ran has panicked.
struct Undo<'a> {
    scratch: &'a Scratch,
    dirty: Vec<Range<usize>>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let mut bytes = self.scratch.bytes.write().unwrap_or_else(PoisonError::into_inner);
        for range in &self.dirty {
            bytes[range.clone()].copy_from_slice(&self.scratch.sound.bytes[range.clone()]);
        }
    }
}

impl Changes<'_> {
    /// The bytes of a piece, to be changed.
    pub(crate) fn piece(&mut self, piece: Piece) -> &mut [u8] {
        let range = piece.at..piece.at + piece.length;
        self.dirty.push(range.clone());
        &mut self.bytes[range]
    }

    /// The bytes of a piece as they are now.
    pub(crate) fn look(&self, piece: Piece) -> &[u8] {
        &self.bytes[piece.at..piece.at + piece.length]
    }

    /// Makes the checksums right again that cover what was changed.
    pub fn seal(&mut self) {
        let touched = |piece: &Piece| {
            self.dirty.iter().any(|dirty| dirty.start < piece.at + piece.length && piece.at < dirty.end)
        };
        let changed = self.sound.layout.pieces.iter().filter(|piece| touched(piece)).copied().collect();
        self.seal_after(&Seals::of(self.sound, changed));
    }

    /// The same, of pieces that are known.
    pub(crate) fn seal_after(&mut self, seals: &Seals) {
        let layout = &self.sound.layout;
        // What all checksums begin with, and whether there are any, stands in the superblock, and for the journal in its own.
        let differs = |at: usize, ranges: &[Range<usize>]| {
            let range = |range: &Range<usize>| at + range.start..at + range.end;
            ranges.iter().map(range).any(|range| self.bytes[range.clone()] != self.sound.bytes[range])
        };
        let all = seals.superblock && differs(SUPERBLOCK, &[0x20..0x2c, 0x60..0x78, 0x270..0x274]);
        let journal = seals.journal.is_some_and(|at| differs(at, &[0x28..0x2c, 0x30..0x40]));
        let wanted = |piece: &&Piece| {
            all || journal && matches!(piece.kind, Kind::Log | Kind::FastCommit) || depends(piece, &seals.changed)
        };
        let more: Vec<Piece>;
        let sealed = if all || journal {
            more = layout.pieces.iter().filter(wanted).copied().collect();
            &more
        } else {
            &seals.pieces
        };
        self.dirty.extend(sealed.iter().map(|piece| piece.at..piece.at + piece.length));
        seal_those(self.bytes, layout, sealed);
    }
}

impl Seals {
    /// Those of an image of which these pieces are changed.
    pub(crate) fn of(sound: &Sound, changed: Vec<Piece>) -> Self {
        let superblock = changed.iter().any(|piece| piece.kind == Kind::Superblock);
        let journal = changed.iter().find(|piece| piece.kind == Kind::JournalSuperblock).map(|piece| piece.at);
        let pieces = sound.layout.pieces.iter().filter(|piece| depends(piece, &changed)).copied().collect();
        Self { superblock, journal, changed, pieces }
    }
}

/// Whether a piece has a checksum that changes with one of these: with the generation of an inode all that is its own
/// does, with a bitmap its group.
fn depends(piece: &Piece, changed: &[Piece]) -> bool {
    changed.iter().any(|changed| {
        changed.at == piece.at && changed.kind == piece.kind
            || changed.kind == Kind::Inode && changed.owner == piece.owner && piece.kind != Kind::Group
            || piece.kind == Kind::Group
                && matches!(changed.kind, Kind::BlockBitmap | Kind::InodeBitmap)
                && changed.owner == piece.owner
    })
}
