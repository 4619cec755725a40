//! The sound images: small, so that e2fsck needs a few milliseconds, of every feature, and most of them with and
//! without checksums.

use crate::Result;
use crate::mutate::seeds::{self, ATTRIBUTES, PLAIN, Seed, Shape};

/// The features that bring checksums, and without them.
const BARE: Shape = Shape { kibibytes: 1024, requests: ATTRIBUTES, ..PLAIN };

macro_rules! shape {
    ($name:literal, $format:literal $(, $field:ident: $value:expr)*) => {
        Shape { name: $name, format: $format, $($field: $value,)* ..BARE }
    };
}

const SHAPES: &[Shape] = &[
    shape!("ext2", "-t ext2 -b 1024 -I 128 -g 512", kibibytes: 2048),
    shape!("ext2-large-inodes", "-t ext2 -b 1024 -I 256"),
    shape!("ext2-2k", "-t ext2 -b 2048 -g 512", kibibytes: 4096),
    shape!("ext2-4k", "-t ext2 -b 4096", kibibytes: 2048),
    shape!("ext2-hashed", "-t ext2 -b 1024 -I 128", hashed: true),
    shape!("ext2-room", "-t ext2 -b 1024 -g 512 -E resize=65536", kibibytes: 3072),
    shape!("ext2-no-filetype", "-t ext2 -b 1024 -O ^filetype"),
    shape!("ext2-no-sparse-super", "-t ext2 -b 1024 -g 512 -O ^sparse_super,^resize_inode", kibibytes: 2048),
    shape!("ext2-hurd", "-t ext2 -b 4096 -o hurd -I 128 -O ^filetype", requests: &[], kibibytes: 2048),
    shape!("revision-0", "-t ext2 -b 1024 -I 128 -O none", requests: &[
        "ssv rev_level 0", "ssv inode_size 0", "ssv first_ino 0"
    ]),
    shape!("ext3", "-t ext3 -b 1024 -J size=1", kibibytes: 3072),
    shape!("ext3-4k", "-t ext3 -b 4096 -J size=4", kibibytes: 12288),
    shape!("ext3-groups", "-t ext3 -b 1024 -g 1024 -J size=1 -E resize=32768", kibibytes: 4096),
    shape!("bare", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal"),
    shape!("bare-2k", "-t ext4 -b 2048 -O ^metadata_csum,^has_journal", kibibytes: 2048),
    shape!("bare-4k", "-t ext4 -b 4096 -O ^metadata_csum,^has_journal", kibibytes: 2048),
    shape!("bare-journal", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum", kibibytes: 3072),
    shape!("bare-journal-64bit", "-t ext4 -b 1024 -J size=2 -O ^metadata_csum,64bit -g 2048", kibibytes: 6144),
    shape!("bare-hashed", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal", hashed: true),
    shape!("bare-large-dir", "-t ext4 -b 1024 -O large_dir,^metadata_csum,^has_journal", hashed: true),
    shape!("bare-groups", "-t ext4 -b 1024 -g 512 -O ^metadata_csum,^has_journal", kibibytes: 3072),
    shape!("bare-no-64bit", "-t ext4 -b 1024 -g 512 -O ^metadata_csum,^has_journal,^64bit", kibibytes: 3072),
    shape!("bare-no-extents", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,^extent,^64bit"),
    shape!("bare-no-flex-bg", "-t ext4 -b 1024 -g 512 -O ^metadata_csum,^has_journal,^flex_bg", kibibytes: 3072),
    shape!("bare-no-huge-file", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,^huge_file,^dir_nlink"),
    shape!("bare-meta-bg", "-t ext4 -b 1024 -g 256 -O ^metadata_csum,^has_journal,^resize_inode,meta_bg,^flex_bg -N 512",
        kibibytes: 6144),
    shape!("bare-sparse-super2",
        "-t ext4 -b 1024 -g 512 -O ^metadata_csum,^has_journal,sparse_super2,^sparse_super,^resize_inode",
        kibibytes: 3072),
    shape!("bare-quota", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,quota,project -E quotatype=usrquota:grpquota:prjquota", hashed: true),
    shape!("bare-mmp", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,mmp"),
    shape!("bare-orphan-file", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum,orphan_file", kibibytes: 3072),
    shape!("bare-inline", "-t ext4 -b 1024 -I 256 -O ^metadata_csum,^has_journal,inline_data"),
    shape!("bare-inline-4k", "-t ext4 -b 4096 -I 1024 -O ^metadata_csum,^has_journal,inline_data", kibibytes: 2048),
    shape!("bare-clusters", "-t ext4 -b 1024 -C 4096 -O ^metadata_csum,^has_journal,bigalloc", kibibytes: 2048),
    shape!("bare-clusters-4k", "-t ext4 -b 4096 -C 16384 -O ^metadata_csum,^has_journal,bigalloc,^resize_inode",
        kibibytes: 4096),
    shape!("bare-ea-inode", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,ea_inode"),
    shape!("bare-casefold", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,casefold"),
    shape!("bare-encrypt", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,encrypt"),
    shape!("bare-verity", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,verity,stable_inodes"),
    shape!("bare-fast-commit", "-t ext4 -b 1024 -O ^metadata_csum,fast_commit -J size=1,fast_commit_size=16",
        kibibytes: 3072),
    shape!("bare-64k", "-t ext4 -b 65536 -N 64 -O ^metadata_csum,^has_journal,^resize_inode", kibibytes: 4096),
    shape!("crc16", "-t ext4 -b 1024 -g 256 -O ^metadata_csum,uninit_bg,^has_journal", kibibytes: 2048),
    shape!("crc16-4k", "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg -J size=4", kibibytes: 12288),
    shape!("ext4", "-t ext4 -b 1024 -J size=1", kibibytes: 3072),
    shape!("ext4-2k", "-t ext4 -b 2048 -O ^has_journal", kibibytes: 2048),
    shape!("ext4-4k", "-t ext4 -b 4096 -J size=4", kibibytes: 12288),
    shape!("groups", "-t ext4 -b 1024 -g 512 -O ^has_journal", kibibytes: 3072),
    shape!("hashed", "-t ext4 -b 1024 -O ^has_journal", hashed: true),
    shape!("inline", "-t ext4 -b 1024 -I 256 -O inline_data,^has_journal"),
    shape!("clusters", "-t ext4 -b 1024 -C 4096 -O bigalloc,^has_journal", kibibytes: 2048),
    shape!("ea-inode", "-t ext4 -b 1024 -O ea_inode,^has_journal"),
    shape!("quota", "-t ext4 -b 1024 -O quota,project,^has_journal -E quotatype=usrquota:grpquota:prjquota", hashed: true),
    shape!("mmp", "-t ext4 -b 1024 -O mmp,^has_journal"),
    shape!("orphan-file", "-t ext4 -b 1024 -J size=1 -O orphan_file,metadata_csum_seed", kibibytes: 3072),
    shape!("meta-bg", "-t ext4 -b 1024 -g 256 -O ^has_journal,^resize_inode,meta_bg -N 512", kibibytes: 6144),
    shape!("sparse-super2", "-t ext4 -b 1024 -g 512 -O ^has_journal,sparse_super2,^sparse_super,^resize_inode",
        kibibytes: 3072),
    shape!("fast-commit", "-t ext4 -b 1024 -O fast_commit -J size=1,fast_commit_size=16", kibibytes: 3072),
    shape!("casefold", "-t ext4 -b 1024 -O casefold,^has_journal"),
];

/// All of them, always in the same order. None needs root.
pub fn all() -> Result<Vec<Seed>> {
    seeds::made(SHAPES)
}
