//! The kernel's own ext4 as an oracle: an image mounted by it for as long as a test looks at it, or fills it.
//!
//! It takes root and a loop device. Where they are missing a test prints that it was skipped; with
//! `LAZARET_REQUIRE_ALL=1` it fails instead.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::image::Image;

/// A mount that ends with the value. The loop device goes with the mount.
pub struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// Mounts an image read-only; none where this host cannot, which is said.
    pub fn of(image: &Path) -> Option<Self> {
        Self::with(image, "ro")
    }

    /// The same with other options of mount(8).
    pub fn with(image: &Path, options: &str) -> Option<Self> {
        let missing = [
            ("root", rustix::process::geteuid().is_root()),
            ("loop devices", Path::new("/dev/loop-control").exists()),
            (
                "a kernel with ext4",
                std::fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("\text4")),
            ),
        ];
        if let Some((what, _)) = missing.iter().find(|(_, there)| !there) {
            assert!(std::env::var_os("LAZARET_REQUIRE_ALL").is_none_or(|value| value != "1"), "needs {what}");
            eprintln!("skipped: the comparison with the kernel needs {what}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let options = format!("loop,{options}");
        // Whoever asks for a free loop device may lose the race for it.
        for attempt in 1.. {
            let mut mount = Command::new("mount");
            let output = mount.args(["-t", "ext4", "-o", &options]).args([image, directory.path()]).output().unwrap();
            if output.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(attempt < 5 && said.contains("loop"), "{said}");
            sleep(Duration::from_millis(100));
        }
        Some(Self { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Something on the host may look at it for a moment, and a test that goes on reads the image.
        for _ in 0..50 {
            if Command::new("umount").arg(self.path()).output().is_ok_and(|output| output.status.success()) {
                return;
            }
            sleep(Duration::from_millis(100));
        }
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// An image that the kernel filled, and what it says of it when it has read it back from the disk.
pub fn filled<T>(
    options: &str,
    size: &str,
    fill: impl FnOnce(&Path),
    ask: impl FnOnce(&Path) -> T,
) -> Option<(Image, T)> {
    let mut image = Image::make(options, size, |_| ());
    fill(Mounted::with(&image.path(), "rw")?.path());
    let answer = ask(Mounted::of(&image.path())?.path());
    image.reload();
    Some((image, answer))
}
