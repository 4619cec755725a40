//! What a kernel with fuse-iomap asks: raw packets to the one that answers where bytes lie, on an image that is sound or
//! changed.
//!
//! An input is an image, its flags, how many changes it has, and these; then what the kernel keeps of a file, and packets
//! of one length. What is told is held to the kernel's own rules, and its first byte to what reading gives.

use std::io::IoSlice;

use lazaret_worker::ext4::{Filesystem, InodeNumber};
use lazaret_worker::fuse::Mapper;

use super::image::{CHANGE, Recipe};
use super::scratch::Scratch;
use super::window::settings;
use crate::double::rules::{self, Half, Limits};
use crate::double::wire::{self, Io, bytes, number};
use crate::mutate::random::Random;

const MOST_PACKETS: usize = 16;
/// The fields of a packet that the kernel does not fix: operation, node, what for, inode, position, count.
const PACKET: usize = 40;
const DEVICE: u32 = 7;
/// A file that has as much as this is told of thousands of mappings.
const KEPT: [u32; 4] = [256, 4096, 65536, 256 << 10];

/// Asks what an input asks, and looks at each answer.
pub fn run(input: &[u8]) {
    let (recipe, kept, packets) = split(input);
    Scratch::of(recipe.sound()).with(
        |changes| recipe.apply(changes),
        |scratch| {
            let Ok(fs) = Filesystem::open(scratch.device(), settings(recipe.flags)) else { return };
            let limits = Limits {
                block_size: fs.superblock().block_size.bytes().min(4096).into(),
                most_bytes: i64::MAX as u64,
                device: DEVICE,
                device_bytes: fs.device().len(),
            };
            let mapper = Mapper::alone(fs, DEVICE, kept);
            for (unique, packet) in (1..).zip(packets) {
                ask(&mapper, &packet, unique, kept, &limits);
            }
        },
    );
}

fn ask(mapper: &Mapper, fields: &[u8], unique: u64, kept: u32, limits: &Limits) {
    let (operation, node) = (number(fields, 0, 4) as u32, number(fields, 4, 4));
    let body = match operation {
        wire::BEGIN => [&fields[8..12], &[0; 4], &fields[16..40]].concat(),
        wire::END => [&fields[8..40], &[0; 40]].concat(),
        _ => fields[8..].to_vec(),
    };
    let (mut caches, mut told, mut answers) = (false, 0, 0);
    let ours = mapper.take(&wire::request(operation, unique, node, &body), &mut |packet: &[IoSlice<'_>]| {
        let packet: Vec<u8> = packet.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert_eq!(number(&packet, 0, 4) as usize, packet.len());
        let (error, of) = (number(&packet, 4, 4) as i32, number(&packet, 8, 8));
        let body = &packet[wire::OUT_HEADER..];
        match (of, error) {
            (0, wire::UPSERT) => {
                assert_eq!((body.len(), number(body, 0, 8), number(body, 8, 8)), (80, node, node));
                let (read, write) = (Io::at(body, 16), Io::at(body, 48));
                rules::upsert(&read, Half::Read, caches, limits).expect("a rule of the kernel");
                rules::upsert(&write, Half::Write, caches, limits).expect("a rule of the kernel");
                (caches, told) = (true, told + 1);
                // Now and then the kernel takes no more.
                return !unique.is_multiple_of(4) || told < 3;
            }
            (0, wire::INVAL) => assert_eq!(body.len(), 48),
            (of, 0) => {
                (answers, _) = (answers + 1, assert_eq!(of, unique));
                if operation == wire::BEGIN {
                    let (read, write) = (Io::at(body, 0), Io::at(body, 32));
                    let pos = number(fields, 24, 8);
                    rules::answer(&read, &write, pos, caches, limits).expect("a rule of the kernel");
                    first_byte(mapper.filesystem(), node as u32, &read, pos);
                }
            }
            (of, error) => {
                assert!(of == unique && (-511..0).contains(&error) && body.is_empty(), "{of} {error}");
                answers += 1;
            }
        }
        true
    });
    assert_eq!((ours, answers), (true, 1), "each request has one answer");
    assert!(told <= (kept / 32).max(1), "{told} mappings told where {kept} bytes are kept");
}

/// The byte that was asked for is the same by the mapping and by reading.
fn first_byte(fs: &Filesystem, node: u32, read: &Io, pos: u64) {
    let inode = InodeNumber::new(node).and_then(|number| fs.inode(number).ok()).expect("an inode that has mappings");
    let (mut by_mapping, mut by_reading) = ([0], [0]);
    if pos >= inode.size || read.kind == wire::INLINE {
        return;
    }
    if read.kind == wire::MAPPED && fs.device().read_at(read.addr + (pos - read.offset), &mut by_mapping).is_err() {
        return;
    }
    if fs.read(&inode, pos, &mut by_reading).is_ok() {
        assert_eq!(by_mapping, by_reading, "byte {pos} of inode {node}: {read:?}");
    }
}

fn split(input: &[u8]) -> (Recipe, u32, Vec<Vec<u8>>) {
    let (recipe, bits, packets) = Recipe::split(input);
    let packets = packets.chunks_exact(PACKET).take(MOST_PACKETS).map(as_ours).collect();
    (recipe, KEPT[usize::from(bits >> 6)], packets)
}

/// A packet that is none of fuser's.
fn as_ours(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let operation = number(&packet, 0, 4) as u32;
    let ours = (wire::FREEZE..=wire::END).contains(&operation);
    let operation = if ours { operation } else { wire::FREEZE + operation % 7 };
    packet[..4].copy_from_slice(&operation.to_ne_bytes());
    packet
}

fn join(recipe: &Recipe, kept: u8, packets: &[Vec<u8>]) -> Vec<u8> {
    recipe.join(kept << 6, &packets.concat())
}

/// Changes an input: the image, or a packet of the sequence.
pub fn mutate(input: &[u8], most: usize, random: &mut Random) -> Vec<u8> {
    let (mut recipe, _, mut packets) = split(input);
    recipe.changes.truncate(Recipe::LEADING);
    match random.below(6) {
        0 | 1 => {
            let changed = super::mutator::recipe(&recipe.encode(), 2 + Recipe::LEADING * CHANGE, random);
            recipe = Recipe::decode(&changed);
        }
        2 | 3 if !packets.is_empty() => {
            let which = random.below(packets.len());
            let (packet, at) = (&mut packets[which], random.below(PACKET));
            packet[at] = *random.pick(&[0, 1, 4, 0x10, 0x7f, 0x80, 0xff]);
        }
        4 if packets.len() > 1 => drop(packets.remove(random.below(packets.len()))),
        _ => packets.insert(random.below(packets.len() + 1), fresh(random)),
    }
    let whole = join(&recipe, random.below(4) as u8, &packets);
    if whole.len() > most { input.to_vec() } else { whole }
}

/// A request that is well made, most often for a mapping.
fn fresh(random: &mut Random) -> Vec<u8> {
    let operation = if random.below(8) > 0 { wire::BEGIN } else { wire::FREEZE + random.below(7) as u32 };
    let node = *random.pick(&[11_u64, 12, 13, 14, 15, 16, 17, 18, 2, 8]);
    let what =
        *random.pick(&[0, 0, 0, wire::OP_REPORT, wire::OP_DIRECT, wire::OP_FAULT, wire::OP_WRITE, wire::OP_ZERO]);
    let pos = *random.pick(&[0, 0, 1, 1024, 4096, 9000, 12 << 12, 1 << 20, 1 << 32, i64::MAX as u64 - 4095]);
    let count = *random.pick(&[1, 4096, 1 << 17, i64::MAX as u64, u64::MAX]);
    bytes(&[(operation.into(), 4), (node, 4), (what.into(), 4), (0, 4), (node, 8), (pos, 8), (count, 8)])
}

/// First inputs: a sequence of requests on each of a few images.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(7);
    let seed = |image: u8| {
        let packets: Vec<_> = (0..12).map(|_| fresh(&mut random)).collect();
        join(&Recipe { image, flags: 1, changes: Vec::new() }, image % 4, &packets)
    };
    (0..24).map(seed).collect()
}
