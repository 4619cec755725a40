//! Names against inodes: every directory is reached from the root, and everything in use has as many names as it says.

use lazaret_policy::corruption::{Place, Rule};

use super::Check;
use super::inodes::{Role, Seen};
use crate::error::Result;
use crate::ext4::units::{GroupNumber, InodeNumber};

/// The most links of a directory that are counted: beyond, it says 1.
const MOST_LINKS: u16 = 65_000;
/// `file_type` of a directory.
const DIRECTORY: u8 = 2;

impl Check<'_> {
    /// First the directories, then the inodes of one group a call. Gives whether the stage is over.
    pub(super) fn links(&mut self) -> Result<bool> {
        if self.at == 0 {
            self.reach();
        }
        let Some(group) = u32::try_from(self.at).ok().filter(|&group| group < self.fs.superblock().groups) else {
            return Ok(true);
        };
        self.at = self.at.saturating_add(1);
        let group = GroupNumber(group);
        let seen = self.inodes.of_group(group);
        let work = crate::ext4::units::u64_from(seen.len());
        for (&seen, within) in seen.iter().zip(0..) {
            let named = match seen.role {
                Role::File | Role::Flagged | Role::Value => counted(seen),
                Role::Free | Role::Nameless => continue,
            };
            let place = Place::Inode(self.inodes.number(group, within));
            if seen.named == 0 {
                self.findings.damage(Rule::InodeNamed, place);
            } else {
                self.findings.hold(named == seen.stated, Rule::LinkCount, place);
            }
        }
        self.spend(work);
        Ok(false)
    }

    /// From each directory upwards, until one that was reached before. Each is passed once, so the work is bounded by
    /// their number.
    fn reach(&mut self) {
        /// It is reached from the root.
        const REACHED: u32 = u32::MAX;
        if let Some(root) = self.find_directory(InodeNumber::ROOT.value()) {
            root.passed = REACHED;
        }
        let numbers = 0..self.directories.len();
        for (index, turn) in numbers.zip(1..REACHED) {
            let Some(&first) = self.directories.get(index) else { break };
            let (mut at, mut reached) = (first.number, false);
            while let Some(directory) = self.find_directory(at) {
                if directory.passed != 0 {
                    reached = directory.passed == REACHED;
                    break;
                }
                directory.passed = turn;
                at = directory.parent;
            }
            // Where a way ends without the root, or in a circle, its first directory is told once and the others hang
            // from it.
            let place = Place::Inode(first.number);
            self.findings.hold(reached || first.passed != 0, Rule::DirectoryReachable, place);
            let mut at = first.number;
            while let Some(directory) = self.find_directory(at).filter(|directory| directory.passed == turn) {
                directory.passed = REACHED;
                at = directory.parent;
            }
            let named = first.parent == 0 || first.dotdot == 0 || first.dotdot == first.parent;
            self.findings.hold(named, Rule::DirectoryDotDot, place);
        }
        self.spend(crate::ext4::units::u64_from(self.directories.len()));
    }
}

/// The links that an inode should have.
fn counted(seen: Seen) -> u16 {
    if seen.file_type == DIRECTORY && seen.named > MOST_LINKS { 1 } else { seen.named }
}
