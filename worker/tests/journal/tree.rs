//! A tree in a form that can be compared: every path with all that can be asked of it, from a mount or from the reader.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lazaret_worker::ext4::{FileKind, Filesystem, Inode, InodeNumber, Timestamp};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) links: u64,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    /// Access, change of the data, change of the inode: seconds and nanoseconds.
    pub(crate) times: [(i64, i64); 3],
    /// A file's content, a link's target, a device's number, a directory's names.
    pub(crate) content: u64,
}

/// Every path, the root as the empty one.
pub(crate) type Tree = BTreeMap<Vec<u8>, Object>;

/// As the kernel shows it.
pub(crate) fn of_mount(root: &Path) -> Tree {
    let mut tree = Tree::new();
    visit_mount(root, Vec::new(), &mut tree);
    tree
}

fn visit_mount(path: &Path, name: Vec<u8>, tree: &mut Tree) {
    let stat = fs::symlink_metadata(path).unwrap();
    let content = if stat.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
        names.sort();
        for entry in &names {
            visit_mount(&path.join(std::ffi::OsStr::from_bytes(entry)), [&name[..], b"/", entry].concat(), tree);
        }
        hash(&names.join(&b"/"[..]))
    } else if stat.is_file() {
        hash(&fs::read(path).unwrap())
    } else if stat.is_symlink() {
        hash(fs::read_link(path).unwrap().as_os_str().as_bytes())
    } else {
        stat.rdev()
    };
    let object = Object {
        inode: stat.ino(),
        mode: stat.mode(),
        links: stat.nlink(),
        owner: (stat.uid(), stat.gid()),
        size: stat.size(),
        times: [
            (stat.atime(), stat.atime_nsec()),
            (stat.mtime(), stat.mtime_nsec()),
            (stat.ctime(), stat.ctime_nsec()),
        ],
        content,
    };
    tree.insert(name, object);
}

/// As the reader shows it. Every name that is listed must be found, and a name that is not there must not be.
pub(crate) fn of_reader(filesystem: &Filesystem) -> Tree {
    let mut tree = Tree::new();
    visit_reader(filesystem, InodeNumber::ROOT, Vec::new(), &mut tree);
    tree
}

fn visit_reader(filesystem: &Filesystem, number: InodeNumber, name: Vec<u8>, tree: &mut Tree) {
    let shown = String::from_utf8_lossy(&name).into_owned();
    let inode = filesystem.inode(number).unwrap_or_else(|error| panic!("{shown}: inode {number}: {error}"));
    let content = match inode.kind {
        FileKind::Directory => {
            let mut names = list(filesystem, &inode);
            names.retain(|(name, _)| name != b"." && name != b"..");
            names.sort();
            assert_eq!(filesystem.lookup(&inode, b"no such name"), Ok(None), "{shown}");
            for (entry, number) in &names {
                assert_eq!(filesystem.lookup(&inode, entry), Ok(Some(*number)), "{shown}: {entry:?}");
                visit_reader(filesystem, *number, [&name[..], b"/", entry].concat(), tree);
            }
            hash(&names.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(&b"/"[..]))
        }
        FileKind::Regular => {
            let mut bytes = vec![0; usize::try_from(inode.size).unwrap()];
            let read = filesystem.read(&inode, 0, &mut bytes).unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(read, bytes.len());
            hash(&bytes)
        }
        FileKind::Symlink => hash(&filesystem.read_link(&inode).unwrap()),
        _ => inode.rdev.into(),
    };
    let time = |time: Timestamp| (time.seconds, time.nanoseconds.into());
    let object = Object {
        inode: number.value().into(),
        mode: inode.mode().into(),
        links: inode.links.into(),
        owner: (inode.uid, inode.gid),
        size: inode.size,
        times: [time(inode.atime), time(inode.mtime), time(inode.ctime)],
        content,
    };
    tree.insert(name, object);
}

/// The entries of a directory, asked for a few at a time; cookies rise.
fn list(filesystem: &Filesystem, directory: &Inode) -> Vec<(Vec<u8>, InodeNumber)> {
    let (mut entries, mut cookie) = (Vec::new(), 0);
    loop {
        let before = entries.len();
        filesystem
            .read_dir(directory, cookie, &mut |entry| {
                assert!(entry.cookie > cookie);
                cookie = entry.cookie;
                entries.push((entry.name.to_vec(), entry.inode));
                if entries.len() - before < 7 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
        if entries.len() == before {
            return entries;
        }
    }
}

/// Leaves out of the comparison what the kernel's replay of fast commits adds to directories: it changes them now, as
/// anybody would, and gives them blocks as it sees fit.
pub(crate) fn forget_what_a_replay_adds(tree: &mut Tree) {
    for object in tree.values_mut().filter(|object| object.mode & 0o170000 == 0o040000) {
        object.times = [(0, 0); 3];
        object.size = 0;
    }
}

/// Demands that two trees are the same, and names the first paths where they are not.
pub(crate) fn demand_same(ours: &Tree, right: &Tree) {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(right.keys()).collect();
    let differences: Vec<_> = paths
        .into_iter()
        .filter(|path| ours.get(*path) != right.get(*path))
        .map(|path| format!("{}: ours {:?}, right {:?}", path.escape_ascii(), ours.get(path), right.get(path)))
        .collect();
    assert!(differences.is_empty(), "{} differ: {:#?}", differences.len(), &differences[..differences.len().min(8)]);
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
