//! The connection: requests and their answers, the words that the worker says unasked, and the inodes that it made known.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use lazaret_policy::message::Summary;

use super::cache::Cache;
use super::line::{Line, Socket};
use super::rules::{self, Half, Limits};
use super::wire::{self, Io, bytes, number};
use super::worker::{Setup, Starting, Worker};
use super::zone::Zone;
use crate::Result;

/// Times that one question may be asked again because what was kept is gone: the kernel has no bound, a test has.
const MOST_RETRIES: u32 = 3;
/// The bit of FUSE_INIT, in the upper half of the flags.
pub const INIT_IOMAP: u64 = 1 << 11;
const INIT_EXT: u64 = 1 << 30;
/// Bytes of mappings that a kernel keeps of a file where nobody says else.
pub const KEPT: u64 = 256 << 10;

/// What a kernel offers when the connection is made.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Its minor version.
    pub minor: u64,
    /// Whether it sets the bit.
    pub bit: bool,
    /// How long it takes to ask what comes after FUSE_INIT.
    pub late: Duration,
    /// Bytes of mappings that it keeps of a file.
    pub cache_bytes: u64,
}

impl Default for Offer {
    fn default() -> Self {
        Self { minor: 99, bit: true, late: Duration::ZERO, cache_bytes: KEPT }
    }
}

impl Offer {
    /// The body of FUSE_INIT.
    fn init(&self) -> Vec<u8> {
        let flags2 = 0x5fd | if self.bit { INIT_IOMAP } else { 0 };
        let mut body = bytes(&[(7, 4), (self.minor, 4), (128 << 10, 4), (0x73ff_ffff, 4), (flags2, 4)]);
        body.resize(64, 0);
        body
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions where bytes lie.
    pub begins: u64,
    /// Requests for bytes.
    pub reads: u64,
    /// Mappings to be kept.
    pub upserts: u64,
    /// Ranges to be forgotten.
    pub invals: u64,
}

/// An inode that the worker made known.
#[derive(Debug)]
pub struct Node {
    /// Its number, as in its attributes.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Its bytes are had by mappings.
    pub mapped: bool,
    /// What is kept of it, from the first upsert on.
    pub cache: Option<Cache>,
}

/// The kernel's side of a mount.
pub struct Kernel {
    line: Box<dyn Line>,
    unique: u64,
    /// What is read by mappings, and where the file system begins in it.
    pub(super) image: Option<File>,
    pub(super) base: u64,
    zone: Option<Zone>,
    /// What mappings are held against.
    pub limits: Limits,
    cache_bytes: u64,
    /// What is known.
    pub nodes: HashMap<u64, Node>,
    /// What was counted.
    pub counts: Counts,
    /// Changes every mapping that the worker tells, as if it had told it so.
    pub tamper: Option<fn(&mut Io)>,
    /// Everything that is kept is lost before it is looked at again.
    pub forgetful: bool,
}

/// An answer, or the error's number.
pub type Answered<T> = std::result::Result<T, i32>;

impl Kernel {
    /// A mount of an image, up to where requests are served.
    pub fn mount(image: &Path, setup: Setup, offer: Offer) -> Result<(Self, Worker, Summary)> {
        let (starting, fuse) = Starting::new(setup)?;
        let file = File::open(image)?;
        let range = setup.range.map_or((0, file.metadata()?.len()), |range| (range.offset, range.length));
        let zone = setup.range.is_none().then(|| Zone::of(image)).transpose()?;
        let mut kernel = Self::new(Box::new(Socket::new(fuse)), zone);
        // A loop device has whole sectors.
        kernel.register(file, setup.device.unwrap_or(0), range.1 / 512 * 512);
        kernel.base = range.0;
        let (on, _) = kernel.init(&offer.init())?;
        if on {
            std::thread::sleep(offer.late);
            kernel.config(offer.cache_bytes)?;
        }
        if starting.initialized()? != on {
            return Err("what the worker says of FUSE_INIT is not what it answered".into());
        }
        let (worker, summary) = starting.ready(image)?;
        Ok((kernel, worker, summary))
    }

    /// A connection over this line, of which no device is known yet. `zone`: what no mapping may touch.
    pub fn new(line: Box<dyn Line>, zone: Option<Zone>) -> Self {
        Self {
            line,
            unique: 2,
            image: None,
            base: 0,
            zone,
            limits: Limits { block_size: 4096, most_bytes: i64::MAX as u64, device: 0, device_bytes: 0 },
            cache_bytes: 0,
            nodes: HashMap::new(),
            counts: Counts::default(),
            tamper: None,
            forgetful: false,
        }
    }

    /// From now on it knows this device, of so many bytes, by this number.
    pub fn register(&mut self, device: File, number: u32, bytes: u64) {
        self.image = Some(device);
        (self.limits.device, self.limits.device_bytes) = (number, bytes);
    }

    /// FUSE_INIT; whether mappings were taken up, and the answer.
    pub fn init(&mut self, body: &[u8]) -> Result<(bool, Vec<u8>)> {
        let offered = number(body, 12, 4) & INIT_EXT != 0 && number(body, 16, 4) & INIT_IOMAP != 0;
        let reply = self.call(wire::INIT, 0, body)?.map_err(|errno| format!("FUSE_INIT: error {errno}"))?;
        let (major, minor) = (number(&reply, 0, 4), number(&reply, 4, 4));
        let (flags, flags2) = (number(&reply, 12, 4), number(&reply, 32, 4));
        let on = flags & INIT_EXT != 0 && flags2 & INIT_IOMAP != 0;
        if reply.len() != 64 || major != 7 || (on && minor < 99) || (on && !offered) {
            return Err(format!("the answer to FUSE_INIT: 7.{minor}, flags {flags:#x} {flags2:#x}").into());
        }
        Ok((on, reply))
    }

    /// What the kernel asks next: how mappings are counted. `cache_bytes`: what it keeps of a file where nobody says else.
    pub fn config(&mut self, cache_bytes: u64) -> Result {
        self.cache_bytes = cache_bytes;
        let mut body = bytes(&[(0x7f, 8), (i64::MAX as u64, 8), (cache_bytes, 4), (0, 4)]);
        body.resize(64, 0);
        let reply = match self.call(wire::CONFIG, 0, &body)? {
            Err(libc::ENOSYS) => return Ok(()),
            Err(errno) => return Err(format!("the mount fails: error {errno}").into()),
            Ok(reply) => reply,
        };
        let flags = number(&reply, 0, 8);
        let block_size = number(&reply, 60, 4);
        let wrong = [
            (reply.len() > 104, "longer than may be"),
            (flags & !0x7f != 0, "unknown flags"),
            (number(&reply, 56, 1) > 16, "a UUID of more than 16 bytes"),
            (number(&reply, 57, 3) != 0, "something in the padding"),
            (flags & 4 != 0 && !(block_size.is_power_of_two() && (512..=4096).contains(&block_size)), "no block size"),
            (flags & 0x10 != 0 && number(&reply, 68, 4) > 1_000_000_000, "times of more than a second"),
            (flags & 0x20 != 0 && number(&reply, 88, 8) > i64::MAX as u64, "files of less than nothing"),
        ];
        if let Some((_, wrong)) = wrong.iter().find(|(is, _)| *is) {
            return Err(format!("the mount fails: {wrong} in {reply:?}").into());
        }
        if flags & 4 != 0 {
            self.limits.block_size = block_size;
        }
        if flags & 0x20 != 0 {
            self.limits.most_bytes = number(&reply, 88, 8);
        }
        if flags & 0x40 != 0 && number(&reply, 96, 4) != 0 {
            self.cache_bytes = number(&reply, 96, 4).clamp(256, 2 << 20);
        }
        Ok(())
    }

    /// How many mappings of a file are kept.
    pub fn most_kept(&self) -> u64 {
        self.cache_bytes / Io::LENGTH as u64
    }

    /// One request and its answer. What the worker says meanwhile is heard.
    pub fn call(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Answered<Vec<u8>>> {
        let unique = self.ask(opcode, node, body)?;
        self.answer_to(unique)
    }

    /// A request of another kernel as it is, but for its number; and its answer.
    pub fn pass(&mut self, packet: &[u8]) -> Result<Answered<Vec<u8>>> {
        let unique = self.pass_on(packet)?;
        self.answer_to(unique)
    }

    /// The same, of one that has no answer; its number.
    pub fn pass_on(&mut self, packet: &[u8]) -> Result<u64> {
        self.unique += 2;
        let mut packet = packet.to_vec();
        packet.get_mut(8..16).ok_or("no request")?.copy_from_slice(&self.unique.to_ne_bytes());
        self.line.send(&packet)?;
        Ok(self.unique)
    }

    fn answer_to(&mut self, unique: u64) -> Result<Answered<Vec<u8>>> {
        match self.next_answer()? {
            (of, answer) if of == unique => Ok(answer),
            (of, _) => Err(format!("{of} was not asked").into()),
        }
    }

    /// The next answer, and to what. What the worker says before it is heard.
    pub fn next_answer(&mut self) -> Result<(u64, Answered<Vec<u8>>)> {
        loop {
            let packet = self.line.receive()?;
            let (length, error, of) = (number(&packet, 0, 4), number(&packet, 4, 4) as i32, number(&packet, 8, 8));
            if length as usize != packet.len() || packet.len() < wire::OUT_HEADER {
                return Err(format!("a packet of {} bytes says {length}", packet.len()).into());
            }
            let body = &packet[wire::OUT_HEADER..];
            match of {
                0 => self.told(error, body)?,
                of if error == 0 => return Ok((of, Ok(body.to_vec()))),
                of if (-511..0).contains(&error) && body.is_empty() => return Ok((of, Err(-error))),
                _ => return Err(format!("error {error} with {} bytes", body.len()).into()),
            }
        }
    }

    /// Sends a request; its number.
    pub fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<u64> {
        self.unique += 2;
        self.line.send(&wire::request(opcode, self.unique, node, body))?;
        Ok(self.unique)
    }

    /// A word of the worker's that is no answer. An error is one that its writev would have had, which a sound worker has
    /// only where the kernel has changed its mind.
    fn told(&mut self, code: i32, body: &[u8]) -> Result {
        let (node, ino) = (number(body, 0, 8), number(body, 8, 8));
        let length = match code {
            wire::UPSERT => 80,
            wire::INVAL => 48,
            _ => return Err(format!("notification {code}").into()),
        };
        if body.len() != length {
            return Err(format!("notification {code} of {} bytes", body.len()).into());
        }
        let limits = self.limits;
        let known = self.nodes.get_mut(&node).ok_or(format!("notification {code} of node {node}: ESTALE"))?;
        if known.ino != ino || !known.mapped {
            return Err(format!("notification {code} of node {node}, inode {ino}: EINVAL").into());
        }
        if code == wire::INVAL {
            self.counts.invals += 1;
            for at in [16, 32] {
                rules::forgotten(number(body, at, 8), number(body, at + 8, 8), &limits)?;
            }
            let (offset, length) = (number(body, 16, 8), number(body, 24, 8));
            if let Some(cache) = known.cache.as_mut().filter(|_| length > 0) {
                cache.remove(offset, length);
            }
            return Ok(());
        }
        self.counts.upserts += 1;
        let (mut read, write) = (Io::at(body, 16), Io::at(body, 48));
        if let Some(tamper) = self.tamper {
            tamper(&mut read);
        }
        let caches = known.cache.is_some();
        let broken = |rule| format!("a mapping to be kept, {read:?} {write:?}: {rule}");
        rules::upsert(&read, Half::Read, caches, &limits).map_err(broken)?;
        rules::upsert(&write, Half::Write, caches, &limits).map_err(broken)?;
        if write.kind != wire::PURE_OVERWRITE && write.kind != wire::NOCACHE {
            return Err(broken("nobody writes").into());
        }
        if read.kind != wire::NOCACHE {
            known.cache.get_or_insert_default().upsert(read, self.cache_bytes);
        }
        self.is_no_structure(&read)
    }

    fn is_no_structure(&self, io: &Io) -> Result {
        let own = io.has_space() && self.zone.as_ref().is_some_and(|zone| zone.touches(io.addr, io.length));
        if own { Err(format!("{io:?} holds blocks of the file system's own").into()) } else { Ok(()) }
    }

    /// Makes an inode known, of an answer that holds its entry; 0 where there is none.
    pub fn know(&mut self, entry: &[u8]) -> Result<u64> {
        let (node, generation) = (number(entry, 0, 8), number(entry, 8, 8));
        let attributes = entry.get(40..128).ok_or("an entry of less than 128 bytes")?;
        let (mode, flags) = (number(attributes, 60, 4) as u32, number(attributes, 84, 4) as u32);
        if node == 0 {
            return Ok(0);
        }
        if generation != 0 || flags & !(wire::ATTR_EXCLUSIVE | wire::ATTR_IOMAP) != 0 {
            return Err(format!("node {node}: generation {generation}, flags {flags:#x}").into());
        }
        let both = flags == wire::ATTR_EXCLUSIVE | wire::ATTR_IOMAP;
        if flags != 0 && (!both || mode & libc::S_IFMT != libc::S_IFREG) {
            return Err(format!("node {node}: flags {flags:#x} of mode {mode:#o}").into());
        }
        let (ino, size) = (number(attributes, 0, 8), number(attributes, 8, 8));
        // What is known stays as it is: the flags count when an inode is made.
        self.nodes.entry(node).or_insert(Node { ino, size, mode, mapped: both, cache: None });
        Ok(node)
    }

    /// The inode that a name stands for.
    pub fn lookup(&mut self, parent: u64, name: &[u8]) -> Result<Answered<u64>> {
        match self.call(wire::LOOKUP, parent, &[name, &[0]].concat())? {
            Ok(entry) => match self.know(&entry)? {
                0 => Ok(Err(libc::ENOENT)),
                node => Ok(Ok(node)),
            },
            Err(errno) => Ok(Err(errno)),
        }
    }

    /// The names in a directory and their inodes, which this makes known.
    pub fn list(&mut self, directory: u64) -> Result<Vec<(Vec<u8>, u64)>> {
        let (mut all, mut cookie) = (Vec::new(), 0);
        loop {
            let body = bytes(&[(0, 8), (cookie, 8), (4096, 4), (0, 4), (0, 8), (0, 4), (0, 4)]);
            let list = self.call(wire::READDIRPLUS, directory, &body)?.map_err(|errno| format!("error {errno}"))?;
            if list.is_empty() {
                return Ok(all);
            }
            let mut rest = &list[..];
            while let Some((entry, dirent)) = rest.split_at_checked(128).filter(|(_, dirent)| dirent.len() >= 24) {
                let length = number(dirent, 16, 4) as usize;
                let name = dirent.get(24..24 + length).ok_or("a name that is longer than the list")?;
                cookie = number(dirent, 8, 8);
                if name != b"." && name != b".." {
                    all.push((name.to_vec(), self.know(entry)?));
                }
                rest = rest.get((128 + 24 + length).next_multiple_of(8)..).unwrap_or_default();
            }
        }
    }

    /// Forgets an inode.
    pub fn forget(&mut self, node: u64) -> Result {
        self.nodes.remove(&node);
        self.ask(wire::FORGET, node, &bytes(&[(1, 8)])).map(drop)
    }

    /// Loses what is kept of a file.
    pub fn evict(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.cache = None;
        }
    }

    /// Where the byte at `pos` lies: what is kept, or what the worker answers.
    pub fn begin(&mut self, node: u64, pos: u64, count: u64, operation: u32) -> Result<Answered<Io>> {
        let from_cache = operation & (wire::OP_ATOMIC | wire::OP_SWAPFILE) == 0;
        for _ in 0..MOST_RETRIES {
            let known = self.nodes.get(&node).ok_or("an inode that nobody knows")?;
            let kept = known.cache.as_ref().and_then(|cache| cache.lookup(pos, count, self.limits.block_size));
            if let Some(kept) = kept.filter(|_| from_cache) {
                return Ok(Ok(kept));
            }
            let ino = known.ino;
            let read = match self.ask_begin(node, ino, pos, count, operation)? {
                Ok(read) => read,
                Err(errno) => return Ok(Err(errno)),
            };
            if self.forgetful {
                self.nodes.values_mut().filter_map(|node| node.cache.as_mut()).for_each(Cache::clear);
            }
            if read.kind != wire::RETRY_CACHE {
                return Ok(Ok(read));
            }
        }
        Err(format!("node {node}, byte {pos}: it is told to look again, and again").into())
    }

    /// BEGIN itself, and what the kernel holds the answer to.
    pub fn ask_begin(&mut self, node: u64, ino: u64, pos: u64, count: u64, operation: u32) -> Result<Answered<Io>> {
        self.counts.begins += 1;
        let body = bytes(&[(operation.into(), 4), (0, 4), (ino, 8), (pos, 8), (count, 8)]);
        let reply = match self.call(wire::BEGIN, node, &body)? {
            Ok(reply) => reply,
            Err(errno) => return Ok(Err(errno)),
        };
        if reply.len() != 64 {
            return Err(format!("an answer to BEGIN of {} bytes", reply.len()).into());
        }
        let (mut read, write) = (Io::at(&reply, 0), Io::at(&reply, 32));
        if let Some(tamper) = self.tamper {
            tamper(&mut read);
        }
        let caches = self.nodes.get(&node).is_some_and(|node| node.cache.is_some());
        rules::answer(&read, &write, pos, caches, &self.limits)
            .map_err(|rule| format!("node {node}, byte {pos} of {count}, {read:?} {write:?}: {rule}"))?;
        self.is_no_structure(&read)?;
        Ok(Ok(read))
    }

    /// Ends the mount, as umount(8) does.
    pub fn unmount(mut self) -> Result {
        match self.call(wire::SYNCFS, 1, &bytes(&[(0, 8)]))? {
            Ok(_) | Err(libc::ENOSYS) => {}
            Err(errno) => return Err(format!("SYNCFS: error {errno}").into()),
        }
        self.call(wire::DESTROY, 0, &[])?.map(drop).map_err(|errno| format!("DESTROY: error {errno}").into())
    }
}
