//! What a file system that is mounted all the same should not be trusted with, in words.
//!
//! What holds here: warnings are numbers, so a lying worker chooses among sentences of ours and writes none.

use lazaret_policy::feature::RoCompat;
use lazaret_policy::message::{Replayed, Summary};
use lazaret_policy::warning::Warnings;
use serde_json::{Value, json};

/// A line for each.
pub(crate) fn lines(summary: &Summary) -> Vec<String> {
    summary.warnings.iter().filter_map(|warning| words(warning, summary)).collect()
}

/// What is read from the journal; none where that was clean.
pub(crate) fn replayed(journal: &Replayed) -> Option<String> {
    contents(journal)
        .map(|contents| format!("the journal was not replayed: {contents} are read from it; nothing is written"))
}

/// What a journal holds that is not in its place yet; none where that is nothing.
pub(crate) fn contents(journal: &Replayed) -> Option<String> {
    let Replayed { transactions, blocks, revoked, fast_commits, fast_changes } = *journal;
    let revoked = if revoked > 0 { format!(", {revoked} revoked") } else { String::new() };
    let full = (transactions > 0).then(|| format!("{transactions} transactions ({blocks} blocks{revoked})"));
    let fast = (fast_commits > 0).then(|| format!("{fast_commits} fast commits ({fast_changes} changes)"));
    let contents: Vec<String> = full.into_iter().chain(fast).collect();
    (!contents.is_empty()).then(|| contents.join(" and "))
}

/// The same for a program.
pub(crate) fn replayed_object(journal: &Replayed) -> Value {
    let Replayed { transactions, blocks, revoked, fast_commits, fast_changes } = journal;
    json!({
        "transactions": transactions, "blocks": blocks, "revoked": revoked, "fast_commits": fast_commits,
        "fast_changes": fast_changes,
    })
}

fn words(warning: Warnings, summary: &Summary) -> Option<String> {
    Some(match warning {
        Warnings::IN_USE => {
            "is in use on another host, or was not unmounted there (mmp): what is read may change".to_owned()
        }
        Warnings::GUARD_DAMAGED => "whether another host uses it cannot be told: its mmp block is damaged".to_owned(),
        Warnings::FEATURES => {
            let strange = RoCompat::from_bits_retain(summary.ro_compat).difference(RoCompat::UNDERSTOOD);
            format!("uses what this version does not know and readers need not: {}", strange.names().join(", "))
        }
        Warnings::ERRORS => "was marked as having errors; run e2fsck on a copy".to_owned(),
        Warnings::NOT_CLEAN => "was not cleanly unmounted".to_owned(),
        Warnings::CHECKSUMS => format!("{} wrong checksums were let pass while it was opened", summary.wrong_checksums),
        Warnings::ENCODING => {
            "has names in an encoding that this version does not know (casefold): they are found as they are spelt"
                .to_owned()
        }
        Warnings::JOURNAL_ELSEWHERE => "has its journal on another device, which is not looked at".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_journal_is_not_worth_a_word() {
        assert_eq!(replayed(&Replayed::default()), None);
        let mut journal = Replayed { transactions: 3, blocks: 17, ..Replayed::default() };
        assert!(replayed(&journal).unwrap().contains(": 3 transactions (17 blocks) are read"));
        (journal.revoked, journal.fast_commits, journal.fast_changes) = (4, 2, 5);
        let line = replayed(&journal).unwrap();
        assert!(line.contains("3 transactions (17 blocks, 4 revoked) and 2 fast commits (5 changes)"), "{line}");
        journal.transactions = 0;
        assert!(replayed(&journal).unwrap().contains(": 2 fast commits (5 changes) are read"));
        assert_eq!(replayed_object(&journal)["fast_changes"], 5);
    }

    #[test]
    fn every_warning_has_words_and_names_what_is_strange() {
        let mut summary = Summary { warnings: Warnings::all(), ..Summary::default() };
        summary.ro_compat = RoCompat::REPLICA.bits() | RoCompat::QUOTA.bits() | 1 << 30;
        summary.wrong_checksums = 7;
        let lines = lines(&summary);
        assert_eq!(lines.len(), Warnings::all().iter().count());
        assert!(lines.iter().any(|line| line.ends_with("need not: replica, FEATURE_R30")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("7 wrong checksums")));
    }
}
