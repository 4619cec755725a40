//! Where copies of the superblock lie when the primary one cannot be used.
//!
//! Nothing on the device says it then, so the usual places are looked at: the beginnings of the first groups that hold
//! copies, with the largest groups that each block size allows, as every mke2fs makes them. A copy is told only if it is
//! sound and says itself that it belongs there.

use lazaret_policy::message::Refusal;
use zerocopy::{FromZeros, IntoBytes};

use super::format;
use super::superblock::Superblock;
use super::units::BlockSize;
use crate::device::Device;

/// Groups with copies, whether or not only some groups have them.
const GROUPS: [u16; 6] = [1, 3, 5, 7, 9, 25];
/// The unit that places are told in. Bytes.
const UNIT: u64 = 1024;

/// A refusal of the primary superblock, with the copies that could be taken in its place, if there are any.
pub(super) fn refusal(device: &Device, refusal: Refusal) -> Refusal {
    let broken = match refusal {
        Refusal::NotExt => None,
        Refusal::Corrupt(broken) | Refusal::Checksum(broken) => Some(broken),
        other => return other,
    };
    let mut copies = [0; 3];
    let mut found = (0..=6).filter_map(BlockSize::from_log).flat_map(|size| GROUPS.map(|group| (size, group)));
    let mut found = found.by_ref().filter_map(|(size, group)| copy(device, size, group));
    copies.iter_mut().for_each(|place| *place = found.next().unwrap_or(0));
    if copies == [0; 3] { refusal } else { Refusal::SuperblockLost { broken, copies } }
}

/// Where the copy of a group lies, if it does.
fn copy(device: &Device, size: BlockSize, group: u16) -> Option<u64> {
    let bytes = u64::from(size.bytes());
    let blocks = bytes.saturating_mul(8).saturating_mul(group.into());
    let place = bytes.saturating_mul(blocks.saturating_add(u64::from(bytes == UNIT)));
    let mut raw = format::Superblock::new_zeroed();
    device.read_at(place, raw.as_mut_bytes()).ok()?;
    let own = raw.s_magic.get() == format::SUPERBLOCK_MAGIC && raw.s_block_group_nr.get() == group;
    (own && Superblock::is_sound(&raw, place)).then(|| place.checked_div(UNIT).unwrap_or(0))
}
