//! The source held to the design: who may depend on whom, where `unsafe` may stand, how a file begins and how long it
//! may be. Each rule is a function of one file or one manifest, and each is shown a file that breaks it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lazaret_tests::prove;
use lazaret_tests::source::{self, Source};

/// A rule says what is wrong with a file, or nothing.
type Rule = fn(&Source) -> Option<String>;

/// A rule's name, the rule, and a file that breaks it.
type Entry = (&'static str, Rule, fn() -> Source);

const RULES: &[Entry] = &[
    ("a file begins by saying what it is", begins_with_its_purpose, || {
        Source::new("worker/src/main.rs", "use std::fs;\n")
    }),
    ("no file is too long", is_short, || Source::new("worker/src/ext4/dir.rs", &"fn f() {}\n".repeat(MOST_LINES + 1))),
    ("nothing is left to be done", is_done, || Source::new("broker/src/main.rs", "fn f() { todo!() }\n")),
    ("the rooms of the worker depend downwards", depends_downwards, || {
        Source::new("worker/src/ext4/mod.rs", "use crate::fuse::serve;\n")
    }),
    ("the rooms of the worker are not left upwards", stays_in_its_room, || {
        Source::new("worker/src/ext4/dir.rs", "use super::super::fuse;\n")
    }),
    ("only its crate uses a library", uses_its_libraries, || {
        Source::new("broker/src/main.rs", "use landlock::Ruleset;\n")
    }),
    ("only the agent speaks D-Bus", speaks_no_dbus, || Source::new("broker/src/mount.rs", "use zbus::Connection;\n")),
    ("unsafe stands only in the files that are named", has_unsafe_where_named, || {
        Source::new("worker/src/ext4/dir.rs", "fn f() { unsafe { g() } }\n")
    }),
    ("what parses forbids unsafe and unchecked arithmetic", forbids_unsafe, || {
        Source::new("worker/src/ext4/mod.rs", "mod dir;\n")
    }),
    ("error numbers have one home in the worker", names_no_errno, || {
        Source::new("worker/src/ext4/mod.rs", "fn f() -> Errno { Errno::IO }\n")
    }),
];

/// Files that may be longer than `MOST_LINES`, because they list a format.
const LONG_FILES: &[&str] = &["worker/src/ext4/format.rs"];
const MOST_LINES: usize = 500;

/// The files that contain `unsafe`.
const UNSAFE: &[&str] = &[
    "broker/src/ioctl.rs",
    "broker/src/signal.rs",
    "broker/src/spawn.rs",
    "policy/src/limits.rs",
    "tests/fuzz/fuzz_targets/edges.rs",
    "tests/src/bin/evil/bomb.rs",
    "tests/src/bin/evil/life.rs",
    "tests/src/bin/evil/serve.rs",
    "tests/src/bin/evil/sweep.rs",
    "tests/src/evil/call.rs",
    "tests/src/evil/host.rs",
    "tests/src/evil/probe.rs",
    "tests/src/exchange.rs",
    "tests/src/extents.rs",
    "tests/src/heap.rs",
    "tests/src/mapped.rs",
    "tests/src/series/notify.rs",
    "worker/src/device/mapping.rs",
    "worker/src/fuse/reply.rs",
    "worker/src/fuse/request.rs",
    "worker/src/memory.rs",
];

/// What parses bytes from outside: each begins with `forbid(unsafe_code)`, and counts carefully.
const PARSERS: &[&str] = &["policy/src/channel.rs", "worker/src/ext4/mod.rs", "worker/src/partition/mod.rs"];
const CAREFUL: &[&str] = &["arithmetic_side_effects", "as_conversions", "indexing_slicing", "unwrap_used"];

/// The rooms of the worker, lowest first. A room may use those below it, not those beside it.
const ROOMS: &[&[&str]] = &[&["device"], &["partition", "ext4"], &["fuse", "tool"]];

/// Libraries and crates of ours, and the only packages that may use each.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("seccompiler", &["policy"]),
    ("landlock", &["policy"]),
    ("caps", &["policy"]),
    ("postcard", &["policy"]),
    ("fuser", &["worker", "tests"]),
    ("memmap2", &["worker"]),
    ("zerocopy", &["worker"]),
    ("talc", &["worker"]),
    ("zbus", &["broker"]),
    ("lazaret_worker", &["worker", "tests"]),
    ("lazaret_policy", &["broker", "worker", "tests"]),
    ("lazaret_tests", &["tests"]),
];

/// Where the system's own errors come in, and where ours become numbers.
const ERRNO_HOMES: &[&str] = &["worker/src/error.rs", "worker/src/device/mapping.rs"];

fn package(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// The room of a file of the worker: the folder below `src`.
fn room(path: &str) -> Option<&str> {
    let (room, _) = path.strip_prefix("worker/src/")?.split_once('/')?;
    Some(room)
}

fn begins_with_its_purpose(file: &Source) -> Option<String> {
    (!file.text.starts_with("//! ")).then(|| "does not begin with `//!`".to_owned())
}

fn is_short(file: &Source) -> Option<String> {
    let lines = file.lines_of_code();
    (lines > MOST_LINES && !LONG_FILES.contains(&&*file.path)).then(|| format!("has {lines} lines of code"))
}

fn is_done(file: &Source) -> Option<String> {
    let found = ["todo!", "unimplemented!", "dbg!"].into_iter().find(|one| file.code.contains(one));
    found.map(|found| format!("holds {found}"))
}

fn depends_downwards(file: &Source) -> Option<String> {
    let own = room(&file.path)?;
    let rank = |room: &str| ROOMS.iter().position(|rooms| rooms.contains(&room));
    let wrong = |used: &String| used != own && rank(used).is_some_and(|used| Some(used) >= rank(own));
    let used = file.named_after("crate").into_iter().chain(file.named_after("lazaret_worker")).find(wrong);
    used.map(|used| format!("uses `{used}` from within `{own}`"))
}

fn stays_in_its_room(file: &Source) -> Option<String> {
    room(&file.path)?;
    file.code_before_tests().contains("super::super::").then(|| "climbs by `super::super`".to_owned())
}

fn uses_its_libraries(file: &Source) -> Option<String> {
    let package = package(&file.path);
    let foreign = LIBRARIES.iter().filter(|(_, users)| !users.contains(&package));
    let used = |name: &str| !file.named_after(name).is_empty() || file.code.contains(&format!("extern crate {name}"));
    let found = foreign.map(|(name, _)| *name).find(|name| used(name));
    found.map(|found| format!("uses {found}, which is not for {package}"))
}

/// The agent is a program of its own: what is not named in a program is not linked into it.
fn speaks_no_dbus(file: &Source) -> Option<String> {
    let agent = file.path.starts_with("broker/src/agent/");
    (!agent && !file.named_after("zbus").is_empty()).then(|| "uses zbus outside of the agent".to_owned())
}

fn has_unsafe_where_named(file: &Source) -> Option<String> {
    match (file.has_word("unsafe"), UNSAFE.contains(&&*file.path)) {
        (true, false) => Some("contains `unsafe` and is not named".to_owned()),
        (false, true) => Some("is named and contains no `unsafe`".to_owned()),
        _ => None,
    }
}

fn forbids_unsafe(file: &Source) -> Option<String> {
    if !PARSERS.contains(&&*file.path) {
        return None;
    }
    let head = file.code.split("\nmod ").next().unwrap_or_default();
    let missing = CAREFUL.iter().find(|lint| !head.contains(&format!("clippy::{lint}")));
    match missing {
        _ if !head.contains("#![forbid(unsafe_code)]") => Some("does not forbid unsafe_code".to_owned()),
        Some(lint) => Some(format!("does not deny clippy::{lint}")),
        None => None,
    }
}

fn names_no_errno(file: &Source) -> Option<String> {
    if !file.path.starts_with("worker/src/") || ERRNO_HOMES.contains(&&*file.path) {
        return None;
    }
    let before_tests = Source::new(&file.path, file.code_before_tests());
    let number = |name: &String| name.bytes().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit());
    let by_name = before_tests.named_after("Errno").into_iter().filter(number).map(|name| format!("Errno::{name}"));
    let by_libc = before_tests.named_after("libc").into_iter().filter(number).filter(|name| name.starts_with('E'));
    let found: BTreeSet<String> = by_name.chain(by_libc.map(|name| format!("libc::{name}"))).collect();
    (!found.is_empty()).then(|| format!("names {found:?}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_file_keeps_every_rule() {
    let sources = source::all(&root()).expect("the source is readable");
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    let mut wrong = Vec::new();
    for (name, rule, _) in RULES {
        wrong.extend(sources.iter().filter_map(|file| Some(format!("{}: {} ({name})", file.path, rule(file)?))));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let counted = vec![("files", sources.len() as u64), ("files with unsafe", UNSAFE.len() as u64)];
    prove::shown("P8", "every file keeps every rule", &counted);
}

#[test]
fn every_rule_can_fail() {
    for (name, rule, bad) in RULES {
        assert!(rule(&bad()).is_some(), "a file that breaks it passes: {name}");
    }
    let unused = Source::new(UNSAFE[0], "//! x\n// unsafe\nfn f() {}\n");
    assert!(has_unsafe_where_named(&unused).is_some(), "a named file without unsafe passes");
    let beside = Source::new("worker/src/fuse/mod.rs", "use crate::{error::Error, tool::ls};");
    assert!(depends_downwards(&beside).is_some(), "a room may not use the one beside it");
    let upwards = Source::new("worker/src/device/mod.rs", "fn f() { crate::ext4::g() }");
    assert!(depends_downwards(&upwards).is_some(), "the device knows no file system");
    let unsound = Source::new("policy/src/channel.rs", "//! x\n#![forbid(unsafe_code)]\nmod a;\n");
    assert!(forbids_unsafe(&unsound).is_some(), "a parser without its lints passes");
    prove::shown("P8", "every rule can fail", &vec![("sabotages found", RULES.len() as u64)]);
}

#[test]
fn every_rule_can_be_kept() {
    let text = "//! What it is.\n#![forbid(unsafe_code)]\n#![deny(clippy::arithmetic_side_effects, clippy::as_conversions, \
                clippy::indexing_slicing, clippy::unwrap_used)]\nuse crate::device::Device;\nuse crate::error::Error;\n";
    for (name, rule, _) in RULES {
        assert_eq!(rule(&Source::new("worker/src/ext4/mod.rs", text)), None, "{name}");
    }
}

#[test]
fn what_is_named_exists() {
    for path in UNSAFE.iter().chain(PARSERS).chain(LONG_FILES).chain(ERRNO_HOMES) {
        assert!(root().join(path).is_file(), "{path} is named here and is not there");
    }
}

/// What a manifest depends on: the names in its tables of dependencies.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && let Some(name) = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty()) {
            found.insert(name.trim_matches('"').replace('-', "_"));
        }
    }
    found
}

fn wrong_dependencies(package: &str, manifest: &str) -> Vec<String> {
    let found = dependencies(manifest);
    let foreign = LIBRARIES.iter().filter(|(name, users)| found.contains(*name) && !users.contains(&package));
    foreign.map(|(name, _)| format!("{package} depends on {name}")).collect()
}

#[test]
fn every_manifest_keeps_to_the_design() {
    for package in ["broker", "worker", "policy", "tests"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).expect("a manifest");
        assert_eq!(wrong_dependencies(package, &manifest), [""; 0]);
        assert!(!dependencies(&manifest).is_empty(), "{package}: no dependency was found");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{package} does not take the workspace's lints");
    }
    let broker = dependencies(&fs::read_to_string(root().join("broker/Cargo.toml")).expect("a manifest"));
    let parsers: Vec<_> = ["lazaret_worker", "zerocopy", "fuser"].iter().filter(|one| broker.contains(**one)).collect();
    assert!(parsers.is_empty(), "the broker links {parsers:?}");
    let bad = "[package]\nname = \"x\"\n[dev-dependencies]\nlandlock.workspace = true\n\"fuser\" = \"1\"\n";
    assert_eq!(wrong_dependencies("broker", bad).len(), 2, "a manifest that breaks the rule passes");
    let counted = vec![("crates of the broker", broker.len() as u64), ("sabotages found", 2)];
    prove::shown("P1", "every manifest keeps to the design", &counted);
}

/// What a file must say, so that the image cannot be touched by whoever has not confined himself.
const ASKS_FOR_PROOF: &[(&str, &str)] = &[
    ("policy/src/confine.rs", "pub struct Confined(());"),
    ("worker/src/device/mod.rs", "pub fn map(fd: OwnedFd, range: Range, _: &Confined)"),
];

/// Where a [`Confined`](lazaret_policy::confine::Confined) is made: its field is private, so nobody else can.
fn makes_proofs(file: &Source) -> bool {
    file.path != "policy/src/confine.rs" && file.code_before_tests().contains("Confined(())")
}

#[test]
fn only_confinement_gives_the_proof_that_a_mapping_asks_for() {
    let sources = source::all(&root()).expect("the source is readable");
    for (path, words) in ASKS_FOR_PROOF {
        let file = sources.iter().find(|file| file.path == *path).expect("a file that is named");
        assert!(file.code.contains(words), "{path} does not say: {words}");
    }
    let confine = sources.iter().find(|file| file.path == "policy/src/confine.rs").expect("the order of confinement");
    let made = confine.code_before_tests().matches("Confined(())").count();
    // Where it is declared is `Confined(());`, and it is made in one place.
    assert_eq!(made, 2, "a proof is made in another place than at the end of `confine`");
    assert!(!sources.iter().any(makes_proofs));
    assert!(makes_proofs(&Source::new("worker/src/main.rs", "fn f() -> Confined { Confined(()) }")));
    prove::shown("P5", "only confinement gives the proof", &vec![("sabotages found", 1)]);
}
