//! The package and the desktop, with the real parts: a Debian 13 where udev, the message bus, polkit and udisks2 run, and
//! a loop device as the stick. The kernel raises its events; a rule of the test calls it removable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lazaret_tests::block::LoopDevice;
use lazaret_tests::command::eventually;
use lazaret_tests::debian::{BOOKWORM, DEBIAN, Debian, Suite, TRIXIE};
use lazaret_tests::requirement::{self, proof, trial};
use lazaret_tests::workshop::{Workshop, image_of};
use lazaret_tests::{Result, digest, leftover, package, superblock};

const SECOND: Duration = Duration::from_secs(1);
const LABEL: &str = "My Stick";
const UUID: &str = "5ca1ab1e-0000-4000-8000-00000000de5c";

type Test = fn(&Place) -> Result;

const TESTS: &[(&str, Test)] = &[
    ("the package goes in, works, and goes without residue", whole),
    ("lintian finds no error in the package", lintian),
    ("the shipped snippet does the same for every medium", snippet),
];

/// In a Debian 12, with its udisks2 2.9, which knows no drivers.
const OLDER: &[(&str, Test)] = &[
    ("in a Debian 12 the package goes in, works, and goes without residue", older_package),
    ("where udisks2 is of Debian 12 nobody but the daemon mounts", older_udisks),
];

const PROOFS: &[(&str, Test)] = &[
    ("a click mounts through Lazaret and an unmount ends it", click),
    ("what the worker refuses is mounted by nobody", refused),
    ("the kernel's driver cannot be asked for, nor is it there for want of ours", only_ours),
    ("what was set up is taken back, and that the kernel mounts is found", undone),
];

fn main() {
    requirement::main_in_turn(|workshop| {
        let trials = TESTS.iter().map(|(name, test)| trial(*name, DEBIAN, workshop, |w| one(name, *test, &TRIXIE, w)));
        let older = |(name, test): &'static (&str, Test)| {
            proof("P20", *name, DEBIAN, workshop, |w| one(name, *test, &BOOKWORM, w).map(|()| vec![]))
        };
        let proof = |(name, test): &'static (&str, Test)| {
            let found = u64::from(name.ends_with("is found"));
            let figures = if found > 0 { vec![("sabotages found", found)] } else { vec![] };
            proof("P20", *name, DEBIAN, workshop, move |w| one(name, *test, &TRIXIE, w).map(|()| figures))
        };
        trials.chain(OLDER.iter().map(older)).chain(PROOFS.iter().map(proof)).collect()
    })
}

/// A Debian with nothing of ours, and a place for images.
struct Place {
    debian: Debian,
    directory: PathBuf,
}

fn one(name: &str, test: Test, suite: &'static Suite, workshop: &Workshop) -> Result {
    let directory = workshop.directory(&name.replace([' ', '\'', ','], "-"))?;
    let layer = workshop.directory("layer")?;
    let debian = Debian::start(suite, &layer)?;
    let place = Place { debian, directory: directory.clone() };
    test(&place)?;
    drop(place);
    leftover::nothing_of(&directory)
}

impl Place {
    /// Puts the package in.
    fn install(&self) -> Result {
        package::install(&self.debian)
    }

    /// Starts what a desktop has: udev, the message bus, polkit with a user who may and one who may not, udisks2.
    fn daemons(&self) -> Result {
        self.debian.run(&DAEMONS.replace("PLACE", &self.directory.to_string_lossy()))?;
        let there = || self.debian.finish("udisksctl status").is_ok_and(|finished| finished.code() == Some(0));
        if eventually(10 * SECOND, there).0 { Ok(()) } else { Err("udisks2 does not answer".into()) }
    }

    /// An image with two files, as a stick would hold them.
    fn image(&self) -> Result<PathBuf> {
        image_of(&self.directory, &["-t", "ext4", "-L", LABEL, "-U", UUID], |tree| {
            std::fs::write(tree.join("hello"), "hello")?;
            std::fs::write(tree.join("secret"), "secret")?;
            std::fs::set_permissions(tree.join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            Ok(())
        })
    }

    /// Plugs it in, and waits until udisks2 knows what it is.
    fn plug(&self, image: &Path) -> Result<Stick> {
        let device = LoopDevice::attach(image, false)?;
        let name = device.path().to_string_lossy().into_owned();
        let known = format!("udevadm settle; udisksctl info -b {name} | grep -q 'IdUsage: *filesystem'");
        if !eventually(5 * SECOND, || self.debian.finish(&known).is_ok_and(|finished| finished.code() == Some(0))).0 {
            return Err(format!("udisks2 knows nothing of {name}").into());
        }
        Ok(Stick { _device: device, name })
    }

    /// Demands that this fails, with these words.
    fn fails(&self, script: &str, words: &str) -> Result {
        let finished = self.debian.finish(script)?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        match finished.code() {
            Some(0) => Err(format!("{script}: succeeds: {said}").into()),
            _ if said.contains(words) => Ok(()),
            _ => Err(format!("{script}: '{words}' is wanted: {said}").into()),
        }
    }

    /// What is mounted from this device, as the mount table has it.
    fn mounted(&self, stick: &Stick) -> Result<Option<String>> {
        let table = self.debian.run("cat /proc/self/mountinfo")?;
        let source = format!(" {} ", stick.name);
        Ok(table.lines().find(|line| line.contains(&source)).map(str::to_owned))
    }

    fn mounted_by_nobody(&self, stick: &Stick) -> Result {
        match self.mounted(stick)? {
            None => Ok(()),
            Some(line) => Err(format!("is mounted: {line}").into()),
        }
    }
}

/// A loop device that is a stick. Dropping it pulls it out.
struct Stick {
    _device: LoopDevice,
    name: String,
}

/// The rule of polkit lets one user do what one who sits at the machine may.
const DAEMONS: &str = r#"
useradd --create-home --uid 1000 guest
useradd --create-home --uid 1001 stranger
cat >/etc/polkit-1/rules.d/10-guest.rules <<'end'
polkit.addRule(function (action, subject) {
    if (action.id.indexOf("org.freedesktop.udisks2.") == 0 && subject.user == "guest") return polkit.Result.YES;
});
end
chmod 644 /etc/polkit-1/rules.d/10-guest.rules
mkdir -p /run/udev/rules.d
echo 'ATTR{loop/backing_file}=="PLACE/*", ENV{LAZARET_MEDIUM}="1"' >/run/udev/rules.d/70-medium.rules
/usr/lib/systemd/systemd-udevd --daemon
dbus-uuidgen --ensure
dbus-daemon --system --fork --nopidfile
/usr/lib/polkit-1/polkitd --no-debug >/run/polkitd.log 2>&1 &
for try in {1..100}; do
    dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner \
        string:org.freedesktop.PolicyKit1 >/dev/null 2>&1 && break
    sleep 0.1
done
/usr/libexec/udisks2/udisksd >/run/udisksd.log 2>&1 &
"#;

/// Everything there is but what a package manager and its tools keep for themselves.
const LIST: &str = "find / -xdev -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/var/cache/*' \
                    -not -path '/tmp*' | sort";

fn whole(place: &Place) -> Result {
    without_residue(place, pages)
}

fn older_package(place: &Place) -> Result {
    without_residue(place, |_| Ok(()))
}

/// Puts the package in, tries it and more, and demands that nothing is left when it has gone.
fn without_residue(place: &Place, more: fn(&Place) -> Result) -> Result {
    let image = place.image()?;
    std::fs::copy(&image, place.debian.path("/root/stick.img"))?;
    let before = place.debian.run(LIST)?;
    place.install()?;
    let debian = &place.debian;
    let demo = debian.run("lazaret demo")?;
    assert!(demo.contains("nothing is left behind") && demo.contains("mounted on"), "{demo}");
    debian.run("mount -t lazaret /root/stick.img /mnt; test \"$(cat /mnt/hello)\" = hello; umount /mnt")?;
    debian.run("echo '/root/stick.img /mnt lazaret nofail 0 0' >/run/fstab; mount -a -T /run/fstab; umount /mnt")?;
    // Without root, and without a mount.
    debian.run("chmod 755 /root; setpriv --reuid 65534 --regid 65534 --clear-groups lazaret ls /root/stick.img; chmod 700 /root")?;
    // The agent is there; what it lacks is a desktop.
    place.fails("lazaret agent", "lazaret: the desktop's notifications: ")?;
    more(place)?;
    // Set up, and removed without a word about it.
    debian.run("lazaret setup desktop; test -e /etc/udev/rules.d/75-lazaret.rules")?;
    debian.run("dpkg --purge lazaret")?;
    let after = debian.run(LIST)?;
    let more: Vec<&str> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    let fewer: Vec<&str> = before.lines().filter(|line| !after.lines().any(|new| new == *line)).collect();
    assert!(more.is_empty() && fewer.is_empty(), "left: {more:?}, and gone: {fewer:?}");
    Ok(())
}

fn pages(place: &Place) -> Result {
    let debian = &place.debian;
    // The pages are set without a complaint, and there is one for each name.
    let said = debian.run(
        "for page in $(dpkg -L lazaret | grep '/man[158]/.*gz'); do
             zcat $page | grep -q '^[.]so ' && continue
             zcat $page | groff -mandoc -Tutf8 -ww -z 2>&1
             mandoc -T lint -W warning $page || true
         done",
    )?;
    assert_eq!(said, "", "groff or mandoc complains");
    let pages = debian.run("dpkg -L lazaret | grep '/man[158]/'")?;
    for page in [
        "lazaret.1",
        "lazaret-mount.1",
        "lazaret-setup-desktop.1",
        "lazaret-agent.1",
        "lazaret.toml.5",
        "lazaret-automount.8",
        "mount.lazaret.8",
        "mount.fuse.lazaret.8",
    ] {
        assert!(pages.contains(&format!("/{page}.gz")), "{page} is missing: {pages}");
    }
    let options = debian.run("zcat /usr/share/man/man8/mount.lazaret.8.gz | groff -man -Tutf8 -P-cbou")?;
    assert!(options.contains("umask=OCTAL"), "{options}");
    package::completes(debian)
}

fn lintian(place: &Place) -> Result {
    package::bring(&place.debian)?;
    let said = place
        .debian
        .finish("useradd --create-home judge; runuser -u judge -- lintian --fail-on error /run/lazaret.deb")?;
    assert_eq!(said.code(), Some(0), "{}{}", said.stdout, said.stderr);
    Ok(())
}

/// As `guest`, in a desktop that was set up.
fn set_up(place: &Place) -> Result {
    place.install()?;
    place.daemons()?;
    place.debian.run("lazaret setup desktop").map(drop)
}

const AS_GUEST: &str = "runuser -u guest --";

/// Whether a line of the mount table is of a mount by Lazaret, for this user alone.
fn by_lazaret_for_guest(line: &str) -> Result {
    let ours = line.contains("ro,nosuid,nodev,noexec") && line.contains(" fuseblk.lazaret ");
    let own = line.contains("user_id=1000,group_id=1000,default_permissions") && !line.contains("allow_other");
    if ours && own {
        Ok(())
    } else {
        Err(format!("is not mounted by Lazaret, or not for the user alone: {line}").into())
    }
}

fn click(place: &Place) -> Result {
    set_up(place)?;
    let image = place.image()?;
    let before = digest::of_file(&image)?;
    let stick = place.plug(&image)?;
    let (debian, name) = (&place.debian, &stick.name);
    let known = debian.run(&format!("udisksctl info -b {name}"))?;
    assert!(known.contains(&format!("IdLabel:                    {LABEL}")) && known.contains(UUID), "{known}");

    place
        .fails(&format!("runuser -u stranger -- udisksctl mount -b {name} --no-user-interaction"), "Not authorized")?;
    let said = debian.run(&format!("{AS_GUEST} udisksctl mount -b {name}"))?;
    assert_eq!(said.trim(), format!("Mounted {name} at /media/guest/{LABEL}"));
    by_lazaret_for_guest(&place.mounted(&stick)?.ok_or("is not in the mount table")?)?;
    let seen = debian.run(&format!("udisksctl info -b {name} | grep MountPoints; lazaret status"))?;
    assert!(seen.contains(&format!("MountPoints:        /media/guest/{LABEL}")), "udisks2 sees it: {seen}");
    assert!(seen.contains("confined: every layer that can be seen holds"), "{seen}");

    // The view: all of it is the user's, and nobody else enters.
    let listed =
        debian.run(&format!("cd '/media/guest'; {AS_GUEST} stat -c %n:%U:%a '{LABEL}/hello' '{LABEL}/secret'"))?;
    assert_eq!(listed, format!("{LABEL}/hello:guest:644\n{LABEL}/secret:guest:600\n"));
    assert_eq!(debian.run(&format!("{AS_GUEST} cat '/media/guest/{LABEL}/secret'"))?, "secret");
    place.fails(&format!("cat '/media/guest/{LABEL}/hello'"), "Permission denied")?;
    place.fails(&format!("runuser -u stranger -- cat '/media/guest/{LABEL}/hello'"), "Permission denied")?;
    place.fails(&format!("{AS_GUEST} touch '/media/guest/{LABEL}/new'"), "Read-only file system")?;

    // In use it stays, and then it goes, with its directory and its processes.
    let busy = format!("cd '/media/guest/{LABEL}' && udisksctl unmount -b {name}");
    place.fails(&format!("{AS_GUEST} bash -c \"{busy}\""), "busy")?;
    debian.run(&format!("{AS_GUEST} udisksctl unmount -b {name}"))?;
    place.mounted_by_nobody(&stick)?;
    debian.run(&format!("test ! -e '/media/guest/{LABEL}'; udisksctl info -b {name} | grep -q 'MountPoints: *$'"))?;
    let gone = "for pid in /proc/[0-9]*; do case $(readlink $pid/exe) in */lazaret*) exit 1 ;; esac; done";
    assert!(
        eventually(SECOND, || debian.finish(gone).is_ok_and(|finished| finished.code() == Some(0))).0,
        "a process is left"
    );

    // A loop device has no drive whose power could be cut; what ends it is its deletion, which a user is granted.
    place.fails(&format!("{AS_GUEST} udisksctl power-off -b {name}"), "Error looking up drive")?;
    debian.run(&format!("{AS_GUEST} udisksctl mount -b {name}; {AS_GUEST} udisksctl unmount -b {name}"))?;
    debian.run(&format!("{AS_GUEST} udisksctl loop-delete -b {name}"))?;
    assert!(eventually(SECOND, || debian.finish(&format!("losetup {name}")).is_ok_and(|f| f.code() != Some(0))).0);
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    Ok(())
}

fn refused(place: &Place) -> Result {
    set_up(place)?;
    let image = place.image()?;
    // A feature that nobody knows: what names the type of a file system does not look at it, the worker refuses it.
    superblock::change(&image, |bytes| superblock::set_bits(bytes, 0x60, 0x0200_0000))?;
    let stick = place.plug(&image)?;
    let name = &stick.name;
    place.fails(&format!("{AS_GUEST} udisksctl mount -b {name}"), "Error mounting")?;
    place.mounted_by_nobody(&stick)?;
    for kind in ["auto", "ext4", "ext3", "ext2"] {
        place.fails(&format!("{AS_GUEST} udisksctl mount -b {name} -t {kind}"), "Error mounting")?;
        place.mounted_by_nobody(&stick)?;
    }
    place.debian.run("test -z \"$(ls -A /media/guest)\"").map(drop)
}

fn only_ours(place: &Place) -> Result {
    set_up(place)?;
    let stick = place.plug(&place.image()?)?;
    let name = &stick.name;
    for kind in ["ext4", "ext3", "ext2"] {
        // Root is asked for no password, and gets no more.
        for user in ["guest", "root"] {
            let mount = format!("runuser -u {user} -- udisksctl mount -b {name} -t {kind}");
            place.fails(&mount, "`only-lazaret' is not allowed")?;
        }
    }
    place.mounted_by_nobody(&stick)?;
    place.debian.run("rm /usr/sbin/mount.lazaret")?;
    place.fails(&format!("{AS_GUEST} udisksctl mount -b {name}"), "Error mounting")?;
    place.mounted_by_nobody(&stick)?;
    place.fails("lazaret setup desktop --undo; lazaret setup desktop", "/sbin/mount.lazaret: is missing")
}

fn snippet(place: &Place) -> Result {
    place.install()?;
    place.debian.run("cp /usr/share/lazaret/setup/mount_options.conf /etc/udisks2/")?;
    place.daemons()?;
    let stick = place.plug(&place.image()?)?;
    place.debian.run(&format!("{AS_GUEST} udisksctl mount -b {}", stick.name))?;
    let line = place.mounted(&stick)?.ok_or("is not in the mount table")?;
    assert!(line.contains(" fuseblk.lazaret ") && line.contains("user_id=1000"), "{line}");
    place.debian.run(&format!("{AS_GUEST} udisksctl unmount -b {}", stick.name)).map(drop)
}

fn older_udisks(place: &Place) -> Result {
    place.install()?;
    place.daemons()?;
    let debian = &place.debian;
    let said = debian.run("lazaret setup desktop 2>&1")?;
    assert!(said.contains("udisks2 2.9 knows no drivers"), "{said}");
    let stick = place.plug(&place.image()?)?;
    let name = &stick.name;
    let known = debian.run(&format!("udisksctl info -b {name}"))?;
    assert!(known.contains("HintIgnore:                 true"), "it is not offered: {known}");
    for user in ["guest", "root"] {
        for kind in ["", "-t auto", "-t ext4", "-t ext3", "-t ext2", "-o ro"] {
            let mount = format!("runuser -u {user} -- udisksctl mount -b {name} {kind}");
            place.fails(&mount, "`only-lazaret' is not allowed")?;
            place.mounted_by_nobody(&stick)?;
        }
    }
    // The daemon does instead, and for the same user.
    debian.run(&format!(
        "mkdir -p /etc/lazaret; cat >/etc/lazaret/lazaret.toml <<'end'
[[rule]]
match = {{ label = '{LABEL}' }}
action = 'mount'
for = 'guest'
end
         lazaret automount >/run/automount.log 2>&1 & sleep 0.1"
    ))?;
    let read = format!("{AS_GUEST} cat '/run/media/guest/{LABEL}/secret'");
    assert!(eventually(5 * SECOND, || debian.finish(&read).is_ok_and(|finished| finished.stdout == "secret")).0);
    debian.run(&format!("umount '/run/media/guest/{LABEL}'; lazaret setup desktop --undo"))?;
    // And back to the kernel, as before.
    debian.run(&format!("udevadm settle; {AS_GUEST} udisksctl mount -b {name} -o ro"))?;
    let line = place.mounted(&stick)?.ok_or("is not in the mount table")?;
    assert!(line.contains(" ext4 "), "{line}");
    debian.run(&format!("{AS_GUEST} udisksctl unmount -b {name}")).map(drop)
}

fn undone(place: &Place) -> Result {
    set_up(place)?;
    place.debian.run("lazaret setup desktop")?;
    place.debian.run("lazaret setup desktop --undo; test ! -e /etc/udev/rules.d/75-lazaret.rules")?;
    place.debian.run("lazaret setup desktop --undo")?;
    place.fails("runuser -u guest -- lazaret setup desktop", "needs root")?;
    let stick = place.plug(&place.image()?)?;
    place.debian.run(&format!("{AS_GUEST} udisksctl mount -b {} -o ro", stick.name))?;
    let line = place.mounted(&stick)?.ok_or("is not in the mount table")?;
    assert!(line.contains(" ext4 "), "by the kernel, as before: {line}");
    assert!(by_lazaret_for_guest(&line).is_err(), "the test of a click takes this for ours: {line}");
    place.debian.run(&format!("{AS_GUEST} udisksctl unmount -b {}", stick.name)).map(drop)
}
