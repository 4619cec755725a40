//! `lazaret extract`: files out of an image, into a directory or an archive.
//!
//! What holds here: the target is opened before the image, so that a command that cannot end well does not begin; what is
//! left behind when it ends early is named.

use super::origin::{Origin, SOURCE_HELP};
use crate::escape::escaped;
use crate::exit::Failure;
use crate::extract::{Archive, Counts, Destination, Directory, Extraction, Limits, Output, Report, Wanted};
use crate::options::{self, Options};
use crate::path::{self, is};
use crate::signal::Signals;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lazaret_policy::message::Summary;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const EXTRACT_HELP: &str = "\
Of a directory all that lies in it is extracted, of anything else it alone. Links in PATH are followed within the image;
those that are extracted never are, neither in the image nor in the target. Holes stay holes.

--to makes everything beneath DIR, which is made if it is not there and has to be empty. Nothing is overwritten. A file is
called NAME.partial until it is complete; one that cannot be read to its end stays so. --continue goes on with what an
earlier extraction has begun: what has the name, the length and the time that the image tells is complete and left as it
is, the rest is made. --tar writes an archive in the pax form, which is FILE.partial until it is complete.

Files belong to who extracts them, without set-user-ID and set-group-ID bits, and device nodes, FIFOs and sockets are left
out, unless --owners, --setuid and --special ask for them. Extended attributes of users and access control lists are set;
with -o xattrs=all those of the system, too, with -o xattrs=none neither.

Exit codes: 0 done, 1 usage, 2 the host lacks or refuses something, 4 damage: what could not be read was told, the rest
is there, 8 could not be read at all, or not to its end: a limit, a signal. Of several the highest counts.";

#[derive(clap::Args)]
#[command(after_help = format!("{SOURCE_HELP}\n\n{EXTRACT_HELP}"))]
#[command(group = clap::ArgGroup::new("target").required(true).args(["to", "tar"]))]
pub(super) struct Arguments {
    /// Extract into this directory
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Write an archive to this file, or with - to standard output
    #[arg(long, value_name = "FILE")]
    tar: Option<PathBuf>,
    /// Leave what is complete in DIR as it is, and extract the rest
    #[arg(long = "continue", conflicts_with = "tar")]
    goes_on: bool,
    /// With owners and groups, which are numbers
    #[arg(long)]
    owners: bool,
    /// With set-user-ID and set-group-ID bits
    #[arg(long)]
    setuid: bool,
    /// With device nodes, FIFOs and sockets
    #[arg(long)]
    special: bool,
    /// The most names that are extracted
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_entries: u64,
    /// The most directories in one another
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_depth: u16,
    /// The most data that is extracted [default: the length of the file system, at most 1T]
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<String>,
    /// The most that files may be longer than their data, all together
    #[arg(long, value_name = "SIZE", default_value = "1T")]
    max_holes: String,
    #[command(flatten)]
    origin: Origin,
    /// A directory or a file in the image
    #[arg(default_value = "/")]
    path: OsString,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = arguments.origin.options()?;
    let signals = Signals::block()?;
    let extracted = match (&arguments.to, &arguments.tar) {
        (Some(path), _) => {
            allow_fds(arguments.max_depth);
            Directory::open(path, arguments.goes_on).and_then(|mut to| extract(arguments, &options, &signals, &mut to))
        }
        (None, Some(path)) => {
            let output = Output::open(path, &signals);
            output.and_then(|output| extract(arguments, &options, &signals, &mut Archive::new(output)))
        }
        (None, None) => Err(Failure::usage("--to DIR or --tar FILE is needed; see --help")),
    };
    extracted.map_err(|failure| arguments.origin.about(failure))
}

fn extract(
    arguments: &Arguments,
    options: &Options,
    signals: &Signals,
    to: &mut dyn Destination,
) -> Result<(), Failure> {
    match take(arguments, options, signals, to) {
        Ok(verdict) => verdict,
        Err(failure) => Err(abandoned(failure.into_unreadable(), to)),
    }
}

/// An end before the end is a failure; what was missed on the way is one that is no end.
fn take(
    arguments: &Arguments,
    options: &Options,
    signals: &Signals,
    to: &mut dyn Destination,
) -> Result<Result<(), Failure>, Failure> {
    let mut image = arguments.origin.image(options, signals)?;
    let limits = arguments.limits(image.summary())?;
    let path = arguments.path.as_bytes();
    let place = path::resolve(&mut image, path, true)?;
    let whole = place.inode == crate::tool::ROOT;
    let bar = bar(whole.then(|| used(image.summary())));
    let mut report = Report::new(arguments.origin.path().as_os_str(), bar, signals);
    let Arguments { owners, setuid, special, .. } = *arguments;
    let wanted = Wanted { owners, setuid, special, xattrs: options.xattrs };
    let mut extraction = Extraction::new(image, to, wanted, limits, path);
    let taken = if is(&place.attributes, libc::S_IFDIR) {
        extraction.tree(place.inode, &mut report)
    } else {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        extraction.one(place.inode, name, &mut report)
    };
    let counts = extraction.counts;
    let finished = taken.and_then(|()| to.finish());
    report.end();
    finished?;
    tell(&counts, &report);
    Ok(report.verdict())
}

/// What is left behind by an extraction that ends early is named behind its reason.
fn abandoned(failure: Failure, to: &mut dyn Destination) -> Failure {
    match to.abandon() {
        Some(left) => failure.adding(&format!("; {left}")),
        None => failure,
    }
}

fn tell(counts: &Counts, report: &Report<'_>) {
    if counts.special_left_out > 0 {
        let count = counts.special_left_out;
        report.line(&format!("device nodes, FIFOs and sockets were left out: {count}; see --special"));
    }
    if report.missed > 0 {
        let taken = counts.files + counts.directories + counts.links + counts.hard_links + counts.special;
        let (missed, damaged, there) = (report.missed, report.damaged, counts.there);
        let there = if there > 0 { format!(", {there} were there already") } else { String::new() };
        report.line(&format!(
            "{taken} things were extracted{there}; {missed} were not, or not as they are, {damaged} of them for damage"
        ));
    }
}

impl Arguments {
    fn limits(&self, summary: &Summary) -> Result<Limits, Failure> {
        const MOST: u64 = 1 << 40;
        let size = |name: &str, value: &str| {
            options::size(value).ok_or_else(|| Failure::usage(format!("{name} '{}' is not a size", escaped(value))))
        };
        let length = summary.blocks.saturating_mul(summary.block_size.into()).min(MOST);
        let bytes = self.max_bytes.as_ref().map_or(Ok(length), |value| size("--max-bytes", value))?;
        let holes = size("--max-holes", &self.max_holes)?;
        Ok(Limits { entries: self.max_entries, depth: self.max_depth.into(), bytes, holes })
    }
}

/// Each directory on the way down is open.
fn allow_fds(depth: u16) {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::from(depth) + 64;
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < needed) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(needed.min(most)), ..limit });
    }
}

/// The data that a file system may hold, in bytes.
fn used(summary: &Summary) -> u64 {
    summary.blocks.saturating_sub(summary.free_blocks).saturating_mul(summary.block_size.into())
}

/// On a terminal only. How long it takes is known where everything is extracted.
fn bar(length: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let template = match length {
        Some(_) => "extracting {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}",
        None => "extracting {spinner} {binary_bytes}, {binary_bytes_per_sec}, {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_no_more_than_the_file_system_is_long() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let limits = |words: &[&str], blocks| {
            let line = ["extract", "--to", "d", "image"].iter().chain(words);
            let summary = Summary { block_size: 4096, blocks, ..Summary::default() };
            Line::try_parse_from(line)
                .ok()
                .unwrap()
                .arguments
                .limits(&summary)
                .map(|limits| (limits.bytes, limits.holes))
        };
        assert_eq!(limits(&[], 100).unwrap(), (409_600, 1 << 40));
        assert_eq!(limits(&[], u64::MAX).unwrap().0, 1 << 40);
        assert_eq!(limits(&["--max-bytes", "8T", "--max-holes", "1"], 1).unwrap(), (8 << 40, 1));
        assert!(limits(&["--max-bytes", "x"], 1).is_err());
    }
}
