//! A device that answers otherwise the next time: an input that is changes of an image, where each change is there in
//! some reads and not in others, and some bytes cannot be read at times.

use std::ops::Range;
use std::sync::Mutex;

use lazaret_worker::device::Device;

use super::image::{Action, Recipe, SEALED};
use super::scratch::Scratch;
use super::tour::{Wishes, tour};
use super::window::settings;

/// Bytes that are others at times.
struct Turn {
    place: Range<usize>,
    /// What is read then; nothing can be, if none.
    bytes: Option<Vec<u8>>,
    /// One bit for each of eight reads in turn.
    when: u8,
    reads: u32,
}

/// Reads everything of it.
pub fn run(input: &[u8]) {
    let whole = Recipe::decode(input);
    let sound = whole.sound();
    // What writes a field takes turns; everything else is there from the beginning.
    let (turning, lasting): (Vec<_>, Vec<_>) =
        whole.changes.iter().partition(|change| matches!(change.action(), Action::Write | Action::Fill));
    let recipe = Recipe { changes: lasting, ..whole.clone() };
    let scratch = Scratch::of(sound);
    let turns = || {
        let turns = turning.iter().filter_map(|change| {
            let piece = change.piece(sound)?;
            let at = piece.at + usize::from(change.offset) % piece.length;
            let write = change.action() == Action::Write;
            let end = (at + change.width()).min(piece.at + piece.length);
            let bytes = write.then(|| change.value[..end - at].to_vec());
            let when = (change.extra >> 8) as u8;
            Some(Turn { place: at..end, bytes, when: if when == 0 { 0b1010_1010 } else { when }, reads: 0 })
        });
        Mutex::new(turns.collect::<Vec<_>>())
    };
    scratch.with(
        |changes| recipe.apply(changes),
        |scratch| {
            let device = || {
                let (below, turns) = (scratch.device(), turns());
                Device::answered(below.len(), move |offset, out| {
                    below.read_at(offset, out).is_ok()
                        && turns.lock().is_ok_and(|mut turns| turns.iter_mut().all(|turn| turn.take(offset, out)))
                })
            };
            // A checksum cannot be right of what changes.
            let flags = if recipe.flags & SEALED != 0 { recipe.flags | super::image::IGNORED } else { recipe.flags };
            tour(&device, settings(flags), Wishes { check: recipe.flags & 0x30 == 0x30, ..Wishes::default() });
        },
    );
}

impl Turn {
    /// Puts its bytes over what was read; false if nothing can be read now.
    fn take(&mut self, offset: u64, out: &mut [u8]) -> bool {
        let Ok(begin) = usize::try_from(offset) else { return true };
        let (from, to) = (self.place.start.max(begin), self.place.end.min(begin + out.len()));
        if from >= to {
            return true;
        }
        self.reads += 1;
        if self.when >> (self.reads % 8) & 1 == 0 {
            return true;
        }
        let Some(bytes) = &self.bytes else { return false };
        out[from - begin..to - begin].copy_from_slice(&bytes[from - self.place.start..to - self.place.start]);
        true
    }
}
