//! `lazaret check` beside `e2fsck -fn`, many times over: a sound image, one field of its metadata changed, and what the
//! two say of it.
//!
//! The same number gives the same image. Where the image has checksums, three of four have them made right again, so
//! that the field is judged and not its checksum.
//!
//! - [`shapes`]: the sound images. [`spots`]: where their metadata lies.
//! - [`oracle`]: e2fsck, held to some memory and time.

pub mod oracle;
pub mod shapes;
mod spots;

use lazaret_policy::message::Severity;
use lazaret_policy::verdict;
use lazaret_worker::device::Device;
use lazaret_worker::ext4::check::Check;
use lazaret_worker::ext4::{Filesystem, Settings};

use crate::Result;
use crate::mutate::bytes::{put, u32};
use crate::mutate::damage::wrong;
use crate::mutate::layout::{Kind, Layout, Piece};
use crate::mutate::random::Random;
use crate::mutate::seal;
use crate::mutate::seeds::Seed;

use self::spots::Spot;

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Exit code 0.
    Sound,
    /// Exit code 4.
    Damaged,
    /// Exit code 8.
    Unreadable,
}

/// A sound image, and where its metadata lies.
pub struct Base {
    /// What it is.
    pub name: &'static str,
    /// The image.
    pub bytes: Vec<u8>,
    layout: Layout,
    /// By their name.
    spots: Vec<(&'static str, Vec<Spot>)>,
}

/// An image with one field changed.
pub struct Mutant<'a> {
    /// What it was made of.
    pub base: &'a Base,
    /// What was changed.
    pub spot: &'static str,
    /// The image.
    pub bytes: Vec<u8>,
    /// The change in words.
    pub change: String,
}

/// All sound images.
pub fn bases() -> Result<Vec<Base>> {
    shapes::all().map(|seeds| seeds.into_iter().map(Base::new).collect())
}

impl Base {
    fn new(seed: Seed) -> Self {
        let Seed { name, bytes, layout } = seed;
        let spots = spots::of(&bytes, &layout);
        Self { name, bytes, layout, spots }
    }
}

/// The mutant of this number.
pub fn mutant(bases: &[Base], number: u64) -> Mutant<'_> {
    let mut random = Random::new(number);
    let base = &bases[random.below(bases.len())];
    let (name, all) = random.pick(&base.spots);
    let spot = *random.pick(all);
    let mut bytes = base.bytes.clone();
    let (at, width) = change(&mut bytes, base, spot, &mut random);
    let has_checksums = u32(&base.bytes, 1024 + 0x64) & 0x410 != 0;
    let sealed = has_checksums && !number.is_multiple_of(4);
    if sealed {
        seal::seal(&mut bytes, &base.layout);
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let change = format!(
        "{name} of {} at {at:#x} (+{:#x}): {} to {}{}",
        spot.owner,
        at - spot.at,
        hex(&base.bytes[at..at + width]),
        hex(&bytes[at..at + width]),
        if sealed { ", sealed" } else { "" }
    );
    Mutant { base, spot: name, bytes, change }
}

/// Changes a field: a byte becomes another, a bit turns, or a number is wrong as somebody would make it who knows the
/// format. Gives where, and how many bytes.
fn change(bytes: &mut [u8], base: &Base, spot: Spot, random: &mut Random) -> (usize, usize) {
    let kind = random.below(8);
    if kind < 5 {
        let at = spot.at + random.below(spot.length);
        let byte = random.next() as u8;
        bytes[at] = if kind < 3 { byte } else { bytes[at] ^ 1 << (byte & 7) };
        return (at, 1);
    }
    let width = *random.pick(&[2, 4, 4]);
    let at = spot.at + random.below(spot.length / width) * width;
    let piece = Piece { kind: Kind::Data, at: spot.at, length: spot.length, owner: spot.owner };
    let old = u32(bytes, at) & if width == 2 { 0xffff } else { u32::MAX };
    let old = if spot.big_endian { old.swap_bytes() >> (32 - 8 * width) } else { old };
    let new = wrong(old, width, &base.layout, piece, random);
    let new = if spot.big_endian { (new << (32 - 8 * width)).to_be_bytes() } else { new.to_le_bytes() };
    put(bytes, at, &new[..width]);
    (at, width)
}

/// What our check says, and the rules that it finds broken.
pub fn ours(bytes: Vec<u8>) -> Result<(Verdict, Vec<String>)> {
    let settings = Settings { trust_descriptors: true, ..Settings::default() };
    let fs = match Filesystem::open(Device::from_bytes(bytes), settings) {
        Ok(fs) => fs,
        Err(refusal) => {
            let verdict = verdict::damage(refusal).map_or(Verdict::Unreadable, |_| Verdict::Damaged);
            return Ok((verdict, vec![format!("{refusal:?}")]));
        }
    };
    let superblock = fs.superblock();
    let strange = verdict::unknown(superblock.compat.bits(), superblock.ro_compat.bits());
    if !strange.is_empty() {
        return Ok((Verdict::Unreadable, strange));
    }
    let elsewhere = superblock.external_journal;
    let mut check = Check::new(&fs).map_err(|error| format!("{error:?}"))?;
    let mut broken = Vec::new();
    loop {
        let told = match check.advance() {
            Ok(told) => told,
            Err(error) => return Ok((Verdict::Unreadable, vec![format!("{error:?}")])),
        };
        let damage = told.findings.iter().filter(|finding| finding.severity == Severity::Damage);
        broken.extend(damage.map(|finding| format!("{:?} {}", finding.corruption.rule, finding.corruption.place)));
        if told.over {
            let verdict = match told.counts.damage {
                0 if elsewhere => Verdict::Unreadable,
                0 => Verdict::Sound,
                _ => Verdict::Damaged,
            };
            return Ok((verdict, broken));
        }
    }
}
