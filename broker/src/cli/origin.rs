//! The image that a command looks into: what the commands that do not mount have in common on their command line.

use crate::device::Source;
use crate::escape::escaped;
use crate::exit::{Failure, say};
use crate::options::{self, Options};
use crate::signal::Signals;
use crate::tool::Image;
use crate::{spool, warning};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the help of each of these commands says of its source.
pub(super) const SOURCE_HELP: &str = "\
A whole disk is looked through for partitions (MBR, GPT); the only ext file system is taken, of several --part picks
one. With - the image comes on standard input and is kept in a file without a name in TMPDIR or /var/tmp. There is no
http:// here, on purpose: what reads hostile images does not speak to a network; use curl and a pipe.

Nothing needs root, /dev/fuse or a mount. The worker that reads the image is confined as for a mount.";

/// Where an image comes from, and how it is to be read.
#[derive(clap::Args)]
pub(super) struct Origin {
    /// Options as of mount: checksum=, confine=, memory=, part=, sb=, timeout=
    #[arg(short = 'o', long = "options", value_name = "OPTS")]
    options: Vec<OsString>,
    /// The partition: its number, label or UUID
    #[arg(long, value_name = "PARTITION")]
    part: Option<String>,
    /// The longest image that is taken from standard input
    #[arg(long, value_name = "SIZE", default_value = "8G")]
    spool_limit: String,
    /// An image file, a block device, or - for standard input
    source: PathBuf,
}

impl Origin {
    /// This one, with nothing else said.
    #[cfg(test)]
    pub(super) fn of(source: &str) -> Self {
        Self { options: vec![], part: None, spool_limit: "8G".into(), source: source.into() }
    }

    /// The options, as those of a mount.
    pub(super) fn options(&self) -> Result<Options, Failure> {
        let mut options = Options::parse(&self.options)?;
        options.part = self.part.clone().or(options.part);
        Ok(options)
    }

    /// Opens the source.
    pub(super) fn source(&self, signals: &Signals) -> Result<Source, Failure> {
        if self.source.as_os_str() != "-" {
            return Source::open(&self.source);
        }
        let limit = options::size(&self.spool_limit)
            .ok_or_else(|| Failure::usage(format!("--spool-limit '{}' is not a size", escaped(&self.spool_limit))))?;
        spool::standard_input(limit, signals)
    }

    /// Starts a worker that opens the file system, and tells what is to be known about it.
    pub(super) fn image<'a>(&self, options: &'a Options, signals: &'a Signals) -> Result<Image<'a>, Failure> {
        let mut source = self.source(signals)?;
        let image = Image::open(&mut source, options, signals)?;
        for line in warning::lines(image.summary()) {
            say(&format!("{}: warning: {line}", escaped(&self.source)));
        }
        Ok(image)
    }

    /// Names the source in a failure that names nothing.
    pub(super) fn about(&self, failure: Failure) -> Failure {
        failure.about(&self.source)
    }

    /// A line on stderr about something in the image.
    pub(super) fn say(&self, failure: &Failure) {
        say(&format!("{}: {failure}", escaped(&self.source)));
    }

    /// The source as it was given.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.source
    }
}
