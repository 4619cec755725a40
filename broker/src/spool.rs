//! An image on standard input: a worker maps what it reads, so what comes through a pipe is kept in a file first.
//!
//! What holds here: the file has no name, and it is gone when the command is; it does not grow over a limit; a hole stays
//! a hole. A file or a block device as standard input is read where it is.

use crate::device::Source;
use crate::exit::{Failure, words};
use crate::signal::{Signals, interrupted, wait};
use crate::text;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How much is read at once, and the unit in which holes are left, in bytes.
const PIECE: usize = 64 << 10;

/// The image on standard input, of at most so many bytes.
pub(crate) fn standard_input(limit: u64, signals: &Signals) -> Result<Source, Failure> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(Failure::usage("standard input is a terminal, and an image is expected there"));
    }
    let kind = fstat(&input).map(|status| FileType::from_raw_mode(status.st_mode));
    if let Ok(FileType::RegularFile | FileType::BlockDevice) = kind
        && let Ok(source) = Source::open(Path::new("/proc/self/fd/0"))
    {
        return Ok(source.named("-"));
    }
    let file = keep(limit, signals)?;
    // Opened again, for reading only.
    let source = Source::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
    source.map(|source| source.named("-")).map_err(|failure| failure.renamed("-"))
}

fn keep(limit: u64, signals: &Signals) -> Result<File, Failure> {
    let directory = directory();
    let unkept = |error: std::io::Error| {
        Failure::system(format!("standard input cannot be kept in {}: {}", directory.display(), words(error)))
    };
    let file = tempfile::tempfile_in(&directory).map_err(unkept)?;
    let input = std::io::stdin();
    let (mut piece, mut filled, mut length) = (vec![0; PIECE], 0, 0_u64);
    loop {
        let [_, signal] = wait([input.as_fd(), signals.as_fd()], None);
        if signal {
            return Err(interrupted());
        }
        let count = match rustix::io::read(&input, &mut piece[filled..]) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            other => other.map_err(|errno| Failure::system(format!("standard input: {}", words(errno))))?,
        };
        filled += count;
        if length + filled as u64 > limit {
            let limit = text::size(limit);
            return Err(Failure::mount(format!("standard input is longer than {limit}; see --spool-limit")));
        }
        if filled == PIECE || count == 0 {
            if piece[..filled].iter().any(|&byte| byte != 0) {
                file.write_all_at(&piece[..filled], length).map_err(unkept)?;
            }
            length += filled as u64;
            filled = 0;
        }
        if count == 0 {
            file.set_len(length).map_err(unkept)?;
            return Ok(file);
        }
    }
}

/// Where there is room for what is large: not in memory, where /tmp may be.
fn directory() -> PathBuf {
    let told = std::env::var_os("TMPDIR").filter(|path| !path.is_empty());
    let large = PathBuf::from("/var/tmp");
    told.map_or_else(|| if large.is_dir() { large } else { std::env::temp_dir() }, PathBuf::from)
}
