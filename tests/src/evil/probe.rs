//! What a lost worker tries, to get out: each attempt is made so that it would succeed if nothing stood in its way, and
//! so that it harms nobody when it does.
#![allow(unsafe_code, reason = "whoever tries what a lost worker can do must make calls that no library makes")]

use std::ptr;

use super::call::{call, thread};

/// What an attempt may use.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where the device is mapped.
    pub device: u64,
    /// The number of the FUSE_INIT request, which was answered.
    pub init: u64,
}

/// An attempt: what the kernel returned, errors as negative numbers.
pub type Attempt = fn(&Place) -> i64;

/// Nobody else is there.
const NOBODY: i64 = -(libc::ESRCH as i64);
const HERE: u64 = libc::AT_FDCWD as u64;
const PAGE: u64 = 4096;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
/// `_IOR(229, 0, uint32_t)`, `_IOW(229, 1, struct fuse_backing_map)` of 16 bytes, `_IO(229, 3)`.
const FUSE_DEV_IOC_CLONE: u64 = 0x8004_e500;
const FUSE_DEV_IOC_BACKING_OPEN: u64 = 0x4010_e501;
const FUSE_DEV_IOC_SYNC_INIT: u64 = 0xe503;

/// A number of this architecture's table.
fn make<const N: usize>(number: i64, given: [u64; N]) -> i64 {
    let mut arguments = [0; 6];
    arguments[..N].copy_from_slice(&given);
    // SAFETY: every pointer in the table below is to something that is as long as the call wants and outlives it, and
    // what a call does to this process when it succeeds is this process's last deed.
    unsafe { call(number.unsigned_abs(), arguments) }
}

fn at<T: ?Sized>(thing: &T) -> u64 {
    ptr::from_ref(thing).cast::<u8>() as u64
}

/// With room for what the kernel writes, of 512 bytes.
fn room(with: impl FnOnce(u64) -> i64) -> i64 {
    let mut room = [0_u64; 64];
    with(ptr::from_mut(&mut room).cast::<u8>() as u64)
}

/// What was made, and is taken away again.
fn removed(made: i64, remove: impl FnOnce(u64) -> i64) -> i64 {
    if made >= 0 {
        remove(made.unsigned_abs());
    }
    made
}

fn map(length: u64, rights: i32, flags: i32, fd: i64) -> i64 {
    make(libc::SYS_mmap, [0, length, rights as u64, flags as u64, fd as u64, 0])
}

/// The process outside that started this one; 0 if it cannot be named from here.
fn parent() -> u64 {
    make(libc::SYS_getppid, []).unsigned_abs()
}

/// A clone as fork(2) makes it. The child ends at once.
fn fork(flags: i32) -> i64 {
    let child = make(libc::SYS_clone, [(flags | libc::SIGCHLD) as u64]);
    if child == 0 {
        make(libc::SYS_exit_group, [0]);
    }
    child
}

/// A message with /dev/fuse in it to the broker.
fn send_fd() -> i64 {
    #[repr(C, align(8))]
    struct Control {
        header: libc::cmsghdr,
        fd: u64,
    }
    let byte = [0_u8];
    let piece = libc::iovec { iov_base: at(&byte) as *mut _, iov_len: 1 };
    let length = size_of::<libc::cmsghdr>() + 4;
    let header = libc::cmsghdr { cmsg_len: length, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    let control = Control { header, fd: 3 };
    // SAFETY: all zeros is a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = at(&piece) as *mut _;
    message.msg_iovlen = 1;
    message.msg_control = at(&control) as *mut _;
    message.msg_controllen = size_of::<Control>();
    make(libc::SYS_sendmsg, [0, at(&message), libc::MSG_NOSIGNAL as u64])
}

/// A second answer to FUSE_INIT: protocol 7.31, everything allowed.
fn answer_init_again(place: &Place) -> i64 {
    let body = [7_u32, 31, 1 << 20, u32::MAX, 0x0010_0010, 1 << 20, 1, 256, u32::MAX, 0, 0, 0, 0, 0, 0, 0];
    let mut reply = vec![16 + 64_u32, 0, (place.init & 0xffff_ffff) as u32, (place.init >> 32) as u32];
    reply.extend(body);
    let piece = libc::iovec { iov_base: at(&reply[0]) as *mut _, iov_len: reply.len() * 4 };
    make(libc::SYS_writev, [3, at(&piece), 1])
}

/// A byte of the device, written where it is mapped.
fn write_device(place: &Place) -> i64 {
    // SAFETY: none: that this faults is what is to be seen.
    unsafe { ptr::without_provenance_mut::<u8>(place.device as usize).write_volatile(1) };
    0
}

/// Whether a signal to the process group would reach anybody else.
fn shared_group() -> i64 {
    let (own, group) = (make(libc::SYS_getpid, []), make(libc::SYS_getpgid, [0]));
    if own == group { NOBODY } else { 0 }
}

/// Asks whether a signal would be delivered to a process that is another.
fn signal(number: u64) -> i64 {
    if number == 0 || number as i64 == make(libc::SYS_getpid, []) {
        return NOBODY;
    }
    make(libc::SYS_kill, [number, 0])
}

/// Each with its name. The order is that of the instruction's numbers.
pub const PROBES: &[(&str, Attempt)] = &[
    // Files.
    ("open the root directory", |_| make(libc::SYS_openat, [HERE, at(c"/"), libc::O_DIRECTORY as u64])),
    ("open /etc/passwd", |_| make(libc::SYS_openat, [HERE, at(c"/etc/passwd"), 0])),
    ("open /proc/self/mem", |_| make(libc::SYS_openat, [HERE, at(c"/proc/self/mem"), libc::O_RDWR as u64])),
    ("open /dev/fuse again", |_| make(libc::SYS_openat, [HERE, at(c"/dev/fuse"), libc::O_RDWR as u64])),
    ("a file in /tmp", |_| {
        // Without a name, so that it is gone with this process.
        make(libc::SYS_openat, [HERE, at(c"/tmp"), (libc::O_TMPFILE | libc::O_RDWR) as u64, 0o600])
    }),
    ("ask for the attributes of /etc/passwd", |_| {
        room(|room| make(libc::SYS_statx, [HERE, at(c"/etc/passwd"), 0, 0x7ff, room]))
    }),
    ("make a directory", |_| {
        let name = format!("/tmp/lazaret-evil-{}\0", make(libc::SYS_getuid, []));
        let made = make(libc::SYS_mkdirat, [HERE, at(name.as_bytes()), 0o700]);
        make(libc::SYS_unlinkat, [HERE, at(name.as_bytes()), libc::AT_REMOVEDIR as u64]);
        made
    }),
    ("make a device node", |_| make(libc::SYS_mknodat, [HERE, at(c"/tmp/lazaret-evil"), 0o20600, 0x0103])),
    ("change the directory", |_| make(libc::SYS_chdir, [at(c"/")])),
    ("change the root directory", |_| make(libc::SYS_chroot, [at(c"/")])),
    ("a file in memory", |_| make(libc::SYS_memfd_create, [at(c"x"), 0])),
    ("a secret file in memory", |_| make(libc::SYS_memfd_secret, [0])),
    ("a pipe", |_| room(|room| make(libc::SYS_pipe2, [room, 0]))),
    ("a copy of a descriptor", |_| make(libc::SYS_dup, [3])),
    ("epoll", |_| make(libc::SYS_epoll_create1, [0])),
    ("eventfd", |_| make(libc::SYS_eventfd2, [0, 0])),
    ("timerfd", |_| make(libc::SYS_timerfd_create, [1, 0])),
    ("inotify", |_| make(libc::SYS_inotify_init1, [0])),
    ("fanotify", |_| make(libc::SYS_fanotify_init, [0, 0])),
    ("open by handle", |_| make(libc::SYS_open_by_handle_at, [HERE, at(&[8_u32, 1, 0, 0]), 0])),
    // The network, and sockets.
    ("a socket of the Internet", |_| make(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0])),
    ("a socket of this host", |_| make(libc::SYS_socket, [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0])),
    ("a socket of the kernel", |_| make(libc::SYS_socket, [libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 0])),
    ("a pair of sockets", |_| {
        room(|room| make(libc::SYS_socketpair, [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0, room]))
    }),
    ("connect to an abstract socket", |_| make(libc::SYS_connect, [0, at(b"\x01\0\0lazaret-evil"), 15])),
    ("send a descriptor to the broker", |_| send_fd()),
    ("take a descriptor of the broker's", |_| make(libc::SYS_pidfd_getfd, [3, 0, 0])),
    // Processes.
    ("a process", |_| fork(0)),
    ("a process in a new user namespace", |_| fork(libc::CLONE_NEWUSER)),
    ("a process by clone3", |_| {
        let how = [0_u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
        let child = make(libc::SYS_clone3, [at(&how), 64]);
        if child == 0 {
            make(libc::SYS_exit_group, [0]);
        }
        child
    }),
    ("a thread", |_| thread()),
    ("execute a program", |_| make(libc::SYS_execve, [at(c"/bin/true"), at(&[at(c"true"), 0]), at(&[0_u64])])),
    ("execute a descriptor", |_| {
        make(libc::SYS_execveat, [3, at(c""), at(&[at(c"x"), 0]), at(&[0_u64]), libc::AT_EMPTY_PATH as u64])
    }),
    ("a new user namespace", |_| make(libc::SYS_unshare, [libc::CLONE_NEWUSER as u64])),
    ("a new mount namespace", |_| make(libc::SYS_unshare, [libc::CLONE_NEWNS as u64])),
    ("enter a namespace", |_| make(libc::SYS_setns, [3, 0])),
    ("a signal to the parent", |_| signal(parent())),
    ("a signal to the first process", |_| signal(1)),
    ("a signal to anybody", |_| {
        // kill(-1) says nothing of whether anybody was reached.
        let reached = (1..1000).map(signal).find(|returned| *returned == 0);
        reached.unwrap_or(NOBODY)
    }),
    ("a signal to others of the group", |_| shared_group()),
    ("trace the parent", |_| match parent() {
        0 => NOBODY,
        parent => make(libc::SYS_ptrace, [libc::PTRACE_SEIZE as u64, parent, 0, 0]),
    }),
    ("let oneself be traced", |_| make(libc::SYS_ptrace, [libc::PTRACE_TRACEME as u64])),
    ("read the parent's memory", |_| match parent() {
        0 => NOBODY,
        parent => room(|room| {
            let (local, remote) = ([room, 8], [0x1000_u64, 8]);
            make(libc::SYS_process_vm_readv, [parent, at(&local), 1, at(&remote), 1, 0])
        }),
    }),
    ("a descriptor of the parent", |_| match parent() {
        0 => NOBODY,
        parent => make(libc::SYS_pidfd_open, [parent, 0]),
    }),
    ("compare with the parent", |_| match parent() {
        0 => NOBODY,
        parent => make(libc::SYS_kcmp, [parent, 1, 0, 0, 0]),
    }),
    ("a better priority", |_| make(libc::SYS_setpriority, [0, 0, (-20_i64) as u64])),
    ("a real-time priority", |_| make(libc::SYS_sched_setscheduler, [0, libc::SCHED_FIFO as u64, at(&1_u32)])),
    // Mounts.
    ("mount", |_| make(libc::SYS_mount, [at(c"none"), at(c"/"), at(c"tmpfs"), 0, 0])),
    ("unmount", |_| make(libc::SYS_umount2, [at(c"/"), libc::MNT_DETACH as u64])),
    ("exchange the root", |_| make(libc::SYS_pivot_root, [at(c"/"), at(c"/")])),
    ("a context to mount", |_| make(libc::SYS_fsopen, [at(c"tmpfs"), 0])),
    ("a copy of a mount", |_| make(libc::SYS_open_tree, [HERE, at(c"/"), 1])),
    ("attributes of a mount", |_| {
        let how = [0_u64, 1, 0, 0];
        make(libc::SYS_mount_setattr, [HERE, at(c"/"), 0, at(&how), 32])
    }),
    // What the kernel has besides.
    ("io_uring", |_| room(|room| make(libc::SYS_io_uring_setup, [4, room]))),
    ("bpf", |_| make(libc::SYS_bpf, [0, at(&[2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0]), 48])),
    ("ask for a key", |_| make(libc::SYS_keyctl, [0, (-3_i64) as u64, 1])),
    ("add a key", |_| make(libc::SYS_add_key, [at(c"user"), at(c"lazaret"), at(c"x"), 1, (-2_i64) as u64])),
    ("userfaultfd", |_| make(libc::SYS_userfaultfd, [1])),
    ("perf", |_| {
        let what = [1_u32, 128, 1, 0, 0, 0, 0, 0, 0, 0, 0x60, 0];
        let mut all = [0_u32; 32];
        all[..12].copy_from_slice(&what);
        make(libc::SYS_perf_event_open, [at(&all), 0, u64::MAX, u64::MAX, 0])
    }),
    ("load a module", |_| make(libc::SYS_init_module, [at(b"\x7fELF"), 4, at(c"")])),
    ("read the kernel's log", |_| make(libc::SYS_syslog, [10, 0, 0])),
    ("forbid Ctrl-Alt-Del", |_| make(libc::SYS_reboot, [0xfee1_dead, 672_274_793, 0])),
    ("name the host", |_| make(libc::SYS_sethostname, [at(b"x"), 1])),
    ("a ruleset of Landlock", |_| make(libc::SYS_landlock_create_ruleset, [at(&[1_u64]), 8, 0])),
    // Memory that others can have, and more of it.
    ("shared memory of System V", |_| {
        removed(make(libc::SYS_shmget, [0, PAGE, 0o1600]), |id| make(libc::SYS_shmctl, [id, 0, 0]))
    }),
    ("messages of System V", |_| removed(make(libc::SYS_msgget, [0, 0o1600]), |id| make(libc::SYS_msgctl, [id, 0, 0]))),
    ("messages of POSIX", |_| {
        let queue = make(libc::SYS_mq_open, [at(c"lazaret-evil"), (libc::O_CREAT | 2) as u64, 0o600, 0]);
        removed(queue, |_| make(libc::SYS_mq_unlink, [at(c"lazaret-evil")]))
    }),
    ("map memory writable and executable", |_| map(PAGE, READ_WRITE | libc::PROT_EXEC, PRIVATE, -1)),
    ("map memory executable", |_| map(PAGE, libc::PROT_READ | libc::PROT_EXEC, PRIVATE, -1)),
    ("make the heap executable", |_| match map(PAGE, READ_WRITE, PRIVATE, -1) {
        base if base < 0 => base,
        base => make(libc::SYS_mprotect, [base as u64, PAGE, (libc::PROT_READ | libc::PROT_EXEC) as u64]),
    }),
    ("map half a gibibyte", |_| map(512 << 20, READ_WRITE, PRIVATE, -1)),
    ("map shared memory", |_| map(128 << 20, READ_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)),
    ("lock memory", |place| make(libc::SYS_mlock, [place.device, PAGE])),
    ("grow the heap of libc", |_| {
        let end = make(libc::SYS_brk, [0]);
        if make(libc::SYS_brk, [(end + 4096) as u64]) > end { 0 } else { -i64::from(libc::ENOMEM) }
    }),
    // The device.
    ("make the device writable", |place| make(libc::SYS_mprotect, [place.device, PAGE, READ_WRITE as u64])),
    ("make the device executable", |place| make(libc::SYS_mprotect, [place.device, PAGE, 5])),
    ("write to the device", write_device),
    // Itself.
    ("become root", |_| make(libc::SYS_setresuid, [0, 0, 0])),
    ("take a group", |_| make(libc::SYS_setgroups, [1, at(&[0_u32])])),
    ("take a capability", |_| {
        make(libc::SYS_capset, [at(&[0x2008_0522_u32, 0]), at(&[1_u32 << 21, 1 << 21, 0, 0, 0, 0])])
    }),
    ("be dumpable", |_| make(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0])),
    ("raise a limit", |_| make(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as u64, at(&[64_u64, 64]), 0])),
    ("write a core", |_| make(libc::SYS_prlimit64, [0, libc::RLIMIT_CORE as u64, at(&[u64::MAX, u64::MAX]), 0])),
    // /dev/fuse.
    ("clone /dev/fuse", |_| make(libc::SYS_ioctl, [3, FUSE_DEV_IOC_CLONE, at(&3_u32)])),
    ("pass a file through", |_| make(libc::SYS_ioctl, [3, FUSE_DEV_IOC_BACKING_OPEN, at(&[3_u64, 0])])),
    ("start /dev/fuse anew", |_| make(libc::SYS_ioctl, [3, FUSE_DEV_IOC_SYNC_INIT])),
    ("map /dev/fuse", |_| map(PAGE, libc::PROT_READ, libc::MAP_SHARED, 3)),
    ("owner of /dev/fuse", |_| make(libc::SYS_fcntl, [3, libc::F_SETOWN as u64, 1])),
    ("flags of /dev/fuse", |_| make(libc::SYS_fcntl, [3, libc::F_SETFL as u64, libc::O_NONBLOCK as u64])),
    ("move pages into /dev/fuse", |_| {
        let page = [0_u8; 64];
        make(libc::SYS_vmsplice, [3, at(&[at(&page), 64]), 1, 0])
    }),
    ("answer FUSE_INIT again", answer_init_again),
];
