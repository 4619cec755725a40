//! What `make fuzz` and its like need besides the targets: images and first inputs, the live line, the report, and what
//! an input is in words.

mod campaign;
mod planted;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lazaret_tests::Result;
use lazaret_tests::fuzz::image::{Recipe, is_image};
use lazaret_tests::fuzz::{corpus, dictionary, stock, target};

use campaign::Place;

/// So that an input which takes too much memory is found here, too.
#[global_allocator]
static HEAP: lazaret_tests::heap::Counted = lazaret_tests::heap::Counted;

const USAGE: &str = "\
fuzz prepare DIR                            writes images, first inputs and a dictionary
fuzz run DIR PROGRAMS SECONDS [TARGET]      runs the targets, one on each core
fuzz report DIR [COVERAGE EDGES PROGRAM]    writes report.md and report.svg of all runs
fuzz once TARGET FILE                       runs one input here; exit code 1 if it cannot be run
fuzz explain FILE                           says what an input of a whole image changes
fuzz planted DIR PROGRAMS SECONDS [BUG]     finds the planted bugs, from the first inputs alone
fuzz keep DIR                               packs DIR/TARGET of each target into the committed corpus";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match *words {
        ["prepare", place] => prepare(Path::new(place)),
        ["run", place, programs, seconds] => run(place, programs, seconds, None),
        ["run", place, programs, seconds, target] => run(place, programs, seconds, Some(target)),
        ["report", place] => report(place, None),
        ["report", place, coverage, edges, program] => report(place, Some([coverage, edges, program].map(Path::new))),
        ["once", target, file] => once(target, Path::new(file)),
        ["explain", file] => fs::read(file).map_err(Into::into).map(|input| explain(&input)),
        ["planted", place, programs, seconds] => planted(place, programs, seconds, None),
        ["planted", place, programs, seconds, bug] => planted(place, programs, seconds, Some(bug)),
        ["keep", place] => keep(Path::new(place)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes what a fuzzer begins with: `images`, `seeds/TARGET`, `dictionary`.
fn prepare(place: &Path) -> Result {
    // What an older version has left there would be taken for ours. The images may be read from where they are written to.
    stock::stock();
    for old in ["images", "seeds"].map(|folder| place.join(folder)) {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    stock::store(&place.join("images"))?;
    for target in target::targets() {
        let folder = place.join("seeds").join(target.name);
        fs::create_dir_all(&folder)?;
        let kept = corpus::read(&corpus::committed().join(target.name))?;
        let once_wrong = corpus::folder(&corpus::regressions().join(target.name))?.into_iter().map(|(_, input)| input);
        for (number, input) in target.seeds().into_iter().chain(kept).chain(once_wrong).enumerate() {
            fs::write(folder.join(format!("{number:0>4}")), input)?;
        }
    }
    Ok(fs::write(place.join("dictionary"), dictionary::dictionary())?)
}

fn run(place: &str, programs: &str, seconds: &str, target: Option<&str>) -> Result {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let names = campaign::named(target, jobs);
    if names.is_empty() {
        return Err(format!("no target {}", target.unwrap_or_default()).into());
    }
    let crashes = campaign::run(Place(place.into()), Path::new(programs), seconds.parse()?, &names, jobs)?;
    print!("{}", report::write(&Place(place.into()), None)?);
    if crashes.is_empty() {
        return Ok(());
    }
    let files: Vec<String> =
        crashes.iter().map(|file| format!("\n  make fuzz-repro FILE={}", file.display())).collect();
    Err(format!("{} inputs ended a run:{}", files.len(), files.concat()).into())
}

fn once(target: &str, file: &Path) -> Result {
    let known = target::targets().find(|one| one.name == target).ok_or_else(|| format!("no target {target}"))?;
    let input = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    known.run(&input);
    Ok(())
}

fn planted(place: &str, programs: &str, seconds: &str, bug: Option<&str>) -> Result {
    planted::run(Path::new(place), Path::new(programs), seconds.parse()?, bug)
}

fn report(place: &str, reached: Option<[&Path; 3]>) -> Result {
    print!("{}", report::write(&Place(place.into()), reached)?);
    Ok(())
}

fn explain(input: &[u8]) {
    if is_image(input) {
        return println!("an image of {} bytes", input.len());
    }
    let recipe = Recipe::decode(input);
    println!("image {}, flags {:#04x}", recipe.sound().name, recipe.flags);
    recipe.describe().iter().for_each(|line| println!("  {line}"));
}

fn keep(place: &Path) -> Result {
    fs::create_dir_all(corpus::committed())?;
    for target in target::targets() {
        let files: Vec<(PathBuf, Vec<u8>)> = corpus::folder(&place.join(target.name))?;
        if !files.is_empty() {
            let inputs = files.into_iter().map(|(_, input)| input).collect();
            corpus::write(&corpus::committed().join(target.name), inputs)?;
        }
    }
    Ok(())
}
