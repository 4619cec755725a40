//! The worker of a live mount, looked at from outside: what it is, what it holds, and which system calls it makes while
//! a whole image is read. And that SECURITY.md shows the tables that the filters are built from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lazaret_policy::seccomp::{self, Answer, Row};
use lazaret_policy::watching::WATCHING;
use rustix::process::Signal;

use lazaret_tests::block::{KernelMount, unmount_now};
use lazaret_tests::command::{eventually, wait};
use lazaret_tests::compare::{Order, compare};
use lazaret_tests::evil::host;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::process::{self, status};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, MOUNTS, TRACED, proof};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, leftover, recipe};

const SECOND: Duration = Duration::from_secs(1);

/// A look at one aspect of a worker that serves.
type Look = fn(&Mount) -> Result;

const LOOKS: &[(&str, Look)] = &[
    ("every thread has all filters, no_new_privs and no capability", threads_are_confined),
    ("it has a uid and a gid of its own and no groups", own_identity),
    ("all seven namespaces are its own", own_namespaces),
    ("its descriptors are the channel and /dev/fuse", two_descriptors),
    ("its root is empty and read-only, and the only mount", empty_root),
    ("it cannot be dumped, and leaves no core", undumpable),
    ("no page of it is writable and executable, and it runs one file", no_writable_code),
    ("the image is mapped for reading only, and no fd of it is left", image_is_read_only),
    ("its environment is empty and its session its own", nothing_inherited),
    ("it may open no further file and start no further thread", limits_are_closed),
    ("the broker is filtered too and holds no /dev/fuse", broker_is_filtered),
];

fn main() {
    requirement::main(|workshop| {
        let looks = LOOKS.iter();
        let mut trials: Vec<_> = looks
            .map(|(name, look)| proof("P2", *name, MOUNTS, workshop, |workshop| on_a_mount(name, *look, workshop)))
            .collect();
        trials.push(proof("P2", "a namespace that is missing is found", MOUNTS, workshop, missing_namespace));
        trials.push(proof("P3", "a whole image is read with the calls of the table", TRACED, workshop, traced));
        trials.push(proof("P3", "SECURITY.md shows the tables of the filters", &[], workshop, |_| {
            security_page().map(|()| vec![])
        }));
        trials.push(proof("P3", "at most twelve rows are allowed while serving", &[], workshop, |_| few_rows()));
        trials
    })
}

fn on_a_mount(name: &str, look: Look, workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory(&name.replace([' ', '/'], "-"))?;
    let mount = Mount::new(&workshop.image(recipe::default())?, &place.join("point"))?;
    fs::read(mount.path().join("sizes/4097"))?;
    look(&mount)?;
    mount.unmount(SECOND)?;
    leftover::nothing_of(&place)?;
    Ok(vec![])
}

fn proc(process: &process::Process, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{file}", process.pid))
}

fn read(process: &process::Process, file: &str) -> Result<String> {
    let path = proc(process, file);
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn threads_are_confined(mount: &Mount) -> Result {
    let tasks: Vec<_> = fs::read_dir(proc(&mount.worker, "task"))?.flatten().map(|task| task.file_name()).collect();
    assert!(tasks.len() >= 2, "a worker has threads, found: {tasks:?}");
    for task in tasks {
        let of = format!("{}/task/{}", mount.worker.pid, task.to_string_lossy());
        assert_eq!(status(&of, "Seccomp")?, "2", "{of}");
        let filters = seccomp::filters(seccomp::STARTING) + seccomp::filters(seccomp::SERVING);
        assert_eq!(status(&of, "Seccomp_filters")?.parse::<u32>()?, filters, "{of}");
        assert_eq!(status(&of, "NoNewPrivs")?, "1", "{of}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(&of, set)?, "0000000000000000", "{of} {set}");
        }
    }
    Ok(())
}

fn own_identity(mount: &Mount) -> Result {
    let of = mount.worker.pid.to_string();
    for name in ["Uid", "Gid"] {
        let line = status(&of, name)?;
        let ids = line.split_whitespace().map(str::parse).collect::<std::result::Result<BTreeSet<u32>, _>>()?;
        assert_eq!(ids.len(), 1, "{name}: {line}");
        assert!(ids.iter().all(|id| *id >= lazaret_policy::WORKER_UID_BASE), "{name} is not of our range: {line}");
    }
    assert_eq!(status(&of, "Groups")?, "", "supplementary groups");
    Ok(())
}

/// The namespaces that a worker shares with its broker or with us.
fn shared_namespaces(worker: &process::Process, broker: &process::Process) -> Result<Vec<&'static str>> {
    let mut shared = vec![];
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |process| fs::read_link(proc(process, &format!("ns/{name}")));
        let theirs = of(worker)?;
        if theirs == fs::read_link(format!("/proc/self/ns/{name}"))? || theirs == of(broker)? {
            shared.push(name);
        }
    }
    Ok(shared)
}

/// The test of these tests: on a host that gives no network namespace it is found that the worker has none of its own.
fn missing_namespace(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("missing-namespace")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let point = place.join("point");
    fs::create_dir(&point)?;
    let mut command = host::command(lazaret::broker(), &[("net", 0)]);
    command.arg("mount").arg("-f").arg(&image).arg(&point).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut broker = Running(command.spawn()?);
    let serves = |one: &process::Process| {
        process::is_executable(one, &lazaret::worker())
            && status(&one.pid.to_string(), "Seccomp_filters").is_ok_and(|filters| {
                filters.parse() == Ok(seccomp::filters(seccomp::STARTING) + seccomp::filters(seccomp::SERVING))
            })
    };
    let mut worker = None;
    eventually(Duration::from_secs(10), || {
        worker = lazaret::processes_of(&place).into_iter().find(serves);
        worker.is_some()
    });
    let worker = worker.ok_or("no worker serves where there is no network namespace")?;
    let parent = process::one(worker.parent).ok_or("a worker without a broker")?;
    assert_eq!(shared_namespaces(&worker, &parent)?, ["net"], "one namespace was left out");
    process::signal(parent.pid, Signal::TERM);
    let said = broker.end()?;
    assert!(said.contains("without") && said.contains("net"), "the broker does not say what is missing: {said}");
    leftover::nothing_of(&place)?;
    Ok(vec![("sabotages found", 1)])
}

fn own_namespaces(mount: &Mount) -> Result {
    assert_eq!(shared_namespaces(&mount.worker, &mount.broker)?, [""; 0], "shared with the broker, or with us");
    let levels = status(&mount.worker.pid.to_string(), "NSpid")?;
    assert_eq!(levels.split_whitespace().last(), Some("1"), "it sees itself as another pid: {levels}");
    Ok(())
}

fn descriptors(process: &process::Process) -> Result<BTreeMap<u32, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(proc(process, "fd"))? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().parse()?;
        found.insert(number, fs::read_link(entry.path())?.to_string_lossy().into_owned());
    }
    Ok(found)
}

fn two_descriptors(mount: &Mount) -> Result {
    let found = descriptors(&mount.worker)?;
    assert!(found.keys().eq(&[0, 3]), "descriptors 0 and 3 are wanted: {found:?}");
    assert!(found[&0].starts_with("socket:"), "0 is not the channel: {found:?}");
    assert_eq!(found[&3], "/dev/fuse");
    Ok(())
}

fn empty_root(mount: &Mount) -> Result {
    let mounts = read(&mount.worker, "mountinfo")?;
    let lines: Vec<&str> = mounts.lines().collect();
    assert_eq!(lines.len(), 1, "{mounts}");
    let options = lines[0].split(' ').nth(5).ok_or("a mount without options")?;
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|option| option == word), "the root is not {word}: {mounts}");
    }
    assert_eq!(fs::read_dir(proc(&mount.worker, "root/"))?.count(), 0, "the root is not empty");
    assert_eq!(fs::read_link(proc(&mount.worker, "cwd"))?, Path::new("/"));
    Ok(())
}

fn undumpable(mount: &Mount) -> Result {
    // What cannot be dumped has its files in /proc owned by root, and not by its own uid.
    assert_eq!(fs::metadata(proc(&mount.worker, "environ"))?.uid(), 0, "it can be dumped");
    limit(mount, "Max core file size", "0")
}

fn limit(mount: &Mount, name: &str, value: &str) -> Result {
    let limits = read(&mount.worker, "limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no limit {name}"))?;
    let hard = line.split_whitespace().nth(1);
    if hard == Some(value) { Ok(()) } else { Err(format!("{name} is {hard:?} and not {value}").into()) }
}

fn limits_are_closed(mount: &Mount) -> Result {
    limit(mount, "Max open files", "0")?;
    limit(mount, "Max processes", "0")?;
    limit(mount, "Max file size", "0")
}

/// The lines of `/proc/PID/maps`: permissions and, where there is one, the file.
fn mappings(mount: &Mount) -> Result<Vec<(String, String)>> {
    let maps = read(&mount.worker, "maps")?;
    let fields = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(fields.map(|fields| (fields[1].to_owned(), fields[5..].join(" "))).collect())
}

fn no_writable_code(mount: &Mount) -> Result {
    let maps = mappings(mount)?;
    let mixed: Vec<_> = maps.iter().filter(|(rights, _)| rights.contains('w') && rights.contains('x')).collect();
    assert!(mixed.is_empty(), "writable and executable: {mixed:?}");
    let code: BTreeSet<_> = maps.iter().filter(|(rights, _)| rights.contains('x')).map(|(_, file)| &file[..]).collect();
    let worker = mount.worker.executable.to_string_lossy();
    let other: Vec<_> =
        code.iter().filter(|file| **file != worker && !["[vdso]", "[vsyscall]"].contains(file)).collect();
    assert!(code.contains(&*worker) && other.is_empty(), "executable pages of {code:?}");
    Ok(())
}

fn image_is_read_only(mount: &Mount) -> Result {
    let maps = mappings(mount)?;
    let of_image: Vec<_> = maps.iter().filter(|(_, file)| file.ends_with(".img")).collect();
    assert!(!of_image.is_empty(), "the image is not mapped: {maps:?}");
    assert!(of_image.iter().all(|(rights, _)| rights.starts_with("r--")), "{of_image:?}");
    let held = descriptors(&mount.broker)?.into_iter().filter(|(_, file)| file.ends_with(".img"));
    for (number, file) in held {
        let info = read(&mount.broker, &format!("fdinfo/{number}"))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).ok_or("no flags")?;
        let flags = u32::from_str_radix(flags.trim(), 8)?;
        assert_eq!(flags & 0o3, 0, "the broker may write to {file}");
    }
    Ok(())
}

fn nothing_inherited(mount: &Mount) -> Result {
    assert_eq!(read(&mount.worker, "environ")?, "");
    let stat = read(&mount.worker, "stat")?;
    let (_, after) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let (group, session, terminal) = (fields[2], fields[3], fields[4]);
    let own = mount.worker.pid.to_string();
    assert_eq!((group, session), (&own[..], &own[..]), "process group and session");
    assert_eq!(terminal, "0", "it has a terminal");
    Ok(())
}

fn broker_is_filtered(mount: &Mount) -> Result {
    let of = mount.broker.pid.to_string();
    assert_eq!(status(&of, "Seccomp")?, "2", "the broker has no filter");
    assert_eq!(status(&of, "NoNewPrivs")?, "1");
    let held = descriptors(&mount.broker)?;
    assert!(held.values().all(|file| file != "/dev/fuse"), "the broker holds /dev/fuse: {held:?}");
    Ok(())
}

/// A broker in the foreground, ended whatever happens.
struct Running(Child);

impl Running {
    /// Waits for its end, and gives what it said.
    fn end(&mut self) -> Result<String> {
        wait(&mut self.0, Duration::from_secs(10))?;
        let mut said = String::new();
        self.0.stderr.take().ok_or("no stderr")?.read_to_string(&mut said)?;
        Ok(said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// strace on a process, ended whatever happens.
struct Trace(Child);

impl Trace {
    fn attach(pid: u32, log: &Path) -> Result<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-p", &pid.to_string(), "-o"]).arg(log).stdin(Stdio::null());
        let trace = Self(strace.spawn()?);
        let tasks = || fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let traced = |task: fs::DirEntry| {
            status(&format!("{pid}/task/{}", task.file_name().to_string_lossy()), "TracerPid").is_ok_and(|by| by != "0")
        };
        match eventually(Duration::from_secs(10), || tasks().all(traced)) {
            (true, _) => Ok(trace),
            _ => Err("strace does not attach".into()),
        }
    }

    fn end(mut self) -> Result {
        process::signal(self.0.id(), Signal::INT);
        wait(&mut self.0, Duration::from_secs(10)).map(drop)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often each call was made, by the log of strace: `PID name(…) = …`, or `PID <... name resumed>…`.
fn calls(log: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for line in fs::read_to_string(log)?.lines() {
        let rest = line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start();
        if let Some((name, _)) = rest.split_once('(')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            *found.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(found)
}

/// The whole comparison with the kernel is made while strace looks on, then the image is cut, and the mount ended.
fn traced(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("traced")?;
    let (image, log) = (workshop.copy(recipe::named("blocks-of-1k"), &place)?, place.join("log"));
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    let mount = Mount::new(&image, &place.join("point"))?;
    let trace = Trace::attach(mount.worker.pid, &log)?;
    let compared = compare(kernel.path(), mount.path(), Order::LookUpFirst)?;
    kernel.unmount()?;
    let pid = mount.worker.pid;
    unmount_now(mount.path())?;
    eventually(Duration::from_secs(2), || !process::runs(pid));
    trace.end()?;
    drop(mount);
    compared.verdict()?;
    let made = calls(&log)?;
    println!("calls while {} objects were read: {made:?}", compared.objects);
    let allowed: BTreeSet<&str> = allowed(seccomp::SERVING).map(|row| row.name).collect();
    let others: Vec<_> = made.keys().filter(|name| !allowed.contains(name.as_str())).collect();
    assert!(others.is_empty(), "calls without a row: {others:?}");
    assert!(made.get("read").is_some_and(|count| *count > compared.objects), "strace has seen too little: {made:?}");
    assert!(made.contains_key("writev"), "strace has seen no answer: {made:?}");
    leftover::nothing_of(&place)?;
    Ok(vec![("kinds of calls made", made.len() as u64)])
}

fn allowed(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.answer == Answer::Allow)
}

fn few_rows() -> Result<Figures> {
    let count = allowed(seccomp::SERVING).count();
    assert!((1..=12).contains(&count), "{count} rows are allowed while serving");
    Ok(vec![("calls allowed", count as u64)])
}

fn security_page() -> Result {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md");
    let page = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let tables = [
        ("serving", seccomp::SERVING),
        ("answering", seccomp::ANSWERING),
        ("starting", seccomp::STARTING),
        ("watching", WATCHING),
    ];
    for (name, rows) in tables {
        let table = seccomp::markdown(rows);
        assert!(table.lines().count() == rows.len() + 2, "a row of {name} takes more than a line");
        if !page.contains(&table) {
            let missing: Vec<&str> = table.lines().filter(|line| !page.contains(line)).collect();
            return Err(format!(
                "the table for {name} is not in SECURITY.md as it is, missing: {missing:#?}\nwanted:\n{table}"
            )
            .into());
        }
    }
    // The user's table is told by one word.
    assert!(page.contains("Without root the table is the same less `umount2`"));
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    let wanted: usize = tables.iter().map(|(_, rows)| rows.len()).sum();
    assert_eq!(rows, wanted, "SECURITY.md has rows that no table has");
    Ok(())
}
