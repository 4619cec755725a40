//! How far a check has come, and what it has found.

use crate::corruption::Corruption;
use serde::{Deserialize, Serialize};

/// How far a check has come, and what it has found since the last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Steps that are done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// It is over.
    pub over: bool,
    /// New findings, at most [`Checked::MOST_AT_ONCE`].
    pub findings: Vec<Finding>,
    /// Everything that was found so far, listed or not.
    pub counts: CheckCounts,
}

impl Checked {
    /// The most findings of one answer.
    pub const MOST_AT_ONCE: usize = 1000;
    /// The most findings that are listed at all; behind them they are only counted.
    pub const MOST: usize = 10_000;
}

/// What a check counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCounts {
    /// Broken rules that are damage.
    pub damage: u64,
    /// Broken rules that harm nobody who reads or writes: copies that differ, for instance.
    pub notices: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Blocks in use.
    pub blocks: u64,
    /// Inodes on the list of orphans: deleted or cut while they were open.
    pub orphans: u64,
}

/// A broken rule, its place, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule and the place.
    pub corruption: Corruption,
    /// What it means.
    pub severity: Severity,
}

/// What a finding means for the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// It is damaged.
    Damage,
    /// It is worth to know, and no damage.
    Notice,
}
