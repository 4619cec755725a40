//! One thing at a time is wrong in a journal that is right in everything else, checksums included.

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::{Checksum, Refusal};
use lazaret_worker::ext4::{GroupNumber, InodeNumber, Settings};

use crate::log::{BLOCK, FAST, Image, JOURNAL, Kind, read};

/// Blocks that are free in the image.
const HERE: u64 = 5000;
const THERE: u64 = 5001;

const ALL: [(Kind, bool); 8] = [
    (Kind::None, false),
    (Kind::None, true),
    (Kind::V1, false),
    (Kind::V1, true),
    (Kind::V2, false),
    (Kind::V2, true),
    (Kind::V3, false),
    (Kind::V3, true),
];

fn filled(with: u8) -> Vec<u8> {
    vec![with; BLOCK]
}

fn corrupt(rule: Rule, place: Place) -> Option<Refusal> {
    Some(Refusal::Corrupt(Corruption { rule, place }))
}

fn checksum(rule: Rule, block: u32) -> Option<Refusal> {
    Some(Refusal::Checksum(Corruption { rule, place: Place::Journal(block) }))
}

#[test]
fn the_newest_copy_of_a_block_is_read_in_every_form_of_log() {
    for (kind, wide) in ALL {
        let Some(mut image) = Image::new(kind, wide) else { return };
        let escaped = [&[0xc0, 0x3b, 0x39, 0x98], &filled(7)[4..]].concat();
        image.transaction(&[(HERE, filled(1)), (THERE, filled(2)), (HERE + 9, filled(3))]);
        image.transaction(&[(THERE, escaped.clone())]);
        // No commit block follows.
        image.blocks(&[(HERE, filled(9))]);
        let filesystem = image.open().unwrap();
        assert!(read(&filesystem, HERE) == filled(1), "{kind:?} {wide}");
        assert!(read(&filesystem, THERE) == escaped);
        let replayed = filesystem.replayed();
        assert_eq!((replayed.transactions, replayed.blocks, replayed.revoked), (2, 3, 0));
    }
}

#[test]
fn a_revoke_record_hides_the_copies_up_to_its_own_transaction() {
    for (kind, wide) in ALL {
        let Some(mut image) = Image::new(kind, wide) else { return };
        let before = read(&image.open().unwrap(), HERE);
        image.transaction(&[(HERE, filled(1)), (THERE, filled(1))]);
        let revokes = image.revoke(&[HERE, THERE]);
        let descriptor = image.blocks(&[(HERE, filled(2)), (HERE + 5, filled(2))]);
        assert_eq!(descriptor, revokes + 1);
        image.commit(descriptor);
        image.transaction(&[(THERE, filled(3))]);
        // Of a transaction without a commit block nothing counts, not even this.
        image.revoke(&[THERE]);
        let filesystem = image.open().unwrap();
        assert!(read(&filesystem, HERE) == before);
        assert!(read(&filesystem, HERE + 5) == filled(2));
        assert!(read(&filesystem, THERE) == filled(3));
        assert_eq!(filesystem.replayed().revoked, 3);
    }
}

#[test]
fn transactions_and_blocks_go_round() {
    for (kind, wide) in ALL {
        let Some(mut image) = Image::new(kind, wide) else { return };
        image.begin(u32::MAX - 1);
        image.next = JOURNAL - 4;
        image.set_journal(0x1c, JOURNAL - 4);
        for with in 1..=3 {
            image.transaction(&[(HERE, filled(with))]);
        }
        assert_eq!((image.sequence, image.next), (1, 6));
        let filesystem = image.open().unwrap();
        assert_eq!(filesystem.replayed().transactions, 3, "{kind:?} {wide}");
        assert!(read(&filesystem, HERE) == filled(3));
    }
}

#[test]
fn a_log_of_one_transaction_that_never_ends_is_gone_round_once() {
    let Some(mut image) = Image::new(Kind::None, false) else { return };
    for _ in 1..JOURNAL {
        image.revoke(&[HERE]);
    }
    assert_eq!(image.open().unwrap().replayed().transactions, 0);
}

#[test]
fn a_broken_superblock_of_the_journal_is_named_by_its_rule() {
    let Some(sound) = Image::new(Kind::V3, true) else { return };
    for (at, word, rule) in [
        (0x00, 0xc03b_3999, Rule::JournalMagic),
        (0x04, 2, Rule::JournalMagic),
        (0x04, 5, Rule::JournalMagic),
        (0x0c, 4096, Rule::JournalBlockSize),
        (0x10, JOURNAL + 1, Rule::JournalLength),
        (0x10, 1, Rule::JournalLength),
        (0x14, 0, Rule::JournalLength),
        (0x14, JOURNAL, Rule::JournalLength),
        (0x1c, JOURNAL, Rule::JournalStart),
        (0x28, 0x13 | 0x40, Rule::JournalFeatures),
        (0x2c, 1, Rule::JournalFeatures),
        (0x24, 1, Rule::JournalChecksumType),
        (0x28, 0x1b, Rule::JournalChecksumType),
        (0x50, 0x0100_0000, Rule::JournalChecksumType),
    ] {
        let mut image = sound.clone();
        image.set_journal(at, word);
        assert_eq!(image.open().err(), corrupt(rule, Place::Journal(0)), "{at:#x}");
    }
    let mut image = sound.clone();
    image.set(0, 0x18, 7);
    assert_eq!(image.open().err(), checksum(Rule::JournalSuperblockChecksum, 0));
    assert_eq!(image.open_leniently().replayed().transactions, 0);
    // Where the log does not begin there is nothing to replay, whatever it holds.
    let mut image = sound;
    image.transaction(&[(HERE, filled(1))]);
    image.set_journal(0x1c, 0);
    assert_eq!(image.open().unwrap().replayed().blocks, 0);
}

#[test]
fn a_journal_that_is_not_an_inode_of_the_file_system_is_refused_only_if_it_is_needed() {
    let Some(mut image) = Image::new(Kind::V3, true) else { return };
    image.set_superblock(0xe0, &0_u32.to_le_bytes());
    assert_eq!(image.open().err(), corrupt(Rule::JournalInside, Place::Superblock));
    // needs_recovery is 4.
    let incompat = u32::from_le_bytes(image.bytes[1024 + 0x60..][..4].try_into().unwrap()) & !4;
    image.set_superblock(0x60, &incompat.to_le_bytes());
    assert!(image.open().is_ok());
    // The root directory is no journal.
    let Some(mut image) = Image::new(Kind::V3, true) else { return };
    image.set_superblock(0xe0, &2_u32.to_le_bytes());
    assert_eq!(image.open().err(), corrupt(Rule::JournalInode, Place::Inode(2)));
}

#[test]
fn a_wrong_checksum_is_damage_unless_the_commit_is_old() {
    for kind in [Kind::V2, Kind::V3] {
        let Some(mut image) = Image::new(kind, true) else { return };
        image.transaction(&[(HERE, filled(1))]);
        let good = image.clone();
        for revoke in [false, true] {
            // A descriptor or revoke records, and the commit block behind them.
            let mut image = good.clone();
            let block = if revoke { image.revoke(&[HERE]) } else { image.blocks(&[(HERE, filled(2))]) };
            image.block(block)[BLOCK - 1] ^= 1;
            let mut old = image.clone();
            let commit = image.commit(block);
            assert_eq!(image.open().err(), checksum(Rule::JournalBlockChecksum, commit));
            assert!(read(&image.open_leniently(), HERE) == filled(1));
            old.time = 5;
            old.commit(block);
            assert!(read(&old.open().unwrap(), HERE) == filled(1));
        }
        // The commit block itself.
        let mut image = good.clone();
        let (_, commit) = image.transaction(&[(HERE, filled(2))]);
        let whole = image.clone();
        image.block(commit)[17] ^= 1;
        assert_eq!(image.open().err(), checksum(Rule::JournalCommitChecksum, commit));
        image.block(commit)[48..56].copy_from_slice(&5_u64.to_be_bytes());
        assert!(read(&image.open().unwrap(), HERE) == filled(1));
        // Only its first sector reached the disk.
        let mut image = whole.clone();
        image.block(commit)[512..].fill(0xee);
        assert!(read(&image.open().unwrap(), HERE) == filled(2));
        // Early commit blocks are allowed to be wrong.
        let mut image = whole.clone();
        let incompat = u32::from_be_bytes(image.block(0)[0x28..0x2c].try_into().unwrap());
        image.set_journal(0x28, incompat | 4);
        image.block(commit)[17] ^= 1;
        assert!(read(&image.open().unwrap(), HERE) == filled(1));
        // A block of data: only the copies that count are looked at.
        let mut image = whole;
        image.block(2)[100] ^= 1;
        assert_eq!(image.open().err(), checksum(Rule::JournalDataChecksum, 2));
        assert!(read(&image.open_leniently(), HERE) == filled(2));
        let descriptor = image.revoke(&[HERE]);
        image.commit(descriptor);
        assert!(image.open().is_ok());
    }
}

#[test]
fn a_checksum_of_version_1_covers_the_whole_transaction() {
    let Some(mut image) = Image::new(Kind::V1, false) else { return };
    image.transaction(&[(HERE, filled(1))]);
    let (descriptor, commit) = image.transaction(&[(HERE, filled(2)), (THERE, filled(3))]);
    for block in descriptor..commit {
        let mut image = image.clone();
        image.block(block)[900] ^= 1;
        assert_eq!(image.open().err(), checksum(Rule::JournalCommitChecksum, commit));
        assert!(read(&image.open_leniently(), HERE) == filled(1));
        // A commit block may say that it has no checksum.
        image.block(commit)[12..20].fill(0);
        assert!(image.open().is_ok());
    }
}

#[test]
fn what_leads_outside_is_refused() {
    for (kind, wide) in ALL {
        let Some(mut image) = Image::new(kind, wide) else { return };
        let mut far = image.clone();
        let (descriptor, _) = far.transaction(&[(8192, filled(1))]);
        assert_eq!(far.open().err(), corrupt(Rule::JournalTarget, Place::Journal(descriptor + 1)));
        let block = image.revoke(&[HERE]);
        image.set(block, 12, BLOCK as u32 + 1);
        image.seal(block);
        image.commit(block);
        assert_eq!(image.open().err(), corrupt(Rule::JournalRevoke, Place::Journal(block)));
    }
}

#[test]
fn a_log_that_needs_more_memory_than_granted_is_refused() {
    let Some(mut image) = Image::new(Kind::V3, true) else { return };
    for number in 0..30 {
        let blocks: Vec<_> = (0..50).map(|block| (HERE + number * 50 + block, filled(1))).collect();
        image.transaction(&blocks);
    }
    let open = |memory| image.open_with(Settings { checksum: Checksum::Strict, memory, ..Settings::default() });
    assert_eq!(open(64 << 10).err(), Some(Refusal::OutOfMemory));
    assert_eq!(open(1 << 20).unwrap().replayed().blocks, 1500);
}

/// An image whose log has one transaction and room for fast commits behind it.
fn with_fast_commits() -> Option<Image> {
    let mut image = Image::new(Kind::V3, true)?;
    image.set_journal(0x28, 0x33);
    image.set_journal(0x54, FAST);
    image.transaction(&[(HERE, filled(1))]);
    Some(image)
}

/// Where the fast commits begin.
const FIRST: u32 = JOURNAL - FAST + 1;

fn tag(number: u16, value: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes(), &u16::try_from(value.len()).unwrap().to_le_bytes(), value].concat()
}

fn name(number: u16, parent: u32, inode: u32, name: &[u8]) -> Vec<u8> {
    tag(number, &[&parent.to_le_bytes(), &inode.to_le_bytes(), name].concat())
}

/// An inode's tag: a file or a directory with this many links.
fn inode(number: u32, mode: u16, links: u16, size: u32) -> Vec<u8> {
    let mut raw = vec![0; 160];
    raw[0..2].copy_from_slice(&mode.to_le_bytes());
    raw[4..8].copy_from_slice(&size.to_le_bytes());
    raw[26..28].copy_from_slice(&links.to_le_bytes());
    raw[0x20..0x24].copy_from_slice(&0x8_0000_u32.to_le_bytes());
    raw[0x80] = 32;
    tag(6, &[&number.to_le_bytes()[..], &raw].concat())
}

fn range(number: u32, first: u32, length: u16, start: u32) -> Vec<u8> {
    let words = [number.to_le_bytes(), first.to_le_bytes()].concat();
    tag(1, &[&words[..], &length.to_le_bytes(), &[0, 0], &start.to_le_bytes()].concat())
}

/// A fast commit in a block of its own, with its tail; `head` for the first.
fn fast_commit(transaction: u32, head: bool, tags: &[Vec<u8>]) -> Vec<u8> {
    let head = if head { tag(9, &[[0; 4], transaction.to_le_bytes()].concat()) } else { Vec::new() };
    let mut bytes = [head, tags.concat()].concat();
    bytes.extend(8_u16.to_le_bytes());
    let rest = u16::try_from(BLOCK - bytes.len() - 2).unwrap();
    bytes.extend(rest.to_le_bytes());
    bytes.extend(transaction.to_le_bytes());
    let crc = lazaret_worker::ext4::checksum::crc32c(0, &bytes);
    bytes.extend(crc.to_le_bytes());
    bytes.resize(BLOCK, 0);
    bytes
}

#[test]
fn fast_commits_count_up_to_the_last_sound_tail_of_the_next_transaction() {
    let Some(mut sound) = with_fast_commits() else { return };
    let next = sound.sequence;
    let file = |number, name_: &[u8]| vec![inode(number, 0o100_644, 1, 5), name(3, 2, number, name_)];
    sound.block(FIRST).copy_from_slice(&fast_commit(next, true, &file(12, b"one")));
    sound.block(FIRST + 1).copy_from_slice(&fast_commit(next, false, &file(13, b"two")));
    let found = |image: &Image| {
        let filesystem = image.open().unwrap();
        let root = filesystem.inode(InodeNumber::ROOT).unwrap();
        let names = [&b"one"[..], b"two"].map(|name| filesystem.lookup(&root, name).unwrap().is_some());
        (filesystem.replayed().fast_commits, names)
    };
    assert_eq!(found(&sound), (2, [true, true]));
    // A tag that is not what the tail's checksum says, one of no known kind or of no possible length: up to there.
    for (at, bits) in [(100, 1), (0, 0x50), (2, 0xff), (3, 0x80)] {
        let mut image = sound.clone();
        image.block(FIRST + 1)[at] ^= bits;
        assert_eq!(found(&image), (1, [true, false]), "{at}");
        // The same in the first, behind its head: the kernel does not mount it.
        let mut image = sound.clone();
        image.block(FIRST)[12 + at] ^= bits;
        assert_eq!(image.open().err(), checksum(Rule::FastCommitTail, FIRST), "{at}");
        assert_eq!(image.open_leniently().replayed().fast_commits, 0);
    }
    // Those of another transaction, or without a head, are old.
    let mut image = sound.clone();
    image.block(FIRST)[8] ^= 1;
    assert_eq!(found(&image), (0, [false, false]));
    let mut image = sound.clone();
    image.block(FIRST)[0] = 7;
    assert_eq!(found(&image), (0, [false, false]));
    let mut image = sound.clone();
    image.transaction(&[(HERE, filled(2))]);
    assert_eq!(found(&image), (0, [false, false]));
    let mut image = sound;
    image.block(FIRST)[4] = 1;
    assert_eq!(image.open().err(), corrupt(Rule::FastCommitFeatures, Place::Journal(FIRST)));
}

#[test]
fn fast_commits_that_do_not_fit_the_file_system_are_refused() {
    let Some(sound) = with_fast_commits() else { return };
    let open = |tags: &[Vec<u8>]| {
        let mut image = sound.clone();
        let next = image.sequence;
        image.block(FIRST).copy_from_slice(&fast_commit(next, true, tags));
        image.open()
    };
    let at = Place::Journal(FIRST);
    let file = inode(12, 0o100_644, 1, 5);
    assert_eq!(open(&[name(3, 2, 12, b"x")]).err(), corrupt(Rule::FastCommitInode, at));
    assert_eq!(open(&[inode(8, 0o100_644, 1, 5)]).err(), corrupt(Rule::FastCommitInode, at));
    assert_eq!(open(&[inode(99_999, 0o100_644, 1, 5)]).err(), corrupt(Rule::FastCommitInode, at));
    assert_eq!(open(&[file.clone(), name(3, 12, 12, b"x")]).err(), corrupt(Rule::FastCommitParent, at));
    assert_eq!(open(&[file.clone(), name(3, 2, 12, b"a/b")]).err(), corrupt(Rule::FastCommitName, at));
    let inode_12 = Place::Inode(12);
    assert_eq!(open(&[file.clone(), range(12, 0, 1, 1)]).err(), corrupt(Rule::BlockInFileSystem, inode_12));
    assert_eq!(open(&[file.clone(), range(12, 0, 9, 8190)]).err(), corrupt(Rule::BlockInFileSystem, inode_12));
    assert_eq!(open(&[file.clone(), range(12, 0, 1, 2)]).err(), corrupt(Rule::BlockNotSystem, inode_12));
    // What is not there any more is passed over.
    let gone = [name(4, 2, 77, b"x"), name(5, 2, 77, b"x"), name(5, 77, 11, b"x"), range(77, 0, 1, 5000)];
    assert_eq!(open(&gone).unwrap().replayed().fast_changes, 4);
    let no_files = [range(8, 0, 1, 5000), range(99_999, 0, 1, 2)];
    assert_eq!(open(&no_files).unwrap().replayed().fast_changes, 2);
    let nowhere = open(&[file.clone(), name(3, 99, 12, b"x"), name(4, 99, 12, b"y")]).unwrap();
    assert_eq!(crate::tree::of_reader(&nowhere).keys().map(|path| path.len()).sum::<usize>(), "/lost+found".len());
}

#[test]
fn where_case_is_folded_a_tag_may_spell_a_name_otherwise() {
    let Some(mut image) = with_fast_commits() else { return };
    let table = image.open().unwrap().group(GroupNumber(0)).unwrap().inode_table;
    let root = usize::try_from(table.0).unwrap() * BLOCK + 256;
    let next = image.sequence;
    image.set_superblock(0x27c, &1_u16.to_le_bytes());
    let incompat = u32::from_le_bytes(image.bytes[1024 + 0x60..][..4].try_into().unwrap()) | 0x2_0000;
    image.set_superblock(0x60, &incompat.to_le_bytes());
    image.bytes[root + 0x23] |= 0x40;
    let file = inode(12, 0o100_644, 1, 5);
    let open = |tags: &[Vec<u8>]| {
        let mut image = image.clone();
        image.block(FIRST).copy_from_slice(&fast_commit(next, true, tags));
        let fs = image.open_with(Settings { checksum: Checksum::Ignore, ..Settings::default() }).unwrap();
        crate::tree::of_reader(&fs).keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>()
    };
    let gone = name(5, 2, 11, b"LOST+Found");
    assert_eq!(open(std::slice::from_ref(&gone)), [""]);
    assert_eq!(open(&[gone, file.clone(), name(3, 2, 12, b"Lost+found")]), ["", "/Lost+found"]);
    assert_eq!(open(&[file.clone(), name(3, 2, 12, b"Name"), name(5, 2, 12, b"nAME")]), ["", "/lost+found"]);
    // A name that is there already, however it is spelt, stays.
    assert_eq!(open(&[file, name(4, 2, 12, b"LOST+FOUND")]), ["", "/lost+found"]);
}

#[test]
fn a_directory_that_takes_the_number_of_one_that_is_gone_is_empty() {
    // The kernel's replay fails on this and does not mount.
    let Some(mut image) = with_fast_commits() else { return };
    let next = image.sequence;
    let tags = [
        name(5, 2, 11, b"lost+found"),
        inode(11, 0o040_755, 2, 1024),
        name(3, 2, 11, b"again"),
        inode(12, 0o100_644, 1, 5),
        name(3, 11, 12, b"file"),
    ];
    image.block(FIRST).copy_from_slice(&fast_commit(next, true, &tags));
    let tree = crate::tree::of_reader(&image.open().unwrap());
    let paths: Vec<_> = tree.keys().map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(paths, ["", "/again", "/again/file"]);
    assert_eq!(tree[&b"/again/file"[..]].size, 5);
}

#[test]
fn random_damage_to_a_journal_is_survived() {
    let Some(mut sound) = with_fast_commits() else { return };
    sound.transaction(&[(HERE, filled(1)), (THERE, filled(2))]);
    let revokes = sound.revoke(&[HERE]);
    sound.commit(revokes);
    let next = sound.sequence;
    let tags = [inode(12, 0o100_644, 1, 5), name(3, 2, 12, b"x"), range(12, 0, 1, 5002), name(5, 2, 12, b"x")];
    sound.block(FIRST).copy_from_slice(&fast_commit(next, true, &tags));
    let mut state = 1_u32;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    let blocks: Vec<u32> = (0..sound.next).chain([FIRST]).collect();
    let mut opened = 0;
    for _ in 0..600 {
        let mut image = sound.clone();
        for _ in 0..=random(3) {
            let block = blocks[random(blocks.len())];
            let most = if random(2) == 0 { 64 } else { BLOCK };
            let at = random(most);
            let byte = u8::try_from(random(256)).unwrap();
            image.block(block)[at] = byte;
            match random(3) {
                0 if block == 0 => image.set_journal(0x18, 100),
                1 => image.seal(block),
                2 => image.seal_commit(block),
                _ => (),
            }
        }
        if let Ok(filesystem) = image.open_with(Settings { checksum: Checksum::Ignore, ..Settings::default() }) {
            opened += 1;
            let root = filesystem.inode(InodeNumber::ROOT).unwrap();
            let _ = filesystem.read_dir(&root, 0, &mut |_| std::ops::ControlFlow::Continue(()));
        }
    }
    assert!(opened > 100, "{opened}");
}
