//! Who serves a mount: its broker and its worker, found in `/proc` each time and never remembered.
//!
//! What holds here: a broker is known by the fd it holds on its connection in fusectl, which the kernel names; a worker
//! is that broker's child. Processes that this user may not look into are not seen, and the caller knows that.

use crate::unmounter;
use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};

/// The processes behind one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The broker.
    pub broker: Pid,
    /// The worker, if it lives.
    pub worker: Option<Pid>,
}

/// Who serves the connection with this number.
pub(crate) fn pair(connection: u32) -> Option<Pair> {
    let broker = processes().find(|pid| is_broker(*pid, connection))?;
    Some(Pair { broker, worker: child(broker) })
}

/// Every process, by its number.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// The directory of a process.
pub(crate) fn place(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()))
}

fn is_broker(pid: Pid, connection: u32) -> bool {
    let fds = fs::read_dir(place(pid).join("fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| leads_to(&link, connection))
}

/// Whether this is the name of the connection's file `waiting`: below fusectl where it is mounted, or at the root of a
/// fusectl that is mounted nowhere.
fn leads_to(link: &Path, connection: u32) -> bool {
    let inside = link.strip_prefix("/sys/fs/fuse/connections").or_else(|_| link.strip_prefix("/"));
    inside.is_ok_and(|inside| inside == Path::new(&format!("{connection}/waiting")))
}

/// The only child of a broker that watches, but for the one that unmounts.
fn child(broker: Pid) -> Option<Pid> {
    processes().find(|pid| {
        let status = fs::read_to_string(place(*pid).join("status")).unwrap_or_default();
        // A worker that takes this name is not seen, and then there is none.
        parent(&status) == Some(broker) && line(&status, "Name:") != Some(unmounter::NAME)
    })
}

fn parent(status: &str) -> Option<Pid> {
    Pid::from_raw(line(status, "PPid:")?.parse().ok()?)
}

fn line<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_its_whole_number() {
        for link in ["/sys/fs/fuse/connections/41/waiting", "/41/waiting"] {
            assert!(leads_to(Path::new(link), 41) && !leads_to(Path::new(link), 1), "{link}");
        }
        for link in ["/home/41/waiting", "/41/abort", "41/waiting", "/sys/fs/fuse/connections/41"] {
            assert!(!leads_to(Path::new(link), 41), "{link}");
        }
    }

    #[test]
    fn this_process_is_found_by_what_it_holds() {
        let own = rustix::process::getpid();
        assert!(processes().any(|pid| pid == own));
        assert!(!is_broker(own, 41));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(parent(&status), rustix::process::getppid());
        assert!(pair(u32::MAX).is_none());
    }
}
