//! Whether a listing brings attributes along. The kernel takes them with any (READDIRPLUS) and makes an inode of each; to walk
//! a tree by names that is most of the work, and to stat what was listed it saves a request each. So a mount begins with
//! names, and once somebody asks for what was listed, one by one, every listing has attributes.
//!
//! What holds here: directories always have theirs, since a walk goes into them; the kernel keeps what it was told of a
//! directory, so it is told to forget the listings without attributes when the others begin; what is remembered is bounded.

use crate::ext4::InodeNumber;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Requests for single names after which attributes are wanted: more than somebody types.
const ENOUGH: usize = 8;

/// Directories listed by names that are remembered, four bytes each. With one more attributes begin.
const MOST: usize = 1 << 14;

/// What a mount's listings are.
#[derive(Default)]
pub(super) struct Listings {
    /// Attributes are brought along, from now on for good.
    full: AtomicBool,
    /// They are, and of those before nothing is remembered any more.
    settled: AtomicBool,
    by_name: Mutex<ByName>,
}

#[derive(Default)]
struct ByName {
    directories: Vec<InodeNumber>,
    asked: usize,
}

impl Listings {
    /// Whether this directory, whose listing begins, is to be listed by names.
    pub(super) fn begin(&self, directory: InodeNumber) -> bool {
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        let mut by_name = self.by_name();
        let directories = &mut by_name.directories;
        if directories.len() >= MOST || directories.try_reserve(1).is_err() {
            self.full.store(true, Ordering::Relaxed);
            return false;
        }
        directories.push(directory);
        true
    }

    /// Whether it makes no difference any more who asks for what.
    pub(super) fn are_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// What is no directory was asked for by its name in there. Gives the directories that the kernel is to forget the
    /// listings of: once, when that was enough.
    pub(super) fn asked(&self, directory: InodeNumber) -> Vec<InodeNumber> {
        let mut by_name = self.by_name();
        // It is mostly one of the last.
        if !by_name.directories.iter().rev().any(|listed| *listed == directory) {
            return vec![];
        }
        by_name.asked += 1;
        if by_name.asked < ENOUGH {
            return vec![];
        }
        self.full.store(true, Ordering::Relaxed);
        self.settled.store(true, Ordering::Relaxed);
        std::mem::take(&mut by_name.directories)
    }

    fn by_name(&self) -> std::sync::MutexGuard<'_, ByName> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u32) -> InodeNumber {
        InodeNumber::new(number).unwrap()
    }

    #[test]
    fn who_asks_for_what_was_listed_gets_attributes_for_good() {
        let listings = Listings::default();
        assert!(listings.begin(number(12)) && listings.begin(number(13)));
        for _ in 0..100 {
            assert!(listings.asked(number(14)).is_empty(), "nobody has listed that one");
        }
        assert!(!listings.are_settled());
        for _ in 1..ENOUGH {
            assert!(listings.asked(number(12)).is_empty());
        }
        assert_eq!(listings.asked(number(13)), [number(12), number(13)]);
        assert!(listings.are_settled() && !listings.begin(number(15)));
        assert!(listings.asked(number(13)).is_empty(), "told once");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_still_forgotten_by_the_kernel_later() {
        let listings = Listings::default();
        let all = (1..).map(number).take(MOST);
        assert!(all.clone().all(|directory| listings.begin(directory)));
        assert!(!listings.begin(number(1)) && !listings.are_settled());
        let told: Vec<_> = (0..ENOUGH).flat_map(|_| listings.asked(number(1))).collect();
        assert!(told.into_iter().eq(all));
    }
}
