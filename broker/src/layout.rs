//! What lies on a source, and which part of it is the file system: a worker scans the partition table, the broker
//! chooses by what the user asked for.
//!
//! What holds here: the table comes from a process that may lie. Its lengths are checked, what is chosen lies within
//! the source, and what is printed of it is escaped.

use crate::device::Source;
use crate::escape::escaped;
use crate::exit::{Failure, words};
use crate::options::Options;
use crate::signal::Signals;
use crate::text;
use crate::worker::Worker;
use lazaret_policy::feature::Incompat;
use lazaret_policy::message::{Purpose, Range, Refusal};
use lazaret_policy::scan::{
    MOST_FINDINGS, MOST_NAME, MOST_PARTITIONS, Partition, Scan, Scanned, Table, TableKind, Volume,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What lies on a source.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The partition table.
    pub table: Table,
    /// The file system that begins where the source does.
    pub whole: Option<Volume>,
    /// What each partition of the table holds, in its order.
    pub volumes: Vec<Option<Volume>>,
}

/// Limits the source to the partition that is asked for, or to the only one with an ext file system.
pub(crate) fn select(source: &mut Source, options: &Options, signals: &Signals) -> Result<(), Failure> {
    let layout = look(source, options, signals)?;
    let partition = layout.choose(options.part.as_deref())?;
    source.limit(Range { offset: partition.offset, length: partition.length })
}

/// Limits the source to the file system that is meant, and to no byte more than its superblock says it has: for what is to
/// be handed to the kernel. False where none is found: then the source stays as it is.
pub(crate) fn narrow(source: &mut Source, options: &Options, signals: &Signals) -> Result<bool, Failure> {
    let layout = look(source, options, signals)?;
    let (range, volume) = match &layout.whole {
        Some(volume) if options.part.is_none() => (source.whole(), Some(volume)),
        _ => match layout.choose(options.part.as_deref()) {
            Err(_) if options.part.is_none() => return Ok(false),
            chosen => {
                let partition = chosen?;
                (Range { offset: partition.offset, length: partition.length }, layout.volume(partition))
            }
        },
    };
    // Another superblock than the first may say something else.
    let length = volume.filter(|_| options.superblock.is_none()).and_then(Volume::length);
    source.limit(Range { length: length.map_or(range.length, |length| length.min(range.length)), ..range })?;
    Ok(true)
}

/// After a worker has refused the whole source: limits it to the partition that is meant. False if the refusal stands.
pub(crate) fn instead(
    source: &mut Source,
    refusal: Refusal,
    options: &Options,
    signals: &Signals,
) -> Result<bool, Failure> {
    // Copies of a superblock may be those of a file system in a partition.
    let lost = matches!(refusal, Refusal::SuperblockLost { broken: None, .. });
    if options.part.is_some() || !(lost || refusal == Refusal::NotExt) {
        return Ok(false);
    }
    match select(source, options, signals) {
        Err(_) if lost => Ok(false),
        selected => selected.map(|()| true),
    }
}

/// Scans the whole source in a worker of its own.
pub(crate) fn look(source: &Source, options: &Options, signals: &Signals) -> Result<Layout, Failure> {
    let mut worker = Worker::start(Purpose::Scan, options, signals)?;
    worker.initialize(None)?;
    worker.map(source)?;
    let table = match worker.scan(&Scan::Table { sector: source.sector() })? {
        Scanned::Table(table) => check(table)?,
        other => return Err(failed(&other)),
    };
    let whole = volume(&mut worker, 0)?;
    let mut volumes = vec![];
    for partition in &table.partitions {
        volumes.push(if partition.ext { volume(&mut worker, partition.offset)? } else { None });
    }
    Ok(Layout { table, whole, volumes })
}

fn volume(worker: &mut Worker<'_>, offset: u64) -> Result<Option<Volume>, Failure> {
    match worker.scan(&Scan::Volume { offset })? {
        Scanned::Volume(volume) => Ok(volume.map(|volume| *volume)),
        // A bad sector beneath one superblock does not hide the others.
        Scanned::Failed(_) => Ok(None),
        other @ Scanned::Table(_) => Err(failed(&other)),
    }
}

fn failed(answer: &Scanned) -> Failure {
    match answer {
        Scanned::Failed(errno) => Failure::mount(format!(
            "its begin cannot be read: {}",
            words(Errno::from_raw_os_error((*errno).clamp(1, 4095)))
        )),
        _ => Failure::system("the worker answered another question"),
    }
}

fn check(table: Table) -> Result<Table, Failure> {
    let sound = table.partitions.len() <= MOST_PARTITIONS
        && table.findings.len() <= MOST_FINDINGS
        && table.partitions.iter().all(|partition| partition.name.len() <= MOST_NAME);
    if sound { Ok(table) } else { Err(Failure::system("the worker told of what cannot be a partition table")) }
}

impl Layout {
    /// The partition that these words ask for; without words the only one with an ext file system.
    pub(crate) fn choose(&self, wanted: Option<&str>) -> Result<&Partition, Failure> {
        let Some(wanted) = wanted else { return self.only() };
        let number = wanted.parse::<u32>().ok();
        let mut found: Vec<usize> =
            self.indices().filter(|&at| Some(self.table.partitions[at].number) == number).collect();
        if found.is_empty() {
            found = self.indices().filter(|&at| self.is_called(at, wanted)).collect();
        }
        let shown = escaped(wanted);
        match found[..] {
            [] if self.table.kind == TableKind::None => {
                Err(Failure::mount(format!("has no partition table in which '{shown}' could be")))
            }
            [] => Err(Failure::mount(format!("has no partition '{shown}'")).listing(self.lines())),
            [one] if self.volumes[one].is_none() => {
                Err(Failure::mount(format!("its partition '{shown}' holds no ext2, ext3 or ext4 file system")))
            }
            [one] => Ok(&self.table.partitions[one]),
            _ => Err(Failure::mount(format!("several of its partitions are called '{shown}': choose by number"))
                .listing(self.lines())),
        }
    }

    fn only(&self) -> Result<&Partition, Failure> {
        let found: Vec<usize> = self.indices().filter(|&at| self.is_file_system(at)).collect();
        match found[..] {
            [] if self.table.partitions.is_empty() => {
                Err(Failure::mount("is not an ext2, ext3 or ext4 file system, and has no partition table"))
            }
            [] => Err(Failure::mount("is not an ext2, ext3 or ext4 file system, and has none in its partitions")
                .listing(self.lines())),
            [one] => Ok(&self.table.partitions[one]),
            _ => Err(Failure::mount(format!(
                "has {} partitions with an ext file system: choose one by number, label or UUID (-o part=)",
                found.len()
            ))
            .listing(self.lines())),
        }
    }

    /// How many partitions have a file system.
    pub(crate) fn file_systems(&self) -> usize {
        self.indices().filter(|&at| self.is_file_system(at)).count()
    }

    /// What a partition of this table holds.
    pub(crate) fn volume(&self, partition: &Partition) -> Option<&Volume> {
        let at = self.table.partitions.iter().position(|one| one.number == partition.number)?;
        self.volumes.get(at)?.as_ref()
    }

    /// The identifier of the disk, as Linux writes it.
    pub(crate) fn id(&self) -> Option<String> {
        match self.table.kind {
            TableKind::None => None,
            TableKind::Mbr => {
                let [a, b, c, d, ..] = self.table.disk;
                Some(format!("{:08x}", u32::from_le_bytes([a, b, c, d])))
            }
            TableKind::Gpt | TableKind::Hybrid => Some(text::guid(&self.table.disk)),
        }
    }

    fn indices(&self) -> std::ops::Range<usize> {
        0..self.table.partitions.len()
    }

    /// An external journal is no file system.
    fn is_file_system(&self, at: usize) -> bool {
        let journal = |volume: &Volume| Incompat::from_bits_retain(volume.incompat).contains(Incompat::JOURNAL_DEV);
        self.volumes[at].as_ref().is_some_and(|volume| !journal(volume))
    }

    fn is_called(&self, at: usize, wanted: &str) -> bool {
        let partition = &self.table.partitions[at];
        let labels = [Some(&partition.name[..]), self.volumes[at].as_ref().map(|volume| text::label(&volume.label))];
        let ids = [self.table_id(partition), self.volumes[at].as_ref().map(|volume| text::uuid(&volume.uuid))];
        labels.into_iter().flatten().any(|label| !label.is_empty() && label == wanted.as_bytes())
            || ids.iter().flatten().any(|id| id.eq_ignore_ascii_case(wanted))
    }

    /// What Linux calls a partition's PARTUUID.
    pub(crate) fn table_id(&self, partition: &Partition) -> Option<String> {
        match self.table.kind {
            TableKind::None => None,
            TableKind::Mbr => self.id().map(|id| format!("{id}-{:02x}", partition.number)),
            TableKind::Gpt | TableKind::Hybrid => Some(text::guid(&partition.guid)),
        }
    }

    /// A line for each partition, escaped.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.indices().map(|at| self.line(at)).collect()
    }

    fn line(&self, at: usize) -> String {
        let partition = &self.table.partitions[at];
        let mut line = format!(
            "  {:>3}  {:>9} at {:<13} {}",
            partition.number,
            text::size(partition.length),
            partition.offset,
            text::partition_kind(partition.kind)
        );
        if !partition.name.is_empty() {
            line.push_str(&format!(" '{}'", escaped(OsStr::from_bytes(&partition.name))));
        }
        if let Some(volume) = &self.volumes[at] {
            line.push_str(&format!(": {}", text::kind_of_volume(volume)));
            let label = text::label(&volume.label);
            if !label.is_empty() {
                line.push_str(&format!(" '{}'", escaped(OsStr::from_bytes(label))));
            }
            line.push_str(&format!(" {}, {}", text::uuid(&volume.uuid), text::state(volume)));
        }
        if let Some(rule) = partition.finding {
            line.push_str(&format!(" (broken rule: {rule})"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::scan::PartitionKind;

    fn layout(labels: &[Option<&[u8]>]) -> Layout {
        let volume = |(at, label): (usize, &Option<&[u8]>)| {
            let mut volume = Volume { uuid: [at as u8; 16], ..Volume::default() };
            volume.label[..label.as_ref()?.len()].copy_from_slice(label.as_ref()?);
            Some(volume)
        };
        let partition = |number| Partition {
            number,
            kind: PartitionKind::Mbr(0x83),
            guid: [number as u8; 16],
            name: vec![],
            offset: 1 << 20,
            length: 1 << 20,
            finding: None,
            ext: true,
        };
        let partitions = (1..=labels.len() as u32).map(partition).collect();
        let table = Table { kind: TableKind::Mbr, sector: 512, partitions, ..Table::default() };
        Layout { table, whole: None, volumes: labels.iter().enumerate().map(volume).collect() }
    }

    fn chosen(layout: &Layout, wanted: Option<&str>) -> Result<u32, String> {
        layout.choose(wanted).map(|partition| partition.number).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_only_file_system_is_taken_and_several_are_refused() {
        assert_eq!(chosen(&layout(&[None, Some(b"data"), None]), None), Ok(2));
        let several = layout(&[Some(b"a"), Some(b"b")]);
        assert!(chosen(&several, None).unwrap_err().contains("has 2 partitions with an ext file system"));
        assert!(chosen(&layout(&[None]), None).unwrap_err().contains("none in its partitions"));
        assert!(chosen(&layout(&[]), None).unwrap_err().contains("no partition table"));
        let mut journal = layout(&[Some(b"journal"), Some(b"data")]);
        journal.volumes[0].as_mut().unwrap().incompat = Incompat::JOURNAL_DEV.bits();
        assert_eq!(chosen(&journal, None), Ok(2));
    }

    #[test]
    fn a_partition_is_chosen_by_number_label_or_uuid() {
        let layout = layout(&[Some(b"same"), Some(b"same"), Some(b"other"), None, Some(b"3")]);
        assert_eq!(chosen(&layout, Some("3")), Ok(3), "a number comes before a label");
        assert_eq!(chosen(&layout, Some("other")), Ok(3));
        assert_eq!(chosen(&layout, Some("00000000-02")), Ok(2));
        assert_eq!(chosen(&layout, Some("02020202-0202-0202-0202-020202020202")), Ok(3));
        assert!(chosen(&layout, Some("same")).unwrap_err().contains("several"));
        assert!(chosen(&layout, Some("4")).unwrap_err().contains("holds no ext2"));
        for none in ["9", "", "none", "\x1b[2J"] {
            assert!(chosen(&layout, Some(none)).unwrap_err().contains("has no partition"), "{none}");
        }
    }

    #[test]
    fn a_label_in_the_list_moves_no_cursor() {
        let mut layout = layout(&[Some(b"\x1b[2J\n"), Some(b"\xff")]);
        layout.table.partitions[0].name = "\u{202e}".into();
        assert!(layout.lines().iter().all(|line| !line.chars().any(|letter| letter.is_control() || letter > '~')));
    }

    #[test]
    fn a_table_that_is_too_long_is_no_table() {
        let mut table = layout(&[None]).table;
        table.partitions[0].name = vec![b'x'; MOST_NAME + 1];
        assert!(check(table).is_err());
    }
}
