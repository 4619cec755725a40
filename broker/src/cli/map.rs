//! `lazaret map`: where on the device the bytes of a file lie, as filefrag tells it of a mounted one.

use super::origin::{Origin, SOURCE_HELP};
use super::output::{Output, put_bytes};
use crate::exit::{Code, Failure};
use crate::path::{self, Place, is};
use crate::signal::Signals;
use crate::tool::Image;
use lazaret_policy::message::{Mapped, MappedKind};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

const MAP_HELP: &str = "\
The pieces of a file in order: byte and length in the file, byte of the device, what it is (data; unwritten, which is
space that reads as zeros; hole; inline, which is data within the inode). Bytes of the device count from the begin of the
file system: of a whole disk, from the begin of the partition. Space behind the end of the file is listed, too.

--json prints one object a file and line: schema (\"lazaret.map/1\"), path, inode, size, block_size, mappings: for each offset, length,
type (mapped, unwritten, hole, inline), device (null for a hole), flags (eof: it reaches the end of the file; last: the
last one that is no hole).

Exit codes: 0 done, 1 usage, 2 the host lacks or refuses something, 32 something could not be read.";

/// The most pieces that are told of one file.
const PIECES: usize = 1 << 22;

#[derive(clap::Args)]
#[command(after_help = format!("{SOURCE_HELP}\n\n{MAP_HELP}"))]
pub(super) struct Arguments {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    origin: Origin,
    /// Files in the image
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = arguments.origin.options()?;
    let signals = Signals::block()?;
    let told = arguments.origin.image(&options, &signals).and_then(|mut image| tell(arguments, &mut image));
    told.map_err(|failure| arguments.origin.about(failure))
}

fn tell(arguments: &Arguments, image: &mut Image<'_>) -> Result<(), Failure> {
    let mut output = Output::new();
    let mut missed = false;
    for path in &arguments.paths {
        match tell_one(arguments, image, path, &mut output) {
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

fn tell_one(arguments: &Arguments, image: &mut Image<'_>, path: &OsStr, output: &mut Output) -> Result<(), Failure> {
    let place = path::resolve(image, path.as_bytes(), true)?;
    let told = if is(&place.attributes, libc::S_IFREG) {
        image.map(place.inode, PIECES)
    } else {
        Err(Failure::mount("is no regular file").local())
    };
    let pieces = told.map_err(|failure| failure.at(path))?;
    let block_size = image.summary().block_size;
    if arguments.json {
        return output.object(&object(path.as_bytes(), &place, block_size, &pieces));
    }
    if arguments.paths.len() > 1 {
        output.write(&[&output.name(path.as_bytes())[..], b":\n"].concat())?;
    }
    output.write(text(place.attributes.size, &pieces).as_bytes())
}

fn object(path: &[u8], place: &Place, block_size: u32, pieces: &[Mapped]) -> Value {
    let size = place.attributes.size;
    let mappings: Vec<Value> = flagged(size, pieces)
        .map(|(piece, flags)| {
            let (kind, device) = words(piece.kind);
            json!({ "offset": piece.offset, "length": piece.length, "type": kind, "device": device, "flags": flags })
        })
        .collect();
    let mut object = json!({ "schema": "lazaret.map/1", "inode": place.inode, "size": size });
    put_bytes(&mut object, "path", path);
    object["block_size"] = block_size.into();
    object["mappings"] = mappings.into();
    object
}

fn text(size: u64, pieces: &[Mapped]) -> String {
    let mut text = format!("{:>16} {:>16} {:>16}  {:<9}  flags\n", "offset", "length", "device", "type");
    for (piece, flags) in flagged(size, pieces) {
        let (kind, device) = words(piece.kind);
        let device = device.map_or("-".to_owned(), |device| device.to_string());
        let line = format!("{:>16} {:>16} {device:>16}  {kind:<9}  {}", piece.offset, piece.length, flags.join(","));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Each piece, and what there is to say about its place among the others.
fn flagged(size: u64, pieces: &[Mapped]) -> impl Iterator<Item = (&Mapped, Vec<&'static str>)> {
    let last = pieces.iter().rposition(|piece| piece.kind != MappedKind::Hole);
    pieces.iter().enumerate().map(move |(index, piece)| {
        let ends = piece.offset < size && piece.offset.saturating_add(piece.length) >= size;
        let flags = [(Some(index) == last, "last"), (ends, "eof")];
        (piece, flags.into_iter().filter_map(|(is, word)| is.then_some(word)).collect())
    })
}

fn words(kind: MappedKind) -> (&'static str, Option<u64>) {
    match kind {
        MappedKind::Data(start) => ("mapped", Some(start)),
        MappedKind::Unwritten(start) => ("unwritten", Some(start)),
        MappedKind::Hole => ("hole", None),
        MappedKind::Inline(start) => ("inline", Some(start)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_told_with_their_place_among_the_others() {
        let piece = |offset, length, kind| Mapped { offset, length, kind };
        let pieces = [
            piece(0, 4096, MappedKind::Data(8192)),
            piece(4096, 8192, MappedKind::Hole),
            piece(12288, 4096, MappedKind::Unwritten(65536)),
        ];
        let lines: Vec<String> =
            text(9000, &pieces).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "offset length device type flags",
                "0 4096 8192 mapped",
                "4096 8192 - hole eof",
                "12288 4096 65536 unwritten last"
            ]
        );
    }
}
