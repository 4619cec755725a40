//! What a worker can say to the broker, mutated: whatever comes over the channel is a message of its form or an error,
//! and never more than that. The sequence is the same in each run.

use std::os::fd::{AsFd, OwnedFd};

use lazaret_policy::channel::{Channel, ChannelError};
use lazaret_policy::message::{Answer, Layers, Message, Range, Refusal, Replayed, Report, Step, Summary};
use lazaret_policy::scan::Scanned;
use lazaret_tests::mutate::random::Random;
use lazaret_tests::prove;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Packets that are tried of each kind of message.
const PACKETS: usize = 100_000;

/// How a packet is sent: as it is, or by a sender that harms what is to be found.
type Send = fn(&OwnedFd, &[u8]);

fn as_it_is(end: &OwnedFd, packet: &[u8]) {
    send(end, packet, SendFlags::NOSIGNAL).expect("room for one packet");
}

/// A message as it goes over the channel.
fn encoded<M: Message>(message: &M) -> Vec<u8> {
    let (ours, theirs) = Channel::pair().expect("a channel");
    ours.send(message, &[]).expect("a message that can be sent");
    let mut bytes = vec![0; M::MAX + 1];
    let (length, _) = recv(&theirs, &mut bytes, RecvFlags::empty()).expect("what was sent");
    bytes.truncate(length);
    bytes
}

/// A packet made of others by one to four changes.
fn mutated(seeds: &[Vec<u8>], random: &mut Random, most: usize) -> Vec<u8> {
    let mut packet = random.pick(seeds).clone();
    for _ in 0..=random.below(4) {
        let at = random.below(packet.len().max(1));
        match random.below(7) {
            0 if !packet.is_empty() => packet[at] ^= 1 << random.below(8),
            1 if !packet.is_empty() => packet[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xfe, 0xff]),
            2 => packet.truncate(at),
            3 => packet.push(random.below(256) as u8),
            4 => packet.extend_from_within(at..),
            5 => packet = (0..random.below(most + 64)).map(|_| random.below(256) as u8).collect(),
            _ => packet.splice(..at.min(packet.len()), random.pick(seeds).iter().copied().take(at)).for_each(drop),
        }
    }
    packet.truncate(most + 64);
    packet
}

/// What is wrong with how a packet was taken; nothing, if nothing is.
fn taken<M: Message + PartialEq + std::fmt::Debug>(packet: &[u8], sent_by: Send) -> Result<bool, String> {
    let (ours, theirs) = Channel::pair().map_err(|error| error.to_string())?;
    sent_by(&theirs, packet);
    match ours.receive::<M>() {
        Ok((_, fds)) if !fds.is_empty() => Err("an fd came with it".to_owned()),
        Ok((message, _)) => {
            let again = encoded(&message);
            // A number may be written longer than it needs; nothing else may be there that the message does not say.
            let same = again.len() <= packet.len() && packet.len() <= M::MAX;
            let (ours, theirs) = Channel::pair().map_err(|error| error.to_string())?;
            as_it_is(&theirs, &again);
            let read_again = ours.receive::<M>().map(|(message, _)| message);
            // Numbers fill up to seven bits a byte: what is longer than its message by more than that holds something else.
            let whole = packet.len() <= again.len() * 10;
            match read_again {
                Ok(read) if read == message && same && whole => Ok(true),
                other => Err(format!("{packet:?} was taken for {message:?}, which is {again:?} and then {other:?}")),
            }
        }
        Err(ChannelError::Malformed) => Ok(false),
        // A packet of no length is what an end that is closed sends.
        Err(ChannelError::Closed) if packet.is_empty() => Ok(false),
        Err(other) => Err(format!("{packet:?}: {other}")),
    }
}

/// Tries packets of chance; how many were messages.
fn tried<M: Message + PartialEq + std::fmt::Debug>(seeds: &[M], sent_by: Send) -> Result<u64, String> {
    let seeds: Vec<Vec<u8>> = seeds.iter().map(encoded).collect();
    let mut random = Random::new(M::MAX as u64);
    let mut messages = 0;
    for seed in &seeds {
        if !taken::<M>(seed, sent_by)? {
            return Err(format!("{seed:?} is a message and was refused"));
        }
        // One byte more than a message is no message.
        if taken::<M>(&[seed.as_slice(), &[0]].concat(), sent_by)? {
            return Err(format!("{seed:?} was taken with a byte more"));
        }
    }
    for _ in 0..PACKETS {
        messages += u64::from(taken::<M>(&mutated(&seeds, &mut random, M::MAX.min(4096)), sent_by)?);
    }
    Ok(messages)
}

fn reports() -> Vec<Report> {
    let full = Summary {
        block_size: u32::MAX,
        blocks: u64::MAX,
        free_blocks: u64::MAX,
        inodes: u32::MAX,
        compat: u32::MAX,
        incompat: u32::MAX,
        ro_compat: u32::MAX,
        wrong_checksums: u64::MAX,
        uuid: [0xff; 16],
        label: [0xff; 16],
        journal: Replayed { transactions: u32::MAX, blocks: 7, revoked: 0, fast_commits: 1, fast_changes: u32::MAX },
        ..Summary::default()
    };
    vec![
        Report::Confined(Layers { landlock: 7, scopes: true, ..Layers::default() }),
        Report::Initialized { iomap: false },
        Report::Initialized { iomap: true },
        Report::Ready(Summary::default()),
        Report::Ready(full),
        Report::Mapped,
        Report::Refused(Refusal::NotExt),
        Report::Refused(Refusal::TooShort { length: 1, needed: u64::MAX }),
        Report::Refused(Refusal::SuperblockLost { broken: None, copies: [1, 8193, u64::MAX] }),
        Report::Refused(Refusal::Setup { step: Step::Map, errno: -1 }),
        Report::Panicked { line: u32::MAX, column: 1 },
    ]
}

fn answers() -> Vec<Answer> {
    vec![
        Answer::Found(Some(12)),
        Answer::Found(None),
        Answer::Bytes(b"some bytes".to_vec()),
        Answer::List(vec![]),
        Answer::Runs { runs: vec![Range { offset: 0, length: 4096 }], next: Some(4096) },
        Answer::Failed(i32::MIN),
    ]
}

#[test]
fn what_a_worker_says_is_a_message_or_an_error() {
    let reports = tried(&reports(), as_it_is).unwrap();
    let answers = tried(&answers(), as_it_is).unwrap();
    // What is never a message shows nothing.
    assert!(reports > 1000 && answers > 1000, "{reports} reports and {answers} answers");
    let counted = vec![("packets tried", 2 * PACKETS as u64), ("packets that were messages", reports + answers)];
    prove::shown("P12", "what a worker says is a message or an error", &counted);
}

#[test]
fn a_scan_is_answered_in_one_form() {
    let messages = tried(&[Scanned::Failed(5), Scanned::Failed(i32::MIN)], as_it_is).unwrap();
    assert!(messages > 100, "{messages}");
}

/// A channel that drops what is left over has to be told from ours.
#[test]
fn a_channel_that_takes_what_is_left_over_is_found() {
    fn careless(end: &OwnedFd, packet: &[u8]) {
        let kept = packet.strip_suffix(&[0]).filter(|kept| kept.len() > 2).unwrap_or(packet);
        as_it_is(end, kept);
    }
    let message = [Report::Panicked { line: 1, column: 1 }];
    assert!(tried(&message, careless).is_err_and(|error| error.contains("with a byte more")));
    prove::shown("P12", "a careless channel is found", &vec![("sabotages found", 1)]);
}

/// Whoever sends an fd with a report sends it to nobody.
#[test]
fn the_brokers_end_takes_no_fd() {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [theirs.as_fd()];
    assert!(with.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
    let bytes = encoded(&Report::Initialized { iomap: false });
    let sent = rustix::net::sendmsg(&theirs, &[std::io::IoSlice::new(&bytes)], &mut with, SendFlags::NOSIGNAL);
    if sent.is_ok() {
        assert!(ours.receive::<Report>().is_ok_and(|(_, fds)| fds.is_empty()));
    }
}
