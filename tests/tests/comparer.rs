//! The comparison itself is checked here: two kernel mounts of one image are the same, and a difference planted in
//! the one is found in the other by its path. A comparison that finds nothing would otherwise prove nothing.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps, fallocate, utimensat};

use lazaret_tests::block::KernelMount;
use lazaret_tests::compare::{Comparison, Order, compare};
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, recipe};

/// Where it is planted, what the comparison calls it, and how it is done.
type Plant = (&'static str, &'static str, fn(&Path) -> Result);

const PLANTS: &[Plant] = &[
    ("sizes/4097", "content of 4097 bytes", |path| flip(path, 4096)),
    ("sizes/65536", "content of 65536 bytes", |path| flip(path, 0)),
    ("sizes/1024", "size", |path| Ok(fs::File::options().write(true).open(path)?.set_len(1023)?)),
    ("modes/file-0644", "mode", |path| Ok(fs::set_permissions(path, PermissionsExt::from_mode(0o645))?)),
    ("owners/1000", "owner", |path| Ok(lchown(path, Some(1001), None)?)),
    ("owners/65536", "group", |path| Ok(lchown(path, None, Some(65_536))?)),
    ("times/0", "mtime in ns", |path| touch(path, 999_999_999, 123_456_788)),
    ("times/1", "atime in ns", |path| touch(path, 999_999_998, 123_456_789)),
    ("sizes/0", "ctime in ns", |path| Ok(lchown(path, None, None)?)),
    ("hard-links/first", "links", |path| Ok(fs::hard_link(path, path.with_file_name("planted link"))?)),
    ("symlinks/of-61", "link target", |path| swap_link(path, &"z".repeat(61))),
    ("symlinks/of-59", "link target", |path| swap_link(path, &"z".repeat(59))),
    ("special/fifo", "attributes", |path| Ok(fs::rename(path, path.with_file_name("pipe"))?)),
    ("special", "listed entry", |_| Ok(())),
    ("holes/only", "runs of data", |path| {
        Ok(fs::File::options().write(true).open(path)?.write_all_at(&[0], 1 << 20)?)
    }),
    ("holes/only-odd", "blocks of 512 bytes", |path| {
        let file = fs::File::options().write(true).open(path)?;
        Ok(fallocate(&file, FallocateFlags::KEEP_SIZE, 4 << 20, 4096)?)
    }),
    ("directories/empty", "inode number", |path| {
        fs::create_dir(path.with_file_name("other"))?;
        fs::remove_dir(path)?;
        Ok(fs::rename(path.with_file_name("other"), path)?)
    }),
    ("attributes/small", "extended attributes", |path| {
        Ok(rustix::fs::setxattr(path, "user.small", b"volue", rustix::fs::XattrFlags::empty())?)
    }),
    ("attributes/folder", "extended attributes", |path| Ok(rustix::fs::removexattr(path, "user.of-a-folder")?)),
    ("", "statfs free blocks", |_| Ok(())),
];

fn main() {
    requirement::main(|workshop| {
        vec![
            trial("one image mounted twice is the same", MOUNTS, workshop, nothing_to_find),
            trial("what is planted is found", MOUNTS, workshop, planted),
        ]
    })
}

fn nothing_to_find(workshop: &Workshop) -> Result {
    let (image, place) = (workshop.image(recipe::default())?, workshop.directory("twice")?);
    for order in [Order::LookUpFirst, Order::ListFirst] {
        let found = both(&image, &image, &place, order)?;
        found.verdict()?;
        assert!(found.objects > 2000, "only {} objects were compared", found.objects);
        assert!(found.bytes > 20_000_000, "only {} bytes were compared", found.bytes);
        assert!(found.runs > 200, "only {} runs of data were compared", found.runs);
    }
    Ok(())
}

fn planted(workshop: &Workshop) -> Result {
    let place = workshop.directory("planted")?;
    let image = workshop.image(recipe::default())?;
    let other = workshop.copy(recipe::default(), &place)?;
    let writable = KernelMount::writable(&other, &place.join("writable"))?;
    for (path, _, plant) in PLANTS {
        plant(&writable.path().join(path)).map_err(|error| format!("planting in {path}: {error}"))?;
    }
    writable.unmount()?;
    for order in [Order::LookUpFirst, Order::ListFirst] {
        let found = both(&image, &other, &place, order)?;
        assert!(found.verdict().is_err(), "a comparison with differences must fail");
        for (path, what, _) in PLANTS {
            let hit = found.differences.iter().any(|one| one.path == path.as_bytes() && one.what.starts_with(what));
            assert!(hit, "{path}: {what} was planted and not found among {:#?}", found.differences);
        }
    }
    Ok(())
}

fn both(first: &Path, second: &Path, place: &Path, order: Order) -> Result<Comparison> {
    let first = KernelMount::read_only(first, &place.join("first"))?;
    let second = KernelMount::read_only(second, &place.join("second"))?;
    compare(first.path(), second.path(), order)
}

fn flip(path: &Path, offset: u64) -> Result {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    Ok(file.write_all_at(&[!byte[0]], offset)?)
}

fn touch(path: &Path, access: i64, modification: i64) -> Result {
    let second = fs::metadata(path)?.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_secs().try_into()?;
    let stamp = |nanosecond| Timespec { tv_sec: second, tv_nsec: nanosecond };
    let stamps = Timestamps { last_access: stamp(access), last_modification: stamp(modification) };
    Ok(utimensat(CWD, path, &stamps, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn swap_link(path: &Path, target: &str) -> Result {
    fs::remove_file(path)?;
    Ok(symlink(target, path)?)
}
