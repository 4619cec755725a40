//! What the daemon that mounts sticks tells the agent of a desktop user, and what that answers.
//!
//! What holds here: one packet is one message with a fixed maximum, and brings no fds. Texts are cut to their maximum and
//! were escaped by the daemon; who receives them relies on neither.

use crate::message::{Message, decoded};
use serde::{Deserialize, Serialize};

/// Where the daemon listens.
pub const SOCKET: &str = "/run/lazaret/automount.sock";

/// The longest text of a notice, in letters.
pub const TEXT: usize = 300;

/// From the daemon: what has happened to a stick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Which stick: the same number for as long as it is plugged in.
    pub stick: u32,
    /// What has happened.
    pub event: Event,
    /// What the stick is called: its label, its UUID or its device.
    pub title: String,
    /// Where it is or was mounted, or why it is not.
    pub text: String,
}

/// What has happened to a stick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// It is mounted.
    Mounted,
    /// It could not be mounted.
    Refused,
    /// It was pulled out while it was mounted, and the mount has ended.
    Unplugged,
    /// The mount has ended, and it is still plugged in.
    Ended,
    /// Shall it be mounted?
    Ask,
    /// It was pulled out before somebody said whether it shall be mounted.
    Withdrawn,
}

/// To the daemon: whether a stick shall be mounted that was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The number of the question.
    pub stick: u32,
    /// Whether it shall be mounted.
    pub mount: bool,
}

impl Notice {
    /// A notice with its texts cut to what fits.
    pub fn new(stick: u32, event: Event, title: &str, text: &str) -> Self {
        let cut = |text: &str| text.chars().take(TEXT).collect();
        Self { stick, event, title: cut(title), text: cut(text) }
    }
}

impl Message for Notice {
    // Two texts of letters of up to four bytes, and numbers.
    const MAX: usize = 8 * TEXT + 32;
    decoded!();
}

impl Message for Choice {
    const MAX: usize = 8;
    decoded!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_fits() {
        let long = "\u{1f980}".repeat(2 * TEXT);
        let notice = Notice::new(u32::MAX, Event::Withdrawn, &long, &long);
        assert!(postcard::to_allocvec(&notice).unwrap().len() <= Notice::MAX);
        let choice = Choice { stick: u32::MAX, mount: true };
        assert!(postcard::to_allocvec(&choice).unwrap().len() <= Choice::MAX);
    }
}
