//! The numbers of the protocol, version 7, and its packets as bytes.
#![expect(missing_docs, reason = "the kernel's names say what they are")]

/// Requests.
pub const LOOKUP: u32 = 1;
pub const FORGET: u32 = 2;
pub const OPEN: u32 = 14;
pub const READ: u32 = 15;
pub const RELEASE: u32 = 18;
pub const FLUSH: u32 = 25;
pub const INIT: u32 = 26;
pub const INTERRUPT: u32 = 36;
pub const DESTROY: u32 = 38;
pub const BATCH_FORGET: u32 = 42;
pub const READDIRPLUS: u32 = 44;
pub const LSEEK: u32 = 46;
pub const SYNCFS: u32 = 50;
pub const FREEZE: u32 = 4089;
pub const UNFREEZE: u32 = 4090;
pub const SHUTDOWN: u32 = 4091;
pub const CONFIG: u32 = 4092;
pub const IOEND: u32 = 4093;
pub const BEGIN: u32 = 4094;
pub const END: u32 = 4095;

/// Notifications.
pub const DEV_INVAL: i32 = 99;
pub const UPSERT: i32 = 100;
pub const INVAL: i32 = 101;

/// What a mapping is.
pub const HOLE: u16 = 0;
pub const DELALLOC: u16 = 1;
pub const MAPPED: u16 = 2;
pub const UNWRITTEN: u16 = 3;
pub const INLINE: u16 = 4;
pub const NOCACHE: u16 = 253;
pub const RETRY_CACHE: u16 = 254;
pub const PURE_OVERWRITE: u16 = 255;
/// No place on a device.
pub const NULL_ADDR: u64 = u64::MAX;
/// A range to the end of the file.
pub const TO_EOF: u64 = u64::MAX;

/// What a mapping is asked for.
pub const OP_WRITE: u32 = 1;
pub const OP_ZERO: u32 = 2;
pub const OP_REPORT: u32 = 4;
pub const OP_FAULT: u32 = 8;
pub const OP_DIRECT: u32 = 0x10;
pub const OP_NOWAIT: u32 = 0x20;
pub const OP_UNSHARE: u32 = 0x80;
pub const OP_ATOMIC: u32 = 0x200;
pub const OP_SWAPFILE: u32 = 0x4000_0000;
pub const OP_WRITEBACK: u32 = 0x8000_0000;

/// Flags of attributes.
pub const ATTR_EXCLUSIVE: u32 = 4;
pub const ATTR_IOMAP: u32 = 8;

/// Of the answer to OPEN.
pub const FOPEN_DIRECT_IO: u32 = 1;
pub const FOPEN_KEEP_CACHE: u32 = 2;
pub const FOPEN_NONSEEKABLE: u32 = 4;
pub const FOPEN_STREAM: u32 = 16;
pub const FOPEN_PASSTHROUGH: u32 = 128;

/// Bytes before a request and before an answer.
pub const IN_HEADER: usize = 40;
pub const OUT_HEADER: usize = 16;

/// Numbers in order, as bytes.
pub fn bytes(words: &[(u64, usize)]) -> Vec<u8> {
    words.iter().flat_map(|(word, length)| word.to_ne_bytes().into_iter().take(*length)).collect()
}

/// A number of up to eight bytes. What is not there is nothing.
pub fn number(from: &[u8], at: usize, length: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(bytes) = from.get(at..at + length) {
        word[..length].copy_from_slice(bytes);
    }
    u64::from_ne_bytes(word)
}

/// A request.
pub fn request(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    let length = (IN_HEADER + body.len()) as u64;
    let header = [(length, 4), (opcode.into(), 4), (unique, 8), (node, 8), (0, 4), (0, 4), (1, 4), (0, 2), (0, 2)];
    [bytes(&header), body.to_vec()].concat()
}

/// A piece of a file as the worker tells it: `struct fuse_iomap_io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// Byte of the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Byte of the device.
    pub addr: u64,
    /// What it is.
    pub kind: u16,
    /// More about it.
    pub flags: u16,
    /// Which device.
    pub dev: u32,
}

impl Io {
    /// Its length on the wire.
    pub const LENGTH: usize = 32;

    /// From bytes that are long enough.
    pub fn at(from: &[u8], at: usize) -> Self {
        Self {
            offset: number(from, at, 8),
            length: number(from, at + 8, 8),
            addr: number(from, at + 16, 8),
            kind: number(from, at + 24, 2) as u16,
            flags: number(from, at + 26, 2) as u16,
            dev: number(from, at + 28, 4) as u32,
        }
    }

    /// Where it ends in the file.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether it lies on a device.
    pub fn has_space(&self) -> bool {
        matches!(self.kind, MAPPED | UNWRITTEN)
    }
}
