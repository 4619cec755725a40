//! A stand-in for a kernel with the series "fuse: use fs-iomap", as far as a broker meets it: it answers the three requests
//! to /dev/fuse by the series' own rules, and holds a device that it was given until it is told that the mount has ended.
//!
//! What holds here: all else is the real kernel, which knows nothing of this. So the real worker is offered no iomap in
//! FUSE_INIT; one that says otherwise is made for it ([`crate::evil::weakness::CLAIMS_IOMAP`]). A [whole](Series::whole)
//! one stands between the worker and the real kernel besides, and offers it.

pub mod notify;
mod whole;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use lazaret_policy::FUSE_FD;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::command::{Finished, wait};
use crate::double::kernel::Counts;
use crate::double::wire::Io;
use crate::double::zone::Zone;
use crate::{Result, lazaret, process};
use notify::{Answer, Asked, Listener, Watched};
use whole::{Connection, Rules};

const FUSE: &str = "/dev/fuse";
const SUPPORT: u32 = 0x8010_e563;
const ADD: u32 = 0x0000_e565;
const OPEN: u32 = 0x4010_e501;
/// `FSCONFIG_CMD_CREATE`.
const CREATE: u32 = 6;
/// What is answered on every kernel of this kind, and what on a whole one besides.
const BROKERS: [Watched<'_>; 2] = [
    Watched { call: libc::SYS_ioctl, argument: 1, values: &[SUPPORT, ADD, OPEN] },
    Watched { call: libc::SYS_fsconfig, argument: 1, values: &[CREATE] },
];
const WORKERS: [Watched<'_>; 2] = [
    Watched { call: libc::SYS_read, argument: 0, values: &[FUSE_FD as u32] },
    Watched { call: libc::SYS_writev, argument: 0, values: &[FUSE_FD as u32] },
];
/// The bit of CAP_SYS_RAWIO.
const RAWIO: u64 = 1 << 17;

/// A step of the broker's, in the order in which it should come to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// IOMAP_SUPPORT. It may be asked more than once.
    Support,
    /// ADD_IOMAP.
    Add,
    /// The superblock is made.
    Create,
    /// BACKING_OPEN.
    Open,
}

/// What this kernel does otherwise than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It has the series, and its switch is off.
    Off,
    /// This step fails with this error number.
    Fails(Step, i32),
    /// The number of a device is this.
    Cookie(i64),
    /// Whoever comes to this step is killed: before it has an answer, or just after.
    Kills(Step, bool),
}

/// A device that was made known, as it was then.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its node.
    pub path: PathBuf,
    /// Where it begins, and how long it is, in bytes.
    pub range: (u64, u64),
    /// What it stands over, as the kernel names it.
    pub backing: String,
    /// Bytes of its sectors.
    pub sector: u64,
    /// Whether it refuses what would write, ends with its last user, and has no partitions.
    pub read_only: bool,
    /// See there.
    pub autoclear: bool,
    /// See there.
    pub partscan: bool,
}

#[derive(Default)]
struct State {
    /// The image that is mounted, where this is a whole kernel, and its connection.
    image: Option<PathBuf>,
    connection: Option<Connection>,
    tamper: Option<fn(&mut Io)>,
    fault: Option<Fault>,
    /// Who has marked a /dev/fuse, and who has made a superblock.
    marked: Vec<u32>,
    made: Vec<u32>,
    steps: Vec<Step>,
    known: Vec<Known>,
    held: Vec<OwnedFd>,
    wrong: Vec<String>,
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The kernel. Programs have to be started through it.
pub struct Series {
    state: Arc<Mutex<State>>,
    orders: Option<mpsc::Sender<Order>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Series {
    /// A kernel with this fault.
    pub fn new(fault: Fault) -> Result<Self> {
        Self::with(State { fault: Some(fault), ..State::default() })
    }

    /// One that the worker meets, too, with one mount at a time: of the file system that this image is.
    pub fn whole(image: &Path) -> Result<Self> {
        Self::with(State { fault: Some(Fault::None), image: Some(image.to_owned()), ..State::default() })
    }

    fn with(state: State) -> Result<Self> {
        let watched = if state.image.is_some() { [&BROKERS[..], &WORKERS].concat() } else { BROKERS.to_vec() };
        let state = Arc::new(Mutex::new(state));
        let over = Arc::new(AtomicBool::new(false));
        let (orders, taken) = mpsc::channel::<Order>();
        let (listener, listened) = mpsc::channel();
        // A filter is one thread's, and that of all that this starts.
        let starter = thread::spawn(move || {
            let _ = listener.send(notify::listen(&watched));
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        let listener = Arc::new(listened.recv()??);
        let answerer = {
            let (state, over) = (state.clone(), over.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some(asked) = listener.take(20) {
                        answer(&listener, &asked, &state);
                    }
                    let mut state = state.lock().expect("no holder panics");
                    state.connection.iter_mut().for_each(Connection::look);
                }
            })
        };
        Ok(Self { state, orders: Some(orders), over, threads: vec![starter, answerer] })
    }

    /// Starts a program on it.
    pub fn spawn(&self, command: Command) -> Result<Child> {
        let (answer, answered) = mpsc::channel();
        self.orders.as_ref().ok_or("it is over")?.send((command, answer))?;
        Ok(answered.recv()??)
    }

    /// Runs a program on it to its end. It may leave a process behind, so it gets no pipes.
    pub fn run(&self, mut command: Command) -> Result<Finished> {
        let (stdout, stderr) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(stdout.reopen()?).stderr(stderr.reopen()?);
        let start = Instant::now();
        let status = wait(&mut self.spawn(command)?, lazaret::PATIENCE)?;
        let read = |file: &tempfile::NamedTempFile| fs::read_to_string(file.path());
        Ok(Finished { status, stdout: read(&stdout)?, stderr: read(&stderr)?, took: start.elapsed() })
    }

    /// Of a whole one: changes every mapping that the worker of the next mount tells.
    pub fn tamper(&self, how: fn(&mut Io)) {
        self.state().tamper = Some(how);
    }

    /// From now on it has this fault.
    pub fn fault(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// The steps that were taken since this was asked last, each once.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = std::mem::take(&mut self.state().steps);
        steps.dedup();
        steps
    }

    /// The devices that it was made known since this was asked last.
    pub fn known(&self) -> Vec<Known> {
        std::mem::take(&mut self.state().known)
    }

    /// Of a whole one, what was counted of the mount that is there, or was last.
    pub fn counts(&self) -> Counts {
        self.state().connection.as_ref().map_or(Counts::default(), Connection::counts)
    }

    /// The file systems have ended, and it lets go of their devices. An error if somebody asked what he may not, or said
    /// what this kernel does not take.
    pub fn unmounted(&self) -> Result {
        let connection = self.state().connection.take();
        let said = connection.map(Connection::end).unwrap_or_default();
        let mut state = self.state();
        state.wrong.extend(said);
        state.held.clear();
        let wrong = std::mem::take(&mut state.wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.orders = None;
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn answer(listener: &Arc<Listener>, asked: &Asked, state: &Mutex<State>) {
    let mut state = state.lock().expect("no holder panics");
    if WORKERS.iter().any(|one| one.call == asked.call) {
        return state.hand_over(listener, asked);
    }
    let step = match (asked.call == libc::SYS_fsconfig, asked.arguments[1] as u32) {
        (true, _) => Step::Create,
        (false, SUPPORT) => Step::Support,
        (false, ADD) => Step::Add,
        (false, _) => Step::Open,
    };
    state.steps.push(step);
    let fault = state.fault.unwrap_or(Fault::None);
    if fault == Fault::Kills(step, false) {
        process::kill(asked.pid);
        listener.answer(asked, Answer::Error(libc::EINTR));
        return;
    }
    let given = match fault {
        Fault::Fails(at, errno) if at == step => Answer::Error(errno),
        _ => state.answer(listener, asked, step, fault).unwrap_or_else(|error| {
            state.wrong.push(error.to_string());
            Answer::Error(libc::EFAULT)
        }),
    };
    listener.answer(asked, given);
    if fault == Fault::Kills(step, true) {
        process::kill(asked.pid);
    }
}

impl State {
    /// A read or a write of somebody's third fd: the connection's, if that is /dev/fuse.
    fn hand_over(&mut self, listener: &Listener, asked: &Asked) {
        let fuse = fs::read_link(format!("/proc/{}/fd/{FUSE_FD}", asked.pid)).is_ok_and(|link| link == Path::new(FUSE));
        let taken = match self.connection.as_mut().filter(|_| fuse).map(|connection| connection.take(asked)) {
            None => Answer::Kernel,
            Some(Ok(true)) => return,
            // As the kernel says of one that has ended; and whoever asked may be gone.
            Some(Ok(false) | Err(_)) => Answer::Error(libc::ENODEV),
        };
        listener.answer(asked, taken);
    }

    fn answer(&mut self, listener: &Arc<Listener>, asked: &Asked, step: Step, fault: Fault) -> Result<Answer> {
        let [fd, _, place, ..] = asked.arguments;
        if step == Step::Create {
            self.made.push(asked.pid);
            return Ok(Answer::Kernel);
        }
        let fuse = fs::read_link(format!("/proc/{}/fd/{fd}", asked.pid))?;
        if fuse != Path::new(FUSE) {
            return Err(format!("{step:?} of {}", fuse.display()).into());
        }
        Ok(match step {
            Step::Support => {
                let granted = fault != Fault::Off && (has_rawio(asked.pid)? || self.marked.contains(&asked.pid));
                let flags = if granted { 3_u64 } else { 0 };
                asked.write(place, &[flags.to_ne_bytes(), [0; 8]].concat())?;
                Answer::Value(0)
            }
            Step::Add if fault == Fault::Off || !has_rawio(asked.pid)? => Answer::Error(libc::EPERM),
            Step::Add => {
                self.marked.push(asked.pid);
                // Of another connection: what may be on this one is settled when its superblock is made.
                self.made.retain(|pid| *pid != asked.pid);
                if let Some(image) = &self.image {
                    let fuse = fd_of(asked.pid, fd as i32)?;
                    let rules = Rules { zone: Zone::of(image)?, tamper: self.tamper.take() };
                    let connection = Connection::new(listener.clone(), fuse, asked.pid, rules)?;
                    // One before it was never mounted, or has ended.
                    let before = self.connection.replace(connection).map(Connection::end);
                    self.wrong.extend(before.unwrap_or_default());
                }
                Answer::Value(0)
            }
            _ => self.open(asked, place, fault)?,
        })
    }

    /// By the series' rules: first who may, then the type, the padding, and what the fd is.
    fn open(&mut self, asked: &Asked, place: u64, fault: Fault) -> Result<Answer> {
        // Whoever asks before the mount would wait for it: for ever, if it is he who mounts. And a mark behind it is too late.
        if !self.made.contains(&asked.pid) {
            return Err("BACKING_OPEN without a superblock that was made behind ADD_IOMAP".into());
        }
        let agreed = self.connection.as_ref().is_none_or(Connection::is_agreed);
        if !self.marked.contains(&asked.pid) || !agreed {
            return Ok(Answer::Error(libc::EPERM));
        }
        let map: [u8; 16] = asked.read(place)?;
        let word = |at: usize| i32::from_ne_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]);
        if word(4) != 1 || map[8..] != [0; 8] {
            return Ok(Answer::Error(libc::EINVAL));
        }
        let device = fd_of(asked.pid, word(0))?;
        let status = fs::metadata(format!("/proc/{}/fd/{}", asked.pid, word(0)))?;
        if !status.file_type().is_block_device() {
            return Ok(Answer::Error(libc::ENODEV));
        }
        let known = Known::look(status.rdev())?;
        let cookie = if let Fault::Cookie(cookie) = fault { cookie } else { 1 };
        if let Some(connection) = &self.connection {
            connection.register(fs::File::from(device.try_clone()?), cookie as u32, known.range.1);
        }
        self.known.push(known);
        // As the kernel does, whatever becomes of who has opened it.
        self.held.push(device);
        Ok(Answer::Value(cookie))
    }
}

/// Another process's fd.
fn fd_of(pid: u32, fd: i32) -> Result<OwnedFd> {
    let whose = pidfd_open(Pid::from_raw(pid as i32).ok_or("no pid")?, PidfdFlags::empty())?;
    Ok(pidfd_getfd(whose, fd, PidfdGetfdFlags::empty())?)
}

/// Whether a process may do what this needs.
fn has_rawio(pid: u32) -> Result<bool> {
    let effective = process::status(&pid.to_string(), "CapEff")?;
    Ok(u64::from_str_radix(&effective, 16)? & RAWIO != 0)
}

impl Known {
    fn look(number: u64) -> Result<Self> {
        let (major, minor) = (libc::major(number), libc::minor(number));
        let place = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let text = |name: &str| fs::read_to_string(place.join(name)).map(|text| text.trim().to_owned());
        let number = |name: &str| Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(text(name)?.parse()?);
        Ok(Self {
            path: Path::new("/dev").join(fs::canonicalize(&place)?.file_name().ok_or("no name")?),
            range: (number("loop/offset")?, number("size")? * 512),
            backing: text("loop/backing_file")?,
            sector: number("queue/logical_block_size")?,
            read_only: number("ro")? == 1,
            autoclear: number("loop/autoclear")? == 1,
            partscan: number("loop/partscan")? == 1,
        })
    }

    /// Whether the device still stands over something.
    pub fn stands(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        Path::new("/sys/block").join(name).join("loop/backing_file").exists()
    }
}

/// The loop devices that stand over a file.
pub fn loops_over(file: &Path) -> usize {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|name| Path::new(name.trim_end()) == file).count()
}
