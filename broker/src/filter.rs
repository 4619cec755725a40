//! The broker's own filter, once the mount is there: the table is `policy/src/watching.rs`.
//!
//! Without root there is no such filter: fusermount3, which unmounts then, could not become root under it.

use crate::exit::Failure;
use lazaret_policy::seccomp;
use lazaret_policy::watching::WATCHING;
use rustix::process::geteuid;

/// Holds this process to the table for the rest of its life.
pub(crate) fn install() -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Ok(());
    }
    seccomp::install(WATCHING).map_err(|error| Failure::system(format!("the broker's own filter: {error}")))
}
