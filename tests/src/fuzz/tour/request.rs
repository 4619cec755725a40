//! A request of a tour, and what must hold of the answer to it.

use std::hash::{DefaultHasher, Hash};
use std::ops::ControlFlow;

use lazaret_worker::error::{Error, Result};
use lazaret_worker::ext4::checksum::crc32c;
use lazaret_worker::ext4::seek::Wanted;
use lazaret_worker::ext4::{FileOffset, Filesystem, Inode, InodeFlags, InodeNumber, MappingKind};

use super::super::own::Own;

/// A request, such that it can be made again.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Inode,
    Size,
    Attributes,
    Attribute(Vec<u8>),
    Link,
    Read(u64, usize),
    Map(u64),
    Seek(u64, Wanted),
    List(u64, usize),
    Find(Vec<u8>),
}

/// What an answer is to the rest of a tour.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) length: u64,
    pub(super) at: u64,
    pub(super) names: Vec<(Vec<u8>, InodeNumber)>,
}

/// Makes a request, and says what must hold of the answer; what was told goes into the digest.
pub(super) fn answer(
    fs: &Filesystem,
    own: &Own,
    buffer: &mut [u8],
    inode: &Inode,
    request: &Request,
    digest: Option<&mut DefaultHasher>,
) -> Result<Answer> {
    let mut told = String::new();
    let compared = digest.is_some();
    let mut tell = |what: &dyn std::fmt::Debug| {
        if compared {
            told.push_str(&format!("{what:?};"));
        }
    };
    let mut answer = Answer::default();
    let result = match request {
        Request::Inode => {
            let times = [Some(inode.atime), Some(inode.mtime), Some(inode.ctime), inode.crtime];
            let whole = times.iter().flatten().all(|time| time.nanoseconds < 1_000_000_000);
            assert!(whole, "a second that is longer: {times:?}");
            tell(inode);
            Ok(())
        }
        Request::Size => {
            tell(&fs.shown_size(inode));
            Ok(())
        }
        Request::Attributes => fs.xattrs(inode, &mut |xattr| {
            let name = [xattr.namespace.prefix().as_bytes(), xattr.name].concat();
            assert!(!xattr.name.contains(&0), "a NUL in the name of an attribute");
            tell(&name);
            answer.names.push((name, inode.number));
            ControlFlow::Continue(())
        }),
        Request::Attribute(name) => fs.xattr(inode, name).map(|value| tell(&value)),
        Request::Link => fs.read_link(inode).map(|target| {
            assert!((1..4096).contains(&target.len()) && !target.contains(&0), "a target {target:?}");
            tell(&target);
        }),
        Request::Read(at, most) => fs.read(inode, *at, &mut buffer[..*most]).map(|length| {
            assert!(length as u64 == inode.size.saturating_sub(*at).min(*most as u64), "a read of {length}");
            answer.length = length as u64;
            tell(&crc32c(0, &buffer[..length]));
        }),
        Request::Map(at) => map(fs, own, buffer, inode, *at).map(|(length, kind)| {
            answer.length = length;
            tell(&(length, kind));
        }),
        Request::Seek(at, wanted) => fs.seek(inode, *at, *wanted).and_then(|found| {
            tell(&found);
            let found = found.ok_or(Error::NoMore)?;
            assert!(found >= *at && found <= inode.size, "a search from {at} ends at {found} of {}", inode.size);
            answer.at = found;
            Ok(())
        }),
        Request::List(cookie, most) => list(fs, inode, *cookie, *most, &mut answer).map(|()| {
            let sum = answer.names.iter().fold(0, |sum, (name, number)| crc32c(sum, name) ^ number.value());
            tell(&(answer.names.len(), sum));
        }),
        Request::Find(name) => fs.lookup(inode, name).map(|found| {
            assert!(found.is_none() || (1..=255).contains(&name.len()), "a name of {} bytes", name.len());
            tell(&found);
        }),
    };
    if let Err(error) = &result {
        tell(error);
    }
    if let Some(digest) = digest {
        told.hash(digest);
    }
    result.map(|()| answer)
}

fn list(fs: &Filesystem, directory: &Inode, cookie: u64, most: usize, answer: &mut Answer) -> Result<()> {
    answer.at = cookie;
    fs.read_dir(directory, cookie, &mut |entry| {
        if answer.names.len() >= most {
            return ControlFlow::Break(());
        }
        assert!(entry.cookie > answer.at, "a cookie {} after {}", entry.cookie, answer.at);
        let name = entry.name;
        let foreign = name.iter().fold(0, |found, &byte| found | u8::from((byte == 0) | (byte == b'/')));
        assert!((1..=255).contains(&name.len()) && foreign == 0, "a name {name:?}");
        answer.at = entry.cookie;
        answer.names.push((name.to_vec(), entry.inode));
        ControlFlow::Continue(())
    })
}

/// Where a file lies, and whether it may.
fn map(fs: &Filesystem, own: &Own, buffer: &mut [u8], inode: &Inode, at: u64) -> Result<(u64, MappingKind)> {
    let left = inode.size.saturating_sub(at);
    let mapping = fs.map(inode, FileOffset(at), left)?;
    assert!(mapping.length <= left && (mapping.length > 0 || left == 0), "a mapping of {} of {left}", mapping.length);
    if let MappingKind::Data(start) | MappingKind::Unwritten(start) = mapping.kind {
        let size = fs.superblock().block_size;
        let end = start.0.checked_add(mapping.length).expect("a mapping ends");
        let blocks = start.0 >> size.bits()..end.div_ceil(size.bytes().into());
        assert!(blocks.end <= fs.superblock().blocks, "blocks {blocks:?} lie beyond the file system");
        let taken = own.taken(inode.number, &blocks);
        assert!(taken.is_none(), "inode {} holds {blocks:?}, and the file system {taken:?}", inode.number.value());
    }
    // What is read is what lies there.
    let first = buffer.len().min(512).min(usize::try_from(mapping.length).unwrap_or(usize::MAX));
    let sealed = inode.flags.contains(InodeFlags::VERITY) || inode.flags.contains(InodeFlags::ENCRYPT);
    if first > 0 && own.is_known() && !sealed {
        let (read, there) = buffer.split_at_mut(512);
        let there = &mut there[..first];
        let found = match mapping.kind {
            MappingKind::Data(start) => fs.device().read_at(start.0, there),
            MappingKind::Hole | MappingKind::Unwritten(_) => {
                there.fill(0);
                Ok(())
            }
            MappingKind::Inline => return Ok((mapping.length, mapping.kind)),
        };
        let same = found.is_err() || fs.read(inode, at, &mut read[..first]).is_err() || read[..first] == *there;
        assert!(same, "what is read of inode {} at {at} does not lie there", inode.number.value());
    }
    Ok((mapping.length, mapping.kind))
}
