//! The checksums of a journal's blocks: crc32c over single blocks, or the older crc32 over a whole transaction.
//!
//! Nothing here decides what a wrong one means: at the end of the log that is an old block, elsewhere it is damage
//! (`recovery.rs`).

use zerocopy::FromBytes;

use super::format;
use super::superblock::Checksums;
use super::tag::Tag;
use crate::ext4::checksum::crc32c;
use crate::ext4::units::TransactionId;

/// Whether a descriptor, or a block of revoke records, matches the checksum at its end.
pub(super) fn block_matches(seed: u32, block: &[u8]) -> bool {
    format::tail(block).is_some_and(|(covered, stored)| crc32c(crc32c(seed, covered), &[0; 4]) == stored)
}

/// Whether a commit block matches its own checksum. Of one that was cut short at a sector's end only the header may
/// have reached the disk: then the rest counts as zeros, as it did when the checksum was computed.
pub(super) fn commit_matches(seed: u32, block: &[u8]) -> bool {
    let Ok((header, rest)) = format::Commit::read_from_prefix(block) else { return false };
    let [stored, ..] = header.h_chksum;
    let mut cleared = header;
    cleared.h_chksum[0].set(0);
    let begin = crc32c(seed, zerocopy::IntoBytes::as_bytes(&cleared));
    let zeros = [0; 64];
    let blank = rest.chunks(zeros.len()).filter_map(|part| zeros.get(..part.len())).fold(begin, crc32c);
    stored.get() == crc32c(begin, rest) || stored.get() == blank
}

/// Whether a block in the log, as it stands there, matches the checksum in its tag.
pub(super) fn data_matches(checksums: Checksums, tag: &Tag, transaction: TransactionId, block: &[u8]) -> bool {
    let sum = |seed| crc32c(crc32c(seed, &transaction.0.to_be_bytes()), block);
    match checksums {
        Checksums::None | Checksums::V1 => true,
        Checksums::V2(seed) => sum(seed) & 0xffff == tag.checksum,
        Checksums::V3(seed) => sum(seed) == tag.checksum,
    }
}

/// Whether a commit block has the crc32 of its transaction's blocks, or says that there is none.
pub(super) fn transaction_matches(block: &[u8], sum: u32) -> bool {
    let Ok((header, _)) = format::Commit::ref_from_prefix(block) else { return false };
    let [stored, ..] = header.h_chksum;
    match (header.h_chksum_type, header.h_chksum_size) {
        (format::CHECKSUM_CRC32, 4) => stored.get() == sum,
        (0, 0) => stored.get() == 0,
        _ => false,
    }
}

/// crc32 with the highest bit first, as the kernel's `crc32_be` continues it: neither inverted at the begin nor at the
/// end.
pub(super) fn crc32_be(seed: u32, bytes: &[u8]) -> u32 {
    static TABLE: [u32; 256] = table();
    bytes.iter().fold(seed, |crc, &byte| {
        let [top, ..] = crc.to_be_bytes();
        let entry = TABLE.get(usize::from(top ^ byte)).copied().unwrap_or_default();
        crc.wrapping_shl(8) ^ entry
    })
}

/// What each byte at the top adds, for the polynomial 0x04c11db7.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let (mut rest, mut byte): (&mut [u32], u32) = (&mut table, 0);
    while let [entry, after @ ..] = rest {
        let mut crc = byte.wrapping_shl(24);
        let mut bit = 0_u8;
        while bit < 8 {
            crc = if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04c1_1db7 };
            bit = bit.wrapping_add(1);
        }
        *entry = crc;
        byte = byte.wrapping_add(1);
        rest = after;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out() {
        // CRC-32/MPEG-2.
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7);
        assert_eq!(crc32_be(crc32_be(!0, b"1234"), b"56789"), 0x0376_e6e7);
    }
}
