//! Inodes that were deleted or cut while they were open: a list through the inodes, or a file with their numbers.
//!
//! They are collected to be counted. What they are is damage like that of any other inode (deleted without a time, in
//! use beyond its end), until a mount that may write frees them: so e2fsck -n has it.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, RoCompat};

use super::{Check, push};
use crate::error::{Error, Result};
use crate::ext4::checksum::{Kind, crc32c};
use crate::ext4::units::{InodeNumber, LogicalBlock, u64_from};
use crate::ext4::{Inode, MappingKind, inode};

/// The longest list that is followed.
const MOST: u32 = 1 << 16;
/// The most blocks of an orphan file that are looked at: what the kernel takes.
const MOST_BLOCKS: u32 = 512;
/// `ob_magic`, at the end of a block of the orphan file, before its checksum.
const MAGIC: u32 = 0x0b10_ca04;

impl Check<'_> {
    /// Collects the orphans. Gives whether the stage is over.
    pub(super) fn orphan_lists(&mut self) -> Result<bool> {
        let superblock = self.fs.superblock();
        let mut next = self.raw.s_last_orphan.get();
        for _ in 0..MOST {
            let Some(number) = InodeNumber::new(next) else { break };
            let inside = (superblock.first_inode..=superblock.inodes).contains(&next) && !self.orphans.contains(&next);
            if !inside {
                self.findings.notice(Rule::OrphanList, Place::Inode(next));
                break;
            }
            push(&mut self.orphans, next)?;
            match self.inode_bytes(number) {
                Ok(bytes) => next = inode::raw(&bytes).i_dtime.get(),
                Err(error @ (Error::Device { .. } | Error::OutOfMemory)) => return Err(error),
                Err(_) => break,
            }
            self.spend(1);
        }
        if superblock.ro_compat.contains(RoCompat::ORPHAN_PRESENT) {
            let some = superblock.compat.contains(Compat::ORPHAN_FILE) && self.orphans_in_file()?;
            self.findings.hold(some, Rule::OrphanFile, Place::Superblock);
        }
        // Only a journal keeps them right.
        let compat = superblock.compat;
        let alone = compat.contains(Compat::ORPHAN_FILE) && !compat.contains(Compat::HAS_JOURNAL);
        self.findings.hold(!alone, Rule::OrphanFile, Place::Superblock);
        self.orphans.sort_unstable();
        self.orphans.dedup();
        self.findings.counts.orphans = u64_from(self.orphans.len());
        Ok(true)
    }

    /// The numbers in the orphan file; whether there are any. What is wrong with the file is told when its inode is looked
    /// at.
    fn orphans_in_file(&mut self) -> Result<bool> {
        let number = InodeNumber::new(self.raw.s_orphan_file_inum.get());
        let Some(file) = number.and_then(|number| self.fs.any_inode(number).ok()) else { return Ok(false) };
        let mut some = false;
        let blocks = self.fs.superblock().block_size.blocks_for(file.size);
        for block in 0..u32::try_from(blocks).unwrap_or(MOST_BLOCKS).min(MOST_BLOCKS) {
            let Ok(Some(bytes)) = self.fs.read_block(&file, LogicalBlock(block)) else { continue };
            let (entries, _) = bytes.split_at_checked(bytes.len().saturating_sub(8)).unwrap_or_default();
            for &entry in entries.as_chunks::<4>().0 {
                let number = u32::from_le_bytes(entry);
                some |= number != 0;
                if number != 0 && number <= self.fs.superblock().inodes {
                    push(&mut self.orphans, number)?;
                }
            }
        }
        Ok(some)
    }

    /// The blocks of the orphan file, each with its magic number and its checksum, and without an entry where the
    /// superblock says that there is none.
    pub(super) fn orphan_file(&mut self, file: &Inode) -> Result<()> {
        let size = self.fs.superblock().block_size;
        let blocks = size.blocks_for(file.size);
        for block in 0..u32::try_from(blocks).unwrap_or(MOST_BLOCKS).min(MOST_BLOCKS) {
            let sound = match self.fs.map(file, size.file_offset(LogicalBlock(block)), size.bytes().into()) {
                Ok(mapping) => match mapping.kind {
                    MappingKind::Data(start) => self.is_sound(file, start.0)?,
                    _ => false,
                },
                // The map is looked at by itself.
                Err(_) => return Ok(()),
            };
            if !sound {
                self.findings.damage(Rule::OrphanFile, Place::Inode(file.number.value()));
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_sound(&self, file: &Inode, start: u64) -> Result<bool> {
        let (fs, superblock) = (self.fs, self.fs.superblock());
        let size = superblock.block_size;
        let mut bytes = vec![0; size.length()];
        fs.device().read_at(start, &mut bytes)?;
        let Some((rest, &sum)) = bytes.split_last_chunk::<4>() else { return Ok(false) };
        let Some((entries, &magic)) = rest.split_last_chunk::<4>() else { return Ok(false) };
        let block = start.checked_shr(size.bits().into()).unwrap_or(0);
        let expected = crc32c(crc32c(file.checksum_seed, &block.to_le_bytes()), entries);
        let sum = u32::from_le_bytes(sum);
        let summed = fs.verifier().kind() == Kind::Crc32c;
        let matches = !summed || sum == expected;
        let empty = entries.iter().all(|&byte| byte == 0) && (summed || sum == 0);
        let clean = superblock.ro_compat.contains(RoCompat::ORPHAN_PRESENT) || empty;
        Ok(u32::from_le_bytes(magic) == MAGIC && matches && clean)
    }
}
