//! What fuse-iomap adds to the talk with the kernel, and fuser does not know: every number and structure of it, once.
//!
//! The protocol is a series of patches that no kernel has taken, and its numbers are placeholders: this is **version 7**,
//! posted 2026-02-23 (`include/uapi/linux/fuse.h` there). Another version is another table, and nothing else in the
//! worker says a number of it. What holds here: the layout is asserted beneath each structure, the bytes are those of the
//! host, and a request is copied out of its buffer before it is looked at.

use crate::layout::layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `FUSE_KERNEL_MINOR_VERSION` of a kernel with the series, and what has to be answered. A mark of the experiment.
pub(super) const MINOR: u32 = 99;
/// `FUSE_IOMAP` in the flags of FUSE_INIT. Linux 7.3 gives this bit to something else: it means nothing without [`MINOR`]
/// and the broker's word that the device knows the ioctls.
pub(super) const INIT_IOMAP: u64 = 1 << 43;

/// Requests: `enum fuse_opcode`.
pub(super) mod request {
    pub(in crate::fuse) const LOOKUP: u32 = 1;
    pub(in crate::fuse) const READDIRPLUS: u32 = 44;
    pub(in crate::fuse) const FREEZE_FS: u32 = 4089;
    pub(in crate::fuse) const UNFREEZE_FS: u32 = 4090;
    pub(in crate::fuse) const SHUTDOWN_FS: u32 = 4091;
    pub(in crate::fuse) const IOMAP_CONFIG: u32 = 4092;
    pub(in crate::fuse) const IOMAP_IOEND: u32 = 4093;
    pub(in crate::fuse) const IOMAP_BEGIN: u32 = 4094;
    pub(in crate::fuse) const IOMAP_END: u32 = 4095;
}

/// Notifications, told where the error stands: `enum fuse_notify_code`.
pub(super) mod notify {
    pub(in crate::fuse) const UPSERT_MAPPINGS: i32 = 100;
    pub(in crate::fuse) const INVAL_MAPPINGS: i32 = 101;
}

/// `fuse_attr.flags`. Both, or the kernel takes neither.
pub(super) const ATTR_MAPPED: u32 = ATTR_EXCLUSIVE | ATTR_IOMAP;
/// Nobody else changes the file.
const ATTR_EXCLUSIVE: u32 = 1 << 2;
/// The kernel asks where its bytes lie, and not for its bytes.
const ATTR_IOMAP: u32 = 1 << 3;

/// What a mapping is: `fuse_iomap_io.type`.
pub(super) mod kind {
    pub(in crate::fuse) const HOLE: u16 = 0;
    pub(in crate::fuse) const MAPPED: u16 = 2;
    pub(in crate::fuse) const UNWRITTEN: u16 = 3;
    pub(in crate::fuse) const INLINE: u16 = 4;
    /// Whoever writes would write where he reads: what `write` says of a file that is not written to.
    pub(in crate::fuse) const PURE_OVERWRITE: u16 = 255;
}

/// `fuse_iomap_io.dev` and `.addr` of what lies on no device.
pub(super) const NO_DEVICE: u32 = 0;
pub(super) const NO_ADDRESS: u64 = u64::MAX;

bitflags::bitflags! {
    /// What a mapping is asked for: `opflags`. Nothing set is a read through the page cache.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Operation: u32 {
        const WRITE = 0x1;
        const ZERO = 0x2;
        const REPORT = 0x4;
        const FAULT = 0x8;
        const DIRECT = 0x10;
        const NOWAIT = 0x20;
        const OVERWRITE_ONLY = 0x40;
        const UNSHARE = 0x80;
        const DAX = 0x100;
        const ATOMIC = 0x200;
        const DONTCACHE = 0x400;
        const SWAPFILE = 0x4000_0000;
        const WRITEBACK = 0x8000_0000;
    }
}

impl Operation {
    /// What changes the file or is about to. A file to swap to is one that will be written.
    pub(super) const WRITING: Self = Self::WRITE
        .union(Self::ZERO)
        .union(Self::OVERWRITE_ONLY)
        .union(Self::UNSHARE)
        .union(Self::ATOMIC)
        .union(Self::SWAPFILE)
        .union(Self::WRITEBACK);
    /// What a reader may be about.
    pub(super) const READING: Self =
        Self::REPORT.union(Self::FAULT).union(Self::DIRECT).union(Self::NOWAIT).union(Self::DONTCACHE);
}

/// Before every request: `struct fuse_in_header`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct InHeader {
    pub(super) len: u32,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) nodeid: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    pub(super) total_extlen: u16,
    pub(super) padding: u16,
}
layout!(InHeader: 40, len @ 0, opcode @ 4, unique @ 8, nodeid @ 16, uid @ 24, total_extlen @ 36);

/// Before every answer: `struct fuse_out_header`. A notification has `unique` 0, and its code where the error stands.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct OutHeader {
    pub(super) len: u32,
    pub(super) error: i32,
    pub(super) unique: u64,
}
layout!(OutHeader: 16, len @ 0, error @ 4, unique @ 8);

/// A piece of a file and where it lies: `struct fuse_iomap_io`. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Io {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Byte of the device, or [`NO_ADDRESS`].
    pub(super) addr: u64,
    /// One of [`kind`].
    pub(super) kind: u16,
    pub(super) flags: u16,
    /// The number that the kernel gave to the device, or [`NO_DEVICE`].
    pub(super) dev: u32,
}
layout!(Io: 32, offset @ 0, length @ 8, addr @ 16, kind @ 24, flags @ 26, dev @ 28);

/// `struct fuse_iomap_begin_in`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct BeginIn {
    pub(super) opflags: u32,
    pub(super) reserved: u32,
    pub(super) attr_ino: u64,
    pub(super) pos: u64,
    pub(super) count: u64,
}
layout!(BeginIn: 32, opflags @ 0, attr_ino @ 8, pos @ 16, count @ 24);

/// `struct fuse_iomap_begin_out`.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct BeginOut {
    pub(super) read: Io,
    pub(super) write: Io,
}
layout!(BeginOut: 64, read @ 0, write @ 32);

/// `struct fuse_iomap_end_in`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct EndIn {
    pub(super) opflags: u32,
    pub(super) reserved: u32,
    pub(super) attr_ino: u64,
    pub(super) pos: u64,
    pub(super) count: u64,
    pub(super) written: i64,
    pub(super) map: Io,
}
layout!(EndIn: 72, opflags @ 0, attr_ino @ 8, pos @ 16, count @ 24, written @ 32, map @ 40);

/// `struct fuse_iomap_config_in`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct ConfigIn {
    /// The fields of the answer that the kernel knows.
    pub(super) flags: u64,
    pub(super) maxbytes: i64,
    /// Bytes of mappings that it keeps of a file.
    pub(super) cache_maxbytes: u32,
    pub(super) zero: u32,
    pub(super) padding: [u64; 5],
}
layout!(ConfigIn: 64, flags @ 0, maxbytes @ 8, cache_maxbytes @ 16, padding @ 24);

/// `struct fuse_iomap_config_out`: a field counts where its flag is set.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct ConfigOut {
    pub(super) flags: u64,
    pub(super) s_id: [u8; 32],
    pub(super) s_uuid: [u8; 16],
    pub(super) s_uuid_len: u8,
    pub(super) s_pad: [u8; 3],
    pub(super) s_blocksize: u32,
    pub(super) s_max_links: u32,
    pub(super) s_time_gran: u32,
    pub(super) s_time_min: i64,
    pub(super) s_time_max: i64,
    pub(super) s_maxbytes: i64,
    pub(super) cache_maxbytes: u32,
    pub(super) padding: u32,
}
layout!(
    ConfigOut: 104, flags @ 0, s_id @ 8, s_uuid @ 40, s_uuid_len @ 56, s_blocksize @ 60, s_max_links @ 64,
    s_time_gran @ 68, s_time_min @ 72, s_time_max @ 80, s_maxbytes @ 88, cache_maxbytes @ 96
);

/// `FUSE_IOMAP_CONFIG_BLOCKSIZE` and `…_CACHE_MAXBYTES`.
pub(super) const CONFIG_BLOCKSIZE: u64 = 1 << 2;
pub(super) const CONFIG_CACHE_MAXBYTES: u64 = 1 << 6;

/// Mappings that the kernel is to keep: `struct fuse_iomap_upsert_mappings_out`.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Upsert {
    pub(super) nodeid: u64,
    pub(super) attr_ino: u64,
    pub(super) read: Io,
    pub(super) write: Io,
}
layout!(Upsert: 80, nodeid @ 0, attr_ino @ 8, read @ 16, write @ 48);

/// `struct fuse_range`. Bytes; no length is no range.
#[derive(Clone, Copy, Debug, Default, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct FileRange {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The length of a range that ends where the file does: `FUSE_IOMAP_INVAL_TO_EOF`.
pub(super) const TO_THE_END: u64 = u64::MAX;

/// Mappings that the kernel is to forget: `struct fuse_iomap_inval_mappings_out`.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Inval {
    pub(super) nodeid: u64,
    pub(super) attr_ino: u64,
    pub(super) read: FileRange,
    pub(super) write: FileRange,
}
layout!(Inval: 48, nodeid @ 0, attr_ino @ 8, read @ 16, write @ 32);

/// Where the flags of the attributes lie in `struct fuse_entry_out`, and the generation; and its length.
pub(super) mod entry {
    pub(in crate::fuse) const LENGTH: usize = 128;
    pub(in crate::fuse) const NODE: usize = 0;
    pub(in crate::fuse) const GENERATION: usize = 8;
    pub(in crate::fuse) const FLAGS: usize = 40 + 84;
    /// In a list the entry is followed by `struct fuse_dirent`: where the length of the name lies, and where the name.
    pub(in crate::fuse) const NAME_LENGTH: usize = LENGTH + 16;
    pub(in crate::fuse) const NAME: usize = LENGTH + 24;
}
