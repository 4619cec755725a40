//! `lazaret check` beside `e2fsck -fn`: the same verdict on every sound image, on damage of each kind, and on images
//! with single bytes changed; and the rule that is broken is named.

mod cases;

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;

use lazaret_tests::command::{Finished, finish};
use lazaret_tests::damage::Victim;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{self, RECIPES, Recipe};
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, command, digest, lazaret, superblock};

use crate::cases::{CASES, Case, Expected, HASHED, table};

/// How many images with one byte changed are looked at.
const MUTANTS: u64 = 200;

fn main() {
    requirement::main(|workshop| {
        let sound = RECIPES.iter().chain(MATRIX).map(|recipe| {
            trial(format!("sound: {}", recipe.name), MOUNTS, workshop, |workshop| is_sound(&workshop.image(recipe)?))
        });
        let damaged = CASES.iter().map(|case| trial(case.what, MOUNTS, workshop, |workshop| show(case, workshop)));
        let mutants = ["no-metadata-csum", "group-checksums-of-crc16", "ext4", "ext3"];
        let mutants = mutants
            .into_iter()
            .map(|name| trial(format!("mutants of {name}"), MOUNTS, workshop, |workshop| mutate(name, workshop)));
        let more = [
            trial("what is no file system cannot be read", MOUNTS, workshop, unreadable),
            trial(
                "what has features that a check would have to know is not judged",
                MOUNTS,
                workshop,
                strange_features,
            ),
            trial("a journal on another device leaves it open", MOUNTS, workshop, journal_elsewhere),
            trial("too little memory is said so", MOUNTS, workshop, too_little_memory),
        ];
        sound.chain(damaged).chain(mutants).chain(more).collect::<Vec<Trial>>()
    })
}

fn show(case: &Case, workshop: &Workshop) -> Result {
    let place = workshop.directory(&format!("check.{}", case.what.replace([' ', '/'], "-")))?;
    let image = workshop.copy(recipe_of(case.image)?, &place)?;
    (case.damage)(&Victim::open(&image)?, &image)?;
    let before = digest::of_file(&image)?;
    let (theirs, ours) = (e2fsck(&image)?, Verdict::of(&image)?);
    let after = digest::of_file(&image)?;
    std::fs::remove_dir_all(&place)?;
    let said = format!("{ours:?}\ne2fsck: {theirs:?}");
    let codes = match case.expected {
        Expected::Damaged => theirs.code().is_some_and(|code| code != 0) && ours.code == 4,
        Expected::Sound => theirs.code() == Some(0) && ours.code == 0,
    };
    if !codes {
        return Err(format!("the verdicts are not what they should be: {said}").into());
    }
    let told = match case.rule {
        "" => ours.findings.is_empty(),
        rule => ours.findings.iter().any(|finding| finding.split(' ').next() == Some(rule)),
    };
    if !told {
        return Err(format!("the findings are not {:?}: {said}", case.rule).into());
    }
    if before != after {
        return Err("the image was written to".into());
    }
    Ok(())
}

fn recipe_of(name: &str) -> Result<&'static Recipe> {
    let found = RECIPES.iter().chain(MATRIX).find(|recipe| recipe.name == name);
    found.ok_or_else(|| format!("no recipe is called {name}").into())
}

fn is_sound(image: &Path) -> Result {
    let (theirs, ours) = (e2fsck(image)?, Verdict::of(image)?);
    let sound = ours.code == 0 && theirs.code() == Some(0) && ours.verdict == "sound";
    if sound { Ok(()) } else { Err(format!("{ours:?}\ne2fsck: {theirs:?}").into()) }
}

/// Changes one byte of the metadata at a time.
fn mutate(name: &'static str, workshop: &Workshop) -> Result {
    let place = workshop.directory(&format!("check.mutants.{name}"))?;
    let image = workshop.copy(recipe::named(name), &place)?;
    let victim = Victim::open(&image)?;
    let spots = spots(&victim)?;
    let mut state = 0x1a2a_4e70_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut sound, mut different) = (0, Vec::new());
    for _ in 0..MUTANTS {
        let (begin, length) = spots[next() as usize % spots.len()];
        let (offset, byte) = (begin + next() % length, next().to_le_bytes()[0]);
        let old = victim.swap(offset, byte)?;
        let (theirs, ours) = (e2fsck(&image)?, Verdict::of(&image)?);
        victim.swap(offset, old)?;
        if (theirs.code() == Some(0)) != (ours.code == 0) {
            different.push(format!("byte {offset}, {old:#x} to {byte:#x}: {ours:?}; e2fsck {:?}", theirs.code()));
        }
        sound += u32::from(ours.code == 0);
    }
    std::fs::remove_dir_all(&place)?;
    if !different.is_empty() {
        return Err(
            format!("{} of {MUTANTS} are judged in two ways:\n{}", different.len(), different.join("\n")).into()
        );
    }
    if sound == 0 || u64::from(sound) == MUTANTS {
        return Err(format!("{sound} of {MUTANTS} are sound: the changes show nothing").into());
    }
    Ok(())
}

/// Where the metadata lies: superblock, descriptors, bitmaps, inodes, directories.
fn spots(victim: &Victim) -> Result<Vec<(u64, u64)>> {
    let size = victim.block_size()?;
    let mut spots = vec![(superblock::OFFSET, 256); 2];
    let descriptors = if size == 1024 { 2048 } else { size };
    spots.extend([(descriptors, 64); 4]);
    for (words, length, weight) in
        [("block bitmap at ", 512, 2), ("inode bitmap at ", 256, 2), ("inode table at ", 8192, 10)]
    {
        spots.extend(vec![(table(victim, words)? * size, length); weight]);
    }
    for (path, block) in [("/", 0), ("/sizes", 0), ("/special", 0), (HASHED, 0), (HASHED, 1), ("/directories", 0)] {
        spots.push((victim.block(path, block)? * size, size));
    }
    Ok(spots)
}

fn unreadable(workshop: &Workshop) -> Result {
    let place = workshop.directory("check.unreadable")?;
    for (name, bytes) in [("zeros", vec![0; 1 << 20]), ("text", vec![b'x'; 5000])] {
        let image = place.join(name);
        std::fs::write(&image, bytes)?;
        let finished = lazaret::run(["check".as_ref(), image.as_os_str()])?;
        if finished.code() != Some(8) || !finished.stderr.contains("not an ext") {
            return Err(format!("{name}: {finished:?}").into());
        }
        let verdict = Verdict::of(&image)?;
        if verdict.code != 8 || verdict.verdict != "unreadable" {
            return Err(format!("{name}: {verdict:?}").into());
        }
    }
    let finished = lazaret::run(["check".as_ref(), place.join("nowhere").as_os_str()])?;
    if finished.code() == Some(8) { Ok(()) } else { Err(format!("{finished:?}").into()) }
}

fn strange_features(workshop: &Workshop) -> Result {
    let place = workshop.directory("check.strange")?;
    let image = workshop.copy(recipe::default(), &place)?;
    for (field, bit) in [(0x5c, 0x100), (0x5c, 1 << 30), (0x64, 0x4), (0x64, 0x800), (0x64, 1 << 30)] {
        superblock::change(&image, |bytes| superblock::set_bits(bytes, field, bit))?;
        let (theirs, ours) = (e2fsck(&image)?, Verdict::of(&image)?);
        // Bit 3 is "operational error".
        if theirs.code().is_none_or(|code| code & 8 == 0) || ours.code != 8 || ours.verdict != "unreadable" {
            return Err(format!("{field:#x} {bit:#x}: {ours:?} {theirs:?}").into());
        }
        // Whoever reads it gets it all the same.
        lazaret_tests::lazaret::Mount::new(&image, &place.join("mount"))?.unmount(std::time::Duration::from_secs(1))?;
        std::fs::remove_file(&image)?;
        workshop.copy(recipe::default(), &place)?;
    }
    Ok(())
}

/// Sound as far as it goes, or damaged all the same.
fn journal_elsewhere(workshop: &Workshop) -> Result {
    let place = workshop.directory("check.elsewhere")?;
    let image = workshop.copy(recipe::named("ext2"), &place)?;
    superblock::change(&image, |bytes| {
        superblock::set_bits(bytes, 0x5c, 4);
        superblock::set(bytes, 0xe4, 7);
        bytes[0xd0..0xe0].copy_from_slice(b"another journal!");
    })?;
    let (theirs, ours) = (e2fsck(&image)?, Verdict::of(&image)?);
    // Bit 3 is "operational error".
    if theirs.code().is_none_or(|code| code & 8 == 0) || ours.code != 8 || ours.verdict != "unreadable" {
        return Err(format!("{ours:?} {theirs:?}").into());
    }
    let finished = lazaret::run(["check".as_ref(), image.as_os_str()])?;
    if !finished.stderr.contains("journal on another device") {
        return Err(format!("{finished:?}").into());
    }
    Victim::open(&image)?.debugfs("sif /sizes/4096 links_count 7")?;
    let ours = Verdict::of(&image)?;
    if ours.code == 4 && ours.verdict == "damaged" { Ok(()) } else { Err(format!("{ours:?}").into()) }
}

/// A file system of many blocks and next to none in use, which takes some memory all the same.
fn too_little_memory(workshop: &Workshop) -> Result {
    let place = workshop.directory("check.memory")?;
    let image = place.join("large");
    std::fs::File::create(&image)?.set_len(2 << 40)?;
    command::run(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-O", "^resize_inode"]).arg(&image))?;
    let finished = lazaret::run(["check".as_ref(), "-o".as_ref(), "memory=8M".as_ref(), image.as_os_str()])?;
    let verdict = finished.code();
    std::fs::remove_file(&image)?;
    match verdict {
        Some(0) => Ok(()),
        Some(8) if finished.stderr.contains("memory=") => Ok(()),
        _ => Err(format!("{finished:?}").into()),
    }
}

/// What `lazaret check --json` says.
#[derive(Debug)]
struct Verdict {
    code: i32,
    verdict: String,
    /// Each rule, and behind a blank its place.
    findings: Vec<String>,
}

impl Verdict {
    fn of(image: &Path) -> Result<Self> {
        let finished = lazaret::run(["check".as_ref(), "--json".as_ref(), image.as_os_str()])?;
        let object: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
        if object["schema"] != "lazaret.check/1" {
            return Err(format!("another schema: {object}").into());
        }
        let findings = object["findings"].as_array().ok_or("no findings")?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            code: finished.code().ok_or("ended by a signal")?,
            verdict: word(&object["verdict"]),
            findings: findings
                .iter()
                .map(|finding| format!("{} {}", word(&finding["rule"]), word(&finding["place_text"])))
                .collect(),
        })
    }
}

fn e2fsck(image: &Path) -> Result<Finished> {
    let path: PathBuf = requirement::find("e2fsck").ok_or("no e2fsck")?;
    finish(Command::new(path).arg("-fn").arg(image), command::PATIENCE)
}
