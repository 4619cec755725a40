//! The grammar of the format: which fields stand where in a structure, read from the very source that the worker parses
//! with, so that a field that is added there is mutated without a word here.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::mutate::bytes::{be32, u16, u32};
use crate::mutate::layout::Kind;
use crate::mutate::random::Random;

/// A number in a structure, or a row of equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The kernel's name; within a nested structure `outer.inner`.
    pub name: String,
    /// Bytes from the structure's begin.
    pub offset: usize,
    /// Bytes of one number.
    pub width: usize,
    /// How many there are.
    pub count: usize,
}

/// A structure as it lies on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// Bytes.
    pub size: usize,
}

/// The structures of one file, by name.
pub type Structures = BTreeMap<String, Structure>;

/// Where a number stands in a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the piece's begin.
    pub at: usize,
    /// Bytes: 1, 2, 4 or 8.
    pub width: usize,
    /// The highest byte comes first.
    pub big_endian: bool,
}

/// All structures there are a description of.
pub struct Grammar {
    /// Those of ext4.
    pub ext4: Structures,
    /// Those of jbd2, which are big-endian.
    pub journal: Structures,
    /// Those of fast commits.
    pub fast_commit: Structures,
    /// Those of a GPT.
    pub gpt: Structures,
    /// Those of an MBR.
    pub mbr: Structures,
}

const EXT4: &str = include_str!("../../../worker/src/ext4/format.rs");
const JOURNAL: &str = include_str!("../../../worker/src/ext4/journal/format.rs");
const FAST_COMMIT: &str = include_str!("../../../worker/src/ext4/journal/fast_commit/tag.rs");
const GPT: &str = include_str!("../../../worker/src/partition/gpt.rs");
const MBR: &str = include_str!("../../../worker/src/partition/mbr.rs");

/// The files that describe what lies on the disk, and whether their numbers are big-endian.
pub(crate) const SOURCES: [(&str, bool); 5] =
    [(EXT4, false), (JOURNAL, true), (FAST_COMMIT, false), (GPT, false), (MBR, false)];

/// The grammar, read once.
pub fn grammar() -> &'static Grammar {
    static GRAMMAR: OnceLock<Grammar> = OnceLock::new();
    GRAMMAR.get_or_init(|| {
        let none = Structures::new();
        let ext4 = parse(EXT4, &none);
        let fast_commit = parse(FAST_COMMIT, &ext4);
        Grammar { journal: parse(JOURNAL, &none), fast_commit, gpt: parse(GPT, &none), mbr: parse(MBR, &none), ext4 }
    })
}

/// The structures of a source file whose fields are all numbers, rows of numbers, or structures that are known.
fn parse(source: &str, known: &Structures) -> Structures {
    let mut found = Structures::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start_matches("pub(super) ").trim_start_matches("pub ");
        let Some(name) = line.strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {")) else { continue };
        let mut structure = Some(Structure::default());
        for line in lines.by_ref().take_while(|line| *line != "}") {
            let line = line.trim().trim_start_matches("pub(super) ").trim_start_matches("pub ");
            let Some((field, kind)) = line.strip_suffix(',').and_then(|line| line.split_once(": ")) else { continue };
            if line.starts_with("//") {
                continue;
            }
            structure = structure.and_then(|structure| structure.with(field, kind, &[&found, known]));
        }
        if let Some(structure) = structure {
            found.insert(name.to_owned(), structure);
        }
    }
    found
}

impl Structure {
    /// With one field more; none if its type is not one of the disk's.
    fn with(mut self, name: &str, kind: &str, known: &[&Structures]) -> Option<Self> {
        let kind = kind.rsplit("::").next().unwrap_or(kind);
        let width = |kind: &str| {
            Some(match kind {
                "u8" => 1,
                "U16" => 2,
                "U32" => 4,
                "U64" => 8,
                _ => return None,
            })
        };
        let (mut kind, mut count) = (kind, 1);
        while let Some((inner, length)) =
            kind.strip_prefix('[').and_then(|row| row.strip_suffix(']')?.rsplit_once("; "))
        {
            (kind, count) = (inner, count * length.parse::<usize>().ok()?);
        }
        if let Some(width) = width(kind) {
            self.fields.push(Field { name: name.to_owned(), offset: self.size, width, count });
            self.size += width * count;
            return Some(self);
        }
        let nested = known.iter().find_map(|structures| structures.get(kind))?;
        for _ in 0..count {
            let moved = nested.fields.iter().map(|field| Field {
                name: format!("{name}.{}", field.name),
                offset: self.size + field.offset,
                ..field.clone()
            });
            self.fields.extend(moved);
            self.size += nested.size;
        }
        Some(self)
    }

    /// One of its numbers, if the structure begins here and numbers have this order of bytes.
    pub fn pick(&self, at: usize, big_endian: bool, random: &mut Random) -> Place {
        let field = random.pick(&self.fields);
        Place { at: at + field.offset + random.below(field.count) * field.width, width: field.width, big_endian }
    }
}

/// The numbers of a piece, for whoever picks several.
pub(crate) struct Places {
    begun: Vec<(usize, &'static Structure)>,
    /// Bytes of the piece, and of its numbers if they are all alike.
    length: usize,
    width: Option<usize>,
    big_endian: bool,
}

impl Places {
    /// Those of the structures that begin in a piece.
    pub(crate) fn of(kind: Kind, piece: &[u8]) -> Self {
        let grammar = grammar();
        let (structures, big_endian) = match kind {
            Kind::JournalSuperblock | Kind::Log => (&grammar.journal, true),
            Kind::FastCommit => (&grammar.fast_commit, false),
            _ => (&grammar.ext4, false),
        };
        let mut names = Vec::with_capacity(2 * MOST + 8);
        match kind {
            Kind::Superblock | Kind::JournalSuperblock => names.push((0, "Superblock")),
            Kind::Group => names.push((0, "GroupDescriptor")),
            Kind::Guard => names.push((0, "Mmp")),
            Kind::Inode => inode(piece, &mut names),
            Kind::ExtentNode => node(piece, 0, &mut names),
            Kind::Directory => directory(piece, &mut names),
            Kind::Attributes => {
                names.push((0, "XattrHeader"));
                entries(piece, 32, &mut names);
            }
            Kind::Log => log(piece, &mut names),
            Kind::FastCommit => tags(piece, &mut names),
            Kind::Pointers | Kind::BlockBitmap | Kind::InodeBitmap | Kind::Data => {}
        }
        let mut begun: Vec<(usize, &'static Structure)> = Vec::with_capacity(names.len());
        // A few names come over and over.
        let mut known: Vec<(&'static str, &'static Structure)> = Vec::with_capacity(8);
        for (at, name) in names {
            let found = known.iter().find(|(one, _)| std::ptr::eq(*one, name)).copied();
            let Some((_, it)) =
                found.or_else(|| Some((name, structures.get(name).or_else(|| grammar.ext4.get(name))?)))
            else {
                continue;
            };
            if found.is_none() {
                known.push((name, it));
            }
            if at + it.size <= piece.len() {
                begun.push((at, it));
            }
        }
        let width = (kind == Kind::Pointers).then_some(4);
        Self { begun, length: piece.len(), width, big_endian }
    }

    /// One of them.
    pub(crate) fn pick(&self, random: &mut Random) -> Place {
        let big_endian = self.big_endian;
        if self.begun.is_empty() || random.below(16) == 0 {
            let width = self.width.unwrap_or_else(|| *random.pick(&[1, 2, 4]));
            let end = if random.below(2) == 0 { self.length.min(64) } else { self.length };
            return Place { at: random.below((end / width).max(1)) * width, width, big_endian };
        }
        let (at, structure) = *random.pick(&self.begun);
        structure.pick(at, big_endian, random)
    }
}

/// The most entries of a row that are told apart.
const MOST: usize = 40;

type Begun = Vec<(usize, &'static str)>;

fn inode(piece: &[u8], begun: &mut Begun) {
    begun.extend([(0, "Inode"); 2]);
    if u16(piece, 0x28) == 0xf30a {
        node(&piece[..0x64], 0x28, begun);
    }
    // A body with attributes begins behind the fields, with a magic number of four bytes.
    let body = 128 + usize::from(u16(piece, 0x80));
    if piece.len() > 160 && u32(piece, body) == 0xea02_0000 {
        entries(piece, body + 4, begun);
    }
    // Where data lies in the inode, a directory's entries stand behind the number of its parent.
    if u16(piece, 0) & 0xf000 == 0x4000 && u32(piece, 0x20) & 0x1000_0000 != 0 {
        chain(&piece[..0x64], 0x2c, begun);
    }
}

fn node(piece: &[u8], at: usize, begun: &mut Begun) {
    begun.push((at, "ExtentHeader"));
    let entry = if u16(piece, at + 6) == 0 { "Extent" } else { "ExtentIndex" };
    let count = usize::from(u16(piece, at + 2)).min(MOST);
    begun.extend((1..=count + 1).map(|index| (at + 12 * index, entry)).filter(|(at, _)| at + 12 <= piece.len()));
}

fn directory(piece: &[u8], begun: &mut Begun) {
    let whole = piece.len();
    let root = u16(piece, 4) == 12 && usize::from(u16(piece, 16)) == whole - 12;
    let inner = usize::from(u16(piece, 4)) == whole && u32(piece, 0) == 0;
    if root || inner {
        begun.push(if root { (0, "HtreeRoot") } else { (0, "DirEntry") });
        let at = if root { 32 } else { 8 };
        begun.push((at, "HtreeCount"));
        let count = usize::from(u16(piece, at + 2)).clamp(1, MOST);
        begun.extend((0..count).map(|index| (at + 8 * index, "HtreeEntry")));
        begun.push((whole - 8, "HtreeTail"));
        return;
    }
    chain(piece, 0, begun);
    begun.push((whole - 12, "DirEntryTail"));
}

fn chain(piece: &[u8], mut at: usize, begun: &mut Begun) {
    for _ in 0..MOST {
        begun.push((at, "DirEntry"));
        at += usize::from(u16(piece, at + 4)).max(12);
        if at + 12 > piece.len() {
            break;
        }
    }
}

fn entries(piece: &[u8], mut at: usize, begun: &mut Begun) {
    for _ in 0..MOST {
        begun.push((at, "XattrEntry"));
        if u32(piece, at) == 0 || at + 16 > piece.len() {
            break;
        }
        at += 16 + usize::from(piece[at]).next_multiple_of(4);
    }
}

fn log(piece: &[u8], begun: &mut Begun) {
    begun.push((0, "Header"));
    match be32(piece, 4) {
        // Which tags there are, the journal's superblock says: both are tried.
        1 => begun.extend((0..8).flat_map(|index| [(12 + 16 * index, "Tag3"), (12 + 8 * index, "Tag")])),
        2 => begun.push((0, "Commit")),
        5 => begun.extend([(0, "RevokeHeader"), (8, "RevokeHeader")]),
        _ => {}
    }
}

fn tags(piece: &[u8], begun: &mut Begun) {
    let mut at = 0;
    for _ in 0..MOST {
        begun.push((at, "TagHeader"));
        let body = match u16(piece, at) {
            1 => "AddRange",
            2 => "DelRange",
            3..=5 => "DentryInfo",
            // Behind the inode's number.
            6 => {
                begun.push((at + 8, "Inode"));
                "TagHeader"
            }
            8 => "Tail",
            9 => "Head",
            _ => "TagHeader",
        };
        begun.push((at + 4, body));
        at += 4 + usize::from(u16(piece, at + 2));
        if at + 4 > piece.len() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `layout!` asserts of the sizes and places of a file's structures is what was read of them.
    fn agrees(source: &str, structures: &Structures) -> usize {
        let mut compared = 0;
        for text in source.split("\nlayout!(").skip(1) {
            let text = text.split_once(");").unwrap().0.replace('\n', " ");
            let mut parts = text.split(',').map(str::trim);
            let (name, size) = parts.next().unwrap().split_once(": ").unwrap();
            let number = |text: &str| match text.strip_prefix("0x") {
                Some(digits) => usize::from_str_radix(digits, 16).unwrap(),
                None => text.parse().unwrap(),
            };
            let structure = structures.get(name).unwrap_or_else(|| panic!("{name} was not read"));
            assert_eq!(structure.size, number(size), "{name}");
            for (field, offset) in parts.filter_map(|part| part.split_once(" @ ")) {
                let nested = format!("{field}.");
                let found = structure.fields.iter().find(|one| one.name == field || one.name.starts_with(&nested));
                assert_eq!(found.map(|one| one.offset), Some(number(offset)), "{name}.{field}");
                compared += 1;
            }
        }
        compared
    }

    #[test]
    fn what_is_read_of_the_source_is_what_the_source_asserts() {
        let grammar = grammar();
        assert!(agrees(EXT4, &grammar.ext4) > 80);
        assert!(agrees(JOURNAL, &grammar.journal) > 20);
        assert!(agrees(FAST_COMMIT, &grammar.fast_commit) > 5);
        assert_eq!(grammar.gpt["Header"].size, 92);
        assert_eq!(grammar.gpt["Entry"].size, 128);
        assert_eq!(grammar.mbr["Entry"].size, 16);
        assert_eq!(grammar.ext4["Superblock"].size, 1024);
    }
}
