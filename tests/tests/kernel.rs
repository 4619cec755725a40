//! The same image mounted by the kernel and by Lazaret: everything a program can ask must have the same answer, the
//! image must be untouched, and nothing may be left.

use std::time::Duration;

use lazaret_tests::block::KernelMount;
use lazaret_tests::compare::{Order, compare};
use lazaret_tests::lazaret::Mount;
use lazaret_tests::recipe::{RECIPES, Recipe};
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, leftover};

fn main() {
    requirement::main(|workshop| {
        let each = RECIPES.iter();
        each.map(|recipe| trial(recipe.name, MOUNTS, workshop, |workshop| same_as_the_kernel(recipe, workshop)))
            .collect()
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
