//! The session that a worker has with the kernel, with the kernel's end of it in our hands. Where nothing is changed that
//! opening a file system looks at, it stays from input to input: to make one is dearer than a hundred requests.
//!
//! What always holds here: every packet is sent, and every reply to it is heard before the next input; one whose session
//! has ended gets a new one; and a panic of the session is a panic of whoever asked.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use lazaret_policy::message::{Purpose, Special, Start, Xattrs};
use lazaret_worker::ext4::Filesystem;
use lazaret_worker::fuse;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socketpair,
};

/// Bytes of `struct fuse_in_header` (include/uapi/linux/fuse.h).
pub(super) const HEAD: usize = 40;
/// The number of the request behind all of an input. No other has an odd one.
const LAST: u64 = u64::MAX;
const STATFS: u32 = 17;
const INIT: u32 = 26;
/// Sessions that stay, each with its threads and a buffer of 16 MiB.
const MOST_KEPT: usize = 32;
/// Bytes of a reply that are looked at. Longer ones do not pass the socket.
const LONGEST: usize = 1 << 18;

/// What a session depends on besides what is asked: the image, how it is read, and how it is served.
pub(super) type Key = (usize, u8, bool);

/// How a session is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// There was none: the file system could not be opened.
    None,
    /// It has ended before it answered all.
    Ended,
    /// It has answered all, and goes on.
    GoesOn,
}

/// A session, and the threads that it runs in.
pub(super) struct Session {
    kernel: OwnedFd,
    thread: JoinHandle<io::Result<()>>,
}

/// The sessions that stay, those used last at the end, and room for a reply.
struct Kept {
    sessions: Vec<(Key, Session)>,
    room: Vec<u8>,
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { sessions: Vec::new(), room: Vec::new() }) };
}

impl Session {
    fn new(fs: Filesystem, open_without_asking: bool) -> Self {
        let (kernel, fuse) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        let mut init = vec![0_u8; HEAD + 64];
        let words = [
            (0, 104),
            (4, INIT),
            (8, 1),
            (HEAD, 7),
            (HEAD + 4, 41),
            (HEAD + 8, 1 << 17),
            (HEAD + 12, !0),
            (HEAD + 16, !0),
        ];
        for (at, word) in words {
            init[at..at + 4].copy_from_slice(&u32::to_le_bytes(word));
        }
        send(&kernel, &init, SendFlags::NOSIGNAL).expect("room for one packet");
        let (session, opener) = fuse::handshake(fuse, &start(open_without_asking)).expect("a handshake");
        opener.open(fs);
        let thread = thread::Builder::new().name("session".to_owned()).spawn(move || session.run()).expect("a thread");
        Self { kernel, thread }
    }

    /// Sends these packets and hears each reply; false if the session has ended.
    fn ask(&self, packets: &[Vec<u8>], room: &mut Vec<u8>, hear: &mut dyn FnMut(&[u8])) -> bool {
        room.resize(LONGEST, 0);
        let mut last = [0; HEAD];
        last[..4].copy_from_slice(&(HEAD as u32).to_le_bytes());
        last[4..8].copy_from_slice(&STATFS.to_le_bytes());
        last[8..16].copy_from_slice(&LAST.to_le_bytes());
        last[16] = 1;
        let mut waiting = packets.iter().map(Vec::as_slice).chain([&last[..]]).peekable();
        loop {
            while let Some(packet) = waiting.peek() {
                match send(&self.kernel, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(_) => {
                        waiting.next();
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => return false,
                }
            }
            let mut flags = RecvFlags::empty();
            if waiting.peek().is_some() {
                // It may wait for us to hear, or we for room.
                let _ = poll(&mut [PollFd::new(&self.kernel, PollFlags::IN | PollFlags::OUT)], None);
                flags = RecvFlags::DONTWAIT;
            }
            match recv(&self.kernel, &mut room[..], flags) {
                Ok((length @ 1.., _)) => {
                    let reply = &room[..length];
                    if reply.get(8..16) == Some(&LAST.to_le_bytes()[..]) {
                        return true;
                    }
                    hear(reply);
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it has panicked.
    fn end(self) {
        let _ = shutdown(&self.kernel, Shutdown::Both);
        drop(self.kernel);
        // That nothing comes any more is an error to fuser, and so is a thread of its own that has panicked.
        let ended = self.thread.join();
        let panicked = |error: &io::Error| error.kind() == io::ErrorKind::Other;
        let well = ended.is_ok_and(|ended| !ended.as_ref().is_err_and(panicked));
        assert!(well || thread::panicking(), "the session has panicked");
    }
}

/// Asks a session that stays, or that is made for it, and is opened by `open`.
pub(super) fn asked(
    key: Option<Key>,
    open: impl FnOnce() -> Option<(Filesystem, bool)>,
    packets: &[Vec<u8>],
    hear: &mut dyn FnMut(&[u8]),
) -> Left {
    let (kept, mut room) = KEPT.with_borrow_mut(|kept| {
        let place = kept.sessions.iter().position(|(of, _)| Some(*of) == key);
        (place.map(|place| kept.sessions.remove(place).1), std::mem::take(&mut kept.room))
    });
    let made = || open().map(|(fs, open_without_asking)| Session::new(fs, open_without_asking));
    let Some(session) = kept.or_else(made) else { return Left::None };
    let goes_on = session.ask(packets, &mut room, hear);
    let old = KEPT.with_borrow_mut(|kept| {
        kept.room = room;
        match key {
            Some(key) if goes_on => kept.sessions.push((key, session)),
            _ => return Some(session),
        }
        (kept.sessions.len() > MOST_KEPT).then(|| kept.sessions.remove(0).1)
    });
    if let Some(session) = old {
        session.end();
    }
    if goes_on { Left::GoesOn } else { Left::Ended }
}

fn start(open_without_asking: bool) -> Start {
    Start {
        purpose: Purpose::Mount,
        checksum: Default::default(),
        verity: Default::default(),
        superblock: None,
        trust_descriptors: false,
        special: if open_without_asking { Special::Hide } else { Special::Show },
        xattrs: Xattrs::All,
        uid: None,
        gid: None,
        umask: 0,
        open_without_asking,
        request_timeout: 0,
        iomap: false,
        threads: 1,
        memory: 64 << 20,
    }
}
