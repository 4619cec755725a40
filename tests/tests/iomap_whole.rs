//! Broker and worker together, as a user starts them, on a kernel that moves the bytes of files by mappings: the programs
//! that are shipped and a real mount, with a stand-in for what this kernel lacks ([`Series::whole`]). What programs read is
//! what the kernel's own ext4 gives them, the worker is confined as it always is, and whoever is killed, at whatever step,
//! leaves no mount, no process and no device.
//!
//! `LAZARET_CYCLES` says how many mounts come and go.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use lazaret_tests::block::KernelMount;
use lazaret_tests::command::{self, Finished, eventually, finish};
use lazaret_tests::compare::{Order, compare};
use lazaret_tests::disk::{Disk, FIRST};
use lazaret_tests::double::kernel::Counts;
use lazaret_tests::fill::noise;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::prove::Figures;
use lazaret_tests::recipe::{self, UUID};
use lazaret_tests::requirement::{self, Requirement, proof};
use lazaret_tests::series::{Known, Series, loops_over};
use lazaret_tests::strike::{BROKER, Call, Site, Struck, WORKER, Whose};
use lazaret_tests::udev::Udev;
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, apart, digest, leftover, mapped, process};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::KernelExt4,
    Requirement::Apart,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("dumpe2fs"),
    Requirement::Tool("losetup"),
];
const PARTITIONED: &[Requirement] =
    &[Requirement::Root, Requirement::Fuse, Requirement::Loop, Requirement::Apart, Requirement::Tool("sfdisk")];
const TRACED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::KernelExt4,
    Requirement::Apart,
    Requirement::Tool("strace"),
];
const WITH_UDEV: &[Requirement] =
    &[Requirement::Root, Requirement::Fuse, Requirement::Loop, Requirement::Apart, Requirement::Tool("udevadm")];

/// Images of each kind of map, of each block size, with data in inodes and with a tree of extents.
const IMAGES: [&str; 7] = ["ext4", "ext3", "ext2", "blocks-of-1k", "inline-data", "clusters", "ten-thousand-extents"];

const SOON: Duration = Duration::from_secs(2);
/// Everything shown as the kernel shows it, and no mount without iomap.
const OPTIONS: &str = "iomap=require,special=show,xattrs=all";

fn main() {
    apart::enter().expect("a place apart");
    requirement::main_in_turn(|workshop| {
        let mut trials: Vec<_> = IMAGES
            .into_iter()
            .map(|name| {
                let title = format!("{name}: read by mappings");
                proof("P21", title, NEEDS, workshop, move |workshop| as_the_kernel_reads(name, workshop))
            })
            .collect();
        trials.extend([
            proof("P21", "a partition is read by mappings", PARTITIONED, workshop, of_a_partition),
            proof("P21", "the worker is confined as always", NEEDS, workshop, confined),
            proof("P21", "others take the device away from outside", NEEDS, workshop, taken_from_outside),
            proof("P21", "udevd looks at no device", WITH_UDEV, workshop, not_looked_at),
            proof("P21", "killed at each step of a start with mappings", TRACED, workshop, killed_at_each_step),
            proof("P21", "mounts by mappings come and go", NEEDS, workshop, come_and_go),
            proof("P21", "bytes of another place are found", NEEDS, workshop, shifted_is_found),
        ]);
        trials
    })
}

/// A kernel, an image on it and a place to mount it at.
struct House {
    series: Series,
    image: PathBuf,
    point: PathBuf,
    place: PathBuf,
}

impl House {
    fn new(workshop: &Workshop, name: &str, recipe: &'static str) -> Result<Self> {
        let place = workshop.directory(name)?;
        let (image, point) = (workshop.copy(recipe::named(recipe), &place)?, place.join("point"));
        fs::create_dir(&point)?;
        Ok(Self { series: Series::whole(&image)?, image, point, place })
    }

    /// `lazaret mount` to the end of its start.
    fn start(&self, source: &Path, options: &str) -> Result<Finished> {
        let words = ["mount".as_ref(), "-o".as_ref(), options.as_ref(), source.as_os_str(), self.point.as_os_str()];
        self.series.run(lazaret::command(words))
    }

    /// A mount that has come to be without a word, and its device.
    fn mount(&self, source: &Path, options: &str) -> Result<(Mount, Known)> {
        let finished = self.start(source, options)?;
        let known = self.series.known();
        if (finished.code(), &*finished.stderr) != (Some(0), "") {
            let _ = unmount(&self.point, UnmountFlags::DETACH);
            self.series.unmounted()?;
            return Err(format!("{finished:?}").into());
        }
        let mount = Mount::adopt(&self.point)?;
        match <[Known; 1]>::try_from(known) {
            Ok([known]) => Ok((mount, known)),
            Err(known) => Err(format!("one device was expected: {known:?}").into()),
        }
    }

    /// Nothing is left, once the kernel has let go of what it holds for a mount.
    fn is_empty(&self) -> Result {
        self.series.unmounted()?;
        let (gone, _) = eventually(SOON, || loops_over(&self.image) == 0);
        assert!(gone, "a loop device is left over {}", self.image.display());
        leftover::nothing_of(&self.place)
    }
}

/// Everything that a program can ask, on both mounts, and how it came about.
fn as_the_kernel_reads(name: &'static str, workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, &format!("{name}.whole"), name)?;
    let before = digest::of_file(&house.image)?;
    let kernel = KernelMount::read_only(&house.image, &house.place.join("kernel"))?;
    let (mount, known) = house.mount(&house.image, OPTIONS)?;
    assert_eq!(known.range, (0, fs::metadata(&house.image)?.len()), "{known:?}");
    let compared = compare(kernel.path(), mount.path(), Order::LookUpFirst)?;
    compared.verdict()?;
    let by_other_ways = other_ways(kernel.path(), mount.path())?;
    let counts = house.series.counts();
    mount.unmount(SOON)?;
    kernel.unmount()?;
    house.is_empty()?;
    let Counts { begins, reads, upserts, .. } = counts;
    let inline = name.starts_with("inline");
    assert!(begins > 10 && upserts > 10 && (inline || reads == 0), "{counts:?}");
    assert_eq!(digest::of_file(&house.image)?, before, "the image was written to");
    println!(
        "{name}: {} objects, {} bytes, {by_other_ways} files by other ways, {counts:?}",
        compared.objects, compared.bytes
    );
    Ok(vec![("images read by mappings", 1), ("files by other ways", by_other_ways)])
}

/// Each file once more through a mapping of it and past the page cache; how many there were.
fn other_ways(theirs: &Path, ours: &Path) -> Result<u64> {
    let mut files = 0;
    // Where the others have nothing, all lies at the top.
    let places = ["", "sizes", "holes"].map(|name| theirs.join(name)).into_iter().filter(|place| place.is_dir());
    let entries = places.map(fs::read_dir).collect::<std::io::Result<Vec<_>>>()?;
    for entry in entries.into_iter().flatten() {
        let entry = entry?;
        let same = ours.join(entry.path().strip_prefix(theirs)?);
        let length = entry.metadata()?.len();
        if !entry.file_type()?.is_file() || length == 0 || length > 64 << 20 {
            continue;
        }
        let content = fs::read(entry.path())?;
        assert!(mapped::read(&same)? == content, "{}: through a mapping", same.display());
        assert!(direct(&same, length)? == content, "{}: with O_DIRECT", same.display());
        files += 1;
    }
    Ok(files)
}

/// A file with O_DIRECT, in pieces of 64 KiB.
fn direct(path: &Path, length: u64) -> Result<Vec<u8>> {
    const PIECE: usize = 64 << 10;
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty())?);
    let (mut all, mut room) = (Vec::new(), vec![0; PIECE + 4096]);
    let begin = room.as_ptr().align_offset(4096);
    while (all.len() as u64) < length {
        let read = file.read_at(&mut room[begin..begin + PIECE], all.len() as u64)?;
        assert!(read > 0, "the end before the end");
        all.extend(&room[begin..begin + read]);
    }
    Ok(all)
}

fn of_a_partition(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "partition.whole", "ext4")?;
    let length = fs::metadata(&house.image)?.len();
    let disk = Disk::new(&house.place, "label: dos\nstart=1MiB, size=64MiB, type=83\n")?.put(&house.image, FIRST)?;
    let kernel = KernelMount::read_only(&house.image, &house.place.join("kernel"))?;
    let (mount, known) = house.mount(&disk.path, OPTIONS)?;
    assert_eq!(known.range, (FIRST, length), "{known:?}");
    compare(kernel.path(), mount.path(), Order::ListFirst)?.verdict()?;
    let counts = house.series.counts();
    assert!(counts.begins > 10 && counts.reads == 0, "{counts:?}");
    mount.unmount(SOON)?;
    kernel.unmount()?;
    house.is_empty()?;
    Ok(vec![("images read by mappings", 1)])
}

/// What the broker has looked at, what `status` shows, and what the kernel says of it.
fn confined(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "confined", "ext4")?;
    let plain = Mount::new(&house.image, &house.place.join("plain"))?;
    let filters = |pid: u32| -> Result<u32> { Ok(process::status(&pid.to_string(), "Seccomp_filters")?.parse()?) };
    let usual = filters(plain.worker.pid)?;
    plain.unmount(SOON)?;
    let (mount, known) = house.mount(&house.image, OPTIONS)?;
    let worker = mount.worker.pid;
    // That of the stand-in, and no less than without it.
    assert_eq!(filters(worker)?, usual + 1);
    let of = worker.to_string();
    for (name, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(process::status(&of, name)?, value);
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&process::status(&of, set)?, 16)?, 0, "{set}");
    }
    let links = |pid: u32| -> Result<Vec<PathBuf>> {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))?;
        Ok(fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).collect())
    };
    let held = links(worker)?;
    assert!(held.len() == 2 && held.contains(&"/dev/fuse".into()), "the worker holds {held:?}");
    assert!(!links(mount.broker.pid)?.contains(&known.path), "the broker holds the device");
    let one = status_of(&house.point)?;
    assert_eq!(
        (&one["state"], &one["confined"], &one["iomap"]),
        (&"served".into(), &true.into(), &false.into()),
        "{one}"
    );
    // What a kernel of this kind has where the mount's pages are written by its rules.
    let number = one["device"].as_str().map(str::to_owned).map_or_else(|| device_of(&house.point), Ok)?;
    mount_over("/sys/class/bdi")?;
    fs::create_dir(format!("/sys/class/bdi/{number}-fuse.iomap"))?;
    let one = status_of(&house.point);
    unmount("/sys/class/bdi", UnmountFlags::DETACH)?;
    let one = one?;
    assert_eq!((&one["confined"], &one["iomap"]), (&true.into(), &true.into()), "{one}");
    assert!(fs::read(house.point.join("sizes/65536"))? == noise(65536, 65536));
    mount.unmount(SOON)?;
    house.is_empty()?;
    Ok(vec![("workers looked at", 1)])
}

fn status_of(point: &Path) -> Result<Value> {
    let told: Value = serde_json::from_str(&lazaret::run(["status", "--json"])?.stdout)?;
    let mounts = told["mounts"].as_array().ok_or("no list of mounts")?;
    let ours = mounts.iter().find(|one| one["mountpoint"].as_str() == point.to_str());
    ours.cloned().ok_or_else(|| format!("it is not listed: {told}").into())
}

/// Major and minor number of the file system that is mounted there.
fn device_of(point: &Path) -> Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let line = table.lines().find(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == point));
    Ok(line.and_then(|line| line.split(' ').nth(2)).ok_or("it is not mounted")?.to_owned())
}

fn mount_over(place: &str) -> Result {
    Ok(mount("tmpfs", place, "tmpfs", MountFlags::empty(), None)?)
}

/// By `losetup` and `umount`, as somebody may who does not know whose device it is.
fn taken_from_outside(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "outside", "ext4")?;
    // Its own /dev, where no other's device lies: it goes through all that it finds.
    const ALONE: &str = "set -eu
        mount -t tmpfs tmpfs /dev
        mknod /dev/loop-control c 10 237
        mknod /dev/null c 1 3
        mknod \"$1\" b 7 \"${1#/dev/loop}\"
        exec losetup -D";
    let (mut before, served) = (0, |mount: &Mount, name: &str| -> Result {
        let (length, path) = (name.parse()?, mount.path().join("sizes").join(name));
        assert!(fs::read(path)? == noise(length as u64, length), "it is not served as before");
        Ok(())
    });
    for way in ["losetup -d", "losetup -D", "umount -d"] {
        let (mount, known) = house.mount(&house.image, OPTIONS)?;
        served(&mount, "65536")?;
        match way {
            "losetup -d" => drop(finish(Command::new("losetup").arg("-d").arg(&known.path), SOON)?),
            "losetup -D" => {
                let mut alone = Command::new("unshare");
                alone.args(["--mount", "--propagation", "private", "sh", "-c", ALONE, "sh"]).arg(&known.path);
                finish(&mut alone, SOON)?;
            }
            _ => {}
        }
        assert!(known.stands(), "{way}: it was taken away from beneath the mount");
        // Of another file, and not from the page cache.
        served(&mount, "1048579")?;
        assert!(house.series.counts().begins > before, "{way}: nothing was asked");
        before = 0;
        if way == "umount -d" {
            command::run(Command::new("umount").arg("-d").arg(&house.point))?;
            mount.gone_within(SOON)?;
        } else {
            mount.unmount(SOON)?;
        }
        house.is_empty().map_err(|error| format!("{way}: {error}"))?;
    }
    Ok(vec![("ways to take it away", 3)])
}

/// Neither the device of a mount nor what is on it comes into udevd's database, from which the desktop takes what it shows.
fn not_looked_at(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "udev", "ext4")?;
    let udev = Udev::start()?;
    let (mount, known) = house.mount(&house.image, OPTIONS)?;
    // Longer than udevd takes for a device that it may look at: the comparison below shows that it does.
    let looked = |device: &Path| -> Result<bool> {
        let mut ask = Command::new("udevadm");
        let told = finish(ask.args(["info", "--query=property"]).arg(device), SOON)?.stdout;
        Ok(told.contains(UUID) || Path::new("/dev/disk/by-uuid").join(UUID).exists())
    };
    let (seen, _) = eventually(SOON, || looked(&known.path).unwrap_or(true));
    assert!(!seen, "udevd has looked into {}", known.path.display());
    assert!(fs::read(house.point.join("sizes/65536"))? == noise(65536, 65536));
    mount.unmount(SOON)?;
    house.is_empty()?;
    let other = lazaret_tests::block::LoopDevice::attach(&house.image, true)?;
    let (seen, _) = eventually(Duration::from_secs(10), || looked(other.path()).unwrap_or(false));
    assert!(seen, "udevd looks at no device at all, so this shows nothing");
    drop((other, udev));
    Ok(vec![("devices left alone", 1)])
}

/// The steps that a start has besides: what comes first is a worker that looks for the file system.
const MAPPED: &[(&str, u32)] = &[
    ("ioctl", 1),      // whether this kernel has it
    ("ioctl", 2),      // again, on the mount's own /dev/fuse
    ("ioctl", 3),      // a free loop device
    ("flock", 1),      // it is locked
    ("ioctl", 4),      // it stands over the source
    ("ioctl", 5),      // what it is, by the kernel
    ("ioctl", 6),      // its length
    ("ioctl", 7),      // that it refuses to be written to
    ("ioctl", 8),      // ADD_IOMAP
    ("fsconfig", 9),   // the superblock
    ("fsmount", 1),    // detached
    ("clone3", 2),     // the worker that is to serve
    ("sendto", 3),     // it may go
    ("recvfrom", 7),   // it says that it is confined
    ("sendmsg", 2),    // it gets /dev/fuse
    ("recvfrom", 8),   // it has answered FUSE_INIT, and how mappings are counted
    ("ioctl", 9),      // BACKING_OPEN
    ("sendmsg", 3),    // it gets the source
    ("recvfrom", 9),   // it is ready
    ("move_mount", 1), // the mount becomes visible
    ("seccomp", 1),    // the broker's own filter
];
/// The serving worker's. What it has in common with the one that looks for the file system strikes that one.
const MAPPED_WORKER: &[(&str, u32)] = &[
    ("writev", 2), // says how mappings are counted
];

fn killed_at_each_step(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "killed.whole", "ext4")?;
    let before = digest::of_file(&house.image)?;
    let broker = BROKER.iter().chain(MAPPED).map(|step| (step, Whose::Broker));
    let either = WORKER.iter().chain(MAPPED_WORKER).map(|step| (step, Whose::Either));
    let (mut kills, mut missed) = (0, vec![]);
    for ((name, count), whose) in broker.chain(either) {
        let call = Call { name, count: *count };
        let ended = struck(&house, call, whose).and_then(|()| next_mount_works(&house));
        if let Err(error) = ended {
            missed.push(format!("killed at {name} {count} ({whose:?}): {error}"));
        }
        kills += 1;
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert_eq!(digest::of_file(&house.image)?, before, "the image was written to");
    Ok(vec![("kills survived", kills)])
}

fn struck(house: &House, call: Call, whose: Whose) -> Result {
    let start = |command: Command| house.series.spawn(command);
    let options = "iomap=require,timeout=5";
    let site = Site { source: &house.image, point: &house.point, options, start: &start };
    let mut struck = Struck::at(&site, call, whose, "SIGKILL")?;
    // What is mounted has all steps behind it but the last.
    eventually(lazaret::PATIENCE, || struck.has_struck() || leftover::is_mounted(&house.point));
    let (has_struck, _) = eventually(SOON, || struck.has_struck());
    let ended = if has_struck { struck.wait(lazaret::PATIENCE) } else { Err("the start makes no such call".into()) };
    let (over, _) = eventually(SOON, || lazaret::processes_of(&house.point).is_empty());
    drop(struck);
    // A broker that was killed behind its last step leaves a mount that nobody serves, and the next one takes it away.
    if leftover::is_mounted(&house.point) {
        unmount(&house.point, UnmountFlags::DETACH)?;
    }
    house.series.known();
    house.is_empty()?;
    ended?;
    if over { Ok(()) } else { Err("processes are left".into()) }
}

fn next_mount_works(house: &House) -> Result {
    let (mount, _) = house.mount(&house.image, "iomap=require")?;
    assert!(fs::read(house.point.join("sizes/65536"))? == noise(65536, 65536));
    mount.unmount(SOON)?;
    house.is_empty()
}

/// Unmounted, ended by a signal, and with a broker or a worker that is killed while somebody reads.
fn come_and_go(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "cycles.whole", "ext4")?;
    let before = digest::of_file(&house.image)?;
    let cycles = std::env::var("LAZARET_CYCLES").ok().and_then(|count| count.parse().ok()).unwrap_or(24);
    for turn in 0..cycles {
        let (mount, known) = house.mount(&house.image, "iomap=require")?;
        let (path, length) = (house.point.join("sizes/6291456"), 6 << 20);
        let reader = std::thread::spawn(move || fs::read(path));
        let killed = match turn % 4 {
            0 => {
                let read = reader.join().map_err(|_| "a panic")??;
                assert!(read == noise(length as u64, length), "turn {turn}");
                mount.unmount(SOON)?;
                None
            }
            1 => Some((mount.broker.pid, rustix::process::Signal::TERM)),
            2 => Some((mount.broker.pid, rustix::process::Signal::KILL)),
            _ => Some((mount.worker.pid, rustix::process::Signal::KILL)),
        };
        if let Some((pid, signal)) = killed {
            assert!(known.stands(), "turn {turn}");
            process::signal(pid, signal);
        }
        let (over, _) = eventually(SOON, || lazaret::processes_of(&house.point).is_empty());
        assert!(over, "turn {turn}: processes are left");
        if leftover::is_mounted(&house.point) {
            unmount(&house.point, UnmountFlags::DETACH)?;
        }
        house.is_empty().map_err(|error| format!("turn {turn}: {error}"))?;
    }
    assert_eq!(digest::of_file(&house.image)?, before, "the image was written to");
    Ok(vec![("mounts", cycles), ("loop devices left", loops_over(&house.image) as u64)])
}

/// The test of these tests: the bytes come from the device, and from where the worker says.
fn shifted_is_found(workshop: &Workshop) -> Result<Figures> {
    let house = House::new(workshop, "shifted", "ext4")?;
    let kernel = KernelMount::read_only(&house.image, &house.place.join("kernel"))?;
    house.series.tamper(|io| io.addr = if io.has_space() { io.addr - 4096 } else { io.addr });
    let (mount, _) = house.mount(&house.image, OPTIONS)?;
    let verdict = compare(kernel.path(), mount.path(), Order::LookUpFirst)?.verdict();
    mount.unmount(SOON)?;
    // That it is of the file system's own is told besides.
    let _ = house.series.unmounted();
    kernel.unmount()?;
    assert!(verdict.is_err(), "what lies a block before reads the same");
    house.series.tamper(|io| io.length += 512);
    let (mount, _) = house.mount(&house.image, OPTIONS)?;
    let read = fs::read(mount.path().join("sizes/65536"));
    mount.unmount(SOON)?;
    let half = house.series.unmounted();
    assert!(read.is_err() && half.is_err(), "half a block is taken: {half:?}");
    house.is_empty()?;
    Ok(vec![("sabotages found", 2)])
}
