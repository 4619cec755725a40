//! The device in memory: one shared, read-only mapping, and the only place that touches it.
//!
//! What always holds here: no Rust code reads a mapped byte. The bytes may change at any moment and a page may be gone
//! (bad sector, unplugged disk, image cut short), so they are copied out by one routine in assembly, and the signal
//! that a missing page raises inside it ends the copy instead of the process. A page that is missing for anybody
//! else ends the worker with [`EXIT_SIGBUS`]. On the way of a read this is the last stop before the medium.
#![expect(
    unsafe_code,
    reason = "the mapping is touched in assembly, and a handler of SIGBUS repairs what faults there"
)]

use std::mem::{self, ManuallyDrop};
use std::{io, ops::Range, os::fd::OwnedFd, ptr, slice, sync::OnceLock};

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;

pub use lazaret_policy::exit::BUS as EXIT_SIGBUS;

/// A mapped range of a device. It stays mapped until the process ends: after the last filter nobody may unmap.
#[derive(Debug)]
pub(super) struct Mapping {
    memory: ManuallyDrop<MmapRaw>,
}

impl Mapping {
    /// Maps `length` bytes from `offset` and closes the fd. Asks the device nothing: where it is shorter, reading fails.
    pub(super) fn new(fd: OwnedFd, offset: u64, length: usize) -> Result<Self, Errno> {
        install_handlers()?;
        let memory = MmapOptions::new().offset(offset).len(length).map_raw_read_only(&fd);
        let memory = memory.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
        Ok(Self { memory: ManuallyDrop::new(memory) })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// Copies `out.len()` bytes from `offset` on. An error is the first byte that could not be read.
    #[inline]
    pub(super) fn copy(&self, offset: usize, out: &mut [u8]) -> Result<(), usize> {
        let range = self.within(offset, out.len())?;
        // SAFETY: the range lies in the mapping, which lives as long as `self`, and `out` is ours alone. The routine
        // reads nothing else, and returns to here even if a page of the range is missing.
        let left = unsafe { lazaret_copy(out.as_mut_ptr(), self.memory.as_ptr().add(range.start), range.len()) };
        if left == 0 { Ok(()) } else { Err(range.end - left) }
    }

    /// Lends the mapped bytes themselves; what `to` must not do with them is said at [`super::Device::lend`].
    #[inline]
    pub(super) fn lend<R>(&self, offset: usize, length: usize, to: impl FnOnce(&[u8]) -> R) -> Result<R, usize> {
        let range = self.within(offset, length)?;
        // SAFETY: the range lies in the mapping, which lives as long as `self`, and is aligned for bytes. That the bytes
        // may change is harmless only because `to` hands them to the kernel unread.
        Ok(to(unsafe { slice::from_raw_parts(self.memory.as_ptr().add(range.start), range.len()) }))
    }

    /// The range if all of it lies in the mapping, else the first byte that does not.
    #[inline]
    fn within(&self, offset: usize, length: usize) -> Result<Range<usize>, usize> {
        match offset.checked_add(length) {
            Some(end) if end <= self.len() => Ok(offset..end),
            _ => Err(offset.max(self.len())),
        }
    }
}

// `lazaret_copy(to, from, length)` copies and returns how many bytes are left: 0 unless a page of `from` is missing.
// From `lazaret_copy_begin` to `lazaret_copy_end` the register of the length always says what is left and the register
// of the source where it lies, so the handler may go on at the end from any instruction between.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.lazaret_copy, \"ax\", @progbits",
    ".p2align 4",
    ".globl lazaret_copy, lazaret_copy_begin, lazaret_copy_end",
    ".hidden lazaret_copy, lazaret_copy_begin, lazaret_copy_end",
    ".type lazaret_copy, @function",
    "lazaret_copy:",
    "    mov rcx, rdx",
    "lazaret_copy_begin:",
    "    rep movsb",
    "lazaret_copy_end:",
    "    mov rax, rcx",
    "    ret",
    ".size lazaret_copy, . - lazaret_copy",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .text.lazaret_copy, \"ax\", @progbits",
    ".p2align 4",
    ".globl lazaret_copy, lazaret_copy_begin, lazaret_copy_end",
    ".hidden lazaret_copy, lazaret_copy_begin, lazaret_copy_end",
    ".type lazaret_copy, @function",
    "lazaret_copy:",
    "lazaret_copy_begin:",
    // Bytes up to a multiple of 16, so that no load behind it reaches into two pages.
    "1:  cbz x2, lazaret_copy_end",
    "    tst x1, #15",
    "    b.eq 2f",
    "    ldrb w3, [x1]",
    "    strb w3, [x0], #1",
    "    sub x2, x2, #1",
    "    add x1, x1, #1",
    "    b 1b",
    "2:  cmp x2, #16",
    "    b.lo 3f",
    "    ldp x3, x4, [x1]",
    "    stp x3, x4, [x0], #16",
    "    sub x2, x2, #16",
    "    add x1, x1, #16",
    "    b 2b",
    "3:  cbz x2, lazaret_copy_end",
    "    ldrb w3, [x1]",
    "    strb w3, [x0], #1",
    "    sub x2, x2, #1",
    "    add x1, x1, #1",
    "    b 3b",
    "lazaret_copy_end:",
    "    mov x0, x2",
    "    ret",
    ".size lazaret_copy, . - lazaret_copy",
    ".popsection",
);

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("a copy that survives a missing page is written for x86-64 and aarch64 only");

unsafe extern "C" {
    /// Copies `length` bytes; returns how many are left.
    fn lazaret_copy(to: *mut u8, from: *const u8, length: usize) -> usize;
    static lazaret_copy_begin: u8;
    static lazaret_copy_end: u8;
}

/// What [`libc::SA_SIGINFO`] asks a handler to be.
type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Once a process, before the last filter: `rt_sigaction` is not allowed afterwards. They replace the handlers that
/// std installs before `main` to name a stack overflow, by calls that the filter kills for.
fn install_handlers() -> Result<(), Errno> {
    static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        handle(libc::SIGBUS, on_sigbus)?;
        handle(libc::SIGSEGV, on_sigsegv)
    })
}

fn handle(signal: i32, handler: Handler) -> Result<(), Errno> {
    // SAFETY: all zeros is a `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // Without SA_NODEFER: the signal is blocked inside the handler, where a second one can only mean the end. On the
    // alternative stack that std gives each thread: this one may be what cannot be written.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action.sa_sigaction = handler as usize;
    // SAFETY: `action` is whole, and a `Handler` has the signature that SA_SIGINFO asks for. Both of ours call only
    // what may be called in a handler.
    if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// The stack has run out, or something touched what is not mapped: the end, with a code that says so.
extern "C" fn on_sigsegv(_signal: i32, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: `_exit` may be called in a handler, and does not return.
    unsafe { libc::_exit(lazaret_policy::exit::FAULT) }
}

/// Ends the copy if it was the copy that faulted, on what it had still to read; ends the process otherwise.
extern "C" fn on_sigbus(_signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a `siginfo_t` and a `ucontext_t` that are this handler's for as long as it runs.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let (begin, end) = (&raw const lazaret_copy_begin as usize, &raw const lazaret_copy_end as usize);
    let stopped = Stopped::of(context);
    // A code above 0 comes from the kernel; with any other the address is the number of the process that sent it.
    if info.si_code > 0 && (begin..end).contains(&stopped.at) {
        // SAFETY: every SIGBUS that the kernel raises carries an address.
        let fault = unsafe { info.si_addr() } as usize;
        // Where memory itself is broken the address may be that of the page.
        if fault >= stopped.from & !(LARGEST_PAGE - 1) && fault < stopped.from.saturating_add(stopped.left) {
            Stopped::resume(context, end);
            return;
        }
    }
    // SAFETY: `_exit` may be called in a handler, and does not return.
    unsafe { libc::_exit(EXIT_SIGBUS) }
}

/// Bytes of the largest page that either processor is run with.
const LARGEST_PAGE: usize = 64 * 1024;

/// What the registers said when the signal came.
struct Stopped {
    /// The instruction that faulted.
    at: usize,
    /// If that was in the copy: where it reads next.
    from: usize,
    /// If that was in the copy: how many bytes are left.
    left: usize,
}

#[cfg(target_arch = "x86_64")]
impl Stopped {
    fn of(context: &libc::ucontext_t) -> Self {
        let register = |index: i32| context.uc_mcontext.gregs[index as usize] as usize;
        Self { at: register(libc::REG_RIP), from: register(libc::REG_RSI), left: register(libc::REG_RCX) }
    }

    fn resume(context: &mut libc::ucontext_t, at: usize) {
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = at as i64;
    }
}

#[cfg(target_arch = "aarch64")]
impl Stopped {
    fn of(context: &libc::ucontext_t) -> Self {
        let machine = &context.uc_mcontext;
        Self { at: machine.pc as usize, from: machine.regs[1] as usize, left: machine.regs[2] as usize }
    }

    fn resume(context: &mut libc::ucontext_t, at: usize) {
        context.uc_mcontext.pc = at as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::unix::fs::FileExt,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        thread,
    };

    use super::*;

    const PAGE: usize = 4096;

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn map(file: &File, offset: u64, length: usize) -> Mapping {
        Mapping::new(file.try_clone().unwrap().into(), offset, length).unwrap()
    }

    #[test]
    fn every_length_and_alignment_is_copied_exactly() {
        let bytes: Vec<u8> = (0..3 * PAGE).map(|i| (i * 7 + i / 256) as u8).collect();
        let file = file_of(&bytes);
        for begin in [0, 1, 511, 4095, 5000] {
            let mapping = map(&file, begin as u64, bytes.len() - begin);
            for offset in 0..20 {
                for length in (0..70).chain([511, 512, 4095, 4096, 4097]) {
                    let mut out = vec![0xee; length + 2];
                    mapping.copy(offset, &mut out[1..=length]).unwrap();
                    assert_eq!(out[1..=length], bytes[begin + offset..][..length]);
                    assert_eq!((out[0], out[length + 1]), (0xee, 0xee));
                }
            }
        }
    }

    #[test]
    fn what_lies_outside_is_refused_with_the_first_byte_that_is_not_there() {
        let mapping = map(&file_of(&[1; PAGE]), 0, PAGE);
        assert_eq!(mapping.copy(PAGE - 1, &mut [0; 2]), Err(PAGE));
        assert_eq!(mapping.copy(PAGE + 5, &mut [0; 1]), Err(PAGE + 5));
        assert_eq!(mapping.copy(usize::MAX, &mut [0; 2]), Err(usize::MAX));
        assert_eq!(mapping.copy(PAGE, &mut []), Ok(()));
        assert_eq!(mapping.lend(1, PAGE, |_| ()), Err(PAGE));
    }

    #[test]
    fn a_missing_page_is_an_error_at_its_first_byte_and_what_came_before_is_there() {
        let file = file_of(&[5; 2 * PAGE]);
        let mapping = map(&file, 0, 3 * PAGE);
        let mut out = [0; PAGE];
        assert_eq!(mapping.copy(2 * PAGE, &mut out), Err(2 * PAGE));
        assert_eq!(mapping.copy(2 * PAGE + 100, &mut out[..1]), Err(2 * PAGE + 100));
        assert_eq!(mapping.copy(2 * PAGE - 100, &mut out), Err(2 * PAGE));
        assert!(out[..100].iter().all(|&byte| byte == 5) && out[100..].iter().all(|&byte| byte == 0));
        assert_eq!(mapping.copy(PAGE, &mut out), Ok(()));
    }

    /// The file is cut and grown again while eight threads copy: every copy succeeds or fails, and nobody dies.
    #[test]
    fn a_file_cut_short_under_racing_threads_gives_errors_and_comes_back() {
        const PAGES: usize = 64;
        let file = file_of(&vec![5; PAGES * PAGE]);
        let mapping = map(&file, 0, PAGES * PAGE);
        let (good, bad, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for thread in 0..8_usize {
                let (mapping, good, bad, done) = (&mapping, &good, &bad, &done);
                scope.spawn(move || {
                    let mut out = vec![0; 3 * PAGE];
                    let mut seed = thread + 1;
                    while !done.load(Relaxed) {
                        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let offset = (seed >> 33) % (PAGES * PAGE);
                        let length = ((seed >> 20) % out.len()).min(PAGES * PAGE - offset);
                        match mapping.copy(offset, &mut out[..length]) {
                            Ok(()) => good.fetch_add(1, Relaxed),
                            Err(byte) => {
                                assert!((offset..offset + length).contains(&byte));
                                bad.fetch_add(1, Relaxed)
                            }
                        };
                    }
                });
            }
            while good.load(Relaxed) < 1000 || bad.load(Relaxed) < 1000 {
                for pages in [3, PAGES, 0, PAGES] {
                    file.set_len((pages * PAGE) as u64).unwrap();
                    thread::yield_now();
                }
            }
            done.store(true, Relaxed);
        });
        file.write_all_at(&[9; PAGE], 7 * PAGE as u64).unwrap();
        let mut out = [0; PAGE];
        assert_eq!(mapping.copy(7 * PAGE, &mut out), Ok(()));
        assert_eq!(out, [9; PAGE]);
    }

    /// What the kernel does for file data: the fault inside a system call is that call's error.
    #[test]
    fn lent_bytes_that_are_missing_fail_the_system_call() {
        let file = file_of(&[5; PAGE]);
        let mapping = map(&file, 0, 2 * PAGE);
        let sink = tempfile::tempfile().unwrap();
        let write = |offset| mapping.lend(offset, PAGE, |bytes| rustix::io::write(&sink, bytes)).unwrap();
        assert_eq!(write(0), Ok(PAGE));
        assert_eq!(write(PAGE), Err(Errno::FAULT));
    }

    #[test]
    fn a_missing_page_that_anything_else_reads_ends_the_process() {
        const NAME: &str = "device::mapping::tests::a_missing_page_that_anything_else_reads_ends_the_process";
        if std::env::var_os(NAME).is_some() {
            let mapping = map(&file_of(&[]), 0, PAGE);
            mapping.copy(0, &mut [0]).unwrap_err();
            mapping.lend(0, 1, |bytes| std::hint::black_box(bytes[0])).unwrap();
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env(NAME, "child");
        assert_eq!(child.output().unwrap().status.code(), Some(EXIT_SIGBUS));
    }
}
