//! All targets by name: what runs an input, what makes another of it, and what the first ones are.

use std::time::{Duration, Instant};

use lazaret_policy::scan::Table;
use lazaret_worker::device::Device;
use lazaret_worker::ext4::volume::volume;
use lazaret_worker::partition;
use rustix::time::ClockId;

use super::image::{self, Change, Recipe};
use super::scratch::Scratch;
use super::stock::stock;
use super::tour::{self, Wishes};
use super::window::{WINDOWS, settings};
use super::{changing, disk, mappings, messages, mutator, requests};
use crate::heap::{most_held, most_held_by_all};
use crate::mutate::random::Random;

/// CPU time that one input may take, with a fuzzer's counters in the code: that of many requests. Where lines are counted it
/// is no measure: a loop over bytes takes twenty times as long.
const LONGEST: Duration = Duration::from_secs(if cfg!(counted) { 120 } else { 4 });
/// Bytes that one input may take besides the image: as much as `tests/tests/mutations.rs` allows.
const MOST: usize = 64 << 20;

/// The bits of an input's flags that make it dear; with all of them everything is asked twice.
const TWICE: u8 = 0xf0;

/// A target.
pub struct Target {
    /// Its name, and that of its program.
    pub name: &'static str,
    run: fn(&[u8]),
    mutate: fn(&[u8], usize, &mut Random) -> Vec<u8>,
    seeds: fn() -> Vec<Vec<u8>>,
    /// Which byte of an input says how it is read.
    flags: Option<usize>,
    /// The work is done in other threads: such a target runs alone in its process.
    pub threads: bool,
}

/// Each a static of its own, so that a program has the code, and the counters, of its target alone.
macro_rules! targets {
    ($($name:ident = $target:expr),* $(,)?) => {
        $(#[doc = "A target."] pub static $name: Target = $target;)*
        static ALL: [&Target; [$(stringify!($name)),*].len()] = [$(&$name),*];
        #[cfg(test)]
        const NAMES: [&str; ALL.len()] = [$(stringify!($name)),*];
    };
}

targets! {
    SUPERBLOCK = Target::window::<0>(),
    GROUP = Target::window::<1>(),
    INODE = Target::window::<2>(),
    EXTENT = Target::window::<3>(),
    INDIRECT = Target::window::<4>(),
    DIRECTORY = Target::window::<5>(),
    HTREE = Target::window::<6>(),
    XATTR_BLOCK = Target::window::<7>(),
    XATTR_BODY = Target::window::<8>(),
    INLINE = Target::window::<9>(),
    JOURNAL_SUPERBLOCK = Target::window::<10>(),
    JOURNAL_LOG = Target::window::<11>(),
    FAST_COMMIT = Target::window::<12>(),
    CASEFOLD = Target::window::<13>(),
    MBR = Target::plain("mbr", disk::run_mbr, disk::mutate_mbr, disk::mbr_seeds),
    GPT = Target::plain("gpt", disk::run_gpt, disk::mutate_gpt, disk::gpt_seeds),
    IMAGE = Target { flags: Some(1), ..Target::plain("image", whole, mutator::recipe, recipes) },
    CHECK = Target { flags: Some(1), ..Target::plain("check", checked, mutator::recipe, recipes) },
    CHANGING = Target { flags: Some(1), ..Target::plain("changing", changing::run, changing::mutate, recipes) },
    REQUESTS = Target {
        flags: Some(1),
        threads: true,
        ..Target::plain("requests", requests::requests, requests::mutate, requests::seeds)
    },
    MAPPINGS = Target { flags: Some(1), ..Target::plain("mappings", mappings::run, mappings::mutate, mappings::seeds) },
    ORDERS = Target::plain("orders", messages::orders, bytes, messages::order_seeds),
    REPORTS = Target::plain("reports", messages::reports, bytes, messages::report_seeds),
    QUESTIONS = Target {
        flags: Some(1),
        threads: true,
        ..Target::plain("questions", messages::questions, messages::mutate_questions, messages::question_seeds)
    },
}

/// All of them.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    ALL.into_iter()
}

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    targets().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}

impl Target {
    /// One that is none of the real ones, to show what [`Target::run`] sees.
    pub fn for_tests(name: &'static str, threads: bool, run: fn(&[u8])) -> Self {
        Self { threads, ..Self::plain(name, run, bytes, Vec::new) }
    }

    const fn plain(
        name: &'static str,
        run: fn(&[u8]),
        mutate: fn(&[u8], usize, &mut Random) -> Vec<u8>,
        seeds: fn() -> Vec<Vec<u8>>,
    ) -> Self {
        Self { name, run, mutate, seeds, flags: None, threads: false }
    }

    /// That of one structure, by its number in [`WINDOWS`].
    const fn window<const INDEX: usize>() -> Self {
        Self {
            name: WINDOWS[INDEX].name,
            run: |input| WINDOWS[INDEX].run(input),
            mutate: |input, most, random| mutator::window(&WINDOWS[INDEX], input, most, random),
            seeds: || WINDOWS[INDEX].seeds(),
            flags: Some(0),
            threads: false,
        }
    }

    /// Runs an input.
    ///
    /// # Panics
    /// If the worker does what it must never do, or takes more than it may.
    pub fn run(&self, input: &[u8]) {
        let begin = Instant::now();
        let held =
            if self.threads { most_held_by_all(|| (self.run)(input)).1 } else { most_held(|| (self.run)(input)).1 };
        assert!(held < MOST, "{} KiB of memory", held >> 10);
        // The clock on the wall is the one that costs nothing. What was long by it has waited, or is long again.
        if begin.elapsed() >= LONGEST {
            let clock = if self.threads { ClockId::ProcessCPUTime } else { ClockId::ThreadCPUTime };
            let begin = now(clock);
            (self.run)(input);
            let took = now(clock) - begin;
            assert!(took < LONGEST, "{took:?} of CPU time");
        }
    }

    /// Makes another input of one, of at most so many bytes.
    pub fn mutate(&self, input: &[u8], most: usize, seed: u64) -> Vec<u8> {
        (self.mutate)(input, most, &mut Random::new(seed))
    }

    /// After another mutator than ours: how much work an input has done is for ours to say, anew for each, and what is dear
    /// is found to be new more often than it is.
    pub fn spare(&self, input: &mut [u8]) {
        if image::is_image(input) {
            return;
        }
        if let Some(flags) = self.flags.and_then(|at| input.get_mut(at)) {
            *flags &= !TWICE;
        }
    }

    /// The first inputs.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.seeds)()
    }
}

fn whole(input: &[u8]) {
    on_image(input, |device, recipe| {
        // Now and then everything twice: which inputs these are, the input says.
        let twice = recipe.flags & TWICE == TWICE;
        let focus = recipe.changed();
        let wishes = Wishes { steady: true, twice, focus: focus.as_deref(), ..Wishes::default() };
        tour::tour(device, settings(recipe.flags), wishes);
    });
}

fn checked(input: &[u8]) {
    on_image(input, |device, recipe| {
        // What a Merkle tree says of a file's content is no matter of the file system, and not checked.
        let settings = settings(recipe.flags & !image::VERIFIED);
        let focus = recipe.changed();
        let wishes = Wishes { steady: true, check: true, focus: focus.as_deref(), ..Wishes::default() };
        tour::tour(device, settings, wishes);
    });
}

/// Changes an image as an input says, or takes the input for the image.
fn on_image(input: &[u8], run: impl FnOnce(&dyn Fn() -> Device, &Recipe)) {
    if image::is_image(input) {
        let recipe = Recipe { image: 0, flags: TWICE, changes: Vec::new() };
        return run(&|| Device::from_bytes(input.to_vec()), &recipe);
    }
    let recipe = Recipe::decode(input);
    Scratch::of(recipe.sound()).with(|changes| recipe.apply(changes), |scratch| run(&|| scratch.device(), &recipe));
}

/// Each image as it is, read in each way.
fn recipes() -> Vec<Vec<u8>> {
    let images = 0..stock().len() as u8;
    let both =
        images.flat_map(|image| [image::SEALED, image::VERIFIED, image::SEALED | TWICE].map(|flags| (image, flags)));
    both.map(|(image, flags)| Recipe { image, flags, changes: Vec::<Change>::new() }.encode()).collect()
}

/// A byte of what has no structure that is known here.
pub(super) fn bytes(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        match random.below(6) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = *random.pick(&[0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.insert(at, random.below(256) as u8),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes.truncate(most);
    bytes
}

/// CPU time.
fn now(clock: ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The partitions of a disk, as a worker that scans tells them.
pub(crate) fn partitions(device: &Device) -> Option<Table> {
    partition::table(device, None, &|at| volume(device, at).is_ok_and(|found| found.is_some())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_and_its_target_have_one_name() {
        assert_eq!(NAMES.map(str::to_ascii_lowercase), ALL.map(|target| target.name.to_owned()));
    }
}
