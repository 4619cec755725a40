//! Answers a tool over the channel: numbers as they should be, and bytes that a terminal acts upon wherever bytes go.

use lazaret_policy::channel::{Channel, ChannelError};
use lazaret_policy::exit;
use lazaret_policy::message::{Answer, Ask, Attributes, Checked, Entry, Report, Summary, Time};
use lazaret_tests::evil::HOSTILE;
use lazaret_worker::memory;

use crate::life::report;

const DIRECTORY: u32 = 2;
const FILE: u32 = 12;
const LINK: u32 = 13;

/// Serves a tool: number 0 as it should be but for the bytes, 1 with another answer than was asked for, 2 with names
/// that can be none, 3 with an error number that there is not, 4 with a list that never ends, 5 with a packet that is no
/// answer, 6 with silence.
pub(crate) fn answer(channel: &Channel, lie: u64) -> ! {
    let mut label = [0; 16];
    label.iter_mut().zip(HOSTILE.iter().cycle()).for_each(|(to, from)| *to = *from);
    let summary = Summary { block_size: 4096, blocks: 64, inodes: 16, label, ..Summary::default() };
    report(channel, &Report::Ready(summary));
    loop {
        let ask = match channel.receive::<Ask>() {
            Ok((ask, _)) => ask,
            Err(ChannelError::Closed) => memory::end(exit::DONE),
            Err(_) => memory::end(exit::CHANNEL),
        };
        let answer = match lie {
            1 => Answer::Found(None),
            2 => Answer::List(vec![entry(FILE, 1, b"a/b"), entry(FILE, 2, b"")]),
            3 => Answer::Failed(i32::MIN),
            4 if matches!(ask, Ask::List { .. }) => Answer::List((0..200).map(|_| entry(FILE, 1, b"again")).collect()),
            5 => {
                let _ = rustix::net::send(channel, &[0xff; 300], rustix::net::SendFlags::NOSIGNAL);
                continue;
            }
            6 => continue,
            _ => honest(&ask),
        };
        if channel.send(&answer, &[]).is_err() {
            memory::end(exit::CHANNEL);
        }
    }
}

fn honest(ask: &Ask) -> Answer {
    match *ask {
        Ask::Inode(number) => Answer::Inode(attributes(number)),
        Ask::Find { ref name, .. } => Answer::Found(match &name[..] {
            b"link" => Some(LINK),
            _ => Some(FILE),
        }),
        Ask::List { cookie: 0, .. } => Answer::List(vec![entry(FILE, 1, HOSTILE), entry(LINK, 2, b"link")]),
        Ask::List { .. } => Answer::List(vec![]),
        Ask::Read { offset: 0, .. } => Answer::Bytes(HOSTILE.to_vec()),
        Ask::Read { .. } => Answer::Bytes(vec![]),
        Ask::Link(_) => Answer::Bytes(HOSTILE.to_vec()),
        // Nothing, where something was asked for.
        Ask::Gather { .. } => Answer::Gathered(vec![]),
        Ask::Runs { .. } => Answer::Runs { runs: vec![], next: None },
        Ask::Map { .. } => Answer::Mapped { pieces: vec![], next: None },
        Ask::Check => Answer::Check(Checked { done: 1, total: 1, over: true, ..Checked::default() }),
    }
}

fn entry(inode: u32, cookie: u64, name: &[u8]) -> Entry {
    Entry { inode, cookie, name: name.to_vec(), attributes: Some(attributes(inode)) }
}

/// Numbers at their ends where that is not the type.
fn attributes(inode: u32) -> Attributes {
    let mode = match inode {
        DIRECTORY => 0o40755,
        LINK => 0o120777,
        _ => 0o100644,
    };
    let time = Time { seconds: i64::MIN, nanoseconds: u32::MAX };
    let size = HOSTILE.len() as u64;
    let (atime, mtime, ctime, crtime) = (time, time, time, Some(time));
    Attributes {
        mode,
        links: u32::MAX,
        uid: u32::MAX,
        gid: u32::MAX,
        size,
        blocks: u64::MAX,
        rdev: u32::MAX,
        atime,
        mtime,
        ctime,
        crtime,
        acl: true,
    }
}
