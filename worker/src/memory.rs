//! The worker's memory: a heap of fixed size, because a confined worker may not ask the kernel for more.
//!
//! What holds here: once [`seal`] was called no system call for memory is made any more, and an allocation that does
//! not fit returns null: who can answer ENOMEM does, and for who cannot the worker ends with a code of its own
//! ([`fixed_memory`](crate::fixed_memory)). The heap is claimed before the first byte of the image and cannot grow, so
//! what an image can make a worker use is bounded by `memory=`.
//!
//! The receive buffers of the FUSE session stand apart. fuser allocates one of 16 MiB, zeroed, in each thread just
//! before the thread's first read, and frees it when the session is over; nothing else in the worker is that large.
//! They get pages of their own, which stay untouched but for the first few, and they are the only sign that fuser
//! gives of a thread being ready ([`wait_for_receivers`]) or about to end.
#![expect(unsafe_code, reason = "a global allocator, and ending without what libc and std would do on the way")]

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use spinning_top::RawSpinlock;
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use talc::TalcLock;
use talc::source::Claim;

/// Enough for the start, before the broker said how much the worker may have. Bytes.
const FIRST_HEAP: usize = 1 << 20;
/// From here on an allocation is a receive buffer. Bytes.
const RECEIVE_BUFFER: usize = 16 << 20;

/// Makes this heap the memory of a program; a worker's `main.rs` says it once.
///
/// The second item takes the place of libc's `write`, which nothing in a worker calls but std, to say on stderr that an
/// allocation has failed and that the process is to be aborted. The words and the abort are calls that the filter kills
/// for, and there is no other place where std can be met on that way.
#[macro_export]
macro_rules! fixed_memory {
    () => {
        #[global_allocator]
        static MEMORY: $crate::memory::Heap = $crate::memory::Heap;

        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn write(fd: i32, bytes: *const u8, length: usize) -> isize {
            // SAFETY: the caller's promises are those of write(2).
            unsafe { $crate::memory::write(fd, bytes, length) }
        }
    };
}

/// What stands in the place of write(2): the end, whatever was to be written.
///
/// # Safety
/// As for write(2).
#[cfg(not(feature = "fuzz"))]
pub unsafe fn write(_fd: i32, _bytes: *const u8, _length: usize) -> isize {
    end(USED_UP)
}

/// The same where a worker is fuzzed: a fork server, which stands before `main`, tells its fuzzer of each child by it. Once
/// the memory is sealed, and so before the first byte of an image, it is the end as ever.
///
/// # Safety
/// As for write(2): `bytes` points to `length` bytes, and the fd is open.
#[cfg(feature = "fuzz")]
pub unsafe fn write(fd: i32, bytes: *const u8, length: usize) -> isize {
    if MEMORY.sealed.load(Ordering::Acquire) {
        end(USED_UP);
    }
    // SAFETY: the caller promises both.
    let (fd, bytes) = unsafe { (std::os::fd::BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts(bytes, length)) };
    rustix::io::write(fd, bytes).map_or(-1, |written| isize::try_from(written).unwrap_or(isize::MAX))
}

/// How a worker ends when its heap is used up where no error can be answered.
pub use lazaret_policy::exit::MEMORY as USED_UP;

/// The heap as a global allocator: [`fixed_memory`](crate::fixed_memory).
#[derive(Debug)]
pub struct Heap;

struct Memory {
    heap: TalcLock<RawSpinlock, Claim>,
    receivers: AtomicUsize,
    sealed: AtomicBool,
    farewell: OnceLock<fn()>,
}

static MEMORY: Memory = Memory {
    heap: TalcLock::new({
        static mut HEAP: [u8; FIRST_HEAP] = [0; FIRST_HEAP];
        // SAFETY: nothing else names this array.
        unsafe { Claim::array(&raw mut HEAP) }
    }),
    receivers: AtomicUsize::new(0),
    sealed: AtomicBool::new(false),
    farewell: OnceLock::new(),
};

/// Adds `bytes` to the heap, once and for all. False where the host has not that much address space. Call it before there
/// are threads.
pub fn grant(bytes: usize) -> bool {
    // What libc allocates for itself when a thread starts comes from its own heap, of which each thread would get one; for
    // the ninth it counts the processors, by opening a file.
    // SAFETY: numbers only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
    // SAFETY: a null address and an anonymous private mapping touch nothing that exists; the mapping is never given
    // back, and nobody but the heap knows where it is.
    unsafe {
        mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
            .is_ok_and(|base| MEMORY.heap.lock().claim(base.cast(), bytes).is_some())
    }
}

/// Waits until `count` threads have their receive buffer: from there to its first read a thread makes no system call.
/// False if they were not there in time.
pub fn wait_for_receivers(count: usize, time: Duration) -> bool {
    let start = Instant::now();
    while MEMORY.receivers.load(Ordering::Acquire) < count {
        if start.elapsed() > time {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// What a thread does that finds the file system unmounted, before the process ends. The first that is given holds.
pub fn before_the_end(farewell: fn()) {
    let _ = MEMORY.farewell.set(farewell);
}

/// From now on memory is what it is, and the end of a receive buffer is the end of the worker.
pub fn seal() {
    MEMORY.sealed.store(true, Ordering::Release);
}

/// Ends the process at once: the exit handlers of Rust and libc would make calls that the filter kills for.
pub fn end(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return; other threads end with it.
    unsafe { libc::_exit(code) }
}

impl Memory {
    fn take_receiver(&self, layout: Layout) -> *mut u8 {
        if self.sealed.load(Ordering::Acquire) {
            return null_mut();
        }
        // SAFETY: as in `grant`; a new mapping is zeroed and aligned to a page.
        let base =
            unsafe { mmap_anonymous(null_mut(), layout.size(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let Ok(base) = base else { return null_mut() };
        self.receivers.fetch_add(1, Ordering::Release);
        base.cast()
    }

    /// A thread gives its buffer back after FUSE_INIT, and when /dev/fuse says that the file system is unmounted. In
    /// the second case the thread would now end, with calls that the filter does not allow.
    fn drop_receiver(&self, base: *mut u8, layout: Layout) {
        if self.sealed.load(Ordering::Acquire) {
            if let Some(farewell) = self.farewell.get() {
                farewell();
            }
            end(lazaret_policy::exit::DONE);
        }
        self.receivers.fetch_sub(1, Ordering::Release);
        // SAFETY: `base` came from `take_receiver` with this layout, and its owner gives it up.
        let unmapped = unsafe { munmap(base.cast(), layout.size()) };
        debug_assert!(unmapped.is_ok());
    }
}

fn is_receiver(layout: Layout) -> bool {
    layout.size() >= RECEIVE_BUFFER
}

// SAFETY: small layouts go to the heap, large ones to mappings of their own, and which of the two only depends on the
// layout, so that what is freed goes back where it came from. A layout over the limit is never resized in place.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_receiver(layout) {
            return MEMORY.take_receiver(layout);
        }
        // SAFETY: the caller's promises are handed on.
        unsafe { MEMORY.heap.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_receiver(layout) {
            return MEMORY.take_receiver(layout);
        }
        // SAFETY: the caller's promises are handed on.
        unsafe { MEMORY.heap.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, base: *mut u8, layout: Layout) {
        if is_receiver(layout) {
            return MEMORY.drop_receiver(base, layout);
        }
        // SAFETY: the caller's promises are handed on.
        unsafe { MEMORY.heap.dealloc(base, layout) }
    }

    unsafe fn realloc(&self, base: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_receiver(layout) || size >= RECEIVE_BUFFER {
            return null_mut();
        }
        // SAFETY: the caller's promises are handed on.
        unsafe { MEMORY.heap.realloc(base, layout, size) }
    }
}
