//! `-o iomap` as the broker sees it: what it says where the kernel has none, what it hands over where it has, and that of the
//! device nothing is left, however a mount ends. The kernel's part is a stand-in (`lazaret_tests::series`).
//!
//! `LAZARET_CYCLES` says how many mounts come and go.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use lazaret_tests::block::LoopDevice;
use lazaret_tests::command::{Finished, eventually, finish, wait};
use lazaret_tests::disk::{Disk, FIRST};
use lazaret_tests::evil::run::Quarters;
use lazaret_tests::evil::{Act, Evidence, Instruction, weakness};
use lazaret_tests::fill::noise;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::process::{self, Process};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, BY_USER, MOUNTS, Requirement, proof, trial};
use lazaret_tests::series::{Fault, Known, Series, Step, loops_over};
use lazaret_tests::unprivileged::{self, NOBODY};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, recipe};

const NEEDS: &[Requirement] = MOUNTS;
const PARTITIONED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::KernelExt4,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("losetup"),
    Requirement::Tool("sfdisk"),
];

const SOON: Duration = Duration::from_secs(2);
const STEPS: [Step; 4] = [Step::Support, Step::Add, Step::Create, Step::Open];

fn main() {
    requirement::main_in_turn(|workshop| {
        vec![
            trial("a kernel without it: a line, or no mount", NEEDS, workshop, without),
            trial("as another user: a line, or no mount", BY_USER, workshop, as_nobody),
            trial("a kernel that offers it and not to the mount", NEEDS, workshop, not_offered_to_the_mount),
            trial("who claims what was not allowed is refused", NEEDS, workshop, claimed_anyway),
            trial("the worker is told the number", NEEDS, workshop, number_is_told),
            proof("P21", "the device is just the file system", PARTITIONED, workshop, just_the_file_system),
            proof("P21", "the device refuses what would write", NEEDS, workshop, refuses_to_be_written),
            proof("P21", "nothing is left where a step fails", NEEDS, workshop, fails_at_each_step),
            proof("P21", "nothing is left of who is killed", NEEDS, workshop, killed_at_each_step),
            proof("P21", "mounts that come and go leave no device", NEEDS, workshop, come_and_go),
            proof("P21", "a device that is left is found", NEEDS, workshop, left_is_found),
        ]
    })
}

/// A place with an image whose first block tells an evil worker to serve, a broker beside such a worker, and a kernel.
struct House {
    quarters: Quarters,
    series: Series,
    image: PathBuf,
    point: PathBuf,
    place: PathBuf,
}

impl House {
    fn new(workshop: &Workshop, name: &str, fault: Fault) -> Result<Self> {
        Self::of(workshop, name, fault, weakness::CLAIMS_IOMAP, Instruction::new(Act::Serve, &[0]))
    }

    fn of(workshop: &Workshop, name: &str, fault: Fault, weakness: u16, told: Instruction) -> Result<Self> {
        let place = workshop.directory(name)?;
        let (image, point) = (workshop.copy(recipe::default(), &place)?, place.join("point"));
        File::options().write(true).open(&image)?.write_all_at(&told.to_bytes(), 0)?;
        fs::create_dir(&point)?;
        Ok(Self { quarters: Quarters::new(&place, weakness)?, series: Series::new(fault)?, image, point, place })
    }

    /// A mount of this source with these words, to the end of its start.
    fn mount(&self, source: &Path, options: &str) -> Result<Finished> {
        let mut command = self.quarters.command(["mount", "-o", options]);
        command.arg(source).arg(&self.point);
        self.series.run(command)
    }

    /// The processes of its mounts: a broker comes before its worker.
    fn processes(&self) -> Vec<Process> {
        let programs = self.place.join("programs");
        process::all().into_iter().filter(|one| one.executable.starts_with(&programs)).collect()
    }

    fn process(&self, name: &str) -> Result<Process> {
        let found = self.processes().into_iter().find(|one| one.executable.ends_with(name));
        found.ok_or_else(|| format!("no {name} runs").into())
    }

    /// The mount is taken away, if it is there, and who served it ends.
    fn unmount(&self) -> Result {
        if leftover::is_mounted(&self.point) {
            unmount(&self.point, UnmountFlags::DETACH)?;
        }
        let (ended, _) = eventually(SOON, || self.processes().is_empty());
        if ended { Ok(()) } else { Err(format!("processes are left: {:?}", self.processes()).into()) }
    }

    /// Nothing is left, once the kernel has let go of what it holds for a mount.
    fn is_empty(&self) -> Result {
        self.series.unmounted()?;
        let (gone, _) = eventually(SOON, || loops_over(&self.image) == 0);
        assert!(gone, "a loop device is left over {}", self.image.display());
        self.quarters.empty()
    }
}

/// The one line of stderr behind the source's name.
fn line<'a>(finished: &'a Finished, source: &Path) -> &'a str {
    let begin = format!("lazaret: {}: ", source.display());
    let rest = finished.stderr.strip_prefix(&begin).unwrap_or_else(|| panic!("{finished:?}"));
    let rest = rest.strip_suffix('\n').unwrap_or_else(|| panic!("{finished:?}"));
    assert!(!rest.contains('\n'), "more than one line: {finished:?}");
    rest
}

fn json(words: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&lazaret::run(words)?.stdout)?)
}

/// On this kernel, as it is.
fn without(workshop: &Workshop) -> Result {
    const WHY: &str = "this kernel does not have it";
    let place = workshop.directory("without")?;
    let (image, point) = (workshop.copy(recipe::default(), &place)?, place.join("point"));
    fs::create_dir(&point)?;
    let told = json(&["doctor", "--json"])?;
    if told["iomap"]["offered"] == true {
        return Err("this kernel has the series: what is to be seen without it cannot be seen here".into());
    }
    assert_eq!(told["iomap"]["reason"], WHY, "{told}");
    let told = lazaret::run(["info".as_ref(), "--json".as_ref(), image.as_os_str()])?.stdout;
    let told: Value = serde_json::from_str(&told)?;
    assert_eq!((&told["iomap"]["offered"], &told["iomap"]["reason"]), (&false.into(), &WHY.into()), "{told}");
    let text = lazaret::run(["info".as_ref(), image.as_os_str()])?.stdout;
    assert!(text.lines().any(|line| line == format!("{:17}falls back: {WHY}", "iomap")), "{text}");
    let arguments = |options: &'static str| {
        ["mount".as_ref(), "-o".as_ref(), options.as_ref(), image.as_os_str(), point.as_os_str()].map(ToOwned::to_owned)
    };
    let refused = lazaret::run(arguments("iomap=require"))?;
    assert_eq!((refused.code(), line(&refused, &image)), (Some(32), &*format!("iomap=require: {WHY}")));
    leftover::nothing_of(&place)?;
    let mounted = lazaret::run(arguments("iomap"))?;
    assert_eq!((mounted.code(), line(&mounted, &image)), (Some(0), &*format!("mounted without iomap: {WHY}")));
    let mount = Mount::adopt(&point)?;
    assert!(fs::read(point.join("sizes/65536"))? == noise(65536, 65536));
    let status = json(&["status", "--json"])?;
    let mounts = status["mounts"].as_array().ok_or("no list of mounts")?;
    let ours = mounts.iter().find(|one| one["mountpoint"].as_str() == point.to_str()).ok_or("it is not listed")?;
    assert_eq!(ours["iomap"], false, "{ours}");
    mount.unmount(SOON)?;
    let both = lazaret::run(arguments("iomap,blkdev"))?;
    assert_eq!((both.code(), &*both.stderr), (Some(1), "lazaret: options 'iomap' and 'blkdev' exclude each other\n"));
    leftover::nothing_of(&place)
}

fn as_nobody(workshop: &Workshop) -> Result {
    let place = workshop.directory("as-nobody")?;
    let (image, point) = (workshop.copy(recipe::default(), &place)?, place.join("point"));
    fs::create_dir(&point)?;
    fs::create_dir(place.join("dev"))?;
    std::os::unix::fs::chown(&point, Some(NOBODY), Some(NOBODY))?;
    let series = Series::new(Fault::None)?;
    let script = "\"$0\" mount -o iomap=require \"$1\" \"$2\"; echo $?
        \"$0\" mount -o iomap \"$1\" \"$2\" && cat \"$2\"/sizes/4097 | wc -c; \"$0\" umount \"$2\"";
    let program = lazaret::broker();
    let finished = series.run(unprivileged::command(&place, &["sh", "-c", script], &[&program, &image, &point]))?;
    assert_eq!((finished.code(), finished.stdout.trim()), (Some(0), "32\n4097"), "{finished:?}");
    let begin = format!("lazaret: {}: ", image.display());
    let lines: Vec<&str> = finished.stderr.lines().filter_map(|line| line.strip_prefix(&begin)).collect();
    assert_eq!(lines, ["iomap=require: it needs root", "mounted without iomap: it needs root"], "{finished:?}");
    // It was asked and no more.
    assert_eq!(series.steps(), [Step::Support]);
    series.unmounted()?;
    leftover::nothing_of(&place)
}

/// The worker that is shipped, on a kernel that says yes to the broker, and in FUSE_INIT nothing.
fn not_offered_to_the_mount(workshop: &Workshop) -> Result {
    const WHY: &str = "this kernel does not offer it to the mount";
    let place = workshop.directory("not-offered")?;
    let (image, point) = (workshop.copy(recipe::default(), &place)?, place.join("point"));
    fs::create_dir(&point)?;
    let series = Series::new(Fault::None)?;
    let mount = |options: &str| {
        let words = ["mount".as_ref(), "-o".as_ref(), options.as_ref(), image.as_os_str(), point.as_os_str()];
        series.run(lazaret::command(words))
    };
    let told = series.run(lazaret::command(["info".as_ref(), "--json".as_ref(), image.as_os_str()]))?.stdout;
    let told: Value = serde_json::from_str(&told)?;
    assert_eq!((&told["iomap"]["offered"], &told["iomap"]["reason"]), (&true.into(), &Value::Null), "{told}");
    assert_eq!(series.steps(), STEPS[..1], "who only asks marks nothing");
    let refused = mount("iomap=require")?;
    assert_eq!((refused.code(), line(&refused, &image)), (Some(32), &*format!("iomap=require: {WHY}")));
    assert_eq!(series.steps(), STEPS[..3]);
    leftover::nothing_of(&place)?;
    let mounted = mount("iomap")?;
    assert_eq!((mounted.code(), line(&mounted, &image)), (Some(0), &*format!("mounted without iomap: {WHY}")));
    // The device is gone though the mount is there.
    assert_eq!((series.steps(), loops_over(&image)), (STEPS[..3].to_vec(), 0));
    let served = Mount::adopt(&point)?;
    assert!(fs::read(point.join("sizes/65536"))? == noise(65536, 65536));
    served.unmount(SOON)?;
    series.unmounted()?;
    leftover::nothing_of(&place)
}

fn claimed_anyway(workshop: &Workshop) -> Result {
    let told = Instruction::new(Act::Serve, &[0]);
    let house = House::of(workshop, "claimed-anyway", Fault::None, weakness::CLAIMS_ANYWAY, told)?;
    let finished = house.mount(&house.image, "ro")?;
    let said = "lazaret: the worker cannot be understood: a report out of its turn\n";
    assert_eq!(finished.code(), Some(2), "{finished:?}");
    assert!(finished.stderr.ends_with(&said["lazaret: ".len()..]), "{finished:?}");
    // Nobody has asked the kernel.
    assert_eq!(house.series.steps(), [Step::Create]);
    house.unmount()?;
    house.is_empty()
}

fn number_is_told(workshop: &Workshop) -> Result {
    let told = Instruction::new(Act::Cookie, &[]);
    let house = House::of(workshop, "number", Fault::Cookie(1024), weakness::CLAIMS_IOMAP, told)?;
    for (fault, number) in [(Fault::Cookie(1024), 1024), (Fault::None, 1), (Fault::Fails(Step::Open, libc::EPERM), 0)] {
        house.series.fault(fault);
        let finished = house.mount(&house.image, "iomap")?;
        assert_eq!(Evidence::read(&finished.stderr), Some(Evidence::Done(number)), "{fault:?}: {finished:?}");
        house.unmount()?;
    }
    house.is_empty()
}

/// What the kernel was made known is what the user named, and of that only the file system.
fn just_the_file_system(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "just", Fault::None)?;
    let length = fs::metadata(&house.image)?.len();
    // An image with more behind the file system, and an odd number of bytes of it.
    let longer = house.place.join("longer.img");
    fs::copy(&house.image, &longer)?;
    File::options().append(true).open(&longer)?.write_all(&[0xa5; 5000])?;
    let disk = Disk::new(&house.place, "label: dos\nstart=1MiB, size=64MiB, type=83\n")?.put(&house.image, FIRST)?;
    let device = LoopDevice::attach(&longer, true)?;
    let cases = [
        (longer.as_path(), "iomap=require", (0, length)),
        (&disk.path, "iomap=require,part=1", (FIRST, length)),
        (&disk.path, "iomap=require", (FIRST, length)),
        (device.path(), "iomap=require", (0, length)),
    ];
    let tried = cases.len() as u64;
    for (source, options, range) in cases {
        let finished = house.mount(source, options)?;
        assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""), "{finished:?}");
        assert_eq!(house.series.steps(), STEPS, "{options}");
        let [known] = &house.series.known()[..] else { return Err("one device was expected".into()) };
        assert_eq!((known.range, Path::new(&known.backing)), (range, source), "{known:?}");
        assert!(known.read_only && known.autoclear && !known.partscan && known.sector == 512, "{known:?}");
        assert_eq!(fs::read_dir(&house.point)?.count(), 3, "it is not served");
        holds_no(&house, known)?;
        house.unmount()?;
        assert!(known.stands(), "the kernel holds it, and it is gone");
        house.series.unmounted()?;
        assert!(eventually(SOON, || !known.stands()).0, "it is left: {known:?}");
    }
    drop(device);
    house.is_empty()?;
    Ok(vec![("sources", tried)])
}

/// Neither process has the device open, nor /dev/fuse but for the worker's.
fn holds_no(house: &House, known: &Known) -> Result {
    for (name, fuse) in [("lazaret", 0), ("lazaret-worker", 1)] {
        let fds = fs::read_dir(format!("/proc/{}/fd", house.process(name)?.pid))?.flatten();
        let links: Vec<PathBuf> = fds.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        assert!(!links.contains(&known.path), "{name} holds {links:?}");
        assert_eq!(links.iter().filter(|link| *link == Path::new("/dev/fuse")).count(), fuse, "{name}: {links:?}");
    }
    Ok(())
}

/// `BLKROSET` and `LOOP_CLR_FD`, by the programs that have them.
fn tool(words: &[&str], device: &Path) -> Result<Finished> {
    finish(Command::new(words[0]).args(&words[1..]).arg(device), lazaret::PATIENCE)
}

fn refuses_to_be_written(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "written", Fault::None)?;
    let before = digest::of_file(&house.image)?;
    let finished = house.mount(&house.image, "iomap=require")?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let [known] = &house.series.known()[..] else { return Err("one device was expected".into()) };
    let written = || {
        let device = File::options().read(true).write(true).open(&known.path)?;
        device.write_all_at(&[0xff; 4096], 1 << 20).and_then(|()| device.sync_all())
    };
    let errno = |error: std::io::Error| error.raw_os_error();
    assert_eq!(written().map_err(errno), Err(Some(libc::EPERM)));
    // Nor can root take that away: it is the disk's own, while this asks for that of one who has it open.
    tool(&["blockdev", "--setrw"], &known.path)?;
    assert_eq!(tool(&["blockdev", "--getro"], &known.path)?.stdout.trim(), "1");
    assert_eq!(written().map_err(errno), Err(Some(libc::EPERM)));
    let stands = house.place.join("other");
    fs::create_dir(&stands)?;
    let mounted = mount(&known.path, &stands, "ext4", MountFlags::RDONLY, Some(c"noload"));
    assert_eq!(mounted, Err(rustix::io::Errno::BUSY), "another may mount it");
    // Whoever looks at devices for the system keeps away from one that is locked.
    let look = File::open(&known.path)?;
    let locked = rustix::fs::flock(&look, rustix::fs::FlockOperation::NonBlockingLockShared);
    assert_eq!(locked, Err(rustix::io::Errno::WOULDBLOCK), "udevd would have it looked into (fd {})", look.as_raw_fd());
    drop(look);
    // As `losetup -D` and `umount -d` have it.
    tool(&["losetup", "--detach"], &known.path)?;
    assert!(known.stands() && fs::read_dir(&house.point)?.count() == 3, "it was taken away from beneath the mount");
    house.unmount()?;
    house.is_empty()?;
    assert_eq!(digest::of_file(&house.image)?, before, "the image was written to");
    Ok(vec![("ways to write tried", 3)])
}

fn fails_at_each_step(workshop: &Workshop) -> Result<Figures> {
    const CASES: &[(Fault, &str)] = &[
        (Fault::Off, "this kernel does not grant it here (CAP_SYS_RAWIO)"),
        (Fault::Fails(Step::Support, libc::ENOTTY), "this kernel does not have it"),
        (Fault::Fails(Step::Support, libc::EINTR), "this kernel cannot be asked: interrupted system call"),
        (Fault::Fails(Step::Add, libc::EPERM), "the kernel refuses it: operation not permitted"),
        (Fault::Fails(Step::Open, libc::EPERM), "the kernel does not take the device: operation not permitted"),
        (Fault::Fails(Step::Open, libc::ENODEV), "the kernel does not take the device: no such device"),
        (Fault::Cookie(0), "the kernel gave the device an impossible number, 0"),
        (Fault::Cookie(1025), "the kernel gave the device an impossible number, 1025"),
    ];
    let house = House::new(workshop, "fails", Fault::None)?;
    for (fault, why) in CASES {
        house.series.fault(*fault);
        let refused = house.mount(&house.image, "iomap=require")?;
        assert_eq!((refused.code(), line(&refused, &house.image)), (Some(32), &*format!("iomap=require: {why}")));
        house.unmount()?;
        house.is_empty()?;
        let mounted = house.mount(&house.image, "iomap")?;
        let expected = format!("mounted without iomap: {why}");
        assert_eq!((mounted.code(), line(&mounted, &house.image)), (Some(0), &*expected));
        assert_eq!(fs::read_dir(&house.point)?.count(), 3, "it is not served");
        house.series.unmounted()?;
        assert!(eventually(SOON, || loops_over(&house.image) == 0).0, "{fault:?}: a device that nobody uses is kept");
        house.unmount()?;
        house.is_empty()?;
    }
    // The mount itself is refused, with the device already there.
    house.series.fault(Fault::Fails(Step::Create, libc::EINVAL));
    let refused = house.mount(&house.image, "iomap")?;
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    house.unmount()?;
    house.is_empty()?;
    Ok(vec![("failures", 2 * CASES.len() as u64 + 1)])
}

fn killed_at_each_step(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "killed", Fault::None)?;
    let mut kills = 0;
    for (step, behind) in STEPS.into_iter().flat_map(|step| [(step, false), (step, true)]) {
        house.series.fault(Fault::Kills(step, behind));
        let finished = house.mount(&house.image, "iomap")?;
        // Where the test is slow, whoever is killed behind the last of them has done the rest of his work before.
        let late = behind && step == Step::Open;
        assert!(late || finished.code() != Some(0), "killed at {step:?}, and it mounts: {finished:?}");
        house.unmount().and_then(|()| house.is_empty()).map_err(|error| format!("{step:?} {behind}: {error}"))?;
        kills += 1;
    }
    house.series.fault(Fault::None);
    for name in ["lazaret", "lazaret-worker"] {
        let finished = house.mount(&house.image, "iomap=require")?;
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        process::kill(house.process(name)?.pid);
        assert!(eventually(SOON, || house.processes().is_empty()).0, "{name} was killed: {:?}", house.processes());
        house.unmount()?;
        house.is_empty()?;
        kills += 1;
    }
    Ok(vec![("kills survived", kills)])
}

/// One mount in the foreground that is ended by a signal, and one in the background that is unmounted, again and again.
fn come_and_go(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "cycles", Fault::None)?;
    let cycles = std::env::var("LAZARET_CYCLES").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    let before = digest::of_file(&house.image)?;
    for turn in 0..cycles {
        if turn % 2 == 0 {
            let finished = house.mount(&house.image, "iomap=require")?;
            assert_eq!(finished.code(), Some(0), "turn {turn}: {finished:?}");
            house.unmount()?;
        } else {
            ended_by_signal(&house)?;
        }
        assert_eq!(house.series.known().len(), 1, "turn {turn}");
        house.series.unmounted()?;
        assert!(eventually(SOON, || loops_over(&house.image) == 0).0, "turn {turn}: a device is left");
    }
    house.is_empty()?;
    assert_eq!(digest::of_file(&house.image)?, before, "the image was written to");
    Ok(vec![("mounts", cycles), ("loop devices left", loops_over(&house.image) as u64)])
}

fn ended_by_signal(house: &House) -> Result {
    let mut command = house.quarters.command(["mount", "-f", "-o", "iomap=require"]);
    command.arg(&house.image).arg(&house.point).stdin(Stdio::null()).stdout(Stdio::null());
    let mut front: Child = house.series.spawn(command)?;
    let (mounted, _) = eventually(lazaret::PATIENCE, || leftover::is_mounted(&house.point));
    process::signal(front.id(), rustix::process::Signal::TERM);
    wait(&mut front, lazaret::PATIENCE)?;
    assert!(mounted, "it was not mounted");
    house.unmount()
}

/// The test of these tests.
fn left_is_found(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "left", Fault::None)?;
    let finished = house.mount(&house.image, "iomap=require")?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    house.unmount()?;
    // A kernel that never lets go.
    let (gone, _) = eventually(Duration::from_millis(200), || loops_over(&house.image) == 0);
    assert!(!gone && leftover::nothing_of(&house.place).is_err(), "a device that is left is not seen");
    house.is_empty()?;
    Ok(vec![("sabotages found", 1)])
}
