//! The targets of the fuzzers, over the inputs that are kept and some new ones: a short form of `make fuzz`, with any
//! compiler, so that no target rots and nothing that was found comes back.
//!
//! `LAZARET_FUZZ_MUTATIONS` says how many new inputs each target is given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lazaret_tests::fuzz::corpus;
use lazaret_tests::fuzz::target::{Target, targets};
use lazaret_tests::heap::Counted;

#[global_allocator]
static HEAP: Counted = Counted;

/// New inputs of a target, if they take no longer than this in all.
const MUTATIONS: u64 = 400;
const ENOUGH: Duration = Duration::from_secs(10);
/// Bytes of an input.
const MOST: usize = 40_000;

/// Who is measured by what the whole process does.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs an input, and says what was wrong.
fn run(target: &Target, input: &[u8], name: &str, wrong: &mut Vec<String>) {
    if catch_unwind(AssertUnwindSafe(|| target.run(input))).is_err() {
        let bytes: String = input.iter().take(400).map(|byte| format!("{byte:02x}")).collect();
        wrong.push(format!("{}: {name}: {bytes}", target.name));
    }
}

#[test]
fn every_target_runs_what_is_kept_and_some_new_inputs() {
    let mutations = std::env::var("LAZARET_FUZZ_MUTATIONS").map_or(MUTATIONS, |count| count.parse().expect("a number"));
    // Those whose work is done in other threads run alone: whose it is, the process does not say.
    let (alone, targets): (Vec<&Target>, Vec<&Target>) = targets().partition(|target| target.threads);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4)) {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let found = one(target, mutations);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    wrong.extend(alone.into_iter().flat_map(|target| one(target, mutations)));
    assert!(wrong.is_empty(), "{} inputs:\n{}", wrong.len(), wrong.join("\n"));
}

fn one(target: &Target, mutations: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, input) in corpus::folder(&corpus::regressions().join(target.name)).unwrap() {
        run(target, &input, &file.display().to_string(), &mut wrong);
    }
    let mut inputs = target.seeds();
    assert!(!inputs.is_empty(), "{}: no first inputs", target.name);
    inputs.extend(corpus::read(&corpus::committed().join(target.name)).unwrap());
    for (number, input) in inputs.iter().enumerate() {
        run(target, input, &format!("kept input {number}"), &mut wrong);
    }
    let begin = Instant::now();
    for seed in (0..mutations).take_while(|_| begin.elapsed() < ENOUGH) {
        let mut input = inputs[seed as usize % inputs.len()].clone();
        for step in 0..3 {
            input = target.mutate(&input, MOST, seed * 3 + step);
        }
        run(target, &input, &format!("mutation {seed}"), &mut wrong);
    }
    wrong
}

/// A target that is told of nothing has nothing to say: each is shown an input that it does not pass.
#[test]
fn what_takes_too_much_or_answers_wrongly_is_found() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let eats = Target::for_tests("eats", false, |_| drop(vec![1_u8; 100 << 20]));
    let elsewhere = Target::for_tests("elsewhere", true, |_| {
        std::thread::scope(|scope| drop(scope.spawn(|| drop(vec![1_u8; 100 << 20]))));
    });
    let lasts = Target::for_tests("lasts", false, |_| {
        let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
        let begin = used();
        while used() < begin + 5 {
            std::hint::spin_loop();
        }
    });
    let panics = Target::for_tests("panics", false, |input| assert!(input.is_empty(), "as planned"));
    let mut wrong = Vec::new();
    run(&eats, b"", "memory", &mut wrong);
    run(&elsewhere, b"", "memory of another thread", &mut wrong);
    run(&lasts, b"", "time", &mut wrong);
    run(&panics, b"x", "a panic", &mut wrong);
    run(&panics, b"", "nothing", &mut wrong);
    assert_eq!(
        wrong,
        ["eats: memory: ", "elsewhere: memory of another thread: ", "lasts: time: ", "panics: a panic: 78"]
    );
}
