//! The FUSE connection behind a mount, as `/sys/fs/fuse/connections/N` shows it: how many requests wait, and the
//! switch that ends them all.
//!
//! What holds here: both files are opened at the start and stay open, so that nothing has to be looked up when the
//! worker has gone silent. Where fusectl is not mounted, neither is there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A connection, seen from the side.
#[derive(Debug)]
pub(crate) struct Connection {
    waiting: Option<File>,
    abort: Option<File>,
}

impl Connection {
    /// Opens what there is of the connection with this number.
    pub(crate) fn open(number: u32) -> Self {
        let place = Path::new("/sys/fs/fuse/connections").join(number.to_string());
        let abort = File::options().write(true).open(place.join("abort")).ok();
        Self { waiting: File::open(place.join("waiting")).ok(), abort }
    }

    /// Requests that wait for an answer; `None` where that is not to be seen.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let mut text = [0; 24];
        let length = self.waiting.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
    }

    /// Ends every request that waits with an error. Clients of a silent server cannot even be killed before this.
    pub(crate) fn abort(&self) {
        if let Some(abort) = &self.abort {
            let _ = abort.write_at(b"1", 0);
        }
    }
}
