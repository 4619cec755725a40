//! What the kernel asks over /dev/fuse: raw packets to the very session that a worker runs, on an image that is sound
//! or changed.
//!
//! An input is an image, its flags, how many changes it has, and these; then packets, each behind its length in two
//! bytes. What the kernel never does is not done here either: a packet says its own length, and asks for no more than was
//! agreed.

use std::collections::HashSet;

use lazaret_worker::ext4::{Filesystem, Settings};

use super::image::{CHANGE, Change, IGNORED, Recipe, VERIFIED, WARNED, WORK};
use super::scratch::Scratch;
use super::session::{self, HEAD, Left};
use super::stock::Sound;
use super::window::settings;
use crate::mutate::layout::Kind;
use crate::mutate::random::Random;

/// Bytes of `struct fuse_out_header` (include/uapi/linux/fuse.h).
const REPLY: usize = 16;
/// The most that a request asks for. It may ask for a mebibyte, whose answer would not pass the socket.
const MOST: u32 = 1 << 17;
const MOST_PACKETS: usize = 24;
const MOST_PACKET: usize = 4096;

const LOOKUP: u32 = 1;
const SETATTR: u32 = 4;
const READ: u32 = 15;
const WRITE: u32 = 16;
const SETXATTR: u32 = 21;
const IOCTL: u32 = 39;
/// `FUSE_NOTIFY_INVAL_INODE`, where an answer has its error.
const INVAL_INODE: i32 = 2;
const READDIR: u32 = 28;
const READDIRPLUS: u32 = 44;
const DESTROY: u32 = 38;
/// Node ids that requests are about: the root, what the images have, what they have not.
const NODES: [u64; 14] = [1, 11, 12, 13, 14, 15, 16, 17, 18, 2, 0, 129, 1 << 32, u64::MAX];
/// Every operation with the length of what stands before the names it has, and how many names.
const OPERATIONS: [(u32, usize, usize); 40] = [
    (1, 0, 1),
    (2, 8, 0),
    (3, 16, 0),
    (4, 88, 0),
    (5, 0, 0),
    (6, 0, 2),
    (8, 16, 1),
    (9, 8, 1),
    (10, 0, 1),
    (11, 0, 1),
    (12, 8, 2),
    (13, 8, 1),
    (14, 8, 0),
    (15, 40, 0),
    (16, 40, 1),
    (17, 0, 0),
    (18, 24, 0),
    (20, 16, 0),
    (21, 8, 2),
    (22, 8, 1),
    (23, 8, 0),
    (24, 0, 1),
    (25, 24, 0),
    (27, 8, 0),
    (28, 40, 0),
    (29, 24, 0),
    (30, 16, 0),
    (31, 48, 0),
    (34, 8, 0),
    (35, 16, 1),
    (36, 8, 0),
    (37, 16, 0),
    (38, 0, 0),
    (39, 32, 0),
    (40, 24, 0),
    (42, 40, 0),
    (43, 32, 0),
    (44, 40, 0),
    (46, 24, 0),
    (47, 56, 0),
];

/// Serves the packets of an input, and looks at each reply.
pub fn requests(input: &[u8]) {
    let (recipe, open_without_asking, packets) = split(input);
    let sound = recipe.sound();
    // Some have a session of their own, in which what was checked is kept.
    let alone = matches!(recipe.flags & 0xf0, WORK | 0xf0) || !recipe.changes.iter().all(|change| stays(change, sound));
    let read = recipe.flags & (WARNED | IGNORED | VERIFIED);
    let key = (!alone).then_some((std::ptr::from_ref(sound) as usize, read, open_without_asking));
    let settings = Settings { keeps: alone, ..settings(recipe.flags) };
    let mut seen = HashSet::new();
    Scratch::of(sound).with(
        |changes| recipe.apply(changes),
        |scratch| {
            let open = || Some((Filesystem::open(scratch.device(), settings).ok()?, open_without_asking));
            match session::asked(key, open, &packets, &mut |reply| hear(reply, &packets, &mut seen)) {
                Left::None => {}
                Left::Ended => assert!(packets.iter().any(|packet| may_end(packet)), "the session ends: {packets:?}"),
                Left::GoesOn => {
                    let silent = silent(&packets, &seen);
                    assert!(silent.is_none(), "not answered: {silent:?}");
                }
            }
        },
    );
}

/// Whether a session may end at this packet: at the request for that, and at what no kernel sends.
fn may_end(packet: &[u8]) -> bool {
    const DESTROY: u32 = 38;
    let operation = u32_at(packet, 4);
    let Some(&(_, fixed, names)) = OPERATIONS.iter().find(|(number, ..)| *number == operation) else { return true };
    let behind = packet.get(HEAD + fixed..);
    let is_whole = behind.is_some_and(|behind| behind.iter().filter(|byte| **byte == 0).count() >= names);
    operation == DESTROY || !is_whole
}

/// A request that waits for its answer to this day.
fn silent<'a>(packets: &'a [Vec<u8>], seen: &HashSet<u64>) -> Option<&'a Vec<u8>> {
    const FORGET: u32 = 2;
    const INTERRUPT: u32 = 36;
    const BATCH_FORGET: u32 = 42;
    packets.iter().enumerate().find_map(|(number, packet)| {
        let has_answer = !matches!(u32_at(packet, 4), FORGET | INTERRUPT | BATCH_FORGET);
        (has_answer && !seen.contains(&unique(number))).then_some(packet)
    })
}

/// The number that the request has in the talk: all are even.
fn unique(number: usize) -> u64 {
    2 + 2 * number as u64
}

/// Whether a change is of what a file system that is open reads anew each time.
fn stays(change: &Change, sound: &Sound) -> bool {
    use Kind::{Attributes, Data, Directory, ExtentNode, Inode, Pointers};
    /// The inode of the journal, which opening looks at.
    const JOURNAL: u32 = 8;
    /// Of the superblock's features: a journal that opening replays, whose fast commits go by inodes and directories.
    const RECOVER: u8 = 4;
    if sound.bytes[1024 + 0x60] & RECOVER != 0 {
        return false;
    }
    change.piece(sound).is_none_or(|piece| {
        matches!(piece.kind, Attributes | Data | Directory | ExtentNode | Inode | Pointers) && piece.owner != JOURNAL
    })
}

fn split(input: &[u8]) -> (Recipe, bool, Vec<Vec<u8>>) {
    let (recipe, bits, mut rest) = Recipe::split(input);
    let mut packets = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(more.len());
        packets.push(as_the_kernel(&more[..length], packets.len()));
        rest = &more[length..];
        if packets.len() == MOST_PACKETS {
            break;
        }
    }
    (recipe, bits & 0x80 != 0, packets)
}

/// The packet as the kernel would send it: with its own length and a number of its own, and asking for no more than may be.
fn as_the_kernel(packet: &[u8], number: usize) -> Vec<u8> {
    let mut packet = packet[..packet.len().min(MOST_PACKET)].to_vec();
    packet.resize(packet.len().max(HEAD), 0);
    let length = packet.len() as u32;
    packet[..4].copy_from_slice(&length.to_le_bytes());
    packet[8..16].copy_from_slice(&unique(number).to_le_bytes());
    let operation = u32_at(&packet, 4);
    if matches!(operation, READ | READDIR | READDIRPLUS) && packet.len() >= HEAD + 20 {
        let size = u32_at(&packet, HEAD + 16) % (MOST + 1);
        packet[HEAD + 16..HEAD + 20].copy_from_slice(&size.to_le_bytes());
    }
    // A time that fuser 0.18 cannot take: no kernel asks for another time on a read-only mount.
    if operation == SETATTR {
        for at in [HEAD + 32, HEAD + 40, HEAD + 48] {
            let seconds = u64_at(&packet, at).cast_signed() % (1 << 40);
            if let Some(time) = packet.get_mut(at..at + 8) {
                time.copy_from_slice(&seconds.to_le_bytes());
            }
        }
    }
    // How long is what follows: where the length stands, and from where on it counts.
    let follows = match operation {
        WRITE => Some((HEAD + 16, HEAD + 40)),
        IOCTL => Some((HEAD + 24, HEAD + 32)),
        SETXATTR => packet.iter().skip(HEAD + 8).position(|byte| *byte == 0).map(|nul| (HEAD, HEAD + 9 + nul)),
        _ => None,
    };
    if let Some((field, begin)) = follows.filter(|(_, begin)| *begin <= packet.len()) {
        let size = length - begin as u32;
        packet[field..field + 4].copy_from_slice(&size.to_le_bytes());
    }
    packet
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Looks at one reply; `seen` are those before it.
fn hear(reply: &[u8], packets: &[Vec<u8>], seen: &mut HashSet<u64>) {
    let length = reply.len();
    assert!(
        length >= REPLY && u32_at(reply, 0) as usize == length,
        "a reply of {length} bytes says {}",
        u32_at(reply, 0)
    );
    let (error, unique) = (u32_at(reply, 4) as i32, u64_at(reply, 8));
    // No answer, but what the kernel is told unasked: to forget what it was told of a directory's entries.
    if unique == 0 {
        let whole = length == REPLY + 24 && (u64_at(reply, REPLY + 8), u64_at(reply, REPLY + 16)) == (0, 0);
        assert!(error == INVAL_INODE && whole && u64_at(reply, REPLY) != 0, "{reply:?} is told");
        return;
    }
    assert!((-4095..=0).contains(&error) && (error == 0 || length == REPLY), "error {error} in {length} bytes");
    assert!(seen.insert(unique), "{unique} is answered twice");
    // That of FUSE_INIT, in a session that was made for this.
    if unique == 1 {
        return;
    }
    let request = (unique / 2).checked_sub(1).and_then(|number| packets.get(number as usize));
    let request = request.filter(|_| unique % 2 == 0).unwrap_or_else(|| panic!("{unique} was never asked"));
    if error == 0 {
        answered(request, &reply[REPLY..]);
    }
}

/// What holds of an answer that is no error.
fn answered(request: &[u8], answer: &[u8]) {
    let operation = u32_at(request, 4);
    if matches!(operation, READ | READDIR | READDIRPLUS) {
        let room = u32_at(request, HEAD + 16) as usize;
        assert!(answer.len() <= room, "{} bytes for {room}", answer.len());
    }
    let plus = match operation {
        READDIR => 0,
        READDIRPLUS => 128,
        _ => return,
    };
    let (mut at, mut cookie) = (0, u64_at(request, HEAD + 8));
    while at < answer.len() {
        let entry = &answer[at + plus..];
        let length = u32_at(entry, 16) as usize;
        let name = &entry[24..24 + length];
        assert!((1..=255).contains(&length) && !name.iter().any(|byte| matches!(byte, 0 | b'/')), "a name {name:?}");
        assert!(u64_at(entry, 8) > cookie, "a cookie {} after {cookie}", u64_at(entry, 8));
        cookie = u64_at(entry, 8);
        at += (plus + 24 + length).next_multiple_of(8);
    }
}

/// Changes an input: the image, or a packet of the sequence.
pub fn mutate(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let (mut recipe, open, mut packets) = split(input);
    recipe.changes.truncate(Recipe::LEADING);
    let last = packets.len();
    match random.below(8) {
        0 | 1 => {
            let changed = super::mutator::recipe(&recipe.encode(), 2 + Recipe::LEADING * CHANGE, random);
            recipe = Recipe::decode(&changed);
        }
        2 if last > 1 => packets.swap(random.below(last), random.below(last)),
        3 if last > 1 => drop(packets.remove(random.below(last))),
        4 | 5 if last > 0 => {
            let packet = &mut packets[random.below(last)];
            let at = if random.below(2) == 0 { 16 } else { random.below(packet.len()) };
            match random.below(4) {
                0 => packet[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                1 => packet[at] ^= 1 << random.below(8),
                2 => packet.truncate(at.max(HEAD)),
                _ => packet[16..24].copy_from_slice(&random.pick(&NODES).to_le_bytes()),
            }
        }
        _ => packets.insert(random.below(last + 1), fresh(random)),
    }
    // What is served is the matter here, and not what opening refuses.
    if random.below(32) > 0 {
        let sound = recipe.sound();
        recipe.changes.retain(|change| stays(change, sound));
        recipe.flags &= 0x0f;
    }
    let open = open != (random.below(32) == 0);
    let whole = join(&recipe, open, &packets);
    if whole.len() > most { input.to_vec() } else { whole }
}

/// A request that is well made.
fn fresh(random: &mut Random) -> Vec<u8> {
    // What a worker serves comes as often as what it refuses.
    const SERVED: [u32; 12] = [1, 3, 5, 14, 15, 17, 22, 23, 27, 28, 44, 46];
    let served = OPERATIONS.iter().filter(|(number, ..)| SERVED.contains(number)).copied().collect::<Vec<_>>();
    let &(operation, fixed, names) = if random.below(2) == 0 { random.pick(&served) } else { random.pick(&OPERATIONS) };
    let mut body = vec![0; fixed];
    match operation {
        READ | READDIR | READDIRPLUS => {
            let offset = *random.pick(&[0, 0, 1, 2, 24, 1000, 4096, 9000, 1 << 32, u64::MAX >> 1]);
            body[8..16].copy_from_slice(&offset.to_le_bytes());
            body[16..20].copy_from_slice(&random.pick(&[4096_u32, 100, 32768, 1 << 17, 0]).to_le_bytes());
        }
        22 | 23 => body[..4].copy_from_slice(&random.pick(&[0_u32, 5, 4096, 65536]).to_le_bytes()),
        46 => {
            body[8..16].copy_from_slice(&random.pick(&[0_u64, 3000, 9000, u64::MAX]).to_le_bytes());
            body[16] = random.below(6) as u8;
        }
        _ => {
            for byte in &mut body {
                *byte = if random.below(4) == 0 { random.below(256) as u8 } else { 0 };
            }
        }
    }
    for _ in 0..names {
        let name = *random.pick::<&[u8]>(&[
            &b"file"[..],
            b"d",
            b"sparse",
            b"fast",
            b".",
            b"..",
            b"user.short",
            b"system.posix_acl_access",
            b"",
            b"x",
        ]);
        body.extend_from_slice(name);
        body.push(0);
    }
    let mut packet = vec![0; HEAD];
    packet[4..8].copy_from_slice(&operation.to_le_bytes());
    packet[16..24].copy_from_slice(&random.pick(&NODES).to_le_bytes());
    packet[24] = random.below(2) as u8;
    [packet, body].concat()
}

fn join(recipe: &Recipe, open: bool, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = recipe.join(if open { 0x80 } else { 0 }, &[]);
    for packet in packets {
        whole.extend((packet.len() as u16).to_le_bytes());
        whole.extend_from_slice(packet);
    }
    whole
}

/// First inputs: every operation that is served, on a few images.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(3);
    let seed = |image: u8| {
        let packets: Vec<_> =
            (0..12).map(|_| fresh(&mut random)).filter(|packet| u32_at(packet, 4) != DESTROY).collect();
        join(&Recipe { image, flags: 1, changes: Vec::new() }, image % 2 == 1, &packets)
    };
    (0..24).map(seed).chain([listed()]).collect()
}

/// A listing by names, and so many requests for what it names that the kernel is told to forget it.
fn listed() -> Vec<u8> {
    let packet = |operation: u32, body: &[u8]| {
        let mut head = [0; HEAD];
        head[4..8].copy_from_slice(&operation.to_le_bytes());
        head[16] = 1;
        [&head, body].concat()
    };
    let mut listing = [0; 40];
    listing[16..20].copy_from_slice(&4096_u32.to_le_bytes());
    let mut packets = vec![packet(READDIRPLUS, &listing)];
    packets.extend(vec![packet(LOOKUP, b"file\0"); 10]);
    join(&Recipe { image: 0, flags: 1 | WORK, changes: Vec::new() }, true, &packets)
}
