//! The proof of a worker's confinement as a table for a person, and as an object for a program.

use crate::attest::{Proof, Stage};
use crate::escape::escaped;
use lazaret_policy::message::Purpose;
use lazaret_policy::seccomp::{ANSWERING, Answer, Row, SERVING};
use serde_json::{Map, Value, json};
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
        let (uid, brokers) = (self.status.first("Uid"), &self.broker_uid);
        row("uid", format!("{} (the broker's is {})", escaped(uid), escaped(brokers)))?;
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
        let limits: Vec<String> =
            self.cgroup.iter().map(|(name, value)| format!("{name} {}", escaped(value))).collect();
        row("cgroup", if limits.is_empty() { "sets no limit".to_owned() } else { limits.join(", ") })?;
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
    /// The same for a program: what cannot be read is null.
    pub(crate) fn object(&self) -> Value {
        let status = |name: &str| Value::from(self.status.field(name));
        let number = |name: &str| self.status.first(name).parse::<u64>().ok();
        let namespaces = self.namespaces.iter().map(|(name, link)| {
            let seen = link.as_ref().map(|(link, own)| json!({ "link": link, "own": own }));
            ((*name).to_owned(), json!(seen))
        });
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name.to_owned(), status(name)));
        let filters: Vec<_> = self.tasks.iter().map(|task| task.field("Seccomp_filters").parse::<u32>().ok()).collect();
        let fds = self.fds.as_ref().map(|fds| {
            let shown = |link: &Option<PathBuf>| json!(link.as_ref().map(|link| link.to_string_lossy()));
            fds.iter().map(|(fd, link)| (fd.to_string(), shown(link))).collect::<Map<_, _>>()
        });
        json!({
            "pid": self.pid,
            "uid": number("Uid"),
            "broker_uid": self.broker_uid.parse::<u32>().ok(),
            "threads": self.tasks.len(),
            "namespaces": namespaces.collect::<Map<_, _>>(),
            "capabilities": sets.into_iter().collect::<Map<_, _>>(),
            "no_new_privs": number("NoNewPrivs").map(|flag| flag == 1),
            "seccomp": number("Seccomp"),
            "filters": filters,
            "empty_root": self.root.map(|root| root == (1, 0)),
            "fds": fds,
            "cgroup": self.cgroup.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>(),
        })
    }

    fn landlock(&self) -> String {
        match self.layers.map(|layers| (layers.landlock, layers.scopes)) {
            None => "not to be seen from outside".to_owned(),
            Some((0, _)) => "none".to_owned(),
            Some((abi, true)) => format!("ABI {abi}, nothing allowed, scoped (as the worker reports)"),
            Some((abi, false)) => format!("ABI {abi}, nothing allowed, no scopes (as the worker reports)"),
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
