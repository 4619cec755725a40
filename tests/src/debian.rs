//! A Debian to try on what a package and the daemons of a desktop do: made once by debootstrap and kept below `target`,
//! entered with a layer over it that goes with the test; and the same with systemd as its first process.
//!
//! What holds here: whatever is started in it lives in its process namespace, and whatever is mounted in its mount
//! namespace. Both end when the guard is dropped, and also when the test is killed, with which its first process dies. It
//! has network, message bus, udev and cgroups of its own, and its own /dev; the kernel tells its udev of loop devices like
//! any other, and what is set for the whole machine (/proc/sys, the clock) it cannot set.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::command::{self, Finished, eventually, finish};
use crate::requirement::Requirement;
use crate::{Result, process};

/// What it takes.
pub const DEBIAN: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("debootstrap"),
    Requirement::Tool("unshare"),
    Requirement::Tool("setpriv"),
    Requirement::Tool("nsenter"),
    Requirement::Tool("losetup"),
];

/// A release of Debian, with what is installed in it.
pub struct Suite {
    name: &'static str,
    packages: &'static str,
    root: OnceLock<std::result::Result<PathBuf, String>>,
}

/// The daemons of a desktop, the shells and readers that completions and pages are for, and who judges a package.
pub static TRIXIE: Suite = Suite::new(
    "trixie",
    "udev,dbus,polkitd,udisks2,eject,fuse3,systemd,libpam-systemd,dbus-user-session,groff-base,mandoc,bash-completion,\
     zsh,fish,lintian",
);
/// An older desktop.
pub static BOOKWORM: Suite = Suite::new("bookworm", "udev,dbus,polkitd,udisks2,fuse3");

const MIRROR: &str = "http://deb.debian.org/debian";
/// debootstrap makes what apt needs, and apt, who knows packages that others provide, the rest. No daemon is started.
const MAKE: &str = r#"
debootstrap --variant=minbase "$SUITE" "$PART" "$MIRROR"
printf '#!/bin/sh\nexit 101\n' >"$PART/usr/sbin/policy-rc.d"
chmod 755 "$PART/usr/sbin/policy-rc.d"
mount -t proc proc "$PART/proc"
within() { chroot "$PART" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
within apt-get update -qq
within apt-get install -y -qq --no-install-recommends ${PACKAGES//,/ }
within sh -c 'id polkitd || useradd --system --home-dir / --shell /usr/sbin/nologin polkitd'
within apt-get clean
rm -rf "$PART/var/lib/apt/lists" "$PART/usr/sbin/policy-rc.d"
"#;
/// How long debootstrap may take on a slow network.
const PATIENCE: Duration = Duration::from_secs(600);

/// The first process: it mounts the root with its layer and makes it the root.
const FIRST: &str = r#"
read -r pid rest </proc/self/stat
mount -t tmpfs none "$PLACE"
cd "$PLACE"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=upper,workdir=work" root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
mount -t tmpfs -o mode=755 none run
mkdir dev/shm dev/pts run/lock run/dbus run/mount
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 none dev/pts
ln -s pts/ptmx dev/ptmx
node() { mknod -m "$2" "dev/$1" "$3" "$4" "$5"; }
node null 666 c 1 3; node zero 666 c 1 5; node full 666 c 1 7
node random 666 c 1 8; node urandom 666 c 1 9; node tty 666 c 5 0
node fuse 666 c 10 229; node loop-control 660 c 10 237
for number in {0..255}; do node loop$number 660 b 7 $number; done
ln -s /proc/self/fd dev/fd
pivot_root . mnt
umount -l /mnt
"#;

/// It reaps until the test ends.
const REAP: &str = r#"
echo "$pid"
exec >/dev/null
while read -r line; do :; done
"#;

/// It becomes systemd, which takes it for a container that may see devices. What would be set in the kernel or ask for a
/// terminal or a network is left out; udev is told of devices that come, and not made to look at all of the machine's.
const BOOT: &str = r#"
for unit in systemd-{sysctl,modules-load,binfmt,random-seed,pstore,timesyncd,udev-trigger,networkd,resolved,firstboot} \
    getty@ console-getty container-getty@; do
    ln -sf /dev/null /etc/systemd/system/$unit.service
done
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
# It listens to udev only where there is one when it starts, or the kernel keeps /dev.
mkdir /run/udev
touch /run/udev/control
echo "$pid"
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/lib/systemd/systemd --unit=multi-user.target \
    --show-status=no --log-target=null </dev/null >/dev/null 2>&1
"#;

/// Namespaces, which the first process gets from what waits for it; that one takes the cgroups away again. Whoever is
/// killed takes along what it has started.
const AROUND: &str = r#"
mkdir "$PLACE.groups"
mount -t cgroup2 cgroup2 "$PLACE.groups"
group=$PLACE.groups/lazaret-test-$$
mkdir "$group"
(
    echo $BASHPID >"$group/cgroup.procs"
    # unshare(1) complains when its child was killed.
    exec setpriv --pdeathsig KILL unshare $NAMESPACES --fork --kill-child bash -euc "exec 2>&3; $FIRST" 3>&2 2>/dev/null
) || true
for try in {1..200}; do
    test -n "$(cat "$group/cgroup.procs" $(find "$group" -mindepth 2 -name cgroup.procs))" || break
    sleep 0.01
done
find "$group" -depth -type d -exec rmdir {} +
umount "$PLACE.groups"
rmdir "$PLACE.groups"
"#;
const NAMESPACES: &[&str] = &["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"];

/// How long systemd may take until all of it runs.
const BOOTED: Duration = Duration::from_secs(60);

/// One that runs. Dropping it ends all that was started in it.
pub struct Debian {
    around: Child,
    pid: String,
}

impl Debian {
    /// Starts one that nothing was changed in, with its layer at this empty directory.
    pub fn start(suite: &'static Suite, place: &Path) -> Result<Self> {
        Self::with(suite, place, REAP)
    }

    /// The same with systemd, and waits until that has started everything.
    pub fn boot(suite: &'static Suite, place: &Path) -> Result<Self> {
        let debian = Self::with(suite, place, BOOT)?;
        let mut state = String::new();
        let (running, _) = eventually(BOOTED, || {
            let asked = debian.finish("systemctl is-system-running 2>&1");
            state = asked.map_or_else(|error| error.to_string(), |finished| finished.stdout.trim().to_owned());
            ["running", "degraded"].contains(&state.as_str())
        });
        if running && state == "running" {
            return Ok(debian);
        }
        let failed = debian.finish("systemctl --failed --no-legend; systemctl list-jobs")?;
        Err(format!("systemd is {state:?}: {}{}", failed.stdout, failed.stderr).into())
    }

    fn with(suite: &'static Suite, place: &Path, last: &str) -> Result<Self> {
        let mut around = Command::new("setpriv");
        around.args(["--pdeathsig", "KILL", "unshare", "--mount", "bash", "-euc", AROUND]);
        around.env("PLACE", place).env("BASE", suite.root()?).env("NAMESPACES", NAMESPACES.join(" "));
        around.env("FIRST", [FIRST, last].concat()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut around = around.spawn()?;
        let mut pid = String::new();
        BufReader::new(around.stdout.take().ok_or("no pipe")?).read_line(&mut pid)?;
        let debian = Self { around, pid: pid.trim().to_owned() };
        if debian.pid.is_empty() { Err("a Debian could not be entered".into()) } else { Ok(debian) }
    }

    /// Runs a script of bash in it to its end, and demands success; gives what it printed.
    pub fn run(&self, script: &str) -> Result<String> {
        let finished = self.finish(script)?;
        match finished.code() {
            Some(0) => Ok(finished.stdout),
            _ => Err(format!("{script}: {}: {}{}", finished.status, finished.stdout, finished.stderr).into()),
        }
    }

    /// Runs a script of bash in it to its end.
    pub fn finish(&self, script: &str) -> Result<Finished> {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.pid]).args(NAMESPACES).args(["--root", "--wd"]);
        nsenter.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"]);
        nsenter.args(["DEBIAN_FRONTEND=noninteractive", "bash", "-euc", script]);
        finish(&mut nsenter, command::PATIENCE)
    }

    /// A path in it, as it is seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        match self.pid.parse() {
            Ok(pid) => process::kill(pid),
            Err(_) => drop(self.around.kill()),
        }
        let _ = command::wait(&mut self.around, Duration::from_secs(10));
    }
}

impl Suite {
    const fn new(name: &'static str, packages: &'static str) -> Self {
        Self { name, packages, root: OnceLock::new() }
    }

    /// The root that is kept; made if it is not there.
    pub fn root(&self) -> Result<PathBuf> {
        self.root.get_or_init(|| self.made().map_err(|error| error.to_string())).clone().map_err(Into::into)
    }

    /// The same, made if it is not there or was made of other packages.
    fn made(&self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let program = own.parent().ok_or("a program lies somewhere")?;
        let profile = if program.ends_with("deps") { program.parent() } else { Some(program) };
        let target =
            profile.and_then(|profile| profile.ancestors().nth(2)).ok_or("a test lies in target/HOST/PROFILE")?;
        let place = target.join("debian");
        fs::create_dir_all(&place)?;
        let lock = File::create(place.join(format!("{}.lock", self.name)))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let (root, list) = (place.join(self.name), place.join(format!("{}.packages", self.name)));
        if root.is_dir() && fs::read_to_string(&list).is_ok_and(|there| there == self.packages) {
            return Ok(root);
        }
        let part = place.join(format!("{}.part", self.name));
        for old in [&root, &part] {
            command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(old))?;
        }
        // What it mounts meanwhile goes with its namespace.
        let mut make = Command::new("unshare");
        make.args(["--mount", "bash", "-euc", MAKE]).env("PART", &part).env("SUITE", self.name).env("MIRROR", MIRROR);
        let made = finish(make.env("PACKAGES", self.packages), PATIENCE)?;
        if made.code() != Some(0) {
            let last: Vec<&str> = made.stdout.lines().rev().take(5).collect();
            return Err(format!("a Debian {}: {}: {last:?} {}", self.name, made.status, made.stderr).into());
        }
        fs::rename(&part, &root)?;
        fs::write(list, self.packages)?;
        Ok(root)
    }
}
