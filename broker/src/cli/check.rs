//! `lazaret check`: whether a file system is sound, as a confined worker sees it. The verdict of `e2fsck -fn`.
//!
//! What holds here: the worker says numbers and the sentences are ours; what is kept of them is bounded, and so is how
//! often a worker may say that it goes on.

use super::origin::{Origin, SOURCE_HELP};
use crate::exit::{Code, Failure, say, words};
use crate::options::Options;
use crate::refusal;
use crate::signal::Signals;
use crate::tool;
use crate::warning;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lazaret_policy::corruption::{Corruption, Place};
use lazaret_policy::message::{Answer, Ask, CheckCounts, Checked, Finding, Refusal, Replayed, Severity};
use lazaret_policy::verdict;
use lazaret_policy::warning::Warnings;
use rustix::io::Errno;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;

/// The version of what `--json` prints. It changes when a field goes or means something else.
const SCHEMA: &str = "lazaret.check/1";
/// The most answers of one check: far more than the slices of the largest file system.
const ANSWERS: u64 = 1 << 28;

const CHECK_HELP: &str = "\
Each line names a broken rule and its place. A notice is no damage to e2fsck -fn, whose verdict this is: a copy of the
superblock that differs, an access control list that readers reject, an attribute's value that does not match its hash,
a group descriptor that does not match its checksum (a mount answers EBADMSG for the inodes of that group, unless told
otherwise by checksum=). The data of files is not looked at, nor are Merkle trees: -o verity=verify of mount does that.
With a journal that was not replayed the file system is read as if it had been, and nothing is written. With a journal
on another device there is no telling that all is sound: the code is 8 then, unless something else is damaged.

--json prints one object: schema (\"lazaret.check/1\"), source, verdict (sound, damaged, unreadable), reason (only if
unreadable), journal {transactions, blocks, revoked, fast_commits, fast_changes} (what is read from it), warnings
[text], counts {damage, notices, inodes, directories, blocks, orphans}, findings [{rule, rule_text, severity (damage,
notice), place {kind, ...}, place_text}], more (findings not listed).

Exit codes: 0 sound, 1 usage, 4 damaged, 8 could not be read.";

#[derive(clap::Args)]
#[command(after_help = format!("{SOURCE_HELP}\n\n{CHECK_HELP}"))]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    origin: Origin,
}

/// What became of a check.
#[derive(Debug, Default)]
struct Outcome {
    journal: Replayed,
    warnings: Vec<String>,
    counts: CheckCounts,
    findings: Vec<Finding>,
    /// Why there is no verdict.
    unreadable: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut options = arguments.origin.options()?;
    options.trust_descriptors = true;
    let outcome = match check(arguments, &options) {
        Ok(outcome) => outcome,
        // The object says it instead of a line on stderr.
        Err(failure) if failure.code() == Code::Usage as u8 => return Err(failure),
        Err(failure) if arguments.json => Outcome { unreadable: Some(failure.to_string()), ..Outcome::default() },
        Err(failure) => return Err(arguments.origin.about(failure).with(Code::Unreadable)),
    };
    let text = if arguments.json { outcome.object(arguments) } else { outcome.lines(arguments) };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Failure::system(format!("stdout: {}", words(error))).with(Code::Unreadable))?;
    match outcome.verdict() {
        "sound" => Ok(()),
        "damaged" => Err(Failure::said(Code::Damaged as u8)),
        _ => Err(Failure::said(Code::Unreadable as u8)),
    }
}

fn check(arguments: &Arguments, options: &Options) -> Result<Outcome, Failure> {
    let signals = Signals::block()?;
    let mut source = arguments.origin.source(&signals)?;
    let (mut worker, opened) = tool::start(&mut source, options, &signals)?;
    let mut outcome = Outcome::default();
    let summary = match opened {
        Ok(summary) => summary,
        Err(refusal) => {
            // What is so damaged that it does not open was found with one look.
            let corruption = verdict::damage(refusal).ok_or_else(|| refusal::failure(refusal))?;
            outcome.findings.push(Finding { corruption, severity: Severity::Damage });
            // How to go on.
            if matches!(refusal, Refusal::SuperblockLost { .. }) {
                outcome.warnings.push(refusal::failure(refusal).to_string());
            }
            outcome.counts.damage = 1;
            return Ok(outcome);
        }
    };
    let strange = verdict::unknown(summary.compat, summary.ro_compat);
    if !strange.is_empty() {
        return Err(Failure::mount(format!(
            "uses what a check would have to know, and this version does not: {}",
            strange.join(", ")
        )));
    }
    outcome.journal = summary.journal;
    outcome.warnings = warning::lines(&summary);
    let bar = bar(arguments);
    for _ in 0..ANSWERS {
        let told = match worker.ask(&Ask::Check)? {
            Answer::Check(told) => told,
            Answer::Failed(errno) => return Err(unread(errno)),
            _ => return Err(Failure::system("the worker answered another question")),
        };
        bar.set_length(told.total);
        bar.set_position(told.done.min(told.total));
        let room = Checked::MOST.saturating_sub(outcome.findings.len());
        outcome.findings.extend(told.findings.into_iter().take(room));
        outcome.counts = told.counts;
        if told.over {
            bar.finish_and_clear();
            if summary.warnings.contains(Warnings::JOURNAL_ELSEWHERE) && !outcome.is_damaged() {
                outcome.unreadable = Some("has its journal on another device: nobody can say what that holds".into());
            }
            return Ok(outcome);
        }
    }
    Err(Failure::mount("the worker does not come to an end"))
}

fn unread(errno: i32) -> Failure {
    match Errno::from_raw_os_error(errno.clamp(1, 4095)) {
        Errno::NOMEM => Failure::mount("needs more memory than it is granted to be checked; see the option memory="),
        Errno::FBIG => Failure::mount("asks for more work than a file system of its length can need"),
        errno => Failure::mount(format!("cannot be read whole: {}", words(errno))),
    }
}

/// On a terminal only.
fn bar(arguments: &Arguments) -> ProgressBar {
    let target = if arguments.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("checking {wide_bar} {percent:>3} % {eta}") {
        bar.set_style(style);
    }
    bar
}

impl Outcome {
    fn verdict(&self) -> &'static str {
        match &self.unreadable {
            Some(_) => "unreadable",
            None if self.is_damaged() => "damaged",
            None => "sound",
        }
    }

    fn is_damaged(&self) -> bool {
        self.counts.damage > 0 || self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }

    /// How many findings are counted and not listed.
    fn more(&self) -> u64 {
        let all = self.counts.damage.saturating_add(self.counts.notices);
        all.saturating_sub(u64::try_from(self.findings.len()).unwrap_or(u64::MAX))
    }

    fn lines(&self, arguments: &Arguments) -> String {
        let source = crate::escape::escaped(arguments.origin.path().as_os_str());
        let mut text = String::new();
        for Finding { corruption, severity } in &self.findings {
            let word = if *severity == Severity::Notice { "notice: " } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{word}{}: broken rule: {}", corruption.place, corruption.rule);
        }
        if self.more() > 0 {
            let _ = writeln!(text, "and {} more", self.more());
        }
        let warnings = self.warnings.iter().map(|line| format!("warning: {line}"));
        warnings.chain(warning::replayed(&self.journal)).for_each(|line| say(&format!("{source}: {line}")));
        let CheckCounts { damage, notices, inodes, directories, blocks, orphans } = self.counts;
        let notices = if notices > 0 { format!(", {notices} notices") } else { String::new() };
        let orphans = if orphans > 0 { format!(", {orphans} orphans") } else { String::new() };
        let verdict = self.verdict();
        if let Some(reason) = &self.unreadable {
            say(&format!("{source}: {reason}"));
        }
        let _ = writeln!(
            text,
            "{source}: {verdict}: {damage} broken rules{notices}; {inodes} inodes, {directories} directories, {blocks} \
             blocks in use{orphans}"
        );
        text
    }

    fn object(&self, arguments: &Arguments) -> String {
        let findings: Vec<Value> = self.findings.iter().map(finding).collect();
        let counts = self.counts;
        let mut object = json!({
            "schema": SCHEMA,
            "source": crate::escape::escaped(arguments.origin.path().as_os_str()).to_string(),
            "verdict": self.verdict(),
            "journal": warning::replayed_object(&self.journal),
            "warnings": self.warnings,
            "counts": {
                "damage": counts.damage, "notices": counts.notices, "inodes": counts.inodes,
                "directories": counts.directories, "blocks": counts.blocks, "orphans": counts.orphans,
            },
            "findings": findings,
            "more": self.more(),
        });
        if let Some(reason) = &self.unreadable {
            object["reason"] = json!(reason);
        }
        format!("{object}\n")
    }
}

fn finding(finding: &Finding) -> Value {
    let Corruption { rule, place } = finding.corruption;
    json!({
        "rule": format!("{rule:?}"),
        "rule_text": rule.to_string(),
        "severity": match finding.severity { Severity::Damage => "damage", Severity::Notice => "notice" },
        "place": place_object(place),
        "place_text": place.to_string(),
    })
}

fn place_object(place: Place) -> Value {
    match place {
        Place::Superblock => json!({ "kind": "superblock" }),
        Place::GroupDescriptor(group) => json!({ "kind": "group_descriptor", "group": group }),
        Place::Inode(inode) => json!({ "kind": "inode", "inode": inode }),
        Place::ExtentNode { inode, block } => json!({ "kind": "extent_node", "inode": inode, "block": block }),
        Place::IndirectBlock { inode, block } => json!({ "kind": "indirect_block", "inode": inode, "block": block }),
        Place::XattrBlock { inode, block } => json!({ "kind": "xattr_block", "inode": inode, "block": block }),
        Place::Directory { inode, block, offset } => {
            json!({ "kind": "directory", "inode": inode, "block": block, "offset": offset })
        }
        Place::Journal(block) => json!({ "kind": "journal", "block": block }),
        Place::Data { inode, block } => json!({ "kind": "data", "inode": inode, "block": block }),
        Place::Merkle { inode, block } => json!({ "kind": "merkle", "inode": inode, "block": block }),
        Place::Partition(number) => json!({ "kind": "partition", "number": number }),
        Place::Device { offset, length } => json!({ "kind": "device", "offset": offset, "length": length }),
        Place::Bitmap { group, first } => json!({ "kind": "bitmap", "group": group, "first": first }),
        Place::Backup(group) => json!({ "kind": "backup", "group": group }),
        Place::Claim { inode, block } => json!({ "kind": "claim", "inode": inode, "block": block }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::corruption::Rule;

    fn arguments(json: bool) -> Arguments {
        Arguments { json, origin: Origin::of("a\u{1b}b") }
    }

    fn outcome() -> Outcome {
        let corruption = Corruption { rule: Rule::LinkCount, place: Place::Inode(12) };
        let notice = Corruption { rule: Rule::BackupSuperblock, place: Place::Backup(3) };
        let findings = vec![
            Finding { corruption, severity: Severity::Damage },
            Finding { corruption: notice, severity: Severity::Notice },
        ];
        let counts = CheckCounts { damage: 5, notices: 1, ..CheckCounts::default() };
        Outcome { findings, counts, ..Outcome::default() }
    }

    #[test]
    fn each_finding_is_a_line_and_the_verdict_comes_last() {
        let text = outcome().lines(&arguments(false));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "inode 12: broken rule: the links of an inode are those of the directories");
        assert!(lines[1].starts_with("notice: copies at the begin of group 3: "));
        assert_eq!(lines[2], "and 4 more");
        assert!(lines[3].starts_with("a\\x1bb: damaged: 5 broken rules, 1 notices; "));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn the_object_has_its_schema() {
        let object: Value = serde_json::from_str(&outcome().object(&arguments(true))).unwrap();
        assert_eq!(object["schema"], "lazaret.check/1");
        assert_eq!((&object["verdict"], &object["more"]), (&json!("damaged"), &json!(4)));
        assert_eq!(object["findings"][0]["rule"], "LinkCount");
        assert_eq!(object["findings"][0]["place"], json!({ "kind": "inode", "inode": 12 }));
        assert_eq!(object["findings"][1]["severity"], "notice");
    }

    #[test]
    fn notices_alone_are_sound_and_a_failure_has_no_verdict() {
        let mut outcome = outcome();
        outcome.findings.remove(0);
        outcome.counts.damage = 0;
        assert_eq!(outcome.verdict(), "sound");
        outcome.unreadable = Some("gone".into());
        assert_eq!(outcome.verdict(), "unreadable");
    }
}
