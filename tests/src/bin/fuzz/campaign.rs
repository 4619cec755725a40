//! Runs the programs of libFuzzer, one on each core, with one live line for all, and keeps a record of each run.
//!
//! What always holds here: every run that ended is recorded with what it cost, found or not, so that a report can add
//! up what was really done.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lazaret_tests::Result;
use lazaret_tests::fuzz::target;
use serde_json::{Value, json};

/// How often the live line is written: on a terminal, and elsewhere.
const LIVE: Duration = Duration::from_millis(500);
const SELDOM: Duration = Duration::from_secs(30);
/// A run is ended from without if an input takes so long; targets end it by CPU time long before.
const HANGS: u32 = 60;

/// What libFuzzer ends with when somebody has interrupted it, as with Ctrl-C.
const INTERRUPTED: i32 = 72;

/// Where everything lies that a campaign makes.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    /// The record of all runs, one a line.
    pub(crate) fn runs(&self) -> PathBuf {
        self.0.join("runs.jsonl")
    }

    fn folder(&self, kind: &str, target: &str) -> Result<PathBuf> {
        let folder = self.0.join(kind).join(target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// How far a run has come, by what libFuzzer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    executions: u64,
    speed: u64,
    edges: u64,
    features: u64,
    inputs: u64,
}

impl Pulse {
    /// From a line such as `#4096 NEW cov: 803 ft: 1881 corp: 271/254Kb lim: 4096 exec/s: 12449 rss: 57Mb …`.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut pulse = Self { executions: words.next()?.strip_prefix('#')?.parse().ok()?, ..Self::default() };
        while let Some(word) = words.next() {
            let place = match word {
                "cov:" => &mut pulse.edges,
                "ft:" => &mut pulse.features,
                "corp:" => &mut pulse.inputs,
                "exec/s:" => &mut pulse.speed,
                _ => continue,
            };
            *place = words.next()?.split('/').next()?.parse().ok()?;
        }
        Some(pulse)
    }
}

/// What all runs see of each other.
struct Shared {
    place: Place,
    programs: PathBuf,
    seconds: u64,
    waiting: Mutex<VecDeque<&'static str>>,
    lanes: Mutex<Vec<Option<(&'static str, Pulse)>>>,
    crashes: Mutex<Vec<PathBuf>>,
    done: Mutex<u64>,
}

/// Runs each of these targets for so many seconds, and returns the inputs that ended a run.
pub(crate) fn run(
    place: Place,
    programs: &Path,
    seconds: u64,
    names: &[&'static str],
    jobs: usize,
) -> Result<Vec<PathBuf>> {
    let shared = Shared {
        place,
        programs: programs.to_owned(),
        seconds,
        waiting: Mutex::new(names.iter().copied().collect()),
        lanes: Mutex::new(vec![None; jobs]),
        crashes: Mutex::default(),
        done: Mutex::default(),
    };
    let failed = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..jobs)
            .map(|lane| {
                scope.spawn({
                    let shared = &shared;
                    move || shared.lane(lane)
                })
            })
            .collect();
        while !lanes.iter().all(|lane| lane.is_finished()) {
            shared.live();
        }
        lanes.into_iter().filter_map(|lane| lane.join().ok()?.err()).next()
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(shared.crashes.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lane(&self, lane: usize) -> Result {
        loop {
            let Some(name) = lock(&self.waiting).pop_front() else { return Ok(()) };
            self.one(lane, name)?;
            lock(&self.lanes)[lane] = None;
        }
    }

    fn one(&self, lane: usize, name: &'static str) -> Result {
        let corpus = self.place.folder("corpus", name)?;
        let seeds = self.place.folder("seeds", name)?;
        let artifacts = self.place.folder("artifacts", name)?;
        // Of each run its own: an input that is there from before, or that another lane finds, is found all the same.
        let found = self.place.folder("found", &format!("{name}.{lane}"))?;
        empty(&found)?;
        let begin = Instant::now();
        let longest = if matches!(name, "image" | "check" | "changing") { 400 } else { 40_000 };
        let mut program = Command::new(self.programs.join(name))
            .arg(&corpus)
            .arg(&seeds)
            .arg(format!("-dict={}", self.place.0.join("dictionary").display()))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args([
                format!("-max_total_time={}", self.seconds),
                format!("-timeout={HANGS}"),
                format!("-max_len={longest}"),
                // Holding each feature against those of the input's parent took a quarter of the time.
                "-reduce_inputs=0".to_owned(),
            ])
            .arg("-print_final_stats=1")
            .env("LAZARET_FUZZ_IMAGES", self.place.0.join("images"))
            // A buffer of 16 MiB, as each session has, is pages that nobody touches, and not zeros that are written: glibc's
            // own threshold would rise above it.
            .env("MALLOC_MMAP_THRESHOLD_", "1048576")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let id = program.id();
        let told = self.place.folder("logs", name)?.join(lane.to_string());
        let mut log = File::create(&told)?;
        let mut last = Pulse::default();
        for line in BufReader::new(program.stderr.take().ok_or("no output")?).lines() {
            let Ok(line) = line else { continue };
            writeln!(log, "{line}")?;
            if let Some(pulse) = Pulse::read(&line) {
                last = pulse.clone();
                lock(&self.lanes)[lane] = Some((name, pulse));
            }
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                last.executions = count.trim().parse()?;
            }
        }
        // One that has ended tells it until it is waited for.
        let used = cpu_seconds(id).unwrap_or(0.0);
        let status = program.wait()?;
        let new = crashes(&found)?;
        *lock(&self.done) += last.executions;
        self.record(name, &last, begin.elapsed(), used, new.len())?;
        if status.code() == Some(INTERRUPTED) {
            lock(&self.waiting).clear();
        } else if !status.success() && new.is_empty() {
            return Err(format!("{name}: {status}, and no input that shows why: {}", told.display()).into());
        }
        for file in new {
            let kept = artifacts.join(file.file_name().unwrap_or_default());
            fs::rename(file, &kept)?;
            let mut crashes = lock(&self.crashes);
            if !crashes.contains(&kept) {
                crashes.push(kept);
            }
        }
        Ok(())
    }

    fn record(&self, name: &str, last: &Pulse, took: Duration, cpu: f64, crashes: usize) -> Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let record = json!({
            "target": name,
            "ended": now,
            "seconds": took.as_secs_f64(),
            "cpu": cpu,
            "executions": last.executions,
            "edges": last.edges,
            "features": last.features,
            "inputs": last.inputs,
            "crashes": crashes,
        });
        let mut file = OpenOptions::new().create(true).append(true).open(self.place.runs())?;
        // In one piece: two runs end at the same time.
        Ok(file.write_all(format!("{record}\n").as_bytes())?)
    }

    fn live(&self) {
        let terminal = std::io::stderr().is_terminal();
        let until = Instant::now() + if terminal { LIVE } else { SELDOM };
        while Instant::now() < until && lock(&self.lanes).iter().any(Option::is_some) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let lanes = lock(&self.lanes).clone();
        let running: Vec<_> = lanes.iter().flatten().collect();
        if running.is_empty() {
            return std::thread::sleep(Duration::from_millis(100));
        }
        let names: Vec<_> = running.iter().map(|(name, _)| *name).collect();
        let sum = |of: fn(&Pulse) -> u64| running.iter().map(|(_, pulse)| of(pulse)).sum::<u64>();
        let line = format!(
            "{}: {} executions, {}/s, {} edges, {} inputs, {} crashes",
            names.join(" "),
            *lock(&self.done) + sum(|pulse| pulse.executions),
            sum(|pulse| pulse.speed),
            running.iter().map(|(_, pulse)| pulse.edges).max().unwrap_or(0),
            sum(|pulse| pulse.inputs),
            lock(&self.crashes).len(),
        );
        if terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
    }
}

fn empty(folder: &Path) -> Result {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// The inputs that ended a run, and not those that were merely slow.
fn crashes(artifacts: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(artifacts)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_slow = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slow-unit"));
    Ok(files.into_iter().filter(|file| !is_slow(file)).collect())
}

/// CPU time that a process has used: fields 14 and 15 of its `stat`, in hundredths of a second.
fn cpu_seconds(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// All records of a campaign.
pub(crate) fn records(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

/// The targets that a user has named: one, or all.
pub(crate) fn named(name: Option<&str>, jobs: usize) -> Vec<&'static str> {
    let all: Vec<&'static str> = target::targets().map(|target| target.name).collect();
    match name {
        None => all,
        // One target runs on every core, and the runs tell each other what they find.
        Some(name) => all.iter().filter(|one| **one == name).flat_map(|one| std::iter::repeat_n(*one, jobs)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let line = "#62249\tDONE   cov: 803 ft: 1881 corp: 271/254Kb lim: 40000 exec/s: 12449 rss: 57Mb";
        let pulse = Pulse { executions: 62249, speed: 12449, edges: 803, features: 1881, inputs: 271 };
        assert_eq!(Pulse::read(line), Some(pulse));
        assert_eq!(Pulse::read("INFO: seed corpus: files: 3"), None);
        assert_eq!(Pulse::read("###### End of recommended dictionary. ######"), None);
    }

    #[test]
    fn one_target_runs_on_every_core_and_a_wrong_name_on_none() {
        assert_eq!(named(Some("image"), 3), ["image"; 3]);
        assert_eq!(named(Some("no such"), 3), [""; 0]);
        assert!(named(None, 3).len() > 20);
    }
}
