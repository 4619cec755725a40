//! A heap that counts for each thread what it holds, so that a test can say what a call took at the most; for a call that
//! works in threads of its own, what all of them do.
#![expect(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// What all threads hold, as long as somebody asks for it.
static ALL: AtomicBool = AtomicBool::new(false);
static ALL_HELD: AtomicIsize = AtomicIsize::new(0);
static ALL_MOST: AtomicIsize = AtomicIsize::new(0);

/// The system's heap, counted.
pub struct Counted;

/// Runs something, and says how many bytes it held beyond what was held before, at the most.
pub fn most_held<R>(run: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.get();
    MOST.set(before);
    let result = run();
    (result, usize::try_from(MOST.get() - before).unwrap_or(0))
}

/// The same of all threads together, of which no other may ask it meanwhile.
pub fn most_held_by_all<R>(run: impl FnOnce() -> R) -> (R, usize) {
    ALL_HELD.store(0, Relaxed);
    ALL_MOST.store(0, Relaxed);
    ALL.store(true, Relaxed);
    let result = run();
    ALL.store(false, Relaxed);
    (result, usize::try_from(ALL_MOST.load(Relaxed)).unwrap_or(0))
}

fn count(change: isize) {
    if ALL.load(Relaxed) {
        ALL_MOST.fetch_max(ALL_HELD.fetch_add(change, Relaxed) + change, Relaxed);
    }
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: the system's allocator does all the work; counting touches cells of this thread and atomics, and allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
