//! What runs: read from /proc, so that nobody has to be asked.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::Result;

/// A running process. One that has ended but was not waited for does not count.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// The file it executes; empty where that cannot be seen.
    pub executable: PathBuf,
    /// Its arguments, each ended by a NUL, as far as they are text.
    pub arguments: String,
}

impl Process {
    /// Whether a path stands among its arguments.
    pub fn mentions(&self, path: &Path) -> bool {
        self.arguments.contains(&*path.to_string_lossy())
    }
}

/// Every process that runs now.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(one).collect()
}

/// One process, if it runs.
pub fn one(pid: u32) -> Option<Process> {
    let status = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the state and the parent follow the last one.
    let after = &status[status.iter().rposition(|byte| *byte == b')')? + 1..];
    let mut fields = std::str::from_utf8(after).ok()?.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // One that has ended may have threads that are still at it, and hold its files.
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    (!matches!(state, "Z" | "X") || threads() > 1).then(|| Process {
        pid,
        parent,
        executable: fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default(),
        arguments: String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned(),
    })
}

/// Whether this process runs.
pub fn runs(pid: u32) -> bool {
    one(pid).is_some()
}

/// These processes and all that came from them.
pub fn with_descendants(of: impl Fn(&Process) -> bool) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = all.iter().filter(|process| of(process)).cloned().collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next].pid;
        let known: Vec<u32> = found.iter().map(|process| process.pid).collect();
        found.extend(all.iter().filter(|one| one.parent == parent && !known.contains(&one.pid)).cloned());
        next += 1;
    }
    found
}

/// A line of `/proc/PID/status` (or of a thread's), by its name.
pub fn status(of: &str, name: &str) -> Result<String> {
    let text =
        fs::read_to_string(format!("/proc/{of}/status")).map_err(|error| format!("/proc/{of}/status: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.ok_or_else(|| format!("/proc/{of}/status has no line {name}"))?.trim().to_owned())
}

/// Ends a process at once.
pub fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Sends a signal to a process of a test.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The names of an executable's file, whether or not it was replaced since.
pub fn is_executable(process: &Process, path: &Path) -> bool {
    let name = process.executable.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(name.strip_suffix(b" (deleted)").unwrap_or(name))) == path
}
