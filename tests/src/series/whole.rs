//! The rest of a kernel with the series: the mount. The real one makes it and takes the calls of programs; what it then asks
//! of /dev/fuse is taken from there and asked of the worker by a [double](crate::double) that has the series, and the bytes of
//! files are read from the device that was made known.
//!
//! What holds here: broker and worker are those that are shipped, and so are their filters. The worker has the real
//! /dev/fuse; only what it reads from there and writes to it goes by the test, and that only where its own filters have let
//! it through: of two answers the kernel takes the stricter one. To the real kernel it is a mount like any other.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::notify::{Answer, Asked, Listener};
use crate::double::file::Way;
use crate::double::kernel::{Answered, Counts, INIT_IOMAP, KEPT, Kernel};
use crate::double::line::{Gone, LONGEST, Line};
use crate::double::wire::{self, Io, number};
use crate::double::zone::Zone;
use crate::{Result, process};

/// How long a worker may take to ask for a request, or to answer one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether somebody is still there. Milliseconds.
const LOOK: i64 = 20;
/// Where the minor version and the upper half of the flags lie in the request of FUSE_INIT and in its answer.
const MINOR: usize = 4;
const ASKED_FLAGS: usize = 16;
const SAID_FLAGS: usize = 32;
/// Where the flags of the attributes lie in an entry, and its length.
const ENTRY_FLAGS: usize = 40 + 84;
const ENTRY: usize = 128;

/// What the double is to hold mappings to.
pub(super) struct Rules {
    /// What none may touch.
    pub(super) zone: Zone,
    /// What is done to each before.
    pub(super) tamper: Option<fn(&mut Io)>,
}

/// One connection, from ADD_IOMAP to its end.
pub(super) struct Connection {
    shared: Arc<Shared>,
    /// Calls of the worker's that wait for a request, or say something. None once it has ended.
    calls: Option<(Sender<Asked>, Sender<Asked>)>,
    ended: Arc<Mutex<bool>>,
    /// Whoever has marked it, and whoever reads from it: with the last of them it ends.
    who: Vec<OwnedFd>,
    seen: Option<u32>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// It was agreed upon in FUSE_INIT.
    agreed: AtomicBool,
    over: AtomicBool,
    known: Mutex<Option<(File, u32, u64)>>,
    counts: Mutex<Counts>,
    wrong: Mutex<Vec<String>>,
}

impl Shared {
    fn is_wrong(&self, what: String) {
        self.wrong.lock().expect("no holder panics").push(what);
    }
}

impl Connection {
    /// One over this /dev/fuse, which this process has marked.
    pub(super) fn new(listener: Arc<Listener>, fuse: OwnedFd, pid: u32, rules: Rules) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let (send_read, reads) = mpsc::channel();
        let (send_write, writes) = mpsc::channel();
        let ended = Arc::<Mutex<bool>>::default();
        let tap = Tap { listener, reads, writes, ended: ended.clone() };
        let thread = {
            let shared = shared.clone();
            thread::spawn(move || serve(tap, fuse, rules, &shared))
        };
        let who = vec![pidfd(pid)?];
        Ok(Self { shared, calls: Some((send_read, send_write)), ended, who, seen: None, thread: Some(thread) })
    }

    /// Takes a read or a write of /dev/fuse. False where it has ended.
    pub(super) fn take(&mut self, asked: &Asked) -> Result<bool> {
        if self.seen.is_none() {
            let worker = process::status(&asked.pid.to_string(), "Tgid")?.parse()?;
            (self.seen, self.who) = (Some(worker), vec![pidfd(worker)?]);
        }
        let Some((reads, writes)) = &self.calls else { return Ok(false) };
        let calls = if asked.call == libc::SYS_read { reads } else { writes };
        let ended = self.ended.lock().expect("no holder panics");
        Ok(!*ended && calls.send(*asked).is_ok())
    }

    /// Whether it is one with mappings.
    pub(super) fn is_agreed(&self) -> bool {
        self.shared.agreed.load(Ordering::Acquire)
    }

    /// A device, the number that it got, and its length in bytes.
    pub(super) fn register(&self, device: File, number: u32, bytes: u64) {
        *self.shared.known.lock().expect("no holder panics") = Some((device, number, bytes));
    }

    /// Ends it if nobody is there any more.
    pub(super) fn look(&mut self) {
        let no_time = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = |one: &OwnedFd| poll(&mut [PollFd::new(one, PollFlags::IN)], Some(&no_time)) == Ok(1);
        if self.calls.is_some() && self.who.iter().all(ended) {
            self.calls = None;
            self.shared.over.store(true, Ordering::Release);
        }
    }

    /// What was counted.
    pub(super) fn counts(&self) -> Counts {
        *self.shared.counts.lock().expect("no holder panics")
    }

    /// Waits for its end, and gives what was wrong with what the worker said.
    pub(super) fn end(mut self) -> Vec<String> {
        self.calls = None;
        self.shared.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        std::mem::take(&mut *self.shared.wrong.lock().expect("no holder panics"))
    }
}

fn pidfd(pid: u32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid.try_into()?).ok_or("no process")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// The worker's calls.
struct Tap {
    listener: Arc<Listener>,
    reads: Receiver<Asked>,
    writes: Receiver<Asked>,
    /// Nobody takes them any more.
    ended: Arc<Mutex<bool>>,
}

impl Line for Tap {
    fn send(&mut self, packet: &[u8]) -> Result {
        loop {
            let asked = next(&self.reads)?;
            let [_, place, room, ..] = asked.arguments;
            if (packet.len() as u64) > room {
                self.listener.answer(&asked, Answer::Error(libc::EIO));
                return Err(format!("a request of {} bytes, and room for {room}", packet.len()).into());
            }
            // Whoever is killed meanwhile has no memory any more.
            let written = asked.write(place, packet);
            if self.listener.answer(&asked, Answer::Value(packet.len() as i64)) {
                return written;
            }
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            let asked = next(&self.writes)?;
            let packet = asked.gather(asked.arguments[1], asked.arguments[2], LONGEST);
            let length = packet.as_ref().map_or(0, |packet| packet.len() as i64);
            if self.listener.answer(&asked, Answer::Value(length)) {
                return packet;
            }
        }
    }
}

fn next(calls: &Receiver<Asked>) -> Result<Asked> {
    match calls.recv_timeout(PATIENCE) {
        Ok(asked) => Ok(asked),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(Gone.into()),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("the worker is silent for {PATIENCE:?}").into()),
    }
}

/// Whoever still waits, or comes between, is told that it has ended.
impl Drop for Tap {
    fn drop(&mut self) {
        *self.ended.lock().expect("no holder panics") = true;
        for asked in self.reads.try_iter().chain(self.writes.try_iter()) {
            self.listener.answer(&asked, Answer::Error(libc::ENODEV));
        }
    }
}

/// Serves it to its end.
fn serve(tap: Tap, fuse: OwnedFd, rules: Rules, shared: &Shared) {
    let mut kernel = Kernel::new(Box::new(tap), Some(rules.zone));
    kernel.tamper = rules.tamper;
    let served = until_unmounted(&mut kernel, &fuse, shared);
    // The real kernel ends the connection with its last holder.
    drop(fuse);
    let ended = served.and_then(|begun| if begun { kernel.unmount() } else { Ok(()) });
    if let Err(error) = ended
        && !error.is::<Gone>()
    {
        shared.is_wrong(error.to_string());
    }
}

/// Whether it has ever begun. An error is one that the mount does not survive.
fn until_unmounted(kernel: &mut Kernel, fuse: &OwnedFd, shared: &Shared) -> Result<bool> {
    let mut room = vec![0; 2 << 20];
    let Some(request) = next_request(fuse, &mut room, shared)? else { return Ok(false) };
    let answer = begin(kernel, request, shared)?;
    answer_to(fuse, request, &Ok(answer))?;
    while let Some(request) = next_request(fuse, &mut room, shared)? {
        if let Some((device, number, bytes)) = shared.known.lock().expect("no holder panics").take() {
            kernel.register(device, number, bytes);
        }
        let answer = ask(kernel, request).or_else(|error| {
            if error.is::<Gone>() {
                return Err(error);
            }
            shared.is_wrong(error.to_string());
            Ok(Some(Err(libc::EIO)))
        })?;
        *shared.counts.lock().expect("no holder panics") = kernel.counts;
        if let Some(answer) = answer {
            answer_to(fuse, request, &answer)?;
        }
    }
    Ok(true)
}

/// The next request of the real kernel's; none where there will be no more.
fn next_request<'a>(fuse: &OwnedFd, room: &'a mut [u8], shared: &Shared) -> Result<Option<&'a [u8]>> {
    let time = Timespec { tv_sec: 0, tv_nsec: LOOK * 1_000_000 };
    let length = loop {
        if shared.over.load(Ordering::Acquire) {
            return Ok(None);
        }
        let mut ready = [PollFd::new(fuse, PollFlags::IN)];
        if poll(&mut ready, Some(&time)).is_err() || ready[0].revents().is_empty() {
            continue;
        }
        match rustix::io::read(fuse, &mut *room) {
            Ok(length) => break length,
            // It is mounted in a moment.
            Err(Errno::PERM) => thread::sleep(Duration::from_millis(1)),
            Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
            // The program that has asked is gone.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    Ok(Some(&room[..length]))
}

/// An answer to the real kernel, which may have no use for it any more.
fn answer_to(fuse: &OwnedFd, request: &[u8], answer: &Answered<Vec<u8>>) -> Result {
    let (error, body) = match answer {
        Ok(body) => (0, &body[..]),
        Err(errno) => (-errno, &[][..]),
    };
    let length = (wire::OUT_HEADER + body.len()) as u64;
    let header = wire::bytes(&[(length, 4), (error as u32 as u64, 4), (number(request, 8, 8), 8)]);
    match rustix::io::write(fuse, &[header, body.to_vec()].concat()) {
        Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => Ok(()),
        Err(errno) => Err(format!("an answer of {length} bytes to request {}: {errno}", number(request, 4, 4)).into()),
    }
}

/// FUSE_INIT as a kernel with the series sends it, and the answer as one without it takes it.
fn begin(kernel: &mut Kernel, request: &[u8], shared: &Shared) -> Result<Vec<u8>> {
    let body = request.get(wire::IN_HEADER..).filter(|body| body.len() == 64).ok_or("no FUSE_INIT")?;
    let (mut offer, minor) = (body.to_vec(), &body[MINOR..MINOR + 4]);
    offer[MINOR..MINOR + 4].copy_from_slice(&99_u32.to_ne_bytes());
    let flags = number(body, ASKED_FLAGS, 4) | INIT_IOMAP;
    offer[ASKED_FLAGS..ASKED_FLAGS + 4].copy_from_slice(&(flags as u32).to_ne_bytes());
    let (on, mut reply) = kernel.init(&offer)?;
    shared.agreed.store(on, Ordering::Release);
    if on {
        kernel.config(KEPT)?;
    }
    let flags = number(&reply, SAID_FLAGS, 4) & !INIT_IOMAP;
    reply[SAID_FLAGS..SAID_FLAGS + 4].copy_from_slice(&(flags as u32).to_ne_bytes());
    reply[MINOR..MINOR + 4].copy_from_slice(minor);
    Ok(reply)
}

/// What comes of a request; nothing where it has no answer. An error is one of the worker's.
fn ask(kernel: &mut Kernel, request: &[u8]) -> Result<Option<Answered<Vec<u8>>>> {
    let (opcode, node, body) = (number(request, 4, 4) as u32, number(request, 16, 8), &request[wire::IN_HEADER..]);
    let mapped = kernel.nodes.get(&node).is_some_and(|node| node.mapped);
    let answer = match opcode {
        wire::FORGET => {
            kernel.evict(node);
            return kernel.pass_on(request).map(|_| None);
        }
        wire::BATCH_FORGET => {
            (8..body.len()).step_by(16).for_each(|at| kernel.evict(number(body, at, 8)));
            return kernel.pass_on(request).map(|_| None);
        }
        // What it is about has been answered.
        wire::INTERRUPT => return Ok(None),
        wire::LOOKUP => entry(kernel, request)?,
        wire::READDIRPLUS => list(kernel, request)?,
        wire::OPEN if mapped => {
            let answer = kernel.pass(request)?;
            answer.as_ref().map_or(Ok(()), |reply| kernel.may_open(node, reply))?;
            answer
        }
        wire::READ if mapped => {
            let (begin, length) = (number(body, 8, 8), number(body, 16, 4));
            let direct = number(body, 32, 4) as i32 & libc::O_DIRECT != 0;
            let way = if direct { Way::Direct } else { Way::Buffered };
            kernel.read_mapped(node, way, begin, begin.saturating_add(length))?
        }
        wire::LSEEK if mapped => {
            let data = number(body, 16, 4) == libc::SEEK_DATA as u64;
            kernel
                .seek(node, number(body, 8, 8), data)?
                .and_then(|found| found.map(|found| found.to_ne_bytes().to_vec()).ok_or(libc::ENXIO))
        }
        _ => kernel.pass(request)?,
    };
    Ok(Some(answer))
}

/// An entry as the double takes it, and as the real kernel does: without flags that it does not know.
fn entry(kernel: &mut Kernel, request: &[u8]) -> Result<Answered<Vec<u8>>> {
    let mut answer = kernel.pass(request)?;
    if let Ok(entry) = &mut answer {
        kernel.know(entry)?;
        entry.get_mut(ENTRY_FLAGS..ENTRY).ok_or("a short entry")?.fill(0);
    }
    Ok(answer)
}

fn list(kernel: &mut Kernel, request: &[u8]) -> Result<Answered<Vec<u8>>> {
    let mut answer = kernel.pass(request)?;
    let mut rest = answer.as_deref_mut().unwrap_or_default();
    while rest.len() > ENTRY + 24 {
        kernel.know(rest)?;
        rest[ENTRY_FLAGS..ENTRY].fill(0);
        let length = (ENTRY + 24 + number(rest, ENTRY + 16, 4) as usize).next_multiple_of(8);
        rest = rest.get_mut(length..).unwrap_or_default();
    }
    Ok(answer)
}
