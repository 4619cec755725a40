//! Mounts without root: fusermount3 mounts, and what unmounts is a process of its own, so that the broker can be filtered
//! as root's is and a broker that was killed leaves no mount behind.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use lazaret_tests::command::{Finished, eventually, finish, run, wait};
use lazaret_tests::fusectl::Fusectl;
use lazaret_tests::lazaret::{self, Mount, processes_of};
use lazaret_tests::mutate::random::Random;
use lazaret_tests::process::{self, Process, kill, runs, signal};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, Requirement, proof};
use lazaret_tests::unprivileged::{NOBODY, command_here};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, apart, digest, leftover, recipe, strike};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Apart,
    Requirement::Fuse,
    Requirement::KernelExt4,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("fusermount3"),
    Requirement::Tool("setpriv"),
];

const SOON: Duration = Duration::from_secs(2);

type Test = fn(&Path, &Path) -> Result<Figures>;
/// How somebody unmounts.
type Way = fn(&Path) -> Command;

const TESTS: &[(&str, &str, Test)] = &[
    ("P11", "a user's broker is filtered, and who unmounts holds nothing", three_processes),
    ("P7", "a user's broker that is killed leaves no mount", killed_broker),
    ("P7", "whoever unmounts, all three processes end", unmounted),
    ("P7", "a user's mount that a signal ends is gone when the command returns", signalled),
    ("P7", "a user's worker that is killed leaves no mount", killed_worker),
    ("P7", "a user's mount where one has just ended stays", mounted_again_at_once),
    ("P7", "who unmounts is ended by no signal that ends a broker", deaf),
    ("P7", "a broker whose unmounter was killed goes on", killed_unmounter),
    ("P7", "without an unmounter a mount is left, and that is found", left_is_found),
    ("P14", "a user's connection that is aborted ends the mount", aborted),
    ("P15", "a user's processes are killed at any moment", at_any_moment),
];

fn main() {
    if let Err(error) = apart::enter() {
        eprintln!("{error}");
        std::process::exit(1);
    }
    if apart::is_entered() {
        let open = fs::set_permissions("/dev/fuse", std::os::unix::fs::PermissionsExt::from_mode(0o666));
        assert!(open.is_ok(), "/dev/fuse: {open:?}");
    }
    requirement::main_in_turn(|workshop| {
        let one = |(promise, name, test): &'static (&str, &str, Test)| {
            proof(promise, *name, NEEDS, workshop, |workshop| one(name, *test, workshop))
        };
        TESTS.iter().map(one).collect()
    })
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory(&name.replace([' ', '\'', ','], "-"))?;
    let (image, point) = (workshop.copy(recipe::default(), &place)?, place.join("point"));
    let before = digest::of_file(&image)?;
    fs::create_dir(&point)?;
    chown(&point, Some(NOBODY), Some(NOBODY))?;
    let figures = test(&image, &point)?;
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    Ok(figures)
}

fn mounting(image: &Path, point: &Path, words: &[&str]) -> Command {
    let mut command = command_here(lazaret::broker());
    command.arg("mount").args(words).arg(image).arg(point);
    command
}

/// A user's mount in the background, and who will unmount it.
fn mount(image: &Path, point: &Path) -> Result<(Mount, Process)> {
    let finished = finish(&mut mounting(image, point, &[]), lazaret::PATIENCE)?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stderr.is_empty(), "{finished:?}");
    found(point)
}

fn found(point: &Path) -> Result<(Mount, Process)> {
    let mount = Mount::adopt(point)?;
    let unmounter = unmounter(&mount)?;
    Ok((mount, unmounter))
}

fn unmounter(mount: &Mount) -> Result<Process> {
    let all = processes_of(mount.path());
    let other = |one: &&Process| one.parent == mount.broker.pid && one.pid != mount.worker.pid;
    Ok(all.iter().find(other).ok_or_else(|| format!("nobody would unmount: {all:#?}"))?.clone())
}

/// Whether its user gets answers.
fn serves(point: &Path) -> Result {
    run(command_here("cat").arg(point.join("sizes/4097"))).map(drop)
}

/// What is left of a mount within a second.
fn left(point: &Path) -> Vec<String> {
    let mut left = vec![];
    eventually(SOON, || {
        left = processes_of(point).iter().map(|one| format!("{one:?}")).collect();
        left.extend(leftover::is_mounted(point).then(|| "the mount".to_owned()));
        left.is_empty()
    });
    left
}

fn nothing_is_left(point: &Path) -> Result {
    let left = left(point);
    if left.is_empty() { Ok(()) } else { Err(format!("left: {left:#?}").into()) }
}

fn lazaret_umount(point: &Path) -> Result<Finished> {
    finish(command_here(lazaret::broker()).arg("umount").arg(point), lazaret::PATIENCE)
}

fn links(pid: u32) -> Result<Vec<(String, String)>> {
    let mut all = vec![];
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let to = fs::read_link(entry.path())?;
        all.push((entry.file_name().to_string_lossy().into_owned(), to.to_string_lossy().into_owned()));
    }
    all.sort();
    Ok(all)
}

fn three_processes(image: &Path, point: &Path) -> Result<Figures> {
    let (mount, unmounter) = mount(image, point)?;
    serves(point)?;
    let broker = mount.broker.pid.to_string();
    for (name, wanted) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "1")] {
        let seen = process::status(&broker, name)?;
        assert_eq!(seen, wanted, "{name} of the broker");
    }
    let place = PathBuf::from(format!("/proc/{}", unmounter.pid));
    let fds = links(unmounter.pid)?;
    let shape: Vec<(&str, &str)> =
        fds.iter().map(|(number, to)| (number.as_str(), to.split(':').next().unwrap_or_default())).collect();
    assert_eq!(shape, [("0", "socket"), ("1", "/dev/null"), ("2", "/dev/null")], "{fds:?}");
    assert!(fs::read(place.join("environ"))?.is_empty(), "it has its caller's environment");
    assert_eq!(fs::read_link(place.join("cwd"))?, Path::new("/"));
    let session = fs::read_to_string(place.join("stat"))?
        .rsplit(')')
        .next()
        .and_then(|text| text.split_whitespace().nth(3).map(str::to_owned));
    assert_eq!(session, Some(unmounter.pid.to_string()), "it is in its caller's session");
    // The worker has the other end of nothing that is the unmounter's.
    let numbers: Vec<String> = links(mount.worker.pid)?.into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, ["0", "3"]);
    mount.unmount(SOON)?;
    nothing_is_left(point)?;
    Ok(vec![])
}

fn killed_broker(image: &Path, point: &Path) -> Result<Figures> {
    for _ in 0..5 {
        let (mount, _) = mount(image, point)?;
        // Also where somebody stands in it, and where its worker would answer nobody.
        let mut client = command_here("sh").args(["-c", "cd \"$0\" && exec sleep 60"]).arg(point).spawn()?;
        let stands = || fs::read_link(format!("/proc/{}/cwd", client.id())).is_ok_and(|cwd| cwd == point);
        assert!(eventually(SOON, stands).0, "nobody stands in the mount");
        strike::stop(mount.worker.pid)?;
        kill(mount.broker.pid);
        let left = nothing_is_left(point);
        client.kill()?;
        client.wait()?;
        left?;
    }
    Ok(vec![("kills survived", 5)])
}

fn unmounted(image: &Path, point: &Path) -> Result<Figures> {
    let ways: [(&str, Way); 3] = [
        ("lazaret umount", |point| {
            let mut command = command_here(lazaret::broker());
            command.arg("umount").arg(point);
            command
        }),
        ("fusermount3 -u", |point| {
            let mut command = command_here("fusermount3");
            command.arg("-u").arg(point);
            command
        }),
        ("umount by root", |point| {
            let mut command = Command::new("umount");
            command.arg(point);
            command
        }),
    ];
    for (name, way) in ways {
        let (mut child, _mount) = in_foreground(image, point)?;
        serves(point)?;
        run(&mut way(point)).map_err(|error| format!("{name}: {error}"))?;
        let status = wait(&mut child.0, SOON)?;
        assert_eq!(status.code(), Some(0), "{name}: an unmount from outside is a good end");
        nothing_is_left(point).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(vec![])
}

/// The command in front, ended whatever happens.
struct Front(Child);

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_foreground(image: &Path, point: &Path) -> Result<(Front, Mount)> {
    let mut command = mounting(image, point, &["-f"]);
    command.stdin(Stdio::null()).stderr(fs::File::create(point.with_extension("stderr"))?);
    let mut front = Front(command.spawn()?);
    // fusermount3 mounts first of all; who reads waits until it is served.
    eventually(lazaret::PATIENCE, || leftover::is_mounted(point) || front.0.try_wait().is_ok_and(|end| end.is_some()));
    serves(point)?;
    let (mount, _) = found(point)?;
    assert_eq!(mount.broker.pid, front.0.id(), "the command itself is to be the broker");
    Ok((front, mount))
}

fn signalled(image: &Path, point: &Path) -> Result<Figures> {
    for with in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let (mut front, _mount) = in_foreground(image, point)?;
        signal(front.0.id(), with);
        let status = wait(&mut front.0, SOON)?;
        assert!(!leftover::is_mounted(point), "{with:?}: the mount outlives the command");
        assert_eq!(status.code(), Some(0), "{with:?}");
        nothing_is_left(point)?;
    }
    let (mount, _) = mount(image, point)?;
    signal(mount.broker.pid, Signal::TERM);
    nothing_is_left(point)?;
    Ok(vec![])
}

fn killed_worker(image: &Path, point: &Path) -> Result<Figures> {
    let (mount, _) = mount(image, point)?;
    kill(mount.worker.pid);
    nothing_is_left(point)?;
    Ok(vec![])
}

/// The unmounter of the mount before may still be about to end: it must not take the new one for its own.
fn mounted_again_at_once(image: &Path, point: &Path) -> Result<Figures> {
    for turn in 0..30 {
        let finished = finish(&mut mounting(image, point, &[]), lazaret::PATIENCE)?;
        assert_eq!(finished.code(), Some(0), "turn {turn}: {finished:?}");
        std::thread::sleep(Duration::from_millis(20));
        serves(point).map_err(|error| format!("turn {turn}: {error}"))?;
        // In every other turn the broker has no time to tell its unmounter that there is nothing to do.
        let (mount, _) = found(point)?;
        run(command_here("fusermount3").arg("-u").arg(point))?;
        if turn % 2 == 1 {
            kill(mount.broker.pid);
        }
    }
    nothing_is_left(point)?;
    Ok(vec![("mount cycles", 30)])
}

fn deaf(image: &Path, point: &Path) -> Result<Figures> {
    let (mount, unmounter) = mount(image, point)?;
    for with in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        signal(unmounter.pid, with);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(runs(unmounter.pid), "it was ended by a signal");
    serves(point)?;
    kill(mount.broker.pid);
    nothing_is_left(point)?;
    Ok(vec![])
}

/// The mount with no unmounter any more, and no zombie of it.
fn bereft(image: &Path, point: &Path) -> Result<(Front, Mount)> {
    let (front, mount) = in_foreground(image, point)?;
    let unmounter = unmounter(&mount)?;
    kill(unmounter.pid);
    let (reaped, _) = eventually(SOON, || !Path::new(&format!("/proc/{}", unmounter.pid)).exists());
    assert!(reaped, "its broker does not wait for it");
    serves(point)?;
    Ok((front, mount))
}

fn killed_unmounter(image: &Path, point: &Path) -> Result<Figures> {
    let said = || fs::read_to_string(point.with_extension("stderr"));
    let (mut front, _mount) = bereft(image, point)?;
    assert!(said()?.contains("killed the process that unmounts"), "{}", said()?);
    let finished = lazaret_umount(point)?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(wait(&mut front.0, SOON)?.code(), Some(0));
    nothing_is_left(point)?;
    // Where the broker is to end the mount, nobody can take it away: it answers nobody, and fusermount3 does it.
    let (mut front, _mount) = bereft(image, point)?;
    signal(front.0.id(), Signal::TERM);
    wait(&mut front.0, SOON)?;
    assert!(leftover::is_mounted(point), "somebody has unmounted");
    let asked = finish(command_here("stat").arg(point), SOON)?;
    assert!(asked.stderr.contains("not connected"), "{asked:?}");
    run(command_here("fusermount3").arg("-u").arg(point))?;
    nothing_is_left(point)?;
    Ok(vec![])
}

/// The test of these tests.
fn left_is_found(image: &Path, point: &Path) -> Result<Figures> {
    let (mount, unmounter) = mount(image, point)?;
    kill(unmounter.pid);
    kill(mount.broker.pid);
    assert_eq!(left(point), ["the mount"]);
    drop(mount);
    Ok(vec![("sabotages found", 1)])
}

/// Without fusectl a user's broker sees of its connection that it was aborted, and nothing else.
fn aborted(image: &Path, point: &Path) -> Result<Figures> {
    let fusectl = Fusectl::mount(&point.with_extension("fusectl"))?;
    for stopped in [false, true] {
        let (mut front, mount) = in_foreground(image, point)?;
        if stopped {
            strike::stop(mount.worker.pid)?;
        }
        fusectl.abort(point)?;
        let status = wait(&mut front.0, Duration::from_secs(3))?;
        let said = fs::read_to_string(point.with_extension("stderr"))?;
        assert!(status.code() == Some(32) && said.contains("the connection was aborted"), "{status}: {said}");
        nothing_is_left(point)?;
    }
    Ok(vec![("aborts noticed", 2)])
}

/// One of the processes of a mount is killed at some moment of its start or of its life. A mount may be left only where it
/// was the one that unmounts, or where it was not there yet; and then it answers nobody.
/// By the name that the process gives itself.
fn is_unmounter(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "lazaret-ending")
}

fn at_any_moment(image: &Path, point: &Path) -> Result<Figures> {
    let kills = std::env::var("LAZARET_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(160_u64) / 4;
    let (mut random, mut left) = (Random::new(7), 0);
    for turn in 0..kills {
        let mut front = Front(mounting(image, point, &[]).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?);
        std::thread::sleep(Duration::from_micros(random.below(80_000) as u64));
        let running = processes_of(point);
        // Whoever would unmount stands ready, and is not the one that is killed.
        let mut guarded = running.iter().any(|one| is_unmounter(one.pid));
        if !running.is_empty() {
            let victim = random.pick(&running).pid;
            guarded &= !is_unmounter(victim);
            kill(victim);
        }
        wait(&mut front.0, lazaret::PATIENCE)?;
        if leftover::is_mounted(point) && processes_of(point).iter().any(|one| runs(one.pid)) {
            // Without its front, or its unmounter, a broker may have become ready all the same.
            let _ = lazaret_umount(point);
        }
        let (over, _) = eventually(SOON, || processes_of(point).is_empty());
        assert!(over, "kill {turn}: processes are left: {:#?}", processes_of(point));
        if leftover::is_mounted(point) {
            assert!(!guarded, "kill {turn}: nobody has unmounted");
            left += 1;
            let asked = finish(command_here("stat").arg("-f").arg(point), SOON)?;
            assert!(asked.code() != Some(0), "kill {turn}: nobody is there, and still there was an answer");
            run(command_here("fusermount3").arg("-u").arg(point))?;
        }
        if turn % 10 == 9 {
            let (mount, _) = mount(image, point).map_err(|error| format!("after kill {turn}: {error}"))?;
            serves(point)?;
            mount.unmount(SOON)?;
        }
    }
    println!(
        "{left} of {kills} kills have left a mount that answers nobody, before anybody stood ready or with who did"
    );
    Ok(vec![("kills survived", kills)])
}
