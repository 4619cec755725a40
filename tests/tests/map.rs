//! `lazaret map` held to the kernel: where every file of every image lies is where FIEMAP says it lies on the kernel's
//! own mount, also where the file system is a partition of a disk.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use lazaret_tests::bare::{self, BARE};
use lazaret_tests::block::KernelMount;
use lazaret_tests::disk::{Disk, SECOND};
use lazaret_tests::extents::{Kind, Piece, fiemap, push};
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{self, RECIPES, Recipe};
use lazaret_tests::requirement::{self, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, leftover};

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
        trials.extend([
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

fn without_a_map(workshop: &Workshop) -> Result {
    let image = workshop.image(recipe::default())?;
    let map = |path: &str| bare::run(&mut bare::command(["map".as_ref(), image.as_os_str(), path.as_ref()]));
    map("/")?.refused(32, &["/: is no regular file"])?;
    map("/no such name")?.refused(32, &["no such file or directory"])?;
    map("/sizes/../sizes/4097")?.done().map(drop)
}
