//! The program itself, started and told what a broker tells it, with a socket in the place of /dev/fuse.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lazaret_policy::channel::Channel;
use lazaret_policy::message::{Order, Purpose, Range, Report, Special, Start, Summary, Verity, Xattrs};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::lazaret;
use crate::{Result, process};

const PATIENCE: Duration = Duration::from_secs(30);
/// Becomes a program that has none of the test's own fds, as a broker hands it none: what it is given first is 3.
const ALONE: &str = "exec \"$0\" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";

/// How a worker is started.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The broker has seen that the kernel knows mappings.
    pub iomap: bool,
    /// What is told of the device, if anything: the kernel's number for it.
    pub device: Option<u32>,
    /// Threads.
    pub threads: u8,
    /// Whether seals are checked.
    pub verity: Verity,
    /// The part of the image that is the file system; all of it.
    pub range: Option<Range>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { iomap: true, device: Some(7), threads: 1, verity: Verity::Ignore, range: None }
    }
}

/// A worker that serves. It is killed when this is dropped.
pub struct Worker {
    child: Child,
    channel: Channel,
}

/// One that waits for the answer to FUSE_INIT.
pub struct Starting {
    worker: Worker,
    setup: Setup,
}

impl Starting {
    /// Starts it; the kernel's end of its /dev/fuse.
    pub fn new(setup: Setup) -> Result<(Self, OwnedFd)> {
        let (channel, theirs) = Channel::pair()?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", ALONE]).arg(lazaret::worker());
        let child = shell.stdin(Stdio::from(theirs)).env_clear().spawn()?;
        let worker = Worker { child, channel };
        match worker.hear()? {
            Report::Confined(_) => {}
            other => return Err(format!("instead of being confined: {other:?}").into()),
        }
        let (kernel, fuse) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let start = Start {
            purpose: Purpose::Mount,
            checksum: Default::default(),
            trust_descriptors: false,
            verity: setup.verity,
            superblock: None,
            special: Special::Show,
            xattrs: Xattrs::All,
            uid: None,
            gid: None,
            umask: 0,
            open_without_asking: true,
            request_timeout: 0,
            iomap: setup.iomap,
            threads: setup.threads,
            memory: 64 << 20,
        };
        worker.channel.send(&Order::Start(start), &[fuse.as_fd()])?;
        Ok((Self { worker, setup }, kernel))
    }

    /// Waits until it has answered FUSE_INIT; whether it has taken mappings up.
    pub fn initialized(&self) -> Result<bool> {
        match self.worker.hear()? {
            Report::Initialized { iomap } => Ok(iomap),
            other => Err(format!("instead of having answered FUSE_INIT: {other:?}").into()),
        }
    }

    /// Hands the image over.
    pub fn ready(self, image: &Path) -> Result<(Worker, Summary)> {
        let file = File::open(image)?;
        let range = match self.setup.range {
            Some(range) => range,
            None => Range { offset: 0, length: file.metadata()?.len() },
        };
        let order = Order::Device { range, iomap: self.setup.device };
        self.worker.channel.send(&order, &[file.as_fd()])?;
        match self.worker.hear()? {
            Report::Ready(summary) => Ok((self.worker, summary)),
            other => Err(format!("instead of being ready: {other:?}").into()),
        }
    }
}

impl Worker {
    /// What it says next.
    pub fn hear(&self) -> Result<Report> {
        Ok(self.channel.receive_within::<Report>(PATIENCE)?.0)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and how that was.
    pub fn ended(mut self) -> Result<Option<i32>> {
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if process::runs(self.child.id()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
