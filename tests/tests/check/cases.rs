//! What is damaged, one thing in each image, and what only looks like damage.

use std::path::Path;

use lazaret_tests::damage::Victim;
use lazaret_tests::{Result, superblock};

/// One damage, or what only looks like it.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    /// The recipe of the image.
    pub(crate) image: &'static str,
    pub(crate) damage: fn(&Victim, &Path) -> Result,
    /// The rule that has to be among the findings; if it is empty, there are none.
    pub(crate) rule: &'static str,
    pub(crate) expected: Expected,
}

/// What the two have to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Both: damaged.
    Damaged,
    /// Both: sound.
    Sound,
}

const fn damaged(
    what: &'static str,
    image: &'static str,
    rule: &'static str,
    damage: fn(&Victim, &Path) -> Result,
) -> Case {
    Case { what, image, damage, rule, expected: Expected::Damaged }
}

/// A case whose damage is some commands of debugfs.
macro_rules! line {
    ($what:literal, $rule:literal, $line:literal) => {
        damaged($what, "ext4", $rule, |victim, _| each(victim, $line))
    };
    ($image:literal, $what:literal, $rule:literal, $line:literal) => {
        damaged($what, $image, $rule, |victim, _| each(victim, $line))
    };
}

fn each(victim: &Victim, lines: &str) -> Result {
    lines.split("; ").try_for_each(|line| victim.debugfs(line).map(drop))
}

/// Where the entry of the first owner begins in a quota file: its leaf lies behind the header and four levels.
const LEAF: u32 = 5 * 1024 + 16;

/// A case whose damage is bytes of the quota file of users.
macro_rules! quota {
    ($what:literal, $rule:literal, $at:expr, $bytes:expr) => {
        damaged($what, "quota", $rule, |victim, _| victim.write("<3>", $at / 4096, ($at % 4096) as usize, &$bytes))
    };
}

const PLAIN: &str = "no-metadata-csum";
const INLINE: &str = "inline-data-2k-inodes-of-512-no-metadata-csum";
pub(crate) const HASHED: &str = "/directories/many";

pub(crate) const CASES: &[Case] = &[
    line!("wrong link count", "LinkCount", "sif /sizes/4096 links_count 7"),
    line!("a directory's link count", "LinkCount", "sif /sizes links_count 5"),
    line!("a name that is not counted", "LinkCount", "ln /sizes/4096 /copy"),
    line!("a directory of two names", "DirectoryParent", "ln /sizes /copy"),
    line!("a name for a reserved inode", "DirectoryEntryInUse", "ln <7> /copy"),
    line!("an inode that was cleared", "DirectoryEntryInUse", "clri /sizes/4096"),
    line!("an inode without a name", "InodeNamed", "unlink /sizes/4096"),
    line!("a directory without a name", "DirectoryReachable", "unlink /directories"),
    line!("wrong i_blocks", "InodeBlocks", "sif /sizes/65536 blocks 99"),
    line!("i_size before the last block", "InodeSizeMapped", "sif /sizes/1048579 size 10"),
    line!("a directory of odd size", "InodeSizeMapped", "sif /directories size 5000"),
    line!("no mode", "InodeMode", "sif /sizes/4096 mode 0"),
    line!("another mode", "DirectoryType", "sif /sizes/4096 mode 010644"),
    line!("the root is a file", "InodeMode", "sif <2> mode 0100755"),
    line!("a file in use that was deleted", "InodeDeleted", "sif /sizes/4096 dtime 1500000000"),
    line!("a fragment's address", "InodeUnusedFields", "sif /sizes/4096 faddr 5"),
    line!("a file with a hash tree", "HtreeFlag", "sif /sizes/4096 flags 0x81000"),
    line!("an extent tree without its flag", "InodeFlags", "sif /sizes/4096 flags 0"),
    line!("an inode of AFS", "InodeFlags", "sif /sizes/4096 flags 0x82000"),
    line!("an odd tail", "InodeExtraSize", "sif /sizes/4096 extra_isize 3"),
    line!("attributes outside", "BlockInFileSystem", "sif /sizes/4096 file_acl 999999999"),
    line!("a device of some size", "SpecialFile", "sif /special/character-1-3 size 5"),
    line!("a FIFO with extents", "SpecialFile", "sif /special/fifo flags 0x80000"),
    line!("a link that is too short", "SymlinkTarget", "sif /symlinks/of-58 size 30"),
    line!("a link of some GiB", "SymlinkTarget", "sif /symlinks/of-58 size 0x10000003a"),
    line!("a link without a target", "SymlinkTarget", "sif /symlinks/of-255 size 0"),
    line!("data in the superblock's group", "BlockNotSystem", "sif /sizes/65536 block[5] 1"),
    line!("an extent without blocks", "ExtentLength", "sif /sizes/65536 block[4] 0"),
    line!("an extent beyond the end", "BlockInFileSystem", "sif /sizes/65536 block[5] 999999999"),
    line!("no magic number of extents", "ExtentMagic", "sif /sizes/65536 block[0] 0x1f30b"),
    line!("too deep a tree", "ExtentDepth", "sif /sizes/65536 block[1] 0x60004"),
    line!("too many extents", "ExtentCount", "sif /sizes/65536 block[0] 0x9f30a"),
    Case {
        expected: Expected::Sound,
        ..line!("the root is a value of an attribute", "InodeFlags", "sif <2> flags 0x280000")
    },
    line!("a root that says it is smaller", "ExtentRoom", "sif /sizes/65536 block[1] 1"),
    line!("free blocks of a group", "FreeBlocks", "set_bg 0 free_blocks_count 5; set_bg 0 checksum calc"),
    line!("free inodes of a group", "FreeInodes", "set_bg 0 free_inodes_count 5; set_bg 0 checksum calc"),
    line!("directories of a group", "UsedDirectories", "set_bg 0 used_dirs_count 77; set_bg 0 checksum calc"),
    damaged("a block bitmap's checksum", "ext4", "BlockBitmapChecksum", |victim, _| {
        victim.write_at(table(victim, "block bitmap at ")? * victim.block_size()?, &[0])
    }),
    damaged("an inode bitmap's checksum", "ext4", "InodeBitmapChecksum", |victim, _| {
        victim.write_at(table(victim, "inode bitmap at ")? * victim.block_size()?, &[0])
    }),
    line!("inodes said to be unused", "DirectoryEntryInUse", "set_bg 0 itable_unused 16000; set_bg 0 checksum calc"),
    line!("an inode that is freed in use", "InodeBitmap", "freei /sizes/4096"),
    line!("an inode that is taken by nobody", "InodeBitmap", "seti <9000>"),
    line!("the journal is a directory", "ReservedInode", "sif <8> mode 040755"),
    line!("the inode of bad blocks has an owner", "ReservedInode", "sif <1> uid 5"),
    line!("a reserved inode has a mode", "ReservedInode", "sif <6> mode 0100644"),
    line!("the inode for resizing has data", "ResizeInode", "sif <7> block[0] 77"),
    line!("a reserved inode has space", "InodeBlocks", "sif <9> blocks 1"),
    line!("a reserved inode has a length beyond all", "FileSize", "sif <5> size 0x7fffffffffffffff"),
    line!("a reserved inode has attributes", "ReservedInode", "sif <6> file_acl 3000"),
    line!("the first descriptors are a bad block", "BadBlocks", "sif <1> block[0] 1"),
    line!("long files that no feature speaks of", "LargeFile", "feature -large_file"),
    line!("ext2", "block maps where blocks come in clusters", "ClusterMap", "feature bigalloc"),
    damaged("an inode on the list of orphans", "ext4", "InodeDeleted", |victim, _| {
        let number = victim.inode("/sizes/4096")?;
        each(victim, &format!("unlink /sizes/4096; sif <{number}> links_count 0; ssv last_orphan {number}"))
    }),
    damaged("a pointer for resizing that leads outside", PLAIN, "BlockInFileSystem", |victim, _| {
        victim.write_at(pointers_for_resizing(victim)? + 2048, &[0xff; 4])
    }),
    damaged("a pointer for resizing too many", PLAIN, "InodeBlocks", |victim, _| {
        victim.write_at(pointers_for_resizing(victim)? + 2048, &300_u32.to_le_bytes())
    }),
    Case {
        expected: Expected::Sound,
        ..damaged("the pointers for resizing changed places", PLAIN, "ResizeInode", |victim, _| {
            let at = pointers_for_resizing(victim)?;
            let (one, other) = (victim.swap(at + 4, 0)?, victim.swap(at + 8, 0)?);
            victim.swap(at + 4, other).and(victim.swap(at + 8, one)).map(drop)
        })
    },
    damaged("the superblock is gone and its copies are not", "blocks-of-1k", "SuperblockThere", |victim, _| {
        victim.write_at(superblock::OFFSET, &[0; 1024])
    }),
    damaged("most blocks are kept for root", PLAIN, "ReservedBlocks", |victim, _| {
        victim.write_at(superblock::OFFSET + 0x08, &[0xff, 0xff, 0xff, 0x0f])
    }),
    damaged("more clusters in a group than blocks", PLAIN, "GroupSizes", |victim, _| {
        victim.write_at(superblock::OFFSET + 0x24, &[0x10])
    }),
    damaged("the entry . is longer than its name", PLAIN, "DirectoryDot", |victim, _| {
        victim.write("/directories/empty", 0, 9, b"x")
    }),
    damaged("the guard's checksum", "guarded-against-two-hosts", "MmpBlock", |victim, image| {
        victim.write_at(guard(victim, image)? + 0x200, &[1])
    }),
    damaged("a guard in a state that nobody knows", "guarded-against-two-hosts", "MmpBlock", |victim, image| {
        victim.write_at(guard(victim, image)? + 5, &[0x5d])
    }),
    damaged("room for descriptors that are spread", "no-64bit", "BlockBitmap", |_, image| {
        superblock::change(image, |bytes| superblock::set_bits(bytes, 0x60, 0x10))
    }),
    damaged("an encoding that nobody knows", "ext4", "Encoding", |_, image| {
        superblock::change(image, |bytes| superblock::set_bits(bytes, 0x60, 0x2_0000))
    }),
    damaged("a file of orphans that is not named", "ext4", "OrphanFile", |_, image| {
        superblock::change(image, |bytes| superblock::set_bits(bytes, 0x5c, 0x1000))
    }),
    damaged("a journal longer than its blocks", PLAIN, "JournalLength", |victim, _| {
        victim.debugfs("sif <8> size 0x10000000").map(drop)
    }),
    damaged("a descriptor of an odd size that nobody reads", "no-64bit", "DescriptorSize", |_, image| {
        superblock::change(image, |bytes| bytes[0xfe] = 33)
    }),
    damaged("another journal beside that in the inode", "ext4", "JournalAlone", |_, image| {
        superblock::change(image, |bytes| bytes[0xd0] = 1)
    }),
    damaged("a journal of two file systems", PLAIN, "JournalAlone", |victim, _| victim.write("<8>", 0, 0x43, &[2])),
    damaged("a journal that no feature speaks of, where there is none", "ext2", "ReservedInode", |_, image| {
        superblock::change(image, |bytes| superblock::set(bytes, 0xe0, 8))
    }),
    Case {
        expected: Expected::Sound,
        ..damaged("a log that nobody is told to read", PLAIN, "JournalClean", |victim, _| {
            victim.write("<8>", 0, 0x1f, &[1])
        })
    },
    Case {
        expected: Expected::Sound,
        ..damaged("a log that nobody is told to read begins beyond its end", PLAIN, "JournalStart", |victim, _| {
            victim.write("<8>", 0, 0x1c, &[0xff])
        })
    },
    Case {
        expected: Expected::Sound,
        ..damaged("a journal that says it is some GiB longer", PLAIN, "JournalLength", |victim, _| {
            let mut bytes = victim.inode_bytes(8)?;
            bytes[0x6c] = 8;
            victim.set_inode_bytes(8, &bytes)
        })
    },
    Case {
        expected: Expected::Sound,
        ..line!("a journal of a length that is negative", "JournalLength", "sif <8> size 0xfffff000")
    },
    line!("ext3", "a pointer to the file system's own", "BlockNotSystem", "sif /sizes/65536 block[3] 1"),
    line!("ext3", "a pointer outside", "BlockInFileSystem", "sif /sizes/65536 block[3] 99999999"),
    line!("ext3", "a block of pointers outside", "BlockInFileSystem", "sif /sizes/65536 block[IND] 99999999"),
    line!("ext2", "a journal's inode without a journal", "ReservedInode", "sif <8> links_count 1"),
    damaged("a block of two files", "ext4", "BlockOnce", |victim, _| {
        let other = victim.block("/sizes/4096", 0)?;
        victim.debugfs(&format!("sif /sizes/65536 block[5] {other}")).map(drop)
    }),
    damaged("a block twice in a file", "ext3", "BlockOnce", |victim, _| {
        let other = victim.block("/sizes/65536", 0)?;
        victim.debugfs(&format!("sif /sizes/65536 block[3] {other}")).map(drop)
    }),
    damaged("a freed block in use", "ext4", "BlockBitmap", |victim, _| {
        let block = victim.block("/sizes/4096", 0)?;
        victim.debugfs(&format!("freeb {block}")).map(drop)
    }),
    damaged("a block that is taken by nobody", "ext4", "BlockBitmap", |victim, _| {
        let free = victim.debugfs("ffb")?;
        let free = free.split_whitespace().last().ok_or("no free block")?;
        victim.debugfs(&format!("setb {free}")).map(drop)
    }),
    damaged("wrong ..", PLAIN, "DirectoryDotDot", |victim, _| {
        victim.write("/directories/empty", 0, 12, &2u32.to_le_bytes())
    }),
    damaged("wrong .", PLAIN, "DirectoryDot", |victim, _| {
        victim.write("/directories/empty", 0, 0, &2u32.to_le_bytes())
    }),
    damaged("no ..", PLAIN, "DirectoryDotDot", |victim, _| victim.write("/directories/empty", 0, 20, b"xx")),
    damaged("an entry of no length", PLAIN, "DirectoryRecordLength", |victim, _| {
        victim.write("/sizes", 0, victim.entry("/sizes", "4096")? + 4, &[0, 0])
    }),
    damaged("an entry beyond its block", PLAIN, "DirectoryRecordEnd", |victim, _| {
        victim.write("/sizes", 0, victim.entry("/sizes", "4096")? + 4, &[0xfc, 0x7f])
    }),
    damaged("a name with a slash", PLAIN, "DirectoryName", |victim, _| {
        victim.write("/sizes", 0, victim.entry("/sizes", "4096")? + 8, b"/")
    }),
    damaged("an inode that there is not", PLAIN, "DirectoryInode", |victim, _| {
        victim.write("/sizes", 0, victim.entry("/sizes", "4096")?, &[0xff; 4])
    }),
    damaged("a wrong type", PLAIN, "DirectoryType", |victim, _| {
        victim.write("/sizes", 0, victim.entry("/sizes", "4096")? + 7, &[3])
    }),
    damaged("an entry that names its directory", PLAIN, "DirectoryParent", |victim, _| {
        let own = victim.inode("/sizes")?;
        victim.write("/sizes", 0, victim.entry("/sizes", "4096")?, &own.to_le_bytes())
    }),
    damaged("a name twice", PLAIN, "DirectoryDuplicate", |victim, _| {
        victim.write("/sizes", 0, victim.entry("/sizes", "4096")? + 8, b"4095")
    }),
    damaged("a second ..", PLAIN, "DirectoryDuplicate", |victim, _| {
        let entry = victim.entry("/sizes", "59")?;
        victim.write("/sizes", 0, entry + 8, b"..")
    }),
    damaged("a hash tree's limit", PLAIN, "HtreeLimit", |victim, _| victim.write(HASHED, 0, 32, &[5, 0])),
    damaged("a hash tree's count", PLAIN, "HtreeLimit", |victim, _| victim.write(HASHED, 0, 34, &[0xff, 0xff])),
    damaged("a hash tree's hash", PLAIN, "HtreeFlag", |victim, _| victim.write(HASHED, 0, 28, &[9])),
    damaged("a hash tree's description", PLAIN, "HtreeRoot", |victim, _| victim.write(HASHED, 0, 24, &[1])),
    damaged("a hash tree's depth", PLAIN, "HtreeDepth", |victim, _| victim.write(HASHED, 0, 30, &[3])),
    damaged("hashes that fall", PLAIN, "HtreeOrder", |victim, _| {
        victim.write(HASHED, 0, 48, &[0xf0, 0xff, 0xff, 0xff])
    }),
    damaged("a child of a hash tree outside", PLAIN, "HtreeBlock", |victim, _| {
        victim.write(HASHED, 0, 44, &[0xff, 0xff, 0, 0])
    }),
    damaged("a leaf twice", PLAIN, "HtreeReference", |victim, _| {
        let bytes = victim.read(HASHED, 0)?;
        victim.write(HASHED, 0, 44, &bytes[36..40])
    }),
    damaged("names in the wrong leaf", PLAIN, "HtreeRange", |victim, _| {
        let bytes = victim.read(HASHED, 0)?;
        victim.write(HASHED, 0, 44, &bytes[52..56])?;
        victim.write(HASHED, 0, 52, &bytes[44..48])
    }),
    damaged("a directory's checksum", "ext4", "DirectoryChecksum", |victim, _| {
        victim.write("/sizes", 0, 4092, &[1; 4])
    }),
    damaged("an inode's checksum", "ext4", "InodeChecksum", |victim, _| {
        victim.debugfs("sif /sizes/4096 checksum 0x1").map(drop)
    }),
    damaged("attributes counted twice", PLAIN, "XattrReferences", |victim, _| {
        with_attributes(victim, 4, &7u32.to_le_bytes())
    }),
    damaged("attributes of the wrong hash", PLAIN, "XattrValueHash", |victim, _| {
        with_attributes(victim, 32 + 12, &7u32.to_le_bytes())
    }),
    damaged("attributes without their magic number", PLAIN, "XattrHeader", |victim, _| {
        with_attributes(victim, 0, &[0; 4])
    }),
    damaged("a value outside its block", PLAIN, "XattrValue", |victim, _| with_attributes(victim, 34, &[0xff, 0xff])),
    line!("quota", "usage that no quota file knows of", "QuotaUsage", "mknod /another p"),
    quota!("an owner's inodes in a quota file", "QuotaUsage", LEAF + 24, [99]),
    quota!("an owner's space in a quota file", "QuotaUsage", LEAF + 49, [99]),
    quota!("an owner that a quota file lacks", "QuotaUsage", LEAF, [0; 72]),
    quota!("a quota file's tree that leads outside", "QuotaFile", 1024, [0, 77]),
    quota!("a quota file's tree that leads back", "QuotaUsage", 1024, [1]),
    quota!("a second way through a quota file's tree", "QuotaUsage", 1024 + 4, [1]),
    quota!("a quota file without a tree", "QuotaUsage", 1024, [0; 1024]),
    quota!("a quota file of another version", "QuotaFile", 4, [7]),
    quota!("a quota file that says it is longer", "QuotaFile", 20, [0, 0, 4]),
    quota!("a quota file's free blocks outside", "QuotaFile", 24, [0, 4]),
    Case { expected: Expected::Sound, ..quota!("a quota file of another kind", "QuotaFile", 0, [0]) },
    damaged("the hash of a value in an inode", "attributes-in-inodes", "XattrHash", |victim, image| {
        victim.debugfs(&format!("sif <{}> atime 0x1234567", holder(image)?)).map(drop)
    }),
    Case {
        expected: Expected::Sound,
        ..damaged("the data of a value in an inode", "attributes-in-inodes", "XattrHash", |victim, image| {
            victim.write(&format!("<{}>", holder(image)?), 0, 5, b"?!")
        })
    },
    damaged("a value of two links", "attributes-in-inodes", "LinkCount", |victim, image| {
        victim.debugfs(&format!("sif <{}> links_count 2", holder(image)?)).map(drop)
    }),
    Case {
        expected: Expected::Sound,
        ..damaged("a value that has a name", "attributes-in-inodes", "DirectoryEntryInUse", |victim, image| {
            victim.debugfs(&format!("ln <{}> /copy", holder(image)?)).map(drop)
        })
    },
    Case {
        expected: Expected::Sound,
        ..damaged("a value that has attributes", "attributes-in-inodes", "XattrInode", |victim, image| {
            victim.debugfs(&format!("ea_set <{}> user.own 1", holder(image)?)).map(drop)
        })
    },
    Case {
        expected: Expected::Sound,
        ..line!("a directory with the flag of a value", "DirectoryEntryInUse", "sif /directories/empty flags 0x280000")
    },
    line!("the flag of a value and no name", "InodeNamed", "sif /sizes/4096 flags 0x280000; unlink /sizes/4096"),
    line!("a file named for quotas that there are not", "DirectoryEntryInUse", "ssv grp_quota_inum 11"),
    Case {
        expected: Expected::Sound,
        ..damaged("a NUL in a target that lies in its inode", INLINE, "SymlinkTarget", |victim, _| {
            // debugfs makes it so, and no longer every kernel.
            victim.debugfs(&format!("symlink /long {}", "t".repeat(100)))?;
            let number = victim.inode("/long")?;
            let mut bytes = victim.inode_bytes(number)?;
            bytes[0x28 + 5] = 0;
            victim.set_inode_bytes(number, &bytes)
        })
    },
    Case {
        expected: Expected::Sound,
        ..damaged("an entry of an access control list", PLAIN, "AclEntry", |victim, image| {
            let list = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0];
            victim.write_at(place_of(image, &list)? + 4, &[0x77])
        })
    },
    damaged("a file of orphans that has a name", "orphan-file", "DirectoryEntryInUse", |victim, image| {
        let mut number = [0; 4];
        superblock::change(image, |bytes| number.copy_from_slice(&bytes[0x280..0x284]))?;
        victim.debugfs(&format!("ln <{}> /copy", u32::from_le_bytes(number))).map(drop)
    }),
    line!(
        "no-journal",
        "orphans in a file and no journal",
        "OrphanFile",
        "feature orphan_file; ssv orphan_file_inum 11"
    ),
    Case {
        expected: Expected::Sound,
        ..line!("the flag of extents on the inode of bad blocks", "", "sif <1> flags 0x80000")
    },
    line!("orphans without a file of them", "OrphanFile", "feature orphan_present"),
    line!("orphan-file", "orphans in a file that has none", "OrphanFile", "feature orphan_present"),
    damaged("a superblock of another checksum", "ext4", "SuperblockChecksum", |victim, _| {
        victim.write_at(superblock::OFFSET + 0x78, b"other")
    }),
    Case {
        what: "free blocks of the superblock",
        image: "ext4",
        damage: |victim, _| victim.debugfs("ssv free_blocks_count 7").map(drop),
        rule: "FreeBlocks",
        expected: Expected::Sound,
    },
    Case {
        what: "a copy of the superblock that is gone",
        image: "blocks-of-1k",
        damage: |victim, _| victim.write_at(8193 * 1024, &[0; 1024]),
        rule: "BackupSuperblock",
        expected: Expected::Sound,
    },
    Case {
        what: "a descriptor's checksum",
        image: "ext4",
        damage: |victim, _| victim.write_at(4096 + 0x1e, &[1, 2]),
        rule: "GroupChecksum",
        // e2fsck asks, and ends with 0 all the same: it forgets what it found before its first pass.
        expected: Expected::Sound,
    },
    Case {
        what: "a descriptor's flags and their checksum",
        image: "ext4",
        damage: |victim, _| victim.write_at(4096 + 0x12, &[7]),
        rule: "GroupChecksum",
        expected: Expected::Damaged,
    },
];

/// Where these bytes lie in an image, on a boundary of 4.
fn place_of(image: &Path, bytes: &[u8]) -> Result<u64> {
    let all = std::fs::read(image)?;
    let found = (0..all.len()).step_by(4).find(|&at| all[at..].starts_with(bytes));
    Ok(found.ok_or("no such bytes")? as u64)
}

/// Where the block lies, in bytes, that the inode for resizing has for itself.
fn pointers_for_resizing(victim: &Victim) -> Result<u64> {
    let printed = victim.debugfs("stat <7>")?;
    let block = printed.split("(DIND):").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    Ok(block.ok_or("no doubly indirect block")?.parse::<u64>()? * victim.block_size()?)
}

/// Where the block that guards against two hosts lies, in bytes.
fn guard(victim: &Victim, image: &Path) -> Result<u64> {
    let mut block = [0; 8];
    let at = superblock::OFFSET + 0x168;
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(image)?, &mut block, at)?;
    Ok(u64::from_le_bytes(block) * victim.block_size()?)
}

/// The inode of the value of an attribute that the recipe makes.
fn holder(image: &Path) -> Result<u32> {
    let name = place_of(image, b"large-0")?;
    let mut number = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(image)?, &mut number, name - 12)?;
    Ok(u32::from_le_bytes(number))
}

/// Gives a file a block of attributes, and changes bytes of it.
fn with_attributes(victim: &Victim, offset: u64, bytes: &[u8]) -> Result {
    let value = "v".repeat(500);
    victim.debugfs(&format!("ea_set /sizes/4096 user.long {value}"))?;
    let printed = victim.debugfs("stat /sizes/4096")?;
    let block = printed.split("File ACL:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let block: u64 = block.ok_or("no block of attributes")?.parse()?;
    victim.write_at(block * victim.block_size()? + offset, bytes)
}

/// The block where a table of the first group lies, which debugfs tells behind these words.
pub(crate) fn table(victim: &Victim, words: &str) -> Result<u64> {
    let printed = victim.debugfs("stats")?;
    let block = printed.split(words).nth(1).and_then(|rest| rest.split([',', ' ', '\n']).next());
    Ok(block.ok_or("no such place")?.parse()?)
}
