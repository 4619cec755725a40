//! Runs a tool to its end. A tool that fails, or that does not end in time, is an error with the tool's own words.
//!
//! What a tool prints goes to files and not to pipes: a daemon it leaves behind may hold a pipe open for ever.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// How long a tool may take, unless the caller knows better.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a command left: its exit status and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs `command` and demands success; gives its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let finished = finish(command, PATIENCE)?;
    if !finished.status.success() {
        return Err(format!("{command:?}: {}: {}{}", finished.status, finished.stdout, finished.stderr).into());
    }
    Ok(finished.stdout)
}

/// Runs `command` to its end, whatever that is; only not ending within `patience` is an error, and kills it.
pub fn finish(command: &mut Command, patience: Duration) -> Result<Finished> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let status = wait(&mut child, patience).map_err(|error| format!("{command:?}: {error}"))?;
    let took = start.elapsed();
    Ok(Finished { status, stdout: rewound(&mut stdout)?, stderr: rewound(&mut stderr)?, took })
}

/// Waits for a child, but not longer than `patience`: then it is killed, and that is an error.
pub fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Err(format!("did not end within {patience:?}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until `condition` holds, at most `patience`; says whether it did, and after how long.
pub fn eventually(patience: Duration, mut condition: impl FnMut() -> bool) -> (bool, Duration) {
    let start = Instant::now();
    loop {
        if condition() {
            return (true, start.elapsed());
        }
        if start.elapsed() > patience {
            return (false, start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn rewound(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
