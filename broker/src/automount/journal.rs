//! What the daemon says: to the journal with fields that can be searched for, else a line on stderr; and to systemd.
//!
//! What holds here: every value was escaped, so a line is a line and a field a field. Nobody is waited for.

use crate::exit::say;
use sd_notify::NotifyState;
use std::fmt::Write;
use std::os::unix::net::UnixDatagram;

/// Where journald takes messages with fields (systemd.io, "Native Journal Protocol").
const PLACE: &str = "/run/systemd/journal/socket";

/// How much a line matters, as in syslog(3).
#[derive(Clone, Copy, Debug)]
pub(super) enum Priority {
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// Where lines go.
pub(super) struct Journal(Option<UnixDatagram>);

impl Journal {
    /// The journal, where systemd has connected stderr to it; else stderr itself.
    pub(super) fn open() -> Self {
        let socket = std::env::var_os("JOURNAL_STREAM").and_then(|_| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            socket.connect(PLACE).ok()?;
            Some(socket)
        });
        Self(socket)
    }

    /// Says a line, with fields.
    pub(super) fn say(&self, priority: Priority, line: &str, fields: &[(&str, &str)]) {
        let message = message(priority, line, fields);
        if self.0.as_ref().is_none_or(|socket| socket.send(message.as_bytes()).is_err()) {
            say(line);
        }
    }
}

/// A line for each field. Values have no line breaks: they were escaped.
fn message(priority: Priority, line: &str, fields: &[(&str, &str)]) -> String {
    let mut message = format!("MESSAGE={line}\nPRIORITY={}\nSYSLOG_IDENTIFIER=lazaret\n", priority as u8);
    for (name, value) in fields {
        // Writing into a text cannot fail.
        let _ = writeln!(message, "LAZARET_{name}={}", value.replace('\n', " "));
    }
    message
}

/// Tells systemd that the daemon does its work, and what it is at.
pub(super) fn ready(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that it ends.
pub(super) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_line() {
        let text = message(Priority::Notice, "sdb1: mounted", &[("DEVICE", "/dev/sdb1"), ("LABEL", "a\nPRIORITY=0")]);
        let expected = "MESSAGE=sdb1: mounted\nPRIORITY=5\nSYSLOG_IDENTIFIER=lazaret\nLAZARET_DEVICE=/dev/sdb1\n\
                        LAZARET_LABEL=a PRIORITY=0\n";
        assert_eq!(text, expected);
    }
}
