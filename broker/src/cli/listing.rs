//! A listing of a directory, from a mount or from a worker that is asked without one.
//!
//! What holds here: names are bytes of an image; they are shown escaped.

use super::row::mode_words;
use crate::escape::escaped;
use crate::exit::{Failure, words};
use crate::tool::{self, Image};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a listing is read from: the mount, or the worker itself.
pub(super) enum Tree<'a, 'b> {
    /// A directory of the mount.
    Mounted(&'a Path),
    /// A worker that answers a tool.
    Answered(&'a mut Image<'b>),
}

/// One line of a listing: what `ls -l` shows of an entry.
pub(super) struct Listed {
    /// Escape it before it is shown.
    pub(super) name: OsString,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    target: Option<OsString>,
}

impl Tree<'_, '_> {
    /// The entries of a directory, by name.
    pub(super) fn list(&mut self, path: &[OsString]) -> Result<Vec<Listed>, Failure> {
        let mut entries = match self {
            Self::Mounted(root) => list_mounted(&path.iter().fold(root.to_path_buf(), |path, part| path.join(part))),
            Self::Answered(image) => list_answered(image, path),
        }?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The sha256 of a file's content.
    pub(super) fn hash(&mut self, path: &[OsString]) -> Result<String, Failure> {
        let mut hasher = Sha256::new();
        match self {
            Self::Mounted(root) => {
                let path = path.iter().fold(root.to_path_buf(), |path, part| path.join(part));
                let unread = |error: std::io::Error| Failure::mount(words(error)).about(&path);
                let mut file = std::fs::File::open(&path).map_err(unread)?;
                let mut bytes = vec![0; 1 << 17];
                loop {
                    match file.read(&mut bytes).map_err(unread)? {
                        0 => break,
                        length => hasher.update(&bytes[..length]),
                    }
                }
            }
            Self::Answered(image) => {
                let inode = find(image, path)?;
                image.read(inode, |bytes| {
                    hasher.update(bytes);
                    Ok(())
                })?;
            }
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mode, name) = (mode_words(self.mode), escaped(&self.name));
        write!(f, "{mode} {:>5} {:>5} {:>10} {name}", self.uid, self.gid, self.size)?;
        self.target.iter().try_for_each(|target| write!(f, " -> {}", escaped(target)))
    }
}

impl Listed {
    /// A directory.
    pub(super) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// A file worth reading.
    pub(super) fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG && (1..=64 << 20).contains(&self.size)
    }
}

fn list_mounted(path: &Path) -> Result<Vec<Listed>, Failure> {
    let unread = |error: std::io::Error| Failure::mount(words(error)).about(path);
    let mut entries = vec![];
    for entry in std::fs::read_dir(path).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let status = entry.metadata().map_err(unread)?;
        let target = if status.is_symlink() { std::fs::read_link(entry.path()).ok() } else { None };
        let (mode, uid, gid, size) = (status.mode(), status.uid(), status.gid(), status.size());
        entries.push(Listed { name: entry.file_name(), mode, uid, gid, size, target: target.map(PathBuf::into) });
    }
    Ok(entries)
}

fn list_answered(image: &mut Image<'_>, path: &[OsString]) -> Result<Vec<Listed>, Failure> {
    let inode = find(image, path)?;
    let mut entries = vec![];
    for entry in image.list(inode)? {
        let status = image.attributes(entry.inode)?;
        let link = u32::from(status.mode) & libc::S_IFMT == libc::S_IFLNK;
        let target = if link { Some(OsString::from_vec(image.link(entry.inode)?)) } else { None };
        let (mode, uid, gid, size) = (u32::from(status.mode), status.uid, status.gid, status.size);
        entries.push(Listed { name: OsString::from_vec(entry.name), mode, uid, gid, size, target });
    }
    Ok(entries)
}

fn find(image: &mut Image<'_>, path: &[OsString]) -> Result<u32, Failure> {
    path.iter().try_fold(tool::ROOT, |directory, name| image.find(directory, name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_no_byte_of_the_image_as_it_is() {
        let target = Some("to\x1b]0;".into());
        let entry = Listed { name: "red\x1b[31m".into(), mode: 0o120777, uid: 0, gid: 0, size: 3, target };
        assert_eq!(entry.to_string(), "lrwxrwxrwx     0     0          3 red\\x1b[31m -> to\\x1b]0;");
    }
}
