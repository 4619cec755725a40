//! Which edges of the worker and of the contract the inputs in some folders reach, of all that the compiler has counted:
//! `edges DIR…` takes folders with a folder for each target, and prints a line for each edge, its address in this program
//! and whether it is reached.
//!
//! What always holds here: it is the counters of libFuzzer that are read, without libFuzzer, which tells of one target
//! only. The compiler's constructors call the two functions below before `main` does anything.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use lazaret_tests::fuzz::corpus;
use lazaret_tests::fuzz::target::targets;
use lazaret_tests::heap::Counted;

#[global_allocator]
static HEAP: Counted = Counted;

/// Where the counters and the table of their places begin and end.
static COUNTERS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static PLACES: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// An address, and whether a function begins there.
type Place = [usize; 2];

unsafe extern "C" {
    /// The linker's: where this program lies in memory.
    static __ehdr_start: u8;
}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    COUNTERS[0].store(start as usize, Ordering::Relaxed);
    COUNTERS[1].store(end as usize, Ordering::Relaxed);
}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_pcs_init(start: *const Place, end: *const Place) {
    PLACES[0].store(start as usize, Ordering::Relaxed);
    PLACES[1].store(end as usize, Ordering::Relaxed);
}

fn between<T>(ends: &[AtomicUsize; 2]) -> (*mut T, usize) {
    let [start, end] = [0, 1].map(|end| ends[end].load(Ordering::Relaxed));
    (std::ptr::with_exposed_provenance_mut(start), (end - start) / size_of::<T>())
}

/// Sees which counters have moved, and sets them back: one that is not would come round to zero.
fn look(reached: &mut [bool]) {
    let (counters, _) = between::<u8>(&COUNTERS);
    for (index, reached) in reached.iter_mut().enumerate() {
        // SAFETY: within the compiler's section of counters, which lives as long as the program; other threads of the
        // targets may count at the same time, so that each byte is looked at as one that changes.
        unsafe {
            let counter = counters.add(index);
            *reached |= counter.read_volatile() != 0;
            counter.write_volatile(0);
        }
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (places, count) = between::<Place>(&PLACES);
    let mut reached = vec![false; between::<u8>(&COUNTERS).1];
    assert!(count > 0 && count == reached.len(), "{count} places of {} counters", reached.len());
    for folder in std::env::args().skip(1) {
        for target in targets() {
            for (_, input) in corpus::folder(&Path::new(&folder).join(target.name))? {
                target.run(&input);
                look(&mut reached);
            }
        }
    }
    // SAFETY: the table is constant data of this program, of so many places.
    let places = unsafe { std::slice::from_raw_parts(places, count) };
    let begin = &raw const __ehdr_start as usize;
    for ([address, _], reached) in places.iter().zip(reached) {
        println!("{:#x} {}", address - begin, u8::from(reached));
    }
    Ok(())
}
