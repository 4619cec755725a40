//! The same image mounted by the kernel and by Lazaret: everything a program can ask must have the same answer, the
//! image must be untouched, and nothing may be left.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use lazaret_tests::block::KernelMount;
use lazaret_tests::compare::{Order, compare};
use lazaret_tests::lazaret::Mount;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::prove::Figures;
use lazaret_tests::recipe::{self, RECIPES, Recipe};
use lazaret_tests::requirement::{self, MOUNTS, proof};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, lazaret, leftover, many};

/// Recipes of which a copy is taken while the kernel has it mounted: the journal is to be replayed then.
const DIRTY: &[&str] = &["ext4", "ext3", "blocks-of-1k", "no-metadata-csum", "no-64bit", "fast-commit"];

fn main() {
    requirement::main(|workshop| {
        let clean = RECIPES.iter().chain(MATRIX);
        let clean = clean
            .map(|recipe| proof("P4", recipe.name, MOUNTS, workshop, |workshop| same_as_the_kernel(recipe, workshop)));
        let dirty = DIRTY.iter().map(|name| {
            let recipe = recipe::named(name);
            proof("P4", format!("{name}-with-a-dirty-journal"), MOUNTS, workshop, |workshop| {
                same_when_replayed(recipe, workshop)
            })
        });
        let found = proof("P4", "a byte that is written is found", MOUNTS, workshop, written_is_found);
        clean.chain(dirty).chain([found]).collect()
    })
}

fn same_as_the_kernel(recipe: &'static Recipe, workshop: &Workshop) -> Result<Figures> {
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
    untouched(&image, &before)?;
    leftover::nothing_of(&place)?;
    leftover::nothing_of(&image)?;
    Ok(vec![("images compared byte by byte", 1)])
}

fn untouched(image: &Path, before: &str) -> Result {
    if digest::of_file(image)? == before { Ok(()) } else { Err("the image was written to".into()) }
}

/// One byte at the end of an image, written while it is mounted, turns the check red.
fn written_is_found(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("written")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let before = digest::of_file(&image)?;
    let lazaret = Mount::new(&image, &place.join("point"))?;
    untouched(&image, &before)?;
    let file = std::fs::OpenOptions::new().write(true).open(&image)?;
    file.write_all_at(b"x", file.metadata()?.len() - 1)?;
    lazaret.unmount(Duration::from_secs(1))?;
    assert!(untouched(&image, &before).is_err(), "a byte was written, and nobody sees it");
    leftover::nothing_of(&place)?;
    Ok(vec![("sabotages found", 1)])
}

/// The kernel replays its copy of the image on the device, Lazaret reads its own as if it were: neither may be left
/// with another content, and Lazaret's copy must be as it was.
fn same_when_replayed(recipe: &'static Recipe, workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory(&format!("{}.dirty", recipe.name))?;
    let image = workshop.copy(recipe, &place)?;
    let (ours, theirs) = (place.join("ours.img"), place.join("theirs.img"));
    let live = KernelMount::writable(&image, &place.join("live"))?;
    many::restless(live.path())?;
    many::copy_dirty(&image, live.path(), &ours)?;
    live.unmount()?;
    std::fs::copy(&ours, &theirs)?;
    let before = digest::of_file(&ours)?;
    let kernel = KernelMount::replayed(&theirs, &place.join("kernel"))?;
    let lazaret = Mount::new(&ours, &place.join("lazaret"))?;
    compare(kernel.path(), lazaret.path(), Order::LookUpFirst)?.verdict()?;
    lazaret.unmount(Duration::from_secs(1))?;
    kernel.unmount()?;
    replay_is_told(&ours, &place.join("lazaret"))?;
    untouched(&ours, &before)?;
    if digest::of_file(&theirs)? == before {
        return Err("the kernel found nothing to replay: this test shows nothing".into());
    }
    leftover::nothing_of(&place)?;
    Ok(vec![("images compared byte by byte", 1)])
}

/// `info`, `check` and `mount` all say what is read from the journal, and the same of it.
fn replay_is_told(image: &Path, point: &Path) -> Result {
    let run = |words: &[&str]| -> Result<_> {
        lazaret::run(words.iter().map(OsStr::new).chain([image.as_os_str()]))
            .map(|finished| (finished.stdout, finished.stderr))
    };
    let object = |words: &[&str]| -> Result<Value> { Ok(serde_json::from_str(&run(words)?.0)?) };
    let mut told = object(&["info", "--json"])?["filesystem"]["journal"].take();
    let fields = told.as_object_mut().ok_or("no journal is told of")?;
    assert_eq!((fields.remove("kind"), fields.remove("uuid")), (Some("internal".into()), Some(Value::Null)));
    assert_eq!(object(&["check", "--json"])?["journal"], told);
    let count = |name: &str| told[name].as_u64().ok_or(format!("no count of {name}: {told}"));
    let (transactions, fast_commits) = (count("transactions")?, count("fast_commits")?);
    assert!(transactions + fast_commits > 0 && count("revoked")? + count("fast_changes")? < 1 << 20, "{told}");
    let mut words = vec![];
    words.extend((transactions > 0).then(|| format!("{transactions} transactions ({} blocks", told["blocks"])));
    words.extend((fast_commits > 0).then(|| format!("{fast_commits} fast commits ({} changes)", told["fast_changes"])));
    let mount = lazaret::run(["mount".as_ref(), image.as_os_str(), point.as_os_str()])?;
    Mount::adopt(point)?.unmount(Duration::from_secs(1))?;
    for text in [run(&["info"])?.0, run(&["check"])?.1, mount.stderr] {
        let line =
            text.lines().find(|line| line.contains("not replayed: ")).ok_or(format!("nothing is told: {text}"))?;
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
    Ok(())
}
