//! The device misbehaves: content that changes, errors once and for ever, short reads, stalls, a device that shrinks and
//! grows again or is pulled out, as a file and as a block device. What was hit gives an error and nothing else does;
//! nothing that was read is wrong; the worker lives, or is ended in time; nobody hangs.
//!
//! `LAZARET_STALL` says for how many seconds the device stalls; `make prove` asks for thirty.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use lazaret_tests::block::{LoopDevice, unmount_now};
use lazaret_tests::command::eventually;
use lazaret_tests::damage::Victim;
use lazaret_tests::evil_disk::{EvilDisk, Fault};
use lazaret_tests::exchange::exchange;
use lazaret_tests::fill::noise;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::process::{self, runs};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, MOUNTS, TRACED, proof};
use lazaret_tests::strike::{Call, Struck, Whose};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, recipe};

/// A long file, and the part of it that is hit: whole blocks that lie in one piece.
const LONG: &str = "sizes/6291456";
const LENGTH: usize = 6 << 20;
const HIT: Range<u64> = 2 << 20..3 << 20;
const PIECE: u64 = 64 << 10;
/// Another file, which is not hit.
const OTHER: (&str, usize) = ("sizes/65536", 65536);
/// For what ends a mount, in seconds.
const TIMEOUT: u64 = 3;
const BEYOND: u64 = 2;

/// What reading a part and what a visit of everything may take, in seconds, beside a stall.
const READING: u64 = 20;
const VISIT: u64 = 60;

/// How long the device stalls, in seconds.
fn stall_seconds() -> u64 {
    std::env::var("LAZARET_STALL").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3)
}

/// An evil disk, a mount of what is on it, and where on the disk the part lies that is to be hit.
struct Bench {
    image: PathBuf,
    disk: EvilDisk,
    device: Option<LoopDevice>,
    place: PathBuf,
    hit: Range<u64>,
}

type Test = fn(&Bench) -> Result;

const TESTS: &[(&str, Test)] = &[
    ("errors for ever hit what they hit", errors),
    ("an error that comes once", error_once),
    ("errors everywhere, and then none", errors_everywhere),
    ("content that changes with each read", changes),
    ("content that changes while it is mounted", changes_at_the_start),
    ("reads that are short", short),
    ("a stall that ends", stall),
    ("a stall for ever", stall_for_ever),
    ("a stall for ever at the start", stall_at_the_start),
    ("a device that shrinks and grows again", shrinks),
    ("a device that is pulled out", pulled_out),
];

fn main() {
    requirement::main(|workshop| {
        let kinds = [("a file", false), ("a block device", true)];
        let all = kinds.into_iter().flat_map(|(kind, block)| TESTS.iter().map(move |test| (kind, block, test)));
        let found = proof("P6", "zeros without an error are found", MOUNTS, workshop, |workshop| {
            one("zeros are found", zeros_are_found, false, workshop)?;
            Ok(vec![("sabotages found", 1)])
        });
        let exchanged = proof("P6", "a medium that is exchanged at the start", TRACED, workshop, exchanged);
        all.map(|(kind, block, (name, test))| {
            proof("P6", format!("{kind}: {name}"), MOUNTS, workshop, move |workshop| one(name, *test, block, workshop))
        })
        .chain([found, exchanged])
        .collect()
    })
}

/// The broker is stopped where it hears that the worker is ready. Only where the medium stays the same is there a mount.
fn exchanged(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("exchanged")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let other = place.join("other");
    fs::copy(&image, &other)?;
    let ready = Call { name: "recvfrom", count: 4 };
    for is_exchanged in [false, true] {
        let device = LoopDevice::attach(&image, true)?;
        let point = place.join(format!("point-{is_exchanged}"));
        let mut struck = Struck::mount(device.path(), &point, ready, Whose::Broker, "SIGSTOP")?;
        let (stopped, _) = eventually(Duration::from_secs(10), || struck.has_struck());
        assert!(stopped && !leftover::is_mounted(&point), "the broker is not stopped before the mount");
        if is_exchanged {
            exchange(&device, &other)?;
        }
        let broker =
            lazaret::processes_of(&point).into_iter().find(|one| process::is_executable(one, &lazaret::broker()));
        process::signal(broker.ok_or("no broker")?.pid, Signal::CONT);
        if is_exchanged {
            struck.wait(Duration::from_secs(10))?;
            assert!(!leftover::is_mounted(&point), "another medium than the one that was opened is mounted");
        } else {
            let (mounted, _) = eventually(Duration::from_secs(10), || leftover::is_mounted(&point));
            assert!(mounted, "the same medium is not mounted");
            unmount_now(&point)?;
            struck.wait(Duration::from_secs(10))?;
        }
    }
    leftover::nothing_of(&place)?;
    Ok(vec![("exchanges refused", 1)])
}

fn one(name: &str, test: Test, block: bool, workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory(&format!("{}-{block}", name.replace([' ', ','], "-")))?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    let hit = hit_on(&image)?;
    let disk = EvilDisk::over(&image, &place.join("evil"))?;
    let device = block.then(|| LoopDevice::attach(&disk.path(), true)).transpose()?;
    let bench = Bench { image, disk, device, place, hit };
    test(&bench)?;
    let Bench { image, disk, device, place, .. } = bench;
    // What waits for a device that has stalled can end when it answers.
    disk.fault(Fault::None, 0..0)?;
    let faults = disk.faults();
    let (ended, _) = eventually(Duration::from_secs(5), || lazaret::processes_of(&place).is_empty());
    assert!(ended, "processes are left: {:#?}", lazaret::processes_of(&place));
    drop(device);
    drop(disk);
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    Ok(vec![("device faults survived", faults), ("kinds of fault", 1)])
}

/// Where the part of the long file lies on the disk.
fn hit_on(image: &Path) -> Result<Range<u64>> {
    let victim = Victim::open(image)?;
    let size = victim.block_size()?;
    let block = |offset: u64| victim.block(LONG, u32::try_from(offset / size)?);
    let (first, last) = (block(HIT.start)?, block(HIT.end - 1)?);
    assert_eq!((last - first + 1) * size, HIT.end - HIT.start, "the part that is hit is not in one piece");
    Ok(first * size..(last + 1) * size)
}

impl Bench {
    fn source(&self) -> PathBuf {
        self.device.as_ref().map_or_else(|| self.disk.path(), |device| device.path().to_owned())
    }

    fn mount(&self, timeout: u64) -> Result<Mount> {
        Mount::with(&self.source(), &self.place.join("point"), &format!("timeout={timeout}"))
    }

    /// The mount is as well as ever, and ends as it should.
    fn ends_well(&self, mount: Mount) -> Result {
        self.disk.fault(Fault::None, 0..0)?;
        assert!(runs(mount.worker.pid), "the worker is dead");
        right(mount.path(), OTHER.0, 0..OTHER.1 as u64, OTHER.1)?;
        mount.unmount(Duration::from_secs(1)).map(drop)
    }
}

/// What a read in another thread gives, if it gives something in this time.
fn within<T: Send + 'static>(seconds: u64, ask: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(ask()));
    receiver.recv_timeout(Duration::from_secs(seconds)).map_err(|_| format!("no answer within {seconds} s").into())
}

/// Bytes of a file.
fn read(root: &Path, name: &str, part: Range<u64>) -> Result<io::Result<Vec<u8>>> {
    let path = root.join(name);
    within(READING + stall_seconds(), move || {
        let mut bytes = vec![0; (part.end - part.start) as usize];
        fs::File::open(path)?.read_exact_at(&mut bytes, part.start).map(|()| bytes)
    })
}

/// They are there and right.
fn right(root: &Path, name: &str, part: Range<u64>, length: usize) -> Result {
    let bytes = read(root, name, part.clone())?.map_err(|error| format!("{name} {part:?} was not hit: {error}"))?;
    let expected = &noise(length as u64, length)[part.start as usize..part.end as usize];
    if bytes == expected { Ok(()) } else { Err(format!("{name} {part:?} was read wrongly").into()) }
}

/// They are right, or there is an error: how many of these were errors.
fn right_or_error(root: &Path, name: &str, part: Range<u64>, length: usize) -> Result<u64> {
    let mut errors = 0;
    let expected = noise(length as u64, length);
    for start in (part.start..part.end).step_by(PIECE as usize) {
        let piece = start..(start + PIECE).min(part.end);
        match read(root, name, piece.clone())? {
            Ok(bytes) if bytes == expected[piece.start as usize..piece.end as usize] => {}
            Ok(_) => return Err(format!("{name} {piece:?} was read wrongly, without an error").into()),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => errors += 1,
            Err(error) => return Err(format!("{name} {piece:?}: {error}").into()),
        }
    }
    Ok(errors)
}

/// What lies before the part, behind it, and elsewhere.
fn rest_is_right(root: &Path) -> Result {
    right(root, LONG, 0..1 << 20, LENGTH)?;
    right(root, LONG, 4 << 20..LENGTH as u64, LENGTH)?;
    right(root, OTHER.0, 0..OTHER.1 as u64, OTHER.1)
}

/// Lists and reads everything, whatever comes of it; how many answers there were.
fn visit(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 1 };
    let visited = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => visit(&entry.path()),
        Ok(kind) if kind.is_file() => {
            let _ = fs::read(entry.path());
            1
        }
        _ => fs::symlink_metadata(entry.path()).map_or(1, |_| 1),
    });
    visited.sum::<u64>() + 1
}

fn errors(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    bench.disk.fault(Fault::Error, bench.hit.clone())?;
    rest_is_right(mount.path())?;
    for _ in 0..2 {
        let pieces = (HIT.end - HIT.start) / PIECE;
        let errors = right_or_error(mount.path(), LONG, HIT, LENGTH)?;
        assert_eq!(errors, pieces, "of {pieces} pieces that were hit");
    }
    bench.disk.fault(Fault::None, 0..0)?;
    right(mount.path(), LONG, HIT, LENGTH)?;
    bench.ends_well(mount)
}

/// The test of these tests: a disk that gives zeros for data is not taken for one that gives errors, nor for a sound one.
fn zeros_are_found(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    bench.disk.fault(Fault::Zeros, bench.hit.clone())?;
    rest_is_right(mount.path())?;
    let said = right_or_error(mount.path(), LONG, HIT, LENGTH);
    assert!(said.is_err_and(|error| error.to_string().contains("without an error")), "nobody sees the zeros");
    assert!(right(mount.path(), LONG, HIT, LENGTH).is_err(), "zeros are taken for data");
    bench.disk.fault(Fault::None, 0..0)?;
    bench.ends_well(mount)
}

fn error_once(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    bench.disk.fault(Fault::ErrorOnce, bench.hit.clone())?;
    let errors = right_or_error(mount.path(), LONG, HIT, LENGTH)?;
    assert!(errors <= 1 && bench.disk.faults() == 1, "{errors} errors of {}", bench.disk.faults());
    right(mount.path(), LONG, HIT, LENGTH)?;
    rest_is_right(mount.path())?;
    bench.ends_well(mount)
}

fn errors_everywhere(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    bench.disk.fault(Fault::Error, 0..u64::MAX)?;
    right_or_error(mount.path(), LONG, 0..LENGTH as u64, LENGTH)?;
    let root = mount.path().to_owned();
    let answers = within(VISIT, move || visit(&root))?;
    assert!(bench.disk.faults() > 0 && answers > 0, "nothing was read from the disk");
    bench.disk.fault(Fault::None, 0..0)?;
    right(mount.path(), LONG, 0..LENGTH as u64, LENGTH)?;
    bench.ends_well(mount)
}

fn changes(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    bench.disk.fault(Fault::Noise, bench.hit.clone())?;
    rest_is_right(mount.path())?;
    // Data has no checksum: what is read is what the disk gave at that moment.
    let seen = read(mount.path(), LONG, HIT)??;
    assert!(seen != noise(LENGTH as u64, LENGTH)[HIT.start as usize..HIT.end as usize], "the disk did not change");
    bench.disk.fault(Fault::Noise, 0..u64::MAX)?;
    for _ in 0..3 {
        let root = mount.path().to_owned();
        within(VISIT, move || visit(&root))?;
        bench.disk.fault(Fault::Noise, 0..u64::MAX)?;
    }
    assert!(runs(mount.worker.pid), "the worker is dead");
    mount.unmount(Duration::from_secs(1))?;
    bench.disk.fault(Fault::None, 0..0)
}

/// Whatever the superblock and the descriptors are at each look, the command ends in time: with a mount, or with one line.
fn changes_at_the_start(bench: &Bench) -> Result {
    let point = bench.place.join("point");
    fs::create_dir_all(&point)?;
    for turn in 0..12_u64 {
        // The first time everything, then the superblock is left alone, and then only a part changes.
        let range = if turn == 0 { 0..u64::MAX } else { 4096 * turn.min(8)..u64::MAX };
        bench.disk.fault(Fault::Noise, range)?;
        let finished = lazaret::run(["mount".as_ref(), bench.source().as_os_str(), point.as_os_str()])?;
        match finished.code() {
            Some(0) => {
                let mount = Mount::adopt(&point)?;
                let root = point.clone();
                within(VISIT, move || visit(&root))?;
                mount.unmount(Duration::from_secs(1))?;
            }
            Some(32) => assert!(finished.stderr.lines().count() == 1, "{finished:?}"),
            _ => return Err(format!("{finished:?}").into()),
        }
        let bug = finished.stderr.contains("bug of its own") || finished.stderr.contains("by signal");
        assert!(!bug, "{finished:?}");
    }
    bench.disk.fault(Fault::None, 0..0)
}

fn short(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    bench.disk.fault(Fault::Short, bench.hit.clone())?;
    right_or_error(mount.path(), LONG, HIT, LENGTH)?;
    right_or_error(mount.path(), LONG, 0..LENGTH as u64, LENGTH)?;
    assert!(bench.disk.faults() > 0, "nothing was short");
    bench.disk.fault(Fault::None, 0..0)?;
    // A file that gave too little counts as shorter until the kernel asks again.
    bench.disk.resize(fs::metadata(&bench.image)?.len())?;
    right(mount.path(), LONG, 0..LENGTH as u64, LENGTH)?;
    bench.ends_well(mount)
}

fn stall(bench: &Bench) -> Result {
    let seconds = stall_seconds();
    let mount = bench.mount(2 * seconds)?;
    bench.disk.fault(Fault::Stall, bench.hit.clone())?;
    let (root, start) = (mount.path().to_owned(), Instant::now());
    let piece = HIT.start..HIT.start + PIECE;
    let client = thread::spawn(move || right(&root, LONG, piece, LENGTH).map_err(|error| error.to_string()));
    let waits = eventually(Duration::from_secs(5), || bench.disk.faults() > 0).0;
    assert!(waits, "the disk was not asked");
    // The other thread of the worker serves all others meanwhile. A loop device, though, does one thing at a time.
    if bench.device.is_none() {
        right(mount.path(), OTHER.0, 0..OTHER.1 as u64, OTHER.1)?;
    }
    thread::sleep(Duration::from_secs(seconds).saturating_sub(start.elapsed()));
    assert!(!client.is_finished(), "the disk has not answered, and still the client has something");
    bench.disk.fault(Fault::None, 0..0)?;
    client.join().map_err(|_| "a panic")??;
    rest_is_right(mount.path())?;
    bench.ends_well(mount)
}

fn stall_for_ever(bench: &Bench) -> Result {
    let mount = bench.mount(TIMEOUT)?;
    bench.disk.fault(Fault::Stall, bench.hit.clone())?;
    let start = Instant::now();
    // Whom the other thread of the worker serves meanwhile makes nobody wait longer. A name is asked for once.
    let over = AtomicBool::new(false);
    let (answer, took, asked) = thread::scope(|scope| {
        let names = (0_u32..).take_while(|_| !over.load(Ordering::Relaxed));
        let asking = names.map(|number| fs::symlink_metadata(mount.path().join(format!("no-{number}"))));
        let asked = scope.spawn(|| asking.inspect(|_| thread::sleep(Duration::from_millis(20))).count());
        let answer = read(mount.path(), LONG, HIT.start..HIT.start + PIECE);
        let took = start.elapsed();
        over.store(true, Ordering::Relaxed);
        (answer, took, asked.join().unwrap_or(0))
    });
    let answer = answer?;
    // A loop device does one thing at a time, so there the others wait too.
    assert!(asked > 50 || bench.device.is_some(), "the mount was asked {asked} times meanwhile");
    assert!(answer.is_err(), "the disk has not answered, and still the client has something");
    assert!(took >= Duration::from_secs(TIMEOUT), "given up after {took:?}");
    assert!(took <= Duration::from_secs(TIMEOUT + BEYOND), "freed after {took:?}");
    let gone = || !leftover::is_mounted(mount.path()) && !runs(mount.worker.pid);
    let (gone, _) = eventually(Duration::from_secs(BEYOND), gone);
    assert!(gone, "mount or worker is left: {:?}", process::one(mount.worker.pid));
    Ok(())
}

fn stall_at_the_start(bench: &Bench) -> Result {
    bench.disk.fault(Fault::Stall, 0..u64::MAX)?;
    let (source, point) = (bench.source(), bench.place.join("point"));
    fs::create_dir_all(&point)?;
    let start = Instant::now();
    let timeout = format!("timeout={TIMEOUT}");
    let words = ["mount", "-o", &timeout].map(std::ffi::OsStr::new);
    let finished = lazaret::run(words.into_iter().chain([source.as_os_str(), point.as_os_str()]));
    let took = start.elapsed();
    // The broker's last close of a block device waits, in the kernel, for what was asked of it.
    bench.disk.fault(Fault::None, 0..0)?;
    let finished = finished?;
    assert_eq!(finished.code(), Some(32), "{finished:?}");
    assert!(took <= Duration::from_secs(TIMEOUT + BEYOND), "given up after {took:?}");
    assert!(!leftover::is_mounted(&point), "it is mounted");
    Ok(())
}

fn shrinks(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    let length = fs::metadata(&bench.image)?.len();
    bench.disk.resize(bench.hit.start)?;
    right(mount.path(), LONG, 0..1 << 20, LENGTH)?;
    let errors = right_or_error(mount.path(), LONG, HIT, LENGTH)?;
    assert_eq!(errors, (HIT.end - HIT.start) / PIECE, "what is not there was read");
    bench.disk.resize(length)?;
    right(mount.path(), LONG, 0..LENGTH as u64, LENGTH)?;
    bench.ends_well(mount)
}

fn pulled_out(bench: &Bench) -> Result {
    let mount = bench.mount(60)?;
    bench.disk.fault(Fault::Gone, 0..u64::MAX)?;
    let errors = right_or_error(mount.path(), LONG, HIT, LENGTH)?;
    assert_eq!(errors, (HIT.end - HIT.start) / PIECE, "what is not there was read");
    let root = mount.path().to_owned();
    within(VISIT, move || visit(&root))?;
    assert!(runs(mount.worker.pid), "the worker is dead");
    mount.unmount(Duration::from_secs(1)).map(drop)
}
