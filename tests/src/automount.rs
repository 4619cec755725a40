//! `lazaret automount` under test with a real udevd, and sticks to plug in: loop devices, which raise real uevents.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lazaret_policy::channel::Channel;
use lazaret_policy::notice::{Event, Notice, SOCKET};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::command::{self, eventually};
use crate::fill::noise;
use crate::process::{self, Process};
use crate::prove::Figures;
use crate::requirement::{self, Requirement, proof};
use crate::udev::Udev;
use crate::workshop::{Workshop, image_of};
use crate::{Result, apart, lazaret, leftover};

/// What is promised between plugging in and the mount.
pub const SOON: Duration = Duration::from_secs(1);

/// What these tests need.
pub const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::Apart,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("losetup"),
    Requirement::Tool("udevadm"),
    Requirement::Tool("setpriv"),
    Requirement::Tool("unshare"),
    Requirement::Tool("strace"),
    Requirement::Tool("sfdisk"),
    Requirement::Tool("partx"),
    Requirement::Tool("blockdev"),
    Requirement::Tool("systemd-analyze"),
];

/// From pulling out to the end of everything: a broker looks each second, and a busy machine takes its time.
pub const GONE: Duration = Duration::from_secs(3);

/// Bytes of the long file of a [`filled`] stick.
pub const LONG: usize = 4 << 20;

/// A rule that mounts.
pub const MOUNT: &str = "action = 'mount'\n";

/// A test with a directory of its own.
pub type Test = fn(&Path) -> Result<Figures>;

/// The whole of a test executable: apart from the machine, with a udevd of its own.
pub fn main(tests: &'static [(&'static str, Test)]) -> ! {
    if let Err(error) = apart::enter() {
        eprintln!("{error}");
        std::process::exit(1);
    }
    let udev = NEEDS.iter().all(|need| need.missing().is_none()).then(|| Udev::start().expect("udevd"));
    let trial = |(name, test): &'static (&'static str, Test), workshop: &Arc<Workshop>| -> Trial {
        proof("P19", *name, NEEDS, workshop, move |workshop| one(name, *test, workshop))
    };
    requirement::main_in_turn_with(udev, |workshop| tests.iter().map(|test| trial(test, workshop)).collect())
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result<Figures> {
    let _cleanup = Cleanup;
    let place = workshop.directory(&name.replace([' ', ','], "-"))?;
    let figures = test(&place)?;
    nothing_within(GONE)?;
    Ok(figures)
}

/// Takes away what a test has left that has failed, also by a panic, before the next one begins.
struct Cleanup;

impl Drop for Cleanup {
    fn drop(&mut self) {
        for (_, place) in mounts() {
            let _ = rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH);
        }
        eventually(GONE, || mounting().is_empty());
        for one in mounting() {
            process::kill(one.pid);
        }
        for place in ["/run/media", "/run/sticks"] {
            let _ = fs::remove_dir_all(place);
        }
    }
}

/// A policy for loop devices, with the rest of its rule. For root, so that the test can read what is mounted.
pub fn policy(rule: &str) -> String {
    format!(
        "[defaults]\nfor = 'root'\nwhere = '/run/media/%u'\n[[rule]]\nmatch = {{ bus = 'loop', size = '..100M' }}\n{rule}"
    )
}

/// A stick with a file `long` and its own name in the file `name`.
pub fn filled(place: &Path, name: &str, label: &str, more: &[&str]) -> Result<Stick> {
    let place = place.join(name);
    fs::create_dir_all(&place)?;
    let arguments: Vec<&str> = ["-t", "ext4", "-L", label].iter().chain(more).copied().collect();
    let image = image_of(&place, &arguments, |tree| {
        fs::write(tree.join("name"), name)?;
        Ok(fs::write(tree.join("long"), noise(7, LONG))?)
    })?;
    Stick::of(&image)
}

/// The daemon, and what it has said. Dropping it kills it, and ends the mounts that it has left.
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    policy: PathBuf,
}

impl Daemon {
    /// Starts it with this policy, and waits until it is ready.
    pub fn start(place: &Path, policy: &str) -> Result<Self> {
        let path = place.join("policy.toml");
        fs::write(&path, policy)?;
        Self::with(&path, &[])
    }

    /// Starts it again.
    pub fn again(policy: &Path) -> Result<Self> {
        Self::with(policy, &[])
    }

    /// Starts it with more arguments.
    pub fn with(policy: &Path, more: &[&str]) -> Result<Self> {
        Self::under(&[], policy, more)
    }

    /// The same with arguments of setpriv(1) before it, and perhaps another program that runs it.
    pub fn under(before: &[&str], policy: &Path, more: &[&str]) -> Result<Self> {
        let notified = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::DGRAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let address = policy.with_extension("notify");
        let _ = fs::remove_file(&address);
        rustix::net::bind(&notified, &rustix::net::SocketAddrUnix::new(&address)?)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(before).arg(lazaret::broker());
        command.args(["automount", "--policy"]).arg(policy).args(more).env("NOTIFY_SOCKET", &address);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let said = Arc::new(Mutex::new(vec![]));
        let (stderr, heard) = (child.stderr.take().ok_or("no stderr")?, said.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
                heard.lock().expect("no holder panics").push(line);
            }
        });
        let mut daemon = Self { child, said, policy: policy.to_owned() };
        // systemd is told when the daemon is ready, and so are we.
        let mut word = [0; 256];
        let ready = || rustix::net::recv(&notified, &mut word[..], rustix::net::RecvFlags::DONTWAIT).is_ok();
        let mut ready = ready;
        let (ready, _) = eventually(Duration::from_secs(10), || ready() || daemon.ended());
        if ready && !daemon.ended() { Ok(daemon) } else { Err(format!("not ready: {:?}", daemon.said()).into()) }
    }

    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its policy's file.
    pub fn policy(&self) -> &Path {
        &self.policy
    }

    /// The lines that it has said so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("no holder panics").clone()
    }

    /// Demands that within this time it says a line with this in it, and gives that line.
    pub fn says(&self, words: &str, patience: Duration) -> Result<String> {
        let find = || self.said().into_iter().find(|line| line.contains(words));
        eventually(patience, || find().is_some());
        find().ok_or_else(|| format!("the daemon has not said {words:?} but {:#?}", self.said()).into())
    }

    /// Signals it.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Ends it by this signal; mounts stay. Gives its exit code.
    pub fn stop(mut self, signal: Signal) -> Result<Option<i32>> {
        self.signal(signal);
        Ok(command::wait(&mut self.child, Duration::from_secs(5))?.code())
    }

    /// How it ends by itself.
    pub fn code(&mut self) -> Result<Option<i32>> {
        Ok(command::wait(&mut self.child, Duration::from_secs(5))?.code())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Connects to the daemon as this user would.
pub fn agent(uid: u32) -> Result<Channel> {
    let connect = move || -> Result<Channel> {
        // The identity of this thread alone.
        if uid != 0 {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid))?;
        }
        let kind = rustix::net::SocketType::SEQPACKET;
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(rustix::net::AddressFamily::UNIX, kind, flags, None)?;
        rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(SOCKET)?)?;
        Ok(Channel::over(socket))
    };
    thread::spawn(connect).join().map_err(|_| "a panic")?
}

/// Demands that the next that it hears is this.
pub fn hears(channel: &Channel, event: Event) -> Result<Notice> {
    let (notice, _) = channel.receive_within::<Notice>(GONE)?;
    assert_eq!(notice.event, event, "{notice:?}");
    Ok(notice)
}

/// An image in a loop device: a stick that can be plugged in and pulled out.
pub struct Stick {
    image: PathBuf,
    device: Option<PathBuf>,
    /// Where it is mounted last, to be cleaned up.
    length: u64,
}

impl Stick {
    /// Made of an image, which is changed by pulling it out.
    pub fn of(image: &Path) -> Result<Self> {
        Ok(Self { image: image.to_owned(), device: None, length: fs::metadata(image)?.len() })
    }

    /// An empty file system with this label and these arguments of mke2fs.
    pub fn new(place: &Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let image = place.join(name);
        File::create(&image)?.set_len(16 << 20)?;
        let kind = if arguments.contains(&"-t") { &[][..] } else { &["-t", "ext4"] };
        command::run(Command::new("mke2fs").args(["-q", "-F"]).args(kind).args(arguments).arg(&image))?;
        Self::of(&image)
    }

    /// Plugs it in.
    pub fn plug(&mut self) -> Result<&Path> {
        let mut last = None;
        for _ in 0..50 {
            match command::run(Command::new("losetup").args(["--find", "--show"]).arg(&self.image)) {
                Ok(name) => return Ok(self.device.insert(PathBuf::from(name.trim()))),
                Err(error) => last = Some(error),
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(last.unwrap_or_else(|| "no loop device".into()))
    }

    /// The device it is plugged into.
    pub fn device(&self) -> &Path {
        self.device.as_deref().expect("it is plugged in")
    }

    /// Pulls it out, whoever uses it: the medium has no bytes any more.
    pub fn pull(&mut self) -> Result {
        let Some(device) = self.device.take() else { return Ok(()) };
        // Not truncated in place: what it was is kept for the next time.
        let kept = self.image.with_extension("kept");
        command::run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&kept))?;
        File::options().write(true).open(&self.image)?.set_len(0)?;
        let shrunk = command::run(Command::new("losetup").arg("--set-capacity").arg(&device));
        let detached = command::run(Command::new("losetup").arg("--detach").arg(&device));
        fs::rename(&kept, &self.image)?;
        shrunk.and(detached).map(drop)
    }

    /// What the image's file is.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Bytes of it.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// The partitions that partx(8) has told the kernel of on this device. The kernel keeps them without a medium, for whoever
/// gets the device next.
pub struct Partitions(PathBuf);

impl Partitions {
    /// Tells the kernel of all.
    pub fn add(device: &Path) -> Result<Self> {
        let partitions = Self(device.to_owned());
        partitions.end()?;
        command::run(Command::new("partx").arg("--add").arg(device))?;
        Ok(partitions)
    }

    /// Takes them away, once nobody looks into them any more.
    pub fn end(&self) -> Result {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let left = || {
            let entries = fs::read_dir(format!("/sys/block/{name}")).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}p"))).count()
        };
        let (gone, _) = eventually(Duration::from_secs(5), || {
            left() == 0 || {
                let _ = Command::new("partx").arg("--delete").arg(&self.0).output();
                left() == 0
            }
        });
        if gone { Ok(()) } else { Err(format!("{name} keeps {} partitions", left()).into()) }
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        let of = format!("{}p", self.0.display());
        for (_, place) in mounts().into_iter().filter(|(source, _)| source.starts_with(&of)) {
            let _ = rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = self.end();
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            // Whoever still uses it has to let go first.
            for line in mounts().into_iter().filter(|(source, _)| Path::new(source) == device) {
                let _ = rustix::mount::unmount(&line.1, rustix::mount::UnmountFlags::DETACH);
            }
            let _ = Command::new("losetup").arg("--detach").arg(device).output();
        }
    }
}

/// Mounts by Lazaret: the source and the place.
pub fn mounts() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = after.split(' ');
        let source = fields.next().filter(|kind| kind.ends_with(".lazaret")).and_then(|_| fields.next())?;
        Some((source.to_owned(), before.split(' ').nth(4)?.replace("\\040", " ")))
    };
    text.lines().filter_map(line).collect()
}

/// Where a device is mounted.
pub fn place_of(device: &Path) -> Option<PathBuf> {
    mounts().into_iter().find(|(source, _)| Path::new(source) == device).map(|(_, place)| place.into())
}

/// Demands that a device is mounted in this time, and says where and after how long.
pub fn mounted_within(device: &Path, patience: Duration) -> Result<(PathBuf, Duration)> {
    let (there, took) = eventually(patience, || place_of(device).is_some());
    let place = place_of(device).filter(|_| there);
    place.map(|place| (place, took)).ok_or_else(|| format!("{} is not mounted after {took:?}", device.display()).into())
}

/// Demands that in this time no mount is there, and no directory and no process that is for one.
pub fn nothing_within(patience: Duration) -> Result<Duration> {
    let mut left = vec![];
    let (clean, took) = eventually(patience, || {
        left = remains();
        left.is_empty()
    });
    if clean { Ok(took) } else { Err(format!("left behind after {took:?}: {}", left.join(", ")).into()) }
}

fn remains() -> Vec<String> {
    let places = ["/run/media", "/run/sticks"].into_iter().flat_map(|place| below(Path::new(place)));
    let mounts = mounts().into_iter().map(|(source, place)| format!("{source} at {place}"));
    let processes = mounting().into_iter().map(|one| format!("{one:?}"));
    mounts.chain(places.map(|place| place.display().to_string())).chain(processes).collect()
}

/// Everything below a directory, without what is mounted.
fn below(directory: &Path) -> Vec<PathBuf> {
    if leftover::is_mounted(directory) {
        return vec![];
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| below(&path).into_iter().chain([path])).collect()
}

/// Processes of this run that mount or serve; the daemon is none of them.
pub fn mounting() -> Vec<Process> {
    let (broker, worker) = (lazaret::broker(), lazaret::worker());
    let ours = |one: &Process| {
        process::is_executable(one, &worker)
            || process::is_executable(one, &broker) && one.arguments.split('\0').nth(1) == Some("mount")
    };
    process::all().into_iter().filter(ours).collect()
}
