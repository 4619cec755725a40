//! What a name is in a directory: as it is stored, as it is shown, and as it is looked for.
//!
//! What always holds here: a name that is shown has 1 to 255 bytes without a slash or NUL, and looking for it finds the
//! entry. Where case is folded, the same bytes come before other bytes that fold alike. On the way of a lookup this
//! comes first, name → what to look for → hash → leaf, and on that of a listing last.

use std::borrow::Cow;

use lazaret_policy::corruption::Rule;

use super::Filesystem;
use super::budget::Budget;
use super::casefold::{Encoding, Folded};
use super::encrypt::NoKeyName;
use super::hash::NameHash;
use super::inode::{Inode, InodeFlags};
use super::record::{Record, is_name};
use crate::error::{Error, Result};

/// How a directory takes its names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming {
    encrypted: bool,
    folding: Option<Encoding>,
}

impl Naming {
    pub(super) fn of(fs: &Filesystem, directory: &Inode) -> Self {
        let folding = fs.superblock().encoding.filter(|_| directory.flags.contains(InodeFlags::CASEFOLD));
        Self { encrypted: directory.flags.contains(InodeFlags::ENCRYPT), folding }
    }

    /// Whether the names are ciphertext.
    pub(super) fn is_encrypted(self) -> bool {
        self.encrypted
    }

    /// Whether the hash of a name stands behind it: it is a hash of the folded text with a key, and cannot be computed.
    pub(super) fn keeps_hashes(self) -> bool {
        self.encrypted && self.folding.is_some()
    }

    /// A name as it is shown. `hash` tells it of ciphertext that is not kept with it.
    pub(super) fn show<'a>(self, record: &Record<'a>, hash: Option<NameHash>) -> Result<Cow<'a, [u8]>, Rule> {
        if !self.encrypted || is_dots(record.name) {
            return if is_name(record.name) { Ok(Cow::Borrowed(record.name)) } else { Err(Rule::DirectoryName) };
        }
        let hash = record.hash.or_else(|| hash.map(|hash| hash.both(record.name)));
        NoKeyName::show(hash.unwrap_or_default(), record.name).map(Cow::Owned).ok_or(Rule::EncryptedName)
    }

    /// What to look for; none if no entry can be shown so.
    ///
    /// # Errors
    /// [`Error::NameTooLong`]
    pub(super) fn wanted(self, name: &[u8]) -> Result<Option<Wanted<'_>>> {
        if name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        if !is_name(name) {
            return Ok(None);
        }
        Ok(match self.folding {
            _ if is_dots(name) => Some(Wanted::Bytes(name)),
            _ if self.encrypted => NoKeyName::of(name).map(Wanted::Ciphertext),
            Some(Encoding::Utf8 { .. }) => {
                Some(Folded::of(name).map_or(Wanted::Bytes(name), |f| Wanted::AnyCase(name, f)))
            }
            _ => Some(Wanted::Bytes(name)),
        })
    }

    /// Whether a name that a hash tree does not have may be in the directory all the same. It may have come there by
    /// another version's tables, and where the encoding is not known, so is the place of every name.
    pub(super) fn may_lie_elsewhere(self, name: &[u8]) -> bool {
        match self.folding {
            _ if self.encrypted => false,
            Some(Encoding::Utf8 { hashed_only, .. }) => !hashed_only || !name.is_ascii(),
            Some(Encoding::Unknown) => true,
            None => false,
        }
    }

    /// What is said of a name that was not found: where only UTF-8 is allowed, anything else makes no sense.
    pub(super) fn absent<T>(self, name: &[u8]) -> Result<Option<T>> {
        match self.folding {
            Some(Encoding::Utf8 { strict: true, .. }) if std::str::from_utf8(name).is_err() => Err(Error::Invalid),
            _ => Ok(None),
        }
    }
}

/// A name that is looked for.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// These bytes, or others that fold to the same.
    AnyCase(&'a [u8], Folded),
    /// What is shown so.
    Ciphertext(NoKeyName),
}

/// How far an entry is what is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Not at all.
    No,
    /// In another case: unless there is one that is spelt so.
    Alike,
    /// It is.
    Same,
}

impl Wanted<'_> {
    /// Compares it with a name as it is stored.
    ///
    /// # Errors
    /// [`Error::Budget`], for folding.
    #[inline]
    pub(super) fn matches(&self, stored: &[u8], budget: &mut Budget) -> Result<Match> {
        let same = match self {
            // Names of a directory often begin alike.
            Self::Bytes(name) | Self::AnyCase(name, _) => name.last() == stored.last() && *name == stored,
            Self::Ciphertext(name) => name.matches(stored),
        };
        Ok(match self {
            _ if same => Match::Same,
            // A name that folds to a dot because the rest of it is ignored would make a directory its own child.
            Self::AnyCase(_, folded) if !is_dots(stored) && folded.matches(stored, budget)? => Match::Alike,
            _ => Match::No,
        })
    }

    /// Where it lies in a hash tree. None if that cannot be said: only ciphertext has its hash with it.
    pub(super) fn hash(&self, hash: Option<NameHash>) -> Option<u32> {
        match self {
            Self::Bytes(name) => Some(hash?.of(name)),
            Self::AnyCase(_, folded) => Some(hash?.of(folded.as_bytes())),
            Self::Ciphertext(name) => {
                let [kept, _] = name.hash;
                Some(hash.zip(name.whole()).map_or(kept & !1, |(hash, whole)| hash.of(whole)))
            }
        }
    }
}

/// The two entries that are never encrypted nor folded.
fn is_dots(name: &[u8]) -> bool {
    name == b"." || name == b".."
}
