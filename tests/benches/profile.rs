//! Where the worker's time goes while it serves, as perf samples it: in the kernel, and in ours by what is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lazaret_tests::{Result, command, lazaret};
use serde_json::{Value, json};

use crate::workload::WORKLOADS;
use crate::{Plan, host};

/// Kinds of work, with words of the symbols that do it; the first that matches counts.
const KINDS: [(&str, &[&str]); 6] = [
    ("filter", &["seccomp", "bpf_prog"]),
    ("checksum", &["crc32"]),
    ("copy", &["memcpy", "memmove", "lazaret_copy", "copy_user", "copy_page", "rep_movs", "fuse_copy", "copy_folio"]),
    ("parse", &["lazaret_worker::ext4", "lazaret_worker::device"]),
    ("answer", &["fuser", "lazaret_worker", "alloc::", "core::", "talc", "std::"]),
    ("other of ours", &[""]),
];

/// Shares of time, in percent, of one workload.
pub(crate) struct Profile {
    workload: &'static str,
    shares: BTreeMap<String, f64>,
}

impl Profile {
    pub(crate) fn line(&self) -> String {
        let shares: Vec<_> = self.shares.iter().map(|(kind, share)| format!("{kind} {share:.0} %")).collect();
        format!("| {} | {} |", self.workload, shares.join(", "))
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "workload": self.workload, "percent": self.shares })
    }
}

/// One profile a workload; none where there is no perf.
pub(crate) fn shares(image: &Path, place: &Path, plan: &Plan) -> Result<Vec<Profile>> {
    if !plan.wants("profile") {
        return Ok(vec![]);
    }
    host::read_into_cache(image)?;
    let mut all = vec![];
    for workload in WORKLOADS {
        let mount = lazaret::Mount::with(image, &place.join("profile"), "defaults")?;
        let data = place.join("perf.data");
        let mut perf = Command::new("perf")
            .args(["record", "-q", "-F", "1999", "-e", "cpu-clock", "-p"])
            .arg(mount.worker.pid.to_string())
            .arg("-o")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("perf: {error}"))?;
        // It says nowhere that it has begun.
        std::thread::sleep(Duration::from_millis(500));
        (workload.run)(mount.path())?;
        mount.unmount(Duration::from_secs(1))?;
        command::wait(&mut perf, Duration::from_secs(30))?;
        let text =
            command::run(Command::new("perf").args(["report", "--stdio", "-q", "--sort", "sym", "-i"]).arg(&data))?;
        all.push(Profile { workload: workload.name, shares: sorted(&text) });
        println!("{}", all[all.len() - 1].line());
    }
    Ok(all)
}

/// Lines such as `  12.34%  [k] copy_page_to_iter`.
fn sorted(report: &str) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for line in report.lines() {
        let mut words = line.split_whitespace();
        let Some(share) = words.next().and_then(|word| word.strip_suffix('%')?.parse::<f64>().ok()) else { continue };
        let kernel = words.next() == Some("[k]");
        let symbol = words.collect::<Vec<_>>().join(" ");
        let (kind, _) =
            KINDS.iter().find(|(_, parts)| parts.iter().any(|part| symbol.contains(part))).unwrap_or(&KINDS[5]);
        let kind = if kernel && !matches!(*kind, "filter" | "copy") { "kernel" } else { kind };
        *shares.entry(kind.to_owned()).or_insert(0.0) += share;
    }
    shares
}
