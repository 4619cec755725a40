//! The command line: which words there are. Each command is a file beside this one.

mod agent;
mod automount;
mod cat;
mod check;
mod demo;
mod describe;
mod doctor;
mod extract;
mod helper;
mod info;
mod listing;
mod ls;
mod map;
mod mount;
mod origin;
mod output;
mod row;
mod setup;
mod status;
mod umount;

use crate::escape::escaped;
use crate::exit::Failure;
use clap::{ColorChoice, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;

/// Mounts ext2, ext3 and ext4 from media nobody vouches for: read-only, by a worker that is confined before it sees
/// the first byte.
#[derive(Parser)]
#[command(name = "lazaret", version, color = ColorChoice::Never, arg_required_else_help = false)]
#[command(after_help = "Exit codes: 0 done, 1 usage, 2 the host lacks or refuses something, 32 mount failure.")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mount an image file or a block device; returns when the mount answers
    Mount(mount::Arguments),
    /// Unmount what lazaret has mounted
    Umount(umount::Arguments),
    /// Tell what lies on an image, and whether it can be read
    Info(info::Arguments),
    /// List a directory of an image
    Ls(ls::Arguments),
    /// Print files of an image
    Cat(cat::Arguments),
    /// Tell where on the device the bytes of a file lie
    Map(map::Arguments),
    /// Extract files of an image into a directory or an archive
    Extract(extract::Arguments),
    /// Tell whether a file system is sound, and what is damaged
    Check(check::Arguments),
    /// Show the mounts, and of each worker the proof of its confinement
    Status(status::Arguments),
    /// Tell what this host offers, what is missing and what is known against its kernel
    Doctor(doctor::Arguments),
    /// Mount what is plugged in by the rules of a policy, and take it away when it is pulled out
    Automount(automount::Arguments),
    /// Show what the daemon does with this user's sticks as notifications of the desktop
    Agent(agent::Arguments),
    /// Let the desktop mount removable media through lazaret
    Setup(setup::Arguments),
    /// Mount a sample image, list it, show the worker's confinement, unmount
    Demo(demo::Arguments),
}

/// Every command line there is, by the name of the program that reads it: for man pages and completions.
#[must_use]
pub fn commands() -> Vec<clap::Command> {
    vec![Line::command(), helper::Line::command()]
}

/// Does what the command line says, as what the name of the program says.
pub(crate) fn run() -> Result<(), Failure> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.first().and_then(|name| helper::name(name)) {
        Some(name) => parsed::<helper::Line>(arguments)?.map_or(Ok(()), |line| helper::run(line, name)),
        None => parsed::<Line>(arguments)?.map_or(Ok(()), |line| line.command.run()),
    }
}

/// The command line, or nothing where it was asked for help or for the version.
fn parsed<T: Parser>(arguments: Vec<OsString>) -> Result<Option<T>, Failure> {
    match T::try_parse_from(arguments) {
        Ok(line) => Ok(Some(line)),
        Err(error) if error.use_stderr() => Err(Failure::usage(reason(&error.render().to_string()))),
        // --help and --version.
        Err(text) => {
            let _ = text.print();
            Ok(None)
        }
    }
}

impl Command {
    fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Mount(arguments) => mount::run(arguments),
            Self::Umount(arguments) => umount::run(arguments),
            Self::Info(arguments) => info::run(arguments),
            Self::Ls(arguments) => ls::run(arguments),
            Self::Cat(arguments) => cat::run(arguments),
            Self::Map(arguments) => map::run(arguments),
            Self::Extract(arguments) => extract::run(arguments),
            Self::Check(arguments) => check::run(arguments),
            Self::Status(arguments) => status::run(arguments),
            Self::Doctor(arguments) => doctor::run(arguments),
            Self::Automount(arguments) => automount::run(arguments),
            Self::Agent(agent::Arguments {}) => agent::run(),
            Self::Setup(arguments) => setup::run(arguments),
            Self::Demo(arguments) => demo::run(arguments),
        }
    }
}

/// The first paragraph of what clap says, as one line. It repeats words of the command line, so it is escaped.
fn reason(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    format!("{}; see --help", escaped(line.strip_prefix("error: ").unwrap_or(&line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_told_in_one_escaped_line() {
        let told = |line: &[&str]| reason(&Line::try_parse_from(line).err().unwrap().render().to_string());
        assert_eq!(told(&["lazaret", "a\u{202e}b"]), "unrecognized subcommand 'a\\u{202e}b'; see --help");
        let missing = "the following required arguments were not provided: <SOURCE> <MOUNTPOINT>; see --help";
        assert_eq!(told(&["lazaret", "mount"]), missing);
    }

    #[test]
    fn the_command_line_is_sound() {
        commands().into_iter().for_each(clap::Command::debug_assert);
    }
}
