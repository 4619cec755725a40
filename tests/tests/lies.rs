//! A worker that is already lost serves a mount: every kind of answer that a FUSE server can lie with, and what the
//! kernel and the broker make of it. The client gets an error or a harmless lie, in time; the mount can be ended, and
//! nothing is left.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use lazaret_tests::command::{eventually, wait};
use lazaret_tests::evil::lie::Lie;
use lazaret_tests::evil::run::Quarters;
use lazaret_tests::evil::{Act, Instruction, weakness};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, Requirement, proof};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, leftover};

const NEEDS: &[Requirement] = &[Requirement::Root, Requirement::Fuse];
/// What a client may wait at the most, and a broker: `timeout=` is 2 here, and two seconds more.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a client sees, in words: an error by its number.
type Ask = fn(&Path) -> std::io::Result<String>;

/// A lie, what a client asks then, and what it is to see: one of these.
struct Case {
    lie: Lie,
    ask: Ask,
    sees: &'static [&'static str],
}

const EIO: &str = "error 5";
const EINVAL: &str = "error 22";
const ENOENT: &str = "error 2";
const ELOOP: &str = "error 40";

const CASES: &[Case] = &[
    Case { lie: Lie::None, ask: stat, sees: &["100644 0"] },
    Case { lie: Lie::None, ask: list, sees: &["dir file link"] },
    Case { lie: Lie::NodeOfTheRoot, ask: stat, sees: &[EIO] },
    Case { lie: Lie::NodeZero, ask: stat, sees: &[ENOENT] },
    Case { lie: Lie::ChangesType, ask: stat, sees: &[EIO] },
    Case { lie: Lie::NoType, ask: stat, sees: &[EIO] },
    Case { lie: Lie::SizeOverAll, ask: stat, sees: &[EIO] },
    Case { lie: Lie::SizeOfTheLargest, ask: stat, sees: &["100644 9223372036854775807"] },
    Case { lie: Lie::NameWithSlash, ask: list, sees: &[EIO] },
    Case { lie: Lie::NameOfNothing, ask: list, sees: &[EIO] },
    // Kernels up to 6.18 take names of up to a page.
    Case { lie: Lie::NameTooLong, ask: list_length, sees: &[EIO, "4000 letters"] },
    Case { lie: Lie::NameWithNul, ask: list, sees: &["a"] },
    Case { lie: Lie::ListsForEver, ask: list_much, sees: &["5000 names"] },
    Case { lie: Lie::HoldsItself, ask: stat_deep, sees: &[ELOOP] },
    Case { lie: Lie::Nanoseconds, ask: time, sees: &["999999999 ns"] },
    Case { lie: Lie::ReadsTooMuch, ask: read, sees: &[EIO, EINVAL] },
    Case { lie: Lie::LinkTooLong, ask: link, sees: &[EIO, EINVAL, "error 36"] },
    Case { lie: Lie::LinkToThePasswords, ask: follow, sees: &[ELOOP] },
    Case { lie: Lie::AttributesWithoutEnd, ask: attributes, sees: &[EIO] },
    Case { lie: Lie::SetuidRoot, ask: execute, sees: &["104755 error 13"] },
    Case { lie: Lie::DeviceNode, ask: open_device, sees: &["a device, error 13"] },
    Case { lie: Lie::Fifo, ask: open_fifo, sees: &["a FIFO, whose reader is killed at once"] },
    Case { lie: Lie::Absurd, ask: space, sees: &["18446744073709551615 blocks"] },
    Case { lie: Lie::ShorterThanItsHead, ask: refusals, sees: &["22"] },
    Case { lie: Lie::LengthOfAnother, ask: refusals, sees: &["22"] },
    Case { lie: Lie::AnswersNobody, ask: refusals, sees: &["2", "2 22"] },
    Case { lie: Lie::AnswersTwice, ask: refusals, sees: &["2"] },
    Case { lie: Lie::ErrorOfNoNumber, ask: refusals, sees: &["22"] },
    Case { lie: Lie::ErrorAboveZero, ask: refusals, sees: &["22"] },
    Case { lie: Lie::InitAgain, ask: refusals, sees: &["2"] },
    Case { lie: Lie::Notices, ask: lives, sees: &["it lives"] },
    Case { lie: Lie::AnswersTheOther, ask: two_at_once, sees: &["both have an answer"] },
    Case { lie: Lie::Silence, ask: stat, sees: &["error 103", "error 107"] },
    Case { lie: Lie::OutlivesTheMount, ask: stat, sees: &["100644 0"] },
    Case { lie: Lie::Reports, ask: stat, sees: &["error 103", "error 107"] },
];

fn main() {
    requirement::main(|workshop| {
        let cases = CASES.iter().map(|case| {
            let name = format!("{:?} is {}", case.lie, case.sees.join(" or "));
            proof("P17", name, NEEDS, workshop, |workshop| told(case, workshop))
        });
        let all = proof("P17", "every lie is told", &[], workshop, |_| every_lie());
        let found = proof("P17", "a lie that is believed is found", NEEDS, workshop, believed);
        cases.chain([all, found]).collect()
    })
}

/// A mount of an evil worker, ended whatever happens.
struct Served {
    child: Child,
    point: PathBuf,
}

impl Served {
    fn new(quarters: &Quarters, lie: Lie) -> Result<Self> {
        let (image, point) = quarters.image(Instruction::new(Act::Serve, &[lie as u64]))?;
        let mut command = quarters.command(["mount", "-f", "-o", "nosymfollow,timeout=2"]);
        let child = command.arg(&image).arg(&point).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut served = Self { child, point };
        let ended = |served: &mut Self| served.child.try_wait().is_ok_and(|end| end.is_some());
        eventually(Duration::from_secs(10), || leftover::is_mounted(&served.point) || ended(&mut served));
        Ok(served)
    }

    /// Ends the mount, unless it has ended; the broker and its worker have to be gone soon.
    fn end(mut self) -> Result<Duration> {
        let start = Instant::now();
        // A mount that was ended by the broker is there no more.
        let _ = unmount(&self.point, UnmountFlags::DETACH);
        wait(&mut self.child, PATIENCE)?;
        Ok(start.elapsed())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = unmount(&self.point, UnmountFlags::DETACH);
    }
}

fn told(case: &'static Case, workshop: &Workshop) -> Result<Figures> {
    let name = format!("{:?}-{}", case.lie, case.sees[0].replace([' ', '/'], "-"));
    let quarters = Quarters::new(&workshop.directory(&name)?, weakness::NONE)?;
    let served = Served::new(&quarters, case.lie)?;
    let seen = ask(case.ask, &served.point)?;
    served.end()?;
    quarters.empty()?;
    if case.sees.contains(&&*seen) {
        return Ok(vec![("lies", 1)]);
    }
    Err(format!("{:?} is to be seen, not {seen}", case.sees).into())
}

/// What the client sees. One that waits for ever is an error; it is free when the mount is gone.
fn ask(ask: Ask, point: &Path) -> Result<String> {
    let (sender, receiver) = mpsc::channel();
    let place = point.to_owned();
    let client = thread::spawn(move || sender.send(ask(&place)));
    let answer = receiver.recv_timeout(PATIENCE).map_err(|_| format!("a client waits longer than {PATIENCE:?}"))?;
    client.join().map_err(|_| "the client panicked")??;
    Ok(answer.unwrap_or_else(|error| number(&error)))
}

fn number(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("error {number}"))
}

fn every_lie() -> Result<Figures> {
    let missing: Vec<_> = Lie::ALL.iter().filter(|lie| !CASES.iter().any(|case| case.lie == **lie)).collect();
    if missing.is_empty() { Ok(vec![]) } else { Err(format!("nobody tells {missing:?}").into()) }
}

/// A case that expects what is true must turn red when the worker lies.
fn believed(workshop: &Workshop) -> Result<Figures> {
    const BELIEVED: Case = Case { lie: Lie::SetuidRoot, ask: stat, sees: &["100644 0"] };
    assert!(told(&BELIEVED, workshop).is_err(), "a lie is not told from the truth");
    Ok(vec![("sabotages found", 1)])
}

fn stat(root: &Path) -> std::io::Result<String> {
    let file = fs::symlink_metadata(root.join("file"))?;
    Ok(format!("{:o} {}", file.mode(), file.size()))
}

fn stat_deep(root: &Path) -> std::io::Result<String> {
    stat(&root.join("dir/dir"))
}

fn time(root: &Path) -> std::io::Result<String> {
    Ok(format!("{} ns", fs::symlink_metadata(root.join("file"))?.mtime_nsec()))
}

fn names(root: &Path, most: usize) -> std::io::Result<Vec<String>> {
    let names = fs::read_dir(root)?.take(most).map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn list(root: &Path) -> std::io::Result<String> {
    let mut names = names(root, 100)?;
    names.sort();
    Ok(names.join(" "))
}

fn list_length(root: &Path) -> std::io::Result<String> {
    Ok(format!("{} letters", names(root, 10)?.iter().map(String::len).sum::<usize>()))
}

fn list_much(root: &Path) -> std::io::Result<String> {
    Ok(format!("{} names", names(root, 5000)?.len()))
}

fn read(root: &Path) -> std::io::Result<String> {
    let mut bytes = vec![];
    File::open(root.join("file"))?.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The numbers of the errors that the kernel gave the worker, each once.
fn refusals(root: &Path) -> std::io::Result<String> {
    stat(root)?;
    let text = read(root)?;
    let mut numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
}

/// After notices of every kind the mount still answers, and the kernel has refused some of them.
fn lives(root: &Path) -> std::io::Result<String> {
    for _ in 0..20 {
        // Notices may make the kernel forget names: that is what they are for.
        let _ = stat(root);
        let _ = list(root);
    }
    let refused = refusals(root)?;
    Ok(if refused.is_empty() { "nothing was refused".to_owned() } else { "it lives".to_owned() })
}

fn link(root: &Path) -> std::io::Result<String> {
    fs::read_link(root.join("link")).map(|to| to.to_string_lossy().into_owned())
}

fn follow(root: &Path) -> std::io::Result<String> {
    fs::read_to_string(root.join("link"))
}

fn attributes(root: &Path) -> std::io::Result<String> {
    let mut names = [0_u8; 1000];
    let length = rustix::fs::llistxattr(root.join("file"), &mut names[..])?;
    Ok(format!("{length} bytes"))
}

fn execute(root: &Path) -> std::io::Result<String> {
    let file = root.join("file");
    let mode = fs::symlink_metadata(&file)?.permissions().mode();
    let ended = Command::new(&file).status().map_or_else(|error| number(&error), |status| status.to_string());
    Ok(format!("{mode:o} {ended}"))
}

fn open_device(root: &Path) -> std::io::Result<String> {
    let file = root.join("file");
    let kind = if fs::symlink_metadata(&file)?.file_type().is_block_device() { "a device" } else { "no device" };
    Ok(format!("{kind}, {}", File::open(file).map_or_else(|error| number(&error), |_| "open".to_owned())))
}

/// A reader of a FIFO waits for a writer, as everywhere; it is not beyond reach.
fn open_fifo(root: &Path) -> std::io::Result<String> {
    let file = root.join("file");
    if !fs::symlink_metadata(&file)?.file_type().is_fifo() {
        return Ok("no FIFO".to_owned());
    }
    let mut reader = Command::new("cat").arg(file).stdout(Stdio::null()).spawn()?;
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    reader.kill()?;
    reader.wait()?;
    let soon = start.elapsed() < Duration::from_millis(500);
    Ok(format!("a FIFO, whose reader is killed {}", if soon { "at once" } else { "late" }))
}

fn space(root: &Path) -> std::io::Result<String> {
    Ok(format!("{} blocks", rustix::fs::statfs(root)?.f_blocks))
}

/// Requests come in pairs here, and each is answered with what the other asked for: something comes back to both.
fn two_at_once(root: &Path) -> std::io::Result<String> {
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let path = root.join(if number % 2 == 0 { "file" } else { "link" });
            thread::spawn(move || drop(fs::symlink_metadata(path)))
        })
        .collect();
    let (free, _) = eventually(PATIENCE, || clients.iter().all(thread::JoinHandle::is_finished));
    Ok(if free { "both have an answer" } else { "a client waits" }.to_owned())
}
