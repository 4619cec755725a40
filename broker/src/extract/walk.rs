//! The way through an image: directory by directory, many files at once.
//!
//! What holds here: what a file is comes with its content in one answer, so that nothing changes in between; a directory
//! is entered once, whatever its names say, so that a tree that leads back into itself ends; names, depth, data and holes
//! are counted against limits of ours.

use super::{Content, Counts, Destination, Facts, Limits, Place, Report, Siblings, Taken, Wanted, damaged};
use crate::exit::{Code, Failure};
use crate::gather::{End, Gathering, Object, Part, reason};
use crate::path::{is, join};
use crate::tool::Image;
use lazaret_policy::gather::MOST_INODES;
use lazaret_policy::message::{Attributes, Xattrs};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// What a directory names.
struct Name {
    inode: u32,
    name: Rc<[u8]>,
    attributes: Option<Attributes>,
}

/// What is to be done next.
enum Step {
    Enter(Place, u32),
    Leave(Place),
}

/// An extraction.
pub(crate) struct Extraction<'a, 'b> {
    /// From here.
    pub(crate) image: Image<'b>,
    /// To there.
    pub(crate) to: &'a mut dyn Destination,
    /// What is wanted.
    pub(crate) wanted: Wanted,
    /// And how much of it.
    pub(crate) limits: Limits,
    /// The path in the image of what is extracted.
    pub(crate) base: Vec<u8>,
    /// What was taken so far.
    pub(crate) taken: Taken,
    /// The same, by kind.
    pub(crate) counts: Counts,
    /// Inodes with several names: where the first is.
    links: HashMap<u32, Place>,
    /// Directories that were entered.
    entered: HashSet<u32>,
}

impl<'a, 'b> Extraction<'a, 'b> {
    /// Nothing was taken yet.
    pub(crate) fn new(
        image: Image<'b>,
        to: &'a mut dyn Destination,
        wanted: Wanted,
        limits: Limits,
        base: &[u8],
    ) -> Self {
        let (taken, counts, links, entered) = Default::default();
        Self { image, to, wanted, limits, base: base.to_vec(), taken, counts, links, entered }
    }

    /// Takes a directory with all that lies in it.
    pub(crate) fn tree(&mut self, inode: u32, report: &mut Report<'_>) -> Result<(), Failure> {
        let mut steps = vec![Step::Enter(Place::root(), inode)];
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(place, inode) => {
                    let entered = self.enter(&place, inode, report);
                    if let Err(failure) = entered {
                        report.miss(&self.path(&place), failure)?;
                        continue;
                    }
                    steps.push(Step::Leave(place.clone()));
                    let below = self.content_of(&place, inode, report)?;
                    steps.extend(below.into_iter().rev().map(|(place, inode)| Step::Enter(place, inode)));
                }
                Step::Leave(place) => {
                    report.path = self.path(&place);
                    self.to.leave(report)?;
                }
            }
        }
        Ok(())
    }

    /// Takes one thing that is no directory, under this name.
    pub(crate) fn one(&mut self, inode: u32, name: &[u8], report: &mut Report<'_>) -> Result<(), Failure> {
        let name: Rc<[u8]> = Rc::from(name);
        let siblings = Siblings::from([name.clone()]);
        self.base = self.base.strip_suffix(&*name).unwrap_or_default().to_vec();
        let one = Name { inode, name, attributes: Some(self.image.attributes(inode)?) };
        self.gather(&Place::root(), &[&one], &siblings, &mut vec![], report)
    }

    /// The path in the image.
    fn path(&self, place: &Place) -> Vec<u8> {
        place.names().iter().fold(self.base.clone(), |path, name| join(&path, name))
    }

    fn enter(&mut self, place: &Place, inode: u32, report: &mut Report<'_>) -> Result<(), Failure> {
        if !self.entered.insert(inode) {
            return Err(damaged("is a directory that was found under another name already, and is left out"));
        }
        if place.depth > self.limits.depth {
            let reason =
                format!("lies below more than {} directories, and is left out; see --max-depth", self.limits.depth);
            return Err(Failure::new(Code::Unreadable, reason).local());
        }
        let object = Gathering::new(vec![inode]).next(&mut self.image)?.ok_or_else(|| damaged("is not there"))?;
        report.path = self.path(place);
        let (_, facts) = self.facts(object, report)?;
        if !is(&facts.attributes, libc::S_IFDIR) {
            return Err(damaged("was a directory and is none any more: the image has changed"));
        }
        self.to.enter(place, &facts)?;
        self.counts.directories += 1;
        Ok(())
    }

    /// Takes what lies in a directory, and gives the directories among it.
    fn content_of(&mut self, place: &Place, inode: u32, report: &mut Report<'_>) -> Result<Vec<(Place, u32)>, Failure> {
        let (mut names, mut siblings) = (vec![], Siblings::new());
        let (taken, limits, mut dots, mut twice) = (&mut self.taken, &self.limits, [0, 0], vec![]);
        let with_attributes = self.to.may_have();
        let listed = self.image.each(inode, with_attributes, &mut |entry| {
            if matches!(&entry.name[..], b"." | b"..") {
                dots[entry.name.len() - 1] += 1;
                return if dots[entry.name.len() - 1] == 1 { Ok(()) } else { taken.entry(limits) };
            }
            taken.entry(limits)?;
            let name: Rc<[u8]> = Rc::from(entry.name);
            if siblings.insert(name.clone()) {
                names.push(Name { inode: entry.inode, name, attributes: entry.attributes });
            } else {
                twice.push(name);
            }
            Ok(())
        });
        let path = self.path(place);
        let second = |name: &str| damaged(&format!("a second entry '{name}' names something else, and is left out"));
        for (count, name) in dots.into_iter().zip([".", ".."]).filter(|(count, _)| *count > 1) {
            (1..count).try_for_each(|_| report.miss(&path, second(name)))?;
        }
        for name in twice {
            let failure = damaged("a second entry of this name is left out");
            report.miss(&join(&path, &name), failure)?;
        }
        if let Err(failure) = listed {
            report.miss(&path, failure.into_damage())?;
        }
        // As they lie on the disk: what is read there goes forward.
        names.sort_by_key(|name| name.inode);
        let mut below = vec![];
        for chunk in names.chunks(MOST_INODES) {
            report.signals.check()?;
            self.chunk(place, chunk, &siblings, &mut below, report)?;
        }
        Ok(below)
    }

    fn chunk(
        &mut self,
        directory: &Place,
        names: &[Name],
        siblings: &Siblings,
        below: &mut Vec<(Place, u32)>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let (mut first, mut later) = (vec![], vec![]);
        for name in names {
            let place = || directory.below(name.name.clone());
            if self.links.contains_key(&name.inode) || first.last().is_some_and(|one: &&Name| one.inode == name.inode) {
                later.push(name);
            } else if let Some(attributes) = name.attributes.filter(|attributes| self.to.has(&place(), attributes)) {
                self.counts.there += 1;
                if attributes.links > 1 {
                    self.links.insert(name.inode, place());
                }
            } else {
                first.push(name);
            }
        }
        self.gather(directory, &first, siblings, below, report)?;
        for name in later {
            let place = directory.below(name.name.clone());
            match self.links.get(&name.inode) {
                Some(before) => match self.to.hard_link(&place, before) {
                    Ok(()) => self.counts.hard_links += 1,
                    Err(failure) => report.miss(&self.path(&place), failure)?,
                },
                // The first was not taken.
                None => self.gather(directory, &[name], siblings, below, report)?,
            }
        }
        Ok(())
    }

    /// Takes these, each with its content; directories among them are only noted.
    fn gather(
        &mut self,
        directory: &Place,
        names: &[&Name],
        siblings: &Siblings,
        below: &mut Vec<(Place, u32)>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let mut gathering = Gathering::new(names.iter().map(|name| name.inode).collect());
        while let Some(object) = gathering.next(&mut self.image)? {
            let name = names[object.index];
            let place = directory.below(name.name.clone());
            match self.object(&place, name.inode, object, &mut gathering, siblings, report) {
                Ok(true) => below.push((place, name.inode)),
                Ok(false) => {}
                Err(failure) => report.miss(&self.path(&place), failure)?,
            }
        }
        Ok(())
    }

    /// Takes this. True for a directory, which is only noted.
    fn object(
        &mut self,
        place: &Place,
        inode: u32,
        object: Object,
        gathering: &mut Gathering,
        siblings: &Siblings,
        report: &mut Report<'_>,
    ) -> Result<bool, Failure> {
        report.path = self.path(place);
        let (part, facts) = self.facts(object, report)?;
        let kind = u32::from(facts.attributes.mode) & libc::S_IFMT;
        match kind {
            libc::S_IFDIR => return Ok(true),
            libc::S_IFREG => {
                let (length, limits) = (facts.attributes.size, &self.limits);
                let with = (limits, &mut self.taken);
                let mut content = Content::new((&mut self.image, gathering), (inode, length), part, with);
                expected_holes(&facts.attributes, content.taken(), limits)?;
                self.to.file(place, &facts, siblings, &mut content, report)?;
                self.counts.files += 1;
            }
            libc::S_IFLNK => {
                let target = match (part.data.first(), part.end) {
                    (Some((_, target)), _) => target,
                    (None, end) => return Err(unread(end)),
                };
                self.to.link(place, &facts, target, report)?;
                self.counts.links += 1;
            }
            _ if !self.wanted.special => {
                self.counts.special_left_out += 1;
                return Ok(false);
            }
            _ => {
                self.to.special(place, &facts, report)?;
                self.counts.special += 1;
            }
        }
        if facts.attributes.links > 1 {
            self.links.insert(inode, place.clone());
        }
        Ok(false)
    }

    /// What is wanted of what there is to know, and the begin of the content.
    fn facts(&mut self, object: Object, report: &mut Report<'_>) -> Result<(Part, Facts), Failure> {
        let Object { attributes, xattrs, unread: missing, part, .. } = object;
        let Some(attributes) = attributes else { return Err(unread(part.end)) };
        for errno in missing {
            report.miss_here(damaged(&format!("extended attributes: {}", reason(errno))))?;
        }
        let Wanted { owners, setuid, xattrs: which, .. } = self.wanted;
        let mode = u32::from(attributes.mode) & if setuid { 0o7777 } else { 0o1777 };
        let owner = owners.then_some((attributes.uid, attributes.gid));
        let xattrs = xattrs.into_iter().filter(|(name, _)| is_wanted(name, which, setuid)).collect();
        Ok((part, Facts { attributes, mode, owner, xattrs }))
    }
}

/// Whether an extended attribute of this name may be given to a file. The worker was asked for those alone, and is not
/// believed.
fn is_wanted(name: &[u8], which: Xattrs, setuid: bool) -> bool {
    let begins = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
    let lists: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
    match which {
        Xattrs::None => false,
        _ if begins(b"user.") || lists.contains(&name) => true,
        Xattrs::User => false,
        Xattrs::All if name == b"security.capability" => setuid,
        Xattrs::All => begins(b"trusted.") || begins(b"security."),
    }
}

/// Before a byte of a file is read: whether its holes are more than are made. What it is told to hold may be a lie; what
/// it holds is counted.
fn expected_holes(attributes: &Attributes, taken: &Taken, limits: &Limits) -> Result<(), Failure> {
    let holes = attributes.size.saturating_sub(attributes.blocks.saturating_mul(512));
    let mut expected = *taken;
    expected.hole(holes, limits)
}

fn unread(end: Option<End>) -> Failure {
    match end {
        Some(End::Broken(errno)) => damaged(&reason(errno)),
        _ => damaged("cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_wanted_by_its_kind() {
        let wanted = |name: &str| {
            let name = name.as_bytes();
            let each = [(Xattrs::None, true), (Xattrs::User, true), (Xattrs::All, false), (Xattrs::All, true)];
            each.map(|(which, setuid)| is_wanted(name, which, setuid))
        };
        assert_eq!(wanted("user.a"), [false, true, true, true]);
        assert_eq!(wanted("system.posix_acl_access"), [false, true, true, true]);
        assert_eq!(wanted("trusted.a"), [false, false, true, true]);
        assert_eq!(wanted("security.selinux"), [false, false, true, true]);
        assert_eq!(wanted("security.capability"), [false, false, false, true]);
        for name in ["user.", "user", "system.data", "system.posix_acl_accessx", "os2.x", "", "securityXx"] {
            assert_eq!(wanted(name), [false; 4], "{name}");
        }
    }
}
