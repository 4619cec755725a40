//! Instructions for one operation of the reader, which do not depend on the machine's mood: counted by callgrind over
//! two runs of different length, so that what comes before and after falls out.

use std::path::Path;
use std::process::Command;

use lazaret_tests::{Result, command};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::{FileOffset, Filesystem, Inode, InodeNumber, MappingKind, Settings};
use serde_json::{Value, json};

use crate::Plan;
use crate::image::{self, FEW};

const ASKED: &str = "LAZARET_BENCH_COUNT";
const IMAGE: &str = "LAZARET_BENCH_IMAGE";
/// What was counted last, by whoever committed it.
const COMMITTED: &str = include_str!("counts.json");
/// From this on a change is called a regression.
const TOLERANCE: f64 = 1.10;

/// An operation and how often it is done in the short run; the long one does it twice as often.
type Operation = (&'static str, fn(&Filesystem, u64) -> Result, u64);

const OPERATIONS: [Operation; 4] = [
    ("lookup among 1 000 names", lookup, 2000),
    ("read of 4 KiB", read, 4000),
    ("directory entry", list, 2000),
    ("directory entry with attributes", list_with_attributes, 2000),
];

/// Instructions of one operation.
pub(crate) struct Count {
    name: &'static str,
    instructions: u64,
    /// As committed.
    before: Option<u64>,
}

impl Count {
    fn regressed(&self) -> bool {
        self.before.is_some_and(|before| self.instructions as f64 > before as f64 * TOLERANCE)
    }

    pub(crate) fn line(&self) -> String {
        let before = self.before.map_or("–".into(), |before| before.to_string());
        let verdict = if self.regressed() { "**regression**" } else { "" };
        format!("| {} | {} | {before} | {verdict} |", self.name, self.instructions)
    }

    pub(crate) fn json(&self) -> (String, Value) {
        (self.name.to_owned(), json!(self.instructions))
    }
}

/// Which operation this process is to do, and how often, if it is a subject of callgrind.
pub(crate) fn asked_for() -> Option<String> {
    std::env::var(ASKED).ok()
}

/// Does it.
pub(crate) fn run(asked: &str) -> Result {
    let (number, times) = asked.split_once(' ').ok_or("no operation")?;
    let (_, act, _) = OPERATIONS.get(number.parse::<usize>()?).ok_or("no such operation")?;
    let bytes = std::fs::read(std::env::var_os(IMAGE).ok_or("no image")?)?;
    let filesystem = Filesystem::open(Device::from_bytes(bytes), Settings::default())
        .map_err(|refusal| format!("the image is refused: {refusal:?}"))?;
    act(&filesystem, times.parse()?)
}

/// All of them.
pub(crate) fn figures(plan: &Plan) -> Result<Vec<Count>> {
    if !plan.wants("count") {
        return Ok(vec![]);
    }
    let image = image::counted(&plan.kept)?;
    let committed: Value = serde_json::from_str(COMMITTED)?;
    let place = tempfile::tempdir()?;
    let mut all = vec![];
    for (number, (name, _, times)) in OPERATIONS.iter().enumerate() {
        let short = counted(number, *times, &image, place.path())?;
        let long = counted(number, times * 2, &image, place.path())?;
        let instructions = long.saturating_sub(short) / times;
        all.push(Count { name, instructions, before: committed[name].as_u64() });
        println!("{}", all[number].line());
    }
    Ok(all)
}

fn counted(number: usize, times: u64, image: &Path, place: &Path) -> Result<u64> {
    let out = place.join("callgrind.out");
    command::run(
        Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(std::env::current_exe()?)
            .env(ASKED, format!("{number} {times}"))
            .env(IMAGE, image),
    )?;
    let text = std::fs::read_to_string(&out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    Ok(total.ok_or("callgrind wrote no total")?.trim().parse()?)
}

fn at(filesystem: &Filesystem, name: &str) -> Result<Inode> {
    let root = filesystem.inode(InodeNumber::ROOT).map_err(|error| format!("{error:?}"))?;
    let found = filesystem.lookup(&root, name.as_bytes()).map_err(|error| format!("{error:?}"))?;
    Ok(filesystem.inode(found.ok_or("no such name")?).map_err(|error| format!("{error:?}"))?)
}

/// As a LOOKUP is answered: the directory, the name in it, the inode that it leads to.
fn lookup(filesystem: &Filesystem, times: u64) -> Result {
    let number = at(filesystem, "few")?.number;
    for round in 0..times {
        let name = image::name(round.wrapping_mul(2_654_435_761) % FEW);
        let directory = filesystem.kept_inode(number).map_err(|error| format!("{error:?}"))?;
        let found = filesystem.lookup(&directory, name.as_bytes()).map_err(|error| format!("{error:?}"))?;
        std::hint::black_box(filesystem.inode(found.ok_or("no such name")?).map_err(|error| format!("{error:?}"))?);
    }
    Ok(())
}

/// As a READ is answered: the inode, the mapping, and the bytes lent to the reply.
fn read(filesystem: &Filesystem, times: u64) -> Result {
    let number = at(filesystem, "fragmented")?.number;
    for round in 0..times {
        let inode = filesystem.kept_inode(number).map_err(|error| format!("{error:?}"))?;
        let offset = round.wrapping_mul(2_654_435_761) % image::FEW * 8192;
        let mapping = filesystem.map(&inode, FileOffset(offset), 4096).map_err(|error| format!("{error:?}"))?;
        let MappingKind::Data(place) = mapping.kind else { return Err("a hole where data was written".into()) };
        let lent = filesystem.device().lend(place.0, 4096, |bytes| bytes.len());
        std::hint::black_box(lent.map_err(|error| format!("{error:?}"))?);
    }
    Ok(())
}

fn list(filesystem: &Filesystem, times: u64) -> Result {
    walk(filesystem, times, false)
}

fn list_with_attributes(filesystem: &Filesystem, times: u64) -> Result {
    walk(filesystem, times, true)
}

/// So many entries of the directory of a thousand names.
fn walk(filesystem: &Filesystem, times: u64, attributes: bool) -> Result {
    let directory = at(filesystem, "few")?;
    for _ in 0..times / FEW {
        let mut seen = 0;
        let listed = filesystem.read_dir(&directory, 0, &mut |entry| {
            seen += 1;
            if attributes {
                let _ = std::hint::black_box(filesystem.inode(entry.inode));
            }
            std::ops::ControlFlow::Continue(())
        });
        listed.map_err(|error| format!("{error:?}"))?;
        if seen < FEW {
            return Err(format!("{seen} entries were listed").into());
        }
    }
    Ok(())
}
