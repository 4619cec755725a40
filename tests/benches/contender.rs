//! Who is measured, and a mount by each with a guard that ends it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lazaret_tests::block::{KernelMount, unmount_now};
use lazaret_tests::command::eventually;
use lazaret_tests::{Result, command, lazaret, leftover};
use rustix::mount::{UnmountFlags, unmount};

/// One way to mount an image read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// This project, with default options.
    Lazaret,
    /// The kernel's own ext4 through a loop device: the yardstick.
    Kernel,
    /// fuse2fs of e2fsprogs.
    Fuse2fs,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Lazaret, Self::Kernel, Self::Fuse2fs];

    /// All of them, each round another first.
    pub(crate) fn in_turn(round: usize) -> Vec<Self> {
        let mut order = Self::ALL.to_vec();
        order.rotate_left(round % Self::ALL.len());
        order
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lazaret => "lazaret",
            Self::Kernel => "kernel",
            Self::Fuse2fs => "fuse2fs",
        }
    }

    pub(crate) fn mount(self, image: &Path, point: &Path) -> Result<Mounted> {
        Ok(match self {
            Self::Lazaret => Mounted::Lazaret(lazaret::Mount::with(image, point, "defaults")?),
            Self::Kernel => Mounted::Kernel(KernelMount::read_only(image, point)?),
            Self::Fuse2fs => Mounted::Fuse2fs(Fuse2fs::new(image, point)?),
        })
    }
}

/// A mount, ended when it is dropped.
pub(crate) enum Mounted {
    Lazaret(lazaret::Mount),
    Kernel(KernelMount),
    Fuse2fs(Fuse2fs),
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Lazaret(mount) => mount.path(),
            Self::Kernel(mount) => mount.path(),
            Self::Fuse2fs(mount) => &mount.0,
        }
    }

    pub(crate) fn unmount(self) -> Result {
        match self {
            Self::Lazaret(mount) => mount.unmount(Duration::from_secs(1)).map(drop),
            Self::Kernel(mount) => mount.unmount(),
            Self::Fuse2fs(mount) => mount.unmount(),
        }
    }
}

/// A mount by fuse2fs, which goes into the background by itself.
pub(crate) struct Fuse2fs(PathBuf);

impl Fuse2fs {
    fn new(image: &Path, point: &Path) -> Result<Self> {
        std::fs::create_dir_all(point)?;
        command::run(Command::new("fuse2fs").args(["-o", "ro"]).arg(image).arg(point))?;
        let mount = Self(point.to_owned());
        if !eventually(Duration::from_secs(10), || leftover::is_mounted(point)).0 {
            return Err(format!("fuse2fs does not mount {}", image.display()).into());
        }
        Ok(mount)
    }

    fn unmount(self) -> Result {
        unmount_now(&self.0)
    }
}

impl Drop for Fuse2fs {
    fn drop(&mut self) {
        if leftover::is_mounted(&self.0) {
            let _ = unmount(&self.0, UnmountFlags::DETACH);
        }
    }
}
