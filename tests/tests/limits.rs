//! A worker is held to its limits and lives at them: a request that needs more memory than is left gets ENOMEM, all others
//! their answer; and every limit of the table stands in the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lazaret_tests::command::eventually;
use lazaret_tests::damage::Victim;
use lazaret_tests::evil::run::Quarters;
use lazaret_tests::evil::{Act, Evidence, Instruction, weakness};
use lazaret_tests::evil_disk::{EvilDisk, Fault};
use lazaret_tests::fill::noise;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::process::runs;
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, MOUNTS, proof, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, recipe};

/// A file of blocks and holes in turn: what is read of it has to be put together in the worker's memory.
const FILE: &str = "holes/every-other";
const BLOCKS: u64 = 100;
const LENGTH: usize = 792 << 10;
/// More of them at once than the least memory holds.
const CLIENTS: usize = 16;

fn main() {
    requirement::main(|workshop| {
        vec![
            proof("P16", "a request too many gets ENOMEM and the worker lives", MOUNTS, workshop, out_of_memory),
            proof("P16", "every limit of the table stands in the kernel", MOUNTS, workshop, table),
            proof("P16", "a process without limits is found", &[], workshop, no_table),
            trial("a cgroup limits the worker where the host has one to give", MOUNTS, workshop, cgroup),
            trial("what explodes in the worker's cgroup stays in there", MOUNTS, workshop, bombs),
        ]
    })
}

/// The nearest group above our own, or that, whose groups can be limited.
fn controlling_group() -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let tree = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let (Some(tree), Some(own)) = (tree, own) else { return Ok(None) };
    let controls = |group: &&Path| {
        let enabled = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        enabled.split_whitespace().any(|name| ["memory", "pids", "cpu"].contains(&name))
    };
    Ok(Path::new(tree)
        .join(own)
        .ancestors()
        .take_while(|group| group.starts_with(tree))
        .find(controls)
        .map(PathBuf::from))
}

/// The worker is in a group of its own with limits, which goes with it; without such a host it is where its broker is.
fn cgroup(workshop: &Workshop) -> Result {
    let place = workshop.directory("cgroup")?;
    let mount = Mount::new(&workshop.image(recipe::default())?, &place.join("point"))?;
    let group = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let (worker, broker) = (group(mount.worker.pid)?, group(mount.broker.pid)?);
    let status = lazaret::run(["status", "--json"])?.stdout;
    let Some(parent) = controlling_group()? else {
        assert_eq!(worker, broker, "a group that limits nothing");
        mount.unmount(Duration::from_secs(1))?;
        return Ok(());
    };
    let own = parent.join(format!("lazaret-{}", mount.broker.pid));
    let held = fs::read_to_string(own.join("cgroup.procs"))?;
    assert_eq!(held.trim(), mount.worker.pid.to_string(), "who is in {}", own.display());
    let mut limits = vec![];
    for (name, value) in [("memory.max", "268435456"), ("memory.swap.max", "0"), ("cpu.max", "200000 100000")] {
        if let Ok(limit) = fs::read_to_string(own.join(name)) {
            assert_eq!(limit.trim(), value, "{name}");
            limits.push(name);
        }
    }
    if let Ok(limit) = fs::read_to_string(own.join("pids.max")) {
        assert!(limit.trim().parse::<u32>()? <= 18, "pids.max {limit}");
        limits.push("pids.max");
    }
    assert!(!limits.is_empty() && status.contains(limits[limits.len() - 1]), "{limits:?} in {status}");
    mount.unmount(Duration::from_secs(1))?;
    assert!(!own.exists(), "{} is left", own.display());
    leftover::nothing_of(&place)?;
    Ok(())
}

/// How often the kernel has killed somebody for want of memory.
fn kills_for_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).ok_or("the kernel does not count")?;
    Ok(line.parse()?)
}

/// What the group of the only worker below this one tells of its processors, until it is gone.
fn watched(parent: &Path, over: impl Fn() -> bool) -> BTreeMap<String, u64> {
    let mut seen = BTreeMap::new();
    while !over() {
        let groups = fs::read_dir(parent).into_iter().flatten().flatten();
        let own = groups.filter(|group| group.file_name().to_string_lossy().starts_with("lazaret-"));
        let text = own.filter_map(|group| fs::read_to_string(group.path().join("cpu.stat")).ok()).collect::<String>();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        seen.extend(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))));
        thread::sleep(Duration::from_millis(20));
    }
    seen
}

/// A lost worker without any other limit takes all that there is of memory, processes and processors. Where the host has no
/// group to give there is nothing to see, and `make vm` shows it.
fn bombs(workshop: &Workshop) -> Result {
    let Some(parent) = controlling_group()? else {
        println!("this host has no cgroup to give");
        return Ok(());
    };
    let weakness = weakness::NO_SECCOMP | weakness::NO_LANDLOCK | weakness::NO_LIMITS;
    let quarters = Quarters::new(&workshop.directory("bombs")?, weakness)?;
    let bomb = |numbers: &[u64], options| quarters.mount_with(Instruction::new(Act::Bomb, numbers), options);
    let killed = kills_for_memory()?;
    let finished = bomb(&[0], "timeout=60,memory=16M")?;
    assert!(finished.code() == Some(32) && finished.stderr.contains("ended by signal 9"), "{finished:?}");
    assert!(kills_for_memory()? > killed, "it was not the kernel that ended it");
    let finished = bomb(&[1], "timeout=60,threads=2")?;
    match Evidence::read(&finished.stderr) {
        Some(Evidence::Done(count)) => assert!(count <= 3, "{count} processes were started"),
        other => return Err(format!("{other:?}: {finished:?}").into()),
    }
    let start = Instant::now();
    let (finished, seen) = thread::scope(|scope| {
        let bomb = scope.spawn(|| bomb(&[2, 3000], "timeout=60,threads=8"));
        let seen = watched(&parent, || bomb.is_finished());
        (bomb.join(), seen)
    });
    let (finished, took) = (finished.map_err(|_| "a panic")??, start.elapsed());
    let spinning = match Evidence::read(&finished.stderr) {
        Some(Evidence::Done(count)) if count > 3 => count + 1,
        other => return Err(format!("{other:?}: {finished:?}").into()),
    };
    let (used, throttled) = (seen.get("usage_usec").copied().unwrap_or(0), seen.get("nr_throttled").copied());
    assert!(used > 0 && u128::from(used) < took.as_micros() * 22 / 10, "{used} microseconds in {took:?}");
    let processors = thread::available_parallelism()?.get();
    assert!(
        processors <= 2 || throttled > Some(0),
        "{spinning} on {processors} processors were not held back: {seen:?}"
    );
    println!("{spinning} processes had {used} microseconds in {took:?} on {processors} processors: {throttled:?}");
    quarters.empty()?;
    Ok(())
}

/// The file as it should be.
fn content() -> Vec<u8> {
    let pairs = (0..BLOCKS).flat_map(|block| [noise(block, 4096), vec![0; 4096]]);
    pairs.flatten().take(LENGTH).collect()
}

/// The whole file in one request, which no cache answers.
fn read_at_once(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut bytes = Vec::with_capacity(LENGTH);
    let count = rustix::io::pread(&file, rustix::buffer::spare_capacity(&mut bytes), 0)?;
    assert_eq!(count, LENGTH, "fd {} was read in more than one piece", file.as_raw_fd());
    Ok(bytes)
}

fn out_of_memory(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("out-of-memory")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    let victim = Victim::open(&image)?;
    let (size, last) = (victim.block_size()?, u32::try_from(2 * (BLOCKS - 1))?);
    let hit = victim.block(FILE, 0)? * size..(victim.block(FILE, last)? + 1) * size;
    let disk = EvilDisk::over(&image, &place.join("evil"))?;
    let words = format!("memory=8M,threads={CLIENTS},timeout=60");
    let mount = Mount::with(&disk.path(), &place.join("point"), &words)?;
    let path = mount.path().join(FILE);
    fs::metadata(&path)?;
    // Each holds what it has reserved until the disk answers.
    disk.fault(Fault::Stall, hit)?;
    let (sender, receiver) = mpsc::channel();
    for _ in 0..CLIENTS {
        let (sender, path) = (sender.clone(), path.clone());
        thread::spawn(move || sender.send(read_at_once(&path)));
    }
    let refused = receiver.recv_timeout(Duration::from_secs(20)).map_err(|_| "all of them fit")?;
    assert_eq!(refused.map_err(|error| error.raw_os_error()).err(), Some(Some(libc::ENOMEM)), "the first answer");
    // Others are served meanwhile.
    assert!(fs::read(mount.path().join("sizes/4097"))? == noise(4097, 4097), "another file was read wrongly");
    disk.fault(Fault::None, 0..0)?;
    let (mut right, mut short_of_memory) = (0, 1);
    for _ in 1..CLIENTS {
        match receiver.recv_timeout(Duration::from_secs(20)).map_err(|_| "a client hangs")? {
            Ok(bytes) if bytes == content() => right += 1,
            Ok(_) => return Err("a file was read wrongly".into()),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => short_of_memory += 1,
            Err(error) => return Err(format!("a read ended with {error}").into()),
        }
    }
    assert!(right > 0, "nobody got an answer");
    assert!(runs(mount.worker.pid), "the worker is dead");
    assert!(read_at_once(&path)? == content(), "there is memory again");
    mount.unmount(Duration::from_secs(1))?;
    drop(disk);
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    println!("of {CLIENTS} requests {short_of_memory} got ENOMEM and {right} their answer");
    Ok(vec![("requests without memory", short_of_memory)])
}

/// The limits of a worker that serves: the name in `/proc/PID/limits`, and the most.
const LIMITS: &[(&str, &str)] = &[
    ("Max file size", "0"),
    ("Max data size", "0"),
    ("Max core file size", "0"),
    ("Max processes", "0"),
    ("Max open files", "0"),
    ("Max locked memory", "0"),
    ("Max pending signals", "16"),
    ("Max msgqueue size", "0"),
    ("Max nice priority", "0"),
    ("Max realtime priority", "0"),
];

/// The limits of a process that are not those of the table.
fn not_limited(pid: u32) -> Result<Vec<&'static str>> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let mut open = vec![];
    for (name, most) in LIMITS {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no limit {name}"))?;
        let seen: Vec<&str> = line.split_whitespace().take(2).collect();
        if seen != [*most, *most] {
            open.push(*name);
        }
    }
    Ok(open)
}

/// The test of the next one: a process that was not limited is told from a worker.
fn no_table(_: &Workshop) -> Result<Figures> {
    let open = not_limited(std::process::id())?;
    assert!(open.contains(&"Max open files") && open.contains(&"Max processes"), "we are not limited, but in {open:?}");
    Ok(vec![("sabotages found", 1)])
}

fn table(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("table")?;
    let mount = Mount::new(&workshop.image(recipe::default())?, &place.join("point"))?;
    let open = not_limited(mount.worker.pid)?;
    assert!(open.is_empty(), "not limited as the table says: {open:?}");
    let resident = || lazaret_tests::process::status(&mount.worker.pid.to_string(), "VmRSS");
    // Its threads: one for each of threads=, and those that started them.
    let (few, _) = eventually(Duration::from_secs(1), || {
        fs::read_dir(format!("/proc/{}/task", mount.worker.pid)).is_ok_and(|tasks| tasks.count() <= 4)
    });
    assert!(few, "it has more threads than it was given");
    println!("a worker of two threads that waits: {}", resident()?);
    mount.unmount(Duration::from_secs(1))?;
    leftover::nothing_of(&place)?;
    Ok(vec![("limits held", LIMITS.len() as u64)])
}
