//! After the mount is there: waits for its end, and ends it when the worker goes silent or somebody asks.
//!
//! What holds here: the broker never touches the mount it watches, so whatever the worker does, the broker goes on.
//! First the connection is aborted, then the worker killed, then the mount detached. Clients of a silent worker are
//! freed by the first and cannot be freed otherwise; and the last unmount waits, in the kernel, for a worker that stands
//! within an answer, as one does whose medium has stalled, so it comes after the kill.

use crate::damage::Told;
use crate::exit::Failure;
use crate::mount::Mount;
use crate::signal::{Signals, wait};
use crate::worker::Worker;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::process::Pid;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long requests under way may still be answered when somebody ends the mount.
const GRACE: Duration = Duration::from_millis(500);
/// How long a worker has for its last word once its connection has ended.
const LAST_WORD: Duration = Duration::from_millis(100);
/// The longest time between two looks at the connection.
const LOOK: Duration = Duration::from_secs(1);

/// Watches until the mount has ended, and says what damage is met on it. An error if it ended otherwise than by being
/// unmounted or by a signal.
pub(crate) fn watch(
    mut worker: Worker<'_>,
    mut mount: Mount,
    signals: &Signals,
    timeout: Duration,
    mut told: Told,
) -> Result<(), Failure> {
    let how = until_the_end(&mut worker, &mut mount, signals, timeout, &mut told);
    told.conclude();
    how
}

fn until_the_end(
    worker: &mut Worker<'_>,
    mount: &mut Mount,
    signals: &Signals,
    timeout: Duration,
    told: &mut Told,
) -> Result<(), Failure> {
    let mut silence = Silence::new(timeout);
    loop {
        let tick = mount.connection().is_seen().then(|| silence.tick().unwrap_or(LOOK));
        let [ended, signal, report] = wait([worker.process().as_fd(), signals.as_fd(), worker.channel()], tick);
        if ended {
            let how = worker.reap(told);
            // A worker is done when /dev/fuse tells it that the mount is gone. Where the connection cannot be seen this
            // is the only sign.
            if how.is_ok() && !mount.connection().is_seen() {
                mount.has_ended();
            }
            mount.detach();
            return how;
        }
        if signal {
            await_answers(worker, mount);
            end(worker, mount, told);
            return Ok(());
        }
        if report && worker.hear(told).is_err() && !ends_within(worker, GRACE) {
            end(worker, mount, told);
            return Err(Failure::mount("the worker said what it may not say while it serves, and was ended"));
        }
        if mount.connection().is_gone() && !ends_within(worker, GRACE) {
            end(worker, mount, told);
            return Err(Failure::mount("the worker outlived its mount and was ended"));
        }
        let pid = worker.process().pid();
        if silence.lasts(mount.connection().waiting(), || progress(pid)) {
            end(worker, mount, told);
            return Err(Failure::mount(format!("the worker was silent for {} s and was ended", timeout.as_secs())));
        }
    }
}

/// Lets the worker finish what it is at.
fn await_answers(worker: &Worker<'_>, mount: &Mount) {
    let (start, pause) = (Instant::now(), Duration::from_millis(10));
    while mount.connection().waiting().is_some_and(|waiting| waiting > 0) && start.elapsed() < GRACE {
        if ends_within(worker, pause) {
            return;
        }
    }
}

/// Frees every client, ends the worker and takes the mount away, also where it is in use. A worker that can still speak
/// says its last word when the connection ends, and is gone by itself.
fn end(worker: &mut Worker<'_>, mount: &mut Mount, told: &mut Told) {
    mount.connection().abort();
    if !ends_within(worker, LAST_WORD) {
        worker.process().kill();
    }
    mount.detach();
    let _ = worker.reap(told);
}

fn ends_within(worker: &Worker<'_>, time: Duration) -> bool {
    let [ended] = wait([worker.process().as_fd()], Some(time));
    ended
}

/// How long requests have waited while the worker did nothing.
#[derive(Debug)]
struct Silence {
    timeout: Duration,
    since: Option<(Instant, u64)>,
}

impl Silence {
    fn new(timeout: Duration) -> Self {
        Self { timeout, since: None }
    }

    /// When to look again; `None` if silence does not matter. No later than the silence that has begun is too long.
    fn tick(&self) -> Option<Duration> {
        let look = (self.timeout / 8).clamp(Duration::from_millis(250), LOOK);
        let rest = self.since.map_or(look, |(since, _)| self.timeout.saturating_sub(since.elapsed()));
        (!self.timeout.is_zero()).then(|| look.min(rest))
    }

    /// Whether it has lasted too long, by what is seen now.
    fn lasts(&mut self, waiting: Option<u64>, progress: impl Fn() -> Option<u64>) -> bool {
        let progress = if waiting.is_some_and(|waiting| waiting > 0) { progress() } else { None };
        let Some(progress) = progress.filter(|_| !self.timeout.is_zero()) else {
            self.since = None;
            return false;
        };
        match self.since {
            Some((since, before)) if before == progress => since.elapsed() >= self.timeout,
            _ => {
                self.since = Some((Instant::now(), progress));
                false
            }
        }
    }
}

/// A number that grows while the worker works: its system calls, and how often its threads have slept and were woken.
///
/// A thread that waits for a stalled medium makes none and does not wake, nor does one that computes without end. The
/// directory is not listed by libc: which calls that makes depends on its version, and the filter is the same for all.
fn progress(pid: Pid) -> Option<u64> {
    let place = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let calls = std::fs::read_to_string(place.join("io")).unwrap_or_default();
    let mut sum = sum_of(&calls, &["syscr:", "syscw:"]);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tasks = place.join("task");
    let directory = openat(CWD, &tasks, flags, Mode::empty()).ok()?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry.ok()?.file_name().to_str().ok()?.to_owned();
        if name.starts_with('.') {
            continue;
        }
        let status = std::fs::read_to_string(tasks.join(name).join("status")).ok()?;
        sum = sum.wrapping_add(sum_of(&status, &["voluntary_ctxt_switches:"]));
    }
    Some(sum)
}

fn sum_of(text: &str, names: &[&str]) -> u64 {
    let values = text.lines().filter_map(|line| names.iter().find_map(|name| line.strip_prefix(name)));
    values.filter_map(|value| value.trim().parse::<u64>().ok()).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_waiting_without_progress() {
        let mut silence = Silence::new(Duration::from_millis(1));
        assert!(!silence.lasts(Some(1), || Some(7)), "seen for the first time");
        std::thread::sleep(Duration::from_millis(2));
        assert!(silence.lasts(Some(1), || Some(7)));
        assert!(!silence.lasts(Some(1), || Some(8)), "it works");
        std::thread::sleep(Duration::from_millis(2));
        assert!(!silence.lasts(Some(0), || Some(8)), "nobody waits");
        assert!(!silence.lasts(Some(1), || Some(8)), "counted anew");
        assert!(!silence.lasts(None, || Some(8)), "not to be seen");
    }

    #[test]
    fn silence_is_seen_a_second_after_it_began_and_as_soon_as_it_is_too_long() {
        let mut silence = Silence::new(Duration::from_secs(60));
        assert_eq!(silence.tick(), Some(LOOK));
        silence.since = Some((Instant::now() - Duration::from_millis(59_900), 7));
        assert!(silence.tick().unwrap() <= Duration::from_millis(100));
        silence.since = Some((Instant::now() - Duration::from_secs(60), 7));
        assert_eq!(silence.tick(), Some(Duration::ZERO));
        assert!(silence.lasts(Some(1), || Some(7)));
    }

    #[test]
    fn without_a_timeout_silence_never_lasts() {
        let mut silence = Silence::new(Duration::ZERO);
        assert!(silence.tick().is_none());
        assert!(!silence.lasts(Some(1), || Some(7)));
        assert!(!silence.lasts(Some(1), || Some(7)));
    }

    #[test]
    fn this_process_makes_progress() {
        let own = rustix::process::getpid();
        let before = progress(own).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(progress(own).unwrap() >= before);
    }
}
