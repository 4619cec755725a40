//! What `info` found, as lines for a person and as an object for a program.
//!
//! What holds here: names and labels are bytes of an image. In the lines they are escaped always: these are for reading.

use super::info::Verdict;
use super::output::put_bytes;
use crate::escape::escaped;
use crate::layout::Layout;
use crate::{meaning, text, warning};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use lazaret_policy::message::Replayed;
use lazaret_policy::scan::{Partition, RecordedError, TableKind, Volume};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where values begin.
const WIDTH: usize = 16;

/// What was found.
pub(super) struct Description<'a> {
    /// The source as it was given.
    pub(super) path: &'a Path,
    /// Its length in bytes.
    pub(super) length: u64,
    /// What lies on it.
    pub(super) layout: &'a Layout,
    /// The partition that is told about.
    pub(super) partition: Option<&'a Partition>,
    /// The file system that is told about.
    pub(super) volume: Option<&'a Volume>,
    /// Whether it can be read.
    pub(super) verdict: &'a Verdict,
    /// Of one that can be read, whether this host offers iomap, and why not.
    pub(super) iomap: Option<&'a Result<(), String>>,
}

/// Lines for a person; the verdict is the last.
pub(super) fn text(found: &Description<'_>) -> String {
    let mut lines = Lines::default();
    lines.put("source", format_args!("{}, {}", escaped(found.path), sized(found.length)));
    let table = &found.layout.table;
    if table.kind != TableKind::None {
        let id = found.layout.id().map(|id| format!(", {id}")).unwrap_or_default();
        let backup = if table.backup { ", read from its copy at the end" } else { "" };
        let kind = text::table_kind(table.kind);
        lines.put("partition table", format_args!("{kind}, sectors of {} bytes{id}{backup}", table.sector));
        table.findings.iter().for_each(|finding| lines.put("", format_args!("broken rule: {finding}")));
        found.layout.lines().iter().for_each(|line| lines.line(line));
    }
    if let Some(volume) = found.volume {
        let place = found.partition.map(|partition| format!(" in partition {}", partition.number)).unwrap_or_default();
        lines.put("file system", format_args!("{}{place}", text::kind_of_volume(volume)));
        describe(&mut lines, volume, found.verdict);
    }
    if let Some(iomap) = found.iomap {
        lines.put("iomap", iomap.as_ref().map_or_else(|why| format!("falls back: {why}"), |()| "offered".to_owned()));
    }
    warnings(found.verdict).iter().for_each(|line| lines.put("warning", line));
    lines.put("verdict", verdict(found));
    lines.0
}

fn describe(lines: &mut Lines, volume: &Volume, verdict: &Verdict) {
    lines.put("label", format_args!("{}", shown(text::label(&volume.label))));
    lines.put("UUID", text::uuid(&volume.uuid));
    match volume.block_size() {
        Some(size) => {
            let all = volume.blocks.saturating_mul(size);
            lines.put("size", format_args!("{}: {} blocks of {size} bytes", text::size(all), volume.blocks));
            let used = volume.blocks.saturating_sub(volume.free_blocks).saturating_mul(size);
            let (percent, kept) = (percent(used, all), text::size(volume.reserved_blocks.saturating_mul(size)));
            lines.put("used", format_args!("{}, {percent} %; {kept} are kept for root", text::size(used)));
        }
        None => lines.put("size", format_args!("{} blocks of an impossible size", volume.blocks)),
    }
    let used = volume.inodes.saturating_sub(volume.free_inodes);
    lines.put("inodes", format_args!("{}, {used} of them used", volume.inodes));
    lines.put("state", text::state(volume));
    if !volume.checksum_matches {
        lines.put("", "the superblock does not match its checksum");
    }
    lines.put("made", moment(volume.made));
    let place =
        if volume.last_mounted.is_empty() { String::new() } else { format!(" on {}", shown(&volume.last_mounted)) };
    lines.put("last mounted", format_args!("{}{place}", moment(volume.mounted)));
    lines.put("last written", moment(volume.written));
    lines.put("last checked", format_args!("{}; {} mounts since", moment(volume.checked), volume.mounts));
    errors(lines, volume);
    lines.put("journal", journal(volume, verdict));
    for (at, name) in features(volume).iter().enumerate() {
        let meaning = meaning::of_feature(name).unwrap_or("not known to this version");
        lines.put(if at == 0 { "features" } else { "" }, format_args!("{name:<18} {meaning}"));
    }
}

fn errors(lines: &mut Lines, volume: &Volume) {
    if volume.errors == 0 {
        return lines.put("errors recorded", "none");
    }
    lines.put("errors recorded", volume.errors);
    for (word, error) in [("first", &volume.first_error), ("last", &volume.last_error)] {
        let RecordedError { time, function, line, inode, block } = error;
        let function = shown(function);
        let when = moment(*time);
        lines.put("", format_args!("{word} {when} in {function}, line {line}: inode {inode}, block {block}"));
    }
}

fn journal(volume: &Volume, verdict: &Verdict) -> String {
    let dirty = Incompat::from_bits_retain(volume.incompat).contains(Incompat::RECOVER);
    match (journal_kind(volume), verdict) {
        ("none", _) => "none".to_owned(),
        ("external", _) => format!("on another device, {}", text::uuid(&volume.journal_uuid)),
        (_, Verdict::Readable(summary)) if dirty => {
            let contents = warning::contents(&summary.journal);
            contents.map_or("not replayed, and holds nothing".to_owned(), |contents| {
                format!("not replayed: {contents} are read from it")
            })
        }
        _ if dirty => "not replayed".to_owned(),
        _ => format!("inode {}, nothing in it is needed", volume.journal_inode),
    }
}

/// What a mount would say of it.
fn warnings(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Readable(summary) => warning::lines(summary),
        Verdict::Unreadable(_) | Verdict::Several(_) => vec![],
    }
}

fn verdict(found: &Description<'_>) -> String {
    match (found.verdict, found.volume) {
        (Verdict::Several(count), _) => {
            format!("has {count} partitions with an ext file system: choose one with --part to see more")
        }
        (Verdict::Unreadable(reason), Some(_)) => format!("cannot be read: it {reason}"),
        (Verdict::Unreadable(reason), None) if found.layout.table.partitions.is_empty() => reason.clone(),
        (Verdict::Unreadable(_), None) => "has no ext2, ext3 or ext4 file system in its partitions".to_owned(),
        (Verdict::Readable(_), Some(volume)) if volume.errors > 0 || text::state(volume) == "with errors" => {
            "can be read, but the kernel has met errors in it: see lazaret check".to_owned()
        }
        (Verdict::Readable(summary), _) if summary.journal != Replayed::default() => {
            "can be read, with what its journal holds; nothing is written".to_owned()
        }
        (Verdict::Readable(_), _) => "can be read".to_owned(),
    }
}

/// The same for a program.
pub(super) fn object(found: &Description<'_>) -> Value {
    let readable = match found.verdict {
        Verdict::Readable(_) => json!(true),
        Verdict::Unreadable(_) => json!(false),
        Verdict::Several(_) => Value::Null,
    };
    let mut object = json!({
        "schema": "lazaret.info/1",
        "length": found.length,
        "table": table(found.layout),
        "partition": found.partition.map(|partition| partition.number),
        "filesystem": found.volume.map(|volume| volume_object(volume, found.verdict)),
        "warnings": warnings(found.verdict),
        "iomap": found.iomap.map(|iomap| json!({ "offered": iomap.is_ok(), "reason": iomap.as_ref().err() })),
        "readable": readable,
        "verdict": verdict(found),
    });
    put_bytes(&mut object, "source", found.path.as_os_str().as_bytes());
    object
}

fn table(layout: &Layout) -> Value {
    let table = &layout.table;
    let kind = match table.kind {
        TableKind::None => return Value::Null,
        TableKind::Mbr => "mbr",
        TableKind::Gpt => "gpt",
        TableKind::Hybrid => "hybrid",
    };
    let partitions = table.partitions.iter().map(|partition| {
        let brief = layout.volume(partition).map(|volume| {
            let mut brief = json!({
                "kind": text::kind_of_volume(volume), "uuid": text::uuid(&volume.uuid), "state": text::state(volume),
            });
            put_bytes(&mut brief, "label", text::label(&volume.label));
            brief
        });
        let mut object = json!({
            "number": partition.number,
            "type": text::partition_kind(partition.kind),
            "id": layout.table_id(partition),
            "offset": partition.offset,
            "length": partition.length,
            "finding": partition.finding.map(|rule| rule.to_string()),
            "filesystem": brief,
        });
        put_bytes(&mut object, "name", &partition.name);
        object
    });
    json!({
        "kind": kind,
        "sector": table.sector,
        "id": layout.id(),
        "backup": table.backup,
        "findings": table.findings.iter().map(|finding| finding.to_string()).collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn volume_object(volume: &Volume, verdict: &Verdict) -> Value {
    let seconds = |time: i64| if time == 0 { Value::Null } else { json!(time) };
    let error = |error: &RecordedError| {
        let RecordedError { time, line, inode, block, .. } = error;
        let mut object = json!({ "time": seconds(*time), "line": line, "inode": inode, "block": block });
        put_bytes(&mut object, "function", &error.function);
        if volume.errors == 0 { Value::Null } else { object }
    };
    let replayed = match verdict {
        Verdict::Readable(summary) => summary.journal,
        _ => Replayed::default(),
    };
    let kind = journal_kind(volume);
    let mut journal = warning::replayed_object(&replayed);
    journal["kind"] = json!(kind);
    journal["uuid"] = json!((kind == "external").then(|| text::uuid(&volume.journal_uuid)));
    let features =
        features(volume).into_iter().map(|name| json!({ "meaning": meaning::of_feature(&name), "name": name }));
    let mut object = json!({
        "kind": text::kind_of_volume(volume),
        "uuid": text::uuid(&volume.uuid),
        "block_size": volume.block_size(),
        "blocks": volume.blocks,
        "free_blocks": volume.free_blocks,
        "reserved_blocks": volume.reserved_blocks,
        "inodes": volume.inodes,
        "free_inodes": volume.free_inodes,
        "inode_size": volume.inode_size,
        "state": text::state(volume),
        "checksum_matches": volume.checksum_matches,
        "made": seconds(volume.made),
        "mounted": seconds(volume.mounted),
        "written": seconds(volume.written),
        "checked": seconds(volume.checked),
        "mounts": volume.mounts,
        "most_mounts": volume.most_mounts,
        "features": features.collect::<Vec<_>>(),
        "journal": journal,
        "errors": {
            "count": volume.errors, "first": error(&volume.first_error), "last": error(&volume.last_error),
        },
    });
    put_bytes(&mut object, "label", text::label(&volume.label));
    put_bytes(&mut object, "mounted_on", &volume.last_mounted);
    object
}

fn journal_kind(volume: &Volume) -> &'static str {
    match () {
        () if !Compat::from_bits_retain(volume.compat).contains(Compat::HAS_JOURNAL) => "none",
        () if volume.journal_inode == 0 => "external",
        () => "internal",
    }
}

fn features(volume: &Volume) -> Vec<String> {
    let compat = Compat::from_bits_retain(volume.compat).names();
    let incompat = Incompat::from_bits_retain(volume.incompat).names();
    [compat, incompat, RoCompat::from_bits_retain(volume.ro_compat).names()].concat()
}

fn percent(part: u64, whole: u64) -> u128 {
    (u128::from(part) * 100).checked_div(whole.into()).unwrap_or(0)
}

fn sized(bytes: u64) -> String {
    if bytes < 1024 { text::size(bytes) } else { format!("{} ({bytes} bytes)", text::size(bytes)) }
}

fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() { "none".to_owned() } else { escaped(OsStr::from_bytes(bytes)).to_string() }
}

/// A time in the caller's zone.
fn moment(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        _ if seconds == 0 => "never".to_owned(),
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z").to_string(),
        Err(_) => format!("{seconds} seconds after 1970"),
    }
}

/// Lines with a name and a value each.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, name: &str, value: impl Display) {
        self.line(format_args!("{name:<WIDTH$} {value}"));
    }

    fn line(&mut self, line: impl Display) {
        self.0.push_str(&format!("{line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::message::Summary;
    use lazaret_policy::scan::Table;

    fn told(volume: &Volume, verdict: &Verdict) -> (String, Value) {
        let layout = Layout { table: Table::default(), whole: Some(volume.clone()), volumes: vec![] };
        let found = Description {
            path: Path::new("a\x1bb"),
            length: 1 << 20,
            layout: &layout,
            partition: None,
            volume: Some(volume),
            verdict,
            iomap: Some(&Err("this kernel does not have it".to_owned())),
        };
        (text(&found), object(&found))
    }

    #[test]
    fn a_hostile_label_is_shown_harmless() {
        let mut volume = Volume { errors: 2, log_block_size: u32::MAX, blocks: u64::MAX, ..Volume::default() };
        volume.label[..8].copy_from_slice(b"\x1b]0;x\x07\xff\n");
        volume.last_mounted = b"/mnt/\x1b[2J".to_vec();
        volume.first_error.function = b"\x9b\r".to_vec();
        volume.last_error.time = i64::MAX;
        let (text, object) = told(&volume, &Verdict::Unreadable("is damaged".into()));
        assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
        assert!(text.ends_with("verdict          cannot be read: it is damaged\n"));
        assert_eq!(object["filesystem"]["label_bytes"], "1b5d303b7807ff0a");
        assert_eq!((&object["readable"], &object["schema"]), (&json!(false), &json!("lazaret.info/1")));
    }

    #[test]
    fn every_number_is_told_without_a_panic() {
        let volume = Volume { blocks: u64::MAX, log_block_size: 6, reserved_blocks: u64::MAX, ..Volume::default() };
        let (text, object) = told(&volume, &Verdict::Readable(Summary::default()));
        assert!(text.contains("15.9 EiB"), "{text}");
        assert_eq!(object["filesystem"]["made"], Value::Null);
    }
}
