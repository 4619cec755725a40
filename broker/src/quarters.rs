//! Where a worker is to live (namespaces, uid, root), and what of it is given up where the host refuses.
//!
//! What holds here: each thing given up is named with the host's reason; a plan only ever shrinks.

use crate::exit::{refused, words};
use crate::spawn::Step;
use bitflags::bitflags;
use lazaret_policy::{WORKER_UID_BASE, WORKER_UID_INSIDE};
use rustix::io::Errno;
use rustix::process::{geteuid, getpid, getuid};

bitflags! {
    /// Namespaces of the worker's own, as clone(2) numbers them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Namespaces: u64 {
        /// Its own capabilities, of which it keeps none.
        const USER = libc::CLONE_NEWUSER as u64;
        /// No file system but an empty one.
        const MOUNT = libc::CLONE_NEWNS as u64;
        /// No other process.
        const PID = libc::CLONE_NEWPID as u64;
        /// No network, not even abstract sockets.
        const NET = libc::CLONE_NEWNET as u64;
        /// No shared memory of others.
        const IPC = libc::CLONE_NEWIPC as u64;
        /// No host name.
        const UTS = libc::CLONE_NEWUTS as u64;
        /// No sight of the cgroup tree.
        const CGROUP = libc::CLONE_NEWCGROUP as u64;
    }
}

impl Namespaces {
    /// Each with its name in `/proc/PID/ns`.
    pub(crate) const NAMES: [(Self, &'static str); 7] = [
        (Self::USER, "user"),
        (Self::MOUNT, "mnt"),
        (Self::PID, "pid"),
        (Self::NET, "net"),
        (Self::IPC, "ipc"),
        (Self::UTS, "uts"),
        (Self::CGROUP, "cgroup"),
    ];
}

/// As whom the worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A uid and gid that nobody else has.
    Own(u32),
    /// The caller's: all that an unprivileged caller, or root in a container with few uids, can give.
    Callers,
}

/// What the next attempt to start a worker asks the host for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Uid and gid.
    pub identity: Identity,
    /// Whether the bounding set is emptied.
    pub bounding: bool,
    /// Whether the caller's supplementary groups are left.
    pub groups: bool,
    /// Whether the root is an empty one.
    pub empty_root: bool,
    given_up: Vec<String>,
}

/// Where a worker lives.
#[derive(Clone, Debug)]
pub(crate) struct Quarters {
    /// Namespaces of its own.
    pub namespaces: Namespaces,
    /// Its uid as the broker sees it.
    pub uid: u32,
    /// Its capability bounding set is empty.
    pub bounding: bool,
    /// Its root is empty.
    pub empty_root: bool,
    /// What the host refused, and its reason.
    pub given_up: Vec<String>,
}

impl Plan {
    /// Everything that this caller can ask for.
    pub(crate) fn new() -> Self {
        let root = geteuid().is_root();
        let number = WORKER_UID_BASE.saturating_add(getpid().as_raw_nonzero().get().unsigned_abs());
        Self {
            namespaces: Namespaces::all(),
            identity: if root { Identity::Own(number) } else { Identity::Callers },
            bounding: true,
            groups: root,
            empty_root: true,
            given_up: vec![],
        }
    }

    /// Asks for no namespace but these. False if that is no smaller plan, or the host's answer means something else.
    pub(crate) fn narrow_namespaces(&mut self, granted: Namespaces, errno: Errno) -> bool {
        let lost = self.namespaces - granted;
        if lost.is_empty() || !not_given(errno) {
            return false;
        }
        let names: Vec<&str> =
            Namespaces::NAMES.iter().filter(|(one, _)| lost.contains(*one)).map(|(_, name)| *name).collect();
        self.given_up.push(format!("{} namespace ({})", names.join(", "), words(errno)));
        self.namespaces = granted;
        if !granted.contains(Namespaces::MOUNT) {
            self.empty_root = false;
        }
        if !granted.contains(Namespaces::USER) && !geteuid().is_root() {
            self.bounding = false;
        }
        true
    }

    /// After it could not be put into a cgroup with limits.
    pub(crate) fn give_up_cgroup(&mut self, error: std::io::Error) {
        self.given_up.push(format!("limits of a cgroup ({})", words(error)));
    }

    /// After its uid could not be mapped. False if there is nothing left to give up.
    pub(crate) fn give_up_mapping(&mut self, error: &std::io::Error) -> bool {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::INVAL);
        match self.identity {
            _ if !not_given(errno) => false,
            Identity::Own(_) => self.give_up_identity(errno),
            Identity::Callers => {
                let rest = if geteuid().is_root() { Namespaces::all() - Namespaces::USER } else { Namespaces::empty() };
                self.narrow_namespaces(self.namespaces & rest, errno)
            }
        }
    }

    /// After a step of the child was refused. False if a worker is not started without it.
    pub(crate) fn give_up(&mut self, step: Step, errno: Errno) -> bool {
        let what = match step {
            _ if !not_given(errno) => return false,
            Step::Bounding if self.bounding => {
                // Told by whoever sees that it is not empty.
                self.bounding = false;
                return true;
            }
            Step::Groups if self.groups => {
                self.groups = false;
                "leaving supplementary groups"
            }
            Step::Root if self.empty_root => {
                // A copy of the host's tree hides nothing, and keeps alive what the host unmounts.
                self.namespaces -= Namespaces::MOUNT;
                self.empty_root = false;
                "mnt namespace with an empty root"
            }
            Step::Identity => return self.give_up_identity(errno),
            _ => return false,
        };
        self.given_up.push(format!("{what} ({})", words(errno)));
        true
    }

    fn give_up_identity(&mut self, errno: Errno) -> bool {
        if self.identity == Identity::Callers {
            return false;
        }
        self.identity = Identity::Callers;
        self.given_up.push(format!("uid of its own ({})", words(errno)));
        true
    }

    /// The namespaces that it is born in. The mount namespace is taken later: it begins as a copy of all the host's mounts.
    pub(crate) fn at_once(&self) -> Namespaces {
        self.namespaces - Namespaces::MOUNT
    }

    /// The uid and gid to take as the child's own namespace counts them; `None` to stay who it is.
    pub(crate) fn inside(&self) -> Option<(u32, u32)> {
        match self.identity {
            _ if self.namespaces.contains(Namespaces::USER) => Some((WORKER_UID_INSIDE, WORKER_UID_INSIDE)),
            Identity::Own(number) => Some((number, number)),
            Identity::Callers => None,
        }
    }

    /// What a worker started by this plan has.
    pub(crate) fn quarters(self) -> Quarters {
        let uid = match self.identity {
            Identity::Own(number) => number,
            Identity::Callers => getuid().as_raw(),
        };
        let Self { namespaces, bounding, empty_root, given_up, .. } = self;
        Quarters { namespaces, uid, bounding, empty_root, given_up }
    }
}

/// Whether the host's answer means that it does not give this, and not that something is broken.
fn not_given(errno: Errno) -> bool {
    refused(errno) || matches!(errno, Errno::INVAL | Errno::NOSPC | Errno::USERS | Errno::NOSYS | Errno::NODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shrinks_step_by_step_and_says_so() {
        let mut plan = Plan::new();
        assert!(plan.give_up(Step::Root, Errno::ACCESS));
        assert!(!plan.give_up(Step::Root, Errno::ACCESS), "twice");
        assert!(plan.narrow_namespaces(Namespaces::PID | Namespaces::NET, Errno::PERM));
        let quarters = plan.quarters();
        assert!(!quarters.empty_root);
        assert_eq!(quarters.given_up[0], "mnt namespace with an empty root (permission denied)");
        assert_eq!(quarters.given_up[1], "user, ipc, uts, cgroup namespace (operation not permitted)");
    }

    #[test]
    fn what_is_not_a_refusal_gives_nothing_up() {
        let mut plan = Plan::new();
        assert!(!plan.narrow_namespaces(Namespaces::empty(), Errno::NOMEM));
        assert!(!plan.give_up(Step::Execute, Errno::ACCESS));
        assert!(!plan.give_up(Step::Bounding, Errno::IO));
        assert!(plan.quarters().given_up.is_empty());
    }
}
