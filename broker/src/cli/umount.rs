//! `lazaret umount`: ends a mount of ours, whether its worker lives or not.
//!
//! What holds here: the mountpoint itself is never looked at, only its parent and the mount table, so a mount that does
//! not answer can be ended.

use crate::exit::{Failure, words};
use crate::mount_id::MountId;
use crate::{fusermount, mountinfo, unmounter};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::geteuid;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// This is the process that a mount without root has left to end it
    #[arg(long, hide = true, value_name = "MOUNT")]
    when_over: Option<MountId>,
    /// Where lazaret has mounted something
    mountpoint: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let ended = match arguments.when_over {
        Some(mount) => unmounter::run(mount),
        None => end(&arguments.mountpoint),
    };
    ended.map_err(|failure| failure.about(&arguments.mountpoint))
}

/// Unmounts what is mounted there, if it is ours.
pub(super) fn end(mountpoint: &Path) -> Result<(), Failure> {
    let path = absolute(mountpoint)?;
    let table = |error| Failure::system(format!("the mount table cannot be read: {}", words(error)));
    let mut found = mountinfo::at(&path).map_err(table)?;
    if found.is_none()
        && let Ok(target) = std::fs::read_link(&path)
    {
        found = mountinfo::at(&absolute(&path.with_file_name("").join(target))?).map_err(table)?;
    }
    match found {
        None => Err(Failure::mount("is not mounted")),
        Some(line) if !line.is_lazaret() => Err(Failure::mount("is not mounted by lazaret")),
        Some(line) if geteuid().is_root() => by_root(&line.mountpoint),
        Some(line) => fusermount::unmount(&line.mountpoint, false),
    }
}

fn by_root(path: &Path) -> Result<(), Failure> {
    unmount(path, UnmountFlags::NOFOLLOW).map_err(|errno| match errno {
        Errno::BUSY => fusermount::busy(),
        Errno::PERM => Failure::system("unmounting is refused: operation not permitted"),
        _ => Failure::mount(format!("cannot be unmounted: {}", words(errno))),
    })
}

/// The path from the root, without links but perhaps in its last part. What is mounted there is not asked.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let missing = |error: std::io::Error| Failure::mount(words(error));
    let whole = std::path::absolute(path).map_err(missing)?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return whole.canonicalize().map_err(missing);
    };
    Ok(parent.canonicalize().map_err(missing)?.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_not_unmounted() {
        assert_eq!(end(Path::new("/proc")).unwrap_err().to_string(), "is not mounted by lazaret");
        let place = tempfile::tempdir().unwrap();
        assert_eq!(end(place.path()).unwrap_err().to_string(), "is not mounted");
        assert!(end(&place.path().join("none/deeper")).unwrap_err().to_string().contains("no such file"));
    }

    #[test]
    fn a_path_is_made_whole_without_its_last_part() {
        let place = tempfile::tempdir().unwrap();
        let whole = place.path().canonicalize().unwrap();
        assert_eq!(absolute(&place.path().join("none/")).unwrap(), whole.join("none"));
    }
}
