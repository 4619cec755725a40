//! Kills or stops the programs at a system call of their start, and makes a worker spin: all from outside, so the
//! programs under test are those that are shipped.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::command::{eventually, wait};
use crate::{Result, lazaret, process};

/// A system call of one of the two programs: the `count`th of this name that it makes.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Counted from 1.
    pub count: u32,
}

/// Whose calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The broker's.
    Broker,
    /// Those of broker and worker: whoever comes to the count first is struck.
    Either,
}

/// The broker's way from the claim of the source to the watch, by the calls that mark its steps.
pub const BROKER: &[(&str, u32)] = &[
    ("signalfd4", 1),  // 1: the source and the mountpoint are opened next
    ("openat", 6),     // among them the source
    ("fsopen", 1),     // the superblock
    ("fsconfig", 1),   //
    ("fsconfig", 9),   // its creation
    ("fsmount", 1),    // detached
    ("socketpair", 1), // 2: the channel
    ("clone3", 1),     // the worker is born
    ("write", 1),      // its uid is mapped
    ("write", 2),      // its gid
    ("sendto", 1),     // it may go
    ("recvfrom", 1),   // it has become the worker
    ("recvfrom", 2),   // 3: it says that it is confined
    ("getdents64", 1), // 4: it is looked at
    ("readlink", 6),   // its namespaces
    ("sendmsg", 1),    // it gets /dev/fuse
    ("recvfrom", 3),   // it has answered FUSE_INIT
    ("sendmsg", 2),    // 5: it gets the device
    ("recvfrom", 4),   // 6: it is ready
    ("move_mount", 1), // 7: the mount becomes visible
    ("prctl", 1),      // the broker's own filter
    ("seccomp", 1),    //
];

/// The worker's way, by calls that it comes to before the broker does.
pub const WORKER: &[(&str, u32)] = &[
    ("setsid", 1),                  // 2: its own session
    ("prctl", 1),                   // its bounding set
    ("prctl", 42),                  // its secure bits, or the signal of its broker's death
    ("setgroups", 1),               //
    ("setresgid", 1),               //
    ("setresuid", 1),               //
    ("unshare", 1),                 // its mount namespace
    ("mount", 1),                   //
    ("mount", 2),                   // its root
    ("pivot_root", 1),              //
    ("umount2", 1),                 //
    ("dup2", 2),                    // the channel
    ("execveat", 1),                // it becomes the worker
    ("landlock_create_ruleset", 2), // 3: Landlock
    ("landlock_restrict_self", 1),  //
    ("capset", 1),                  // its capabilities
    ("seccomp", 1),                 // the first filter
    ("seccomp", 2),                 //
    ("recvmsg", 1),                 // 4: waits for /dev/fuse
    ("writev", 1),                  // answers FUSE_INIT
    ("sendto", 2),                  // says so
    ("recvmsg", 2),                 // 5: waits for the device
    ("clone", 1),                   // starts its threads
    ("seccomp", 3),                 // the last filter
    ("sendto", 3),                  // 6: is ready
];

/// Where a mount is made that is struck, and how it is started.
pub struct Site<'a> {
    /// What is mounted, and where.
    pub source: &'a Path,
    /// See there.
    pub point: &'a Path,
    /// Option words.
    pub options: &'a str,
    /// Starts a program.
    pub start: &'a dyn Fn(Command) -> Result<Child>,
}

/// `lazaret mount -f` with strace looking on, which sends one signal. Both are ended, whatever happens.
pub struct Struck {
    strace: Child,
    log: PathBuf,
    point: PathBuf,
}

impl Struck {
    /// Starts a mount that gets `signal` when it comes to `call`.
    pub fn mount(source: &Path, point: &Path, call: Call, whose: Whose, signal: &str) -> Result<Self> {
        let start = |mut command: Command| Ok(command.spawn()?);
        Self::at(&Site { source, point, options: "timeout=5", start: &start }, call, whose, signal)
    }

    /// The same of a mount that is made like this.
    pub fn at(site: &Site<'_>, call: Call, whose: Whose, signal: &str) -> Result<Self> {
        let Site { source, point, options, start } = *site;
        fs::create_dir_all(point)?;
        let log = point.with_extension("strace");
        let mut strace = Command::new("strace");
        strace.args((whose == Whose::Either).then_some("-f")).arg("-qq").arg("-o").arg(&log);
        strace.args(["-e", &format!("trace={}", call.name), "-e"]);
        strace.arg(format!("inject={}:signal={signal}:when={}", call.name, call.count));
        strace.arg(lazaret::broker()).args(["mount", "-f", "-o", options]).arg(source).arg(point);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { strace: start(strace)?, log, point: point.to_owned() })
    }

    /// Whether the signal was sent.
    pub fn has_struck(&self) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|log| log.contains("--- SIG") || log.contains("+++ killed by SIGKILL"))
    }

    /// Waits for the end of both programs.
    pub fn wait(&mut self, patience: Duration) -> Result {
        wait(&mut self.strace, patience).map(drop)
    }
}

impl Drop for Struck {
    fn drop(&mut self) {
        // Until there is none: one that is killed may just have started another.
        eventually(Duration::from_secs(5), || {
            let left = lazaret::processes_of(&self.point);
            left.iter().for_each(|one| process::kill(one.pid));
            left.is_empty()
        });
        let _ = self.strace.kill();
        let _ = self.strace.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// An instruction that jumps to itself.
#[cfg(target_arch = "x86_64")]
const SPIN: &[u8] = &[0xeb, 0xfe];
#[cfg(target_arch = "aarch64")]
const SPIN: &[u8] = &[0, 0, 0, 0x14];

/// writev on /dev/fuse with nothing to write, again and again: a worker that is at work all the time and never answers.
#[cfg(target_arch = "x86_64")]
const PRETEND: &[u8] = &[
    0xb8, 20, 0, 0, 0, // mov eax, SYS_writev
    0xbf, 3, 0, 0, 0, // mov edi, FUSE_FD
    0x31, 0xd2, // xor edx, edx
    0x0f, 0x05, // syscall
    0xeb, 0xf0, // from the begin
];
#[cfg(target_arch = "aarch64")]
const PRETEND: &[u8] = &[
    0x48, 0x08, 0x80, 0xd2, // mov x8, SYS_writev
    0x60, 0x00, 0x80, 0xd2, // mov x0, FUSE_FD
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0xfc, 0xff, 0xff, 0x17, // from the begin
];

/// Whichever thread takes the next request computes for ever, without a system call.
pub fn make_spin(worker: u32) -> Result {
    after_the_next_request(worker, SPIN)
}

/// Whichever thread takes the next request is busy for ever and answers nothing.
pub fn make_pretend(worker: u32) -> Result {
    after_the_next_request(worker, PRETEND)
}

/// Writes these instructions where the worker's threads go on once they have read a request: they all wait in the same
/// place for it. The kernel tells where, and root may write there.
fn after_the_next_request(worker: u32, code: &[u8]) -> Result {
    let mut place = None;
    let (waits, _) = eventually(Duration::from_secs(5), || {
        place = place_of_read(worker);
        place.is_some()
    });
    let place = place.filter(|_| waits).ok_or("no thread waits for a request")?;
    let memory = fs::File::options().write(true).open(format!("/proc/{worker}/mem"))?;
    memory.write_all_at(code, place)?;
    Ok(())
}

/// Where a thread goes on that waits in read(3): the last field of `/proc/PID/task/TID/syscall`.
fn place_of_read(worker: u32) -> Option<u64> {
    let read = format!("{} 0x3 ", libc::SYS_read);
    let tasks = fs::read_dir(format!("/proc/{worker}/task")).ok()?.flatten();
    let calls = tasks.filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok());
    calls.filter(|call| call.starts_with(&read)).find_map(|call| {
        let place = call.trim_end().rsplit(' ').next()?.strip_prefix("0x")?.to_owned();
        u64::from_str_radix(&place, 16).ok()
    })
}

/// Stops a process and waits until it has stopped.
pub fn stop(pid: u32) -> Result {
    process::signal(pid, Signal::STOP);
    let stopped = || process::status(&pid.to_string(), "State").is_ok_and(|state| state.starts_with('T'));
    match eventually(Duration::from_secs(5), stopped) {
        (true, _) => Ok(()),
        _ => Err(format!("process {pid} does not stop").into()),
    }
}
