//! A Debian 13 to try on what a package and the daemons of a desktop do: made once by debootstrap and kept below `target`,
//! entered with a layer over it that goes with the test.
//!
//! What holds here: whatever is started in it lives in its process namespace, and whatever is mounted in its mount
//! namespace. Both end when the guard is dropped, and also when the test is killed: its first process waits for the end of a
//! pipe. It has network, message bus and udev of its own, and its own /dev; the kernel tells its udev of loop devices
//! like any other.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::command::{self, Finished, finish};
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
    Requirement::Tool("nsenter"),
    Requirement::Tool("losetup"),
];

const SUITE: &str = "trixie";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The daemons of a desktop, and who judges a package.
const PACKAGES: &str = "udev,dbus,polkitd,udisks2,fuse3,groff-base,lintian";
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

/// The first process: it mounts the root with its layer, makes it the root, and reaps until the pipe ends.
const FIRST: &str = r#"
read -r pid rest </proc/self/stat
mount -t tmpfs none "$PLACE"
cd "$PLACE"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=upper,workdir=work" root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 none dev
mount -t tmpfs -o mode=755 none run
mkdir dev/shm run/lock run/dbus run/mount
node() { mknod -m "$2" "dev/$1" "$3" "$4" "$5"; }
node null 666 c 1 3; node zero 666 c 1 5; node full 666 c 1 7
node random 666 c 1 8; node urandom 666 c 1 9; node tty 666 c 5 0
node fuse 666 c 10 229; node loop-control 660 c 10 237
for number in {0..255}; do node loop$number 660 b 7 $number; done
ln -s /proc/self/fd dev/fd
pivot_root . mnt
umount -l /mnt
echo "$pid"
exec >/dev/null
while read -r line; do :; done
"#;

/// One that runs. Dropping it ends all that was started in it.
pub struct Debian {
    first: Child,
    pid: String,
}

impl Debian {
    /// Starts one that nothing was changed in, with its layer at this empty directory.
    pub fn start(place: &Path) -> Result<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "bash", "-euc", FIRST]);
        unshare.env("PLACE", place).env("BASE", base()?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut first = unshare.spawn()?;
        let mut pid = String::new();
        BufReader::new(first.stdout.take().ok_or("no pipe")?).read_line(&mut pid)?;
        let debian = Self { first, pid: pid.trim().to_owned() };
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
        nsenter.args(["--target", &self.pid, "--mount", "--pid", "--net", "--ipc", "--root", "--wd"]);
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
        if let Ok(pid) = self.pid.parse() {
            process::kill(pid);
        }
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

/// The root that is kept.
fn base() -> Result<PathBuf> {
    static BASE: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BASE.get_or_init(|| made().map_err(|error| error.to_string())).clone().map_err(Into::into)
}

/// The same, made if it is not there or was made of other packages.
fn made() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(4).ok_or("a test lies in target/HOST/PROFILE/deps")?;
    let place = target.join("debian");
    fs::create_dir_all(&place)?;
    let lock = File::create(place.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let (root, list) = (place.join(SUITE), place.join(format!("{SUITE}.packages")));
    if root.is_dir() && fs::read_to_string(&list).is_ok_and(|there| there == PACKAGES) {
        return Ok(root);
    }
    let part = place.join(format!("{SUITE}.part"));
    for old in [&root, &part] {
        command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(old))?;
    }
    // What it mounts meanwhile goes with its namespace.
    let mut make = Command::new("unshare");
    make.args(["--mount", "bash", "-euc", MAKE]).env("PART", &part).env("SUITE", SUITE).env("MIRROR", MIRROR);
    let made = finish(make.env("PACKAGES", PACKAGES), PATIENCE)?;
    if made.code() != Some(0) {
        let last: Vec<&str> = made.stdout.lines().rev().take(5).collect();
        return Err(format!("a Debian {SUITE}: {}: {last:?} {}", made.status, made.stderr).into());
    }
    fs::rename(&part, &root)?;
    fs::write(list, PACKAGES)?;
    Ok(root)
}
