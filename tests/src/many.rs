//! Fills with much of one thing, and the proofs that an image is as deep or as large as its name says.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::fill::noise;
use crate::{Result, command};

/// Names whose bytes are partly above 127, in a directory large enough to be hashed.
pub fn hashed_names(root: &Path) -> Result {
    let directory = root.join("hashed");
    fs::create_dir(&directory)?;
    for number in 0..3000_u64 {
        let mut name = noise(number, 1 + usize::try_from(number % 60)?);
        name.iter_mut().filter(|byte| matches!(**byte, 0 | b'/')).for_each(|byte| *byte = 0xc3);
        name.extend_from_slice(format!("-{number}").as_bytes());
        File::create(directory.join(OsStr::from_bytes(&name)))?;
    }
    Ok(())
}

/// Files of which every other block is written: 10 000 extents, and 30 000.
pub fn many_extents(root: &Path) -> Result {
    for extents in [10_000, 30_000] {
        let file = File::create(root.join(format!("extents-{extents}")))?;
        for number in 0..extents {
            file.write_all_at(&noise(number, 1000), number * 2048)?;
        }
    }
    Ok(())
}

/// A file with a block at both ends of each level of the indirect map, for blocks of 1 KiB.
pub fn triple_indirect(root: &Path) -> Result {
    let file = File::create(root.join("triple"))?;
    let (single, double) = (12, 12 + 256);
    let triple = double + 256 * 256;
    let last = triple + 256 * 256 * 256 - 1;
    let inner = [triple + 1, triple + 255, triple + 256, triple + 65_535, triple + 65_536, triple + 5_000_000];
    let edges = [0, 11, single, double - 1, double, double + 255, double + 256, triple - 1, triple, last];
    for block in edges.into_iter().chain(inner) {
        file.write_all_at(&noise(block, 1024), block * 1024)?;
    }
    let dense = File::create(root.join("dense"))?;
    for part in 0..20 {
        dense.write_all_at(&noise(part, 1 << 20), part << 20)?;
    }
    Ok(())
}

/// Sparse files whose offsets do not fit 32 bits.
pub fn longer_than_32_bits(root: &Path) -> Result {
    let file = File::create(root.join("sparse"))?;
    for offset in [0, (1 << 31) - 5000, (1 << 32) - 4096, 1 << 32, (1 << 32) + 123_456, 5 << 32] {
        file.write_all_at(&noise(offset, 10_000), offset)?;
    }
    file.set_len((5 << 32) + (1 << 30) + 1)?;
    Ok(File::create(root.join("nothing-but-a-hole"))?.set_len((1 << 32) + 1)?)
}

/// A directory of 100 000 entries: a hundred inodes with a thousand names each.
pub fn hundred_thousand_entries(root: &Path) -> Result {
    entries(root, 100)
}

/// A directory of 20 000 entries.
pub fn twenty_thousand_entries(root: &Path) -> Result {
    entries(root, 20)
}

fn entries(root: &Path, thousands: u32) -> Result {
    let directory = root.join("big");
    fs::create_dir(&directory)?;
    for file in 0..thousands {
        let first = directory.join(format!("file {file:03}"));
        fs::write(&first, file.to_string())?;
        for link in 1..1000 {
            fs::hard_link(&first, directory.join(format!("name {link:03} of file {file:03}")))?;
        }
    }
    Ok(())
}

/// Values that fit no block: each has an inode of its own.
pub fn large_attributes(root: &Path) -> Result {
    let path = root.join("large attributes");
    File::create(&path)?;
    for number in 0..3 {
        let (name, value) = (format!("user.large-{number}"), noise(number, 20_000));
        rustix::fs::setxattr(&path, name, &value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

/// Changes of every kind, half of them forced into the journal: what an image holds after that depends on its replay.
pub fn restless(root: &Path) -> Result {
    let work = root.join("restless");
    fs::create_dir(&work)?;
    for round in 0..4_u64 {
        for number in 0..200_u64 {
            fs::write(work.join(format!("{round}-{number}")), noise(number, 5000))?;
        }
        for number in (0..200).filter(|number| number % 3 == 0) {
            fs::remove_file(work.join(format!("{round}-{number}")))?;
        }
        for number in (0..200).filter(|number| number % 3 == 1) {
            fs::rename(work.join(format!("{round}-{number}")), work.join(format!("renamed {round}-{number}")))?;
        }
        let grown = File::options().append(true).create(true).open(work.join("grown"))?;
        std::io::Write::write_all(&mut &grown, &noise(round, 100_000))?;
        fs::create_dir_all(work.join(format!("folder-{round}/below")))?;
        std::os::unix::fs::symlink("somewhere", work.join(format!("link-{round}")))?;
        if round > 0 {
            // A directory's blocks are freed and used for data: the journal revokes them.
            fs::remove_dir_all(work.join(format!("folder-{}", round - 1)))?;
            File::create(work.join("cut"))?.set_len(round * 7000)?;
        }
        rustix::fs::syncfs(File::open(root)?)?;
    }
    Ok(())
}

/// Copies an image that the kernel has mounted there, with something in its journal that is to be replayed. The kernel
/// may have written it all to its places by the time that the copy comes to the journal; then there is more to copy.
pub fn copy_dirty(image: &Path, mounted: &Path, to: &Path) -> Result {
    const TRIES: u64 = 20;
    for attempt in 0..TRIES {
        fs::copy(image, to)?;
        if debugfs(to, "logdump")?.contains("commit block") {
            return has_feature(to, "needs_recovery");
        }
        fs::write(mounted.join(format!("more-{attempt}")), noise(attempt, 5000))?;
        rustix::fs::syncfs(File::open(mounted)?)?;
    }
    Err(format!("{}: nothing was left in the journal in {TRIES} tries", image.display()).into())
}

/// 60 000 files of a few bytes, a thousand in each directory.
pub fn sixty_thousand_files(root: &Path) -> Result {
    for number in 0..60_000 {
        let directory = root.join(format!("{:02}", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir(&directory)?;
        }
        fs::write(directory.join(format!("{number}")), format!("this is file {number}\n"))?;
    }
    Ok(())
}

/// More subdirectories than a link count can say: the directory's count becomes 1.
pub fn many_subdirectories(root: &Path) -> Result {
    let directory = root.join("many");
    fs::create_dir(&directory)?;
    for number in 0..65_100 {
        fs::create_dir(directory.join(format!("{number}")))?;
    }
    Ok(())
}

/// What `debugfs` answers to a request.
pub fn debugfs(image: &Path, request: &str) -> Result<String> {
    command::run(Command::new("debugfs").args(["-R", request]).arg(image))
}

/// A line of the superblock as `debugfs` prints it, `name: value`, holds this value.
pub fn superblock_says(image: &Path, name: &str, value: &str) -> Result {
    let text = debugfs(image, "show_super_stats -h")?;
    let line = text.lines().find(|line| line.starts_with(name)).ok_or_else(|| format!("no line {name}: {text}"))?;
    if line.contains(value) { Ok(()) } else { Err(format!("{line}, and not {value}").into()) }
}

/// The image has this feature.
pub fn has_feature(image: &Path, feature: &str) -> Result {
    superblock_says(image, "Filesystem features", feature)
}

/// The extent trees are as deep as their number of extents makes them, at least 2 below the root.
pub fn extent_trees_are_deep(image: &Path) -> Result {
    for (file, depth) in [("extents-10000", 2), ("extents-30000", 3)] {
        // A line begins with "level/depth".
        let text = debugfs(image, &format!("dump_extents -n /{file}"))?;
        let found = text.lines().filter_map(|line| line.trim().split_once('/')).find(|(level, _)| *level == "0");
        let found: u32 = found
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| format!("no extent tree: {text}"))?;
        if found < depth {
            return Err(format!("{file} has an extent tree of depth {found}, and not {depth}").into());
        }
    }
    Ok(())
}

/// The file reaches into the triple indirect block.
pub fn has_triple_indirect_block(image: &Path) -> Result {
    let text = debugfs(image, "stat /triple")?;
    if text.contains("(TIND)") { Ok(()) } else { Err(format!("no triple indirect block: {text}").into()) }
}

/// The big directory is hashed, with index blocks below its root.
pub fn big_directory_is_hashed(image: &Path) -> Result {
    let text = debugfs(image, "htree_dump /big")?;
    if text.contains("Indirect levels: 1") { Ok(()) } else { Err("the hash tree has no second level".into()) }
}
