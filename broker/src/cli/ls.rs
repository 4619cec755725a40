//! `lazaret ls`: what lies in a directory of an image, as ls shows it.
//!
//! What holds here: a directory is listed once, whatever the image says, so that a tree that leads back into itself ends;
//! what cannot be read is told, and the rest is listed.

use super::origin::{Origin, SOURCE_HELP};
use super::output::Output;
use super::row::{self, Row};
use crate::exit::{Code, Failure};
use crate::path::{self, Place, is, join};
use crate::signal::Signals;
use crate::tool::Image;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

const LS_HELP: &str = "\
Names are sorted by their bytes, as ls does with LC_ALL=C, and owners are numbers: the host's names mean nothing in an
image. On a terminal names are escaped, elsewhere they are the bytes they are. Links in PATH are followed within the
image: one that is absolute begins at the image's root.

--json prints one object a line, hidden names too: schema (\"lazaret.ls/1\"; the number changes when a field goes or means
something else), path, name, inode, type (file, directory, symlink, character_device, block_device, fifo, socket), mode
(octal, as text), links, uid, gid, size, blocks (of 512 bytes), mtime and mtime_nanoseconds, for devices major and minor,
for symlinks target. What is not UTF-8 has U+FFFD for what is not, and its bytes in hexadecimal as name_bytes,
path_bytes, target_bytes. What cannot be read has error instead.

Exit codes: 0 done, 1 usage, 2 the host lacks or refuses something, 32 something could not be read.";

/// The most directories of one listing.
const DIRECTORIES: usize = 10_000_000;

#[derive(clap::Args)]
#[command(after_help = format!("{SOURCE_HELP}\n\n{LS_HELP}"))]
pub(super) struct Arguments {
    /// Names that begin with a dot, too
    #[arg(short, long)]
    all: bool,
    /// The same without . and ..
    #[arg(short = 'A', long)]
    almost_all: bool,
    /// PATH itself, not what lies in it
    #[arg(short, long)]
    directory: bool,
    /// Mode, links, owner, group, size, time, and where links lead to
    #[arg(short)]
    long: bool,
    /// Sizes as 1.5K or 3G
    #[arg(long)]
    human_readable: bool,
    /// Directories in directories, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// One name a line
    #[arg(short = '1')]
    single: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    origin: Origin,
    /// A directory or a file in the image
    #[arg(default_value = "/")]
    path: OsString,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = arguments.origin.options()?;
    let signals = Signals::block()?;
    let told = arguments.origin.image(&options, &signals).and_then(|image| list(arguments, image));
    told.map_err(|failure| arguments.origin.about(failure))
}

fn list(arguments: &Arguments, mut image: Image<'_>) -> Result<(), Failure> {
    let path = arguments.path.as_bytes();
    // As ls: a link on the command line is shown with -l and -d, and else is where it leads to.
    let place = path::resolve(&mut image, path, !(arguments.long || arguments.directory))?;
    let output = Output::new();
    let mut walk = Walk { arguments, image, output, missed: false };
    if is(&place.attributes, libc::S_IFDIR) && !arguments.directory {
        walk.directories(path, place)?;
    } else {
        let row = Row::new(path, path.to_vec(), place.inode, Some(place.attributes));
        let rows = vec![walk.complete(row)?];
        walk.print(&rows)?;
    }
    walk.output.end()?;
    if walk.missed { Err(Failure::said(Code::Mount as u8)) } else { Ok(()) }
}

/// A listing under way.
struct Walk<'a> {
    arguments: &'a Arguments,
    image: Image<'a>,
    output: Output,
    /// Something could not be read.
    missed: bool,
}

impl Walk<'_> {
    fn directories(&mut self, path: &[u8], place: Place) -> Result<(), Failure> {
        let mut seen = HashSet::from([place.inode]);
        let mut waiting = vec![(path.to_vec(), place.inode)];
        let mut first = true;
        while let Some((path, inode)) = waiting.pop() {
            if self.arguments.recursive && !self.arguments.json {
                let (gap, name) = (if first { "" } else { "\n" }, self.output.name(&path));
                self.output.write(&[gap.as_bytes(), &name[..], b":\n"].concat())?;
            }
            first = false;
            let Some(rows) = self.rows(&path, inode)? else { continue };
            self.print(&rows)?;
            if !self.arguments.recursive {
                continue;
            }
            for row in rows.iter().rev().filter(|row| row.is_directory() && !row.is_dot()) {
                if seen.len() >= DIRECTORIES {
                    return Err(Failure::mount(format!("has more than {DIRECTORIES} directories")));
                }
                if seen.insert(row.inode) {
                    waiting.push((row.path.clone(), row.inode));
                } else {
                    self.miss(
                        &Failure::mount("was listed already and is not listed again")
                            .local()
                            .at(OsStr::from_bytes(&row.path)),
                    );
                }
            }
        }
        Ok(())
    }

    /// What lies in a directory, sorted; none if it cannot be read, which was told then.
    fn rows(&mut self, path: &[u8], inode: u32) -> Result<Option<Vec<Row>>, Failure> {
        let dots = self.arguments.all && !self.arguments.json;
        let entries = match self.image.entries(inode, dots) {
            Err(failure) if failure.is_local() => {
                self.miss(&failure.at(OsStr::from_bytes(path)));
                return Ok(None);
            }
            entries => entries?,
        };
        let hidden = self.arguments.all || self.arguments.almost_all || self.arguments.json;
        let mut rows = vec![];
        for entry in entries.into_iter().filter(|entry| hidden || !entry.name.starts_with(b".")) {
            let whole = join(path, &entry.name);
            let row = Row::new(&entry.name, whole, entry.inode, entry.attributes);
            rows.push(self.complete(row)?);
        }
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Some(rows))
    }

    /// With what the directory did not say: where a link leads to, and why there are no attributes.
    fn complete(&mut self, mut row: Row) -> Result<Row, Failure> {
        let place = OsStr::from_bytes(&row.path).to_owned();
        if row.attributes.is_none() {
            match self.image.attributes(row.inode) {
                Err(failure) if failure.is_local() => {
                    row.error = Some(failure.to_string());
                    self.miss(&failure.at(&place));
                }
                attributes => row.attributes = Some(attributes?),
            }
        }
        let wanted = self.arguments.long || self.arguments.json;
        if wanted && row.attributes.as_ref().is_some_and(|attributes| is(attributes, libc::S_IFLNK)) {
            match self.image.link(row.inode) {
                Err(failure) if failure.is_local() => self.miss(&failure.at(&place)),
                target => row.target = Some(target?),
            }
        }
        Ok(row)
    }

    fn print(&mut self, rows: &[Row]) -> Result<(), Failure> {
        if self.arguments.json {
            return rows.iter().try_for_each(|row| self.output.object(&row.object()));
        }
        let names: Vec<Vec<u8>> = rows.iter().map(|row| self.output.name(&row.name)).collect();
        let text = if self.arguments.long {
            let targets: Vec<_> = rows.iter().map(|row| row.target.as_ref().map(|to| self.output.name(to))).collect();
            let total = is_listing(rows, self.arguments);
            row::long(rows, &names, &targets, &row::Style { total, human: self.arguments.human_readable })
        } else if self.output.is_terminal() && !self.arguments.single {
            row::columns(&names, self.output.width())
        } else {
            names.iter().flat_map(|name| [&name[..], b"\n"].concat()).collect()
        };
        self.output.write(&text)
    }

    fn miss(&mut self, failure: &Failure) {
        self.missed = true;
        self.arguments.origin.say(failure);
    }
}

/// Whether these rows are a directory's content and not one file.
fn is_listing(rows: &[Row], arguments: &Arguments) -> bool {
    !(arguments.directory || rows.len() == 1 && rows[0].path == arguments.path.as_bytes())
}
