//! The steps by which a worker confines itself, in the order that is the security argument, and the proof that they
//! were taken.

use crate::message::{Layers, Step};
use crate::{landlock, limits, seccomp};

/// Proof that [`confine`] was through. Whatever touches the image asks for it, so touching the image before
/// confinement does not compile.
#[derive(Debug)]
pub struct Confined(());

/// A step that the host refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which.
    pub step: Step,
    /// The system's error number, 0 if there is none.
    pub errno: i32,
}

/// Confines this process: call it first thing, while there is one thread.
///
/// Fails where a step that every host offers is refused. A layer that a kernel may lack (Landlock, MDWE) is missing
/// from [`Layers`] instead; the broker decides whether what is left is enough.
pub fn confine() -> Result<(Confined, Layers), Failed> {
    let mdwe = limits::deny_write_execute();
    limits::set_resource_limits().map_err(|error| failed(Step::Limits, &error))?;
    rustix::thread::set_no_new_privs(true).map_err(|errno| failed(Step::NoNewPrivs, &errno.into()))?;
    let enforced = landlock::deny_all().map_err(|_| Failed { step: Step::Landlock, errno: 0 })?;
    let bounding = limits::drop_capabilities().map_err(|_| Failed { step: Step::Capabilities, errno: 0 })?;
    limits::make_undumpable().map_err(|error| failed(Step::Limits, &error))?;
    seccomp::install(seccomp::STARTING).map_err(|_| Failed { step: Step::Seccomp, errno: 0 })?;
    let layers = Layers {
        capabilities: bounding,
        no_new_privs: true,
        seccomp: true,
        landlock: enforced.abi,
        scopes: enforced.scopes,
        mdwe,
        undumpable: true,
    };
    Ok((Confined(()), layers))
}

/// The last filter, on every thread there is, and not one fd or thread more: call it before the first byte of the
/// image. `table` is [`seccomp::SERVING`] or [`seccomp::ANSWERING`].
pub fn narrow(_: &Confined, table: &[seccomp::Row]) -> Result<(), Failed> {
    limits::close_output();
    limits::close_resource_limits().map_err(|error| failed(Step::Limits, &error))?;
    seccomp::install(table).map_err(|_| Failed { step: Step::Seccomp, errno: 0 })
}

fn failed(step: Step, error: &std::io::Error) -> Failed {
    Failed { step, errno: error.raw_os_error().unwrap_or(0) }
}
