//! Encrypted directories and links, without a key: the names that the kernel, too, shows without one.
//!
//! What always holds here: a name of ciphertext has 16 to 255 bytes, any at all, and is shown in characters of base64
//! for URLs, at most 252 of them and never a slash. What is shown leads back to the one name it was made of, and to no
//! other. Contents are not given out: they would be ciphertext, and whoever asks for them is told that there is no key.
//! On the way of a lookup this stands where the name comes in, and in that of a listing where it goes out.
//!
//! The form is `struct fscrypt_nokey_name` of the kernel's `fs/crypto/fname.c`: two words that help to find the name in
//! a hash tree, the first 149 bytes of the ciphertext, and for what is longer the SHA-256 of the rest. The words have
//! the byte order of little-endian machines here, whatever this one is: what was written down on one stays right.

use data_encoding::BASE64URL_NOPAD;
use lazaret_policy::corruption::{Place, Rule};
use sha2::{Digest, Sha256};

use super::Filesystem;
use super::inode::{FileKind, Inode, InodeFlags};
use super::units::{LogicalBlock, u64_from};
use crate::error::{Error, Result};

/// The shortest ciphertext: a block of the cipher.
const SHORTEST: usize = 16;
/// How much of a ciphertext is shown as it is.
const SHOWN: usize = 149;
/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// A name shown without a key, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoKeyName {
    /// The hash of the ciphertext, or the one stored behind it, as it was when the name was shown.
    pub(super) hash: [u32; 2],
    /// The ciphertext, or its beginning.
    begin: Vec<u8>,
    /// The digest of what follows the beginning.
    rest: Option<[u8; DIGEST]>,
}

impl NoKeyName {
    /// From what was shown. None for what could not have been.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(name).ok()?;
        let (first, rest) = bytes.split_first_chunk()?;
        let (second, rest) = rest.split_first_chunk()?;
        let hash = [u32::from_le_bytes(*first), u32::from_le_bytes(*second)];
        let (begin, rest) = match rest.split_at_checked(SHOWN) {
            Some((begin, [])) => (begin, None),
            Some((begin, rest)) => (begin, Some(rest.try_into().ok()?)),
            None => (rest, None),
        };
        (begin.len() >= SHORTEST).then(|| Self { hash, begin: begin.to_vec(), rest })
    }

    /// How a ciphertext is shown. None if it is too short to be one.
    pub(super) fn show(hash: [u32; 2], ciphertext: &[u8]) -> Option<Vec<u8>> {
        if ciphertext.len() < SHORTEST {
            return None;
        }
        let (begin, rest) = ciphertext.split_at_checked(SHOWN).unwrap_or((ciphertext, &[]));
        let [first, second] = hash.map(u32::to_le_bytes);
        let mut bytes = [&first, &second, begin].concat();
        if !rest.is_empty() {
            bytes.extend(Sha256::digest(rest));
        }
        Some(BASE64URL_NOPAD.encode(&bytes).into_bytes())
    }

    /// The ciphertext, if all of it was shown.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.rest.is_none().then_some(&self.begin[..])
    }

    /// Whether this is how a ciphertext is shown. The hash says only where it may be.
    pub(super) fn matches(&self, ciphertext: &[u8]) -> bool {
        let Some(digest) = self.rest else { return self.begin == ciphertext };
        let parts = ciphertext.split_at_checked(SHOWN).filter(|(begin, _)| *begin == self.begin);
        parts.is_some_and(|(_, rest)| !rest.is_empty() && Sha256::digest(rest).as_slice() == digest)
    }
}

impl Filesystem {
    /// The length of a file as it is shown: of an encrypted link it is that of the target that [`Self::read_link`]
    /// gives, which is how programs know what room to make for it. Its own, where that cannot be read.
    pub fn shown_size(&self, inode: &Inode) -> u64 {
        if inode.kind != FileKind::Symlink || !inode.flags.contains(InodeFlags::ENCRYPT) {
            return inode.size;
        }
        self.encrypted_target(inode).map_or(inode.size, |target| u64_from(target.len()))
    }

    /// Whether the content of a file may be asked for.
    ///
    /// # Errors
    /// [`Error::NoKey`] for an encrypted one.
    pub fn check_key(&self, inode: &Inode) -> Result<()> {
        let encrypted = inode.kind == FileKind::Regular && inode.flags.contains(InodeFlags::ENCRYPT);
        if encrypted { Err(Error::NoKey) } else { Ok(()) }
    }

    /// The target of an encrypted link as it is shown: two bytes say how long the ciphertext is that follows. It stands
    /// in no directory, so there is no hash.
    pub(super) fn encrypted_target(&self, link: &Inode) -> Result<Vec<u8>> {
        let broken = Error::corrupt(Rule::EncryptedTarget, Place::Inode(link.number.value()));
        let block;
        let bytes = if link.flags.contains(InodeFlags::INLINE_DATA) {
            return Err(broken);
        } else if link.is_fast_symlink(self.superblock()) {
            &link.map[..]
        } else {
            block = self.read_block(link, LogicalBlock(0))?.ok_or(broken)?;
            &block[..]
        };
        let (length, behind) = bytes.split_first_chunk().ok_or(broken)?;
        let ciphertext = behind.get(..u16::from_le_bytes(*length).into()).ok_or(broken)?;
        NoKeyName::show([0; 2], ciphertext).ok_or(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ciphertext(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 37 + length) as u8).collect()
    }

    #[test]
    fn every_name_leads_back_to_its_own_ciphertext() {
        for length in 16..=255 {
            let ciphertext = ciphertext(length);
            let shown = NoKeyName::show([length as u32, 0xdead_beef], &ciphertext).unwrap();
            assert!(
                shown.len() <= 252 && shown.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
            );
            let name = NoKeyName::of(&shown).unwrap();
            assert_eq!(name.hash, [length as u32, 0xdead_beef]);
            assert_eq!(name.whole(), (length <= 149).then_some(&ciphertext[..]));
            assert!(name.matches(&ciphertext));
            for place in [0, 15, length / 2, length - 1] {
                let mut other = ciphertext.clone();
                other[place] ^= 1;
                assert!(!name.matches(&other), "{length} {place}");
            }
            assert!(!name.matches(&ciphertext[..length - 1]));
            assert!(!name.matches(&[&ciphertext[..], b"x"].concat()));
        }
    }

    /// The hash 0x04030201, 0x08070605, and 16 bytes that need both of the characters that this base64 has of its own.
    #[test]
    fn a_name_is_shown_in_base64_for_urls() {
        let shown = NoKeyName::show([0x0403_0201, 0x0807_0605], &[0xfb; 16]).unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), "AQIDBAUGBwj7-_v7-_v7-_v7-_v7-_v7");
    }

    #[test]
    fn what_was_not_shown_is_no_name() {
        let shown = NoKeyName::show([0; 2], &ciphertext(16)).unwrap();
        assert!(NoKeyName::of(&shown[..31]).is_none());
        assert!(NoKeyName::of(b"").is_none() && NoKeyName::of(b"readme.txt").is_none());
        assert!(NoKeyName::of(&[&shown[..], b"="].concat()).is_none());
        let longest = NoKeyName::show([0; 2], &ciphertext(255)).unwrap();
        assert!(NoKeyName::of(&longest[..248]).is_none());
        assert!(NoKeyName::of(&[&longest[..], b"A"].concat()).is_none());
        // Bits behind the last byte, which another spelling of the same bytes would have.
        let mut twenty = NoKeyName::show([0; 2], &ciphertext(17)).unwrap();
        *twenty.last_mut().unwrap() += 1;
        assert!(NoKeyName::of(&twenty).is_none());
        assert!(NoKeyName::show([0; 2], &ciphertext(15)).is_none());
    }
}
