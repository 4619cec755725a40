//! Changes single fields of a superblock and makes its checksum right again, so that a reader meets the field and not
//! the checksum.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Result;

/// Where the superblock lies, in bytes.
pub const OFFSET: u64 = 1024;

const LENGTH: usize = 1024;
const RO_COMPAT: usize = 0x64;
const METADATA_CSUM: u32 = 0x400;
const CHECKSUM: usize = 0x3fc;

/// Changes the bytes of the first superblock.
pub fn change(image: &Path, change: impl FnOnce(&mut [u8; LENGTH])) -> Result {
    let file = File::options().read(true).write(true).open(image)?;
    let mut bytes = [0; LENGTH];
    file.read_exact_at(&mut bytes, OFFSET)?;
    change(&mut bytes);
    if number(&bytes, RO_COMPAT) & METADATA_CSUM != 0 {
        let sum = crc32c(&bytes[..CHECKSUM]);
        set(&mut bytes, CHECKSUM, sum);
    }
    Ok(file.write_all_at(&bytes, OFFSET)?)
}

/// Writes a number of 32 bits.
pub fn set(bytes: &mut [u8; LENGTH], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

/// Sets bits in a number of 32 bits.
pub fn set_bits(bytes: &mut [u8; LENGTH], offset: usize, bits: u32) {
    set(bytes, offset, number(bytes, offset) | bits);
}

fn number(bytes: &[u8; LENGTH], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

/// The checksum of ext4: Castagnoli's polynomial, begun with all ones and not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_well_known_one() {
        assert_eq!(super::crc32c(b"123456789"), !0xe306_9283);
    }
}
