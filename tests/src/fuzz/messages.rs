//! What broker and worker say to each other, as packets: in both directions, and what the worker makes of questions.
//!
//! An input of `reports` and `orders` is one byte for the type and the packet; one of `questions` begins as one of a whole
//! image, with the number of changes before them, and then has any number of packets, each behind its length in two bytes,
//! for a worker that answers a tool or scans a disk.

use std::fmt::Debug;
use std::os::fd::OwnedFd;

use lazaret_policy::channel::Channel;
use lazaret_policy::gather::Begin;
use lazaret_policy::message::{
    Answer, Ask, Checked, Entry, Layers, Message, Order, Purpose, Range, Refusal, Report, Start, Summary, Xattrs,
};
use lazaret_policy::scan::{Scan, Scanned, Table};
use lazaret_worker::ext4::{Filesystem, Settings};
use lazaret_worker::tool;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::image::{CHANGE, Recipe, SEALED};
use super::scratch::Scratch;
use super::stock::{sound, stock};
use super::window::settings;
use super::{mutator, target};
use crate::mutate::random::Random;

/// What the broker hears.
pub fn reports(input: &[u8]) {
    let Some((kind, packet)) = input.split_first() else { return };
    match kind % 3 {
        0 => decoded::<Report>(packet),
        1 => decoded::<Answer>(packet),
        _ => decoded::<Scanned>(packet),
    }
}

/// What the worker hears.
pub fn orders(input: &[u8]) {
    let Some((kind, packet)) = input.split_first() else { return };
    match kind % 3 {
        0 => decoded::<Order>(packet),
        1 => decoded::<Ask>(packet),
        _ => decoded::<Scan>(packet),
    }
}

thread_local! {
    static PAIR: (Channel, OwnedFd) = Channel::pair().expect("a channel");
}

/// A packet is no message, or one that says the same again.
fn decoded<M: Message + PartialEq + Debug>(packet: &[u8]) {
    if packet.len() > M::MAX + 64 {
        return;
    }
    PAIR.with(|(ours, theirs)| {
        if packet.is_empty() {
            return;
        }
        send(theirs, packet, SendFlags::NOSIGNAL).expect("room for one packet");
        let Ok((message, fds)) = ours.receive::<M>() else { return };
        assert!(fds.is_empty() && packet.len() <= M::MAX, "{} bytes are a message", packet.len());
        if message.fds() > 0 {
            return;
        }
        let longer = [packet, &[0]].concat();
        send(theirs, &longer, SendFlags::NOSIGNAL).expect("room for one packet");
        assert!(ours.receive::<M>().is_err(), "a byte may be left over");
        // A number may be written longer than it needs to be; the message has one shortest form.
        let Some(shortest) = encoded(ours, theirs, &message) else { return };
        send(theirs, &shortest, SendFlags::NOSIGNAL).expect("room for one packet");
        let (again, _) = ours.receive::<M>().expect("what was sent is a message");
        assert!(again == message && shortest.len() <= packet.len(), "{message:?} became {again:?}");
    });
}

/// A message as it goes over the channel; none if it is longer than it may be.
fn encoded<M: Message>(ours: &Channel, theirs: &OwnedFd, message: &M) -> Option<Vec<u8>> {
    ours.send(message, &[]).ok()?;
    let mut bytes = vec![0; M::MAX + 1];
    let (length, _) = recv(theirs, &mut bytes, RecvFlags::empty()).expect("what was sent");
    bytes.truncate(length);
    Some(bytes)
}

fn packet<M: Message>(message: &M) -> Vec<u8> {
    PAIR.with(|(ours, theirs)| encoded(ours, theirs, message)).unwrap_or_default()
}

/// Packets of an input that a worker is asked with.
const MOST_PACKETS: usize = 6;
/// The bit of an input's third byte that says so.
const WHOLE_DISK: u8 = 0x80;

/// Questions to a worker that has a changed image open, or a whole disk.
pub fn questions(input: &[u8]) {
    let (recipe, bits, packets) = Recipe::split(input);
    Scratch::of(recipe.sound()).with(
        |changes| recipe.apply(changes),
        |scratch| asked(scratch, (bits & WHOLE_DISK == 0).then(|| settings(recipe.flags)), packets),
    );
}

/// Changes the image, or the packets.
pub fn mutate_questions(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let (mut recipe, bits, packets) = Recipe::split(input);
    let mut packets = packets.to_vec();
    if random.below(2) == 0 {
        recipe = Recipe::decode(&mutator::recipe(&recipe.encode(), 2 + Recipe::LEADING * CHANGE, random));
    } else {
        packets = target::bytes(&packets, most, random);
    }
    let whole = recipe.join(bits, &packets);
    if whole.len() > most { input.to_vec() } else { whole }
}

/// Asks what was opened with these settings, or the whole disk.
fn asked(scratch: &Scratch, open: Option<Settings>, mut rest: &[u8]) {
    let (ours, theirs) = Channel::pair().expect("a channel");
    for _ in 0..MOST_PACKETS {
        let Some((length, more)) = rest.split_first_chunk() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(more.len());
        if length > 0 && send(&theirs, &more[..length], SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_err() {
            break;
        }
        rest = &more[length..];
    }
    shutdown(&theirs, Shutdown::Write).expect("a channel");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = match open.map(|settings| Filesystem::open(scratch.device(), settings)) {
                Some(Ok(fs)) => tool::serve(&fs, Xattrs::All, &ours),
                Some(Err(_)) => Ok(()),
                None => tool::scan(&scratch.device(), &ours),
            };
            // The end of the answers, for who reads them.
            drop(ours);
        });
        let (heard, mouth) = Channel::pair().expect("a channel");
        let mut bytes = vec![0; Answer::MAX + 1];
        while let Ok((length @ 1.., _)) = recv(&theirs, &mut bytes, RecvFlags::empty()) {
            send(&mouth, &bytes[..length], SendFlags::NOSIGNAL).expect("room for one packet");
            let understood = if open.is_some() {
                heard.receive::<Answer>().map(|(answer, _)| answered(&answer)).is_ok()
            } else {
                heard.receive::<Scanned>().is_ok()
            };
            assert!(understood, "an answer that the broker does not take");
        }
    });
}

/// What holds of an answer whatever was asked.
fn answered(answer: &Answer) {
    if let Answer::List(entries) = answer {
        let rise = entries.windows(2).all(|two| two[0].cookie < two[1].cookie);
        let good = |entry: &Entry| {
            (1..=255).contains(&entry.name.len()) && !entry.name.iter().any(|byte| matches!(byte, 0 | b'/'))
        };
        assert!(rise && entries.iter().all(good), "{entries:?}");
    }
}

/// First inputs of [`orders`].
pub fn order_seeds() -> Vec<Vec<u8>> {
    let start = Start {
        purpose: Purpose::Tool,
        checksum: Default::default(),
        verity: Default::default(),
        superblock: Some(32),
        trust_descriptors: false,
        special: Default::default(),
        xattrs: Xattrs::All,
        uid: Some(1000),
        gid: None,
        umask: 0o22,
        open_without_asking: true,
        request_timeout: 60,
        iomap: true,
        threads: 4,
        memory: 64 << 20,
    };
    let mut seeds = vec![[&[0], &packet(&Order::Start(start))[..]].concat()];
    seeds.extend(asks().iter().map(|ask| [&[1], &packet(ask)[..]].concat()));
    seeds.extend(scans().iter().map(|scan| [&[2], &packet(scan)[..]].concat()));
    seeds
}

fn asks() -> Vec<Ask> {
    vec![
        Ask::Inode(2),
        Ask::Find { directory: 2, name: b"file".to_vec() },
        Ask::List { inode: 2, cookie: 0, attributes: true },
        Ask::Read { inode: 12, offset: 4096 },
        Ask::Link(14),
        Ask::Check,
        Ask::Gather { inodes: vec![2, 12, 13, 300], begin: Begin::Whole },
        Ask::Runs { inode: 12, offset: 0 },
        Ask::Map { inode: 12, offset: 0 },
    ]
}

fn scans() -> [Scan; 3] {
    [Scan::Table { sector: None }, Scan::Table { sector: Some(4096) }, Scan::Volume { offset: 0 }]
}

/// First inputs of [`questions`].
pub fn question_seeds() -> Vec<Vec<u8>> {
    let framed = |packet: Vec<u8>| [&(packet.len() as u16).to_le_bytes()[..], &packet].concat();
    let asks: Vec<u8> = asks().iter().flat_map(|ask| framed(packet(ask))).collect();
    let scans: Vec<u8> = scans().iter().flat_map(|scan| framed(packet(scan))).collect();
    let on = |image: usize, bits, packets: &[u8]| {
        Recipe { image: image as u8, flags: SEALED, changes: Vec::new() }.join(bits, packets)
    };
    let mut seeds: Vec<_> = (0..stock().len()).map(|image| on(image, 0, &asks)).collect();
    seeds.push(on(0, WHOLE_DISK, &scans));
    seeds
}

/// First inputs of [`reports`].
pub fn report_seeds() -> Vec<Vec<u8>> {
    let fs = Filesystem::open(Scratch::of(sound("ext4")).device(), Settings::default()).expect("a sound image opens");
    let summary: Summary = tool::summary(&fs);
    let reports = [
        Report::Confined(Layers::default()),
        Report::Initialized { iomap: true },
        Report::Ready(summary),
        Report::Refused(Refusal::ExternalJournal),
        Report::Panicked { line: 7, column: 9 },
    ];
    let entry = Entry { inode: 12, cookie: 3, name: b"name".to_vec(), attributes: None };
    let answers = [
        Answer::Found(Some(12)),
        Answer::List(vec![entry]),
        Answer::Bytes(vec![7; 40]),
        Answer::Check(Checked::default()),
        Answer::Runs { runs: vec![Range { offset: 0, length: 4096 }], next: Some(8192) },
        Answer::Failed(117),
    ];
    let mut seeds: Vec<Vec<u8>> = reports.iter().map(|one| [&[0], &packet(one)[..]].concat()).collect();
    seeds.extend(answers.iter().map(|one| [&[1], &packet(one)[..]].concat()));
    seeds.push([&[2], &packet(&Scanned::Table(Table::default()))[..]].concat());
    seeds
}
