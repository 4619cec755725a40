//! A stick that is plugged in, and what was decided of it.

use super::attempt::Attempt;
use super::policy::Rule;
use super::stick::{self, Stick};
use super::users::User;
use crate::escape::escaped;
use std::path::PathBuf;
use std::time::SystemTime;

/// What was decided of a stick.
pub(super) struct Entry {
    pub stick: Stick,
    /// The same for as long as it is plugged in, and never given twice by one daemon.
    pub number: u32,
    /// When udev had looked at it last.
    pub looked: Option<SystemTime>,
    /// Whom it is for.
    pub user: Option<User>,
    pub state: State,
}

/// What is being done about it.
pub(super) enum State {
    /// Nobody sits here whom it could be mounted for.
    Waiting,
    /// The user was asked.
    Asked(Box<Rule>),
    /// It is being mounted.
    Mounting(Attempt),
    /// It is mounted here.
    Mounted(PathBuf),
    /// No rule is for it, or one says so.
    LeftAlone,
    /// It could not be mounted, and is not tried again before udev looks at it again: it may have been repaired.
    Refused,
    /// It was mounted or was not to be, and this file system is not tried again before it is plugged in again.
    Over,
}

impl Entry {
    /// Whether what was decided holds for what udev says of this stick now.
    pub(super) fn holds_for(&self, stick: &Stick) -> bool {
        match self.state {
            State::Mounting(_) | State::Mounted(_) => true,
            // Who has ended it has meant this file system, under whatever label.
            State::Over => self.stick.uuid == stick.uuid,
            State::Refused => self.stick == *stick && self.looked == stick::looked_at(&stick.name),
            State::Waiting | State::Asked(_) | State::LeftAlone => self.stick == *stick,
        }
    }

    /// Its device, escaped.
    pub(super) fn device(&self) -> String {
        escaped(&self.stick.path()).to_string()
    }

    /// A few words on it, for who is asked.
    pub(super) fn what_it_is(&self) -> String {
        let kind = self.stick.kind.as_deref().unwrap_or_default();
        let mebibytes = self.stick.size >> 20;
        let size = if mebibytes < 1024 { format!("{mebibytes} MiB") } else { format!("{} GiB", mebibytes >> 10) };
        let bus = self.stick.bus.as_ref().map_or(String::new(), |bus| format!(", {}", escaped(bus)));
        format!("{}: {size}, {kind}{bus}", self.device())
    }
}
