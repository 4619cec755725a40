//! Where an archive goes: a file, or standard output.
//!
//! What holds here: whoever does not read holds up the archive and not its end: a signal is heard while a pipe is full. An
//! archive of a name has another one, which ends in `.partial`, until it is complete; nothing that exists is overwritten.

use crate::escape::escaped;
use crate::exit::{Code, Failure, words};
use crate::signal::{Signals, interrupted};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, fstat, open, renameat_with, stat, unlink};
use rustix::io::Errno;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How much is written at once, in bytes.
const PIECE: usize = 256 << 10;
/// How much can be written to a pipe that has room without waiting: `PIPE_BUF`.
const ATOMIC: usize = 4096;

/// An output.
pub(crate) struct Output<'a> {
    to: OwnedFd,
    /// The name it gets, and the one it has.
    names: Option<(PathBuf, PathBuf)>,
    /// How much is written at once where that could have to wait.
    waits: Option<usize>,
    filled: Vec<u8>,
    signals: &'a Signals,
}

impl<'a> Output<'a> {
    /// To this file; `-` is standard output.
    pub(crate) fn open(path: &Path, signals: &'a Signals) -> Result<Self, Failure> {
        let unopened = |errno: Errno| Failure::system(words(errno)).about(path);
        let (to, names) = if path.as_os_str() == "-" {
            if std::io::stdout().is_terminal() {
                return Err(Failure::usage("an archive is not written to a terminal"));
            }
            (own_stdout().map_err(unopened)?, None)
        } else {
            match stat(path).map(|status| FileType::from_raw_mode(status.st_mode)) {
                Ok(FileType::RegularFile | FileType::Directory) => return Err(exists(path)),
                // A tape, a pipe: it has no other name before it is complete.
                Ok(_) => (open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(unopened)?, None),
                Err(_) => {
                    let mut partial = path.as_os_str().to_owned();
                    partial.push(".partial");
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let mode = Mode::from_raw_mode(0o666);
                    let opened = open(&partial, flags, mode);
                    let opened = opened.map_err(|errno| match errno {
                        Errno::EXIST => exists(Path::new(&partial)),
                        errno => Failure::system(words(errno)).about(&partial),
                    })?;
                    (opened, Some((path.to_owned(), partial.into())))
                }
            }
        };
        let kind = FileType::from_raw_mode(fstat(&to).map_err(unopened)?.st_mode);
        let nonblocking = rustix::fs::fcntl_getfl(&to).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        let waits = match kind {
            FileType::RegularFile | FileType::BlockDevice => None,
            _ if nonblocking => Some(PIECE),
            _ => Some(ATOMIC),
        };
        Ok(Self { to, names, waits, filled: Vec::with_capacity(PIECE), signals })
    }

    /// Bytes that come next.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.filled.len() + bytes.len() > PIECE {
            self.flush()?;
        }
        if bytes.len() >= PIECE {
            return self.out(bytes);
        }
        self.filled.extend_from_slice(bytes);
        Ok(())
    }

    /// So many zeros.
    pub(crate) fn zeros(&mut self, mut count: u64) -> Result<(), Failure> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let now = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write(&ZEROS[..now])?;
            count -= now as u64;
        }
        Ok(())
    }

    /// All of it is out, and a file has its name.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.flush()?;
        let Some((path, partial)) = &self.names else { return Ok(()) };
        match renameat_with(CWD, partial, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists(path)),
            Err(errno) => return Err(Failure::system(words(errno)).about(path)),
        }
        self.names = None;
        Ok(())
    }

    /// The name of what is not complete.
    pub(crate) fn partial(&self) -> Option<&Path> {
        self.names.as_ref().map(|(_, partial)| &**partial)
    }

    /// Nothing was written, and there will be nothing.
    pub(crate) fn discard(&mut self) {
        if let Some((_, partial)) = self.names.take() {
            let _ = unlink(partial);
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let filled = std::mem::take(&mut self.filled);
        let out = self.out(&filled);
        self.filled = filled;
        self.filled.clear();
        out
    }

    fn out(&self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let now = match self.waits {
                Some(most) => {
                    self.wait()?;
                    &bytes[..bytes.len().min(most)]
                }
                None => bytes,
            };
            match rustix::io::write(&self.to, now) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                // A reader that has gone has seen enough, and needs no line about it.
                Err(Errno::PIPE) => return Err(Failure::said(Code::System as u8)),
                Err(errno) => return Err(Failure::system(format!("the archive cannot be written: {}", words(errno)))),
            }
        }
        Ok(())
    }

    /// Waits until there is room, or a signal comes.
    fn wait(&self) -> Result<(), Failure> {
        let mut watched = [
            PollFd::from_borrowed_fd(self.to.as_fd(), PollFlags::OUT),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        match rustix::io::retry_on_intr(|| poll(&mut watched, None)) {
            Ok(_) if !watched[1].revents().is_empty() => Err(interrupted()),
            _ => Ok(()),
        }
    }
}

/// Standard output; a pipe opened anew, so that its other holders wait as they did and this one does not.
fn own_stdout() -> Result<OwnedFd, Errno> {
    let stdout: BorrowedFd<'_> = rustix::stdio::stdout();
    let is_pipe = FileType::from_raw_mode(fstat(stdout)?.st_mode) == FileType::Fifo;
    if is_pipe
        && let Ok(fd) = open("/proc/self/fd/1", OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
    {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(stdout, 0)
}

fn exists(path: &Path) -> Failure {
    Failure::system(format!("{} exists already, and is not overwritten", escaped(path)))
}
