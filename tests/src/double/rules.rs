//! What the kernel holds a mapping to, rule for rule: `fuse_iomap_check_mapping`, `fuse_iomap_begin_validate` and what an
//! upsert is held to besides.

use super::wire::{DELALLOC, HOLE, INLINE, Io, MAPPED, NOCACHE, NULL_ADDR, PURE_OVERWRITE, RETRY_CACHE, UNWRITTEN};

/// What a mapping is held against.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The unit of mappings, in bytes.
    pub block_size: u64,
    /// No mapping begins from here on.
    pub most_bytes: u64,
    /// The one device that is known.
    pub device: u32,
    /// Its length in bytes.
    pub device_bytes: u64,
}

/// For which half of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Where one reads.
    Read,
    /// Where one would write.
    Write,
}

/// A rule that a mapping breaks.
pub type Broken = &'static str;

/// What every mapping has to keep.
pub fn mapping(io: &Io, half: Half, caches: bool, limits: &Limits) -> Result<(), Broken> {
    let known = [HOLE, DELALLOC, MAPPED, UNWRITTEN, INLINE, NOCACHE, RETRY_CACHE, PURE_OVERWRITE];
    let aligned = |number: u64| number.is_multiple_of(limits.block_size);
    let rules: [(bool, Broken); 13] = [
        (known.contains(&io.kind), "the type is known"),
        (io.flags & !0xff == 0, "the flags are the server's"),
        (io.kind != RETRY_CACHE || caches, "only where there is a cache may it be looked at again"),
        (io.length != 0, "a mapping has a length"),
        (aligned(io.offset), "the offset is whole blocks"),
        (aligned(io.length), "the length is whole blocks"),
        (io.offset.checked_add(io.length).is_some(), "the end can be counted"),
        (io.offset < limits.most_bytes, "it begins before the longest file ends"),
        (!io.has_space() || io.dev != 0, "space has a device"),
        (!io.has_space() || io.addr != NULL_ADDR, "space has an address"),
        (
            !matches!(io.kind, HOLE | DELALLOC | INLINE | RETRY_CACHE | PURE_OVERWRITE)
                || (io.dev == 0 && io.addr == NULL_ADDR),
            "what is no space has neither",
        ),
        (io.kind != PURE_OVERWRITE || half == Half::Write, "only who writes overwrites"),
        (io.addr == NULL_ADDR || io.addr.checked_add(io.length).is_some(), "the end on the device can be counted"),
    ];
    first(&rules)?;
    first(&[(!io.has_space() || io.dev == limits.device, "the device is one that was registered")])
}

/// What an answer to BEGIN has to keep.
pub fn answer(read: &Io, write: &Io, pos: u64, caches: bool, limits: &Limits) -> Result<(), Broken> {
    mapping(read, Half::Read, caches, limits)?;
    mapping(write, Half::Write, caches, limits)?;
    first(&[
        (read.kind != NOCACHE && write.kind != NOCACHE, "an answer is a mapping"),
        (read.offset <= pos && write.offset <= pos, "both halves begin at the byte or before it"),
        (read.end() > pos && write.end() > pos, "both halves hold the byte"),
        (read.kind != INLINE || read.length <= 4096, "data within an inode fits a page"),
        // Checked where the I/O is made, not by fuse: what is no whole sector never reaches the disk.
        (!read.has_space() || read.addr.is_multiple_of(512), "the address is a sector"),
        (!read.has_space() || read.addr < limits.device_bytes, "the address is on the device"),
    ])
}

/// What one half of an upsert has to keep.
pub fn upsert(io: &Io, half: Half, caches: bool, limits: &Limits) -> Result<(), Broken> {
    mapping(io, half, caches, limits)?;
    let on_device = io.addr.checked_add(io.length).is_some_and(|end| end <= limits.device_bytes);
    first(&[
        (io.kind != RETRY_CACHE, "what is kept is a mapping"),
        (!io.has_space() || on_device, "what is kept ends on the device"),
    ])
}

/// What a range to be forgotten has to keep.
pub fn forgotten(offset: u64, length: u64, limits: &Limits) -> Result<(), Broken> {
    let whole = |number: u64| number.is_multiple_of(limits.block_size);
    first(&[
        (length == 0 || offset < limits.most_bytes, "a range begins before the longest file ends"),
        (length == 0 || whole(offset), "a range begins at a block"),
        (length == 0 || length == u64::MAX || whole(length), "a range is whole blocks"),
    ])
}

fn first(rules: &[(bool, Broken)]) -> Result<(), Broken> {
    rules.iter().find(|(kept, _)| !kept).map_or(Ok(()), |(_, rule)| Err(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { block_size: 1024, most_bytes: 1 << 40, device: 7, device_bytes: 1 << 20 };
    const GOOD: Io = Io { offset: 4096, length: 8192, addr: 65536, kind: MAPPED, flags: 0, dev: 7 };
    const DUMMY: Io = Io { addr: NULL_ADDR, kind: PURE_OVERWRITE, dev: 0, ..GOOD };
    const NOWHERE: Io = Io { addr: NULL_ADDR, kind: HOLE, dev: 0, ..GOOD };

    #[test]
    fn what_the_kernel_takes_is_taken() {
        for read in [GOOD, Io { kind: UNWRITTEN, ..GOOD }, NOWHERE, Io { kind: INLINE, length: 4096, ..NOWHERE }] {
            assert_eq!(answer(&read, &DUMMY, 4096, false, &LIMITS), Ok(()), "{read:?}");
            assert_eq!(upsert(&read, Half::Read, false, &LIMITS), Ok(()), "{read:?}");
        }
        let retry = Io { kind: RETRY_CACHE, ..NOWHERE };
        assert_eq!(answer(&retry, &DUMMY, 12_287, true, &LIMITS), Ok(()));
    }

    #[test]
    fn each_rule_is_broken_by_one_change() {
        let wrong = [
            (Io { kind: 5, ..GOOD }, "the type is known"),
            (Io { flags: 0x100, ..GOOD }, "the flags are the server's"),
            (Io { kind: RETRY_CACHE, ..NOWHERE }, "only where there is a cache may it be looked at again"),
            (Io { length: 0, ..GOOD }, "a mapping has a length"),
            (Io { offset: 4095, ..GOOD }, "the offset is whole blocks"),
            (Io { length: 8191, ..GOOD }, "the length is whole blocks"),
            (Io { length: u64::MAX - 1023, ..GOOD }, "the end can be counted"),
            (Io { offset: 1 << 40, ..GOOD }, "it begins before the longest file ends"),
            (Io { dev: 0, ..GOOD }, "space has a device"),
            (Io { addr: NULL_ADDR, ..GOOD }, "space has an address"),
            (Io { kind: HOLE, ..GOOD }, "what is no space has neither"),
            (Io { addr: 0, ..NOWHERE }, "what is no space has neither"),
            (DUMMY, "only who writes overwrites"),
            (Io { addr: u64::MAX - 1024, ..GOOD }, "the end on the device can be counted"),
            (Io { dev: 1, ..GOOD }, "the device is one that was registered"),
            (Io { kind: NOCACHE, ..NOWHERE }, "an answer is a mapping"),
            (Io { offset: 8192, ..GOOD }, "both halves begin at the byte or before it"),
            (Io { length: 1024, ..GOOD }, "both halves hold the byte"),
            (Io { kind: INLINE, ..NOWHERE }, "data within an inode fits a page"),
            (Io { addr: 65537, ..GOOD }, "the address is a sector"),
            (Io { addr: 1 << 20, ..GOOD }, "the address is on the device"),
        ];
        for (read, rule) in wrong {
            assert_eq!(answer(&read, &DUMMY, 6000, false, &LIMITS), Err(rule), "{read:?}");
        }
        let late = Io { offset: 8192, length: 1024, ..DUMMY };
        assert_eq!(answer(&GOOD, &late, 6000, false, &LIMITS), Err("both halves begin at the byte or before it"));
        let empty = Io { offset: 0, length: 0, ..DUMMY };
        assert_eq!(answer(&GOOD, &empty, 6000, false, &LIMITS), Err("a mapping has a length"));
        let behind = Io { addr: (1 << 20) - 4096, ..GOOD };
        assert_eq!(upsert(&behind, Half::Read, false, &LIMITS), Err("what is kept ends on the device"));
        let retry = Io { kind: RETRY_CACHE, ..NOWHERE };
        assert_eq!(upsert(&retry, Half::Read, true, &LIMITS), Err("what is kept is a mapping"));
        assert!(forgotten(1, 1024, &LIMITS).is_err() && forgotten(0, 1, &LIMITS).is_err());
        assert!(forgotten(0, u64::MAX, &LIMITS).is_ok() && forgotten(1 << 40, 1024, &LIMITS).is_err());
    }
}
