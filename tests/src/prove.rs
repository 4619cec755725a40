//! The promises of SECURITY.md and what shows them: each proving test leaves a line in the file that `LAZARET_PROVE`
//! names, and `make prove` makes one line a promise of them.
//!
//! What holds here: a promise passes only if every test file that its row names has shown it, none has failed it or was
//! skipped, and one of them has shown that it would fail where the promise is broken. Silence is not a proof.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;

/// What a proof has counted: a name and a number. Numbers of one name are added up over the tests of a promise.
pub type Figures = Vec<(&'static str, u64)>;

/// What a test of the tests counts: something was broken on purpose, and that was seen.
const SABOTAGES: &str = "sabotages found";

/// The variable that names the file of records.
pub const RECORDS: &str = "LAZARET_PROVE";

/// How a proving test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise holds, as far as this test looks.
    Passed,
    /// It does not.
    Failed,
    /// The host lacks what the test needs.
    Skipped,
}

/// Notes that this test has shown `promise`, with what it counted: the last line of a plain `#[test]`.
pub fn shown(promise: &str, name: &str, figures: &Figures) {
    record(promise, name, Outcome::Passed, figures);
}

/// Notes how a test of `promise` ended. Does nothing unless somebody collects the records.
pub fn record(promise: &str, name: &str, outcome: Outcome, figures: &Figures) {
    let Some(path) = std::env::var_os(RECORDS) else { return };
    let mut line = format!("{promise}\t{}\t{name}\t{outcome:?}", own_name());
    for (what, count) in figures {
        line.push_str(&format!("\t{what}={count}"));
    }
    line.push('\n');
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    assert!(written.is_ok(), "{} cannot be written: {written:?}", path.display());
}

/// The name of the test file that runs: cargo adds a hash to it.
fn own_name() -> String {
    let own = std::env::current_exe().unwrap_or_default();
    let stem = own.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stem.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_owned())
}

/// A promise as SECURITY.md states it.
#[derive(Debug, PartialEq, Eq)]
pub struct Promise {
    /// Its name: `P` and a number.
    pub name: String,
    /// What holds.
    pub text: String,
    /// The test files that show it, without folder and ending.
    pub tests: BTreeSet<String>,
}

/// The rows `| P1 | … | … |` of SECURITY.md.
pub fn promises(page: &str) -> Vec<Promise> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| P"));
    rows.filter_map(|row| {
        let mut cells = row.trim_end_matches('|').split(" | ").map(str::trim);
        let number: u32 = cells.next()?.parse().ok()?;
        let (text, shown_by) = (cells.next()?.to_owned(), cells.next()?);
        let tests = shown_by.split('`').filter_map(|word| word.strip_prefix("tests/tests/")?.strip_suffix(".rs"));
        Some(Promise { name: format!("P{number}"), text, tests: tests.map(str::to_owned).collect() })
    })
    .collect()
}

/// One line a promise: its name, `pass`, `FAIL` or `skip`, what it says, and the figures. And whether all passed.
pub fn verdicts(promises: &[Promise], records: &str) -> (String, bool) {
    let records: Vec<Vec<&str>> = records.lines().map(|line| line.split('\t').collect()).collect();
    let (mut text, mut good) = (String::new(), !promises.is_empty());
    for promise in promises {
        let own: Vec<_> = records.iter().filter(|record| record.len() >= 4 && record[0] == promise.name).collect();
        let with = |outcome: Outcome| own.iter().filter(move |record| record[3] == format!("{outcome:?}"));
        let passed: BTreeSet<String> = with(Outcome::Passed).map(|record| record[1].to_owned()).collect();
        let silent: Vec<&String> = promise.tests.difference(&passed).collect();
        let failed: Vec<&str> = with(Outcome::Failed).map(|record| record[2]).collect();
        let skipped: Vec<&str> = with(Outcome::Skipped).map(|record| record[2]).collect();
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (what, count) in own.iter().flat_map(|record| &record[4..]).filter_map(|figure| figure.rsplit_once('=')) {
            *sums.entry(what).or_default() += count.parse::<u64>().unwrap_or_default();
        }
        let (verdict, why) = match () {
            () if !failed.is_empty() => ("FAIL", format!(" failed: {}", failed.join("; "))),
            () if !skipped.is_empty() => ("skip", format!(" not run: {}", skipped.join("; "))),
            () if promise.tests.is_empty() => ("FAIL", " no test is named".to_owned()),
            () if !silent.is_empty() => ("FAIL", format!(" not shown by: {silent:?}")),
            () if !sums.contains_key(SABOTAGES) => ("FAIL", " nothing shows that its tests can fail".to_owned()),
            () => ("pass", String::new()),
        };
        good &= verdict == "pass";
        let sums: Vec<String> = sums.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let tests = with(Outcome::Passed).count();
        text.push_str(&format!("{:4}{verdict}  {}", promise.name, promise.text));
        text.push_str(&format!(" [{}]{why}\n", [vec![format!("tests {tests}")], sums].concat().join(", ")));
    }
    (text, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# x\n| | what holds | shown by |\n|---|---|---|\n| P1 | It holds. | `tests/tests/evil.rs` |\n\
                        | P2 | So does this. | `tests/tests/evil.rs`; `tests/tests/life.rs`, `x` |\n| `P3` | no |\n";

    #[test]
    fn a_promise_passes_only_if_each_of_its_tests_has_shown_it() {
        let promises = promises(PAGE);
        assert_eq!(promises.iter().map(|promise| promise.tests.len()).collect::<Vec<_>>(), [1, 2]);
        let both = "P1\tevil\ta\tPassed\tcalls=3\tsabotages found=1\nP1\tevil\tb\tPassed\tcalls=4\n\
                    P2\tevil\tc\tPassed\tsabotages found=2\n";
        let (text, good) = verdicts(&promises, both);
        assert!(!good && text.contains("P1  pass  It holds. [tests 2, calls 7, sabotages found 1]\n"), "{text}");
        assert!(text.contains("P2  FAIL") && text.contains("not shown by: [\"life\"]"), "{text}");
        assert!(verdicts(&promises, &format!("{both}P2\tlife\td\tPassed\n")).1);
        let (text, good) = verdicts(&promises, &format!("{both}P2\tlife\td\tPassed\nP2\tlife\te\tFailed\n"));
        assert!(!good && text.contains("failed: e"), "{text}");
        let (text, good) = verdicts(&promises, &format!("{both}P2\tlife\td\tSkipped\n"));
        assert!(!good && text.contains("skip") && text.contains("not run: d"), "{text}");
        let unbroken = both.replace("\tsabotages found=2", "");
        let (text, good) = verdicts(&promises, &format!("{unbroken}P2\tlife\td\tPassed\n"));
        assert!(!good && text.contains("nothing shows that its tests can fail"), "{text}");
        assert!(!verdicts(&[], both).1, "no promise at all");
    }
}
