//! Damages an image on purpose: by `debugfs`, which makes checksums right again, or by single bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, command};

/// An image that may be damaged.
pub struct Victim {
    path: PathBuf,
    file: File,
}

impl Victim {
    /// The image in this file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.into(), file: File::options().read(true).write(true).open(path)? })
    }

    /// What a command of `debugfs` prints; it may write.
    pub fn debugfs(&self, line: &str) -> Result<String> {
        command::run(Command::new("debugfs").args(["-w", "-R", line]).arg(&self.path))
    }

    /// Bytes a block.
    pub fn block_size(&self) -> Result<u64> {
        let mut log = [0; 4];
        self.file.read_exact_at(&mut log, 1024 + 0x18)?;
        Ok(1024 << u32::from_le_bytes(log))
    }

    /// The block of the device that holds a block of a file.
    pub fn block(&self, path: &str, logical: u32) -> Result<u64> {
        let printed = self.debugfs(&format!("bmap {path} {logical}"))?;
        Ok(printed.trim().parse().map_err(|_| format!("bmap {path} {logical}: {printed}"))?)
    }

    /// The number of a file's inode.
    pub fn inode(&self, path: &str) -> Result<u32> {
        let printed = self.debugfs(&format!("stat {path}"))?;
        let number = printed.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        number.ok_or_else(|| format!("stat {path}: {printed}").into())
    }

    /// The whole block of a file.
    pub fn read(&self, path: &str, logical: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.block_size()?)?];
        self.file.read_exact_at(&mut bytes, self.block(path, logical)? * self.block_size()?)?;
        Ok(bytes)
    }

    /// Overwrites bytes of a block of a file.
    pub fn write(&self, path: &str, logical: u32, offset: usize, bytes: &[u8]) -> Result {
        self.write_at(self.block(path, logical)? * self.block_size()? + offset as u64, bytes)
    }

    /// Where the entry of this name begins in the first block of a directory.
    pub fn entry(&self, path: &str, name: &str) -> Result<usize> {
        let bytes = self.read(path, 0)?;
        let mut at = 0;
        while at + 8 <= bytes.len() {
            let length = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
            if bytes[at + 8..].starts_with(name.as_bytes()) && usize::from(bytes[at + 6]) == name.len() {
                return Ok(at);
            }
            at += length.max(8);
        }
        Err(format!("{path} has no {name} in its first block").into())
    }

    /// Where an inode lies on the device, and how many bytes it has.
    fn inode_place(&self, number: u32) -> Result<(u64, usize)> {
        let printed = self.debugfs(&format!("imap <{number}>"))?;
        let place =
            printed.rsplit_once("located at block ").and_then(|(_, place)| place.trim().split_once(", offset 0x"));
        let (block, offset) = place.ok_or_else(|| format!("imap <{number}>: {printed}"))?;
        let mut size = [0; 2];
        self.file.read_exact_at(&mut size, 1024 + 0x58)?;
        let offset = u64::from_str_radix(offset, 16)?;
        Ok((block.parse::<u64>()? * self.block_size()? + offset, u16::from_le_bytes(size).into()))
    }

    /// An inode as it lies on the device.
    pub fn inode_bytes(&self, number: u32) -> Result<Vec<u8>> {
        let (offset, length) = self.inode_place(number)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Overwrites an inode.
    pub fn set_inode_bytes(&self, number: u32, bytes: &[u8]) -> Result {
        self.write_at(self.inode_place(number)?.0, bytes)
    }

    /// Overwrites bytes of the device.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result {
        Ok(self.file.write_all_at(bytes, offset)?)
    }

    /// Changes one byte, and gives what it was.
    pub fn swap(&self, offset: u64, byte: u8) -> Result<u8> {
        let mut old = [0];
        self.file.read_exact_at(&mut old, offset)?;
        self.file.write_all_at(&[byte], offset)?;
        Ok(old[0])
    }
}
