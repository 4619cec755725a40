//! The daemon: waits until something has changed, looks at what is plugged in and what is mounted, and does what is
//! missing.
//!
//! What holds here: it waits for no medium, no user and no agent; each look is a whole one, so what was missed is seen at
//! the next. What it remembers is only what was decided of a stick that is plugged in now; losing that costs a question
//! asked twice or a mount made again, never one that is not found.

mod gone;

use super::agents::Agents;
use super::attempt::{Attempt, Outcome};
use super::ending::device;
use super::entry::{Entry, State};
use super::events::Events;
use super::exchange::Exchange;
use super::journal::{self, Journal, Priority};
use super::place;
use super::policy::{Action, Policy, Rule, Whom};
use super::stick::{self, Stick};
use super::users::{self, User};
use super::voice::Voice;
use crate::escape::escaped;
use crate::exit::{Code, Failure, words};
use crate::mountinfo::{self, MountLine};
use crate::served;
use crate::signal::Signals;
use lazaret_policy::notice::Event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::umask;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// When to look again while a stick waits for somebody to sit down: logind tells nobody who does not ask by D-Bus.
const SEAT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How long a process for one device waits for its mount to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many file systems of one disk are mounted, and of all disks together. Each takes its memory, and a stick of a hundred
/// partitions is easily made.
const MOST_OF_ONE: usize = 8;
const MOST: usize = 32;

/// A stick, for as long as it is plugged in: its name, and the number of its medium.
type Key = (String, u64);

struct Daemon {
    path: PathBuf,
    policy: Policy,
    /// The one device that this process is for, if it is for one.
    only: Option<String>,
    voice: Voice,
    sticks: BTreeMap<Key, Entry>,
    /// Mounts that were asked to end: their numbers, and where they are.
    ending: BTreeMap<u64, PathBuf>,
    /// Devices whose medium was exchanged under a mount, and is not known yet.
    exchanged: BTreeMap<String, Exchange>,
    /// Commands that mount sticks which have been pulled out since.
    lost: Vec<Attempt>,
    /// The number of the last stick.
    count: u32,
}

/// Mounts what is plugged in until a signal comes. With `only`, that device alone, and until its mount has ended.
pub(crate) fn run(path: &Path, only: Option<String>) -> Result<(), Failure> {
    let policy = Policy::read(path)?;
    let signals = Signals::block()?;
    // Whoever starts us: directories above a user's are for all.
    umask(Mode::WGRP | Mode::WOTH);
    // Before the first look, so that nothing is missed between the two.
    let events = Events::listen()?;
    let agents = if only.is_none() { Some(Agents::listen()?) } else { None };
    let mut daemon = Daemon {
        path: path.to_owned(),
        policy,
        only,
        voice: Voice { journal: Journal::open(), agents },
        sticks: BTreeMap::new(),
        ending: BTreeMap::new(),
        exchanged: BTreeMap::new(),
        lost: vec![],
        count: 0,
    };
    daemon.look()?;
    daemon.tidy();
    loop {
        if let Some(how) = daemon.is_over() {
            return how;
        }
        daemon.ready();
        daemon.wait(&events, &signals);
        events.drain();
        while let Some(signal) = signals.take() {
            if signal != libc::SIGHUP {
                journal::stopping();
                return daemon.stop(&events);
            }
            daemon.reload();
        }
        daemon.hear_agents();
        daemon.look()?;
    }
}

impl Daemon {
    /// Until something has changed.
    fn wait(&self, events: &Events, signals: &Signals) {
        let mut watched: Vec<PollFd<'_>> = events.watched().into();
        watched.push(PollFd::new(signals, PollFlags::IN));
        watched.extend(self.voice.agents.iter().flat_map(Agents::watched));
        watched.extend(self.exchanged.values().filter_map(Exchange::watched));
        watched.extend(self.attempts().map(|attempt| PollFd::from_borrowed_fd(attempt.as_fd(), PollFlags::IN)));
        let waiting = self.sticks.values().any(|entry| matches!(entry.state, State::Waiting));
        let _ = poll(&mut watched, waiting.then_some(&SEAT));
    }

    /// Looks at everything, and does what is missing.
    fn look(&mut self) -> Result<(), Failure> {
        let table = mountinfo::read()
            .map_err(|error| Failure::system(format!("the mount table cannot be read: {}", words(error))))?;
        self.ending.retain(|id, place| {
            let there = table.iter().any(|line| line.id == *id);
            if !there {
                place::remove(place);
            }
            there
        });
        let mut sticks = stick::all();
        sticks.retain(|stick| self.only.as_ref().is_none_or(|only| *only == stick.name));
        self.forget_what_is_gone(&sticks, &table);
        self.forget_what_is_other(&sticks);
        self.end_what_is_gone(&sticks, &table);
        self.see_what_has_ended(&table);
        self.end_what_was_exchanged(&table);
        sticks.retain(|stick| !self.exchanged.contains_key(&stick.name));
        for stick in sticks {
            self.decide(stick, &table);
        }
        self.conclude();
        Ok(())
    }

    /// What is done with a stick that is there.
    fn decide(&mut self, stick: Stick, table: &[MountLine]) {
        let key = (stick.name.clone(), stick.sequence);
        let number = match self.sticks.get(&key) {
            None => {
                self.count = self.count.wrapping_add(1);
                self.count
            }
            Some(entry) if matches!(entry.state, State::Waiting) => entry.number,
            Some(_) => return,
        };
        let looked = stick::looked_at(&stick.name);
        let mut entry = Entry { stick, number, looked, user: None, state: State::LeftAlone };
        let mounted = table.iter().rfind(|line| device(line) == Some(&entry.stick.name));
        if let Some(line) = mounted {
            // The one of the stick that was plugged in here before has to be gone first.
            if self.ending.contains_key(&line.id) {
                return;
            }
            // Its broker was killed. Once it is gone the stick is mounted anew.
            if served::pair(line.device).is_none() {
                self.begin_end(line);
                return;
            }
            entry.user = line.user.map(|uid| User { uid, gid: 0, name: String::new() });
            entry.state = State::Mounted(line.mountpoint.clone());
            self.voice.say(&entry, Priority::Info, "found", "found mounted", &line.mountpoint);
        } else if let Some(rule) = self.policy.rule(&entry.stick).cloned() {
            entry.user = match &rule.whom {
                Whom::User(user) => Some(user.clone()),
                Whom::Seat => users::at_seat(),
            };
            match (&entry.user, rule.action) {
                (_, Action::Ignore) => self.voice.say(&entry, Priority::Info, "ignored", "left alone", Path::new("")),
                (None, _) => {
                    if !self.sticks.contains_key(&key) {
                        let line = "nobody sits here yet whom it could be mounted for";
                        self.voice.say(&entry, Priority::Info, "waiting", line, Path::new(""));
                    }
                    entry.state = State::Waiting;
                }
                (Some(_), Action::Ask) if self.voice.agents.is_some() => {
                    self.voice.say(&entry, Priority::Info, "asked", "the user is asked", Path::new(""));
                    entry.state = State::Asked(Box::new(rule));
                    self.voice.tell_agents(&entry, Event::Ask, &entry.what_it_is());
                }
                (Some(_), Action::Ask) => {
                    self.voice.say(&entry, Priority::Warning, "refused", "nobody can be asked here", Path::new(""));
                    entry.state = State::Refused;
                }
                // Its name is free again in a moment.
                (Some(user), Action::Mount)
                    if self.ending.values().any(|place| *place == wish(&entry, user, &rule)) =>
                {
                    return;
                }
                (Some(user), Action::Mount) => entry.state = self.begin(&entry, user, &rule),
            }
        } else {
            self.voice.say(&entry, Priority::Info, "ignored", "no rule is for it", Path::new(""));
        }
        self.sticks.insert(key, entry);
    }

    /// Begins to mount it.
    fn begin(&self, entry: &Entry, user: &User, rule: &Rule) -> State {
        let used = |entry: &&Entry| matches!(entry.state, State::Mounting(_) | State::Mounted(_));
        let mounted = || self.sticks.values().filter(used);
        let same = |other: &&Entry| entry.stick.sequence != 0 && other.stick.sequence == entry.stick.sequence;
        if mounted().count() >= MOST || mounted().filter(same).count() >= MOST_OF_ONE {
            let reason = format!("as many are mounted as may be: {MOST_OF_ONE} of one disk, {MOST} in all");
            self.voice.refuse(entry, &reason);
            return State::Refused;
        }
        let made = place::make(&wish(entry, user, rule), user, &self.taken());
        let begun = made.and_then(|place| {
            Attempt::begin(&entry.stick, user, &rule.options, &place).inspect_err(|_| place::remove(&place))
        });
        match begun {
            Ok(attempt) => State::Mounting(attempt),
            Err(failure) => {
                self.voice.refuse(entry, &failure.to_string());
                State::Refused
            }
        }
    }

    /// Commands that have ended.
    fn conclude(&mut self) {
        self.lost.retain_mut(|attempt| {
            let over = attempt.outcome().is_some();
            if over {
                place::remove(&attempt.place);
            }
            !over
        });
        let mut over: Vec<(Key, PathBuf, Outcome)> = vec![];
        for (key, entry) in &mut self.sticks {
            if let State::Mounting(attempt) = &mut entry.state
                && let Some(outcome) = attempt.outcome()
            {
                let place = attempt.place.clone();
                entry.state = if outcome.mounted { State::Mounted(place.clone()) } else { State::Refused };
                over.push((key.clone(), place, outcome));
            }
        }
        for (key, place, outcome) in over {
            let Some(entry) = self.sticks.get(&key) else { continue };
            if outcome.mounted {
                self.voice.tell(entry, Priority::Notice, Event::Mounted, "mounted", &place);
                for line in &outcome.lines {
                    self.voice.journal.say(Priority::Warning, line, &[("DEVICE", &entry.device())]);
                }
            } else {
                place::remove(&place);
                self.voice
                    .refuse(entry, outcome.lines.last().map_or("the command that mounts has failed", |line| line));
            }
        }
    }

    /// Commands that have not ended yet.
    fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        let wanted = self.sticks.values().filter_map(|entry| match &entry.state {
            State::Mounting(attempt) => Some(attempt),
            _ => None,
        });
        wanted.chain(&self.lost)
    }

    /// Directories that are to be mounted on, and are not yet.
    fn taken(&self) -> BTreeSet<PathBuf> {
        self.attempts().map(|attempt| attempt.place.clone()).collect()
    }

    /// Removes what a daemon before this one has left.
    fn tidy(&self) {
        place::tidy(&self.policy.places(), &self.taken());
    }

    /// Who has connected is told what is asked; what was answered is done.
    fn hear_agents(&mut self) {
        let Some(agents) = &mut self.voice.agents else { return };
        let (fresh, choices) = (agents.admit(), agents.choices());
        let asked = self.sticks.values().filter(|entry| matches!(entry.state, State::Asked(_)));
        for entry in asked {
            let uid = entry.user.as_ref().map(|user| user.uid);
            if uid.is_some_and(|uid| fresh.contains(&uid)) {
                self.voice.tell_agents(entry, Event::Ask, &entry.what_it_is());
            }
        }
        for (uid, choice) in choices {
            let asked = |entry: &&Entry| {
                let own = entry.user.as_ref().is_some_and(|user| user.uid == uid);
                own && entry.number == choice.stick && matches!(entry.state, State::Asked(_))
            };
            let Some(entry) = self.sticks.values().find(asked) else { continue };
            let key = (entry.stick.name.clone(), entry.stick.sequence);
            let state = match (&entry.state, &entry.user) {
                (State::Asked(rule), Some(user)) if choice.mount => self.begin(entry, user, rule),
                _ => {
                    self.voice.say(entry, Priority::Info, "ignored", "left alone, as the user wishes", Path::new(""));
                    State::Over
                }
            };
            if let Some(entry) = self.sticks.get_mut(&key) {
                entry.state = state;
            }
        }
    }

    /// Takes a new policy if it is good. Sticks that are mounted stay so; of others it is decided again.
    fn reload(&mut self) {
        match Policy::read(&self.path) {
            Ok(policy) => {
                self.policy = policy;
                let line = format!("{}: read again, {} rules", escaped(&self.path), self.policy.count());
                self.voice.journal.say(Priority::Notice, &line, &[("EVENT", "reloaded")]);
                self.sticks.retain(|_, entry| match entry.state {
                    State::Mounting(_) | State::Mounted(_) | State::Refused | State::Over => true,
                    State::Waiting | State::Asked(_) | State::LeftAlone => false,
                });
            }
            Err(failure) => {
                let line = format!("{failure}; the policy that was read before stays in force");
                self.voice.journal.say(Priority::Warning, &line, &[("EVENT", "not-reloaded")]);
            }
        }
    }

    /// Mounts stay when the daemon ends, and it finds them again; one that is for a single device takes it along.
    fn stop(&mut self, events: &Events) -> Result<(), Failure> {
        let Some(name) = self.only.clone() else { return Ok(()) };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // Before the table is read: what a command has mounted by now stands there.
            self.conclude();
            let table = mountinfo::read().unwrap_or_default();
            let left: Vec<&MountLine> = table.iter().filter(|line| device(line) == Some(&name)).collect();
            if left.is_empty() && self.attempts().next().is_none() {
                break;
            }
            left.into_iter().for_each(|line| self.begin_end(line));
            let mut watched: Vec<PollFd<'_>> = events.watched().into();
            watched.extend(self.attempts().map(|attempt| PollFd::from_borrowed_fd(attempt.as_fd(), PollFlags::IN)));
            let _ = poll(&mut watched, Some(&SEAT));
            events.drain();
        }
        let mounted = self.sticks.values().filter_map(|entry| match &entry.state {
            State::Mounted(place) => Some(place),
            _ => None,
        });
        // Those of a stick that was pulled out just before it is not known any more.
        mounted.chain(self.ending.values()).for_each(|place| place::remove(place));
        Ok(())
    }

    /// Whether a process for a single device has nothing more to do, and how that ended.
    fn is_over(&self) -> Option<Result<(), Failure>> {
        let name = self.only.as_ref()?;
        let there = Path::new("/sys/class/block").join(name).exists();
        match self.sticks.values().next().map(|entry| &entry.state) {
            _ if !self.ending.is_empty() || !self.lost.is_empty() => None,
            Some(State::Mounting(_) | State::Mounted(_) | State::Waiting | State::Asked(_)) => None,
            Some(State::LeftAlone | State::Over) => Some(Ok(())),
            // It was said why.
            Some(State::Refused) => Some(Err(Failure::said(Code::Mount as u8))),
            None if there && self.count == 0 && stick::was_looked_at(name) => {
                let what = "udev has found no ext2, ext3 or ext4 file system there";
                Some(Err(Failure::mount(what).about(Path::new("/dev").join(name))))
            }
            None if there && self.count == 0 => None,
            None => Some(Ok(())),
        }
    }

    fn ready(&self) {
        let count = self.sticks.values().filter(|entry| matches!(entry.state, State::Mounted(_))).count();
        if self.only.is_none() || count > 0 {
            journal::ready(&format!("{count} mounted, {} plugged in", self.sticks.len()));
        }
    }
}

/// Where a stick is to be mounted, if nothing else is there.
fn wish(entry: &Entry, user: &User, rule: &Rule) -> PathBuf {
    rule.place(user).join(rule.name.clone().unwrap_or_else(|| entry.stick.directory()))
}

/// The mount of this device at this place.
fn mount_of<'a>(table: &'a [MountLine], name: &str, place: &Path) -> Option<&'a MountLine> {
    table.iter().rfind(|line| line.mountpoint == place && device(line) == Some(name))
}
