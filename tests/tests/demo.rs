//! `lazaret demo` as root, as another user and without /dev/fuse: it shows what it promises and leaves nothing.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lazaret_tests::command::{Finished, finish};
use lazaret_tests::requirement::{self, BY_USER, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, lazaret, leftover, recipe, unprivileged};

/// What the proof of confinement must speak of, in small letters.
const PROOF: &[&str] = &["pid", "uid", "nonewprivs", "seccomp", "cap", "landlock", "namespace"];

fn main() {
    requirement::main_in_turn(|workshop| {
        vec![
            trial("demo as root", MOUNTS, workshop, as_root),
            trial("demo of a given image", MOUNTS, workshop, of_an_image),
            trial("demo as another user", BY_USER, workshop, as_another_user),
            trial("demo as another user without /etc/mtab", BY_USER, workshop, without_mount_table),
            trial("demo without /dev/fuse", MOUNTS, workshop, without_fuse),
            trial("mount as another user", BY_USER, workshop, mount_as_another_user),
        ]
    })
}

fn place(workshop: &Workshop, name: &str) -> Result<PathBuf> {
    let place = workshop.directory(name)?;
    chown(&place, Some(65_534), Some(65_534))?;
    Ok(place)
}

fn shown(finished: &Finished, words: &[&str]) -> Result {
    let said = finished.stdout.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !said.replace([' ', '_'], "").contains(**word)).collect();
    if finished.code() == Some(0) && missing.is_empty() {
        return Ok(());
    }
    Err(format!("missing: {missing:?}, {:?}\n{}{}", finished.status, finished.stdout, finished.stderr).into())
}

fn empty(place: &Path) -> Result {
    let left: Vec<_> = fs::read_dir(place)?.flatten().map(|entry| entry.file_name()).collect();
    if left.is_empty() {
        leftover::nothing_of(place)
    } else {
        Err(format!("left in {}: {left:?}", place.display()).into())
    }
}

fn demo(command: &mut Command, place: &Path) -> Result<Finished> {
    finish(command.env("TMPDIR", place), Duration::from_secs(60))
}

fn as_root(workshop: &Workshop) -> Result {
    let place = place(workshop, "as-root")?;
    let finished = demo(&mut lazaret::command(["demo"]), &place)?;
    shown(&finished, PROOF)?;
    empty(&place)
}

fn of_an_image(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "of-an-image")?, workshop.image(recipe::default())?);
    let before = digest::of_file(&image)?;
    let finished = demo(&mut lazaret::command(["demo".as_ref(), image.as_os_str()]), &place)?;
    shown(&finished, PROOF)?;
    shown(&finished, &["hard-links"])?;
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    empty(&place)
}

fn as_another_user(workshop: &Workshop) -> Result {
    let (place, temporary) = (place(workshop, "as-another-user")?, place(workshop, "as-another-user-tmp")?);
    fs::create_dir(place.join("dev"))?;
    let program = lazaret::broker();
    let finished = demo(&mut unprivileged::command(&place, &[&program.to_string_lossy(), "demo"], &[]), &temporary)?;
    shown(&finished, PROOF)?;
    empty(&temporary)
}

/// A root without /etc/mtab, as debootstrap makes them: there fusermount3 mounts, and then does not unmount.
fn without_mount_table(workshop: &Workshop) -> Result {
    let (place, temporary) = (place(workshop, "without-mtab")?, place(workshop, "without-mtab-tmp")?);
    fs::create_dir(place.join("dev"))?;
    let (program, bare) = (lazaret::broker(), "mount -t tmpfs none /etc");
    let demo_words = [&*program.to_string_lossy(), "demo"];
    let finished = demo(&mut unprivileged::command_after(bare, &place, &demo_words, &[]), &temporary)?;
    shown(&finished, PROOF)?;
    assert!(finished.stderr.contains("/etc/mtab: is missing"), "{finished:?}");
    empty(&temporary)
}

fn without_fuse(workshop: &Workshop) -> Result {
    let place = place(workshop, "without-fuse")?;
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(lazaret::broker()).arg("demo");
    let finished = demo(&mut unshare, &place)?;
    shown(&finished, PROOF)?;
    assert!((finished.stdout + &finished.stderr).contains("/dev/fuse"), "it is not said that /dev/fuse is missing");
    empty(&place)
}

/// The whole way without root: fusermount3 mounts, the files are read, `lazaret umount` ends it.
fn mount_as_another_user(workshop: &Workshop) -> Result {
    let place = place(workshop, "mount-as-another-user")?;
    let point = place.join("point");
    fs::create_dir(place.join("dev"))?;
    fs::create_dir(&point)?;
    chown(&point, Some(65_534), Some(65_534))?;
    let image = workshop.image(recipe::default())?;
    let script = "set -e
        \"$1\" mount \"$2\" \"$3\"
        sha256sum < \"$3\"/sizes/65536
        if (cd \"$3\" && \"$1\" umount \"$3\"); then exit 8; fi
        \"$1\" umount \"$3\"
        if grep -F \" $3 \" /proc/self/mountinfo; then exit 9; fi";
    let program = lazaret::broker();
    let more = [&program, &image, &point].map(PathBuf::as_path);
    let finished =
        finish(&mut unprivileged::command(&place, &["sh", "-c", script, "sh"], &more), Duration::from_secs(60))?;
    let expected = point.with_file_name("expected");
    fs::write(&expected, lazaret_tests::fill::noise(65536, 65536))?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stdout.starts_with(&digest::of_file(&expected)?), "{finished:?}");
    let busy = format!("lazaret: {}: is busy: a process has a file or its working directory there\n", point.display());
    assert_eq!(finished.stderr, busy);
    leftover::nothing_of(&place)
}
