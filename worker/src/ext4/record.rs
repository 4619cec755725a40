//! The records of a directory's block: names and inode numbers, one behind the other.
//!
//! What always holds here: a record that is given was checked as the kernel checks it, and the next begins where it
//! ends, so that a block has at most one for every 12 bytes. On the way of a lookup these are the last bytes looked at.

use lazaret_policy::corruption::Rule;
use lazaret_policy::planted;
use zerocopy::FromBytes;

use super::format;
use super::units::{InodeNumber, usize_from};

/// Bytes of the shortest record: a name of one byte, rounded up.
const SHORTEST: usize = 12;

/// A record of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Where it begins.
    pub(super) begin: usize,
    /// Where the next begins: behind this one, at most at the end of the block.
    pub(super) end: usize,
    /// What it names; none if it is not in use.
    pub(super) inode: Option<InodeNumber>,
    /// The type of file, as the record has it.
    pub(super) file_type: u8,
    /// Raw: ask [`is_name`] before passing it on.
    pub(super) name: &'a [u8],
    /// The hash of the name, where the directory keeps it behind each.
    pub(super) hash: Option<[u32; 2]>,
}

/// The records of a block from its first byte on. The first broken one is the last that is given.
pub(super) struct Records<'a> {
    block: &'a [u8],
    inodes: u32,
    hashes: bool,
    begin: usize,
}

impl<'a> Records<'a> {
    /// `inodes` is how many the file system has.
    pub(super) fn of(block: &'a [u8], inodes: u32) -> Self {
        Self { block, inodes, hashes: false, begin: 0 }
    }

    /// Whether the hash of each name stands behind it, as where names are encrypted and fold case.
    pub(super) fn with_hashes(self, hashes: bool) -> Self {
        Self { hashes, ..self }
    }

    /// The record that begins here, held to the rules of the kernel's `__ext4_check_dir_entry`. Inlined, as `next` is: a
    /// search goes over dozens of records for one name, and needs little of each.
    #[inline(always)]
    fn check(&self) -> Result<Record<'a>, Rule> {
        let (begin, size) = (self.begin, self.block.len());
        let rest = self.block.get(begin..).unwrap_or_default();
        let (head, behind) = format::DirEntry::ref_from_prefix(rest).map_err(|_| Rule::DirectoryRecordEnd)?;

        let length = record_length(head.rec_len.get(), size);
        let name_end = size_of::<format::DirEntry>().saturating_add(head.name_len.into());
        let name = behind.get(..head.name_len.into());
        let hashed =
            self.hashes && name != Some(b".") && name != Some(b"..") && head.file_type != format::DIR_TAIL_TYPE;
        let hash = if hashed { size_of::<format::DirEntryHash>() } else { 0 };
        let needed = name_end.next_multiple_of(4).saturating_add(hash);
        if length < needed.max(SHORTEST) && !planted("record length") || !length.is_multiple_of(4) {
            return Err(Rule::DirectoryRecordLength);
        }
        let end = begin.saturating_add(length);
        if end != size && end.saturating_add(SHORTEST) > size {
            return Err(Rule::DirectoryRecordEnd);
        }
        if head.inode.get() > self.inodes {
            return Err(Rule::DirectoryInode);
        }
        let name = name.ok_or(Rule::DirectoryRecordEnd)?;
        let hash = if hashed { hash_at(rest, name_end.next_multiple_of(4)) } else { None };
        Ok(Record { begin, end, inode: InodeNumber::new(head.inode.get()), file_type: head.file_type, name, hash })
    }
}

impl<'a> Iterator for Records<'a> {
    /// A record, or which rule is broken at which byte of the block.
    type Item = Result<Record<'a>, (Rule, usize)>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.begin >= self.block.len() {
            return None;
        }
        let begin = self.begin;
        let record = self.check();
        self.begin = record.as_ref().map_or(self.block.len(), |record| record.end);
        Some(record.map_err(|rule| (rule, begin)))
    }
}

/// The hash that begins at this byte of a record.
#[cold]
fn hash_at(record: &[u8], begin: usize) -> Option<[u32; 2]> {
    let (hash, _) = format::DirEntryHash::ref_from_prefix(record.get(begin..)?).ok()?;
    Some([hash.hash.get(), hash.minor_hash.get()])
}

/// `rec_len`, which has 16 bits: in blocks of 64 KiB 0 and 65535 stand for the whole block, and the two lowest bits
/// for those above the 16.
#[inline]
pub(super) fn record_length(rec_len: u16, block: usize) -> usize {
    const LARGEST_BLOCK: usize = 1 << 16;
    match rec_len {
        0 | u16::MAX if block == LARGEST_BLOCK => block,
        length if block == LARGEST_BLOCK => usize_from(u32::from(length & 0xfffc) | u32::from(length & 3) << 16),
        length => length.into(),
    }
}

/// Whether these bytes can be a name.
pub(super) fn is_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len()) && !name.contains(&0) && (planted("name") || !name.contains(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of this length; `name` need not fit.
    fn record(inode: u32, length: u16, name: &[u8]) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend([name.len() as u8, 1]);
        bytes.extend(name);
        bytes.resize(bytes.len().max(length.into()), 0);
        bytes
    }

    fn first_broken(mut block: Vec<u8>, size: usize) -> (Rule, usize) {
        block.resize(size, 0);
        Records::of(&block, 100).find_map(Result::err).unwrap()
    }

    #[test]
    fn records_follow_each_other_to_the_end_of_the_block() {
        let block = [record(2, 12, b"."), record(0, 16, b"gone"), record(100, 996, &[7; 255])].concat();
        let all: Vec<_> = Records::of(&block, 100).map(Result::unwrap).collect();
        let places: Vec<_> = all.iter().map(|record| (record.begin, record.end)).collect();
        assert_eq!(places, [(0, 12), (12, 28), (28, 1024)]);
        assert_eq!(all[0].inode, Some(InodeNumber::ROOT));
        assert_eq!((all[1].inode, all[1].name), (None, &b"gone"[..]));
        assert_eq!(all[2].name, [7; 255]);
    }

    #[test]
    fn each_rule_is_found_broken_where_it_is() {
        let with = |bad: Vec<u8>| [record(2, 12, b"."), bad].concat();
        for length in [0, 4, 8, 13, 14, 15] {
            assert_eq!(first_broken(with(record(5, length, b"a")), 1024), (Rule::DirectoryRecordLength, 12));
        }
        assert_eq!(first_broken(with(record(5, 12, b"abcde")), 1024), (Rule::DirectoryRecordLength, 12));
        for length in [1016, 1004, 1008, 65532] {
            assert_eq!(first_broken(with(record(5, length, b"a")), 1024), (Rule::DirectoryRecordEnd, 12));
        }
        assert_eq!(first_broken(with(record(101, 12, b"a")), 1024), (Rule::DirectoryInode, 12));
        assert_eq!(first_broken(vec![1, 0, 0, 0, 12], 5), (Rule::DirectoryRecordEnd, 0));
    }

    #[test]
    fn a_hash_stands_behind_each_name_but_those_that_are_not_encrypted() {
        let mut hashed = record(7, 36, &[0xaa; 17]);
        hashed[28..36].copy_from_slice(&[4, 3, 2, 1, 8, 7, 6, 5]);
        let tail = record(0, 12, b"");
        let mut block = [record(2, 12, b"."), record(2, 12, b".."), hashed, record(0, 1024 - 72, b""), tail].concat();
        block[1024 - 12 + 7] = 0xde;
        let all: Vec<_> = Records::of(&block, 100).with_hashes(true).map(Result::unwrap).collect();
        let hashes: Vec<_> = all.iter().map(|record| record.hash).collect();
        assert_eq!(hashes, [None, None, Some([0x01020304, 0x05060708]), Some([0; 2]), None]);
        assert_eq!((all[2].name, all[2].end), (&[0xaa; 17][..], 60));

        let mut short = [record(2, 12, b"."), record(7, 28, &[0xaa; 17])].concat();
        short.resize(1024, 0);
        let broken = Records::of(&short, 100).with_hashes(true).find_map(Result::err);
        assert_eq!(broken, Some((Rule::DirectoryRecordLength, 12)));
    }

    #[test]
    fn lengths_in_blocks_of_64_kib_have_17_bits() {
        assert_eq!([0, 65535].map(|length| record_length(length, 65536)), [65536; 2]);
        assert_eq!(record_length(65524, 65536), 65524);
        assert_eq!(record_length(12 | 1, 65536), 65536 + 12);
        assert_eq!([0, 65535, 13].map(|length| record_length(length, 32768)), [0, 65535, 13]);
    }

    #[test]
    fn any_bytes_end() {
        let mut seed = 1_u64;
        for size in [1, 11, 1024, 65536] {
            for _ in 0..200 {
                let mut next = || {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    // Mostly small numbers, so that many records are sound.
                    if seed >> 62 == 0 { (seed >> 40) as u8 } else { (seed >> 40) as u8 & 12 }
                };
                let block: Vec<u8> = (0..size).map(|_| next()).collect();
                let (mut at, mut number) = (0, 0);
                for record in Records::of(&block, 0x0c0c_0c0c).map_while(Result::ok) {
                    assert_eq!(record.begin, at);
                    (at, number) = (record.end, number + 1);
                }
                assert!(at <= size && number <= size / SHORTEST);
            }
        }
    }

    #[test]
    fn a_name_has_no_slash_and_no_nul() {
        assert!(is_name(b"a") && is_name(&[0xff; 255]) && is_name(b".."));
        assert!(!is_name(b"") && !is_name(&[b'a'; 256]) && !is_name(b"a/b") && !is_name(b"a\0"));
    }
}
