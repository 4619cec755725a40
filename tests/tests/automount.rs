//! `lazaret automount` with a real systemd-udevd and real uevents: what is plugged in is mounted within a second as the
//! policy says, and nothing is left when it is pulled out, whatever was read from it and whoever was killed meanwhile.
//!
//! A loop device is the stick. `LAZARET_PLUGS` says how often one comes and goes; `make prove` asks for 200.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lazaret_tests::automount::{
    self, Daemon, GONE, LONG, MOUNT, SOON, Stick, Test, filled, mounted_within, mounting, mounts, nothing_within,
    place_of, policy,
};
use lazaret_tests::command::{self, eventually};
use lazaret_tests::fill::noise;
use lazaret_tests::prove::Figures;
use lazaret_tests::{Result, lazaret, process, superblock};
use rustix::process::Signal;

const TESTS: &[(&str, Test)] = &[
    ("plugged in, read, unmounted by hand, pulled out", life),
    ("pulled out under load, and plugged in again at once", under_load),
    ("pulled out without a daemon", alone),
    ("two sticks with the same label and UUID", twins),
    ("the daemon is ended and killed and finds its mounts again", restarts),
    ("what was left is found and taken away", remains),
    ("what the worker refuses is mounted by nobody", refused),
    ("one device alone", only),
    ("a stick that is left is found", left_is_found),
    ("sticks come and go and leave nothing", cycles),
];

fn main() {
    automount::main(TESTS)
}

/// The test of these tests: of a stick that is there still the mount, its directory and its processes are each named.
fn left_is_found(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let mut stick = filled(place, "left", "left", &[])?;
    let device = stick.plug()?.to_owned();
    let (point, _) = mounted_within(&device, SOON)?;
    let said = match nothing_within(Duration::from_millis(100)) {
        Err(error) => error.to_string(),
        Ok(_) => return Err("a mount is there, and nothing is found".into()),
    };
    let mount = format!("{} at {}", device.display(), point.display());
    for word in [&mount, "/run/media/root/left,", "lazaret-worker"] {
        assert!(said.contains(word), "{word} is not named: {said}");
    }
    stick.pull()?;
    nothing_within(GONE)?;
    drop(daemon);
    Ok(vec![("sabotages found", 3)])
}

fn life(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let mut stick = filled(place, "a", "Holiday 2024", &[])?;
    let device = stick.plug()?.to_owned();
    let (point, took) = mounted_within(&device, SOON)?;
    assert_eq!(point, Path::new("/run/media/root/Holiday 2024"));
    assert_eq!(fs::read_to_string(point.join("name"))?, "a");
    assert!(fs::read(point.join("long"))? == noise(7, LONG), "read wrongly");
    let above = fs::metadata("/run/media/root")?;
    assert_eq!((above.uid(), above.permissions().mode() & 0o7777), (0, 0o750));
    daemon.says("mounted: /run/media/root/Holiday 2024", SOON)?;
    command::run(Command::new("umount").arg(&point))?;
    nothing_within(GONE)?;
    daemon.says("the mount has ended: /run/media/root/Holiday 2024", SOON)?;
    // It is plugged in still, and not mounted again, whatever udev tells of it.
    command::run(Command::new("udevadm").args(["trigger", "--settle", "--action=change"]).arg(&device))?;
    thread::sleep(Duration::from_millis(300));
    assert_eq!(place_of(&device), None, "mounted again though it was unmounted by hand");
    stick.pull()?;
    stick.plug()?;
    let (_, again) = mounted_within(stick.device(), SOON)?;
    stick.pull()?;
    nothing_within(GONE)?;
    daemon.says("pulled out while it was mounted", GONE)?;
    Ok(vec![("plugged in", 2), ("milliseconds to the mount", took.max(again).as_millis() as u64)])
}

/// Lists and reads until there is an error; when that came.
fn client(point: &Path, began: &AtomicU64, over: &AtomicBool) -> Option<(Instant, Option<i32>)> {
    while !over.load(Ordering::Relaxed) {
        let visit = || -> std::io::Result<()> {
            fs::read_dir(point)?.collect::<std::io::Result<Vec<_>>>()?;
            let mut file = File::open(point.join("long"))?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            let mut bytes = vec![];
            file.read_to_end(&mut bytes)?;
            assert!(bytes.len() != LONG || bytes == noise(7, LONG), "read wrongly, without an error");
            Ok(())
        };
        match visit() {
            Ok(()) => began.fetch_add(1, Ordering::Relaxed),
            Err(error) => return Some((Instant::now(), error.raw_os_error())),
        };
    }
    None
}

/// Pulls a mounted stick out while four clients read from it: how long until the last of them had an error.
fn pulled_under_load(stick: &mut Stick, point: &Path) -> Result<Duration> {
    let (began, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| client(point, &began, &over))).collect();
        let busy = eventually(Duration::from_secs(5), || began.load(Ordering::Relaxed) > 3).0;
        let pulled = Instant::now();
        let result = stick.pull();
        let freed = eventually(GONE, || clients.iter().all(|client| client.is_finished())).0;
        over.store(true, Ordering::Relaxed);
        let ends: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        result?;
        assert!(busy && freed, "busy: {busy}, freed: {freed}");
        let mut last = Duration::ZERO;
        for end in ends {
            let (when, errno) = end.map_err(|_| "a client has panicked")?.ok_or("a client without an error")?;
            // Read from what is gone, asked of a mount that has ended, or looked for where none is any more.
            let known = [libc::EIO, libc::ENOTCONN, libc::ECONNABORTED, libc::ENOENT, libc::EUCLEAN, libc::EBADMSG];
            assert!(errno.is_some_and(|errno| known.contains(&errno)), "{errno:?}");
            last = last.max(when.saturating_duration_since(pulled));
        }
        Ok(last)
    })
}

fn under_load(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let mut stick = filled(place, "a", "LOAD", &[])?;
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        stick.plug()?;
        let (point, _) = mounted_within(stick.device(), SOON)?;
        assert_eq!(point, Path::new("/run/media/root/LOAD"), "the name before is free again");
        longest = longest.max(pulled_under_load(&mut stick, &point)?);
    }
    nothing_within(GONE)?;
    daemon.says("pulled out while it was mounted; the mount is ended: /run/media/root/LOAD", GONE)?;
    Ok(vec![("clients freed", 12), ("milliseconds until freed", longest.as_millis() as u64)])
}

fn alone(place: &Path) -> Result<Figures> {
    let mut stick = filled(place, "a", "ALONE", &[])?;
    let point = place.join("point");
    fs::create_dir(&point)?;
    let mut freed = Duration::ZERO;
    // With silence watched for, and without.
    for timeout in ["60", "0"] {
        stick.plug()?;
        let mut mount = Command::new("setpriv");
        mount.args(["--pdeathsig", "KILL", "--"]).arg(lazaret::broker()).args(["mount", "-f", "-o"]);
        mount.arg(format!("timeout={timeout}")).arg(stick.device()).arg(&point);
        let mut child = mount.stderr(std::process::Stdio::piped()).spawn()?;
        let result =
            mounted_within(stick.device(), Duration::from_secs(5)).and_then(|_| pulled_under_load(&mut stick, &point));
        let status = command::wait(&mut child, GONE)?;
        freed = freed.max(result?);
        let mut said = String::new();
        child.stderr.take().ok_or("no stderr")?.read_to_string(&mut said)?;
        assert_eq!(status.code(), Some(32), "{said}");
        assert!(said.contains(": the medium was pulled out, and the mount was ended"), "{said}");
        assert!(!said.contains("bug of its own"), "{said}");
    }
    Ok(vec![("clients freed", 8), ("milliseconds until freed", freed.as_millis() as u64)])
}

fn twins(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let uuid = ["-U", "5ca1ab1e-0000-4000-8000-000000000002"];
    let (mut one, mut other) = (filled(place, "one", "TWIN", &uuid)?, filled(place, "other", "TWIN", &uuid)?);
    one.plug()?;
    other.plug()?;
    let (first, second) = (mounted_within(one.device(), SOON)?.0, mounted_within(other.device(), SOON)?.0);
    let mut names: Vec<_> = [&first, &second].map(|point| point.file_name().unwrap_or_default().to_owned()).into();
    names.sort();
    assert_eq!(names, ["TWIN", "TWIN-2"]);
    assert_eq!(fs::read_to_string(first.join("name"))?, "one");
    assert_eq!(fs::read_to_string(second.join("name"))?, "other");
    one.pull()?;
    let (gone, _) = eventually(GONE, || mounts().len() == 1);
    assert!(gone, "{:?}", mounts());
    assert_eq!(fs::read_to_string(second.join("name"))?, "other", "the other one goes on");
    one.plug()?;
    let (again, _) = mounted_within(one.device(), SOON)?;
    assert_eq!(fs::read_to_string(again.join("name"))?, "one");
    one.pull()?;
    other.pull()?;
    nothing_within(GONE)?;
    drop(daemon);
    Ok(vec![("sticks told apart", 2)])
}

fn restarts(place: &Path) -> Result<Figures> {
    let mut stick = filled(place, "a", "STAYS", &[])?;
    let mut daemon = Daemon::start(place, &policy(MOUNT))?;
    let path = daemon.policy().to_owned();
    stick.plug()?;
    let (point, _) = mounted_within(stick.device(), SOON)?;
    let mut file = File::open(point.join("long"))?;
    let before = mounting();
    for signal in [Signal::TERM, Signal::KILL, Signal::INT, Signal::KILL] {
        let code = daemon.stop(signal)?;
        assert_eq!(code, (signal != Signal::KILL).then_some(0));
        assert_eq!(fs::read_to_string(point.join("name"))?, "a", "the mount goes on without the daemon");
        daemon = Daemon::again(&path)?;
        daemon.says("found mounted: /run/media/root/STAYS", SOON)?;
    }
    let mut bytes = vec![];
    file.read_to_end(&mut bytes)?;
    assert!(bytes == noise(7, LONG), "what was open is read on");
    drop(file);
    assert_eq!(mounts().len(), 1, "mounted twice: {:?}", mounts());
    let pids = |processes: &[process::Process]| processes.iter().map(|one| one.pid).collect::<Vec<_>>();
    assert_eq!(pids(&mounting()), pids(&before), "the worker is another");
    // It takes away what it has only found.
    stick.pull()?;
    nothing_within(GONE)?;
    daemon.says("pulled out while it was mounted", GONE)?;
    // A second one beside it is refused.
    let finished = lazaret::run(["automount".as_ref(), "--policy".as_ref(), path.as_os_str()])?;
    assert_eq!((finished.code(), &*finished.stderr), (Some(2), "lazaret: another lazaret automount runs already\n"));
    Ok(vec![("restarts", 4)])
}

fn remains(place: &Path) -> Result<Figures> {
    let (mut stick, mut other) = (filled(place, "a", "LEFT", &[])?, filled(place, "b", "STRUCK", &[])?);
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let path = daemon.policy().to_owned();
    stick.plug()?;
    other.plug()?;
    let (point, _) = mounted_within(stick.device(), SOON)?;
    let (struck, _) = mounted_within(other.device(), SOON)?;
    daemon.stop(Signal::KILL)?;
    // While no daemon runs one is unmounted, and of the other the broker is killed.
    command::run(Command::new("umount").arg(&point))?;
    assert!(point.is_dir(), "its directory is left");
    fs::create_dir("/run/media/root/not ours")?;
    let brokers = mounting().into_iter().filter(|one| one.mentions(&struck));
    brokers.for_each(|one| process::kill(one.pid));
    stick.pull()?;
    other.pull()?;
    let daemon = Daemon::again(&path)?;
    let (clean, _) = eventually(GONE, || mounts().is_empty() && !point.exists());
    let others = Path::new("/run/media/root/not ours").exists();
    fs::remove_dir("/run/media/root/not ours")?;
    assert!(clean, "left: {:?}, {:?}", mounts(), daemon.said());
    assert!(others, "what somebody else has made is removed");
    // The names are free again.
    other.plug()?;
    assert_eq!(mounted_within(other.device(), SOON)?.0, struck);
    other.pull()?;
    nothing_within(GONE)?;
    Ok(vec![("remains taken away", 2)])
}

/// A feature that changes directories and that the worker refuses by name.
const DIRDATA: u32 = 0x1000;

fn refused(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let mut stick = filled(place, "a", "BROKEN", &[])?;
    // blkid of udev takes it for ext4 all the same.
    superblock::change(stick.image(), |bytes| superblock::set_bits(bytes, 0x60, DIRDATA))?;
    stick.plug()?;
    let line = daemon.says("(BROKEN): refused: ", SOON)?;
    thread::sleep(Duration::from_millis(300));
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let name = stick.device().to_str().ok_or("a plain name")?;
    assert!(!text.lines().any(|line| line.contains(name)), "mounted all the same: {line}");
    nothing_within(GONE)?;
    stick.pull()?;
    Ok(vec![("refused", 1)])
}

fn only(place: &Path) -> Result<Figures> {
    let path = place.join("only.toml");
    fs::write(&path, policy(MOUNT))?;
    let (mut stick, mut other) = (filled(place, "a", "ONLY", &[])?, filled(place, "b", "OTHER", &[])?);
    for end in ["pulled", "signal", "both"] {
        let device = stick.plug()?.to_str().ok_or("a plain name")?.to_owned();
        command::run(Command::new("udevadm").args(["settle", "--timeout=10"]))?;
        let mut daemon = Daemon::with(&path, &["--only", &device])?;
        assert_eq!(place_of(stick.device()), Some("/run/media/root/ONLY".into()), "ready before it is mounted");
        other.plug()?;
        match end {
            "pulled" => {
                stick.pull()?;
                assert_eq!(daemon.code()?, Some(0));
            }
            "signal" => assert_eq!(daemon.stop(Signal::TERM)?, Some(0)),
            _ => pulled_and_stopped(&mut stick, daemon)?,
        }
        nothing_within(GONE)?;
        stick.pull()?;
        assert_eq!(place_of(other.device()), None);
        other.pull()?;
    }
    stopped_while_mounting(&mut stick, &path)?;
    let finished = lazaret::run(["automount", "--only", "/dev/null"])?;
    assert_eq!((finished.code(), &*finished.stderr), (Some(32), "lazaret: /dev/null: is not a block device\n"));
    Ok(vec![("devices", 4)])
}

/// It is ended while the command that mounts has not come to its end.
fn stopped_while_mounting(stick: &mut Stick, policy: &Path) -> Result {
    let device = stick.plug()?.to_owned();
    command::run(Command::new("udevadm").args(["settle", "--timeout=10"]))?;
    let mut daemon = Command::new("setpriv");
    daemon.args(["--pdeathsig", "KILL"]).arg(lazaret::broker()).args(["automount", "--policy"]).arg(policy);
    let mut daemon = daemon.arg("--only").arg(&device).stderr(Stdio::null()).spawn()?;
    let mut commands = vec![];
    let (begun, _) = eventually(SOON, || {
        commands = mounting().into_iter().filter(|one| one.mentions(&device)).map(|one| one.pid).collect();
        !commands.is_empty()
    });
    commands.iter().for_each(|&pid| process::signal(pid, Signal::STOP));
    process::signal(daemon.id(), Signal::TERM);
    thread::sleep(Duration::from_millis(300));
    commands.iter().for_each(|&pid| process::signal(pid, Signal::CONT));
    let ended = command::wait(&mut daemon, command::PATIENCE);
    assert!(begun, "nothing was begun to be mounted");
    assert_eq!(ended?.code(), Some(0));
    nothing_within(GONE)?;
    stick.pull()
}

/// As systemd does that a unit is bound to a device: it is ended while the mount of what was pulled out is still ending.
fn pulled_and_stopped(stick: &mut Stick, daemon: Daemon) -> Result {
    let point = place_of(stick.device()).ok_or("it is mounted")?;
    let brokers: Vec<u32> = mounting().into_iter().filter(|one| one.mentions(&point)).map(|one| one.pid).collect();
    brokers.iter().for_each(|&pid| process::signal(pid, Signal::STOP));
    stick.pull()?;
    daemon.says("pulled out while it was mounted", GONE)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            brokers.iter().for_each(|&pid| process::signal(pid, Signal::CONT));
        });
        assert_eq!(daemon.stop(Signal::TERM)?, Some(0));
        Ok(())
    })
}

/// How many open files and how much memory in KiB a process keeps. While it looks around it has a file more for a moment.
fn burden(pid: u32) -> Result<(usize, u64)> {
    let mut files = usize::MAX;
    for _ in 0..20 {
        files = files.min(fs::read_dir(format!("/proc/{pid}/fd"))?.count());
        thread::sleep(Duration::from_millis(5));
    }
    let memory = process::status(&pid.to_string(), "VmRSS")?;
    Ok((files, memory.trim_end_matches(" kB").trim().parse()?))
}

fn cycles(place: &Path) -> Result<Figures> {
    let count = std::env::var("LAZARET_PLUGS").ok().and_then(|count| count.parse().ok()).unwrap_or(8_u64);
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let mut stick = filled(place, "a", "CYCLE", &[])?;
    let mut longest = Duration::ZERO;
    let mut burdens = vec![];
    for cycle in 0..count {
        stick.plug()?;
        let (point, took) = mounted_within(stick.device(), SOON)
            .map_err(|error| format!("cycle {cycle}: {error}, {:#?}", daemon.said()))?;
        longest = longest.max(took);
        assert_eq!(point, Path::new("/run/media/root/CYCLE"), "cycle {cycle}");
        // By hand, in use, and just so.
        match cycle % 4 {
            0 => command::run(Command::new("umount").arg(&point)).map(drop)?,
            1 => drop(pulled_under_load(&mut stick, &point)?),
            _ => {}
        }
        stick.pull()?;
        nothing_within(GONE).map_err(|error| format!("cycle {cycle}: {error}"))?;
        if cycle > 3 {
            burdens.push(burden(daemon.pid())?);
        }
    }
    let (Some(first), Some(last)) = (burdens.first(), burdens.last()) else { return Err("too few cycles".into()) };
    assert!(last.0 <= first.0, "open files grow: {burdens:?}");
    assert!(last.1 <= first.1 + 1024, "memory grows: {burdens:?}");
    Ok(vec![("plugged in and out", count), ("milliseconds to the mount at most", longest.as_millis() as u64)])
}
