//! Loop devices and mounts by the kernel, each with a guard that ends it.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{Result, command};

/// A loop device over a file.
pub struct LoopDevice {
    device: PathBuf,
}

impl LoopDevice {
    /// Attaches a free loop device. `losetup` may lose a race for the free one, so it is asked again.
    pub fn attach(image: &Path, read_only: bool) -> Result<Self> {
        let mut last = None;
        for _ in 0..50 {
            let mut losetup = Command::new("losetup");
            losetup.args(["--find", "--show"]).args(read_only.then_some("--read-only")).arg(image);
            match command::run(&mut losetup) {
                Ok(name) => return Ok(Self { device: PathBuf::from(name.trim()) }),
                Err(error) => last = Some(error),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(last.expect("fifty tries, fifty errors"))
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        &self.device
    }
}

impl LoopDevice {
    /// The file beneath the device, as the kernel names it; `None` when the device is free.
    fn backing_file(&self) -> Option<String> {
        let name = self.device.file_name()?.to_str()?;
        std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()
    }
}

impl Drop for LoopDevice {
    /// Detaches, and waits until the kernel has let go: a process that was just started in a mount namespace of its
    /// own holds a copy of every mount for a moment, and the last bytes are written when the last copy is gone.
    fn drop(&mut self) {
        let attached = self.backing_file();
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).output();
        command::eventually(Duration::from_secs(10), || attached.is_none() || self.backing_file() != attached);
    }
}

/// Plain umount(2). A child that another test has just forked holds our files until it executes: that passes.
pub fn unmount_now(directory: &Path) -> Result {
    let mut answer = Err(Errno::BUSY);
    command::eventually(Duration::from_secs(2), || {
        answer = unmount(directory, UnmountFlags::empty());
        answer != Err(Errno::BUSY)
    });
    answer.map_err(|error| format!("umount {}: {error}", directory.display()).into())
}

/// An image mounted by the kernel through a loop device.
pub struct KernelMount {
    directory: PathBuf,
    mounted: bool,
    device: LoopDevice,
}

impl KernelMount {
    /// The oracle: read-only, and with the flags that Lazaret always sets, so that statfs can be compared whole.
    pub fn read_only(image: &Path, directory: &Path) -> Result<Self> {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Self::new(image, directory, flags | MountFlags::RELATIME, true, c"")
    }

    /// The same, on a device that can be written to: the kernel replays a dirty journal into it.
    pub fn replayed(image: &Path, directory: &Path) -> Result<Self> {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Self::new(image, directory, flags | MountFlags::RELATIME, false, c"")
    }

    /// To fill an image. Without barriers: these images need not outlive a power cut, and they are many.
    pub fn writable(image: &Path, directory: &Path) -> Result<Self> {
        Self::new(image, directory, MountFlags::empty(), false, c"nobarrier")
    }

    fn new(image: &Path, directory: &Path, flags: MountFlags, fixed: bool, options: &CStr) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let device = LoopDevice::attach(image, fixed)?;
        mount(device.path(), directory, "ext4", flags, Some(options))
            .map_err(|error| format!("the kernel does not mount {}: {error}", image.display()))?;
        Ok(Self { directory: directory.to_owned(), mounted: true, device })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The loop device beneath.
    pub fn device(&self) -> &Path {
        self.device.path()
    }

    /// Unmounts now, and says when that fails.
    pub fn unmount(mut self) -> Result {
        unmount_now(&self.directory)?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for KernelMount {
    fn drop(&mut self) {
        if self.mounted {
            let _ = unmount(&self.directory, UnmountFlags::DETACH);
        }
    }
}
