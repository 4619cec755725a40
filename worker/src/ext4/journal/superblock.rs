//! The journal's superblock: where the log begins, how it is written, and where its room for fast commits is.
//!
//! What always holds for a checked [`Superblock`]: the log has blocks and lies within the journal, the journal within
//! its inode, and nothing about it is unknown to this reader. It comes first when a file system with a journal to be
//! replayed is opened; a journal that is clean is never looked at.

use std::ops::Range;

use lazaret_policy::corruption::{Place, Rule};
use zerocopy::{FromBytes, IntoBytes};

use super::format::{self, Incompat};
use crate::error::{Error, Result};
use crate::ext4::checksum::{Verifier, crc32c};
use crate::ext4::units::{BlockSize, JournalBlock, TransactionId};

/// What the journal's superblock says, checked.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    /// Where the log begins: none if there is nothing to replay.
    pub(super) start: Option<JournalBlock>,
    /// The transaction that it begins with.
    pub(super) sequence: TransactionId,
    /// The blocks that the log goes round in.
    pub(super) log: Range<u32>,
    /// The blocks of fast commits; empty without them.
    pub(super) fast: Range<u32>,
    /// How the blocks of the log are verified.
    pub(super) checksums: Checksums,
    /// Block numbers have 64 bits.
    pub(super) wide: bool,
    /// A commit block may be there before its transaction is.
    pub(super) asynchronous: bool,
    /// How many file systems write to it.
    pub(super) users: u32,
}

/// The checksums in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksums {
    None,
    /// One crc32 of all blocks of a transaction but its revoke records.
    V1,
    /// crc32c of each block, of blocks of data the lower half; all begin with this seed.
    V2(u32),
    /// As version 2, and whole for blocks of data.
    V3(u32),
}

impl Superblock {
    /// Checks the first block of the journal, of whose inode that many blocks are mapped.
    pub(super) fn check(bytes: &[u8], size: BlockSize, blocks: u32, verifier: &Verifier) -> Result<Self> {
        let (raw, _) = format::Superblock::read_from_prefix(bytes).map_err(|_| broken(Rule::JournalMagic))?;
        let version = raw.s_header.h_blocktype.get();
        hold(raw.s_header.h_magic.get() == format::MAGIC && (3..=4).contains(&version), Rule::JournalMagic)?;
        // The first version has no feature flags.
        let flag = |bits: u32| if version == 4 { bits } else { 0 };

        let incompat = Incompat::from_bits(flag(raw.s_feature_incompat.get()));
        let incompat = incompat.ok_or(broken(Rule::JournalFeatures))?;
        hold(flag(raw.s_feature_ro_compat.get()) == 0, Rule::JournalFeatures)?;
        let checksums = checksums(&raw, incompat, flag(raw.s_feature_compat.get()))?;
        if matches!(checksums, Checksums::V2(_) | Checksums::V3(_)) {
            let matches = checksum(raw) == raw.s_checksum.get();
            verifier.judge(matches, Rule::JournalSuperblockChecksum, Place::Journal(0))?;
        }

        hold(raw.s_blocksize.get() == size.bytes(), Rule::JournalBlockSize)?;
        let length = raw.s_maxlen.get();
        hold(length <= blocks, Rule::JournalLength)?;
        let (first, mut end, mut fast) = (raw.s_first.get(), length, length..length);
        if incompat.contains(Incompat::FAST_COMMIT) {
            let count = match raw.s_num_fc_blks.get() {
                0 => format::DEFAULT_FAST_BLOCKS,
                count => count,
            };
            if let Some(shorter) = length.checked_sub(count).filter(|&end| end >= format::FEWEST_LOG_BLOCKS) {
                end = shorter;
                // The block between the two is in neither.
                fast = shorter.saturating_add(1)..length;
            }
        }
        hold(first > 0 && first < end, Rule::JournalLength)?;
        let start = Some(raw.s_start.get()).filter(|&start| start != 0);
        hold(start.is_none_or(|start| (first..end).contains(&start)), Rule::JournalStart)?;

        Ok(Self {
            start: start.map(JournalBlock),
            sequence: TransactionId(raw.s_sequence.get()),
            log: first..end,
            fast,
            checksums,
            wide: incompat.contains(Incompat::SIXTY_FOUR_BIT),
            asynchronous: incompat.contains(Incompat::ASYNC_COMMIT),
            users: flag(raw.s_nr_users.get()),
        })
    }

    /// Bytes that a tag takes in a descriptor.
    pub(super) fn tag_size(&self) -> usize {
        let high = if self.wide { 4 } else { 0 };
        match self.checksums {
            Checksums::V3(_) => 16,
            Checksums::V2(_) => high | 10,
            Checksums::None | Checksums::V1 => high | 8,
        }
    }

    /// The seed of the checksums that stand at the end of a block, if the journal has such.
    pub(super) fn seed(&self) -> Option<u32> {
        match self.checksums {
            Checksums::V2(seed) | Checksums::V3(seed) => Some(seed),
            Checksums::None | Checksums::V1 => None,
        }
    }
}

/// The blocks and the file systems that the journal says it has.
pub(super) fn length_and_users(bytes: &[u8]) -> (u32, u32) {
    let raw = format::Superblock::read_from_prefix(bytes).map(|(raw, _)| raw);
    raw.map_or((0, 0), |raw| {
        let users = if raw.s_header.h_blocktype.get() == 4 { raw.s_nr_users.get() } else { 0 };
        (raw.s_maxlen.get(), users)
    })
}

fn checksums(raw: &format::Superblock, incompat: Incompat, compat: u32) -> Result<Checksums> {
    let seed = crc32c(!0, &raw.s_uuid);
    let v1 = compat & format::COMPAT_CHECKSUM != 0;
    let (v2, v3) = (incompat.contains(Incompat::CHECKSUM_V2), incompat.contains(Incompat::CHECKSUM_V3));
    let checksums = match (v1, v2, v3) {
        (false, false, false) => Checksums::None,
        (true, false, false) => Checksums::V1,
        (false, true, false) => Checksums::V2(seed),
        (false, false, true) => Checksums::V3(seed),
        _ => return Err(broken(Rule::JournalChecksumType)),
    };
    hold(!(v2 || v3) || raw.s_checksum_type == format::CHECKSUM_CRC32C, Rule::JournalChecksumType)?;
    Ok(checksums)
}

fn checksum(mut raw: format::Superblock) -> u32 {
    raw.s_checksum.set(0);
    crc32c(!0, raw.as_bytes())
}

fn broken(rule: Rule) -> Error {
    Error::corrupt(rule, Place::Journal(0))
}

fn hold(holds: bool, rule: Rule) -> Result<()> {
    if holds { Ok(()) } else { Err(broken(rule)) }
}
