//! Is the worker really confined? Looks at it from outside, in `/proc`, before anything is handed over.
//!
//! What holds here: the worker's own word is used only for what cannot be seen from outside (Landlock), and never
//! alone; what can be seen and is wrong stops the mount.

use crate::cgroup;
use crate::exit::{Failure, words};
use crate::options::Strictness;
use crate::quarters::{Namespaces, Quarters};
use crate::served;
use lazaret_policy::message::{Layers, Purpose};
use lazaret_policy::{CHANNEL_FD, FUSE_FD, seccomp};
use rustix::process::{Pid, geteuid};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

/// How far the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has confined itself and holds nothing yet.
    Confined,
    /// It has the device, its last filter is on, no byte has left it.
    Ready(Purpose),
}

impl Stage {
    /// The seccomp filters that each of its threads has then.
    fn filters(self) -> u32 {
        let first = seccomp::filters(seccomp::STARTING);
        match self {
            Self::Confined => first,
            Self::Ready(Purpose::Mount) => first.saturating_add(seccomp::filters(seccomp::SERVING)),
            Self::Ready(Purpose::Tool | Purpose::Scan) => first.saturating_add(seccomp::filters(seccomp::ANSWERING)),
        }
    }
}

/// What was seen of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// Its number.
    pub pid: i32,
    /// When it was looked at.
    pub stage: Stage,
    /// `/proc/PID/status` of the process.
    pub status: Status,
    /// `/proc/PID/task/TID/status` of each thread.
    pub tasks: Vec<Status>,
    /// The uid of its broker.
    pub broker_uid: String,
    /// Name, own link, and whether it is another than the broker's. `None`: not readable.
    pub namespaces: Vec<(&'static str, Option<(String, bool)>)>,
    /// What its fds lead to. `None`: not readable.
    pub fds: Option<BTreeMap<RawFd, Option<PathBuf>>>,
    /// The mounts it sees, and what lies in its root. `None`: not readable.
    pub root: Option<(usize, usize)>,
    /// What limits its cgroup, besides its own limits.
    pub cgroup: Vec<(&'static str, String)>,
    /// What it has said of itself. `None`: whoever looks has not heard it.
    pub layers: Option<Layers>,
}

/// A `status` file of `/proc`, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status(BTreeMap<String, String>);

/// Looks at the worker of this broker.
pub(crate) fn look(pid: Pid, broker: Pid, stage: Stage, layers: Option<Layers>) -> Result<Proof, Failure> {
    let (place, beside) = (served::place(pid), served::place(broker));
    let unseen = |error: std::io::Error| Failure::system(format!("the worker cannot be seen: {}", words(error)));
    let mut tasks = vec![];
    for task in std::fs::read_dir(place.join("task")).map_err(unseen)? {
        tasks.push(Status::read(&task.map_err(unseen)?.path()).map_err(unseen)?);
    }
    Ok(Proof {
        pid: pid.as_raw_nonzero().get(),
        stage,
        status: Status::read(&place).map_err(unseen)?,
        tasks,
        broker_uid: Status::read(&beside).map_err(unseen)?.first("Uid").to_owned(),
        namespaces: Namespaces::NAMES.map(|(_, name)| (name, namespace(&place, &beside, name))).to_vec(),
        fds: fds(&place),
        root: root(&place),
        cgroup: cgroup::limits_of(&place),
        layers,
    })
}

impl Proof {
    /// Whether it is what was planned and what must be. The error names the first thing that is not.
    pub(crate) fn check(&self, quarters: &Quarters, strictness: Strictness) -> Result<(), String> {
        self.check_status(&self.status, quarters)?;
        for task in &self.tasks {
            self.check_status(task, quarters)?;
        }
        if self.tasks.is_empty() {
            return Err("it has no threads to look at".into());
        }
        // Root, and the owner of the worker's user namespace, may look at everything. Else what is not readable is shown
        // as such, and the status above is what counts.
        let may_look = geteuid().is_root() || quarters.namespaces.contains(Namespaces::USER);
        for (flag, name) in Namespaces::NAMES.iter().filter(|(flag, _)| quarters.namespaces.contains(*flag)) {
            let seen = self.namespaces.iter().find(|(seen, _)| seen == name).and_then(|(_, link)| link.as_ref());
            match seen {
                Some((_, true)) => {}
                Some((_, false)) => return Err(format!("its {name} namespace is the broker's")),
                None if may_look => return Err(format!("its {name} namespace ({flag:?}) cannot be read")),
                None => {}
            }
        }
        match self.root {
            Some((1, 0)) => {}
            Some(_) if quarters.empty_root => return Err("its root is not empty".into()),
            None if quarters.empty_root && may_look => return Err("its root cannot be looked at".into()),
            _ => {}
        }
        match &self.fds {
            Some(fds) => self.check_fds(fds)?,
            // Before Linux 5.11 only root may count the fds of a process that cannot be dumped.
            None if geteuid().is_root() => return Err("its file descriptors cannot be read".into()),
            None => {}
        }
        if strictness == Strictness::Strict
            && self.layers.is_some_and(|layers| layers.landlock == 0)
            && !quarters.empty_root
        {
            return Err("neither Landlock nor an empty root holds it; confine=degraded would accept that".into());
        }
        Ok(())
    }

    fn check_status(&self, status: &Status, quarters: &Quarters) -> Result<(), String> {
        let filters = self.stage.filters();
        status.require("Seccomp", |value| value == "2", "it has no seccomp filter")?;
        status.require(
            "Seccomp_filters",
            |value| value.parse().is_ok_and(|count: u32| count >= filters),
            "a seccomp filter is missing",
        )?;
        status.require("NoNewPrivs", |value| value == "1", "it could gain privileges by executing")?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if set != "CapBnd" || quarters.bounding {
                status.require(set, is_zero, "it has capabilities")?;
            }
        }
        let uid = quarters.uid.to_string();
        status.require(
            "Uid",
            |value| value.split_whitespace().all(|one| one == uid),
            "it runs under another uid than planned",
        )
    }

    fn check_fds(&self, fds: &BTreeMap<RawFd, Option<PathBuf>>) -> Result<(), String> {
        let expected: &[RawFd] = match self.stage {
            Stage::Confined => &[CHANNEL_FD, 1, 2],
            Stage::Ready(Purpose::Mount) => &[CHANNEL_FD, FUSE_FD],
            Stage::Ready(Purpose::Tool | Purpose::Scan) => &[CHANNEL_FD],
        };
        if !fds.keys().eq(expected) {
            return Err(format!("its open file descriptors are {:?} instead of {expected:?}", fds.keys()));
        }
        let leads_to = |fd: RawFd, what: &str| {
            let link = fds.get(&fd).and_then(Option::as_ref);
            link.is_none_or(|link| link.to_string_lossy().starts_with(what))
        };
        if !leads_to(CHANNEL_FD, "socket:") {
            return Err(format!("its file descriptor {CHANNEL_FD} is not the channel"));
        }
        if !leads_to(FUSE_FD, "/dev/fuse") {
            return Err(format!("its file descriptor {FUSE_FD} is not /dev/fuse"));
        }
        Ok(())
    }

    /// Layers that this host does not give, for a warning.
    pub(crate) fn missing(&self, quarters: &Quarters) -> Vec<String> {
        let mut missing = quarters.given_up.clone();
        let said = self.layers.unwrap_or_default();
        let layers = [
            (is_zero(self.status.field("CapBnd")), "empty capability bounding set"),
            (said.landlock > 0, "Landlock"),
            (said.landlock == 0 || said.scopes, "Landlock scopes"),
            (said.mdwe, "PR_SET_MDWE"),
        ];
        missing.extend(layers.iter().filter(|(holds, _)| !holds).map(|(_, name)| (*name).to_owned()));
        missing
    }
}

impl Status {
    fn read(place: &Path) -> std::io::Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&std::fs::read(place.join("status"))?)))
    }

    fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// The value of a field; empty if the kernel has no such field.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The first word of a field.
    pub(crate) fn first(&self, name: &str) -> &str {
        self.field(name).split_whitespace().next().unwrap_or_default()
    }

    fn require(&self, name: &str, holds: impl Fn(&str) -> bool, otherwise: &str) -> Result<(), String> {
        let value = self.field(name);
        // Kernels before 5.9 do not count filters.
        if holds(value) || name == "Seccomp_filters" && !self.0.contains_key(name) {
            return Ok(());
        }
        Err(format!("{otherwise} ({name}: {})", crate::escape::escaped(value)))
    }
}

fn is_zero(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|digit| digit == b'0')
}

fn namespace(place: &Path, beside: &Path, name: &str) -> Option<(String, bool)> {
    let own = std::fs::read_link(beside.join("ns").join(name)).ok()?;
    let link = std::fs::read_link(place.join("ns").join(name)).ok()?;
    Some((link.to_string_lossy().into_owned(), link != own))
}

fn fds(place: &Path) -> Option<BTreeMap<RawFd, Option<PathBuf>>> {
    // A worker cannot be dumped, so only root may see where its fds lead; their numbers are open to whoever owns its
    // user namespace.
    let entries = std::fs::read_dir(place.join("fd")).or_else(|_| std::fs::read_dir(place.join("fdinfo"))).ok()?;
    entries
        .map(|entry| {
            let number = entry.ok()?.file_name();
            let link = std::fs::read_link(place.join("fd").join(&number)).ok();
            Some((number.to_str()?.parse().ok()?, link))
        })
        .collect()
}

fn root(place: &Path) -> Option<(usize, usize)> {
    let mounts = std::fs::read(place.join("mountinfo")).ok()?;
    let mounts = mounts.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    // A root with many mounts is the host's own: it is not empty, and how full it is does not matter.
    let entries = if mounts == 1 { std::fs::read_dir(place.join("root")).ok()?.count() } else { 1 };
    Some((mounts, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "0000000000000000";

    fn status(change: &[(&str, &str)]) -> Status {
        let text = format!(
            "Name:\tlazaret-worker\nUid:\t3000000001\t3000000001\t3000000001\t3000000001\nCapInh:\t{ZERO}\n\
             CapPrm:\t{ZERO}\nCapEff:\t{ZERO}\nCapBnd:\t{ZERO}\nCapAmb:\t{ZERO}\nNoNewPrivs:\t1\nSeccomp:\t2\n\
             Seccomp_filters:\t3\n"
        );
        let mut status = Status::parse(&text);
        status.0.extend(change.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        status
    }

    fn link(path: &str) -> Option<PathBuf> {
        Some(path.into())
    }

    fn proof(stage: Stage, change: &[(&str, &str)]) -> Proof {
        let mut fds = BTreeMap::from([(0, link("socket:[1]"))]);
        match stage {
            Stage::Confined => fds.extend([(1, link("/dev/pts/0")), (2, link("/dev/pts/0"))]),
            Stage::Ready(Purpose::Mount) => fds.extend([(3, link("/dev/fuse"))]),
            Stage::Ready(Purpose::Tool | Purpose::Scan) => {}
        }
        Proof {
            pid: 1,
            stage,
            status: status(&[]),
            tasks: vec![status(&[]), status(change)],
            broker_uid: "0".into(),
            namespaces: Namespaces::NAMES.map(|(_, name)| (name, Some(("x:[1]".into(), true)))).to_vec(),
            fds: Some(fds),
            root: Some((1, 0)),
            cgroup: vec![],
            layers: Some(Layers { landlock: 7, scopes: true, mdwe: true, ..Layers::default() }),
        }
    }

    fn quarters() -> Quarters {
        Quarters {
            namespaces: Namespaces::all(),
            uid: 3_000_000_001,
            bounding: true,
            empty_root: true,
            given_up: vec![],
        }
    }

    fn check(proof: &Proof) -> Result<(), String> {
        proof.check(&quarters(), Strictness::Strict)
    }

    #[test]
    fn a_confined_worker_passes_at_every_stage() {
        for stage in [Stage::Confined, Stage::Ready(Purpose::Mount), Stage::Ready(Purpose::Tool)] {
            assert_eq!(check(&proof(stage, &[])), Ok(()));
        }
    }

    #[test]
    fn each_thing_that_is_wrong_in_any_thread_is_named() {
        let wrong = [
            ("Seccomp", "0"),
            ("Seccomp", ""),
            ("Seccomp_filters", "2"),
            ("NoNewPrivs", "0"),
            ("CapEff", "0000000000000001"),
            ("CapBnd", "000001ffffffffff"),
            ("CapAmb", ""),
            ("Uid", "3000000001\t0\t3000000001\t3000000001"),
        ];
        for (name, value) in wrong {
            let error = check(&proof(Stage::Ready(Purpose::Mount), &[(name, value)])).unwrap_err();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn an_fd_too_many_or_of_another_kind_is_seen() {
        let mut seen = proof(Stage::Ready(Purpose::Mount), &[]);
        seen.fds.as_mut().unwrap().insert(4, link("/dev/sda"));
        assert!(check(&seen).unwrap_err().contains("file descriptors"));
        seen.fds = Some(BTreeMap::from([(0, link("socket:[1]")), (3, link("/dev/sda"))]));
        assert!(check(&seen).unwrap_err().contains("/dev/fuse"));
        seen.fds = Some(BTreeMap::from([(0, None), (3, None)]));
        assert_eq!(check(&seen), Ok(()), "only their numbers are readable");
    }

    #[test]
    fn a_namespace_or_root_of_the_host_is_seen() {
        let mut seen = proof(Stage::Confined, &[]);
        seen.namespaces[3].1 = Some(("net:[1]".into(), false));
        assert!(check(&seen).unwrap_err().contains("net namespace"));
        let mut seen = proof(Stage::Confined, &[]);
        seen.root = Some((1, 1));
        assert!(check(&seen).unwrap_err().contains("root"));
    }

    #[test]
    fn without_landlock_and_root_only_degraded_is_enough() {
        let mut seen = proof(Stage::Confined, &[]);
        seen.layers.as_mut().unwrap().landlock = 0;
        let open = Quarters { empty_root: false, ..quarters() };
        assert!(seen.check(&open, Strictness::Strict).unwrap_err().contains("Landlock"));
        assert_eq!(seen.check(&open, Strictness::Degraded), Ok(()));
        assert_eq!(seen.missing(&open), ["Landlock"]);
    }

    #[test]
    fn the_status_of_this_process_is_read() {
        let own = Status::read(Path::new("/proc/self")).unwrap();
        assert!(own.field("Uid").split_whitespace().count() == 4);
        assert_eq!(own.field("no such field"), "");
    }
}
