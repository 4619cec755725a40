//! Policies that are good, and every way in which one is not.

use super::*;
use std::collections::BTreeSet;

/// What is shipped: a policy that is as good as any.
const SHIPPED: &str = include_str!("../../../dist/lazaret.toml");
/// What tells people about it.
const PAGE: &str = include_str!("../../../dist/man/lazaret.toml.5");

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|(_, what)| panic!("{text}: {what}"))
}

/// What a user reads about a bad policy.
fn told(text: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("p.toml");
    std::fs::write(&path, text).unwrap();
    let whole = Policy::read(&path).expect_err(text).to_string();
    whole.strip_prefix(&format!("{}: ", path.display())).expect(&whole).to_owned()
}

fn stick() -> Stick {
    let some = |text: &str| Some(text.to_owned());
    Stick {
        name: "sdb1".into(),
        size: 8 << 30,
        bus: some("usb"),
        vendor: some("0781"),
        serial: some("4C530001"),
        kind: some("ext4"),
        label: Some("KIOSK-7".into()),
        ..Stick::default()
    }
}

fn decision(text: &str, stick: &Stick) -> Option<Action> {
    policy(text).rule(stick).map(|rule| rule.action)
}

#[test]
fn the_first_rule_that_matches_decides() {
    let text = "[[rule]]\nmatch = { label = 'PRIVATE*' }\naction = 'ignore'\n\
                [[rule]]\nmatch = { bus = ['usb', 'mmc'], size = '..64G' }\naction = 'mount'\n\
                [[rule]]\nmatch = { bus = 'usb' }\naction = 'ask'\n";
    assert_eq!(decision(text, &stick()), Some(Action::Mount));
    assert_eq!(decision(text, &Stick { label: Some("PRIVATE".into()), ..stick() }), Some(Action::Ignore));
    assert_eq!(decision(text, &Stick { size: 1 << 40, ..stick() }), Some(Action::Ask));
    assert_eq!(
        decision(text, &Stick { bus: Some("ata".into()), ..stick() }),
        None,
        "what no rule matches is left alone"
    );
    assert_eq!(decision("", &stick()), None);
    assert_eq!(
        decision("[[rule]]\naction = 'mount'\n", &stick()),
        Some(Action::Mount),
        "a rule without match is for all"
    );
}

#[test]
fn each_key_of_a_match_is_looked_at() {
    let keys = ["bus", "vendor", "product", "serial", "port", "fs", "label", "uuid", "size"];
    let fits = [
        ("bus", "'us?'"),
        ("vendor", "'0781'"),
        ("serial", "['x', '4C53*']"),
        ("fs", "['ext3', 'ext4']"),
        ("label", "'KIOSK-*'"),
        ("size", "'8G..8G'"),
    ];
    let fails = [
        ("bus", "'us'"),
        ("vendor", "'0782'"),
        ("product", "'*'"),
        ("serial", "'4c53*'"),
        ("port", "'*'"),
        ("fs", "'ext2'"),
        ("label", "['kiosk-*', 'KIOSK']"),
        ("uuid", "'*'"),
        ("size", "'8193M..'"),
    ];
    let rule = |(key, value): (&str, &str)| format!("[[rule]]\nmatch = {{ {key} = {value} }}\naction = 'mount'\n");
    for one in fits {
        assert_eq!(decision(&rule(one), &stick()), Some(Action::Mount), "{one:?}");
    }
    for one in fails {
        assert_eq!(decision(&rule(one), &stick()), None, "{one:?}");
    }
    let seen: BTreeSet<&str> = fails.iter().map(|(key, _)| *key).collect();
    assert_eq!(seen, keys.into(), "a key without a case");
}

#[test]
fn what_a_rule_does_not_say_is_the_default() {
    let text = "[defaults]\noptions = 'nosymfollow'\nwhere = '/srv/sticks'\nfor = 'root'\n[[rule]]\naction = 'mount'\n\
                [[rule]]\nmatch = {}\noptions = ''\nwhere = '/run/media/%u'\nfor = '12:34'\nname = 'photos'\naction = 'ask'\n";
    let policy = policy(text);
    let root = User { uid: 0, gid: 0, name: "root".into() };
    let [first, second] = &policy.rules[..] else { panic!("two rules") };
    assert_eq!((first.options.as_str(), first.place(&root)), ("nosymfollow", "/srv/sticks".into()));
    assert_eq!((&first.whom, &first.name), (&Whom::User(root.clone()), &None));
    assert_eq!((second.options.as_str(), second.place(&root)), ("", "/run/media/root".into()));
    assert_eq!(second.name.as_deref(), Some("photos"));
    assert!(matches!(&second.whom, Whom::User(User { uid: 12, gid: 34, .. })));
    let bare = self::policy("[[rule]]\naction = 'mount'\n");
    assert_eq!((&bare.rules[0].whom, bare.rules[0].place(&root)), (&Whom::Seat, "/run/media/root".into()));
}

#[test]
fn a_bad_policy_is_told_in_one_line_with_its_place() {
    let rule = "[[rule]]\naction = 'mount'\n";
    let cases = [
        ("[[rule]]\nactoin = 'mount'\n", "line 2, column 1: unknown field `actoin`, expected one of "),
        ("[[rules]]\n", "line 1, column 3: unknown field `rules`"),
        ("[[rule]]\nmatch = { vendro = '1' }\naction = 'mount'\n", "line 2, column 11: unknown field `vendro`"),
        ("[[rule]]\nmatch = {}\n", "line 1, column 1: missing field `action`"),
        (
            "[[rule]]\naction = 'muont'\n",
            "line 2, column 10: unknown variant `muont`, expected one of `mount`, `ask`, `ignore`",
        ),
        ("[[rule]]\naction = mount\n", "line 2, column 10: "),
        ("[[rule]]\nmatch = { fs = 'vfat' }\n", "line 2, column 16: 'vfat': ext2, ext3 or ext4 is expected"),
        ("[[rule]]\nmatch = { label = [] }\n", "line 2, column 19: an empty list matches nothing"),
        (
            "[[rule]]\nmatch = { label = 7 }\n",
            "line 2, column 19: invalid type: integer `7`, expected a text or a list of texts",
        ),
        ("[[rule]]\nmatch = { size = '64G' }\n", "line 2, column 18: '64G': sizes are expected, as 8M..64G or ..64G"),
        ("[[rule]]\nmatch = { size = '9G..8G' }\n", "line 2, column 18: '9G..8G': sizes"),
        ("[[rule]]\nmatch = { size = '..' }\n", "line 2, column 18: '..': sizes"),
        (&format!("{rule}options = 'exce'\n"), "line 3, column 11: unknown option 'exce'"),
        (&format!("{rule}options = 'suid'\n"), "line 3, column 11: option 'suid' is refused"),
        (&format!("{rule}options = 'uid=5'\n"), "line 3, column 11: 'uid=5' uid= and gid= are those of the user"),
        (&format!("{rule}options = 'part=1'\n"), "line 3, column 11: 'part=1' part= is not"),
        (&format!("{rule}where = 'media'\n"), "line 3, column 9: 'media' is no absolute path"),
        (&format!("{rule}where = '/'\n"), "line 3, column 9: '/' is no absolute path"),
        (&format!("{rule}where = '/run/../etc'\n"), "line 3, column 9: '/run/../etc' is no absolute path"),
        (&format!("{rule}where = '/run/%x'\n"), "line 3, column 9: '/run/%x' is no absolute path"),
        (&format!("{rule}for = 'no such user'\n"), "line 3, column 7: 'no such user' is no user of /etc/passwd"),
        (&format!("{rule}name = '../x'\n"), "line 3, column 8: '../x' cannot be the name of a directory here"),
        (&format!("{rule}action = 'ask'\n"), "line 3, column 1: duplicate key"),
        ("[defaults]\nfor = ''\n", "line 2, column 7: '' is no user"),
        ("[defaults]\naction = 'mount'\n", "line 2, column 1: unknown field `action`"),
        ("\n\u{e4} = \u{1b}[2J\n", "line 2, column 6: "),
        ("[[rule]]\n\"\\u001b[2J\\u202e\" = 1\n", "line 2, column 1: unknown field `\\x1b[2J\\u{202e}`"),
    ];
    for (text, expected) in cases {
        let line = told(text);
        assert!(line.starts_with(expected), "{text:?}: {line:?} is not {expected:?}");
        assert!(!line.chars().any(|letter| letter.is_control() || crate::escape::acts(letter)), "{line:?}");
    }
}

#[test]
fn what_is_no_text_is_no_policy() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("p.toml");
    let reason = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Policy::read(&path).unwrap_err().to_string()
    };
    assert!(reason(b"# fine\n# a\xff\n").ends_with("line 2, column 4: is not UTF-8"));
    assert!(reason(&vec![b'#'; 1 << 20 | 1]).ends_with("longer than 1 MiB and no policy"));
    assert!(Policy::read(&place.path().join("none")).unwrap_err().to_string().ends_with("no such file or directory"));
    assert!(Policy::read(place.path()).unwrap_err().to_string().contains("cannot be read: is a directory"));
}

#[test]
fn what_is_shipped_mounts_sticks_and_no_fixed_disk() {
    let shipped = policy(SHIPPED);
    assert_eq!(shipped.rule(&stick()).map(|rule| (rule.action, rule.whom.clone())), Some((Action::Mount, Whom::Seat)));
    for bus in [None, Some("ata"), Some("nvme"), Some("loop"), Some("scsi")] {
        assert!(shipped.rule(&Stick { bus: bus.map(str::to_owned), ..stick() }).is_none(), "{bus:?}");
    }
}

/// The library lists what it knows when it is given what it does not know.
#[test]
fn the_page_tells_of_every_key_and_of_no_other() {
    let known = |text: &str| {
        let line = told(text);
        let list =
            line.split("expected one of ").nth(1).or_else(|| line.split("expected ").nth(1)).expect(&line).to_owned();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let mut keys = known("nothing = 1\n");
    keys.extend(known("[defaults]\nnothing = 1\n"));
    keys.extend(known("[[rule]]\nnothing = 1\n"));
    keys.extend(known("[[rule]]\nmatch = { nothing = 1 }\n"));
    keys.extend(known("[[rule]]\naction = 'nothing'\n"));
    assert!(keys.len() > 15, "{keys:?}");
    let items = PAGE.lines().filter_map(|line| line.strip_prefix(".It Ic ").or_else(|| line.strip_prefix(".It Cm ")));
    let told: BTreeSet<String> = items.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(told, keys);
}
