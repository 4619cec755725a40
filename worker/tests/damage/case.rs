//! A case: a sound image, what is broken in it, and what is then held.

use std::collections::HashMap;

use lazaret_policy::corruption::{Corruption, Place, Rule};
use lazaret_policy::message::{Refusal, Verity};
use lazaret_worker::device::Device;
use lazaret_worker::error::Error;
use lazaret_worker::ext4::{FileOffset, Filesystem, InodeNumber, MappingKind, Settings};

use crate::image::Image;
use crate::walk::{Walk, walk};

/// A sound image and everything in it.
pub(crate) struct Shape {
    image: Image,
    sound: Walk,
}

/// How one is made: by the first case of a test that needs it, and it is gone after the last.
pub(crate) struct Sound(pub(crate) fn() -> Shape);

/// One thing that is broken.
pub(crate) struct Case {
    /// What is told.
    pub(crate) rule: Rule,
    pub(crate) shape: &'static Sound,
    /// The paths that may be other than before, with everything beneath them. A refusal may lose everything.
    pub(crate) lost: &'static [&'static str],
    /// Breaks it, and says where it will be told.
    pub(crate) damage: fn(&mut Image) -> Place,
}

/// Rules of which the breach is a wrong checksum.
const CHECKSUMS: &[Rule] = &[
    Rule::SuperblockChecksum,
    Rule::GroupChecksum,
    Rule::InodeChecksum,
    Rule::ExtentChecksum,
    Rule::DirectoryChecksum,
    Rule::XattrChecksum,
    Rule::XattrHash,
    Rule::VerityHash,
];

impl Shape {
    /// An image in which the walk finds nothing wrong.
    pub(crate) fn of(image: Image) -> Self {
        let sound = walk(&open(&image).unwrap(), None);
        assert_eq!(sound.findings, [], "the image is sound");
        assert!(sound.objects.len() > 2, "there is something in it");
        Self { image, sound }
    }
}

/// Breaks each, and holds it to what is told and to what is left.
pub(crate) fn hold(cases: &[Case]) {
    let mut shapes: HashMap<*const Sound, Shape> = HashMap::new();
    for (index, case) in cases.iter().enumerate() {
        let shape = shapes.entry(std::ptr::from_ref(case.shape)).or_insert_with(|| (case.shape.0)());
        let mut image = shape.image.clone();
        let sound = &shape.sound;
        let place = (case.damage)(&mut image);
        assert!(image.bytes != shape.image.bytes, "case {index}, {:?}: nothing was changed", case.rule);
        let corruption = Corruption { rule: case.rule, place };
        let by_checksum = CHECKSUMS.contains(&case.rule);
        let fs = match open(&image) {
            Ok(fs) => fs,
            Err(refusal) => {
                let wanted = if by_checksum { Refusal::Checksum(corruption) } else { Refusal::Corrupt(corruption) };
                assert_eq!(refusal, wanted, "case {index}");
                assert_eq!(case.lost, ["/"], "case {index}, {:?}: the file system is refused", case.rule);
                continue;
            }
        };
        let wanted = if by_checksum { Error::Checksum(corruption) } else { Error::Corrupt(corruption) };
        let broken = walk(&fs, Some(sound));
        assert_eq!(broken.findings, [wanted], "case {index}");
        let mut kept = 0;
        for (path, object) in &sound.objects {
            if !is_lost(case, place, path, object.inode, &fs) {
                assert_eq!(
                    broken.objects.get(path),
                    Some(object),
                    "case {index}, {:?}: {}",
                    case.rule,
                    path.escape_ascii()
                );
                kept += 1;
            }
        }
        assert!(kept > 0, "case {index}, {:?}: nothing is left", case.rule);
    }
}

fn is_lost(case: &Case, place: Place, path: &[u8], inode: u32, fs: &Filesystem) -> bool {
    let beneath =
        |lost: &&str| path.strip_prefix(lost.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
    let in_group =
        matches!(place, Place::GroupDescriptor(group) if (inode - 1) / fs.superblock().inodes_per_group == group);
    in_group || case.lost.iter().any(beneath)
}

/// With Merkle trees checked.
fn open(image: &Image) -> Result<Filesystem, Refusal> {
    let settings = Settings { verity: Verity::Verify, ..Settings::default() };
    Filesystem::open(Device::from_bytes(image.bytes.clone()), settings)
}

/// The block of the device that has this block of a file.
pub(crate) fn block_of(image: &Image, number: InodeNumber, block: u64) -> u64 {
    let fs = open(image).unwrap();
    let inode = fs.any_inode(number).unwrap();
    let size = image.block_size() as u64;
    match fs.map(&inode, FileOffset(block * size), 1).unwrap().kind {
        MappingKind::Data(start) => start.0 / size,
        other => panic!("{number} {block}: {other:?}"),
    }
}

/// The place of an inode.
pub(crate) fn at(number: InodeNumber) -> Place {
    Place::Inode(number.value())
}
