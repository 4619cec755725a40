//! What was checked last, so that a request that comes again, or one beside it, checks nothing twice.
//!
//! Bounded by the memory that was granted, whatever the image: a fixed number of sets of four, each with a lock of its
//! own, so that threads seldom meet. A thing is found only under everything that its check depended on, so that a hit is
//! as good as a check; and what was let pass with a wrong checksum is not kept, so that each use of it is counted.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lazaret_policy::planted;

use super::Block;
use super::dir::{BlockKey, Role};
use super::extent::{Entry, Node, NodeKey};
use super::group::GroupDescriptor;
use super::inode::Inode;
use super::units::{BlockSize, GroupNumber, InodeNumber, u64_from};

/// Things that one set holds.
const WAYS: usize = 4;
/// The most inodes and group descriptors that are kept. More of them would seldom be asked for again: the kernel keeps
/// what it was told of an inode, and a descriptor is asked for beside its neighbours.
const MOST_SMALL: usize = 1024;

/// What a thing is found under.
pub(super) trait Key: Copy + PartialEq {
    /// A number that tells most keys apart. What lies side by side should have numbers side by side.
    fn mixed(&self) -> u64;
}

/// The things of one kind that are kept.
pub(super) struct Cache<K, V> {
    /// How many sets there are.
    count: usize,
    /// None before the first thing is kept: to make room is the dearest part of opening a small image.
    sets: OnceLock<Sets<K, V>>,
}

/// Where a thing may be kept: the one used last comes first.
type Set<K, V> = [Option<(K, V)>; WAYS];
/// Each with a lock of its own.
type Sets<K, V> = Box<[Mutex<Set<K, V>>]>;

/// All that is kept of one file system.
pub(super) struct Kept {
    /// Of extent trees.
    pub(super) nodes: Cache<NodeKey, Arc<Node>>,
    /// Of directories, and what each is.
    pub(super) blocks: Cache<BlockKey, (Arc<Block>, Role)>,
    pub(super) inodes: Cache<InodeNumber, Arc<Inode>>,
    pub(super) groups: Cache<GroupNumber, GroupDescriptor>,
}

impl Kept {
    /// Takes less than a quarter of the bytes that `memory` grants, and none if nothing is to be kept.
    pub(super) fn new(size: BlockSize, inode_size: u16, memory: u64, keeps: bool) -> Self {
        // An entry takes 12 bytes on the disk.
        let node = size.length().div_ceil(12).saturating_mul(size_of::<Entry>());
        // What an inode has on the heap is shorter than the inode on the disk.
        let inode = size_of::<Inode>().saturating_add(inode_size.into());
        let fitting = |share: u32, each: usize| {
            let bytes = memory.checked_shr(share).unwrap_or(0).checked_div(u64_from(each)).unwrap_or(0);
            usize::try_from(bytes).unwrap_or(usize::MAX)
        };
        Self {
            nodes: Cache::new(keeps.then(|| fitting(3, node))),
            blocks: Cache::new(keeps.then(|| fitting(4, size.length()))),
            inodes: Cache::new(keeps.then(|| fitting(6, inode).min(MOST_SMALL))),
            groups: Cache::new(keeps.then_some(MOST_SMALL)),
        }
    }
}

impl<K: Key, V: Clone> Cache<K, V> {
    /// Room for so many things, and for one set at least; for none, if none are to be kept.
    fn new(most: Option<usize>) -> Self {
        let sets = |most: usize| most.checked_div(WAYS).unwrap_or(0);
        // An odd number, so that things a power of two apart do not meet in a few sets.
        let count = most.map_or(0, |most| sets(most).saturating_sub(1) | 1);
        Self { count, sets: OnceLock::new() }
    }

    /// The room itself; none, where the heap has no more.
    fn room(count: usize) -> Sets<K, V> {
        let mut sets = Vec::new();
        if sets.try_reserve_exact(count).is_ok() {
            sets.resize_with(count, Mutex::default);
        }
        sets.into_boxed_slice()
    }

    /// A copy of what is kept under this key.
    pub(super) fn find(&self, key: &K) -> Option<V> {
        let mut set = self.set(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        let way = set.iter().position(|kept| kept.as_ref().is_some_and(|(of, _)| of == key || planted("stale")))?;
        if way > 0 {
            set.get_mut(..=way)?.rotate_right(1);
        }
        set.first()?.as_ref().map(|(_, value)| value.clone())
    }

    /// Keeps this, in the place of what was used least of its set.
    pub(super) fn keep(&self, key: K, value: V) {
        self.sets.get_or_init(|| Self::room(self.count));
        let Some(set) = self.set(&key) else { return };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        set.rotate_right(1);
        if let Some(first) = set.first_mut() {
            *first = Some((key, value));
        }
    }

    fn set(&self, key: &K) -> Option<&Mutex<Set<K, V>>> {
        let sets = self.sets.get()?;
        let count = u64_from(sets.len());
        sets.get(usize::try_from(key.mixed().checked_rem(count)?).ok()?)
    }
}

impl Key for NodeKey {
    fn mixed(&self) -> u64 {
        self.block.0 ^ u64::from(self.seed)
    }
}

impl Key for BlockKey {
    fn mixed(&self) -> u64 {
        self.place.0 ^ u64::from(self.seed)
    }
}

impl Key for InodeNumber {
    fn mixed(&self) -> u64 {
        self.value().into()
    }
}

impl Key for GroupNumber {
    fn mixed(&self) -> u64 {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lazaret_policy::message::Checksum;

    use super::*;
    use crate::device::Device;
    use crate::ext4::sample::{Sample, directory, names};
    use crate::ext4::units::BlockNumber;
    use crate::ext4::{Filesystem, Settings};

    fn key(block: u64) -> NodeKey {
        NodeKey { seed: 1, inode: 12, block: BlockNumber(block), depth: 0, from: 0, to: 10 }
    }

    #[test]
    fn one_that_is_to_keep_none_keeps_none() {
        let cache = Cache::new(None);
        cache.keep(key(9), 1);
        assert_eq!(cache.find(&key(9)), None);
    }

    #[test]
    fn the_least_used_of_a_set_makes_room() {
        let cache = Cache::new(Some(64));
        let stride = cache.count as u64 * 2;
        let keys: Vec<_> = (0..5).map(|n| key(8 + n * stride)).collect();
        for (number, key) in keys[..4].iter().enumerate() {
            cache.keep(*key, number);
        }
        assert_eq!(cache.find(&keys[0]), Some(0));
        cache.keep(keys[4], 4);
        assert_eq!(cache.find(&keys[1]), None);
        for number in [0, 2, 3, 4] {
            assert_eq!(cache.find(&keys[number]), Some(number));
        }
    }

    #[test]
    fn a_node_checked_for_another_range_is_not_found() {
        let cache = Cache::new(Some(64));
        cache.keep(key(9), ());
        for other in [
            NodeKey { to: 11, ..key(9) },
            NodeKey { from: 1, ..key(9) },
            NodeKey { depth: 1, ..key(9) },
            NodeKey { inode: 13, ..key(9) },
        ] {
            assert_eq!(cache.find(&other), None);
        }
        assert_eq!(cache.find(&key(9)), Some(()));
    }

    #[test]
    fn it_stays_within_its_share_of_the_memory_at_every_size() {
        for memory in [8 << 20, 64 << 20, 1 << 30] {
            for (log, inode_size) in
                (0..=6).flat_map(|log| (7..=(10 + log).min(15)).map(move |bits| (log, 1_u16 << bits)))
            {
                let size = BlockSize::from_log(log).unwrap();
                let kept = Kept::new(size, inode_size, memory, true);
                let nodes = kept.nodes.count * WAYS * (size.length() / 12) * size_of::<Entry>();
                let blocks = kept.blocks.count * WAYS * size.length();
                let inodes = kept.inodes.count * WAYS * (size_of::<Inode>() + usize::from(inode_size));
                let groups = kept.groups.count * size_of::<Mutex<Set<GroupNumber, GroupDescriptor>>>();
                assert!(((nodes + blocks + inodes + groups) as u64) < memory / 4, "{log}, {inode_size}, {memory}");
                assert!(kept.inodes.count > 9 || inode_size > 1024);
            }
        }
    }

    /// A file system whose device counts how often it is asked.
    fn counted(bytes: Vec<u8>, checksum: Checksum) -> (Filesystem, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let device = Device::answered(bytes.len() as u64, move |offset, out| {
            count.fetch_add(1, Ordering::Relaxed);
            out.copy_from_slice(&bytes[offset as usize..][..out.len()]);
            true
        });
        (Filesystem::open(device, Settings { checksum, ..Settings::default() }).unwrap(), asked)
    }

    #[test]
    fn what_was_checked_is_read_no_more() {
        let names = names(200, 20);
        for indexed in [None, Some("half")] {
            let (fs, asked) = counted(Sample::new(&["-b", "1024"], indexed, &names).bytes, Checksum::Strict);
            let number = directory(&fs).number;
            let look = || {
                let directory = fs.kept_inode(number).unwrap();
                fs.lookup(&directory, &names[150]).unwrap().unwrap()
            };
            let (found, before) = (look(), asked.load(Ordering::Relaxed));
            for _ in 0..3 {
                assert_eq!(look(), found);
            }
            assert_eq!(asked.load(Ordering::Relaxed), before);
            let (file, before) = (fs.inode(found).unwrap(), before + 1);
            assert_eq!((file.number, asked.load(Ordering::Relaxed)), (found, before), "its group is known");
        }
    }

    #[test]
    fn what_is_let_pass_is_counted_at_each_use() {
        let names = names(200, 20);
        let mut bytes = Sample::new(&["-b", "1024", "-O", "^dir_index"], None, &names).bytes;
        let at = bytes.windows(20).position(|window| window == names[199]).unwrap();
        bytes[at] ^= 1;
        let (fs, _) = counted(bytes, Checksum::Warn);
        let directory = directory(&fs);
        for uses in 1..4 {
            assert_eq!(fs.lookup(&directory, &names[199]), Ok(None));
            assert_eq!(fs.verifier().failures(), uses);
        }
    }
}
