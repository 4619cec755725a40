//! The hash of a name in a directory with a hash tree: what the kernel's documentation calls legacy, half MD4 and TEA.
//!
//! What always holds here: any bytes have a hash, and computing it takes one pass over at most 255 bytes. Where bytes
//! above 127 occur, a hash depends on whether the system that made the file system took them as signed; the superblock
//! says so. On the way of a lookup this comes first in a hashed directory: name → hash → leaf.

/// The algorithms that a hash tree may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashVersion {
    /// A multiplication for each byte.
    Legacy,
    /// MD4 with half of its input, that is half of its steps a round.
    HalfMd4,
    /// The Tiny Encryption Algorithm as a compression function.
    Tea,
}

/// The hash of directories that are encrypted and fold case. It takes a key, so it is found and never computed here.
pub const SIPHASH: u8 = 6;

/// A way to hash names: all that a directory and its superblock say about it.
#[derive(Clone, Copy, Debug)]
pub struct NameHash {
    /// Which algorithm.
    pub version: HashVersion,
    /// Whether bytes above 127 count as such, or as negative numbers.
    pub unsigned: bool,
    /// `s_hash_seed`; all zeros stand for MD4's own.
    pub seed: [u32; 4],
}

impl NameHash {
    /// From the byte in the root of a hash tree, or in the superblock. The kernel leaves it to the superblock whether
    /// bytes are unsigned; e2fsprogs also knows three versions that are so by themselves. None for those that this
    /// reader does not know, and for [`SIPHASH`].
    pub fn by_version(version: u8, unsigned: bool, seed: [u32; 4]) -> Option<Self> {
        let (version, always_unsigned) = match version {
            0 => (HashVersion::Legacy, false),
            1 => (HashVersion::HalfMd4, false),
            2 => (HashVersion::Tea, false),
            3 => (HashVersion::Legacy, true),
            4 => (HashVersion::HalfMd4, true),
            5 => (HashVersion::Tea, true),
            _ => return None,
        };
        Some(Self { version, unsigned: unsigned || always_unsigned, seed })
    }

    /// The hash that a tree is sorted by. Bit 0 is never set: the tree keeps a mark there.
    pub fn of(&self, name: &[u8]) -> u32 {
        let [hash, _] = self.both(name);
        hash
    }

    /// The hash, and the minor one, which orders what has the same; [`HashVersion::Legacy`] has none.
    pub fn both(&self, name: &[u8]) -> [u32; 2] {
        let [hash, minor] = match self.version {
            HashVersion::Legacy => [self.legacy(name), 0],
            HashVersion::HalfMd4 => {
                let [_, hash, minor, _] = self.chained(name, half_md4);
                [hash, minor]
            }
            HashVersion::Tea => {
                let [hash, minor, ..] = self.chained(name, tea);
                [hash, minor]
            }
        };
        // The highest value means "the end" to those who keep a hash as a position.
        match hash & !1 {
            0xffff_fffe => [0xffff_fffc, minor],
            hash => [hash, minor],
        }
    }

    fn legacy(&self, name: &[u8]) -> u32 {
        let (mut last, mut last_but_one) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
        for &byte in name {
            let product = self.widen(byte).wrapping_mul(7_152_373);
            let sum = last_but_one.wrapping_add(last ^ product);
            let hash = if sum & 0x8000_0000 == 0 { sum } else { sum.wrapping_sub(0x7fff_ffff) };
            (last_but_one, last) = (last, hash);
        }
        last.wrapping_shl(1)
    }

    /// Runs `mix` over the name, `N` words at a time.
    fn chained<const N: usize>(&self, name: &[u8], mix: fn([u32; 4], [u32; N]) -> [u32; 4]) -> [u32; 4] {
        const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
        let mut state = if self.seed == [0; 4] { INITIAL } else { self.seed };
        let mut rest = name;
        while !rest.is_empty() {
            state = mix(state, self.words(rest));
            let (_, after) = rest.split_at(rest.len().min(N.wrapping_mul(4)));
            rest = after;
        }
        state
    }

    /// The next bytes as words, the first byte of four on top. What is missing is filled up with the number of bytes
    /// that were left, from above.
    fn words<const N: usize>(&self, rest: &[u8]) -> [u32; N] {
        let left = u32::try_from(rest.len() & 0xff).unwrap_or(0);
        let filler = left.wrapping_mul(0x0101_0101);
        let mut words = [filler; N];
        for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
            *word = bytes.iter().fold(filler, |word, &byte| word.wrapping_shl(8).wrapping_add(self.widen(byte)));
        }
        words
    }

    fn widen(&self, byte: u8) -> u32 {
        if self.unsigned { byte.into() } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }
}

/// The three rounds of MD4 (RFC 1320), with eight of the sixteen steps each.
fn half_md4(state: [u32; 4], input: [u32; 8]) -> [u32; 4] {
    let [i0, i1, i2, i3, i4, i5, i6, i7] = input;
    let mut mixed = state;
    let choose = |x: u32, y: u32, z: u32| (x & y) | (!x & z);
    let majority = |x: u32, y: u32, z: u32| (x & y) | (x & z) | (y & z);
    let parity = |x: u32, y: u32, z: u32| x ^ y ^ z;
    round(&mut mixed, choose, 0, [3, 7, 11, 19], [i0, i1, i2, i3, i4, i5, i6, i7]);
    round(&mut mixed, majority, 0x5a82_7999, [3, 5, 9, 13], [i1, i3, i5, i7, i0, i2, i4, i6]);
    round(&mut mixed, parity, 0x6ed9_eba1, [3, 9, 11, 15], [i3, i7, i2, i6, i1, i5, i0, i4]);
    add(state, mixed)
}

/// One round: each step takes a word in and turns the four of the state by one place.
fn round(state: &mut [u32; 4], f: impl Fn(u32, u32, u32) -> u32, constant: u32, shifts: [u32; 4], input: [u32; 8]) {
    for (word, shift) in input.into_iter().zip(shifts.into_iter().cycle()) {
        let [a, b, c, d] = *state;
        let sum = a.wrapping_add(f(b, c, d)).wrapping_add(word).wrapping_add(constant);
        *state = [d, sum.rotate_left(shift), b, c];
    }
}

/// Sixteen cycles of TEA (Wheeler and Needham, 1994): the input is the key, half of the state the text.
fn tea(state: [u32; 4], key: [u32; 4]) -> [u32; 4] {
    let [a, b, c, d] = key;
    let [mut x, mut y, ..] = state;
    let mix = |text: u32, sum: u32, k: u32, l: u32| {
        text.wrapping_shl(4).wrapping_add(k) ^ text.wrapping_add(sum) ^ text.wrapping_shr(5).wrapping_add(l)
    };
    let mut sum = 0_u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        x = x.wrapping_add(mix(y, sum, a, b));
        y = y.wrapping_add(mix(x, sum, c, d));
    }
    add(state, [x, y, 0, 0])
}

fn add(a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a, b);
    [a0.wrapping_add(b0), a1.wrapping_add(b1), a2.wrapping_add(b2), a3.wrapping_add(b3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `debugfs -R "dx_hash -h VERSION -s a1b2c3d4-e5f6-0718-293a-4b5c6d7e8f90 NAME"`, versions 0 to 2, and 3 to 5
    /// for unsigned bytes.
    #[test]
    fn hashes_are_those_of_e2fsprogs() {
        const SEED: [u32; 4] = [0xd4c3_b2a1, 0x1807_f6e5, 0x5c4b_3a29, 0x908f_7e6d];
        let long = "x".repeat(255);
        let ascii: [(&str, [u32; 3]); 6] = [
            ("a", [0xe74b53e2, 0x073bfb0a, 0xc3d656bc]),
            ("readme.txt", [0xec3b2f76, 0x49281358, 0xea6843b0]),
            ("0123456789abcdef", [0x415c16fe, 0xe3ba9822, 0xa815dcd6]),
            ("0123456789abcdefg", [0xfa356a68, 0x8b0c669e, 0x5de52156]),
            ("a name that is longer than thirty-two bytes, so two rounds", [0xcb188756, 0x1abf1ca0, 0x50af7c08]),
            (&long, [0x30557da6, 0xa56205a8, 0x816c0784]),
        ];
        const BYTES: [(&[u8], [u32; 3], [u32; 3]); 3] = [
            (b"caf\xc3\xa9", [0x96ca5a2c, 0xd8a5f700, 0xbef5a12c], [0x6dde4230, 0xc820baf2, 0x69a94e9e]),
            (b"\xff\xfe\x80", [0x999e7bae, 0x8e14f928, 0xa078582c], [0x2103b008, 0xd1a6fc3c, 0x9016b6a0]),
            (&[0xe9; 255], [0x9ecdac8a, 0xb6408b12, 0x38202956], [0x76e0988c, 0x356935ca, 0x5b0a926e]),
        ];
        let ascii = ascii.map(|(name, hashes)| (name.as_bytes(), hashes, hashes));
        for (name, signed, unsigned) in ascii.into_iter().chain(BYTES) {
            for (expected, is_unsigned, versions) in
                [(signed, false, [0, 1, 2]), (unsigned, true, [0, 1, 2]), (unsigned, false, [3, 4, 5])]
            {
                let hashes = versions.map(|version| NameHash::by_version(version, is_unsigned, SEED).unwrap().of(name));
                assert_eq!(hashes, expected, "{name:?} {is_unsigned}");
            }
        }
    }

    #[test]
    fn a_seed_of_zeros_is_that_of_md4_and_six_versions_can_be_computed() {
        let hash = NameHash { version: HashVersion::HalfMd4, unsigned: false, seed: [0; 4] };
        assert_eq!(hash.of(b"abc"), 0xd196a868);
        assert!((6..=255).find_map(|version| NameHash::by_version(version, false, [0; 4])).is_none());
    }

    /// From the same command; the minor hash stands behind the hash.
    #[test]
    fn minor_hashes_are_those_of_e2fsprogs() {
        let both = |version, name: &[u8]| NameHash::by_version(version, false, [0; 4]).unwrap().both(name);
        assert_eq!(both(1, b"Readme"), [0xd5a55c56, 0x88141dc6]);
        assert_eq!(both(1, b"readme"), [0xede2a39c, 0xa0b0e277]);
    }
}
