//! The mount: made detached, attached at the end, taken away when this is dropped.
//!
//! What holds here: no path and no fd on the own mount is used in a way that asks the worker. Its number and its
//! connection come from statx without synchronisation and from the mount table.

use crate::connection::{self, Connection};
use crate::device::{self, Source};
use crate::escape::escaped;
use crate::exit::{Code, Failure, refused, say, words};
use crate::iomap::Prepared;
use crate::mount_id::{MountId, look};
use crate::mountinfo::{self, MountLine};
use crate::options::Options;
use crate::unmounter::Unmounter;
use crate::{fusermount, served};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxAttributes, StatxFlags, open, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_create_exclusive, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use rustix::process::{getegid, geteuid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where to mount: a directory, held open so that it stays the one that was checked.
#[derive(Debug)]
pub(crate) struct Mountpoint {
    fd: OwnedFd,
    path: PathBuf,
}

/// A mount of ours, attached or not yet. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Mount {
    id: MountId,
    connection: Connection,
    /// Until it is attached. Kept no longer: an open fd would make the mount busy.
    detached: Option<OwnedFd>,
    /// Without root, who takes it away.
    unmounter: Option<Unmounter>,
    ended: bool,
}

/// Who the mount is for: the kernel lets nobody else enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Mountpoint {
    /// Opens it. One that carries a mount of ours already is busy, unless nobody serves that any more: then it is taken
    /// away.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = match Self::open_directory(path) {
            Ok((_, Some(line))) if clear(&line) => Self::open_directory(path),
            opened => opened,
        };
        match opened {
            Ok((point, None)) => Ok(point),
            Ok(_) => Err(Failure::mount("the mountpoint is busy: lazaret has mounted something there already")),
            Err(failure) => Err(failure),
        }
        .map_err(|failure| failure.about(path))
    }

    /// The directory, and the mount of ours that is there already.
    fn open_directory(path: &Path) -> Result<(Self, Option<MountLine>), Failure> {
        let fd =
            open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(
                |errno| match errno {
                    Errno::NOENT => Failure::mount("the mountpoint does not exist"),
                    Errno::NOTDIR => Failure::mount("the mountpoint is not a directory"),
                    _ if refused(errno) => Failure::system(format!("the mountpoint: {}", words(errno))),
                    _ => Failure::mount(format!("the mountpoint: {}", words(errno))),
                },
            )?;
        let seen = look(fd.as_fd())?;
        let root = seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let occupied = mountinfo::with_id(seen.stx_mnt_id).ok().flatten().filter(|line| root && line.is_lazaret());
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = std::fs::read_link(link)
            .map_err(|error| Failure::system(format!("/proc cannot be read: {}", words(error))))?;
        Ok((Self { fd, path }, occupied))
    }
}

/// Takes a mount of ours away that nobody serves: its broker was killed. False where somebody does, or may.
fn clear(line: &MountLine) -> bool {
    let root = geteuid().is_root();
    // A user sees the brokers that are his own, and those only where fusectl is mounted.
    let seen = || line.user == Some(geteuid().as_raw()) && connection::is_listed(line.device);
    if !(root || seen()) || !is_dead(line) {
        return false;
    }
    if root {
        unmount(&line.mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()
    } else {
        fusermount::unmount(&line.mountpoint, true).is_ok()
    }
}

/// Whether nobody is there who could answer. Only then is the mount itself asked, and says so at once.
fn is_dead(line: &MountLine) -> bool {
    let unserved = (0..2).all(|look| {
        // Twice, since fusermount3 mounts a moment before a broker has its connection.
        if look > 0 {
            std::thread::sleep(Duration::from_millis(200));
        }
        served::pair(line.device).is_none()
    });
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    // To whom the mount is closed it says that first.
    let asked = || statx(CWD, &line.mountpoint, flags, StatxFlags::BASIC_STATS);
    unserved && matches!(asked(), Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::ACCESS))
}

impl Mount {
    /// Makes the mount, and gives the worker's side of it. As root nobody can reach it yet; without root fusermount3
    /// attaches it at once, and whoever enters waits.
    pub(crate) fn make(
        source: &Source,
        mountpoint: &Mountpoint,
        options: &Options,
    ) -> Result<(Self, OwnedFd, Option<Prepared>), Failure> {
        if !geteuid().is_root() {
            let (mount, fuse) = Self::make_by_fusermount(source, mountpoint, options)?;
            return Ok((mount, fuse, None));
        }
        let fuse = open_fuse()?;
        let prepared = match options.iomap.is_wanted().then(|| Prepared::make(fuse.as_fd(), source)) {
            Some(Err(why)) => options.iomap.do_without(source.path(), &why).map(|()| None)?,
            prepared => prepared.and_then(Result::ok),
        };
        let detached = make_detached(source, fuse.as_fd(), options)?;
        let seen = look(detached.as_fd())?;
        let (major, minor) = (seen.stx_dev_major, seen.stx_dev_minor);
        // By its path the kernel has opened the device anew: what it holds is to be what the worker will read.
        if options.blkdev && source.device() != Some((major, minor)) {
            return Err(Failure::mount("became another device while it was mounted").about(source.path()));
        }
        let number = mountinfo::device_number(major, minor);
        let connection = Connection::open(number).watching(fuse.as_fd());
        let id = MountId::of(detached.as_fd())?;
        let mount = Self { id, connection, detached: Some(detached), unmounter: None, ended: false };
        Ok((mount, fuse, prepared))
    }

    fn make_by_fusermount(
        source: &Source,
        mountpoint: &Mountpoint,
        options: &Options,
    ) -> Result<(Self, OwnedFd), Failure> {
        let (fuse, device) = fusermount::mount(source.path(), &mountpoint.path, options)?;
        let guarded = || {
            let root = open(&mountpoint.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            let id = MountId::of(root.map_err(|errno| Failure::system(words(errno)))?.as_fd())?;
            Ok((id, Unmounter::start(id, &mountpoint.path)?))
        };
        let (id, unmounter) = guarded().inspect_err(|_: &Failure| {
            let _ = fusermount::unmount(&mountpoint.path, true);
        })?;
        let connection = Connection::open(device).watching(fuse.as_fd());
        Ok((Self { id, connection, detached: None, unmounter: Some(unmounter), ended: false }, fuse))
    }

    /// Makes the mount visible.
    pub(crate) fn attach(&mut self, mountpoint: &Mountpoint) -> Result<(), Failure> {
        let Some(detached) = self.detached.take() else { return Ok(()) };
        if let Ok(seen) = look(detached.as_fd()) {
            read_ahead(&seen);
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&detached, c"", &mountpoint.fd, c"", flags).map_err(|errno| {
            // With `detached` it ends here, and that must not wait for a worker.
            self.connection.abort();
            let reason = match errno {
                Errno::NOENT => "the mountpoint was removed".to_owned(),
                Errno::INVAL => "the mountpoint cannot carry a mount".to_owned(),
                _ => format!("cannot be mounted there: {}", words(errno)),
            };
            Failure::mount(reason).about(&mountpoint.path)
        })
    }

    /// What can be seen and done without touching the mount.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Notes that its worker is done. Where this mount cannot be told from the next that gets its number, this is the sign
    /// that somebody has taken it away, and there is nothing to detach.
    pub(crate) fn is_done(&mut self) {
        self.ended = !self.connection.is_seen() && !self.id.is_unique();
    }

    /// Without root, what can be read once nobody is there any more who would take the mount away.
    pub(crate) fn unmounter(&self) -> Option<BorrowedFd<'_>> {
        self.unmounter.as_ref().map(Unmounter::line)
    }

    /// Notes that somebody has killed him.
    pub(crate) fn misses_unmounter(&mut self) {
        if let Some(unmounter) = self.unmounter.take() {
            unmounter.dismiss();
            say("somebody has killed the process that unmounts: when this mount ends, it is left to fusermount3 -u");
        }
    }

    /// Takes the mount away if it is still there, even where it is in use, and says whether it was. Never another one than
    /// this.
    pub(crate) fn detach(&mut self) -> bool {
        if self.detached.is_some() {
            // Nobody has seen it yet. The kernel says goodbye to who serves it, and waits for the answer: of a worker that
            // is stuck, for ever.
            self.connection.abort();
        }
        self.detached = None;
        // The kernel gives the number of a mount that has ended to the next one that is made.
        let ended = self.ended || self.connection.is_gone();
        let here = if ended { None } else { self.id.find() };
        let was_there = here.is_some();
        match (self.unmounter.take(), here) {
            (Some(unmounter), Some((root, place))) => {
                drop(root);
                if !unmounter.unmount() {
                    say(&format!("{}: is left: nobody serves it, and fusermount3 -u takes it away", escaped(&place)));
                }
            }
            (Some(unmounter), None) => unmounter.dismiss(),
            // Without root this is refused.
            (None, Some((root, _))) => {
                let _ = unmount(format!("/proc/self/fd/{}", root.as_raw_fd()), UnmountFlags::DETACH);
            }
            (None, None) => {}
        }
        was_there
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Lets the kernel read ahead as much as one request carries, rather than 128 KiB: only after FUSE_INIT, which would lower
/// it again. Where it may not be set, reading is slower and nothing else.
fn read_ahead(seen: &Statx) {
    const KIBIBYTES: &str = "1024";
    let (major, minor) = (seen.stx_dev_major, seen.stx_dev_minor);
    // The last two are those of a block device's, and of a mount that the kernel reads for itself.
    for suffix in ["", "-fuseblk", "-fuse.iomap"] {
        let own = (major == 0) != (suffix == "-fuseblk");
        if own {
            let _ = std::fs::write(format!("/sys/class/bdi/{major}:{minor}{suffix}/read_ahead_kb"), KIBIBYTES);
        }
    }
}

/// Opens /dev/fuse.
fn open_fuse() -> Result<OwnedFd, Failure> {
    open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        let reason = match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => "is missing: this kernel or container has no FUSE".to_owned(),
            _ => format!("cannot be opened: {}", words(errno)),
        };
        Failure::system(reason).about("/dev/fuse")
    })
}

/// A FUSE mount that is attached nowhere. FUSE_INIT waits in `fuse` from here on.
fn make_detached(source: &Source, fuse: BorrowedFd<'_>, options: &Options) -> Result<OwnedFd, Failure> {
    let refused = |errno: Errno| match errno {
        Errno::NOSYS => Failure::system("this kernel cannot mount step by step (fsopen, Linux 5.2)"),
        Errno::NODEV => Failure::system("this kernel has no FUSE"),
        Errno::BUSY if options.blkdev => device::in_use().about(source.path()),
        _ => Failure::new(Code::System, format!("mounting is refused: {}", words(errno))),
    };
    let owner = Owner::of_mount(options);
    let kind = if options.blkdev { c"fuseblk" } else { c"fuse" };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV if options.blkdev => Failure::system("this kernel has no FUSE on block devices (fuseblk)"),
        _ => refused(errno),
    })?;
    let mut strings = vec![
        // FSCONFIG_SET_FD is refused for this; the number as text is what the kernel takes.
        ("fd", fuse.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", owner.uid.to_string()),
        ("group_id", owner.gid.to_string()),
        ("subtype", "lazaret".to_owned()),
    ];
    if options.blkdev {
        strings.push(("blksize", source.block().to_string()));
    }
    // Of the whole file system, not of this mount alone: on one that could be written to, the kernel asks for the times
    // again behind everything that it reads; and of fuseblk it opens the device by itself, then not for writing.
    fsconfig_set_flag(context.as_fd(), c"ro").map_err(refused)?;
    fsconfig_set_string(context.as_fd(), c"source", shown_source(source.path(), options.blkdev)?).map_err(refused)?;
    for (key, value) in strings {
        fsconfig_set_string(context.as_fd(), key, value).map_err(refused)?;
    }
    fsconfig_set_flag(context.as_fd(), c"default_permissions").map_err(refused)?;
    if options.allow_other {
        fsconfig_set_flag(context.as_fd(), c"allow_other").map_err(refused)?;
    }
    create(context.as_fd(), options.blkdev).map_err(refused)?;
    let mut flags =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !options.exec);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, options.nosymfollow);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(refused)
}

/// Makes the file system. On a block device the kernel would else give the one that stands there already, whoever serves it.
fn create(context: BorrowedFd<'_>, on_device: bool) -> Result<(), Errno> {
    if on_device {
        let created = fsconfig_create_exclusive(context);
        // Before Linux 6.6. There a file system of another has no room for our /dev/fuse, and the worker cannot begin.
        if created != Err(Errno::OPNOTSUPP) {
            return created;
        }
    }
    fsconfig_create(context)
}

/// The source as the mount table shows it: the kernel takes 255 bytes, and the end of a path says more than its begin. A
/// device that the kernel is to open has to be named in full.
fn shown_source(source: &Path, whole: bool) -> Result<&[u8], Failure> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = source.as_os_str().as_bytes();
    match bytes.len().saturating_sub(255) {
        0 => Ok(bytes),
        _ if whole => Err(Failure::mount("the path of the device is longer than 255 bytes").about(source)),
        more => Ok(&bytes[more..]),
    }
}

impl Owner {
    fn of_mount(options: &Options) -> Self {
        // Who calls through sudo means himself, not root.
        let sudo = |name: &str, root: bool| {
            let number = std::env::var(name).ok().filter(|_| root);
            number.and_then(|number| number.parse().ok()).filter(|&number: &u32| number != u32::MAX)
        };
        let root = geteuid().is_root();
        Self {
            uid: options.uid.or_else(|| sudo("SUDO_UID", root)).unwrap_or_else(|| geteuid().as_raw()),
            gid: options.gid.or_else(|| sudo("SUDO_GID", root)).unwrap_or_else(|| getegid().as_raw()),
        }
    }
}
