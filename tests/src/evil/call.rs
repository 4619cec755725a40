//! Any system call with any arguments, through each door that x86-64 has, without libc between.
#![allow(unsafe_code, reason = "whoever tries what a lost worker can do must make calls that no library makes")]

use std::arch::asm;

/// Makes a call by its number; what the kernel returns, errors as negative numbers.
///
/// # Safety
///
/// Whatever the call does to memory or file descriptors must be what the caller means.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(number: u64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    let returned;
    // SAFETY: the caller's promise; the kernel changes rax, rcx and r11 and nothing else of the registers.
    unsafe {
        asm!("syscall", inlateout("rax") number => returned, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _);
    }
    returned
}

/// Starts a thread that ends at once; what the kernel returned to the one that started it.
#[cfg(target_arch = "x86_64")]
pub fn thread() -> i64 {
    let stack = [0_u64; 64];
    let flags = (libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM) as u64;
    let returned;
    // SAFETY: the new thread makes one call, by which it ends, and touches no memory: no stack is read or written.
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "3:", "xor edi, edi", "mov eax, 60", "syscall", "jmp 3b", "2:",
            inlateout("rax") libc::SYS_clone => returned, inlateout("rdi") flags => _,
            in("rsi") &raw const stack[32] as u64, in("rdx") 0_u64, in("r10") 0_u64, in("r8") 0_u64,
            lateout("rcx") _, lateout("r11") _);
    }
    returned
}

/// Starts a thread that ends at once; what the kernel returned to the one that started it.
#[cfg(not(target_arch = "x86_64"))]
pub fn thread() -> i64 {
    -i64::from(libc::ENOSYS)
}

/// Makes a call of 32-bit programs, by its number among theirs.
///
/// # Safety
///
/// As [`call`]; pointers are cut to 32 bits.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call_by_interrupt(number: u64, arguments: [u64; 3]) -> i64 {
    let [first, second, third] = arguments;
    let returned: u64;
    // SAFETY: the caller's promise. rbx is not for inline assembly to name, so it is put back by hand.
    unsafe {
        asm!("xchg rbx, {first}", "int 0x80", "xchg rbx, {first}", first = inout(reg) first => _,
            inlateout("rax") number => returned, in("rcx") second, in("rdx") third, lateout("r8") _, lateout("r9") _,
            lateout("r10") _, lateout("r11") _);
    }
    // 32 bits, with their sign.
    i64::from((returned & 0xffff_ffff) as u32 as i32)
}

/// Reads the clock by a jump into the page at the end of the address space (`vsyscall`).
///
/// # Safety
///
/// None is broken: where the page is not there, the process faults.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call_by_page() -> i64 {
    let returned;
    // SAFETY: what lies at this address is the kernel's, and returns as a function that takes a null pointer does.
    unsafe {
        asm!("call {page}", page = in(reg) 0xffff_ffff_ff60_0400_u64, in("rdi") 0_u64, lateout("rax") returned,
            lateout("rcx") _, lateout("r11") _, clobber_abi("C"));
    }
    returned
}

/// Makes a call by its number; what the kernel returns, errors as negative numbers.
///
/// # Safety
///
/// Whatever the call does to memory or file descriptors must be what the caller means.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(number: u64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    let returned;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a => returned, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            in("x5") f);
    }
    returned
}

/// This processor has no such door.
///
/// # Safety
///
/// None is broken.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn call_by_interrupt(_number: u64, _arguments: [u64; 3]) -> i64 {
    -i64::from(libc::ENOSYS)
}

/// This processor has no such door.
///
/// # Safety
///
/// None is broken.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn call_by_page() -> i64 {
    -i64::from(libc::ENOSYS)
}
