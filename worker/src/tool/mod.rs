//! The same file system answered over the channel, for those who look into an image without mounting it.
//!
//! One question, one answer, of bounded size. What a tool does with the answer is its own care: names and contents
//! are the image's.

use crate::error::{Error, Result};
use crate::ext4::{FileKind, Filesystem, InodeNumber};
use lazaret_policy::channel::{Channel, ChannelError};
use lazaret_policy::message::{Answer, Ask, Attributes, Entry, Summary};
use std::ops::ControlFlow;

/// Answers until the tool hangs up.
pub fn serve(filesystem: &Filesystem, channel: &Channel) -> Result<(), ChannelError> {
    loop {
        let ask = match channel.receive::<Ask>() {
            Ok((ask, _)) => ask,
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = answer(filesystem, &ask)
            .unwrap_or_else(|error| Answer::Failed(rustix::io::Errno::from(&error).raw_os_error()));
        channel.send(&answer, &[])?;
    }
}

fn answer(filesystem: &Filesystem, ask: &Ask) -> Result<Answer> {
    let inode = |number: u32| filesystem.inode(InodeNumber::new(number).ok_or(Error::NotFound)?);
    match *ask {
        Ask::Inode(number) => {
            let inode = inode(number)?;
            Ok(Answer::Inode(Attributes {
                mode: inode.mode(),
                links: inode.links.into(),
                uid: inode.uid,
                gid: inode.gid,
                size: filesystem.shown_size(&inode),
                mtime: inode.mtime.seconds,
            }))
        }
        Ask::List { inode: number, cookie } => list(filesystem, &inode(number)?, cookie),
        Ask::Read { inode: number, offset } => {
            let inode = inode(number)?;
            if inode.kind != FileKind::Regular {
                return Err(Error::Invalid);
            }
            let mut bytes = vec![0; Answer::CHUNK];
            let count = filesystem.read(&inode, offset, &mut bytes)?;
            bytes.truncate(count);
            Ok(Answer::Bytes(bytes))
        }
        Ask::Link(number) => Ok(Answer::Bytes(filesystem.read_link(&inode(number)?)?)),
    }
}

/// As many entries as one answer holds.
fn list(filesystem: &Filesystem, directory: &crate::ext4::Inode, cookie: u64) -> Result<Answer> {
    /// Bytes that an entry's numbers take at most beside its name.
    const NUMBERS: usize = 24;
    let mut entries = Vec::new();
    let mut room = Answer::CHUNK;
    let read = filesystem.read_dir(directory, cookie, &mut |entry| {
        let Some(left) = room.checked_sub(entry.name.len().saturating_add(NUMBERS)) else {
            return ControlFlow::Break(());
        };
        room = left;
        entries.push(Entry { inode: entry.inode.value(), cookie: entry.cookie, name: entry.name.to_vec() });
        ControlFlow::Continue(())
    });
    // Entries before the damage are told first; whoever goes on after them gets the error.
    if entries.is_empty() {
        read?;
    }
    Ok(Answer::List(entries))
}

/// The file system in numbers, for the broker.
pub fn summary(filesystem: &Filesystem) -> Summary {
    let superblock = filesystem.superblock();
    Summary {
        block_size: superblock.block_size.bytes(),
        blocks: superblock.blocks,
        free_blocks: superblock.free_blocks,
        inodes: superblock.inodes,
        compat: superblock.compat.bits(),
        incompat: superblock.incompat.bits(),
        ro_compat: superblock.ro_compat.bits(),
        uuid: superblock.uuid,
        label: superblock.label,
        journal: filesystem.replayed(),
    }
}
