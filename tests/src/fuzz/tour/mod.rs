//! Everything that can be asked of a file system, in a number of requests that no image chooses, with what must hold of
//! every answer whatever the image is: the oracles beyond "it did not crash".
//!
//! - A name has 1 to 255 bytes, no NUL and no slash; cookies rise.
//! - Structures of a group lie within the file system; no second has more than 999 999 999 nanoseconds.
//! - A mapping goes on, and lies neither beyond the file system nor on what is the file system's own.
//! - Bytes that are read are those of the mapping; a hole reads as zeros.
//! - The same question has the same answer, asked of the same image again, in another order.
//! - Where reading finds an object damaged, checking has something to say of it.
//! - A request copies no more out of the image than its budget and what it asks for: counted at the device.

mod request;

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::ops::ControlFlow;

use lazaret_policy::corruption::{Corruption, Place};
use lazaret_policy::message::Checked;
use lazaret_worker::error::{Error, Result};
use lazaret_worker::ext4::check::Check;
use lazaret_worker::ext4::seek::Wanted;
use lazaret_worker::ext4::{FileKind, FileOffset, Filesystem, Inode, InodeNumber, Settings};
use lazaret_worker::{device::Device, tool};

use self::request::{Answer, Request, answer};
use super::own::Own;
use super::scratch::copied;

/// Bytes that one request reads: of what is looked at closely, and of the rest.
const PIECE: usize = 8192;
const LITTLE: usize = 2048;
/// Objects, names of a directory, pieces of a file, and requests in all that a tour comes to.
const MOST_OBJECTS: usize = 48;
const MOST_NAMES: usize = 40;
const MOST_PIECES: usize = 4;
const MOST_REQUESTS: usize = 1500;
/// Names that no directory has, or that are no names.
const ODD: [&[u8]; 7] = [b".", b"..", b"not there", &[0xff; 255], &[b'x'; 256], b"", b"a/b"];
/// Steps of a check, each of bounded work.
const MOST_STEPS: usize = 2000;
/// Blocks that a request looks at besides what its budget is for: an inode, the root of a tree of hashes.
const FEW_BLOCKS: u64 = 4;
/// Bytes of a value of an attribute, and of a block of a tree of hashes, at the most.
const VALUE: u64 = 64 << 10;
/// Blocks that a verified read of a piece looks at: of data, and on each of eight levels.
const MOST_HASHED: u64 = 9 * 9;

thread_local! {
    /// Room for what is read, from tour to tour.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A tour through a file system.
pub struct Tour<'a> {
    fs: &'a Filesystem,
    own: &'a Own,
    /// Bytes that a request may look at.
    work: u64,
    requests: usize,
    /// An object of which a request has cost as much as it may.
    dear: Option<InodeNumber>,
    /// What was asked of whom and what the answer was, if answers are to be compared.
    record: Option<Vec<(InodeNumber, Request, u64)>>,
    hit: Option<(InodeNumber, Corruption)>,
    focus: Option<&'a [u32]>,
    /// Whether what is asked now is asked of an object that only a few places of are looked at.
    brief: bool,
    /// Where it is looked at besides.
    somewhere: u32,
    buffer: Vec<u8>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    /// The device gives the same answer to the same question, so that answers can be held together.
    pub steady: bool,
    /// Everything is asked twice.
    pub twice: bool,
    /// The file system is checked.
    pub check: bool,
    /// The objects that are looked at closely; of the others only a few places are. None: all are.
    pub focus: Option<&'a [u32]>,
}

/// Opens the image on this device, asks for everything, and says whether it could be opened. `device` gives another
/// device with the same image on it.
///
/// # Panics
/// Where something is answered that must never be.
pub fn tour(device: &dyn Fn() -> Device, settings: Settings, wishes: Wishes<'_>) -> bool {
    let Ok(fs) = Filesystem::open(device(), settings) else {
        assert!(!wishes.twice || Filesystem::open(device(), settings).is_err(), "opened the second time only");
        return false;
    };
    let own = if wishes.steady { Own::of(&fs) } else { Own::default() };
    let mut tour = Tour::new(&fs, (&own, settings.work), wishes);
    tour.tree();
    tour.inodes();
    let _ = (fs.statfs(), fs.warnings(), tool::summary(&fs));
    if wishes.check {
        check(&fs, tour.hit.filter(|_| wishes.steady));
    }
    let record = tour.record.take();
    if let Some(record) = record.filter(|_| wishes.twice) {
        again(device, settings, &record);
    }
    true
}

/// Asks what concerns these objects, in a few places of each; `own` is what no file may hold, and how many bytes a request
/// may look at. One of the places is `somewhere`: others for other inputs.
///
/// # Panics
/// Where something is answered that must never be.
pub fn objects(fs: &Filesystem, own: (&Own, u64), numbers: &[u32], somewhere: u32) {
    let mut tour = Tour::new(fs, own, Wishes { steady: true, focus: Some(&[]), ..Wishes::default() });
    tour.somewhere = somewhere;
    for number in numbers.iter().copied().filter_map(InodeNumber::new) {
        let Ok(inode) = fs.inode(number) else { continue };
        tour.object(&inode);
        if inode.kind == FileKind::Directory {
            tour.directory(&inode);
        }
    }
}

/// Asks for the names in a directory, for this one and for one that a kernel never asks for.
///
/// # Panics
/// Where something is answered that must never be.
pub fn names(fs: &Filesystem, own: (&Own, u64), directory: u32, name: &[u8], somewhere: u32) {
    let mut tour = Tour::new(fs, own, Wishes { steady: true, focus: Some(&[]), ..Wishes::default() });
    let Some(Ok(directory)) = InodeNumber::new(directory).map(|number| fs.inode(number)) else { return };
    let (mut cookie, mut found) = (0, None);
    // One input in four has as many listed as there are.
    let more = if somewhere.is_multiple_of(4) { MOST_NAMES } else { 6 };
    for most in [3, more] {
        let Ok(answer) = tour.ask(&directory, Request::List(cookie, most)) else { break };
        cookie = answer.at;
        found = answer.names.into_iter().nth(somewhere as usize % most).or(found);
    }
    let odd = ODD[somewhere as usize % ODD.len()].to_vec();
    for name in [Some(name.to_vec()), found.map(|(name, _)| name), Some(odd)].into_iter().flatten() {
        let _ = tour.ask(&directory, Request::Find(name));
    }
}

impl Drop for Tour<'_> {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.buffer));
    }
}

impl<'a> Tour<'a> {
    fn new(fs: &'a Filesystem, (own, work): (&'a Own, u64), wishes: Wishes<'a>) -> Self {
        let record = wishes.twice.then(Vec::new);
        let mut buffer = BUFFER.take();
        buffer.resize(PIECE, 0);
        let focus = wishes.focus;
        Self { fs, own, work, requests: 0, dear: None, record, hit: None, focus, brief: true, somewhere: 0, buffer }
    }

    fn tree(&mut self) {
        let (mut open, mut seen) = (vec![InodeNumber::ROOT], HashSet::new());
        while let Some(number) = open.pop() {
            if seen.len() >= MOST_OBJECTS || !seen.insert(number) {
                continue;
            }
            let inode = match self.fs.inode(number) {
                Ok(inode) => inode,
                Err(error) => {
                    self.note(number, &error);
                    continue;
                }
            };
            self.object(&inode);
            if inode.kind == FileKind::Directory {
                open.extend(self.directory(&inode));
            }
        }
    }

    /// Those that the tree does not reach are asked for, too.
    fn inodes(&mut self) {
        let last = self.fs.superblock().inodes;
        let numbers = (1..=last.min(24)).chain([last, last.wrapping_add(1), u32::MAX]);
        for number in numbers.filter_map(InodeNumber::new) {
            if let Ok(inode) = self.fs.any_inode(number) {
                let _ = self.fs.map(&inode, FileOffset(0), inode.size);
                let _ = self.fs.xattrs(&inode, &mut |_| ControlFlow::Continue(()));
            }
        }
    }

    fn directory(&mut self, directory: &Inode) -> Vec<InodeNumber> {
        let (mut cookie, mut found) = (0, Vec::new());
        // In pieces, so that cookies are used.
        let pieces = if self.brief { &[3, 6][..] } else { &[3, 12, MOST_NAMES] };
        for &piece in pieces {
            match self.ask(directory, Request::List(cookie, piece)) {
                Ok(answer) if answer.at > cookie => {
                    cookie = answer.at;
                    found.extend(answer.names);
                }
                _ => break,
            }
        }
        for (name, _) in found.iter().take(if self.brief { 1 } else { 8 }) {
            let _ = self.ask(directory, Request::Find(name.clone()));
            let _ = self.ask(directory, Request::Find(name.to_ascii_uppercase()));
        }
        let found = found.into_iter().map(|(_, number)| number).collect();
        if self.brief {
            return found;
        }
        for name in ODD {
            let _ = self.ask(directory, Request::Find(name.to_vec()));
        }
        found
    }

    fn object(&mut self, inode: &Inode) {
        self.brief = self.focus.is_some_and(|focus| !focus.contains(&inode.number.value()));
        let _ = self.ask(inode, Request::Inode);
        let _ = self.ask(inode, Request::Size);
        if let Ok(answer) = self.ask(inode, Request::Attributes) {
            for (name, _) in answer.names.into_iter().take(8) {
                let _ = self.ask(inode, Request::Attribute(name));
            }
        }
        let _ = self.ask(inode, Request::Attribute(b"user.not there".to_vec()));
        let _ = self.ask(inode, Request::Link);
        if inode.kind == FileKind::Regular {
            self.file(inode);
        }
    }

    fn file(&mut self, inode: &Inode) {
        let (mut at, piece) = (0, if self.brief { LITTLE } else { PIECE });
        for _ in 0..if self.brief { 1 } else { MOST_PIECES } {
            match self.ask(inode, Request::Read(at, piece)) {
                Ok(answer) if answer.length == piece as u64 => at += answer.length,
                _ => break,
            }
        }
        let places = [inode.size / 2 + 1, inode.size.saturating_sub(100), inode.size, 1 << 40, u64::MAX];
        for at in places.into_iter().take(if self.brief { 2 } else { 5 }) {
            let _ = self.ask(inode, Request::Read(at, piece));
        }
        let mut at = 0;
        for _ in 0..if self.brief { 4 } else { 12 } {
            let Ok(answer) = self.ask(inode, Request::Map(at)) else { break };
            at += answer.length;
            if at >= inode.size {
                break;
            }
        }
        let somewhere = u64::from(self.somewhere) << 8;
        for at in [u64::from(u32::MAX) << 10, inode.size.saturating_sub(1), somewhere % inode.size.max(1)] {
            let _ = self.ask(inode, Request::Map(at));
        }
        let mut at = 0;
        for wanted in [Wanted::Data, Wanted::Hole].into_iter().cycle().take(if self.brief { 2 } else { 6 }) {
            let Ok(answer) = self.ask(inode, Request::Seek(at, wanted)) else { break };
            at = answer.at;
        }
    }

    fn ask(&mut self, inode: &Inode, request: Request) -> Result<Answer> {
        self.requests += 1;
        // What is dear once is dear again: an input has to be run in a short time.
        if self.requests > MOST_REQUESTS || self.dear == Some(inode.number) {
            return Err(Error::Budget);
        }
        let mut digest = self.record.is_some().then(DefaultHasher::new);
        let before = copied();
        let answer = answer(self.fs, self.own, &mut self.buffer, inode, &request, digest.as_mut());
        let (cost, most) = (copied() - before, self.most_copied(inode, &request));
        assert!(cost <= most, "{request:?} of inode {} copies {cost} bytes, and not {most}", inode.number.value());
        if let Err(error) = &answer {
            self.note(inode.number, error);
            if *error == Error::Budget {
                self.dear = Some(inode.number);
            }
        }
        if let (Some(record), Some(digest)) = (&mut self.record, digest) {
            record.push((inode.number, request, digest.finish()));
        }
        answer
    }

    /// How much a request may copy. Whoever asks for a mapping here reads a piece of it, too; a value of an attribute may
    /// be a file; and where reads are verified, each block of the tree is looked for on a budget of its own.
    fn most_copied(&self, inode: &Inode, request: &Request) -> u64 {
        let few = FEW_BLOCKS * u64::from(self.fs.superblock().block_size.bytes());
        let besides = match request {
            Request::Read(..) if self.fs.is_sealed(inode) => MOST_HASHED * (self.work + VALUE),
            Request::Read(_, most) => *most as u64,
            Request::Map(_) => self.work + PIECE as u64,
            Request::Attributes | Request::Attribute(_) => self.work + VALUE,
            _ => 0,
        };
        self.work.saturating_add(few).saturating_add(besides)
    }

    fn note(&mut self, inode: InodeNumber, error: &Error) {
        if let Error::Corrupt(broken) | Error::Checksum(broken) = error {
            self.hit.get_or_insert((inode, *broken));
        }
    }
}

/// The same questions, the last first, to the same image opened anew.
fn again(device: &dyn Fn() -> Device, settings: Settings, record: &[(InodeNumber, Request, u64)]) {
    let fs =
        Filesystem::open(device(), settings).unwrap_or_else(|error| panic!("opened the first time only: {error:?}"));
    let mut buffer = vec![0; PIECE];
    for (number, request, before) in record.iter().rev() {
        let inode = fs.inode(*number).unwrap_or_else(|error| panic!("read the first time only: {error:?}"));
        let mut digest = DefaultHasher::new();
        let _ = answer(&fs, &Own::default(), &mut buffer, &inode, request, Some(&mut digest));
        assert_eq!(digest.finish(), *before, "inode {}, {request:?}: not the same as before", number.value());
    }
}

/// Checks it to the end: what reading has hit is found, too, at the same object.
fn check(fs: &Filesystem, hit: Option<(InodeNumber, Corruption)>) {
    let Ok(mut check) = Check::new(fs) else { return };
    let mut found = hit.is_none();
    for _ in 0..MOST_STEPS {
        let Ok(checked) = check.advance() else { return };
        assert!(checked.done <= checked.total, "{} of {} steps", checked.done, checked.total);
        found |= hit.is_some_and(|hit| checked.findings.iter().any(|finding| is_of(fs, finding.corruption.place, hit)));
        if checked.over {
            // Those behind the first ones are only counted.
            let told = checked.counts.damage + checked.counts.notices <= Checked::MOST as u64;
            assert!(found || !told, "checking does not find what reading does: {hit:?}");
            return;
        }
    }
}

/// Whether a finding is of the object that was hit.
fn is_of(fs: &Filesystem, place: Place, (inode, hit): (InodeNumber, Corruption)) -> bool {
    let whose = |place| match place {
        Place::Inode(inode)
        | Place::ExtentNode { inode, .. }
        | Place::IndirectBlock { inode, .. }
        | Place::XattrBlock { inode, .. }
        | Place::Directory { inode, .. }
        | Place::Claim { inode, .. } => Some(inode),
        _ => None,
    };
    let group = |number: u32| number.wrapping_sub(1).checked_div(fs.superblock().inodes_per_group);
    let named = match place {
        // What no name may lead to is found at the name.
        Place::Directory { .. } => matches!(hit.place, Place::Inode(_)),
        // What keeps a check from looking at the inodes of a group, where the name may be, is found itself.
        Place::GroupDescriptor(number) => {
            let mut objects = [Some(inode.value()), whose(hit.place)].into_iter().flatten();
            matches!(hit.place, Place::Inode(_)) || objects.any(|one| group(one) == Some(number))
        }
        _ => false,
    };
    named || place == hit.place || whose(place).is_some_and(|one| one == inode.value() || Some(one) == whose(hit.place))
}
