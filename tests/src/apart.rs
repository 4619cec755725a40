//! A test executable with a mount and a network namespace, a `/dev` and a `/run` of its own, so that a real udevd can run in
//! it beside whatever runs on this machine.
//!
//! What holds here: the kernel tells devices to every network namespace, and udevd to the listeners of its own; its
//! database, its socket and its links in `/dev` lie in file systems that are gone with the last process in here.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::Result;

/// Tells the executable that it is apart already.
const MARK: &str = "LAZARET_APART";

/// Nodes of devices are the kernel's work in the `/dev` that it keeps, and this script's here: those of loop devices also
/// that come later. What is mounted below is taken along.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/udev /run/new
mount -t tmpfs -o mode=755,dev tmpfs /run/new
for node in /dev/*; do
    if test -c "$node" || test -b "$node"; then cp -a "$node" /run/new/; fi
done
number=0
while test $number -lt 64; do
    test -b /run/new/loop$number || mknod /run/new/loop$number b 7 $number
    number=$((number + 1))
done
mkdir /run/new/pts /run/new/shm
ln -s /proc/self/fd /run/new/fd
mount --bind /dev/pts /run/new/pts 2>/dev/null || true
mount --move /run/new /dev
rmdir /run/new
exec "$@"
"#;

/// Whether this executable is apart.
pub fn is_entered() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts this executable again where it is apart, and does not return. Returns if it is already, or where it cannot be.
pub fn enter() -> Result {
    let possible =
        || Command::new("unshare").args(["--mount", "--net", "true"]).output().is_ok_and(|it| it.status.success());
    if is_entered() || !rustix::process::geteuid().is_root() || !Path::new("/dev/loop0").exists() || !possible() {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--propagation", "private", "--", "sh", "-c", SCRIPT, "sh"]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(MARK, "1");
    Err(format!("{command:?}: {}", command.exec()).into())
}
