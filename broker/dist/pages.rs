//! Makes the man pages and the completions for bash, zsh and fish of the command lines that the program itself reads.
//!
//! What holds here: nothing is said of an option in two places. A page is what `--help` says, set as a man page. `make
//! install` runs this with the directory to write to.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// What mounts and what waits for media is the administrator's.
const ADMINISTRATION: [&str; 2] = ["mount.lazaret", "lazaret-automount"];

fn main() -> io::Result<()> {
    let place = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("the directory to write to is missing"))?;
    let place = Path::new(&place);
    for mut command in lazaret_broker::commands() {
        command.build();
        pages(&command, &place.join("man"))?;
        completions(command, &place.join("completions"))?;
    }
    Ok(())
}

/// A page for the command, and one for each command below it.
fn pages(command: &Command, place: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let section = section(&name);
    let mut page = Vec::new();
    let man = Man::new(command.clone())
        .section(section)
        .manual("Lazaret")
        .date(day()?)
        .source(concat!("lazaret ", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    let below: Vec<&Command> =
        command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help").collect();
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut text = String::from_utf8(page).map_err(io::Error::other)?;
    for other in ADMINISTRATION {
        let other = other.replace('-', "\\-");
        text = text.replace(&format!("{other}(1)"), &format!("{other}(8)"));
    }
    if let Some(help) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        text += ".SH DETAILS\n";
        text += &set(&help.to_string());
    }
    text += ".SH \"SEE ALSO\"\n";
    text += &others(&name);
    let folder = place.join(format!("man{section}"));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{name}.{section}")), text)?;
    below.into_iter().try_for_each(|one| pages(one, place))
}

/// The day of this version: that of the last entry of the package's changelog.
fn day() -> io::Result<String> {
    let mut lines = include_str!("debian/changelog").lines();
    let signed = lines.find_map(|line| line.strip_prefix(" -- ")?.split_once(">  "));
    let (_, date) = signed.ok_or_else(|| io::Error::other("the package's changelog has no date"))?;
    let date = jiff::fmt::rfc2822::parse(date).map_err(io::Error::other)?;
    Ok(date.strftime("%F").to_string())
}

fn section(name: &str) -> &'static str {
    if ADMINISTRATION.contains(&name) { "8" } else { "1" }
}

/// The pages that a reader of this one may look for.
fn others(name: &str) -> String {
    let pages = ["lazaret(1)", "lazaret\\-mount(1)", "mount.lazaret(8)", "mount(8)", "ext4(5)"];
    let own = format!("{}({})", name.replace('-', "\\-"), section(name));
    pages.into_iter().filter(|page| *page != own).collect::<Vec<_>>().join(",\n") + "\n"
}

/// Text of a help, set: a line of two columns is an entry with its meaning, lines that are farther in belong to it, and
/// all else is a paragraph.
fn set(help: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in help.lines() {
        let words = line.trim_start();
        match line.len() - words.len() {
            _ if words.is_empty() => {
                text += ".PP\n";
                inside = false;
            }
            2 => {
                let (entry, meaning) = words.split_once("  ").unwrap_or((words, ""));
                text += &format!(".TP\n\\fB{}\\fR\n", escaped(entry));
                text += &quoted(meaning.trim_start());
                inside = true;
            }
            0 if inside => {
                text += ".PP\n";
                text += &quoted(words);
                inside = false;
            }
            _ => text += &quoted(words),
        }
    }
    text
}

/// A line of text, none where there is nothing.
fn quoted(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!("\\&{}\n", escaped(words)) }
}

fn escaped(words: &str) -> String {
    words.replace('\\', "\\e").replace('-', "\\-")
}

/// For each shell, where it looks for them.
fn completions(mut command: Command, place: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let files = [
        (Shell::Bash, "bash", name.clone()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ];
    for (shell, folder, file) in files {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut text);
        fs::create_dir_all(place.join(folder))?;
        fs::File::create(place.join(folder).join(file))?.write_all(&text)?;
    }
    Ok(())
}
