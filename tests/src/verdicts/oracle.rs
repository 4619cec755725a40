//! e2fsck on image after image: one file, of which only what changed is written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::Verdict;
use crate::{Result, command};

/// Bytes of memory and seconds that e2fsck gets: a wrong number can make it ask for all there is.
const MEMORY: u64 = 1 << 30;
const SECONDS: u64 = 10;
/// What is compared and written at once.
const PAGE: usize = 4096;

/// A file that e2fsck looks at.
pub struct Oracle {
    path: PathBuf,
    file: File,
    /// What is in it.
    bytes: Vec<u8>,
}

impl Oracle {
    /// One with an empty file of this path.
    pub fn new(path: PathBuf) -> Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { path, file, bytes: Vec::new() })
    }

    /// What e2fsck says of an image, and its words. None where it comes to no end of its own: a signal, too much memory,
    /// too much time.
    pub fn judge(&mut self, image: &[u8]) -> Result<(Option<Verdict>, String)> {
        self.write(image)?;
        let mut e2fsck = Command::new("prlimit");
        e2fsck.args([format!("--as={MEMORY}"), format!("--cpu={SECONDS}"), "--core=0".to_owned()]);
        e2fsck.args(["e2fsck", "-fn"]).arg(&self.path);
        let Ok(finished) = command::finish(&mut e2fsck, Duration::from_secs(10 * SECONDS)) else {
            return Ok((None, "no end".to_owned()));
        };
        let verdict = match finished.code() {
            _ if finished.stderr.contains("emory allocation failed") => None,
            Some(0) => Some(Verdict::Sound),
            Some(code) if code & 8 != 0 => Some(Verdict::Unreadable),
            Some(4) => Some(Verdict::Damaged),
            _ => None,
        };
        Ok((verdict, format!("{:?}: {}{}", finished.code(), finished.stderr, finished.stdout)))
    }

    fn write(&mut self, image: &[u8]) -> Result {
        if self.bytes.len() != image.len() {
            self.file.set_len(0)?;
            self.file.set_len(image.len() as u64)?;
            self.bytes = vec![0; image.len()];
        }
        for (index, (old, new)) in self.bytes.chunks_mut(PAGE).zip(image.chunks(PAGE)).enumerate() {
            if old != new {
                self.file.write_all_at(new, (index * PAGE) as u64)?;
                old.copy_from_slice(new);
            }
        }
        Ok(())
    }
}
