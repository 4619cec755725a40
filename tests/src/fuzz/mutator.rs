//! The mutator that knows the format: it picks a structure and a field of it, and writes what somebody would who wants
//! to do harm; it swaps, repeats and exchanges; and in half of the cases all checksums are right afterwards.

use super::grammar::{Place, Places};
use super::image::{self, CHANGE, Change, IGNORED, Recipe, SEALED, VERIFIED, WARNED, WORK};
use super::stock::{KINDS, Sound, stock};
use super::window::Window;
use crate::mutate::damage::wrong;
use crate::mutate::layout::{Layout, Piece};
use crate::mutate::random::Random;

/// Changes an input that is changes of a whole image.
pub fn recipe(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let mut recipe = Recipe::decode(input);
    if random.below(12) == 0 || input.len() < 2 {
        recipe.image = random.below(stock().len()) as u8;
    }
    recipe.flags = flags(recipe.flags, random);
    let last = recipe.changes.len();
    match random.below(8) {
        0 if last > 0 => drop(recipe.changes.remove(random.below(last))),
        1 if last > 1 => recipe.changes.swap(random.below(last), random.below(last)),
        2 | 3 if last > 0 => {
            let sound = recipe.sound();
            let change = &mut recipe.changes[random.below(last)];
            *change = again(sound, *change, random);
        }
        _ => {
            let change = change(recipe.sound(), random);
            recipe.changes.push(change);
        }
    }
    // The oldest go first: what comes last was made for what is there.
    let room = most.saturating_sub(2) / CHANGE;
    let over = recipe.changes.len().saturating_sub(room.min(image::MOST));
    recipe.changes.drain(..over);
    recipe.encode()
}

/// Changes an input that is the bytes of structures.
pub fn window(window: &Window, input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let (old, name, bytes) = window.split(input);
    let mut bytes = bytes.to_vec();
    let mut name = name.to_vec();
    if window.found().pieces.is_empty() {
        return input.to_vec();
    }
    for _ in 0..*random.pick(&[1, 1, 1, 2, 3]) {
        fields(window, &mut bytes, random);
    }
    if !name.is_empty() && random.below(4) == 0 {
        let at = random.below(name.len());
        name[at] = random.below(256) as u8;
    }
    let mut whole = window.join(flags(old, random), &name, &bytes);
    whole.truncate(most);
    whole
}

/// Half of the inputs have all checksums right; of the others most are read with checksums.
fn flags(old: u8, random: &mut Random) -> u8 {
    let sealed = if random.below(2) == 0 { SEALED } else { 0 };
    // Now and then a target does what is dear: it asks twice, or lets each request work as much as it may.
    let besides = match random.below(512) {
        0..16 => 0xf0,
        16..32 => 0x30,
        32 => WORK,
        _ => 0,
    };
    let old = old & 0x0f | besides;
    let read = match random.below(16) {
        0 => WARNED,
        1 => IGNORED,
        2 => VERIFIED,
        3 => 0,
        _ => old & (WARNED | IGNORED | VERIFIED),
    };
    old & !(SEALED | WARNED | IGNORED | VERIFIED) | sealed | read
}

/// One change of an image.
fn change(sound: &Sound, random: &mut Random) -> Change {
    let present: Vec<usize> = (0..KINDS.len()).filter(|&kind| !sound.by_kind[kind].is_empty()).collect();
    let kind = *random.pick(&present);
    let number = random.below(sound.by_kind[kind].len()) as u16;
    let fresh = Change { kind: kind as u8, action: 0, number, offset: 0, extra: 0, value: [0; 8] };
    again(sound, fresh, random)
}

/// Another change of the same structure.
fn again(sound: &Sound, change: Change, random: &mut Random) -> Change {
    let Some(piece) = change.piece(sound) else { return change };
    let bytes = &sound.bytes[piece.at..piece.at + piece.length];
    let places = Places::of(image::kind(&change), bytes);
    let (place, other) = (places.pick(random), places.pick(random));
    let offset = place.at as u16;
    let value = (other.at as u64).to_le_bytes();
    match random.below(32) {
        0..=23 => {
            let (bytes, width) = value_at(bytes, place, &sound.layout, piece, random);
            Change { action: 0, offset, extra: width as u16 - 1, value: bytes, ..change }
        }
        // Rows of pointers and entries: 4, 8, 12 or 16 bytes each.
        24..=26 => Change { action: 4, offset, extra: *random.pick(&[3, 7, 11, 15]), value, ..change },
        27..=28 => Change { action: 5, offset, extra: *random.pick(&[3, 7, 11, 15, 31]), value, ..change },
        29..=30 => Change { action: 6, extra: random.below(usize::from(u16::MAX)) as u16, ..change },
        _ => {
            let [fill, noise, seed] = [*random.pick(&[0, 0xff]), random.below(2) as u8, random.below(256) as u8];
            Change {
                action: 7,
                offset,
                extra: random.below(64) as u16,
                value: [fill, noise, seed, 0, 0, 0, 0, 0],
                ..change
            }
        }
    }
}

/// What is written to a field, and how many bytes that is.
fn value_at(bytes: &[u8], place: Place, layout: &Layout, piece: Piece, random: &mut Random) -> ([u8; 8], usize) {
    let mut old = [0; 8];
    let width = place.width.min(bytes.len().saturating_sub(place.at)).max(1);
    if let Some(there) = bytes.get(place.at..place.at + width) {
        old[..width].copy_from_slice(there);
    }
    if place.big_endian {
        old[..width].reverse();
    }
    let number = u64::from_le_bytes(old);
    let new = wrong(number as u32, width.min(4), layout, piece, random);
    // Of 64 bits most often the lower half is meant.
    let wide = match random.below(4) {
        0 => u64::from(new) << 32 | number & 0xffff_ffff,
        1 if new == u32::MAX => u64::MAX,
        _ => number & !0xffff_ffff | u64::from(new),
    };
    let mut new = if width == 8 { wide } else { new.into() }.to_le_bytes();
    if place.big_endian {
        new[..width].reverse();
    }
    (new, width)
}

/// One field of one of a window's structures; swapped with another, or repeated there, at times.
fn fields(window: &Window, bytes: &mut Vec<u8>, random: &mut Random) {
    let found = window.found();
    if bytes.len() < found.bytes.len() {
        bytes.extend_from_slice(&found.bytes[bytes.len()..]);
    }
    let index = random.below(found.pieces.len());
    let before: usize = found.pieces[..index].iter().map(|(_, range)| range.len()).sum();
    let (piece, range) = &found.pieces[index];
    // The fields are found in the structure as it was changed before.
    let mut whole = found.sound.bytes[piece.at..piece.at + piece.length].to_vec();
    whole[range.clone()].copy_from_slice(&bytes[before..before + range.len()]);
    let all = Places::of(piece.kind, &whole);
    let mut places =
        || (0..32).map(|_| all.pick(random)).find(|it| range.contains(&it.at) && it.at + it.width <= range.end);
    let (Some(place), Some(other)) = (places(), places()) else { return };
    let (at, from) = (before + place.at - range.start, before + other.at - range.start);
    let end = before + range.len();
    match random.below(16) {
        0..=12 => {
            let (value, width) = value_at(&whole, place, &found.sound.layout, *piece, random);
            bytes[at..at + width].copy_from_slice(&value[..width]);
        }
        choice => {
            let width = (*random.pick(&[4, 8, 12, 16])).min(end - at).min(end - from);
            if choice == 13 {
                bytes.copy_within(from..from + width, at);
            } else if at.abs_diff(from) >= width {
                (0..width).for_each(|index| bytes.swap(at + index, from + index));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::window::WINDOWS;

    #[test]
    fn half_of_what_comes_out_is_sealed_and_every_kind_is_changed() {
        let mut random = Random::new(1);
        let (mut sealed, mut kinds) = (0, std::collections::BTreeSet::new());
        for _ in 0..2000 {
            let input = recipe(&[], 4096, &mut random);
            let recipe = Recipe::decode(&input);
            sealed += usize::from(recipe.flags & SEALED);
            kinds.extend(recipe.changes.iter().map(image::kind));
        }
        assert!((800..1200).contains(&sealed), "{sealed}");
        assert_eq!(kinds.len(), KINDS.len());
    }

    #[test]
    fn a_window_is_changed_in_a_few_bytes_and_keeps_its_length() {
        let mut random = Random::new(2);
        for one in &WINDOWS {
            let seed = one.seeds().remove(0);
            let differing = (0..100).filter(|_| {
                let mutant = window(one, &seed, usize::MAX, &mut random);
                assert_eq!(mutant.len(), seed.len(), "{}", one.name);
                mutant[1..] != seed[1..]
            });
            assert!(differing.count() > 50, "{}", one.name);
        }
    }
}
