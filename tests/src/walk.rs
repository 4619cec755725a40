//! Everything that can be asked of a file system, asked in this process of an image that may be anything. Only what
//! comes back is looked at: whether an answer is right, other tests say.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use lazaret_policy::corruption::Rule;
use lazaret_policy::message::{Checked, Refusal};
use lazaret_worker::device::Device;
use lazaret_worker::error::Error;
use lazaret_worker::ext4::check::Check;
use lazaret_worker::ext4::seek::Wanted;
use lazaret_worker::ext4::{FileKind, FileOffset, Filesystem, Inode, InodeNumber, Settings};

/// What a walk cost, and how far it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU time of all of it.
    pub total: Duration,
    /// CPU time of the longest single request.
    pub longest: Duration,
    /// Which one that was.
    pub request: &'static str,
    /// The image was opened.
    pub opened: bool,
    /// Transactions and fast commits that were read from its journal.
    pub replayed: (u32, u32),
    /// Wrong checksums that were let pass in what has names.
    pub failures: u64,
    /// Objects that were looked at.
    pub objects: u32,
    /// Answers that were errors.
    pub errors: u32,
    /// The rules that were told as broken.
    pub rules: Rules,
}

/// A set of rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules([u64; 4]);

impl Rules {
    /// Adds one.
    pub fn add(&mut self, rule: Rule) {
        self.0[rule as usize / 64] |= 1 << (rule as usize % 64);
    }

    /// Adds those of another set.
    pub fn join(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(all, more)| *all |= more);
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// After so much CPU time no further request is begun: an image may make each of many as dear as one may be.
const ENOUGH: Duration = Duration::from_millis(800);
const MOST_OBJECTS: u32 = 2000;
const MOST_NAMES: usize = 300;

/// Opens an image and asks for everything.
pub fn walk(bytes: Vec<u8>, settings: Settings) -> Cost {
    let mut walk = Walk { cost: Cost::default(), begin: now(), buffer: vec![0; 64 << 10] };
    let open = || Filesystem::open(Device::from_bytes(bytes), settings).map_err(as_error);
    if let Ok(fs) = walk.ask("open", open) {
        walk.cost.opened = true;
        walk.tree(&fs);
        walk.cost.failures = fs.verifier().failures();
        for number in (1..=fs.superblock().inodes.min(200)).filter_map(InodeNumber::new) {
            if let Ok(inode) = walk.ask("any inode", || fs.any_inode(number)) {
                walk.object(&fs, &inode);
            }
        }
        let _ = walk.ask("statfs", || {
            let _ = (fs.statfs(), fs.warnings());
            Ok(())
        });
        walk.check(&fs);
        walk.cost.replayed = (fs.replayed().transactions, fs.replayed().fast_commits);
    }
    walk.cost.total = now() - walk.begin;
    walk.cost
}

struct Walk {
    cost: Cost,
    begin: Duration,
    buffer: Vec<u8>,
}

impl Walk {
    fn tree(&mut self, fs: &Filesystem) {
        let (mut open, mut seen) = (vec![InodeNumber::ROOT], HashSet::new());
        while let Some(number) = open.pop() {
            if !seen.insert(number) || self.cost.objects > MOST_OBJECTS {
                continue;
            }
            self.cost.objects += 1;
            let Ok(inode) = self.ask("inode", || fs.inode(number)) else { continue };
            self.object(fs, &inode);
            if inode.kind == FileKind::Directory {
                open.extend(self.directory(fs, &inode));
            }
        }
    }

    /// The numbers of its entries. In pieces, so that cookies are used.
    fn directory(&mut self, fs: &Filesystem, directory: &Inode) -> Vec<InodeNumber> {
        let (mut cookie, mut numbers, mut names) = (0, Vec::new(), Vec::new());
        for piece in [7, 40, MOST_NAMES] {
            let before = cookie;
            let mut left = piece;
            let _ = self.ask("read_dir", || {
                fs.read_dir(directory, before, &mut |entry| {
                    if left == 0 {
                        return ControlFlow::Break(());
                    }
                    left -= 1;
                    assert!(entry.cookie > cookie, "cookies rise");
                    assert!(
                        (1..=255).contains(&entry.name.len())
                            && !entry.name.iter().any(|byte| matches!(byte, 0 | b'/'))
                    );
                    cookie = entry.cookie;
                    numbers.push(entry.inode);
                    names.push(entry.name.to_vec());
                    ControlFlow::Continue(())
                })
            });
            if cookie == before {
                break;
            }
        }
        names.truncate(30);
        names.extend([b".".to_vec(), b"..".to_vec(), b"not there".to_vec(), vec![0xff; 255], vec![b'x'; 256]]);
        for name in names {
            let _ = self.ask("lookup", || fs.lookup(directory, &name));
        }
        numbers
    }

    fn object(&mut self, fs: &Filesystem, inode: &Inode) {
        let _ = self.ask("size", || {
            let _ = fs.shown_size(inode);
            Ok(())
        });
        let mut attributes = Vec::new();
        let _ = self.ask("xattrs", || {
            fs.xattrs(inode, &mut |xattr| {
                attributes.push([xattr.namespace.prefix().as_bytes(), xattr.name].concat());
                ControlFlow::Continue(())
            })
        });
        for name in attributes.iter().take(50) {
            let _ = self.ask("xattr", || fs.xattr(inode, name));
        }
        let _ = self.ask("read_link", || fs.read_link(inode));
        if inode.kind == FileKind::Regular {
            self.file(fs, inode);
        }
    }

    fn file(&mut self, fs: &Filesystem, inode: &Inode) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for at in [0, inode.size / 2 + 1, inode.size.saturating_sub(5000), 1 << 40] {
            let _ = self.ask("read", || fs.read(inode, at, &mut buffer));
        }
        self.buffer = buffer;
        let mut at = 0;
        for _ in 0..40 {
            let left = inode.size.saturating_sub(at);
            let Ok(mapping) = self.ask("map", || fs.map(inode, FileOffset(at), left)) else { break };
            assert!(mapping.length <= left && (mapping.length > 0 || left == 0), "a mapping goes on");
            at += mapping.length;
            if at >= inode.size {
                break;
            }
        }
        let mut at = 0;
        for wanted in [Wanted::Data, Wanted::Hole].into_iter().cycle().take(20) {
            let Ok(Some(next)) = self.ask("seek", || fs.seek(inode, at, wanted)) else { break };
            assert!(next >= at, "a search goes on");
            at = next;
        }
    }

    fn check(&mut self, fs: &Filesystem) {
        let Ok(mut check) = self.ask("begin of check", || Check::new(fs)) else { return };
        while let Ok(Checked { over, findings, .. }) = self.ask("check", || check.advance()) {
            for finding in findings {
                self.cost.rules.add(finding.corruption.rule);
            }
            if over {
                break;
            }
        }
    }

    /// Asks, if there is time left.
    fn ask<T>(&mut self, request: &'static str, ask: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let before = now();
        if before - self.begin > ENOUGH {
            return Err(Error::Budget);
        }
        let answer = ask();
        let took = now() - before;
        if took > self.cost.longest {
            (self.cost.longest, self.cost.request) = (took, request);
        }
        self.cost.errors += u32::from(answer.is_err());
        if let Err(Error::Corrupt(broken) | Error::Checksum(broken)) = &answer {
            self.cost.rules.add(broken.rule);
        }
        answer
    }
}

fn as_error(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Corrupt(broken) => Error::Corrupt(broken),
        Refusal::Checksum(broken) => Error::Checksum(broken),
        _ => Error::Invalid,
    }
}

/// CPU time of this thread.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
