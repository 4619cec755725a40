//! Mappings instead of data: the worker before a kernel that knows fuse-iomap, by the image matrix. What the double reads
//! from the device by the worker's mappings is what the kernel's own ext4 reads.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use lazaret_policy::message::{Range, Verity};
use sha2::{Digest, Sha256};

use lazaret_tests::bare::BARE;
use lazaret_tests::block::KernelMount;
use lazaret_tests::damage::Victim;
use lazaret_tests::disk::{Disk, SECOND};
use lazaret_tests::double::compare::{self, Compared};
use lazaret_tests::double::file::Way;
use lazaret_tests::double::kernel::{Kernel, Offer};
use lazaret_tests::double::wire;
use lazaret_tests::double::worker::Setup;
use lazaret_tests::extents::fiemap;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{self, RECIPES, Recipe};
use lazaret_tests::requirement::{self, Requirement, trial};
use lazaret_tests::workshop::{Workshop, image_of};
use lazaret_tests::{Result, command, fill, leftover, many};

/// The recipe without a regular file.
const EMPTY: &str = "more-links-than-a-directory-counts";
const SECOND_OF_TWO: &str = "label: gpt\nstart=2048, size=131072\nstart=145408, size=131072\n";
/// Images that are held to what they were made of: a kernel with pages of 4 KiB mounts none of the first four.
const MADE_OF_FILES: &[&str] = &[
    "-t ext4 -b 65536",
    "-t ext2 -b 65536",
    "-t ext4 -b 8192 -O inline_data",
    "-t ext4 -b 65536 -I 32768 -O inline_data",
    "-t ext4 -b 4096 -O inline_data",
    "-t ext4 -b 1024",
    "-t ext2 -b 2048",
];
const NO_MOUNT: &[Requirement] = &[Requirement::Tool("mke2fs"), Requirement::Tool("dumpe2fs")];

fn main() {
    requirement::main_in_turn(|workshop| {
        let each = RECIPES.iter().chain(MATRIX);
        let mut trials: Vec<_> = each
            .map(|recipe| trial(recipe.name, BARE, workshop, |workshop| as_the_kernel_reads(recipe, workshop)))
            .collect();
        for name in ["ext4", "ext3", "blocks-of-1k", "fast-commit"] {
            let recipe = recipe::named(name);
            trials.push(trial(format!("{name}-with-a-dirty-journal"), BARE, workshop, |workshop| {
                as_the_kernel_replays(recipe, workshop, false).map(drop)
            }));
        }
        trials.push(trial("data-in-a-dirty-journal", BARE, workshop, data_in_a_journal));
        trials.push(trial("a partition of a disk", BARE, workshop, of_a_partition));
        trials.extend([
            trial("a hundred thousand extents", BARE, workshop, many_extents),
            trial("sealed files", NO_MOUNT, workshop, sealed),
            trial("encrypted files", NO_MOUNT, workshop, encrypted),
        ]);
        for format in MADE_OF_FILES {
            trials.push(trial(format!("mke2fs {format}"), NO_MOUNT, workshop, |workshop| {
                as_it_was_written(format, workshop)
            }));
        }
        trials
    })
}

fn as_the_kernel_reads(recipe: &'static Recipe, workshop: &Workshop) -> Result {
    let image = workshop.image(recipe)?;
    let place = workshop.directory(&format!("{}.iomap", recipe.name))?;
    let mounted = KernelMount::read_only(&image, &place)?;
    let (mut kernel, worker, _) = Kernel::mount(&image, Setup::default(), Offer::default())?;
    let compared = compare::directory(&mut kernel, 1, mounted.path(), true);
    mounted.unmount()?;
    let compared = compared?;
    kernel.unmount()?;
    assert_eq!(worker.ended()?, Some(0));
    assert!(compared.mapped > 0 || recipe.name == EMPTY, "there is no file");
    assert_eq!(compared.read, 0, "every file of a sound image is mapped");
    assert_eq!(compared.inline > 0, recipe.arguments.iter().any(|word| word.contains("inline_data")));
    leftover::nothing_of(&place)?;
    leftover::nothing_of(&image)
}

/// The kernel replays its copy on the device; the worker's copy stays as it is, and so do the blocks on it.
fn as_the_kernel_replays(recipe: &'static Recipe, workshop: &Workshop, data: bool) -> Result<Compared> {
    let place = workshop.directory(&format!("{}.iomap-dirty-{data}", recipe.name))?;
    let image = workshop.copy(recipe, &place)?;
    if data {
        command::run(Command::new("tune2fs").args(["-o", "journal_data"]).arg(&image))?;
    }
    let (ours, theirs) = (place.join("ours.img"), place.join("theirs.img"));
    let live = KernelMount::writable(&image, &place.join("live"))?;
    many::restless(live.path())?;
    many::copy_dirty(&image, live.path(), &ours)?;
    live.unmount()?;
    fs::copy(&ours, &theirs)?;
    let mounted = KernelMount::replayed(&theirs, &place.join("kernel"))?;
    let (mut kernel, worker, summary) = Kernel::mount(&ours, Setup::default(), Offer::default())?;
    let compared = compare::directory(&mut kernel, 1, mounted.path(), false);
    mounted.unmount()?;
    let compared = compared?;
    kernel.unmount()?;
    assert_eq!(worker.ended()?, Some(0));
    assert!(summary.journal.blocks > 0 || summary.journal.fast_changes > 0, "nothing was replayed: {summary:?}");
    assert!(compared.mapped > 100, "{compared:?}");
    leftover::nothing_of(&place)?;
    Ok(compared)
}

/// A file of which the journal holds newer blocks is read, not mapped: on the device is what was.
fn data_in_a_journal(workshop: &Workshop) -> Result {
    let compared = as_the_kernel_replays(recipe::default(), workshop, true)?;
    assert!(compared.read > 10, "no file has its data in the journal: {compared:?}");
    Ok(())
}

/// Bytes of the device are counted from the begin of the file system.
fn of_a_partition(workshop: &Workshop) -> Result {
    let place = workshop.directory("partition.iomap")?;
    let image = workshop.image(recipe::default())?;
    let disk = Disk::new(&place, SECOND_OF_TWO)?.put(&image, SECOND)?;
    let range = Range { offset: SECOND, length: fs::metadata(&image)?.len() };
    let setup = Setup { range: Some(range), ..Setup::default() };
    let mounted = KernelMount::read_only(&image, &place.join("kernel"))?;
    let (mut kernel, _worker, _) = Kernel::mount(&disk.path, setup, Offer::default())?;
    let compared = compare::directory(&mut kernel, 1, mounted.path(), true);
    mounted.unmount()?;
    assert!(compared?.mapped > 10);
    kernel.unmount()?;
    leftover::nothing_of(&place)
}

/// Every other block of it is a hole, so it has twice as many mappings: more than the kernel keeps, many times.
static FRAGMENTED: Recipe = Recipe {
    name: "a-hundred-thousand-extents",
    mebibytes: 176,
    arguments: &["-t", "ext4", "-b", "1024"],
    prepare: &[],
    fill: &[|root| {
        let file = File::create(root.join("fragmented"))?;
        let bytes = fill::noise(7, EXTENTS as usize + 1024);
        (0..EXTENTS).try_for_each(|number| file.write_all_at(&bytes[number as usize..][..1024], number * 2048))?;
        Ok(())
    }],
    finish: &[],
    proof: |_| Ok(()),
    large: true,
};
const EXTENTS: u64 = 100_000;

/// One question for as many mappings as the kernel keeps, and no byte by request.
fn many_extents(workshop: &Workshop) -> Result {
    let image = workshop.image(&FRAGMENTED)?;
    let place = workshop.directory("fragmented.iomap")?;
    let mounted = KernelMount::read_only(&image, &place)?;
    let known = fiemap(&File::open(mounted.path().join("fragmented"))?)?;
    assert_eq!(known.len() as u64, EXTENTS, "the image is not what it should be");
    let (mut kernel, worker, _) = Kernel::mount(&image, Setup::default(), Offer::default())?;
    let compared = compare::directory(&mut kernel, 1, mounted.path(), true);
    mounted.unmount()?;
    let (compared, counts) = (compared?, kernel.counts);
    let budgets = (2 * EXTENTS).div_ceil(kernel.most_kept());
    println!("{} questions for {} budgets of mappings, {counts:?}", compared.begins, budgets);
    assert!(compared.mapped == 1 && compared.begins <= 1 + budgets && counts.reads == 0, "{compared:?} {counts:?}");
    kernel.unmount()?;
    assert_eq!(worker.ended()?, Some(0));
    leftover::nothing_of(&place)
}

/// Bytes of a file that is sealed, and what lies behind it: its tree of one block, and the descriptor.
const SEALED: usize = 40_000;
const BLOCK: usize = 4096;

fn sealed_file() -> Vec<u8> {
    let mut all = fill::noise(11, SEALED);
    all.resize(SEALED.next_multiple_of(BLOCK), 0);
    let mut tree: Vec<u8> = all.chunks(BLOCK).flat_map(Sha256::digest).collect();
    tree.resize(BLOCK, 0);
    let mut descriptor =
        [&[1, 1, 12, 0, 0, 0, 0, 0][..], &(SEALED as u64).to_le_bytes(), &Sha256::digest(&tree)].concat();
    descriptor.resize(BLOCK - 4, 0);
    all.resize(1 << 16, 0);
    [all, tree, descriptor, 256_u32.to_le_bytes().to_vec()].concat()
}

/// What is sealed and to be checked is read, so that nobody gets a byte that is not checked. Where seals are not checked,
/// such a file is one like any other.
fn sealed(workshop: &Workshop) -> Result {
    let place = workshop.directory("sealed")?;
    let image = image_of(&place, &["-t", "ext4", "-O", "verity"], |tree| {
        for name in ["sound", "broken", "other"] {
            fs::write(tree.join(name), sealed_file())?;
        }
        Ok(())
    })?;
    let victim = Victim::open(&image)?;
    for name in ["sound", "broken"] {
        victim.debugfs(&format!("sif {name} size {SEALED}"))?;
        victim.debugfs(&format!("sif {name} flags 0x180000"))?;
    }
    victim.write("broken", 5, 77, b"another byte")?;
    let content = &sealed_file()[..SEALED];
    for verity in [Verity::Verify, Verity::Ignore] {
        let (mut kernel, worker, _) = Kernel::mount(&image, Setup { verity, ..Setup::default() }, Offer::default())?;
        let mut find = |name: &str| -> Result<u64> {
            Ok(kernel.lookup(1, name.as_bytes())?.map_err(|errno| format!("{name}: error {errno}"))?)
        };
        let [sound, broken, other] = [find("sound")?, find("broken")?, find("other")?];
        let checked = verity == Verity::Verify;
        let mapped = [sound, broken, other].map(|node| kernel.nodes[&node].mapped);
        assert_eq!(mapped, [!checked, !checked, true]);
        for way in Way::ALL {
            assert_eq!(kernel.read(sound, way, 0)?, Ok(content.to_vec()), "{way:?}");
            let read = kernel.read(broken, way, 0)?;
            let is_found = if checked { read == Err(libc::EBADMSG) } else { read.is_ok_and(|bytes| bytes != content) };
            assert!(is_found, "{way:?}: a byte that was changed is given");
        }
        if checked {
            let before = kernel.counts;
            for operation in [0, wire::OP_DIRECT, wire::OP_FAULT, wire::OP_REPORT] {
                for node in [sound, broken] {
                    assert_eq!(kernel.ask_begin(node, node, 0, 4096, operation)?, Err(libc::EINVAL));
                }
            }
            assert_eq!(
                (kernel.counts.upserts, kernel.counts.reads),
                (before.upserts, before.reads),
                "something is told"
            );
        }
        kernel.unmount()?;
        assert_eq!(worker.ended()?, Some(0));
    }
    leftover::nothing_of(&place)
}

/// Without a key there is nothing to read, by whatever way, and nobody is told where the ciphertext lies.
fn encrypted(workshop: &Workshop) -> Result {
    let place = workshop.directory("encrypted")?;
    let image = image_of(&place, &["-t", "ext4", "-O", "encrypt"], |tree| {
        for name in ["secret", "plain"] {
            fs::write(tree.join(name), fill::noise(12, 50_000))?;
        }
        Ok(())
    })?;
    Victim::open(&image)?.debugfs("sif secret flags 0x80800")?;
    let (mut kernel, worker, _) = Kernel::mount(&image, Setup::default(), Offer::default())?;
    let secret = kernel.lookup(1, b"secret")?.map_err(|errno| format!("error {errno}"))?;
    let plain = kernel.lookup(1, b"plain")?.map_err(|errno| format!("error {errno}"))?;
    assert_eq!((kernel.nodes[&secret].mapped, kernel.nodes[&plain].mapped), (false, true));
    assert_eq!((kernel.open(secret)?, kernel.open(plain)?), (Err(libc::ENOKEY), Ok(())));
    for operation in [0, wire::OP_DIRECT, wire::OP_FAULT, wire::OP_REPORT] {
        assert_eq!(kernel.ask_begin(secret, secret, 0, 4096, operation)?, Err(libc::ENOKEY));
    }
    assert_eq!(kernel.plain_read(secret, 0, 4096)?, Err(libc::ENOKEY));
    assert_eq!((kernel.counts.upserts, kernel.counts.invals), (0, 0), "something is told");
    assert_eq!(kernel.read(plain, Way::Buffered, 0)?, Ok(fill::noise(12, 50_000)));
    kernel.unmount()?;
    assert_eq!(worker.ended()?, Some(0));
    leftover::nothing_of(&place)
}

/// Only what it was made of can be held against such an image.
fn as_it_was_written(format: &str, workshop: &Workshop) -> Result {
    let place = workshop.directory(&format.replace(' ', "_"))?;
    let (tree, image) = (place.join("tree"), place.join("image.img"));
    fs::create_dir_all(&tree)?;
    for length in [1, 60, 100, 1000, 4000, 4097, 10_000, 65_536, 65_537, 3_000_000] {
        fs::write(tree.join(length.to_string()), fill::noise(length as u64, length))?;
    }
    let sparse = File::create(tree.join("sparse"))?;
    for block in 0..20 {
        sparse.write_all_at(&fill::noise(block, 5000), block * 200_000)?;
    }
    File::create(&image)?.set_len(96 << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    command::run(mke2fs.args(["-q", "-F", "-d"]).arg(&tree).args(format.split(' ')).arg(&image))?;
    let (mut kernel, _worker, _) = Kernel::mount(&image, Setup::default(), Offer::default())?;
    for entry in fs::read_dir(&tree)? {
        let entry = entry?;
        same_bytes(&mut kernel, &entry.path()).map_err(|error| format!("{}: {error}", entry.path().display()))?;
    }
    kernel.unmount()
}

fn same_bytes(kernel: &mut Kernel, path: &Path) -> Result {
    let written = fs::read(path)?;
    let name = path.file_name().ok_or("no name")?;
    let node = kernel.lookup(1, name.as_encoded_bytes())?.map_err(|errno| format!("error {errno}"))?;
    let known = &kernel.nodes[&node];
    // What is in an inode and longer than a page is read.
    let inode_alone = !known.mapped && known.size > 4096;
    assert!(known.mapped || inode_alone, "{known:?}");
    for way in Way::ALL {
        let mut at = 0;
        while at < written.len() {
            let bytes = kernel.read(node, way, at as u64)?.map_err(|errno| format!("error {errno} at {at}"))?;
            assert!(!bytes.is_empty() && written[at..].starts_with(&bytes), "{way:?} at {at}");
            at += bytes.len();
        }
    }
    Ok(())
}
