//! `lazaret map` held to the kernel: where every file of every image lies is where FIEMAP says it lies on the kernel's
//! own mount, also where the file system is a partition of a disk. So is what FIBMAP says of a mount on its block device.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use lazaret_tests::bare::{self, BARE};
use lazaret_tests::block::{KernelMount, LoopDevice};
use lazaret_tests::disk::{Disk, SECOND};
use lazaret_tests::extents::{Kind, Piece, fibmap, fiemap, push, unit};
use lazaret_tests::lazaret::Mount;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{self, RECIPES, Recipe};
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, leftover};

const SOON: Duration = Duration::from_secs(2);
/// How many files one command is asked for.
const AT_ONCE: usize = 256;
/// The recipe without a regular file.
const EMPTY: &str = "more-links-than-a-directory-counts";
const SECOND_OF_TWO: &str = "label: gpt\nstart=2048, size=131072\nstart=145408, size=131072\n";

fn main() {
    requirement::main_in_turn(|workshop| {
        let each = RECIPES.iter().chain(MATRIX);
        let mut trials: Vec<_> = each
            .map(|recipe| trial(recipe.name, BARE, workshop, |workshop| as_fiemap_says(recipe, workshop)))
            .collect();
        let each = RECIPES.iter().chain(MATRIX);
        trials.extend(each.map(|recipe| {
            trial(format!("{}: FIBMAP", recipe.name), MOUNTS, workshop, |workshop| as_fibmap_says(recipe, workshop))
        }));
        trials.extend([
            trial("a partition of a disk: FIBMAP", MOUNTS, workshop, fibmap_of_a_partition),
            trial("a partition of a disk", BARE, workshop, of_a_partition),
            trial("what has no map", BARE, workshop, without_a_map),
        ]);
        trials
    })
}

fn as_fiemap_says(recipe: &'static Recipe, workshop: &Workshop) -> Result {
    let image = workshop.image(recipe)?;
    let place = workshop.directory(&format!("{}.map", recipe.name))?;
    let kernel = KernelMount::read_only(&image, &place)?;
    let compared = compare(kernel.path(), &image, &[])?;
    kernel.unmount()?;
    assert!(compared > 0 || recipe.name == EMPTY, "there is no file");
    leftover::nothing_of(&place)?;
    leftover::nothing_of(&image)
}

/// Compares every regular file of a mount with what is told of the image; how many there were.
fn compare(mounted: &Path, image: &Path, more: &[&str]) -> Result<usize> {
    let mut files = vec![];
    collect(mounted, &mut files)?;
    for files in files.chunks(AT_ONCE) {
        let inside = |file: &PathBuf| file.strip_prefix(mounted).map(|file| Path::new("/").join(file));
        let paths = files.iter().map(inside).collect::<std::result::Result<Vec<_>, _>>()?;
        let words = ["map", "--json"].iter().chain(more).map(OsStr::new).chain([image.as_os_str()]);
        let told = bare::run(bare::command(words).args(&paths))?.done()?;
        let told: Vec<Value> =
            serde_json::Deserializer::from_slice(&told).into_iter().collect::<serde_json::Result<_>>()?;
        assert_eq!(told.len(), files.len(), "an object for each file");
        for (file, told) in files.iter().zip(&told) {
            let opened = File::open(file)?;
            let status = opened.metadata()?;
            assert_eq!(told["schema"], "lazaret.map/1");
            assert_eq!(told["inode"].as_u64(), Some(status.ino()));
            let (seen, known) = (pieces(told, status.len())?, fiemap(&opened)?);
            if seen != known {
                return Err(format!("{}: map: {seen:?}, FIEMAP: {known:?}", file.display()).into());
            }
        }
    }
    Ok(files.len())
}

/// The regular files below a directory.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => collect(&entry.path(), files)?,
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

/// What is told of a file, without its holes: they must fill what lies between, up to the end of the file.
fn pieces(told: &Value, size: u64) -> Result<Vec<Piece>> {
    let (mut pieces, mut end, mut whole) = (vec![], 0, 0);
    for piece in told["mappings"].as_array().ok_or("no mappings")? {
        let number = |field: &str| piece[field].as_u64().ok_or_else(|| format!("no {field}: {piece}"));
        let (offset, length) = (number("offset")?, number("length")?);
        assert!(offset == end || offset > size && offset > end, "a gap within the file: {told}");
        end = offset + length;
        whole = whole.max(if offset < size { end } else { 0 });
        let kind = match piece["type"].as_str() {
            Some("mapped") => Kind::Mapped,
            Some("unwritten") => Kind::Unwritten,
            Some("inline") => Kind::Inline,
            Some("hole") if piece["device"].is_null() => continue,
            _ => return Err(format!("what is this: {piece}").into()),
        };
        push(&mut pieces, Piece { offset, length, device: number("device")?, kind });
    }
    assert!(whole >= size, "the end is missing: {told}");
    Ok(pieces)
}

/// Bytes of the device are those of the file system, which is what the kernel mounts.
fn of_a_partition(workshop: &Workshop) -> Result {
    let place = workshop.directory("partition.map")?;
    let image = workshop.image(recipe::default())?;
    let disk = Disk::new(&place, SECOND_OF_TWO)?.put(&image, SECOND)?;
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    for more in [&[][..], &["--part", "2"]] {
        assert!(compare(kernel.path(), &disk.path, more)? > 10);
    }
    kernel.unmount()?;
    leftover::nothing_of(&place)
}

/// Blocks of a file that are asked for, of each place where one mapping ends.
const AROUND: [i64; 4] = [-1, 0, 1, 17];
/// No more places of a file than these, and no more files: each block is a request.
const MOST_PLACES: usize = 500;
const MOST_FILES: usize = 1000;

fn as_fibmap_says(recipe: &'static Recipe, workshop: &Workshop) -> Result {
    let image = workshop.image(recipe)?;
    let place = workshop.directory(&format!("{}.fibmap", recipe.name))?;
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    let device = LoopDevice::attach(&image, true)?;
    let ours = Mount::with(device.path(), &place.join("ours"), "blkdev")?;
    let found = blocks(kernel.path(), ours.path(), 0)?;
    ours.unmount(SOON)?;
    kernel.unmount()?;
    drop(device);
    assert!(found, "no block was found");
    leftover::nothing_of(&place)?;
    leftover::nothing_of(&image)
}

/// The kernel is told of the whole disk, and so are the blocks counted.
fn fibmap_of_a_partition(workshop: &Workshop) -> Result {
    let place = workshop.directory("partition.fibmap")?;
    let image = workshop.image(recipe::default())?;
    let disk = Disk::new(&place, SECOND_OF_TWO)?.put(&image, SECOND)?;
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    let device = LoopDevice::attach(&disk.path, true)?;
    let ours = Mount::with(device.path(), &place.join("ours"), "blkdev,part=2")?;
    assert!(blocks(kernel.path(), ours.path(), SECOND)?, "no block was found");
    ours.unmount(SOON)?;
    kernel.unmount()?;
    drop(device);
    leftover::nothing_of(&place)
}

/// Compares what FIBMAP says of regular files with where FIEMAP says that it lies, `begin` bytes further on; whether a
/// block was found, if there is any.
fn blocks(theirs: &Path, ours: &Path, begin: u64) -> Result<bool> {
    let (mut files, mut found, mut lie) = (vec![], false, false);
    collect(theirs, &mut files)?;
    let step = files.len().div_ceil(MOST_FILES).max(1);
    for file in files.into_iter().step_by(step) {
        let (known, seen) = (File::open(&file)?, File::open(ours.join(file.strip_prefix(theirs)?))?);
        let (pieces, size) = (fiemap(&known)?, known.metadata()?.len());
        let (unit, their_unit) = (unit(&seen)?.into(), unit(&known)?.into());
        let edges = pieces.iter().flat_map(|piece| [piece.offset, piece.offset + piece.length]);
        let mut places: Vec<u64> = edges.take(MOST_PLACES).chain([0, size / 2, size]).collect();
        places.sort_unstable();
        for (place, further) in places.into_iter().flat_map(|place| AROUND.map(|further| (place, further))) {
            let block = |unit: u64| u32::try_from((place / unit).saturating_add_signed(further)).ok();
            let (Some(here), Some(there)) = (block(unit), block(their_unit)) else { continue };
            if here.max(there) > i32::MAX as u32 {
                continue;
            }
            let (number, expected) = (fibmap(&seen, here)?, lies(&pieces, size, here, (unit, their_unit), begin));
            if number != expected {
                return Err(format!("{}: block {here}: {number}, and {expected} by FIEMAP", file.display()).into());
            }
            let (number, expected) = (fibmap(&known, there)?, lies(&pieces, size, there, (their_unit, their_unit), 0));
            assert_eq!(number, expected, "the kernel of itself: {}, block {there}", file.display());
            found |= number > 0;
        }
        lie |= pieces.iter().any(|piece| piece.kind == Kind::Mapped);
    }
    Ok(found || !lie)
}

/// The number of the device's block that holds this block of a file, if one does. `unit`: of the count, and of the file
/// system.
fn lies(pieces: &[Piece], size: u64, block: u32, unit: (u64, u64), begin: u64) -> u32 {
    let start = u64::from(block) * unit.0;
    let end = (start + unit.0).min(size.next_multiple_of(unit.1));
    let within = |piece: &&Piece| piece.offset <= start && end <= piece.offset + piece.length;
    let piece = pieces.iter().filter(|piece| piece.kind == Kind::Mapped && start < end).find(within);
    let place = piece.map_or(0, |piece| begin + piece.device + start - piece.offset);
    if place.is_multiple_of(unit.0) { (place / unit.0) as u32 } else { 0 }
}

fn without_a_map(workshop: &Workshop) -> Result {
    let image = workshop.image(recipe::default())?;
    let map = |path: &str| bare::run(&mut bare::command(["map".as_ref(), image.as_os_str(), path.as_ref()]));
    map("/")?.refused(32, &["/: is no regular file"])?;
    map("/no such name")?.refused(32, &["no such file or directory"])?;
    map("/sizes/../sizes/4097")?.done().map(drop)
}
