//! Whom a mount is for: a user by name or number, or who sits at this machine.
//!
//! What holds here: names are looked up in `/etc/passwd` alone, since a static program has no NSS; a user from elsewhere
//! is named by his numbers. Who sits here is what logind tells in `/run/systemd/seats/seat0` and in the session's own
//! file, as sd_seat_get_active(3) reads them; a session of a greeter is nobody's.

use std::fs;
use std::path::Path;

/// A user, his group, and the name of his directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
}

/// A user by his name, or by `UID:GID`.
pub(super) fn find(text: &str) -> Option<User> {
    if let Some((uid, gid)) = text.split_once(':') {
        let number = |text: &str| text.parse().ok().filter(|&number: &u32| number != u32::MAX);
        let (uid, gid) = (number(uid)?, number(gid)?);
        return Some(with_uid(uid).unwrap_or(User { uid, gid, name: uid.to_string() }))
            .map(|user| User { gid, ..user });
    }
    passwd().into_iter().find(|user| user.name == text)
}

fn with_uid(uid: u32) -> Option<User> {
    passwd().into_iter().find(|user| user.uid == uid)
}

/// The users of this machine whose name can be a directory's.
fn passwd() -> Vec<User> {
    let text = fs::read("/etc/passwd").unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(user).collect()
}

/// A line of passwd(5): name, password, uid, gid, and more.
fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| is_plain(name))?;
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { uid, gid, name: name.to_owned() })
}

/// Whether a name is what useradd(8) makes, and so can stand in a path.
fn is_plain(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    !name.is_empty() && !name.starts_with(['.', '-']) && name.chars().all(plain)
}

/// Who sits at this machine now, if logind runs and knows somebody.
pub(super) fn at_seat() -> Option<User> {
    at_seat_of(Path::new("/run/systemd"))
}

fn at_seat_of(logind: &Path) -> Option<User> {
    let seat = fs::read_to_string(logind.join("seats/seat0")).ok()?;
    let session = value(&seat, "ACTIVE").filter(|session| is_plain(session))?;
    let session = fs::read_to_string(logind.join("sessions").join(session)).ok()?;
    let uid = value(&session, "UID")?.parse().ok()?;
    if value(&session, "CLASS") != Some("user") || value(&session, "STATE") == Some("closing") {
        return None;
    }
    with_uid(uid)
}

/// The value of a key of a file with lines `KEY=VALUE`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_read() {
        let expected = User { uid: 1000, gid: 100, name: "alice".into() };
        assert_eq!(user("alice:x:1000:100:Alice,,,:/home/alice:/bin/sh"), Some(expected));
        for line in ["", "alice", "../x:x:1:1::/:/", ".:x:1:1::/:/", "a/b:x:1:1::/:/", "a:x:no:1::/:/"] {
            assert_eq!(user(line), None, "{line}");
        }
    }

    #[test]
    fn a_user_is_found_by_name_or_by_numbers() {
        assert_eq!(find("root"), Some(User { uid: 0, gid: 0, name: "root".into() }));
        assert_eq!(find("0:7"), Some(User { uid: 0, gid: 7, name: "root".into() }));
        assert_eq!(find("3999999999:7").map(|user| user.name), Some("3999999999".into()));
        assert!(find("no such user").is_none() && find("4294967295:1").is_none() && find("1:").is_none());
    }

    #[test]
    fn who_sits_here_is_a_user_and_no_greeter() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(at_seat_of(place.path()), None, "no logind");
        for name in ["seats", "sessions"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let seat = |text: &str| fs::write(place.path().join("seats/seat0"), text).unwrap();
        let session = |text: &str| fs::write(place.path().join("sessions/c2"), text).unwrap();
        seat("IS_SEAT0=1\nACTIVE=c2\nACTIVE_UID=0\n");
        session("UID=0\nUSER=root\nACTIVE=1\nSTATE=active\nCLASS=user\n");
        assert_eq!(at_seat_of(place.path()).map(|user| user.name), Some("root".into()));
        session("UID=0\nCLASS=greeter\n");
        assert_eq!(at_seat_of(place.path()), None);
        session("UID=0\nCLASS=user\nSTATE=closing\n");
        assert_eq!(at_seat_of(place.path()), None);
        seat("ACTIVE=../../x\n");
        assert_eq!(at_seat_of(place.path()), None);
    }
}
