//! What a mount answers to single requests: writes, missing names, listings from the middle, many readers at once,
//! mappings, the options that change what is seen, and an image that is cut short beneath it.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, XattrFlags};
use rustix::io::Errno;

use lazaret_tests::command::{PATIENCE, finish};
use lazaret_tests::fill::noise;
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, many, mapped, process, recipe};

type Test = fn(&Path, &Path) -> Result;

const TESTS: &[(&str, Test)] = &[
    ("everything that would write answers EROFS", writes_are_refused),
    ("what would write is refused also when root remounts it writable", remounted_writable),
    ("a missing name is asked for once", negative_lookups),
    ("a listing goes on from every place", listing_from_every_place),
    ("a listing through a small buffer holds every name once", small_buffers),
    ("a listing begins again", listing_again),
    ("a listing brings attributes once they are asked for", attributes_once_asked_for),
    ("many readers at once read what was written", concurrent_readers),
    ("a mapped file is what was written", mapped_file),
    ("direct reads are what was written", direct_reads),
    ("content is kept from one opening to the next", content_is_kept),
    ("the kernel reads ahead as much as a request carries", reads_ahead),
    ("nobody else may enter", others_stay_outside),
    ("the user of SUDO_UID may enter", sudo_user_enters),
    ("allow_other lets others in, and modes hold", others_let_in),
    ("uid=, gid= and umask= are shown", owner_is_overridden),
    ("special=hide hides what is special", special_is_hidden),
    ("nosymfollow follows no link", links_are_not_followed),
    ("exec and noexec", programs_start_only_with_exec),
    ("an image cut short gives EIO, and is readable when it is whole again", cut_and_regrown),
];

fn main() {
    requirement::main(|workshop| {
        TESTS.iter().map(|(name, test)| trial(*name, MOUNTS, workshop, |workshop| one(name, *test, workshop))).collect()
    })
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result {
    let place = workshop.directory(&name.replace([' ', '/'], "-"))?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    test(&image, &place.join("point"))?;
    if digest::of_file(&image)? != before {
        return Err("the image was written to".into());
    }
    leftover::nothing_of(&place)
}

fn done(mount: Mount) -> Result {
    mount.unmount(Duration::from_secs(1)).map(drop)
}

type Write = (&'static str, fn(&Path) -> rustix::io::Result<()>);

const WRITES: &[Write] = &[
    ("create", |root| open(&root.join("new"), OFlags::WRONLY | OFlags::CREATE).map(drop)),
    ("open for writing", |root| open(&root.join("sizes/1"), OFlags::WRONLY).map(drop)),
    ("open for appending", |root| open(&root.join("sizes/1"), OFlags::RDWR | OFlags::APPEND).map(drop)),
    ("open and truncate", |root| open(&root.join("sizes/1"), OFlags::RDWR | OFlags::TRUNC).map(drop)),
    ("unnamed file", |root| open(root, OFlags::WRONLY | OFlags::TMPFILE).map(drop)),
    ("truncate", |root| rustix::fs::ftruncate(open(&root.join("sizes/1"), OFlags::WRONLY)?, 0)),
    ("write", |root| rustix::io::write(open(&root.join("sizes/1"), OFlags::WRONLY)?, b"x").map(drop)),
    ("mkdir", |root| rustix::fs::mkdir(root.join("new"), Mode::from(0o755))),
    ("rmdir", |root| rustix::fs::rmdir(root.join("directories/empty"))),
    ("unlink", |root| rustix::fs::unlink(root.join("sizes/1"))),
    ("rename", |root| rustix::fs::rename(root.join("sizes/1"), root.join("sizes/renamed"))),
    ("link", |root| rustix::fs::link(root.join("sizes/1"), root.join("sizes/linked"))),
    ("symlink", |root| rustix::fs::symlink("target", root.join("new"))),
    ("mknod", |root| rustix::fs::mknodat(CWD, root.join("new"), FileType::Fifo, Mode::from(0o644), 0)),
    ("chmod", |root| rustix::fs::chmod(root.join("sizes/1"), Mode::from(0o600))),
    ("chown", |root| rustix::fs::chown(root.join("sizes/1"), Some(rustix::fs::Uid::from_raw(1)), None)),
    ("utimes", |root| {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let now = rustix::fs::Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(CWD, root.join("sizes/1"), &now, rustix::fs::AtFlags::empty())
    }),
    ("setxattr", |root| rustix::fs::setxattr(root.join("sizes/1"), "user.x", b"y", XattrFlags::empty())),
    ("removexattr", |root| rustix::fs::removexattr(root.join("sizes/1"), "user.x")),
];

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from(0o644))
}

fn no_number<T>(answer: std::io::Result<T>) -> rustix::io::Result<()> {
    answer.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}

fn writes_are_refused(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    all_writes(point, &[Errno::ROFS])?;
    done(mount)
}

fn all_writes(root: &Path, right: &[Errno]) -> Result {
    let wrong: Vec<String> = WRITES
        .iter()
        .map(|(what, write)| (what, write(root)))
        .filter(|(_, answer)| !answer.is_err_and(|errno| right.contains(&errno)))
        .map(|(what, answer)| format!("{what}: {answer:?}"))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("EROFS is wanted: {}", wrong.join(", ")).into()) }
}

/// The mount point's own flag can be taken away by root: the worker itself refuses then.
fn remounted_writable(image: &Path, point: &Path) -> Result {
    use rustix::mount::{MountFlags, mount_remount};
    let mount = Mount::new(image, point)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let _ = mount_remount(point, flags | MountFlags::BIND, "");
    let _ = mount_remount(point, flags, "");
    // An unnamed file is a request that the kernel does not send to a server that never knew it.
    all_writes(point, &[Errno::ROFS, Errno::OPNOTSUPP])?;
    done(mount)
}

/// How often the worker was woken: it sleeps in a system call between two requests.
fn wakes(worker: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{worker}/task"))? {
        let of = format!("{worker}/task/{}", task?.file_name().to_string_lossy());
        sum += process::status(&of, "voluntary_ctxt_switches")?.parse::<u64>()?;
    }
    Ok(sum)
}

fn negative_lookups(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let ask = || rustix::fs::stat(point.join("sizes/no such name")).err();
    assert_eq!(ask(), Some(Errno::NOENT));
    let before = wakes(mount.worker.pid)?;
    for _ in 0..200 {
        assert_eq!(ask(), Some(Errno::NOENT));
    }
    let woken = wakes(mount.worker.pid)? - before;
    assert!(woken < 20, "for 200 questions about one missing name the worker was woken {woken} times");
    let through_a_file = rustix::fs::stat(point.join("sizes/4096/below")).err();
    assert_eq!(through_a_file, Some(Errno::NOTDIR));
    let long = rustix::fs::stat(point.join("n".repeat(256))).err();
    assert_eq!(long, Some(Errno::NAMETOOLONG));
    done(mount)
}

/// The names of a directory with the cookie behind each.
fn cookies(directory: &File) -> Result<Vec<(Vec<u8>, i64)>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        names.push((entry.file_name().to_bytes().to_vec(), entry.offset()));
    }
    Ok(names)
}

fn listing_from_every_place(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    for name in ["directories/many", "deleted", "names", "directories/empty"] {
        let directory = File::open(point.join(name))?;
        let names = cookies(&directory)?;
        for (at, (_, cookie)) in names.iter().enumerate().step_by(7) {
            let mut rest = rustix::fs::Dir::read_from(&directory)?;
            rest.seek(*cookie)?;
            let next = rest.read().transpose()?.map(|entry| entry.file_name().to_bytes().to_vec());
            let wanted = names.get(at + 1).map(|(name, _)| name.clone());
            assert_eq!(next, wanted, "{name}: behind entry {at} with cookie {cookie}");
        }
    }
    done(mount)
}

fn small_buffers(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    for name in ["directories/many", "names"] {
        let whole: Vec<Vec<u8>> = cookies(&File::open(point.join(name))?)?.into_iter().map(|(name, _)| name).collect();
        let distinct: BTreeSet<&Vec<u8>> = whole.iter().collect();
        assert_eq!(distinct.len(), whole.len(), "{name}: a name is listed twice");
        let directory = File::open(point.join(name))?;
        let mut buffer = Vec::with_capacity(400);
        let mut listing = RawDir::new(&directory, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = listing.next() {
            names.push(CStr::to_bytes(entry?.file_name()).to_vec());
        }
        assert_eq!(names, whole, "{name}: another listing in small pieces");
    }
    done(mount)
}

fn listing_again(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let mut listing = rustix::fs::Dir::read_from(File::open(point.join("directories/many"))?)?;
    let mut names = || -> Result<Vec<Vec<u8>>> {
        listing.rewind();
        let mut names = Vec::new();
        while let Some(entry) = listing.read() {
            names.push(entry?.file_name().to_bytes().to_vec());
        }
        Ok(names)
    };
    let first = names()?;
    assert_eq!(first.len(), 1502);
    assert_eq!(first, names()?);
    drop(listing);
    done(mount)
}

/// The names of a directory, each as a path, with the number and type that the listing gives it; without `.` and `..`.
fn listed(directory: &Path) -> Result<Vec<(PathBuf, u64, FileType)>> {
    let entries = rustix::fs::Dir::read_from(File::open(directory)?)?;
    let mut all = vec![];
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            all.push((directory.join(OsStr::from_bytes(name)), entry.ino(), entry.file_type()));
        }
    }
    Ok(all)
}

/// Asks for the attributes of all these, which are to be what the listing said. Gives how often the worker was woken for it.
fn ask_for(entries: &[(PathBuf, u64, FileType)], worker: u32) -> Result<u64> {
    let before = wakes(worker)?;
    for (path, number, kind) in entries {
        let seen = rustix::fs::lstat(path)?;
        assert_eq!((seen.st_ino, FileType::from_raw_mode(seen.st_mode)), (*number, *kind), "{}", path.display());
    }
    Ok(wakes(worker)? - before)
}

fn attributes_once_asked_for(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let worker = mount.worker.pid;
    let (names, few) = (listed(&point.join("names"))?, listed(&point.join("sizes"))?);
    assert!(names.len() > 20 && few.len() > 12, "{} and {} entries", names.len(), few.len());
    let single = ask_for(&few[..4], worker)?;
    assert!(single > 0, "4 names that were only listed were not asked for");
    // More than somebody types: from now on listings have attributes, also of what was listed before.
    ask_for(&few[4..], worker)?;
    let again = listed(&point.join("names"))?;
    assert_eq!(again, names);
    // What fits into the kernel's first request of a listing: it asks for more by names until somebody wants attributes.
    let woken = ask_for(&again[..8], worker)?;
    assert!(woken < 3, "8 names that were listed with attributes were asked for {woken} times");
    done(mount)
}

fn concurrent_readers(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let lengths = [1023, 4095, 4096, 4097, 65536, (1 << 20) + 3, 6 << 20];
    std::thread::scope(|scope| {
        let read = |reader: usize| {
            for turn in 0..30 {
                let length = lengths[(reader + turn) % lengths.len()];
                let content = fs::read(point.join("sizes").join(length.to_string())).expect("a file");
                assert!(content == noise(length as u64, length), "reader {reader}: {length} bytes are others");
                let names = fs::read_dir(point.join("directories/many")).expect("a directory");
                assert_eq!(names.count(), 1500);
            }
        };
        let readers: Vec<_> = (0..8).map(|reader| scope.spawn(move || read(reader))).collect();
        let failed = readers.into_iter().filter_map(|reader| reader.join().err()).count();
        assert_eq!(failed, 0, "readers that failed");
    });
    done(mount)
}

fn mapped_file(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    for length in [1, 4095, 4097, (1 << 20) + 3, 6 << 20] {
        let content = mapped::read(&point.join("sizes").join(length.to_string()))?;
        assert!(content == noise(length as u64, length), "{length} mapped bytes are others");
    }
    let hole = mapped::read(&point.join("holes/only-odd"))?;
    assert!(hole.iter().all(|byte| *byte == 0), "a mapped hole holds something");
    done(mount)
}

fn direct_reads(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let length = 6 << 20;
    let file = File::from(open(&point.join(format!("sizes/{length}")), OFlags::RDONLY | OFlags::DIRECT)?);
    let (whole, mut piece) = (noise(length as u64, length), vec![0; 1 << 20]);
    for offset in [0, 4096, 1 << 20, length - 4096, length - (1 << 20)] {
        let read = file.read_at(&mut piece, offset as u64)?;
        assert!(read >= 4096 && piece[..read] == whole[offset..offset + read], "direct read of {read} at {offset}");
    }
    drop(file);
    done(mount)
}

fn reads_ahead(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let device = fs::metadata(point)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let set = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"))?;
    assert_eq!(set.trim(), "1024");
    done(mount)
}

fn content_is_kept(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let read = || fs::read(point.join("sizes/6291456"));
    read()?;
    let before = wakes(mount.worker.pid)?;
    for _ in 0..20 {
        read()?;
    }
    let woken = wakes(mount.worker.pid)? - before;
    // Each opening may ask once; the 6 MiB may not be fetched again.
    assert!(woken < 80, "for 20 readings of a file that was read before the worker was woken {woken} times");
    done(mount)
}

/// What `sh` says as nobody.
fn as_nobody(script: &str, root: &Path) -> Result<(Option<i32>, String)> {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(root).uid(65_534).gid(65_534);
    let finished = finish(&mut shell, PATIENCE)?;
    Ok((finished.code(), finished.stdout + &finished.stderr))
}

fn others_stay_outside(image: &Path, point: &Path) -> Result {
    let mount = Mount::new(image, point)?;
    let (code, words) = as_nobody("ls \"$1\"", point)?;
    assert!(code != Some(0) && words.contains("Permission denied"), "nobody was let in: {words}");
    done(mount)
}

fn sudo_user_enters(image: &Path, point: &Path) -> Result {
    fs::create_dir(point)?;
    let mut command = lazaret::command(["mount".as_ref(), image.as_os_str(), point.as_os_str()]);
    let finished = finish(command.env("SUDO_UID", "65534").env("SUDO_GID", "65534"), lazaret::PATIENCE)?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let mount = Mount::adopt(point)?;
    let (code, words) = as_nobody("cat \"$1/sizes/1\" >/dev/null", point)?;
    assert_eq!(code, Some(0), "the user of SUDO_UID is kept out: {words}");
    done(mount)
}

fn others_let_in(image: &Path, point: &Path) -> Result {
    let mount = Mount::with(image, point, "allow_other")?;
    let (code, words) = as_nobody("cat \"$1/modes/file-0644\" && cat \"$1/modes/file-0777\"", point)?;
    assert_eq!(code, Some(0), "{words}");
    let (code, words) = as_nobody("cat \"$1/modes/file-0000\"", point)?;
    assert!(code != Some(0) && words.contains("Permission denied"), "a mode was not kept: {words}");
    done(mount)
}

fn owner_is_overridden(image: &Path, point: &Path) -> Result {
    let mount = Mount::with(image, point, "allow_other,uid=1234,gid=70000,umask=027")?;
    for (name, mode) in [("modes/file-0777", 0o750), ("modes/file-0644", 0o640), ("modes/folder-1777", 0o1750)] {
        let found = fs::symlink_metadata(point.join(name))?;
        assert_eq!((found.uid(), found.gid()), (1234, 70_000), "{name}");
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{name}");
    }
    done(mount)
}

fn special_is_hidden(image: &Path, point: &Path) -> Result {
    let mount = Mount::with(image, point, "special=hide")?;
    let left: Vec<_> = fs::read_dir(point.join("special"))?.flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "listed: {left:?}");
    for name in ["special/fifo", "special/socket", "special/block-8-1", "special/character-1-3", "hard-links/block"] {
        assert_eq!(rustix::fs::lstat(point.join(name)).err(), Some(Errno::NOENT), "{name}");
    }
    assert!(fs::read_link(point.join("symlinks/of-61")).is_ok(), "a symbolic link is not special");
    done(mount)
}

fn links_are_not_followed(image: &Path, point: &Path) -> Result {
    let mount = Mount::with(image, point, "nosymfollow")?;
    let link = point.join("symlinks/leads-to-a-file");
    assert_eq!(rustix::fs::stat(&link).err(), Some(Errno::LOOP));
    assert_eq!(fs::read_link(&link)?, Path::new("../sizes/4097"));
    done(mount)
}

fn programs_start_only_with_exec(image: &Path, point: &Path) -> Result {
    let start = || no_number(Command::new(point.join("modes/file-0755")).spawn().and_then(|mut child| child.wait()));
    let mount = Mount::new(image, point)?;
    assert_eq!(start(), Err(Errno::ACCESS), "without exec");
    done(mount)?;
    let mount = Mount::with(image, point, "exec")?;
    // The file is empty: the kernel may start it and then knows no format for it.
    assert_ne!(start(), Err(Errno::ACCESS), "with exec");
    done(mount)
}

fn cut_and_regrown(image: &Path, point: &Path) -> Result {
    let numbers = many::debugfs(image, "blocks /sizes/6291456")?;
    let first: u64 = numbers.split_whitespace().next().ok_or("no blocks")?.parse()?;
    let (cut, whole) = (first * 4096 + (1 << 20), fs::metadata(image)?.len());
    let mut tail = vec![0; usize::try_from(whole - cut)?];
    let file = File::options().read(true).write(true).open(image)?;
    file.read_exact_at(&mut tail, cut)?;
    let mount = Mount::new(image, point)?;
    file.set_len(cut)?;
    let victim = File::open(point.join("sizes/6291456"))?;
    let mut piece = vec![0; 4096];
    let answer = no_number(victim.read_exact_at(&mut piece, 4 << 20));
    assert_eq!(answer, Err(Errno::IO), "reading what is cut off");
    let mut start = vec![0; 65536];
    let answer = victim.read_exact_at(&mut start, 0);
    assert!(answer.is_ok() && start == noise(6 << 20, 65536), "the part that is there: {answer:?}");
    assert!(process::runs(mount.worker.pid), "the worker is dead");
    file.write_all_at(&tail, cut)?;
    let again = fs::read(point.join("sizes/6291456"))?;
    assert!(again == noise(6 << 20, 6 << 20), "after the image is whole again the content is another");
    drop(victim);
    done(mount)
}
