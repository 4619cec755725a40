//! What a test needs of the host. When it is missing the test is ignored and says why; with `LAZARET_REQUIRE_ALL=1`
//! it fails instead, so that a machine that is meant to run everything cannot pass by running nothing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::{Completion, Conclusion, Failed, Trial};

use crate::Result;
use crate::prove::{self, Figures, Outcome};
use crate::workshop::Workshop;

/// One thing a host may lack.
#[derive(Clone, Copy, Debug)]
pub enum Requirement {
    /// To be root: mounting by the kernel, loop devices, looking into other processes.
    Root,
    /// The FUSE device.
    Fuse,
    /// Loop devices.
    Loop,
    /// The kernel's own ext4, the oracle.
    KernelExt4,
    /// A kernel of at least this version.
    Kernel(u32, u32),
    /// Mounts, a network and a `/dev` of the test's own ([`crate::apart`]).
    Apart,
    /// A program that is installed, by its name.
    Tool(&'static str),
}

/// What nearly every test needs.
pub const MOUNTS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::KernelExt4,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("debugfs"),
    Requirement::Tool("losetup"),
];

/// For programs that strace(1) looks at, or strikes.
pub const TRACED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::KernelExt4,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("losetup"),
    Requirement::Tool("strace"),
];

/// For mounts by a user without any right.
pub const BY_USER: &[Requirement] =
    &[Requirement::Root, Requirement::Fuse, Requirement::Tool("fusermount3"), Requirement::Tool("setpriv")];

impl Requirement {
    /// Why this host does not do; `None` when it does.
    pub fn missing(self) -> Option<String> {
        let there = |path: &str| Path::new(path).exists();
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()),
            Self::Fuse => (!there("/dev/fuse")).then(|| "needs /dev/fuse".to_owned()),
            Self::Loop => (!there("/dev/loop-control")).then(|| "needs loop devices (/dev/loop-control)".to_owned()),
            Self::KernelExt4 => (!kernel_reads_ext4()).then(|| "needs a kernel with ext4".to_owned()),
            Self::Kernel(major, minor) => {
                (kernel_version() < (major, minor)).then(|| format!("needs Linux {major}.{minor} or later"))
            }
            Self::Apart => (!crate::apart::is_entered()).then(|| "needs namespaces of its own (unshare)".to_owned()),
            Self::Tool(name) => find(name).is_none().then(|| format!("needs the program {name}")),
        }
    }
}

fn checked(
    name: impl Into<String>,
    needs: &'static [Requirement],
    test: impl FnOnce() -> Result + Send + 'static,
    skipped: impl FnOnce() + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
        if missing.is_empty() {
            return test().map(|()| Completion::Completed).map_err(Failed::from);
        }
        skipped();
        let reason = missing.join(", ");
        if std::env::var_os("LAZARET_REQUIRE_ALL").is_some_and(|value| value == "1") {
            return Err(Failed::from(format!("{reason} (LAZARET_REQUIRE_ALL=1)")));
        }
        Ok(Completion::ignored_with(reason))
    })
}

/// The whole of a test executable: opens a workshop, runs what `trials` makes of it, and removes it.
pub fn main(trials: impl FnOnce(&Arc<Workshop>) -> Vec<Trial>) -> ! {
    run(&libtest_mimic::Arguments::from_args(), trials)
}

/// The same, one test after the other, with something that lives as long as they do: a daemon that all of them need.
pub fn main_in_turn_with<T>(kept: T, trials: impl FnOnce(&Arc<Workshop>) -> Vec<Trial>) -> ! {
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    let conclusion = conclude(&arguments, trials);
    drop(kept);
    conclusion.exit()
}

/// The same, one test after the other: for tests that run a program in a copy of the mount namespace, where it would
/// keep the mounts of others alive.
pub fn main_in_turn(trials: impl FnOnce(&Arc<Workshop>) -> Vec<Trial>) -> ! {
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    run(&arguments, trials)
}

fn run(arguments: &libtest_mimic::Arguments, trials: impl FnOnce(&Arc<Workshop>) -> Vec<Trial>) -> ! {
    conclude(arguments, trials).exit()
}

fn conclude(arguments: &libtest_mimic::Arguments, trials: impl FnOnce(&Arc<Workshop>) -> Vec<Trial>) -> Conclusion {
    let workshop = Workshop::open().expect("a temporary directory");
    let trials = trials(&workshop);
    let conclusion = libtest_mimic::run(arguments, trials);
    drop(workshop);
    conclusion
}

/// A test that runs only where `needs` are met, in this workshop.
pub fn trial(
    name: impl Into<String>,
    needs: &'static [Requirement],
    workshop: &Arc<Workshop>,
    test: impl FnOnce(&Workshop) -> Result + Send + 'static,
) -> Trial {
    let workshop = workshop.clone();
    checked(name, needs, move || test(&workshop), || {})
}

/// The same for a test that shows a promise of SECURITY.md: however it ends is recorded, with what it has counted.
pub fn proof(
    promise: &'static str,
    name: impl Into<String>,
    needs: &'static [Requirement],
    workshop: &Arc<Workshop>,
    test: impl FnOnce(&Workshop) -> Result<Figures> + Send + 'static,
) -> Trial {
    let (name, workshop) = (name.into(), workshop.clone());
    let (proved, skipped) = (name.clone(), name.clone());
    let proving = move || {
        let result = catch_unwind(AssertUnwindSafe(|| test(&workshop)));
        match &result {
            Ok(Ok(figures)) => prove::record(promise, &proved, Outcome::Passed, figures),
            _ => prove::record(promise, &proved, Outcome::Failed, &vec![]),
        }
        result.unwrap_or_else(|panic| resume_unwind(panic)).map(drop)
    };
    checked(name, needs, proving, move || prove::record(promise, &skipped, Outcome::Skipped, &vec![]))
}

/// Where a program lies: in PATH or where root's programs are.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into));
    places.map(|place| place.join(name)).find(|program| program.is_file())
}

fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A module that is not loaded yet is not listed; trying to load it is what mount(2) would do.
fn kernel_reads_ext4() -> bool {
    let listed = || {
        std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.lines().any(|line| line.trim() == "ext4"))
    };
    listed() || {
        let _ = std::process::Command::new("modprobe").arg("ext4").output();
        listed()
    }
}
