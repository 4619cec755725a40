//! What a session is given once FUSE_INIT is answered: its file system, and by what the kernel is told of mappings.

use super::iomap::{Agreed, Mapper};
use super::{reply, request};
use crate::ext4::Filesystem;
use fuser::Notifier;
use lazaret_policy::message::COOKIES;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What becomes known of a mount after FUSE_INIT.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) filesystem: OnceLock<Filesystem>,
    /// The kernel takes mappings: that was agreed in FUSE_INIT.
    pub(super) iomap: AtomicBool,
    /// There is a device for them.
    pub(super) mapped: AtomicBool,
    /// By which the kernel is told to forget something.
    pub(super) notifier: OnceLock<Notifier>,
}

impl Opened {
    pub(super) fn with(filesystem: Filesystem) -> Self {
        Self { filesystem: OnceLock::from(filesystem), ..Self::default() }
    }

    /// The file system. Whoever asks before it is there waits.
    pub(super) fn filesystem(&self) -> &Filesystem {
        self.filesystem.wait()
    }
}

/// Gives a [`Frontend`] its file system once that is open.
pub struct Opener {
    pub(super) opened: Arc<Opened>,
    pub(super) agreed: Option<Agreed>,
}

impl Opener {
    /// Whether the kernel may be told where the bytes of files lie ([`Self::map_into`]).
    pub fn iomap_is_on(&self) -> bool {
        self.opened.iomap.load(Ordering::Acquire)
    }

    pub(super) fn tell_by(&self, notifier: Notifier) {
        let first = self.opened.notifier.set(notifier).is_ok();
        debug_assert!(first, "a worker has one session");
    }

    pub(super) fn agree(&mut self, agreed: Agreed) {
        self.agreed = Some(agreed);
    }

    /// From now on the kernel is told so, as of the device that it knows by this number: one of just the file system's
    /// range. Before the session is spawned. False where it is not on, or there can be no such number.
    pub fn map_into(&self, device: u32) -> bool {
        let Some(agreed) = self.agreed.filter(|_| COOKIES.contains(&device)) else { return false };
        request::answer_by(Mapper::new(Arc::clone(&self.opened), device, agreed));
        reply::add_to_entries();
        self.opened.mapped.store(true, Ordering::Release);
        true
    }

    /// From now on requests are answered; those that came before have waited.
    pub fn open(self, filesystem: Filesystem) {
        let first = self.opened.filesystem.set(filesystem).is_ok();
        debug_assert!(first, "an opener is used up by opening");
    }
}
