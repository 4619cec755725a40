//! The damage that a worker meets while it serves a mount, in words: a line where it begins, a line where there is twice
//! as much of it, and the whole at the end.
//!
//! What holds here: reports are numbers, so a lying worker chooses among sentences of ours and writes none; and they are
//! few, so it can neither fill a log nor keep the broker from its watch.

use crate::escape::escaped;
use crate::exit::say;
use lazaret_policy::corruption::Rule;
use lazaret_policy::damage::{Damage, Met, Toll};
use std::ffi::OsStr;
use std::mem::{Discriminant, discriminant};

/// What was told of one mount.
#[derive(Debug)]
pub(crate) struct Told {
    source: String,
    reports: u32,
    /// The last of each kind and rule, and how often it was met by then.
    last: Vec<Met>,
    /// What the worker said at its end.
    toll: Option<Toll>,
}

impl Told {
    /// Nothing yet, of this source.
    pub(crate) fn of(source: &OsStr) -> Self {
        Self { source: escaped(source).to_string(), reports: 0, last: vec![], toll: None }
    }

    /// Says what was met. False if it is more than a worker may tell.
    pub(crate) fn met(&mut self, met: &Met) -> bool {
        self.reports = self.reports.saturating_add(1);
        if self.reports > Met::MOST {
            return false;
        }
        self.last.retain(|before| kind(&before.damage) != kind(&met.damage));
        self.last.push(*met);
        say(&format!("{}: {}", self.source, line(met)));
        true
    }

    /// The worker's last word.
    pub(crate) fn ended(&mut self, toll: Toll) {
        self.toll = Some(toll);
    }

    /// Says how much it was, if it was anything.
    pub(crate) fn conclude(&self) {
        if let Some(line) = self.conclusion() {
            say(&format!("{}: {line}", self.source));
        }
    }

    fn conclusion(&self) -> Option<String> {
        let mut known = Toll::default();
        for Met { damage, count } in &self.last {
            let sum = known.of(damage);
            *sum = sum.saturating_add(*count);
        }
        // A worker that was ended by force has not said the last of it.
        let least = if self.toll.is_some() { "" } else { "at least " };
        let Toll { broken, checksums, passed, device } = self.toll.unwrap_or(known);
        let kinds = [
            (broken, "a broken rule"),
            (checksums, "a wrong checksum"),
            (passed, "a wrong checksum that was let pass"),
            (device, "a place that cannot be read"),
        ];
        let parts: Vec<String> = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{what} {least}{count} times"))
            .collect();
        (!parts.is_empty()).then(|| format!("damage was met while it was mounted: {}", parts.join(", ")))
    }
}

fn line(met: &Met) -> String {
    let mut line = match met.damage {
        Damage::Broken(found) => format!("is damaged: {}: broken rule: {}", found.place, found.rule),
        Damage::Checksum(found) => format!("is damaged: {}: wrong checksum: {}", found.place, found.rule),
        Damage::Passed(found) => format!("is damaged: {}: wrong checksum, let pass: {}", found.place, found.rule),
        Damage::Device { offset } => format!("cannot be read at byte {offset}"),
    };
    if met.count > 1 {
        line.push_str(&format!(" ({} times by now)", met.count));
    }
    line
}

/// What is counted together.
fn kind(damage: &Damage) -> (Discriminant<Damage>, Option<Rule>) {
    let rule = match damage {
        Damage::Broken(found) | Damage::Checksum(found) | Damage::Passed(found) => Some(found.rule),
        Damage::Device { .. } => None,
    };
    (discriminant(damage), rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::corruption::{Corruption, Place};

    fn found(rule: Rule) -> Corruption {
        Corruption { rule, place: Place::Inode(12) }
    }

    #[test]
    fn each_report_is_a_line() {
        let said = |damage, count| line(&Met { damage, count });
        let rule = Rule::InodeChecksum;
        assert_eq!(
            said(Damage::Checksum(found(rule)), 1),
            "is damaged: inode 12: wrong checksum: an inode matches its checksum"
        );
        assert!(
            said(Damage::Broken(found(rule)), 2)
                .ends_with("broken rule: an inode matches its checksum (2 times by now)")
        );
        assert!(said(Damage::Passed(found(rule)), 1).contains("let pass"));
        assert_eq!(said(Damage::Device { offset: 4096 }, 1), "cannot be read at byte 4096");
    }

    #[test]
    fn the_end_tells_all_or_the_least_that_is_known() {
        let mut told = Told::of(OsStr::new("a\x1bb"));
        assert_eq!(told.conclusion(), None);
        for (damage, count) in [
            (Damage::Broken(found(Rule::InodeMode)), 1),
            (Damage::Broken(found(Rule::InodeMode)), 2),
            (Damage::Broken(found(Rule::FileSize)), 4),
            (Damage::Device { offset: 7 }, 1),
        ] {
            assert!(told.met(&Met { damage, count }));
        }
        let line = told.conclusion().unwrap();
        assert!(
            line.ends_with("a broken rule at least 6 times, a place that cannot be read at least 1 times"),
            "{line}"
        );
        told.ended(Toll { passed: 3, ..Toll::default() });
        let line = told.conclusion().unwrap();
        assert!(line.ends_with("mounted: a wrong checksum that was let pass 3 times"), "{line}");
        told.ended(Toll::default());
        assert_eq!(told.conclusion(), None);
    }

    #[test]
    fn a_worker_that_tells_more_than_it_may_is_not_listened_to() {
        let mut told = Told::of(OsStr::new("image"));
        let met = Met { damage: Damage::Device { offset: 7 }, count: 1 };
        assert!((0..Met::MOST).all(|_| told.met(&met)));
        assert!(!told.met(&met));
    }
}
