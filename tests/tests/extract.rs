//! `lazaret extract`: what it takes out of an image is what the kernel shows of it, as a directory and as an archive that
//! GNU tar unpacks; nothing of a hostile image gets outside of the target, and each lie is told.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use lazaret_tests::bare::{self, BARE, Left};
use lazaret_tests::block::KernelMount;
use lazaret_tests::command::{self, run};
use lazaret_tests::compare::compare_copy;
use lazaret_tests::damage::Victim;
use lazaret_tests::fill::noise;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{RECIPES, Recipe};
use lazaret_tests::requirement::{self, trial};
use lazaret_tests::workshop::{Workshop, image_of};
use lazaret_tests::{Result, digest, lazaret, leftover, process, recipe};

fn main() {
    requirement::main_in_turn(|workshop| {
        let each = RECIPES.iter().chain(MATRIX);
        let mut trials: Vec<_> = each
            .map(|recipe| trial(recipe.name, BARE, workshop, |workshop| as_the_kernel_shows_it(recipe, workshop)))
            .collect();
        trials.extend([
            trial("the archive GNU tar makes of the kernel's mount, and its time", BARE, workshop, as_tar_of_the_mount),
            trial("nobody's directory", BARE, workshop, as_nobody),
            trial("a part of an image", BARE, workshop, a_part),
            trial("damaged files", BARE, workshop, damaged),
            trial("what is there stays, and --continue adds the rest", BARE, workshop, goes_on),
            trial("an end by a signal", BARE, workshop, ended_by_a_signal),
            trial("limits", BARE, workshop, limits),
            trial("targets that will not do", BARE, workshop, targets),
            trial("a terminal has a bar, and no other has", BARE, workshop, on_a_terminal),
        ]);
        trials
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

/// `lazaret extract IMAGE …` as nobody, where there is next to nothing.
fn extract(image: &Path, more: &[&str]) -> Result<Left> {
    bare::run(bare::command(["extract".as_ref(), image.as_os_str()]).args(more))
}

/// A folder of nobody's.
fn folder(workshop: &Workshop, name: &str) -> Result<PathBuf> {
    let place = workshop.directory(&format!("extract {name}"))?;
    chown(&place, Some(65_534), Some(65_534))?;
    Ok(place)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

/// The same archive, but for the order of its members and the times of the mount's root; in at most one and a half times
/// the time, as the median of pairs that take turns. Both write to a file, and the kernel has the tree in its caches.
fn as_tar_of_the_mount(workshop: &Workshop) -> Result {
    const PAIRS: usize = 7;
    let image = workshop.image(recipe::named("sixty-thousand-files"))?;
    let place = workshop.directory("extract ratio")?;
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    let (ours, theirs) = (place.join("ours.tar"), place.join("theirs.tar"));
    let mut ratios = vec![];
    for turn in 0..=PAIRS {
        for made in [&ours, &theirs] {
            let _ = fs::remove_file(made);
        }
        let options = ["--format=posix", "--xattrs", "--acls", "-S", "-C"];
        let mut tar = Command::new("tar");
        tar.args(options).arg(kernel.path()).arg("-cf").arg(&theirs).arg(".");
        let mut lazaret = lazaret::command(["extract".as_ref(), image.as_os_str(), "--tar".as_ref(), ours.as_os_str()]);
        lazaret.args(ALL);
        let (tar, lazaret) = (timed(&mut tar)?, timed(&mut lazaret)?);
        // The first pair fills the caches.
        if turn > 0 {
            ratios.push(lazaret.as_secs_f64() / tar.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[PAIRS / 2];
    println!("extract --tar in {median:.2} of tar's time; each pair: {ratios:.2?}");
    let (seen, expected) = (members(&ours)?, members(&theirs)?);
    let differ = seen.iter().zip(&expected).find(|(one, other)| one != other);
    assert!(seen.len() == expected.len() && differ.is_none(), "{} and {}: {differ:?}", seen.len(), expected.len());
    kernel.unmount()?;
    fs::remove_dir_all(&place)?;
    if median <= 1.5 { Ok(()) } else { Err(format!("{median:.2} of tar's time: {ratios:.2?}").into()) }
}

fn timed(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    run(command)?;
    Ok(begin.elapsed())
}

/// What GNU tar lists of an archive, with whole times. That the contents are the kernel's, the recipe's own test shows.
fn members(archive: &Path) -> Result<Vec<String>> {
    let listed =
        run(Command::new("tar").args(["--full-time", "--numeric-owner", "--xattrs", "--acls", "-tvvf"]).arg(archive))?;
    // Its columns grow with what was listed before, and no name here holds a space.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = listed.lines().map(words).collect();
    assert!(lines.len() > 60_000, "only {} lines", lines.len());
    lines.sort();
    Ok(lines)
}

/// Contents, modes, times, links: as the kernel shows them, but for owners and for what was not asked for.
fn as_nobody(workshop: &Workshop) -> Result {
    let (place, image) = (folder(workshop, "nobody")?, workshop.image(recipe::default())?);
    let target = place.join("target");
    let left =
        extract(&image, &["--to", text(&target)])?.refused(0, &["device nodes, FIFOs and sockets were left out: "])?;
    assert!(left.stdout.is_empty());
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    // Each with its type, mode without the bits of others' identities, length, time and links; not what was left out.
    let list = "cd \"$1\" && find . '(' -type f -o -type d -o -type l ')' -printf '%y %04m %T@ %s %n %P\\0'";
    let listed = |root: &Path| -> Result<Vec<String>> {
        let found = bare::run(Command::new("sh").args(["-c", list, "sh"]).arg(root))?.done()?;
        let lines = found.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        let mut lines: Vec<String> = lines.map(|line| known(&line.escape_ascii().to_string())).collect();
        lines.sort();
        Ok(lines)
    };
    let (expected, seen) = (listed(kernel.path())?, listed(&target)?);
    let other: Vec<_> = expected
        .iter()
        .filter(|line| !seen.contains(line))
        .chain(seen.iter().filter(|line| !expected.contains(line)))
        .take(6)
        .collect();
    assert!(expected.len() > 2000 && other.is_empty(), "{other:#?}");
    let readable = "cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum";
    let sums = |root: &Path| run(Command::new("sh").args(["-c", readable, "sh"]).arg(root));
    assert!(sums(kernel.path())? == sums(&target)?, "the contents differ");
    let owner = fs::symlink_metadata(target.join("owners/1000"))?.uid();
    assert_eq!(owner, 65_534);
    kernel.unmount()?;
    fs::remove_dir_all(&target)?;
    leftover::nothing_of(&place)
}

/// A line of the listing: a directory has another length everywhere, and who extracts gives no identity away.
fn known(line: &str) -> String {
    let mut words: Vec<String> = line.splitn(6, ' ').map(str::to_owned).collect();
    if words[0] == "d" {
        words[3] = "-".into();
    }
    if words[0] != "l" {
        let mode = u32::from_str_radix(&words[1], 8).unwrap_or(0);
        words[1] = format!("{:04o}", mode & 0o1777);
    }
    words.join(" ")
}

fn a_part(workshop: &Workshop) -> Result {
    let place = folder(workshop, "part")?;
    let image = image_of(&place, &["-t", "ext4"], |tree| {
        fs::create_dir_all(tree.join("home/user/deep"))?;
        fs::write(tree.join("home/user/deep/file"), "it")?;
        fs::write(tree.join("home/other"), "not it")?;
        Ok(std::os::unix::fs::symlink("/home/user", tree.join("way"))?)
    })?;
    for (path, made) in [("/home/user", "deep/file"), ("way", "deep/file"), ("/way/deep/file", "file")] {
        let target = place.join("target");
        let left = extract(&image, &[path, "--to", text(&target)])?.done()?;
        assert!(left.is_empty());
        assert_eq!(fs::read(target.join(made))?, b"it", "{path}");
        assert_eq!(fs::read_dir(&target)?.count(), 1);
        fs::remove_dir_all(&target)?;
    }
    extract(&image, &["/none", "--to", text(&place.join("target"))])?.refused(8, &["/none: no such file"])?;
    assert!(!place.join("target").exists(), "made for nothing");
    let archive = extract(&image, &["way", "--tar", "-"])?.done()?;
    fs::write(place.join("tar"), archive)?;
    let listed = run(Command::new("tar").arg("-tf").arg(place.join("tar")))?;
    assert_eq!(listed, "./\n./deep/\n./deep/file\n");
    leftover::nothing_of(&place)
}

/// One file cannot be read at all, one up to a block in its middle, one attribute is damaged, one directory ends early.
fn damaged(workshop: &Workshop) -> Result {
    let place = folder(workshop, "damaged")?;
    let image = image_of(&place, &["-t", "ext2", "-O", "^metadata_csum,^dir_index"], |tree| {
        fs::create_dir_all(tree.join("folder"))?;
        for name in ["long", "short", "good", "folder/lost", "other-long"] {
            fs::write(
                tree.join(name),
                noise(name.len() as u64, if name.ends_with("long") { 200 << 12 } else { 5000 }),
            )?;
        }
        Ok(())
    })?;
    let victim = Victim::open(&image)?;
    // The 100th block of one, the first of another: pointers to where there is no device.
    for name in ["/long", "/other-long"] {
        let printed = victim.debugfs(&format!("stat {name}"))?;
        let block = printed.split("(IND):").nth(1).and_then(|rest| rest.split([',', '\n']).next());
        let block: u64 = block.ok_or("an indirect block")?.trim().parse()?;
        victim.write_at(block * 4096 + (100 - 12) * 4, &u32::MAX.to_le_bytes())?;
    }
    victim.debugfs("set_inode_field /short block[0] 4294967295")?;
    victim.debugfs("set_inode_field /folder block[0] 4294967295")?;
    let target = place.join("target");
    let words = ["/long: ", "long.partial", "the first 400 KiB", "/short: ", "/folder: ", "4 of them for damage"];
    let left = extract(&image, &["--to", text(&target)])?.refused(4, &words)?;
    assert_eq!(fs::read(target.join("good"))?, noise(4, 5000), "{left:?}");
    for (name, seed) in [("long", 4), ("other-long", 10)] {
        assert!(!target.join(name).exists());
        assert_eq!(fs::read(target.join(format!("{name}.partial")))?, &noise(seed, 200 << 12)[..400 << 10]);
    }
    assert!(!target.join("short").exists() && !target.join("short.partial").exists());
    // With --continue nothing of it gets better, and nothing worse.
    extract(&image, &["--to", text(&target), "--continue"])?.refused(4, &["long.partial", "were there already"])?;

    let archive = place.join("archive.tar");
    let words = ["/long: ", "are in the archive as ./long", "/short: ", "/folder: "];
    extract(&image, &["--tar", text(&archive)])?.refused(4, &words)?;
    let unpacked = workshop.directory("extract damaged/unpacked")?;
    run(Command::new("tar").arg("-C").arg(&unpacked).arg("-xf").arg(&archive))?;
    let long = if unpacked.join("long").exists() { "long" } else { "long.partial" };
    assert_eq!(&fs::read(unpacked.join(long))?[..400 << 10], &noise(4, 200 << 12)[..400 << 10]);
    assert_eq!(fs::read(unpacked.join("good"))?, noise(4, 5000));
    leftover::nothing_of(&place)?;
    Ok(fs::remove_dir_all(&place)?)
}

fn goes_on(workshop: &Workshop) -> Result {
    let (place, image) = (folder(workshop, "continue")?, workshop.image(recipe::default())?);
    let target = place.join("target");
    let to = ["--to", text(&target)];
    extract(&image, &to)?.refused(0, &["left out"])?;
    let number = |name: &str| -> Result<u64> { Ok(fs::symlink_metadata(target.join(name))?.ino()) };
    let complete = (number("sizes/65536")?, number("hard-links/first")?);
    // Some is missing, one is another file now, one was not complete.
    for name in ["sizes/4096", "symlinks/leads-up", "hard-links/in-3/same", "names/a"] {
        fs::remove_file(target.join(name))?;
    }
    fs::remove_dir_all(target.join("directories/many"))?;
    fs::write(target.join("sizes/1024"), "mine")?;
    fs::write(target.join("sizes/4096.partial"), "begun")?;
    fs::set_permissions(target.join("times"), PermissionsExt::from_mode(0o000))?;
    extract(&image, &to)?.refused(2, &["is not empty", "--continue"])?;
    let again = [&to[..], &["--continue"]].concat();
    extract(&image, &again)?.refused(2, &["/sizes/1024: exists already", "were there already"])?;
    assert_eq!(fs::read(target.join("sizes/1024"))?, b"mine");
    assert!(!target.join("sizes/4096.partial").exists());
    assert_eq!((number("sizes/65536")?, number("hard-links/first")?), complete, "what was complete was made anew");
    assert_eq!(number("hard-links/in-3/same")?, complete.1);
    fs::remove_file(target.join("sizes/1024"))?;
    extract(&image, &again)?.refused(0, &["left out"])?;
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    let differ = bare::run(
        Command::new("diff").args(["-r", "--no-dereference", "-x", "special"]).arg(kernel.path()).arg(&target),
    )?;
    let said = String::from_utf8_lossy(&differ.stdout).into_owned();
    let unexpected: Vec<_> = said.lines().filter(|line| !line.contains("hard-links: ")).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    kernel.unmount()?;
    leftover::nothing_of(&place)?;
    Ok(fs::remove_dir_all(&target)?)
}

fn ended_by_a_signal(workshop: &Workshop) -> Result {
    let (place, image) =
        (workshop.directory("extract signal")?, workshop.image(recipe::named("sixty-thousand-files"))?);
    let (target, archive) = (place.join("target"), place.join("archive.tar"));
    let begin = |more: &[&str], stdout: Stdio| -> Result<_> {
        let errors = place.join("errors");
        let mut command = lazaret::command(["extract".as_ref(), image.as_os_str()]);
        command.args(more).stdout(stdout).stderr(fs::File::create(&errors)?);
        Ok((command.spawn()?, errors))
    };
    let end = |(mut child, errors): (std::process::Child, PathBuf)| -> Result<String> {
        process::signal(child.id(), Signal::INT);
        let status = command::wait(&mut child, Duration::from_secs(10))?;
        let said = fs::read_to_string(errors)?;
        if status.code() == Some(8) { Ok(said) } else { Err(format!("{status}: {said}").into()) }
    };
    let running = begin(&["--to", text(&target)], Stdio::null())?;
    assert!(command::eventually(Duration::from_secs(20), || target.join("00/5").exists()).0);
    let said = end(running)?;
    assert!(
        said.contains("ended by a signal") && said.contains("target is not complete; --continue goes on with it"),
        "{said}"
    );
    // A reader that does not read holds nobody up.
    let mut running = begin(&["--tar", "-"], Stdio::piped())?;
    let reader = running.0.stdout.take();
    std::thread::sleep(Duration::from_millis(300));
    let said = end(running)?;
    assert!(said.contains("ended by a signal; the archive is not complete"), "{said}");
    drop(reader);
    let running = begin(&["--tar", text(&archive)], Stdio::null())?;
    let partial = place.join("archive.tar.partial");
    assert!(command::eventually(Duration::from_secs(20), || fs::metadata(&partial).is_ok_and(|is| is.len() > 0)).0);
    let said = end(running)?;
    assert!(said.contains("what there is of the archive is ") && partial.exists() && !archive.exists(), "{said}");
    // What was begun is gone on with.
    let all = lazaret::run([
        "extract".as_ref(),
        image.as_os_str(),
        "--to".as_ref(),
        target.as_os_str(),
        "--continue".as_ref(),
    ])?;
    assert_eq!((all.code(), &all.stderr[..]), (Some(0), ""), "{all:?}");
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    compare_copy(kernel.path(), &target, &["block size", "atime in ns"])?.verdict()?;
    kernel.unmount()?;
    leftover::nothing_of(&place)?;
    Ok(fs::remove_dir_all(&place)?)
}

fn limits(workshop: &Workshop) -> Result {
    let (place, image) = (folder(workshop, "limits")?, workshop.image(recipe::default())?);
    for (limit, words) in [
        (["--max-entries", "100"], ["has more than 100 entries", "is not complete"]),
        (["--max-bytes", "1M"], ["has more than 1 MiB of data", "is not complete"]),
        (["--max-depth", "5"], ["lies below more than 5 directories", "see --max-depth"]),
        (["--max-holes", "1M"], ["longer than its data", "see --max-holes"]),
    ] {
        let target = place.join("target");
        extract(&image, &[&["--to", text(&target)][..], &limit].concat())?.refused(8, &words)?;
        run(Command::new("rm").arg("-r").arg(&target))?;
        let archive = extract(&image, &[&["--tar", "-"][..], &limit].concat())?;
        assert_eq!(archive.code, Some(8), "{}", archive.stderr);
    }
    for wrong in [["--max-bytes", "many"], ["--max-depth", "0"], ["--max-depth", "5000"], ["--max-entries", "-1"]] {
        extract(&image, &[&["--tar", "-"][..], &wrong].concat())?.refused(1, &[])?;
    }
    leftover::nothing_of(&place)
}

fn targets(workshop: &Workshop) -> Result {
    let (place, image) = (folder(workshop, "targets")?, workshop.image(recipe::default())?);
    let (there, zeros) = (place.join("there.tar"), place.join("zeros"));
    fs::write(&there, "mine")?;
    fs::write(&zeros, [0; 65_536])?;
    extract(&image, &[])?.refused(1, &["--to"])?;
    extract(&image, &["--to", "a", "--tar", "b"])?.refused(1, &["--tar"])?;
    extract(&image, &["--tar", "-", "--continue"])?.refused(1, &["--continue"])?;
    extract(&image, &["--tar", text(&there)])?.refused(2, &["there.tar exists already"])?;
    assert_eq!(fs::read(&there)?, b"mine");
    extract(&image, &["--to", text(&there)])?.refused(2, &["not a directory"])?;
    extract(&image, &["--to", text(&place.join("no/such"))])?.refused(2, &["no such file"])?;
    // Whoever cannot extract leaves nothing.
    let target = place.join("target");
    extract(&zeros, &["--to", text(&target)])?.refused(8, &["is not an ext"])?;
    extract(&zeros, &["--tar", text(&target)])?.refused(8, &["is not an ext"])?;
    extract(&place.join("none"), &["--to", text(&target)])?.refused(8, &["no such file"])?;
    assert!(!target.exists() && !place.join("target.partial").exists());
    // No room: it ends, and says so.
    let small = place.join("small");
    fs::create_dir(&small)?;
    let script = "mount -t tmpfs -o size=1m,mode=777 none \"$3\" && exec \"$1\" extract \"$2\" --to \"$3/out\"";
    let mut full = Command::new("unshare");
    full.args(["--mount", "sh", "-c", script, "sh"]).arg(lazaret::broker()).arg(&image).arg(&small);
    bare::run(&mut full)?.refused(2, &["no space left on device", ".partial", "is not complete"])?;
    // A reader that goes early ends it without a word.
    let head = bare::run(bare::shell("\"$2\" extract \"$1\" --tar - | head -c 10").arg(&image).arg(lazaret::broker()))?;
    assert!(head.stdout.len() == 10 && head.stderr.is_empty(), "{head:?}");
    leftover::nothing_of(&place)
}

fn on_a_terminal(workshop: &Workshop) -> Result {
    let (place, image) = (workshop.directory("terminal")?, workshop.image(recipe::default())?);
    let line = |more: &str| format!("{} extract {} {more}", lazaret::broker().display(), image.display());
    // A terminal that says nothing of itself counts as one that can show no bar.
    let terminal = [("TERM", "xterm"), ("COLUMNS", "100")];
    let shown = |line: &str| run(Command::new("script").args(["-qec", line, "/dev/null"]).envs(terminal));
    let text = shown(&line(&format!("--to {}", place.join("bar").display())))?;
    assert!(text.contains("extracting ") && text.contains("/s"), "{text:?}");
    // The bar is gone at the end, and what is to be known stays.
    assert!(text.contains("were left out: "), "{text:?}");
    let told =
        command::finish(Command::new("script").args(["-qec", &line("--tar -"), "/dev/null"]), Duration::from_secs(20))?;
    assert!(told.code() == Some(1) && told.stdout.contains("not written to a terminal"), "{told:?}");
    leftover::nothing_of(&place)?;
    Ok(fs::remove_dir_all(&place)?)
}
