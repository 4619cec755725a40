//! The program under test: where it lies, how it is run, and mounts by it with a guard that ends them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use crate::block::unmount_now;
use crate::command::{Finished, eventually, finish};
use crate::process::{self, Process};
use crate::{Result, leftover};

/// How long a mount may take to answer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the copies lie that this run uses.
static INSTALLED: OnceLock<PathBuf> = OnceLock::new();

/// Copies both programs from this build, the folder above the test's own executable, to a place that every user can
/// reach. A process of this run is known by that place, and by no other run.
pub fn install(directory: &Path) -> Result {
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(Path::parent).ok_or("a test lies in target/PROFILE/deps")?;
    install_from(built, directory)
}

/// Copies both programs from this folder.
pub fn install_from(built: &Path, directory: &Path) -> Result {
    std::fs::create_dir_all(directory)?;
    for name in ["lazaret", "lazaret-worker", "lazaret-agent"].iter().filter(|name| built.join(name).is_file()) {
        std::fs::copy(built.join(name), directory.join(name))?;
    }
    INSTALLED.set(directory.to_owned()).map_err(|_| "installed twice".into())
}

/// The broker.
pub fn broker() -> PathBuf {
    program("lazaret")
}

/// The worker, beside the broker.
pub fn worker() -> PathBuf {
    program("lazaret-worker")
}

fn program(name: &str) -> PathBuf {
    let program = INSTALLED.get().expect("a workshop was opened").join(name);
    assert!(program.is_file(), "{name} was not built: build the workspace with the profile of the tests first");
    program
}

/// `lazaret` with these arguments.
pub fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(broker());
    command.args(arguments);
    command
}

/// Runs `lazaret` to its end.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Finished> {
    finish(&mut command(arguments), PATIENCE)
}

/// An image mounted by Lazaret.
pub struct Mount {
    directory: PathBuf,
    /// The process that watches.
    pub broker: Process,
    /// The process that serves.
    pub worker: Process,
    mounted: bool,
}

impl Mount {
    /// Mounts with everything shown as the kernel shows it.
    pub fn new(source: &Path, directory: &Path) -> Result<Self> {
        Self::with(source, directory, "special=show,xattrs=all")
    }

    /// Mounts with these option words.
    pub fn with(source: &Path, directory: &Path, options: &str) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let arguments = ["mount".as_ref(), "-o".as_ref(), options.as_ref(), source.as_os_str(), directory.as_os_str()];
        let finished = run(arguments)?;
        if finished.code() != Some(0) {
            let _ = unmount(directory, UnmountFlags::DETACH);
            let Finished { status, stderr, .. } = finished;
            return Err(format!("lazaret mount {}: {status}: {stderr}", source.display()).into());
        }
        Self::adopt(directory)
    }

    /// Guards a mount that was made in another way, and finds its processes.
    pub fn adopt(directory: &Path) -> Result<Self> {
        let found = processes_of(directory);
        let last = |fits: &dyn Fn(&Process) -> bool| found.iter().rev().find(|one| fits(one)).cloned();
        let worker = last(&|one| process::is_executable(one, &worker()));
        let broker = worker.as_ref().and_then(|worker| last(&|one| one.pid == worker.parent));
        if !leftover::is_mounted(directory) {
            found.iter().for_each(|one| process::kill(one.pid));
            return Err(format!("{} is not mounted though `lazaret mount` says so", directory.display()).into());
        }
        match (broker, worker) {
            (Some(broker), Some(worker)) => Ok(Self { directory: directory.into(), broker, worker, mounted: true }),
            _ => {
                let _ = unmount(directory, UnmountFlags::DETACH);
                Err(format!("no broker and worker serve {}: {found:#?}", directory.display()).into())
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Unmounts with plain umount(2), and demands that both processes end within `patience`.
    pub fn unmount(mut self, patience: Duration) -> Result<Duration> {
        unmount_now(&self.directory)?;
        self.mounted = false;
        self.gone_within(patience)
    }

    /// Demands that both processes end within `patience`.
    pub fn gone_within(&self, patience: Duration) -> Result<Duration> {
        let (gone, took) = eventually(patience, || !process::runs(self.worker.pid) && !process::runs(self.broker.pid));
        if gone {
            return Ok(took);
        }
        let left = [&self.broker, &self.worker].map(|one| process::one(one.pid));
        Err(format!("processes are left after {took:?}: {left:#?}").into())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            let _ = unmount(&self.directory, UnmountFlags::DETACH);
        }
        if self.gone_within(Duration::from_secs(1)).is_err() {
            process::kill(self.worker.pid);
            process::kill(self.broker.pid);
        }
    }
}

/// The processes of `lazaret` that were told of this place, and all that came from them.
pub fn processes_of(place: &Path) -> Vec<Process> {
    let broker = broker();
    process::with_descendants(|one| process::is_executable(one, &broker) && one.mentions(place))
}
