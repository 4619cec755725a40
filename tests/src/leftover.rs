//! What must not be left after a test: mounts, loop devices, processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::command::eventually;
use crate::{Result, lazaret, process};

/// Whether a file system is mounted at this directory.
pub fn is_mounted(directory: &Path) -> bool {
    mounts_below(directory).iter().any(|mount| Path::new(mount) == directory)
}

/// Demands that within a second nothing is left that has to do with a directory: no mount below it, no loop device
/// over a file in it, no process that was told of it, no worker whose broker is gone.
pub fn nothing_of(directory: &Path) -> Result {
    let mut left = Vec::new();
    let (clean, _) = eventually(Duration::from_secs(1), || {
        left = left_of(directory);
        left.is_empty()
    });
    if clean { Ok(()) } else { Err(format!("left behind: {}", left.join(", ")).into()) }
}

fn left_of(directory: &Path) -> Vec<String> {
    let mounts = mounts_below(directory).into_iter().map(|mount| format!("a mount at {mount}"));
    let loops = loops_below(directory).into_iter().map(|image| format!("a loop device over {image}"));
    let processes = lazaret::processes_of(directory).into_iter().map(|one| format!("{one:?}"));
    let orphans = orphans().into_iter().map(|pid| format!("worker {pid} without a broker"));
    mounts.chain(loops).chain(processes).chain(orphans).collect()
}

/// Mount points at or below a directory.
fn mounts_below(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(directory)).map(str::to_owned).collect()
}

/// Files below a directory that a loop device stands on.
fn loops_below(directory: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir("/sys/block") else { return Vec::new() };
    let files = devices.flatten().filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.map(|file| file.trim_end().to_owned()).filter(|file| Path::new(file).starts_with(directory)).collect()
}

/// Workers of this build whose parent is not a broker of this build.
fn orphans() -> Vec<u32> {
    let (broker, worker) = (lazaret::broker(), lazaret::worker());
    let has_broker = |pid| process::one(pid).is_some_and(|parent| process::is_executable(&parent, &broker));
    let all = process::all();
    let workers = all.iter().filter(|one| process::is_executable(one, &worker));
    // A pair that ends while it is looked at has no orphan: what counts is a worker that is still there afterwards.
    let is_orphan = |one: &process::Process| !has_broker(one.parent) && process::one(one.pid).is_some();
    workers.filter(|one| is_orphan(one)).map(|one| one.pid).collect()
}
