//! A whole disk in a file: a partition table, file systems in its partitions, and damage.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, command};

/// A disk of 200 MiB, sparse.
pub struct Disk {
    /// The file.
    pub path: PathBuf,
}

/// Where the first and the second file system go, in bytes, and what sfdisk is told of them.
pub const FIRST: u64 = 1 << 20;
/// The second, 70 MiB behind.
pub const SECOND: u64 = 71 << 20;
const LENGTH: u64 = 200 << 20;

impl Disk {
    /// With what sfdisk makes of this script.
    pub fn new(directory: &Path, script: &str) -> Result<Self> {
        let disk = Self::empty(directory)?;
        sfdisk(&disk.path, script)?;
        Ok(disk)
    }

    /// The same with sectors of 4096 bytes.
    pub fn with_long_sectors(directory: &Path, script: &str) -> Result<Self> {
        let disk = Self::empty(directory)?;
        let attach = "set -e; device=$(losetup --find --show --sector-size 4096 \"$1\")
            trap 'losetup --detach \"$device\"' EXIT; printf %s \"$2\" | sfdisk --quiet --no-reread \"$device\"; sync";
        command::run(Command::new("sh").args(["-c", attach, "sh"]).arg(&disk.path).arg(script))?;
        Ok(disk)
    }

    fn empty(directory: &Path) -> Result<Self> {
        let path = directory.join("disk.img");
        File::create(&path)?.set_len(LENGTH)?;
        Ok(Self { path })
    }

    /// Puts an image at this byte.
    pub fn put(self, image: &Path, offset: u64) -> Result<Self> {
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", image.display())).arg(format!("of={}", self.path.display()));
        dd.arg(format!("seek={}", offset >> 20)).args(["bs=1M", "conv=notrunc,sparse", "status=none"]);
        command::run(&mut dd)?;
        Ok(self)
    }

    /// Writes these bytes.
    pub fn write(self, offset: u64, bytes: &[u8]) -> Result<Self> {
        File::options().write(true).open(&self.path)?.write_all_at(bytes, offset)?;
        Ok(self)
    }

    /// The bytes from here on.
    pub fn read<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        File::open(&self.path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Changes one byte.
    pub fn damage(self, offset: u64) -> Result<Self> {
        let [byte] = self.read(offset)?;
        self.write(offset, &[!byte])
    }

    /// The file's length in bytes.
    pub fn length(&self) -> u64 {
        LENGTH
    }
}

fn sfdisk(path: &Path, script: &str) -> Result {
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-reread"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("sfdisk: {error}"))?;
    child.stdin.take().ok_or("a pipe was asked for")?.write_all(script.as_bytes())?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("sfdisk: {status}").into()) }
}
