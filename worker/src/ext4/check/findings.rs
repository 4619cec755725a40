//! What was found: counted all, listed up to a bound, and told in portions.

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::{CheckCounts, Checked, Finding, Severity};
use lazaret_policy::planted;

use crate::error::{Error, Result};

/// The findings that were not told yet, and the counts of all.
#[derive(Default)]
pub(super) struct Findings {
    waiting: Vec<Finding>,
    listed: usize,
    pub(super) counts: CheckCounts,
}

impl Findings {
    /// Damage.
    pub(super) fn damage(&mut self, rule: Rule, place: Place) {
        if planted("blind") {
            return;
        }
        self.counts.damage = self.counts.damage.saturating_add(1);
        self.list(Finding { corruption: Corruption { rule, place }, severity: Severity::Damage });
    }

    /// Something worth to know.
    pub(super) fn notice(&mut self, rule: Rule, place: Place) {
        self.counts.notices = self.counts.notices.saturating_add(1);
        self.list(Finding { corruption: Corruption { rule, place }, severity: Severity::Notice });
    }

    /// Damage unless something holds.
    pub(super) fn hold(&mut self, holds: bool, rule: Rule, place: Place) {
        if !holds {
            self.damage(rule, place);
        }
    }

    /// Keeps what a reader found.
    ///
    /// # Errors
    /// What is not damage: a device that cannot be read, memory that is used up.
    pub(super) fn keep(&mut self, error: Error) -> Result<()> {
        match error {
            // What a name may be concerns those who read it: e2fsck takes any, and so did kernels.
            Error::Corrupt(found) if found.rule == Rule::XattrName => {
                self.notice(found.rule, found.place);
                Ok(())
            }
            Error::Corrupt(found) | Error::Checksum(found) => {
                self.damage(found.rule, found.place);
                Ok(())
            }
            Error::Device { .. } | Error::OutOfMemory => Err(error),
            // What concerns a request and not the medium.
            _ => Ok(()),
        }
    }

    fn list(&mut self, finding: Finding) {
        if self.listed < Checked::MOST && self.waiting.try_reserve(1).is_ok() {
            self.waiting.push(finding);
            self.listed = self.listed.saturating_add(1);
        }
    }

    /// Whether the slice may go on finding.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < Checked::MOST_AT_ONCE
    }

    /// Whether everything that is listed was told.
    pub(super) fn is_told(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next portion.
    pub(super) fn take(&mut self) -> Checked {
        let count = self.waiting.len().min(Checked::MOST_AT_ONCE);
        let findings = self.waiting.drain(..count).collect();
        Checked { findings, counts: self.counts, ..Checked::default() }
    }
}
