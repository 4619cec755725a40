//! A fuzzer that finds nothing must be shown to find something: bugs that a build with `--cfg planted` has, each at the
//! place of the check that it leaves out, and how long it takes until a target ends with it.
//!
//! What always holds here: a run begins with the first inputs alone, and not with a corpus that knows the way.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lazaret_tests::Result;
use lazaret_tests::fuzz::target::target;

/// A bug, the target that is to find it, and what of the worker is left out.
const BUGS: [(&str, &str, &str); 18] = [
    ("name", "directory", "a name may have a slash: `record.rs`"),
    ("record length", "directory", "no bound of a directory's record: `record.rs`"),
    ("beyond", "indirect", "no bound of a file's blocks: `system_zone.rs`"),
    ("zone", "extent", "a file may hold the file system's own blocks: `system_zone.rs`"),
    ("checksum", "inode", "a wrong checksum is let pass: `checksum.rs`"),
    ("budget", "extent", "the work of a request has no bound: `budget.rs`"),
    ("depth", "extent", "no depth check in an extent tree, and so a loop: `extent.rs`"),
    ("chain", "mbr", "no loop check in a chain of partitions: `mbr.rs`"),
    ("partition", "gpt", "a partition may lie beyond the disk: `partition/mod.rs`"),
    ("nanoseconds", "inode", "no bound of a time: `inode.rs`"),
    ("group", "group", "a group's structures may lie anywhere: `group.rs`"),
    ("left over", "orders", "bytes behind a message: `channel.rs`"),
    ("target", "image", "the target of a link may have a NUL: `ext4/mod.rs`"),
    ("attribute", "xattr_block", "the name of an attribute may have a NUL: `xattr_entry.rs`"),
    ("range", "fast_commit", "a fast commit gives a file the file system's own blocks: `replay.rs`"),
    ("silent", "requests", "a request is never answered: `frontend.rs`"),
    ("blind", "check", "damage is not told: `findings.rs`"),
    ("stale", "image", "what is kept is found under another key: `cache.rs`"),
];

/// Looks for each of them, or for one, for so many seconds at the most, and writes `planted.md`.
pub(crate) fn run(place: &Path, programs: &Path, seconds: u64, only: Option<&str>) -> Result {
    let bugs: VecDeque<_> =
        BUGS.into_iter().enumerate().filter(|(_, bug)| only.is_none_or(|only| bug.0 == only)).collect();
    if bugs.is_empty() {
        return Err(format!("no bug {}", only.unwrap_or_default()).into());
    }
    let waiting = Mutex::new(bugs);
    let found = Mutex::new(Vec::new());
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((number, bug)) = next else { return };
                    let time = one(place, programs, seconds, bug).unwrap_or_else(|error| {
                        eprintln!("{}: {error}", bug.0);
                        None
                    });
                    eprintln!("{}: {}", bug.0, told(time));
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((number, bug, time));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(number, ..)| *number);
    let rows =
        found.iter().map(|(_, (bug, target, what), time)| format!("| {bug} | {what} | {target} | {} |\n", told(*time)));
    let text =
        format!("| bug | what is left out | target | found after |\n|---|---|---|--:|\n{}", rows.collect::<String>());
    fs::write(place.join("planted.md"), &text)?;
    print!("{text}");
    worker(place, programs)?;
    let missed = found.iter().filter(|(.., time)| time.is_none()).count();
    if missed == 0 { Ok(()) } else { Err(format!("{missed} bugs were not found").into()) }
}

/// The worker itself, with its filters on: each image ends it well, and a call that no filter allows ends it by SIGSYS.
fn worker(place: &Path, programs: &Path) -> Result {
    const SIGSYS: i32 = 31;
    let live = |image: &Path, bug: &str| -> Result<ExitStatus> {
        let mut worker = Command::new(programs.join("lazaret-worker"));
        worker.arg("--fuzz").env("LAZARET_PLANTED", bug).stdin(File::open(image)?).stderr(Stdio::null());
        Ok(worker.status().map_err(|error| format!("lazaret-worker: {error}"))?)
    };
    let images = fs::read_dir(place.join("images"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    for image in &images {
        let (well, violating) = (live(image, "")?, live(image, "call")?);
        if well.code() != Some(0) || violating.signal() != Some(SIGSYS) {
            return Err(format!("{}: the worker ends with {well}, and with {violating}", image.display()).into());
        }
    }
    println!("lazaret-worker --fuzz: {} images walked, and a call that is not allowed ends each walk", images.len());
    Ok(())
}

fn told(time: Option<Duration>) -> String {
    time.map_or("not found".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
}

/// The time until the target ends with an input that shows the bug; none if it never does.
fn one(place: &Path, programs: &Path, seconds: u64, (bug, name, _): (&str, &str, &str)) -> Result<Option<Duration>> {
    let folder = place.join("planted").join(bug.replace(' ', "-"));
    let _ = fs::remove_dir_all(&folder);
    let seeds = folder.join("seeds");
    fs::create_dir_all(&seeds)?;
    for (number, seed) in target(name).seeds().iter().enumerate() {
        fs::write(seeds.join(number.to_string()), seed)?;
    }
    let begin = Instant::now();
    let status = Command::new(programs.join(name))
        .arg(&seeds)
        .arg(format!("-max_total_time={seconds}"))
        // A loop without an end is found as one.
        .args(["-timeout=10", "-max_len=40000"])
        .arg(format!("-artifact_prefix={}/", folder.display()))
        .env("LAZARET_PLANTED", bug)
        .env("LAZARET_FUZZ_IMAGES", place.join("images"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("log"))?)
        .status()
        .map_err(|error| format!("{name}: {error}"))?;
    let took = begin.elapsed();
    if status.success() {
        return Ok(None);
    }
    // It is the bug that ends it: the same input ends well without.
    let inputs = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let shows = |file: &&PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        ["crash-", "timeout-", "oom-"].iter().any(|kind| name.starts_with(kind))
    };
    let input = inputs.iter().find(shows).ok_or_else(|| format!("{name} ends with {status}, and no input"))?;
    let without = Command::new(programs.join(name))
        .arg(input)
        .env("LAZARET_PLANTED", "")
        .env("LAZARET_FUZZ_IMAGES", place.join("images"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if !without.success() {
        return Err(format!("{}: ends {name} without the bug, too", input.display()).into());
    }
    Ok(Some(took))
}
