//! `lazaret` where there is next to nothing: as nobody, in a mount namespace without /dev/fuse and /proc/sys.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::requirement::Requirement;
use crate::{Result, lazaret};

/// What it takes to have less.
pub const BARE: &[Requirement] = &[
    Requirement::Root,
    Requirement::Loop,
    Requirement::KernelExt4,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("debugfs"),
    Requirement::Tool("losetup"),
    Requirement::Tool("setpriv"),
    Requirement::Tool("unshare"),
    Requirement::Tool("sfdisk"),
    Requirement::Tool("sgdisk"),
    Requirement::Tool("script"),
    Requirement::Tool("tar"),
];

/// What a command left, byte by byte.
#[derive(Debug)]
pub struct Left {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, which is text.
    pub stderr: String,
}

/// `lazaret` with these arguments, where there is next to nothing.
pub fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = shell("exec \"$@\"");
    command.arg(lazaret::broker()).args(arguments);
    command
}

/// A shell script there. What is added to the command are its arguments.
pub fn shell(script: &str) -> Command {
    let less = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mount -t tmpfs none /proc/sys &&
        exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", less, "sh", script, "sh"]);
    command
}

/// Runs it to its end, with its standard output in a file.
pub fn run_into(command: &mut Command, path: &Path) -> Result<Left> {
    command.stdout(File::create(path)?);
    run(command)
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Result<Left> {
    command.env("LC_ALL", "C").env("TZ", "UTC").env_remove("COLUMNS").stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let stderr = String::from_utf8(output.stderr).map_err(|_| "bytes of an image reached stderr")?;
    Ok(Left { code: output.status.code(), stdout: output.stdout, stderr })
}

impl Left {
    /// Its standard output, if it ended well.
    pub fn done(self) -> Result<Vec<u8>> {
        if self.code == Some(0) { Ok(self.stdout) } else { Err(format!("exit code 0 is wanted: {self:?}").into()) }
    }

    /// Demands this exit code and words on standard error.
    pub fn refused(self, code: i32, words: &[&str]) -> Result<Self> {
        let missing: Vec<_> = words.iter().filter(|word| !self.stderr.contains(**word)).collect();
        let harmless = self.stderr.chars().all(|letter| letter == '\n' || !letter.is_control());
        if self.code == Some(code) && missing.is_empty() && harmless && self.stderr.starts_with("lazaret: ") {
            return Ok(self);
        }
        Err(format!("exit code {code} and {words:?} are wanted, this came: {self:?}").into())
    }
}
