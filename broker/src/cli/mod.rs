//! The command line: which words there are. Each command is a file beside this one.

mod cat;
mod check;
mod demo;
mod describe;
mod doctor;
mod extract;
mod info;
mod listing;
mod ls;
mod mount;
mod origin;
mod output;
mod row;
mod status;
mod umount;

use crate::escape::escaped;
use crate::exit::Failure;
use clap::{ColorChoice, Parser, Subcommand};

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
    /// Extract files of an image into a directory or an archive
    Extract(extract::Arguments),
    /// Tell whether a file system is sound, and what is damaged
    Check(check::Arguments),
    /// Show the mounts, and of each worker the proof of its confinement
    Status(status::Arguments),
    /// Tell what this host offers, what is missing and what is known against its kernel
    Doctor(doctor::Arguments),
    /// Mount a sample image, list it, show the worker's confinement, unmount
    Demo(demo::Arguments),
}

/// Does what the command line says.
pub(crate) fn run() -> Result<(), Failure> {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) if error.use_stderr() => return Err(Failure::usage(reason(&error.render().to_string()))),
        // --help and --version.
        Err(text) => {
            let _ = text.print();
            return Ok(());
        }
    };
    match line.command {
        Command::Mount(arguments) => mount::run(&arguments),
        Command::Umount(arguments) => umount::run(&arguments),
        Command::Info(arguments) => info::run(&arguments),
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Cat(arguments) => cat::run(&arguments),
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
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
    use clap::CommandFactory;

    #[test]
    fn a_wrong_command_line_is_told_in_one_escaped_line() {
        let told = |line: &[&str]| reason(&Line::try_parse_from(line).err().unwrap().render().to_string());
        assert_eq!(told(&["lazaret", "a\u{202e}b"]), "unrecognized subcommand 'a\\u{202e}b'; see --help");
        let missing = "the following required arguments were not provided: <SOURCE> <MOUNTPOINT>; see --help";
        assert_eq!(told(&["lazaret", "mount"]), missing);
    }

    #[test]
    fn the_command_line_is_sound() {
        Line::command().debug_assert();
    }
}
