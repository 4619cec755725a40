//! Nobody is held hostage: a worker that is stopped, computes without end or only pretends to work is ended in time, and
//! whoever waited for it gets an error. A mount without a broker says so at once, and gives way to the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use lazaret_tests::command::{eventually, run};
use lazaret_tests::fill::noise;
use lazaret_tests::fusectl::Fusectl;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::process::{kill, runs, signal};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, Requirement, TRACED, proof};
use lazaret_tests::strike::{self, Call, Struck, Whose};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, recipe};

/// What is granted, and what the broker may take beyond it, in seconds.
const TIMEOUT: u64 = 3;
const BEYOND: u64 = 2;
/// By when the broker has noticed that a connection was aborted: it looks each second, and lets the worker end by itself.
const NOTICED: Duration = Duration::from_secs(3);

type Test = fn(&Path, &Path) -> Result<Figures>;

const TESTS: &[(&str, Test)] = &[
    ("a stopped worker frees its clients in time", |image, point| silent(image, point, &strike::stop)),
    ("a spinning worker frees its clients in time", |image, point| silent(image, point, &strike::make_spin)),
    ("a connection that is aborted ends the mount", aborted),
    ("an abort that nobody notices is found", abort_is_not_noticed),
    ("a client of a silent worker is killed and its worker ended in time", killed_client),
    ("a broker that waits too long is found", too_patient),
    ("a stopped worker does not hold up SIGTERM to the broker", terminated),
    ("umount of a silent worker's mount ends in time", unmounted),
    ("a worker that is slow is not taken for silent", slow),
    ("a mount without a broker answers at once", without_broker),
    ("a mount without a broker gives way to the next", replaced),
    ("a mount whose worker is stopped does not give way", not_replaced),
    ("a start that is held up keeps no other mount alive", held_up),
];

/// For a connection that the kernel ends by itself.
const BY_KERNEL: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::KernelExt4,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("losetup"),
    Requirement::Tool("strace"),
    Requirement::Kernel(6, 15),
];

fn main() {
    requirement::main(|workshop| {
        let trial =
            |(name, test): &'static (&str, Test)| proof("P14", *name, TRACED, workshop, |w| one(name, *test, w));
        let name = "a worker that pretends to work is ended by the kernel, and its mount by the broker";
        let by_kernel = proof("P14", name, BY_KERNEL, workshop, |w| one(name, pretending, w));
        TESTS.iter().map(trial).chain([by_kernel]).collect()
    })
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory(&name.replace([' ', '\''], "-"))?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    let figures = test(&image, &place.join("point"))?;
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    Ok(figures)
}

fn timeout() -> String {
    format!("timeout={TIMEOUT}")
}

/// Something a client asks, on a file that nobody asked about before.
type Ask = fn(&Path) -> io::Result<()>;

const ASKS: &[(&str, Ask)] = &[
    ("read", |root| fs::read(root.join("sizes/65536")).map(drop)),
    ("list", |root| fs::read_dir(root.join("hard-links"))?.try_for_each(|entry| entry.map(drop))),
    ("stat", |root| fs::symlink_metadata(root.join("sizes/4097")).map(drop)),
    ("statfs", |root| Ok(rustix::fs::statvfs(root).map(drop)?)),
    ("open", |root| fs::File::open(root.join("sizes/4096")).map(drop)),
];

/// Asks everything at once; each answer with the time it took.
fn ask_all(root: &Path) -> mpsc::Receiver<(&'static str, io::Result<()>, Duration)> {
    let (sender, receiver) = mpsc::channel();
    for (name, ask) in ASKS {
        let (sender, root, start) = (sender.clone(), root.to_owned(), Instant::now());
        thread::spawn(move || {
            let answer = ask(&root);
            sender.send((*name, answer, start.elapsed()))
        });
    }
    receiver
}

/// Every one of them gets an error, after the time that was granted and in the time that is left then.
fn all_freed(answers: &mpsc::Receiver<(&'static str, io::Result<()>, Duration)>) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for _ in ASKS {
        let (name, answer, took) = answers
            .recv_timeout(Duration::from_secs(TIMEOUT + BEYOND + 10))
            .map_err(|_| format!("a client hangs, and timeout= was {TIMEOUT}"))?;
        assert!(answer.is_err(), "{name} was answered by a worker that does not work");
        assert!(took >= Duration::from_secs(TIMEOUT), "{name} was given up after {took:?}");
        longest = longest.max(took);
    }
    let most = Duration::from_secs(TIMEOUT + BEYOND);
    if longest <= most { Ok(longest) } else { Err(format!("a client was freed after {longest:?}").into()) }
}

fn gone(mount: &Mount) -> Result {
    let (gone, _) = eventually(Duration::from_secs(BEYOND), || !leftover::is_mounted(mount.path()));
    assert!(gone, "the mount is left");
    mount.gone_within(Duration::from_secs(1)).map(drop)
}

fn silent(image: &Path, point: &Path, silence: &dyn Fn(u32) -> Result) -> Result<Figures> {
    let mount = Mount::with(image, point, &timeout())?;
    silence(mount.worker.pid)?;
    let freed = all_freed(&ask_all(point));
    kill(mount.worker.pid);
    let longest = freed?;
    gone(&mount)?;
    println!("the last of {} clients was freed after {longest:?}, timeout={TIMEOUT}", ASKS.len());
    Ok(vec![("clients freed", ASKS.len() as u64)])
}

/// The test of these tests: a broker that was granted more frees its clients, and later than they may be.
fn too_patient(image: &Path, point: &Path) -> Result<Figures> {
    let mount = Mount::with(image, point, &format!("timeout={}", TIMEOUT + BEYOND + 2))?;
    strike::stop(mount.worker.pid)?;
    let freed = all_freed(&ask_all(point));
    kill(mount.worker.pid);
    gone(&mount)?;
    match freed {
        Err(error) if error.to_string().contains("was freed after") => Ok(vec![("sabotages found", 1)]),
        other => Err(format!("nobody sees that clients are kept too long: {other:?}").into()),
    }
}

/// A mount in the foreground, and what it has said at its end.
struct Foreground(Child, PathBuf);

impl Foreground {
    fn mount(image: &Path, point: &Path, options: &str) -> Result<(Self, Mount)> {
        fs::create_dir_all(point)?;
        let stderr = point.with_extension("stderr");
        let mut command = lazaret::command(["mount", "-f", "-o", options]);
        command.arg(image).arg(point).stdin(Stdio::null()).stderr(fs::File::create(&stderr)?);
        let mut own = Self(command.spawn()?, stderr);
        eventually(lazaret::PATIENCE, || {
            leftover::is_mounted(point) || own.0.try_wait().is_ok_and(|end| end.is_some())
        });
        Ok((own, Mount::adopt(point)?))
    }

    /// The broker notices by itself and soon that the connection was aborted, ends the mount, and tells it.
    fn tells_the_abort(mut self, mount: &Mount) -> Result {
        let (ended, took) = eventually(NOTICED, || self.0.try_wait().is_ok_and(|end| end.is_some()));
        assert!(ended, "after {took:?} the broker watches a connection that was aborted");
        let (status, said) = (self.0.wait()?, fs::read_to_string(&self.1)?);
        let told =
            status.code() == Some(32) && said.contains("the connection was aborted") && said.lines().count() == 1;
        assert!(told, "{status}: {said}");
        gone(mount)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Such a worker makes progress by all that can be seen from outside, so its broker waits. The kernel looks at its requests
/// every 15 seconds, and grants none less than that; the worker does not end by itself then.
fn pretending(image: &Path, point: &Path) -> Result<Figures> {
    const LOOKS: u64 = 15;
    let (front, mount) = Foreground::mount(image, point, "timeout=2")?;
    strike::make_pretend(mount.worker.pid)?;
    let start = Instant::now();
    let answers = ask_all(point);
    let mut freed = vec![];
    for _ in ASKS {
        let answer = answers.recv_timeout(Duration::from_secs(2 * LOOKS + BEYOND).saturating_sub(start.elapsed()));
        freed.extend(answer.ok());
    }
    let alone = runs(mount.broker.pid) && runs(mount.worker.pid);
    assert_eq!(freed.len(), ASKS.len(), "clients hang");
    for (name, answer, took) in freed {
        assert!(answer.is_err(), "{name} was answered by a worker that does not work");
        assert!(took >= Duration::from_secs(LOOKS - 1), "{name} was given up after {took:?}, not by the kernel");
    }
    assert!(alone, "the broker has ended the worker, so this shows nothing of the kernel");
    front.tells_the_abort(&mount)?;
    Ok(vec![("clients freed", ASKS.len() as u64)])
}

/// A connection that somebody aborts ends the mount, whether its worker hears of it or not.
fn aborted(image: &Path, point: &Path) -> Result<Figures> {
    let fusectl = Fusectl::mount(&point.with_extension("fusectl"))?;
    let (front, mount) = Foreground::mount(image, point, "timeout=60")?;
    fusectl.abort(point)?;
    front.tells_the_abort(&mount)?;
    let (front, mount) = Foreground::mount(image, point, "timeout=60")?;
    strike::stop(mount.worker.pid)?;
    fusectl.abort(point)?;
    front.tells_the_abort(&mount)?;
    Ok(vec![("aborts noticed", 2)])
}

/// The test of these tests: a broker that stands still notices nothing, and the mount is left.
fn abort_is_not_noticed(image: &Path, point: &Path) -> Result<Figures> {
    let fusectl = Fusectl::mount(&point.with_extension("fusectl"))?;
    let (front, mount) = Foreground::mount(image, point, "timeout=60")?;
    strike::stop(mount.broker.pid)?;
    fusectl.abort(point)?;
    let (ended, _) = eventually(NOTICED, || !leftover::is_mounted(point));
    signal(mount.broker.pid, Signal::CONT);
    assert!(!ended, "a mount that nobody ends has ended");
    front.tells_the_abort(&mount)?;
    Ok(vec![("sabotages found", 1)])
}

/// The kernel does not let go of a client whose request a worker has taken, so its kill waits for the end of the mount.
fn killed_client(image: &Path, point: &Path) -> Result<Figures> {
    let mount = Mount::with(image, point, &timeout())?;
    strike::stop(mount.worker.pid)?;
    let mut client = Command::new("cat").arg(point.join("sizes/65536")).stdout(Stdio::null()).spawn()?;
    thread::sleep(Duration::from_millis(300));
    client.kill()?;
    let (ended, took) =
        eventually(Duration::from_secs(TIMEOUT + BEYOND), || client.try_wait().is_ok_and(|end| end.is_some()));
    kill(mount.worker.pid);
    client.wait()?;
    assert!(ended, "a client that was killed is there after {took:?}");
    // A request that the worker had not taken yet goes with its client; then the mount lives until somebody asks again.
    if leftover::is_mounted(point) {
        gone(&mount)?;
    }
    mount.gone_within(Duration::from_secs(1))?;
    Ok(vec![("clients freed", 1)])
}

fn terminated(image: &Path, point: &Path) -> Result<Figures> {
    let mount = Mount::with(image, point, "timeout=60")?;
    strike::stop(mount.worker.pid)?;
    let answers = ask_all(point);
    thread::sleep(Duration::from_millis(200));
    signal(mount.broker.pid, Signal::TERM);
    for _ in ASKS {
        let answer = answers.recv_timeout(Duration::from_secs(BEYOND)).map_err(|_| "a client hangs")?;
        assert!(answer.1.is_err(), "{answer:?}");
    }
    gone(&mount)?;
    Ok(vec![("clients freed", ASKS.len() as u64)])
}

/// The last unmount waits for requests that a worker is at: not longer than until that is ended.
fn unmounted(image: &Path, point: &Path) -> Result<Figures> {
    let mount = Mount::with(image, point, &timeout())?;
    strike::make_spin(mount.worker.pid)?;
    let answers = ask_all(point);
    thread::sleep(Duration::from_millis(200));
    let place = point.to_owned();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH)));
    let detached = receiver.recv_timeout(Duration::from_secs(TIMEOUT + BEYOND)).map_err(|_| "umount hangs")?;
    let freed = all_freed(&answers);
    kill(mount.worker.pid);
    detached?;
    freed?;
    gone(&mount)?;
    Ok(vec![("clients freed", ASKS.len() as u64)])
}

/// A worker that stands still for shorter than `timeout=`, again and again, is not ended.
fn slow(image: &Path, point: &Path) -> Result<Figures> {
    let mount = Mount::with(image, point, "timeout=2")?;
    for turn in 0..3 {
        strike::stop(mount.worker.pid)?;
        let (path, number) = (point.join(format!("sizes/{}", [4096, 4097, 65536][turn])), [4096, 4097, 65536][turn]);
        let client = thread::spawn(move || fs::read(path).map(|content| content == noise(number, number as usize)));
        thread::sleep(Duration::from_millis(1200));
        signal(mount.worker.pid, Signal::CONT);
        let answer = client.join().map_err(|_| "a panic")?;
        assert!(answer.as_ref().is_ok_and(|same| *same), "turn {turn}: {answer:?}");
    }
    assert!(runs(mount.worker.pid) && leftover::is_mounted(point), "a slow worker was ended");
    mount.unmount(Duration::from_secs(1))?;
    Ok(vec![])
}

fn killed_broker(image: &Path, point: &Path) -> Result<Mount> {
    let mount = Mount::new(image, point)?;
    kill(mount.broker.pid);
    let (gone, _) = eventually(Duration::from_millis(500), || !runs(mount.worker.pid));
    assert!(gone, "the worker outlives its broker");
    Ok(mount)
}

fn without_broker(image: &Path, point: &Path) -> Result<Figures> {
    let mount = killed_broker(image, point)?;
    let answers = ask_all(point);
    for _ in ASKS {
        let (name, answer, took) = answers.recv_timeout(Duration::from_secs(1)).map_err(|_| "a client hangs")?;
        let error = answer.err().ok_or_else(|| format!("{name} was answered, and nobody is there"))?;
        // The second for who came while the kernel still tidied up.
        let kinds = [io::ErrorKind::NotConnected, io::ErrorKind::ConnectionAborted];
        assert!(kinds.contains(&error.kind()), "{name}: {error}, after {took:?}");
    }
    let finished = lazaret::run(["umount".as_ref(), point.as_os_str()])?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(!leftover::is_mounted(point), "it is mounted still");
    drop(mount);
    Ok(vec![("clients freed", ASKS.len() as u64)])
}

fn reads_right(root: &Path) -> Result {
    let content = fs::read(root.join("sizes/65536")).map_err(|error| format!("reading a file: {error}"))?;
    if content == noise(65536, 65536) { Ok(()) } else { Err("a file has another content".into()) }
}

/// Also where a client still stands in the dead one, which makes it busy.
fn replaced(image: &Path, point: &Path) -> Result<Figures> {
    let dead = killed_broker(image, point)?;
    let _stands_there = rustix::fs::open(point, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    let finished = lazaret::run(["mount".as_ref(), image.as_os_str(), point.as_os_str()])?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let mount = Mount::adopt(point)?;
    reads_right(point)?;
    let lines = fs::read_to_string("/proc/self/mountinfo")?;
    let here = lines.lines().filter(|line| line.split(' ').nth(4) == point.to_str()).count();
    assert_eq!(here, 1, "the dead mount lies beneath:\n{lines}");
    mount.unmount(Duration::from_secs(1))?;
    drop(dead);
    Ok(vec![])
}

fn not_replaced(image: &Path, point: &Path) -> Result<Figures> {
    let mount = Mount::new(image, point)?;
    strike::stop(mount.worker.pid)?;
    let finished = lazaret::run(["mount".as_ref(), image.as_os_str(), point.as_os_str()])?;
    signal(mount.worker.pid, Signal::CONT);
    assert_eq!(finished.code(), Some(32), "{finished:?}");
    assert!(finished.stderr.contains("busy"), "{finished:?}");
    reads_right(point)?;
    mount.unmount(Duration::from_secs(1))?;
    Ok(vec![])
}

/// A worker that is about to start holds no copy of the host's mounts while it waits: a file system lives as long as it
/// is in any copy, so the end of every other mount would wait with it.
fn held_up(image: &Path, point: &Path) -> Result<Figures> {
    let mount = Mount::new(image, point)?;
    let other = point.with_file_name("other");
    // The steps between the birth of a worker and the moment it takes its namespace and throws the copy away.
    let steps = ["setsid", "setgroups", "setresgid", "setresuid"];
    let mut held: Vec<(Struck, PathBuf)> = vec![];
    for name in steps {
        let point = other.with_extension(name);
        let struck = Struck::mount(image, &point, Call { name, count: 1 }, Whose::Either, "SIGSTOP")?;
        let (stands, _) = eventually(lazaret::PATIENCE, || struck.has_struck());
        assert!(stands, "no worker has come to {name}");
        held.push((struck, point));
    }
    run(Command::new("umount").arg(point))?;
    let ended = mount.gone_within(Duration::from_secs(1));
    drop(held);
    ended?;
    Ok(vec![("starts held up", steps.len() as u64)])
}
