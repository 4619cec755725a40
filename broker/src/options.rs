//! The words after `-o`, as in mount(8), and what they mean here.
//!
//! What holds here: a word that is not known is refused and never passed on; of two that contradict each other the
//! last one wins; whatever is said, a mount is read-only, `nosuid` and `nodev`.

use crate::escape::escaped;
use crate::exit::Failure;
use crate::iomap::Wanted;
use crate::{host, vulnerability};
use lazaret_policy::message::{Checksum, Purpose, Special, Start, Verity, Xattrs};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

/// What a mount or a look into an image was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Programs on the medium may be started.
    pub exec: bool,
    /// Symbolic links on the medium are not followed.
    pub nosymfollow: bool,
    /// Owner of everything.
    pub uid: Option<u32>,
    /// Group of everything.
    pub gid: Option<u32>,
    /// Permission bits taken away from everything.
    pub umask: u16,
    /// What a wrong checksum does.
    pub checksum: Checksum,
    /// Whether a group descriptor is used whatever its checksum. No word sets it.
    pub trust_descriptors: bool,
    /// What is done about Merkle trees.
    pub verity: Verity,
    /// Where the superblock to be used lies, in units of 1 KiB.
    pub superblock: Option<u64>,
    /// Device nodes, sockets and FIFOs.
    pub special: Special,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Threads that answer.
    pub threads: u8,
    /// Bytes of heap.
    pub memory: u64,
    /// The partition: its number, label or UUID.
    pub part: Option<String>,
    /// How long a mount may stay silent before it is ended. Zero: for ever.
    pub timeout: Duration,
    /// Other users may enter, too.
    pub allow_other: bool,
    /// What a host that lacks layers of confinement means.
    pub confine: Strictness,
    /// The mount stands on its block device (`fuseblk`): only such a one is seen by udisks2.
    pub blkdev: bool,
    /// The kernel reads the bytes of files itself.
    pub iomap: Wanted,
}

/// `confine=`: what a host that lacks layers of confinement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Without Landlock or an empty root nothing is served.
    #[default]
    Strict,
    /// No capabilities, no_new_privs and seccomp are enough.
    Degraded,
}

/// The most threads that answer one mount.
const THREADS: u8 = 16;
/// Heap of a worker: what it starts with unless told, and the least that a mount can live on.
const MEMORY: u64 = 64 << 20;
const LEAST_MEMORY: u64 = 8 << 20;

impl Default for Options {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            exec: false,
            nosymfollow: false,
            uid: None,
            gid: None,
            umask: 0,
            checksum: Checksum::Strict,
            trust_descriptors: false,
            verity: Verity::Ignore,
            superblock: None,
            special: Special::Show,
            xattrs: Xattrs::User,
            threads: u8::try_from(processors.clamp(2, 4)).unwrap_or(2),
            memory: MEMORY,
            part: None,
            timeout: Duration::from_secs(60),
            allow_other: false,
            confine: Strictness::Strict,
            blkdev: false,
            iomap: Wanted::No,
        }
    }
}

impl Options {
    /// Reads the values of every `-o` of a command line.
    pub(crate) fn parse<T: AsRef<OsStr>>(lists: &[T]) -> Result<Self, Failure> {
        let mut options = Self::default();
        for word in lists.iter().flat_map(words) {
            if !options.take(word)? {
                return Err(unknown(word));
            }
        }
        Ok(options)
    }

    /// What the kernel is asked to grant each request, in seconds. Far more than `timeout=`, since it knows nothing of the
    /// worker's progress: requests wait behind others on a slow medium. It is for a worker that pretends to be at work.
    fn request_timeout(&self) -> u16 {
        let seconds = self.timeout.as_secs().saturating_mul(5);
        u16::try_from(seconds).unwrap_or(u16::MAX)
    }

    /// The order with which a worker starts.
    pub(crate) fn start(&self, purpose: Purpose) -> Start {
        Start {
            purpose,
            checksum: self.checksum,
            trust_descriptors: self.trust_descriptors,
            verity: self.verity,
            superblock: self.superblock,
            special: self.special,
            xattrs: self.xattrs,
            uid: self.uid,
            gid: self.gid,
            umask: self.umask,
            request_timeout: self.request_timeout(),
            open_without_asking: vulnerability::may_open_without_asking(&host::stands_on()),
            // Whoever starts it says so, once there is what it takes.
            iomap: false,
            threads: self.threads,
            memory: self.memory,
        }
    }

    /// Takes one word. False where it is not known.
    fn take(&mut self, word: &[u8]) -> Result<bool, Failure> {
        let Ok(text) = std::str::from_utf8(word) else { return Ok(false) };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            _ if is_ignored(name, value) => {}
            // What mount(8) passes when nothing is said. The mount is read-only all the same.
            ("rw", None) => {}
            ("suid" | "dev", None) => {
                return Err(Failure::usage(format!(
                    "option '{name}' is refused: a mount is always nosuid and nodev here"
                )));
            }
            // mount(8) keeps the first to itself.
            ("exec" | "allow_exec", None) => self.exec = true,
            ("noexec", None) => self.exec = false,
            ("nosymfollow", None) => self.nosymfollow = true,
            ("symfollow", None) => self.nosymfollow = false,
            ("allow_other", None) => self.allow_other = true,
            ("uid", Some(value)) => self.uid = Some(id(name, value)?),
            ("gid", Some(value)) => self.gid = Some(id(name, value)?),
            ("umask", Some(value)) => self.umask = umask(value)?,
            ("checksum", Some(value)) => {
                self.checksum = match value {
                    "strict" => Checksum::Strict,
                    "warn" => Checksum::Warn,
                    "ignore" => Checksum::Ignore,
                    _ => return Err(wrong(name, value, "strict, warn or ignore")),
                }
            }
            ("verity", Some(value)) => {
                self.verity = match value {
                    "ignore" => Verity::Ignore,
                    "verify" => Verity::Verify,
                    _ => return Err(wrong(name, value, "verify or ignore")),
                }
            }
            ("sb", Some(value)) => {
                let place = value.parse().ok().filter(|&place: &u64| place > 0);
                self.superblock = Some(place.ok_or_else(|| wrong(name, value, "a number of blocks of 1 KiB"))?);
            }
            ("special", Some(value)) => {
                self.special = match value {
                    "show" => Special::Show,
                    "hide" => Special::Hide,
                    _ => return Err(wrong(name, value, "hide or show")),
                }
            }
            ("xattrs", Some(value)) => {
                self.xattrs = match value {
                    "user" => Xattrs::User,
                    "all" => Xattrs::All,
                    "none" => Xattrs::None,
                    _ => return Err(wrong(name, value, "user, all or none")),
                }
            }
            ("confine", Some(value)) => {
                self.confine = match value {
                    "strict" => Strictness::Strict,
                    "degraded" => Strictness::Degraded,
                    _ => return Err(wrong(name, value, "strict or degraded")),
                }
            }
            ("threads", Some(value)) => {
                let threads = value.parse().ok().filter(|threads| (1..=THREADS).contains(threads));
                self.threads = threads.ok_or_else(|| wrong(name, value, "a number from 1 to 16"))?;
            }
            ("memory", Some(value)) => {
                let memory = size(value).filter(|&size| size >= LEAST_MEMORY);
                self.memory = memory.ok_or_else(|| wrong(name, value, "a size of 8M or more, as 64M or 1G"))?;
            }
            ("part", Some(value)) if !value.is_empty() => self.part = Some(value.to_owned()),
            ("timeout", Some(value)) => {
                let seconds: u32 = value.parse().map_err(|_| wrong(name, value, "a number of seconds"))?;
                self.timeout = Duration::from_secs(seconds.into());
            }
            ("iomap", None) => self.iomap = Wanted::IfOffered,
            ("iomap", Some("require")) => self.iomap = Wanted::Required,
            ("iomap", Some(value)) => return Err(wrong(name, value, "require, or no value")),
            ("noiomap", None) => self.iomap = Wanted::No,
            // udisks2 names itself so, and looks a mount up by the number of its device.
            ("blkdev", None) | ("uhelper", Some("udisks2")) => self.blkdev = true,
            ("uhelper", Some(_)) => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The words of one `-o`.
fn words<T: AsRef<OsStr> + ?Sized>(list: &T) -> impl Iterator<Item = &[u8]> {
    list.as_ref().as_bytes().split(|&byte| byte == b',').filter(|word| !word.is_empty())
}

/// The same lists as one, without the words that are not known: for a caller who wants those to be passed over.
pub(crate) fn known<T: AsRef<OsStr>>(lists: &[T]) -> OsString {
    // A word that is known and wrong stays, and is refused by whoever reads the list.
    let known = |word: &&[u8]| Options::default().take(word).unwrap_or(true);
    OsString::from_vec(lists.iter().flat_map(words).filter(known).collect::<Vec<_>>().join(&b','))
}

/// Whether a word is among those of these lists.
pub(crate) fn says<T: AsRef<OsStr>>(lists: &[T], word: &str) -> bool {
    lists.iter().flat_map(words).any(|said| said == word.as_bytes())
}

/// Words that other programs read, or that change nothing on a read-only mount.
fn is_ignored(name: &str, value: Option<&str>) -> bool {
    const WORDS: &[&str] = &[
        "_netdev",
        "async",
        "atime",
        "auto",
        "comment",
        "defaults",
        "diratime",
        "dirsync",
        "group",
        "lazytime",
        "noatime",
        "noauto",
        "nodev",
        "nodiratime",
        "nofail",
        "nogroup",
        "nolazytime",
        "noowner",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nouser",
        "nousers",
        "owner",
        "relatime",
        "ro",
        "silent",
        "strictatime",
        "sync",
        "user",
        "users",
    ];
    name.starts_with("x-")
        || name.starts_with("X-")
        || value.is_none() && WORDS.contains(&name)
        || value.is_some() && ["comment", "helper", "user"].contains(&name)
}

fn id(name: &str, value: &str) -> Result<u32, Failure> {
    // The highest number means "no change" to the kernel and is nobody's.
    value.parse().ok().filter(|&id| id != u32::MAX).ok_or_else(|| wrong(name, value, "a number"))
}

fn umask(value: &str) -> Result<u16, Failure> {
    let octal = value.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mask = u16::from_str_radix(value, 8).ok().filter(|&mask| octal && mask <= 0o777);
    mask.ok_or_else(|| wrong("umask", value, "an octal number up to 777"))
}

/// A size in bytes, or with K, M or G.
pub(crate) fn size(value: &str) -> Option<u64> {
    let (digits, shift) = match value.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&value[..value.len() - 1], 10),
        b'M' => (&value[..value.len() - 1], 20),
        b'G' => (&value[..value.len() - 1], 30),
        b'T' => (&value[..value.len() - 1], 40),
        _ => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn unknown(word: &[u8]) -> Failure {
    Failure::usage(format!("unknown option '{}'", escaped(OsStr::from_bytes(word))))
}

fn wrong(name: &str, value: &str, wanted: &str) -> Failure {
    Failure::usage(format!("option '{name}={}': {wanted} is expected", escaped(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Options, String> {
        Options::parse(&[list]).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_mount_passes_is_taken_and_changes_nothing() {
        let list = "rw,ro,nosuid,nodev,noexec,relatime,user,nofail,_netdev,uhelper=other,x-gvfs-show,X-a=b,comment=hey";
        assert_eq!(parse(list), Ok(Options::default()));
        assert_eq!(parse(""), Ok(Options::default()));
    }

    #[test]
    fn own_words_are_read_and_the_last_one_wins() {
        let options = parse("uid=1000,gid=100,umask=022,exec,threads=2,memory=32M,timeout=5,checksum=warn").unwrap();
        assert_eq!((options.uid, options.gid, options.umask), (Some(1000), Some(100), 0o022));
        assert_eq!((options.exec, options.threads, options.memory), (true, 2, 32 << 20));
        assert_eq!((options.timeout, options.checksum), (Duration::from_secs(5), Checksum::Warn));
        assert!(!parse("exec,noexec").unwrap().exec && parse("allow_exec").unwrap().exec);
        assert_eq!(parse("part=2,part=a label").unwrap().part.as_deref(), Some("a label"));
        let options = parse("sb=32768,verity=verify").unwrap();
        assert_eq!((options.superblock, options.verity), (Some(32768), Verity::Verify));
        let several = Options::parse(&["uid=1,special=hide", "uid=2,nosymfollow,confine=degraded"]).unwrap();
        assert_eq!((several.uid, several.special), (Some(2), Special::Hide));
        assert_eq!((several.nosymfollow, several.confine), (true, Strictness::Degraded));
    }

    #[test]
    fn a_word_that_is_not_known_is_named_and_escaped() {
        assert_eq!(parse("ro,frobnicate=1").unwrap_err(), "unknown option 'frobnicate=1'");
        assert_eq!(parse("a\x1bb").unwrap_err(), "unknown option 'a\\x1bb'");
        for word in
            ["part", "part=", "partition=1", "uid", "exec=1", "remount", "ro=1", "uhelper", "=", "allow_other=1"]
        {
            assert!(parse(word).unwrap_err().starts_with("unknown option"), "{word}");
        }
    }

    #[test]
    fn iomap_is_off_unless_it_is_asked_for() {
        let words = [
            ("", Wanted::No),
            ("iomap", Wanted::IfOffered),
            ("iomap=require", Wanted::Required),
            ("iomap=require,iomap", Wanted::IfOffered),
            ("iomap=require,noiomap", Wanted::No),
        ];
        for (word, wanted) in words {
            assert_eq!(parse(word), Ok(Options { iomap: wanted, ..Options::default() }), "{word}");
        }
    }

    #[test]
    fn udisks_gets_a_mount_on_the_device() {
        for word in ["blkdev", "nodev,nosuid,uhelper=udisks2"] {
            assert_eq!(parse(word), Ok(Options { blkdev: true, ..Options::default() }), "{word}");
        }
    }

    #[test]
    fn words_that_are_not_known_can_be_passed_over() {
        assert_eq!(known(&["ro,frobnicate=1,uid=5", "a\x1bb,,suid,uid=x"]), "ro,uid=5,suid,uid=x");
    }

    #[test]
    fn what_would_weaken_a_mount_is_refused() {
        assert!(parse("suid").unwrap_err().contains("refused"));
        assert!(parse("dev").unwrap_err().contains("refused"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let words = [
            "uid=-1",
            "uid=4294967295",
            "gid=",
            "umask=8",
            "umask=1000",
            "umask=+7",
            "threads=0",
            "threads=17",
            "memory=1K",
            "memory=99999999999G",
            "memory=",
            "memory=M",
            "timeout=-1",
            "checksum=maybe",
            "verity=yes",
            "sb=0",
            "sb=-1",
            "special=no",
            "xattrs=yes",
            "confine=off",
            "iomap=yes",
            "iomap=",
        ];
        for word in words {
            assert!(parse(word).unwrap_err().contains("is expected"), "{word}");
        }
    }
}
