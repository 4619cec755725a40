//! The images that are measured on, made by recipe and kept for the next run.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lazaret_tests::block::KernelMount;
use lazaret_tests::fill::noise;
use lazaret_tests::recipe::UUID;
use lazaret_tests::{Result, command};

/// Changes when what is made below changes: a kept image of another version is made anew.
const VERSION: u32 = 1;

/// Files of the tree, and how many of them lie below each of its top directories.
const FILES: u64 = 60_000;
const FILES_OF_A_PART: u64 = 20_000;
/// Files of a directory.
const FILES_OF_A_DIRECTORY: u64 = 16;

/// Length of the file that is read from its begin to its end.
pub(crate) const LONG: u64 = 1 << 30;
/// Extents of the fragmented file: every other block is a hole.
pub(crate) const EXTENTS: u64 = 100_000;
/// Entries of the large and of the small directory.
pub(crate) const MANY: u64 = 1_000_000;
pub(crate) const FEW: u64 = 1_000;

/// The tree, the long file, the fragmented one, and the directories of many and of few names. 5 GiB.
pub(crate) fn main(kept: &Path) -> Result<PathBuf> {
    kept_or_made(kept, "main", 8 << 30, &["-N", "1200000"], |root| {
        tree(&root.join("tree"))?;
        long(&root.join("long"))?;
        every_other_block(&root.join("fragmented"), EXTENTS)?;
        names(&root.join("many"), MANY)?;
        names(&root.join("few"), FEW)?;
        sparse(&root.join("sparse"))
    })
}

/// A file system of this length with one file in it: what a mount costs.
pub(crate) fn empty(kept: &Path, name: &str, length: u64) -> Result<PathBuf> {
    kept_or_made(kept, name, length, &["-J", "size=64"], |root| Ok(fs::write(root.join("file"), "one file\n")?))
}

/// A small one, for counting instructions.
pub(crate) fn counted(kept: &Path) -> Result<PathBuf> {
    kept_or_made(kept, "counted", 64 << 20, &[], |root| {
        names(&root.join("few"), FEW)?;
        every_other_block(&root.join("fragmented"), FEW)
    })
}

/// The name of a directory's entry.
pub(crate) fn name(number: u64) -> String {
    format!("entry {number:07}")
}

fn kept_or_made(
    kept: &Path,
    name: &str,
    length: u64,
    arguments: &[&str],
    fill: impl Fn(&Path) -> Result,
) -> Result<PathBuf> {
    let path = kept.join(format!("{name}-{VERSION}.img"));
    if path.exists() {
        return Ok(path);
    }
    println!("making {}", path.display());
    // Under another name until it is whole.
    let unfinished = tempfile::Builder::new().prefix(name).tempdir_in(kept)?;
    let image = unfinished.path().join("image");
    File::create(&image)?.set_len(length)?;
    command::run(
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-U", UUID, "-E"])
            .arg(format!("hash_seed={UUID},lazy_itable_init=1,lazy_journal_init=1"))
            .args(arguments)
            .arg(&image),
    )?;
    let mount = KernelMount::writable(&image, &unfinished.path().join("mount"))?;
    fill(mount.path()).map_err(|error| format!("filling {name}: {error}"))?;
    mount.unmount()?;
    fs::rename(image, &path)?;
    Ok(path)
}

/// Files with the sizes of a source tree: half of them below 4 KiB, few of them long, 11 KiB on average.
fn tree(root: &Path) -> Result {
    let content = noise(1, 1 << 20);
    for number in 0..FILES {
        let directory = root
            .join(format!("part{}", number / FILES_OF_A_PART))
            .join(format!("group{:03}", number / (FILES_OF_A_DIRECTORY * 16)))
            .join(format!("directory{:05}", number / FILES_OF_A_DIRECTORY));
        if number % FILES_OF_A_DIRECTORY == 0 {
            fs::create_dir_all(&directory)?;
        }
        let bytes = noise(number, 8);
        let [shift, low, high, suffix, ..] = bytes[..] else { unreachable!("eight bytes") };
        // The sum of two dice over powers of two: a bell on a scale of logarithms, as sizes of sources are.
        let power = u32::from(shift % 6) + u32::from(shift / 6 % 7) + 6;
        let length = (1_usize << power) + (usize::from(low) << power >> 8);
        let begin = usize::from(high) << 8;
        let name = format!("source_file_{number}.{}", ["c", "h", "rs", "txt"][usize::from(suffix % 4)]);
        fs::write(directory.join(name), &content[begin..begin + length])?;
    }
    Ok(())
}

fn long(path: &Path) -> Result {
    let (mut file, part) = (File::create(path)?, noise(2, 8 << 20));
    for _ in 0..LONG / (8 << 20) {
        file.write_all(&part)?;
    }
    Ok(file.sync_all()?)
}

fn every_other_block(path: &Path, extents: u64) -> Result {
    let (file, block) = (File::create(path)?, noise(3, 4096));
    for number in 0..extents {
        file.write_all_at(&block, number * 8192)?;
    }
    Ok(file.sync_all()?)
}

fn names(directory: &Path, count: u64) -> Result {
    fs::create_dir(directory)?;
    for number in 0..count {
        File::create(directory.join(name(number)))?;
    }
    Ok(())
}

fn sparse(path: &Path) -> Result {
    let file = File::create(path)?;
    for number in 0..64 {
        file.write_all_at(&noise(number, 4096), number << 30)?;
    }
    Ok(file.set_len(64 << 30)?)
}
