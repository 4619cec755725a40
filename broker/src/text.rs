//! Numbers of an image in words: sizes, identifiers, kinds, states.
//!
//! What holds here: whatever the numbers are, the words are ours and hold no byte of the image.

use crate::path::is;
use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use lazaret_policy::message::Attributes;
use lazaret_policy::scan::{PartitionKind, TableKind, Volume};

/// `s_state`: unmounted, or mounted by a journal's leave.
const VALID: u16 = 1;
/// `s_state`: the kernel met an error.
const ERRORS: u16 = 2;
/// `s_state`: orphans are being deleted.
const ORPHANS: u16 = 4;

/// What would be there without an entry of its own.
const MBR_KINDS: &[(u8, &str)] = &[
    (0x05, "extended"),
    (0x07, "NTFS, exFAT or HPFS"),
    (0x0b, "FAT32"),
    (0x0c, "FAT32"),
    (0x0e, "FAT16"),
    (0x0f, "extended"),
    (0x82, "Linux swap"),
    (0x83, "Linux"),
    (0x85, "Linux extended"),
    (0x8e, "Linux LVM"),
    (0xef, "EFI system"),
    (0xfd, "Linux RAID"),
];

/// The first 32 bits of a type's GUID are enough to tell those that are known apart.
const GPT_KINDS: &[(u32, &str)] = &[
    (0x0657_fd6d, "Linux swap"),
    (0x0fc6_3daf, "Linux"),
    (0x2168_6148, "BIOS boot"),
    (0x3b8f_8425, "Linux /srv"),
    (0x4f68_bce3, "Linux root (x86-64)"),
    (0x933a_c7e1, "Linux /home"),
    (0xa19d_880f, "Linux RAID"),
    (0xb921_b045, "Linux root (aarch64)"),
    (0xbc13_c2ff, "Linux extended boot"),
    (0xc12a_7328, "EFI system"),
    (0xca7d_7ccb, "Linux LUKS"),
    (0xe6d6_d379, "Linux LVM"),
    (0xebd0_a0a2, "Microsoft basic data"),
];

/// Bytes in the unit that leaves a short number: `64 MiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[power]),
        tenth => format!("{}.{tenth} {}", tenths / 10, UNITS[power]),
    }
}

/// A UUID as it lies in a superblock.
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A GUID as it lies in a GPT: its first three fields are little-endian.
pub(crate) fn guid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
    let mut ordered = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
    ordered[8..].copy_from_slice(&rest);
    uuid(&ordered)
}

/// A label up to its NUL: bytes of the image.
pub(crate) fn label(bytes: &[u8; 16]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// What a partition is for; a type without a name by its number.
pub(crate) fn partition_kind(kind: PartitionKind) -> String {
    match kind {
        PartitionKind::Mbr(kind) => {
            let known = MBR_KINDS.iter().find(|(one, _)| *one == kind);
            known.map_or_else(|| format!("type {kind:02x}"), |(_, name)| (*name).to_owned())
        }
        PartitionKind::Gpt(kind) => {
            let [a, b, c, d, ..] = kind;
            let known = GPT_KINDS.iter().find(|(one, _)| *one == u32::from_le_bytes([a, b, c, d]));
            known.map_or_else(|| format!("type {}", guid(&kind)), |(_, name)| (*name).to_owned())
        }
    }
}

/// The kind of a partition table.
pub(crate) fn table_kind(kind: TableKind) -> &'static str {
    match kind {
        TableKind::None => "none",
        TableKind::Mbr => "MBR",
        TableKind::Gpt => "GPT",
        TableKind::Hybrid => "GPT with a hybrid MBR",
    }
}

/// `ext2`, `ext3` or `ext4`, as the features make it.
pub(crate) fn kind_of_volume(volume: &Volume) -> &'static str {
    let old = Incompat::FILETYPE | Incompat::RECOVER | Incompat::JOURNAL_DEV | Incompat::META_BG;
    let old_ro = RoCompat::SPARSE_SUPER | RoCompat::LARGE_FILE | RoCompat::BTREE_DIR;
    let new = !(Incompat::from_bits_retain(volume.incompat) - old).is_empty()
        || !(RoCompat::from_bits_retain(volume.ro_compat) - old_ro).is_empty();
    match new {
        _ if Incompat::from_bits_retain(volume.incompat).contains(Incompat::JOURNAL_DEV) => "external journal",
        true => "ext4",
        false if Compat::from_bits_retain(volume.compat).contains(Compat::HAS_JOURNAL) => "ext3",
        false => "ext2",
    }
}

/// Major and minor number of a device.
pub(crate) fn device(attributes: &Attributes) -> Option<(u32, u32)> {
    let rdev = attributes.rdev;
    let special = is(attributes, libc::S_IFCHR) || is(attributes, libc::S_IFBLK);
    special.then_some(((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00)))
}

/// In which state a file system was left.
pub(crate) fn state(volume: &Volume) -> &'static str {
    let dirty = Incompat::from_bits_retain(volume.incompat).contains(Incompat::RECOVER);
    match volume.state {
        state if state & ERRORS != 0 => "with errors",
        _ if dirty => "not unmounted",
        state if state & ORPHANS != 0 => "with orphans",
        state if state & VALID != 0 => "clean",
        _ => "not clean",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [(0, "0 bytes"), (1023, "1023 bytes"), (64 << 20, "64 MiB"), (3 << 29, "1.5 GiB")];
        for (bytes, words) in sizes {
            assert_eq!(size(bytes), words);
        }
        assert_eq!(size(u64::MAX), "15.9 EiB");
    }

    #[test]
    fn identifiers_are_written_as_elsewhere() {
        let bytes: [u8; 16] = std::array::from_fn(|at| at as u8);
        assert_eq!(uuid(&bytes), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(guid(&bytes), "03020100-0504-0706-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn kinds_go_by_features() {
        let volume = |compat, incompat, ro_compat| Volume { compat, incompat, ro_compat, ..Volume::default() };
        assert_eq!(kind_of_volume(&volume(0, 2, 3)), "ext2");
        assert_eq!(kind_of_volume(&volume(4, 6, 3)), "ext3");
        assert_eq!(kind_of_volume(&volume(4, 0x40, 3)), "ext4");
        assert_eq!(kind_of_volume(&volume(0, 2, 0x400)), "ext4");
        assert_eq!(kind_of_volume(&volume(0, 8, 0)), "external journal");
        let mut linux = [0; 16];
        linux[..4].copy_from_slice(&[0xaf, 0x3d, 0xc6, 0x0f]);
        assert_eq!(partition_kind(PartitionKind::Gpt(linux)), "Linux");
        assert_eq!(partition_kind(PartitionKind::Mbr(0x42)), "type 42");
    }
}
