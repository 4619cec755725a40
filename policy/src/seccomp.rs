//! The system calls a worker may make, as data: the filters are built from these tables, the tests run each row, and
//! SECURITY.md shows them.
//!
//! A call without a row kills the process, in every build. There are three tables because there are three lives:
//! starting (before the first byte of the image), serving a mount, answering a tool. The last two are installed on
//! top of the first, so a call has to pass both.

use crate::{CHANNEL_FD, FUSE_FD};
use Answer::{Absent, Allow};
use Condition::{Has, Is, Lacks, OneOf};
use libc::{
    CLOCK_MONOTONIC, CLONE_THREAD, F_GETFD, FUTEX_BITSET_MATCH_ANY, FUTEX_CLOCK_REALTIME, FUTEX_PRIVATE_FLAG,
    FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, MADV_DONTNEED, MSG_NOSIGNAL, PR_SET_NAME, PR_SET_NO_NEW_PRIVS,
    PROT_EXEC, SECCOMP_SET_MODE_FILTER,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// One system call that a worker may make.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number on this architecture.
    pub call: i64,
    /// Its name.
    pub name: &'static str,
    /// What its arguments must be, all of it.
    pub when: &'static [Condition],
    /// What the kernel does.
    pub answer: Answer,
    /// Why a worker needs it.
    pub why: &'static str,
}

/// What an argument, counted from 0, must be. All 64 bits of it are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// This value.
    Is(u8, u64),
    /// One of these values.
    OneOf(u8, &'static [u64]),
    /// All bits of this mask are set.
    Has(u8, u64),
    /// No bit of this mask is set.
    Lacks(u8, u64),
}

/// What the kernel does with a call that has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Lets it through.
    Allow,
    /// Says ENOSYS, so that libc takes the older way.
    Absent,
}

const ALWAYS: &[Condition] = &[];
const CHANNEL: u64 = CHANNEL_FD as u64;
const FUSE: u64 = FUSE_FD as u64;
const NO_SIGNAL: u64 = MSG_NOSIGNAL as u64;
const EXECUTABLE: u64 = PROT_EXEC as u64;
const FUTEX_CALLS: &[u64] = &[
    (FUTEX_WAIT | FUTEX_PRIVATE_FLAG) as u64,
    (FUTEX_WAKE | FUTEX_PRIVATE_FLAG) as u64,
    (FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG) as u64,
    // pthread_join waits for a thread's end without the private flag.
    (FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME) as u64,
];
const _: () = assert!(FUTEX_BITSET_MATCH_ANY == -1);

macro_rules! row {
    ($call:ident, $when:expr, $answer:expr, $why:literal) => {
        $crate::seccomp::Row {
            call: libc::$call,
            name: stringify!($call).split_at(4).1,
            when: $when,
            answer: $answer,
            why: $why,
        }
    };
}
pub(crate) use row;

/// While serving a mount: from before the first byte of the image to the end.
pub const SERVING: &[Row] = &[
    row!(SYS_exit_group, ALWAYS, Allow, "end"),
    row!(SYS_futex, &[OneOf(1, FUTEX_CALLS)], Allow, "wait for another thread"),
    row!(SYS_read, &[Is(0, FUSE)], Allow, "take a request from /dev/fuse"),
    row!(
        SYS_rt_sigprocmask,
        ALWAYS,
        Allow,
        "libc blocks signals while it starts a thread, and who started the last may still be at it"
    ),
    row!(SYS_rt_sigreturn, ALWAYS, Allow, "go on after a SIGBUS: a page of the mapping was gone"),
    row!(SYS_sendto, &[Is(0, CHANNEL), Is(3, NO_SIGNAL), Is(4, 0)], Allow, "report to the broker, without fds"),
    row!(SYS_writev, &[Is(0, FUSE)], Allow, "answer the kernel on /dev/fuse"),
];

/// While answering a tool: from before the first byte of the image to the end.
pub const ANSWERING: &[Row] = &[
    row!(SYS_exit_group, ALWAYS, Allow, "end"),
    row!(SYS_recvfrom, &[Is(0, CHANNEL), Is(3, 0), Is(4, 0)], Allow, "take a question, without fds"),
    row!(SYS_rt_sigreturn, ALWAYS, Allow, "go on after a SIGBUS: a page of the mapping was gone"),
    row!(SYS_sendto, &[Is(0, CHANNEL), Is(3, NO_SIGNAL), Is(4, 0)], Allow, "answer the tool, without fds"),
];

/// From confinement to the last filter: no byte of the image is mapped or read yet.
pub const STARTING: &[Row] = &[
    row!(SYS_brk, ALWAYS, Allow, "libc's own heap, for the threads' bookkeeping"),
    row!(
        SYS_clock_gettime,
        &[Is(0, CLOCK_MONOTONIC as u64)],
        Allow,
        "tell the time where the clock needs a call for it"
    ),
    row!(SYS_clone, &[Has(0, CLONE_THREAD as u64)], Allow, "start a thread, never a process"),
    row!(SYS_clone3, ALWAYS, Absent, "its flags lie in memory, where a filter cannot look; libc falls back to clone"),
    row!(SYS_close, ALWAYS, Allow, "drop the device's fd once it is mapped"),
    row!(SYS_exit_group, ALWAYS, Allow, "end"),
    row!(
        SYS_fcntl,
        &[Is(1, F_GETFD as u64)],
        Allow,
        "std looks, in builds with assertions, whether what it closes is open"
    ),
    row!(SYS_futex, &[OneOf(1, FUTEX_CALLS)], Allow, "wait for another thread"),
    row!(SYS_geteuid, ALWAYS, Allow, "fuser asks whose session it is"),
    row!(SYS_gettid, ALWAYS, Allow, "std asks for a thread's number"),
    row!(SYS_madvise, &[Is(2, MADV_DONTNEED as u64)], Allow, "give back a stack's unused pages"),
    row!(SYS_mmap, &[Lacks(2, EXECUTABLE)], Allow, "map the device, the heap, the stacks of threads"),
    row!(SYS_mprotect, &[Lacks(2, EXECUTABLE)], Allow, "guard pages of stacks"),
    row!(SYS_munmap, ALWAYS, Allow, "give back what was mapped"),
    row!(
        SYS_prctl,
        &[OneOf(0, &[PR_SET_NAME as u64, PR_SET_NO_NEW_PRIVS as u64])],
        Allow,
        "name a thread; install the last filter"
    ),
    row!(SYS_prlimit64, &[Is(0, 0)], Allow, "set its own limits to nothing more"),
    row!(SYS_read, &[Is(0, FUSE)], Allow, "take FUSE_INIT from /dev/fuse"),
    row!(SYS_recvfrom, &[Is(0, CHANNEL), Is(3, 0), Is(4, 0)], Allow, "take a question, without fds"),
    row!(SYS_recvmsg, &[Is(0, CHANNEL)], Allow, "take orders and their fds from the broker"),
    row!(SYS_rseq, ALWAYS, Allow, "libc registers each thread"),
    row!(SYS_rt_sigaction, ALWAYS, Allow, "install the SIGBUS handler"),
    row!(SYS_rt_sigprocmask, ALWAYS, Allow, "libc blocks signals while it starts a thread"),
    row!(SYS_rt_sigreturn, ALWAYS, Allow, "go on after a SIGBUS: a page of the mapping was gone"),
    row!(SYS_sched_getaffinity, ALWAYS, Allow, "libc asks for a thread's attributes"),
    row!(SYS_sched_yield, ALWAYS, Allow, "wait until every thread stands at /dev/fuse"),
    row!(SYS_seccomp, &[Is(0, SECCOMP_SET_MODE_FILTER as u64)], Allow, "install the last filter"),
    row!(SYS_sendto, &[Is(0, CHANNEL), Is(3, NO_SIGNAL), Is(4, 0)], Allow, "report to the broker, without fds"),
    row!(SYS_set_robust_list, ALWAYS, Allow, "libc registers each thread"),
    row!(SYS_sigaltstack, ALWAYS, Allow, "each thread's stack for signals"),
    row!(SYS_writev, &[Is(0, FUSE)], Allow, "answer FUSE_INIT on /dev/fuse"),
];

/// A filter that could not be built or installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The table cannot be expressed.
    #[error("seccomp: {0}")]
    Build(#[from] seccompiler::BackendError),
    /// The kernel refused.
    #[error("seccomp: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Installs a table on every thread of this process. It cannot be taken off again.
pub fn install(table: &[Row]) -> Result<(), FilterError> {
    if filters(table) == 2 {
        seccompiler::apply_filter_all_threads(&compile(table, Absent)?)?;
    }
    Ok(seccompiler::apply_filter_all_threads(&compile(table, Allow)?)?)
}

/// How many filters the kernel counts on a thread once a table is installed, beside those that were there.
pub fn filters(table: &[Row]) -> u32 {
    if table.iter().any(|row| row.answer == Absent) { 2 } else { 1 }
}

/// The program for one answer. That for `Allow` lets every row through and kills on all else, that for `Absent` turns
/// the absent rows into ENOSYS; of two filters the kernel takes the stricter answer.
pub fn compile(table: &[Row], answer: Answer) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules = BTreeMap::new();
    for row in table.iter().filter(|row| answer == Allow || row.answer == Absent) {
        rules.insert(row.call, alternatives(row.when)?);
    }
    let (otherwise, matched) = match answer {
        Allow => (SeccompAction::KillProcess, SeccompAction::Allow),
        Absent => (SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.unsigned_abs())),
    };
    SeccompFilter::new(rules, otherwise, matched, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// The rules of which one must match: one for each value of a `OneOf`, none where there is no condition.
fn alternatives(when: &[Condition]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut chains: Vec<Vec<SeccompCondition>> = vec![vec![]];
    for condition in when {
        let choices = match *condition {
            Is(argument, value) => vec![equal(argument, value)?],
            OneOf(argument, values) => values.iter().map(|&value| equal(argument, value)).collect::<Result<_, _>>()?,
            Has(argument, mask) => vec![masked(argument, mask, mask)?],
            Lacks(argument, mask) => vec![masked(argument, mask, 0)?],
        };
        chains = chains
            .iter()
            .flat_map(|chain| choices.iter().map(|choice| [chain.as_slice(), std::slice::from_ref(choice)].concat()))
            .collect();
    }
    if when.is_empty() {
        return Ok(vec![]);
    }
    chains.into_iter().map(SeccompRule::new).collect()
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
}

/// The table as SECURITY.md shows it.
pub fn markdown(table: &[Row]) -> String {
    let mut text = String::from("| call | when | answer | why |\n|---|---|---|---|\n");
    for row in table {
        let when: Vec<String> = row.when.iter().map(Condition::to_string).collect();
        let when = if when.is_empty() { "always".to_owned() } else { when.join(", ") };
        let answer = match row.answer {
            Allow => "allow",
            Absent => "ENOSYS",
        };
        text.push_str(&format!("| `{}` | {when} | {answer} | {} |\n", row.name, row.why));
    }
    text
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Is(argument, value) => write!(f, "arg{argument} = {value}"),
            OneOf(argument, values) => {
                let values: Vec<String> = values.iter().map(u64::to_string).collect();
                write!(f, "arg{argument} in {{{}}}", values.join(" "))
            }
            Has(argument, mask) => write!(f, "arg{argument} has {mask:#x}"),
            Lacks(argument, mask) => write!(f, "arg{argument} lacks {mask:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: [&[Row]; 3] = [STARTING, SERVING, ANSWERING];

    #[test]
    fn rows_are_sorted_and_unique_and_have_a_reason() {
        for table in TABLES {
            assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name), "{table:?}");
            assert!(table.iter().all(|row| row.why.len() >= 3));
        }
    }

    #[test]
    fn serving_needs_at_most_twelve_calls_and_each_was_allowed_before() {
        assert!(SERVING.len() <= 12);
        for row in SERVING.iter().chain(ANSWERING) {
            let before = STARTING.iter().find(|earlier| earlier.call == row.call).expect(row.name);
            assert_eq!((before.when, before.answer), (row.when, row.answer), "{}", row.name);
        }
    }

    #[test]
    fn no_row_gives_more_than_a_fixed_fd() {
        let by_fd = ["read", "writev", "sendto", "recvfrom", "recvmsg"];
        for row in TABLES.iter().flat_map(|table| table.iter()).filter(|row| by_fd.contains(&row.name)) {
            assert!(matches!(row.when[0], Is(0, CHANNEL | FUSE)), "{}", row.name);
        }
    }

    #[test]
    fn a_list_of_values_becomes_a_rule_each() {
        assert_eq!(alternatives(&[OneOf(1, &[1, 2, 3]), Is(0, 4)]).unwrap().len(), 3);
        assert!(alternatives(ALWAYS).unwrap().is_empty());
        for table in TABLES {
            assert!(!compile(table, Allow).unwrap().is_empty());
        }
    }
}
