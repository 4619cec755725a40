//! What a replay of the log would write: scan, revoke, replay.
//!
//! What always holds here: a transaction counts only with its commit block, and the first block that does not belong to
//! the transaction that is due ends the log, which is how a log ends after a crash. A checksum that is wrong there
//! belongs to an old block if the commit is older than the one before; otherwise the log is damaged, and like the kernel
//! this reader does not guess. Each block of the log is looked at once; the work is bounded by the log's length.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::message::{Refusal, Replayed};
use zerocopy::FromBytes;

use super::Budget;
use super::checksum::{block_matches, commit_matches, crc32_be, data_matches, transaction_matches};
use super::format::{self, BlockType};
use super::log::Log;
use super::superblock::Checksums;
use super::tag::{Tag, Tags};
use super::walk::Walk;
use crate::device::Substitute;
use crate::error::{Error, Result};
use crate::ext4::units::{JournalBlock, TransactionId};

/// What was found in the log.
#[derive(Default)]
pub(super) struct Recovery {
    /// Where the blocks of the file system have newer copies, oldest first.
    pub(super) substitutes: Vec<Substitute>,
    /// The same in numbers.
    pub(super) replayed: Replayed,
    /// The transaction that would have come next; none if the log is empty.
    pub(super) next: Option<TransactionId>,
}

/// Goes through the log.
pub(super) fn run(log: &Log<'_>, budget: &mut Budget) -> Result<Recovery, Refusal> {
    let Some(start) = log.superblock.start else { return Ok(Recovery::default()) };
    let scan = scan(log, start, budget)?;
    let revokes = latest(scan.revokes);
    let mut recovery = Recovery {
        substitutes: budget.vector(scan.copies.len())?,
        replayed: Replayed { transactions: scan.transactions, ..Replayed::default() },
        next: Some(scan.transaction),
    };
    let mut bytes = log.buffer();
    for copy in &scan.copies {
        if is_revoked(&revokes, copy) {
            recovery.replayed.revoked = recovery.replayed.revoked.saturating_add(1);
            continue;
        }
        recovery.substitutes.push(replay(log, copy, &mut bytes)?);
    }
    Ok(recovery)
}

/// A copy of a block in the log.
struct Copy {
    tag: Tag,
    at: JournalBlock,
    transaction: TransactionId,
}

/// Copies of this block do not count that are of this transaction, or of an earlier one.
struct Revoke {
    block: u64,
    transaction: TransactionId,
}

/// What a scan has found so far.
struct Scan {
    /// The transaction that is due.
    transaction: TransactionId,
    transactions: u32,
    copies: Vec<Copy>,
    revokes: Vec<Revoke>,
    /// How many of each belong to transactions with a commit block.
    committed: (usize, usize),
    /// When the last transaction was committed, in seconds since 1970.
    time: u64,
    /// A block of the transaction that is due does not match its checksum.
    doubtful: bool,
    /// The crc32 of the blocks of the transaction that is due.
    sum: u32,
}

/// The first pass: where the log ends, and all that it says up to there.
fn scan(log: &Log<'_>, start: JournalBlock, budget: &mut Budget) -> Result<Scan, Refusal> {
    let mut scan = Scan {
        transaction: log.superblock.sequence,
        transactions: 0,
        copies: Vec::new(),
        revokes: Vec::new(),
        committed: (0, 0),
        time: 0,
        doubtful: false,
        sum: !0,
    };
    let mut walk = Walk::new(log, start);
    let mut bytes = log.buffer();
    while let Some(block) = walk.step() {
        log.read(block, &mut bytes)?;
        let goes_on = match format::block_type(&bytes, scan.transaction.0) {
            Some(BlockType::Descriptor) => scan.descriptor(log, &mut walk, (block, &bytes), budget)?,
            Some(BlockType::Revoke) => scan.revoke(log, block, &bytes, budget)?,
            Some(BlockType::Commit) => scan.commit(log, block, &bytes)?,
            Some(BlockType::Other) | None => false,
        };
        if !goes_on {
            break;
        }
    }
    scan.copies.truncate(scan.committed.0);
    scan.revokes.truncate(scan.committed.1);
    Ok(scan)
}

impl Scan {
    /// Each of these says whether the log goes on.
    fn descriptor(
        &mut self,
        log: &Log<'_>,
        walk: &mut Walk,
        (block, bytes): (JournalBlock, &[u8]),
        budget: &mut Budget,
    ) -> Result<bool, Refusal> {
        self.doubtful |= log.superblock.seed().is_some_and(|seed| !block_matches(seed, bytes));
        let summed = log.superblock.checksums == Checksums::V1;
        let mut data = if summed { log.buffer() } else { Vec::new() };
        if summed {
            log.spend_on_sum(block, bytes.len())?;
            self.sum = crc32_be(self.sum, bytes);
        }
        for tag in Tags::of(bytes, &log.superblock) {
            let Some(at) = walk.step() else { return Ok(false) };
            if summed {
                log.read(at, &mut data)?;
                log.spend_on_sum(at, data.len())?;
                self.sum = crc32_be(self.sum, &data);
            }
            budget.push(&mut self.copies, Copy { tag, at, transaction: self.transaction })?;
        }
        Ok(true)
    }

    fn revoke(
        &mut self,
        log: &Log<'_>,
        block: JournalBlock,
        bytes: &[u8],
        budget: &mut Budget,
    ) -> Result<bool, Refusal> {
        self.doubtful |= log.superblock.seed().is_some_and(|seed| !block_matches(seed, bytes));
        let broken = Error::corrupt(Rule::JournalRevoke, Place::Journal(block.0));
        let (header, _) = format::RevokeHeader::ref_from_prefix(bytes).map_err(|_| broken)?;
        let end = bytes.len().saturating_sub(if log.superblock.seed().is_some() { 4 } else { 0 });
        let used = usize::try_from(header.r_count.get()).ok().filter(|&used| used <= end);
        let Some(used) = used else {
            // Of an old block nothing can be demanded; whether it is one, the commit block says.
            return if self.doubtful { Ok(true) } else { Err(broken.into()) };
        };
        let records = bytes.get(size_of::<format::RevokeHeader>()..used).unwrap_or_default();
        let size = if log.superblock.wide { 8 } else { 4 };
        for block in records.chunks_exact(size).filter_map(format::record) {
            budget.push(&mut self.revokes, Revoke { block, transaction: self.transaction })?;
        }
        Ok(true)
    }

    fn commit(&mut self, log: &Log<'_>, block: JournalBlock, bytes: &[u8]) -> Result<bool> {
        let time = format::Commit::ref_from_prefix(bytes).map_or(0, |(header, _)| header.h_commit_sec.get());
        let matches = match log.superblock.checksums {
            Checksums::None => true,
            Checksums::V1 => transaction_matches(bytes, self.sum),
            Checksums::V2(seed) | Checksums::V3(seed) => commit_matches(seed, bytes),
        };
        if self.doubtful || !matches {
            let old = time < self.time;
            let early = log.superblock.asynchronous && !self.doubtful;
            let rule = if self.doubtful { Rule::JournalBlockChecksum } else { Rule::JournalCommitChecksum };
            log.fs.verifier().judge(old || early, rule, Place::Journal(block.0))?;
            return Ok(false);
        }
        self.time = time;
        self.sum = !0;
        self.transaction = self.transaction.next();
        self.transactions = self.transactions.saturating_add(1);
        self.committed = (self.copies.len(), self.revokes.len());
        Ok(true)
    }
}

/// The second pass: of all revoke records of a block the last one counts. Rising by block.
fn latest(mut revokes: Vec<Revoke>) -> Vec<Revoke> {
    revokes.reverse();
    revokes.sort_by_key(|revoke| revoke.block);
    revokes.dedup_by_key(|revoke| revoke.block);
    revokes
}

fn is_revoked(revokes: &[Revoke], copy: &Copy) -> bool {
    let index = revokes.binary_search_by_key(&copy.tag.block, |revoke| revoke.block);
    let revoke = index.ok().and_then(|index| revokes.get(index));
    revoke.is_some_and(|revoke| !copy.transaction.is_after(revoke.transaction))
}

/// The third pass: a copy that counts, verified.
fn replay(log: &Log<'_>, copy: &Copy, bytes: &mut [u8]) -> Result<Substitute> {
    let place = Place::Journal(copy.at.0);
    if copy.tag.block >= log.fs.superblock().blocks {
        return Err(Error::corrupt(Rule::JournalTarget, place));
    }
    if log.superblock.seed().is_some() {
        log.read(copy.at, bytes)?;
        let matches = data_matches(log.superblock.checksums, &copy.tag, copy.transaction, bytes);
        log.fs.verifier().judge(matches, Rule::JournalDataChecksum, place)?;
    }
    Ok(Substitute { block: copy.tag.block, address: log.address(copy.at)?.0, escaped: copy.tag.escaped })
}
