//! What was run, and what of the worker the kept inputs reach: a table and a drawing.
//!
//! Lines and regions are llvm-cov's, by the inputs that are committed; edges are the fuzzers' own counters, by all inputs
//! that there are, each put into the room of the source that it was compiled from.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use lazaret_tests::Result;
use plotters::prelude::*;
use serde_json::Value;

use crate::campaign;

/// The parts of the source that are told apart, the longest path first.
const ROOMS: [&str; 9] = [
    "worker/src/ext4/journal/",
    "worker/src/ext4/check/",
    "worker/src/ext4/",
    "worker/src/partition/",
    "worker/src/device/",
    "worker/src/fuse/",
    "worker/src/tool/",
    "worker/src/",
    "policy/src/",
];

/// What a target has had in all.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    runs: u64,
    executions: u64,
    seconds: f64,
    cpu: f64,
    edges: u64,
    inputs: u64,
    crashes: u64,
}

/// Lines, regions between which the code can take another way, and edges of what was compiled: how many are reached, and
/// how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    lines: (u64, u64),
    regions: (u64, u64),
    edges: (u64, u64),
}

type Rooms = BTreeMap<&'static str, Reached>;

/// Writes `report.md` and `report.svg` beside the records, and returns the table. What is reached is in what llvm-cov
/// exports, in what the program `edges` prints, and in that program.
pub(crate) fn write(place: &campaign::Place, reached: Option<[&Path; 3]>) -> Result<String> {
    let totals = totals(&campaign::records(&place.runs()).unwrap_or_default());
    let mut rooms = Rooms::new();
    if let Some([coverage, edges, program]) = reached {
        rooms = by_coverage(&serde_json::from_str(&fs::read_to_string(coverage)?)?);
        let edges = fs::read_to_string(edges)?;
        add_edges(&mut rooms, &edges, &places(&edges, program)?);
    }
    let text = table(&totals, &rooms);
    fs::write(place.0.join("report.md"), &text)?;
    let svg = place.0.join("report.svg");
    draw(&totals, &rooms, &svg).map_err(|error| format!("{}: {error}", svg.display()))?;
    Ok(text)
}

fn totals(records: &[Value]) -> BTreeMap<String, Total> {
    let mut totals: BTreeMap<String, Total> = BTreeMap::new();
    for record in records {
        let number = |name: &str| record[name].as_f64().unwrap_or(0.0);
        let total = totals.entry(record["target"].as_str().unwrap_or_default().to_owned()).or_default();
        total.runs += 1;
        total.executions += number("executions") as u64;
        total.seconds += number("seconds");
        total.cpu += number("cpu");
        total.edges = total.edges.max(number("edges") as u64);
        total.inputs = total.inputs.max(number("inputs") as u64);
        total.crashes += number("crashes") as u64;
    }
    totals
}

fn room(file: &str) -> Option<&'static str> {
    ROOMS.into_iter().find(|room| file.contains(room))
}

fn by_coverage(export: &Value) -> Rooms {
    let mut rooms = Rooms::new();
    for file in export["data"][0]["files"].as_array().into_iter().flatten() {
        let Some(room) = room(file["filename"].as_str().unwrap_or_default()) else { continue };
        let reached = rooms.entry(room).or_default();
        for (kind, (covered, count)) in [("lines", &mut reached.lines), ("regions", &mut reached.regions)] {
            *covered += file["summary"][kind]["covered"].as_u64().unwrap_or(0);
            *count += file["summary"][kind]["count"].as_u64().unwrap_or(0);
        }
    }
    rooms
}

/// What addr2line says of the addresses of a program: of each a line with the address, then one for each function that was
/// compiled into another there, the innermost first.
fn places(edges: &str, program: &Path) -> Result<String> {
    let mut child = Command::new("addr2line")
        .args(["-a", "-i", "-e"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("addr2line: {error}"))?;
    let mut to = child.stdin.take().ok_or("no input")?;
    let addresses: String = edges.lines().filter_map(|line| Some(format!("{}\n", line.split_once(' ')?.0))).collect();
    // It answers each at once, and waits for whoever does not listen.
    let asking = std::thread::spawn(move || to.write_all(addresses.as_bytes()));
    let told = child.wait_with_output()?;
    asking.join().map_err(|_| "addr2line was not asked")??;
    Ok(String::from_utf8_lossy(&told.stdout).into_owned())
}

/// Puts each edge into the room of the innermost function of ours.
fn add_edges(rooms: &mut Rooms, edges: &str, places: &str) {
    let mut places = places.lines().peekable();
    for edge in edges.lines() {
        let _address = places.next();
        let mut found = None;
        while let Some(file) = places.next_if(|line| !line.starts_with("0x")) {
            found = found.or(room(file));
        }
        if let Some(found) = found {
            let counted = &mut rooms.entry(found).or_default().edges;
            counted.0 += u64::from(edge.ends_with(" 1"));
            counted.1 += 1;
        }
    }
}

fn percent((covered, count): (u64, u64)) -> f64 {
    if count == 0 { 0.0 } else { 100.0 * covered as f64 / count as f64 }
}

fn table(totals: &BTreeMap<String, Total>, rooms: &Rooms) -> String {
    let mut text =
        String::from("| target | runs | executions | hours | of CPU | a second of CPU | edges | inputs | crashes |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    let mut all = Total::default();
    let row = |text: &mut String, name: &str, one: &Total| {
        let speed = if one.cpu > 0.0 { one.executions as f64 / one.cpu } else { 0.0 };
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {:.2} | {:.2} | {speed:.0} | {} | {} | {} |",
            one.runs,
            one.executions,
            one.seconds / 3600.0,
            one.cpu / 3600.0,
            one.edges,
            one.inputs,
            one.crashes
        );
    };
    for (name, one) in totals {
        row(&mut text, name, one);
        all.runs += one.runs;
        all.executions += one.executions;
        all.seconds += one.seconds;
        all.cpu += one.cpu;
        all.edges = all.edges.max(one.edges);
        all.inputs += one.inputs;
        all.crashes += one.crashes;
    }
    row(&mut text, "**all**", &all);
    if rooms.is_empty() {
        return text;
    }
    text.push_str("\n| room | lines reached | of | | regions reached | of | | edges reached | of | |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    let mut sums: Vec<(&str, Reached)> = rooms.iter().map(|(room, reached)| (*room, *reached)).collect();
    let ext4 = rooms.iter().filter(|(room, _)| room.starts_with("worker/src/ext4/"));
    let sum = ext4.fold(Reached::default(), |sum, (_, one)| Reached {
        lines: (sum.lines.0 + one.lines.0, sum.lines.1 + one.lines.1),
        regions: (sum.regions.0 + one.regions.0, sum.regions.1 + one.regions.1),
        edges: (sum.edges.0 + one.edges.0, sum.edges.1 + one.edges.1),
    });
    sums.push(("**ext4 in all**", sum));
    for (room, one) in sums {
        let _ = write!(text, "| {room} |");
        for reached in [one.lines, one.regions, one.edges] {
            let _ = match reached.1 {
                0 => write!(text, " – | – | – |"),
                all => write!(text, " {} | {all} | {:.1} % |", reached.0, percent(reached)),
            };
        }
        text.push('\n');
    }
    text
}

/// One of the pairs of what is reached.
type Of = fn(&Reached) -> (u64, u64);

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Rows of bars: executions of each target, on a scale of powers of ten; lines and edges reached of each room.
fn draw(totals: &BTreeMap<String, Total>, rooms: &Rooms, file: &Path) -> Drawn {
    const ROW: i32 = 22;
    const LEFT: i32 = 230;
    const WIDTH: i32 = 960;
    let rows = (totals.len() + 2 * rooms.len()) as i32;
    let root = SVGBackend::new(file, (WIDTH as u32, (ROW * (rows + 7)) as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let style = ("sans-serif", 14).into_font();
    let mut at = ROW;
    let mut bar = |name: &str, share: f64, label: String, colour: RGBColor| -> Drawn {
        root.draw(&Text::new(name.to_owned(), (10, at), style.clone()))?;
        let length = (f64::from(WIDTH - LEFT - 160) * share.clamp(0.0, 1.0)) as i32;
        root.draw(&Rectangle::new([(LEFT, at), (LEFT + length, at + ROW - 6)], colour.filled()))?;
        root.draw(&Text::new(label, (LEFT + length + 8, at), style.clone()))?;
        at += ROW;
        Ok(())
    };
    bar("executions, by powers of ten", 0.0, String::new(), WHITE)?;
    for (name, one) in totals {
        let share = (one.executions.max(1) as f64).log10() / 11.0;
        let label = format!("{} in {:.2} CPU hours", one.executions, one.cpu / 3600.0);
        bar(name, share, label, RGBColor(31, 119, 180))?;
    }
    let kinds: [(_, Of, _); 2] = [
        ("lines reached by the committed inputs", |one| one.lines, RGBColor(44, 160, 44)),
        ("edges reached by all inputs", |one| one.edges, RGBColor(255, 127, 14)),
    ];
    for (kind, of, colour) in kinds {
        bar("", 0.0, String::new(), WHITE)?;
        bar(kind, 0.0, String::new(), WHITE)?;
        // What was not measured is not nothing.
        let measured = rooms.iter().map(|(room, one)| (room, of(one))).filter(|(_, (_, all))| *all > 0);
        for (room, (reached, all)) in measured {
            let share = percent((reached, all));
            bar(room, share / 100.0, format!("{share:.1} % of {all}"), colour)?;
        }
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_are_added_up_and_files_are_put_into_their_rooms() {
        let run = |executions: u64, edges: u64| json!({"target": "image", "executions": executions, "edges": edges, "cpu": 1800.0, "seconds": 3600.0});
        let totals = totals(&[run(5, 9), run(7, 8)]);
        let file = |name: &str, covered: u64| {
            let part = json!({"count": 10, "covered": covered});
            json!({"filename": format!("/x/worker/src/{name}"), "summary": {"lines": part, "regions": part}})
        };
        let files = [file("ext4/dir.rs", 9), file("ext4/check/mod.rs", 7), file("partition/gpt.rs", 10)];
        let mut rooms = by_coverage(&json!({"data": [{"files": files}]}));
        let places =
            "0x10\n/rustc/core/num.rs:3\n/x/worker/src/ext4/dir.rs:7\n0x20\n/x/worker/src/ext4/map.rs:1\n0x30\n??:0\n";
        add_edges(&mut rooms, "0x10 1\n0x20 0\n0x30 1\n", places);
        let text = table(&totals, &rooms);
        assert!(text.contains("| image | 2 | 12 | 2.00 | 1.00 | 0 | 9 |"), "{text}");
        assert!(
            text.contains("| worker/src/partition/ | 10 | 10 | 100.0 % | 10 | 10 | 100.0 % | – | – | – |"),
            "{text}"
        );
        assert!(text.contains("| **ext4 in all** | 16 | 20 | 80.0 % | 16 | 20 | 80.0 % | 1 | 2 | 50.0 % |"), "{text}");
        let place = tempfile::tempdir().unwrap();
        draw(&totals, &rooms, &place.path().join("one.svg")).unwrap();
        assert!(fs::read_to_string(place.path().join("one.svg")).unwrap().contains("50.0 % of 2"));
    }
}
