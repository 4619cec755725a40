//! Speaks FUSE as an attacker would: a tree of three objects, and one lie.
//!
//! `file` holds what the kernel said to each answer that it refused, an error number a line; `dir` is empty; `link` leads
//! to `file`. Everything is made of words of 8, 4 and 2 bytes; the structures are those of `linux/fuse.h`, 7.31.
#![allow(unsafe_code, reason = "raw system calls on /dev/fuse")]

use lazaret_policy::channel::Channel;
use lazaret_policy::exit;
use lazaret_policy::message::{Report, Summary};
use lazaret_tests::evil::call::call;
use lazaret_tests::evil::lie::Lie;
use lazaret_worker::memory;

use crate::life::report;

const ROOT: u64 = 1;
const FILE: u64 = 2;
const DIRECTORY: u64 = 3;
const LINK: u64 = 4;
const ENOENT: i32 = libc::ENOENT;

/// A request: its head, and what follows.
struct Request {
    operation: u32,
    unique: u64,
    node: u64,
    body: Vec<u8>,
}

impl Request {
    fn word(&self, at: usize) -> u64 {
        self.body.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    /// The text that begins at `at`.
    fn name(&self, at: usize) -> &[u8] {
        self.body.get(at..).unwrap_or_default().split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// Bytes put together in the order of their fields.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u64(mut self, words: &[u64]) -> Self {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self
    }

    fn u32(mut self, words: &[u32]) -> Self {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self
    }
}

struct Server {
    lie: Lie,
    /// What the kernel refused.
    log: Vec<u8>,
    /// The same as it was when the file was opened.
    shown: Vec<u8>,
    /// How often notices were sent. One kind makes the kernel send every request again.
    noticed: u32,
    /// How often the file was asked for.
    asked: u32,
    held: Option<Request>,
    seed: u64,
}

/// Says that the worker is ready and serves until the mount is gone.
pub(crate) fn serve(channel: &Channel, lie: u64) -> ! {
    let lie = Lie::ALL.get(lie as usize).copied().unwrap_or(Lie::None);
    let mut server =
        Server { lie, log: vec![], shown: vec![], noticed: 0, asked: 0, held: None, seed: 0x9e37_79b9_7f4a_7c15 };
    report(channel, &Report::Ready(Summary::default()));
    if lie == Lie::Reports {
        // The broker has no need to read them; whoever sends too many waits.
        loop {
            report(channel, &Report::Ready(Summary::default()));
        }
    }
    let mut buffer = vec![0; 2 << 20];
    loop {
        // SAFETY: the kernel writes no more than the length into the buffer.
        let length = unsafe { call(libc::SYS_read as u64, [3, buffer.as_mut_ptr() as u64, 2 << 20, 0, 0, 0]) };
        match -length as i32 {
            libc::ENODEV if lie == Lie::OutlivesTheMount => loop {
                std::hint::spin_loop();
            },
            libc::ENODEV => memory::end(exit::DONE),
            1.. => continue,
            _ => {}
        }
        let bytes = &buffer[..length as usize];
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let request =
            Request { operation: (word(0) >> 32) as u32, unique: word(8), node: word(16), body: bytes[40..].to_vec() };
        server.take(request);
    }
}

impl Server {
    fn take(&mut self, request: Request) {
        // FORGET, INTERRUPT and BATCH_FORGET want no answer.
        if matches!(request.operation, 2 | 36 | 42) || self.lie == Lie::Silence {
            return;
        }
        if self.lie == Lie::AnswersTheOther {
            let Some(first) = self.held.take() else {
                self.held = Some(request);
                return;
            };
            let (one, other) = (self.answer(&first), self.answer(&request));
            self.send(request.unique, 0, &one.unwrap_or_default());
            self.send(first.unique, 0, &other.unwrap_or_default());
            return;
        }
        self.lie_beside(&request);
        match self.answer(&request) {
            Ok(body) => self.send(request.unique, 0, &body),
            Err(errno) => self.send(request.unique, -errno, &[]),
        }
        if self.lie == Lie::AnswersTwice {
            let body = self.answer(&request).unwrap_or_default();
            self.send(request.unique, 0, &body);
        }
    }

    /// Lies that are told before the request is answered as it should be.
    fn lie_beside(&mut self, request: &Request) {
        let unique = request.unique;
        match self.lie {
            Lie::ShorterThanItsHead => self.write(&[0; 8]),
            Lie::LengthOfAnother => {
                self.write(&Bytes::default().u32(&[4000, 0]).u64(&[unique, 7]).0);
                self.write(&Bytes::default().u32(&[8, 0]).u64(&[unique, 7]).0);
            }
            Lie::AnswersNobody => {
                for other in [unique + 2, unique + 1, u64::MAX, 0x8000_0000_0000_0000] {
                    self.send(other, 0, &[0; 128]);
                }
            }
            Lie::ErrorOfNoNumber => self.send(unique, -100_000, &[]),
            Lie::ErrorAboveZero => self.send(unique, 5, &[]),
            Lie::InitAgain => {
                self.send(2, 0, &[0xff; 64]);
                self.send(2, 0, &[0xff; 24]);
            }
            Lie::Notices if self.noticed < 3 => {
                self.noticed += 1;
                for code in 0..16 {
                    for length in [0, 8, 16, 24, 32, 40, 64, 200] {
                        let body: Vec<u8> = (0..length).map(|_| self.chance()).collect();
                        self.send(0, code, &body);
                    }
                    // The same with a node that there is, and lengths that fit.
                    let body = Bytes::default().u64(&[DIRECTORY, 0]).u32(&[4, 0]).0;
                    self.send(0, code, &[&body[..], b"name\0".as_slice()].concat());
                    let store = Bytes::default().u64(&[DIRECTORY, 0]).u32(&[4096, 0]).0;
                    self.send(0, code, &[store, vec![0xa5; 4096]].concat());
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, request: &Request) -> Result<Vec<u8>, i32> {
        match request.operation {
            1 => self.look_up(request.node, request.name(0)),
            3 => Ok(Bytes::default().u64(&[0, 0]).0.into_iter().chain(self.attributes(request.node)).collect()),
            5 => Ok(match self.lie {
                Lie::LinkTooLong => vec![b'x'; 5000],
                Lie::LinkToThePasswords => b"/etc/passwd".to_vec(),
                _ => b"file".to_vec(),
            }),
            // Past the page cache, so that each read is asked for.
            14 => {
                self.shown.clone_from(&self.log);
                Ok(Bytes::default().u64(&[0]).u32(&[1, 0]).0)
            }
            27 => Ok(Bytes::default().u64(&[0]).u32(&[0, 0]).0),
            15 => {
                let wanted = request.word(16) as u32 as usize;
                let from = (request.word(8) as usize).min(self.shown.len());
                match self.lie {
                    Lie::ReadsTooMuch => Ok(vec![b'x'; wanted + 1]),
                    _ => Ok(self.shown[from..].iter().take(wanted).copied().collect()),
                }
            }
            17 => Ok(match self.lie {
                Lie::Absurd => Bytes::default().u64(&[u64::MAX; 5]).u32(&[u32::MAX; 10]).0,
                _ => Bytes::default().u64(&[9, 3, 3, 9, 3]).u32(&[4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0]).0,
            }),
            // A list of attributes: its length is asked for first.
            23 => match (request.word(0) as u32, self.lie) {
                (_, Lie::AttributesWithoutEnd) if request.word(0) as u32 > 0 => Ok(b"user.evil".to_vec()),
                (0, _) => Ok(Bytes::default().u32(&[10, 0]).0),
                _ => Ok(b"user.evil\0".to_vec()),
            },
            22 => Err(libc::ENODATA),
            28 | 44 => Ok(self.list(request, request.operation == 44)),
            // RELEASE, FLUSH, RELEASEDIR.
            18 | 25 | 29 => Ok(vec![]),
            _ => Err(libc::ENOSYS),
        }
    }

    fn look_up(&mut self, parent: u64, name: &[u8]) -> Result<Vec<u8>, i32> {
        let node = match (parent, name, self.lie) {
            (ROOT, b"file", Lie::NodeOfTheRoot) => ROOT,
            (ROOT, b"file", Lie::NodeZero) => 0,
            (ROOT, b"file", _) => FILE,
            (ROOT, b"dir", _) | (DIRECTORY, b"dir", Lie::HoldsItself) => DIRECTORY,
            (ROOT, b"link", _) => LINK,
            _ => return Err(ENOENT),
        };
        let shown = if parent == ROOT && name == b"file" { FILE } else { node };
        let head = Bytes::default().u64(&[node, 0, 0, 0]).u32(&[0, 0]).0;
        Ok(head.into_iter().chain(self.attributes_of(shown)).collect())
    }

    fn attributes(&mut self, node: u64) -> Vec<u8> {
        if node == FILE {
            self.asked += 1;
        }
        self.attributes_of(node)
    }

    fn attributes_of(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match (node, self.lie) {
            (FILE, Lie::ChangesType) if self.asked > 0 => (0o40755, 0),
            (FILE, Lie::NoType) => (0o170644, 0),
            (FILE, Lie::SizeOverAll) => (0o100644, u64::MAX),
            (FILE, Lie::SizeOfTheLargest) => (0o100644, i64::MAX as u64),
            (FILE, Lie::SetuidRoot) => (0o104755, 0),
            (FILE, Lie::DeviceNode) => (0o60666, 0),
            (FILE, Lie::Fifo) => (0o10666, 0),
            (FILE, _) => (0o100644, self.log.len() as u64),
            (LINK, _) => (0o120777, 4),
            _ => (0o40755, 4096),
        };
        let nanoseconds = if self.lie == Lie::Nanoseconds { u32::MAX } else { 5 };
        Bytes::default()
            .u64(&[node, size, 1, 1_500_000_000, 1_500_000_000, 1_500_000_000])
            .u32(&[nanoseconds, nanoseconds, nanoseconds, mode, 1, 0, 0, 0x103, 4096, 0])
            .0
    }

    /// Entries; before each, where attributes are asked for, that there are none.
    fn list(&self, request: &Request, with_attributes: bool) -> Vec<u8> {
        let (node, cookie, room) = (request.node, request.word(8), request.word(16) as u32 as usize);
        let head = if with_attributes { 128 } else { 0 };
        let entry = |name: &[u8], next: u64, claimed: usize| {
            let mut bytes = vec![0; head];
            bytes.extend(Bytes::default().u64(&[FILE, next]).u32(&[claimed as u32, 8]).0);
            bytes.extend(name);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        match self.lie {
            Lie::ListsForEver => entry(b"again", 1, 5).repeat((room / (head + 32)).min(100)),
            _ if cookie > 0 || node != ROOT => vec![],
            Lie::NameWithSlash => entry(b"a/b", 1, 3),
            Lie::NameOfNothing => entry(b"", 1, 0),
            Lie::NameTooLong => entry(&[b'n'; 4000], 1, 4000),
            Lie::NameWithNul => entry(b"a\0b", 1, 3),
            _ => [entry(b"file", 1, 4), entry(b"dir", 2, 3), entry(b"link", 3, 4)].concat(),
        }
    }

    fn chance(&mut self) -> u8 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 56) as u8
    }

    fn send(&mut self, unique: u64, error: i32, body: &[u8]) {
        let head = Bytes::default().u32(&[16 + body.len() as u32, error.cast_unsigned()]).u64(&[unique]).0;
        self.write(&[&head, body].concat());
    }

    /// One answer, as it is; what the kernel says against it is noted.
    fn write(&mut self, bytes: &[u8]) {
        let piece = [bytes.as_ptr() as u64, bytes.len() as u64];
        // SAFETY: the one piece is as long as it says, and outlives the call.
        let returned = unsafe { call(libc::SYS_writev as u64, [3, piece.as_ptr() as u64, 1, 0, 0, 0]) };
        if returned < 0 {
            self.log.extend(format!("{}\n", -returned).bytes());
        }
    }
}
