//! Real crashes: the kernel mounts an image through a loop device, work happens, and the file beneath is copied while
//! it is still mounted. The same copy replayed by the kernel is what is right.
//!
//! What holds here: every mount and every file ends with its guard, also when a test panics. A loop device that mount(8)
//! has set up goes away with its mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Whether this host can do it. Where it cannot, the reason is printed, and with LAZARET_REQUIRE_ALL=1 it is a failure.
pub(crate) fn possible() -> bool {
    let there = |path: &str| Path::new(path).exists();
    let tool =
        |name: &str| ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|at| Path::new(at).join(name).exists());
    let missing = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !there("/dev/loop-control") {
        "needs loop devices"
    } else if !["mke2fs", "debugfs", "mount"].iter().all(|name| tool(name)) {
        "needs mke2fs, debugfs and mount"
    } else {
        return true;
    };
    assert!(std::env::var_os("LAZARET_REQUIRE_ALL").is_none_or(|all| all != "1"), "skipped: {missing}");
    println!("skipped: {missing}");
    false
}

/// How an image is made and worked on.
pub(crate) struct Recipe {
    /// Its length.
    pub(crate) mebibytes: u64,
    /// Words for mke2fs.
    pub(crate) format: &'static str,
    /// Options for mount.
    pub(crate) options: &'static str,
}

/// A directory with an image, gone with its guard.
pub(crate) struct Bench {
    directory: TempDir,
}

impl Bench {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("lazaret-journal-").tempdir().unwrap() }
    }

    /// Where a file of this name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes an image, mounts it, works on it and crashes: the copy of the file as it then was.
    pub(crate) fn crash(&self, recipe: &Recipe, work: impl FnOnce(&Path)) -> PathBuf {
        let image = self.path("image");
        fs::File::create(&image).unwrap().set_len(recipe.mebibytes << 20).unwrap();
        let format: Vec<&str> = recipe.format.split_whitespace().collect();
        run(Command::new("mke2fs").args(["-q", "-F"]).args(format).arg(&image));
        // On a busy machine no commit of the kernel's own may come between the changes, or into the copy.
        let mount = Mount::new(&image, &self.path("mount"), &format!("{},commit=300", recipe.options));
        work(mount.path());
        let crashed = self.path("crashed");
        run(Command::new("cp").arg("--sparse=always").arg(&image).arg(&crashed));
        drop(mount);
        fs::remove_file(image).unwrap();
        crashed
    }

    /// A copy of an image that the kernel has replayed, mounted read-only.
    pub(crate) fn replayed(&self, crashed: &Path) -> Mount {
        let replayed = self.path("replayed");
        run(Command::new("cp").arg("--sparse=always").arg(crashed).arg(&replayed));
        drop(Mount::new(&replayed, &self.path("mount"), "noatime"));
        Mount::new(&replayed, &self.path("mount"), "ro,noatime")
    }
}

/// An image mounted by the kernel.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts it. Several tests may want the same free loop device: then it is tried again.
    pub(crate) fn new(image: &Path, at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("loop,{options}");
        let mut words = String::new();
        for _ in 0..50 {
            let output =
                Command::new("mount").args(["-t", "ext4", "-o", &options]).arg(image).arg(at).output().unwrap();
            if output.status.success() {
                return Self(at.to_owned());
            }
            words = String::from_utf8_lossy(&output.stderr).into_owned();
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the kernel does not mount {}: {words}", image.display());
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Somebody else's child may hold a file for a moment.
        for _ in 0..50 {
            if Command::new("umount").arg(&self.0).output().is_ok_and(|output| output.status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// Runs a tool that must succeed; what it prints.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
