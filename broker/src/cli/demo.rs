//! `lazaret demo`: a mount from its begin to its end, with the proof of the worker's confinement.
//!
//! What holds here: the demo is an ordinary client of a mount that another process serves; whatever happens, nothing of
//! it stays; no byte of the image reaches the terminal unescaped.

use super::listing::{Listed, Tree};
use super::umount;
use crate::device::Source;
use crate::escape::escaped;
use crate::exit::{Code, Failure, say, words};
use crate::options::Options;
use crate::signal::Signals;
use crate::tool::Image;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The sample, as gzip wraps it: `dist/sample.sh` makes it.
const SAMPLE: &[u8] = include_bytes!("../../dist/sample.ext4.gz");
/// Without a name in it, gzip's head has 10 bytes and its tail 8.
const GZIP: (usize, usize) = (10, 8);
const SAMPLE_MAX: usize = 16 << 20;
/// A file of the sample and its sha256, both fixed by `dist/sample.sh`.
const SAMPLE_FILE: &str = "numbers.txt";
const SAMPLE_HASH: &str = "5d2dae5c978fa950a90296f8a3e9a9ee1b692410212703c989aea657059ab3d8";
/// Lines of the listing for one directory, and directories looked into.
const LINES: usize = 8;
const DIRECTORIES: usize = 4;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// An image of your own instead of the sample
    image: Option<PathBuf>,
}

/// The demo's own directory, and the mount in it. Dropping it takes away both.
struct Place {
    directory: tempfile::TempDir,
    mounted: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let signals = Signals::block()?;
    let directory = tempfile::Builder::new().prefix("lazaret-demo-").tempdir();
    let directory = directory.map_err(|error| Failure::system(format!("no temporary directory: {}", words(error))))?;
    let mut place = Place { directory, mounted: false };
    let source = match &arguments.image {
        Some(image) => image.clone(),
        None => unpack(place.directory.path())?,
    };
    let outcome = show(&mut place, &source, arguments.image.is_none(), &signals);
    outcome.map_err(|failure| failure.about(&source))
}

fn show(place: &mut Place, source: &Path, sample: bool, signals: &Signals) -> Result<(), Failure> {
    let options = Options::default();
    print(format_args!("lazaret {}: {}", env!("CARGO_PKG_VERSION"), escaped(source)))?;
    let mountpoint = place.directory.path().join("mnt");
    std::fs::create_dir(&mountpoint).map_err(|error| Failure::system(words(error)))?;
    let begin = Instant::now();
    let Some(proof) = mount(source, &mountpoint)? else {
        say("this host does not let us mount, so a confined worker is asked without a mount");
        return show_answered(source, sample, &options, signals);
    };
    place.mounted = true;
    let time = begin.elapsed().as_millis();
    print(format_args!("\nmounted on {} by a confined worker in {time} ms\n", escaped(&mountpoint)))?;
    signals.check()?;
    let mut tree = Tree::Mounted(&mountpoint);
    let file = list(&mut tree, sample)?;
    signals.check()?;
    if let Some(file) = &file {
        let seen = tree.hash(file)?;
        let expected = if sample { SAMPLE_HASH.to_owned() } else { hash_by_worker(source, file, &options, signals)? };
        compare(file, &seen, &expected, if sample { "known" } else { "a second worker, without the mount" })?;
    }
    print(format_args!("\nthe worker's confinement, as the broker saw it from outside:\n{}", proof.trim_end()))?;
    place.end()?;
    let pid = proof.split_whitespace().nth(2).and_then(|pid| pid.parse::<u32>().ok());
    let gone = pid.is_none_or(|pid| wait_until(|| !Path::new("/proc").join(pid.to_string()).exists()));
    if !gone {
        return Err(Failure::system("the worker is still there after its mount has gone"));
    }
    print(format_args!("\nunmounted; the worker has ended; nothing is left behind"))
}

/// The same without a mount: a confined worker answers over the channel.
fn show_answered(source: &Path, sample: bool, options: &Options, signals: &Signals) -> Result<(), Failure> {
    let mut source = Source::open(source)?;
    let mut image = Image::open(&mut source, options, signals)?;
    print(format_args!("\nread by a confined worker, without a mount\n"))?;
    let file = list(&mut Tree::Answered(&mut image), sample)?;
    if let Some(file) = file.filter(|_| sample) {
        let seen = Tree::Answered(&mut image).hash(&file)?;
        compare(&file, &seen, SAMPLE_HASH, "known")?;
    }
    let proof = image.worker().proof().to_string();
    print(format_args!("\nthe worker's confinement, as the broker saw it from outside:\n{}", proof.trim_end()))?;
    drop(image);
    print(format_args!("\nnot mounted; the worker has ended; nothing is left behind"))
}

/// Mounts through a process of its own, as any caller does. The proof, or `None` if the host refuses mounts.
fn mount(source: &Path, mountpoint: &Path) -> Result<Option<String>, Failure> {
    let failed = |error: std::io::Error| Failure::system(format!("lazaret mount: {}", words(error)));
    let output = Command::new("/proc/self/exe")
        .arg0("lazaret")
        .args(["mount", "--proof", "--"])
        .args([source, mountpoint])
        // The demo itself enters the mount, and root is who it is.
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(failed)?;
    match output.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Some(code) if code == Code::System as u8 => Ok(None),
        Some(code) => Err(Failure::said(code)),
        None => Err(Failure::system("lazaret mount was killed")),
    }
}

/// The hash of the file as a second confined worker reads it, on another way than the mount.
fn hash_by_worker(source: &Path, file: &[OsString], options: &Options, signals: &Signals) -> Result<String, Failure> {
    let mut source = Source::open(source)?;
    let mut image = Image::open(&mut source, options, signals)?;
    Tree::Answered(&mut image).hash(file)
}

/// Prints the root directory and the first directories in it. Gives the path of a file to read, if there is one.
fn list(tree: &mut Tree<'_, '_>, sample: bool) -> Result<Option<Vec<OsString>>, Failure> {
    let root = tree.list(&[])?;
    print_directory("/", &root)?;
    let mut file = root.iter().find(|entry| entry.is_file()).map(|entry| vec![entry.name.clone()]);
    for directory in root.iter().filter(|entry| entry.is_directory() && entry.name != "lost+found").take(DIRECTORIES) {
        let entries = tree.list(std::slice::from_ref(&directory.name))?;
        print_directory(&format!("/{}", escaped(&directory.name)), &entries)?;
        let inner = entries.iter().find(|entry| entry.is_file());
        file = file.or_else(|| Some(vec![directory.name.clone(), inner?.name.clone()]));
    }
    Ok(if sample { Some(vec![SAMPLE_FILE.into()]) } else { file })
}

/// `title` is escaped already.
fn print_directory(title: &str, entries: &[Listed]) -> Result<(), Failure> {
    print(format_args!("{title} ({} entries)", entries.len()))?;
    for entry in entries.iter().take(LINES) {
        print(format_args!("  {entry}"))?;
    }
    if entries.len() > LINES {
        print(format_args!("  ... and {} more", entries.len() - LINES))?;
    }
    Ok(())
}

fn compare(file: &[OsString], seen: &str, expected: &str, origin: &str) -> Result<(), Failure> {
    let shown: Vec<String> = file.iter().map(|part| escaped(part).to_string()).collect();
    print(format_args!("\n/{}\n  sha256 {seen}\n  {origin}: {expected}", shown.join("/")))?;
    if seen == expected { Ok(()) } else { Err(Failure::mount("a file was read wrongly: its hash differs")) }
}

/// The sample in a file of its own.
fn unpack(directory: &Path) -> Result<PathBuf, Failure> {
    let path = directory.join("sample.ext4");
    std::fs::write(&path, sample()?).map_err(|error| Failure::system(words(error)).about(&path))?;
    Ok(path)
}

fn sample() -> Result<Vec<u8>, Failure> {
    let packed = SAMPLE.get(GZIP.0..SAMPLE.len().saturating_sub(GZIP.1)).unwrap_or_default();
    decompress_to_vec_with_limit(packed, SAMPLE_MAX).map_err(|_| Failure::system("the sample image is damaged"))
}

fn print(line: impl Display) -> Result<(), Failure> {
    // A reader that is gone must not keep the demo from tidying up.
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::system(format!("stdout: {}", words(error))))
}

/// Whether this comes true within two seconds.
fn wait_until(holds: impl Fn() -> bool) -> bool {
    (0..200).any(|_| {
        holds() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
    })
}

impl Place {
    fn end(&mut self) -> Result<(), Failure> {
        self.mounted = false;
        umount::end(&self.directory.path().join(OsStr::new("mnt")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted
            && let Err(failure) = self.end()
        {
            say(&failure.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_small_and_unpacks_to_an_image() {
        assert!(SAMPLE.len() <= 64 << 10);
        assert_eq!(SAMPLE[..4], [0x1f, 0x8b, 8, 0], "gzip without a name");
        let image = sample().unwrap();
        assert_eq!(image.len(), 8 << 20);
        assert_eq!(image[1080..1082], [0x53, 0xef], "the magic number of ext4");
    }
}
