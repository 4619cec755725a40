//! The policy: which stick is mounted, for whom, where and how. TOML; `lazaret.toml(5)` tells the same to its writer.
//!
//! What holds here: whatever is not known, or cannot mean anything, is refused with its line before any of it counts;
//! the first rule that matches decides, and what no rule matches is left alone.

use super::glob;
use super::stick::{KINDS, Stick};
use super::users::{self, User};
use crate::escape::escaped;
use crate::exit::{Failure, words};
use crate::options::{Options, size};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use toml::Spanned;

/// Where a policy lies unless told.
pub(crate) const PLACE: &str = "/etc/lazaret/lazaret.toml";
/// A policy is no longer than this, in bytes.
const LONGEST: u64 = 1 << 20;
/// Where a stick is mounted unless told: `%u` is the user's name.
const WHERE: &str = "/run/media/%u";

/// A policy that was checked.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

/// A rule that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    wanted: Wanted,
    /// What is done with a stick that it matches.
    pub action: Action,
    /// Words for `-o`.
    pub options: String,
    /// Whom a mount is for.
    pub whom: Whom,
    /// The directory's name, if it is not the stick's label.
    pub name: Option<String>,
    place: String,
}

/// What is done with a stick.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is mounted.
    Mount,
    /// The user is asked, and it is mounted if he says so.
    Ask,
    /// It is left alone.
    Ignore,
}

/// Whom a mount is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Who sits at this machine when it is plugged in.
    Seat,
    /// Always this user.
    User(User),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    rule: Vec<WrittenRule>,
}

/// What holds for each rule that does not say otherwise.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    options: Option<Spanned<String>>,
    #[serde(rename = "where")]
    place: Option<Spanned<String>>,
    #[serde(rename = "for")]
    whom: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    #[serde(default, rename = "match")]
    wanted: Wanted,
    action: Action,
    options: Option<Spanned<String>>,
    #[serde(rename = "where")]
    place: Option<Spanned<String>>,
    #[serde(rename = "for")]
    whom: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
}

/// What a stick has to be: everything that is said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    bus: Option<Patterns>,
    vendor: Option<Patterns>,
    product: Option<Patterns>,
    serial: Option<Patterns>,
    port: Option<Patterns>,
    #[serde(default, rename = "fs", deserialize_with = "kinds")]
    kind: Option<Patterns>,
    label: Option<Patterns>,
    uuid: Option<Patterns>,
    #[serde(default, deserialize_with = "sizes")]
    size: Option<RangeInclusive<u64>>,
}

/// One pattern, or a list of which one has to match.
#[derive(Clone, Debug)]
struct Patterns(Vec<String>);

/// A place in the text, and what is wrong there.
type Wrong = (Option<Range<usize>>, String);

impl Policy {
    /// Reads and checks a policy. What is wrong with it is told with its line.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let told = |error: std::io::Error| Failure::system(format!("the policy cannot be read: {}", words(error)));
        let mut bytes = vec![];
        let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
        let checked = read.map_err(told).and_then(|_| {
            if bytes.len() as u64 > LONGEST {
                return Err(Failure::usage("is longer than 1 MiB and no policy"));
            }
            let text = std::str::from_utf8(&bytes)
                .map_err(|error| Failure::usage(format!("{}: is not UTF-8", at(&bytes, error.valid_up_to()))))?;
            Self::parse(text).map_err(|(span, what)| match span {
                Some(span) => Failure::usage(format!("{}: {what}", at(&bytes, span.start))),
                None => Failure::usage(what),
            })
        });
        checked.map_err(|failure| failure.about(path))
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let written: Written = toml::from_str(text).map_err(|error| (error.span(), one_line(error.message())))?;
        let Written { defaults, rule } = written;
        // Wrong defaults are told though no rule takes them.
        defaults.options.as_ref().map(options).transpose()?;
        defaults.place.as_ref().map(place).transpose()?;
        defaults.whom.as_ref().map(whom).transpose()?;
        let rules = rule.into_iter().map(|rule| rule.checked(&defaults)).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// How many rules it has.
    pub(crate) fn count(&self) -> usize {
        self.rules.len()
    }

    /// The directories in which it has sticks mounted, with `%u` for the user's name.
    pub(super) fn places(&self) -> Vec<String> {
        self.rules.iter().map(|rule| rule.place.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The first rule that matches.
    pub(crate) fn rule(&self, stick: &Stick) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.wanted.fits(stick))
    }
}

impl WrittenRule {
    fn checked(self, defaults: &Defaults) -> Result<Rule, Wrong> {
        let said = |own: Option<Spanned<String>>, default: &Option<Spanned<String>>| own.or_else(|| default.clone());
        let name = self.name.as_ref().map(|name| {
            let plain = super::place::safe(name.get_ref().as_ref()).as_deref() == Some(name.get_ref());
            if plain { Ok(name.get_ref().clone()) } else { Err(wrong(name, "cannot be the name of a directory here")) }
        });
        Ok(Rule {
            wanted: self.wanted,
            action: self.action,
            options: said(self.options, &defaults.options).as_ref().map(options).transpose()?.unwrap_or_default(),
            place: said(self.place, &defaults.place).as_ref().map(place).transpose()?.unwrap_or_else(|| WHERE.into()),
            whom: said(self.whom, &defaults.whom).as_ref().map(whom).transpose()?.unwrap_or(Whom::Seat),
            name: name.transpose()?,
        })
    }
}

impl Rule {
    /// The directory in which this user's sticks are mounted.
    pub(crate) fn place(&self, user: &User) -> PathBuf {
        self.place.replace("%u", &user.name).into()
    }
}

impl Wanted {
    fn fits(&self, stick: &Stick) -> bool {
        let label = stick.label.as_ref().map(|label| label.to_string_lossy().into_owned());
        let texts = [
            (&self.bus, &stick.bus),
            (&self.vendor, &stick.vendor),
            (&self.product, &stick.product),
            (&self.serial, &stick.serial),
            (&self.port, &stick.port),
            (&self.kind, &stick.kind),
            (&self.label, &label),
            (&self.uuid, &stick.uuid),
        ];
        texts.into_iter().all(|(wanted, text)| match (wanted, text) {
            (None, _) => true,
            (Some(patterns), Some(text)) => patterns.0.iter().any(|pattern| glob::matches(pattern, text)),
            // What a stick does not have is not even `*`.
            (Some(_), None) => false,
        }) && self.size.as_ref().is_none_or(|size| size.contains(&stick.size))
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Vec<String>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
                Ok(vec![text.to_owned()])
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
                let mut texts = vec![];
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                if texts.is_empty() { Err(A::Error::custom("an empty list matches nothing")) } else { Ok(texts) }
            }
        }
        deserializer.deserialize_any(Texts).map(Self)
    }
}

/// Types of file systems: patterns would promise more than is mounted.
fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Patterns>, D::Error> {
    let patterns = Patterns::deserialize(deserializer)?;
    match patterns.0.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        Some(kind) => Err(D::Error::custom(format!("'{kind}': ext2, ext3 or ext4 is expected"))),
        None => Ok(Some(patterns)),
    }
}

/// `8M..64G`, and each end may be left out.
fn sizes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RangeInclusive<u64>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let end = |text: &str, open: u64| if text.is_empty() { Some(open) } else { size(text) };
    let range = text.split_once("..").and_then(|(least, most)| Some(end(least, 0)?..=end(most, u64::MAX)?));
    let range = range.filter(|range| !range.is_empty() && text != "..");
    range.map(Some).ok_or_else(|| D::Error::custom(format!("'{text}': sizes are expected, as 8M..64G or ..64G")))
}

fn options(text: &Spanned<String>) -> Result<String, Wrong> {
    let read = Options::parse(&[text.get_ref()]).map_err(|failure| (Some(text.span()), failure.to_string()))?;
    if read.uid.is_some() || read.gid.is_some() {
        return Err(wrong(text, "uid= and gid= are those of the user: say `for`"));
    }
    if read.part.is_some() {
        return Err(wrong(text, "part= is not for a device that is a partition itself"));
    }
    Ok(text.get_ref().clone())
}

fn place(text: &Spanned<String>) -> Result<String, Wrong> {
    let path = Path::new(text.get_ref());
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let percent = text.get_ref().replace("%u", "").contains('%');
    if !path.is_absolute() || !plain || path.parent().is_none() || percent || text.get_ref().contains('\0') {
        return Err(wrong(text, "is no absolute path of a directory (%u is the user's name)"));
    }
    Ok(text.get_ref().clone())
}

fn whom(text: &Spanned<String>) -> Result<Whom, Wrong> {
    if text.get_ref() == "seat" {
        return Ok(Whom::Seat);
    }
    let user = users::find(text.get_ref()).map(Whom::User);
    user.ok_or_else(|| wrong(text, "is no user of /etc/passwd; else say UID:GID, or seat"))
}

fn wrong(text: &Spanned<String>, what: &str) -> Wrong {
    (Some(text.span()), format!("'{}' {what}", escaped(text.get_ref())))
}

/// What the library says repeats the file's own words and may have several lines.
fn one_line(message: &str) -> String {
    let lines: Vec<String> = message.lines().map(|line| escaped(line.trim()).to_string()).collect();
    lines.join(", ")
}

/// The place of a byte for people: lines and columns from one on.
fn at(text: &[u8], byte: usize) -> String {
    let before = &text[..byte.min(text.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let begin = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let column = String::from_utf8_lossy(&before[begin..]).chars().count() + 1;
    format!("line {line}, column {column}")
}

#[cfg(test)]
mod tests;
