//! What an extraction tells while it goes on and at its end: a line for each thing that was not taken, a bar on a
//! terminal, and what the exit code has to say.
//!
//! What holds here: lines are bounded, whatever is wrong with an image; names are escaped.

use crate::escape::escaped;
use crate::exit::{Code, Failure, say};
use crate::signal::Signals;
use indicatif::ProgressBar;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The most lines about things that were not taken; behind them they are only counted.
const MOST_LINES: u64 = 1000;

/// What is told.
pub(crate) struct Report<'a> {
    source: String,
    bar: ProgressBar,
    /// What ends an extraction early.
    pub(crate) signals: &'a Signals,
    /// Things that were not taken, or not as they are.
    pub(crate) missed: u64,
    /// Those of them that the image could not give.
    pub(crate) damaged: u64,
    worst: u8,
    /// The path in the image of what is being taken.
    pub(crate) path: Vec<u8>,
}

impl<'a> Report<'a> {
    /// About this source.
    pub(crate) fn new(source: &OsStr, bar: ProgressBar, signals: &'a Signals) -> Self {
        Self { source: escaped(source).to_string(), bar, signals, missed: 0, damaged: 0, worst: 0, path: vec![] }
    }

    /// Something at this path of the image was not taken, or not as it is. Only what is no more than that comes back as
    /// done; what ends the extraction stays a failure.
    pub(crate) fn miss(&mut self, path: &[u8], failure: Failure) -> Result<(), Failure> {
        if !failure.is_local() {
            return Err(failure);
        }
        self.missed += 1;
        self.damaged += u64::from(failure.code() == Code::Damaged as u8);
        self.worst = self.worst.max(failure.code());
        if self.missed <= MOST_LINES {
            self.line(&failure.at(OsStr::from_bytes(path)).to_string());
        }
        Ok(())
    }

    /// The same of what is being taken.
    pub(crate) fn miss_here(&mut self, failure: Failure) -> Result<(), Failure> {
        let path = std::mem::take(&mut self.path);
        let missed = self.miss(&path, failure);
        self.path = path;
        missed
    }

    /// A line of its own, above the bar.
    pub(crate) fn line(&self, text: &str) {
        self.bar.suspend(|| say(&format!("{}: {text}", self.source)));
    }

    /// So many more bytes were taken.
    pub(crate) fn progress(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// The bar goes, and what was only counted is told.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
        if self.missed > MOST_LINES {
            self.line(&format!("and {} more", self.missed - MOST_LINES));
        }
    }

    /// The failure that all of this is, if it is one.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        if self.worst == 0 { Ok(()) } else { Err(Failure::said(self.worst)) }
    }
}
