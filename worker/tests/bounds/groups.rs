//! Groups whose structures lie scattered: what is kept of them is bounded, and that is said.

use lazaret_policy::message::Refusal;

use super::*;

/// Blocks and inodes of a group.
const BLOCKS: u32 = 256;
const INODES: u32 = 16;

/// A device whose file system has so many groups, no block of whose three structures lies beside another.
fn scattered_groups(image: &Image, groups: u32) -> Device {
    let mut superblock = image.bytes[1024..2048].to_vec();
    let mut put = |at: usize, value: u32| superblock[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, groups * INODES);
    put(4, groups * BLOCKS + 1);
    put(0x20, BLOCKS);
    put(0x24, BLOCKS);
    put(0x28, INODES);
    Device::answered(u64::from(groups * BLOCKS + 1) << 10, move |offset, out| {
        for (at, byte) in (offset..).zip(out) {
            *byte = match at {
                1024..2048 => superblock[at as usize - 1024],
                2048.. => {
                    // A descriptor of 32 bytes begins with the three places.
                    let (group, field) = ((at - 2048) / 32, (at - 2048) % 32);
                    let place = group as u32 * BLOCKS + 1 + [100, 110, 120][field as usize / 4 % 3];
                    if field < 12 { place.to_le_bytes()[field as usize % 4] } else { 0 }
                }
                _ => 0,
            };
        }
        true
    })
}

#[test]
fn groups_that_lie_scattered_are_kept_up_to_a_bound() {
    let options =
        "-t ext4 -b 1024 -g 256 -I 128 -O ^metadata_csum,^resize_inode,^has_journal,^64bit,^flex_bg,^uninit_bg";
    let image = Image::make(options, "1M", |_| ());
    let open = |groups| {
        let device = scattered_groups(&image, groups);
        within_bounds(&format!("{groups} groups"), || Filesystem::open(device, Settings::default()))
    };
    let fs = open(170_000).unwrap();
    assert_eq!(fs.superblock().groups, 170_000);
    assert_eq!(open(180_000).err(), Some(Refusal::OutOfMemory));
}
