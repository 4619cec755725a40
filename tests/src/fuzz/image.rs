//! An input of the targets that take whole images: a few changes of a sound image, each in the words of the format.
//!
//! An input is one byte for the image, one for how it is read, and 16 for each change. Any bytes are an input. A file
//! that is an image itself is one, too, so that a fuzzer without a mutator of ours, and whoever has an image, can use
//! the same targets.

use super::scratch::Changes;
use super::stock::{KINDS, Sound, stock};
use crate::mutate::layout::{Kind, Piece};
use crate::mutate::random::Random;

/// Bytes of a change.
pub const CHANGE: usize = 16;
/// Changes of an input. With many, nothing but the first is reached.
pub const MOST: usize = 24;

/// An input, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Which image.
    pub image: u8,
    /// How it is read.
    pub flags: u8,
    /// What is changed.
    pub changes: Vec<Change>,
}

/// The checksums are made right again.
pub const SEALED: u8 = 1;
/// Wrong checksums are let pass; with [`IGNORED`] they are not computed.
pub const WARNED: u8 = 2;
/// Checksums are not computed.
pub const IGNORED: u8 = 4;
/// Merkle trees are verified.
pub const VERIFIED: u8 = 8;
/// Of the upper bits: a request may do as much work as it may in a worker, where inputs else have it do little.
pub const WORK: u8 = 0xe0;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of which kind of structure, a number of `stock::KINDS`.
    pub kind: u8,
    /// What is done.
    pub action: u8,
    /// Which one of that kind.
    pub number: u16,
    /// Where in it, in bytes.
    pub offset: u16,
    /// How many bytes; of another structure, which.
    pub extra: u16,
    /// What is written there.
    pub value: [u8; 8],
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The first bytes of the value are written.
    Write,
    /// Two places of the structure are exchanged.
    Swap,
    /// What stands at one place stands at another, too.
    Repeat,
    /// The structure becomes another of its kind.
    Another,
    /// A run of bytes becomes one byte over and over, or noise.
    Fill,
}

impl Change {
    /// What it does.
    pub fn action(&self) -> Action {
        match self.action % 8 {
            0..=3 => Action::Write,
            4 => Action::Swap,
            5 => Action::Repeat,
            6 => Action::Another,
            _ => Action::Fill,
        }
    }

    fn decode(bytes: &[u8; CHANGE]) -> Self {
        let [kind, action, n0, n1, o0, o1, e0, e1, value @ ..] = *bytes;
        let [number, offset, extra] = [[n0, n1], [o0, o1], [e0, e1]].map(u16::from_le_bytes);
        Self { kind, action, number, offset, extra, value }
    }

    fn encode(&self) -> [u8; CHANGE] {
        let mut bytes = [0; CHANGE];
        bytes[..2].copy_from_slice(&[self.kind, self.action]);
        for (at, half) in [(2, self.number), (4, self.offset), (6, self.extra)] {
            bytes[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
        bytes[8..].copy_from_slice(&self.value);
        bytes
    }

    /// The structure of an image that it changes; none if the image has none of the kind.
    pub(crate) fn piece(&self, sound: &Sound) -> Option<Piece> {
        let all = &sound.by_kind[usize::from(self.kind) % KINDS.len()];
        let index = usize::from(self.number).checked_rem(all.len())?;
        Some(sound.layout.pieces[all[index]])
    }

    /// How many bytes it writes, where that is for it to say.
    pub fn width(&self) -> usize {
        1 + usize::from(self.extra % 8)
    }
}

impl Recipe {
    /// The most changes of an input that goes on behind them.
    pub(super) const LEADING: usize = 7;

    /// An input that goes on behind its changes has a byte before them: its lower three bits are their number. Gives that
    /// byte's other bits, and what follows the changes.
    pub(super) fn split(input: &[u8]) -> (Self, u8, &[u8]) {
        let count = input.get(2).copied().unwrap_or(0);
        let rest = input.get(3..).unwrap_or_default();
        let (changes, rest) = rest.split_at((usize::from(count & 7) * CHANGE).min(rest.len()));
        (Self::decode(&[input.get(..2).unwrap_or_default(), changes].concat()), count & !7, rest)
    }

    /// Puts such an input together.
    pub(super) fn join(&self, bits: u8, rest: &[u8]) -> Vec<u8> {
        let encoded = self.encode();
        let (head, changes) = encoded.split_at(2);
        [head, &[self.changes.len() as u8 & 7 | bits], changes, rest].concat()
    }

    /// Any bytes are one.
    pub fn decode(bytes: &[u8]) -> Self {
        let (image, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
        let (flags, rest) = rest.split_first().map_or((0, rest), |(first, rest)| (*first, rest));
        let changes = rest.as_chunks::<CHANGE>().0.iter().take(MOST).map(Change::decode).collect();
        Self { image, flags, changes }
    }

    /// The bytes that it is.
    pub fn encode(&self) -> Vec<u8> {
        let changes = self.changes.iter().flat_map(Change::encode);
        [self.image, self.flags].into_iter().chain(changes).collect()
    }

    /// The image that it changes.
    pub fn sound(&self) -> &'static Sound {
        &stock()[usize::from(self.image) % stock().len()]
    }

    /// What it changes, a line each.
    pub fn describe(&self) -> Vec<String> {
        let sound = self.sound();
        let line = |change: &Change| match change.piece(sound) {
            None => format!("nothing: the image has no {:?}", kind(change)),
            Some(piece) => {
                let at = usize::from(change.offset) % piece.length;
                let (what, value) = (change.action(), &change.value[..change.width()]);
                format!("{:?} of {} at byte {}: {what:?} at {at:#x}, {value:02x?}", piece.kind, piece.owner, piece.at)
            }
        };
        self.changes.iter().map(line).collect()
    }

    /// The objects whose structures it changes; none if it changes none, and all are of the same interest.
    pub fn changed(&self) -> Option<Vec<u32>> {
        let sound = self.sound();
        let pieces = self.changes.iter().filter_map(|change| change.piece(sound));
        (!self.changes.is_empty()).then(|| pieces.map(|piece| piece.owner).collect())
    }

    /// Makes all its changes.
    pub fn apply(&self, changes: &mut Changes<'_>) {
        let sound = self.sound();
        for change in &self.changes {
            if let Some(piece) = change.piece(sound) {
                apply(sound, change, piece, changes);
            }
        }
        if self.flags & SEALED != 0 {
            changes.seal();
        }
    }
}

fn apply(sound: &Sound, change: &Change, piece: Piece, changes: &mut Changes<'_>) {
    let length = piece.length;
    let at = usize::from(change.offset) % length;
    let other = usize::from(u16::from_le_bytes([change.value[0], change.value[1]])) % length;
    match change.action() {
        Action::Write => {
            let width = change.width().min(length - at);
            changes.piece(piece)[at..at + width].copy_from_slice(&change.value[..width]);
        }
        Action::Swap | Action::Repeat => {
            let width = (1 + usize::from(change.extra) % 64).min(length - at).min(length - other);
            let bytes = changes.piece(piece);
            if change.action() == Action::Repeat {
                bytes.copy_within(other..other + width, at);
            } else if other.abs_diff(at) >= width {
                (0..width).for_each(|index| bytes.swap(at + index, other + index));
            }
        }
        Action::Another => {
            let like = Change { number: change.extra, ..*change };
            let Some(other) = like.piece(sound) else { return };
            let copy = changes.look(other)[..length.min(other.length)].to_vec();
            changes.piece(piece)[..copy.len()].copy_from_slice(&copy);
        }
        Action::Fill => {
            let width = (1 + usize::from(change.extra)).min(length - at);
            let [fill, noise, seed, ..] = change.value;
            let mut random = Random::new(seed.into());
            let fill = |_| if noise & 1 != 0 { random.below(256) as u8 } else { fill };
            let bytes: Vec<u8> = (0..width).map(fill).collect();
            changes.piece(piece)[at..at + width].copy_from_slice(&bytes);
        }
    }
}

/// Whether these bytes are an image and not changes of one.
pub fn is_image(bytes: &[u8]) -> bool {
    bytes.len() >= 2048 && bytes[1024 + 56..1024 + 58] == [0x53, 0xef]
}

/// The kind of structure that a change is of.
pub(crate) fn kind(change: &Change) -> Kind {
    KINDS[usize::from(change.kind) % KINDS.len()]
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn any_bytes_are_an_input_and_an_image_is_whole_again_after_each() {
        let mut random = Random::new(7);
        let mut changed = 0;
        for _ in 0..300 {
            let bytes: Vec<u8> = (0..2 + random.below(5) * CHANGE).map(|_| random.below(256) as u8).collect();
            let recipe = Recipe::decode(&bytes);
            assert_eq!(recipe.encode(), bytes);
            let sound = recipe.sound();
            let scratch = Scratch::of(sound);
            let differs = scratch.with(|changes| recipe.apply(changes), |scratch| *scratch.bytes() != sound.bytes);
            changed += u32::from(differs);
            assert!(*scratch.bytes() == sound.bytes, "{}: {recipe:?}", sound.name);
        }
        assert!(changed > 150);
    }
}
