//! `lazaret-agent`: shows a desktop user what the daemon does with his sticks, and brings his answer back. `lazaret agent`
//! starts it.
//!
//! What holds here: it has its user's rights and no others, and the daemon takes from it one small message. It is a program
//! of its own, so that the privileged one links no D-Bus. Texts come from sticks: whatever they hold, a notification server
//! shows them and does nothing else.

mod daemon;
mod desktop;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    match zbus::block_on(desktop::serve(daemon::Daemon::listen())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What a bus says may be anything.
            eprintln!("lazaret: the desktop's notifications: {}", text::harmless(&error.to_string(), false));
            ExitCode::from(2)
        }
    }
}
