//! The blocks that are the file system's own, as dumpe2fs knows them: no file may have one.

use std::path::Path;
use std::process::Command;

use crate::{Result, command};

/// Ranges of blocks, the last block included.
#[derive(Debug, Default)]
pub struct Zone {
    block_size: u64,
    blocks: Vec<(u64, u64)>,
}

/// What dumpe2fs calls them, before `at BLOCK` or `at BLOCK-BLOCK`.
const OWN: [&str; 6] =
    ["Primary superblock", "Backup superblock", "Group descriptors", "Block bitmap", "Inode bitmap", "Inode table"];

impl Zone {
    /// Asks dumpe2fs about an image.
    pub fn of(image: &Path) -> Result<Self> {
        let text = command::run(Command::new("dumpe2fs").arg(image))?;
        let mut zone = Self::default();
        for line in text.lines() {
            if let Some(size) = line.strip_prefix("Block size:") {
                zone.block_size = size.trim().parse()?;
            }
            for part in line.trim().split(", ") {
                let Some((name, place)) = part.split_once(" at ").filter(|(name, _)| OWN.contains(name)) else {
                    continue;
                };
                let range = place.split([' ', '(']).next().unwrap_or_default();
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                zone.blocks.push((first.parse().map_err(|_| format!("{name} at {place}"))?, last.parse()?));
            }
        }
        if zone.block_size == 0 || zone.blocks.len() < 4 {
            return Err(format!("dumpe2fs told of {} ranges", zone.blocks.len()).into());
        }
        Ok(zone)
    }

    /// Whether these bytes of the file system touch one.
    pub fn touches(&self, begin: u64, length: u64) -> bool {
        let own = |&(first, last): &(u64, u64)| {
            begin < (last + 1) * self.block_size && first * self.block_size < begin.saturating_add(length)
        };
        self.blocks.iter().any(own)
    }
}
