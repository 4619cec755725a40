//! A device that answers otherwise the next time: an input that is changes of an image, where each change is there in
//! some reads and not in others, and some bytes cannot be read at times.

use std::ops::Range;
use std::sync::Mutex;

use lazaret_worker::device::Device;

use super::image::{Action, Change, Recipe, SEALED};
use super::mutator;
use super::scratch::Scratch;
use super::tour::{Wishes, tour};
use super::window::settings;
use crate::mutate::random::Random;

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
    let (turning, lasting): (Vec<_>, Vec<_>) = whole.changes.iter().partition(|change| takes_turns(change));
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

/// Changes an input as others of an image are changed, and in which reads a change is there.
pub fn mutate(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let mut recipe = Recipe::decode(&mutator::recipe(input, most, random));
    let turning: Vec<_> = recipe.changes.iter_mut().filter(|change| takes_turns(change)).collect();
    // Once, from the second read on, in all reads but one, and the like: most often of a change that is there.
    let any = random.below(256) as u8;
    let when = *random.pick(&[1, 2, 4, 0x80, 0xfe, 0xfc, 0xf0, 0x7f, 0xaa, any]);
    let one = random.below(turning.len().max(1));
    if let Some(change) = turning.into_iter().nth(one).filter(|_| random.below(2) == 0) {
        change.extra = change.extra & 0xff | u16::from(when) << 8;
    }
    recipe.encode()
}

fn takes_turns(change: &Change) -> bool {
    matches!(change.action(), Action::Write | Action::Fill)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_there_in_any_of_the_reads() {
        let mut random = Random::new(4);
        let mut when = std::collections::BTreeSet::new();
        let mut input = Vec::new();
        for _ in 0..2000 {
            input = mutate(&input, 400, &mut random);
            let changes = Recipe::decode(&input).changes;
            when.extend(changes.iter().filter(|change| takes_turns(change)).map(|change| change.extra >> 8));
        }
        assert!(when.len() > 50, "{when:?}");
    }
}
