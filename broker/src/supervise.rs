//! After the mount is there: waits for its end, and ends it when the worker goes silent, the medium is pulled out or
//! somebody asks.
//!
//! What holds here: the broker never touches the mount it watches, so whatever the worker does, the broker goes on.
//! First the connection is aborted, then the worker killed, then the mount detached. Clients of a silent worker are
//! freed by the first and cannot be freed otherwise; and the last unmount waits, in the kernel, for a worker that stands
//! within an answer, as one does whose medium has stalled, so it comes after the kill.

use crate::damage::Told;
use crate::exit::Failure;
use crate::medium::Medium;
use crate::mount::Mount;
use crate::signal::{Signals, wait};
use crate::silence::{LOOK, Silence, threads};
use crate::worker::Worker;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long requests under way may still be answered when somebody ends the mount.
const GRACE: Duration = Duration::from_millis(500);
/// How long a worker has for its last word once its connection has ended.
const LAST_WORD: Duration = Duration::from_millis(100);
const ABORTED: &str = "the connection was aborted, by the kernel since a request was without an answer for too long or by \
                       somebody, and the mount was ended";

/// Watches until the mount has ended, and says what damage is met on it. An error if it ended otherwise than by being
/// unmounted or by a signal.
pub(crate) fn watch(
    mut worker: Worker<'_>,
    mut mount: Mount,
    medium: &Medium,
    signals: &Signals,
    timeout: Duration,
    mut told: Told,
) -> Result<(), Failure> {
    let how = until_the_end(&mut worker, &mut mount, medium, signals, timeout, &mut told);
    told.conclude();
    how
}

fn until_the_end(
    worker: &mut Worker<'_>,
    mount: &mut Mount,
    medium: &Medium,
    signals: &Signals,
    timeout: Duration,
    told: &mut Told,
) -> Result<(), Failure> {
    let mut silence = Silence::new(timeout);
    loop {
        let seen = mount.connection().is_watched() || medium.is_seen();
        let tick = seen.then(|| silence.tick().unwrap_or(LOOK));
        // Whoever has none has nobody to miss.
        let unmounter = mount.unmounter().unwrap_or(worker.channel());
        let [ended, signal, report, missed] =
            wait([worker.process().as_fd(), signals.as_fd(), worker.channel(), unmounter], tick);
        if ended {
            worker.reap(told).inspect_err(|_| _ = mount.detach())?;
            // It is done when /dev/fuse tells it that the mount is gone, or aborted.
            mount.is_done();
            return if mount.detach() { Err(Failure::mount(ABORTED)) } else { Ok(()) };
        }
        if missed && mount.unmounter().is_some() {
            mount.misses_unmounter();
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
        if mount.connection().is_over() && !ends_within(worker, GRACE) {
            let was_there = end(worker, mount, told);
            return Err(Failure::mount(if was_there {
                ABORTED
            } else {
                "the worker outlived its mount and was ended"
            }));
        }
        // Whatever is still in memory could be read on, and nobody would know that it is a ruin.
        if medium.is_gone() {
            end(worker, mount, told);
            return Err(Failure::mount("the medium was pulled out, and the mount was ended"));
        }
        let pid = worker.process().pid();
        if silence.lasts(mount.connection().waiting(), || threads(pid)) {
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
/// says its last word when the connection ends, and is gone by itself. Whether the mount was still there.
fn end(worker: &mut Worker<'_>, mount: &mut Mount, told: &mut Told) -> bool {
    mount.connection().abort();
    if !ends_within(worker, LAST_WORD) {
        worker.process().kill();
    }
    let was_there = mount.detach();
    let _ = worker.reap(told);
    was_there
}

fn ends_within(worker: &Worker<'_>, time: Duration) -> bool {
    let [ended] = wait([worker.process().as_fd()], Some(time));
    ended
}
