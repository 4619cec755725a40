//! The conversation with a worker, step by step: it confines itself, is looked at, gets what it serves, is looked at
//! again.
//!
//! What holds here: the order of design §3. The device goes to nobody who was not looked at, and a method takes what
//! it hands over, so that no copy stays with the broker.

use crate::attest::{self, Proof, Stage};
use crate::cgroup::{Cgroup, Limits};
use crate::damage::Told;
use crate::device::Source;
use crate::exit::{Failure, say};
use crate::iomap::Prepared;
use crate::options::{Options, Strictness};
use crate::process::Process;
use crate::quarters::Quarters;
use crate::refusal;
use crate::signal::{Signals, interrupted, wait};
use crate::spawn;
use lazaret_policy::channel::{Channel, ChannelError};
use lazaret_policy::exit;
use lazaret_policy::message::{Answer, Ask, Layers, Message, Order, Purpose, Refusal, Report, Start, Summary};
use lazaret_policy::scan::{Scan, Scanned};
use rustix::process::{WaitIdStatus, getpid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The longest a start may take where no medium is waited for.
const START: Duration = Duration::from_secs(10);

/// A worker. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    process: Process,
    /// Behind the process: it can go when that has gone.
    _cgroup: Option<Cgroup>,
    channel: Channel,
    quarters: Quarters,
    proof: Proof,
    purpose: Purpose,
    options: &'a Options,
    signals: &'a Signals,
    /// By which number the kernel knows the device that it reads files from by itself.
    iomap: Option<u32>,
    /// The line and the column where it met a bug of its own, if it did.
    panicked: Option<(u32, u32)>,
}

impl<'a> Worker<'a> {
    /// Starts a worker, waits until it has confined itself, and looks whether it has.
    pub(crate) fn start(purpose: Purpose, options: &'a Options, signals: &'a Signals) -> Result<Self, Failure> {
        let (channel, theirs) =
            Channel::pair().map_err(|error| Failure::system(format!("no channel to a worker: {error}")))?;
        let cgroup = Cgroup::make(Limits { memory: options.memory, threads: options.threads });
        let (mut process, quarters) = spawn::spawn(theirs.as_fd(), cgroup.as_ref())?;
        drop(theirs);
        let report = receive(&channel, &mut process, signals, START)?;
        let Report::Confined(layers) = report else { return Err(refused_or_unexpected(&report)) };
        let proof = look(&mut process, Stage::Confined, Some(layers), &quarters, options.confine)?;
        let missing = proof.missing(&quarters);
        if !missing.is_empty() {
            say(&format!("this host confines the worker without: {}", missing.join(", ")));
        }
        Ok(Self {
            process,
            _cgroup: cgroup,
            channel,
            quarters,
            proof,
            purpose,
            options,
            signals,
            iomap: None,
            panicked: None,
        })
    }

    /// Tells it what it is for, and hands over /dev/fuse where it serves a mount. No byte of the image is near yet.
    pub(crate) fn initialize(&mut self, fuse: Option<OwnedFd>) -> Result<(), Failure> {
        self.tell_start(fuse.as_ref(), false)?;
        // A second holder of /dev/fuse would keep every client waiting if the worker died.
        drop(fuse);
        self.has_begun(false).map(drop)
    }

    /// The same for a mount whose files the kernel is to read by itself, and which nobody can reach yet. Where it does not
    /// come to that, the reason why: the worker gives the bytes then.
    pub(crate) fn initialize_iomap(
        &mut self,
        fuse: OwnedFd,
        prepared: Prepared,
    ) -> Result<Result<(), String>, Failure> {
        self.tell_start(Some(&fuse), true)?;
        if !self.has_begun(true)? {
            return Ok(Err("this kernel does not offer it to the mount".to_owned()));
        }
        let registered = prepared.register(fuse.as_fd());
        self.iomap = registered.as_ref().ok().copied();
        Ok(registered.map(drop))
    }

    fn tell_start(&mut self, fuse: Option<&OwnedFd>, iomap: bool) -> Result<(), Failure> {
        let order = Order::Start(Start { iomap, ..self.options.start(self.purpose) });
        let fds: Vec<BorrowedFd<'_>> = fuse.into_iter().map(AsFd::as_fd).collect();
        self.send(&order, &fds)
    }

    /// Waits until FUSE_INIT is answered: whether iomap is on, which it can be only where that was allowed.
    fn has_begun(&mut self, iomap: bool) -> Result<bool, Failure> {
        match self.receive(START)? {
            Report::Initialized { iomap: on } if iomap || !on => Ok(on),
            other => Err(refused_or_unexpected(&other)),
        }
    }

    /// Hands over the device, and looks at the worker again once it has opened the file system on it. A refusal is an
    /// answer, too: the worker has ended then.
    pub(crate) fn open(&mut self, source: &Source) -> Result<Result<Summary, Refusal>, Failure> {
        self.send(&Order::Device { range: source.range(), iomap: self.iomap }, &[source.as_fd()])?;
        let summary = match self.receive(self.patience())? {
            Report::Ready(summary) => summary,
            Report::Refused(refusal) => return Ok(Err(refusal)),
            other => return Err(refused_or_unexpected(&other).about(source.path())),
        };
        self.look_again()?;
        Ok(Ok(summary))
    }

    /// Hands over the whole device to a worker that scans, and looks at it again.
    pub(crate) fn map(&mut self, source: &Source) -> Result<(), Failure> {
        self.send(&Order::Device { range: source.whole(), iomap: None }, &[source.as_fd()])?;
        match self.receive(self.patience())? {
            Report::Mapped => self.look_again(),
            other => Err(refused_or_unexpected(&other).about(source.path())),
        }
    }

    fn look_again(&mut self) -> Result<(), Failure> {
        let stage = Stage::Ready(self.purpose);
        self.proof = look(&mut self.process, stage, self.proof.layers, &self.quarters, self.options.confine)?;
        Ok(())
    }

    /// Asks a worker that answers a tool.
    pub(crate) fn ask(&mut self, question: &Ask) -> Result<Answer, Failure> {
        self.tell(question)?;
        self.answer()
    }

    /// Asks, and does not wait for the answer.
    pub(crate) fn tell(&mut self, question: &Ask) -> Result<(), Failure> {
        self.send(question, &[])
    }

    /// The answer to what was asked first and not answered yet.
    pub(crate) fn answer(&mut self) -> Result<Answer, Failure> {
        self.receive(self.patience())
    }

    /// Asks a worker that scans.
    pub(crate) fn scan(&mut self, question: &Scan) -> Result<Scanned, Failure> {
        self.send(question, &[])?;
        self.receive(self.patience())
    }

    /// Layers that this host does not give.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.proof.missing(&self.quarters)
    }

    /// What was seen of it.
    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Takes one report of a worker that serves.
    ///
    /// # Errors
    /// The channel is closed, or what came is not for a worker that serves to say.
    pub(crate) fn hear(&mut self, told: &mut Told) -> Result<(), ChannelError> {
        match self.channel.receive_within::<Report>(Duration::ZERO)?.0 {
            Report::Met(met) if told.met(&met) => Ok(()),
            Report::Ended(toll) => {
                told.ended(toll);
                Ok(())
            }
            Report::Panicked { line, column } => {
                self.panicked = Some((line, column));
                Ok(())
            }
            _ => Err(ChannelError::Malformed),
        }
    }

    /// Waits for its end, takes what it said before, and says how it ended where that is not as it should.
    pub(crate) fn reap(&mut self, told: &mut Told) -> Result<(), Failure> {
        let status = self.process.reap();
        // It says no more, so this ends.
        while self.hear(told).is_ok() {}
        if status.as_ref().and_then(WaitIdStatus::exit_status) == Some(exit::DONE) {
            return Ok(());
        }
        match self.panicked {
            Some((line, column)) => Err(panicked(line, column)),
            None => Err(Failure::mount(format!("the worker ended {}", how_it_ended(status.as_ref())))),
        }
    }

    /// Readable when it has said something.
    pub(crate) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// The process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// How long a medium may take to answer.
    fn patience(&self) -> Duration {
        if self.options.timeout.is_zero() { Duration::MAX } else { self.options.timeout }
    }

    fn send<M: Message>(&mut self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        match self.channel.send(message, fds) {
            Ok(()) => Ok(()),
            Err(ChannelError::Closed) => Err(ended(&mut self.process)),
            Err(error) => Err(Failure::system(format!("the worker cannot be told: {error}"))),
        }
    }

    fn receive<M: Message>(&mut self, time: Duration) -> Result<M, Failure> {
        receive(&self.channel, &mut self.process, self.signals, time)
    }
}

/// Waits for a message, the worker's end, a signal, or this time.
fn receive<M: Message>(
    channel: &Channel,
    process: &mut Process,
    signals: &Signals,
    time: Duration,
) -> Result<M, Failure> {
    let end = Instant::now().checked_add(time);
    loop {
        let rest = end.map(|end| end.saturating_duration_since(Instant::now()));
        let [message, signal] = wait([channel.as_fd(), signals.as_fd()], rest);
        if signal {
            return Err(interrupted());
        }
        if !message {
            if rest.is_some_and(|rest| rest.is_zero()) {
                return Err(Failure::mount(format!("the worker gave no answer within {} s", time.as_secs())));
            }
            continue;
        }
        return match channel.receive::<M>() {
            Ok((message, _)) => Ok(message),
            Err(ChannelError::Closed) => Err(ended(process)),
            Err(error) => Err(Failure::system(format!(
                "the worker cannot be understood, perhaps it is of another version: {error}"
            ))),
        };
    }
}

fn look(
    process: &mut Process,
    stage: Stage,
    layers: Option<Layers>,
    quarters: &Quarters,
    strictness: Strictness,
) -> Result<Proof, Failure> {
    let seen = attest::look(process.pid(), getpid(), stage, layers).and_then(|proof| {
        let checked = proof.check(quarters, strictness);
        let unfit = |wrong| Failure::system(format!("the worker is not confined and gets nothing: {wrong}"));
        checked.map_err(unfit).map(|()| proof)
    });
    // What is seen of a process that has ended says nothing but that.
    let [over] = wait([process.as_fd()], Some(Duration::ZERO));
    if over { Err(ended(process)) } else { seen }
}

fn refused_or_unexpected(report: &Report) -> Failure {
    match report {
        Report::Refused(refusal) => refusal::failure(*refusal),
        Report::Panicked { line, column } => panicked(*line, *column),
        _ => Failure::system("the worker cannot be understood: a report out of its turn"),
    }
}

fn panicked(line: u32, column: u32) -> Failure {
    Failure::mount(format!("the worker met a bug of its own (line {line}, column {column}); please report it"))
}

/// The failure that an unexpected end is. The other end of the channel is closed, so the worker is ending.
fn ended(process: &mut Process) -> Failure {
    let [ended] = wait([process.as_fd()], Some(Duration::from_secs(2)));
    if !ended {
        process.kill();
    }
    Failure::mount(format!("the worker ended {}", how_it_ended(process.reap().as_ref())))
}

/// The end of a worker in words.
fn how_it_ended(status: Option<&WaitIdStatus>) -> String {
    let code = status.and_then(WaitIdStatus::exit_status);
    match (code, status.and_then(WaitIdStatus::terminating_signal)) {
        (Some(exit::DONE), _) => "before it was told to".to_owned(),
        (Some(exit::PANIC), _) => "by a bug of its own".to_owned(),
        (Some(exit::BUS), _) => "because a part of the device was gone".to_owned(),
        (Some(exit::CHANNEL), _) => "because it did not understand the broker".to_owned(),
        (Some(exit::MEMORY), _) => "because its memory= was used up".to_owned(),
        (Some(exit::FAULT), _) => "by a bug of its own: out of stack, or of its memory".to_owned(),
        (Some(code), _) => format!("with code {code}"),
        (_, Some(libc::SIGSYS)) => "by its seccomp filter: it made a system call that is not allowed".to_owned(),
        (_, Some(signal)) => format!("by signal {signal}"),
        _ => "for an unknown reason".to_owned(),
    }
}
