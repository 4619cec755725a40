//! One stick that is being mounted: `lazaret mount`, started as any user would start it.
//!
//! What holds here: the mount belongs to nobody but itself. The command returns when it answers, and its broker watches
//! it whether or not the daemon lives; so the daemon waits for no medium, and nothing is lost when it is started again.

use super::stick::Stick;
use super::users::User;
use crate::exit::{Failure, words};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// So much is read of what the command says, in bytes.
const WORDS: u64 = 16 << 10;

/// A mount that is being made.
pub(super) struct Attempt {
    child: Child,
    ended: OwnedFd,
    words: Option<ChildStderr>,
    /// The kernel's name of the device.
    pub device: String,
    /// The mountpoint.
    pub place: PathBuf,
}

/// What came of it.
pub(super) struct Outcome {
    /// Whether it is mounted.
    pub mounted: bool,
    /// What the command said, a line each, already escaped.
    pub lines: Vec<String>,
}

impl Attempt {
    /// Begins to mount a stick for a user.
    pub(super) fn begin(stick: &Stick, user: &User, options: &str, place: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::system(format!("the command that mounts: {}", words(error)));
        let options = format!("uid={},gid={},{options}", user.uid, user.gid);
        let mut command = Command::new("/proc/self/exe");
        command.arg0("lazaret").args(["mount", "-o", &options, "--"]).arg(stick.path()).arg(place);
        // What systemd has told the daemon is not for others.
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let words = child.stderr.take();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = pid.ok_or(rustix::io::Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match pidfd {
            Ok(ended) => Ok(Self { child, ended, words, device: stick.name.clone(), place: place.to_owned() }),
            Err(errno) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(failed(errno.into()))
            }
        }
    }

    /// What came of it, once the command has ended.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let status = self.child.try_wait().ok()??;
        let mut bytes = vec![];
        if let Some(words) = self.words.take() {
            // Whatever of it is still running may hold the pipe: what was said is there already.
            let _ = fcntl_setfl(&words, OFlags::NONBLOCK);
            let _ = words.take(WORDS).read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines = text.lines().map(|line| line.strip_prefix("lazaret: ").unwrap_or(line).to_owned());
        Some(Outcome { mounted: status.success(), lines: lines.collect() })
    }
}

/// Readable once the command has ended.
impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}
