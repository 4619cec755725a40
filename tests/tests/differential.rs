//! The mutator's images that e2fsck still calls clean, read in this process and held to what the kernel's own read-only
//! mount shows: names, types, attributes, links, contents.
//!
//! `LAZARET_DIFFERENTIAL` says how many mutants are made, `LAZARET_DIFFERENTIAL_SEED` with which to begin.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use lazaret_policy::message::Verity;
use lazaret_tests::block::KernelMount;
use lazaret_tests::fuzz::image::{Recipe, SEALED};
use lazaret_tests::fuzz::mutator;
use lazaret_tests::fuzz::scratch::Scratch;
use lazaret_tests::mutate::random::Random;
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, command, object};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::{FileKind, Filesystem, Inode, InodeNumber, Settings};

/// Mutants in the gate, and how many of them at least must be clean: else nothing is compared.
const MUTANTS: u64 = 150;
const CLEAN: u64 = 10;

/// What is told of an object that cannot be read.
const UNREAD: &str = "not read";
/// Bytes of memory and seconds that e2fsck may take.
const MEMORY: u64 = 1 << 30;
const SECONDS: &str = "20";
/// Bytes of a file that are compared.
const LONGEST: u64 = 4 << 20;

fn main() {
    requirement::main(|workshop| {
        vec![trial("mutants that e2fsck calls clean read as the kernel reads them", MOUNTS, workshop, compared)]
    })
}

/// What is told of an object: its attributes by name, and its content or target.
type Told = BTreeMap<Vec<u8>, String>;

fn number(name: &str, otherwise: u64) -> Result<u64> {
    Ok(std::env::var(name).map_or(Ok(otherwise), |value| value.parse())?)
}

fn compared(workshop: &Workshop) -> Result {
    let place = workshop.directory("differential")?;
    let first = number("LAZARET_DIFFERENTIAL_SEED", 0)?;
    let mutants = number("LAZARET_DIFFERENTIAL", MUTANTS)?;
    let kernel_verifies = Path::new("/sys/fs/ext4/features/verity").exists();
    let (mut clean, mut mounted, mut objects, mut wrong) = (0, 0, 0, Vec::new());
    for seed in first..first + mutants {
        let mut input = Vec::new();
        let mut random = Random::new(seed);
        for _ in 0..=seed % 3 {
            input = mutator::recipe(&input, 400, &mut random);
        }
        let recipe = Recipe { flags: SEALED, ..Recipe::decode(&input) };
        let image = place.join("image");
        let changed = |scratch: &Scratch| fs::write(&image, &*scratch.bytes());
        Scratch::of(recipe.sound()).with(|changes| recipe.apply(changes), changed)?;
        // Journals that are to be replayed have tests of their own, and without a key ciphertext is shown as it is. A kernel
        // built without fs-verity mounts files that have it, and gives no byte of them.
        let name = &recipe.sound().name;
        let journal = name.contains("journal") || name == "fast-commit";
        if journal || name.contains("encrypt") || name == "verity" && !kernel_verifies {
            continue;
        }
        // A mutant can have it take as much memory and time as there is; what it gives up is not called clean.
        let mut e2fsck = Command::new("timeout");
        e2fsck.args([SECONDS, "prlimit"]).arg(format!("--as={MEMORY}")).args(["e2fsck", "-fn"]).arg(&image);
        if command::finish(&mut e2fsck, command::PATIENCE)?.code() != Some(0) {
            continue;
        }
        clean += 1;
        // What the kernel here was built without it does not mount; others hold that to debugfs.
        let Ok(mount) = KernelMount::read_only(&image, &place.join("kernel")) else { continue };
        mounted += 1;
        let kernel = by_kernel(mount.path());
        mount.unmount()?;
        let (kernel, ours) = (kernel?, by_us(&image)?);
        objects += kernel.len();
        if kernel != ours {
            let only = |one: &Told, other: &Told| {
                let differs = one.iter().find(|(path, told)| other.get(*path) != Some(told));
                differs.map(|(path, told)| format!("{}: {told}", path.escape_ascii()))
            };
            let changes = recipe.describe().join("; ");
            wrong.push(format!(
                "{seed} ({name}: {changes}): the kernel {:?}, we {:?}",
                only(&kernel, &ours),
                only(&ours, &kernel)
            ));
        }
    }
    println!(
        "{mutants} mutants, {clean} of them clean, {mounted} mounted, {objects} objects compared, {} differ",
        wrong.len()
    );
    if mounted < CLEAN * mutants / MUTANTS {
        return Err(format!("only {mounted} of {mutants} were compared").into());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Every object beneath a mount, by its path.
fn by_kernel(root: &Path) -> Result<Told> {
    let (mut told, mut open) = (Told::new(), vec![root.to_owned()]);
    while let Some(path) = open.pop() {
        let beneath = path.strip_prefix(root)?.as_os_str().as_bytes().to_vec();
        let name = CString::new(path.as_os_str().as_bytes())?;
        let (Ok(facts), Ok(meta)) = (object::attributes(rustix::fs::CWD, &name), fs::symlink_metadata(&path)) else {
            told.insert(beneath, UNREAD.to_owned());
            continue;
        };
        let facts: BTreeMap<_, _> = facts.into_iter().collect();
        let content = if meta.is_dir() {
            let entries = fs::read_dir(&path).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
            entries.map(|entries| {
                open.extend(entries.iter().map(std::fs::DirEntry::path));
                Vec::new()
            })
        } else if meta.is_symlink() {
            fs::read_link(&path).map(|target| target.as_os_str().as_bytes().to_vec())
        } else if meta.is_file() {
            begin_of(&path)
        } else {
            Ok(Vec::new())
        };
        let shown: Vec<i128> = [
            "inode number",
            "mode",
            "links",
            "owner",
            "group",
            "device number",
            "size",
            "blocks of 512 bytes",
            "mtime in ns",
            "ctime in ns",
        ]
        .iter()
        .map(|fact| facts[fact])
        .collect();
        told.insert(beneath, line(&shown, content.ok()));
    }
    Ok(told)
}

/// The first bytes of a file: a mutant may be as long as a file can be.
fn begin_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn line(facts: &[i128], content: Option<Vec<u8>>) -> String {
    let content = content
        .map(|bytes| format!("{} bytes, crc {:08x}", bytes.len(), lazaret_worker::ext4::checksum::crc32c(0, &bytes)));
    format!("{facts:?} {content:?}")
}

/// The same by this process.
fn by_us(image: &Path) -> Result<Told> {
    // The kernel gives no byte of a file whose Merkle tree is broken.
    let settings = Settings { verity: Verity::Verify, ..Settings::default() };
    let fs = Filesystem::open(Device::from_bytes(fs::read(image)?), settings)
        .map_err(|refusal| format!("not opened: {refusal:?}"))?;
    let (mut told, mut open) = (Told::new(), vec![(Vec::new(), InodeNumber::ROOT)]);
    while let Some((path, number)) = open.pop() {
        let Ok(inode) = fs.inode(number) else {
            told.insert(path, UNREAD.to_owned());
            continue;
        };
        let content = match inode.kind {
            FileKind::Directory => {
                let mut entries = Vec::new();
                let listed = fs.read_dir(&inode, 0, &mut |entry| {
                    if !matches!(entry.name, b"." | b"..") {
                        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                        entries.push(([&path, slash, entry.name].concat(), entry.inode));
                    }
                    ControlFlow::Continue(())
                });
                listed.map(|()| {
                    open.extend(entries);
                    Vec::new()
                })
            }
            FileKind::Symlink => fs.read_link(&inode),
            FileKind::Regular => read(&fs, &inode),
            _ => Ok(Vec::new()),
        };
        let time = |time: lazaret_worker::ext4::Timestamp| {
            i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
        };
        let device = rustix::fs::makedev(inode.rdev >> 8 & 0xfff, inode.rdev & 0xff | inode.rdev >> 12 & 0xfff00);
        let facts = [
            number.value().into(),
            inode.mode().into(),
            inode.links.into(),
            inode.uid.into(),
            inode.gid.into(),
            device.into(),
            fs.shown_size(&inode).into(),
            inode.shown_blocks().into(),
            time(inode.mtime),
            time(inode.ctime),
        ];
        told.insert(path, line(&facts, content.ok()));
    }
    Ok(told)
}

fn read(fs: &Filesystem, inode: &Inode) -> lazaret_worker::error::Result<Vec<u8>> {
    let mut bytes = vec![0; LONGEST.min(inode.size) as usize];
    let length = fs.read(inode, 0, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}
