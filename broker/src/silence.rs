//! Whether a worker has gone silent: requests wait, and it, or one of its threads, gets no further.
//!
//! What holds here: everything is read from `/proc` and nothing is asked of the worker. A thread whose medium has stalled,
//! or that computes without end, is silent even where others go on: its client waits all the same.

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest time between two looks at the connection.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// One thread of a worker, as it is seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    number: u32,
    /// Grows while it works: its system calls, and how often it has slept and was woken.
    done: u64,
    /// It is at something, and does not wait for a request or for another thread.
    busy: bool,
}

/// How long requests have waited while there was no progress.
#[derive(Debug)]
pub(crate) struct Silence {
    timeout: Duration,
    /// What all threads had done, and since when that is all.
    all: Option<(Instant, u64)>,
    /// The same for each busy thread.
    each: BTreeMap<u32, (Instant, u64)>,
}

impl Silence {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, all: None, each: BTreeMap::new() }
    }

    /// When to look again; `None` if silence does not matter. No later than the silence that has begun is too long.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let look = (self.timeout / 8).clamp(Duration::from_millis(250), LOOK);
        let begun = self.each.values().chain(&self.all).map(|(since, _)| *since).min();
        let rest = begun.map_or(look, |since| self.timeout.saturating_sub(since.elapsed()));
        (!self.timeout.is_zero()).then(|| look.min(rest))
    }

    /// Whether it has lasted too long, by what is seen now.
    pub(crate) fn lasts(&mut self, waiting: Option<u64>, threads: impl Fn() -> Option<Vec<Thread>>) -> bool {
        let threads = if waiting.is_some_and(|waiting| waiting > 0) { threads() } else { None };
        let Some(threads) = threads.filter(|_| !self.timeout.is_zero()) else {
            self.all = None;
            self.each.clear();
            return false;
        };
        let now = Instant::now();
        let begun = |before: Option<(Instant, u64)>, done| match before {
            Some((since, before)) if before == done => (since, done),
            _ => (now, done),
        };
        self.all = Some(begun(self.all, threads.iter().fold(0, |sum: u64, thread| sum.wrapping_add(thread.done))));
        let busy = threads.iter().filter(|thread| thread.busy);
        self.each =
            busy.map(|thread| (thread.number, begun(self.each.get(&thread.number).copied(), thread.done))).collect();
        self.each.values().chain(&self.all).any(|(since, _)| now.duration_since(*since) >= self.timeout)
    }
}

/// The threads of a worker; none if it has ended.
///
/// The directory is not listed by libc: which calls that makes depends on its version, and the filter is the same for all.
pub(crate) fn threads(pid: Pid) -> Option<Vec<Thread>> {
    let tasks = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let directory = openat(CWD, &tasks, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut all = vec![];
    while let Some(entry) = entries.next() {
        if let Some(number) = entry.ok()?.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            all.push(thread(number, &tasks.join(format!("{number}")))?);
        }
    }
    Some(all)
}

fn thread(number: u32, place: &Path) -> Option<Thread> {
    let status = std::fs::read_to_string(place.join("status")).ok()?;
    let state = status.lines().find_map(|line| line.strip_prefix("State:"))?.trim_start().bytes().next()?;
    // Only root may see the calls of such a process. Without them a thread that never has to sleep looks like one that
    // computes; what stands in the kernel can be told from both.
    let calls = std::fs::read_to_string(place.join("io")).ok();
    let busy = state == b'D' || state == b'R' && calls.is_some();
    let calls = sum_of(&calls.unwrap_or_default(), &["syscr:", "syscw:"]);
    Some(Thread { number, done: calls.wrapping_add(sum_of(&status, &["voluntary_ctxt_switches:"])), busy })
}

fn sum_of(text: &str, names: &[&str]) -> u64 {
    let values = text.lines().filter_map(|line| names.iter().find_map(|name| line.strip_prefix(name)));
    values.filter_map(|value| value.trim().parse::<u64>().ok()).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A first thread that is idle, and a second one.
    fn seen(done: u64, second: u64, busy: bool) -> impl Fn() -> Option<Vec<Thread>> {
        move || Some(vec![Thread { number: 1, done, busy: false }, Thread { number: 2, done: second, busy }])
    }

    fn after_a_while() {
        std::thread::sleep(Duration::from_millis(2));
    }

    #[test]
    fn silence_is_waiting_without_progress() {
        let mut silence = Silence::new(Duration::from_millis(1));
        assert!(!silence.lasts(Some(1), seen(7, 1, false)), "seen for the first time");
        after_a_while();
        assert!(silence.lasts(Some(1), seen(7, 1, false)));
        assert!(!silence.lasts(Some(1), seen(8, 1, false)), "it works");
        after_a_while();
        assert!(!silence.lasts(Some(0), seen(8, 1, false)), "nobody waits");
        assert!(!silence.lasts(Some(1), seen(8, 1, false)), "counted anew");
        after_a_while();
        assert!(!silence.lasts(None, seen(8, 1, false)), "not to be seen");
    }

    #[test]
    fn a_thread_that_stands_still_is_silent_whatever_the_others_do() {
        let mut silence = Silence::new(Duration::from_millis(1));
        assert!(!silence.lasts(Some(1), seen(7, 1, true)));
        after_a_while();
        assert!(!silence.lasts(Some(1), seen(8, 2, true)), "both work");
        after_a_while();
        assert!(silence.lasts(Some(1), seen(9, 2, true)), "the second stands still");
        after_a_while();
        assert!(!silence.lasts(Some(1), seen(10, 2, false)), "it waits for work");
        after_a_while();
        assert!(!silence.lasts(Some(1), seen(11, 2, true)), "counted anew");
    }

    #[test]
    fn silence_is_seen_a_second_after_it_began_and_as_soon_as_it_is_too_long() {
        let mut silence = Silence::new(Duration::from_secs(60));
        assert_eq!(silence.tick(), Some(LOOK));
        silence.all = Some((Instant::now(), 8));
        silence.each.insert(2, (Instant::now() - Duration::from_millis(59_900), 1));
        assert!(silence.tick().unwrap() <= Duration::from_millis(100));
        silence.all = Some((Instant::now() - Duration::from_secs(60), 8));
        assert_eq!(silence.tick(), Some(Duration::ZERO));
        assert!(silence.lasts(Some(1), seen(7, 1, false)));
    }

    #[test]
    fn without_a_timeout_silence_never_lasts() {
        let mut silence = Silence::new(Duration::ZERO);
        assert!(silence.tick().is_none());
        assert!(!silence.lasts(Some(1), seen(7, 1, true)));
        assert!(!silence.lasts(Some(1), seen(7, 1, true)));
    }

    #[test]
    fn this_process_makes_progress() {
        let own = rustix::process::getpid();
        let sum = || threads(own).unwrap().iter().map(|thread| thread.done).sum::<u64>();
        let before = sum();
        std::thread::sleep(Duration::from_millis(5));
        assert!(before > 0 && sum() > before, "at least this thread has slept");
    }
}
