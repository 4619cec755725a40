//! Images of one feature each, over block sizes and inode sizes: beside [`RECIPES`](crate::recipe::RECIPES), which has
//! the classic ones. What the kernel here cannot mount is compared with `debugfs` (`tests/debugfs.rs`).

use crate::recipe::{PLAIN, Recipe};
use crate::{fill, many};

/// Walked once: that both orders of requests have the same answers, the classic images show.
const SMALL: Recipe = Recipe { mebibytes: 48, large: true, ..PLAIN };

/// Every image, in the order of the tests.
pub static MATRIX: &[Recipe] = &[
    // Block size and inode size.
    Recipe { name: "1k-inodes-of-128", arguments: &["-t", "ext4", "-b", "1024", "-I", "128"], ..SMALL },
    Recipe { name: "1k-inodes-of-512", arguments: &["-t", "ext4", "-b", "1024", "-I", "512"], ..SMALL },
    Recipe { name: "1k-inodes-of-1024", arguments: &["-t", "ext4", "-b", "1024", "-I", "1024"], ..SMALL },
    Recipe { name: "2k-inodes-of-256", arguments: &["-t", "ext4", "-b", "2048", "-I", "256"], ..SMALL },
    Recipe { name: "2k-inodes-of-2048", arguments: &["-t", "ext4", "-b", "2048", "-I", "2048"], ..SMALL },
    Recipe { name: "4k-inodes-of-512", arguments: &["-t", "ext4", "-b", "4096", "-I", "512"], ..SMALL },
    Recipe { name: "ext2-1k-inodes-of-256", arguments: &["-t", "ext2", "-b", "1024", "-I", "256"], ..SMALL },
    Recipe { name: "ext3-2k-inodes-of-128", arguments: &["-t", "ext3", "-b", "2048", "-I", "128"], ..SMALL },
    // Data in inodes.
    Recipe {
        name: "inline-data-1k-inodes-of-1024",
        arguments: &["-t", "ext4", "-b", "1024", "-I", "1024", "-O", "inline_data"],
        proof: |image| many::has_feature(image, "inline_data"),
        ..SMALL
    },
    Recipe {
        name: "inline-data-2k-inodes-of-512-no-metadata-csum",
        arguments: &["-t", "ext4", "-b", "2048", "-I", "512", "-O", "inline_data,^metadata_csum"],
        proof: |image| many::has_feature(image, "inline_data"),
        ..SMALL
    },
    // Clusters.
    Recipe {
        name: "bigalloc-1k-clusters-of-8k",
        mebibytes: 96,
        arguments: &["-t", "ext4", "-b", "1024", "-C", "8192", "-O", "bigalloc", "-I", "128"],
        proof: |image| many::has_feature(image, "bigalloc"),
        ..SMALL
    },
    Recipe {
        name: "bigalloc-inline-data",
        mebibytes: 96,
        arguments: &["-t", "ext4", "-b", "2048", "-C", "16384", "-O", "bigalloc,inline_data"],
        proof: |image| many::has_feature(image, "bigalloc"),
        ..SMALL
    },
    // Attributes in inodes of their own.
    Recipe {
        name: "ea-inode-1k-inodes-of-128",
        arguments: &["-t", "ext4", "-b", "1024", "-I", "128", "-O", "ea_inode"],
        fill: &[fill::everything, many::large_attributes],
        proof: |image| many::has_feature(image, "ea_inode"),
        ..SMALL
    },
    // What concerns a writer, and a reader passes over.
    Recipe {
        name: "quota",
        arguments: &["-t", "ext4", "-b", "4096"],
        // A kernel without quotas writes to no file system that has them, and reads it.
        finish: &[&["tune2fs", "-O", "quota", "IMAGE"]],
        proof: |image| many::has_feature(image, "quota"),
        ..SMALL
    },
    Recipe {
        name: "quota-of-projects",
        arguments: &["-t", "ext4", "-b", "1024", "-I", "512"],
        finish: &[&["tune2fs", "-O", "project,quota", "-Q", "prjquota", "IMAGE"]],
        proof: |image| many::has_feature(image, "project"),
        ..SMALL
    },
    Recipe {
        name: "stable-inodes",
        arguments: &["-t", "ext4", "-b", "2048", "-O", "stable_inodes"],
        proof: |image| many::has_feature(image, "stable_inodes"),
        ..SMALL
    },
    Recipe {
        name: "verity-without-a-sealed-file",
        arguments: &["-t", "ext4", "-b", "4096", "-O", "verity"],
        proof: |image| many::has_feature(image, "verity"),
        ..SMALL
    },
    Recipe {
        name: "encrypt-without-an-encrypted-file",
        arguments: &["-t", "ext4", "-b", "4096", "-O", "encrypt"],
        proof: |image| many::has_feature(image, "encrypt"),
        ..SMALL
    },
    Recipe {
        name: "shared-blocks",
        arguments: &["-t", "ext4", "-b", "4096"],
        finish: &[&["debugfs", "-w", "-R", "feature shared_blocks", "IMAGE"]],
        proof: |image| many::has_feature(image, "shared_blocks"),
        ..SMALL
    },
    Recipe {
        name: "orphan-file-1k",
        arguments: &["-t", "ext4", "-b", "1024", "-O", "orphan_file"],
        proof: |image| many::has_feature(image, "orphan_file"),
        ..SMALL
    },
    Recipe {
        name: "sparse-super2-4k",
        arguments: &["-t", "ext4", "-b", "4096", "-g", "2048", "-O", "sparse_super2,^sparse_super,^resize_inode"],
        proof: |image| many::has_feature(image, "sparse_super2"),
        ..SMALL
    },
    Recipe {
        name: "read-only-feature",
        arguments: &["-t", "ext4", "-b", "4096"],
        finish: &[&["debugfs", "-w", "-R", "feature read-only", "IMAGE"]],
        proof: |image| many::has_feature(image, "read-only"),
        ..SMALL
    },
    Recipe { name: "no-extra-isize", arguments: &["-t", "ext4", "-b", "4096", "-O", "^extra_isize"], ..SMALL },
    Recipe {
        name: "no-ext-attr",
        arguments: &["-t", "ext4", "-b", "4096", "-O", "^ext_attr"],
        // The first extended attribute would bring the feature.
        fill: &[fill::everything_but_attributes],
        ..SMALL
    },
    // Directories.
    Recipe {
        name: "names-hashed-by-half-md4",
        mebibytes: 32,
        arguments: &["-t", "ext4", "-b", "2048"],
        prepare: &[&["tune2fs", "-E", "hash_alg=half_md4", "IMAGE"]],
        fill: &[many::hashed_names],
        proof: |image| many::superblock_says(image, "Default directory hash", "half_md4"),
        ..PLAIN
    },
    Recipe {
        name: "names-hashed-by-legacy-unsigned",
        mebibytes: 32,
        arguments: &["-t", "ext4", "-b", "1024"],
        prepare: &[
            &["tune2fs", "-E", "hash_alg=legacy", "IMAGE"],
            &["debugfs", "-w", "-R", "set_super_value flags 2", "IMAGE"],
        ],
        fill: &[many::hashed_names],
        proof: |image| many::superblock_says(image, "Filesystem flags", "unsigned_directory_hash"),
        ..PLAIN
    },
];
