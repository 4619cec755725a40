//! From a path to an inode of an image, name by name.
//!
//! What holds here: a path is walked within the image and nowhere else: an absolute link begins at the image's root, and
//! above the root there is the root. Links and names are counted, so a path ends whatever the image says.

use crate::exit::{Failure, words};
use crate::tool::{Image, ROOT};
use lazaret_policy::message::Attributes;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The most links that one path may follow, as in the kernel.
const LINKS: usize = 40;
/// The most names that one path may have, those of its links among them.
const NAMES: usize = 4096;

/// Where a path has led.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The inode.
    pub inode: u32,
    /// What it is.
    pub attributes: Attributes,
}

/// What a path names. Links on the way are followed; the last one only if `follow`.
pub(crate) fn resolve(image: &mut Image<'_>, path: &[u8], follow: bool) -> Result<Place, Failure> {
    walk(image, path, follow).map_err(|failure| failure.at(OsStr::from_bytes(path)))
}

fn walk(image: &mut Image<'_>, path: &[u8], follow: bool) -> Result<Place, Failure> {
    let mut way = vec![Place { inode: ROOT, attributes: image.attributes(ROOT)? }];
    let mut names = vec![];
    push(&mut names, path);
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = names.pop() {
        steps += 1;
        if steps > NAMES {
            return Err(Failure::mount(words(Errno::NAMETOOLONG)).local());
        }
        let here = way.last().copied().unwrap_or(way[0]);
        if !is(&here.attributes, libc::S_IFDIR) {
            return Err(Failure::mount(words(Errno::NOTDIR)).local());
        }
        match &name[..] {
            b"." => {}
            // Nothing lies above the root.
            b".." => way.truncate(way.len().saturating_sub(1).max(1)),
            _ => {
                let inode = image.find(here.inode, &name)?;
                let attributes = image.attributes(inode)?;
                if is(&attributes, libc::S_IFLNK) && (follow || !names.is_empty()) {
                    links += 1;
                    if links > LINKS {
                        return Err(Failure::mount(words(Errno::LOOP)).local());
                    }
                    let target = image.link(inode)?;
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    push(&mut names, &target);
                } else {
                    way.push(Place { inode, attributes });
                }
            }
        }
    }
    Ok(way.last().copied().unwrap_or(way[0]))
}

/// The names of a path, the first on top. A slash at its end asks for a directory.
fn push(names: &mut Vec<Vec<u8>>, path: &[u8]) {
    if path.ends_with(b"/") {
        names.push(b".".to_vec());
    }
    names.extend(path.rsplit(|&byte| byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
}

/// Whether it is of this type, as `S_IFDIR`.
pub(crate) fn is(attributes: &Attributes, kind: u32) -> bool {
    u32::from(attributes.mode) & libc::S_IFMT == kind
}

/// The path of a name in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_its_names() {
        let names = |path: &str| {
            let mut names = vec![];
            push(&mut names, path.as_bytes());
            names.reverse();
            String::from_utf8(names.join(&b' ')).unwrap()
        };
        assert_eq!(names("/a//b/../c"), "a b .. c");
        assert_eq!((names("/"), names(""), names("a/")), (".".into(), String::new(), "a .".into()));
        assert_eq!((join(b"/", b"a"), join(b"/a", b"b")), (b"/a".to_vec(), b"/a/b".to_vec()));
    }
}
