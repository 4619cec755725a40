//! Programs as a user without any right, who may open /dev/fuse as on a desktop.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The uid and gid of that user.
pub const NOBODY: u32 = 65534;

/// Runs a command in its own mount namespace with a /dev/fuse that all may open, as nobody. `place` has a directory `dev`.
pub fn command(place: &Path, words: &[&str], more: &[&Path]) -> Command {
    command_after("", place, words, more)
}

/// Runs a program as nobody where /dev/fuse is open to all.
pub fn command_here(program: impl AsRef<OsStr>) -> Command {
    let mut setpriv = Command::new("setpriv");
    let nobody = NOBODY.to_string();
    setpriv.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]).arg(program);
    setpriv
}

/// The same after `first`, lines of a script.
pub fn command_after(first: &str, place: &Path, words: &[&str], more: &[&Path]) -> Command {
    let script = "set -e; place=$1; first=$2; nobody=$3; shift 3
        mount -t tmpfs none \"$place\"/dev
        mknod -m 666 \"$place\"/dev/fuse c 10 229
        mount --bind \"$place\"/dev/fuse /dev/fuse
        eval \"$first\"
        exec setpriv --reuid \"$nobody\" --regid \"$nobody\" --clear-groups \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(place).arg(first).arg(NOBODY.to_string());
    unshare.args(words).args(more);
    unshare
}
