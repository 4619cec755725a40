//! `lazaret cat`: the bytes of a file in an image.

use super::origin::{Origin, SOURCE_HELP};
use super::output::Output;
use crate::exit::{Code, Failure};
use crate::path::{self, is};
use crate::signal::Signals;
use crate::tool::Image;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

const CAT_HELP: &str = "\
Links in PATH are followed within the image: one that is absolute begins at the image's root. On a terminal what is no
text is spelt out, unless --raw says otherwise; into a pipe or a file the bytes go as they are, and holes as zeros.

Exit codes: 0 done, 1 usage, 2 the host lacks or refuses something, 32 something could not be read.";

#[derive(clap::Args)]
#[command(after_help = format!("{SOURCE_HELP}\n\n{CAT_HELP}"))]
pub(super) struct Arguments {
    /// Send control characters to a terminal as they are
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    origin: Origin,
    /// Files in the image
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = arguments.origin.options()?;
    let signals = Signals::block()?;
    let told = arguments.origin.image(&options, &signals).and_then(|mut image| print(arguments, &mut image));
    told.map_err(|failure| arguments.origin.about(failure))
}

fn print(arguments: &Arguments, image: &mut Image<'_>) -> Result<(), Failure> {
    let mut output = Output::new();
    let mut missed = false;
    for path in &arguments.paths {
        match print_one(image, path, arguments.raw, &mut output) {
            Err(failure) if failure.is_local() => {
                arguments.origin.say(&failure);
                missed = true;
            }
            other => other?,
        }
    }
    output.end()?;
    if missed { Err(Failure::said(Code::Mount as u8)) } else { Ok(()) }
}

fn print_one(image: &mut Image<'_>, path: &OsStr, raw: bool, output: &mut Output) -> Result<(), Failure> {
    let place = path::resolve(image, path.as_bytes(), true)?;
    if is(&place.attributes, libc::S_IFDIR) {
        return Err(Failure::mount("is a directory").local().at(path));
    }
    if !is(&place.attributes, libc::S_IFREG) {
        return Err(Failure::mount("is a device, a FIFO or a socket, and has no content here").local().at(path));
    }
    image.read(place.inode, |bytes| output.content(bytes, raw)).map_err(|failure| failure.at(path))
}
