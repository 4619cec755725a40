//! Two mounts of one image, compared in everything that a program can ask of them. What differs is named by its path
//! with both values. An error is a value like any other: both sides must give the same one.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt::{self, Debug};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, SeekFrom, readlinkat, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::Result;
use crate::digest::hex;
use crate::object::{self, Facts, Listed};

/// Whether a directory's entries are looked up before the directory is listed, or after.
///
/// It decides which request brings the attributes to the kernel: LOOKUP, or READDIRPLUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The names come from the first mount; the second is listed at the end.
    LookUpFirst,
    /// Both are listed first.
    ListFirst,
}

/// One thing that is not the same.
#[derive(Debug)]
pub struct Difference {
    /// Where, from the root of the file system.
    pub path: Vec<u8>,
    /// What was asked.
    pub what: String,
    /// What the first mount says.
    pub first: String,
    /// What the second mount says.
    pub second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, first, second } = self;
        write!(f, "/{}: {what}: {first} by the kernel, {second} by lazaret", path.escape_ascii())
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Files, directories, links and the rest that both have.
    pub objects: u64,
    /// Bytes of content that were read on both sides.
    pub bytes: u64,
    /// Runs of data that both hole maps agree on.
    pub runs: u64,
    /// The first differences; [`Comparison::count`] counts them all.
    pub differences: Vec<Difference>,
    /// How many differences there are.
    pub count: u64,
}

impl Comparison {
    /// An error that names the differences, if there are any; and an error when nothing was compared.
    pub fn verdict(&self) -> Result {
        if self.objects < 2 {
            return Err("nothing was compared".into());
        }
        if self.count == 0 {
            return Ok(());
        }
        let mut kinds: BTreeMap<&str, Vec<&Difference>> = BTreeMap::new();
        for difference in &self.differences {
            kinds.entry(&difference.what).or_default().push(difference);
        }
        let shown: Vec<String> = kinds.values().flat_map(|kind| kind.iter().take(6)).map(ToString::to_string).collect();
        Err(format!("{} differences in {} objects, such as\n{}", self.count, self.objects, shown.join("\n")).into())
    }

    fn differ(&mut self, path: &[u8], what: impl Into<String>, first: impl Debug, second: impl Debug) {
        self.count += 1;
        if self.differences.len() < 1000 {
            let (first, second) = (format!("{first:?}"), format!("{second:?}"));
            self.differences.push(Difference { path: path.to_vec(), what: what.into(), first, second });
        }
    }
}

/// Compares the file systems mounted at `first`, which is right, and `second`.
pub fn compare(first: &Path, second: &Path, order: Order) -> Result<Comparison> {
    walk(first, second, order, None)
}

/// Compares the tree at `first`, which is right, with a copy of it: in everything that a copy has of its original, but
/// what is named here. What is one file under several names has to be one there, too.
pub fn compare_copy(first: &Path, copy: &Path, but: &'static [&'static str]) -> Result<Comparison> {
    walk(first, copy, Order::LookUpFirst, Some(but))
}

/// What no copy has of its original.
const ORIGINAL: &[&str] = &["inode number", "blocks of 512 bytes", "ctime in ns", "birth time in ns"];

fn walk(first: &Path, second: &Path, order: Order, copy: Option<&'static [&'static str]>) -> Result<Comparison> {
    let open = |path: &Path| -> Result<OwnedFd> { Ok(File::open(path)?.into()) };
    let (first, second) = (open(first)?, open(second)?);
    let (left, right) = (vec![0; PIECE], vec![0; PIECE]);
    let mut walk = Walk { order, copy, found: Comparison::default(), same: BTreeMap::new(), left, right };
    if copy.is_none() {
        walk.facts(b"", object::file_system(&first), object::file_system(&second));
    }
    walk.attributes(b"", [&first, &second], c"");
    walk.directory(b"", &first, &second);
    Ok(walk.found)
}

/// What one side answers.
type Answer<T> = std::result::Result<T, Errno>;

/// How many bytes of a file are read at once.
const PIECE: usize = 1 << 20;

struct Walk {
    order: Order,
    /// The second is a copy, which need not have this of the first.
    copy: Option<&'static [&'static str]>,
    found: Comparison,
    /// Inodes of the first, and of its copy.
    same: BTreeMap<i128, i128>,
    left: Vec<u8>,
    right: Vec<u8>,
}

impl Walk {
    fn directory(&mut self, path: &[u8], first: &OwnedFd, second: &OwnedFd) {
        let names = match object::list(first) {
            Ok(names) => self.wanted(names),
            Err(error) => return self.found.differ(path, "listing", error, "not asked"),
        };
        if self.order == Order::ListFirst {
            self.listing(path, &names, object::list(second));
        }
        self.missing_name(path, first, second);
        for (name, _, kind) in names.iter().filter(|(name, ..)| !matches!(&name[..], b"." | b"..")) {
            let below = if path.is_empty() { name.clone() } else { [path, b"/", name].concat() };
            let name = CString::new(&name[..]).expect("a listed name holds no NUL");
            self.object(&below, [first, second], &name, *kind);
        }
        if self.order == Order::LookUpFirst {
            self.listing(path, &names, object::list(second));
        }
    }

    /// A copy may be without sockets.
    fn wanted(&self, mut names: Vec<Listed>) -> Vec<Listed> {
        let sockets = self.copy.is_none_or(|but| !but.contains(&"sockets"));
        names.retain(|(.., kind)| sockets || *kind != FileType::Socket);
        names
    }

    /// Both lists are sorted by name, so they are walked side by side.
    fn listing(&mut self, path: &[u8], first: &[Listed], second: Answer<Vec<Listed>>) {
        let second = match second {
            Ok(second) => second,
            Err(error) => return self.found.differ(path, "listing", format!("{} names", first.len()), error),
        };
        let (first, second) = match self.copy {
            Some(_) => (without_numbers(first), without_numbers(&self.wanted(second))),
            None => (first.to_vec(), second),
        };
        if first == second {
            return;
        }
        let (mut left, mut right) = (first.iter().peekable(), second.iter().peekable());
        while let Some((a, b)) = pair(&mut left, &mut right) {
            if a != b {
                let show = |entry: Option<&Listed>| {
                    entry.map_or("not listed".into(), |(name, inode, kind)| {
                        format!("{:?} as inode {inode}, {kind:?}", name.escape_ascii().to_string())
                    })
                };
                self.found.differ(path, "listed entry", show(a), show(b));
            }
        }
    }

    /// A name that is nowhere must be missing in the same way.
    fn missing_name(&mut self, path: &[u8], first: &OwnedFd, second: &OwnedFd) {
        let name = c"a name that no recipe writes";
        let (first, second) = (object::attributes(first, name), object::attributes(second, name));
        if first != second {
            self.found.differ(path, "looking up a missing name", first, second);
        }
    }

    fn object(&mut self, path: &[u8], [first, second]: [&OwnedFd; 2], name: &CStr, kind: FileType) {
        self.found.objects += 1;
        if !self.attributes(path, [first, second], name) {
            return;
        }
        match kind {
            FileType::Symlink => {
                let target = |directory: &OwnedFd| readlinkat(directory, name, Vec::new());
                let (first, second) = (target(first), target(second));
                if first != second {
                    self.found.differ(path, "link target", first, second);
                }
            }
            FileType::Directory | FileType::RegularFile => {
                match (object::open(first, name), object::open(second, name)) {
                    (Ok(first), Ok(second)) => {
                        self.extended_attributes(path, &first, &second);
                        match kind {
                            FileType::Directory => self.directory(path, &first, &second),
                            _ => self.file(path, first, second),
                        }
                    }
                    (first, second) => self.found.differ(path, "open", first, second),
                }
            }
            _ => {}
        }
    }

    /// Says whether both have the object, so that it makes sense to go on.
    fn attributes(&mut self, path: &[u8], [first, second]: [&OwnedFd; 2], name: &CStr) -> bool {
        let (left, right) = (object::attributes(first, name), object::attributes(second, name));
        let both = left.is_ok() && right.is_ok();
        self.facts(path, left, right);
        if let (true, Ok(Some(left)), Ok(Some(right))) = (both, object::birth(first, name), object::birth(second, name))
            && left != right
            && self.copy.is_none()
        {
            self.found.differ(path, "birth time in ns", left, right);
        }
        both
    }

    fn facts(&mut self, path: &[u8], first: Answer<Facts>, second: Answer<Facts>) {
        let (first, second) = match (first, second) {
            (Ok(first), Ok(second)) => (first, second),
            (first, second) => return self.found.differ(path, "attributes", first.map(drop), second.map(drop)),
        };
        if self.copy.is_some() {
            self.same_file(path, &first, &second);
        }
        let (fact, directory) = (|name| value(&first, name), i128::from(libc::S_IFDIR));
        let directory = fact("mode").is_some_and(|mode| mode & i128::from(libc::S_IFMT) == directory);
        let of_original = |what: &str| {
            self.copy.is_some_and(|but| ORIGINAL.contains(&what) || but.contains(&what) || directory && what == "size")
        };
        let pairs = first.iter().zip(&second).filter(|(first, second)| first != second && !of_original(first.0));
        for (&(what, first), &(_, second)) in pairs.collect::<Vec<_>>() {
            if what == "mode" {
                self.found.differ(path, what, format_args!("{first:o}"), format_args!("{second:o}"));
            } else {
                self.found.differ(path, what, first, second);
            }
        }
    }

    /// Two names of one file are two names of one copy.
    fn same_file(&mut self, path: &[u8], first: &Facts, second: &Facts) {
        let (Some(first), Some(second)) = (value(first, "inode number"), value(second, "inode number")) else { return };
        let known = *self.same.entry(first).or_insert(second);
        if known != second {
            self.found.differ(path, "names of one file", "one file", "several");
        }
    }

    fn extended_attributes(&mut self, path: &[u8], first: &OwnedFd, second: &OwnedFd) {
        let (first, second) = (object::extended_attributes(first), object::extended_attributes(second));
        let left_out = self.copy.is_some_and(|but| but.contains(&"extended attributes"));
        if first != second && !left_out {
            self.found.differ(path, "extended attributes", first, second);
        }
    }

    fn file(&mut self, path: &[u8], first: OwnedFd, second: OwnedFd) {
        let runs = self.hole_map(path, &first, &second);
        let (first, second) = (File::from(first), File::from(second));
        let size = match first.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return self.found.differ(path, "size of the open file", error, "not asked"),
        };
        for range in object::ranges_to_read(size, &runs) {
            if !self.content(path, &first, &second, range) {
                return;
            }
        }
        // Once more from an odd place with an odd length, and across the end.
        self.content(path, &first, &second, (size / 3, size / 3 + 5001));
        self.content(path, &first, &second, (size.saturating_sub(77), size + 100));
    }

    fn hole_map(&mut self, path: &[u8], first: &OwnedFd, second: &OwnedFd) -> Vec<(u64, u64)> {
        let (left, right) = (object::data_runs(first), object::data_runs(second));
        for place in [0, u64::MAX >> 1] {
            let ends = |file: &OwnedFd| (seek(file, SeekFrom::Hole(place)), seek(file, SeekFrom::Data(place)));
            let (left, right) = (ends(first), ends(second));
            if left != right {
                self.found.differ(path, format!("SEEK_HOLE and SEEK_DATA from {place}"), left, right);
            }
        }
        if left == right {
            self.found.runs += left.as_ref().map_or(0, |runs| runs.len() as u64);
        } else {
            let show = |runs: &Answer<Vec<(u64, u64)>>| match runs {
                Ok(runs) => format!("{} runs {:?}", runs.len(), &runs[..runs.len().min(6)]),
                Err(error) => format!("{error:?}"),
            };
            self.found.differ(path, "runs of data", show(&left), show(&right));
        }
        left.unwrap_or_default()
    }

    /// Compares a range piece by piece; says whether it was the same.
    fn content(&mut self, path: &[u8], first: &File, second: &File, (start, end): (u64, u64)) -> bool {
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).map_or(PIECE, |rest| rest.min(PIECE));
            let a = object::read_at(first, at, &mut self.left[..length]);
            let b = object::read_at(second, at, &mut self.right[..length]);
            if a != b {
                self.found.differ(path, format!("reading {length} bytes at {at}"), a, b);
                return false;
            }
            let Ok(read) = a else { return true };
            if self.left[..read] != self.right[..read] {
                self.other_bytes(path, at, read);
                return false;
            }
            self.found.bytes += read as u64;
            at += length as u64;
        }
        true
    }

    fn other_bytes(&mut self, path: &[u8], at: u64, length: usize) {
        let (first, second) = (&self.left[..length], &self.right[..length]);
        let place = first.iter().zip(second).position(|(a, b)| a != b).unwrap_or(0);
        let show = |bytes: &[u8]| {
            let here = &bytes[place..bytes.len().min(place + 8)];
            format!("sha256 {} with {} there", hex(&Sha256::digest(bytes)), hex(here))
        };
        let what = format!("content of {} bytes from {at}, first other byte {}", first.len(), at + place as u64);
        let (first, second) = (show(first), show(second));
        self.found.differ(path, what, first, second);
    }
}

/// What one side says of this.
fn value(facts: &Facts, name: &str) -> Option<i128> {
    facts.iter().find(|(what, _)| *what == name).map(|(_, value)| *value)
}

fn without_numbers(entries: &[Listed]) -> Vec<Listed> {
    entries.iter().map(|(name, _, kind)| (name.clone(), 0, *kind)).collect()
}

/// The next entries of two sorted lists: both where the names agree, else the smaller name alone.
fn pair<'a>(
    left: &mut std::iter::Peekable<impl Iterator<Item = &'a Listed>>,
    right: &mut std::iter::Peekable<impl Iterator<Item = &'a Listed>>,
) -> Option<(Option<&'a Listed>, Option<&'a Listed>)> {
    match (left.peek(), right.peek()) {
        (None, None) => None,
        (Some(a), Some(b)) if a.0 == b.0 => Some((left.next(), right.next())),
        (Some(a), Some(b)) if a.0 < b.0 => Some((left.next(), None)),
        (Some(_), None) => Some((left.next(), None)),
        _ => Some((None, right.next())),
    }
}
