//! A check of images that claim far more than there is: it ends as soon as it would on a sound image of their length.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lazaret_policy::corruption::Rule;
use lazaret_policy::message::CheckCounts;
use lazaret_worker::ext4::check::Check;

use super::*;

/// Checks all of it: what was counted, and the rules that are broken.
fn checked(what: &str, fs: &Filesystem) -> (CheckCounts, Vec<Rule>) {
    within_bounds(what, || {
        let mut check = Check::new(fs).unwrap();
        let mut rules = Vec::new();
        loop {
            let told = check.advance().unwrap();
            rules.extend(told.findings.iter().map(|finding| finding.corruption.rule));
            if told.over {
                return (told.counts, rules);
            }
        }
    })
}

/// One run of blocks again and again, as a directory of gigabytes: names that are none, then no entries at all.
#[test]
fn a_directory_of_gigabytes() {
    for broken in [false, true] {
        let mut image = hostile(|_| ());
        let number = image.number("directory");
        let mut space = space(&image);
        let from = run_of_4096(&space);
        let mut block = vec![0; 1024];
        block[4..6].copy_from_slice(&if broken { 7u16 } else { 1024 }.to_le_bytes());
        for block_number in from..from + 4096 {
            image.write((block_number << 10) as usize, &block);
        }
        let leaves = (0..100u32)
            .map(|leaf| (0..84).map(|index| extent((leaf * 84 + index) * 4096, 4096, from)).collect())
            .collect();
        plant(&mut image, number, leaves, 8400 << 22, &mut space.split_off(20_000));
        let (counts, rules) = checked("a directory of gigabytes", &open(&image));
        // Of more findings than are listed, the last are only counted.
        let last = if broken { Rule::DirectoryRecordLength } else { Rule::DirectoryWhole };
        assert!(rules.contains(&Rule::BlockOnce) && rules.contains(&last), "{counts:?}");
        assert!(counts.damage < 200_000, "{counts:?}");
    }
}

/// Millions of extents, each of a thousand blocks that were named before.
#[test]
fn a_tree_of_maximal_fan_out() {
    let mut image = hostile(|_| ());
    let number = image.number("file");
    let mut space = space(&image);
    let data = space.remove(0);
    let leaves = (0..50_000u32)
        .map(|leaf| (0..84).map(|entry| extent((leaf * 84 + entry) * 1000, 1000, data)).collect())
        .collect();
    plant(&mut image, number, leaves, (50_000 * 84 * 1000) << 10, &mut space);
    // The blocks of the tree are nobody else's.
    let large = image.number("space");
    image.break_inode(large, 0, &[0; 128]);
    let (counts, rules) = checked("a tree of maximal fan-out", &open(&image));
    assert!(rules.contains(&Rule::BlockOnce) && counts.damage > 8_400, "{counts:?}");
}

/// A million groups with one table of inodes, which they share: eight million inodes.
#[test]
fn a_table_of_inodes_for_a_million_groups() {
    let (mut image, groups) = a_million_groups();
    let table = image.inode(InodeNumber::ROOT) & !1023;
    let inodes = image.bytes[table..table + 4096].to_vec();
    let descriptor = image.bytes[image.group(0)..][..64].to_vec();
    let place = 200_000u32;
    image.write((place as usize) << 10, &inodes);
    let first = image.group(0);
    for group in 0..groups as usize {
        let at = first + group * 64;
        image.write(at, &descriptor);
        for (field, value) in [(0, place - 2), (4, place - 1), (8, place)] {
            image.write(at + field, &value.to_le_bytes());
        }
    }
    let device = Device::from_bytes(std::mem::take(&mut image.bytes));
    let fs = Filesystem::open(device, Settings::default()).unwrap();
    let (counts, _) = checked("a million groups", &fs);
    assert!(counts.damage >= groups.into() && counts.inodes < 100, "{counts:?}");
}

/// Every inode has attributes in inodes, all of them the same one, and each would be read for its hash.
#[test]
fn values_that_are_shared_without_end() {
    let mut image = Image::make("-t ext4 -b 65536 -I 32768 -O ea_inode,^metadata_csum -N 512", "128M", |root| {
        for number in 0..200 {
            fs::write(root.join(format!("file{number}")), b"").unwrap();
        }
    });
    let holder = image.number("file0");
    // Long and without a hash that fits: what matters is that it would be read.
    image.break_inode(holder, 0x20, &0x28_0000u32.to_le_bytes());
    image.break_inode(holder, 4, &65_536u32.to_le_bytes());
    let mut entries = 0xea02_0000u32.to_le_bytes().to_vec();
    for name in 0..1400u32 {
        let raw = [&[4, 1, 0, 0][..], &holder.value().to_le_bytes(), &65_536u32.to_le_bytes(), &[0; 4]].concat();
        entries.extend(raw);
        entries.extend(format!("{name:04}").bytes());
    }
    entries.extend([0; 4]);
    for number in 1..200 {
        let number = image.number(&format!("file{number}"));
        let tail = 128 + usize::from(image.u16(image.inode(number) + 0x80));
        image.break_inode(number, tail, &entries);
    }
    let fs = open(&image);
    let ended = within_bounds("values", || {
        let mut check = Check::new(&fs).unwrap();
        loop {
            match check.advance() {
                Ok(told) if told.over => return Ok(told.counts),
                Ok(_) => (),
                Err(error) => return Err(error),
            }
        }
    });
    assert_eq!(ended.map(|counts| counts.damage), Err(Error::Budget));
}

/// The inode for resizing has three levels of pointers, and those of each name one block.
#[test]
fn one_block_for_all_that_is_kept_for_resizing() {
    let mut image = hostile(|_| ());
    let blocks: Vec<u64> = space(&image)[..4].to_vec();
    for pair in blocks.windows(2) {
        let all = u32::try_from(pair[1]).unwrap().to_le_bytes().repeat(256);
        image.write((pair[0] << 10) as usize, &all);
    }
    let (number, third) = (InodeNumber::new(7).unwrap(), blocks[2] << 10);
    image.break_inode(number, 0, &0o100_600_u16.to_le_bytes());
    image.break_inode(number, 40 + 14 * 4, &u32::try_from(blocks[0]).unwrap().to_le_bytes());
    let reads = Arc::new(AtomicUsize::new(0));
    let (bytes, count) = (std::mem::take(&mut image.bytes), Arc::clone(&reads));
    let device = Device::answered(bytes.len() as u64, move |offset, out| {
        count.fetch_add(usize::from((offset..offset + out.len() as u64).contains(&third)), Ordering::Relaxed);
        out.copy_from_slice(&bytes[offset as usize..][..out.len()]);
        true
    });
    let fs = Filesystem::open(device, Settings::default()).unwrap();
    let (counts, rules) = checked("the inode for resizing", &fs);
    assert!(rules.contains(&Rule::BlockOnce), "{counts:?}");
    let reads = reads.load(Ordering::Relaxed);
    assert!((256..300).contains(&reads), "a block was read {reads} times");
}
