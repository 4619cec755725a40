//! Runs an evil worker to its end, by the shipped broker or by itself, and says how it ended.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lazaret_policy::seccomp::{Answer, Condition, Row};

use super::{Evidence, Instruction, host, install};
use crate::command::{Finished, eventually, finish};
use crate::{Result, leftover, process};

/// How long a worker may take to its end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Workers at a time. A start waits more than it computes.
const AT_A_TIME: usize = 3;

/// How a worker ended that was told to do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By its filter.
    Killed,
    /// By a fault of its own, where the memory is not its own.
    Fault,
    /// It went on, and told what came of it.
    Told(Evidence),
    /// It was not found fit, and got nothing.
    Unfit(String),
    /// Otherwise.
    Other(String),
}

impl End {
    fn of(finished: &Finished) -> Self {
        let said = &finished.stderr;
        match Evidence::read(said) {
            Some(evidence) => Self::Told(evidence),
            None if said.contains("by its seccomp filter") => Self::Killed,
            None if said.contains("out of stack, or of its memory") => Self::Fault,
            None if said.contains("is not confined and gets nothing") => Self::Unfit(said.clone()),
            None => Self::Other(format!("{:?} {said}", finished.code())),
        }
    }
}

/// A place with a broker and an evil worker beside it. Dropping it ends nothing: see [`Quarters::empty`].
pub struct Quarters {
    /// The broker.
    pub broker: PathBuf,
    directory: PathBuf,
    /// Whether the host gives namespaces.
    pub namespaces: bool,
    next: AtomicUsize,
}

impl Quarters {
    /// The shipped broker beside a worker with this weakness.
    pub fn new(directory: &Path, weakness: u16) -> Result<Self> {
        let broker = install(&directory.join("programs"), weakness)?;
        Ok(Self { broker, directory: directory.into(), namespaces: true, next: AtomicUsize::new(0) })
    }

    /// The broker with these arguments.
    pub fn command<T: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = T>) -> Command {
        let mut command =
            if self.namespaces { Command::new(&self.broker) } else { host::command(&self.broker, host::NONE) };
        command.args(arguments);
        command
    }

    /// An image that tells a worker what to do, and an empty directory. No two of them are the same.
    pub fn image(&self, told: Instruction) -> Result<(PathBuf, PathBuf)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (image, point) =
            (self.directory.join(format!("{number}.img")), self.directory.join(format!("{number}.point")));
        told.image(&image)?;
        fs::create_dir(&point)?;
        Ok((image, point))
    }

    /// A mount in the foreground whose worker does as it is told before it is ready.
    pub fn mount(&self, told: Instruction) -> Result<End> {
        Ok(End::of(&self.mount_with(told, "timeout=5")?))
    }

    /// The same with option words, and all that the broker left.
    pub fn mount_with(&self, told: Instruction, options: &str) -> Result<Finished> {
        let (image, point) = self.image(told)?;
        let mut command = self.command(["mount", "-f", "-o", options]);
        let finished = finish(command.arg(&image).arg(&point), PATIENCE);
        fs::remove_file(image)?;
        // A process that another thread has just forked keeps a copy of the mount until it executes.
        let mut removed = Ok(());
        eventually(Duration::from_secs(2), || {
            removed = fs::remove_dir(&point);
            removed.is_ok()
        });
        removed?;
        finished
    }

    /// Demands that within a second no process runs from here and nothing is mounted here.
    pub fn empty(&self) -> Result {
        leftover::nothing_of(&self.directory)?;
        let programs = self.directory.join("programs");
        let mut left = vec![];
        eventually(Duration::from_secs(1), || {
            left = process::all().into_iter().filter(|one| one.executable.starts_with(&programs)).collect();
            left.is_empty()
        });
        if left.is_empty() { Ok(()) } else { Err(format!("processes are left: {left:?}").into()) }
    }
}

/// What came of each of these, in their order; several at a time.
pub fn each<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = all.get(number) else { break };
                    let result = one(item);
                    done.lock().expect("no holder panics").push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no holder panics");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// One call through a door.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// `call`, `interrupt` or `page`.
    pub door: &'static str,
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Case {
    /// This call without arguments.
    pub fn bare(door: &'static str, number: u64) -> Self {
        Self { door, number, arguments: [0; 6] }
    }
}

/// How a process ended that made a call under a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// By this signal.
    Signal(i32),
    /// With this code.
    Exit(i32),
}

impl Swept {
    /// By a filter.
    pub const KILLED: Swept = Swept::Signal(libc::SIGSYS);
}

/// Makes each call in a process of its own that has confined itself with this table (`evil sweep`).
pub fn sweep(table: &str, cases: &[Case]) -> Result<Vec<Swept>> {
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(Path::parent).ok_or("a test lies in target/PROFILE/deps")?;
    let mut lines = String::new();
    for Case { door, number, arguments: [a, b, c, d, e, f] } in cases {
        lines.push_str(&format!("{door} {number} {a} {b} {c} {d} {e} {f}\n"));
    }
    let mut child =
        Command::new(built.join("evil")).args(["sweep", table]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or("a pipe")?;
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "the writer panicked")??;
    let text = String::from_utf8(output.stdout)?;
    let ends: Vec<Swept> = text.lines().filter_map(swept).collect();
    if ends.len() == cases.len() {
        return Ok(ends);
    }
    Err(format!("{} calls, {} ends, {:?}", cases.len(), ends.len(), output.status).into())
}

fn swept(line: &str) -> Option<Swept> {
    let (how, number) = line.split_once(' ')?;
    let number = number.parse().ok()?;
    match how {
        "signal" => Some(Swept::Signal(number)),
        "exit" => Some(Swept::Exit(number)),
        _ => None,
    }
}

/// The row of a table that lets this call through.
pub fn row_for<'a>(table: &'a [Row], number: u64, arguments: &[u64; 6]) -> Option<&'a Row> {
    let fits = |condition: &Condition| match *condition {
        Condition::Is(argument, value) => arguments[usize::from(argument)] == value,
        Condition::OneOf(argument, values) => values.contains(&arguments[usize::from(argument)]),
        Condition::Has(argument, mask) => arguments[usize::from(argument)] & mask == mask,
        Condition::Lacks(argument, mask) => arguments[usize::from(argument)] & mask == 0,
    };
    let same = |row: &&Row| {
        u64::try_from(row.call) == Ok(number) && (row.answer == Answer::Absent || row.when.iter().all(fits))
    };
    table.iter().find(same)
}

/// A row with arguments that are right, and the same with one argument that is not.
pub fn perturbed(row: &Row) -> (Vec<[u64; 6]>, Vec<[u64; 6]>) {
    let (mut right, mut wrong) = (vec![[0; 6]], vec![]);
    for condition in row.when {
        let (argument, good): (u8, Vec<u64>) = match *condition {
            Condition::Is(argument, value) => (argument, vec![value]),
            Condition::OneOf(argument, values) => (argument, values.to_vec()),
            Condition::Has(argument, mask) => (argument, vec![mask]),
            Condition::Lacks(argument, _) => (argument, vec![0]),
        };
        right = right.iter().flat_map(|one| good.iter().map(|&value| put(*one, argument, value))).collect();
    }
    for condition in row.when {
        let (argument, bad): (u8, Vec<u64>) = match *condition {
            Condition::Is(argument, value) => (argument, around(&[value])),
            Condition::OneOf(argument, values) => (argument, around(values)),
            Condition::Has(argument, mask) => (argument, vec![0, !mask, mask << 32]),
            Condition::Lacks(argument, mask) => (argument, vec![mask, u64::MAX, mask | 1 << 32]),
        };
        wrong.extend(bad.into_iter().map(|value| put(right[0], argument, value)));
    }
    (right, wrong)
}

fn put(mut arguments: [u64; 6], argument: u8, value: u64) -> [u64; 6] {
    arguments[usize::from(argument)] = value;
    arguments
}

/// What lies next to these values and is none of them.
fn around(values: &[u64]) -> Vec<u64> {
    let near = |value: &u64| [value.wrapping_add(1), value.wrapping_sub(1), value | 1 << 32, value | 1 << 63];
    values.iter().flat_map(near).filter(|one| !values.contains(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row = Row {
        call: 3,
        name: "three",
        when: &[Condition::Is(0, 5), Condition::OneOf(1, &[1, 2]), Condition::Lacks(2, 4)],
        answer: Answer::Allow,
        why: "a test",
    };

    #[test]
    fn what_is_right_fits_the_row_and_what_is_wrong_does_not() {
        let (right, wrong) = perturbed(&ROW);
        assert_eq!(right.len(), 2);
        assert!(right.iter().all(|arguments| row_for(&[ROW], 3, arguments).is_some()));
        assert!(wrong.len() > 10 && wrong.iter().all(|arguments| row_for(&[ROW], 3, arguments).is_none()), "{wrong:?}");
        assert!(row_for(&[ROW], 4, &right[0]).is_none());
    }

    #[test]
    fn ends_are_read() {
        assert_eq!(swept("signal 31"), Some(Swept::KILLED));
        assert_eq!(swept("exit 42"), Some(Swept::Exit(42)));
        assert_eq!(swept("x"), None);
    }
}
