//! What damage was met: counted by kind and rule, and told while a mount is served.
//!
//! What holds here: what is told is numbers, and how much of it does not grow with the damage ([`lazaret_policy::damage`]).
//! Whoever lets a wrong checksum pass, and whoever answers with an error, enters it here; nobody reads it on the way of a
//! request.

use crate::error::Error;
use lazaret_policy::corruption::{Corruption, Rule};
use lazaret_policy::damage::{Damage, Met, Toll};
use lazaret_policy::message::Report;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Counts for each rule.
type Counts = [AtomicU64; Rule::ALL.len()];

/// The damage that was met on one file system.
#[derive(Debug)]
pub struct Ledger {
    broken: Counts,
    checksums: Counts,
    passed: Counts,
    device: AtomicU64,
    told: AtomicU32,
    tell: OnceLock<fn(&Report)>,
}

impl Ledger {
    /// Without an entry.
    pub fn new() -> Self {
        let counts = || [const { AtomicU64::new(0) }; Rule::ALL.len()];
        Self {
            broken: counts(),
            checksums: counts(),
            passed: counts(),
            device: AtomicU64::new(0),
            told: AtomicU32::new(0),
            tell: OnceLock::new(),
        }
    }

    /// From now on what is met is told by this, too.
    pub fn tell_by(&self, tell: fn(&Report)) {
        // A second way of telling has nothing to add.
        let _ = self.tell.set(tell);
    }

    /// An error that somebody is answered with. What is no damage is not entered.
    pub fn answered(&self, error: &Error) {
        match *error {
            Error::Corrupt(corruption) => self.enter(&self.broken, Damage::Broken(corruption), corruption.rule),
            Error::Checksum(corruption) => self.enter(&self.checksums, Damage::Checksum(corruption), corruption.rule),
            Error::Device { offset } => self.count(&self.device, Damage::Device { offset }),
            _ => (),
        }
    }

    /// A wrong checksum of something that is used all the same.
    pub fn passed(&self, corruption: Corruption) {
        self.enter(&self.passed, Damage::Passed(corruption), corruption.rule);
    }

    /// How often damage was met so far.
    pub fn toll(&self) -> Toll {
        let sum = |counts: &Counts| counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        Toll {
            broken: sum(&self.broken),
            checksums: sum(&self.checksums),
            passed: sum(&self.passed),
            device: self.device.load(Ordering::Relaxed),
        }
    }

    fn enter(&self, counts: &Counts, damage: Damage, rule: Rule) {
        if let Some(count) = counts.get(rule.number()) {
            self.count(count, damage);
        }
    }

    fn count(&self, count: &AtomicU64, damage: Damage) {
        let count = count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let Some(tell) = self.tell.get().filter(|_| count.is_power_of_two()) else { return };
        let more = |told: u32| (told < Met::MOST).then_some(told.saturating_add(1));
        if self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            tell(&Report::Met(Met { damage, count }));
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::corruption::Place;
    use std::sync::Mutex;

    static TOLD: Mutex<Vec<Met>> = Mutex::new(Vec::new());

    fn keep(report: &Report) {
        if let Report::Met(met) = report {
            TOLD.lock().unwrap().push(*met);
        }
    }

    fn at(rule: Rule, inode: u32) -> Corruption {
        Corruption { rule, place: Place::Inode(inode) }
    }

    #[test]
    fn a_kind_of_damage_is_told_at_powers_of_two_and_everything_up_to_a_bound() {
        let ledger = Ledger::new();
        ledger.passed(at(Rule::InodeChecksum, 1));
        ledger.tell_by(keep);
        for inode in 2..=100 {
            ledger.passed(at(Rule::InodeChecksum, inode));
            ledger.answered(&Error::Corrupt(at(Rule::InodeMode, inode)));
        }
        ledger.answered(&Error::NotFound);
        ledger.answered(&Error::Budget);
        let told = std::mem::take(&mut *TOLD.lock().unwrap());
        let counts = |wanted: fn(&Damage) -> bool| -> Vec<u64> {
            told.iter().filter(|met| wanted(&met.damage)).map(|met| met.count).collect()
        };
        assert_eq!(counts(|damage| matches!(damage, Damage::Passed(_))), [2, 4, 8, 16, 32, 64]);
        assert_eq!(counts(|damage| matches!(damage, Damage::Broken(_))), [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(told[0].damage, Damage::Passed(at(Rule::InodeChecksum, 2)));
        assert_eq!(ledger.toll(), Toll { broken: 99, passed: 100, ..Toll::default() });

        for &rule in Rule::ALL {
            ledger.answered(&Error::Checksum(at(rule, 1)));
        }
        ledger.answered(&Error::Device { offset: 7 });
        assert_eq!(told.len() + TOLD.lock().unwrap().len(), Met::MOST as usize);
        assert_eq!((ledger.toll().checksums, ledger.toll().device), (Rule::ALL.len() as u64, 1));
    }
}
