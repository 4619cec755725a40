//! The kernel's own view of every FUSE connection, mounted for a test of its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// fusectl, until it is dropped.
pub struct Fusectl(PathBuf);

impl Fusectl {
    /// Mounts it at this place, which is made.
    pub fn mount(place: &Path) -> Result<Self> {
        fs::create_dir_all(place)?;
        rustix::mount::mount("none", place, "fusectl", rustix::mount::MountFlags::empty(), None)?;
        Ok(Self(place.to_owned()))
    }

    /// How many connections there are.
    pub fn count(&self) -> Result<u64> {
        Ok(fs::read_dir(&self.0)?.count() as u64)
    }

    /// Ends the connection of the mount at this place, as the kernel does by itself: the mount stays.
    pub fn abort(&self, point: &Path) -> Result {
        let lines = fs::read_to_string("/proc/self/mountinfo")?;
        let line = lines.lines().rfind(|line| line.split(' ').nth(4).map(Path::new) == Some(point));
        let minor = line.and_then(|line| line.split(' ').nth(2)?.split_once(':')).ok_or("no such mount")?.1;
        Ok(fs::write(self.0.join(minor).join("abort"), "1")?)
    }
}

impl Drop for Fusectl {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
