//! Where the broker's words go once it is in the background and its stderr is nobody's: to the system log.
//!
//! What holds here: the log is found before the broker's own filter is on, and never waited for: a log that is full or
//! gone loses a line and holds up no mount. Lines are those of stderr, escaped before they come here. The form is that of
//! syslog(3), which journald, rsyslog and busybox take; it is a line, so there is no library for it here.

use rustix::io::write;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

/// Where syslog(3) sends to.
const PLACE: &str = "/dev/log";
/// A daemon's (3, times 8) warning (4).
const PRIORITY: u8 = 3 << 3 | 4;

/// The log, and how each line begins.
static LOG: OnceLock<(Option<UnixDatagram>, String)> = OnceLock::new();

/// From now on lines go to the system log; to nobody where there is none.
pub(crate) fn open() {
    LOG.get_or_init(|| (connect(), format!("<{PRIORITY}>lazaret[{}]: ", std::process::id())));
}

fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(PLACE).ok()?;
    Some(socket)
}

/// Writes a line there. False where lines are still stderr's.
pub(crate) fn take(line: &str) -> bool {
    let Some((socket, begin)) = LOG.get() else { return false };
    if let Some(socket) = socket {
        // A plain write(2): the filter allows no other way.
        let _ = write(socket, format!("{begin}{line}").as_bytes());
    }
    true
}
