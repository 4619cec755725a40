//! The headers of a tar archive: ustar, with pax records for what it has no room for.
//!
//! The form is that of POSIX.1-2001 (pax) as GNU tar and libarchive write it: `SCHILY.xattr.` for extended attributes,
//! `SCHILY.acl.` for access control lists, `GNU.sparse.` 1.0 for holes. The crate `tar` writes holes of files of the host
//! only, and holds no record against a budget; what is needed of it besides is the sum of a header.

use super::acl;
use lazaret_policy::message::Time;

/// The unit of an archive, in bytes.
pub(crate) const BLOCK: usize = 512;
/// The highest number of seven octal digits, and that of eleven.
const SEVEN_DIGITS: u64 = 0o7_777_777;
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

/// What an archive says of one thing in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    /// Its path, which for a directory ends in a slash.
    pub(crate) path: &'a [u8],
    /// `typeflag`.
    pub(crate) kind: u8,
    /// Permissions.
    pub(crate) mode: u32,
    /// Owner and group.
    pub(crate) owner: (u32, u32),
    /// Bytes that follow the header.
    pub(crate) size: u64,
    /// The length of a file whose holes are left out.
    pub(crate) sparse: Option<u64>,
    /// Last change, last read, last change of the inode; none for a hard link.
    pub(crate) times: Option<[Time; 3]>,
    /// Where a link leads to.
    pub(crate) target: &'a [u8],
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Names and values of extended attributes.
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Member<'_> {
    /// The blocks in front of its content.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut records = vec![];
        if let Some([mtime, atime, ctime]) = self.times {
            record(&mut records, b"mtime", time(mtime).as_bytes());
            record(&mut records, b"atime", time(atime).as_bytes());
            record(&mut records, b"ctime", time(ctime).as_bytes());
        }
        let mut name = self.path.to_vec();
        if let Some(length) = self.sparse {
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.minor", b"0");
            record(&mut records, b"GNU.sparse.name", self.path);
            record(&mut records, b"GNU.sparse.realsize", length.to_string().as_bytes());
            name = beside(self.path, b"GNUSparseFile.0");
        } else if !fits(self.path) {
            record(&mut records, b"path", self.path);
        }
        if !fits(self.target) {
            record(&mut records, b"linkpath", self.target);
        }
        let (uid, gid) = self.owner;
        for (key, value, most) in [
            (&b"uid"[..], u64::from(uid), SEVEN_DIGITS),
            (b"gid", u64::from(gid), SEVEN_DIGITS),
            (b"size", self.size, ELEVEN_DIGITS),
        ] {
            if value > most {
                record(&mut records, key, value.to_string().as_bytes());
            }
        }
        for (name, value) in self.xattrs {
            let list = name.strip_prefix(b"system.posix_acl_").zip(acl::text(value));
            match list {
                Some((which, text)) => record(&mut records, &[b"SCHILY.acl.", which].concat(), text.as_bytes()),
                None => record(&mut records, &[b"SCHILY.xattr.", &keyword(name)[..]].concat(), value),
            }
        }
        let mut blocks = vec![];
        if !records.is_empty() {
            let extended = Member {
                path: &beside(self.path, b"PaxHeaders"),
                kind: b'x',
                mode: 0o644,
                size: records.len() as u64,
                target: b"",
                device: (0, 0),
                ..*self
            };
            blocks.extend(extended.ustar(extended.path));
            blocks.extend(records);
            pad(&mut blocks);
        }
        blocks.extend(self.ustar(&name));
        blocks
    }

    fn ustar(&self, name: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, length: usize, bytes: &[u8]| {
            let length = length.min(bytes.len());
            block[at..at + length].copy_from_slice(&bytes[..length]);
        };
        let mtime = self.times.map_or(0, |[mtime, ..]| u64::try_from(mtime.seconds).unwrap_or(0));
        put(0, 100, name);
        put(100, 8, &octal(self.mode.into(), 7));
        put(108, 8, &octal(self.owner.0.into(), 7));
        put(116, 8, &octal(self.owner.1.into(), 7));
        put(124, 12, &octal(self.size, 11));
        put(136, 12, &octal(mtime, 11));
        put(156, 1, &[self.kind]);
        put(157, 100, self.target);
        put(257, 8, b"ustar\x0000");
        put(329, 8, &octal(self.device.0.into(), 7));
        put(337, 8, &octal(self.device.1.into(), 7));
        // The sum counts itself as spaces.
        put(148, 8, b"        ");
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..155].copy_from_slice(&octal(sum, 6));
        block
    }
}

/// Fills the last block with zeros.
pub(crate) fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

/// The map that stands in front of the content of a file with holes: its runs of data, one after the other.
pub(crate) fn map(runs: &[(u64, u64)]) -> Vec<u8> {
    let mut text = format!("{}\n", runs.len());
    for (offset, length) in runs {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    pad(&mut bytes);
    bytes
}

/// Whether a ustar header has room for it, and every reader takes it for what it is: text beyond ASCII goes into a
/// record, which is UTF-8, and what is no text at all cannot.
fn fits(path: &[u8]) -> bool {
    path.len() <= 100 && (path.is_ascii() || std::str::from_utf8(path).is_err())
}

/// Digits and what ends them. A number that is too large is in a record, and zero here.
fn octal(value: u64, digits: usize) -> Vec<u8> {
    let text = format!("{value:0digits$o}");
    let text = if text.len() > digits { "0".repeat(digits) } else { text };
    [text.as_bytes(), b"\0"].concat()
}

/// A name for what stands beside a member, for readers that do not know what it is.
fn beside(path: &[u8], folder: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let at = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let (directory, name) = path.split_at(at);
    let mut whole = [directory, folder, b"/", name].concat();
    whole.truncate(100);
    whole
}

/// `LENGTH KEY=VALUE`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let beside_length = key.len() + value.len() + 3;
    let mut length = beside_length + 1;
    while length.to_string().len() + beside_length != length {
        length = length.to_string().len() + beside_length;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The name of an attribute in a key, which ends where its first `=` is: as GNU tar writes it.
fn keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = vec![];
    for &byte in name {
        match byte {
            b'%' => keyword.extend_from_slice(b"%25"),
            b'=' => keyword.extend_from_slice(b"%3D"),
            byte => keyword.push(byte),
        }
    }
    keyword
}

/// Seconds, and what is below one as a fraction: before 1970 both are negative.
fn time(Time { seconds, nanoseconds }: Time) -> String {
    match (seconds, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanoseconds:09}"),
        _ => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        let of = |value: &[u8]| {
            let mut records = vec![];
            record(&mut records, b"k", value);
            records
        };
        assert_eq!(of(b""), b"5 k=\n");
        assert_eq!(of(b"12345"), b"11 k=12345\n");
        for length in 0..2000 {
            let record = of(&vec![b'x'; length]);
            let digits = record.iter().position(|&byte| byte == b' ').unwrap();
            let told: usize = std::str::from_utf8(&record[..digits]).unwrap().parse().unwrap();
            assert_eq!(told, record.len());
        }
    }

    #[test]
    fn a_time_before_1970_is_negative_with_its_fraction() {
        let told = |seconds, nanoseconds| time(Time { seconds, nanoseconds });
        assert_eq!((told(5, 0), told(5, 1)), ("5".into(), "5.000000001".into()));
        assert_eq!((told(-2, 500_000_000), told(-1, 999_999_999)), ("-1.500000000".into(), "-0.000000001".into()));
        assert_eq!((told(-7, 0), told(i64::MIN, 1)), ("-7".into(), format!("-{}.999999999", i64::MAX)));
    }

    #[test]
    fn a_header_has_its_sum_and_whole_blocks() {
        let time = Time { seconds: 1, nanoseconds: 2 };
        let member = Member {
            path: &[b'p'; 300],
            kind: b'0',
            mode: 0o644,
            owner: (u32::MAX - 1, 0),
            size: 1 << 40,
            sparse: None,
            times: Some([time; 3]),
            target: b"",
            device: (0, 0),
            xattrs: &[(b"user.a=%".to_vec(), vec![0, b'\n'])],
        };
        let blocks = member.header();
        assert_eq!(blocks.len() % BLOCK, 0);
        let text = String::from_utf8_lossy(&blocks).into_owned();
        for word in
            ["uid=4294967294\n", "size=1099511627776\n", "SCHILY.xattr.user.a%3D%25=\0\n\n", "mtime=1.000000002\n"]
        {
            assert!(text.contains(word), "{word}");
        }
        let last = &blocks[blocks.len() - BLOCK..];
        let sum: u64 =
            last.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { byte.into() }).sum();
        assert_eq!(&last[148..156], format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn a_map_lists_its_runs() {
        let map = map(&[(0, 512), (4096, 1)]);
        assert!(map.starts_with(b"2\n0\n512\n4096\n1\n\0") && map.len() == BLOCK);
    }
}
