//! How a mount begins and how it ends: when the command returns, when the processes are gone, and what a client sees
//! when one of them is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use lazaret_tests::block::{LoopDevice, unmount_now};
use lazaret_tests::command::{eventually, finish, run, wait};
use lazaret_tests::fill::noise;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::process::{kill, runs, signal};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, MOUNTS, proof};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, recipe, strike};

const SECOND: Duration = Duration::from_secs(1);

/// A test on a fresh image and an empty directory; at its end nothing may be left and the image be unchanged.
type Test = fn(&Path, &Path) -> Result;

const TESTS: &[(&str, Test)] = &[
    ("mount returns when the mount answers", answers_at_once),
    ("umount ends worker and broker within a second", umount_ends_all),
    ("lazaret umount ends worker and broker within a second", own_umount_ends_all),
    ("lazaret umount of what is not mounted is refused", own_umount_of_nothing),
    ("lazaret umount of what the kernel mounted is refused", own_umount_of_others),
    ("umount of a busy mount is refused and the mount lives", busy_umount),
    ("lazy umount ends all when the last file is closed", lazy_umount),
    ("in the foreground SIGTERM ends the mount", |image, place| foreground(image, place, Signal::TERM)),
    ("in the foreground SIGINT ends the mount", |image, place| foreground(image, place, Signal::INT)),
    ("in the foreground umount ends the command well", foreground_umount),
    ("SIGTERM to a broker in the background ends the mount", background_sigterm),
    ("a pipe to mount is not kept open", pipe_is_closed),
    ("the caller's directory is not held", directory_is_free),
    ("the caller's lock is not inherited", descriptors_are_not_inherited),
    ("a killed worker ends the mount and its clients get errors", killed_worker),
    ("a killed worker frees a client that waits for it", killed_silent_worker),
    ("a stopped worker is ended by the broker after timeout=", silent_worker),
    ("a killed broker takes the worker with it", killed_broker),
    ("a block device is mounted", block_device),
    ("one image is mounted twice", twice),
    ("mount and umount a hundred times leave nothing", a_hundred_times),
    ("a mount where one has just ended stays", mounted_again_at_once),
    ("many mounts at once all answer", many_at_once),
    ("what is left behind is found", left_is_found),
];

fn main() {
    requirement::main(|workshop| {
        TESTS
            .iter()
            .map(|(name, test)| proof("P7", *name, MOUNTS, workshop, |workshop| one(name, *test, workshop)))
            .collect()
    })
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory(&name.replace([' ', '/'], "-"))?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    test(&image, &place.join("point"))?;
    if digest::of_file(&image)? != before {
        return Err("the image was written to".into());
    }
    leftover::nothing_of(&place)?;
    Ok(vec![])
}

/// A file is what the recipe wrote.
fn reads_right(root: &Path) -> Result {
    let content = fs::read(root.join("sizes/65536")).map_err(|error| format!("reading a file: {error}"))?;
    if content == noise(65536, 65536) { Ok(()) } else { Err("a file has another content".into()) }
}

fn answers_at_once(image: &Path, point: &Path) -> Result {
    fs::create_dir(point)?;
    let finished = lazaret::run(["mount".as_ref(), image.as_os_str(), point.as_os_str()])?;
    let listed = fs::read_dir(point).map(Iterator::count);
    let mount = Mount::adopt(point)?;
    if finished.code() != Some(0) || !finished.stderr.is_empty() || !finished.stdout.is_empty() {
        return Err(format!("mount is to succeed and say nothing: {finished:?}").into());
    }
    if !listed.as_ref().is_ok_and(|count| *count > 10) {
        return Err(format!("the directory was listed as {listed:?}").into());
    }
    reads_right(point)?;
    let info = fs::read_to_string("/proc/self/mountinfo")?;
    let line = info.lines().find(|line| line.contains(&*point.to_string_lossy())).ok_or("no line in mountinfo")?;
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        let options = line.split(' ').nth(5).unwrap_or_default();
        assert!(options.split(',').any(|option| option == word), "{word} is missing among {options}");
    }
    assert!(line.contains(" - fuse"), "the type is not fuse: {line}");
    mount.unmount(SECOND).map(drop)
}

fn umount_ends_all(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    reads_right(point)?;
    run(Command::new("umount").arg(point))?;
    mount.gone_within(SECOND).map(drop)
}

fn own_umount_ends_all(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    reads_right(point)?;
    let finished = lazaret::run(["umount".as_ref(), point.as_os_str()])?;
    assert!(finished.code() == Some(0) && finished.stderr.is_empty(), "{finished:?}");
    assert!(!leftover::is_mounted(point), "it is mounted still");
    mount.gone_within(SECOND).map(drop)
}

fn own_umount_of_nothing(_: &Path, point: &Path) -> Result {
    fs::create_dir(point)?;
    refused_umount(point)
}

fn own_umount_of_others(image: &Path, point: &Path) -> Result {
    let kernel = lazaret_tests::block::KernelMount::read_only(image, point)?;
    refused_umount(point)?;
    assert!(leftover::is_mounted(point), "a mount of the kernel's was ended");
    kernel.unmount()
}

fn refused_umount(point: &Path) -> Result {
    let finished = lazaret::run(["umount".as_ref(), point.as_os_str()])?;
    let names_it = finished.stderr.contains(&*point.to_string_lossy());
    if finished.code() == Some(32) && finished.stderr.lines().count() == 1 && names_it {
        return Ok(());
    }
    Err(format!("exit code 32 and one line that names the directory are wanted: {finished:?}").into())
}

fn busy_umount(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let open = fs::File::open(point.join("sizes/4097"))?;
    let finished = lazaret::run(["umount".as_ref(), point.as_os_str()])?;
    assert!(finished.code() == Some(32), "{finished:?}");
    assert!(finished.stderr.to_lowercase().contains("busy"), "{finished:?}");
    reads_right(point)?;
    drop(open);
    mount.unmount(SECOND).map(drop)
}

fn lazy_umount(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let open = fs::File::open(point.join("sizes/1048579"))?;
    unmount(point, UnmountFlags::DETACH)?;
    thread::sleep(Duration::from_millis(200));
    assert!(runs(mount.worker.pid), "the worker is gone while a file is open");
    let mut last = [0; 3];
    std::os::unix::fs::FileExt::read_exact_at(&open, &mut last, 1 << 20)?;
    assert_eq!(last[..], noise((1 << 20) + 3, (1 << 20) + 3)[1 << 20..]);
    drop(open);
    mount.gone_within(SECOND).map(drop)
}

/// A `lazaret mount -f` that is ended, whatever happens.
struct Foreground(Child);

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_foreground(image: &Path, point: &Path) -> Result<(Foreground, Mount)> {
    fs::create_dir(point)?;
    let mut command = lazaret::command(["mount".as_ref(), "-f".as_ref(), image.as_os_str(), point.as_os_str()]);
    let mut child = Foreground(command.stdin(Stdio::null()).spawn()?);
    eventually(lazaret::PATIENCE, || leftover::is_mounted(point) || child.0.try_wait().is_ok_and(|end| end.is_some()));
    let mount = Mount::adopt(point)?;
    assert_eq!(mount.broker.pid, child.0.id(), "the command itself is to be the broker");
    reads_right(point)?;
    Ok((child, mount))
}

fn foreground(image: &Path, point: &Path, with: Signal) -> Result {
    let (mut child, mount) = in_foreground(image, point)?;
    signal(child.0.id(), with);
    wait(&mut child.0, SECOND)?;
    let (gone, _) = eventually(SECOND, || !leftover::is_mounted(point));
    assert!(gone, "the mount is left");
    mount.gone_within(SECOND).map(drop)
}

fn foreground_umount(image: &Path, point: &Path) -> Result {
    let (mut child, mount) = in_foreground(image, point)?;
    run(Command::new("umount").arg(point))?;
    let status = wait(&mut child.0, SECOND)?;
    assert_eq!(status.code(), Some(0), "an unmount from outside is a good end");
    mount.gone_within(SECOND).map(drop)
}

fn background_sigterm(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    signal(mount.broker.pid, Signal::TERM);
    let (gone, _) = eventually(SECOND, || !leftover::is_mounted(point));
    assert!(gone, "the mount is left");
    mount.gone_within(SECOND).map(drop)
}

fn pipe_is_closed(image: &Path, point: &Path) -> Result {
    fs::create_dir(point)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" mount \"$1\" \"$2\" 2>&1 | cat"]).arg(lazaret::broker()).arg(image).arg(point);
    let ended = finish(&mut shell, Duration::from_secs(10));
    let mount = Mount::adopt(point)?;
    ended.map_err(|error| format!("the reader of the pipe waits: {error}"))?;
    mount.unmount(SECOND).map(drop)
}

/// A daemon that stays in its caller's directory would keep that file system from being unmounted.
fn directory_is_free(image: &Path, point: &Path) -> Result {
    fs::create_dir(point)?;
    let (mut command, place) = (Command::new(lazaret::broker()), point.parent().ok_or("a parent")?);
    command.args(["mount".as_ref(), image.as_os_str(), "point".as_ref()]).current_dir(place);
    let finished = finish(&mut command, lazaret::PATIENCE)?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let found = lazaret_tests::process::with_descendants(|one| {
        lazaret_tests::process::is_executable(one, &lazaret::broker())
            && one.mentions(Path::new("point\0"))
            && one.mentions(image)
    });
    let directories: Vec<PathBuf> =
        found.iter().filter_map(|one| fs::read_link(format!("/proc/{}/cwd", one.pid)).ok()).collect();
    run(Command::new("umount").arg(point))?;
    assert!(found.len() >= 2, "broker and worker are not found: {found:?}");
    assert!(directories.iter().all(|one| one == Path::new("/")), "they stand in {directories:?}");
    let (gone, _) = eventually(SECOND, || found.iter().all(|one| !runs(one.pid)));
    if gone { Ok(()) } else { Err("processes are left".into()) }
}

fn descriptors_are_not_inherited(image: &Path, point: &Path) -> Result {
    fs::create_dir(point)?;
    let lock = point.with_file_name("lock");
    let mut shell = Command::new("sh");
    let script = "exec 9>\"$0\"; exec \"$1\" mount \"$2\" \"$3\"";
    shell.args(["-c", script]).args([&lock, &lazaret::broker(), image, point].map(Path::as_os_str));
    run(&mut shell)?;
    let mount = Mount::adopt(point)?;
    for one in [&mount.broker, &mount.worker] {
        let fds = fs::read_dir(format!("/proc/{}/fd", one.pid))?.flatten();
        let held = fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|file| file == lock);
        assert!(!held, "{one:?} holds a file of its caller's");
    }
    mount.unmount(SECOND).map(drop)
}

fn killed_worker(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let open = fs::File::open(point.join("sizes/6291456"))?;
    kill(mount.worker.pid);
    let mut byte = [0];
    let answer =
        within(Duration::from_secs(2), move || std::os::unix::fs::FileExt::read_at(&open, &mut byte, 5 << 20))?;
    assert!(answer.is_err(), "a read from a dead worker gives {answer:?}");
    let (gone, _) = eventually(Duration::from_secs(2), || !leftover::is_mounted(point));
    assert!(gone, "the mount is left");
    mount.gone_within(SECOND).map(drop)
}

fn killed_silent_worker(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    strike::stop(mount.worker.pid)?;
    let path = point.join("sizes/4096");
    let client = thread::spawn(move || fs::read(path).map(drop));
    thread::sleep(Duration::from_millis(300));
    assert!(!client.is_finished(), "a stopped worker cannot have answered");
    kill(mount.worker.pid);
    let (free, _) = eventually(Duration::from_secs(2), || client.is_finished());
    assert!(free, "the client waits for a worker that is dead");
    assert!(client.join().is_ok_and(|answer| answer.is_err()), "a dead worker has answered");
    let (gone, _) = eventually(Duration::from_secs(2), || !leftover::is_mounted(point));
    assert!(gone, "the mount is left");
    mount.gone_within(SECOND).map(drop)
}

fn silent_worker(image: &Path, point: &Path) -> Result {
    let mount = Mount::with(image, point, "timeout=2")?;
    strike::stop(mount.worker.pid)?;
    let (start, path) = (Instant::now(), point.join("sizes/4096"));
    let client = thread::spawn(move || fs::read(path).map(drop));
    let (free, _) = eventually(Duration::from_secs(10), || client.is_finished());
    kill(mount.worker.pid);
    assert!(free, "after {:?} the client waits still, timeout= was 2", start.elapsed());
    assert!(start.elapsed() >= SECOND, "two seconds were granted and {:?} given", start.elapsed());
    assert!(client.join().is_ok_and(|answer| answer.is_err()), "a silent worker has answered");
    let (gone, _) = eventually(Duration::from_secs(2), || !leftover::is_mounted(point));
    assert!(gone, "the mount is left");
    mount.gone_within(SECOND).map(drop)
}

fn killed_broker(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    kill(mount.broker.pid);
    let (gone, took) = eventually(Duration::from_secs(2), || !runs(mount.worker.pid));
    assert!(gone && took < Duration::from_millis(200), "the worker outlived its broker by {took:?}");
    let path = point.join("sizes/4096");
    let answer = within(Duration::from_secs(2), move || fs::read(path).map(drop))?;
    assert!(answer.is_err(), "nobody is there, and still an answer came");
    Ok(())
}

fn block_device(image: &Path, point: &Path) -> Result {
    let device = LoopDevice::attach(image, true)?;
    let mount = Mount::new(device.path(), point)?;
    reads_right(point)?;
    let info = fs::read_to_string("/proc/self/mountinfo")?;
    let line = info.lines().find(|line| line.contains(&*point.to_string_lossy())).ok_or("no line in mountinfo")?;
    assert!(line.contains(&*device.path().to_string_lossy()), "the source is not named: {line}");
    let other = point.with_file_name("other");
    fs::create_dir(&other)?;
    let flags = rustix::mount::MountFlags::RDONLY;
    let claimed = rustix::mount::mount(device.path(), &other, "ext4", flags, None);
    if claimed.is_ok() {
        unmount(&other, UnmountFlags::DETACH)?;
    }
    assert_eq!(claimed, Err(rustix::io::Errno::BUSY), "the device is to be claimed while it is mounted");
    mount.unmount(SECOND).map(drop)
}

fn twice(image: &Path, point: &Path) -> Result {
    let first = Mount::new(image, point)?;
    let second = Mount::new(image, &point.with_file_name("second"))?;
    reads_right(first.path())?;
    reads_right(second.path())?;
    first.unmount(SECOND)?;
    reads_right(second.path())?;
    second.unmount(SECOND).map(drop)
}

fn a_hundred_times(image: &Path, point: &Path) -> Result {
    for _ in 0..100 {
        let mount = Mount::new(image, point)?;
        reads_right(point)?;
        mount.unmount(SECOND)?;
    }
    Ok(())
}

/// The broker of the mount before may still be about to end: it must not take the new one for its own.
fn mounted_again_at_once(image: &Path, point: &Path) -> Result {
    fs::create_dir(point)?;
    for turn in 0..100 {
        let finished = lazaret::run(["mount".as_ref(), image.as_os_str(), point.as_os_str()])?;
        assert_eq!(finished.code(), Some(0), "turn {turn}: {finished:?}");
        thread::sleep(Duration::from_millis(20));
        assert!(leftover::is_mounted(point), "turn {turn}: the mount has gone");
        reads_right(point)?;
        unmount_now(point)?;
    }
    Ok(())
}

/// Eight mounts come and go side by side, on more threads than there are processors: whatever a start waits for without
/// being sure of it shows here.
fn many_at_once(image: &Path, point: &Path) -> Result {
    let one = |number: usize| -> Result {
        for turn in 0..15 {
            let mount = Mount::new(image, &point.with_file_name(format!("point-{number}")))
                .map_err(|error| format!("mount {number}, turn {turn}: {error}"))?;
            reads_right(mount.path()).map_err(|error| format!("mount {number}, turn {turn}: {error}"))?;
            mount.unmount(Duration::from_secs(5))?;
        }
        Ok(())
    };
    let failed: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|number| scope.spawn(move || one(number).err().map(|error| error.to_string()))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap_or_else(|_| Some("a panic".into()))).collect()
    });
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

/// The check that ends every test here turns red for a mount, a process and a loop device that are left.
fn left_is_found(image: &Path, point: &Path) -> Result {
    let place = point.parent().ok_or("a parent")?;
    leftover::nothing_of(place)?;
    let mount = Mount::new(image, point)?;
    let left = leftover::nothing_of(place).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(left.contains("a mount at") && left.contains(&mount.broker.pid.to_string()), "{left}");
    mount.unmount(SECOND)?;
    let device = LoopDevice::attach(image, true)?;
    let left = leftover::nothing_of(place).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(left.contains("a loop device over"), "{left}");
    drop(device);
    Ok(())
}

/// What `ask` answers; an error if it does not answer in time. The thread is left to the kernel then.
fn within<T: Send + 'static>(patience: Duration, ask: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(ask()));
    receiver.recv_timeout(patience).map_err(|_| format!("a client hangs for more than {patience:?}").into())
}
