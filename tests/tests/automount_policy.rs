//! What `lazaret automount` does with a stick is what its policy says, with a real systemd-udevd and real uevents: for whom,
//! where and under which name; what it does itself is what its unit lets it do.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use lazaret_policy::channel::ChannelError;
use lazaret_policy::notice::{Choice, Event, Notice};
use lazaret_tests::automount::{
    self, Daemon, GONE, MOUNT, Partitions, SOON, Stick, Test, agent, filled, hears, mounted_within, mounts,
    nothing_within, place_of, policy,
};
use lazaret_tests::command::{self, eventually};
use lazaret_tests::disk::Disk;
use lazaret_tests::prove::Figures;
use lazaret_tests::{Result, lazaret, superblock};
use rustix::process::Signal;

const TESTS: &[(&str, Test)] = &[
    ("each rule does what it says", rules),
    ("who sits here gets the stick, and it waits for him", seat),
    ("labels that would lead elsewhere", labels),
    ("a policy is read again, and a bad one is not taken", reload),
    ("a user is asked and answers, and nobody else does", asked),
    ("a stick of many partitions has its share and no more", partitions),
    ("what its units let it do is enough", units),
];

fn main() {
    automount::main(TESTS)
}

fn rules(place: &Path) -> Result<Figures> {
    let text = "[[rule]]\nmatch = { bus = 'loop', label = 'PRIVATE*' }\naction = 'ignore'\n\
        [[rule]]\nmatch = { bus = 'loop', label = 'KIOSK', fs = ['ext3', 'ext4'], size = '8M..32M' }\naction = 'mount'\n\
        for = 'daemon'\nwhere = '/run/sticks'\nname = 'photos'\noptions = 'exec,nosymfollow,umask=077'\n\
        [[rule]]\nmatch = { bus = 'loop', uuid = '5ca1ab1e-*77' }\naction = 'mount'\nfor = '12345:23456'\n\
        [[rule]]\nmatch = { bus = 'loop', size = '64M..' }\naction = 'mount'\nfor = 'root'\nwhere = '/run/sticks/%u'\n\
        [[rule]]\nmatch = { bus = 'usb' }\naction = 'mount'\nfor = 'root'\n";
    let daemon = Daemon::start(place, text)?;
    let mut private = Stick::new(place, "private", &["-L", "PRIVATE 1"])?;
    let mut kiosk = Stick::new(place, "kiosk", &["-L", "KIOSK"])?;
    let mut old = Stick::new(place, "old", &["-L", "KIOSK", "-t", "ext2"])?;
    let mut known = Stick::new(place, "known", &["-U", "5ca1ab1e-0000-4000-8000-000000000077"])?;
    let mut large = filled(place, "large", "LARGE", &[])?;
    for stick in [&mut private, &mut kiosk, &mut old, &mut known, &mut large] {
        stick.plug()?;
    }
    let (photos, _) = mounted_within(kiosk.device(), SOON)?;
    assert_eq!(photos, Path::new("/run/sticks/photos"));
    let line = words(&photos)?;
    let user = command::run(Command::new("id").args(["-u", "daemon"]))?;
    assert!(line.contains("nosuid,nodev,relatime,nosymfollow") && !line.contains("noexec"), "{line}");
    assert!(line.contains(&format!("user_id={}", user.trim())), "{line}");
    let (by_number, _) = mounted_within(known.device(), SOON)?;
    assert_eq!(by_number, Path::new("/run/media/12345/5ca1ab1e-0000-4000-8000-000000000077"), "by its UUID");
    let line = words(&by_number)?;
    assert!(line.contains("user_id=12345,group_id=23456") && line.contains("noexec"), "{line}");
    assert_eq!(fs::metadata("/run/media/12345")?.gid(), 23456);
    assert_eq!(mounted_within(large.device(), SOON)?.0, Path::new("/run/sticks/root/LARGE"));
    // Only whom it is for may enter, and sees everything as his own.
    let enter = |uid: &str| {
        let mut setpriv = Command::new("setpriv");
        setpriv
            .args(["--reuid", uid, "--regid", "23456", "--clear-groups", "stat", "--format=%u %g", "--"])
            .arg(&by_number);
        command::run(&mut setpriv)
    };
    assert_eq!(enter("12345")?, "12345 23456\n");
    assert!(enter("12346").is_err(), "another user enters");
    daemon.says("(PRIVATE 1): left alone", SOON)?;
    let line = daemon.says("no rule is for it", SOON)?;
    assert!(line.contains("(KIOSK)"), "ext2 is for no rule: {line}");
    assert_eq!((place_of(private.device()), place_of(old.device())), (None, None));
    for stick in [&mut private, &mut kiosk, &mut old, &mut known, &mut large] {
        stick.pull()?;
    }
    nothing_within(GONE)?;
    Ok(vec![("rules", 5)])
}

/// The mount's own words, and its user.
fn words(point: &Path) -> Result<String> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let line = text.lines().find(|line| line.split(' ').nth(4) == point.to_str());
    Ok(line.ok_or_else(|| format!("{} is not mounted", point.display()))?.to_owned())
}

fn seat(place: &Path) -> Result<Figures> {
    let logind = Path::new("/run/systemd");
    for name in ["seats", "sessions"] {
        fs::create_dir_all(logind.join(name))?;
    }
    let sits = |class: &str, uid: &str| -> Result {
        fs::write(logind.join("sessions/c1"), format!("UID={uid}\nACTIVE=1\nSTATE=active\nCLASS={class}\n"))?;
        Ok(fs::write(logind.join("seats/seat0"), format!("ACTIVE=c1\nACTIVE_UID={uid}\n"))?)
    };
    sits("greeter", "0")?;
    let result = (|| {
        let daemon = Daemon::start(place, "[[rule]]\nmatch = { bus = 'loop', size = '..100M' }\naction = 'mount'\n")?;
        let mut stick = Stick::new(place, "a", &["-L", "SEAT"])?;
        stick.plug()?;
        daemon.says("nobody sits here yet whom it could be mounted for", SOON)?;
        assert_eq!(place_of(stick.device()), None);
        sits("user", "0")?;
        let (point, _) = mounted_within(stick.device(), 2 * SOON)?;
        assert_eq!(point, Path::new("/run/media/root/SEAT"));
        stick.pull()?;
        nothing_within(GONE)
    })();
    fs::remove_dir_all(logind)?;
    result?;
    Ok(vec![("users found", 1)])
}

fn labels(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy(MOUNT))?;
    let cases: [(&[u8], &str); 8] = [
        (b"../../../etc", "_._.._.._etc"),
        (b"..", "_."),
        (b"/etc/passwd", "_etc_passwd"),
        (b"\x1b[2J\x07\n", "__2J_"),
        (b"-o remount,rw", "_o remount,rw"),
        ("a\u{202e}gpj.exe".as_bytes(), "a_gpj.exe"),
        (b"<b>x</b>&amp;", "_b_x__b__amp_"),
        (b"bad\xff\xfe", "bad__"),
    ];
    for (number, (label, expected)) in cases.into_iter().enumerate() {
        let mut stick = Stick::new(place, &format!("stick-{number}"), &[])?;
        superblock::change(stick.image(), |bytes| {
            bytes[0x78..0x88].fill(0);
            bytes[0x78..0x78 + label.len()].copy_from_slice(label);
        })?;
        stick.plug()?;
        let (point, _) = mounted_within(stick.device(), SOON)?;
        let name = point.file_name().unwrap_or_default().to_owned();
        // A label of nothing that can be a name gives way to the UUID.
        let by_uuid = name.len() == 36 && expected == "_.";
        assert!(by_uuid || name == OsStr::from_bytes(expected.as_bytes()), "{}: {name:?}", label.escape_ascii());
        assert_eq!(point.parent(), Some(Path::new("/run/media/root")));
        stick.pull()?;
        nothing_within(GONE)?;
    }
    let said = daemon.said();
    let acts = |letter: char| letter.is_control() || letter == '\u{202e}';
    assert!(said.len() >= cases.len() && !said.iter().any(|line| line.contains(acts)), "{said:#?}");
    Ok(vec![("hostile labels", cases.len() as u64)])
}

fn reload(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy("action = 'ignore'\n"))?;
    let mut stick = Stick::new(place, "a", &["-L", "LATER"])?;
    stick.plug()?;
    daemon.says("(LATER): left alone", SOON)?;
    fs::write(daemon.policy(), "[[rule]]\nactoin = 'mount'\n")?;
    daemon.signal(Signal::HUP);
    let line = daemon.says("the policy that was read before stays in force", SOON)?;
    assert!(line.contains("line 2, column 1: unknown field `actoin`"), "{line}");
    assert_eq!(place_of(stick.device()), None);
    fs::write(daemon.policy(), policy(MOUNT))?;
    let check = |path: &Path| lazaret::run(["automount".as_ref(), "--check-policy".as_ref(), path.as_os_str()]);
    let finished = check(daemon.policy())?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    daemon.signal(Signal::HUP);
    mounted_within(stick.device(), SOON)?;
    let bad = place.join("bad.toml");
    fs::write(&bad, "[[rule]]\naction = 'mount'\noptions = 'suid'\n")?;
    let finished = check(&bad)?;
    assert_eq!((finished.code(), finished.stderr.lines().count()), (Some(1), 1), "{finished:?}");
    assert!(finished.stderr.contains("bad.toml: line 3, column 11: option 'suid' is refused"), "{finished:?}");
    stick.pull()?;
    nothing_within(GONE)?;
    Ok(vec![("policies", 4)])
}

fn asked(place: &Path) -> Result<Figures> {
    let daemon = Daemon::start(place, &policy("action = 'ask'\nfor = '12345:12345'\n"))?;
    let mut stick = Stick::new(place, "a", &["-L", "ASK"])?;
    let (early, other, root) = (agent(12345)?, agent(12346)?, agent(0)?);
    stick.plug()?;
    let question = hears(&early, Event::Ask)?;
    assert_eq!(question.title, "ASK");
    let late = agent(12345)?;
    assert_eq!(hears(&late, Event::Ask)?, question, "who comes later is asked, too");
    // Neither another user nor root can answer for him, and nobody a question that was not put.
    let yes = Choice { stick: question.stick, mount: true };
    other.send(&yes, &[])?;
    root.send(&yes, &[])?;
    late.send(&Choice { stick: question.stick + 1, mount: true }, &[])?;
    thread::sleep(Duration::from_millis(300));
    assert_eq!(place_of(stick.device()), None, "somebody else has answered");
    early.send(&yes, &[])?;
    let (point, _) = mounted_within(stick.device(), SOON)?;
    assert_eq!(hears(&late, Event::Mounted)?.text, point.to_str().unwrap_or_default());
    stick.pull()?;
    assert_eq!(hears(&late, Event::Unplugged)?.title, "ASK");
    // The answer no, and a stick that is gone before the answer.
    stick.plug()?;
    let again = hears(&late, Event::Ask)?;
    assert!(again.stick != question.stick);
    late.send(&Choice { stick: again.stick, mount: false }, &[])?;
    daemon.says("left alone, as the user wishes", SOON)?;
    assert_eq!(place_of(stick.device()), None);
    stick.pull()?;
    stick.plug()?;
    let third = hears(&late, Event::Ask)?;
    stick.pull()?;
    assert_eq!(hears(&late, Event::Withdrawn)?.stick, third.stick);
    // Who speaks nonsense is let go, and the others are not.
    rustix::net::send(&other, &[0xff; 64], rustix::net::SendFlags::NOSIGNAL)?;
    assert!(other.receive_within::<Notice>(GONE).is_err_and(|error| !matches!(error, ChannelError::Late)));
    assert!(
        matches!(root.receive_within::<Notice>(Duration::ZERO), Err(ChannelError::Late)),
        "root was told of another's stick"
    );
    drop(daemon);
    Ok(vec![("questions", 3)])
}

/// Ten partitions, plugged in before the daemon starts. The kernel makes their nodes where this test does not look.
fn partitions(place: &Path) -> Result<Figures> {
    let small = Stick::new(place, "small", &["-t", "ext2", "-L", "PART"])?;
    let script = format!("label: gpt\nfirst-lba: 2048\n{}", "size=16MiB\n".repeat(10));
    let mut disk = Disk::new(place, &script)?;
    for number in 0..10 {
        disk = disk.put(small.image(), (1 << 20) + (number << 24))?;
    }
    let mut stick = Stick::of(&disk.path)?;
    let device = stick.plug()?.to_owned();
    let partitions = Partitions::add(&device)?;
    let name = device.file_name().and_then(OsStr::to_str).ok_or("a plain name")?.to_owned();
    let names: Vec<String> = (1..=10).map(|number| format!("{name}p{number}")).collect();
    for name in &names {
        let dev = fs::read_to_string(format!("/sys/class/block/{name}/dev"))?;
        let (major, minor) = dev.trim().split_once(':').ok_or("no number")?;
        command::run(Command::new("mknod").args([&format!("/dev/{name}"), "b", major, minor]))?;
    }
    // udev may have come before the nodes, which a real /dev has from the begin.
    let again = ["trigger", "--action=change", &format!("--sysname-match={name}p*")];
    command::run(Command::new("udevadm").args(again))?;
    command::run(Command::new("udevadm").args(["settle", "--timeout=10"]))?;
    let result = (|| {
        let daemon = Daemon::start(place, &policy(MOUNT))?;
        daemon.says("refused: as many are mounted as may be: 8 of one disk, 32 in all", GONE)?;
        let (all, _) = eventually(GONE, || mounts().len() == 8);
        assert!(all, "{:?}", daemon.said());
        let refused = daemon.said().into_iter().filter(|line| line.contains("refused")).count();
        assert_eq!(refused, 2, "{:?}", daemon.said());
        stick.pull()?;
        nothing_within(2 * GONE)
    })();
    let ended = partitions.end();
    for name in &names {
        fs::remove_file(format!("/dev/{name}"))?;
    }
    result.and(ended)?;
    Ok(vec![("partitions", 10)])
}

/// Where the units lie.
fn unit(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/dist/systemd").join(name)
}

/// The words of a setting of a unit.
fn setting(name: &str, key: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(unit(name))?;
    let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Ok(values.flat_map(str::split_whitespace).map(str::to_owned).collect())
}

/// The system calls that a filter of systemd lets pass: names, and sets of them.
fn allowed(words: &[String]) -> Result<BTreeSet<String>> {
    let mut calls = BTreeSet::new();
    for word in words {
        assert!(!word.starts_with('~'), "a set that is taken away again");
        if word.starts_with('@') {
            let text = command::run(Command::new("systemd-analyze").args(["syscall-filter", word]))?;
            let lines = text.lines().filter(|line| line.starts_with(' ')).map(str::trim);
            let members: Vec<String> = lines.filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
            assert!(!members.is_empty(), "{word} is no set");
            calls.append(&mut allowed(&members)?);
        } else {
            calls.insert(word.clone());
        }
    }
    Ok(calls)
}

/// The daemon, its brokers and its workers make no call that the unit's filter would refuse, and need no capability that the
/// unit takes away.
fn units(place: &Path) -> Result<Figures> {
    const UNITS: [&str; 2] = ["lazaret-automount.service", "lazaret@.service"];
    let mut made = BTreeSet::new();
    for name in UNITS {
        let capabilities = setting(name, "CapabilityBoundingSet")?;
        let capabilities = capabilities.iter().map(|name| name.replace("CAP_", "+").to_lowercase());
        let bounding = format!("-all,{}", capabilities.collect::<Vec<_>>().join(","));
        let trace = place.join("trace");
        let trace_words = trace.to_string_lossy().into_owned();
        let before = ["--no-new-privs", "--bounding-set", &bounding, "strace", "-D", "-f", "-qq", "-o", &trace_words];
        let path = place.join("policy.toml");
        fs::write(&path, policy(MOUNT))?;
        let mut stick = filled(place, name, "UNIT", &[])?;
        let device = stick.plug()?.to_str().ok_or("a plain name")?.to_owned();
        command::run(Command::new("udevadm").args(["settle", "--timeout=10"]))?;
        let only: &[&str] = if name == UNITS[1] { &["--only", &device] } else { &[] };
        let daemon = Daemon::under(&before, &path, only)?;
        // strace slows everything down.
        let (point, _) = mounted_within(stick.device(), GONE)?;
        assert!(!fs::read(point.join("long"))?.is_empty());
        stick.pull()?;
        nothing_within(2 * GONE)?;
        drop(daemon);
        let allowed = allowed(&setting(name, "SystemCallFilter")?)?;
        let text = fs::read_to_string(&trace)?;
        let calls: BTreeSet<String> = text.lines().filter_map(call).map(str::to_owned).collect();
        let refused: Vec<_> = calls.difference(&allowed).collect();
        assert!(calls.contains("move_mount") && calls.contains("seccomp"), "strace has not seen the mount: {calls:?}");
        assert!(refused.is_empty(), "{name} refuses {refused:?}");
        made.extend(calls);
    }
    // systemd finds nothing wrong with them, and nothing that makes the daemon's mounts its own.
    let root = place.join("root");
    let (system, programs) = (root.join("etc/systemd/system"), root.join("usr/bin"));
    fs::create_dir_all(&system)?;
    fs::create_dir_all(&programs)?;
    fs::create_dir_all(root.join("bin"))?;
    for program in ["usr/bin/lazaret", "bin/kill"] {
        fs::copy("/bin/true", root.join(program))?;
    }
    for name in UNITS {
        fs::copy(unit(name), system.join(name))?;
        let own_mounts = ["Private", "Protect", "ReadOnly", "ReadWrite", "Inaccessible", "RootDirectory", "BindPaths"];
        let text = fs::read_to_string(unit(name))?;
        assert!(
            !text.lines().any(|line| own_mounts.iter().any(|key| line.starts_with(key))),
            "{name}: mounts of its own"
        );
    }
    command::run(Command::new("cp").arg("-r").arg("/lib/systemd/system/.").arg(&system))?;
    for name in ["lazaret-automount.service", "lazaret@sdb1.service"] {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(format!("--root={}", root.display())).arg(name);
        let finished = command::finish(&mut verify, command::PATIENCE)?;
        let about = finished.stderr.lines().filter(|line| line.contains("lazaret")).collect::<Vec<_>>();
        assert!(finished.code() == Some(0) && about.is_empty(), "{finished:?}");
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=yes", "--threshold=60", "--no-pager"]);
        command::run(security.arg(format!("--root={}", root.display())).arg(name))?;
    }
    Ok(vec![("system calls", made.len() as u64)])
}

/// The call of a line of strace, if it is one.
fn call(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start();
    let name = &rest[..rest.find('(')?];
    (!name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')).then_some(name)
}
