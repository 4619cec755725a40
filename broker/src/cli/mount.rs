//! `lazaret mount`: the way of design §3, from the options to the watch.

use crate::background;
use crate::damage::Told;
use crate::device::Source;
use crate::escape::escaped;
use crate::exit::{Failure, say, words};
use crate::filter;
use crate::iomap::{self, Wanted};
use crate::layout;
use crate::medium::Medium;
use crate::mount::{Mount, Mountpoint};
use crate::options::Options;
use crate::refusal;
use crate::signal::Signals;
use crate::supervise;
use crate::warning;
use crate::worker::Worker;
use lazaret_policy::message::{Purpose, Refusal, Summary};
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

pub(super) const OPTIONS_HELP: &str = "\
Options (-o):
  ro                     always so; `rw`, which mount(8) passes when nothing is said, is taken and changes nothing
  exec                   programs on the medium may be started (default: noexec); nosuid and nodev hold always
  allow_exec             the same, for mount(8) and fstab: mount(8) does not pass `exec` on
  nosymfollow            symbolic links on the medium are not followed
  uid=N gid=N            owner of everything, and the user the mount is for
  umask=OCTAL            permissions taken away from everything
  allow_other            other users may enter, too
  special=show|hide      device nodes, sockets, FIFOs (default: show)
  checksum=strict|warn|ignore
                         what a wrong checksum does (default: strict, the object cannot be read)
  verity=ignore|verify   files with a Merkle tree: read as others (default), or checked block by block; a wrong one
                         cannot be read. Signatures are not checked
  sb=N                   take the copy of the superblock at N, counted in units of 1 KiB
  confine=strict|degraded
                         on a host with neither Landlock nor an empty root: refuse (default), or go on without
  part=N|LABEL|UUID      the partition of a whole disk (default: the only one with an ext file system)
  blkdev                 the mount stands on its block device, which the kernel claims (needs root): only such a mount is
                         seen by udisks2, which says uhelper=udisks2 and gets it by that
  iomap                  the kernel reads the bytes of files itself, where the worker says that they lie (needs root and a
                         kernel with an experimental series; lazaret doctor says whether). Where it cannot, a line says
                         why, and the worker gives the bytes. SECURITY.md says what it costs
  iomap=require          the same, and no mount without
  threads=N              threads of the worker, 1 to 16
  memory=SIZE            heap of the worker, as 64M
  timeout=SECONDS        silence after which the mount is ended (default: 60; 0: never); five times that is what the
                         kernel itself grants each request, where it can (Linux 6.15)
  nofail                 for mount(8) and fstab: a source that is not there is no failure
Words that mean something to other programs (user, _netdev, x-*, comment=, relatime, ...) are taken and ignored.
Without root, fusermount3 mounts.";

#[derive(clap::Args)]
#[command(after_help = OPTIONS_HELP)]
pub(super) struct Arguments {
    /// Mount options, separated by commas; may be repeated
    #[arg(short = 'o', long = "options", value_name = "OPTS")]
    options: Vec<OsString>,
    /// The partition: its number, label or UUID; as -o part=
    #[arg(long, value_name = "PARTITION")]
    part: Option<String>,
    /// Stay in the foreground; a signal unmounts
    #[arg(short, long)]
    foreground: bool,
    /// Print the proof of the worker's confinement
    #[arg(long)]
    proof: bool,
    /// This is the process that the command has left in the background
    #[arg(long, hide = true)]
    background: bool,
    /// An image file or a block device
    source: PathBuf,
    /// A directory
    mountpoint: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut options = Options::parse(&arguments.options)?;
    options.part = arguments.part.clone().or(options.part);
    if options.blkdev && options.iomap.is_wanted() {
        return Err(Failure::usage("options 'iomap' and 'blkdev' exclude each other"));
    }
    if options.blkdev && !geteuid().is_root() {
        return Err(Failure::usage("options 'blkdev' and 'uhelper=udisks2' need root"));
    }
    if !arguments.foreground && !arguments.background {
        return background::start(arguments.again());
    }
    let about = |failure: Failure| failure.about(&arguments.source);
    match serve(arguments, &options) {
        Ok(ended) => ended.map_err(about),
        Err(failure) if arguments.background => Err(background::fail(about(failure))),
        Err(failure) => Err(about(failure)),
    }
}

/// Mounts, and watches until the mount has ended: how it ended, or why there was none.
fn serve(arguments: &Arguments, options: &Options) -> Result<Result<(), Failure>, Failure> {
    if options.iomap.is_wanted()
        && let Err(why) = iomap::available()
    {
        options.iomap.do_without(&arguments.source, &why)?;
        return serve(arguments, &Options { iomap: Wanted::No, ..options.clone() });
    }
    let signals = Signals::block()?;
    // Closed by the end of the process: the last close of a block device waits for a medium that has stalled, and whatever
    // there is to say is to be said before.
    let open = if options.blkdev { Source::open_for_kernel } else { Source::open };
    let mut source = ManuallyDrop::new(open(&arguments.source)?);
    let mountpoint = Mountpoint::open(&arguments.mountpoint)?;
    let plain;
    let mut options = options;
    if options.iomap.is_wanted() {
        if !layout::narrow(&mut source, options, &signals)? {
            options.iomap.do_without(&arguments.source, "no file system was found to make a device of")?;
            plain = Options { iomap: Wanted::No, ..options.clone() };
            options = &plain;
        }
    } else if options.part.is_some() {
        layout::select(&mut source, options, &signals)?;
    }
    let mut begun = begin(&source, &mountpoint, options, &signals)?;
    if let Err(refusal) = begun.opened
        && layout::instead(&mut source, refusal, options, &signals)?
    {
        drop(begun);
        begun = begin(&source, &mountpoint, options, &signals)?;
    }
    let Begun { mut mount, worker, opened } = begun;
    let summary = opened.map_err(refusal::failure)?;
    for line in warning::lines(&summary) {
        say(&format!("{}: warning: {line}", escaped(arguments.source.as_os_str())));
    }
    if let Some(line) = warning::replayed(&summary.journal) {
        say(&format!("{}: {line}", escaped(arguments.source.as_os_str())));
    }
    signals.check()?;
    source.check_same()?;
    mount.attach(&mountpoint)?;
    drop(mountpoint);
    let text = if arguments.proof { worker.proof().to_string() } else { String::new() };
    if arguments.background {
        background::detach(&text)?;
    } else {
        let shown = std::io::stdout().write_all(text.as_bytes());
        shown.map_err(|error| Failure::system(format!("stdout: {}", words(error))))?;
    }
    let medium = Medium::of(&source);
    Ok(filter::install().and_then(|()| {
        supervise::watch(worker, mount, &medium, &signals, options.timeout, Told::of(arguments.source.as_os_str()))
    }))
}

/// A mount that is attached nowhere yet, the worker that is to serve it, and whether it will. The worker goes first: the end
/// of a mount may wait for who serves it.
struct Begun<'a> {
    opened: Result<Summary, Refusal>,
    worker: Worker<'a>,
    mount: Mount,
}

fn begin<'a>(
    source: &Source,
    mountpoint: &Mountpoint,
    options: &'a Options,
    signals: &'a Signals,
) -> Result<Begun<'a>, Failure> {
    let (mount, fuse, prepared) = Mount::make(source, mountpoint, options)?;
    let mut worker = Worker::start(Purpose::Mount, options, signals)?;
    match prepared {
        None => worker.initialize(Some(fuse))?,
        Some(prepared) => {
            if let Err(why) = worker.initialize_iomap(fuse, prepared)? {
                options.iomap.do_without(source.path(), &why)?;
            }
        }
    }
    let opened = worker.open(source)?;
    Ok(Begun { opened, worker, mount })
}

impl Arguments {
    /// What mount(8) asks for, by one list of options.
    pub(super) fn of_helper(source: PathBuf, mountpoint: PathBuf, options: OsString, proof: bool) -> Self {
        Self { options: vec![options], part: None, foreground: false, proof, background: false, source, mountpoint }
    }

    /// The same command for the process in the background.
    fn again(&self) -> Vec<&OsStr> {
        let mut line: Vec<&OsStr> = vec![OsStr::new("mount"), OsStr::new("--background")];
        if self.proof {
            line.push(OsStr::new("--proof"));
        }
        for list in &self.options {
            line.extend([OsStr::new("-o"), list]);
        }
        if let Some(part) = &self.part {
            line.extend([OsStr::new("--part"), OsStr::new(part)]);
        }
        line.extend([OsStr::new("--"), self.source.as_os_str(), self.mountpoint.as_os_str()]);
        line
    }
}
