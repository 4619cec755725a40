//! Everything that can be asked of a file system, with each answer or error, and all errors beside.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::ops::ControlFlow;

use lazaret_worker::error::{Error, Result};
use lazaret_worker::ext4::{FileKind, FileOffset, Filesystem, Inode, InodeNumber};

/// The value of each attribute.
type Attributes = BTreeMap<Vec<u8>, Result<Option<Vec<u8>>>>;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) inode: u32,
    /// Mode, owner, size, space, times, flags.
    facts: Option<String>,
    /// Of a file its bytes, of a link its target, of a directory its names, hashed.
    content: Result<u64>,
    /// What every name of a directory leads to, and a name that it does not have.
    lookups: BTreeMap<Vec<u8>, Result<Option<u32>>>,
    attributes: Result<Attributes>,
}

/// Every path, the root as the empty one; and what was told that is wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    pub(crate) objects: BTreeMap<Vec<u8>, Object>,
    pub(crate) findings: Vec<Error>,
}

/// Walks all of it. Of a directory the names that it had before are asked for as well.
pub(crate) fn walk(fs: &Filesystem, before: Option<&Walk>) -> Walk {
    let mut walk = Walk::default();
    let mut open = vec![(Vec::new(), InodeNumber::ROOT)];
    while let Some((path, number)) = open.pop() {
        assert!(walk.objects.len() < 20_000, "the tree does not end");
        let (object, children) = look(fs, &path, number, before);
        walk.add(&object);
        walk.objects.insert(path, object);
        open.extend(children);
    }
    walk
}

impl Walk {
    fn add(&mut self, object: &Object) {
        let errors = [object.content.err(), object.attributes.as_ref().err().copied()].into_iter().flatten();
        let lookups = object.lookups.values().filter_map(|found| found.err());
        let values = object.attributes.iter().flat_map(|found| found.values().filter_map(|value| value.clone().err()));
        for error in errors.chain(lookups).chain(values) {
            if !self.findings.contains(&error) {
                self.findings.push(error);
            }
        }
    }
}

type Children = Vec<(Vec<u8>, InodeNumber)>;

fn look(fs: &Filesystem, path: &[u8], number: InodeNumber, before: Option<&Walk>) -> (Object, Children) {
    let mut object = Object {
        inode: number.value(),
        facts: None,
        content: Ok(0),
        lookups: BTreeMap::new(),
        attributes: Ok(BTreeMap::new()),
    };
    let inode = match fs.inode(number) {
        Ok(inode) => inode,
        Err(error) => {
            object.content = Err(error);
            return (object, Vec::new());
        }
    };
    object.facts = Some(facts(fs, &inode));
    object.attributes = attributes(fs, &inode);
    let mut children = Vec::new();
    object.content = match inode.kind {
        FileKind::Directory => {
            let (listed, result) = list(fs, &inode);
            let known = before.and_then(|before| before.objects.get(path));
            let names = listed.keys().chain(known.into_iter().flat_map(|known| known.lookups.keys())).cloned();
            for name in names.chain([b"a name that is not there".to_vec()]) {
                let found = fs.lookup(&inode, &name);
                object.lookups.insert(name.clone(), found.map(|found| found.map(InodeNumber::value)));
                let child = found.ok().flatten().or(listed.get(&name).copied());
                if let Some(child) = child.filter(|_| !matches!(&name[..], b"." | b"..")) {
                    children.push(([path, b"/", &name].concat(), child));
                }
            }
            children.sort();
            children.dedup();
            result.map(|()| hash(format!("{listed:?}").as_bytes()))
        }
        FileKind::Symlink => fs.read_link(&inode).map(|target| hash(&target)),
        FileKind::Regular => content(fs, &inode),
        _ => Ok(0),
    };
    (object, children)
}

/// The numbers that the names lead to, and how the listing ended.
fn list(fs: &Filesystem, directory: &Inode) -> (BTreeMap<Vec<u8>, InodeNumber>, Result<()>) {
    let (mut listed, mut cookie) = (BTreeMap::new(), 0);
    let result = fs.read_dir(directory, 0, &mut |entry| {
        assert!(entry.cookie > cookie, "cookies rise");
        cookie = entry.cookie;
        listed.insert(entry.name.to_vec(), entry.inode);
        ControlFlow::Continue(())
    });
    (listed, result)
}

/// Read in pieces, so that a file may say that it is as long as it likes.
fn content(fs: &Filesystem, inode: &Inode) -> Result<u64> {
    const MOST: u64 = 16 << 20;
    let (mut hasher, mut piece, mut at) = (DefaultHasher::new(), vec![0; 64 << 10], 0);
    while at < inode.size.min(MOST) {
        let length = fs.read(inode, at, &mut piece)?;
        hasher.write(&piece[..length]);
        at += length as u64;
    }
    fs.map(inode, FileOffset(0), inode.size)?;
    Ok(hasher.finish())
}

fn attributes(fs: &Filesystem, inode: &Inode) -> Result<Attributes> {
    let mut names = Vec::new();
    fs.xattrs(inode, &mut |xattr| {
        names.push([xattr.namespace.prefix().as_bytes(), xattr.name].concat());
        ControlFlow::Continue(())
    })?;
    Ok(names.into_iter().map(|name| (name.clone(), fs.xattr(inode, &name))).collect())
}

fn facts(fs: &Filesystem, inode: &Inode) -> String {
    let times = (inode.atime, inode.mtime, inode.ctime, inode.crtime);
    let owner = (inode.uid, inode.gid, inode.rdev, inode.generation);
    format!("{:o} {owner:?} {} {} {} {times:?}", inode.mode(), inode.links, fs.shown_size(inode), inode.blocks)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
