//! What is not there any more: sticks that were pulled out or are other ones now, media that gave way to others, and
//! mounts that have ended.

use super::{Daemon, Key, mount_of};
use crate::automount::ending::{device, end};
use crate::automount::entry::{Entry, State};
use crate::automount::exchange::Exchange;
use crate::automount::journal::Priority;
use crate::automount::place;
use crate::automount::stick::{self, Stick};
use crate::mountinfo::MountLine;
use lazaret_policy::notice::Event;

impl Daemon {
    /// Sticks that were pulled out.
    pub(super) fn forget_what_is_gone(&mut self, sticks: &[Stick], table: &[MountLine]) {
        let gone = |(key, entry): &(&Key, &Entry)| {
            let listed = sticks.iter().any(|stick| stick.name == key.0 && stick.sequence == key.1);
            // A partition is away for a moment while the kernel reads the table of its disk again, and what was unmounted by
            // hand is not mounted for that.
            let kept = || matches!(entry.state, State::Over) && stick::is_in_a_disk(key.1);
            !listed && !stick::is_there(&key.0, key.1) && !kept()
        };
        let gone: Vec<Key> = self.sticks.iter().filter(gone).map(|(key, _)| key.clone()).collect();
        for key in gone {
            let Some(entry) = self.sticks.remove(&key) else { continue };
            if matches!(entry.state, State::Mounting(_) | State::Mounted(_)) && stick::has_medium(&key.0) {
                self.exchanged.insert(key.0.clone(), Exchange::new());
            }
            // The command ends by itself: what it reads is gone. What it may still mount is ended at the next look.
            if let State::Mounting(attempt) = entry.state {
                self.lost.push(attempt);
                continue;
            }
            match &entry.state {
                State::Mounted(place) => {
                    match mount_of(table, &key.0, place) {
                        Some(line) => self.begin_end(line),
                        None => place::remove(place),
                    }
                    let line = "pulled out while it was mounted; the mount is ended";
                    self.voice.tell(&entry, Priority::Warning, Event::Unplugged, line, place);
                }
                State::Asked(_) => self.voice.tell_agents(&entry, Event::Withdrawn, ""),
                _ => {}
            }
        }
    }

    /// Sticks of which udev says something else now, since they were formatted, repaired or given another label: of those that
    /// are not mounted it is decided anew.
    pub(super) fn forget_what_is_other(&mut self, sticks: &[Stick]) {
        for stick in sticks {
            let key = (stick.name.clone(), stick.sequence);
            if self.sticks.get(&key).is_none_or(|entry| entry.holds_for(stick)) {
                continue;
            }
            if let Some(entry) = self.sticks.remove(&key)
                && matches!(entry.state, State::Asked(_))
            {
                self.voice.tell_agents(&entry, Event::Withdrawn, "");
            }
        }
    }

    /// Mounts of ours whose device is not there: also those of a daemon before this one.
    pub(super) fn end_what_is_gone(&mut self, sticks: &[Stick], table: &[MountLine]) {
        for line in table {
            let Some(name) = device(line) else { continue };
            let own = self.only.as_ref().is_none_or(|only| only == name);
            let there = sticks.iter().any(|stick| stick.name == name) || stick::has_medium(name);
            if own && !there {
                self.begin_end(line);
            }
        }
    }

    /// Mounts of a medium that has given way to another, which nothing is done with before that is known.
    pub(super) fn end_what_was_exchanged(&mut self, table: &[MountLine]) {
        let mut exchanged = std::mem::take(&mut self.exchanged);
        exchanged.retain(|name, exchange| {
            let mounted = table.iter().filter(|line| device(line) == Some(name));
            let mut is_busy = self.lost.iter().any(|attempt| attempt.device == *name);
            for line in mounted {
                exchange.see(line);
                self.begin_end(line);
                is_busy = true;
            }
            stick::has_medium(name) && (is_busy || !exchange.is_over(name))
        });
        self.exchanged = exchanged;
    }

    pub(super) fn begin_end(&mut self, line: &MountLine) {
        if self.ending.insert(line.id, line.mountpoint.clone()).is_none() {
            end(line);
        }
    }

    /// Mounts that are not there any more, though the stick is.
    pub(super) fn see_what_has_ended(&mut self, table: &[MountLine]) {
        let mut ended = vec![];
        for (key, entry) in &mut self.sticks {
            if let State::Mounted(place) = &entry.state
                && mount_of(table, &key.0, place).is_none()
            {
                let place = place.clone();
                entry.state = State::Over;
                ended.push((key.clone(), place));
            }
        }
        for (key, place) in ended {
            place::remove(&place);
            if let Some(entry) = self.sticks.get(&key) {
                self.voice.tell(entry, Priority::Notice, Event::Ended, "the mount has ended", &place);
            }
        }
    }
}
