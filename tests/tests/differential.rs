//! The mutator's images that e2fsck still calls clean, read in this process and held to what the kernel's own read-only
//! mount shows: names, types, attributes, extended ones among them, links, contents.
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

use lazaret_policy::corruption::Rule;
use lazaret_policy::message::{Refusal, Verity, Xattrs};
use lazaret_tests::block::KernelMount;
use lazaret_tests::fuzz::image::{Recipe, SEALED};
use lazaret_tests::fuzz::mutator;
use lazaret_tests::fuzz::scratch::Scratch;
use lazaret_tests::fuzz::stock::{Sound, stock};
use lazaret_tests::mutate::random::Random;
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, command, object};
use lazaret_worker::device::Device;
use lazaret_worker::error::Error;
use lazaret_worker::ext4::checksum::crc32c;
use lazaret_worker::ext4::{FileKind, Filesystem, Inode, InodeNumber, Settings};
use rustix::fs::{lgetxattr, llistxattr};

/// Mutants in the gate, and how many of them at least must be clean: else nothing is compared.
const MUTANTS: u64 = 150;
const CLEAN: u64 = 10;

/// Rules that a reader here holds to, where the kernel shows zeros in the place of what is missing, lists a name that it
/// gives no value for, or takes a wrong checksum on a read-only mount.
const STRICTER: [Rule; 3] = [Rule::InlineSize, Rule::XattrName, Rule::GroupChecksum];
/// Flags that no link may have to the kernel: it may not be changed, or only be appended to.
const FIXED: u32 = 0x10 | 0x20;
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

/// What one side answers; we say which rule was broken.
type Answer<T> = std::result::Result<T, Option<Rule>>;

/// Names of extended attributes, each with its value if that can be read.
type Attributes = BTreeMap<String, Option<String>>;

/// What is told of an object.
#[derive(Debug)]
struct Object {
    facts: Vec<i128>,
    /// The content or the target, in short.
    content: Answer<String>,
    attributes: Answer<Attributes>,
    /// We see that it is a link which the kernel does not read.
    is_fixed_link: bool,
}

/// All objects by path, as far as their inodes can be read.
type Told = BTreeMap<Vec<u8>, Answer<Object>>;

impl Object {
    /// Whether somebody who reads all of it is told that it is damaged.
    fn is_damaged(&self) -> bool {
        self.content.is_err() || self.attributes.is_err()
    }

    fn agrees(&self, ours: &Self) -> bool {
        let attributes = |kernel: &Attributes, ours: &Attributes| {
            // In a block that is not sorted the kernel does not find all that it lists.
            let listed = ours.keys().all(|name| kernel.contains_key(name));
            listed && kernel.iter().all(|(name, value)| value.is_none() || ours.get(name) == Some(value))
        };
        self.facts == ours.facts
            && agree(&self.content, &ours.content, String::eq)
            && agree(&self.attributes, &ours.attributes, attributes)
    }
}

fn agree<T>(kernel: &Answer<T>, ours: &Answer<T>, same: impl Fn(&T, &T) -> bool) -> bool {
    match (kernel, ours) {
        (Ok(kernel), Ok(ours)) => same(kernel, ours),
        (Ok(_), Err(rule)) => rule.is_some_and(|rule| STRICTER.contains(&rule)),
        (Err(_), ours) => ours.is_err(),
    }
}

/// The first object that is told otherwise.
fn difference(kernel: &Told, ours: &Told) -> Option<String> {
    // What lies beneath a directory that one side does not read.
    let hidden = |path: &[u8]| {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let begins = slashes.chain((!path.is_empty()).then_some(0));
        begins
            .map(|end| &path[..end])
            .any(|above| [kernel, ours].iter().any(|told| matches!(told.get(above), Some(Err(_)))))
    };
    let paths = kernel.keys().chain(ours.keys()).filter(|path| !hidden(path));
    paths
        .map(|path| (path, kernel.get(path), ours.get(path)))
        .find(|(_, kernel, ours)| {
            !match (kernel, ours) {
                // Of an inode whose attributes are damaged newer kernels give nothing at all, and we what is sound.
                (Some(Err(_)), Some(Ok(ours))) => ours.is_damaged() || ours.is_fixed_link,
                (Some(kernel), Some(ours)) => agree(kernel, ours, Object::agrees),
                _ => false,
            }
        })
        .map(|(path, kernel, ours)| format!("{}: the kernel {kernel:?}, we {ours:?}", path.escape_ascii()))
}

fn number(name: &str, otherwise: u64) -> Result<u64> {
    Ok(std::env::var(name).map_or(Ok(otherwise), |value| value.parse())?)
}

/// Whether there is something to compare. Journals that are to be replayed have tests of their own, and without a key
/// ciphertext is shown as it is. A kernel built without fs-verity mounts files that have it, and gives no byte of them;
/// what else it was built without it does not mount, and others hold that to debugfs.
fn is_comparable(sound: &Sound, place: &Path) -> Result<bool> {
    let name = &sound.name;
    let kernel_verifies = Path::new("/sys/fs/ext4/features/verity").exists();
    let journal = name.contains("journal") || name == "fast-commit";
    if journal || name.contains("encrypt") || name == "verity" && !kernel_verifies {
        return Ok(false);
    }
    let image = place.join("sound");
    fs::write(&image, &sound.bytes)?;
    let Ok(mount) = KernelMount::read_only(&image, &place.join("kernel")) else { return Ok(false) };
    mount.unmount()?;
    Ok(true)
}

/// A mutant can have it take as much memory and time as there is; what it gives up is not called clean.
fn is_clean(image: &Path) -> Result<bool> {
    let mut e2fsck = Command::new("timeout");
    e2fsck.args([SECONDS, "prlimit"]).arg(format!("--as={MEMORY}")).args(["e2fsck", "-fn"]).arg(image);
    Ok(command::finish(&mut e2fsck, command::PATIENCE)?.code() == Some(0))
}

/// Whether a superblock says nonsense to who makes new trees or new inodes: by which hash, or how long their fields are.
/// Newer kernels mount no such file system, and a reader does not look at it.
fn is_for_readers_alone(image: &[u8]) -> bool {
    const LAST_HASH: u8 = 6;
    let superblock = &image[1024..2048];
    let half = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    let longest = half(0x58).saturating_sub(128);
    superblock[0xfc] > LAST_HASH || half(0x15c) > longest || half(0x15e) > longest
}

/// What was compared so far.
#[derive(Debug, Default)]
struct Compared {
    clean: u64,
    mounted: u64,
    objects: usize,
    attributed: usize,
}

impl Compared {
    /// Holds an image to the kernel's mount of it; says what is not the same.
    fn compare(&mut self, image: &Path, place: &Path) -> Result<Option<String>> {
        self.clean += 1;
        let ours = by_us(image)?;
        let Ok(mount) = KernelMount::read_only(image, &place.join("kernel")) else {
            let only_ours = ours.is_ok() && !is_for_readers_alone(&fs::read(image)?);
            return Ok(only_ours.then(|| "the kernel does not mount it, and we do".to_owned()));
        };
        self.mounted += 1;
        let kernel = by_kernel(mount.path());
        mount.unmount()?;
        let (kernel, ours) = match (kernel?, ours) {
            (kernel, Ok(ours)) => (kernel, ours),
            (_, Err(refusal)) => return Ok(Some(format!("the kernel mounts it, and we do not: {refusal:?}"))),
        };
        self.objects += kernel.len();
        let has_some = |object: &&Object| object.attributes.as_ref().is_ok_and(|all| !all.is_empty());
        self.attributed += kernel.values().flatten().filter(has_some).count();
        Ok(difference(&kernel, &ours))
    }
}

fn compared(workshop: &Workshop) -> Result {
    let place = workshop.directory("differential")?;
    let first = number("LAZARET_DIFFERENTIAL_SEED", 0)?;
    let mutants = number("LAZARET_DIFFERENTIAL", MUTANTS)?;
    let comparable = |sound: &'static Sound| Ok((&sound.name, is_comparable(sound, &place)?));
    let comparable = stock().iter().map(comparable).collect::<Result<BTreeMap<_, _>>>()?;
    let (mut found, mut wrong, image) = (Compared::default(), Vec::new(), place.join("image"));
    for seed in first..first + mutants {
        let mut input = Vec::new();
        let mut random = Random::new(seed);
        for _ in 0..=seed % 3 {
            input = mutator::recipe(&input, 400, &mut random);
        }
        let recipe = Recipe { flags: SEALED, ..Recipe::decode(&input) };
        let name = &recipe.sound().name;
        if !comparable[name] {
            continue;
        }
        let changed = |scratch: &Scratch| fs::write(&image, &*scratch.bytes());
        Scratch::of(recipe.sound()).with(|changes| recipe.apply(changes), changed)?;
        if is_clean(&image)?
            && let Some(difference) = found.compare(&image, &place)?
        {
            wrong.push(format!("{seed} ({name}: {}): {difference}", recipe.describe().join("; ")));
        }
    }
    let Compared { clean, mounted, objects, attributed } = found;
    println!(
        "{mutants} mutants, {clean} of them clean, {mounted} mounted, {objects} objects compared, {attributed} of them with attributes, {} differ",
        wrong.len()
    );
    if mounted < CLEAN * mutants / MUTANTS || attributed == 0 && mutants >= MUTANTS {
        return Err(format!("only {mounted} of {mutants} were compared, and {attributed} attributes").into());
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
            told.insert(beneath, Err(None));
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
        let shown = [
            "inode number",
            "mode",
            "links",
            "owner",
            "group",
            "device number",
            "size",
            "blocks of 512 bytes",
            "atime in ns",
            "mtime in ns",
            "ctime in ns",
        ]
        .iter()
        .map(|fact| facts[fact])
        .chain(object::birth(rustix::fs::CWD, &name)?)
        .collect();
        let has_attributes = meta.is_dir() || meta.is_file();
        let attributes =
            if has_attributes { attributes_by_kernel(&path).map_err(|_| None) } else { Ok(Attributes::new()) };
        let content = content.map(|bytes| short(&bytes)).map_err(|_| None);
        told.insert(beneath, Ok(Object { facts: shown, content, attributes, is_fixed_link: false }));
    }
    Ok(told)
}

/// The first bytes of a file: a mutant may be as long as a file can be.
fn begin_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Those of a file or a directory; a link may have none of a user's.
fn attributes_by_kernel(path: &Path) -> std::io::Result<Attributes> {
    let mut names = vec![0; 1 << 16];
    let length = llistxattr(path, &mut names[..])?;
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let length = lgetxattr(path, name, &mut value[..]).ok()?;
        Some(short(&value[..length]))
    };
    let names = names[..length].split_inclusive(|byte| *byte == 0).map(|name| &name[..name.len() - 1]);
    Ok(names.map(|name| (name.escape_ascii().to_string(), value(name))).collect())
}

fn attributes_by_us(fs: &Filesystem, inode: &Inode) -> Answer<Attributes> {
    let mut names = Vec::new();
    let listed = fs.xattrs(inode, &mut |xattr| {
        if xattr.namespace.is_shown(Xattrs::All) {
            names.push([xattr.namespace.prefix().as_bytes(), xattr.name].concat());
        }
        ControlFlow::Continue(())
    });
    listed.map_err(rule)?;
    let value = |name: &[u8]| fs.xattr(inode, name).ok().flatten().map(|value| short(&value));
    Ok(names.into_iter().map(|name| (name.escape_ascii().to_string(), value(&name))).collect())
}

fn short(bytes: &[u8]) -> String {
    format!("{} bytes, crc {:08x}", bytes.len(), crc32c(0, bytes))
}

fn rule(error: Error) -> Option<Rule> {
    match error {
        Error::Corrupt(found) | Error::Checksum(found) => Some(found.rule),
        _ => None,
    }
}

/// The same by this process.
fn by_us(image: &Path) -> Result<std::result::Result<Told, Refusal>> {
    // The kernel gives no byte of a file whose Merkle tree is broken.
    let settings = Settings { verity: Verity::Verify, ..Settings::default() };
    let fs = match Filesystem::open(Device::from_bytes(fs::read(image)?), settings) {
        Ok(fs) => fs,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (mut told, mut open) = (Told::new(), vec![(Vec::new(), InodeNumber::ROOT)]);
    while let Some((path, number)) = open.pop() {
        let inode = match fs.inode(number) {
            Ok(inode) => inode,
            Err(error) => {
                told.insert(path, Err(rule(error)));
                continue;
            }
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
        let mut facts = vec![
            number.value().into(),
            inode.mode().into(),
            inode.links.into(),
            inode.uid.into(),
            inode.gid.into(),
            device.into(),
            fs.shown_size(&inode).into(),
            inode.shown_blocks().into(),
            time(inode.atime),
            time(inode.mtime),
            time(inode.ctime),
        ];
        facts.extend(inode.crtime.map(time));
        let has_attributes = matches!(inode.kind, FileKind::Directory | FileKind::Regular);
        let attributes = if has_attributes { attributes_by_us(&fs, &inode) } else { Ok(Attributes::new()) };
        let content = content.map(|bytes| short(&bytes)).map_err(rule);
        let is_fixed_link = inode.kind == FileKind::Symlink && inode.flags.bits() & FIXED != 0;
        told.insert(path, Ok(Object { facts, content, attributes, is_fixed_link }));
    }
    Ok(Ok(told))
}

fn read(fs: &Filesystem, inode: &Inode) -> lazaret_worker::error::Result<Vec<u8>> {
    let mut bytes = vec![0; LONGEST.min(inode.size) as usize];
    let length = fs.read(inode, 0, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}
