//! `lazaret extract`: what it takes out of an image is what the kernel shows of it, as a directory and as an archive that
//! GNU tar unpacks; nothing of a hostile image gets outside of the target, and each lie is told.

use std::fs;
use std::path::Path;
use std::process::Command;

use lazaret_tests::bare::{self, BARE};
use lazaret_tests::block::KernelMount;
use lazaret_tests::command::run;
use lazaret_tests::compare::compare_copy;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{RECIPES, Recipe};
use lazaret_tests::requirement::{self, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, lazaret, leftover};

fn main() {
    requirement::main_in_turn(|workshop| {
        let each = RECIPES.iter().chain(MATRIX);
        each.map(|recipe| trial(recipe.name, BARE, workshop, |workshop| as_the_kernel_shows_it(recipe, workshop)))
            .collect()
    })
}

/// With all that is taken only when it is asked for.
const ALL: [&str; 5] = ["--owners", "--setuid", "--special", "-o", "xattrs=all"];

/// As an archive, made as nobody where there is next to nothing; and, where that is not too much, as a directory.
fn as_the_kernel_shows_it(recipe: &'static Recipe, workshop: &Workshop) -> Result {
    let image = workshop.image(recipe)?;
    let place = workshop.directory(&format!("{}.extract", recipe.name))?;
    let before = digest::of_file(&image)?;
    // An archive has no sockets.
    same_copy(recipe, workshop, &place, &["atime in ns", "sockets"], |copy| unpacked(&image, copy))?;
    if !recipe.large {
        same_copy(recipe, workshop, &place, &[], |copy| {
            let told = lazaret::run(
                ["extract".as_ref(), image.as_os_str(), "--continue".as_ref(), "--to".as_ref(), copy.as_os_str()]
                    .into_iter()
                    .chain(ALL.iter().map(AsRef::as_ref)),
            )?;
            if told.code() == Some(0) && told.stderr.is_empty() { Ok(()) } else { Err(format!("{told:?}").into()) }
        })?;
    }
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    fs::remove_dir_all(&place)?;
    leftover::nothing_of(&image)
}

/// Lets somebody extract the image of a recipe into an empty file system of its kind, and compares the two. Each is
/// mounted for that: what was read or written lies in the page cache, and there holes look different.
fn same_copy(
    recipe: &'static Recipe,
    workshop: &Workshop,
    place: &Path,
    but: &'static [&'static str],
    extract: impl FnOnce(&Path) -> Result,
) -> Result {
    let copy = workshop.empty(recipe, place)?;
    let mounted = KernelMount::writable(&copy, &place.join("copy"))?;
    extract(mounted.path())?;
    mounted.unmount()?;
    let (copy, kernel) = (
        KernelMount::read_only(&copy, &place.join("copy"))?,
        KernelMount::read_only(&workshop.image(recipe)?, &place.join("kernel"))?,
    );
    compare_copy(kernel.path(), copy.path(), but)?.verdict()?;
    copy.unmount()?;
    kernel.unmount()
}

/// An image as an archive, unpacked by GNU tar.
fn unpacked(image: &Path, to: &Path) -> Result {
    let mut archive = bare::command(["extract".as_ref(), image.as_os_str(), "--tar".as_ref(), "-".as_ref()]);
    archive.args(ALL);
    let file = to.with_extension("tar");
    let left = bare::run_into(&mut archive, &file)?;
    let socket = "is a socket, which no archive can hold";
    let unexpected: Vec<_> =
        left.stderr.lines().filter(|line| !line.contains(socket) && !line.contains("were extracted")).collect();
    assert!(unexpected.is_empty() && matches!(left.code, Some(0 | 2)), "{left:?}");
    let options = ["--numeric-owner", "-p", "--xattrs", "--xattrs-include=*", "--acls", "-S", "-x"];
    let said = run(Command::new("tar").args(options).arg("-C").arg(to).arg("-f").arg(&file))?;
    fs::remove_file(&file)?;
    if said.is_empty() { Ok(()) } else { Err(said.into()) }
}
