//! Broker and worker are killed at the steps of a start and at any moment under load, and mounts come and go a thousand
//! times: nothing hangs, nothing is left, nothing grows, the next mount works and the image is as it was.
//!
//! `LAZARET_KILLS` and `LAZARET_CYCLES` say how many; `make prove` asks for a thousand of each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use lazaret_tests::block::{LoopDevice, unmount_now};
use lazaret_tests::command::{eventually, wait};
use lazaret_tests::fill::noise;
use lazaret_tests::fusectl::Fusectl;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::mutate::random::Random;
use lazaret_tests::process::{self, kill};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, TRACED, proof};
use lazaret_tests::strike::{BROKER, Call, Struck, WORKER, Whose};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, recipe};

const SOON: Duration = Duration::from_secs(2);
/// As many starts and kills side by side.
const SIDES: u64 = 2;

fn main() {
    requirement::main_in_turn(|workshop| {
        vec![
            proof("P15", "killed at each step of a start", TRACED, workshop, at_each_step),
            proof("P15", "what is left behind is found", TRACED, workshop, left_is_found),
            proof("P15", "killed at any moment under load", TRACED, workshop, at_any_moment),
            proof("P15", "mounts that come and go leave nothing and nothing grows", TRACED, workshop, come_and_go),
        ]
    })
}

/// The test of these tests: a mount, a process and a loop device that are left are each named.
fn left_is_found(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("left")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let named = |words: &str| match leftover::nothing_of(&place) {
        Err(error) if error.to_string().contains(words) => Ok(()),
        other => Err(format!("{words} is left, and what is said is {other:?}")),
    };
    let mount = Mount::new(&image, &place.join("point"))?;
    named("a mount at")?;
    named(&format!("pid: {}", mount.worker.pid))?;
    mount.unmount(Duration::from_secs(1))?;
    leftover::nothing_of(&place)?;
    let device = LoopDevice::attach(&image, true)?;
    named("a loop device over")?;
    drop(device);
    leftover::nothing_of(&place)?;
    Ok(vec![("sabotages found", 3)])
}

/// How many, where nobody says.
fn count(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(otherwise)
}

/// Runs `work` on several sides at once; all that failed on any of them.
fn side_by_side(work: impl Fn(u64) -> Result<u64> + Sync) -> Result<u64> {
    let results: Vec<_> = thread::scope(|scope| {
        let sides: Vec<_> = (0..SIDES)
            .map(|side| (side, &work))
            .map(|(side, work)| scope.spawn(move || work(side).map_err(|error| error.to_string())))
            .collect();
        sides.into_iter().map(|side| side.join().unwrap_or_else(|_| Err("a panic".into()))).collect()
    });
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err().cloned()).collect();
    if failed.is_empty() { Ok(results.into_iter().flatten().sum()) } else { Err(failed.join("\n").into()) }
}

/// An error if the answer does not come soon. The thread is left to the kernel then.
fn soon<T: Send + 'static>(what: &str, ask: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(ask()));
    receiver.recv_timeout(SOON).map_err(|_| format!("{what} hangs").into())
}

/// Nothing runs any more that was told of this place, and what is mounted there, if anything, answers with an error.
fn is_over(point: &Path) -> Result {
    let mut left = vec![];
    let (over, _) = eventually(SOON, || {
        left = lazaret::processes_of(point);
        left.is_empty()
    });
    if !over {
        left.iter().for_each(|one| kill(one.pid));
        return Err(format!("processes are left: {left:#?}").into());
    }
    if leftover::is_mounted(point) {
        let root = point.to_owned();
        // A directory may be listed from the kernel's memory all the same; this is asked each time.
        let answer = soon("a mount without a broker", move || rustix::fs::statvfs(&root).map(drop))?;
        assert!(answer.is_err(), "nobody is there, and still there was an answer");
    }
    Ok(())
}

/// The next mount at this place works, whatever is there.
fn next_mount_works(source: &Path, point: &Path) -> Result {
    let mut finished = lazaret::run(["mount".as_ref(), source.as_os_str(), point.as_os_str()])?;
    // A process that is past its end and not yet out of the kernel holds a block device for a moment.
    eventually(SOON, || {
        let again = finished.stderr.contains("is in use").then(|| {
            lazaret::run(["mount".as_ref(), source.as_os_str(), point.as_os_str()]).map(|next| finished = next)
        });
        again.is_none()
    });
    if finished.code() != Some(0) {
        return Err(format!("the next mount: {finished:?}").into());
    }
    let mount = Mount::adopt(point)?;
    let content = fs::read(point.join("sizes/65536"))?;
    assert!(content == noise(65536, 65536), "the next mount reads something else");
    mount.unmount(SOON).map(drop)
}

fn at_each_step(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("at-each-step")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    let device = LoopDevice::attach(&image, true)?;
    let kills = side_by_side(|side| {
        let (steps, whose) = if side == 0 { (BROKER, Whose::Broker) } else { (WORKER, Whose::Either) };
        let point = place.join(format!("point-{side}"));
        for (turn, (name, count)) in steps.iter().enumerate() {
            let (call, file) = (Call { name, count: *count }, if turn % 2 == 0 { &image } else { device.path() });
            // A block device is claimed by one mount at a time.
            let file = if side == 1 { &image } else { file };
            let ended = struck(file, &point, call, whose).and_then(|()| next_mount_works(file, &point));
            ended.map_err(|error| format!("killed at {name} {count} ({whose:?}): {error}"))?;
        }
        Ok(steps.len() as u64)
    })?;
    drop(device);
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    Ok(vec![("kills survived", kills)])
}

fn struck(source: &Path, point: &Path, call: Call, whose: Whose) -> Result {
    let mut struck = Struck::mount(source, point, call, whose, "SIGKILL")?;
    struck.wait(lazaret::PATIENCE)?;
    assert!(struck.has_struck(), "the start makes no such call");
    is_over(point)
}

/// A client that lists and reads as long as it is wanted, whatever the answers are.
struct Client(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Client {
    fn start(root: &Path) -> Self {
        let (wanted, root) = (Arc::new(AtomicBool::new(true)), root.to_owned());
        let on = wanted.clone();
        let work = move || {
            while on.load(Ordering::Relaxed) {
                let _ = fs::read(root.join("sizes/65536"));
                let _ = fs::read_dir(root.join("hard-links")).map(Iterator::count);
                thread::sleep(Duration::from_millis(1));
            }
        };
        Self(wanted, Some(thread::spawn(work)))
    }

    /// It ends soon, so it does not hang.
    fn end(mut self) -> Result {
        self.0.store(false, Ordering::Relaxed);
        let client = self.1.take().ok_or("it ends once")?;
        let (ended, _) = eventually(SOON, || client.is_finished());
        if ended { client.join().map_err(|_| "a panic".into()) } else { Err("a client hangs".into()) }
    }
}

/// The command in front, ended whatever happens.
struct Front(Child);

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at_any_moment(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("at-any-moment")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    let each = count("LAZARET_KILLS", 160).div_ceil(SIDES);
    let kills = side_by_side(|side| {
        let (point, mut random) = (place.join(format!("point-{side}")), Random::new(side));
        fs::create_dir_all(&point)?;
        for turn in 0..each {
            killed_once(&image, &point, &mut random).map_err(|error| format!("side {side}, kill {turn}: {error}"))?;
            if turn % 10 == 9 || turn + 1 == each {
                next_mount_works(&image, &point).map_err(|error| format!("side {side}, after kill {turn}: {error}"))?;
            }
        }
        Ok(each)
    })?;
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    Ok(vec![("kills survived", kills)])
}

/// One mount, of which one process is killed at some moment of its start or of its first work.
fn killed_once(image: &Path, point: &Path, random: &mut Random) -> Result {
    let client = Client::start(point);
    let mut command = lazaret::command(["mount".as_ref(), image.as_os_str(), point.as_os_str()]);
    let mut front = Front(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    thread::sleep(Duration::from_micros(random.below(60_000) as u64));
    let running = lazaret::processes_of(point);
    if !running.is_empty() {
        kill(random.pick(&running).pid);
    }
    wait(&mut front.0, lazaret::PATIENCE)?;
    // Without its front, a broker may have become ready all the same.
    if leftover::is_mounted(point) && lazaret::processes_of(point).len() >= 2 {
        let ended = unmount_now(point);
        // It may have been about to end by itself.
        if leftover::is_mounted(point) && lazaret::processes_of(point).len() >= 2 {
            ended?;
        }
    }
    client.end()?;
    is_over(point)
}

/// What may not grow: objects of the kernel that live as long as a mount, a namespace or a process. Inodes and files
/// are not among them, since whatever else runs on this machine makes them by the thousand.
fn objects(fusectl: &Fusectl) -> Result<BTreeMap<String, u64>> {
    const SLABS: &[&str] = &["mnt_cache", "fuse_request", "net_namespace", "user_namespace", "task_struct"];
    let table = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let slabs = lines.filter(|fields| fields.len() > 2 && SLABS.contains(&fields[0]));
    let slabs = slabs.filter_map(|fields| Some((fields[0].to_owned(), fields[1].parse().ok()?)));
    let connections = fusectl.count()?;
    Ok(slabs.chain([("connections".to_owned(), connections)]).collect())
}

/// Open fds and resident memory in KiB of a process.
fn holds(pid: u32) -> Result<(usize, u64)> {
    let resident = process::status(&pid.to_string(), "VmRSS")?;
    let resident = resident.split_whitespace().next().ok_or("no number")?.parse()?;
    Ok((fs::read_dir(format!("/proc/{pid}/fd"))?.count(), resident))
}

/// One mount stays and is read from in every turn, another comes and goes beside it.
fn come_and_go(workshop: &Workshop) -> Result<Figures> {
    const WARM: u64 = 20;
    let place = workshop.directory("come-and-go")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    let cycles = count("LAZARET_CYCLES", 160);
    let stays = Mount::new(&image, &place.join("stays"))?;
    let (point, fusectl) = (place.join("comes"), Fusectl::mount(&place.join("fusectl"))?);
    let turn = || -> Result {
        let mount = Mount::new(&image, &point)?;
        for root in [mount.path(), stays.path()] {
            assert!(fs::read(root.join("sizes/4097"))? == noise(4097, 4097));
            fs::read_dir(root.join("hard-links"))?.count();
        }
        mount.unmount(SOON).map(drop)
    };
    (0..WARM).try_for_each(|_| turn())?;
    let (objects_before, pair) = (objects(&fusectl)?, [&stays.broker, &stays.worker].map(|one| one.pid));
    assert!(objects_before.len() >= 2, "the kernel shows nothing to count: {objects_before:?}");
    let held = pair.map(holds);
    (0..cycles).try_for_each(|number| turn().map_err(|error| format!("cycle {number}: {error}")))?;
    for (pid, before) in pair.into_iter().zip(held) {
        let ((fds, resident), (fds_before, resident_before)) = (holds(pid)?, before?);
        assert_eq!(fds, fds_before, "process {pid} holds other fds than before");
        assert!(resident <= resident_before + 512, "process {pid} has grown from {resident_before} to {resident} KiB");
    }
    // One object left in every second cycle would be seen; the kernel tidies namespaces up some time later.
    let most = cycles / 2;
    let mut now = BTreeMap::new();
    let (flat, _) = eventually(Duration::from_secs(20), || {
        now = objects(&fusectl).unwrap_or_default();
        objects_before.iter().all(|(name, before)| now.get(name).is_some_and(|now| *now <= before + most))
    });
    assert!(flat, "grown in {cycles} cycles from {objects_before:?} to {now:?}");
    println!("before {cycles} cycles {objects_before:?}, after {now:?}");
    drop(fusectl);
    stays.unmount(SOON)?;
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    Ok(vec![("mount cycles", cycles)])
}
