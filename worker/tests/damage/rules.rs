//! The whole list of rules against what is shown of them.

use std::collections::BTreeSet;
use std::path::Path;

use lazaret_policy::corruption::Rule;

use crate::case::Case;
use crate::{attributes, directory, inline, inode, maps, names, superblock, verity};

const ROOMS: &[&[Case]] = &[
    attributes::CASES,
    directory::CASES,
    inline::CASES,
    inode::CASES,
    maps::CASES,
    names::CASES,
    superblock::CASES,
    verity::CASES,
];

/// What other tests show, each in a form of its own: a table of partitions has no file system around it, a log has to
/// be written before anything in it can be broken. The file has to name the rule.
const ELSEWHERE: &[(&str, &[Rule])] = &[
    (
        "worker/src/partition/gpt.rs",
        &[
            Rule::GptHeader,
            Rule::GptHeaderChecksum,
            Rule::GptEntriesChecksum,
            Rule::GptProtected,
            Rule::PartitionLength,
            Rule::PartitionCount,
        ],
    ),
    ("worker/src/partition/mbr.rs", &[Rule::ExtendedLink, Rule::ExtendedChain, Rule::LogicalInExtended]),
    ("worker/src/partition/mod.rs", &[Rule::PartitionInDevice, Rule::PartitionsApart]),
    ("worker/tests/features.rs", &[Rule::SuperblockPlace]),
    ("worker/tests/ext4_damage.rs", &[Rule::InodeNumber]),
    ("worker/tests/damage/directory.rs", &[Rule::DirectoryWhole]),
    ("worker/tests/damage/superblock.rs", &[Rule::GroupCount]),
    (
        "worker/tests/journal/broken.rs",
        &[
            Rule::JournalInside,
            Rule::JournalInode,
            Rule::JournalMagic,
            Rule::JournalBlockSize,
            Rule::JournalLength,
            Rule::JournalStart,
            Rule::JournalFeatures,
            Rule::JournalChecksumType,
            Rule::JournalSuperblockChecksum,
            Rule::JournalBlockChecksum,
            Rule::JournalCommitChecksum,
            Rule::JournalDataChecksum,
            Rule::JournalRevoke,
            Rule::JournalTarget,
            Rule::FastCommitTail,
            Rule::FastCommitFeatures,
            Rule::FastCommitInode,
            Rule::FastCommitParent,
            Rule::FastCommitName,
        ],
    ),
    ("worker/tests/bounds/journal.rs", &[Rule::JournalWork, Rule::FastCommitWork]),
];

/// What no image shows, and why.
const NOT_SHOWN: &[(Rule, &str)] = &[
    (Rule::DeviceHoldsFileSystem, "a device that is too short is refused as `Refusal::TooShort`, with both lengths"),
    (Rule::GroupNumber, "the group of an inode follows from a number that was checked before"),
];

/// The first rule of those that only `check` looks at: it and all behind it are shown by the tests of `check`.
const FIRST_OF_CHECK: Rule = Rule::FreeBlocks;

#[test]
fn every_rule_is_shown_broken() {
    let first_of_check = Rule::ALL.iter().position(|&rule| rule == FIRST_OF_CHECK).unwrap();
    let of_reader = &Rule::ALL[..first_of_check];
    let name = |rule: &Rule| format!("{rule:?}");
    let here: BTreeSet<String> = ROOMS.iter().copied().flatten().map(|case| name(&case.rule)).collect();
    let elsewhere: BTreeSet<String> = ELSEWHERE.iter().flat_map(|(_, rules)| *rules).map(name).collect();
    let not_shown: BTreeSet<String> = NOT_SHOWN.iter().map(|(rule, _)| name(rule)).collect();

    for rule in of_reader.iter().map(name) {
        let homes = [&here, &elsewhere, &not_shown].iter().filter(|set| set.contains(&rule)).count();
        assert_eq!(homes, 1, "{rule} is broken by a case, or by a test that is named, or it is said why by none");
    }
    let known: BTreeSet<String> = of_reader.iter().map(name).collect();
    let listed = here.iter().chain(&elsewhere).chain(&not_shown);
    for rule in listed {
        assert!(known.contains(rule), "{rule} is none of a reader's");
    }
    let cases: usize = ROOMS.iter().map(|cases| cases.len()).sum();
    println!("{cases} cases of {} rules here, {} rules elsewhere", here.len(), elsewhere.len());
    assert!(here.len() + elsewhere.len() >= 80, "at least 80 rules are shown broken");
}

#[test]
fn the_tests_that_are_named_name_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (file, rules) in ELSEWHERE {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let tests = text.rsplit("#[cfg(test)]").next().unwrap_or_default();
        for rule in *rules {
            assert!(tests.contains(&format!("Rule::{rule:?}")), "{file} does not name {rule:?}");
        }
    }
}
