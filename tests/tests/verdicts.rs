//! The verdict of `lazaret check` is that of `e2fsck -fn`: on small images of every feature, and on many with one field
//! changed.
//!
//! `LAZARET_VERDICTS_COUNT` says how many, `LAZARET_VERDICTS_SEED` with which to begin; `make verdicts` sets both. What is
//! judged in two ways is named by its number, which makes the same image again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use lazaret_tests::Result;
use lazaret_tests::verdicts::oracle::Oracle;
use lazaret_tests::verdicts::{self, Base, Verdict};

/// Mutants in the gate.
const FEW: u64 = 2000;

/// Made once for all tests.
fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(|| verdicts::bases().unwrap_or_else(|error| panic!("{error}")))
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What e2fsck says where it leaves the first superblock and its descriptors alone and takes the next.
const COPIES: &str = "trying backup blocks";

/// What e2fsck does not look at, and a kernel refuses the file for.
const STRICTER: &str = "ExtentDepth extent node";

/// What e2fsck says where it tries to write, which `-n` forbids, and loses the block that it wanted to read instead: where
/// a journal keeps an error, for one.
const LOST: &str = "Error writing block";

/// What all threads have seen.
#[derive(Default)]
struct Tally {
    next: AtomicU64,
    copies: AtomicU64,
    stricter: AtomicU64,
    verdicts: Mutex<BTreeMap<Verdict, u64>>,
    /// By what was changed.
    different: Mutex<BTreeMap<String, Vec<String>>>,
    /// e2fsck gave up over what we call damage: its code is 8, or 12.
    given_up: AtomicU64,
    /// e2fsck came to no end of its own.
    unjudged: Mutex<Vec<String>>,
}

#[test]
fn one_field_changed_is_judged_as_e2fsck_judges_it() -> Result {
    let bases = bases();
    let (first, count) = (number("LAZARET_VERDICTS_SEED", 0), number("LAZARET_VERDICTS_COUNT", FEW));
    let (tally, begin) = (Tally { next: AtomicU64::new(first), ..Tally::default() }, Instant::now());
    let place = tempfile::Builder::new().prefix("lazaret-tests-").tempdir()?;
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4));
        let work =
            |index: usize| compare(bases, &tally, first + count, Oracle::new(place.path().join(index.to_string()))?);
        let workers: Vec<_> = (0..threads).map(|index| scope.spawn(move || work(index))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    let different = tally.different.into_inner().unwrap();
    let verdicts = tally.verdicts.into_inner().unwrap();
    let all: usize = different.values().map(Vec::len).sum();
    let given_up = tally.given_up.load(Ordering::Relaxed);
    let unjudged = tally.unjudged.into_inner().unwrap();
    println!(
        "{count} mutants of {} images in {:.0?}: {:?}; {all} judged in two ways; e2fsck gave up over damage in {given_up}, \
         judged copies in {}, does not look at a node's depth in {}, and came to no end in {}",
        bases.len(),
        begin.elapsed(),
        verdicts,
        tally.copies.load(Ordering::Relaxed),
        tally.stricter.load(Ordering::Relaxed),
        unjudged.len(),
    );
    unjudged.iter().for_each(|line| println!("not judged: {line}"));
    let lines: Vec<String> =
        different.iter().map(|(spot, lines)| format!("{spot}: {}\n{}", lines.len(), lines.join("\n"))).collect();
    let each = |verdict| verdicts.get(&verdict).copied().unwrap_or(0);
    let fewest = each(Verdict::Sound).min(each(Verdict::Damaged));
    assert!(count < 1000 || fewest > count / 10, "{fewest} of {count}: the changes show next to nothing");
    assert!(all == 0, "{all} judged in two ways:\n{}", lines.join("\n"));
    Ok(())
}

fn compare(bases: &[Base], tally: &Tally, end: u64, mut oracle: Oracle) -> Result {
    loop {
        let number = tally.next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return Ok(());
        }
        let mutant = verdicts::mutant(bases, number);
        let (theirs, words) = oracle.judge(&mutant.bytes)?;
        let what = format!("  {number} ({}): {}", mutant.base.name, mutant.change);
        let Some(theirs) = theirs else {
            tally.unjudged.lock().unwrap().push(format!("{what}: {words}"));
            continue;
        };
        *tally.verdicts.lock().unwrap().entry(theirs).or_default() += 1;
        let spot = mutant.spot;
        let (ours, broken) = verdicts::ours(mutant.bytes)?;
        if ours != theirs && words.contains(LOST) {
            tally.unjudged.lock().unwrap().push(format!("{what}: {LOST}"));
        } else if (ours, theirs) == (Verdict::Damaged, Verdict::Unreadable) {
            tally.given_up.fetch_add(1, Ordering::Relaxed);
        } else if theirs == Verdict::Sound && broken.first().is_some_and(|rule| rule.starts_with(STRICTER)) {
            tally.stricter.fetch_add(1, Ordering::Relaxed);
        } else if ours != theirs && ours != Verdict::Sound && words.contains(COPIES) {
            // What it says is of other descriptors, or of another superblock, than those that a mount reads.
            tally.copies.fetch_add(1, Ordering::Relaxed);
        } else if ours != theirs {
            let line = format!("{what}: we {ours:?} {broken:?}, e2fsck {theirs:?} {}", shown(&words));
            tally
                .different
                .lock()
                .unwrap()
                .entry(format!("{spot}: we {ours:?}, e2fsck {theirs:?}"))
                .or_default()
                .push(line);
        }
    }
}

/// What e2fsck says of problems, without its headings.
fn shown(words: &str) -> String {
    let heading = |line: &&str| !line.starts_with("Pass ") && !line.is_empty();
    words.lines().filter(heading).take(8).collect::<Vec<_>>().join(" | ")
}

#[test]
fn the_images_that_are_changed_are_sound() -> Result {
    let place = tempfile::Builder::new().prefix("lazaret-tests-").tempdir()?;
    let mut oracle = Oracle::new(place.path().join("image"))?;
    let mut wrong = Vec::new();
    for base in bases() {
        let (theirs, words) = oracle.judge(&base.bytes)?;
        let (ours, broken) = verdicts::ours(base.bytes.clone())?;
        if (theirs, ours) != (Some(Verdict::Sound), Verdict::Sound) {
            wrong.push(format!("{}: we {ours:?} {broken:?}, e2fsck {theirs:?} {}", base.name, shown(&words)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
