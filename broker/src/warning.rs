//! What a file system that is mounted all the same should not be trusted with, in words.
//!
//! What holds here: warnings are numbers, so a lying worker chooses among sentences of ours and writes none.

use lazaret_policy::feature::RoCompat;
use lazaret_policy::message::{Replayed, Summary};
use lazaret_policy::warning::Warnings;

/// A line for each.
pub(crate) fn lines(summary: &Summary) -> Vec<String> {
    summary.warnings.iter().filter_map(|warning| words(warning, summary)).collect()
}

/// What is read from the journal; none where that was clean.
pub(crate) fn replayed(journal: &Replayed) -> Option<String> {
    let Replayed { transactions, blocks, fast_commits, .. } = journal;
    (*transactions > 0 || *fast_commits > 0).then(|| {
        format!(
            "the journal was not replayed: {transactions} transactions ({blocks} blocks) and {fast_commits} fast commits \
             are read from it; nothing is written"
        )
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
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_journal_is_not_worth_a_word() {
        assert_eq!(replayed(&Replayed::default()), None);
        let journal = Replayed { transactions: 3, blocks: 17, fast_commits: 2, ..Replayed::default() };
        let line = replayed(&journal).unwrap();
        assert!(line.contains("3 transactions (17 blocks) and 2 fast commits"), "{line}");
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
