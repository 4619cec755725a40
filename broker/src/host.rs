//! What this host offers for a mount, beside the confinement of a worker: FUSE, its limits, cgroups.
//!
//! What holds here: everything is looked at and nothing is changed; what cannot be read is `None` and not guessed.

use crate::vulnerability;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};
use rustix::process::geteuid;
use std::fs;
use std::path::{Path, PathBuf};

/// FUSE, as this user finds it.
#[derive(Debug)]
pub(crate) struct Fuse {
    /// Whether /dev/fuse is there and may be opened for reading and writing.
    pub device: Result<(), Errno>,
    /// Who mounts: root by the kernel's own calls, all others by fusermount3.
    pub mounts_by: Option<&'static str>,
    /// Whether fusectl is mounted where everyone looks for it. Root does without.
    pub fusectl: bool,
    /// Pages that one request may carry. Linux 6.13.
    pub max_pages_limit: Option<u64>,
    /// Seconds after which the kernel itself ends a connection that does not answer; 0 for never. Linux 6.14.
    pub default_request_timeout: Option<u64>,
    /// The most that a server may ask for; 0 for any.
    pub max_request_timeout: Option<u64>,
}

/// A cgroup v2 tree.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// Where it is mounted.
    pub place: PathBuf,
    /// Its controllers: without memory, pids and cpu it limits nothing.
    pub controllers: Vec<String>,
}

/// Looks at FUSE.
pub(crate) fn fuse() -> Fuse {
    let limit = |name: &str| fs::read_to_string(format!("/proc/sys/fs/fuse/{name}")).ok()?.trim().parse().ok();
    Fuse {
        device: access("/dev/fuse", Access::READ_OK | Access::WRITE_OK),
        mounts_by: mounts_by(),
        fusectl: Path::new("/sys/fs/fuse/connections").read_dir().is_ok_and(|_| is_fusectl_mounted()),
        max_pages_limit: limit("max_pages_limit"),
        default_request_timeout: limit("default_request_timeout"),
        max_request_timeout: limit("max_request_timeout"),
    }
}

fn mounts_by() -> Option<&'static str> {
    if geteuid().is_root() {
        return fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC).is_ok().then_some("the kernel's mount calls");
    }
    crate::fusermount::is_there().then_some("fusermount3")
}

fn is_fusectl_mounted() -> bool {
    crate::mountinfo::read().is_ok_and(|lines| lines.iter().any(|line| line.kind == b"fusectl"))
}

/// The cgroup v2 tree, if one is mounted.
pub(crate) fn cgroup() -> Option<Cgroup> {
    let line = crate::mountinfo::read().ok()?.into_iter().find(|line| line.kind == b"cgroup2")?;
    let controllers = fs::read_to_string(line.mountpoint.join("cgroup.controllers")).unwrap_or_default();
    Some(Cgroup { place: line.mountpoint, controllers: controllers.split_whitespace().map(str::to_owned).collect() })
}

/// A setting of the kernel that keeps users from namespaces; `None` where there is no such setting.
pub(crate) fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// The kernel's release.
pub(crate) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The release of the main line that the kernel stands on. A distribution may keep one release for many of these, and
/// tells elsewhere which: Debian in the kernel's version, Ubuntu in a file of its own.
pub(crate) fn stands_on() -> String {
    let version = rustix::system::uname().version().to_string_lossy().into_owned();
    let signature = fs::read_to_string("/proc/version_signature").unwrap_or_default();
    told(&release(), &version, &signature)
}

fn told(release: &str, version: &str, signature: &str) -> String {
    let debian = version.split_once("Debian ").and_then(|(_, rest)| rest.split_whitespace().next());
    let ubuntu = signature.split_whitespace().nth(2).filter(|_| signature.starts_with("Ubuntu "));
    let number = |text: &str| vulnerability::version(text).map(|(major, minor, _)| (major, minor));
    // Whatever is told of another series is not told of this kernel.
    let same = |text: &&str| number(text).is_some() && number(text) == number(release);
    debian.or(ubuntu).filter(same).unwrap_or(release).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_distribution_tells_goes_before_its_name_for_the_kernel() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)";
        assert_eq!(told("6.1.0-56-amd64", debian, ""), "6.1.192-2");
        assert_eq!(told("6.18.44", "#1 SMP PREEMPT_DYNAMIC @0", ""), "6.18.44");
        assert_eq!(told("6.8.0-51-generic", "#52-Ubuntu SMP", "Ubuntu 6.8.0-51.52-generic 6.8.12\n"), "6.8.12");
        assert_eq!(told("6.9.1", debian, ""), "6.9.1", "of another series");
        assert_eq!(told("6.1.0-56-amd64", "Debian x", ""), "6.1.0-56-amd64");
    }

    #[test]
    fn the_kernel_tells_its_release_and_settings() {
        assert!(crate::vulnerability::version(&release()).is_some());
        assert!(setting("user/max_user_namespaces").is_some());
        assert_eq!(setting("no/such/setting"), None);
    }
}
