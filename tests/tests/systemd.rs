//! The units under a real systemd, in a Debian 13 with the package: what they are started by, what they let pass, whether
//! what is mounted in them is there for everybody, and what the journal has of it. A loop device is the stick.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lazaret_tests::block::LoopDevice;
use lazaret_tests::command::eventually;
use lazaret_tests::debian::{DEBIAN, Debian, TRIXIE};
use lazaret_tests::requirement::{self, trial};
use lazaret_tests::workshop::{Workshop, image_of};
use lazaret_tests::{Result, leftover, package};

type Test = fn(&Place) -> Result;

const TESTS: &[(&str, Test)] = &[
    ("the daemon is started, read again, restarted, stopped and found", daemon),
    ("one device has a unit of its own", one_device),
    ("udev starts the unit of what is plugged in", by_udev),
    ("a user's unit starts his agent, which is told of his stick", agent),
];

const SOON: Duration = Duration::from_secs(2);
const GONE: Duration = Duration::from_secs(5);

fn main() {
    requirement::main_in_turn(|workshop| {
        let all = TESTS.iter().map(|(name, test)| trial(*name, DEBIAN, workshop, |w| one(name, *test, w)));
        let installed = trial("what make install writes is found and works", DEBIAN, workshop, installed);
        all.chain([installed]).collect()
    })
}

/// A Debian with systemd and the package, and a place for images.
struct Place {
    debian: Debian,
    directory: PathBuf,
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result {
    let directory = workshop.directory(&name.replace([' ', ',', '\''], "-"))?;
    let debian = Debian::boot(&TRIXIE, &workshop.directory("layer")?)?;
    // What the kernel does by itself where it keeps /dev.
    debian.run("chmod 666 /dev/fuse")?;
    package::install(&debian)?;
    let place = Place { debian, directory: directory.clone() };
    test(&place)?;
    drop(place);
    leftover::nothing_of(&directory)
}

/// Below /usr/local, where mount(8), systemd, udev, shells and readers look as they do below /usr.
fn installed(workshop: &Workshop) -> Result {
    let directory = workshop.directory("installed")?;
    let debian = Debian::boot(&TRIXIE, &workshop.directory("layer")?)?;
    debian.run("chmod 666 /dev/fuse")?;
    package::install_by_make(&debian, &workshop.directory("written")?)?;
    let place = Place { debian, directory: directory.clone() };
    place.run(
        "systemctl daemon-reload; udevadm control --reload; useradd --create-home guest; ! test -e /usr/bin/lazaret",
    )?;
    let demo = place.run("/usr/local/bin/lazaret demo")?;
    assert!(demo.contains("nothing is left behind") && demo.contains("mounted on"), "{demo}");

    // By mount(8), and by the units.
    let stick = place.plug("UNIT")?;
    place.run(&format!("mount -t lazaret /dev/{} /mnt; test \"$(cat /mnt/name)\" = UNIT; umount /mnt", stick.name))?;
    place.run(&policy("for = 'root'"))?;
    place.run("systemctl start lazaret-automount; systemctl is-active lazaret-automount")?;
    place.reads("/run/media/root/UNIT", "UNIT")?;
    place.run("loginctl enable-linger guest")?;
    let user = "systemctl --user --machine=guest@.host";
    place.comes(&format!("{user} start lazaret-agent && {user} is-active lazaret-agent"), GONE)?;
    place.run("systemctl stop lazaret-automount; umount /run/media/root/UNIT")?;
    place.run(&format!("systemctl start lazaret@{0}; systemctl is-active lazaret@{0}", stick.name))?;
    place.reads("/run/media/root/UNIT", "UNIT")?;
    stick.pull()?;
    place.nothing()?;
    let rules = place.run("udevadm test /sys/class/mem/null 2>&1")?;
    assert!(rules.contains("/usr/local/lib/udev/rules.d/65-lazaret.rules"), "{rules}");

    // For readers and shells.
    place.run(
        "cd /usr/local/share/man; for page in man1/lazaret.1 man5/lazaret.toml.5 man8/mount.lazaret.8; do
             mandoc -T lint -W warning $page; done; groff -mandoc -s -Tutf8 man8/mount.fuse.lazaret.8 | grep -q umask",
    )?;
    package::completes(&place.debian)?;
    place.run("lazaret=$(ls -A /usr/local/share/doc/lazaret); test \"$(wc -w <<<$lazaret)\" = 5")?;
    drop(place);
    leftover::nothing_of(&directory)
}

/// A rule for sticks that the test plugs in, with more words.
fn policy(more: &str) -> String {
    format!(
        "mkdir -p /etc/lazaret; cat >/etc/lazaret/lazaret.toml <<'end'\n[[rule]]\nmatch = {{ bus = ['loop', 'usb'], \
         label = 'UNIT*' }}\naction = 'mount'\n{more}\nend"
    )
}

impl Place {
    fn run(&self, script: &str) -> Result<String> {
        self.debian.run(script)
    }

    /// Demands that this holds within a time.
    fn comes(&self, script: &str, patience: Duration) -> Result {
        let mut last = String::new();
        let (came, _) = eventually(patience, || {
            let asked = self.debian.finish(script);
            last = asked.as_ref().map_or_else(ToString::to_string, |all| format!("{}{}", all.stdout, all.stderr));
            asked.is_ok_and(|finished| finished.code() == Some(0))
        });
        if came {
            return Ok(());
        }
        let journal = self.debian.finish("journalctl --no-pager --lines=30")?.stdout;
        Err(format!("{script}: does not come: {last}\n{journal}").into())
    }

    /// Demands that this fails.
    fn fails(&self, script: &str) -> Result<String> {
        let finished = self.debian.finish(script)?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        if finished.code() == Some(0) { Err(format!("{script}: succeeds: {said}").into()) } else { Ok(said) }
    }

    /// Plugs in a stick with a file `name` that holds its label.
    fn plug(&self, label: &str) -> Result<Stick> {
        let place = self.directory.join(label);
        std::fs::create_dir_all(&place)?;
        let image =
            image_of(&place, &["-t", "ext4", "-L", label], |tree| Ok(std::fs::write(tree.join("name"), label)?))?;
        let device = LoopDevice::attach(&image, false)?;
        let name = device.path().file_name().and_then(|name| name.to_str()).ok_or("a plain name")?.to_owned();
        Ok(Stick { image, device: Some(device), name })
    }

    /// Demands that the label is read where it is to be mounted: not within a unit, but where everybody is.
    fn reads(&self, at: &str, label: &str) -> Result {
        self.comes(&format!("test \"$(cat '{at}/name')\" = {label}"), SOON)
    }

    /// Demands that nothing is left of a mount.
    fn nothing(&self) -> Result {
        self.comes(
            "! grep -q lazaret /proc/self/mountinfo && test -z \"$(ls /run/media 2>&1 | grep -v 'No such')\"",
            GONE,
        )?;
        self.comes(
            "for one in /proc/[0-9]*/exe; do case $(readlink $one) in */lazaret-worker*) exit 1; esac; done",
            GONE,
        )
    }

    /// What the journal has with these fields: this field of each.
    fn journal(&self, matches: &str, field: &str) -> Result<Vec<String>> {
        let text = self.run(&format!("journalctl --output=json --no-pager {matches}"))?;
        let value = |line: &str| -> Result<String> {
            let line: serde_json::Value = serde_json::from_str(line)?;
            Ok(line[field].as_str().unwrap_or_default().to_owned())
        };
        text.lines().map(value).collect()
    }
}

/// A loop device that is a stick. Dropping it pulls it out once nobody uses it.
struct Stick {
    image: PathBuf,
    device: Option<LoopDevice>,
    name: String,
}

impl Stick {
    /// Pulls it out, whoever uses it.
    fn pull(mut self) -> Result {
        std::fs::File::options().write(true).open(&self.image)?.set_len(0)?;
        let path = Path::new("/dev").join(&self.name);
        lazaret_tests::command::run(std::process::Command::new("losetup").arg("--set-capacity").arg(&path))?;
        self.device.take();
        Ok(())
    }
}

fn daemon(place: &Place) -> Result {
    // Without a policy there is nothing to do, and that is no failure.
    place.run("systemctl enable --now lazaret-automount")?;
    assert_eq!(place.fails("systemctl is-active lazaret-automount")?.trim(), "inactive");
    place.run(&policy("for = 'root'"))?;
    place.run("systemctl start lazaret-automount; systemctl is-active lazaret-automount")?;
    let stick = place.plug("UNIT")?;
    place.reads("/run/media/root/UNIT", "UNIT")?;
    assert_eq!(place.run("systemctl show -P StatusText lazaret-automount")?, "1 mounted, 1 plugged in\n");
    let status = place.run("lazaret status")?;
    assert!(status.contains("confined: every layer that can be seen holds"), "{status}");
    let fields = "_SYSTEMD_UNIT=lazaret-automount.service LAZARET_EVENT=mounted";
    for (field, wanted) in [
        ("LAZARET_DEVICE", format!("/dev/{}", stick.name).as_str()),
        ("LAZARET_LABEL", "UNIT"),
        ("LAZARET_UID", "0"),
        ("LAZARET_PLACE", "/run/media/root/UNIT"),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "lazaret"),
    ] {
        assert_eq!(place.journal(fields, field)?, [wanted], "{field}");
    }

    // A policy that is bad is not taken, and the daemon lives.
    place.run("echo 'actoin = 1' >>/etc/lazaret/lazaret.toml")?;
    place.fails("systemctl reload lazaret-automount")?;
    place.run("systemctl is-active lazaret-automount")?;
    place.run(&policy("for = 'root'\nname = 'other'"))?;
    place.run("systemctl reload lazaret-automount")?;
    place.comes("journalctl LAZARET_EVENT=reloaded | grep -q '1 rules'", SOON)?;

    // The mount outlives it, and it finds it again.
    let pid = place.run("systemctl show -P MainPID lazaret-automount")?;
    for verb in ["restart", "stop", "start"] {
        place.run(&format!("systemctl {verb} lazaret-automount"))?;
        place.reads("/run/media/root/UNIT", "UNIT")?;
    }
    assert!(place.run("systemctl show -P MainPID lazaret-automount")? != pid);
    assert_eq!(place.journal("LAZARET_EVENT=found", "LAZARET_PLACE")?, ["/run/media/root/UNIT"; 2]);
    place.run("kill -9 $(systemctl show -P MainPID lazaret-automount)")?;
    place.comes("systemctl is-active lazaret-automount", SOON)?;
    place.reads("/run/media/root/UNIT", "UNIT")?;

    // A newer package is what mounts the next stick, and the mount before stays.
    let old = place.run("systemctl show -P MainPID lazaret-automount")?;
    package::install(&place.debian)?;
    assert!(place.run("systemctl show -P MainPID lazaret-automount")? != old, "the old program still runs");
    place.reads("/run/media/root/UNIT", "UNIT")?;
    stick.pull()?;
    place.nothing()?;
    let again = place.plug("UNIT-2")?;
    place.reads("/run/media/root/other", "UNIT-2")?;

    // With the package goes all of it.
    place.run("umount /run/media/root/other; dpkg --purge lazaret")?;
    assert_eq!(place.fails("systemctl is-active lazaret-automount")?.trim(), "inactive");
    place.fails("systemctl cat lazaret-automount")?;
    let left = place.run("find /etc /run /var/lib/systemd -name '*lazaret*' -not -name lazaret.deb")?;
    assert_eq!(left, "", "left behind");
    drop(again);
    place.nothing()
}

fn one_device(place: &Place) -> Result {
    let stick = place.plug("UNIT")?;
    let unit = format!("lazaret@{}", stick.name);
    let said = place.fails(&format!("systemctl start {unit}"))?;
    assert!(said.contains("failed"), "without a policy: {said}");
    place.run(&policy("for = 'root'"))?;
    // It is started once it is mounted.
    place.run(&format!("systemctl start {unit}; test \"$(cat /run/media/root/UNIT/name)\" = UNIT"))?;
    place.run(&format!("systemctl stop {unit}; ! test -e /run/media/root/UNIT"))?;
    place.nothing()?;
    place.run(&format!("systemctl start {unit}"))?;
    let other = place.plug("UNIT-2")?;
    place.run(&format!("systemctl start lazaret@{}", other.name))?;
    place.reads("/run/media/root/UNIT", "UNIT")?;
    place.reads("/run/media/root/UNIT-2", "UNIT-2")?;
    stick.pull()?;
    place.comes(&format!("test \"$(systemctl show -P ActiveState {unit})\" = inactive"), GONE)?;
    place.reads("/run/media/root/UNIT-2", "UNIT-2")?;
    other.pull()?;
    place.nothing()
}

fn by_udev(place: &Place) -> Result {
    place.run(&policy("for = 'root'"))?;
    // A rule of the test makes USB sticks of its loop devices.
    place.run(&format!(
        "mkdir -p /run/udev/rules.d; echo 'ATTR{{loop/backing_file}}==\"{}/*\", ENV{{ID_BUS}}=\"usb\"' \
         >/run/udev/rules.d/61-usb.rules; udevadm control --reload",
        place.directory.display()
    ))?;
    let left = place.plug("UNIT")?;
    place.run("udevadm settle; ! grep lazaret /proc/self/mountinfo")?;
    drop(left);
    place.run("touch /etc/lazaret/mount-by-udev")?;
    for _ in 0..2 {
        let stick = place.plug("UNIT")?;
        place.reads("/run/media/root/UNIT", "UNIT")?;
        place.run(&format!("systemctl is-active lazaret@{}", stick.name))?;
        stick.pull()?;
        place.nothing()?;
    }
    Ok(())
}

fn agent(place: &Place) -> Result {
    place.run("useradd --create-home --uid 1000 --shell /bin/bash guest")?;
    place.run(&policy("for = 'guest'"))?;
    place.run("systemctl start lazaret-automount")?;
    place.run("loginctl enable-linger guest")?;
    let user = "systemctl --user --machine=guest@.host";
    place.comes(&format!("{user} is-active default.target"), GONE)?;
    place.run(&format!("{user} enable lazaret-agent"))?;
    place.run(&format!("{user} start lazaret-agent"))?;
    let stick = place.plug("UNIT")?;
    place.comes("mountpoint -q /run/media/guest/UNIT || grep /run/media/guest/UNIT /proc/self/mountinfo", SOON)?;
    place.run("test \"$(runuser -u guest -- cat /run/media/guest/UNIT/name)\" = UNIT")?;
    // It has heard of it, and has asked the session's bus for a server of notifications, of which there is none here.
    let told = "journalctl --no-pager _UID=1000 | grep -F \"the desktop's notifications\" | grep org.freedesktop.Notifications";
    place.comes(told, GONE)?;
    stick.pull()?;
    place.nothing()
}
