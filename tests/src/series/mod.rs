//! A stand-in for a kernel with the series "fuse: use fs-iomap", as far as a broker meets it: it answers the three requests
//! to /dev/fuse by the series' own rules, and holds a device that it was given until it is told that the mount has ended.
//!
//! What holds here: all else is the real kernel, which knows nothing of this. So the real worker is offered no iomap in
//! FUSE_INIT; one that says otherwise is made for it ([`crate::evil::weakness::CLAIMS_IOMAP`]).

pub mod notify;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{Result, process};
use notify::{Answer, Asked, Listener};

const SUPPORT: u32 = 0x8010_e563;
const ADD: u32 = 0x0000_e565;
const OPEN: u32 = 0x4010_e501;
/// `FSCONFIG_CMD_CREATE`.
const CREATE: u32 = 6;

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
    fault: Option<Fault>,
    marked: Vec<u32>,
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
        let state = Arc::new(Mutex::new(State { fault: Some(fault), ..State::default() }));
        let over = Arc::new(AtomicBool::new(false));
        let (orders, taken) = mpsc::channel::<Order>();
        let (listener, listened) = mpsc::channel();
        // A filter is one thread's, and that of all that this starts.
        let starter = thread::spawn(move || {
            let _ = listener.send(notify::listen(&[SUPPORT, ADD, OPEN], &[CREATE]));
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        let listener = listened.recv()??;
        let answerer = {
            let (state, over) = (state.clone(), over.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some(asked) = listener.take(20) {
                        answer(&listener, &asked, &state);
                    }
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

    /// The file systems have ended, and it lets go of their devices. An error if somebody asked what he may not.
    pub fn unmounted(&self) -> Result {
        let mut state = self.state();
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

fn answer(listener: &Listener, asked: &Asked, state: &Mutex<State>) {
    let mut state = state.lock().expect("no holder panics");
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
        return listener.answer(asked, Answer::Error(libc::EINTR));
    }
    let given = match fault {
        Fault::Fails(at, errno) if at == step => Answer::Error(errno),
        _ => state.answer(asked, step, fault).unwrap_or_else(|error| {
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
    fn answer(&mut self, asked: &Asked, step: Step, fault: Fault) -> Result<Answer> {
        let [fd, _, place, ..] = asked.arguments;
        if step == Step::Create {
            return Ok(Answer::Kernel);
        }
        let fuse = fs::read_link(format!("/proc/{}/fd/{fd}", asked.pid))?;
        if fuse != Path::new("/dev/fuse") {
            return Err(format!("{step:?} of {}", fuse.display()).into());
        }
        Ok(match step {
            Step::Support => {
                let flags = if fault == Fault::Off { 0_u64 } else { 3 };
                asked.write(place, &[flags.to_ne_bytes(), [0; 8]].concat())?;
                Answer::Value(0)
            }
            Step::Add if fault == Fault::Off => Answer::Error(libc::EPERM),
            Step::Add => {
                self.marked.push(asked.pid);
                Answer::Value(0)
            }
            _ => self.open(asked, place, fault)?,
        })
    }

    /// By the series' rules: first who may, then the type, the padding, and what the fd is.
    fn open(&mut self, asked: &Asked, place: u64, fault: Fault) -> Result<Answer> {
        if !self.marked.contains(&asked.pid) {
            return Ok(Answer::Error(libc::EPERM));
        }
        let map: [u8; 16] = asked.read(place)?;
        let word = |at: usize| i32::from_ne_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]);
        if word(4) != 1 || map[8..] != [0; 8] {
            return Ok(Answer::Error(libc::EINVAL));
        }
        let whose = pidfd_open(Pid::from_raw(asked.pid as i32).ok_or("no pid")?, PidfdFlags::empty())?;
        let device = pidfd_getfd(whose, word(0), PidfdGetfdFlags::empty())?;
        let status = fs::metadata(format!("/proc/{}/fd/{}", asked.pid, word(0)))?;
        if !status.file_type().is_block_device() {
            return Ok(Answer::Error(libc::ENODEV));
        }
        self.known.push(Known::look(status.rdev())?);
        // As the kernel does, whatever becomes of who has opened it.
        self.held.push(device);
        Ok(Answer::Value(match fault {
            Fault::Cookie(cookie) => cookie,
            _ => 1,
        }))
    }
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
