//! What a mount says of the damage that is met on it: on stderr in the foreground, to the system log in the background;
//! where it begins, where there is twice as much, and in all at the end.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;

use lazaret_tests::command::{eventually, run, wait};
use lazaret_tests::damage::Victim;
use lazaret_tests::lazaret::Mount;
use lazaret_tests::process::signal;
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, lazaret, leftover, recipe};

const WRONG: &str = "sizes/4096";
const BROKEN: &str = "sizes/65536";

fn main() {
    requirement::main_in_turn(|workshop| {
        vec![
            trial("damage is told where it begins and where it doubles", MOUNTS, workshop, |workshop| {
                foreground(workshop, "strict", unmounted)
            }),
            trial("a mount that a signal ends tells it, too", MOUNTS, workshop, |workshop| {
                foreground(workshop, "strict", ended_by_signal)
            }),
            trial("what is let pass is counted", MOUNTS, workshop, |workshop| foreground(workshop, "warn", unmounted)),
            trial("in the background the system log is told", MOUNTS, workshop, background),
            trial("a sound image is not worth a word", MOUNTS, workshop, sound),
        ]
    })
}

/// An image with a file whose checksum is wrong, and one whose map is broken; and the inode of the first.
fn damaged(workshop: &Workshop, place: &Path) -> Result<(PathBuf, u32)> {
    let image = workshop.copy(recipe::default(), place)?;
    let victim = Victim::open(&image)?;
    victim.debugfs(&format!("sif /{BROKEN} block[1] 0x60004"))?;
    let inode = victim.inode(&format!("/{WRONG}"))?;
    victim.debugfs(&format!("sif /{WRONG} checksum 0x1"))?;
    Ok((image, inode))
}

/// A `lazaret mount -f` whose stderr is kept.
struct Foreground {
    child: Child,
    stderr: PathBuf,
}

impl Foreground {
    fn mount(image: &Path, place: &Path, options: &str) -> Result<(Self, Mount)> {
        let (point, stderr) = (place.join("point"), place.join("stderr"));
        fs::create_dir_all(&point)?;
        let mut command = lazaret::command(["mount", "-f", "-o", options]);
        command.arg(image).arg(&point).stdin(Stdio::null()).stderr(fs::File::create(&stderr)?);
        let mut own = Self { child: command.spawn()?, stderr };
        eventually(lazaret::PATIENCE, || {
            leftover::is_mounted(&point) || own.child.try_wait().is_ok_and(|end| end.is_some())
        });
        let mount = Mount::adopt(&point)?;
        Ok((own, mount))
    }

    fn lines(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(&self.stderr)?.lines().map(str::to_owned).collect())
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unmounted(mount: Mount, child: &mut Child) -> Result {
    mount.unmount(Duration::from_secs(1))?;
    wait(child, Duration::from_secs(2)).map(drop)
}

fn ended_by_signal(mount: Mount, child: &mut Child) -> Result {
    signal(child.id(), Signal::TERM);
    wait(child, Duration::from_secs(2))?;
    mount.gone_within(Duration::from_secs(1)).map(drop)
}

fn foreground(workshop: &Workshop, checksum: &str, end: fn(Mount, &mut Child) -> Result) -> Result {
    let place = workshop.directory(&format!("told.{checksum}"))?;
    let (image, inode) = damaged(workshop, &place)?;
    let (mut shown, mount) = Foreground::mount(&image, &place, &format!("checksum={checksum}"))?;
    let root = mount.path().to_owned();
    let errno = |path: &str| Errno::from_io_error(&fs::read(root.join(path)).err()?);
    let wrong = if checksum == "strict" { Some(Errno::BADMSG) } else { None };
    for _ in 0..9 {
        assert_eq!((errno(WRONG), errno(BROKEN)), (wrong, Some(Errno::UCLEAN)));
        assert_eq!(errno("sizes/4097"), None, "a neighbour");
    }
    // While it is served, and not only at its end.
    let met = "wrong checksum";
    let (told, _) = eventually(Duration::from_secs(2), || {
        shown.lines().is_ok_and(|lines| lines.iter().any(|line| line.contains(met)))
    });
    assert!(told, "nothing is told: {:?}", shown.lines());
    end(mount, &mut shown.child)?;

    let lines = shown.lines()?;
    let word = if checksum == "strict" { "wrong checksum" } else { "wrong checksum, let pass" };
    let first = format!("inode {inode}: {word}: an inode matches its checksum");
    let of = |what: &str| lines.iter().filter(|line| line.contains(what)).cloned().collect::<Vec<_>>();
    let own = of(&first);
    assert!(own[0].starts_with(&format!("lazaret: {}: is damaged: ", image.display())), "{lines:?}");
    assert!(own[0].ends_with("its checksum") && own[1].ends_with("(2 times by now)"), "{lines:?}");
    // What is let pass the kernel keeps, and asks for less often than it is read.
    let least = if checksum == "strict" { 9 } else { 2 };
    assert_eq!(own.iter().any(|line| line.ends_with("(8 times by now)")), least > 8 || own.len() > 3, "{lines:?}");
    assert!((if checksum == "strict" { 4 } else { 2 }..8).contains(&own.len()), "told at powers of two: {lines:?}");
    assert_eq!(of("broken rule: a node of an extent tree is one level").len() as u32, 4, "{lines:?}");
    let last = lines.last().ok_or("nothing is told")?;
    let total = if checksum == "strict" { "a wrong checksum" } else { "a wrong checksum that was let pass" };
    // The kernel may ask twice for what it reads ahead.
    for (what, least) in [("a broken rule", 9), (total, least)] {
        let count = last.split(&format!("{what} ")).nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        assert!(count.is_some_and(|count| (least..40).contains(&count)), "{what}: {last}");
    }
    assert!(last.contains(": damage was met while it was mounted: "), "{last}");
    assert!(!last.contains("at least"), "{last}");
    leftover::nothing_of(&place)
}

/// With a /dev of its own, where the log is one that this test listens to. What it prints is the mount's.
const BACKGROUND: &str = "mount -t tmpfs none \"$1\" && mkdir \"$1/point\" &&
    for node in fuse null zero; do cp -a /dev/$node \"$1/$node\" || exit 9; done &&
    ln -s \"$2\" \"$1/log\" && mount --rbind \"$1\" /dev && cd / &&
    \"$3\" mount \"$4\" /dev/point && { for turn in 1 2 3; do cat /dev/point/sizes/4096 2>/dev/null; done;
    cat /dev/point/sizes/4097 >/dev/null && umount /dev/point; }";

fn background(workshop: &Workshop) -> Result {
    let place = workshop.directory("told.background")?;
    let (image, _) = damaged(workshop, &place)?;
    let (own, listener) = (place.join("dev"), place.join("log"));
    fs::create_dir(&own)?;
    let log = UnixDatagram::bind(&listener)?;
    log.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut script = Command::new("unshare");
    script.args(["--mount", "sh", "-c", BACKGROUND, "sh"]).args([&own, &listener, &lazaret::broker(), &image]);
    let said = run(&mut script)?;
    assert!(said.is_empty(), "{said}");
    let mut lines = Vec::new();
    let mut bytes = [0; 4096];
    while !lines.last().is_some_and(|line: &String| line.contains("while it was mounted")) {
        let length = log.recv(&mut bytes).map_err(|error| format!("after {lines:?}: {error}"))?;
        lines.push(String::from_utf8(bytes[..length].to_vec())?);
    }
    let own = format!("]: {}: ", image.display());
    assert!(lines.iter().all(|line| line.starts_with("<28>lazaret[") && line.contains(&own)), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].ends_with("wrong checksum: an inode matches its checksum"), "{lines:?}");
    assert!(lines[1].ends_with("(2 times by now)") && lines[2].ends_with("a wrong checksum 3 times"), "{lines:?}");
    let gone = || lazaret::processes_of(&image).is_empty();
    assert!(eventually(Duration::from_secs(2), gone).0, "a process is left");
    leftover::nothing_of(&place)
}

fn sound(workshop: &Workshop) -> Result {
    let place = workshop.directory("told.sound")?;
    let image = workshop.image(recipe::default())?;
    let (mut shown, mount) = Foreground::mount(&image, &place, "checksum=warn")?;
    fs::read(mount.path().join(WRONG))?;
    assert!(fs::metadata(mount.path().join("no-such-file")).is_err());
    unmounted(mount, &mut shown.child)?;
    assert_eq!(shown.lines()?, [""; 0]);
    leftover::nothing_of(&place)
}
