//! `lazaret agent`: becomes the agent, which is a program of its own.

use crate::executable;
use crate::exit::{Failure, words};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

const AGENT_HELP: &str = "\
Runs in a user's session, with the user's rights, until the session bus ends. It listens to lazaret automount at
/run/lazaret/automount.sock and hears of this user's sticks only: mounted, refused and why, pulled out while mounted,
unmounted; where the policy says `ask`, its notification has a button to mount and one to leave alone. Labels are shown as
text: without markup, and with what would hide or turn a line replaced.

As a service of the user: systemctl --user enable --now lazaret-agent

Exit codes: 0 the bus has ended, 2 there is no session bus or no notification server.";

#[derive(clap::Args)]
#[command(after_help = AGENT_HELP)]
pub(super) struct Arguments {}

pub(super) fn run() -> Result<(), Failure> {
    let program = executable::open("lazaret-agent")?;
    let error = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd())).arg0("lazaret-agent").exec();
    Err(Failure::system(words(error)).about("lazaret-agent"))
}
