//! POSIX access control lists: from the form they have on the disk to the one that the system calls have.
//!
//! What always holds here: a list that is passed on is one that `acl_valid(3)` would take: every kind of entry at its
//! place, none missing that must be there, no permission but rwx. On the way of a question for an attribute this stands
//! behind `xattr.rs`, which brings the value.

use lazaret_policy::corruption::Rule;
use zerocopy::{FromBytes, IntoBytes};

use super::format;

/// `a_version` of the form that the system calls have.
const XATTR_VERSION: u32 = 2;
/// Their id where an entry names nobody.
const NOBODY: u32 = u32::MAX;

/// The kinds of entries, in the order in which they stand: the owner, named users, the group, named groups, what the
/// named and the group have at most, everybody else.
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The value of `system.posix_acl_access` or `system.posix_acl_default`; none if the list has no entries, which says the
/// same as no list.
pub(super) fn decode(value: &[u8]) -> Result<Option<Vec<u8>>, Rule> {
    let (&version, mut rest) = value.split_first_chunk().ok_or(Rule::AclForm)?;
    if u32::from_le_bytes(version) != format::ACL_VERSION {
        return Err(Rule::AclForm);
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let mut list = XATTR_VERSION.to_le_bytes().to_vec();
    let mut seen = Seen::default();
    // Each turn takes at least 4 bytes.
    while !rest.is_empty() {
        let (entry, behind) = take(rest)?;
        if entry.e_perm.get() > 0o7 {
            return Err(Rule::AclEntry);
        }
        seen.add(entry.e_tag.get())?;
        list.extend_from_slice(entry.as_bytes());
        rest = behind;
    }
    seen.is_whole().then_some(Some(list)).ok_or(Rule::AclOrder)
}

/// Takes away the permissions of a umask from what [`decode`] gave: the owner's, the group's with everyone's who is
/// named, and the others'.
pub fn narrow(list: &mut [u8], umask: u16) {
    let Some((_, entries)) = list.split_first_chunk_mut::<4>() else { return };
    let Ok(entries) = <[format::AclEntry]>::mut_from_bytes(entries) else { return };
    for entry in entries {
        let lost = match entry.e_tag.get() {
            USER_OBJ => umask >> 6,
            OTHER => umask,
            _ => umask >> 3,
        };
        entry.e_perm.set(entry.e_perm.get() & !lost & 0o7);
    }
}

/// The first entry, in the form of the system calls, and what follows it.
fn take(bytes: &[u8]) -> Result<(format::AclEntry, &[u8]), Rule> {
    let (short, behind) = format::AclEntryShort::ref_from_prefix(bytes).map_err(|_| Rule::AclForm)?;
    match short.e_tag.get() {
        USER | GROUP => format::AclEntry::read_from_prefix(bytes).map_err(|_| Rule::AclForm),
        USER_OBJ | GROUP_OBJ | MASK | OTHER => {
            Ok((format::AclEntry { e_tag: short.e_tag, e_perm: short.e_perm, e_id: NOBODY.into() }, behind))
        }
        _ => Err(Rule::AclEntry),
    }
}

/// Which kinds of entries a list has had so far.
#[derive(Default)]
struct Seen(u16);

impl Seen {
    /// The next one is of a later kind than all before, but that named users and named groups may be several.
    fn add(&mut self, tag: u16) -> Result<(), Rule> {
        let several = matches!(tag, USER | GROUP);
        let in_order = tag > self.0 || several && self.0 & tag != 0 && self.0 < tag << 1;
        self.0 |= tag;
        if in_order { Ok(()) } else { Err(Rule::AclOrder) }
    }

    /// The three that answer to the mode must be there, and where somebody is named the mask.
    fn is_whole(&self) -> bool {
        const BASE: u16 = USER_OBJ | GROUP_OBJ | OTHER;
        self.0 & BASE == BASE && (self.0 & (USER | GROUP) == 0 || self.0 & MASK != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list on the disk; an id where the kind has one.
    fn disk(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0];
        for &(tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            if matches!(tag, USER | GROUP) {
                bytes.extend(id.to_le_bytes());
            }
        }
        bytes
    }

    const SOUND: [(u16, u16, u32); 8] = [
        (USER_OBJ, 7, 0),
        (USER, 4, 1000),
        (USER, 6, 1001),
        (GROUP_OBJ, 5, 0),
        (GROUP, 1, 7),
        (GROUP, 0, 8),
        (MASK, 5, 0),
        (OTHER, 0, 0),
    ];

    #[test]
    fn every_entry_gets_an_id_and_the_version_is_2() {
        let list = decode(&disk(&SOUND)).unwrap().unwrap();
        assert_eq!(list[..4], [2, 0, 0, 0]);
        let entries = <[format::AclEntry]>::ref_from_bytes(&list[4..]).unwrap();
        for (entry, (tag, permissions, id)) in entries.iter().zip(SOUND) {
            let id = if matches!(tag, USER | GROUP) { id } else { u32::MAX };
            assert_eq!((entry.e_tag.get(), entry.e_perm.get(), entry.e_id.get()), (tag, permissions, id));
        }
        assert_eq!(entries.len(), SOUND.len());
    }

    #[test]
    fn no_entries_are_no_list_and_the_three_of_the_mode_are_one() {
        assert_eq!(decode(&disk(&[])), Ok(None));
        assert!(decode(&disk(&[SOUND[0], SOUND[3], SOUND[7]])).unwrap().is_some());
        assert!(decode(&disk(&[SOUND[0], SOUND[3], SOUND[6], SOUND[7]])).unwrap().is_some());
    }

    #[test]
    fn what_is_missing_or_out_of_order_is_told() {
        for missing in [0, 3, 6, 7] {
            let mut entries = SOUND.to_vec();
            entries.remove(missing);
            assert_eq!(decode(&disk(&entries)), Err(Rule::AclOrder), "without {missing}");
        }
        for (one, other) in (0..8).flat_map(|one| (0..one).map(move |other| (one, other))) {
            let mut entries = SOUND;
            entries.swap(one, other);
            let same = SOUND[one].0 == SOUND[other].0;
            assert_eq!(decode(&disk(&entries)).is_ok(), same, "{one} with {other}");
        }
        for twice in [0, 3, 6, 7] {
            let mut entries = SOUND.to_vec();
            entries.insert(twice, SOUND[twice]);
            assert_eq!(decode(&disk(&entries)), Err(Rule::AclOrder), "{twice} twice");
        }
    }

    #[test]
    fn strange_entries_versions_and_cut_ones_are_told() {
        for tag in (0..=0x40).chain([0x101, 0x8000, 0xffff]) {
            let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(&tag);
            assert_eq!(decode(&disk(&[(tag, 0, 0)])) == Err(Rule::AclEntry), !known, "{tag:#x}");
        }
        assert_eq!(decode(&disk(&[(USER_OBJ, 8, 0), SOUND[3], SOUND[7]])), Err(Rule::AclEntry));
        let whole = disk(&SOUND);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_ok_and(|list| list.is_none()) == (length == 4), "{length}");
        }
        assert_eq!(decode(&[2, 0, 0, 0]), Err(Rule::AclForm));
        assert_eq!(decode(&[0, 0, 0, 1]), Err(Rule::AclForm));
    }

    #[test]
    fn a_umask_takes_from_the_owner_the_group_and_the_others() {
        let mut list = decode(&disk(&SOUND)).unwrap().unwrap();
        narrow(&mut list, 0o124);
        let entries = <[format::AclEntry]>::ref_from_bytes(&list[4..]).unwrap();
        let permissions: Vec<u16> = entries.iter().map(|entry| entry.e_perm.get()).collect();
        assert_eq!(permissions, [6, 4, 4, 5, 1, 0, 5, 0]);
        narrow(&mut [2, 0, 0, 0, 1], 0o777);
        narrow(&mut [], 0o777);
    }
}
