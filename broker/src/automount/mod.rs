//! `lazaret automount`: what is plugged in is mounted by the rules of a policy, and taken away when it is pulled out.
//!
//! What holds here: nothing of a medium is parsed. What is known of it was found by udev and stands in udev's database;
//! what is mounted is known from the kernel. Both are looked at anew each time that something has changed, so the daemon
//! may be ended and started at any moment and finds everything again.
//!
//! The way of a stick through these files: `events` → `stick` → `policy` → `users` → `place` → `attempt` → `ending`
//! (or `exchange`); `daemon` is the whole of it, `voice` tells the `journal` and the `agents`.

mod agents;
mod attempt;
mod daemon;
mod ending;
mod entry;
mod events;
mod exchange;
mod glob;
mod journal;
mod place;
pub(crate) mod policy;
mod stick;
mod users;
mod voice;

pub(crate) use daemon::run;
