//! What a superblock says of its file system, for those who ask before it is opened, or when it cannot be.
//!
//! Nothing of it was checked and nothing is done with it here: it is told as it stands, with names and labels as the
//! bytes they are. Whoever shows them escapes them.

use lazaret_policy::feature::Incompat;
use lazaret_policy::scan::{RecordedError, Volume};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::format;
use super::superblock::{checksum_matches, wide_number};
use super::units::u64_from;
use crate::device::Device;
use crate::error::Result;

/// What the superblock says of the file system that begins at this byte; none if there is no such.
///
/// # Errors
/// The device cannot be read there, though it should be that long.
pub fn volume(device: &Device, offset: u64) -> Result<Option<Volume>> {
    let mut raw = format::Superblock::new_zeroed();
    let begin = offset.saturating_add(format::SUPERBLOCK_OFFSET);
    if begin.saturating_add(u64_from(size_of::<format::Superblock>())) > device.len() {
        return Ok(None);
    }
    device.read_at(begin, raw.as_mut_bytes())?;
    Ok((raw.s_magic.get() == format::SUPERBLOCK_MAGIC).then(|| tell(&raw)))
}

fn tell(raw: &format::Superblock) -> Volume {
    let incompat = raw.s_feature_incompat.get();
    let wide = Incompat::from_bits_retain(incompat).contains(Incompat::SIXTY_FOUR_BIT);
    Volume {
        label: raw.s_volume_name,
        uuid: raw.s_uuid,
        compat: raw.s_feature_compat.get(),
        incompat,
        ro_compat: raw.s_feature_ro_compat.get(),
        checksum_matches: checksum_matches(raw),
        log_block_size: raw.s_log_block_size.get(),
        blocks: wide_number(wide, raw.s_blocks_count_lo.get(), raw.s_blocks_count_hi.get()),
        free_blocks: wide_number(wide, raw.s_free_blocks_count_lo.get(), raw.s_free_blocks_count_hi.get()),
        reserved_blocks: wide_number(wide, raw.s_r_blocks_count_lo.get(), raw.s_r_blocks_count_hi.get()),
        inodes: raw.s_inodes_count.get(),
        free_inodes: raw.s_free_inodes_count.get(),
        inode_size: raw.s_inode_size.get(),
        revision: raw.s_rev_level.get(),
        creator: raw.s_creator_os.get(),
        state: raw.s_state.get(),
        last_orphan: raw.s_last_orphan.get(),
        made: time(raw.s_mkfs_time, raw.s_mkfs_time_hi),
        mounted: time(raw.s_mtime, raw.s_mtime_hi),
        written: time(raw.s_wtime, raw.s_wtime_hi),
        checked: time(raw.s_lastcheck, raw.s_lastcheck_hi),
        mounts: raw.s_mnt_count.get(),
        most_mounts: i16::from_le_bytes(raw.s_max_mnt_count.to_bytes()),
        check_interval: raw.s_checkinterval.get(),
        last_mounted: text(&raw.s_last_mounted),
        written_kib: raw.s_kbytes_written.get(),
        journal_inode: raw.s_journal_inum.get(),
        journal_uuid: raw.s_journal_uuid,
        errors: raw.s_error_count.get(),
        first_error: RecordedError {
            time: time(raw.s_first_error_time, raw.s_first_error_time_hi),
            function: text(&raw.s_first_error_func),
            line: raw.s_first_error_line.get(),
            inode: raw.s_first_error_ino.get(),
            block: raw.s_first_error_block.get(),
        },
        last_error: RecordedError {
            time: time(raw.s_last_error_time, raw.s_last_error_time_hi),
            function: text(&raw.s_last_error_func),
            line: raw.s_last_error_line.get(),
            inode: raw.s_last_error_ino.get(),
            block: raw.s_last_error_block.get(),
        },
    }
}

/// Seconds since 1970, with eight more bits above the 32.
fn time(low: U32, high: u8) -> i64 {
    i64::from(high) << 32 | i64::from(low.get())
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|&byte| byte != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_there_is_told_and_what_does_not_is_none() {
        let mut raw = format::Superblock::new_zeroed();
        raw.s_magic.set(format::SUPERBLOCK_MAGIC);
        raw.s_volume_name[..5].copy_from_slice(b"a\x1b[2J");
        raw.s_last_mounted[..4].copy_from_slice(b"/mnt");
        raw.s_mtime.set(7);
        raw.s_mtime_hi = 1;
        raw.s_max_mnt_count.set(0xffff);
        let bytes = [&[0; 1024 + 4096], raw.as_bytes()].concat();
        let device = Device::from_bytes(bytes);
        assert_eq!(volume(&device, 0), Ok(None));
        assert_eq!(volume(&device, 4097), Ok(None));
        assert_eq!(volume(&device, u64::MAX), Ok(None));
        let told = volume(&device, 4096).unwrap().unwrap();
        assert_eq!((&told.label[..5], &told.last_mounted[..]), (&b"a\x1b[2J"[..], &b"/mnt"[..]));
        assert_eq!((told.mounted, told.most_mounts, told.made), (1 << 32 | 7, -1, 0));
    }
}
