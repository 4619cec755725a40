//! Numbers in an image, by their place.

/// A number of 16 bits.
pub(crate) fn u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |two| u16::from_le_bytes([two[0], two[1]]))
}

/// A number of 32 bits.
pub(crate) fn u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

/// A number of 32 bits of a journal: the highest byte first.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32(bytes, at).swap_bytes()
}

/// Writes bytes, as far as the image goes.
pub(crate) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + new.len()) {
        place.copy_from_slice(new);
    }
}
