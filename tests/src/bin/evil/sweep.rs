//! Many fresh workers quickly: a line of standard input is a call, and each is made by a process of its own that has
//! confined itself as a worker does. A line of standard output says how that process ended.
//!
//! `evil sweep TABLE`, where TABLE is `serving`, `answering`, `starting`, `watching` or `watching as a user`; `+` behind it adds a row that is
//! not there. The line: a door (`call`, `interrupt`, `page`), a number, six arguments.
#![allow(unsafe_code, reason = "processes are forked, and make calls that no library makes")]

use std::io::BufRead;

use lazaret_policy::confine::{confine, narrow};
use lazaret_policy::exit;
use lazaret_policy::seccomp::{self, Row};
use lazaret_policy::watching::{WATCHING, WATCHING_AS_USER};
use lazaret_tests::evil::call::{call, call_by_interrupt, call_by_page};
use lazaret_worker::memory;

use crate::life::ADDED;

/// How a process ends that its call did not end.
const SURVIVED: i32 = 42;

/// Reads lines to the end of standard input.
pub(crate) fn main() -> ! {
    let table = std::env::args().nth(2).unwrap_or_default();
    // What faults is to die of it, and not to tell std.
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
        // SAFETY: the default action is no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut words = line.split_whitespace();
        let door = words.next().unwrap_or_default();
        let mut numbers = [0; 7];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = word.parse().unwrap_or_else(|_| memory::end(exit::CHANNEL));
        }
        let [number, arguments @ ..] = numbers;
        // SAFETY: there is one thread, so the child has everything that it needs.
        let status = match unsafe { libc::fork() } {
            0 => one(&table, door, number, arguments),
            child if child < 0 => memory::end(exit::CHANNEL),
            child => wait(child),
        };
        let said = match (libc::WIFSIGNALED(status), libc::WTERMSIG(status), libc::WEXITSTATUS(status)) {
            (true, signal, _) => format!("signal {signal}\n"),
            (_, _, code) => format!("exit {code}\n"),
        };
        // Not by std, whose `write` ends a worker.
        if rustix::io::write(rustix::stdio::stdout(), said.as_bytes()).is_err() {
            memory::end(exit::CHANNEL);
        }
    }
    memory::end(exit::DONE)
}

fn wait(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the kernel writes one int to where it is.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status
}

/// A life of one call, under the filters that the table's life has.
fn one(table: &str, door: &str, number: u64, arguments: [u64; 6]) -> ! {
    let (name, added) = table.strip_suffix('+').map_or((table, false), |name| (name, true));
    // A process that its call does not let go on is not waited for.
    // SAFETY: numbers only.
    unsafe { libc::alarm(2) };
    let rows = match name {
        "serving" => seccomp::SERVING,
        "answering" => seccomp::ANSWERING,
        "starting" => seccomp::STARTING,
        "watching" => WATCHING,
        "watching as a user" => WATCHING_AS_USER,
        _ => memory::end(exit::CHANNEL),
    };
    let rows: Vec<Row> = rows.iter().copied().chain(added.then_some(ADDED)).collect();
    let confined = if added || name.starts_with("watching") { only(&rows) } else { well(name, &rows) };
    if !confined {
        memory::end(exit::REFUSED);
    }
    let [a, b, c, ..] = arguments;
    // SAFETY: this process has nothing that a call could break.
    unsafe {
        match door {
            "interrupt" => call_by_interrupt(number, [a, b, c]),
            "page" => call_by_page(),
            _ => call(number, arguments),
        }
    };
    memory::end(SURVIVED)
}

/// As the worker does it.
fn well(name: &str, rows: &[Row]) -> bool {
    let Ok((confined, _)) = confine() else { return false };
    name == "starting" || narrow(&confined, rows).is_ok()
}

/// As the broker does it, and a worker with a row that is not there.
fn only(rows: &[Row]) -> bool {
    rustix::thread::set_no_new_privs(true).is_ok() && seccomp::install(rows).is_ok()
}
