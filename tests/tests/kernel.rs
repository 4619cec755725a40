//! The same image mounted by the kernel and by Lazaret: everything a program can ask must have the same answer, the
//! image must be untouched, and nothing may be left.

use std::time::Duration;

use lazaret_tests::block::KernelMount;
use lazaret_tests::compare::{Order, compare};
use lazaret_tests::lazaret::Mount;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{self, RECIPES, Recipe};
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover, many};

/// Recipes of which a copy is taken while the kernel has it mounted: the journal is to be replayed then.
const DIRTY: &[&str] = &["ext4", "ext3", "blocks-of-1k", "no-metadata-csum", "no-64bit", "fast-commit"];

fn main() {
    requirement::main(|workshop| {
        let clean = RECIPES.iter().chain(MATRIX);
        let clean =
            clean.map(|recipe| trial(recipe.name, MOUNTS, workshop, |workshop| same_as_the_kernel(recipe, workshop)));
        let dirty = DIRTY.iter().map(|name| {
            let recipe = recipe::named(name);
            trial(format!("{name}-with-a-dirty-journal"), MOUNTS, workshop, |workshop| {
                same_when_replayed(recipe, workshop)
            })
        });
        clean.chain(dirty).collect()
    })
}

fn same_as_the_kernel(recipe: &'static Recipe, workshop: &Workshop) -> Result {
    let image = workshop.image(recipe)?;
    let place = workshop.directory(&format!("{}.mounts", recipe.name))?;
    let before = digest::of_file(&image)?;
    let orders: &[Order] = if recipe.large { &[Order::LookUpFirst] } else { &[Order::LookUpFirst, Order::ListFirst] };
    for order in orders {
        let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
        let lazaret = Mount::new(&image, &place.join("lazaret"))?;
        compare(kernel.path(), lazaret.path(), *order)?.verdict()?;
        lazaret.unmount(Duration::from_secs(1))?;
        kernel.unmount()?;
    }
    if digest::of_file(&image)? != before {
        return Err("the image was written to".into());
    }
    leftover::nothing_of(&place)?;
    leftover::nothing_of(&image)
}

/// The kernel replays its copy of the image on the device, Lazaret reads its own as if it were: neither may be left
/// with another content, and Lazaret's copy must be as it was.
fn same_when_replayed(recipe: &'static Recipe, workshop: &Workshop) -> Result {
    let place = workshop.directory(&format!("{}.dirty", recipe.name))?;
    let image = workshop.copy(recipe, &place)?;
    let (ours, theirs) = (place.join("ours.img"), place.join("theirs.img"));
    let live = KernelMount::writable(&image, &place.join("live"))?;
    many::restless(live.path())?;
    std::fs::copy(&image, &ours)?;
    live.unmount()?;
    many::has_feature(&ours, "needs_recovery")?;
    std::fs::copy(&ours, &theirs)?;
    let before = digest::of_file(&ours)?;
    let kernel = KernelMount::replayed(&theirs, &place.join("kernel"))?;
    let lazaret = Mount::new(&ours, &place.join("lazaret"))?;
    compare(kernel.path(), lazaret.path(), Order::LookUpFirst)?.verdict()?;
    lazaret.unmount(Duration::from_secs(1))?;
    kernel.unmount()?;
    if digest::of_file(&ours)? != before {
        return Err("the image was written to".into());
    }
    if digest::of_file(&theirs)? == before {
        return Err("the kernel found nothing to replay: this test shows nothing".into());
    }
    leftover::nothing_of(&place)
}
