//! What the features of a file system mean for reading it, in words.
//!
//! What holds here: a feature is a bit, and the words are ours. Whether a file system can be read is the worker's to say.

/// What a feature of this name means; none for one that is not known.
pub(crate) fn of_feature(name: &str) -> Option<&'static str> {
    MEANINGS.iter().find(|(one, _)| *one == name).map(|(_, meaning)| *meaning)
}

/// By the names of `tune2fs -O`, sorted.
const MEANINGS: &[(&str, &str)] = &[
    ("64bit", "block numbers have 64 bits"),
    ("bigalloc", "space comes in clusters of several blocks"),
    ("btree_dir", "never used; changes nothing"),
    ("casefold", "in some directories names are found in upper and lower case"),
    ("compression", "no kernel has it: cannot be read"),
    ("dir_index", "large directories are hashed and quick to search"),
    ("dir_nlink", "a directory may have more subdirectories than it counts"),
    ("dir_prealloc", "for writers only"),
    ("dirdata", "Lustre's: cannot be read"),
    ("ea_inode", "large extended attributes have inodes of their own"),
    ("encrypt", "some files may be encrypted: without a key their names are shown encoded and they cannot be opened"),
    ("ext_attr", "files may have extended attributes and access control lists"),
    ("extent", "files are mapped by extents"),
    ("extra_isize", "inodes have room for nanoseconds and more"),
    ("fast_commit", "the journal may end with fast commits"),
    ("filetype", "directories tell the types of files"),
    ("flex_bg", "metadata of several groups lies together"),
    ("has_journal", "there is a journal"),
    ("huge_file", "files may be longer than 2 TiB"),
    ("imagic_inodes", "AFS's: changes nothing"),
    ("inline_data", "small files lie in their inodes"),
    ("journal_dev", "is the journal of another file system: cannot be read"),
    ("large_dir", "directories may be longer than 2 GiB"),
    ("large_file", "files may be longer than 2 GiB"),
    ("lazy_bg", "never used; changes nothing"),
    ("meta_bg", "group descriptors are spread over the device"),
    ("metadata_csum", "metadata has checksums, and what does not match is not trusted"),
    ("metadata_csum_seed", "the UUID may have changed since the checksums were made"),
    ("mmp", "guarded against being mounted by two hosts"),
    ("needs_recovery", "was not unmounted: what its journal holds is read in memory, and nothing is written"),
    ("orphan_file", "deleted files that were open are listed in a file"),
    ("orphan_present", "some deleted files were open: their space is not free yet"),
    ("project", "space is counted by project; for writers only"),
    ("quota", "space is counted by owner; for writers only"),
    ("read-only", "marked not to be written"),
    ("replica", "never used in a released kernel; changes nothing"),
    ("resize_inode", "room to grow is kept; for writers only"),
    ("shared_blocks", "files share blocks: may only be read"),
    ("snapshot", "never used in a released kernel; changes nothing"),
    ("snapshot_bitmap", "never used in a released kernel; changes nothing"),
    ("snapshot_inode", "never used in a released kernel; changes nothing"),
    ("sparse_super", "only some groups have a copy of the superblock"),
    ("sparse_super2", "two groups have a copy of the superblock"),
    ("stable_inodes", "inode numbers and the UUID do not change"),
    ("uninit_bg", "group descriptors have checksums"),
    ("verity", "some files may have Merkle trees: verity=verify checks them"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::feature::{Compat, Incompat, RoCompat};

    #[test]
    fn every_feature_with_a_name_has_a_meaning() {
        let names = [Compat::all().names(), Incompat::all().names(), RoCompat::all().names()].concat();
        assert!(names.len() > 40);
        for name in names.iter().filter(|name| !name.starts_with("FEATURE_")) {
            assert!(of_feature(name).is_some(), "{name}");
        }
        assert!(MEANINGS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(of_feature("FEATURE_I31"), None);
    }
}
