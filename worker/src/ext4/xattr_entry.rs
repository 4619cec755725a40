//! The entries of extended attributes in one place: the body of an inode, or a block.
//!
//! What always holds here: an entry lies within its place, its name is one that a system call can tell or is not told
//! at all, and its value lies behind all entries and apart from the other values. A place of 64 KiB has at most 4096
//! entries. On the way of a question for an attribute: `xattr.rs` brings the bytes, and gets this.

use lazaret_policy::corruption::Rule;
use lazaret_policy::planted;
use zerocopy::FromBytes;

use super::format;
use super::units::{InodeNumber, usize_from};
use super::xattr::{Namespace, Xattr};

/// The longest name with its prefix, in bytes: `XATTR_NAME_MAX`.
const LONGEST_NAME: usize = 255;

/// An attribute, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    index: u8,
    name: &'a [u8],
    /// Where the value begins, which only one of some length has to do somewhere.
    pub(super) begin: usize,
    pub(super) value: Value<'a>,
    /// A value that lies here with what fills it up to a multiple of 4 bytes.
    padded: &'a [u8],
    /// `e_hash`: of the name and the value. Only used where the value has an inode.
    pub(super) hash: u32,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// With the entries.
    Here(&'a [u8]),
    /// In an inode, about which nothing was checked.
    Inode { number: InodeNumber, size: u32 },
}

/// The entries that begin `first` bytes into a place. Their values are counted from its begin.
pub(super) fn entries(place: &[u8], first: usize) -> Result<Vec<Entry<'_>>, Rule> {
    walk(place, first, check_name)
}

/// The same whatever their names are.
pub(super) fn laid_out(place: &[u8], first: usize) -> Result<Vec<Entry<'_>>, Rule> {
    walk(place, first, |_, _| Ok(()))
}

fn walk(
    place: &[u8],
    first: usize,
    check_name: impl Fn(u8, &[u8]) -> Result<(), Rule>,
) -> Result<Vec<Entry<'_>>, Rule> {
    let mut rest = place.get(first..).ok_or(Rule::XattrEntry)?;
    let mut found = Vec::new();
    // Each turn takes at least 16 bytes.
    while *rest.first_chunk().ok_or(Rule::XattrEntry)? != [0; 4] {
        let (raw, behind) = format::XattrEntry::ref_from_prefix(rest).map_err(|_| Rule::XattrEntry)?;
        let length = usize::from(raw.e_name_len);
        let name = behind.get(..length).ok_or(Rule::XattrEntry)?;
        check_name(raw.e_name_index, name)?;
        found.push((raw, name));
        rest = behind.get(length.next_multiple_of(4)..).ok_or(Rule::XattrEntry)?;
    }
    let behind = place.len().saturating_sub(rest.len()).saturating_add(4);

    let mut ranges = Vec::new();
    let mut entries = Vec::with_capacity(found.len());
    for (raw, name) in found {
        let size = raw.e_value_size.get();
        let mut padded = &[][..];
        let value = match InodeNumber::new(raw.e_value_inum.get()) {
            Some(number) => Value::Inode { number, size },
            None if size == 0 => Value::Here(&[]),
            None => {
                let range = Range::check(raw, behind, place.len()).ok_or(Rule::XattrValue)?;
                ranges.push(range);
                padded = place.get(range.begin..range.padded).ok_or(Rule::XattrValue)?;
                Value::Here(place.get(range.begin..range.end).ok_or(Rule::XattrValue)?)
            }
        };
        let begin = raw.e_value_offs.get().into();
        entries.push(Entry { index: raw.e_name_index, name, begin, value, padded, hash: raw.e_hash.get() });
    }
    ranges.sort_unstable_by_key(|range: &Range| range.begin);
    if ranges.is_sorted_by(|one, next| one.padded <= next.begin) { Ok(entries) } else { Err(Rule::XattrOverlap) }
}

/// A name of an unknown kind is nobody's business: no system call reaches it.
fn check_name(index: u8, name: &[u8]) -> Result<(), Rule> {
    let sound = Namespace::of(index).is_none_or(|namespace| {
        let whole = namespace.prefix().len().saturating_add(name.len());
        name.is_empty() == namespace.is_one_name() && whole <= LONGEST_NAME
    });
    if sound && (planted("attribute") || !name.contains(&0)) { Ok(()) } else { Err(Rule::XattrName) }
}

/// Where a value lies among the entries' bytes.
#[derive(Clone, Copy)]
struct Range {
    begin: usize,
    end: usize,
    /// The end with what fills the value up to a multiple of 4 bytes.
    padded: usize,
}

impl Range {
    /// Within a place of so many bytes, and behind its entries.
    fn check(raw: &format::XattrEntry, behind: usize, length: usize) -> Option<Self> {
        let begin = usize::from(raw.e_value_offs.get());
        let size = usize_from(raw.e_value_size.get());
        let end = begin.checked_add(size)?;
        let padded = begin.checked_add(size.checked_next_multiple_of(4)?)?;
        (begin >= behind && padded <= length).then_some(Self { begin, end, padded })
    }
}

impl<'a> Entry<'a> {
    /// The name, if a system call could ask for it.
    pub(super) fn xattr(&self) -> Option<Xattr<'a>> {
        Namespace::of(self.index).map(|namespace| Xattr { namespace, name: self.name })
    }

    /// Whether the entry's hash is that of its name and of a value with this hash.
    pub(super) fn has_hash_of(&self, value: u32) -> bool {
        self.has_hash(&[value])
    }

    /// Whether the entry's hash is that of its name and of its value, which lies here.
    pub(super) fn has_own_hash(&self) -> bool {
        let Value::Here(_) = self.value else { return true };
        let words = self.padded.as_chunks::<4>().0;
        self.has_hash(&words.iter().map(|&word| u32::from_le_bytes(word)).collect::<Vec<_>>())
    }

    /// Whether its value is an access control list.
    pub(super) fn is_acl(&self) -> bool {
        matches!(Namespace::of(self.index), Some(Namespace::AclAccess | Namespace::AclDefault))
    }

    /// Whether a system call could tell the name.
    pub(super) fn has_sound_name(&self) -> bool {
        check_name(self.index, self.name).is_ok()
    }

    /// Whether the entry is of no kind at all.
    pub(super) fn is_of_no_kind(&self) -> bool {
        self.index == 0
    }

    /// Some kernels took the bytes of names as signed.
    fn has_hash(&self, value: &[u32]) -> bool {
        let hash = |widen: fn(u8) -> u32| {
            let name = self.name.iter().fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ widen(byte));
            value.iter().fold(name, |hash, word| hash.rotate_left(16) ^ word)
        };
        let signed = |byte: u8| i32::from(byte.cast_signed()).cast_unsigned();
        hash(u32::from) == self.hash || hash(signed) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    /// One entry: index, name, and of the value the offset, the inode and the size.
    fn entry(index: u8, name: &str, offset: u16, inode: u32, size: u32) -> Vec<u8> {
        let raw = format::XattrEntry {
            e_name_len: name.len() as u8,
            e_name_index: index,
            e_value_offs: offset.into(),
            e_value_inum: inode.into(),
            e_value_size: size.into(),
            e_hash: 0.into(),
        };
        let mut bytes = raw.as_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A place of 128 bytes whose bytes behind the entries are their own offsets.
    fn place(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = parts.concat();
        bytes.extend([0; 4]);
        let begin = bytes.len() as u8;
        bytes.extend(begin..128);
        bytes
    }

    fn rule(parts: &[Vec<u8>]) -> Option<Rule> {
        entries(&place(parts), 0).err()
    }

    #[test]
    fn names_and_values_are_found_where_the_entries_say() {
        let bytes = place(&[entry(1, "a", 120, 0, 5), entry(2, "", 100, 0, 20), entry(7, "data", 0, 0, 0)]);
        let found = entries(&bytes, 0).unwrap();
        assert_eq!(found[0].xattr(), Some(Xattr { namespace: Namespace::User, name: b"a" }));
        assert_eq!(found[0].value, Value::Here(&[120, 121, 122, 123, 124]));
        assert_eq!(found[1].xattr(), Some(Xattr { namespace: Namespace::AclAccess, name: b"" }));
        assert_eq!(found[2].value, Value::Here(&[]));
        assert_eq!(found.len(), 3);
        assert!(entries(&place(&[]), 0).unwrap().is_empty());
    }

    #[test]
    fn entries_begin_where_they_are_said_to_and_values_count_from_the_place() {
        let mut bytes = vec![0xee; 32];
        bytes.extend(place(&[entry(1, "b", 32 + 124, 0, 4)]));
        let found = entries(&bytes, 32).unwrap();
        assert_eq!(found[0].value, Value::Here(&[124, 125, 126, 127]));
        assert_eq!(entries(&bytes, 161).err(), Some(Rule::XattrEntry));
    }

    #[test]
    fn the_end_mark_must_be_there_at_every_length() {
        let whole = place(&[entry(1, "abc", 0, 0, 0), entry(1, "d", 0, 0, 0)]);
        for length in 0..44 {
            assert_eq!(entries(&whole[..length], 0).err(), Some(Rule::XattrEntry), "{length}");
        }
        assert!(entries(&whole[..44], 0).is_ok());
    }

    #[test]
    fn a_value_lies_behind_the_entries_and_ends_within() {
        // 20 bytes of entry and 4 behind it.
        for (offset, size, sound) in [
            (24, 1, true),
            (23, 1, false),
            (0, 1, false),
            (124, 4, true),
            (124, 5, false),
            (126, 1, false),
            (127, 0, true),
            (24, 104, true),
            (24, u32::MAX, false),
            (u16::MAX, 1, false),
        ] {
            let expected = (!sound).then_some(Rule::XattrValue);
            assert_eq!(rule(&[entry(1, "a", offset, 0, size)]), expected, "{size} at {offset}");
        }
    }

    #[test]
    fn values_do_not_overlap_be_it_in_their_padding() {
        let two = |one, other| rule(&[entry(1, "a", one, 0, 8), entry(1, "b", other, 0, 5)]);
        assert_eq!(two(100, 108), None);
        assert_eq!(two(108, 100), None);
        assert_eq!(two(106, 100), Some(Rule::XattrOverlap));
        assert_eq!(two(100, 100), Some(Rule::XattrOverlap));
        assert_eq!(two(100, 104), Some(Rule::XattrOverlap));
    }

    #[test]
    fn names_are_what_their_namespace_asks_for() {
        let name = |index, name: &str| rule(&[entry(index, name, 0, 0, 0)]);
        for (index, text) in [(1, ""), (1, "a\0b"), (2, "x"), (4, ""), (6, "\0"), (7, ""), (8, "x")] {
            assert_eq!(name(index, text), Some(Rule::XattrName), "{index} {text:?}");
        }
        for (index, text) in [(1, "x"), (2, ""), (8, ""), (9, ""), (200, "x")] {
            assert_eq!(name(index, text), None, "{index} {text:?}");
        }
        for (index, longest) in [(1, 250), (4, 247), (6, 246), (200, 255)] {
            let of = |length| entries(&[entry(index, &"n".repeat(length), 0, 0, 0), vec![0; 4]].concat(), 0).err();
            assert_eq!(of(longest), None);
            assert!(longest == 255 || of(longest + 1) == Some(Rule::XattrName));
        }
    }

    #[test]
    fn a_value_in_an_inode_takes_no_room() {
        let bytes = place(&[entry(1, "a", 9999, 12, 60000)]);
        let number = InodeNumber::new(12).unwrap();
        assert_eq!(entries(&bytes, 0).unwrap()[0].value, Value::Inode { number, size: 60000 });
    }

    #[test]
    fn the_hash_is_of_what_fills_the_value_up_as_well() {
        let value = Value::Here(&[1]);
        let entry =
            |padded| Entry { index: 1, name: b"\x01", begin: 0, value, padded, hash: 0x0403_0201 ^ 0x0001_0000 };
        assert!(entry(&[1, 2, 3, 4]).has_own_hash());
        assert!(!entry(&[1, 0, 0, 0]).has_own_hash());
    }

    #[test]
    fn the_hash_takes_bytes_as_unsigned_or_as_signed() {
        let entry = |hash| Entry { index: 1, name: b"\x80", begin: 0, value: Value::Here(&[]), padded: &[], hash };
        assert!(entry(0x0080_0005).has_hash_of(5));
        assert!(entry(0xff80_ffff ^ 5).has_hash_of(5));
        assert!(!entry(0x0080_0005).has_hash_of(6));
    }
}
