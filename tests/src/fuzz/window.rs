//! An input of the targets that take one structure: its bytes, laid over those of a sound image, and what that structure
//! is of is asked for. Nothing is remembered
//! from one input to the next.
//!
//! An input is one byte for how the image is read, for directories a name to be looked for, and then the bytes; where
//! they end, the sound ones stay.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::OnceLock;

use lazaret_policy::feature::RoCompat;
use lazaret_policy::message::{Checksum, Replayed, Verity};
use lazaret_worker::ext4::checksum::crc32c;
use lazaret_worker::ext4::{Filesystem, InodeNumber, Settings};

use super::image::{IGNORED, SEALED, VERIFIED, WARNED, WORK};
use super::own::Own;
use super::scratch::{Scratch, Seals};
use super::stock::{Sound, sound};
use super::{tour, unsealed};
use crate::mutate::layout::{Kind, Piece};

/// What of an image an input is laid over.
pub struct Window {
    /// The target's name.
    pub name: &'static str,
    /// The image's name.
    image: &'static str,
    /// The names of the objects that the structures are of; none for those of the whole file system.
    objects: &'static [&'static str],
    /// The kinds of structure, and how many of each, and of each object, at the most.
    kinds: &'static [(Kind, usize)],
    /// Which bytes of each structure.
    bytes: Range<usize>,
    /// Names are looked for, and nothing else is: what an inode says of a directory is as it was.
    named: bool,
}

/// Bytes that a request may look at: an image that wants more is told so a thousand times a second, and not thrice.
const LITTLE_WORK: u64 = 256 << 10;
/// The same where one structure is looked at: 32 blocks of 1 KiB. More of them would be looked at in the same way.
const LESS_WORK: u64 = 32 << 10;
/// What a file system may keep in memory: the images are smaller, and what is more is zeroed for each input all the same.
const MEMORY: u64 = 4 << 20;
const WHOLE: Range<usize> = 0..usize::MAX;
const NONE: Window = Window { name: "", image: "ext4", objects: &[], kinds: &[], bytes: WHOLE, named: false };

/// All of them.
pub const WINDOWS: [Window; 14] = [
    Window { name: "superblock", kinds: &[(Kind::Superblock, 1)], ..NONE },
    Window { name: "group", image: "groups", kinds: &[(Kind::Group, 8)], ..NONE },
    Window { name: "inode", objects: &["file", "d"], kinds: &[(Kind::Inode, 1)], bytes: 0..160, ..NONE },
    Window { name: "extent", objects: &["sparse"], kinds: &[(Kind::Inode, 1), (Kind::ExtentNode, 2)], ..NONE },
    Window {
        name: "indirect",
        image: "ext2",
        objects: &["sparse"],
        kinds: &[(Kind::Inode, 1), (Kind::Pointers, 2)],
        ..NONE
    },
    Window { name: "directory", objects: &["d"], kinds: &[(Kind::Directory, 1)], named: true, ..NONE },
    Window { name: "htree", image: "hashed", objects: &["d"], kinds: &[(Kind::Directory, 3)], named: true, ..NONE },
    Window { name: "xattr_block", objects: &["file"], kinds: &[(Kind::Attributes, 1)], ..NONE },
    Window { name: "xattr_body", objects: &["file"], kinds: &[(Kind::Inode, 1)], bytes: 104..usize::MAX, ..NONE },
    Window { name: "inline", image: "inline", objects: &["some"], kinds: &[(Kind::Inode, 1)], ..NONE },
    Window { name: "journal_superblock", image: "journal", kinds: &[(Kind::JournalSuperblock, 1)], ..NONE },
    // Behind the tags and the numbers that stand there a block of a log is empty.
    Window { name: "journal_log", image: "journal", kinds: &[(Kind::Log, 8)], bytes: 0..256, ..NONE },
    Window { name: "fast_commit", image: "fast-commit", kinds: &[(Kind::FastCommit, 1)], ..NONE },
    Window {
        name: "casefold",
        image: "casefold",
        objects: &["d"],
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
    /// What is sealed when they are changed.
    seals: Seals,
}

/// A file system, and which blocks no file may hold.
struct Opened {
    fs: Filesystem,
    own: Own,
    work: u64,
}

thread_local! {
    /// File systems that stay open from input to input, by image and by how they are read.
    static OPEN: RefCell<HashMap<(*const Sound, u8), Rc<Opened>>> = RefCell::default();
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
    let work = if flags & 0xf0 == WORK { Settings::default().work } else { LITTLE_WORK };
    Settings { checksum, verity, work, memory: MEMORY, ..Settings::default() }
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
        let object = |name: &&str| look(name).unwrap_or_else(|| panic!("{}: no {name}", sound.name));
        let objects: Vec<u32> = self.objects.iter().map(object).collect();
        let mut pieces = Vec::new();
        let mut add = |kind: Kind, most: usize, object: Option<u32>| {
            let of = |piece: &&Piece| piece.kind == kind && object.is_none_or(|object| piece.owner == object);
            let some = sound.layout.pieces.iter().filter(of).take(most);
            pieces.extend(some.map(|piece| (*piece, self.bytes.start..self.bytes.end.min(piece.length))));
        };
        for &(kind, most) in self.kinds {
            match objects[..] {
                [] => add(kind, most, None),
                _ => objects.iter().for_each(|&object| add(kind, most, Some(object))),
            }
        }
        assert!(!pieces.is_empty(), "{}: nothing of what {} is", sound.name, self.name);
        let shown = || [Some(2), look("file")].into_iter().flatten().collect();
        let inodes = if objects.is_empty() { shown() } else { objects };
        let of = |(piece, range): &(Piece, Range<usize>)| &sound.bytes[piece.at + range.start..piece.at + range.end];
        let bytes = pieces.iter().flat_map(of).copied().collect();
        let seals = Seals::of(sound, pieces.iter().map(|(piece, _)| *piece).collect());
        Found { sound, inodes, pieces, bytes, seals }
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
        let (wrong, changed) = (RefCell::default(), RefCell::new(Vec::new()));
        Scratch::of(found.sound).with(
            |changes| {
                for (piece, range) in &found.pieces {
                    let (these, rest) = bytes.split_at(range.len().min(bytes.len()));
                    let there = &mut changes.piece(*piece)[range.start..][..these.len()];
                    if there != these {
                        there.copy_from_slice(these);
                        changed.borrow_mut().push(piece.owner);
                    }
                    bytes = rest;
                }
                if flags & SEALED != 0 {
                    changes.seal_after(&found.seals);
                } else if flags & (WARNED | IGNORED) == 0 {
                    wrong.replace(unsealed::unsealed(found.sound, &found.pieces, &found.seals, changes));
                }
            },
            |scratch| {
                // What is found in a journal is found as it is replayed, mostly, and all else is asked of one input in four.
                let (opened, sum) = (self.open(scratch, flags), crc32c(0, input));
                if let Some(opened) = opened.filter(|_| !self.is_journal() || sum.is_multiple_of(4)) {
                    let fs = &opened.fs;
                    // An object that is as it was has nothing new to say.
                    let changed = changed.take();
                    let new = |number: &&u32| changed.is_empty() || changed.contains(number);
                    let asked: Vec<u32> =
                        found.inodes.iter().filter(|number| self.objects.is_empty() || new(number)).copied().collect();
                    let own = (&opened.own, opened.work);
                    if self.named {
                        asked.iter().for_each(|&directory| tour::names(fs, own, directory, name, sum >> 2));
                    } else {
                        tour::objects(fs, own, &asked, sum >> 2);
                    }
                    let counts = fs.superblock().ro_compat.contains(RoCompat::METADATA_CSUM);
                    for piece in wrong.take().iter().filter(|_| counts) {
                        assert!(unsealed::is_refused(fs, piece), "a wrong checksum is let pass: {piece:?}");
                    }
                }
            },
        );
    }

    fn is_journal(&self) -> bool {
        let journal =
            |&(kind, _): &(Kind, usize)| matches!(kind, Kind::JournalSuperblock | Kind::Log | Kind::FastCommit);
        self.kinds.iter().all(journal)
    }

    /// The file system, opened anew if opening it looks at what is changed. It remembers nothing of an image but that.
    fn open(&self, scratch: &Scratch, flags: u8) -> Option<Rc<Opened>> {
        let open = |own: fn(&Filesystem) -> Own| {
            let settings = settings(flags);
            let work = if settings.work == LITTLE_WORK { LESS_WORK } else { settings.work };
            let fs = Filesystem::open(scratch.device(), Settings { keeps: false, work, ..settings }).ok()?;
            // A file system of whose journal nothing was taken has nothing new to say.
            if self.is_journal() && fs.replayed() == Replayed::default() {
                return None;
            }
            Some(Rc::new(Opened { own: own(&fs), fs, work }))
        };
        let stays = |&(kind, _): &(Kind, usize)| {
            use Kind::{Attributes, Directory, ExtentNode, Inode, Pointers};
            matches!(kind, Inode | Directory | Attributes | ExtentNode | Pointers)
        };
        if !self.kinds.iter().all(stays) {
            return open(Own::but_journal);
        }
        let whole = if flags & 0xf0 == WORK { WORK } else { 0 };
        let key = (std::ptr::from_ref(self.found().sound), whole | flags & (WARNED | IGNORED | VERIFIED));
        OPEN.with_borrow_mut(|kept| {
            if let Some(fs) = kept.get(&key) {
                return Some(Rc::clone(fs));
            }
            let opened = open(Own::of)?;
            Some(Rc::clone(kept.entry(key).or_insert(opened)))
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
