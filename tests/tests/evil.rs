//! A worker that is already lost, and all that it tries from where an attacker would be: after the last filter, with
//! /dev/fuse and the channel in its hands. Each attempt is made by a fresh worker, under the policy that is shipped.
//!
//! What a weakened worker gets away with is shown, too: a check that a lost layer does not turn red is no check.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lazaret_policy::exit;
use lazaret_policy::seccomp::{self, Row};
use lazaret_policy::watching::{WATCHING, WATCHING_AS_USER};

use lazaret_tests::evil::probe::PROBES;
use lazaret_tests::evil::run::{Case, End, Quarters, Swept, each, perturbed, row_for, sweep};
use lazaret_tests::evil::{Act, Evidence, Instruction, MARK, weakness};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, Requirement, proof, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, lazaret};

const NEEDS: &[Requirement] = &[Requirement::Root, Requirement::Fuse];
/// The layers' table is that of a kernel with Landlock's scopes and with fds that a socket can refuse.
const LAYERED: &[Requirement] = &[Requirement::Root, Requirement::Fuse, Requirement::Kernel(6, 16)];

/// Numbers up to here are tried: more than twice what any kernel has.
const HIGHEST: u64 = 1023;
/// Numbers up to here are tried with a whole start each.
const HIGHEST_BY_BROKER: u64 = 511;
/// What a number is for programs of 32-bit pointers.
const X32: u64 = 0x4000_0000;
/// `uretprobe` and `uprobe` pass every filter, by the kernel's design.
const PASSED_BY_DESIGN: &[u64] = if cfg!(target_arch = "x86_64") { &[335, 336] } else { &[] };

/// A table's name, the table, and the promise that it keeps.
const TABLES: &[(&str, &[Row], &str)] = &[
    ("serving", seccomp::SERVING, "P3"),
    ("answering", seccomp::ANSWERING, "P3"),
    ("starting", seccomp::STARTING, "P3"),
    ("watching", WATCHING, "P11"),
    ("watching as a user", WATCHING_AS_USER, "P11"),
];

fn main() {
    requirement::main(|workshop| {
        let mut trials = vec![];
        for (name, table, promise) in TABLES {
            trials.push(proof(promise, format!("every call without a row kills: {name}"), NEEDS, workshop, |_| {
                swept(name, table)
            }));
            trials.push(proof(
                "P3",
                format!("every row, and each pin of it perturbed: {name}"),
                NEEDS,
                workshop,
                |_| rows(name, table),
            ));
        }
        trials.push(proof("P3", "every call, after a whole start each", NEEDS, workshop, swept_by_broker));
        trials.push(proof("P3", "a row that is added is found", NEEDS, workshop, |_| {
            added_row("serving+", seccomp::SERVING)
        }));
        trials.push(proof("P11", "a row that is added for the broker is found", NEEDS, workshop, |_| {
            added_row("watching+", WATCHING)
        }));
        trials.push(proof("P10", "each layer stops what it is there for", LAYERED, workshop, layers));
        trials.push(proof("P9", "nothing is done that a lost worker tries", NEEDS, workshop, attempts));
        trials.push(proof("P9", "a worker that was never confined is found", NEEDS, workshop, attempts_find));
        trials.push(proof("P2", "who is not fit gets nothing", NEEDS, workshop, unfit));
        trials.push(proof("P2", "a broker that hands over before it looks is found", NEEDS, workshop, early));
        trials.push(proof("P16", "each end has its code", NEEDS, workshop, ends));
        trials.push(proof("P16", "a worker has its memory and no more", NEEDS, workshop, memory));
        trials.push(proof("P12", "what is no message ends the worker", NEEDS, workshop, babble));
        trials.push(proof("P12", "a flood of messages ends the mount", NEEDS, workshop, flood));
        trials.push(trial("an evil worker can do what it is told", NEEDS, workshop, tools));
        trials
    })
}

fn number(row: &Row) -> u64 {
    row.call.unsigned_abs()
}

/// Every call through each door; those that lived though no row lets them.
fn escapes(name: &str, table: &[Row]) -> Result<(u64, Vec<String>)> {
    let numbers = (0..=HIGHEST).chain([1 << 31, 0xffff_ffff, 0x7fff_ffff, 0xffff_ffff_0000_0000]);
    let mut cases: Vec<Case> = numbers.map(|number| Case::bare("call", number)).collect();
    if cfg!(target_arch = "x86_64") {
        cases.extend((0..=HIGHEST).map(|number| Case::bare("call", number | X32)));
        cases.extend((0..=HIGHEST).map(|number| Case::bare("interrupt", number)));
        cases.push(Case::bare("page", 0));
    }
    let mut wrong = vec![];
    for (case, end) in cases.iter().zip(sweep(name, &cases)?) {
        // The kernel takes the lower half for the number.
        let number = case.number & 0xffff_ffff;
        let row = row_for(table, number, &case.arguments).filter(|_| case.door == "call");
        let right = match (row, end) {
            _ if case.door == "call" && PASSED_BY_DESIGN.contains(&number) => end != Swept::Exit(exit::REFUSED),
            (None, Swept::KILLED) => true,
            // A kernel without the door has nothing behind it.
            (None, Swept::Signal(signal)) => case.door != "call" && signal == libc::SIGSEGV,
            (None, Swept::Exit(_)) => false,
            (Some(_), Swept::KILLED | Swept::Exit(exit::REFUSED)) => false,
            (Some(_), _) => true,
        };
        if !right {
            wrong.push(format!("{case:?} ended by {end:?}, its row: {row:?}"));
        }
    }
    Ok((cases.len() as u64, wrong))
}

fn swept(name: &str, table: &[Row]) -> Result<Figures> {
    let (tried, wrong) = escapes(name, table)?;
    let allowed = if name == "watching" { vec![("calls allowed", table.len() as u64)] } else { vec![] };
    if wrong.is_empty() {
        return Ok([vec![("calls tried", tried), ("escapes", 0)], allowed].concat());
    }
    Err(wrong.join("\n").into())
}

/// A filter with a row that the table has not must be told from one without.
fn added_row(name: &str, table: &[Row]) -> Result<Figures> {
    let (_, wrong) = escapes(name, table)?;
    assert_eq!(wrong.len(), 1, "one row was added: {wrong:#?}");
    assert!(wrong[0].contains(&format!("number: {},", libc::SYS_getpid)), "{wrong:?}");
    Ok(vec![("sabotages found", 1)])
}

fn rows(name: &str, table: &[Row]) -> Result<Figures> {
    let mut cases = vec![];
    for row in table {
        let (right, wrong) = perturbed(row);
        let case = |arguments| Case { door: "call", number: number(row), arguments };
        cases.extend(right.into_iter().map(|arguments| (case(arguments), row.name, true)));
        if row.answer == seccomp::Answer::Allow {
            cases.extend(wrong.into_iter().map(|arguments| (case(arguments), row.name, false)));
        }
    }
    let bare: Vec<Case> = cases.iter().map(|(case, ..)| *case).collect();
    let mut wrong = vec![];
    for ((case, row, right), end) in cases.iter().zip(sweep(name, &bare)?) {
        if (end == Swept::KILLED) == *right || end == Swept::Exit(exit::REFUSED) {
            wrong.push(format!("{row}: {case:?} ended by {end:?}"));
        }
    }
    let pins = cases.iter().filter(|(.., right)| !right).count() as u64;
    if wrong.is_empty() { Ok(vec![("pins perturbed", pins)]) } else { Err(wrong.join("\n").into()) }
}

fn swept_by_broker(workshop: &Workshop) -> Result<Figures> {
    let quarters = Quarters::new(&workshop.directory("swept")?, weakness::NONE)?;
    let numbers: Vec<u64> = (0..=HIGHEST_BY_BROKER).collect();
    let ends = each(&numbers, |&number| quarters.mount(Instruction::new(Act::Call, &[number])))?;
    let mut wrong = vec![];
    for (&number, end) in numbers.iter().zip(&ends) {
        let allowed = row_for(seccomp::SERVING, number, &[0; 6]).is_some() || PASSED_BY_DESIGN.contains(&number);
        if (*end == End::Killed) == allowed || matches!(end, End::Unfit(_)) {
            wrong.push(format!("call {number}: {end:?}"));
        }
    }
    quarters.empty()?;
    if wrong.is_empty() {
        return Ok(vec![("calls tried", numbers.len() as u64), ("escapes", 0)]);
    }
    Err(wrong.join("\n").into())
}

/// What came of an attempt, as the table of layers has it.
fn cell(end: &End) -> Result<&'static str> {
    match end {
        End::Killed => Ok("killed"),
        End::Fault | End::Told(Evidence::Denied(_)) => Ok("denied"),
        End::Told(Evidence::Done(_)) => Ok("DONE"),
        // It has become another program, which ended well.
        End::Other(said) if said.contains("before it was told to") => Ok("DONE"),
        other => Err(format!("{other:?}").into()),
    }
}

/// Every attempt by a fresh worker with this weakness: one column of the table.
fn column(place: &Path, weakness: u16, namespaces: bool) -> Result<Vec<&'static str>> {
    let mut quarters = Quarters::new(place, weakness)?;
    quarters.namespaces = namespaces;
    let numbers: Vec<u64> = (0..PROBES.len() as u64).collect();
    let cells = each(&numbers, |&number| {
        let end = quarters.mount(Instruction::new(Act::Probe, &[number]))?;
        cell(&end).map_err(|error| format!("{}: {error}", PROBES[number as usize].0).into())
    })?;
    quarters.empty()?;
    Ok(cells)
}

/// The columns of the table: a name, what the worker leaves out, and whether the host gives namespaces.
const COLUMNS: &[(&str, u16, bool)] = &[
    ("as shipped", weakness::NONE, true),
    ("no Landlock", weakness::NO_LANDLOCK, true),
    ("no namespaces", weakness::NONE, false),
    ("no seccomp", weakness::NO_SECCOMP, true),
    ("nor limits", weakness::NO_SECCOMP | weakness::NO_LIMITS, true),
    ("nor limits, Landlock", weakness::NO_SECCOMP | weakness::NO_LIMITS | weakness::NO_LANDLOCK, true),
    ("nor limits, namespaces", weakness::NO_SECCOMP | weakness::NO_LIMITS, false),
    ("nor any of them", weakness::NO_SECCOMP | weakness::NO_LIMITS | weakness::NO_LANDLOCK, false),
];

/// What a host may refuse to everybody, by its settings.
const UP_TO_THE_HOST: &[&str] = &[
    "a process in a new user namespace",
    "a new user namespace",
    "io_uring",
    "ask for a key",
    "add a key",
    "userfaultfd",
    "perf",
    "messages of POSIX",
    "a secret file in memory",
    // By its mode: udev opens it to everybody.
    "open /dev/fuse again",
];

/// Whether a row of the page is what was seen. A host may refuse more by its settings, and never less.
fn agrees(row: &str, seen: &str) -> bool {
    let (mut row, mut seen) = (row.split(" | "), seen.split(" | "));
    let name = row.next().unwrap_or_default();
    let lenient = UP_TO_THE_HOST.iter().any(|one| name.strip_prefix("| ") == Some(one));
    let fits =
        |(row, seen): (&str, &str)| row == seen || lenient && row.starts_with("DONE") && seen.starts_with("denied");
    seen.next() == Some(name) && row.clone().count() == seen.clone().count() && row.zip(seen).all(fits)
}

/// The table in `tests/layers.md` is what is seen: a lost layer shows although another still holds.
fn layers(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("layers")?;
    let mut columns = vec![];
    for (name, weakness, namespaces) in COLUMNS {
        let column = column(&place.join(name.replace(' ', "-")), *weakness, *namespaces);
        columns.push(column.map_err(|error| format!("{name}: {error}"))?);
    }
    let table = table_of(&columns);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("layers.md");
    let page = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let other = |table: &str| -> Vec<String> {
        table.lines().filter(|line| !page.lines().any(|row| agrees(row, line))).map(str::to_owned).collect()
    };
    let differs = other(&table);
    if !differs.is_empty() || page.lines().filter(|line| line.starts_with('|')).count() != table.lines().count() {
        let differs = differs.join("\n");
        return Err(format!("tests/layers.md is not what is seen:\n{differs}\n\nthe table:\n{table}").into());
    }
    // Each layer, and both together, stop what the others do not; and where one is lost the page is not what is seen.
    let losses = [(0, 3), (3, 4), (4, 5), (4, 6), (5, 7), (6, 7)];
    for (with, without) in losses {
        let lost =
            columns[with].iter().zip(&columns[without]).any(|(with, without)| with != without && *without == "DONE");
        assert!(lost, "between {} and {} nothing is lost", COLUMNS[with].0, COLUMNS[without].0);
        let mut weakened = columns.clone();
        weakened[with] = columns[without].clone();
        assert!(!other(&table_of(&weakened)).is_empty(), "{} may lose a layer unseen", COLUMNS[with].0);
    }
    let stopped = columns[3].iter().filter(|cell| **cell != "DONE").count() as u64;
    let counted = [("attempts", PROBES.len() as u64), ("stopped without seccomp", stopped)];
    Ok(counted.into_iter().chain([("sabotages found", losses.len() as u64)]).collect())
}

fn table_of(columns: &[Vec<&str>]) -> String {
    let mut table =
        format!("| attempt | {} |\n", COLUMNS.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(" | "));
    table.push_str(&format!("|---|{}\n", "---|".repeat(COLUMNS.len())));
    for (number, (name, _)) in PROBES.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column[number]).collect();
        table.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    table
}

/// Attempts that a worker with this weakness gets through, by the names.
fn done(place: &Path, weakness: u16) -> Result<Vec<&'static str>> {
    let column = column(place, weakness, true)?;
    Ok(PROBES.iter().zip(column).filter(|(_, cell)| *cell == "DONE").map(|((name, _), _)| *name).collect())
}

fn attempts(workshop: &Workshop) -> Result<Figures> {
    let done = done(&workshop.directory("attempts")?, weakness::NONE)?;
    assert!(done.is_empty(), "done: {done:?}");
    Ok(vec![("attempts", PROBES.len() as u64), ("escapes", 0)])
}

/// What the last test counts is there to be counted.
fn attempts_find(workshop: &Workshop) -> Result<Figures> {
    let weakness = weakness::NO_SECCOMP | weakness::NO_LANDLOCK | weakness::NO_LIMITS;
    let done = done(&workshop.directory("attempts-find")?, weakness)?;
    for name in ["a process", "a thread", "a socket of the Internet", "a file in memory", "map memory executable"] {
        assert!(done.contains(&name), "{name} is not found among {done:?}");
    }
    Ok(vec![("sabotages found", 1)])
}

/// What is wrong with a worker, and what the broker says of it.
const UNFIT: &[(u16, &str)] = &[
    (weakness::NOTHING, "Seccomp"),
    (weakness::NO_FILTER, "Seccomp"),
    (weakness::EXTRA_FD, "file descriptors"),
    (weakness::ONE_FILTER, "a seccomp filter is missing"),
    (weakness::KEEPS_DEVICE, "file descriptors"),
];

fn unfit(workshop: &Workshop) -> Result<Figures> {
    for (weakness, words) in UNFIT {
        let quarters = Quarters::new(&workshop.directory(&format!("unfit-{weakness}"))?, *weakness)?;
        match quarters.mount(Instruction::new(Act::Serve, &[0]))? {
            End::Unfit(said) if said.contains(words) => {}
            other => return Err(format!("weakness {weakness}: {words} is wanted, not {other:?}").into()),
        }
        quarters.empty()?;
    }
    Ok(vec![("unfit workers refused", UNFIT.len() as u64)])
}

/// A broker that does not look hands over to a worker that did nothing, and that worker can tell.
fn early(workshop: &Workshop) -> Result<Figures> {
    let quarters = Quarters::new(&workshop.directory("early")?, weakness::NOTHING)?;
    std::fs::copy(quarters.broker.with_file_name("lazaret-worker"), &quarters.broker)?;
    let end = quarters.mount(Instruction::new(Act::Serve, &[0]))?;
    assert_eq!(end, End::Told(Evidence::Done(1)), "the worker got no order from a broker that gives it one");
    quarters.empty()?;
    Ok(vec![("sabotages found", 1)])
}

/// How a worker ends that does this, as its exit code.
const ENDS: &[(Act, u64, &str)] = &[
    (Act::Overflow, 0, "out of stack, or of its memory"),
    (Act::Touch, 16, "out of stack, or of its memory"),
    (Act::Allocate, 0, "its memory= was used up"),
    (Act::Panic, 0, "a bug of its own (line "),
];

fn ends(workshop: &Workshop) -> Result<Figures> {
    let quarters = Quarters::new(&workshop.directory("ends")?, weakness::NONE)?;
    for (act, number, words) in ENDS {
        let finished = quarters.mount_with(Instruction::new(*act, &[*number]), "timeout=5")?;
        let good =
            finished.code() == Some(32) && finished.stderr.contains(words) && finished.stderr.lines().count() == 1;
        if !good || finished.stderr.contains("seccomp") {
            return Err(format!("{act:?} is to end with {words:?}: {finished:?}").into());
        }
    }
    quarters.empty()?;
    Ok(vec![("documented ends", ENDS.len() as u64)])
}

fn memory(workshop: &Workshop) -> Result<Figures> {
    let quarters = Quarters::new(&workshop.directory("memory")?, weakness::NONE)?;
    for mebibytes in [16_u32, 64] {
        let finished =
            quarters.mount_with(Instruction::new(Act::UseAllMemory, &[]), &format!("timeout=5,memory={mebibytes}M"))?;
        let had = match Evidence::read(&finished.stderr) {
            Some(Evidence::Done(pieces)) => pieces / 16,
            other => return Err(format!("{other:?}: {finished:?}").into()),
        };
        assert!(had <= mebibytes + 1 && had + 6 > mebibytes, "{had} MiB of {mebibytes} were had");
    }
    quarters.empty()?;
    Ok(vec![])
}

/// Packets that are no report, at the moment when the broker waits for one.
fn babble(workshop: &Workshop) -> Result<Figures> {
    let quarters = Quarters::new(&workshop.directory("babble")?, weakness::NONE)?;
    let lengths = [1_u64, 2, 3, 64, 255, 256, 257, 4096, 60_000];
    let all: Vec<(u64, u64)> =
        lengths.iter().flat_map(|&length| [0, 1, 3, 5, 6, 0x7f, 0x80, 0xff].map(|value| (length, value))).collect();
    let ends = each(&all, |&(length, value)| {
        quarters.mount_with(Instruction::new(Act::Babble, &[length, value]), "timeout=5")
    })?;
    for (told, finished) in all.iter().zip(&ends) {
        // A packet of small numbers may be a report; it is one out of its turn then, or tells of a bug.
        let words = ["the worker cannot be understood", "its file descriptor", "(line 5, column 5)"];
        let refused = finished.code().is_some_and(|code| code != 0) && finished.stderr.lines().count() == 1;
        if !refused || !words.iter().any(|words| finished.stderr.contains(words)) {
            return Err(format!("{told:?}: {finished:?}").into());
        }
    }
    quarters.empty()?;
    Ok(vec![("malformed messages refused", all.len() as u64)])
}

/// More reports than anybody needs: the first makes the mount, the next is out of its turn and ends it.
fn flood(workshop: &Workshop) -> Result<Figures> {
    let quarters = Quarters::new(&workshop.directory("flood")?, weakness::NONE)?;
    let finished = quarters.mount_with(Instruction::new(Act::Flood, &[]), "timeout=5")?;
    let said = finished.stderr.contains("the worker said what it may not say while it serves, and was ended");
    assert!(finished.code() == Some(32) && said && finished.took < Duration::from_secs(3), "{finished:?}");
    quarters.empty()?;
    Ok(vec![])
}

/// Without this the tests above could pass by a worker that does nothing.
fn tools(workshop: &Workshop) -> Result {
    let quarters = Quarters::new(&workshop.directory("tools")?, weakness::NONE)?;
    assert_eq!(quarters.mount(Instruction::new(Act::Nothing, &[]))?, End::Told(Evidence::Done(0)));
    let wake = Instruction::new(Act::Call, &[libc::SYS_futex as u64, 0, 129, 1]);
    assert!(matches!(quarters.mount(wake)?, End::Told(_)), "an allowed call does not come back");
    let names: BTreeMap<&str, usize> = PROBES.iter().enumerate().map(|(number, (name, _))| (*name, number)).collect();
    assert_eq!(names.len(), PROBES.len(), "two attempts of one name");
    for shipped in ["lazaret", "lazaret-worker"] {
        let bytes = std::fs::read(lazaret::worker().with_file_name(shipped))?;
        let marked = bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes());
        assert!(!marked, "{shipped} can be made evil");
    }
    assert!(UP_TO_THE_HOST.iter().all(|name| names.contains_key(name)), "an attempt that is not made");
    assert!(agrees("| perf | killed | DONE |", "| perf | killed | denied |"), "a host may refuse more");
    assert!(!agrees("| perf | killed | denied |", "| perf | killed | DONE |"), "a layer that is lost is not seen");
    assert!(!agrees("| a pipe | killed | DONE |", "| a pipe | killed | denied |"));
    quarters.empty()
}
