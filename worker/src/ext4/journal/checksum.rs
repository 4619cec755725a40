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
/// end. Eight bytes at a time, since a journal of this kind may be long.
pub(super) fn crc32_be(seed: u32, bytes: &[u8]) -> u32 {
    static TABLES: [[u32; 256]; 8] = tables();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    let of = |table: &[u32; 256], byte: u8| table.get(usize::from(byte)).copied().unwrap_or_default();
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(seed, |crc, &[b0, b1, b2, b3, b4, b5, b6, b7]| {
        let [c0, c1, c2, c3] = crc.to_be_bytes();
        let high = of(t7, c0 ^ b0) ^ of(t6, c1 ^ b1) ^ of(t5, c2 ^ b2) ^ of(t4, c3 ^ b3);
        high ^ of(t3, b4) ^ of(t2, b5) ^ of(t1, b6) ^ of(t0, b7)
    });
    rest.iter().fold(crc, |crc, &byte| {
        let [top, ..] = crc.to_be_bytes();
        crc.wrapping_shl(8) ^ of(t0, top ^ byte)
    })
}

/// What each byte adds, for the polynomial 0x04c11db7: at the top, and with one to seven bytes behind it.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let (mut rest, mut behind): (&mut [[u32; 256]], u32) = (&mut tables, 1);
    while let [table, after @ ..] = rest {
        fill(table, behind);
        behind = behind.wrapping_add(1);
        rest = after;
    }
    tables
}

const fn fill(mut rest: &mut [u32], bytes: u32) {
    let mut byte: u32 = 0;
    while let [entry, after @ ..] = rest {
        let mut crc = byte.wrapping_shl(24);
        let mut bit: u32 = 0;
        while bit < 8_u32.wrapping_mul(bytes) {
            crc = if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04c1_1db7 };
            bit = bit.wrapping_add(1);
        }
        *entry = crc;
        byte = byte.wrapping_add(1);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out() {
        // CRC-32/MPEG-2.
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7);
        assert_eq!(crc32_be(crc32_be(!0, b"1234"), b"56789"), 0x0376_e6e7);
        // In pieces of any length.
        let bytes: Vec<u8> = (0..100_u8).map(|byte| byte.wrapping_mul(37)).collect();
        for cut in 0..bytes.len() {
            let (one, other) = bytes.split_at(cut);
            let bytewise = other.iter().fold(crc32_be(7, one), |crc, byte| crc32_be(crc, &[*byte]));
            assert_eq!(bytewise, crc32_be(7, &bytes), "{cut}");
        }
    }
}
