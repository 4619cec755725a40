//! The talk with the kernel: FUSE_INIT while the worker can still be trusted, then requests until the unmount.
//!
//! The session is fuser's. What holds here: FUSE_INIT is answered before the device is there, so the features of the
//! connection were chosen by code that no image has touched, and the kernel refuses a second answer.

mod abi;
mod attr;
mod content;
mod frontend;
mod iomap;
mod listing;
mod opener;
mod reply;
mod request;
mod xattr;

pub use frontend::Frontend;
pub use iomap::Mapper;
pub use opener::Opener;
pub use reply::{Piece, write_reply};
pub use request::take_request;

use fuser::{Config, InitFlags, KernelConfig, Session, SessionACL, Version};
use lazaret_policy::message::Start;
use std::io;
use std::os::fd::OwnedFd;

/// Bytes a request carries at most: what one read may ask for. The kernel allows 256 pages unless told otherwise.
const REQUEST: u32 = 1 << 20;

/// What is asked of the kernel beyond fuser's own choice, where the kernel has it. Nothing that lets the server move
/// pages, reach other files or answer for other mounts: no splice, passthrough, io_uring, submounts, exports.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_REQUEST_TIMEOUT,
];

/// Answers FUSE_INIT on this /dev/fuse, and what a kernel with fuse-iomap asks next. The session takes its first other
/// request when it is spawned; the file system that it serves is given to the opener.
pub fn handshake(fuse: OwnedFd, start: &Start) -> io::Result<(Session<Frontend>, Opener)> {
    let (frontend, mut opener) = Frontend::new(start);
    reply::ask_for(start.request_timeout);
    let mut config = Config::default();
    config.n_threads = Some(usize::from(start.threads));
    let session = Session::from_fd(frontend, fuse, SessionACL::All, config)?;
    opener.tell_by(session.notifier());
    // Also where the kernel was not offered it: no later reply may be taken for this one.
    reply::ask_for(0);
    if opener.iomap_is_on() {
        opener.agree(request::agree(&session)?);
    }
    Ok((session, opener))
}

/// Takes up fuse-iomap where the kernel has it, and whether it does. The broker has seen that it knows the ioctls: the bit
/// of FUSE_INIT means something else elsewhere.
fn configure_iomap(config: &mut KernelConfig) -> bool {
    let offered = config.kernel_abi() == Version(7, abi::MINOR)
        && config.add_capabilities(InitFlags::from_bits_retain(abi::INIT_IOMAP)).is_ok();
    if offered {
        reply::ask_for_iomap();
    }
    offered
}

/// The connection's features and sizes.
fn configure(config: &mut KernelConfig, more: InitFlags) {
    for flag in WANTED.into_iter().chain([more]) {
        // A kernel that lacks one does without.
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_write(REQUEST);
    // More requests in flight than threads lets the kernel read ahead while we answer.
    let _ = config.set_max_background(64);
}
