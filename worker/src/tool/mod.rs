//! The same file system answered over the channel, for those who look into an image without mounting it.
//!
//! One question, one answer, of bounded size. What a tool does with the answer is its own care: names and contents
//! are the image's.

mod check;
mod gather;
mod map;
mod scan;

use crate::error::{Error, Result};
use crate::ext4::{FileKind, Filesystem, Inode, InodeNumber, Namespace, Timestamp};
use lazaret_policy::channel::{Channel, ChannelError};
use lazaret_policy::message::{Answer, Ask, Attributes, Entry, Summary, Time, Xattrs};
use std::ops::ControlFlow;

pub use scan::serve as scan;

/// Answers until the tool hangs up. These extended attributes are shown.
pub fn serve(filesystem: &Filesystem, shown: Xattrs, channel: &Channel) -> Result<(), ChannelError> {
    let mut checking = None;
    loop {
        let ask = match channel.receive::<Ask>() {
            Ok((ask, _)) => ask,
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = match ask {
            Ask::Check => check::go_on(filesystem, &mut checking),
            Ask::Gather { inodes, begin } => Ok(gather::gather(filesystem, shown, &inodes, begin)),
            ask => answer(filesystem, &ask),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failed(errno(&error)));
        channel.send(&answer, &[])?;
    }
}

fn answer(filesystem: &Filesystem, ask: &Ask) -> Result<Answer> {
    let inode = |number: u32| filesystem.inode(InodeNumber::new(number).ok_or(Error::NotFound)?);
    match *ask {
        Ask::Inode(number) => Ok(Answer::Inode(attributes(filesystem, &inode(number)?))),
        Ask::Find { directory, ref name } => {
            let found = filesystem.lookup(&inode(directory)?, name)?;
            Ok(Answer::Found(found.map(InodeNumber::value)))
        }
        Ask::List { inode: number, cookie, attributes } => list(filesystem, &inode(number)?, cookie, attributes),
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
        Ask::Runs { inode: number, offset } => gather::runs(filesystem, &inode(number)?, offset),
        Ask::Map { inode: number, offset } => map::map(filesystem, &inode(number)?, offset),
        // It goes on from question to question, and the others do not.
        Ask::Check => Err(Error::Invalid),
        // It has no errors but those of its inodes.
        Ask::Gather { .. } => Err(Error::Invalid),
    }
}

/// An error as FUSE would have given it.
fn errno(error: &Error) -> i32 {
    rustix::io::Errno::from(error).raw_os_error()
}

/// As many entries as one answer holds.
fn list(filesystem: &Filesystem, directory: &Inode, cookie: u64, detailed: bool) -> Result<Answer> {
    /// Bytes that an entry's numbers take at most beside its name, and its attributes.
    const NUMBERS: usize = 24;
    const ATTRIBUTES: usize = 112;
    let mut entries = Vec::new();
    let mut room = Answer::CHUNK;
    let beside_name = if detailed { NUMBERS.saturating_add(ATTRIBUTES) } else { NUMBERS };
    let read = filesystem.read_dir(directory, cookie, &mut |entry| {
        let Some(left) = room.checked_sub(entry.name.len().saturating_add(beside_name)) else {
            return ControlFlow::Break(());
        };
        room = left;
        let inode = if detailed { filesystem.inode(entry.inode).ok() } else { None };
        let attributes = inode.map(|inode| attributes(filesystem, &inode));
        entries.push(Entry { inode: entry.inode.value(), cookie: entry.cookie, name: entry.name.to_vec(), attributes });
        ControlFlow::Continue(())
    });
    // Entries before the damage are told first; whoever goes on after them gets the error.
    if entries.is_empty() {
        read?;
    }
    Ok(Answer::List(entries))
}

/// What `stat` would say.
fn attributes(filesystem: &Filesystem, inode: &Inode) -> Attributes {
    Attributes {
        mode: inode.mode(),
        links: inode.links.into(),
        uid: inode.uid,
        gid: inode.gid,
        size: filesystem.shown_size(inode),
        blocks: inode.shown_blocks(),
        rdev: inode.rdev,
        atime: time(inode.atime),
        mtime: time(inode.mtime),
        ctime: time(inode.ctime),
        crtime: inode.crtime.map(time),
        acl: has_acl(filesystem, inode),
    }
}

fn time(Timestamp { seconds, nanoseconds }: Timestamp) -> Time {
    Time { seconds, nanoseconds }
}

/// Attributes that cannot be read are none.
fn has_acl(filesystem: &Filesystem, inode: &Inode) -> bool {
    let mut found = false;
    let _ = filesystem.xattrs(inode, &mut |xattr| {
        found = matches!(xattr.namespace, Namespace::AclAccess | Namespace::AclDefault);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
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
        warnings: filesystem.warnings(),
        wrong_checksums: filesystem.verifier().failures(),
        uuid: superblock.uuid,
        label: superblock.label,
        journal: filesystem.replayed(),
    }
}
