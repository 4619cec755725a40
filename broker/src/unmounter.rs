//! Without root: the process that unmounts when a mount is over. fusermount3, which has to be executed for it, could not
//! become root under the broker's filter, and a broker that was killed executes nothing.
//!
//! What holds here: it is started before the worker is, and has one thing from outside, the end of its line to the
//! broker. Nothing of an image reaches it, and the broker can tell it one word: that there is nothing to do. It runs in a
//! session of its own and is ended by no signal that ends the broker; it never takes
//! another mount away than its own: from Linux 6.8 on, which gives a mount a number that it never gives again.

use crate::exit::{Failure, words};
use crate::fusermount;
use crate::mount_id::MountId;
use crate::process::Process;
use crate::signal::wait;
use rustix::io::{read, retry_on_intr, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, chdir, pidfd_open, setsid};
use rustix::stdio::stdin;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How the process is called, so that nobody takes it for the worker.
pub(crate) const NAME: &str = "lazaret-ending";
/// What it says once it waits.
const READY: u8 = b'R';
/// What it is told when somebody else has unmounted.
const NOTHING: u8 = b'N';
/// How long it may take to start, and to unmount. fusermount3 waits for a lock that all of its kind share.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process, seen from its broker.
#[derive(Debug)]
pub(crate) struct Unmounter {
    line: OwnedFd,
    process: Process,
}

impl Unmounter {
    /// Starts it for this mount, which is here.
    pub(crate) fn start(mount: MountId, mountpoint: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::system(format!("the process that unmounts: {}", words(error)));
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (line, theirs) = pair.map_err(|errno| failed(errno.into()))?;
        let child = Command::new("/proc/self/exe")
            .arg0("lazaret")
            .env_clear()
            .args(["umount", "--when-over", &mount.to_string(), "--"])
            .arg(mountpoint)
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::system("the process that unmounts has no number"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let own = Self { line, process: Process::new(pid, pidfd) };
        let mut byte = [0];
        let [said] = wait([own.line.as_fd()], Some(PATIENCE));
        let ready = said && retry_on_intr(|| read(&own.line, &mut byte)) == Ok(1) && byte == [READY];
        if ready { Ok(own) } else { Err(Failure::system("the process that unmounts has not started")) }
    }

    /// Readable once it has ended before its time: somebody has killed it.
    pub(crate) fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Has it unmount, and says whether it did.
    pub(crate) fn unmount(self) -> bool {
        let Self { line, process } = self;
        // That is all it waits for.
        drop(line);
        ends_well(process)
    }

    /// Lets it go: there is nothing to unmount.
    pub(crate) fn dismiss(self) {
        let _ = write(&self.line, &[NOTHING]);
        ends_well(self.process);
    }
}

fn ends_well(mut process: Process) -> bool {
    let [over] = wait([process.as_fd()], Some(PATIENCE));
    if over {
        return process.reap().and_then(|status| status.exit_status()) == Some(0);
    }
    // It goes on by itself.
    process.leave();
    false
}

/// What the process itself does.
pub(crate) fn run(mount: MountId) -> Result<(), Failure> {
    // The broker holds back the signals by which somebody ends it, and what it starts does, too. What a terminal sends
    // goes to its session.
    let _ = setsid();
    let _ = chdir(c"/");
    let _ = rustix::thread::set_name(c"lazaret-ending");
    // The broker may have been killed meanwhile: then nobody hears it, and reading ends at once.
    let _ = retry_on_intr(|| write(stdin(), &[READY]));
    let mut byte = [0];
    // Whatever else comes of it: there is no broker any more.
    if retry_on_intr(|| read(stdin(), &mut byte)) == Ok(1) && byte == [NOTHING] {
        return Ok(());
    }
    match mount.find() {
        Some((root, place)) => {
            drop(root);
            fusermount::unmount(&place, true)
        }
        None => Ok(()),
    }
}
