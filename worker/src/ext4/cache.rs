//! The extent nodes that were checked last, so that a read in the middle of a large file checks no node twice.
//!
//! Bounded by a constant, whatever the image: a fixed number of sets of four, each with a lock of its own. A node is
//! found only under everything that its check depended on, so that a hit is as good as a check.

use std::sync::{Arc, Mutex, PoisonError};

use super::extent::{Entry, Node, NodeKey};
use super::units::{BlockSize, usize_from};

/// The most that the entries of all kept nodes take, in bytes.
const MOST_BYTES: usize = 8 << 20;

/// Where a node may be kept: the one used last comes first.
type Set = [Option<Arc<Node>>; 4];

/// The nodes that are kept.
pub(super) struct NodeCache {
    sets: Box<[Mutex<Set>]>,
}

impl NodeCache {
    pub(super) fn new(size: BlockSize) -> Self {
        // An entry takes 12 bytes on the disk.
        let node = usize_from(size.bytes()).div_ceil(12).saturating_mul(size_of::<Entry>());
        let sets = MOST_BYTES.checked_div(node.saturating_mul(4)).unwrap_or(1);
        // An odd number, so that nodes a power of two apart do not meet in a few sets.
        let sets = sets.saturating_sub(1) | 1;
        Self { sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn find(&self, key: &NodeKey) -> Option<Arc<Node>> {
        let mut set = self.set(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        let way = set.iter().position(|node| node.as_ref().is_some_and(|node| node.key == *key))?;
        set.get_mut(..=way)?.rotate_right(1);
        set.first().cloned().flatten()
    }

    pub(super) fn keep(&self, node: &Arc<Node>) {
        let Some(set) = self.set(&node.key) else { return };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        set.rotate_right(1);
        if let Some(first) = set.first_mut() {
            *first = Some(Arc::clone(node));
        }
    }

    fn set(&self, key: &NodeKey) -> Option<&Mutex<Set>> {
        let sets = u64::try_from(self.sets.len()).ok()?;
        // Blocks that lie side by side, as nodes do, come into different sets.
        let mixed = key.block.0 ^ u64::from(key.seed);
        self.sets.get(usize::try_from(mixed.checked_rem(sets)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::units::BlockNumber;

    fn node(block: u64) -> Arc<Node> {
        let key = NodeKey { seed: 1, inode: 12, block: BlockNumber(block), depth: 0, from: 0, to: 10 };
        Arc::new(Node { key, entries: Arc::new([]), is_roomy: true })
    }

    #[test]
    fn the_least_used_of_a_set_makes_room() {
        let cache = NodeCache::new(BlockSize::from_log(2).unwrap());
        let stride = cache.sets.len() as u64 * 2;
        let nodes: Vec<_> = (0..5).map(|n| node(8 + n * stride)).collect();
        for node in &nodes[..4] {
            cache.keep(node);
        }
        assert!(cache.find(&nodes[0].key).is_some());
        cache.keep(&nodes[4]);
        assert!(cache.find(&nodes[1].key).is_none());
        for index in [0, 2, 3, 4] {
            assert!(Arc::ptr_eq(&cache.find(&nodes[index].key).unwrap(), &nodes[index]));
        }
    }

    #[test]
    fn a_node_checked_for_another_range_is_not_found() {
        let cache = NodeCache::new(BlockSize::from_log(0).unwrap());
        cache.keep(&node(9));
        assert!(cache.find(&NodeKey { to: 11, ..node(9).key }).is_none());
        assert!(cache.find(&NodeKey { depth: 1, ..node(9).key }).is_none());
        assert!(cache.find(&node(9).key).is_some());
    }

    #[test]
    fn it_stays_within_its_bytes_at_every_block_size() {
        for log in 0..=6 {
            let size = BlockSize::from_log(log).unwrap();
            let nodes = NodeCache::new(size).sets.len() * 4;
            assert!(nodes >= 4 && nodes * (size.length() / 12) * size_of::<Entry>() <= MOST_BYTES);
        }
    }
}
