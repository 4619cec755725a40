//! The start order of `worker/src/main.rs`, less what this copy leaves out; then the act.
#![allow(unsafe_code, reason = "raw system calls, a filter that allows everything, and faults that are meant")]

use std::os::fd::{AsRawFd, OwnedFd};

use lazaret_policy::channel::Channel;
use lazaret_policy::confine::{Confined, confine, narrow};
use lazaret_policy::message::{Layers, Order, Purpose, Report, Start, Summary};
use lazaret_policy::seccomp::{self, Answer, Row};
use lazaret_policy::{exit, landlock as lock, limits};
use lazaret_tests::evil::call::{call, call_by_interrupt, call_by_page};
use lazaret_tests::evil::probe::{PROBES, Place};
use lazaret_tests::evil::weakness::{
    CLAIMS_ANYWAY, CLAIMS_IOMAP, EXTRA_FD, KEEPS_DEVICE, NO_FILTER, NO_LANDLOCK, NO_LIMITS, NO_SECCOMP, NOTHING,
    ONE_FILTER, ROW_ADDED,
};
use lazaret_tests::evil::{Act, Evidence, Instruction};
use lazaret_worker::device::Device;
use lazaret_worker::{fuse, memory, tool};

use crate::{answer, bomb, serve};

/// A row that no table has.
pub(crate) const ADDED: Row =
    Row { call: libc::SYS_getpid, name: "getpid", when: &[], answer: Answer::Allow, why: "it is not there" };

/// The life of a worker, until it does what it was told.
pub(crate) fn main(weakness: u16) -> ! {
    let channel = Channel::inherited();
    std::panic::set_hook(Box::new(|info| {
        let (line, column) = info.location().map_or((0, 0), |place| (place.line(), place.column()));
        let _ = Channel::inherited().send(&Report::Panicked { line, column }, &[]);
        memory::end(exit::PANIC);
    }));
    let has = |one: u16| weakness & one != 0;
    if has(EXTRA_FD) {
        std::mem::forget(rustix::io::dup(rustix::stdio::stdin()));
    }
    // What it says later weakens nothing.
    let (confined, layers) = match weakness & !(CLAIMS_ANYWAY | CLAIMS_IOMAP) {
        0 => confine().unwrap_or_else(|_| memory::end(exit::CHANNEL)),
        _ => confine_badly(weakness),
    };
    report(&channel, &Report::Confined(layers));
    let (start, fuse) = started(&channel);
    if has(NO_FILTER | EXTRA_FD | NOTHING) {
        tell(&channel, Evidence::Done(1));
    }
    if !usize::try_from(start.memory).is_ok_and(memory::grant) {
        memory::end(exit::CHANNEL);
    }
    // The FUSE session stays, and serves nothing: this worker speaks for itself.
    if let Some(fuse) = fuse {
        assert_eq!(fuse.as_raw_fd(), lazaret_policy::FUSE_FD);
        match fuse::handshake(fuse, &start) {
            Ok(session) => std::mem::forget(session),
            Err(_) => memory::end(exit::CHANNEL),
        }
    }
    let iomap = has(CLAIMS_ANYWAY) || has(CLAIMS_IOMAP) && start.iomap;
    report(&channel, &Report::Initialized { iomap });
    let (range, cookie, fd) = device(&channel);
    let length = range.length;
    let device = if has(KEEPS_DEVICE) {
        std::mem::forget(fd);
        Ok(Device::from_bytes(Instruction::new(Act::Serve, &[0]).to_bytes()))
    } else {
        Device::map(fd, range, &confined)
    };
    let Ok(device) = device else { memory::end(exit::CHANNEL) };
    if start.purpose == Purpose::Scan {
        scan(&channel, &confined, &device);
    }
    let table = if start.purpose == Purpose::Mount { seccomp::SERVING } else { seccomp::ANSWERING };
    last_filter(&confined, table, weakness & !(CLAIMS_ANYWAY | CLAIMS_IOMAP));
    memory::seal();
    let mut bytes = [0; Instruction::LENGTH];
    if device.read_at(0, &mut bytes).is_err() {
        memory::end(exit::BUS);
    }
    let Some(told) = Instruction::from_bytes(&bytes) else { memory::end(exit::REFUSED) };
    let base = device.lend(0, length, |bytes| bytes.as_ptr().expose_provenance()).unwrap_or_default();
    // FUSE_INIT is the first request of a connection, and the kernel numbers them by twos.
    if told.act == Act::Cookie {
        tell(&channel, Evidence::Done(cookie.unwrap_or(0)));
    }
    act(&channel, told, &Place { device: base as u64, init: 2 })
}

fn act(channel: &Channel, Instruction { act, numbers }: Instruction, place: &Place) -> ! {
    let [number, a, b, c, d, e, f] = numbers;
    let returned = match act {
        // SAFETY: what these three do to this process is what it is here for.
        Act::Call => unsafe { call(number, [a, b, c, d, e, f]) },
        // SAFETY: as above.
        Act::CallByInterrupt => unsafe { call_by_interrupt(number, [a, b, c]) },
        // SAFETY: as above.
        Act::CallByPage => unsafe { call_by_page() },
        Act::Probe => PROBES.get(number as usize).map_or(0, |(_, attempt)| attempt(place)),
        Act::Panic => panic!("as told"),
        Act::Overflow => deeper(number) as i64,
        Act::Allocate => allocate(),
        Act::UseAllMemory => use_all_memory(),
        // SAFETY: none: that this faults is what is to be seen.
        Act::Touch => unsafe { std::ptr::without_provenance::<u8>(number as usize).read_volatile() }.into(),
        Act::Babble => babble(number, a),
        Act::Flood => flood(channel),
        Act::Serve => serve::serve(channel, number),
        Act::Answer => answer::answer(channel, number),
        Act::Bomb => bomb::explode(number, a),
        Act::Nothing | Act::Cookie => 0,
    };
    tell(channel, Evidence::of(returned))
}

/// Calls itself until there is no stack; the number keeps the compiler from seeing where that leads.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    if std::hint::black_box(true) { deeper(depth + 1) + room[(depth % 512) as usize] } else { depth }
}

fn allocate() -> i64 {
    let mut all = vec![];
    loop {
        all.push(std::hint::black_box(vec![1_u8; 64 << 10]));
    }
}

/// All that can be had in pieces, each written to; the number of them. What is not granted is not had.
fn use_all_memory() -> i64 {
    let mut all: Vec<Vec<u8>> = vec![];
    if all.try_reserve_exact(1 << 16).is_err() {
        return -i64::from(libc::ENOMEM);
    }
    loop {
        let mut piece = vec![];
        if all.len() == all.capacity() || piece.try_reserve_exact(64 << 10).is_err() {
            return all.len() as i64;
        }
        piece.resize(64 << 10, 1);
        all.push(std::hint::black_box(piece));
    }
}

/// Bytes that are no message.
fn babble(length: u64, value: u64) -> i64 {
    let bytes = vec![value as u8; length as usize];
    // SAFETY: the bytes outlive the call, which reads no more of them than there are.
    unsafe {
        call(libc::SYS_sendto as u64, [0, bytes.as_ptr() as u64, length, libc::MSG_NOSIGNAL as u64, 0, 0]);
        // Whoever understood nothing ends the worker; a longer life is for the broker to end.
        call(libc::SYS_read as u64, [3, bytes.as_ptr() as u64, 0, 0, 0, 0])
    }
}

fn flood(channel: &Channel) -> i64 {
    loop {
        if channel.send(&Report::Ready(Summary::default()), &[]).is_err() {
            return -i64::from(libc::EPIPE);
        }
    }
}

/// Tells the broker truly what lies on the device: nobody is to be led astray by where the file system is.
fn scan(channel: &Channel, confined: &Confined, device: &Device) -> ! {
    last_filter(confined, seccomp::ANSWERING, 0);
    memory::seal();
    report(channel, &Report::Mapped);
    let _ = tool::scan(device, channel);
    memory::end(exit::CHANNEL)
}

/// The steps of `confine()` that this weakness leaves.
fn confine_badly(weakness: u16) -> (Confined, Layers) {
    let has = |one: u16| weakness & one != 0;
    let mut layers = Layers { landlock: 7, scopes: true, mdwe: true, ..Layers::default() };
    if !has(NOTHING) {
        layers.mdwe = limits::deny_write_execute();
        if !has(NO_LIMITS) {
            let _ = limits::set_resource_limits();
        }
        let _ = rustix::thread::set_no_new_privs(true);
        if !has(NO_LANDLOCK) {
            layers.landlock = lock::deny_all().map_or(0, |enforced| enforced.abi);
        }
        let _ = limits::drop_capabilities();
        let _ = limits::make_undumpable();
        if has(NO_SECCOMP) {
            allow_everything(seccomp::STARTING);
        } else if !has(NO_FILTER) {
            let starting: Vec<Row> = seccomp::STARTING.iter().copied().chain([ADDED]).collect();
            let _ = seccomp::install(if has(ROW_ADDED) { &starting } else { seccomp::STARTING });
        }
    }
    // SAFETY: the proof is a type without content. That it was not earned is what this worker is for.
    (unsafe { std::mem::transmute::<(), Confined>(()) }, layers)
}

fn last_filter(confined: &Confined, table: &'static [Row], weakness: u16) {
    let has = |one: u16| weakness & one != 0;
    if weakness == 0 {
        return narrow(confined, table).unwrap_or_else(|_| memory::end(exit::CHANNEL));
    }
    limits::close_output();
    if !has(NO_LIMITS) {
        let _ = limits::close_resource_limits();
    }
    let added: Vec<Row> = table.iter().copied().chain([ADDED]).collect();
    match () {
        () if has(ONE_FILTER | NO_FILTER | NOTHING) => {}
        () if has(NO_SECCOMP) => allow_everything(table),
        () => drop(seccomp::install(if has(ROW_ADDED) { &added } else { table })),
    }
}

/// As many filters as the table takes, as far as the kernel can tell.
fn allow_everything(table: &[Row]) {
    let allow = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
    let program = libc::sock_fprog { len: 1, filter: (&raw const allow).cast_mut() };
    for _ in 0..seccomp::filters(table) {
        // SAFETY: the program is one instruction long and outlives the call.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    }
}

/// Tells what came of it in the last words that a worker has.
pub(crate) fn tell(channel: &Channel, evidence: Evidence) -> ! {
    let (line, column) = evidence.place();
    report(channel, &Report::Panicked { line, column });
    memory::end(exit::PANIC)
}

pub(crate) fn report(channel: &Channel, report: &Report) {
    if channel.send(report, &[]).is_err() {
        memory::end(exit::CHANNEL);
    }
}

fn started(channel: &Channel) -> (Start, Option<OwnedFd>) {
    match channel.receive::<Order>() {
        Ok((Order::Start(start), mut fds)) => (start, fds.pop()),
        _ => memory::end(exit::CHANNEL),
    }
}

fn device(channel: &Channel) -> (lazaret_policy::message::Range, Option<u32>, OwnedFd) {
    match channel.receive::<Order>() {
        Ok((Order::Device { range, iomap }, mut fds)) => match fds.pop() {
            Some(fd) => (range, iomap, fd),
            None => memory::end(exit::CHANNEL),
        },
        _ => memory::end(exit::CHANNEL),
    }
}
