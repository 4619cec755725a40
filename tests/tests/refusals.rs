//! What cannot be mounted: each case gets one line on stderr that names the thing and the reason, its exit code, and
//! leaves nothing: no mount, no process, no changed byte.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use lazaret_tests::block::{KernelMount, LoopDevice};
use lazaret_tests::command::{finish, run};
use lazaret_tests::lazaret::{self, Mount, PATIENCE};
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, recipe, superblock};

/// One thing that is refused.
struct Case {
    what: &'static str,
    make: fn(&Place) -> Result<Attempt>,
    code: i32,
    /// Words of the line, in small letters.
    says: &'static [&'static str],
}

/// Where a case may make what it needs.
struct Place<'a> {
    workshop: &'a Workshop,
    directory: PathBuf,
}

/// What is tried.
struct Attempt {
    source: PathBuf,
    mountpoint: PathBuf,
    options: &'static str,
    who: Who,
    /// What must live until the attempt is over.
    _kept: Vec<Box<dyn std::any::Any>>,
}

/// Who tries it.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Root,
    Nobody,
    RootWithoutFuse,
}

const CASES: &[Case] = &[
    Case { what: "zeros", make: |place| place.file("image", &[0; 1 << 20]), code: 32, says: &["image", "not an ext"] },
    Case { what: "text", make: |place| place.file("image", &[b'x'; 5000]), code: 32, says: &["image", "not an ext"] },
    Case { what: "an empty file", make: |place| place.file("image", b""), code: 32, says: &["image", "empty"] },
    Case { what: "a few bytes", make: |place| place.file("image", b"MZ"), code: 32, says: &["image", "short"] },
    Case { what: "an image cut in half", make: |place| place.cut(32 << 20), code: 32, says: &["image", "short"] },
    Case { what: "an image cut behind its superblock", make: |place| place.cut(2048), code: 32, says: &["short"] },
    Case { what: "no source", make: |place| place.source("nowhere"), code: 32, says: &["nowhere", "no such file"] },
    Case { what: "a directory as source", make: directory_as_source, code: 32, says: &["source", "directory"] },
    Case { what: "a socket as source", make: socket_as_source, code: 32, says: &["source", "socket"] },
    Case { what: "a FIFO as source", make: fifo_as_source, code: 32, says: &["source", "fifo"] },
    Case {
        what: "a character device as source",
        make: |place| place.source("/dev/null"),
        code: 32,
        says: &["/dev/null"],
    },
    Case { what: "a link to nowhere as source", make: link_as_source, code: 32, says: &["source", "no such file"] },
    Case { what: "a name that would move the cursor", make: odd_name, code: 32, says: &["\\x1b", "not an ext"] },
    Case {
        what: "no mountpoint",
        make: |place| place.mountpoint("nowhere"),
        code: 32,
        says: &["nowhere", "not exist"],
    },
    Case { what: "a file as mountpoint", make: file_as_mountpoint, code: 32, says: &["point", "not a directory"] },
    Case { what: "a mountpoint that lazaret uses", make: busy_mountpoint, code: 32, says: &["point", "busy"] },
    Case { what: "a device that the kernel has mounted", make: busy_device, code: 32, says: &["/dev/loop", "in use"] },
    Case { what: "an image nobody may read", make: unreadable_image, code: 2, says: &["image", "permission denied"] },
    Case {
        what: "a device nobody may read",
        make: unreadable_device,
        code: 2,
        says: &["/dev/loop", "permission denied"],
    },
    Case { what: "no /dev/fuse", make: without_fuse, code: 2, says: &["/dev/fuse"] },
    Case { what: "an unknown option", make: |place| place.options("ro,frobnicate"), code: 1, says: &["frobnicate"] },
    Case { what: "an option without its value", make: |place| place.options("uid="), code: 1, says: &["uid"] },
    Case { what: "an option out of its range", make: |place| place.options("threads=99"), code: 1, says: &["threads"] },
    Case { what: "an option that weakens", make: |place| place.options("suid"), code: 1, says: &["suid"] },
    Case { what: "the unknown feature 31", make: |place| place.feature(1 << 31), code: 32, says: &["feature_i31"] },
    Case { what: "the feature compression", make: |place| place.feature(0x1), code: 32, says: &["compression"] },
    Case { what: "the feature dirdata", make: |place| place.feature(0x1000), code: 32, says: &["dirdata"] },
    Case { what: "a feature without a checksum around it", make: unknown_unsummed, code: 32, says: &["feature_i30"] },
    Case { what: "a journal device", make: journal_device, code: 32, says: &["journal"] },
    Case {
        what: "a superblock with a wrong checksum",
        make: wrong_checksum,
        code: 32,
        says: &["superblock", "checksum"],
    },
    Case {
        what: "blocks of an impossible size",
        make: |place| place.number(0x18, 40),
        code: 32,
        says: &["block size"],
    },
    Case { what: "groups of no blocks", make: |place| place.number(0x20, 0), code: 32, says: &["superblock"] },
    Case { what: "groups of no inodes", make: |place| place.number(0x28, 0), code: 32, says: &["superblock"] },
    Case {
        what: "more blocks than the device has",
        make: |place| place.number(0x4, 16_385),
        code: 32,
        says: &["short"],
    },
];

fn main() {
    requirement::main_in_turn(|workshop| {
        let mut trials: Vec<_> = CASES
            .iter()
            .map(|case| trial(case.what, MOUNTS, workshop, |workshop| is_refused(case, workshop)))
            .collect();
        trials.push(trial("a command line that makes no sense", MOUNTS, workshop, |_| usage()));
        trials
    })
}

fn is_refused(case: &Case, workshop: &Workshop) -> Result {
    let directory = workshop.directory(&case.what.replace([' ', '/'], "-"))?;
    fs::create_dir(directory.join("point"))?;
    let attempt = (case.make)(&Place { workshop, directory: directory.clone() })?;
    let sum = || attempt.source.is_file().then(|| digest::of_file(&attempt.source)).transpose();
    let (before, busy) = (sum()?, leftover::is_mounted(&attempt.mountpoint));
    let finished = finish(&mut attempt.command(), PATIENCE)?;
    if !busy && leftover::is_mounted(&attempt.mountpoint) {
        let _ = rustix::mount::unmount(&attempt.mountpoint, rustix::mount::UnmountFlags::DETACH);
        return Err("it is mounted".into());
    }
    let line = finished.stderr.to_lowercase();
    let one_line = line.starts_with("lazaret: ") && line.ends_with('\n') && line.lines().count() == 1;
    if finished.code() != Some(case.code) || !one_line || !finished.stdout.is_empty() {
        return Err(
            format!("exit code {} and one line `lazaret: …` are wanted, this came: {finished:?}", case.code).into()
        );
    }
    if let Some(word) = case.says.iter().find(|word| !line.contains(**word)) {
        return Err(format!("the line does not say {word:?}: {line}").into());
    }
    if line.trim_end().bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!("the line moves the cursor: {line:?}").into());
    }
    if sum()? != before {
        return Err("the source was written to".into());
    }
    drop(attempt);
    leftover::nothing_of(&directory)
}

impl Attempt {
    fn command(&self) -> Command {
        let mut command = match self.who {
            Who::RootWithoutFuse => {
                let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
                let mut unshare = Command::new("unshare");
                unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(lazaret::broker());
                unshare
            }
            _ => Command::new(lazaret::broker()),
        };
        if self.who == Who::Nobody {
            command.uid(65_534).gid(65_534);
        }
        command.arg("mount");
        if !self.options.is_empty() {
            command.args(["-o", self.options]);
        }
        command.arg(&self.source).arg(&self.mountpoint);
        command
    }

    fn by(self, who: Who) -> Self {
        Self { who, ..self }
    }

    fn keeping(mut self, guard: impl std::any::Any) -> Self {
        self._kept.push(Box::new(guard));
        self
    }
}

impl Place<'_> {
    /// An attempt with this source, which is looked for in the case's directory.
    fn source(&self, source: impl AsRef<Path>) -> Result<Attempt> {
        let (source, mountpoint) = (self.directory.join(source), self.directory.join("point"));
        Ok(Attempt { source, mountpoint, options: "", who: Who::Root, _kept: Vec::new() })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<Attempt> {
        fs::write(self.directory.join(name), bytes)?;
        self.source(name)
    }

    /// A sound image of its own.
    fn image(&self) -> Result<Attempt> {
        self.workshop.copy(recipe::default(), &self.directory)?;
        self.source("image.img")
    }

    fn cut(&self, length: u64) -> Result<Attempt> {
        let attempt = self.image()?;
        File::options().write(true).open(&attempt.source)?.set_len(length)?;
        Ok(attempt)
    }

    fn options(&self, options: &'static str) -> Result<Attempt> {
        Ok(Attempt { options, ..self.image()? })
    }

    fn mountpoint(&self, name: &str) -> Result<Attempt> {
        Ok(Attempt { mountpoint: self.directory.join(name), ..self.image()? })
    }

    /// A sound image with one more bit in `s_feature_incompat`.
    fn feature(&self, bit: u32) -> Result<Attempt> {
        let attempt = self.image()?;
        superblock::change(&attempt.source, |bytes| superblock::set_bits(bytes, 0x60, bit))?;
        Ok(attempt)
    }

    /// A sound image with another number at an offset of its superblock.
    fn number(&self, offset: usize, value: u32) -> Result<Attempt> {
        let attempt = self.image()?;
        superblock::change(&attempt.source, |bytes| superblock::set(bytes, offset, value))?;
        Ok(attempt)
    }
}

fn directory_as_source(place: &Place) -> Result<Attempt> {
    fs::create_dir(place.directory.join("source"))?;
    place.source("source")
}

fn socket_as_source(place: &Place) -> Result<Attempt> {
    let socket = UnixListener::bind(place.directory.join("source"))?;
    Ok(place.source("source")?.keeping(socket))
}

fn fifo_as_source(place: &Place) -> Result<Attempt> {
    mknodat(CWD, place.directory.join("source"), FileType::Fifo, Mode::from(0o644), 0)?;
    place.source("source")
}

fn link_as_source(place: &Place) -> Result<Attempt> {
    symlink("nowhere", place.directory.join("source"))?;
    place.source("source")
}

fn odd_name(place: &Place) -> Result<Attempt> {
    place.file("a\x1b[2J\nb\u{202e}", &[7; 5000])
}

fn file_as_mountpoint(place: &Place) -> Result<Attempt> {
    fs::write(place.directory.join("file-point"), b"")?;
    place.mountpoint("file-point")
}

fn busy_mountpoint(place: &Place) -> Result<Attempt> {
    let attempt = place.image()?;
    let mounted = Mount::new(&attempt.source, &attempt.mountpoint)?;
    Ok(attempt.keeping(mounted))
}

fn busy_device(place: &Place) -> Result<Attempt> {
    let image = place.image()?.source;
    let mounted = KernelMount::read_only(&image, &place.directory.join("kernel"))?;
    let device = mounted.device().to_owned();
    Ok(place.source(device)?.keeping(mounted))
}

fn unreadable_image(place: &Place) -> Result<Attempt> {
    let attempt = place.image()?;
    fs::set_permissions(&attempt.source, PermissionsExt::from_mode(0o600))?;
    chown(&attempt.mountpoint, Some(65_534), Some(65_534))?;
    Ok(attempt.by(Who::Nobody))
}

fn unreadable_device(place: &Place) -> Result<Attempt> {
    let device = LoopDevice::attach(&place.image()?.source, true)?;
    let attempt = place.source(device.path())?;
    chown(&attempt.mountpoint, Some(65_534), Some(65_534))?;
    Ok(attempt.by(Who::Nobody).keeping(device))
}

fn without_fuse(place: &Place) -> Result<Attempt> {
    Ok(place.image()?.by(Who::RootWithoutFuse))
}

fn unknown_unsummed(place: &Place) -> Result<Attempt> {
    let image = place.workshop.copy(recipe::named("no-metadata-csum"), &place.directory)?;
    superblock::change(&image, |bytes| superblock::set_bits(bytes, 0x60, 1 << 30))?;
    place.source(image)
}

fn journal_device(place: &Place) -> Result<Attempt> {
    let attempt = place.file("image", b"")?;
    File::options().write(true).open(&attempt.source)?.set_len(16 << 20)?;
    run(Command::new("mke2fs").args(["-q", "-F", "-O", "journal_dev", "-b", "4096"]).arg(&attempt.source))?;
    Ok(attempt)
}

fn wrong_checksum(place: &Place) -> Result<Attempt> {
    let attempt = place.image()?;
    let file = File::options().write(true).open(&attempt.source)?;
    // The volume name: nothing but the checksum is wrong then.
    file.write_all_at(b"other", superblock::OFFSET + 0x78)?;
    Ok(attempt)
}

/// Wrong command lines end with code 1 and some words; what clap says may be longer than a line.
fn usage() -> Result {
    for arguments in
        [&["mount"][..], &["mount", "one"], &["frobnicate"], &["mount", "--frobnicate", "a", "b"], &["umount"]]
    {
        let finished = lazaret::run(arguments)?;
        if finished.code() != Some(1) || finished.stderr.is_empty() || !finished.stdout.is_empty() {
            return Err(
                format!("{arguments:?}: exit code 1 and words on stderr are wanted, this came: {finished:?}").into()
            );
        }
    }
    let odd = std::ffi::OsStr::from_bytes(b"-o\xff\x1b[2J");
    let finished = lazaret::run([odd])?;
    if finished.code() != Some(1) || finished.stderr.contains('\x1b') {
        return Err(format!("an option that is not text: {finished:?}").into());
    }
    Ok(())
}
