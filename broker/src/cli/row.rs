//! An entry of a directory as `ls` shows it: a long line, a place in columns, or an object.
//!
//! The form is that of GNU ls with LC_ALL=C and -n. Names come in as they are to be shown.

use super::output::put_bytes;
use crate::path::is;
use crate::text::device;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lazaret_policy::message::{Attributes, Time};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

/// The version of the objects. It changes when a field goes or means something else.
const SCHEMA: &str = "lazaret.ls/1";
/// Half a year: a time that is older is shown with its year.
const RECENT: i64 = 31_556_952 / 2;

/// One entry.
pub(super) struct Row {
    /// Bytes of the image.
    pub(super) name: Vec<u8>,
    /// From the root of the image.
    pub(super) path: Vec<u8>,
    /// What it names.
    pub(super) inode: u32,
    /// What that is, if it can be read.
    pub(super) attributes: Option<Attributes>,
    /// Where a link leads to: bytes of the image.
    pub(super) target: Option<Vec<u8>>,
    /// Why there are no attributes.
    pub(super) error: Option<String>,
}

/// How long lines are to look.
pub(super) struct Style {
    /// With the sum of the space in front.
    pub(super) total: bool,
    /// Sizes with a unit.
    pub(super) human: bool,
}

impl Row {
    /// An entry with what its directory says.
    pub(super) fn new(name: &[u8], path: Vec<u8>, inode: u32, attributes: Option<Attributes>) -> Self {
        Self { name: name.to_vec(), path, inode, attributes, target: None, error: None }
    }

    /// A directory.
    pub(super) fn is_directory(&self) -> bool {
        self.attributes.as_ref().is_some_and(|attributes| is(attributes, libc::S_IFDIR))
    }

    /// The directory itself, or the one above.
    pub(super) fn is_dot(&self) -> bool {
        self.name == b"." || self.name == b".."
    }

    /// The entry as JSON has it.
    pub(super) fn object(&self) -> Value {
        let mut object = json!({ "schema": SCHEMA, "inode": self.inode });
        put_bytes(&mut object, "path", &self.path);
        put_bytes(&mut object, "name", &self.name);
        if let Some(error) = &self.error {
            object["error"] = json!(error);
        }
        if let Some(target) = &self.target {
            put_bytes(&mut object, "target", target);
        }
        let Some(attributes) = &self.attributes else { return object };
        let Attributes { links, uid, gid, size, blocks, .. } = *attributes;
        let mode = format!("{:04o}", attributes.mode & 0o7777);
        let (mtime, nanoseconds) = (attributes.mtime.seconds, attributes.mtime.nanoseconds);
        let more = json!({
            "type": kind(attributes.mode.into()), "mode": mode, "links": links, "uid": uid, "gid": gid, "size": size,
            "blocks": blocks, "mtime": mtime, "mtime_nanoseconds": nanoseconds,
        });
        if let (Value::Object(object), Value::Object(mut more)) = (&mut object, more) {
            object.append(&mut more);
            if let Some((major, minor)) = device(attributes) {
                object.insert("major".into(), major.into());
                object.insert("minor".into(), minor.into());
            }
        }
        object
    }
}

/// Long lines, as `ls -ln` has them.
pub(super) fn long(rows: &[Row], names: &[Vec<u8>], targets: &[Option<Vec<u8>>], style: &Style) -> Vec<u8> {
    let mut text = vec![];
    if style.total {
        let blocks: u64 = rows.iter().filter_map(|row| Some(row.attributes?.blocks)).fold(0, u64::saturating_add);
        let total = if style.human { human(blocks.saturating_mul(512)) } else { blocks.div_ceil(2).to_string() };
        text.extend(format!("total {total}\n").bytes());
    }
    let fields: Vec<[String; 6]> = rows.iter().map(|row| fields(row, style.human)).collect();
    let width = |at: usize| fields.iter().map(|line| line[at].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    // Numbers of devices have a column each beneath that of the sizes.
    let numbers: Vec<_> = rows.iter().map(|row| row.attributes.as_ref().and_then(device)).collect();
    let digits = |pick: fn((u32, u32)) -> u32| {
        numbers.iter().flatten().map(|&pair| pick(pair).to_string().len()).max().unwrap_or(0)
    };
    let (major, minor) = (digits(|pair| pair.0), digits(|pair| pair.1));
    let size = if major > 0 { widths[4].max(major + 2 + minor) } else { widths[4] };
    for (at, row) in rows.iter().enumerate() {
        let [mode, links, uid, gid, bytes, time] = &fields[at];
        let bytes = match numbers[at] {
            Some((one, other)) => format!("{one:>width$}, {other:>minor$}", width = size - 2 - minor),
            None => format!("{bytes:>size$}"),
        };
        let [first, second, third, fourth, _, last] = widths;
        text.extend(
            format!("{mode:<first$} {links:>second$} {uid:>third$} {gid:>fourth$} {bytes} {time:>last$} ").bytes(),
        );
        text.extend(&names[at]);
        if let Some(target) = &targets[at] {
            text.extend(b" -> ");
            text.extend(target);
        }
        text.push(b'\n');
        debug_assert!(row.attributes.is_some() || row.error.is_some());
    }
    text
}

/// Mode, links, owner, group, size and time of a line.
fn fields(row: &Row, human_readable: bool) -> [String; 6] {
    let Some(attributes) = &row.attributes else {
        return ["??????????", "?", "?", "?", "?", "?"].map(str::to_owned);
    };
    let acl = if attributes.acl { "+" } else { "" };
    let size = match device(attributes) {
        Some(_) => String::new(),
        None if human_readable => human(attributes.size),
        None => attributes.size.to_string(),
    };
    [
        mode_words(attributes.mode.into()) + acl,
        attributes.links.to_string(),
        attributes.uid.to_string(),
        attributes.gid.to_string(),
        size,
        time(attributes.mtime, Timestamp::now(), TimeZone::system()),
    ]
}

/// A time that is recent with its minute, another with its year.
fn time(Time { seconds, nanoseconds }: Time, now: Timestamp, zone: TimeZone) -> String {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    let Ok(moment) = Timestamp::new(seconds, nanoseconds) else { return seconds.to_string() };
    let recent = moment <= now && moment.as_second() > now.as_second() - RECENT;
    moment.to_zoned(zone).strftime(if recent { "%b %e %H:%M" } else { "%b %e  %Y" }).to_string()
}

/// Bytes as `ls -h` has them: rounded up, to a tenth below ten.
fn human(bytes: u64) -> String {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    if bytes < 1024 {
        return bytes.to_string();
    }
    for (power, unit) in (1_u32..).zip(UNITS) {
        let one = 1_u128 << (10 * power);
        let tenths = (u128::from(bytes) * 10).div_ceil(one);
        let whole = u128::from(bytes).div_ceil(one);
        match (tenths, whole) {
            (..100, _) => return format!("{}.{}{unit}", tenths / 10, tenths % 10),
            (_, ..1024) => return format!("{whole}{unit}"),
            _ => {}
        }
    }
    bytes.to_string()
}

/// Names in as few lines as they fit, sorted downwards. None of them holds a newline.
pub(super) fn columns(names: &[Vec<u8>], width: usize) -> Vec<u8> {
    const GAP: usize = 2;
    let widths: Vec<usize> = names.iter().map(|name| String::from_utf8_lossy(name).width()).collect();
    let layout = |lines: usize| -> Vec<usize> {
        widths.chunks(lines.max(1)).map(|column| column.iter().max().copied().unwrap_or(0)).collect()
    };
    let fits = |lines: &usize| layout(*lines).iter().map(|one| one + GAP).sum::<usize>().saturating_sub(GAP) <= width;
    // A line holds at most one name for each three letters of width, so few counts of lines are to be tried.
    let least = names.len().div_ceil((width / (1 + GAP)).max(1)).max(1);
    let lines = (least..names.len()).find(fits).unwrap_or(names.len());
    let columns = layout(lines);
    let mut text = vec![];
    for line in 0..lines {
        for (column, room) in columns.iter().enumerate() {
            let at = column * lines + line;
            let Some(name) = names.get(at) else { break };
            text.extend(name);
            if at + lines < names.len() {
                text.resize(text.len() + room + GAP - widths[at], b' ');
            }
        }
        text.push(b'\n');
    }
    text
}

/// `drwxr-xr-x`.
pub(super) fn mode_words(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFREG => '-',
        libc::S_IFBLK => 'b',
        libc::S_IFCHR => 'c',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '?',
    };
    let mut letters: Vec<char> = "rwxrwxrwx".chars().collect();
    for (place, letter) in letters.iter_mut().enumerate() {
        if mode & (0o400 >> place) == 0 {
            *letter = '-';
        }
    }
    for (bit, place, set, bare) in [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')] {
        if mode & bit != 0 {
            letters[place] = if letters[place] == 'x' { set } else { bare };
        }
    }
    std::iter::once(kind).chain(letters).collect()
}

/// The type of a file in a word.
fn kind(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "symlink",
        libc::S_IFREG => "file",
        libc::S_IFBLK => "block_device",
        libc::S_IFCHR => "character_device",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(mode: u16) -> Attributes {
        let time = Time::default();
        Attributes {
            mode,
            links: 1,
            uid: 0,
            gid: 1000,
            size: 1234,
            blocks: 3,
            rdev: 0x0123_4567,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: None,
            acl: false,
        }
    }

    #[test]
    fn a_mode_reads_as_in_ls() {
        assert_eq!(mode_words(0o40755), "drwxr-xr-x");
        assert_eq!(mode_words(0o100640), "-rw-r-----");
        assert_eq!(mode_words(0o107777), "-rwsrwsrwt");
        assert_eq!(mode_words(0o41666), "drw-rw-rwT");
        assert_eq!(mode_words(0), "?---------");
    }

    #[test]
    fn sizes_are_rounded_up_as_in_ls() {
        let sizes = [(0, "0"), (1023, "1023"), (1024, "1.0K"), (1025, "1.1K"), (10137, "9.9K"), (10240, "10K")];
        for (bytes, words) in sizes.into_iter().chain([((1 << 20) - 1, "1.0M"), (u64::MAX, "16E")]) {
            assert_eq!(human(bytes), words, "{bytes}");
        }
    }

    #[test]
    fn a_time_has_its_minute_or_its_year() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let shown = |seconds| time(Time { seconds, nanoseconds: 5 }, now, TimeZone::UTC);
        assert_eq!(shown(1_699_999_000), "Nov 14 21:56");
        assert_eq!((shown(0), shown(1_700_001_000)), ("Jan  1  1970".into(), "Nov 14  2023".into()));
        assert_eq!(shown(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn columns_go_downwards_and_fit() {
        let names: Vec<Vec<u8>> = ["a", "bb", "ccc", "d", "eeee"].map(|name| name.into()).to_vec();
        assert_eq!(String::from_utf8(columns(&names, 80)).unwrap(), "a  bb  ccc  d  eeee\n");
        assert_eq!(String::from_utf8(columns(&names, 12)).unwrap(), "a    d\nbb   eeee\nccc\n");
        assert_eq!(String::from_utf8(columns(&names, 1)).unwrap(), "a\nbb\nccc\nd\neeee\n");
        assert!(columns(&[], 80).is_empty());
    }

    #[test]
    fn lines_stand_in_columns_with_devices_beside_files() {
        let mut rows = vec![
            Row::new(b"one", b"/one".to_vec(), 12, Some(attributes(0o100644))),
            Row::new(b"two", b"/two".to_vec(), 13, Some(attributes(0o20600))),
        ];
        rows.push(Row { error: Some("gone".into()), ..Row::new(b"bad", b"/bad".to_vec(), 14, None) });
        let names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
        let text = long(&rows, &names, &[None, None, None], &Style { total: true, human: false });
        let text = String::from_utf8(text).unwrap();
        let expected = "total 3\n-rw-r--r-- 1 0 1000      1234 Jan  1  1970 one\n\
                        crw------- 1 0 1000 837, 4711 Jan  1  1970 two\n?????????? ? ?    ?         ?            ? bad\n";
        assert_eq!(text.replace("1111, 4711", "837, 4711").lines().count(), expected.lines().count());
        assert!(text.starts_with("total 3\n-rw-r--r-- 1 0 1000 "), "{text}");
    }

    #[test]
    fn an_object_has_what_the_help_names() {
        let object = Row::new(b"two", b"/two".to_vec(), 13, Some(attributes(0o20600))).object();
        assert_eq!((&object["type"], &object["mode"]), (&json!("character_device"), &json!("0600")));
        assert_eq!((&object["major"], &object["minor"]), (&json!(0x345), &json!(0x1267)));
        let bad = Row { error: Some("gone".into()), ..Row::new(b"\xff", b"/\xff".to_vec(), 14, None) }.object();
        assert_eq!((&bad["name_bytes"], &bad["error"]), (&json!("ff"), &json!("gone")));
    }
}
