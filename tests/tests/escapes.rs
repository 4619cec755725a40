//! Nothing that an image, a device's name or a lost worker says is acted upon by a terminal: whatever bytes they are, what
//! the program prints is letters.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lazaret_tests::command::{finish, run, wait};
use lazaret_tests::evil::run::Quarters;
use lazaret_tests::evil::{Act, HOSTILE, Instruction, weakness};
use lazaret_tests::lazaret::{self, Mount, PATIENCE};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, Requirement, proof};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, leftover};

const NEEDS: &[Requirement] =
    &[Requirement::Root, Requirement::Fuse, Requirement::Tool("script"), Requirement::Tool("mke2fs")];

/// What a tool is asked of an image whose worker lies.
const ASKED: &[&str] = &[
    "info IMAGE",
    "info --json IMAGE",
    "ls IMAGE",
    "ls -l IMAGE",
    "ls -lR IMAGE",
    "ls --json IMAGE",
    "ls -R --json IMAGE",
    "cat IMAGE /file",
    "check IMAGE",
];
/// The lies of an evil worker that answers a tool, but its silence.
const LIES: std::ops::RangeInclusive<u64> = 0..=5;

fn main() {
    requirement::main(|workshop| {
        vec![
            proof("P13", "a worker that answers a tool with what a terminal acts upon", NEEDS, workshop, answers),
            proof("P13", "labels, places and names that a terminal acts upon, on a mount", NEEDS, workshop, mounted),
            proof("P13", "what a terminal acts upon is found", &[], workshop, |_| found()),
        ]
    })
}

/// Whether a terminal only shows this; the first thing that it would act upon.
fn harmless(text: &[u8]) -> Result {
    let text = std::str::from_utf8(text).map_err(|_| format!("no text: {}", text.escape_ascii()))?;
    let acts = |letter: &char| {
        let turns = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
        turns || *letter == '\u{feff}' || letter.is_control() && !matches!(letter, '\n' | '\t')
    };
    // A terminal's own end of a line has two letters.
    match text.replace("\r\n", "\n").chars().find(acts) {
        None => Ok(()),
        Some(letter) => Err(format!("{letter:?} in {text:?}").into()),
    }
}

fn found() -> Result<Figures> {
    assert!(harmless(b"a name\n").is_ok());
    let pieces = ["\x1b[31m", "\x07", "a\rb", "\u{202e}", "\u{2066}", "\u{9b}", "\u{feff}", "\x7f"];
    assert!(pieces.iter().all(|piece| harmless(piece.as_bytes()).is_err()));
    assert!(harmless(HOSTILE).is_err());
    Ok(vec![("sabotages found", pieces.len() as u64 + 1)])
}

fn answers(workshop: &Workshop) -> Result<Figures> {
    let quarters = Quarters::new(&workshop.directory("answers")?, weakness::NONE)?;
    let mut asked = 0;
    for lie in LIES {
        let (image, _) = quarters.image(Instruction::new(Act::Answer, &[lie]))?;
        // A list without end is read to the broker's own end of it, and once is enough.
        let asked_now = if lie == 4 { &ASKED[2..3] } else { ASKED };
        for words in asked_now {
            let line = format!("{} {}", quarters.broker.display(), words.replace("IMAGE", &image.to_string_lossy()));
            let output = on_a_terminal(&line)?;
            // How the bar of `check` draws itself anew, and nobody else.
            let output = without(&output, b"\r\x1b[2K");
            harmless(&output).map_err(|error| format!("lie {lie}: {line}: {error}"))?;
            if output.windows(8).any(|piece| piece == b"panicked") {
                return Err(format!("lie {lie}: {line}: {}", output.escape_ascii()).into());
            }
            asked += 1;
        }
    }
    quarters.empty()?;
    Ok(vec![("questions asked of liars", asked)])
}

/// What a command writes to a terminal: bytes, which may be no text.
fn on_a_terminal(line: &str) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    let mut script = Command::new("script");
    script.args(["-qec", line, "/dev/null"]).env("COLUMNS", "80").stdin(Stdio::null());
    let mut child = script.stdout(file.try_clone()?).stderr(file.try_clone()?).spawn()?;
    wait(&mut child, PATIENCE)?;
    let mut bytes = vec![];
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn without(bytes: &[u8], piece: &[u8]) -> Vec<u8> {
    let (mut rest, mut kept) = (bytes, vec![]);
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(piece) {
            Some(behind) => rest = behind,
            None => {
                kept.push(*first);
                rest = others;
            }
        }
    }
    kept
}

/// A file system with this label and this place where it was last mounted, in a file with a name of the same kind.
fn image_of(place: &Path) -> Result<std::path::PathBuf> {
    let image = place.join(OsStr::from_bytes(b"\x1b[31m\xe2\x80\xae.img"));
    fs::File::create(&image)?.set_len(8 << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "\x1b]0;t\x07\r\u{202e}", "-M", "/\x1b[2J\u{202e}x\u{9b}"]);
    run(mke2fs.arg(&image))?;
    Ok(image)
}

fn mounted(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("mounted")?;
    let image = image_of(&place)?;
    let point = place.join(OsStr::from_bytes(b"\x1b[7m\xe2\x81\xa6point"));
    let mut lines = 0;
    let mut said = |finished: lazaret_tests::command::Finished| -> Result {
        harmless(finished.stdout.as_bytes())?;
        harmless(finished.stderr.as_bytes())?;
        lines += finished.stdout.lines().count() as u64 + finished.stderr.lines().count() as u64;
        Ok(())
    };
    let mount = Mount::with(&image, &point, "timeout=5")?;
    said(lazaret::run(["mount".as_ref(), image.as_os_str(), point.as_os_str()])?)?;
    said(lazaret::run(["status"])?)?;
    said(lazaret::run(["status", "--json"])?)?;
    mount.unmount(Duration::from_secs(2))?;
    said(lazaret::run(["umount".as_ref(), point.as_os_str()])?)?;
    said(lazaret::run(["info".as_ref(), image.as_os_str()])?)?;
    said(lazaret::run(["info".as_ref(), "--json".as_ref(), image.as_os_str()])?)?;
    said(lazaret::run(["check".as_ref(), image.as_os_str()])?)?;
    // Broken, so that there is something to say of it; and not there at all.
    fs::OpenOptions::new().write(true).open(&image)?.set_len(3 << 20)?;
    said(lazaret::run(["mount".as_ref(), image.as_os_str(), point.as_os_str()])?)?;
    fs::remove_file(&image)?;
    for verb in ["mount", "info", "ls", "check"] {
        let point = (verb == "mount").then_some(point.as_os_str());
        said(finish(lazaret::command([verb.as_ref(), image.as_os_str()]).args(point), PATIENCE)?)?;
    }
    leftover::nothing_of(&place)?;
    assert!(lines > 10, "next to nothing was said");
    Ok(vec![("lines looked at", lines)])
}
