//! `lazaret-worker --fuzz`: an image on standard input, walked whole by this very process after its real confinement, so
//! that a call which the policy does not allow is a crash for a fuzzer as any other.
//!
//! What always holds here: the same steps in the same order as in [`main`](crate::main), the same filters without one row
//! more, the same heap of fixed size. It is in no worker but one that is built with `--features fuzz`, because whoever
//! runs this has no broker, and a worker that a broker starts should have no second way to live. A fork server, as that of
//! AFL++, stands before `main`: each child of it confines itself and has the filters on before the first byte.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use lazaret_policy::confine::{confine, narrow};
use lazaret_policy::message::Range;
use lazaret_policy::{exit, planted, seccomp};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::check::Check;
use lazaret_worker::ext4::{FileKind, Filesystem, Inode, InodeNumber, Settings};
use lazaret_worker::memory;

/// Bytes of the heap, beside which an image has no say.
const HEAP: usize = 64 << 20;
/// Objects, bytes of a file, names of a directory and steps of a check that are looked at.
const MOST_OBJECTS: usize = 256;
const MOST_BYTES: u64 = 1 << 20;
const MOST_NAMES: usize = 256;
const MOST_STEPS: usize = 4096;

/// Whether this life was asked for.
pub(crate) fn is_wanted() -> bool {
    std::env::args_os().any(|word| word == "--fuzz")
}

/// Lives it, to the end.
pub(crate) fn live() -> ! {
    // Whatever goes wrong before the image is there is no finding.
    memory::end(if walk_confined().is_some() { exit::DONE } else { exit::REFUSED })
}

fn walk_confined() -> Option<()> {
    // A panic makes calls that no filter allows, on its way to the words that nobody reads: SIGSYS.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    let _ = planted("");
    let image: OwnedFd = rustix::io::dup(rustix::stdio::stdin()).ok()?;
    let length = u64::try_from(rustix::fs::fstat(&image).ok()?.st_size).ok()?;
    let (confined, _) = confine().ok()?;
    if !memory::grant(HEAP) {
        return None;
    }
    let device = Device::map(image, Range { offset: 0, length }, &confined).ok()?;
    narrow(&confined, seccomp::ANSWERING).ok()?;
    memory::seal();
    let filesystem = Filesystem::open(device, Settings::default()).ok()?;
    if planted("call") {
        let _ = rustix::process::getppid();
    }
    walk(&filesystem);
    Some(())
}

/// Everything once: names, attributes, contents, and what a check looks at.
fn walk(filesystem: &Filesystem) {
    let (mut open, mut seen) = (vec![InodeNumber::ROOT], BTreeSet::new());
    while let Some(number) = open.pop() {
        if seen.len() >= MOST_OBJECTS || !seen.insert(number.value()) {
            continue;
        }
        let Ok(inode) = filesystem.inode(number) else { continue };
        look(filesystem, &inode);
        let mut names = 0;
        let _ = filesystem.read_dir(&inode, 0, &mut |entry| {
            open.push(entry.inode);
            let _ = filesystem.lookup(&inode, entry.name);
            names += 1;
            if names < MOST_NAMES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
    if let Ok(mut check) = Check::new(filesystem) {
        let steps = (0..MOST_STEPS).map_while(|_| check.advance().ok());
        let _ = steps.take_while(|checked| !checked.over).count();
    }
}

fn look(filesystem: &Filesystem, inode: &Inode) {
    let _ = filesystem.xattrs(inode, &mut |_| ControlFlow::Continue(()));
    let _ = filesystem.read_link(inode);
    if inode.kind != FileKind::Regular {
        return;
    }
    let (mut at, mut buffer) = (0, vec![0; 1 << 16]);
    while at < MOST_BYTES {
        match filesystem.read(inode, at, &mut buffer) {
            Ok(length @ 1..) => at = at.saturating_add(length as u64),
            _ => break,
        }
    }
}
