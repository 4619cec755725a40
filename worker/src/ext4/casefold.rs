//! Folding case: when two names mean the same to a directory, though their bytes differ.
//!
//! What always holds here: two names are the same if they fold to the same characters, and a name that is not UTF-8
//! folds to nothing and is only its own bytes. Folding takes each character by itself: those that are ignored vanish,
//! the others become what full case folding makes of them, taken apart canonically; then marks are put in order, but
//! none past the place of what vanished. On the way of a lookup this comes before the hash, for a tree is sorted by the
//! hashes of folded names.
//!
//! The tables are those of two crates of unicode-rs: `caseless` has Unicode 16 and `unicode-normalization` Unicode 17,
//! where the format has 12.1. Nothing that was assigned in 12.1 folds otherwise since, which Unicode promises and a test
//! beneath compares with e2fsprogs' tables; a character that was not stands for itself there, and in the crates it may
//! be a capital letter, a composition or a mark: some hundred of them. A name with one of these may lie elsewhere in a
//! hash tree than we look, so that it has to be searched for block by block, and it may be found in a case that the
//! kernel does not find it in.

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

use super::budget::Budget;
use super::format;
use crate::error::Result;

/// How many bytes of a directory one byte of a name is worth that has to be folded to be compared.
pub(super) const COST: u64 = 8;

/// How the names in directories that fold case are encoded: `s_encoding` and its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with the folding of Unicode 12.1. The only one that there is so far.
    Utf8 {
        /// A name that is not UTF-8 makes no sense here.
        strict: bool,
        /// What the hash tree does not have is not searched for block by block either.
        hashed_only: bool,
    },
    /// A number that this reader does not know, and the kernel does not mount. Names are found by their own bytes: these
    /// are all right whatever the encoding is.
    Unknown,
}

impl Encoding {
    pub(super) fn of(encoding: u16, flags: u16) -> Self {
        if encoding != format::ENCODING_UTF8_12_1 {
            return Self::Unknown;
        }
        let has = |flag: u16| flags & flag != 0;
        Self::Utf8 { strict: has(format::ENCODING_STRICT), hashed_only: has(format::ENCODING_NO_COMPAT_FALLBACK) }
    }
}

/// A name that is looked for in whatever case, folded.
#[derive(Debug)]
pub(super) struct Folded(String);

impl Folded {
    /// None for what is not UTF-8.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        std::str::from_utf8(name).ok().map(|name| Self(fold(name).collect()))
    }

    /// What a hash tree is sorted by.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether a name of a directory folds to the same.
    ///
    /// # Errors
    /// Folding takes its time, and the budget may be used up by it.
    pub(super) fn matches(&self, stored: &[u8], budget: &mut Budget) -> Result<bool> {
        // Folded, the characters of ASCII are as many, and at the same place if all are.
        if stored.is_ascii() {
            return Ok(self.as_bytes().iter().copied().eq(stored.iter().map(u8::to_ascii_lowercase)));
        }
        let first = stored.first().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase);
        if first.is_some_and(|first| self.as_bytes().first() != Some(&first)) {
            return Ok(false);
        }
        budget.spend(COST.saturating_mul(super::units::u64_from(stored.len())))?;
        Ok(std::str::from_utf8(stored).is_ok_and(|stored| fold(stored).eq(self.0.chars())))
    }
}

fn fold(name: &str) -> impl Iterator<Item = char> {
    name.split(is_ignored).flat_map(|piece| piece.chars().default_case_fold().nfd())
}

/// Unicode's Default_Ignorable_Code_Point, which has not changed since 12.1: too short for a crate of its own.
fn is_ignored(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::super::hash::NameHash;
    use super::super::sample::tool;
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        let budget = &mut Budget::new();
        let [there, back] = [(one, other), (other, one)]
            .map(|(name, stored)| Folded::of(name.as_bytes()).unwrap().matches(stored.as_bytes(), budget).unwrap());
        assert_eq!(there, back, "{one} {other}");
        there
    }

    #[test]
    fn names_are_the_same_in_any_case_and_composition() {
        for (one, other) in [
            ("README.txt", "readme.TXT"),
            ("Straße", "STRASSE"),
            ("\u{1e9e}", "ss"),
            ("caf\u{e9}", "CAFE\u{301}"),
            ("\u{212b}", "a\u{30a}"),
            ("\u{3a3}\u{3c2}", "\u{3c3}\u{3c3}"),
            ("\u{fb03}", "FFI"),
            ("\u{130}", "i\u{307}"),
            ("\u{ac01}", "\u{1100}\u{1161}\u{11a8}"),
            ("a\u{345}\u{301}", "A\u{3b9}\u{301}"),
            ("q\u{323}\u{307}", "Q\u{307}\u{323}"),
            ("\u{13a0}", "\u{ab70}"),
            ("so\u{ad}ft\u{200d}", "SOFT"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn names_differ_that_only_look_alike() {
        for (one, other) in [
            ("a", "b"),
            ("a", "aa"),
            ("i", "\u{131}"),
            ("e", "\u{e9}"),
            ("A", "\u{391}"),
            ("1", "\u{2460}"),
            ("\u{ad}", "\u{ad}x"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_not_utf_8_folds_to_nothing_and_matches_nothing() {
        assert!(Folded::of(b"a\xff").is_none());
        let name = Folded::of(b"a").unwrap();
        assert_eq!(name.matches(b"A\xff", &mut Budget::new()), Ok(false));
        assert_eq!(name.matches(b"\xc3", &mut Budget::new()), Ok(false));
    }

    #[test]
    fn only_the_encoding_that_there_is_folds() {
        assert_eq!(Encoding::of(1, 0), Encoding::Utf8 { strict: false, hashed_only: false });
        assert_eq!(Encoding::of(1, 1), Encoding::Utf8 { strict: true, hashed_only: false });
        assert_eq!(Encoding::of(1, 0xfffe), Encoding::Utf8 { strict: false, hashed_only: true });
        assert_eq!([Encoding::of(0, 0), Encoding::of(2, 1)], [Encoding::Unknown; 2]);
    }

    #[test]
    fn folding_costs_and_what_needs_none_is_free() {
        let name = Folded::of("ab\u{e9}".as_bytes()).unwrap();
        let mut budget = Budget::new();
        let long = [&b"x"[..], &[0xc3, 0xa9].repeat(127)].concat();
        for _ in 0..1 << 20 {
            assert_eq!(name.matches(&long, &mut budget), Ok(false));
        }
        let long = [0xcc, 0x81].repeat(127);
        let given_up = (0..1 << 20).find(|_| name.matches(&long, &mut budget).is_err());
        assert!(given_up.is_some_and(|number| number < 1 << 18));
    }

    /// What e2fsprogs make of names: debugfs prints the hash of the folded name.
    fn hashes_of_debugfs(names: &[String]) -> Vec<u32> {
        let commands = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<_> = names.iter().map(|name| format!("dx_hash -h half_md4 -c -e utf8 \"{name}\"\n")).collect();
        std::fs::write(commands.path(), lines.concat()).unwrap();
        let output = tool("debugfs").arg("-f").arg(commands.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let hashes = said.lines().filter(|line| line.starts_with("Hash of ")).map(|line| {
            let (_, behind) = line.rsplit_once(" is 0x").unwrap();
            u32::from_str_radix(behind.split(' ').next().unwrap(), 16).unwrap()
        });
        hashes.collect()
    }

    fn our_hash(name: &str) -> u32 {
        let hash = NameHash::by_version(1, false, [0; 4]).unwrap();
        hash.of(Folded::of(name.as_bytes()).unwrap().as_bytes())
    }

    /// Every character that changes, and one of each 61 of the others.
    #[test]
    fn characters_fold_as_in_unicode_12_1() {
        const LATER: &[std::ops::RangeInclusive<char>] = &[
            '\u{1aeb}'..='\u{1aeb}',
            '\u{1c89}'..='\u{1c89}',
            '\u{2c2f}'..='\u{2c2f}',
            '\u{a7c0}'..='\u{a7f5}',
            '\u{10570}'..='\u{10595}',
            '\u{105c9}'..='\u{105e4}',
            '\u{10d50}'..='\u{10d65}',
            '\u{11383}'..='\u{113c8}',
            '\u{11938}'..='\u{11938}',
            '\u{16121}'..='\u{16128}',
            '\u{16d68}'..='\u{16d6a}',
            '\u{1e4ec}'..='\u{1e4ed}',
        ];
        let changes = |&character: &char| {
            let alone = character.to_string();
            u32::from(character) % 61 == 0
                || !fold(&alone).eq([character])
                || !fold(&format!("\u{301}{alone}")).eq(['\u{301}', character])
        };
        let characters: Vec<_> = ('\u{80}'..=char::MAX).filter(changes).collect();
        let names: Vec<_> = characters.iter().map(|character| format!("A{character}\u{301}")).collect();
        let theirs = hashes_of_debugfs(&names);
        assert_eq!(theirs.len(), names.len());
        let different = characters.iter().zip(&names).zip(theirs).filter(|((_, name), hash)| our_hash(name) != *hash);
        for ((character, _), _) in different {
            assert!(LATER.iter().any(|range| range.contains(character)), "{:x}", u32::from(*character));
        }
    }

    /// Marks in any order, letters in any composition, and what is ignored between them.
    #[test]
    fn texts_fold_as_those_of_e2fsprogs() {
        let pool: Vec<char> = "aZ\u{e9}\u{c5}\u{df}\u{130}\u{345}\u{301}\u{323}\u{307}\u{31b}\u{1fb7}\u{1f82}\u{ad}\u{200d}\u{ac01}\u{1100}\u{1161}\u{11a8}\u{fb03}\u{1e9e}\u{212b}\u{13a0}\u{10400}\u{1f600}\u{5d0}\u{5b4}\u{3a3}\u{e0001}\u{1d15e}".chars().collect();
        let mut seed = 1_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        let names: Vec<String> =
            (0..5000).map(|_| (0..1 + next(12)).map(|_| pool[next(pool.len())]).collect()).collect();
        let theirs = hashes_of_debugfs(&names);
        assert_eq!(theirs.len(), names.len());
        for (name, hash) in names.iter().zip(theirs) {
            assert_eq!(our_hash(name), hash, "{name:?}");
        }
    }
}
