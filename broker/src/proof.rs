//! The proof of a worker's confinement as a table for a person.

use crate::attest::{Proof, Stage};
use crate::escape::escaped;
use lazaret_policy::message::Purpose;
use lazaret_policy::seccomp::{ANSWERING, Answer, Row, SERVING};
use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Column where values begin.
const WIDTH: usize = 18;
const UNREADABLE: &str = "not readable";

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:WIDTH$}{value}");
        row("worker pid", self.pid.to_string())?;
        let uid = self.status.field("Uid").split_whitespace().next().unwrap_or_default();
        row("uid", format!("{} (the broker's is {})", escaped(uid), rustix::process::geteuid().as_raw()))?;
        for (name, link) in &self.namespaces {
            let value = match link {
                Some((link, true)) => format!("{}, differs from the broker's", escaped(link)),
                Some((link, false)) => format!("{}, THE BROKER'S", escaped(link)),
                None => UNREADABLE.to_owned(),
            };
            row(&format!("namespace {name}"), value)?;
        }
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"] {
            row(name, escaped(self.status.field(name)).to_string())?;
        }
        let filters: Vec<&str> = self.tasks.iter().map(|task| task.field("Seccomp_filters")).collect();
        row("seccomp filters", format!("{} (one number a thread)", escaped(&filters.join(" "))))?;
        row("Landlock", self.landlock())?;
        let root = match self.root {
            Some((1, 0)) => "empty, the only mount it sees".to_owned(),
            Some((mounts, _)) => format!("NOT EMPTY, {mounts} mounts"),
            None => UNREADABLE.to_owned(),
        };
        row("root directory", root)?;
        let fds = self.fds.as_ref().map(|fds| {
            let shown: Vec<String> = fds.iter().map(fd_words).collect();
            shown.join(", ")
        });
        row("open fds", fds.unwrap_or_else(|| UNREADABLE.to_owned()))?;
        row("system calls", self.calls())
    }
}

fn fd_words((fd, link): (&RawFd, &Option<PathBuf>)) -> String {
    match link {
        Some(link) => format!("{fd} {}", escaped(link)),
        None => format!("{fd} (where it leads is {UNREADABLE})"),
    }
}

impl Proof {
    fn landlock(&self) -> String {
        match (self.layers.landlock, self.layers.scopes) {
            (0, _) => "none".to_owned(),
            (abi, true) => format!("ABI {abi}, nothing allowed, scoped (as the worker reports)"),
            (abi, false) => format!("ABI {abi}, nothing allowed, no scopes (as the worker reports)"),
        }
    }

    /// The calls of the filter that is on at this stage.
    fn calls(&self) -> String {
        let table: &[Row] = match self.stage {
            Stage::Confined => return "those of the start".to_owned(),
            Stage::Ready(Purpose::Mount) => SERVING,
            Stage::Ready(Purpose::Tool | Purpose::Scan) => ANSWERING,
        };
        table.iter().filter(|row| row.answer == Answer::Allow).map(|row| row.name).collect::<Vec<_>>().join(" ")
    }
}
