//! Every exit code, and the one line that goes with it: those of mount(8).
//!
//! What holds here: a failure names a thing and a reason, and both were escaped before they reach a terminal.

use crate::escape::escaped;
use crate::log;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt;
use std::process::ExitCode;

/// How a command ends when it does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The command line is wrong.
    Usage = 1,
    /// The host lacks or refuses something.
    System = 2,
    /// What was checked is damaged.
    Damaged = 4,
    /// What was to be checked could not be read.
    Unreadable = 8,
    /// The source or the mountpoint is not what it has to be.
    Mount = 32,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    subject: Option<String>,
    reason: Option<String>,
    list: Vec<String>,
    local: bool,
}

impl Failure {
    /// A failure with its reason. The reason holds nothing from outside that was not escaped.
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code: code as u8, subject: None, reason: Some(reason.into()), list: vec![], local: false }
    }

    /// The command line is wrong.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self::new(Code::Usage, reason)
    }

    /// The host lacks or refuses something.
    pub(crate) fn system(reason: impl Into<String>) -> Self {
        Self::new(Code::System, reason)
    }

    /// The source or the mountpoint is not what it has to be.
    pub(crate) fn mount(reason: impl Into<String>) -> Self {
        Self::new(Code::Mount, reason)
    }

    /// Another process of ours ended with this code and said why itself.
    pub(crate) fn said(code: u8) -> Self {
        Self { code, subject: None, reason: None, list: vec![], local: false }
    }

    /// The same for a command that has codes of its own.
    #[must_use]
    pub(crate) fn with(mut self, code: Code) -> Self {
        self.code = code as u8;
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What is wrong with one object of an image, as damage of it.
    #[must_use]
    pub(crate) fn into_damage(self) -> Self {
        if self.local && self.code == Code::Mount as u8 { self.with(Code::Damaged) } else { self }
    }

    /// What is wrong with an image, for a command that tells damage from what cannot be read at all.
    #[must_use]
    pub(crate) fn into_unreadable(self) -> Self {
        if self.code == Code::Mount as u8 { self.with(Code::Unreadable) } else { self }
    }

    /// Names the thing it is about, where no closer one was named.
    #[must_use]
    pub(crate) fn about(mut self, subject: impl AsRef<OsStr>) -> Self {
        self.subject.get_or_insert_with(|| escaped(subject.as_ref()).to_string());
        self
    }

    /// It concerns one object of an image, and others can be read all the same.
    #[must_use]
    pub(crate) fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Whether it concerns one object of an image.
    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    /// Names a path of an image in front of the reason, where it is that path's.
    #[must_use]
    pub(crate) fn at(mut self, path: &OsStr) -> Self {
        if self.local {
            self.reason = self.reason.map(|reason| format!("{}: {reason}", escaped(path)));
        }
        self
    }

    /// With this behind its reason, which holds nothing from outside that was not escaped.
    #[must_use]
    pub(crate) fn adding(mut self, more: &str) -> Self {
        self.reason = self.reason.map(|reason| reason + more);
        self
    }

    /// Names another thing than the nearest.
    #[must_use]
    pub(crate) fn renamed(mut self, subject: &str) -> Self {
        self.subject = Some(escaped(subject).to_string());
        self
    }

    /// With lines to choose from, printed behind the one. They hold nothing from outside that was not escaped.
    #[must_use]
    pub(crate) fn listing(mut self, list: Vec<String>) -> Self {
        self.list = list;
        self
    }

    /// Prints the one line, unless it was said, and gives the code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.reason.is_some() {
            let lines: Vec<String> = std::iter::once(self.to_string()).chain(self.list.iter().cloned()).collect();
            say(&lines.join("\n"));
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(subject) = &self.subject {
            write!(f, "{subject}: ")?;
        }
        f.write_str(self.reason.as_deref().unwrap_or_default())
    }
}

/// One line on stderr, or in the background in the system log. A stderr that is gone is no reason to stop.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    if log::take(line) {
        return;
    }
    let _ = writeln!(std::io::stderr(), "lazaret: {line}");
}

/// What an error number means, in the middle of a sentence.
pub(crate) fn words(errno: impl Into<std::io::Error>) -> String {
    let text = errno.into().to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    // "No such file" becomes "no such file"; words like "I/O" stay.
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain([second]).chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// Whether the host refused for want of permission, and not because of the thing itself.
pub(crate) fn refused(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_nearest_thing_and_escapes_it() {
        let failure = Failure::mount("is empty").about("a\x1b[2Jb").about("outer");
        assert_eq!(failure.to_string(), "a\\x1b[2Jb: is empty");
    }

    #[test]
    fn an_error_number_reads_as_part_of_a_sentence() {
        assert_eq!(words(Errno::NOENT), "no such file or directory");
        assert_eq!(words(Errno::IO), "input/output error");
    }
}
