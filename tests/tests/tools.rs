//! `info`, `ls` and `cat` as nobody, without /dev/fuse and /proc/sys: what they show of an image is what the kernel
//! shows of it, and nothing of a hostile image reaches a terminal as it is.

use std::fs;
use std::path::Path;
use std::process::Command;

use lazaret_tests::bare::{self, BARE, Left};
use lazaret_tests::block::KernelMount;
use lazaret_tests::command::run;
use lazaret_tests::matrix::MATRIX;
use lazaret_tests::recipe::{RECIPES, Recipe};
use lazaret_tests::requirement::{self, trial};
use lazaret_tests::workshop::{Workshop, image_of};
use lazaret_tests::{Result, digest, lazaret, leftover, recipe};

fn main() {
    requirement::main_in_turn(|workshop| {
        let each = RECIPES.iter().chain(MATRIX);
        let mut trials: Vec<_> = each
            .map(|recipe| trial(recipe.name, BARE, workshop, |workshop| as_the_kernel_shows_it(recipe, workshop)))
            .collect();
        trials.extend([
            trial("paths and links within the image", BARE, workshop, paths),
            trial("what cannot be read", BARE, workshop, refusals),
            trial("names and labels that would move the cursor", BARE, workshop, hostile_names),
            trial("a directory that leads back into itself", BARE, workshop, directory_loop),
            trial("an image on standard input", BARE, workshop, standard_input),
            trial("the forms of ls", BARE, workshop, forms),
            trial("a journal of many blocks, and too little memory for them", BARE, workshop, many_in_the_journal),
        ]);
        trials
    })
}

/// `lazaret WORD IMAGE …` where there is next to nothing.
fn tool(word: &str, image: &Path, more: &[&str]) -> Result<Left> {
    bare::run(bare::command([word.as_ref(), image.as_os_str()]).args(more))
}

fn as_the_kernel_shows_it(recipe: &'static Recipe, workshop: &Workshop) -> Result {
    let image = workshop.image(recipe)?;
    let place = workshop.directory(&format!("{}.tools", recipe.name))?;
    let before = digest::of_file(&image)?;
    let kernel = KernelMount::read_only(&image, &place.join("kernel"))?;
    same_listing(kernel.path(), &image)?;
    same_contents(&kernel, &image, &place)?;
    kernel.unmount()?;
    is_described(&image)?;
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    leftover::nothing_of(&place)?;
    leftover::nothing_of(&image)
}

/// What a journal holds is told and read; where it takes more memory than is granted, that is said.
fn many_in_the_journal(workshop: &Workshop) -> Result {
    const BLOCKS: u64 = 110_000;
    let place = workshop.directory("tools.journal")?;
    let (image, zeros, commands) = (place.join("image"), place.join("zeros"), place.join("commands"));
    fs::File::create(&image)?.set_len(400_000 << 10)?;
    run(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-b", "1024", "-J", "size=128"]).arg(&image))?;
    fs::File::create(&zeros)?.set_len(BLOCKS << 10)?;
    let end = 200_000 + BLOCKS - 1;
    fs::write(&commands, format!("jo\njw -b 200000-{end} {}\njc\n", zeros.display()))?;
    run(Command::new("debugfs").args(["-w", "-f"]).arg(&commands).arg(&image))?;

    let before = digest::of_file(&image)?;
    let tool = |words: &[&str]| lazaret::run(words.iter().map(AsRef::as_ref).chain([image.as_os_str()]));
    let told = tool(&["info"])?;
    let words = format!("1 transactions ({BLOCKS} blocks) are read from it");
    assert!(told.code() == Some(0) && told.stdout.contains(&words), "{told:?}");
    let listed = tool(&["ls"])?;
    assert!(listed.code() == Some(0) && listed.stdout == "lost+found\n", "{listed:?}");
    let refused = tool(&["ls", "-o", "memory=8M"])?;
    assert!(refused.code() == Some(32) && refused.stderr.contains("see the option memory="), "{refused:?}");
    assert_eq!(digest::of_file(&image)?, before, "the image was written to");
    Ok(fs::remove_dir_all(&place)?)
}

/// Everything that `ls -l` says of everything, and one object for each.
fn same_listing(mounted: &Path, image: &Path) -> Result {
    let ls = bare::run(Command::new("ls").args(["-lnAR"]).arg(mounted))?.done()?;
    let root = mounted.to_str().ok_or("a path of ours is text")?;
    let expected = replaced(&replaced(&ls, &format!("\n{root}/"), "\n/"), &format!("{root}:"), "/:");
    let seen = tool("ls", image, &["-lAR"])?.done()?;
    if seen != expected {
        let lines = |text: &[u8]| String::from_utf8_lossy(text).lines().map(str::to_owned).collect::<Vec<_>>();
        let (seen, expected) = (lines(&seen), lines(&expected));
        let at = (0..).find(|&at| seen.get(at) != expected.get(at)).unwrap_or(0);
        return Err(format!("line {at}: ls: {:?}, lazaret ls: {:?}", expected.get(at), seen.get(at)).into());
    }
    let objects = tool("ls", image, &["-R", "--json"])?.done()?;
    let count = run(Command::new("find").arg(mounted).args(["-mindepth", "1", "-printf", "."]))?.len();
    let lines: Vec<&[u8]> = objects.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), count, "an object for each");
    assert!(objects.starts_with(b"{") && String::from_utf8_lossy(lines[0]).contains("\"schema\":\"lazaret.ls/1\""));
    let sound = |line: &&[u8]| line.starts_with(b"{\"") && line.iter().all(|byte| (b' '..=b'~').contains(byte));
    assert!(lines.iter().all(sound), "an object is not ASCII");
    Ok(())
}

fn replaced(text: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (mut seen, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.windows(from.len()).position(|part| part == from.as_bytes()) {
        seen.extend([&rest[..at], to.as_bytes()].concat());
        rest = &rest[at + from.len()..];
    }
    seen.extend(rest);
    seen
}

/// The content of every file up to 64 MiB, in many files at once.
fn same_contents(kernel: &KernelMount, image: &Path, place: &Path) -> Result {
    let list = place.join("list");
    let find = "find \"$1\" -type f -size -131073 -printf '/%P\\0' | sort -z > \"$2\"";
    run(Command::new("sh").args(["-c", find, "sh"]).arg(kernel.path()).arg(&list))?;
    let read = "cd \"$1\" && sed -z 's/^/./' \"$2\" | xargs -0 -r cat | sha256sum";
    let expected = run(Command::new("sh").args(["-c", read, "sh"]).arg(kernel.path()).arg(&list))?;
    let cat = "xargs -0 -r \"$1\" cat \"$2\" < \"$3\" | sha256sum";
    let seen = bare::run(bare::shell(cat).arg(lazaret::broker()).arg(image).arg(&list))?;
    if seen.stderr.is_empty() && seen.stdout == expected.as_bytes() {
        return Ok(());
    }
    Err(format!("the contents differ: {expected} {seen:?}").into())
}

/// `info` names what dumpe2fs names.
fn is_described(image: &Path) -> Result {
    let text = String::from_utf8(tool("info", image, &[])?.done()?)?;
    let known = run(Command::new("dumpe2fs").arg("-h").arg(image))?;
    let value = |name: &str| {
        let line = known.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut words = value("Filesystem UUID");
    words.extend(value("Filesystem features").into_iter().filter(|name| name != "(none)"));
    words.push(format!("{} blocks of {} bytes", value("Block count")[0], value("Block size")[0]));
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(*word)).collect();
    let verdict = text.lines().last().unwrap_or_default();
    assert!(
        missing.is_empty() && verdict.starts_with("verdict") && verdict.contains("can be read"),
        "{missing:?}\n{text}"
    );
    let object = String::from_utf8(tool("info", image, &["--json"])?.done()?)?;
    for word in ["\"schema\":\"lazaret.info/1\"", "\"readable\":true", &words[0]] {
        assert!(object.contains(word), "{word}: {object}");
    }
    Ok(())
}

fn paths(workshop: &Workshop) -> Result {
    use std::os::unix::fs::symlink;
    let image = image_of(&workshop.directory("paths")?, &["-t", "ext4", "-L", "paths"], |tree| {
        fs::create_dir_all(tree.join("etc/deep"))?;
        fs::write(tree.join("etc/passwd"), "the image's own\n")?;
        for (name, target) in [
            ("absolute", "/etc/passwd"),
            ("above", "../../../../etc/passwd"),
            ("directory", "etc"),
            ("round", "round"),
            ("nowhere", "/nothing"),
            ("etc/deep/back", "../../directory/passwd"),
        ] {
            symlink(target, tree.join(name))?;
        }
        Ok(())
    })?;
    for path in ["/absolute", "above", "directory/passwd", "/etc/deep/back", "//etc/./deep/../passwd", "../etc/passwd"]
    {
        assert_eq!(tool("cat", &image, &[path])?.done()?, b"the image's own\n", "{path}");
    }
    assert_eq!(tool("ls", &image, &["directory"])?.done()?, b"deep\npasswd\n");
    let link = tool("ls", &image, &["-l", "directory"])?.done()?;
    assert!(link.starts_with(b"lrwx") && link.ends_with(b"directory -> etc\n"), "{link:?}");
    for (path, word) in [
        ("/round", "too many levels of symbolic links"),
        ("/nowhere", "no such file"),
        ("/etc/passwd/x", "not a directory"),
        ("/etc/passwd/", "not a directory"),
        ("/etc", "is a directory"),
        (&"x".repeat(256), "file name too long"),
        ("/etc/none\u{1b}", "none\\x1b: no such file"),
    ] {
        tool("cat", &image, &[path])?.refused(32, &[word])?;
    }
    // What can be read is, and what cannot is told.
    let left = tool("cat", &image, &["/none", "/absolute"])?.refused(32, &["/none: no such file"])?;
    assert_eq!(left.stdout, b"the image's own\n");
    Ok(())
}

fn refusals(workshop: &Workshop) -> Result {
    let place = workshop.directory("refusals")?;
    let zeros = place.join("zeros");
    fs::write(&zeros, [0; 1 << 16])?;
    for word in ["ls", "cat", "info"] {
        let path: &[&str] = if word == "cat" { &["/x"] } else { &[] };
        if word != "info" {
            tool(word, &zeros, path)?.refused(32, &["zeros", "not an ext"])?;
        }
        tool(word, &place.join("none"), path)?.refused(32, &["no such file"])?;
        tool(word, &place, path)?.refused(32, &["is a directory"])?;
        bare::run(&mut bare::command([word]))?.refused(1, &["--help"])?;
        bare::run(bare::command([word, "--part", "3"]).arg(&zeros).args(path))?.refused(32, &["no partition table"])?;
    }
    let told = tool("info", &zeros, &[])?;
    assert_eq!(told.code, Some(32));
    assert!(String::from_utf8(told.stdout)?.contains("verdict          is not an ext2"), "{}", told.stderr);
    // A feature that nobody reads is named, and the rest is told all the same.
    let image = workshop.copy(recipe::default(), &place)?;
    lazaret_tests::superblock::change(&image, |bytes| lazaret_tests::superblock::set_bits(bytes, 0x60, 1 << 31))?;
    let told = tool("info", &image, &[])?;
    let text = String::from_utf8(told.stdout)?;
    assert_eq!(told.code, Some(32), "{text}");
    for word in [recipe::UUID, "FEATURE_I31", "not known to this version", "cannot be read"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    leftover::nothing_of(&place)
}

/// What a command writes to a terminal.
fn on_a_terminal(line: &str) -> Result<String> {
    let text = run(Command::new("script").args(["-qec", line, "/dev/null"]).env("COLUMNS", "60"))?;
    let harmless = |letter: char| matches!(letter, '\r' | '\n' | '\t') || !letter.is_control();
    if text.chars().all(|letter| harmless(letter) && letter != '\u{202e}') {
        Ok(text)
    } else {
        Err(format!("{text:?}").into())
    }
}

fn hostile_names(workshop: &Workshop) -> Result {
    use std::os::unix::fs::symlink;
    let name = "red\x1b[31m\x07\r\u{202e}\u{9b}2J";
    let image = image_of(&workshop.directory("hostile")?, &["-t", "ext4", "-L", "\x1b]0;owned\x07"], |tree| {
        fs::create_dir(tree.join(name))?;
        fs::write(tree.join(name).join("new\nline"), "text\n\x1b[2J\ttab \u{9b}")?;
        Ok(symlink("\x1b[2J", tree.join("link"))?)
    })?;
    let (program, image) = (lazaret::broker(), image.display().to_string());
    for words in ["ls", "ls -l", "ls -lR", "ls -R", "ls --json", "ls --json -R", "info", "info --json"] {
        let text = on_a_terminal(&format!("{} {words} {image}", program.display()))?;
        assert!(words.starts_with("info") || text.contains("red"), "{words}: {text}");
    }
    let text = on_a_terminal(&format!("{} info {image}", program.display()))?;
    assert!(text.contains("\\x1b]0;owned\\x07"), "{text}");
    let file = format!("'/{name}/new\nline'");
    let text = on_a_terminal(&format!("{} cat {image} {file}", program.display()))?;
    assert!(text.contains("text\r\n\\x1b[2J\ttab \\x9b"), "{text:?}");
    // Elsewhere the bytes are what they are, as with ls.
    let listed = tool("ls", Path::new(&image), &[])?.done()?;
    assert!(listed.windows(name.len()).any(|part| part == name.as_bytes()));
    Ok(())
}

fn directory_loop(workshop: &Workshop) -> Result {
    let image = image_of(&workshop.directory("loop")?, &["-t", "ext4", "-L", "loop"], |tree| {
        Ok(fs::create_dir_all(tree.join("a/b"))?)
    })?;
    run(Command::new("debugfs").args(["-w", "-R", "ln a a/b/again"]).arg(&image))?;
    let left = tool("ls", &image, &["-R"])?.refused(32, &["/a/b/again: was listed already"])?;
    assert_eq!(left.stdout.iter().filter(|byte| **byte == b':').count(), 4, "{left:?}");
    Ok(())
}

fn standard_input(workshop: &Workshop) -> Result {
    let image = workshop.image(recipe::default())?;
    let expected = tool("ls", &image, &["-lAR"])?.done()?;
    let spool = "export TMPDIR=\"$3\"; cat \"$1\" | \"$2\" ls - -lAR; ls -A \"$3\"";
    let place = workshop.directory("spool")?;
    std::os::unix::fs::chown(&place, Some(65_534), Some(65_534))?;
    let piped = bare::run(bare::shell(spool).arg(&image).arg(lazaret::broker()).arg(&place))?.done()?;
    assert!(piped == expected, "through a pipe it looks different");
    let file = bare::run(bare::shell("\"$2\" ls - -lAR < \"$1\"").arg(&image).arg(lazaret::broker()))?.done()?;
    assert!(file == expected, "as a file it looks different");
    // The others read from a pipe, too.
    let line = |line: &str| bare::run(bare::shell(line).arg(&image).arg(lazaret::broker()))?.done();
    for (begin, end) in [("info", ""), ("check", ""), ("cat", "/sizes/61"), ("extract", "--tar -")] {
        let piped = line(&format!("cat \"$1\" | \"$2\" {begin} - {end}"))?;
        let named = line(&format!("\"$2\" {begin} \"$1\" {end}"))?;
        // The source is named in the first of these.
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace(&image.display().to_string(), "-");
        assert!(text(piped) == text(named), "{begin}: through a pipe it looks different");
    }
    let limited = "cat \"$1\" | \"$2\" ls --spool-limit 1M -";
    bare::run(bare::shell(limited).arg(&image).arg(lazaret::broker()))?.refused(32, &["longer than 1 MiB"])?;
    let nothing = "\"$1\" ls - < /dev/null";
    bare::run(bare::shell(nothing).arg(lazaret::broker()))?.refused(32, &["empty"])?;
    // A reader that goes early ends it without a word.
    let head = bare::run(bare::shell("\"$2\" ls -lAR \"$1\" | head -c 10").arg(&image).arg(lazaret::broker()))?;
    assert!(head.stdout.len() == 10 && head.stderr.is_empty(), "{head:?}");
    leftover::nothing_of(&place)
}

fn forms(workshop: &Workshop) -> Result {
    let image = image_of(&workshop.directory("forms")?, &["-t", "ext4", "-L", "forms"], |tree| {
        for name in [".hidden", "a", "bb", "ccc"] {
            fs::write(tree.join(name), name.repeat(600))?;
        }
        Ok(())
    })?;
    let shown = |words: &[&str]| -> Result<String> { Ok(String::from_utf8(tool("ls", &image, words)?.done()?)?) };
    assert_eq!(shown(&[])?, "a\nbb\nccc\nlost+found\n");
    assert_eq!(shown(&["-A"])?, ".hidden\na\nbb\nccc\nlost+found\n");
    assert_eq!(shown(&["-a"])?, ".\n..\n.hidden\na\nbb\nccc\nlost+found\n");
    assert_eq!(shown(&["-d"])?, "/\n");
    assert_eq!(shown(&["a"])?, "a\n");
    assert!(shown(&["-l", "--human-readable", "ccc"])?.contains(" 1.8K "));
    let columns = on_a_terminal(&format!("{} ls {}", lazaret::broker().display(), image.display()))?;
    assert_eq!(columns, "a  bb  ccc  lost+found\r\n");
    Ok(())
}
