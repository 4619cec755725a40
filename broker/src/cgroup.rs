//! A cgroup of the worker's own, where there is a cgroup v2 tree and this process may make one in it: bounds that hold for
//! what the kernel keeps for the worker, too (cgroup-v2 of the kernel's admin-guide).
//!
//! What holds here: a group is made only where it limits something; the worker is in it before it is executed; the group
//! goes when the worker has gone, or with the next start if the broker was killed.

use crate::mountinfo;
use rustix::fs::{AtFlags, CWD, unlinkat};
use rustix::process::{Pid, getpid};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes beside its heap: stacks, page tables, what the kernel keeps for it, and cached pages of the image, which go first.
const BESIDE: u64 = 192 << 20;
/// Processes beside the threads that answer: the first one, and the second that a start may need.
const PROCESSES: u64 = 2;
/// Two processors, in microseconds of 100 000.
const PROCESSOR: &str = "200000 100000";

/// Names of groups: this, and the number of the broker.
const PREFIX: &str = "lazaret-";

/// What a worker may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of heap.
    pub memory: u64,
    /// Threads that answer.
    pub threads: u8,
}

/// A group. Dropping it takes it away; by then nobody may be in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    place: PathBuf,
}

impl Cgroup {
    /// Makes a group with limits; `None` where the host has no tree, none of the controllers in it, or does not let us.
    pub(crate) fn make(limits: Limits) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::below(&tree()?, path_in(&own)?, limits)
    }

    /// As near to our own group as can be: who limits us by a slice limits the worker by it, too.
    fn below(tree: &Path, own: &str, limits: Limits) -> Option<Self> {
        // Outside of what a cgroup namespace shows.
        if own.split('/').any(|part| part == "..") {
            return None;
        }
        let own = tree.join(own.trim_start_matches('/'));
        let parents = own.ancestors().take_while(|parent| parent.starts_with(tree));
        parents.filter(|parent| controls(parent)).find_map(|parent| Self::within(parent, limits))
    }

    fn within(parent: &Path, limits: Limits) -> Option<Self> {
        take_leftovers_away(parent);
        let place = parent.join(format!("{PREFIX}{}", getpid().as_raw_nonzero()));
        fs::create_dir(&place).ok()?;
        let group = Self { place };
        // A controller that is not there has no file, and one that takes no limit is as good as not there.
        let set = group.limits(limits).map(|(name, value)| fs::write(group.place.join(name), value).is_ok());
        set.contains(&true).then_some(group)
    }

    /// No `memory.high`: one who takes all memory would not be ended by it but held up, and its clients with it.
    fn limits(&self, Limits { memory, threads }: Limits) -> [(&'static str, String); 5] {
        [
            ("memory.max", memory.saturating_add(BESIDE).to_string()),
            ("memory.swap.max", "0".to_owned()),
            ("memory.oom.group", "1".to_owned()),
            ("pids.max", u64::from(threads).saturating_add(PROCESSES).to_string()),
            ("cpu.max", PROCESSOR.to_owned()),
        ]
    }

    /// Puts a process in. What it starts is in the same group.
    pub(crate) fn enter(&self, process: Pid) -> std::io::Result<()> {
        fs::write(self.place.join("cgroup.procs"), process.as_raw_nonzero().to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Not by std, which asks for it with a call that the broker's filter has not.
        let _ = unlinkat(CWD, &self.place, AtFlags::REMOVEDIR);
    }
}

/// Where the tree is mounted.
pub(crate) fn tree() -> Option<PathBuf> {
    Some(mountinfo::read().ok()?.into_iter().find(|line| line.kind == b"cgroup2")?.mountpoint)
}

/// The limits of the group that a process is in, as the kernel shows them; nothing where none is set.
pub(crate) fn limits_of(process: &Path) -> Vec<(&'static str, String)> {
    let group = fs::read_to_string(process.join("cgroup")).ok();
    let place =
        group.as_deref().and_then(path_in).zip(tree()).map(|(path, tree)| tree.join(path.trim_start_matches('/')));
    let Some(place) = place else { return vec![] };
    let limit = |name| Some((name, fs::read_to_string(place.join(name)).ok()?.trim().to_owned()));
    let limits = ["memory.max", "pids.max", "cpu.max"].into_iter().filter_map(limit);
    limits.filter(|(_, value)| !value.starts_with("max")).collect()
}

/// The path in the v2 tree, of a `cgroup` file of `/proc`.
fn path_in(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Whether groups below this one can be limited.
fn controls(group: &Path) -> bool {
    let enabled = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_whitespace().any(|name| ["memory", "pids", "cpu"].contains(&name))
}

/// Groups of brokers that are no more. One with a process in it stays: the kernel does not take it away.
fn take_leftovers_away(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let broker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        // Our own number: of one who had it before.
        if broker.is_some_and(|pid| i64::from(pid) == i64::from(getpid().as_raw_nonzero().get()) || !runs(pid)) {
            let _ = unlinkat(CWD, entry.path(), AtFlags::REMOVEDIR);
        }
    }
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory: 64 << 20, threads: 2 };

    /// What looks like a tree: of real ones there are those that the host gives.
    fn tree_with(groups: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (group, enabled) in groups {
            fs::create_dir_all(place.path().join(group)).unwrap();
            fs::write(place.path().join(group).join("cgroup.subtree_control"), enabled).unwrap();
        }
        place
    }

    #[test]
    fn the_group_lies_below_the_nearest_that_controls() {
        let tree = tree_with(&[("", "cpu memory pids\n"), ("user", "memory pids\n"), ("user/session", "\n")]);
        let group = Cgroup::below(tree.path(), "/user/session", LIMITS).unwrap();
        assert_eq!(group.place.parent(), Some(&*tree.path().join("user")));
        let limit = |name: &str| fs::read_to_string(group.place.join(name)).unwrap();
        assert_eq!((limit("memory.max"), limit("pids.max")), ((256 << 20).to_string(), "4".to_owned()));
        assert_eq!((limit("memory.oom.group"), limit("cpu.max")), ("1".to_owned(), PROCESSOR.to_owned()));
        group.enter(getpid()).unwrap();
        assert_eq!(limit("cgroup.procs"), getpid().as_raw_nonzero().to_string());
    }

    #[test]
    fn where_nothing_controls_there_is_no_group() {
        let tree = tree_with(&[("", "hugetlb\n"), ("user", "")]);
        assert!(Cgroup::below(tree.path(), "/user", LIMITS).is_none());
        assert!(fs::read_dir(tree.path().join("user")).unwrap().count() == 1);
        let above = tree_with(&[("", "pids\n"), ("inside", "")]);
        assert!(Cgroup::below(&above.path().join("inside"), "/../x", LIMITS).is_none());
    }

    #[test]
    fn groups_of_those_who_are_gone_are_taken_away() {
        let tree = tree_with(&[("", "pids\n")]);
        let own = format!("{PREFIX}{}", getpid().as_raw_nonzero());
        // More than there can be, the first process, ours, and what is not ours to take.
        for name in ["lazaret-4294967295", "lazaret-1", &own, "lazaret-x", "other-4294967295"] {
            fs::create_dir(tree.path().join(name)).unwrap();
        }
        take_leftovers_away(tree.path());
        let left: Vec<bool> = ["lazaret-4294967295", "lazaret-1", &own, "lazaret-x", "other-4294967295"]
            .map(|name| tree.path().join(name).exists())
            .to_vec();
        assert_eq!(left, [false, true, false, true, true]);
    }

    #[test]
    fn the_path_is_that_of_the_second_version() {
        assert_eq!(path_in("4:memory:/a\n0::/user.slice/x\n"), Some("/user.slice/x"));
        assert_eq!(path_in("4:memory:/a\n"), None);
    }
}
