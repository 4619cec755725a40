//! The life of a worker on one screen: confine, be looked at, answer FUSE_INIT, map the device, narrow, and only then
//! the first byte of the image.
//!
//! The order is the security argument (SECURITY.md); the types hold it: the device and the last filter ask for the
//! [`Confined`] that only confinement gives.

mod memory;

use lazaret_policy::channel::Channel;
use lazaret_policy::confine::{Confined, Failed, confine, narrow};
use lazaret_policy::message::{Order, Purpose, Refusal, Report, Start, Step};
use lazaret_policy::{FUSE_FD, exit, seccomp};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::{Filesystem, Settings};
use lazaret_worker::{fuse, tool};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// How long threads may take to come up on a busy host.
const THREADS_START: Duration = Duration::from_secs(10);

/// A report that could not be sent: there is nobody left to work for.
struct BrokerGone;

fn main() {
    let channel = Channel::inherited();
    report_panics();
    let code = match live(&channel) {
        Ok(Ok(())) => exit::DONE,
        Ok(Err(refusal)) => match channel.send(&Report::Refused(refusal), &[]) {
            Ok(()) => exit::REFUSED,
            Err(_) => exit::CHANNEL,
        },
        Err(BrokerGone) => exit::CHANNEL,
    };
    memory::end(code);
}

fn live(channel: &Channel) -> Result<Result<(), Refusal>, BrokerGone> {
    let (confined, layers) = match confine() {
        Ok(proof) => proof,
        Err(failed) => return Ok(Err(setup(failed))),
    };
    report(channel, &Report::Confined(layers))?;
    let (start, fuse) = order(channel, |order, fd| match order {
        Order::Start(start) => Some((start, fd)),
        Order::Device(_) => None,
    })?;
    if !usize::try_from(start.memory).is_ok_and(memory::grant) {
        return Ok(Err(Refusal::OutOfMemory));
    }
    match (start.purpose, fuse) {
        (Purpose::Mount, Some(fuse)) => mount(channel, &confined, &start, fuse),
        (Purpose::Tool, None) => answer(channel, &confined, &start),
        (Purpose::Scan, None) => scan(channel, &confined),
        _ => Err(BrokerGone),
    }
}

/// Serves the kernel until the file system is unmounted; then the thread that notices ends the process.
fn mount(
    channel: &Channel,
    confined: &Confined,
    start: &Start,
    fuse: OwnedFd,
) -> Result<Result<(), Refusal>, BrokerGone> {
    if fuse.as_raw_fd() != FUSE_FD {
        return Ok(Err(setup(Failed { step: Step::Protocol, errno: 0 })));
    }
    let (session, opener) = match fuse::handshake(fuse, start) {
        Ok(session) => session,
        Err(error) => return Ok(Err(setup(Failed { step: Step::Init, errno: error.raw_os_error().unwrap_or(0) }))),
    };
    report(channel, &Report::Initialized)?;
    let device = match device(channel, confined)? {
        Ok(device) => device,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let threads = usize::from(start.threads);
    let serving = session.spawn();
    if serving.is_err() || !memory::wait_for_receivers(threads, THREADS_START) {
        return Ok(Err(setup(Failed { step: Step::Threads, errno: 0 })));
    }
    if let Err(failed) = narrow(confined, seccomp::SERVING) {
        return Ok(Err(setup(failed)));
    }
    memory::seal();
    let filesystem = match Filesystem::open(device, settings(start)) {
        Ok(filesystem) => filesystem,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let summary = tool::summary(&filesystem);
    opener.open(filesystem);
    report(channel, &Report::Ready(summary))?;
    let ended = serving.map(fuser::BackgroundSession::join);
    unreachable!("the session's threads end the process: {ended:?}")
}

/// Answers a tool until it hangs up.
fn answer(channel: &Channel, confined: &Confined, start: &Start) -> Result<Result<(), Refusal>, BrokerGone> {
    report(channel, &Report::Initialized)?;
    let device = match device(channel, confined)? {
        Ok(device) => device,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(failed) = narrow(confined, seccomp::ANSWERING) {
        return Ok(Err(setup(failed)));
    }
    memory::seal();
    let filesystem = match Filesystem::open(device, settings(start)) {
        Ok(filesystem) => filesystem,
        Err(refusal) => return Ok(Err(refusal)),
    };
    report(channel, &Report::Ready(tool::summary(&filesystem)))?;
    tool::serve(&filesystem, channel).map_err(|_| BrokerGone)?;
    Ok(Ok(()))
}

/// Answers what lies on a whole device, until the tool hangs up.
fn scan(channel: &Channel, confined: &Confined) -> Result<Result<(), Refusal>, BrokerGone> {
    report(channel, &Report::Initialized)?;
    let device = match device(channel, confined)? {
        Ok(device) => device,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(failed) = narrow(confined, seccomp::ANSWERING) {
        return Ok(Err(setup(failed)));
    }
    memory::seal();
    report(channel, &Report::Mapped)?;
    tool::scan(&device, channel).map_err(|_| BrokerGone)?;
    Ok(Ok(()))
}

fn device(channel: &Channel, confined: &Confined) -> Result<Result<Device, Refusal>, BrokerGone> {
    let (range, fd) = order(channel, |order, fd| match order {
        Order::Device(range) => Some((range, fd?)),
        Order::Start(_) => None,
    })?;
    let mapped = Device::map(fd, range, confined);
    Ok(mapped.map_err(|errno| setup(Failed { step: Step::Map, errno: errno.raw_os_error() })))
}

/// The next order, if it is the one that is due.
fn order<T>(channel: &Channel, due: impl FnOnce(Order, Option<OwnedFd>) -> Option<T>) -> Result<T, BrokerGone> {
    let (order, mut fds) = channel.receive::<Order>().map_err(|_| BrokerGone)?;
    due(order, fds.pop()).ok_or(BrokerGone)
}

fn report(channel: &Channel, report: &Report) -> Result<(), BrokerGone> {
    channel.send(report, &[]).map_err(|_| BrokerGone)
}

fn settings(start: &Start) -> Settings {
    Settings { checksum: start.checksum, verity: start.verity, superblock: start.superblock, memory: start.memory }
}

fn setup(Failed { step, errno }: Failed) -> Refusal {
    Refusal::Setup { step, errno }
}

/// A panic is a bug: it is reported by its place in our own source, and ends the worker with a code of its own rather
/// than with the calls of an abort.
fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let (line, column) = info.location().map_or((0, 0), |place| (place.line(), place.column()));
        let _ = Channel::inherited().send(&Report::Panicked { line, column }, &[]);
        memory::end(exit::PANIC);
    }));
}
