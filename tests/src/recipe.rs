//! The images: how mke2fs makes each, what is written to it through the kernel, and how it is shown that it is what
//! its name says. The same arguments give the same layout: UUID and hash seed are fixed.

use std::path::Path;

use crate::{Result, fill, many};

/// The UUID and the hash seed of every image.
pub const UUID: &str = "5ca1ab1e-0000-4000-8000-1a2a4e700001";

/// One image.
pub struct Recipe {
    /// Its name, also the name of its test.
    pub name: &'static str,
    /// Length of the device in MiB. The file is sparse.
    pub mebibytes: u64,
    /// Arguments of mke2fs.
    pub arguments: &'static [&'static str],
    /// Tools that are run on it before it is filled; `IMAGE` stands for its path.
    pub prepare: &'static [&'static [&'static str]],
    /// What is written to it.
    pub fill: &'static [fn(&Path) -> Result],
    /// Tools that are run on it after it was filled.
    pub finish: &'static [&'static [&'static str]],
    /// Shows that the image is what it should be.
    pub proof: fn(&Path) -> Result,
    /// It is walked once and not in both orders: it holds so much, or differs from others only in how it lies on the disk.
    pub large: bool,
}

pub(crate) const PLAIN: Recipe = Recipe {
    name: "",
    mebibytes: 64,
    arguments: &[],
    prepare: &[],
    fill: &[fill::everything],
    finish: &[],
    proof: |_| Ok(()),
    large: false,
};

/// A small image with everything in it, for tests that need any image.
pub fn default() -> &'static Recipe {
    named("ext4")
}

/// The recipe of this name.
pub fn named(name: &str) -> &'static Recipe {
    RECIPES.iter().find(|recipe| recipe.name == name).unwrap_or_else(|| panic!("no recipe is called {name}"))
}

const EXT4: [&str; 4] = ["-t", "ext4", "-b", "4096"];

macro_rules! ext4 {
    ($($more:literal),*) => { &[EXT4[0], EXT4[1], EXT4[2], EXT4[3], $($more),*] };
}

/// Every image, in the order of the tests.
pub static RECIPES: &[Recipe] = &[
    Recipe { name: "ext4", arguments: ext4!(), ..PLAIN },
    Recipe { name: "ext2", arguments: &["-t", "ext2", "-b", "4096"], ..PLAIN },
    Recipe { name: "ext3", arguments: &["-t", "ext3", "-b", "4096"], ..PLAIN },
    Recipe { name: "blocks-of-1k", arguments: &["-t", "ext4", "-b", "1024"], ..PLAIN },
    Recipe { name: "blocks-of-2k", arguments: &["-t", "ext4", "-b", "2048"], ..PLAIN },
    Recipe { name: "inodes-of-128", arguments: ext4!("-I", "128"), ..PLAIN },
    Recipe { name: "inodes-of-1024", arguments: ext4!("-I", "1024"), ..PLAIN },
    Recipe { name: "no-metadata-csum", arguments: ext4!("-O", "^metadata_csum"), ..PLAIN },
    Recipe {
        name: "group-checksums-of-crc16",
        arguments: ext4!("-O", "^metadata_csum,uninit_bg"),
        proof: |image| many::has_feature(image, "uninit_bg"),
        ..PLAIN
    },
    Recipe {
        name: "checksum-seed-of-another-uuid",
        arguments: ext4!("-O", "metadata_csum_seed"),
        finish: &[
            &["e2fsck", "-f", "-p", "IMAGE"],
            &["tune2fs", "-U", "0ddba11e-1111-4111-8111-111111111111", "IMAGE"],
        ],
        proof: |image| many::has_feature(image, "metadata_csum_seed"),
        ..PLAIN
    },
    Recipe {
        name: "meta-bg",
        mebibytes: 256,
        arguments: &["-t", "ext4", "-b", "1024", "-O", "^resize_inode,meta_bg"],
        proof: |image| many::has_feature(image, "meta_bg"),
        ..PLAIN
    },
    Recipe {
        name: "meta-bg-32-bit",
        mebibytes: 320,
        arguments: &["-t", "ext4", "-b", "1024", "-O", "^resize_inode,meta_bg,^64bit,^flex_bg"],
        proof: |image| many::has_feature(image, "meta_bg"),
        ..PLAIN
    },
    Recipe {
        name: "defaults-of-e2fsprogs-1.47.2",
        arguments: ext4!("-O", "metadata_csum_seed,orphan_file"),
        proof: |image| many::has_feature(image, "orphan_file"),
        ..PLAIN
    },
    Recipe { name: "no-64bit", arguments: ext4!("-O", "^64bit"), ..PLAIN },
    Recipe { name: "no-flex-bg", mebibytes: 96, arguments: &["-t", "ext4", "-b", "1024", "-O", "^flex_bg"], ..PLAIN },
    Recipe { name: "no-extents", arguments: ext4!("-O", "^extent,^64bit"), ..PLAIN },
    Recipe { name: "no-filetype", arguments: &["-t", "ext2", "-b", "4096", "-O", "^filetype"], ..PLAIN },
    Recipe { name: "no-dir-index", arguments: ext4!("-O", "^dir_index"), ..PLAIN },
    Recipe { name: "no-huge-file", arguments: ext4!("-O", "^huge_file,^dir_nlink"), ..PLAIN },
    Recipe {
        name: "no-sparse-super",
        mebibytes: 96,
        arguments: &["-t", "ext4", "-b", "1024", "-O", "^sparse_super,^resize_inode"],
        ..PLAIN
    },
    Recipe {
        name: "sparse-super2",
        mebibytes: 96,
        arguments: &["-t", "ext4", "-b", "1024", "-O", "sparse_super2,^sparse_super,^resize_inode"],
        proof: |image| many::has_feature(image, "sparse_super2"),
        ..PLAIN
    },
    Recipe {
        name: "small-groups",
        mebibytes: 40,
        arguments: &["-t", "ext4", "-b", "1024", "-g", "512", "-O", "^resize_inode"],
        ..PLAIN
    },
    Recipe {
        name: "orphan-file",
        arguments: ext4!("-O", "orphan_file"),
        proof: |image| many::has_feature(image, "orphan_file"),
        ..PLAIN
    },
    Recipe {
        name: "inline-data",
        arguments: ext4!("-O", "inline_data", "-I", "512"),
        proof: |image| many::has_feature(image, "inline_data"),
        ..PLAIN
    },
    Recipe {
        name: "inline-data-in-inodes-of-256",
        arguments: &["-t", "ext4", "-b", "1024", "-O", "inline_data"],
        proof: |image| many::has_feature(image, "inline_data"),
        ..PLAIN
    },
    Recipe {
        name: "clusters",
        mebibytes: 256,
        arguments: ext4!("-O", "bigalloc", "-C", "16384"),
        proof: |image| many::has_feature(image, "bigalloc"),
        ..PLAIN
    },
    Recipe {
        name: "attributes-in-inodes",
        arguments: ext4!("-O", "ea_inode"),
        fill: &[fill::everything, many::large_attributes],
        proof: |image| many::has_feature(image, "ea_inode"),
        ..PLAIN
    },
    Recipe {
        name: "guarded-against-two-hosts",
        arguments: ext4!("-O", "mmp"),
        proof: |image| many::has_feature(image, "mmp"),
        ..PLAIN
    },
    Recipe {
        name: "fast-commit",
        arguments: ext4!("-O", "fast_commit"),
        proof: |image| many::has_feature(image, "fast_commit"),
        ..PLAIN
    },
    Recipe {
        name: "large-dir",
        arguments: ext4!("-O", "large_dir"),
        proof: |image| many::has_feature(image, "large_dir"),
        ..PLAIN
    },
    Recipe { name: "no-journal", arguments: ext4!("-O", "^has_journal"), ..PLAIN },
    Recipe {
        name: "revision-0",
        // Newer versions of mke2fs make none of revision 0.
        arguments: &["-t", "ext2", "-O", "none", "-I", "128", "-b", "1024"],
        prepare: &[
            &["debugfs", "-w", "-R", "set_super_value rev_level 0", "IMAGE"],
            &["debugfs", "-w", "-R", "set_super_value inode_size 0", "IMAGE"],
            &["debugfs", "-w", "-R", "set_super_value first_ino 0", "IMAGE"],
        ],
        // The first extended attribute would make it revision 1.
        fill: &[fill::everything_but_attributes],
        proof: |image| many::superblock_says(image, "Filesystem revision #", "0 (original)"),
        ..PLAIN
    },
    Recipe {
        name: "names-hashed-by-legacy",
        mebibytes: 32,
        arguments: &["-t", "ext4", "-b", "1024"],
        prepare: &[&["tune2fs", "-E", "hash_alg=legacy", "IMAGE"]],
        fill: &[many::hashed_names],
        proof: |image| many::superblock_says(image, "Default directory hash", "legacy"),
        ..PLAIN
    },
    Recipe {
        name: "names-hashed-by-tea",
        mebibytes: 32,
        arguments: &["-t", "ext4", "-b", "1024"],
        prepare: &[&["tune2fs", "-E", "hash_alg=tea", "IMAGE"]],
        fill: &[many::hashed_names],
        proof: |image| many::superblock_says(image, "Default directory hash", "tea"),
        ..PLAIN
    },
    Recipe {
        name: "names-hashed-unsigned",
        mebibytes: 32,
        arguments: &["-t", "ext4", "-b", "1024"],
        prepare: &[&["debugfs", "-w", "-R", "set_super_value flags 2", "IMAGE"]],
        fill: &[many::hashed_names],
        proof: |image| many::superblock_says(image, "Filesystem flags", "unsigned_directory_hash"),
        ..PLAIN
    },
    Recipe {
        name: "names-hashed-by-tea-unsigned",
        mebibytes: 32,
        arguments: &["-t", "ext4", "-b", "1024"],
        prepare: &[
            &["tune2fs", "-E", "hash_alg=tea", "IMAGE"],
            &["debugfs", "-w", "-R", "set_super_value flags 2", "IMAGE"],
        ],
        fill: &[many::hashed_names],
        proof: |image| many::superblock_says(image, "Filesystem flags", "unsigned_directory_hash"),
        ..PLAIN
    },
    Recipe {
        name: "ten-thousand-extents",
        mebibytes: 96,
        arguments: &["-t", "ext4", "-b", "1024"],
        fill: &[many::many_extents],
        proof: many::extent_trees_are_deep,
        ..PLAIN
    },
    Recipe {
        name: "triple-indirect-ext2",
        arguments: &["-t", "ext2", "-b", "1024"],
        fill: &[many::triple_indirect],
        proof: many::has_triple_indirect_block,
        ..PLAIN
    },
    Recipe {
        name: "triple-indirect-ext3",
        arguments: &["-t", "ext3", "-b", "1024"],
        fill: &[many::triple_indirect],
        proof: many::has_triple_indirect_block,
        ..PLAIN
    },
    Recipe { name: "longer-than-32-bits", arguments: ext4!(), fill: &[many::longer_than_32_bits], ..PLAIN },
    Recipe {
        name: "longer-than-32-bits-ext3",
        arguments: &["-t", "ext3", "-b", "4096"],
        fill: &[many::longer_than_32_bits],
        ..PLAIN
    },
    Recipe {
        name: "hundred-thousand-entries",
        mebibytes: 64,
        arguments: ext4!(),
        fill: &[many::hundred_thousand_entries],
        proof: many::big_directory_is_hashed,
        large: true,
        ..PLAIN
    },
    Recipe {
        name: "twenty-thousand-entries-linear",
        mebibytes: 64,
        arguments: &["-t", "ext2", "-b", "4096", "-O", "^dir_index"],
        fill: &[many::twenty_thousand_entries],
        large: true,
        ..PLAIN
    },
    Recipe {
        name: "sixty-thousand-files",
        mebibytes: 160,
        arguments: &["-t", "ext4", "-b", "1024", "-N", "62000"],
        fill: &[many::sixty_thousand_files],
        large: true,
        ..PLAIN
    },
    Recipe {
        name: "more-links-than-a-directory-counts",
        mebibytes: 192,
        arguments: &["-t", "ext4", "-b", "1024", "-N", "68000", "-I", "128"],
        fill: &[many::many_subdirectories],
        large: true,
        ..PLAIN
    },
];
