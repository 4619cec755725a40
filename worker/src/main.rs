//! The life of a worker on one screen: confine, be looked at, answer FUSE_INIT, map the device, narrow, and only then
//! the first byte of the image.
//!
//! The order is the security argument (SECURITY.md); the types hold it: the device and the last filter ask for the
//! [`Confined`] that only confinement gives.

#[cfg(feature = "fuzz")]
mod fuzz;

use lazaret_policy::channel::Channel;
use lazaret_policy::confine::{Confined, Failed, confine, narrow};
use lazaret_policy::message::{Order, Purpose, Refusal, Report, Start, Step};
use lazaret_policy::{FUSE_FD, exit, seccomp};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::{Filesystem, Settings};
use lazaret_worker::ledger::Ledger;
use lazaret_worker::{fuse, memory, tool};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

lazaret_worker::fixed_memory!();
lazaret_worker::beside_fuser!();

/// How long threads may take to come up on a busy host.
const THREADS_START: Duration = Duration::from_secs(10);

/// The damage that is met on the mount, for its end, when a function without arguments tells of it.
static LEDGER: OnceLock<Arc<Ledger>> = OnceLock::new();

/// Why a worker ends before its work is done.
enum Ended {
    /// It says why.
    Refused(Refusal),
    /// There is nobody left to work for, or who is there speaks nonsense.
    BrokerGone,
}

fn main() {
    #[cfg(feature = "fuzz")]
    if fuzz::is_wanted() {
        fuzz::live();
    }
    let channel = Channel::inherited();
    report_panics();
    let code = match live(&channel) {
        Ok(()) => exit::DONE,
        Err(Ended::Refused(refusal)) => match channel.send(&Report::Refused(refusal), &[]) {
            Ok(()) => exit::REFUSED,
            Err(_) => exit::CHANNEL,
        },
        Err(Ended::BrokerGone) => exit::CHANNEL,
    };
    memory::end(code);
}

fn live(channel: &Channel) -> Result<(), Ended> {
    let (confined, layers) = confine()?;
    report(channel, &Report::Confined(layers))?;
    let (start, fuse) = order(channel, |order, fd| match order {
        Order::Start(start) => Some((start, fd)),
        Order::Device { .. } => None,
    })?;
    if !usize::try_from(start.memory).is_ok_and(memory::grant) {
        return Err(Ended::Refused(Refusal::OutOfMemory));
    }
    match (start.purpose, fuse) {
        (Purpose::Mount, Some(fuse)) => mount(channel, &confined, &start, fuse),
        (Purpose::Tool, None) => answer(channel, &confined, &start),
        (Purpose::Scan, None) => scan(channel, &confined),
        _ => Err(Ended::BrokerGone),
    }
}

/// Serves the kernel until the file system is unmounted; then the thread that notices ends the process.
fn mount(channel: &Channel, confined: &Confined, start: &Start, fuse: OwnedFd) -> Result<(), Ended> {
    if fuse.as_raw_fd() != FUSE_FD {
        return Err(Failed { step: Step::Protocol, errno: 0 }.into());
    }
    let (session, opener) = fuse::handshake(fuse, start)
        .map_err(|error| Failed { step: Step::Init, errno: error.raw_os_error().unwrap_or(0) })?;
    let (device, iomap) = device(channel, confined, opener.iomap_is_on())?;
    if !iomap.is_none_or(|device| opener.map_into(device)) {
        return Err(Ended::BrokerGone);
    }
    let threads = usize::from(start.threads);
    let serving = session.spawn();
    if serving.is_err() || !memory::wait_for_receivers(threads, THREADS_START) {
        return Err(Failed { step: Step::Threads, errno: 0 }.into());
    }
    let filesystem = open(device, confined, seccomp::SERVING, start)?;
    let summary = tool::summary(&filesystem);
    let ledger = LEDGER.get_or_init(|| Arc::clone(filesystem.verifier().ledger()));
    memory::before_the_end(tell_toll);
    report(channel, &Report::Ready(summary))?;
    ledger.tell_by(tell);
    opener.open(filesystem);
    let ended = serving.map(fuser::BackgroundSession::join);
    unreachable!("the session's threads end the process: {ended:?}")
}

/// Answers a tool until it hangs up.
fn answer(channel: &Channel, confined: &Confined, start: &Start) -> Result<(), Ended> {
    let (device, _) = device(channel, confined, false)?;
    let filesystem = open(device, confined, seccomp::ANSWERING, start)?;
    report(channel, &Report::Ready(tool::summary(&filesystem)))?;
    tool::serve(&filesystem, start.xattrs, channel).map_err(|_| Ended::BrokerGone)
}

/// Answers what lies on a whole device, until the tool hangs up.
fn scan(channel: &Channel, confined: &Confined) -> Result<(), Ended> {
    let (device, _) = device(channel, confined, false)?;
    narrow(confined, seccomp::ANSWERING)?;
    memory::seal();
    report(channel, &Report::Mapped)?;
    tool::scan(&device, channel).map_err(|_| Ended::BrokerGone)
}

/// Says that everything else stands, takes the device and maps it; and by which number the kernel knows a device of the
/// same range, where it takes mappings.
fn device(channel: &Channel, confined: &Confined, iomap: bool) -> Result<(Device, Option<u32>), Ended> {
    report(channel, &Report::Initialized { iomap })?;
    let (range, known, fd) = order(channel, |order, fd| match order {
        Order::Device { iomap: Some(_), .. } if !iomap => None,
        Order::Device { range, iomap } => Some((range, iomap, fd?)),
        Order::Start(_) => None,
    })?;
    let mapped = Device::map(fd, range, confined);
    let device = mapped.map_err(|errno| Failed { step: Step::Map, errno: errno.raw_os_error() })?;
    Ok((device, known))
}

/// Installs the last filter, and then reads the first byte of the image.
fn open(device: Device, confined: &Confined, last: &[seccomp::Row], start: &Start) -> Result<Filesystem, Ended> {
    narrow(confined, last)?;
    memory::seal();
    Filesystem::open(device, settings(start)).map_err(Ended::Refused)
}

/// The next order, if it is the one that is due.
fn order<T>(channel: &Channel, due: impl FnOnce(Order, Option<OwnedFd>) -> Option<T>) -> Result<T, Ended> {
    let (order, mut fds) = channel.receive::<Order>().map_err(|_| Ended::BrokerGone)?;
    due(order, fds.pop()).ok_or(Ended::BrokerGone)
}

fn report(channel: &Channel, report: &Report) -> Result<(), Ended> {
    channel.send(report, &[]).map_err(|_| Ended::BrokerGone)
}

fn settings(start: &Start) -> Settings {
    Settings {
        checksum: start.checksum,
        trust_descriptors: start.trust_descriptors,
        verity: start.verity,
        superblock: start.superblock,
        memory: start.memory,
        ..Settings::default()
    }
}

impl From<Failed> for Ended {
    fn from(Failed { step, errno }: Failed) -> Self {
        Self::Refused(Refusal::Setup { step, errno })
    }
}

/// Tells the broker of damage that a request has met. If it is gone, so is the worker, soon.
fn tell(report: &Report) {
    let _ = Channel::inherited().send(report, &[]);
}

/// The last word of a worker whose mount is gone.
fn tell_toll() {
    if let Some(ledger) = LEDGER.get() {
        tell(&Report::Ended(ledger.toll()));
    }
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
