//! What must not grow with the size of a file system: the time to a first listing, a lookup, a read, memory.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lazaret_tests::block::unmount_now;
use lazaret_tests::{Result, command, lazaret};
use serde_json::{Value, json};

use crate::image::{self, FEW, MANY};
use crate::series::{Spread, judged, shown, spread};
use crate::{Plan, host, workload};

/// One figure beside its bar.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: Option<Spread>,
    pub(crate) bar: Option<f64>,
}

impl Figure {
    pub(crate) fn held(&self) -> Option<bool> {
        self.bar.map(|bar| self.value.is_some_and(|value| value.median <= bar))
    }

    pub(crate) fn line(&self) -> String {
        format!("| {} | {} {} | {} |", self.name, shown(self.value), self.unit, judged(self.bar, "≤", self.held()))
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "figure": self.name, "unit": self.unit, "value": spread(self.value), "bar": self.bar, "held": self.held(),
        })
    }
}

/// All of them that are asked for.
pub(crate) fn figures(image: &Path, place: &Path, plan: &Plan) -> Result<Vec<Figure>> {
    let mut all = vec![];
    if plan.wants("mount") {
        all.extend(mounts(place, plan)?);
    }
    if plan.wants("scale") {
        host::read_into_cache(image)?;
        all.push(lookups(image, place, plan)?);
        all.push(fragments(image, place, plan)?);
        all.push(memory(image, place, plan)?);
    }
    all.iter().for_each(|figure| println!("{}", figure.line()));
    Ok(all)
}

/// From the command to the end of `ls`, for a small and for a very large file system.
fn mounts(place: &Path, plan: &Plan) -> Result<[Figure; 3]> {
    let small = image::empty(&plan.kept, "small", 4 << 30)?;
    let large = image::empty(&plan.kept, "large", 4 << 40)?;
    let point = place.join("first");
    std::fs::create_dir_all(&point)?;
    let (mut ours, mut ratios, mut kernels) = (vec![], vec![], vec![]);
    // The first brings programs and metadata into the page cache.
    for round in 0..=plan.rounds.max(5) * 2 {
        let [one, other] = [&small, &large].map(|image| first_listing(&mut lazaret::command(["mount"]), image, &point));
        let (one, other) = (one?, other?);
        let kernel = first_listing(Command::new("mount").args(["-o", "loop,ro"]), &small, &point)?;
        if round > 0 {
            ours.push(one.as_secs_f64() * 1000.0);
            ratios.push(other.as_secs_f64() / one.as_secs_f64());
            kernels.push(one.as_secs_f64() / kernel.as_secs_f64());
        }
    }
    Ok([
        Figure { name: "mount to first ls", unit: "ms", value: Spread::of(ours), bar: Some(25.0) },
        Figure { name: "mount to first ls, 4 TiB ÷ 4 GiB", unit: "", value: Spread::of(ratios), bar: Some(1.2) },
        Figure { name: "mount to first ls, ÷ mount -o loop", unit: "", value: Spread::of(kernels), bar: None },
    ])
}

fn first_listing(mount: &mut Command, image: &Path, point: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mounted = mount.arg(image).arg(point).status()?;
    let listed = Command::new("ls").arg(point).output()?;
    let time = begin.elapsed();
    unmount_now(point)?;
    if !mounted.success() || !String::from_utf8_lossy(&listed.stdout).contains("file") {
        return Err(format!("{mount:?}: {mounted}, and ls printed {:?}", listed.stdout).into());
    }
    Ok(time)
}

fn lookups(image: &Path, place: &Path, plan: &Plan) -> Result<Figure> {
    let ratios = on_fresh_mounts(
        image,
        place,
        plan,
        |root| workload::lookups(&root.join("many"), MANY),
        |root| workload::lookups(&root.join("few"), FEW),
    )?;
    Ok(Figure { name: "lookup in 1 000 000 names ÷ in 1 000", unit: "", value: Spread::of(ratios), bar: Some(2.0) })
}

fn fragments(image: &Path, place: &Path, plan: &Plan) -> Result<Figure> {
    let ratios = on_fresh_mounts(
        image,
        place,
        plan,
        |root| workload::scattered(&root.join("fragmented"), 8192),
        |root| workload::scattered(&root.join("long"), 4096),
    )?;
    let name = "random read in 100 000 extents ÷ contiguous";
    Ok(Figure { name, unit: "", value: Spread::of(ratios), bar: Some(1.5) })
}

/// The ratio of two pieces of work, each on a fresh mount, round by round.
fn on_fresh_mounts(
    image: &Path,
    place: &Path,
    plan: &Plan,
    above: impl Fn(&Path) -> Result<Duration>,
    below: impl Fn(&Path) -> Result<Duration>,
) -> Result<Vec<f64>> {
    let timed = |work: &dyn Fn(&Path) -> Result<Duration>| {
        let mount = lazaret::Mount::with(image, &place.join("scale"), "defaults")?;
        let time = work(mount.path())?;
        mount.unmount(Duration::from_secs(1))?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(time.as_secs_f64())
    };
    (0..plan.rounds).map(|_| Ok(timed(&above)? / timed(&below)?)).collect()
}

/// What the worker holds for itself after it has told the attributes of a million inodes.
fn memory(image: &Path, place: &Path, plan: &Plan) -> Result<Figure> {
    let mut values = vec![];
    for _ in 0..plan.rounds.min(3) {
        let mount = lazaret::Mount::with(image, &place.join("memory"), "defaults")?;
        command::finish(Command::new("find").arg(mount.path().join("many")).args(["-size", "+1"]), command::PATIENCE)?;
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", mount.worker.pid))?;
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.split_whitespace().next());
        let kibibytes: f64 = anonymous.ok_or("smaps_rollup has no line Anonymous")?.parse()?;
        values.push(kibibytes / 1024.0);
        mount.unmount(Duration::from_secs(1))?;
    }
    let name = "private memory of the worker after 1 000 000 inodes";
    Ok(Figure { name, unit: "MiB", value: Spread::of(values), bar: Some(32.0) })
}
