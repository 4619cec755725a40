//! What an inode holds: the blocks of its map and of its attributes, each claimed once, and the sizes that follow.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::RoCompat;

use super::Check;
use super::attributes::Attributes;
use super::findings::Findings;
use crate::error::{Error, Result};
use crate::ext4::format;
use crate::ext4::map::{Part, PartKind};
use crate::ext4::units::{BlockNumber, InodeNumber, u64_from};
use crate::ext4::{FileKind, Filesystem, Inode, InodeFlags, LogicalBlock, extent, indirect};

use super::clusters::Clusters;

/// What the walk over a map has seen.
#[derive(Default)]
struct Walk {
    /// Clusters that the file holds.
    clusters: u64,
    /// The block of the file behind the last that is mapped.
    end: u64,
    /// The same, without space that was never written.
    written_end: u64,
    /// The first block where a hole follows, or space that was never written.
    hole: bool,
    /// The cluster of the last block, and of the file.
    last: Option<(u64, u64)>,
    /// Something was wrong, so that the counts say nothing.
    broken: bool,
}

impl Check<'_> {
    /// The map, the attributes and the sizes of an inode.
    pub(super) fn contents(&mut self, inode: &Inode, raw: &format::Inode) -> Result<()> {
        let attributes = self.attributes(inode)?;
        let Attributes { clusters: attributes, inodes } = attributes;
        let mut walk = Walk::default();
        let inline = inode.flags.contains(InodeFlags::INLINE_DATA);
        match inode.kind {
            FileKind::Regular | FileKind::Directory if !inline => walk = self.walk(inode)?,
            FileKind::Symlink if !inline && !inode.is_fast_symlink(self.fs.superblock()) => walk = self.walk(inode)?,
            _ => (),
        }
        match inode.kind {
            _ if walk.broken => (),
            FileKind::Regular | FileKind::Directory if inline => self.inline_size(inode)?,
            FileKind::Directory => self.directory_size(inode, &walk),
            FileKind::Regular => {
                let size = self.fs.superblock().block_size;
                let enough = size.bytes_of(walk.written_end.saturating_sub(1)).is_some_and(|end| inode.size >= end);
                let sound = walk.written_end == 0 || enough || inode.flags.contains(InodeFlags::VERITY);
                self.findings.hold(sound, Rule::InodeSizeMapped, Place::Inode(inode.number.value()));
                let journal = self.raw.s_journal_inum.get() == inode.number.value();
                if journal {
                    self.journal_length(inode, raw, size.bytes_of(walk.end));
                }
            }
            FileKind::Symlink => self.link(inode, raw)?,
            _ => self.special(inode, raw),
        }
        let translator = if walk.end > 0 { self.translator(inode, raw)? } else { 0 };
        let clusters = walk.clusters.saturating_add(attributes).saturating_add(translator);
        self.hold_features(inode, raw, walk.clusters);
        if !walk.broken {
            self.count_usage(inode, raw, clusters, inodes.saturating_add(1))?;
        }
        if !walk.broken {
            self.space(inode.number, raw, clusters);
        }
        Ok(())
    }

    /// Whether the superblock has the features that a file of this size and this map needs.
    fn hold_features(&mut self, inode: &Inode, raw: &format::Inode, clusters: u64) {
        let superblock = self.fs.superblock();
        self.large |= inode.kind == FileKind::Regular && is_large(raw);
        let mapped = matches!(inode.kind, FileKind::Regular | FileKind::Directory);
        let by_pointers = mapped && !inode.flags.intersects(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA);
        let reserved = inode.number != InodeNumber::ROOT && inode.number.value() < superblock.first_inode;
        let wrong = superblock.ro_compat.contains(RoCompat::BIGALLOC) && by_pointers && !reserved && clusters > 0;
        self.findings.hold(!wrong, Rule::ClusterMap, Place::Inode(inode.number.value()));
    }

    /// The Hurd keeps a block for a file's translator, and counts it.
    fn translator(&mut self, inode: &Inode, raw: &format::Inode) -> Result<u64> {
        let block = BlockNumber(raw.i_version.get().into());
        if !self.is_of_hurd() || block.0 == 0 {
            return Ok(0);
        }
        let place = Place::Claim { inode: inode.number.value(), block: block.0 };
        let inside = block.0 >= self.fs.superblock().first_data_block.0 && block.0 < self.fs.superblock().blocks;
        self.findings.hold(inside, Rule::BlockInFileSystem, place);
        if inside && self.clusters.mark_blocks(block, 1)?.is_some() {
            self.findings.damage(Rule::BlockOnce, place);
        }
        Ok(1)
    }

    /// Made by the Hurd, which gives some fields of an inode another meaning.
    pub(super) fn is_of_hurd(&self) -> bool {
        const HURD: u32 = 1;
        self.raw.s_creator_os.get() == HURD
    }

    fn walk(&mut self, inode: &Inode) -> Result<Walk> {
        let mut walk = Walk::default();
        let mut failed = None;
        let Self { fs, clusters, findings, .. } = self;
        let shared = fs.superblock().ro_compat.contains(RoCompat::SHARED_BLOCKS);
        let mut work = 0_u64;
        let mut visit = |part: Result<Part>| {
            work = work.saturating_add(1);
            match part.and_then(|part| walk.claim(clusters, findings, inode.number, part, shared)) {
                Ok(fresh) => fresh,
                Err(error) => {
                    walk.broken = true;
                    if let Err(error) = findings.keep(error) {
                        failed.get_or_insert(error);
                    }
                    false
                }
            }
        };
        if inode.flags.contains(InodeFlags::EXTENTS) {
            extent::walk(fs, inode, &mut visit);
        } else {
            indirect::walk(fs, inode, &mut visit);
        }
        self.spend(work);
        failed.map_or(Ok(walk), Err)
    }

    /// The units of 512 bytes, or of blocks, that an inode says it takes.
    pub(super) fn space(&mut self, number: InodeNumber, raw: &format::Inode, clusters: u64) {
        let superblock = self.fs.superblock();
        let huge = superblock.ro_compat.contains(RoCompat::HUGE_FILE);
        let high = if huge { u64::from(raw.i_blocks_high.get()) << 32 } else { 0 };
        let stated = high | u64::from(raw.i_blocks_lo.get());
        let flags = InodeFlags::from_bits_retain(raw.i_flags.get());
        let in_blocks = huge && flags.contains(InodeFlags::HUGE_FILE);
        let unit = if in_blocks { 1 } else { u64::from(superblock.block_size.bytes() >> 9) };
        let held = clusters.saturating_mul(self.clusters.ratio()).saturating_mul(unit);
        // The upper half is for those that are not counted in blocks.
        let sound = stated == held && !(in_blocks && high != 0);
        self.findings.hold(sound || self.is_of_hurd(), Rule::InodeBlocks, Place::Inode(number.value()));
    }

    /// The journal is no longer than its blocks. e2fsck compares the lower half of the length alone, as a number with a
    /// sign; a reader finds a hole where it looks.
    fn journal_length(&mut self, inode: &Inode, raw: &format::Inode, mapped: Option<u64>) {
        let place = Place::Inode(inode.number.value());
        let is_whole = |length| mapped.is_none_or(|end| length <= end);
        let compared = u64::try_from(raw.i_size_lo.get().cast_signed()).unwrap_or(0);
        if !is_whole(compared) {
            self.findings.damage(Rule::JournalLength, place);
        } else if !is_whole(inode.size) {
            self.findings.notice(Rule::JournalLength, place);
        }
    }

    fn directory_size(&mut self, inode: &Inode, walk: &Walk) {
        let place = Place::Inode(inode.number.value());
        let size = self.fs.superblock().block_size;
        let whole = size.bytes_of(walk.end) == Some(inode.size);
        let ahead = size.blocks_for(inode.size).saturating_add(self.raw.s_prealloc_dir_blocks.into());
        let preallocated = inode.size.is_multiple_of(size.bytes().into())
            && size.blocks_for(inode.size) <= walk.end
            && walk.end <= ahead;
        self.findings.hold((whole || preallocated) && walk.end > 0, Rule::InodeSizeMapped, place);
        self.findings.hold(!walk.hole, Rule::DirectoryHole, place);
    }

    fn inline_size(&mut self, inode: &Inode) -> Result<()> {
        match self.fs.inline(inode).map(|inline| inline.length()) {
            Ok(length) => {
                let sound = inode.kind != FileKind::Directory || length == inode.size;
                self.findings.hold(sound, Rule::InlineSize, Place::Inode(inode.number.value()));
                Ok(())
            }
            Err(error) => self.keep(error),
        }
    }

    /// A link's target is read whole, and a NUL follows it.
    fn link(&mut self, inode: &Inode, raw: &format::Inode) -> Result<()> {
        self.findings.hold(raw.i_size_high.get() == 0, Rule::SymlinkTarget, Place::Inode(inode.number.value()));
        match self.fs.read_link(inode) {
            Ok(_) => (),
            // A NUL within: a reader refuses it, and where the target lies in the inode e2fsck looks at its length alone.
            Err(Error::Corrupt(found)) if found.rule == Rule::SymlinkTarget && self.fills_its_inode(inode) => {
                self.findings.notice(found.rule, found.place);
                return Ok(());
            }
            Err(error) => return self.keep(error),
        }
        let encrypted = inode.flags.contains(InodeFlags::ENCRYPT);
        if encrypted || inode.flags.contains(InodeFlags::INLINE_DATA) {
            return Ok(());
        }
        let length = usize::try_from(inode.size).unwrap_or(usize::MAX);
        let behind = if inode.is_fast_symlink(self.fs.superblock()) {
            raw.i_block.get(length).copied()
        } else {
            self.fs.read_block(inode, LogicalBlock(0))?.and_then(|block| block.get(length).copied())
        };
        self.findings.hold(behind == Some(0), Rule::SymlinkTarget, Place::Inode(inode.number.value()));
        Ok(())
    }

    /// Whether a file lies in its inode and takes all the room that its attribute makes there.
    fn fills_its_inode(&self, inode: &Inode) -> bool {
        inode.flags.contains(InodeFlags::INLINE_DATA)
            && inode.size > 0
            && self.fs.inline(inode).is_ok_and(|inline| inline.length() == inode.size)
    }

    fn special(&mut self, inode: &Inode, raw: &format::Inode) {
        let size = raw.i_size_lo.get() != 0 || raw.i_size_high.get() != 0;
        let mapped = inode.flags.intersects(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA | InodeFlags::INDEX);
        self.findings.hold(!size && !mapped, Rule::SpecialFile, Place::Inode(inode.number.value()));
    }
}

impl Walk {
    /// Marks the clusters of a piece of a map. Gives whether they are the file's alone.
    fn claim(
        &mut self,
        clusters: &mut Clusters,
        findings: &mut Findings,
        inode: InodeNumber,
        part: Part,
        shared: bool,
    ) -> Result<bool> {
        let (first, count) = (clusters.of(part.start), part.count);
        let last = clusters.of(crate::ext4::BlockNumber(part.start.0.saturating_add(count).saturating_sub(1)));
        let mut from = first;
        if part.kind != PartKind::Map {
            self.place(clusters, findings, inode, part);
            let logical = part.first.saturating_add(count).saturating_sub(1).checked_div(clusters.ratio());
            if clusters.ratio() > 1 && self.last.is_some_and(|(cluster, _)| cluster == first) {
                from = first.saturating_add(1);
            }
            self.last = Some((last, logical.unwrap_or(0)));
        }
        let behind = last.saturating_add(1);
        if from >= behind {
            return Ok(true);
        }
        self.clusters = self.clusters.saturating_add(behind.saturating_sub(from));
        let Some(double) = clusters.mark(from, behind)? else { return Ok(true) };
        if !shared {
            let block = clusters.block(double).max(part.start.0);
            findings.damage(Rule::BlockOnce, Place::Claim { inode: inode.value(), block });
            self.broken |= part.kind == PartKind::Map;
        }
        Ok(false)
    }

    /// Where the piece lies in the file.
    fn place(&mut self, clusters: &Clusters, findings: &mut Findings, inode: InodeNumber, part: Part) {
        let end = part.first.saturating_add(part.count);
        self.hole |= part.first > self.end || part.kind == PartKind::Unwritten;
        self.end = end.max(self.end);
        if part.kind == PartKind::Data {
            self.written_end = end.max(self.written_end);
        }
        let ratio = clusters.ratio();
        if ratio > 1 {
            let within = |block: u64| block.checked_rem(ratio);
            let aligned = within(part.first) == within(part.start.0);
            let logical = part.first.checked_div(ratio).unwrap_or(0);
            let split = self.last.is_some_and(|(cluster, before)| {
                before == logical && within(part.first) != Some(0) && cluster != clusters.of(part.start)
            });
            let place = Place::Claim { inode: inode.value(), block: part.start.0 };
            findings.hold(aligned && !split, Rule::ClusterAligned, place);
        }
    }
}

/// Whether a file is so long that it needs the feature large_file.
pub(super) fn is_large(raw: &format::Inode) -> bool {
    raw.i_size_high.get() != 0 || raw.i_size_lo.get() > 0x7fff_ffff
}

/// How many clusters it takes to hold so many bytes.
pub(super) fn clusters_for(fs: &Filesystem, bytes: usize) -> u64 {
    let superblock = fs.superblock();
    let blocks = superblock.block_size.blocks_for(u64_from(bytes));
    blocks.div_ceil(superblock.cluster_ratio.max(1).into())
}
