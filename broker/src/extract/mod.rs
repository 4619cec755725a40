//! Files out of an image, without a mount: into a directory (`directory.rs`) or an archive (`archive.rs`).
//!
//! What holds here: what is asked for is taken and no more: owners, set-user-ID bits and special files only on demand; what
//! one file lacks is told and the rest goes on. The way through the image is in `walk.rs`.

mod acl;
mod archive;
mod content;
mod directory;
mod dress;
mod header;
mod limits;
mod output;
mod place;
mod report;
mod walk;

use crate::exit::{Code, Failure};
use lazaret_policy::message::{Attributes, Xattrs};
use std::collections::HashSet;
use std::rc::Rc;

pub(crate) use archive::Archive;
pub(crate) use content::Content;
pub(crate) use directory::Directory;
pub(crate) use limits::{Limits, Taken};
pub(crate) use output::Output;
pub(crate) use place::Place;
pub(crate) use report::Report;
pub(crate) use walk::Extraction;

/// Where files go.
pub(crate) trait Destination {
    /// A directory begins, and what follows lies in it.
    fn enter(&mut self, place: &Place, facts: &Facts) -> Result<(), Failure>;

    /// The directory that was entered last is complete.
    fn leave(&mut self, report: &mut Report<'_>) -> Result<(), Failure>;

    /// A file. `siblings` are all names in its directory.
    fn file(
        &mut self,
        place: &Place,
        facts: &Facts,
        siblings: &Siblings,
        content: &mut Content<'_, '_>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure>;

    /// A symbolic link.
    fn link(&mut self, place: &Place, facts: &Facts, target: &[u8], report: &mut Report<'_>) -> Result<(), Failure>;

    /// Another name of a file, link or special file that is there already.
    fn hard_link(&mut self, place: &Place, first: &Place) -> Result<(), Failure>;

    /// A device node, a FIFO or a socket.
    fn special(&mut self, place: &Place, facts: &Facts, report: &mut Report<'_>) -> Result<(), Failure>;

    /// Whether this is there already, complete, from an earlier extraction. Never for a directory.
    fn has(&mut self, place: &Place, attributes: &Attributes) -> bool;

    /// Whether it is worth to ask.
    fn may_have(&self) -> bool;

    /// Everything was taken.
    fn finish(&mut self) -> Result<(), Failure>;

    /// It ends before everything was taken. What is to be known about what is there, if there is something.
    fn abandon(&mut self) -> Option<String>;
}

/// All names of a directory.
pub(crate) type Siblings = HashSet<Rc<[u8]>>;

/// What is taken besides contents only if it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Owners and groups.
    pub(crate) owners: bool,
    /// The set-user-ID and set-group-ID bits, and file capabilities.
    pub(crate) setuid: bool,
    /// Device nodes, FIFOs and sockets.
    pub(crate) special: bool,
    /// Which extended attributes.
    pub(crate) xattrs: Xattrs,
}

/// What there is to know of an object besides its content, as far as it is wanted.
#[derive(Debug)]
pub(crate) struct Facts {
    /// As in the image, but for `mode`.
    pub(crate) attributes: Attributes,
    /// The permissions, without what was not asked for.
    pub(crate) mode: u32,
    /// Owner and group, if they were asked for.
    pub(crate) owner: Option<(u32, u32)>,
    /// Names and values.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Files, complete.
    pub(crate) files: u64,
    /// Directories.
    pub(crate) directories: u64,
    /// Symbolic links.
    pub(crate) links: u64,
    /// Further names of what was taken before.
    pub(crate) hard_links: u64,
    /// Device nodes, FIFOs and sockets.
    pub(crate) special: u64,
    /// The same, left out because nobody asked for them.
    pub(crate) special_left_out: u64,
    /// What was there already.
    pub(crate) there: u64,
}

/// Damage of the image that concerns one object.
fn damaged(reason: &str) -> Failure {
    Failure::new(Code::Damaged, reason).local()
}
