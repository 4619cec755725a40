//! The way from a kernel to its worker and back, packet by packet.

use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::Result;

/// The longest packet of a worker: an answer of a mebibyte.
pub const LONGEST: usize = (1 << 20) + 4096;

/// Takes requests to a worker, and what it says from it.
pub trait Line: Send {
    /// Hands a request over.
    fn send(&mut self, packet: &[u8]) -> Result;
    /// Waits for the next packet of the worker's.
    fn receive(&mut self) -> Result<Vec<u8>>;
}

/// There is no worker any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the worker is gone")
    }
}

impl std::error::Error for Gone {}

/// A socket that the worker has in the place of /dev/fuse.
pub struct Socket {
    end: OwnedFd,
    room: Vec<u8>,
}

impl Socket {
    /// The kernel's end of it.
    pub fn new(end: OwnedFd) -> Self {
        Self { end, room: vec![0; LONGEST] }
    }
}

impl Line for Socket {
    fn send(&mut self, packet: &[u8]) -> Result {
        send(&self.end, packet, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let (length, _) = recv(&self.end, &mut self.room[..], RecvFlags::empty())?;
        if length == 0 { Err(Gone.into()) } else { Ok(self.room[..length].to_vec()) }
    }
}
