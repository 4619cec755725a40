//! Journals that say they are far longer than their image: opening ends in bounded time, with the reason.

use lazaret_policy::corruption::Rule;
use lazaret_policy::message::Refusal;

use super::*;

const MAGIC: u32 = 0xc03b_3998;
const SEQUENCE: u32 = 7;

/// An image whose journal has this block millions of times, up to the most that an inode can hold in so many runs.
fn with_journal_of(block: &[u8]) -> Image {
    with_journal(block, 0)
}

/// The same, of a journal with these features that a reader need not know.
fn with_journal(block: &[u8], compat: u32) -> Image {
    let mut image = hostile_with("-J size=4", |_| ());
    let number = InodeNumber::new(8).unwrap();
    let fs = open(&image);
    let journal = fs.any_inode(number).unwrap();
    let MappingKind::Data(superblock) = fs.map(&journal, FileOffset(0), 1024).unwrap().kind else { panic!() };
    let mut space = space(&image);
    let from = run_of_4096(&space);
    for at in from..from + 4096 {
        image.write((at << 10) as usize, block);
    }
    let runs = 65_000u32;
    let mut extents: Vec<_> = (0..runs).map(|run| extent(1 + run * 4096, 4096, from)).collect();
    extents.insert(0, extent(0, 1, superblock.0 >> 10));
    let length = 1 + runs * 4096;
    let leaves = extents.chunks(84).map(<[_]>::to_vec).collect();
    plant(&mut image, number, leaves, u64::from(length) << 10, &mut space.split_off(20_000));
    let words = [(4, length), (5, 1), (6, SEQUENCE), (7, 1), (9, compat), (10, 1)];
    for (word, value) in words {
        image.write(superblock.0 as usize + word * 4, &u32::to_be_bytes(value));
    }
    let incompat = image.u32(1024 + 0x60) | 4;
    image.break_superblock(0x60, &incompat.to_le_bytes());
    image
}

fn block(kind: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [MAGIC, kind, SEQUENCE].into_iter().flat_map(u32::to_be_bytes).collect();
    bytes.extend(rest);
    bytes.resize(1024, 0);
    bytes
}

fn refused(what: &str, image: &Image) -> Refusal {
    let device = Device::from_bytes(image.bytes.clone());
    within_bounds(what, || Filesystem::open(device, Settings::default())).err().unwrap()
}

#[test]
fn a_journal_of_nothing_but_revokes() {
    let image = with_journal_of(&block(5, &16u32.to_be_bytes()));
    match refused("revokes", &image) {
        Refusal::Corrupt(found) => assert_eq!(found.rule, Rule::JournalWork),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_journal_of_nothing_but_descriptors() {
    // Nothing follows a descriptor without tags, so the next is one, too.
    let empty = block(1, &[0, 0, 0, 9, 0, 0, 0, 10]);
    match refused("descriptors of one tag", &with_journal_of(&empty)) {
        Refusal::Corrupt(found) => assert_eq!(found.rule, Rule::JournalWork),
        Refusal::OutOfMemory => (),
        other => panic!("{other:?}"),
    }
    let tags: Vec<u8> =
        (0..126u32).flat_map(|tag| [tag + 1, if tag == 125 { 10 } else { 2 }]).flat_map(u32::to_be_bytes).collect();
    assert_eq!(refused("descriptors full of tags", &with_journal_of(&block(1, &tags))), Refusal::OutOfMemory);
}

/// Checksums of version 1 are over all that a transaction holds, and the slowest.
#[test]
fn a_transaction_without_an_end_that_is_summed_up_as_it_is_read() {
    let data = block(1, &[0, 0, 0, 9, 0, 0, 0, 10]);
    match refused("sums", &with_journal(&data, 1)) {
        Refusal::Corrupt(found) => assert_eq!(found.rule, Rule::JournalWork),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_journal_of_nothing_but_revoked_blocks() {
    let records: Vec<u8> = 1012u32.to_be_bytes().into_iter().chain((0..249u32).flat_map(u32::to_be_bytes)).collect();
    assert_eq!(refused("revoked blocks", &with_journal_of(&block(5, &records))), Refusal::OutOfMemory);
}

/// Names in fast commits, each looked for in a directory that is one run of full blocks again and again.
#[test]
fn names_in_fast_commits_that_are_looked_for_in_gigabytes() {
    let mut image = hostile_with("-J size=4", |_| ());
    let (directory, file) = (image.number("directory"), image.number("file"));
    let mut space = space(&image);
    let from = run_of_4096(&space);
    let mut records = [11u32.to_le_bytes(), [12, 0, 3, 1], *b"xyz\0"].concat().repeat(85);
    records[84 * 12 + 4..84 * 12 + 6].copy_from_slice(&16u16.to_le_bytes());
    records.resize(1024, 0);
    for at in from..from + 4096 {
        image.write((at << 10) as usize, &records);
    }
    let extents = (0..84u32).map(|index| extent(index * 4096, 4096, from)).collect();
    plant(&mut image, directory, vec![extents], 84 << 22, &mut space.split_off(20_000));

    let fs = open(&image);
    let journal = fs.any_inode(InodeNumber::new(8).unwrap()).unwrap();
    let place = |block: u64| match fs.map(&journal, FileOffset(block << 10), 1024).unwrap().kind {
        MappingKind::Data(start) => start.0 as usize,
        other => panic!("{other:?}"),
    };
    // The last 256 blocks are for fast commits, but the first of these.
    let fast = place((journal.size >> 10) - 255);
    for (word, value) in [(6, SEQUENCE), (7, 1), (10, 0x21)] {
        image.write(place(0) + word * 4, &u32::to_be_bytes(value));
    }
    let tag = |kind: u16, length: usize, words: [u32; 2], name: &[u8]| {
        let head = [kind.to_le_bytes(), (length as u16).to_le_bytes()].concat();
        [&head[..], &words.map(u32::to_le_bytes).concat(), name].concat()
    };
    let mut tags = tag(9, 8, [0, SEQUENCE], b"");
    for number in 0..20 {
        tags.extend(tag(4, 11, [directory.value(), file.value()], format!("n{number:02}").as_bytes()));
    }
    let tail = tag(8, 1024 - tags.len() - 4, [SEQUENCE, 0], b"");
    tags.extend(&tail[..8]);
    let crc = lazaret_worker::ext4::checksum::crc32c(0, &tags);
    tags.extend(crc.to_le_bytes());
    image.write(fast, &tags);
    let incompat = image.u32(1024 + 0x60) | 4;
    image.break_superblock(0x60, &incompat.to_le_bytes());
    match refused("names in fast commits", &image) {
        Refusal::Corrupt(found) => assert_eq!(found.rule, Rule::FastCommitWork),
        other => panic!("{other:?}"),
    }
}
