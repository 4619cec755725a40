//! An input of the targets that take one structure: its bytes, laid over those of a sound image, and what that structure
//! is of is asked for. Nothing is remembered
//! from one input to the next.
//!
//! An input is one byte for how the image is read, for directories a name to be looked for, and then the bytes; where
//! they end, the sound ones stay.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::OnceLock;

use lazaret_policy::feature::RoCompat;
use lazaret_policy::message::{Checksum, Verity};
use lazaret_worker::ext4::{Filesystem, InodeNumber, Settings};

use super::image::{IGNORED, SEALED, VERIFIED, WARNED};
use super::scratch::Scratch;
use super::stock::{Sound, sound};
use super::tour;
use crate::mutate::layout::{Kind, Piece};

/// What of an image an input is laid over.
pub struct Window {
    /// The target's name.
    pub name: &'static str,
    /// The image's name.
    image: &'static str,
    /// The path of the object that the structures are of; none for those of the whole file system.
    object: Option<&'static str>,
    /// The kinds of structure, and how many of each at the most.
    kinds: &'static [(Kind, usize)],
    /// Which bytes of each structure.
    bytes: Range<usize>,
    /// Names are looked for.
    named: bool,
}

/// Where `i_extra_isize` stands.
const EXTRA_SIZE: usize = 0x80;
const WHOLE: Range<usize> = 0..usize::MAX;
const NONE: Window = Window { name: "", image: "ext4", object: None, kinds: &[], bytes: WHOLE, named: false };

/// All of them.
pub const WINDOWS: [Window; 14] = [
    Window { name: "superblock", kinds: &[(Kind::Superblock, 1)], ..NONE },
    Window { name: "group", image: "groups", kinds: &[(Kind::Group, 8)], ..NONE },
    Window { name: "inode", object: Some("file"), kinds: &[(Kind::Inode, 1)], bytes: 0..160, ..NONE },
    Window { name: "extent", object: Some("sparse"), kinds: &[(Kind::Inode, 1), (Kind::ExtentNode, 2)], ..NONE },
    Window {
        name: "indirect",
        image: "ext2",
        object: Some("sparse"),
        kinds: &[(Kind::Inode, 1), (Kind::Pointers, 2)],
        ..NONE
    },
    Window { name: "directory", object: Some("d"), kinds: &[(Kind::Directory, 1)], named: true, ..NONE },
    Window { name: "htree", image: "hashed", object: Some("d"), kinds: &[(Kind::Directory, 3)], named: true, ..NONE },
    Window { name: "xattr_block", object: Some("file"), kinds: &[(Kind::Attributes, 1)], ..NONE },
    Window { name: "xattr_body", object: Some("file"), kinds: &[(Kind::Inode, 1)], bytes: 104..usize::MAX, ..NONE },
    Window { name: "inline", image: "inline", object: Some("some"), kinds: &[(Kind::Inode, 1)], ..NONE },
    Window { name: "journal_superblock", image: "journal", kinds: &[(Kind::JournalSuperblock, 1)], ..NONE },
    Window { name: "journal_log", image: "journal", kinds: &[(Kind::Log, 8)], ..NONE },
    Window { name: "fast_commit", image: "fast-commit", kinds: &[(Kind::FastCommit, 1)], ..NONE },
    Window {
        name: "casefold",
        image: "casefold",
        object: Some("d"),
        kinds: &[(Kind::Directory, 1)],
        named: true,
        ..NONE
    },
];

/// A window of which it is known where it lies.
pub(crate) struct Found {
    pub(crate) sound: &'static Sound,
    /// Whose structures they are, or objects that show what they are.
    inodes: Vec<u32>,
    /// The structures, and which bytes of each.
    pub(crate) pieces: Vec<(Piece, Range<usize>)>,
    /// Those bytes, sound.
    pub(crate) bytes: Vec<u8>,
}

thread_local! {
    /// File systems that stay open from input to input, by image and by how they are read.
    static OPEN: RefCell<HashMap<(*const Sound, u8), Rc<Filesystem>>> = RefCell::default();
}

static FOUND: [OnceLock<Found>; WINDOWS.len()] = [const { OnceLock::new() }; WINDOWS.len()];

/// How an image is read, by a byte of an input.
pub fn settings(flags: u8) -> Settings {
    let checksum = match (flags & WARNED != 0, flags & IGNORED != 0) {
        (_, true) => Checksum::Ignore,
        (true, _) => Checksum::Warn,
        _ => Checksum::Strict,
    };
    let verity = if flags & VERIFIED != 0 { Verity::Verify } else { Verity::Ignore };
    Settings { checksum, verity, ..Settings::default() }
}

impl Window {
    pub(crate) fn found(&self) -> &'static Found {
        let index = WINDOWS.iter().position(|one| one.name == self.name).unwrap_or_default();
        FOUND[index].get_or_init(|| self.find())
    }

    fn find(&self) -> Found {
        let sound = sound(self.image);
        let fs = Filesystem::open(Scratch::of(sound).device(), Settings::default()).expect("a sound image opens");
        let root = fs.inode(InodeNumber::ROOT).expect("a sound image has a root");
        let look = |name: &str| fs.lookup(&root, name.as_bytes()).ok().flatten().map(InodeNumber::value);
        let object = self.object.map(|name| look(name).unwrap_or_else(|| panic!("{}: no {name}", sound.name)));
        let mut pieces = Vec::new();
        for &(kind, most) in self.kinds {
            let of = |piece: &&Piece| piece.kind == kind && object.is_none_or(|object| piece.owner == object);
            let some = sound.layout.pieces.iter().filter(of).take(most);
            pieces.extend(some.map(|piece| (*piece, self.bytes.start..self.bytes.end.min(piece.length))));
        }
        assert!(!pieces.is_empty(), "{}: nothing of what {} is", sound.name, self.name);
        let inodes = object.map_or_else(|| [Some(2), look("file")].into_iter().flatten().collect(), |one| vec![one]);
        let of = |(piece, range): &(Piece, Range<usize>)| &sound.bytes[piece.at + range.start..piece.at + range.end];
        let bytes = pieces.iter().flat_map(of).copied().collect();
        Found { sound, inodes, pieces, bytes }
    }

    /// Where the bytes of the structures begin in an input, and the name before them.
    pub(crate) fn split<'a>(&self, input: &'a [u8]) -> (u8, &'a [u8], &'a [u8]) {
        let (flags, rest) = input.split_first().map_or((0, input), |(first, rest)| (*first, rest));
        if !self.named {
            return (flags, &[], rest);
        }
        let (length, rest) = rest.split_first().map_or((0, rest), |(first, rest)| (usize::from(*first), rest));
        let (name, rest) = rest.split_at(length.min(rest.len()));
        (flags, name, rest)
    }

    /// Puts an input together.
    pub(crate) fn join(&self, flags: u8, name: &[u8], bytes: &[u8]) -> Vec<u8> {
        let name = &name[..name.len().min(255)];
        let head = if self.named { [&[flags, name.len() as u8], name].concat() } else { vec![flags] };
        [&head, bytes].concat()
    }

    /// Reads what an input makes of the image.
    pub fn run(&self, input: &[u8]) {
        let (flags, name, mut bytes) = self.split(input);
        let found = self.found();
        let matches = Cell::new(true);
        Scratch::of(found.sound).with(
            |changes| {
                for (piece, range) in &found.pieces {
                    let (these, rest) = bytes.split_at(range.len().min(bytes.len()));
                    changes.piece(*piece)[range.start..][..these.len()].copy_from_slice(these);
                    bytes = rest;
                }
                if flags & SEALED != 0 {
                    changes.seal();
                } else if let [(piece, _)] = found.pieces[..] {
                    // Sealed and not: what is the same had its checksum right.
                    let before = changes.look(piece).to_vec();
                    changes.seal();
                    matches.set(changes.look(piece) == before);
                    changes.piece(piece).copy_from_slice(&before);
                }
            },
            |scratch| {
                if let Some(fs) = self.open(scratch, flags) {
                    tour::objects(&fs, &found.inodes, &[name]);
                    if !matches.get() {
                        self.unsealed(&fs, flags, input);
                    }
                }
            },
        );
    }

    /// An inode that does not match its checksum is never shown where checksums count.
    ///
    /// # Panics
    /// If it is.
    fn unsealed(&self, fs: &Filesystem, flags: u8, input: &[u8]) {
        let found = self.found();
        let (_, _, bytes) = self.split(input);
        let counts = fs.superblock().ro_compat.contains(RoCompat::METADATA_CSUM);
        let alone = matches!(*self.kinds, [(Kind::Inode, 1)]) && counts;
        if !alone || flags & (WARNED | IGNORED) != 0 {
            return;
        }
        // With a shorter tail there are but 16 bits of checksum, which a fuzzer hits now and then.
        let tail = EXTRA_SIZE - self.bytes.start;
        if bytes.len() > tail && bytes.get(tail..tail + 2) != found.bytes.get(tail..tail + 2) {
            return;
        }
        for number in found.inodes.iter().copied().filter_map(InodeNumber::new) {
            assert!(fs.inode(number).is_err(), "a wrong checksum is let pass");
        }
    }

    /// The file system, opened anew if opening it looks at what is changed, or if it remembers what it was: of the
    /// structures here, nodes of extent trees and what may be taken for one.
    fn open(&self, scratch: &Scratch, flags: u8) -> Option<Rc<Filesystem>> {
        let open = || Filesystem::open(scratch.device(), settings(flags)).ok().map(Rc::new);
        let stays = |&(kind, _): &(Kind, usize)| matches!(kind, Kind::Inode | Kind::Directory | Kind::Attributes);
        if !self.kinds.iter().all(stays) {
            return open();
        }
        let key = (std::ptr::from_ref(self.found().sound), flags & (WARNED | IGNORED | VERIFIED));
        OPEN.with_borrow_mut(|kept| {
            if let Some(fs) = kept.get(&key) {
                return Some(Rc::clone(fs));
            }
            let fs = open()?;
            Some(Rc::clone(kept.entry(key).or_insert(fs)))
        })
    }

    /// The first inputs: the sound structures, read in each way.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let name: &[u8] = "A name with SOME bytes in it, number \u{1e9e}\u{345}".as_bytes();
        let names = if self.named { &[b"tiny", name][..] } else { &[&b""[..]] };
        let flags = [SEALED, SEALED | WARNED, IGNORED];
        let both = flags.into_iter().flat_map(|flags| names.iter().map(move |name| (flags, *name)));
        both.map(|(flags, name)| self.join(flags, name, &self.found().bytes)).collect()
    }
}
