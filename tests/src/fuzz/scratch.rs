//! An image that is changed for one input and is whole again for the next, without being copied in between.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use lazaret_worker::device::Device;

use super::stock::Sound;
use crate::mutate::layout::{Kind, Piece};
use crate::mutate::seal::seal_those;

/// The image of a device, and what of it is not as it was.
#[derive(Clone)]
pub struct Scratch {
    sound: &'static Sound,
    bytes: Arc<RwLock<Vec<u8>>>,
}

thread_local! {
    /// One for each sound image, kept from input to input.
    static KEPT: RefCell<HashMap<*const Sound, Scratch>> = RefCell::default();
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
        let layout = &self.sound.layout;
        let touched = |piece: &Piece| {
            self.dirty.iter().any(|dirty| dirty.start < piece.at + piece.length && piece.at < dirty.end)
        };
        let changed: Vec<&Piece> = layout.pieces.iter().filter(|piece| touched(piece)).collect();
        // What all checksums begin with, and whether there are any, stands in the superblock, and for the journal in its own.
        let differs = |at: usize, ranges: &[Range<usize>]| {
            let range = |range: &Range<usize>| at + range.start..at + range.end;
            ranges.iter().map(range).any(|range| self.bytes[range.clone()] != self.sound.bytes[range])
        };
        let of = |kind| changed.iter().find(|piece| piece.kind == kind).map(|piece| piece.at);
        let all = of(Kind::Superblock).is_some_and(|at| differs(at, &[0x20..0x2c, 0x60..0x78, 0x270..0x274]));
        let journal = of(Kind::JournalSuperblock).is_some_and(|at| differs(at, &[0x28..0x2c, 0x30..0x40]));
        // With the generation of an inode all that is its own changes; with a bitmap its group.
        let wanted = |piece: &&Piece| {
            let depends = |changed: &&Piece| {
                changed.at == piece.at && changed.kind == piece.kind
                    || changed.kind == Kind::Inode && changed.owner == piece.owner && piece.kind != Kind::Group
                    || piece.kind == Kind::Group
                        && matches!(changed.kind, Kind::BlockBitmap | Kind::InodeBitmap)
                        && changed.owner == piece.owner
            };
            all || journal && matches!(piece.kind, Kind::Log | Kind::FastCommit) || changed.iter().any(depends)
        };
        let sealed: Vec<Piece> = layout.pieces.iter().filter(wanted).copied().collect();
        self.dirty.extend(sealed.iter().map(|piece| piece.at..piece.at + piece.length));
        seal_those(self.bytes, layout, &sealed);
    }
}
