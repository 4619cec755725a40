//! What is plugged in becomes another without being pulled out, with a real systemd-udevd and real uevents: it is formatted,
//! repaired or relabelled, its medium is exchanged, the table of its disk is read again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use lazaret_policy::notice::{Choice, Event};
use lazaret_tests::automount::{
    self, Daemon, GONE, MOUNT, Partitions, SOON, Stick, Test, agent, filled, hears, mounted_within, mounts,
    nothing_within, place_of, policy,
};
use lazaret_tests::block::LoopDevice;
use lazaret_tests::command::{self, eventually, run};
use lazaret_tests::disk::Disk;
use lazaret_tests::exchange::exchange;
use lazaret_tests::prove::Figures;
use lazaret_tests::{Result, lazaret, superblock};

const TESTS: &[(&str, Test)] = &[
    ("what was left alone gets another label, and is mounted", relabelled),
    ("what was refused is repaired, and is mounted", repaired),
    ("a question is put anew for what was formatted meanwhile", asked_anew),
    ("the medium is exchanged under a mount", exchanged),
    ("the medium is exchanged, and there is no daemon", exchanged_alone),
    ("the table of a disk is read again", read_again),
];

/// Time in which nothing is to happen.
const QUIET: Duration = Duration::from_millis(300);

fn main() {
    automount::main(TESTS)
}

/// Only what has such a label.
const WANTED: &str = "[defaults]\nfor = 'root'\nwhere = '/run/media/%u'\n\
    [[rule]]\nmatch = { bus = 'loop', label = 'WANTED*' }\naction = 'mount'\n";

/// What udev knows of a device.
fn known(device: &Path) -> String {
    let finished = run(Command::new("udevadm").args(["info", "--query=property", "--name"]).arg(device));
    finished.unwrap_or_default()
}

/// Gives it another label, and waits until udev knows: whoever closes a device that he has written to makes it look.
fn label(device: &Path, label: &str) -> Result {
    run(Command::new("e2label").arg(device).arg(label))?;
    let line = format!("ID_FS_LABEL={label}\n");
    let (looked, _) = eventually(GONE, || known(device).contains(&line));
    if looked { Ok(()) } else { Err(format!("udev does not know the label {label}: {}", known(device)).into()) }
}

fn unmount(point: &Path) -> Result {
    run(Command::new("umount").arg(point)).map(drop)
}

fn relabelled(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, WANTED)?;
    let mut stick = Stick::new(place, "a", &["-L", "OTHER"])?;
    let device = stick.plug()?.to_owned();
    daemon.says("(OTHER): no rule is for it", GONE)?;
    label(&device, "WANTED")?;
    let (point, _) = mounted_within(&device, SOON)?;
    assert_eq!(point, Path::new("/run/media/root/WANTED"));
    // What somebody has unmounted stays so under another label, and not as another file system.
    unmount(&point)?;
    nothing_within(GONE)?;
    label(&device, "WANTED-2")?;
    thread::sleep(QUIET);
    assert_eq!(place_of(&device), None, "mounted again though it was unmounted by hand: {:?}", daemon.said());
    run(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-L", "WANTED-3"]).arg(&device))?;
    assert_eq!(mounted_within(&device, SOON)?.0, Path::new("/run/media/root/WANTED-3"));
    stick.pull()?;
    nothing_within(GONE)?;
    Ok(vec![("decided anew", 2)])
}

/// Features that change the format, as they lie in the superblock, and one that the worker refuses by name.
const INCOMPAT: usize = 0x60;
const DIRDATA: u32 = 0x1000;

fn repaired(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, WANTED)?;
    let mut stick = filled(place, "a", "WANTED", &[])?;
    let mut sound = [0; 4];
    File::open(stick.image())?.read_exact_at(&mut sound, 1024 + INCOMPAT as u64)?;
    superblock::change(stick.image(), |bytes| superblock::set_bits(bytes, INCOMPAT, DIRDATA))?;
    let device = stick.plug()?.to_owned();
    daemon.says("(WANTED): refused: ", GONE)?;
    superblock::change(&device, |bytes| superblock::set(bytes, INCOMPAT, u32::from_le_bytes(sound)))?;
    let (point, _) = mounted_within(&device, SOON)?;
    assert_eq!(fs::read_to_string(point.join("name"))?, "a");
    stick.pull()?;
    nothing_within(GONE)?;
    Ok(vec![("decided anew", 1)])
}

fn asked_anew(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy("action = 'ask'\nfor = '12345:12345'\n"))?;
    let mut stick = Stick::new(place, "a", &["-L", "BEFORE"])?;
    let user = agent(12345)?;
    let device = stick.plug()?.to_owned();
    let before = hears(&user, Event::Ask)?;
    label(&device, "AFTER")?;
    assert_eq!(hears(&user, Event::Withdrawn)?.stick, before.stick);
    let after = hears(&user, Event::Ask)?;
    assert!(after.title == "AFTER" && after.stick != before.stick, "{after:?}");
    // The answer to what is not there any more mounts nothing.
    user.send(&Choice { stick: before.stick, mount: true }, &[])?;
    thread::sleep(QUIET);
    assert_eq!(place_of(&device), None);
    user.send(&Choice { stick: after.stick, mount: true }, &[])?;
    assert_eq!(mounted_within(&device, SOON)?.0, Path::new("/run/media/12345/AFTER"));
    stick.pull()?;
    nothing_within(GONE)?;
    drop(daemon);
    Ok(vec![("questions", 2)])
}

/// Two images of one length.
fn two(place: &Path) -> Result<(PathBuf, PathBuf)> {
    let (one, other) = (filled(place, "one", "ONE", &[])?, filled(place, "other", "OTHER", &[])?);
    assert_eq!(one.length(), other.length());
    Ok((one.image().to_owned(), other.image().to_owned()))
}

fn exchanged(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let (one, other) = two(place)?;
    let device = LoopDevice::attach(&one, true)?;
    let (point, _) = mounted_within(device.path(), SOON)?;
    daemon.says("(ONE): mounted: ", GONE)?;
    let file = File::open(point.join("name"))?;
    exchange(&device, &other)?;
    let wanted = Path::new("/run/media/root/OTHER");
    let (came, _) = eventually(GONE, || place_of(device.path()).is_some_and(|place| place == wanted));
    assert!(came, "{:?}, {:?}", mounts(), daemon.said());
    assert_eq!(fs::read_to_string(wanted.join("name"))?, "other");
    assert!(!point.exists() && mounts().len() == 1, "the mount before is left: {:?}", mounts());
    let mut bytes = [0; 3];
    assert!(file.read_at(&mut bytes, 0).is_err(), "what was open is read on");
    daemon.says("pulled out while it was mounted; the mount is ended: /run/media/root/ONE", GONE)?;
    unmount(wanted)?;
    nothing_within(GONE)?;
    Ok(vec![("media exchanged", 1)])
}

fn exchanged_alone(place: &Path) -> Result<Figures> {
    let (one, other) = two(place)?;
    let device = LoopDevice::attach(&one, true)?;
    let point = place.join("point");
    fs::create_dir(&point)?;
    let mut mount = Command::new("setpriv");
    mount.args(["--pdeathsig", "KILL", "--"]).arg(lazaret::broker()).args(["mount", "-f"]);
    let mut child = mount.arg(device.path()).arg(&point).stderr(Stdio::piped()).spawn()?;
    let result = mounted_within(device.path(), 5 * SOON).and_then(|_| exchange(&device, &other));
    let status = command::wait(&mut child, GONE)?;
    result?;
    let said = std::io::read_to_string(child.stderr.take().ok_or("no stderr")?)?;
    assert_eq!(status.code(), Some(32), "{said}");
    assert!(said.contains(": the medium was pulled out, and the mount was ended"), "{said}");
    nothing_within(GONE)?;
    Ok(vec![("media exchanged", 1)])
}

/// Where the kernel does not keep /dev, as here, somebody else makes the nodes of partitions: before udev looks at them.
const NODES: &str = r#"SUBSYSTEM!="block", GOTO="end"
ENV{DEVTYPE}!="partition", GOTO="end"
ACTION!="remove", PROGRAM="/bin/sh -c 'test -b /dev/%k || exec /bin/mknod /dev/%k b %M %m'"
ACTION=="remove", PROGRAM="/bin/rm -f /dev/%k"
LABEL="end"
"#;

/// A rule of the test, for as long as it lives.
struct Rule(PathBuf);

impl Rule {
    fn new(text: &str) -> Result<Self> {
        fs::create_dir_all("/run/udev/rules.d")?;
        let rule = Self("/run/udev/rules.d/10-nodes.rules".into());
        fs::write(&rule.0, text)?;
        run(Command::new("udevadm").args(["control", "--reload"]))?;
        Ok(rule)
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = Command::new("udevadm").args(["control", "--reload"]).output();
    }
}

fn table(count: usize) -> String {
    format!("label: gpt\nfirst-lba: 2048\n{}", "size=16MiB\n".repeat(count))
}

fn settle() -> Result {
    run(Command::new("udevadm").args(["settle", "--timeout=10"])).map(drop)
}

fn read_again(place: &Path) -> Result<Figures> {
    let _rule = Rule::new(NODES)?;
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let mut disk = Disk::new(place, &table(2))?;
    for number in 0..4 {
        let part = Stick::new(place, &format!("part-{number}"), &["-L", &format!("PART-{number}")])?;
        disk = disk.put(part.image(), (1 << 20) + (number << 24))?;
    }
    let mut stick = Stick::of(&disk.path)?;
    let device = stick.plug()?.to_owned();
    let part = |number: u32| PathBuf::from(format!("{}p{number}", device.display()));
    // The kernel itself may know no tables at all; partx reads them and tells it.
    let partx = |what: &[&str]| command::finish(Command::new("partx").args(what).arg(&device), command::PATIENCE);
    let mounted = |number| mounted_within(&part(number), GONE).map_err(|error| format!("{error}: {:?}", daemon.said()));
    let partitions = Partitions::add(&device)?;

    // Under a mount no partition goes.
    let (first, second) = (mounted(1)?.0, mounted(2)?.0);
    assert!(partx(&["--delete"])?.code() != Some(0), "a partition goes under its mount");
    assert_eq!(mounts().len(), 2, "{:?}", daemon.said());

    // Who has unmounted them does not get them back when they come again.
    unmount(&first)?;
    unmount(&second)?;
    nothing_within(GONE)?;
    for _ in 0..3 {
        for what in ["--delete", "--add"] {
            assert_eq!(partx(&[what])?.code(), Some(0));
            settle()?;
            thread::sleep(QUIET);
        }
        assert!(known(&part(2)).contains("ID_FS_LABEL=PART-1"), "udev has not looked");
        assert_eq!(mounts(), [], "mounted again though they were unmounted by hand: {:?}", daemon.said());
    }

    // A partition that was not there before is mounted, whoever has written the table.
    let write = |count: usize, to: &Path| run(Command::new("sh").args(["-c", WRITE, "sh", &table(count)]).arg(to));
    for (count, to) in [(3, &disk.path), (4, &device)] {
        write(count, to)?;
        // What the cache has of the table is older than the file.
        run(Command::new("blockdev").arg("--flushbufs").arg(&device))?;
        assert_eq!(partx(&["--add", "--nr", &count.to_string()])?.code(), Some(0));
        assert_eq!(mounted(u32::try_from(count)?)?.0, PathBuf::from(format!("/run/media/root/PART-{}", count - 1)));
    }
    assert_eq!(mounts().len(), 2, "{:?}", daemon.said());
    stick.pull()?;
    nothing_within(GONE)?;
    partitions.end()?;
    settle()?;
    Ok(vec![("partitions", 4)])
}

/// Into the file below the device, as another machine would have done it, or into the device, and tells nobody.
const WRITE: &str = "printf %s \"$1\" | sfdisk --quiet --no-reread --no-tell-kernel \"$2\"";
