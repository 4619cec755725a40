//! Starts the worker: a process of its own in namespaces of its own, with a uid of its own, an empty root, and no fd
//! but the channel and stderr.
//!
//! What holds here: between clone and exec the child makes system calls and nothing else, it allocates nothing; a step
//! that fails is reported to the broker as what it is; what the host refuses is given up by name and never silently.
#![expect(unsafe_code, reason = "clone3, unshare, setgroups, close_range and execveat have no safe form")]

use crate::cgroup::Cgroup;
use crate::executable;
use crate::exit::{Failure, words};
use crate::process::Process;
use crate::quarters::{Identity, Namespaces, Plan, Quarters};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal, getgid, getuid, pivot_root, setsid};
use rustix::thread::{
    CapabilitiesSecureBits, Gid, Uid, UnshareFlags, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};
use std::ffi::{CStr, c_long};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// What the child does between clone and exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// Waits for the broker's word that its identity is mapped.
    Go,
    /// A session of its own, so that no signal to the caller's process group reaches it, and none of its reach out.
    Session,
    /// Empties the bounding set and fixes the secure bits.
    Bounding,
    /// Leaves the caller's groups.
    Groups,
    /// Takes its group and uid.
    Identity,
    /// Dies with the broker.
    DeathSignal,
    /// A mount namespace of its own, with an empty read-only root.
    Root,
    /// The fds of a worker and no other.
    Fds,
    /// Becomes the worker.
    Execute,
}

const STEPS: [(Step, &str); 9] = [
    (Step::Go, "waiting for the broker"),
    (Step::Session, "a session of its own"),
    (Step::Bounding, "emptying the capability bounding set"),
    (Step::Groups, "leaving the caller's groups"),
    (Step::Identity, "taking its uid"),
    (Step::DeathSignal, "tying its life to the broker's"),
    (Step::Root, "an empty root"),
    (Step::Fds, "closing file descriptors"),
    (Step::Execute, "executing lazaret-worker"),
];

/// How one attempt ended short of a worker.
enum Refused {
    /// The namespaces.
    Clone(Errno),
    /// The way into its cgroup.
    Enter(std::io::Error),
    /// The maps of its user namespace.
    Map(std::io::Error),
    /// A step of the child.
    Child(Step, Errno),
}

/// Marks every fd above stderr as not to be handed to a program: nothing of the caller's reaches a daemon or a worker.
pub(crate) fn disinherit() {
    // Where the kernel cannot, the child's own attempt fails with the reason.
    let _ = close_range_on_exec();
}

/// Starts the worker with this as its standard input, in this group.
pub(crate) fn spawn(channel: BorrowedFd<'_>, mut cgroup: Option<&Cgroup>) -> Result<(Process, Quarters), Failure> {
    let executable = executable::open("lazaret-worker")?;
    let mut plan = Plan::new();
    loop {
        let (step, errno) = match attempt(&plan, channel, executable.as_fd(), cgroup) {
            Ok(process) => return Ok((process, plan.quarters())),
            Err(Refused::Clone(errno)) if plan.narrow_namespaces(granted(plan.namespaces), errno) => continue,
            Err(Refused::Clone(errno)) => return Err(failed("a new process", errno.into())),
            Err(Refused::Enter(error)) => {
                cgroup = None;
                plan.give_up_cgroup(error);
                continue;
            }
            Err(Refused::Map(error)) if plan.give_up_mapping(&error) => continue,
            Err(Refused::Map(error)) => return Err(failed("mapping its uid", error)),
            Err(Refused::Child(step, errno)) if plan.give_up(step, errno) => continue,
            Err(Refused::Child(step, errno)) => (step, errno),
        };
        return Err(failed(STEPS[step as usize].1, errno.into()));
    }
}

fn failed(step: &str, error: std::io::Error) -> Failure {
    Failure::system(format!("the worker cannot be started: {step}: {}", words(error)))
}

/// One attempt to start a worker as planned.
fn attempt(
    plan: &Plan,
    channel: BorrowedFd<'_>,
    executable: BorrowedFd<'_>,
    cgroup: Option<&Cgroup>,
) -> Result<Process, Refused> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(Refused::Clone)?;
    let Some(process) = clone(plan.at_once()).map_err(Refused::Clone)? else {
        drop(ours);
        let failure = become_worker(plan, channel, executable, theirs.as_fd());
        let (step, errno) = failure;
        let _ = send(&theirs, &report(step, errno), SendFlags::NOSIGNAL);
        // SAFETY: ends this process without running anything of the broker's.
        unsafe { libc::_exit(127) }
    };
    drop(theirs);
    if let Some(cgroup) = cgroup {
        cgroup.enter(process.pid()).map_err(Refused::Enter)?;
    }
    if plan.namespaces.contains(Namespaces::USER) {
        write_maps(process.pid(), plan).map_err(Refused::Map)?;
    }
    let _ = send(&ours, b"go", SendFlags::NOSIGNAL);
    // The child's end closes when it becomes the worker, or after it has said what failed.
    let mut answer = [0; 5];
    match rustix::io::retry_on_intr(|| recv(&ours, &mut answer, RecvFlags::empty())) {
        Ok((0, _)) => Ok(process),
        Ok(_) => Err(read_report(answer)),
        Err(errno) => Err(Refused::Child(Step::Go, errno)),
    }
}

fn report(step: Step, errno: Errno) -> [u8; 5] {
    let [a, b, c, d] = errno.raw_os_error().to_ne_bytes();
    [step as u8, a, b, c, d]
}

fn read_report([step, a, b, c, d]: [u8; 5]) -> Refused {
    let step = STEPS.get(usize::from(step)).map_or(Step::Go, |(step, _)| *step);
    Refused::Child(step, Errno::from_raw_os_error(i32::from_ne_bytes([a, b, c, d])))
}

/// What one step does; a reference, since the child cannot allocate.
type Act<'a> = &'a dyn Fn() -> Result<(), Errno>;

/// The child's way to the worker. Returns only if a step fails.
fn become_worker(plan: &Plan, channel: BorrowedFd<'_>, exe: BorrowedFd<'_>, broker: BorrowedFd<'_>) -> (Step, Errno) {
    // The order is measured: the bounding set can be emptied only before the uid changes, and the change of uid clears
    // the death signal.
    let steps: [(Step, Act<'_>); 9] = [
        (Step::Go, &|| recv(broker, &mut [0; 2], RecvFlags::empty()).map(|_| ())),
        (Step::Session, &|| setsid().map(|_| ())),
        (Step::Bounding, &|| if plan.bounding { close_bounding_set() } else { Ok(()) }),
        (Step::Groups, &|| if plan.groups { leave_groups() } else { Ok(()) }),
        (Step::Identity, &|| take_identity(plan)),
        (Step::DeathSignal, &|| die_with(broker)),
        (Step::Root, &|| if plan.empty_root { enter_empty_root() } else { Ok(()) }),
        (Step::Fds, &|| keep_fds(channel)),
        (Step::Execute, &|| execute(exe)),
    ];
    for (step, act) in steps {
        if let Err(errno) = act() {
            return (step, errno);
        }
    }
    (Step::Execute, Errno::NOEXEC)
}

fn close_bounding_set() -> Result<(), Errno> {
    for capability in 0..64_u64 {
        // SAFETY: numbers only; past the last capability the kernel says EINVAL.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } == 0 {
            continue;
        }
        match Errno::from_raw_os_error(last_errno()) {
            Errno::INVAL => break,
            errno => return Err(errno),
        }
    }
    // uid 0 means nothing, a change of uid changes no capability, nothing is kept or raised; and all of it for good.
    rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::from_bits_retain(0xff))
}

fn leave_groups() -> Result<(), Errno> {
    // SAFETY: with a count of 0 the kernel reads no list. libc's own function would signal threads that are not here.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) }).map(|_| ())
}

fn take_identity(plan: &Plan) -> Result<(), Errno> {
    let Some((uid, gid)) = plan.inside() else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn die_with(broker: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A broker that died before this line sends no signal any more, but its end of the pair is closed.
    match recv(broker, &mut [0; 1], RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN) => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// A new mount namespace begins as a copy of the whole tree, and a file system lives as long as it is in any copy: what
/// the host unmounts meanwhile does not end. So the copy is made here, as the last thing, thrown away a few calls
/// later, and follows the host's unmounts until then where the host shares its mounts.
fn enter_empty_root() -> Result<(), Errno> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // SAFETY: without UnshareFlags::FILES no fd of another owner is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)?;
    // Any directory serves as the place to mount it; /proc is there, or the broker could attest nothing.
    mount(c"none", c"/proc", c"tmpfs", flags, c"size=4k,nr_inodes=1,mode=0555")?;
    rustix::process::chdir(c"/proc")?;
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn keep_fds(channel: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    rustix::stdio::dup2_stdin(channel)?;
    close_range_on_exec()
}

fn close_range_on_exec() -> Result<(), Errno> {
    // SAFETY: numbers only; it closes nothing now, and who executes a program keeps no fd above stderr.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(|_| ())
}

fn execute(executable: BorrowedFd<'_>) -> Result<(), Errno> {
    let arguments = [c"lazaret-worker".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    let empty: &CStr = c"";
    // SAFETY: both lists end with a null pointer, and every string with a null byte; all outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            executable.as_raw_fd(),
            empty.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    })
    .map(|_| ())
}

/// The uid and gid of the worker's user namespace.
fn write_maps(pid: Pid, plan: &Plan) -> std::io::Result<()> {
    let place = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let (uid, gid) = match plan.identity {
        Identity::Own(number) => (number, number),
        Identity::Callers => (getuid().as_raw(), getgid().as_raw()),
    };
    let inside = lazaret_policy::WORKER_UID_INSIDE;
    if !plan.groups {
        std::fs::write(place.join("setgroups"), "deny")?;
    }
    std::fs::write(place.join("uid_map"), format!("{inside} {uid} 1"))?;
    std::fs::write(place.join("gid_map"), format!("{inside} {gid} 1"))
}

/// Those of these namespaces that the host gives, found by asking for each.
fn granted(wanted: Namespaces) -> Namespaces {
    let base = wanted & Namespaces::USER;
    let base = if works(base) { base } else { Namespaces::empty() };
    wanted.iter().filter(|one| base.contains(*one) || works(base | *one)).collect()
}

/// Whether a process can be started in these namespaces.
fn works(namespaces: Namespaces) -> bool {
    match clone(namespaces) {
        // SAFETY: ends the child without running anything of the broker's.
        Ok(None) => unsafe { libc::_exit(0) },
        Ok(Some(_)) => true,
        Err(_) => false,
    }
}

/// A new process as fork(2) gives, in new namespaces: `None` in the child.
fn clone(namespaces: Namespaces) -> Result<Option<Process>, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all zeros is a valid value: no flags, no pointers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces.bits() | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child has a copy of everything, as after fork; the broker has one thread, so the
    // copy holds no lock of another. The kernel writes the new fd to `pidfd`, which lives.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments)) })?;
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        None => Ok(None),
        // SAFETY: the kernel has just made this fd, and nobody else knows it.
        Some(pid) => Ok(Some(Process::new(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result < 0 { Err(Errno::from_raw_os_error(last_errno())) } else { Ok(result) }
}

fn last_errno() -> i32 {
    // SAFETY: libc's errno of this thread is always there.
    unsafe { *libc::__errno_location() }
}
