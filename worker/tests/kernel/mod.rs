//! The kernel's own ext4 as an oracle: an image mounted by it, read-only, for as long as a test looks at it.
//!
//! It takes root and a loop device. Where they are missing a test prints that it was skipped; with
//! `LAZARET_REQUIRE_ALL=1` it fails instead.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::path::Path;
use std::process::Command;

/// A mount that ends with the value. The loop device goes with the mount.
pub struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// Mounts an image; none where this host cannot, which is said.
    pub fn of(image: &Path) -> Option<Self> {
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
        let output = Command::new("mount").args(["-o", "loop,ro"]).args([image, directory.path()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.directory.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
        }
    }
}
