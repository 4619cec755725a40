//! `lazaret info`: what lies on an image, and whether it can be read.
//!
//! What holds here: the superblock is told as it stands, also where nothing else can be read; the verdict is that of a
//! worker that has opened the file system. The forms are in `describe.rs`.

use super::describe::{self, Description};
use super::origin::{Origin, SOURCE_HELP};
use super::output::Output;
use crate::exit::{Code, Failure};
use crate::iomap;
use crate::layout::{self, Layout};
use crate::options::Options;
use crate::refusal;
use crate::signal::Signals;
use crate::tool;
use lazaret_policy::message::{Range, Summary};
use lazaret_policy::scan::{Partition, Volume};

const INFO_HELP: &str = "\
--json prints one object:
  schema      \"lazaret.info/1\"; the number changes when a field goes or means something else
  source, length (bytes)
  table       null, or kind (mbr, gpt, hybrid), sector (bytes), id, backup (read from its copy), findings [text],
              partitions [{number, type, id, name, offset, length (bytes), finding (text or null), filesystem (null, or
              kind, label, uuid, state)}]
  partition   the number of the partition that is told about, or null
  filesystem  null, or kind, label, uuid, block_size, blocks, free_blocks, reserved_blocks, inodes, free_inodes,
              inode_size, state, checksum_matches, mounted_on, made, mounted, written, checked (seconds since 1970, or
              null), mounts, most_mounts, features [{name, meaning (text or null)}], journal {kind (none, internal,
              external), uuid (or null), and what is read from it: transactions, blocks, revoked, fast_commits,
              fast_changes}, errors {count, first, last {time, function, line, inode, block} or null}
  warnings    [text], what it should not be trusted with
  iomap       whether a mount of it with -o iomap would be one: offered, reason (text: why not, or null); null where it
              cannot be read
  readable    true, false, or null where several could be meant
  verdict     one line of text
Text that is not UTF-8 has its bytes in hexadecimal beside it, as label_bytes for label.

Exit codes: 0 can be read, 1 usage, 2 the host lacks or refuses something, 32 cannot be read.";

#[derive(clap::Args)]
#[command(after_help = format!("{SOURCE_HELP}\n\n{INFO_HELP}"))]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    origin: Origin,
}

/// Whether it can be read.
pub(super) enum Verdict {
    /// It can.
    Readable(Summary),
    /// It cannot, and why.
    Unreadable(String),
    /// There are several that could be meant.
    Several(usize),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = arguments.origin.options()?;
    let signals = Signals::block()?;
    let told = tell(arguments, &options, &signals);
    told.map_err(|failure| arguments.origin.about(failure))
}

fn tell(arguments: &Arguments, options: &Options, signals: &Signals) -> Result<(), Failure> {
    let mut source = arguments.origin.source(signals)?;
    let length = source.whole().length;
    let layout = layout::look(&source, options, signals)?;
    let (partition, volume) = meant(&layout, options)?;
    if let Some(partition) = partition {
        source.limit(Range { offset: partition.offset, length: partition.length })?;
    }
    let several = layout.file_systems();
    let verdict = if volume.is_none() && several > 1 {
        Verdict::Several(several)
    } else {
        match tool::begin(&source, options, signals)?.1 {
            Ok(summary) => Verdict::Readable(summary),
            Err(refusal) => Verdict::Unreadable(refusal::failure(refusal).to_string()),
        }
    };
    let path = arguments.origin.path();
    let iomap = matches!(verdict, Verdict::Readable(_)).then(iomap::available);
    let description =
        Description { path, length, layout: &layout, partition, volume, verdict: &verdict, iomap: iomap.as_ref() };
    let mut output = Output::new();
    if arguments.json {
        output.object(&describe::object(&description))?;
    } else {
        output.write(describe::text(&description).as_bytes())?;
    }
    output.end()?;
    match verdict {
        Verdict::Unreadable(_) => Err(Failure::said(Code::Mount as u8)),
        Verdict::Readable(_) | Verdict::Several(_) => Ok(()),
    }
}

/// The partition that is told about, and its file system; nothing where there are several, or none.
fn meant<'a>(layout: &'a Layout, options: &Options) -> Result<(Option<&'a Partition>, Option<&'a Volume>), Failure> {
    if options.part.is_none() && layout.whole.is_some() {
        return Ok((None, layout.whole.as_ref()));
    }
    match layout.choose(options.part.as_deref()) {
        Ok(partition) => Ok((Some(partition), layout.volume(partition))),
        Err(failure) if options.part.is_some() => Err(failure),
        Err(_) => Ok((None, None)),
    }
}
