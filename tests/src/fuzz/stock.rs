//! The sound images that inputs are changes of: made by recipe, or taken from where a packager has put them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::Result;
use crate::mutate::layout::{self, Kind, Layout};
use crate::mutate::seeds;

/// Says where the images lie, for those who have no mke2fs; beside the program otherwise, in a folder `images`.
const PLACE: &str = "LAZARET_FUZZ_IMAGES";

/// A sound image and where its structures lie.
pub struct Sound {
    /// What it is.
    pub name: String,
    /// The image.
    pub bytes: Vec<u8>,
    pub(crate) layout: Layout,
    /// Its pieces by kind, in the order of [`KINDS`].
    pub(crate) by_kind: Vec<Vec<usize>>,
}

/// The kinds of structure by the number that an input has for them. New ones come last: the number is in every corpus.
pub(crate) const KINDS: [Kind; 14] = [
    Kind::Superblock,
    Kind::Group,
    Kind::BlockBitmap,
    Kind::InodeBitmap,
    Kind::Inode,
    Kind::ExtentNode,
    Kind::Pointers,
    Kind::Directory,
    Kind::Attributes,
    Kind::Data,
    Kind::JournalSuperblock,
    Kind::Log,
    Kind::FastCommit,
    Kind::Guard,
];

impl Sound {
    fn new(name: String, bytes: Vec<u8>) -> Self {
        let layout = layout::of(&bytes);
        let of = |kind| (0..layout.pieces.len()).filter(|&piece| layout.pieces[piece].kind == kind).collect();
        let by_kind = KINDS.iter().map(|&kind| of(kind)).collect();
        Self { name, bytes, layout, by_kind }
    }
}

/// All of them, always in the same order; made at the first call.
///
/// # Panics
/// If they can neither be found nor made: nothing can be fuzzed then.
pub fn stock() -> &'static [Sound] {
    static STOCK: OnceLock<Vec<Sound>> = OnceLock::new();
    STOCK.get_or_init(|| match found() {
        Some(place) => load(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display())),
        None => {
            let seeds = seeds::all().unwrap_or_else(|error| panic!("images to be mutated: {error}"));
            seeds.into_iter().map(|seed| Sound::new(seed.name.to_owned(), seed.bytes)).collect()
        }
    })
}

/// The image of this name.
///
/// # Panics
/// If there is none.
pub fn sound(name: &str) -> &'static Sound {
    stock().iter().find(|sound| sound.name == name).unwrap_or_else(|| panic!("no image {name}"))
}

fn found() -> Option<PathBuf> {
    let named = std::env::var_os(PLACE).map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("images")).filter(|place| place.is_dir());
    named.or_else(beside)
}

/// Numbered, because their order counts.
fn load(place: &Path) -> Result<Vec<Sound>> {
    let mut files = fs::read_dir(place)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let name = |file: &Path| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        stem.split_once('.').map_or(stem.clone(), |(_, name)| name.to_owned())
    };
    files.iter().map(|file| Ok(Sound::new(name(file), fs::read(file)?))).collect()
}

/// Writes them where [`stock`] finds them.
///
/// # Errors
/// The place cannot be written to.
pub fn store(place: &Path) -> Result {
    fs::create_dir_all(place)?;
    for (number, sound) in stock().iter().enumerate() {
        fs::write(place.join(format!("{number:0>2}.{}.img", sound.name)), &sound.bytes)?;
    }
    Ok(())
}
