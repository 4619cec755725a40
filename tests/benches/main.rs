//! `make bench`: Lazaret beside the kernel's loop mount and fuse2fs, on the same image, in turns, as ratios of time.
//!
//! What holds here: nothing is compared but what ran in the same run; each figure is a median with its least and most;
//! what misses its bar is printed as a miss. Absolute times are the machine's, ratios are ours.

mod chart;
mod contender;
mod count;
mod host;
mod image;
mod profile;
mod report;
mod scale;
mod series;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lazaret_tests::{Result, lazaret};

use crate::contender::Contender;
use crate::series::Series;
use crate::workload::{State, WORKLOADS, Workload};

/// What is to be measured, from the environment that `make bench` sets.
struct Plan {
    /// Rounds of every comparison, each with every contender once.
    rounds: usize,
    /// Only workloads with this in their name.
    only: String,
    /// Where images, figures and charts are kept.
    kept: PathBuf,
}

fn main() -> ExitCode {
    // Under callgrind this program is its own subject.
    if let Some(operation) = count::asked_for() {
        return finished(count::run(&operation));
    }
    finished(bench())
}

fn finished(result: Result) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result {
    let plan = Plan::from_environment()?;
    let place = tempfile::Builder::new().prefix("lazaret-bench-").tempdir()?;
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    lazaret::install_from(&programs()?, &place.path().join("programs"))?;
    let image = image::main(&plan.kept)?;
    let mut report = report::Report::new(host::describe()?);
    for workload in WORKLOADS.iter().filter(|workload| plan.wants(workload.name)) {
        for series in compare(workload, &image, place.path(), &plan)? {
            report.add(series);
        }
    }
    for figure in scale::figures(&image, place.path(), &plan)? {
        report.add_figure(figure);
    }
    report.add_counts(count::figures(&plan)?);
    report.add_profile(profile::shares(&image, place.path(), &plan)?);
    print!("{}", report.table());
    report.write(&plan.kept)
}

/// One workload, every contender in turn, on a fresh mount and a second time on the same one; then with every cache
/// dropped.
fn compare(workload: &Workload, image: &Path, place: &Path, plan: &Plan) -> Result<Vec<Series>> {
    let mut all: Vec<_> = State::ALL.iter().map(|state| Series::new(workload, *state)).collect();
    for cached in [true, false] {
        if cached {
            host::read_into_cache(image)?;
        }
        for round in 0..plan.rounds {
            for contender in Contender::in_turn(round) {
                if contender == Contender::Fuse2fs && !all[0].fuse2fs_may_run_again() {
                    continue;
                }
                for (state, time) in one_mount(workload, contender, image, place, cached)? {
                    all[state as usize].push(contender, round, time);
                }
            }
        }
    }
    for series in &all {
        println!("{}", series.line());
    }
    Ok(all)
}

fn one_mount(
    workload: &Workload,
    contender: Contender,
    image: &Path,
    place: &Path,
    cached: bool,
) -> Result<Vec<(State, std::time::Duration)>> {
    if !cached {
        host::drop_caches()?;
    }
    let mount = contender.mount(image, &place.join("mount"))?;
    let mut times = vec![];
    if cached {
        times.push((State::Fresh, (workload.run)(mount.path())?));
        times.push((State::Second, (workload.run)(mount.path())?));
    } else {
        times.push((State::Dropped, (workload.run)(mount.path())?));
    }
    mount.unmount()?;
    Ok(times)
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let word = |name: &str| std::env::var(name).unwrap_or_default();
        let rounds = match word("LAZARET_BENCH_ROUNDS").as_str() {
            "" => 5,
            rounds => rounds.parse().map_err(|_| format!("LAZARET_BENCH_ROUNDS={rounds} is no number"))?,
        };
        let kept = PathBuf::from(match word("LAZARET_BENCH_KEPT").as_str() {
            "" => return Err("LAZARET_BENCH_KEPT names no directory for images and figures: use `make bench`".into()),
            kept => kept.to_owned(),
        });
        std::fs::create_dir_all(&kept)?;
        Ok(Self { rounds, only: word("LAZARET_BENCH_ONLY"), kept })
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

/// Where the release lies that is measured.
fn programs() -> Result<PathBuf> {
    let path =
        std::env::var_os("LAZARET_BENCH_PROGRAMS").ok_or("LAZARET_BENCH_PROGRAMS is not set: use `make bench`")?;
    Ok(path.into())
}
