//! What the daemon tells: the journal everything, a user's agents what becomes of his sticks.
//!
//! What holds here: what comes from a stick is escaped, and reasons are the words of our own command.

use super::agents::Agents;
use super::entry::Entry;
use super::journal::{Journal, Priority};
use crate::escape::escaped;
use lazaret_policy::notice::{Event, Notice};
use std::path::Path;

/// Where it is told.
pub(super) struct Voice {
    pub journal: Journal,
    /// None where the process is for one device.
    pub agents: Option<Agents>,
}

impl Voice {
    /// Tells the journal and the user.
    pub(super) fn tell(&self, entry: &Entry, priority: Priority, event: Event, line: &str, place: &Path) {
        let name = match event {
            Event::Mounted => "mounted",
            Event::Refused => "refused",
            Event::Unplugged => "unplugged",
            Event::Ended => "ended",
            Event::Ask => "asked",
            Event::Withdrawn => "withdrawn",
        };
        self.say(entry, priority, name, line, place);
        self.tell_agents(entry, event, &escaped(place).to_string());
    }

    /// Tells both why it is not mounted.
    pub(super) fn refuse(&self, entry: &Entry, reason: &str) {
        let device = entry.device();
        let reason = reason.strip_prefix(&format!("{device}: ")).unwrap_or(reason);
        let line = format!("{device} ({}): refused: {reason}", entry.stick.title());
        let fields = [("EVENT", "refused"), ("DEVICE", &device), ("LABEL", &entry.stick.title()), ("REASON", reason)];
        self.journal.say(Priority::Warning, &line, &fields);
        self.tell_agents(entry, Event::Refused, reason);
    }

    /// Tells the journal.
    pub(super) fn say(&self, entry: &Entry, priority: Priority, event: &str, line: &str, place: &Path) {
        let (device, title, place) = (entry.device(), entry.stick.title(), escaped(place).to_string());
        let at = if place.is_empty() { String::new() } else { format!(": {place}") };
        let uid = entry.user.as_ref().map_or(String::new(), |user| user.uid.to_string());
        let uuid = entry.stick.uuid.as_ref().map_or(String::new(), |uuid| escaped(uuid).to_string());
        let fields = [
            ("EVENT", event),
            ("DEVICE", &device),
            ("LABEL", &title),
            ("UUID", &uuid),
            ("UID", &uid),
            ("PLACE", &place),
        ];
        self.journal.say(priority, &format!("{device} ({title}): {line}{at}"), &fields);
    }

    /// Tells the user.
    pub(super) fn tell_agents(&self, entry: &Entry, event: Event, text: &str) {
        let (Some(agents), Some(user)) = (&self.agents, &entry.user) else { return };
        agents.tell(user.uid, &Notice::new(entry.number, event, &entry.stick.title(), text));
    }
}
