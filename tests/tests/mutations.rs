//! Images that were changed on purpose, walked whole in this process: no panic, nothing that takes long, no memory that
//! the image chooses.
//!
//! `LAZARET_MUTATE_COUNT` says how many, `LAZARET_MUTATE_SEED` with which to begin; `make mutate` sets both. What fails
//! is named by its number, which makes the same image again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lazaret_policy::message::{Checksum, Verity};
use lazaret_tests::heap::{Counted, most_held};
use lazaret_tests::mutate::mutant;
use lazaret_tests::mutate::seeds::{self, Seed};
use lazaret_tests::walk::{Cost, Rules, walk};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::{Filesystem, Settings};

#[global_allocator]
static HEAP: Counted = Counted;

/// Mutants in the gate.
const FEW: u64 = 10_000;
/// CPU time that an image may take: that of many requests.
const LONGEST: Duration = Duration::from_secs(2);
/// Bytes that an image may take besides its own.
const MOST: usize = 64 << 20;
/// Rules that a run of the gate tells at least, so that it cannot become one that reaches nothing.
const RULES: u32 = 80;
/// Without an end in this time a walk hangs. Wall time, so that a busy machine is given much.
const HANGS: Duration = Duration::from_secs(300);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What all threads have seen.
#[derive(Default)]
struct Tally {
    next: AtomicU64,
    opened: AtomicU64,
    objects: AtomicU64,
    errors: AtomicU64,
    slowest: Mutex<(Duration, u64, Cost)>,
    largest: Mutex<(usize, u64)>,
    rules: Mutex<Rules>,
    wrong: Mutex<Vec<String>>,
}

#[test]
fn mutated_images_are_walked_in_bounded_time_and_memory() {
    let seeds = seeds::all().unwrap();
    let (first, count) = (number("LAZARET_MUTATE_SEED", 0), number("LAZARET_MUTATE_COUNT", FEW));
    let tally = Tally { next: AtomicU64::new(first), ..Tally::default() };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4));
        for _ in 0..threads {
            scope.spawn(|| work(&seeds, &tally, first + count));
        }
    });
    let (slowest, largest) = (*tally.slowest.lock().unwrap(), *tally.largest.lock().unwrap());
    let rules = tally.rules.lock().unwrap().count();
    println!(
        "{count} mutants of {} images in {:.0?}: {} opened, {} objects, {} errors, {rules} rules told; slowest {slowest:?}; most memory {} KiB \
         in {}",
        seeds.len(),
        begin.elapsed(),
        tally.opened.load(Ordering::Relaxed),
        tally.objects.load(Ordering::Relaxed),
        tally.errors.load(Ordering::Relaxed),
        largest.0 >> 10,
        largest.1,
    );
    let wrong = tally.wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} wrong, to be made again by `make mutate COUNT=1 SEED=…`:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let opened = tally.opened.load(Ordering::Relaxed);
    assert!(count < 1000 || opened > count / 3, "only {opened} of {count} were opened: too little was reached");
    assert!(count < FEW || rules >= RULES, "only {rules} rules were told: too little was reached");
}

/// Walks one after the other, and is watched.
fn work(seeds: &[Seed], tally: &Tally, end: u64) {
    let (at, over) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&at, &over));
        loop {
            let number = tally.next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                break;
            }
            at.store(number, Ordering::Relaxed);
            one(seeds, tally, number);
        }
        over.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
    });
}

/// Ends the process if one image takes for ever, after naming it: there is no other way out of a loop.
fn watch(at: &AtomicU64, over: &AtomicBool) {
    let mut last = (u64::MAX, Instant::now());
    while !over.load(Ordering::Relaxed) {
        let number = at.load(Ordering::Relaxed);
        if number != last.0 {
            last = (number, Instant::now());
        } else if last.1.elapsed() > HANGS {
            eprintln!("mutant {number} hangs: make mutate COUNT=1 SEED={number}");
            std::process::abort();
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

fn one(seeds: &[Seed], tally: &Tally, number: u64) {
    let mutant = mutant(seeds, number);
    let checksum = [Checksum::Strict, Checksum::Warn, Checksum::Ignore][(number / 2 % 3) as usize];
    let checksum = if mutant.sealed { Checksum::Strict } else { checksum };
    let verity = if number.is_multiple_of(3) { Verity::Verify } else { Verity::default() };
    let settings = Settings { checksum, verity, ..Settings::default() };
    let (name, sealed) = (mutant.seed, mutant.sealed);
    let wrong =
        |what: String| tally.wrong.lock().unwrap().push(format!("  {number} ({name}, sealed: {sealed}): {what}"));
    let (result, held) = most_held(|| catch_unwind(AssertUnwindSafe(|| walk(mutant.bytes, settings))));
    let cost = match result {
        Ok(cost) => cost,
        Err(_) => return wrong("a panic".to_owned()),
    };
    if cost.total > LONGEST {
        wrong(format!("{cost:?}"));
    }
    if held > MOST {
        wrong(format!("{} KiB of memory", held >> 10));
    }
    tally.opened.fetch_add(u64::from(cost.opened), Ordering::Relaxed);
    tally.objects.fetch_add(cost.objects.into(), Ordering::Relaxed);
    tally.errors.fetch_add(cost.errors.into(), Ordering::Relaxed);
    tally.rules.lock().unwrap().join(cost.rules);
    let mut slowest = tally.slowest.lock().unwrap();
    if cost.total > slowest.0 {
        *slowest = (cost.total, number, cost);
    }
    let mut largest = tally.largest.lock().unwrap();
    if held > largest.0 {
        *largest = (held, number);
    }
}

#[test]
fn the_images_that_are_mutated_are_sound_and_the_same_number_gives_the_same_mutant() {
    let seeds = seeds::all().unwrap();
    for seed in &seeds {
        let refusal = Filesystem::open(Device::from_bytes(seed.bytes.clone()), Settings::default()).err();
        assert_eq!(refusal, None, "{}", seed.name);
        let cost = walk(seed.bytes.clone(), Settings { checksum: Checksum::Warn, ..Settings::default() });
        assert!(cost.opened && cost.objects > 5, "{}: {cost:?}", seed.name);
        assert_eq!(cost.failures, 0, "{}: the checksums are right", seed.name);
        assert_eq!(cost.replayed.0 > 0, seed.name.contains("journal") || seed.name == "fast-commit", "{}", seed.name);
        assert_eq!(cost.replayed.1 > 0, seed.name == "fast-commit", "{}: {cost:?}", seed.name);
    }
    for number in 0..50 {
        let (one, other) = (mutant(&seeds, number), mutant(&seeds, number));
        assert!(one.bytes == other.bytes && one.sealed == other.sealed);
    }
    let changed = (0..200).filter(|&number| {
        let mutant = mutant(&seeds, number);
        seeds.iter().all(|seed| seed.bytes != mutant.bytes)
    });
    assert!(changed.count() > 150, "mutants are mutated");
}

/// The heap's count sees what is held, at its most and not at its end, and not what was there before.
#[test]
fn what_is_held_is_counted() {
    let before = vec![1_u8; 1 << 20];
    let (_, held) = most_held(|| {
        let mut grown = vec![1_u8; 3 << 20];
        grown.extend(&before);
        drop(before);
    });
    assert!((4 << 20..16 << 20).contains(&held), "{held}");
    assert!(most_held(|| ()).1 < 4096);
}
