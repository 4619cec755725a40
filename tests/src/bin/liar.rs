//! A worker that lies to `extract`: confined as the real one, it answers what the first word of its image says.
//!
//! What holds here: it lies about one thing, and all else is as it should be. Its root holds the file `file` and the
//! directory `below`, which holds another `file`; files hold four bytes.

use std::os::fd::OwnedFd;

use lazaret_policy::channel::Channel;
use lazaret_policy::confine::{confine, narrow};
use lazaret_policy::gather::{Begin, Piece};
use lazaret_policy::message::{Answer, Ask, Attributes, Entry, Order, Range, Report, Summary, Time};
use lazaret_policy::seccomp;

const ROOT: u32 = 2;
const BELOW: u32 = 11;
const FILE: u32 = 12;
const OTHER: u32 = 13;

fn main() {
    let channel = Channel::inherited();
    let Some(lie) = start(&channel) else { return };
    let mut told = 0;
    // With the broker this process ends, too, by whatever its filter thinks of an orderly end.
    while let Ok((ask, _)) = channel.receive::<Ask>() {
        told += 1;
        match answer(&lie, &ask, told) {
            Some(answer) if channel.send(&answer, &[]).is_ok() => {}
            _ => return,
        }
    }
}

/// The start of a worker; what it was told to lie about.
fn start(channel: &Channel) -> Option<String> {
    let (confined, layers) = confine().ok()?;
    channel.send(&Report::Confined(layers), &[]).ok()?;
    channel.receive::<Order>().ok()?;
    channel.send(&Report::Initialized { iomap: false }, &[]).ok()?;
    let (_, mut fds) = channel.receive::<Order>().ok()?;
    let lie = first_word(fds.pop()?)?;
    keep_memory();
    narrow(&confined, seccomp::ANSWERING).ok()?;
    let summary = Summary { block_size: 4096, blocks: 1 << 30, inodes: 100, ..Summary::default() };
    channel.send(&Report::Ready(summary), &[]).ok()?;
    Some(lie)
}

fn first_word(image: OwnedFd) -> Option<String> {
    let mut bytes = [0; 64];
    rustix::io::read(&image, &mut bytes).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

/// The allocator asks the kernel for nothing more once it has had this much and given it back: what was mapped for
/// itself raises its thresholds, and what lies on its heap then stays there.
fn keep_memory() {
    const MIB: usize = 1 << 20;
    std::hint::black_box(vec![1_u8; 24 * MIB]);
    let kept: Vec<Vec<u8>> = (0..4).map(|_| vec![1_u8; 8 * MIB]).collect();
    std::hint::black_box(kept);
}

/// None: to die.
fn answer(lie: &str, ask: &Ask, told: u32) -> Option<Answer> {
    if lie == "silent" && told > 3 {
        loop {
            std::hint::spin_loop();
        }
    }
    Some(match ask {
        Ask::Inode(number) => Answer::Inode(attributes(lie, *number)),
        Ask::Find { .. } => Answer::Found(None),
        Ask::List { inode, cookie, .. } => list(lie, *inode, *cookie)?,
        Ask::Gather { inodes, begin } => gather(lie, inodes, *begin)?,
        Ask::Runs { .. } if lie == "runs-go-back" => Answer::Runs { runs: vec![run(8, 4), run(0, 4)], next: None },
        Ask::Runs { .. } if lie == "runs-for-ever" => Answer::Runs { runs: vec![], next: Some(0) },
        Ask::Runs { .. } if lie == "runs-elsewhere" => Answer::Runs { runs: vec![run(4096, 4)], next: None },
        Ask::Runs { .. } => Answer::Runs { runs: vec![], next: None },
        _ => Answer::Failed(libc::EINVAL),
    })
}

fn run(offset: u64, length: u64) -> Range {
    Range { offset, length }
}

fn list(lie: &str, inode: u32, cookie: u64) -> Option<Answer> {
    let entries = |names: &[(&[u8], u32)]| {
        let number = |at: usize| cookie + at as u64 + 1;
        let each = names.iter().enumerate();
        each.map(|(at, (name, inode))| Entry {
            inode: *inode,
            cookie: number(at),
            name: name.to_vec(),
            attributes: None,
        })
        .collect()
    };
    let lied: Vec<Entry> = match (lie, inode) {
        ("names-for-ever", ROOT) => (0..1000).map(|at| numbered(cookie + at)).collect(),
        ("dots-for-ever", ROOT) => entries(&[(&b"."[..], ROOT); 2000]),
        ("one-cookie", ROOT) => vec![numbered(0)],
        _ if cookie > 0 => vec![],
        ("slash", ROOT) => entries(&[(b"../outside", FILE)]),
        ("absolute", ROOT) => entries(&[(b"/tmp/lazaret-outside", FILE)]),
        ("nul", ROOT) => entries(&[(b"a\0b", FILE)]),
        ("nothing", ROOT) => entries(&[(b"", FILE)]),
        ("long", ROOT) => entries(&[(&[b'x'; 256], FILE)]),
        ("up", ROOT) => entries(&[(b"..", ROOT), (b"..", FILE), (b".", FILE), (b".", FILE), (b"file", FILE)]),
        ("twice", ROOT) => entries(&[(b"below", OTHER), (b"below", BELOW), (b"file", FILE)]),
        ("another-answer", ROOT) => return Some(Answer::Found(Some(2))),
        ("dies", BELOW) => return None,
        ("cycle", BELOW) => entries(&[(b"again", BELOW), (b"root", ROOT)]),
        ("deep", _) => entries(&[(b"deeper", inode + 100)]),
        (_, ROOT) => entries(&[(b"below", BELOW), (b"file", FILE)]),
        (_, BELOW) => entries(&[(b"file", FILE)]),
        _ => vec![],
    };
    Some(Answer::List(lied))
}

fn numbered(number: u64) -> Entry {
    Entry { inode: FILE, cookie: number + 1, name: format!("name {number}").into_bytes(), attributes: None }
}

fn gather(lie: &str, inodes: &[u32], begin: Begin) -> Option<Answer> {
    let mut pieces = vec![];
    for &inode in inodes {
        let whole = begin == Begin::Whole || !pieces.is_empty();
        let first = || Piece::Inode(attributes(lie, inode));
        let data = |offset, bytes: &[u8]| Piece::Data { offset, bytes: bytes.to_vec() };
        let from = if let Begin::Content(from) = begin { from } else { 0 };
        let attribute = |name: &[u8], length| Piece::Attribute { name: name.to_vec(), value: vec![1; length] };
        let honest = || {
            let content = if inode == OTHER || inode == FILE { vec![data(0, b"four")] } else { vec![] };
            [vec![first()], content, vec![Piece::End(None)]].concat_pieces()
        };
        pieces.extend(match (lie, inode) {
            ("no-pieces", _) if inode == FILE => return Some(Answer::Gathered(vec![])),
            ("too-much", FILE) => vec![first(), data(0, b"fourfive"), Piece::End(None)],
            ("behind-the-end", FILE) => vec![first(), data(u64::MAX - 2, b"four"), Piece::End(None)],
            ("backwards", FILE) => vec![first(), data(2, b"ur"), data(0, b"fo"), Piece::End(None)],
            ("more-than-asked", FILE) => [honest(), honest(), honest()].concat_pieces(),
            ("content-of-a-directory", BELOW) => vec![first(), data(0, b"four"), Piece::End(None)],
            ("no-type", FILE) => vec![first(), Piece::End(None)],
            ("value-too-long", FILE) => vec![first(), attribute(b"user.a", 70_000), Piece::End(None)],
            ("name-with-nul", FILE) => vec![first(), attribute(b"user.\0", 1), Piece::End(None)],
            ("privileges", FILE) => {
                let names: [&[u8]; 4] = [b"security.capability", b"trusted.a", b"system.data", b"security.selinux"];
                let attributes = names.map(|name| attribute(name, 20)).into();
                [vec![first()], attributes, vec![data(0, b"four"), Piece::End(None)]].concat_pieces()
            }
            ("device", FILE) => vec![first(), Piece::End(None)],
            ("link-out", FILE) => vec![first(), data(0, b"../outside"), Piece::End(None)],
            ("link-too-long", FILE) => vec![first(), data(0, &[b'x'; 5000]), Piece::End(None)],
            ("link-nowhere", FILE) => vec![first(), Piece::End(None)],
            ("becomes-link", BELOW) if inodes.len() == 1 => vec![
                Piece::Inode(Attributes { mode: 0o120_777, ..attributes(lie, inode) }),
                data(0, b"../outside"),
                Piece::End(None),
            ],
            ("data-for-ever", FILE) if whole => vec![first(), data(0, &[7; 65_536])],
            ("data-for-ever", FILE) => vec![data(from, &[7; 65_536])],
            ("holes-for-ever", FILE) if whole => vec![first(), Piece::Hole(1)],
            ("holes-for-ever", FILE) => vec![Piece::Hole(from + 1)],
            ("elsewhere" | "runs-elsewhere" | "runs-go-back" | "runs-for-ever", FILE) if whole => {
                vec![first(), data(0, &[7; 10])]
            }
            ("elsewhere" | "runs-elsewhere" | "runs-go-back" | "runs-for-ever", FILE) => vec![Piece::End(None)],
            ("attributes-for-ever", FILE) if whole => vec![first(), attribute(b"user.a", 60_000)],
            ("attributes-for-ever", FILE) => vec![attribute(b"user.a", 60_000)],
            ("dies-within", FILE) if whole => vec![first(), data(0, b"begun")],
            ("dies-within", FILE) => return None,
            _ => honest(),
        });
        if !matches!(pieces.last(), Some(Piece::End(_))) {
            break;
        }
    }
    Some(Answer::Gathered(pieces))
}

trait Concat {
    fn concat_pieces(self) -> Vec<Piece>;
}

impl<const N: usize> Concat for [Vec<Piece>; N] {
    fn concat_pieces(self) -> Vec<Piece> {
        self.into_iter().flatten().collect()
    }
}

fn attributes(lie: &str, inode: u32) -> Attributes {
    let endless = ["data-for-ever", "holes-for-ever"].contains(&lie);
    let long = ["dies-within", "elsewhere", "runs-elsewhere", "runs-go-back", "runs-for-ever"].contains(&lie);
    let (mode, size) = match (lie, inode) {
        ("no-type", FILE) => (0o644, 4),
        ("privileges", FILE) => (0o106_777, 4),
        ("device", FILE) => (0o060_666, 0),
        ("link-out" | "link-too-long" | "link-nowhere", FILE) => (0o120_777, 10),
        (_, FILE) if endless => (0o100_644, 1 << 50),
        (_, FILE) if long => (0o100_644, 100_000),
        ("very-long", FILE) => (0o100_644, u64::MAX),
        (_, FILE | OTHER) => (0o100_644, 4),
        _ => (0o040_755, 4096),
    };
    let nanoseconds = if lie == "nanoseconds" && inode == FILE { 1_000_000_000 } else { 5 };
    let time = Time { seconds: 1_000_000_000, nanoseconds };
    let (atime, mtime, ctime, crtime) = (time, time, time, None);
    // Space as if there were no holes, so that no limit on them keeps a lie from being met.
    let blocks = if lie == "very-long" { 0 } else { size / 512 + 1 };
    Attributes { mode, links: 1, uid: 0, gid: 0, size, blocks, rdev: 0x801, atime, mtime, ctime, crtime, acl: false }
}
