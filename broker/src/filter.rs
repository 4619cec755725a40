//! The broker's own filter, once the mount is there: the tables are `policy/src/watching.rs`.
//!
//! Without root it cannot unmount under any filter, since fusermount3 could not become root; that is done by a process that
//! was started before (`unmounter.rs`).

use crate::exit::Failure;
use lazaret_policy::seccomp;
use lazaret_policy::watching::{WATCHING, WATCHING_AS_USER};
use rustix::process::geteuid;

/// Holds this process to its table for the rest of its life.
pub(crate) fn install() -> Result<(), Failure> {
    let table = if geteuid().is_root() { WATCHING } else { WATCHING_AS_USER };
    seccomp::install(table).map_err(|error| Failure::system(format!("the broker's own filter: {error}")))
}
