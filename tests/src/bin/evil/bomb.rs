//! Takes all that there is of something: what stops it is the group that the worker is in, and nothing else.
#![allow(unsafe_code, reason = "processes are forked, and memory is mapped that no library counts")]

use std::time::{Duration, Instant};

/// Of this: memory, processes, or time of processors for so many milliseconds. Comes back with the number of processes.
pub(crate) fn explode(kind: u64, milliseconds: u64) -> i64 {
    match kind {
        0 => memory(),
        1 => processes(sleep),
        _ => {
            let end = Instant::now() + Duration::from_millis(milliseconds);
            let others = processes(spin);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            others
        }
    }
}

/// Shared memory, which no limit of a process counts. There is no end to it but the worker's.
fn memory() -> i64 {
    const PIECE: usize = 1 << 20;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    loop {
        // SAFETY: new memory, of which every page is written to and nothing else.
        unsafe {
            let piece = libc::mmap(std::ptr::null_mut(), PIECE, protection, flags, -1, 0);
            if piece == libc::MAP_FAILED {
                return -i64::from(*libc::__errno_location());
            }
            piece.cast::<u8>().write_bytes(1, PIECE);
        }
    }
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Until there is no further one. They end with the worker, who is the first process of its namespace.
fn processes(work: fn() -> !) -> i64 {
    const MOST: i64 = 200;
    for number in 0..MOST {
        // SAFETY: the child touches nothing that a thread of its parent may hold.
        match unsafe { libc::fork() } {
            0 => work(),
            -1 => return number,
            _ => {}
        }
    }
    MOST
}
