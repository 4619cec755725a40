//! `lazaret extract` of hostile images, and with a worker that lies: nothing is made outside of the target, nothing goes
//! on for ever, and each is told.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lazaret_tests::bare::{self, BARE, Left};
use lazaret_tests::block::KernelMount;
use lazaret_tests::command::{self, run};
use lazaret_tests::damage::Victim;
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, proof};
use lazaret_tests::workshop::{Workshop, image_of};
use lazaret_tests::{Result, lazaret, leftover};

fn main() {
    requirement::main_in_turn(|workshop| {
        let mut trials = vec![
            proof("P18", "names that lead elsewhere", BARE, workshop, |workshop| counted(names(workshop))),
            proof("P18", "links that lead elsewhere", BARE, workshop, |workshop| counted(links(workshop))),
            proof("P18", "two entries of one name", BARE, workshop, |workshop| counted(two_of_one_name(workshop))),
            proof("P18", "another name of a directory", BARE, workshop, |workshop| counted(directory_twice(workshop))),
            proof("P18", "lengths of 16 TiB and 16 EiB", BARE, workshop, |workshop| counted(long_files(workshop))),
            proof("P18", "a million empty files", BARE, workshop, |workshop| counted(million(workshop))),
            proof("P18", "an entry that becomes a link between two reads", BARE, workshop, |workshop| {
                counted(swapped(workshop))
            }),
            proof("P18", "links that lie in the target", BARE, workshop, |workshop| {
                counted(target_with_links(workshop))
            }),
            proof("P18", "what is led out is found", BARE, workshop, led_out),
        ];
        let lies = LIES.iter().map(|lie| {
            proof("P18", format!("a worker's lie: {}", lie.what), BARE, workshop, |workshop| {
                counted(told(lie, workshop))
            })
        });
        trials.extend(lies);
        trials
    })
}

/// A case that passed is one more that was shown.
fn counted(result: Result) -> Result<Figures> {
    result.map(|()| vec![("cases", 1)])
}

/// A place for an image and its target, and all that lies beside the target, which must stay as it is.
struct Scene {
    place: PathBuf,
    before: Vec<String>,
}

impl Scene {
    fn new(workshop: &Workshop, name: &str) -> Result<Self> {
        let place = workshop.directory(&format!("hostile {name}"))?;
        fs::create_dir(place.join("outside"))?;
        fs::write(place.join("outside/canary"), "it sings")?;
        fs::create_dir(place.join("target"))?;
        for path in ["target", "outside", "outside/canary"] {
            std::os::unix::fs::chown(place.join(path), Some(65_534), Some(65_534))?;
        }
        Ok(Self { place, before: vec![] })
    }

    fn target(&self) -> PathBuf {
        self.place.join("target")
    }

    fn image(&self) -> PathBuf {
        self.place.join("image.img")
    }

    /// An image with this content and without checksums of metadata: mke2fs copies a directory into it.
    fn fill(&self, fill: impl FnOnce(&Path) -> Result) -> Result<Victim> {
        image_of(&self.place, &["-t", "ext4", "-O", "^metadata_csum,^dir_index"], fill)?;
        Victim::open(&self.image())
    }

    /// Notes what is there, runs it as nobody, and demands that nothing but the target has changed.
    fn extract(&mut self, program: &Path, more: &[&str]) -> Result<Left> {
        self.before = self.beside()?;
        let mut command = bare::shell("exec timeout 60 \"$@\"");
        command.arg(program).arg("extract").arg(self.image()).arg("--to").arg(self.target()).args(more);
        let left = bare::run(&mut command)?;
        let after = self.beside()?;
        if after != self.before {
            return Err(format!("it was {:?} and is {after:?}: {left:?}", self.before).into());
        }
        Ok(left)
    }

    /// Everything beside the target, with what tells a change.
    fn beside(&self) -> Result<Vec<String>> {
        let mut all = vec![];
        for folder in [self.place.clone(), self.place.join("outside")] {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let is = entry.metadata()?;
                let times = if entry.path() == self.target() { None } else { Some((is.ctime(), is.ctime_nsec())) };
                all.push(format!("{:?} {:o} {times:?}", entry.path(), is.mode()));
            }
        }
        all.sort();
        Ok(all)
    }

    /// The names in a folder of the target.
    fn made(&self, folder: &str) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.target().join(folder))?;
        let mut names: Vec<String> =
            entries.map(|entry| Ok(entry?.file_name().as_bytes().escape_ascii().to_string())).collect::<Result<_>>()?;
        names.retain(|name| name != "lost+found");
        names.sort();
        Ok(names)
    }

    fn over(self) -> Result {
        leftover::nothing_of(&self.place)?;
        Ok(fs::remove_dir_all(&self.place)?)
    }
}

/// The test of these tests: a program that writes beside its target is seen to have done so.
fn led_out(workshop: &Workshop) -> Result<Figures> {
    let mut scene = Scene::new(workshop, "led out")?;
    scene.fill(|tree| Ok(fs::write(tree.join("good"), "good")?))?;
    let careless = scene.place.join("careless");
    fs::write(&careless, "#!/bin/sh\necho 'it is silent' >\"$4/../outside/canary\"\n")?;
    fs::set_permissions(&careless, fs::Permissions::from_mode(0o755))?;
    match scene.extract(&careless, &[]) {
        Err(error) if error.to_string().contains("and is") => {}
        other => return Err(format!("nobody sees what was written outside: {other:?}").into()),
    }
    scene.over()?;
    Ok(vec![("sabotages found", 1)])
}

fn names(workshop: &Workshop) -> Result {
    let mut scene = Scene::new(workshop, "names")?;
    let red = OsString::from("red\u{1b}[31m\u{202e}");
    let image = scene.fill(|tree| {
        for name in ["xx", "sl-outside", "."] {
            fs::create_dir_all(tree.join("rooms").join(name))?;
        }
        fs::write(tree.join("rooms/xx/inside"), "x")?;
        fs::create_dir_all(tree.join("up"))?;
        fs::write(tree.join("up/yy"), "y")?;
        fs::write(tree.join("up/z"), "z")?;
        fs::write(tree.join(&red), "red")?;
        Ok(fs::write(tree.join("good"), "good")?)
    })?;
    // A slash makes the rest of its block unreadable; a second `..` is only a name too many.
    let slash = image.entry("/rooms", "sl-outside")?;
    image.write("/rooms", 0, slash + 8, b"../outside")?;
    for (name, evil) in [("yy", &b".."[..]), ("z", b".")] {
        let at = image.entry("/up", name)?;
        image.write("/up", 0, at + 8, evil)?;
    }
    image.debugfs(&format!("set_inode_field \"/{}\" block[1] 4000000000", red.display()))?;
    let left = scene
        .extract(&lazaret::broker(), &[])?
        .refused(4, &["/rooms: ", "/up: a second entry '..'", "'.'", "/red\\x1b[31m\\u{202e}: "])?;
    assert_eq!(fs::read(scene.target().join("good"))?, b"good", "{left:?}");
    assert_eq!(scene.made("up")?, [""; 0]);
    scene.over()
}

fn links(workshop: &Workshop) -> Result {
    let mut scene = Scene::new(workshop, "links")?;
    let outside = scene.place.join("outside");
    scene.fill(|tree| {
        symlink(&outside, tree.join("absolute"))?;
        symlink("../outside", tree.join("relative"))?;
        fs::create_dir(tree.join("folder"))?;
        Ok(symlink("../../outside/canary", tree.join("folder/file"))?)
    })?;
    let left = scene.extract(&lazaret::broker(), &[])?;
    assert_eq!((left.code, &left.stderr[..]), (Some(0), ""), "links are made as they are");
    assert_eq!(fs::read_link(scene.target().join("absolute"))?, outside);
    assert_eq!(fs::read_link(scene.target().join("folder/file"))?, Path::new("../../outside/canary"));
    scene.over()
}

/// A link and a directory of one name: what lies in the one must not be made where the other leads.
fn two_of_one_name(workshop: &Workshop) -> Result {
    for order in [["link1", "same2"], ["same1", "link2"]] {
        let mut scene = Scene::new(workshop, &format!("two {}", order[0]))?;
        let image = scene.fill(|tree| {
            for name in order {
                if name.starts_with("link") {
                    symlink("../outside", tree.join(name))?;
                } else {
                    fs::create_dir(tree.join(name))?;
                    fs::write(tree.join(name).join("canary"), "it is dead")?;
                }
            }
            Ok(())
        })?;
        for name in order {
            let at = image.entry("/", name)?;
            image.write("/", 0, at + 8, b"same!")?;
        }
        scene.extract(&lazaret::broker(), &[])?.refused(4, &["/same!: a second entry of this name"])?;
        assert_eq!(scene.made("")?, ["same!"]);
        scene.over()?;
    }
    Ok(())
}

fn directory_twice(workshop: &Workshop) -> Result {
    let mut scene = Scene::new(workshop, "directory twice")?;
    let image = scene.fill(|tree| {
        fs::create_dir_all(tree.join("a/b"))?;
        Ok(fs::write(tree.join("a/b/file"), "once")?)
    })?;
    for (of, name) in [("a", "a/b/again"), (".", "a/root"), ("a/b", "other")] {
        image.debugfs(&format!("ln {of} {name}"))?;
    }
    let told = ["/a/b/again: is a directory that was found", "/a/root: is a directory that was found"];
    let left = scene.extract(&lazaret::broker(), &[])?.refused(4, &told)?;
    let of_b = ["/other: is a directory", "/a/b: is a directory"].iter().filter(|word| left.stderr.contains(**word));
    assert_eq!(of_b.count(), 1, "{left:?}");
    scene.over()
}

fn long_files(workshop: &Workshop) -> Result {
    const TIB_16: u64 = (1 << 44) - 4096;
    let mut scene = Scene::new(workshop, "long")?;
    let image = scene.fill(|tree| {
        for name in ["exbibytes", "negative", "tebibytes", "short"] {
            fs::write(tree.join(name), "begin")?;
        }
        Ok(())
    })?;
    for (name, size) in [("exbibytes", u64::MAX), ("negative", 1 << 63), ("tebibytes", TIB_16)] {
        image.debugfs(&format!("set_inode_field /{name} size {size}"))?;
    }
    let words = ["/exbibytes: ", "/negative: ", "/tebibytes: is 15.9 TiB longer than its data", "--max-holes"];
    let left = scene.extract(&lazaret::broker(), &[])?.refused(8, &words)?;
    assert_eq!(scene.made("")?, ["short"], "{left:?}");
    // As an archive, and where it is wanted: 16 TiB in a few kilobytes.
    let archive = scene.place.join("long.tar");
    let mut tar =
        lazaret::command(["extract".as_ref(), scene.image().as_os_str(), "--tar".as_ref(), archive.as_os_str()]);
    let finished = command::finish(tar.args(["--max-holes", "64T"]), Duration::from_secs(60))?;
    assert_eq!(finished.code(), Some(4), "{finished:?}");
    assert!(fs::metadata(&archive)?.len() < 1 << 16);
    let listed = run(Command::new("tar").args(["--full-time", "-tvf"]).arg(&archive))?;
    assert!(listed.contains(&TIB_16.to_string()), "{listed}");
    scene.over()
}

fn million(workshop: &Workshop) -> Result {
    let scene = Scene::new(workshop, "million")?;
    fs::File::create(scene.image())?.set_len(700 << 20)?;
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "128", "-N", "1010000", "-O", "^has_journal"];
    run(Command::new("mke2fs").args(options).arg(scene.image()))?;
    let kernel = KernelMount::writable(&scene.image(), &scene.place.join("kernel"))?;
    for folder in 0..1000 {
        let folder = kernel.path().join(folder.to_string());
        fs::create_dir(&folder)?;
        for file in 0..1000 {
            fs::File::create(folder.join(file.to_string()))?;
        }
    }
    kernel.unmount()?;
    let count = "\"$1\" extract \"$2\" --tar - | tar -t | wc -l";
    let left = bare::run(bare::shell(count).arg(lazaret::broker()).arg(scene.image()))?;
    assert!(left.stderr.contains("has more than 1000000 entries"), "{left:?}");
    assert!(left.stderr.contains("the archive is not complete"), "{left:?}");
    let taken: u64 = String::from_utf8(left.stdout)?.trim().parse()?;
    assert!((990_000..=1_000_001).contains(&taken), "{taken} were taken");
    // With leave to take them all, all of them are there.
    let count = "\"$1\" extract \"$2\" --max-entries 2000000 --tar - | tar -t | wc -l";
    let all = bare::run(bare::shell(count).arg(lazaret::broker()).arg(scene.image()))?.done()?;
    assert_eq!(String::from_utf8(all)?.trim(), "1001002");
    scene.over()
}

/// The reader of an archive waits while the image changes under the worker: what was listed as a directory is a link
/// when it is entered, and what was a file is a link when it is read.
fn swapped(workshop: &Workshop) -> Result {
    let scene = Scene::new(workshop, "swapped")?;
    let image = scene.fill(|tree| {
        // mke2fs numbers them in this order, and they are taken in the order of their numbers.
        for name in ["a-folder", "b-long", "c-folder", "d-link"] {
            match name {
                "b-long" => fs::write(tree.join(name), vec![b'l'; 8 << 20])?,
                "d-link" => symlink("../outside", tree.join(name))?,
                _ => {
                    fs::create_dir(tree.join(name))?;
                    fs::write(tree.join(name).join("canary"), "it is dead")?;
                }
            }
        }
        Ok(())
    })?;
    let numbers: Vec<u32> =
        ["/a-folder", "/b-long", "/c-folder", "/d-link"].iter().map(|path| image.inode(path)).collect::<Result<_>>()?;
    assert!(numbers.is_sorted(), "{numbers:?}");
    let (archive, errors) = (scene.place.join("archive.tar"), scene.place.join("errors"));
    let mut command = lazaret::command(["extract".as_ref(), scene.image().as_os_str(), "--tar".as_ref(), "-".as_ref()]);
    command.stdout(std::process::Stdio::piped()).stderr(fs::File::create(&errors)?);
    let mut child = command.spawn()?;
    let mut pipe = child.stdout.take().ok_or("a pipe")?;
    // Its first bytes have come: it is in the long file, and waits for a reader.
    let mut begin = [0; 512];
    std::io::Read::read_exact(&mut pipe, &mut begin)?;
    let link = image.inode_bytes(numbers[3])?;
    for folder in [numbers[0], numbers[2]] {
        image.set_inode_bytes(folder, &link)?;
    }
    let mut file = fs::File::create(&archive)?;
    std::io::Write::write_all(&mut file, &begin)?;
    std::io::copy(&mut pipe, &mut file)?;
    let status = command::wait(&mut child, Duration::from_secs(60))?;
    let said = fs::read_to_string(&errors)?;
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("/a-folder: was a directory and is none any more"), "{said}");
    let listed = run(Command::new("tar").arg("-tvf").arg(&archive))?;
    let line = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("./c-folder").starts_with('l') && line("canary").is_empty(), "{listed}");
    scene.over()
}

/// What somebody has put into the target leads out of it: with `--continue`, the only way to begin in such a target.
fn target_with_links(workshop: &Workshop) -> Result {
    let mut scene = Scene::new(workshop, "target")?;
    scene.fill(|tree| {
        for name in ["folder", "other"] {
            fs::create_dir(tree.join(name))?;
            fs::write(tree.join(name).join("canary"), "it is dead")?;
        }
        fs::write(tree.join("file"), "it is dead, too")?;
        fs::write(tree.join("second"), "it is dead, too")?;
        Ok(fs::hard_link(tree.join("second"), tree.join("third"))?)
    })?;
    symlink("../outside", scene.target().join("folder"))?;
    symlink("../outside/canary", scene.target().join("file"))?;
    symlink("../outside/canary", scene.target().join("second.partial"))?;
    symlink("../outside/canary", scene.target().join("third"))?;
    scene.extract(&lazaret::broker(), &[])?.refused(2, &["is not empty", "--continue"])?;
    let told = [
        "/folder: exists already in the target, and is no directory",
        "/file: exists already",
        "/third: exists already",
    ];
    let left = scene.extract(&lazaret::broker(), &["--continue"])?.refused(2, &told)?;
    assert_eq!(fs::read(scene.target().join("other/canary"))?, b"it is dead", "{left:?}");
    assert_eq!(fs::read(scene.target().join("second"))?, b"it is dead, too");
    assert_eq!(fs::read(scene.place.join("outside/canary"))?, b"it sings");
    scene.over()
}

/// What a worker lies about, and what is said about it.
struct Lie {
    what: &'static str,
    /// Further arguments.
    more: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
    /// What is in the target then; none if that is all the same.
    made: Option<&'static [&'static str]>,
}

const fn lie(what: &'static str, code: i32, says: &'static [&'static str]) -> Lie {
    Lie { what, more: &[], code, says, made: None }
}

const NO_FILE: &[&str] = &["what cannot be a file"];
const NO_DIRECTORY: &[&str] = &["what cannot be a directory"];

const LIES: &[Lie] = &[
    Lie { made: Some(&["below", "file"]), ..lie("nothing-at-all", 0, &[]) },
    lie("slash", 8, NO_DIRECTORY),
    lie("absolute", 8, NO_DIRECTORY),
    lie("nul", 8, NO_DIRECTORY),
    lie("nothing", 8, NO_DIRECTORY),
    lie("long", 8, NO_DIRECTORY),
    Lie { made: Some(&["file"]), ..lie("up", 4, &["a second entry '..'", "a second entry '.'"]) },
    Lie { made: Some(&["below", "file"]), ..lie("twice", 4, &["/below: a second entry of this name"]) },
    lie("names-for-ever", 8, &["more than 1000000 entries"]),
    lie("dots-for-ever", 8, &["more than 1000000 entries"]),
    lie("one-cookie", 8, NO_DIRECTORY),
    lie("another-answer", 2, &["answered another question"]),
    lie("cycle", 4, &["/below/again: is a directory that was found", "/below/root: is a directory that was found"]),
    lie("deep", 8, &["lies below more than 256 directories", "--max-depth"]),
    lie("no-pieces", 2, &["does not come to an end"]),
    lie("too-much", 2, NO_FILE),
    lie("behind-the-end", 2, NO_FILE),
    lie("backwards", 2, NO_FILE),
    lie("more-than-asked", 2, NO_FILE),
    lie("content-of-a-directory", 2, NO_FILE),
    lie("no-type", 2, NO_FILE),
    lie("nanoseconds", 2, NO_FILE),
    lie("value-too-long", 2, NO_FILE),
    lie("name-with-nul", 2, NO_FILE),
    lie("attributes-for-ever", 2, NO_FILE),
    lie("link-too-long", 2, NO_FILE),
    lie("link-nowhere", 2, NO_FILE),
    Lie { made: Some(&["below", "file"]), ..lie("link-out", 0, &[]) },
    Lie { made: Some(&["file"]), ..lie("becomes-link", 4, &["/below: was a directory and is none any more"]) },
    Lie { made: Some(&["below", "file"]), ..lie("privileges", 0, &[]) },
    Lie { made: Some(&["below"]), ..lie("device", 0, &["left out: 2; see --special"]) },
    Lie { made: Some(&["below"]), ..lie("very-long", 8, &["/file: is 15.9 EiB longer than its data"]) },
    Lie {
        more: &["--max-bytes", "64M"],
        made: Some(&["file.partial"]),
        ..lie("data-for-ever", 8, &["more than 64 MiB of data", "--max-bytes", "file.partial", "is not complete"])
    },
    lie("holes-for-ever", 2, &["does not come to an end"]),
    Lie { more: &["-o", "timeout=2"], ..lie("silent", 8, &["gave no answer within 2 s", "is not complete"]) },
    lie("dies", 8, &["the worker ended", "is not complete"]),
    Lie { made: Some(&["file.partial"]), ..lie("dies-within", 8, &["the worker ended", "file.partial"]) },
];

fn told(lie: &Lie, workshop: &Workshop) -> Result {
    let mut scene = Scene::new(workshop, &format!("lie {}", lie.what))?;
    let programs = scene.place.join("programs");
    fs::create_dir(&programs)?;
    fs::copy(lazaret::broker(), programs.join("lazaret"))?;
    fs::copy(env!("CARGO_BIN_EXE_liar"), programs.join("lazaret-worker"))?;
    fs::write(scene.image(), format!("{:<4096}", lie.what))?;
    let left = scene.extract(&programs.join("lazaret"), lie.more)?;
    let left = if lie.says.is_empty() {
        assert_eq!((left.code, &left.stderr[..]), (Some(lie.code), ""), "{}", lie.what);
        left
    } else {
        left.refused(lie.code, lie.says)?
    };
    if let Some(made) = lie.made {
        assert_eq!(scene.made("")?, made, "{left:?}");
    }
    if lie.what == "privileges" {
        let file = scene.target().join("file");
        assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o7777, 0o777);
        assert_eq!(rustix::fs::listxattr(&file, &mut [0_u8; 0][..])?, 0, "it has attributes");
    }
    scene.over()
}
