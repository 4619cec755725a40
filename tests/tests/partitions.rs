//! Whole disks: which partition is taken, that it is read as the image in it, and what a damaged table does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lazaret_tests::bare::{self, BARE, Left};
use lazaret_tests::block::LoopDevice;
use lazaret_tests::command::run;
use lazaret_tests::disk::{Disk, FIRST, SECOND};
use lazaret_tests::lazaret::Mount;
use lazaret_tests::requirement::{self, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, digest, lazaret, leftover, recipe};

const GPT: &str = "label: gpt\nlabel-id: 11111111-2222-4333-8444-555555555555\n\
    start=2048, size=131072, name=\"first\", uuid=AAAAAAAA-0000-4000-8000-000000000001\n\
    start=145408, size=131072, name=\"second\", uuid=AAAAAAAA-0000-4000-8000-000000000002\n";
const GPT_OF_LONG_SECTORS: &str = "label: gpt\nstart=256, size=16384\nstart=18176, size=16384\n";
const MBR: &str =
    "label: dos\nlabel-id: 0xcafe1234\nstart=2048, size=131072, type=83\nstart=145408, size=131072, type=83\n";
const MBR_OF_LONG_SECTORS: &str = "label: dos\nstart=256, size=16384, type=83\nstart=18176, size=16384, type=83\n";
/// An extended partition from 70 MiB on; the logical one begins at 71 MiB.
const LOGICAL: &str = "label: dos\nstart=2048, size=131072, type=82\nstart=143360, size=262144, type=5\n\
    start=145408, size=131072, type=83\nstart=280576, size=40960, type=83\n";
/// The first boot record of the chain, and the second, in bytes: the table of each is 446 bytes behind.
const CHAIN: u64 = 70 << 20;
const TABLE: u64 = 446;

fn main() {
    requirement::main_in_turn(|workshop| {
        let mut trials: Vec<_> = KINDS
            .iter()
            .map(|kind| {
                trial(format!("the only file system of {}", kind.0), BARE, workshop, |shop| the_only(kind, shop))
            })
            .collect();
        trials.extend([
            trial("a block device with sectors of 4096 bytes", BARE, workshop, block_device),
            trial("one of several", BARE, workshop, one_of_several),
            trial("a GPT with a damaged first header", BARE, workshop, damaged_header),
            trial("a chain that comes back", BARE, workshop, chain_comes_back),
            trial("a chain that leads out", BARE, workshop, chain_leads_out),
            trial("partitions that overlap", BARE, workshop, overlap),
            trial("a disk that is cut short", BARE, workshop, cut_short),
            trial("names that would move the cursor", BARE, workshop, hostile_names),
        ]);
        trials
    })
}

/// A name, what sfdisk is told, whether sectors are long, and the number and place of the file system.
type Kind = (&'static str, &'static str, bool, u32, u64);

const KINDS: &[Kind] = &[
    ("a GPT", GPT, false, 2, SECOND),
    ("a GPT with sectors of 4096 bytes", GPT_OF_LONG_SECTORS, true, 1, FIRST),
    ("an MBR", MBR, false, 1, FIRST),
    ("an MBR with sectors of 4096 bytes", MBR_OF_LONG_SECTORS, true, 2, SECOND),
    ("an MBR with logical partitions", LOGICAL, false, 5, SECOND),
    ("a hybrid MBR", "hybrid", false, 1, FIRST),
];

fn tool(words: &[&str], disk: &Path, more: &[&str]) -> Result<Left> {
    bare::run(bare::command(words).arg(disk).args(more))
}

fn text(left: Left) -> Result<String> {
    Ok(String::from_utf8(left.done()?)?)
}

fn place(workshop: &Workshop, name: &str) -> Result<PathBuf> {
    workshop.directory(&name.replace(' ', "-"))
}

fn disk_of(kind: &Kind, directory: &Path, image: &Path) -> Result<Disk> {
    let (_, script, long, _, offset) = *kind;
    let disk = match script {
        "hybrid" => {
            let disk = Disk::new(directory, GPT)?;
            run(Command::new("sgdisk").args(["--hybrid", "1:EE"]).arg(&disk.path))?;
            disk
        }
        _ if long => Disk::with_long_sectors(directory, script)?,
        _ => Disk::new(directory, script)?,
    };
    disk.put(image, offset)
}

/// It is found as nobody, and read as the image by itself is; and it is mounted.
fn the_only(kind: &'static Kind, workshop: &Workshop) -> Result {
    let (name, _, _, number, offset) = *kind;
    let (place, image) = (place(workshop, name)?, workshop.image(recipe::default())?);
    let disk = disk_of(kind, &place, &image)?;
    let before = digest::of_file(&disk.path)?;
    let expected = tool(&["ls", "-lAR"], &image, &[])?.done()?;
    assert_eq!(tool(&["ls", "-lAR"], &disk.path, &[])?.done()?, expected);
    let number = number.to_string();
    assert_eq!(tool(&["ls", "-lAR", "--part", &number], &disk.path, &[])?.done()?, expected);
    // An archive has no byte that is not the image's.
    let archive = |path: &Path| tool(&["extract", "--tar", "-"], path, &[])?.done();
    assert!(archive(&disk.path)? == archive(&image)?, "another archive");
    assert!(text(tool(&["check"], &disk.path, &[])?)?.contains(": sound: "));
    let info = text(tool(&["info"], &disk.path, &[])?)?;
    for word in [&format!("in partition {number}"), &format!(" at {offset} "), recipe::UUID, "can be read"] {
        assert!(info.contains(word), "{word}: {info}");
    }
    assert!(!info.contains("broken rule"), "{info}");
    assert_eq!(info.contains("hybrid"), name.contains("hybrid"), "{info}");
    let object = text(tool(&["info", "--json"], &disk.path, &[])?)?;
    assert!(object.contains(&format!("\"partition\":{number},\"readable\":true")), "{object}");
    for options in ["special=show", &format!("part={number}"), &format!("part={}", recipe::UUID)] {
        let mounted = Mount::with(&disk.path, &place.join("point"), options)?;
        let seen = fs::read(mounted.path().join("sizes/65536"))?;
        assert!(seen == lazaret_tests::fill::noise(65536, 65536), "another content with {options}");
        mounted.unmount(Duration::from_secs(1))?;
    }
    assert_eq!(digest::of_file(&disk.path)?, before, "the disk was written to");
    leftover::nothing_of(&place)
}

fn block_device(workshop: &Workshop) -> Result {
    let place = place(workshop, "block device")?;
    let image = workshop.image(recipe::default())?;
    let disk = disk_of(&KINDS[3], &place, &image)?;
    // The host's sectors are short, and what it knows counts: nothing is found. With long ones all is.
    let short = LoopDevice::attach(&disk.path, true)?;
    let ls = |device: &Path| lazaret::run(["ls".as_ref(), device.as_os_str()]);
    assert_eq!(ls(short.path())?.code(), Some(32));
    drop(short);
    let script = "device=$(losetup --find --show --read-only --sector-size 4096 \"$1\") || exit 9
        \"$2\" ls \"$device\"; code=$?; losetup --detach \"$device\"; exit $code";
    let listed = run(Command::new("sh").args(["-c", script, "sh"]).arg(&disk.path).arg(lazaret::broker()))?;
    assert_eq!(listed, text(tool(&["ls"], &image, &[])?)?);
    leftover::nothing_of(&place)
}

fn one_of_several(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "several")?, workshop.image(recipe::default())?);
    let other = workshop.copy(recipe::named("ext3"), &place)?;
    run(Command::new("tune2fs").args(["-L", "the other", "-U", "0ddba11e-0000-4000-8000-000000000002"]).arg(&other))?;
    let disk = Disk::new(&place, GPT)?.put(&image, FIRST)?.put(&other, SECOND)?;
    let words = ["has 2 partitions with an ext file system", "'first': ext4", "'second': ext3 'the other'"];
    for (code, command) in [(32, &["ls"][..]), (8, &["check"]), (8, &["extract", "--tar", "-"])] {
        tool(command, &disk.path, &[])?.refused(code, &words)?;
    }
    let info = text(tool(&["info"], &disk.path, &[])?)?;
    assert!(words.iter().all(|word| info.contains(word)), "{info}");
    let second = tool(&["ls", "-lAR"], &other, &[])?.done()?;
    let names = [
        "2",
        "second",
        "the other",
        "0ddba11e-0000-4000-8000-000000000002",
        "0DDBA11E-0000-4000-8000-000000000002",
        "aaaaaaaa-0000-4000-8000-000000000002",
    ];
    for name in names {
        assert_eq!(tool(&["ls", "-lAR", "--part", name], &disk.path, &[])?.done()?, second, "{name}");
    }
    // Every command takes it, in both ways.
    for part in [&["--part", "the other"], &["-o", "part=the other"]] {
        let with = |command: &[&str]| tool(&[command, &part[..]].concat(), &disk.path, &[])?.done();
        let without = |command: &[&str]| tool(command, &other, &[])?.done();
        assert!(String::from_utf8(with(&["info"])?)?.contains("in partition 2"));
        assert!(String::from_utf8(with(&["check"])?)?.contains(": sound: "));
        assert!(with(&["extract", "--tar", "-"])? == without(&["extract", "--tar", "-"])?);
        let arguments = [&["mount"][..], part].concat();
        let point = place.join("either");
        fs::create_dir_all(&point)?;
        let paths = [disk.path.as_os_str(), point.as_os_str()];
        let mounted = lazaret::run(arguments.iter().map(AsRef::as_ref).chain(paths))?;
        assert_eq!(mounted.code(), Some(0), "{mounted:?}");
        Mount::adopt(&point)?.unmount(Duration::from_secs(1))?;
    }
    tool(&["ls", "--part", "third\u{1b}"], &disk.path, &[])?
        .refused(32, &["has no partition 'third\\x1b'", "'first'"])?;
    let point = place.join("point");
    fs::create_dir(&point)?;
    let refused = lazaret::run(["mount".as_ref(), disk.path.as_os_str(), point.as_os_str()])?;
    assert!(refused.code() == Some(32) && words.iter().all(|word| refused.stderr.contains(word)), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 3);
    Mount::with(&disk.path, &point, "part=the other")?.unmount(Duration::from_secs(1))?;
    leftover::nothing_of(&place)
}

fn damaged_header(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "header")?, workshop.image(recipe::default())?);
    let expected = text(tool(&["ls"], &image, &[])?)?;
    for byte in [512, 512 + 16, 512 + 60, 1024 + 3] {
        let disk = disk_of(&KINDS[0], &place, &image)?.damage(byte)?;
        assert_eq!(text(tool(&["ls"], &disk.path, &[])?)?, expected, "{byte}");
        let info = text(tool(&["info"], &disk.path, &[])?)?;
        assert!(info.contains("read from its copy") && info.contains("broken rule"), "{byte}: {info}");
        // With the copy damaged too, nothing is believed.
        let end = disk.length() - 512 + 16;
        let disk = disk.damage(end)?;
        tool(&["ls"], &disk.path, &[])?.refused(32, &["is not an ext2"])?;
        fs::remove_file(&disk.path)?;
    }
    // A damaged copy alone is worth a word.
    let disk = disk_of(&KINDS[0], &place, &image)?;
    let end = disk.length() - 512 + 16;
    let info = text(tool(&["info"], &disk.damage(end)?.path, &[])?)?;
    assert!(info.contains("broken rule: bytes") && info.contains("can be read"), "{info}");
    leftover::nothing_of(&place)
}

/// The link to the second record of the chain: its entry, and where it leads from the begin of the extended partition.
fn second_link(disk: &Disk) -> Result<(u64, u32)> {
    let entry = CHAIN + TABLE + 16;
    Ok((entry, u32::from_le_bytes(disk.read(entry + 8)?)))
}

fn chain_comes_back(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "chain")?, workshop.image(recipe::default())?);
    let disk = disk_of(&KINDS[4], &place, &image)?;
    let (entry, second) = second_link(&disk)?;
    let link = disk.read::<16>(entry)?;
    let expected = text(tool(&["ls"], &image, &[])?)?;
    // The second record leads to itself.
    let disk = disk.write(CHAIN + u64::from(second) * 512 + TABLE + 16, &link)?;
    let info = text(tool(&["info"], &disk.path, &[])?)?;
    assert!(info.contains("does not come back") && info.contains("\n    6 "), "{info}");
    assert_eq!(text(tool(&["ls"], &disk.path, &[])?)?, expected);
    // The first one does.
    let disk = disk.write(entry + 8, &0_u32.to_le_bytes())?;
    let info = text(tool(&["info"], &disk.path, &[])?)?;
    assert!(info.contains("does not come back") && !info.contains("\n    6 "), "{info}");
    assert_eq!(text(tool(&["ls"], &disk.path, &[])?)?, expected);
    leftover::nothing_of(&place)
}

fn chain_leads_out(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "out")?, workshop.image(recipe::default())?);
    let expected = text(tool(&["ls"], &image, &[])?)?;
    for target in [u32::MAX, 1 << 20, 7] {
        let disk = disk_of(&KINDS[4], &place, &image)?;
        let (entry, _) = second_link(&disk)?;
        let disk = disk.write(entry + 8, &target.to_le_bytes())?;
        let info = text(tool(&["info"], &disk.path, &[])?)?;
        assert!(info.contains("every link of a chain"), "{target}: {info}");
        assert_eq!(text(tool(&["ls"], &disk.path, &[])?)?, expected, "{target}");
        fs::remove_file(&disk.path)?;
    }
    leftover::nothing_of(&place)
}

fn overlap(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "overlap")?, workshop.image(recipe::default())?);
    let disk = disk_of(&KINDS[2], &place, &image)?;
    // The second begins in the first.
    let disk = disk.write(TABLE + 16 + 8, &4096_u32.to_le_bytes())?;
    let info = text(tool(&["info"], &disk.path, &[])?)?;
    assert!(info.contains("(broken rule: partitions lie apart)"), "{info}");
    assert_eq!(text(tool(&["ls"], &disk.path, &[])?)?, text(tool(&["ls"], &image, &[])?)?);
    leftover::nothing_of(&place)
}

fn cut_short(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "cut")?, workshop.image(recipe::default())?);
    let disk = disk_of(&KINDS[2], &place, &image)?;
    fs::OpenOptions::new().write(true).open(&disk.path)?.set_len(40 << 20)?;
    let info = tool(&["info"], &disk.path, &[])?;
    let shown = String::from_utf8_lossy(&info.stdout);
    assert!(info.code == Some(32) && shown.contains("(broken rule: a partition lies within the device)"), "{info:?}");
    assert!(shown.contains("is cut short"), "{shown}");
    tool(&["ls"], &disk.path, &[])?.refused(32, &["is cut short"])?;
    tool(&["ls", "--part", "2"], &disk.path, &[])?.refused(32, &["holds no ext2"])?;
    leftover::nothing_of(&place)
}

fn hostile_names(workshop: &Workshop) -> Result {
    let (place, image) = (place(workshop, "hostile")?, workshop.image(recipe::default())?);
    let disk = Disk::new(&place, GPT)?.put(&image, FIRST)?.put(&image, SECOND)?;
    run(Command::new("sgdisk").arg("--change-name=1:\u{1b}[2J\u{202e}\u{9b}").arg(&disk.path))?;
    let left = tool(&["ls"], &disk.path, &[])?.refused(32, &["\\x1b[2J", "\\u{202e}", "\\x9b"])?;
    assert_eq!(left.stderr.lines().count(), 3, "{left:?}");
    let info = text(tool(&["info"], &disk.path, &[])?)?;
    assert!(info.contains("\\x1b[2J") && !info.chars().any(|letter| letter != '\n' && letter.is_control()), "{info}");
    leftover::nothing_of(&place)
}
