//! The evil worker: a worker that is already lost. It goes through the real start order with the real confinement, and
//! then does what an attacker would from where an attacker would be.
//!
//! - here: what it is told (the first bytes of the image it is given), what is wrong with it, and how it is put in the
//!   place of the worker;
//! - [`call`]: any system call, through any door;
//! - [`host`]: a host that gives no namespaces;
//! - [`lie`]: what it answers when it serves;
//! - [`probe`]: what is tried to get out;
//! - [`run`]: how it is run, and how it ends.
//!
//! What holds here: a shipped program has no such switch. The weakness is written into a copy of the test binary, and
//! the broker that starts it is the shipped one, which finds it beside itself under the worker's name.

pub mod call;
pub mod host;
pub mod lie;
pub mod probe;
pub mod run;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, command};

/// Where the weakness stands in the binary, in four hex digits behind these words.
pub const MARK: &str = "LAZARET-EVIL-WEAKNESS=";

/// What is wrong with an evil worker before the first byte of the image: the sum of any of these.
pub mod weakness {
    /// Nothing: it confines itself as the real one does.
    pub const NONE: u16 = 0;
    /// Its filters allow everything.
    pub const NO_SECCOMP: u16 = 1;
    /// It leaves Landlock out, and says that it is there.
    pub const NO_LANDLOCK: u16 = 2;
    /// It sets no resource limits.
    pub const NO_LIMITS: u16 = 4;
    /// Its last filter has a row more.
    pub const ROW_ADDED: u16 = 8;
    /// It installs no filter.
    pub const NO_FILTER: u16 = 16;
    /// It leaves the last filter out.
    pub const ONE_FILTER: u16 = 32;
    /// It holds a file descriptor more when it says that it is confined.
    pub const EXTRA_FD: u16 = 64;
    /// It keeps the device's file descriptor.
    pub const KEEPS_DEVICE: u16 = 128;
    /// It says that it is confined without doing anything for it.
    pub const NOTHING: u16 = 256;
    /// It says that the kernel takes mappings, where it was told that it may.
    pub const CLAIMS_IOMAP: u16 = 512;
    /// It says so whatever it was told.
    pub const CLAIMS_ANYWAY: u16 = 1024;
}

/// What an evil worker is to do, as the first bytes of the image say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The kind of act.
    pub act: Act,
    /// Its numbers.
    pub numbers: [u64; 7],
}

macro_rules! acts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What an evil worker can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Act { $($(#[$doc])* $name),* }
        const ACTS: &[Act] = &[$(Act::$name),*];
    };
}

acts! {
    /// Make one system call: its number and its arguments.
    Call,
    /// Make it through the door of 32-bit programs.
    CallByInterrupt,
    /// Read the clock by the page at the end of the address space that old programs jump to.
    CallByPage,
    /// Try one of [`probe::PROBES`], by its number there.
    Probe,
    /// Panic.
    Panic,
    /// Call itself without end.
    Overflow,
    /// Allocate until there is no more, with calls that cannot fail.
    Allocate,
    /// Allocate until there is no more, with calls that can, and use all of it.
    UseAllMemory,
    /// Touch what is not mapped.
    Touch,
    /// Say something that is no message: this many bytes of this value.
    Babble,
    /// Say that it is ready again and again.
    Flood,
    /// Say that it is ready, and serve a tree that lies in the way of this number (`fuse`).
    Serve,
    /// Answer a tool with lies of this number.
    Answer,
    /// Take all memory (0), all processes (1), or all processors for so many milliseconds (2).
    Bomb,
    /// Go through the start and say what came of it.
    Nothing,
    /// Go through the start and say by which number the kernel knows its device; 0 for none.
    Cookie,
}

const MAGIC: [u8; 8] = *b"EVIL\0\0\0\x01";

impl Instruction {
    /// Bytes that it takes.
    pub const LENGTH: usize = 72;

    /// This act with these numbers.
    pub fn new(act: Act, numbers: &[u64]) -> Self {
        let mut all = [0; 7];
        all[..numbers.len()].copy_from_slice(numbers);
        Self { act, numbers: all }
    }

    /// As the first bytes of an image.
    pub fn to_bytes(self) -> Vec<u8> {
        let words = std::iter::once(self.act as u64).chain(self.numbers);
        MAGIC.into_iter().chain(words.flat_map(u64::to_le_bytes)).collect()
    }

    /// What the first bytes of an image say.
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let mut words = bytes[8..].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let act = *ACTS.get(usize::try_from(words.next()?).ok()?)?;
        let mut numbers = [0; 7];
        for number in &mut numbers {
            *number = words.next()?;
        }
        (bytes[..8] == MAGIC).then_some(Self { act, numbers })
    }

    /// An image that says it, long enough to be mapped.
    pub fn image(self, path: &Path) -> Result {
        let mut bytes = self.to_bytes();
        bytes.resize(64 << 10, 0);
        Ok(fs::write(path, bytes)?)
    }
}

/// What came of an attempt, as an evil worker tells it: the place of a panic that is none, which the broker prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It was done; the lower half of what the call returned.
    Done(u32),
    /// It was denied, with this error number.
    Denied(u32),
}

impl Evidence {
    const DONE: u32 = 4_242_001;
    const DENIED: u32 = 4_242_002;

    /// Of what a system call returned.
    pub fn of(returned: i64) -> Self {
        let low = u32::try_from(returned.unsigned_abs() & 0xffff_ffff).unwrap_or_default();
        if (-4095..0).contains(&returned) { Self::Denied(low) } else { Self::Done(low) }
    }

    /// As line and column.
    pub fn place(self) -> (u32, u32) {
        match self {
            Self::Done(value) => (Self::DONE, value),
            Self::Denied(errno) => (Self::DENIED, errno),
        }
    }

    /// From what the broker printed.
    pub fn read(stderr: &str) -> Option<Self> {
        let (_, rest) = stderr.split_once("a bug of its own (line ")?;
        let (line, rest) = rest.split_once(", column ")?;
        let column = rest.split(')').next()?.parse().ok()?;
        match line.parse().ok()? {
            Self::DONE => Some(Self::Done(column)),
            Self::DENIED => Some(Self::Denied(column)),
            _ => None,
        }
    }
}

/// Bytes that a terminal acts upon, as a name, a label or a target: colour, title, a line of its own, the other
/// direction, what is no text.
pub const HOSTILE: &[u8] = b"\x1b[31m\x1b]0;t\x07\r\n\xe2\x80\xae\xe2\x81\xa6\xc2\x9b\xef\xbb\xbf\x7f\\\xff\xfe";

/// Puts the shipped broker and an evil worker with this weakness into a directory; gives the broker's path.
pub fn install(directory: &Path, weakness: u16) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(Path::parent).ok_or("a test lies in target/PROFILE/deps")?;
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let broker = directory.join("lazaret");
    copy(&built.join("lazaret"), &broker)?;
    plant(&built.join("evil"), &directory.join("lazaret-worker"), weakness)?;
    Ok(broker)
}

/// A copy of the evil worker with this weakness.
fn plant(from: &Path, to: &Path, weakness: u16) -> Result {
    let mut bytes = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
    let mark = MARK.as_bytes();
    let places: Vec<usize> = bytes
        .windows(mark.len() + 4)
        .enumerate()
        .filter(|(_, window)| window.starts_with(mark) && window[mark.len()..].iter().all(u8::is_ascii_hexdigit))
        .map(|(place, _)| place + mark.len())
        .collect();
    let [place] = places[..] else { return Err(format!("the mark stands at {places:?}").into()) };
    bytes[place..place + 4].copy_from_slice(format!("{weakness:04x}").as_bytes());
    let planted = to.with_extension("planted");
    fs::write(&planted, bytes)?;
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o755))?;
    copy(&planted, to)?;
    Ok(fs::remove_file(planted)?)
}

/// A program that can be executed at once: were it written here, a child that another test has just forked could hold
/// it open for writing, and the kernel executes nothing that is.
fn copy(from: &Path, to: &Path) -> Result {
    command::run(Command::new("cp").arg(from).arg(to)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_read_as_it_was_written() {
        for &act in ACTS {
            let said = Instruction::new(act, &[1, u64::MAX]);
            let bytes = said.to_bytes();
            assert_eq!(Instruction::from_bytes(bytes.as_slice().try_into().unwrap()), Some(said));
        }
        assert_eq!(Instruction::from_bytes(&[0; Instruction::LENGTH]), None);
    }

    #[test]
    fn evidence_is_read_from_what_the_broker_prints() {
        for evidence in [Evidence::of(7), Evidence::of(-13)] {
            let (line, column) = evidence.place();
            let said =
                format!("lazaret: x: the worker met a bug of its own (line {line}, column {column}); please report it");
            assert_eq!(Evidence::read(&said), Some(evidence));
        }
        assert_eq!(Evidence::of(-13), Evidence::Denied(13));
        assert_eq!(Evidence::read("a bug of its own (line 3, column 4)"), None);
    }
}
