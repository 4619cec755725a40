//! What is measured: one piece of work each, on the root of a mount, that gives its time.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lazaret_tests::{Result, mapped};

use crate::image::{self, EXTENTS, LONG, MANY};

/// What is known before a workload runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A fresh mount; the image lies in the page cache.
    Fresh,
    /// A second time on the same mount.
    Second,
    /// A fresh mount, and nothing in any cache.
    Dropped,
}

impl State {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::Fresh, Self::Second, Self::Dropped];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh mount",
            Self::Second => "second time",
            Self::Dropped => "caches dropped",
        }
    }
}

/// The most that a ratio may be.
#[derive(Clone, Copy)]
pub(crate) struct Bar {
    /// Of Lazaret's time to the kernel's on a fresh mount.
    pub(crate) fresh: Option<f64>,
    /// The same a second time.
    pub(crate) second: Option<f64>,
    /// The least ratio of fuse2fs' time to Lazaret's on a fresh mount.
    pub(crate) fuse2fs: Option<f64>,
}

/// One workload.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Path) -> Result<Duration>,
    pub(crate) bar: Bar,
}

const NO_BAR: Bar = Bar { fresh: None, second: None, fuse2fs: None };
const RANDOM: Bar = Bar { fresh: Some(1.0), fuse2fs: Some(1.0), ..NO_BAR };

pub(crate) static WORKLOADS: &[Workload] = &[
    Workload {
        name: "sequential read of 1 GiB",
        run: |root| sequential(&root.join("long")),
        bar: Bar { fresh: Some(0.5), second: Some(1.35), fuse2fs: Some(2.0) },
    },
    Workload { name: "random 4 KiB reads, 1 thread", run: |root| random(&root.join("long"), 1), bar: RANDOM },
    Workload { name: "random 4 KiB reads, 4 threads", run: |root| random(&root.join("long"), 4), bar: RANDOM },
    Workload {
        name: "find -type f",
        run: |root| shell("find \"$0\" -type f | wc -l", &root.join("tree"), |count| count == 60_000),
        bar: Bar { fresh: Some(1.4), second: Some(1.1), fuse2fs: Some(20.0) },
    },
    Workload {
        name: "find -ls",
        run: |root| shell("find \"$0\" -type f -ls | wc -l", &root.join("tree"), |count| count == 60_000),
        bar: Bar { fresh: Some(1.4), second: Some(1.15), fuse2fs: Some(15.0) },
    },
    Workload {
        name: "tar of 20 000 small files",
        // To /dev/null itself tar would not read a byte.
        run: |root| shell("tar -C \"$0\" -cf - . | wc -c", &root.join("tree/part0"), |bytes| bytes > 20_000 * 1024),
        bar: Bar { fresh: Some(1.0), second: Some(1.2), fuse2fs: Some(2.0) },
    },
    Workload { name: "1 000 lookups in 1 000 000 names", run: |root| lookups(&root.join("many"), MANY), bar: NO_BAR },
    Workload { name: "mapped read of 1 GiB", run: |root| through_mapping(&root.join("long")), bar: NO_BAR },
];

/// Runs a line of shell on a directory. The number that it prints says whether all of it was seen.
fn shell(line: &str, directory: &Path, is_right: fn(u64) -> bool) -> Result<Duration> {
    let begin = Instant::now();
    let output = Command::new("sh").args(["-c", line]).arg(directory).stderr(Stdio::inherit()).output()?;
    let time = begin.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.trim().parse().is_ok_and(is_right) {
        return Err(format!("{line}: {}, and it printed {}", output.status, said.trim()).into());
    }
    Ok(time)
}

pub(crate) fn sequential(path: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let (mut file, mut buffer, mut total) = (File::open(path)?, vec![0; 128 << 10], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    if total != LONG {
        return Err(format!("{total} bytes were read of {LONG}").into());
    }
    Ok(begin.elapsed())
}

/// 32 768 blocks of the long file in an order without order, each once, by so many threads.
fn random(path: &Path, threads: u64) -> Result<Duration> {
    const READS: u64 = 32_768;
    let blocks = LONG / 4096;
    let part = move |first: u64| {
        (0..READS / threads).map(move |number| (first + number * threads).wrapping_mul(2_654_435_761) % blocks * 4096)
    };
    let begin = Instant::now();
    let file = File::open(path)?;
    std::thread::scope(|scope| {
        let file = &file;
        let all: Vec<_> = (0..threads).map(|first| scope.spawn(move || read_blocks(file, part(first)))).collect();
        all.into_iter().try_for_each(|thread| thread.join().expect("no reader panics"))
    })?;
    Ok(begin.elapsed())
}

/// Blocks of data of the fragmented file, or as many of the long one, in the same order without order.
pub(crate) fn scattered(path: &Path, stride: u64) -> Result<Duration> {
    const READS: u64 = 20_000;
    let begin = Instant::now();
    let file = File::open(path)?;
    read_blocks(&file, (0..READS).map(|number| number.wrapping_mul(2_654_435_761) % EXTENTS * stride))?;
    Ok(begin.elapsed())
}

fn read_blocks(file: &File, offsets: impl Iterator<Item = u64>) -> Result {
    let mut block = [0; 4096];
    for offset in offsets {
        file.read_exact_at(&mut block, offset)?;
    }
    Ok(())
}

/// A thousand names of a directory of so many, in an order without order.
pub(crate) fn lookups(directory: &Path, entries: u64) -> Result<Duration> {
    let begin = Instant::now();
    for number in 0..1000_u64 {
        fs::symlink_metadata(directory.join(image::name(number.wrapping_mul(2_654_435_761) % entries)))?;
    }
    Ok(begin.elapsed())
}

fn through_mapping(path: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let pages = mapped::touch(path)?;
    if pages != LONG / 4096 {
        return Err(format!("{pages} pages were mapped").into());
    }
    Ok(begin.elapsed())
}
