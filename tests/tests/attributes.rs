//! Extended attributes and access control lists as a mount shows them and keeps to them, beside the kernel's own mount.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{XattrFlags, lgetxattr, lgetxattr_query, llistxattr, lsetxattr};
use rustix::io::Errno;

use lazaret_tests::block::KernelMount;
use lazaret_tests::lazaret::Mount;
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, command, digest, leftover};

type Test = fn(&Place) -> Result;

const TESTS: &[(&str, Test)] = &[
    ("what users and lists say is what the kernel shows", shown_by_default),
    ("a list is kept to as the kernel keeps to it", lists_are_kept_to),
    ("xattrs=all shows all, and the trusted ones to root alone", all_are_shown),
    ("xattrs=none shows none", none_are_shown),
    ("a umask takes from lists as from modes", umask_takes_from_lists),
    ("a program that makes no room gets ERANGE", too_little_room),
];

fn main() {
    requirement::main(|workshop| {
        TESTS.iter().map(|(name, test)| trial(*name, MOUNTS, workshop, |workshop| one(name, *test, workshop))).collect()
    })
}

/// An image, and where to mount it.
struct Place {
    image: PathBuf,
    kernel: PathBuf,
    ours: PathBuf,
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result {
    let directory = workshop.directory(&name.replace([' ', '=', ','], "-"))?;
    let place =
        Place { image: directory.join("image"), kernel: directory.join("kernel"), ours: directory.join("ours") };
    File::create(&place.image)?.set_len(32 << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    command::run(mke2fs.args(["-q", "-F", "-t", "ext4", "-I", "256", "-O", "ea_inode,inline_data"]).arg(&place.image))?;
    let mount = KernelMount::writable(&place.image, &place.kernel)?;
    fill(mount.path())?;
    mount.unmount()?;

    let before = digest::of_file(&place.image)?;
    test(&place)?;
    if digest::of_file(&place.image)? != before {
        return Err("the image was written to".into());
    }
    leftover::nothing_of(&directory)
}

const NOBODY: u32 = u32::MAX;

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |&(tag, permissions, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat()
}

/// The group has less than the mask, one user has something and another has nothing.
const LIST: [(u16, u16, u32); 6] =
    [(1, 6, NOBODY), (2, 4, 1000), (2, 0, 2000), (4, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 4, NOBODY)];

fn fill(root: &Path) -> Result {
    let set =
        |name: &str, attribute: &str, value: &[u8]| lsetxattr(root.join(name), attribute, value, XattrFlags::empty());
    for name in ["plain", "listed", "attributes"] {
        fs::write(root.join(name), name)?;
        fs::set_permissions(root.join(name), Permissions::from_mode(0o640))?;
        chown(root.join(name), Some(5), Some(6))?;
    }
    set("listed", "system.posix_acl_access", &list(&LIST))?;
    for attribute in ["user.a", "user.empty", "trusted.t", "security.s"] {
        set("attributes", attribute, attribute.strip_suffix("empty").map_or(attribute.as_bytes(), |_| b""))?;
    }
    set("attributes", "user.large", &[7; 60_000])?;
    fs::create_dir(root.join("directory"))?;
    set("directory", "system.posix_acl_default", &list(&LIST))?;
    set("directory", "user.directory", &[1, 2, 3])?;
    fs::write(root.join("directory/inherits"), "inherits")?;
    chown(root.join("directory/inherits"), Some(5), Some(6))?;
    Ok(())
}

const FILES: [&str; 6] = ["", "plain", "listed", "attributes", "directory", "directory/inherits"];

/// By file and name: values.
type Attributes = BTreeMap<(String, String), Vec<u8>>;

fn attributes(root: &Path) -> Result<Attributes> {
    let mut all = Attributes::new();
    for file in FILES {
        let mut names = vec![0; 65_536];
        let length = llistxattr(root.join(file), &mut names)?;
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 65_536];
            let length = lgetxattr(root.join(file), name, &mut value)?;
            all.insert((file.to_owned(), String::from_utf8(name.to_vec())?), value[..length].to_vec());
        }
    }
    Ok(all)
}

fn same(ours: &Attributes, theirs: &Attributes) -> Result {
    if ours == theirs {
        return Ok(());
    }
    let names = |all: &Attributes| all.keys().cloned().collect::<Vec<_>>();
    Err(format!("{:?} and not {:?}, or their values", names(ours), names(theirs)).into())
}

fn done(mount: Mount) -> Result {
    mount.unmount(Duration::from_secs(1)).map(drop)
}

/// What the kernel's own mount shows.
fn kernels(place: &Place) -> Result<Attributes> {
    let mount = KernelMount::read_only(&place.image, &place.kernel)?;
    let theirs = attributes(mount.path())?;
    mount.unmount()?;
    Ok(theirs)
}

fn shown_by_default(place: &Place) -> Result {
    let mut theirs = kernels(place)?;
    theirs.retain(|(_, name), _| !name.starts_with("trusted.") && !name.starts_with("security."));
    let mount = Mount::with(&place.image, &place.ours, "special=show")?;
    same(&attributes(mount.path())?, &theirs)?;
    for name in ["trusted.t", "security.s", "system.data", "gnu.author"] {
        let answer = lgetxattr(place.ours.join("attributes"), name, &mut [0; 10]);
        if answer != Err(Errno::OPNOTSUPP) {
            return Err(format!("{name}: {answer:?}").into());
        }
    }
    let answer = lgetxattr(place.ours.join("plain"), "user.none", &mut [0; 10]);
    if answer != Err(Errno::NODATA) {
        return Err(format!("user.none: {answer:?}").into());
    }
    done(mount)
}

/// Which of some users, in some groups, may read which file.
fn readers(root: &Path) -> Result<Vec<(u32, u32, &'static str)>> {
    let mut readers = Vec::new();
    for (uid, gid) in [(5, 5), (1000, 1000), (2000, 2000), (3000, 6), (1000, 6), (2000, 6), (3000, 3000)] {
        for file in FILES {
            let mut cat = Command::new("cat");
            cat.arg(root.join(file)).uid(uid).gid(gid).stdout(Stdio::null()).stderr(Stdio::null());
            if cat.status()?.success() {
                readers.push((uid, gid, file));
            }
        }
    }
    Ok(readers)
}

fn lists_are_kept_to(place: &Place) -> Result {
    let mount = KernelMount::read_only(&place.image, &place.kernel)?;
    let theirs = readers(mount.path())?;
    mount.unmount()?;
    let mount = Mount::with(&place.image, &place.ours, "allow_other")?;
    let ours = readers(mount.path())?;
    done(mount)?;
    // The mode alone would let the group in, and the list does not.
    if ours != theirs || !ours.contains(&(1000, 1000, "listed")) || ours.contains(&(3000, 6, "listed")) {
        return Err(format!("{ours:?} may read, and on the kernel's mount {theirs:?}").into());
    }
    Ok(())
}

fn all_are_shown(place: &Place) -> Result {
    let theirs = kernels(place)?;
    let mount = Mount::with(&place.image, &place.ours, "xattrs=all,allow_other")?;
    same(&attributes(mount.path())?, &theirs)?;
    // A helper of another user: this very test has read the names as root.
    let mut find = Command::new("getfattr");
    find.args(["-m", "-", "--absolute-names"]).arg(place.ours.join("attributes")).uid(5).gid(6);
    if requirement::find("getfattr").is_some() {
        let names = command::run(&mut find)?;
        if names.contains("trusted.t") || !names.contains("user.large") {
            return Err(format!("user 5 is told {names}").into());
        }
    }
    done(mount)
}

fn none_are_shown(place: &Place) -> Result {
    let mount = Mount::with(&place.image, &place.ours, "xattrs=none")?;
    for file in FILES {
        let path = place.ours.join(file);
        // The kernel remembers the first refusal, and lists nothing by itself.
        let (names, value) = (llistxattr(&path, &mut [0; 100]), lgetxattr(&path, "user.a", &mut [0; 10]));
        if !matches!(names, Ok(0) | Err(Errno::OPNOTSUPP)) || value != Err(Errno::OPNOTSUPP) {
            return Err(format!("{file}: {names:?}, {value:?}").into());
        }
    }
    done(mount)
}

fn umask_takes_from_lists(place: &Place) -> Result {
    let mount = Mount::with(&place.image, &place.ours, "umask=024")?;
    let mut value = [0; 1000];
    let length = lgetxattr(place.ours.join("listed"), "system.posix_acl_access", &mut value)?;
    let expected = LIST.map(|(tag, permissions, id)| {
        let lost = if tag == 0x20 {
            4
        } else if tag == 1 {
            0
        } else {
            2
        };
        (tag, permissions & !lost, id)
    });
    if value[..length] != list(&expected) {
        return Err(format!("{:?}", &value[..length]).into());
    }
    done(mount)
}

fn too_little_room(place: &Place) -> Result {
    let mount = Mount::with(&place.image, &place.ours, "special=show")?;
    let file = place.ours.join("attributes");
    let answers = [
        lgetxattr(&file, "user.large", &mut [0; 59_999]),
        llistxattr(&file, &mut [0; 5]),
        lgetxattr(&file, "user.large", &mut vec![0; 60_000]),
        lgetxattr_query(&file, "user.large"),
        lgetxattr(&file, "user.empty", &mut [0; 1]),
    ];
    if answers != [Err(Errno::RANGE), Err(Errno::RANGE), Ok(60_000), Ok(60_000), Ok(0)] {
        return Err(format!("{answers:?}").into());
    }
    done(mount)
}
