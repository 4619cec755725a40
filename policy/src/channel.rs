//! The channel between broker and worker: one SOCK_SEQPACKET packet is one message and its fds.
//!
//! This is the one parser that runs with privilege. What holds here: a packet longer than the message's maximum, a
//! byte left over, an fd too many or too few is an error and never repaired; a message without fds is received
//! without room for any.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing, clippy::unwrap_used)
)]

use crate::message::{Answer, Message};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// One end of the channel.
#[derive(Debug)]
pub struct Channel {
    end: End,
}

#[derive(Debug)]
enum End {
    Owned(OwnedFd),
    Inherited(BorrowedFd<'static>),
}

/// Why a message did not come through.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("the other process has ended")]
    Closed,
    /// Nothing came in the time given.
    #[error("no answer in time")]
    Late,
    /// The packet is not one message: too long, left-over bytes, or not decodable.
    #[error("malformed message")]
    Malformed,
    /// More or fewer fds than the message brings.
    #[error("a message came with a wrong number of file descriptors")]
    Fds,
    /// The system's error.
    #[error("channel: {0}")]
    System(#[from] Errno),
}

impl Channel {
    /// The broker's end, and the worker's as a plain fd to hand over. The broker's end takes no fds.
    pub fn pair() -> Result<(Channel, OwnedFd), ChannelError> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        crate::limits::refuse_fds(ours.as_fd());
        // A packet that is longer than the buffer cannot be sent at all; a second one fits beside it where the host lets it.
        for end in [&ours, &theirs] {
            set_socket_send_buffer_size(end, 2 * Answer::MAX)?;
        }
        Ok((Channel { end: End::Owned(ours) }, theirs))
    }

    /// The end that this process was started with, as its standard input ([`crate::CHANNEL_FD`]).
    pub fn inherited() -> Channel {
        Channel { end: End::Inherited(rustix::stdio::stdin()) }
    }

    /// An end that was connected or accepted elsewhere. It takes no fds.
    pub fn over(end: OwnedFd) -> Channel {
        crate::limits::refuse_fds(end.as_fd());
        Channel { end: End::Owned(end) }
    }

    /// Sends one message with its fds.
    pub fn send<M: Message>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if fds.len() != message.fds() {
            return Err(ChannelError::Fds);
        }
        // With the room for the longest, so that a long one is not copied as it grows.
        let room = Vec::with_capacity(M::MAX);
        let bytes = postcard::to_extend(message, room).map_err(|_| ChannelError::Malformed)?;
        if bytes.len() > M::MAX {
            return Err(ChannelError::Malformed);
        }
        let sent = if fds.is_empty() {
            send(self, &bytes, SendFlags::NOSIGNAL)
        } else {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(ChannelError::Fds);
            }
            sendmsg(self, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        };
        match sent {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(ChannelError::Malformed),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(ChannelError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for one message.
    pub fn receive<M: Message>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        // One byte more than allowed, so that a packet that is too long shows as such.
        let room = M::MAX.saturating_add(1);
        let mut fds = Vec::new();
        let packet = if M::FDS == 0 { self.receive_bytes(room)? } else { self.receive_fds(room, &mut fds)? };
        if packet.is_empty() {
            return Err(ChannelError::Closed);
        }
        if packet.len() > M::MAX {
            return Err(ChannelError::Malformed);
        }
        let (message, rest) = M::decode(&packet).map_err(|_| ChannelError::Malformed)?;
        if !rest.is_empty() && !crate::planted("left over") {
            return Err(ChannelError::Malformed);
        }
        if fds.len() != message.fds() {
            return Err(ChannelError::Fds);
        }
        Ok((message, fds))
    }

    /// Waits for one message, but not longer than this.
    pub fn receive_within<M: Message>(&self, time: Duration) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let timeout = Timespec::try_from(time).map_err(|_| ChannelError::Late)?;
        let mut watched = [PollFd::new(self, PollFlags::IN)];
        match poll(&mut watched, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Err(ChannelError::Late),
            Ok(_) => self.receive(),
            Err(errno) => Err(errno.into()),
        }
    }

    fn receive_bytes(&self, room: usize) -> Result<Vec<u8>, ChannelError> {
        let mut bytes = Vec::with_capacity(room);
        match rustix::io::retry_on_intr(|| recv(self, spare_capacity(&mut bytes), RecvFlags::empty())) {
            Ok(_) => Ok(bytes),
            Err(Errno::CONNRESET) => Err(ChannelError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    fn receive_fds(&self, room: usize, fds: &mut Vec<OwnedFd>) -> Result<Vec<u8>, ChannelError> {
        let mut bytes = vec![0; room];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(self, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        {
            Ok(received) => received,
            Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(errno.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::Fds);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::Malformed);
        }
        bytes.truncate(received.bytes);
        Ok(bytes)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.end {
            End::Owned(fd) => fd.as_fd(),
            End::Inherited(fd) => *fd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Ask, Order, Range, Report};

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel { end: End::Owned(theirs) })
    }

    const DEVICE: Order = Order::Device { range: Range { offset: 0, length: u64::MAX }, iomap: Some(1) };

    #[test]
    fn a_message_arrives_with_its_fd() {
        let (broker, worker) = pair();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        broker.send(&DEVICE, &[zero.as_fd()]).unwrap();
        let (order, fds) = worker.receive::<Order>().unwrap();
        assert_eq!(order, DEVICE);
        assert_eq!(fds.len(), 1);
    }

    #[test]
    fn the_number_of_fds_is_exact() {
        let (broker, worker) = pair();
        assert!(matches!(broker.send(&DEVICE, &[]), Err(ChannelError::Fds)));
        let bytes = postcard::to_allocvec(&DEVICE).unwrap();
        send(&broker, &bytes, SendFlags::NOSIGNAL).unwrap();
        assert!(matches!(worker.receive::<Order>(), Err(ChannelError::Fds)));
    }

    #[test]
    fn a_byte_too_many_is_an_error() {
        let (broker, worker) = pair();
        let mut bytes = postcard::to_allocvec(&Report::Initialized { iomap: false }).unwrap();
        bytes.push(0);
        send(&worker, &bytes, SendFlags::NOSIGNAL).unwrap();
        assert!(matches!(broker.receive::<Report>(), Err(ChannelError::Malformed)));
    }

    #[test]
    fn a_packet_over_the_maximum_is_an_error() {
        let (broker, worker) = pair();
        send(&worker, &[0; Report::MAX + 1], SendFlags::NOSIGNAL).unwrap();
        assert!(matches!(broker.receive::<Report>(), Err(ChannelError::Malformed)));
        send(&worker, &[0xff; 2000], SendFlags::NOSIGNAL).unwrap();
        assert!(matches!(broker.receive::<Report>(), Err(ChannelError::Malformed)));
    }

    #[test]
    fn a_worker_cannot_push_an_fd_onto_the_broker() {
        let (broker, worker) = pair();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        let bytes = postcard::to_allocvec(&Report::Initialized { iomap: false }).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [zero.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let before = open_fds();
        // Refused by the kernel where it knows SO_PASSRIGHTS, dropped by it at the latest on receipt.
        if sendmsg(&worker, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL).is_ok() {
            let (_, fds) = broker.receive::<Report>().unwrap();
            assert!(fds.is_empty());
        }
        assert_eq!(open_fds(), before);
    }

    fn open_fds() -> usize {
        // Other tests open fds of their own; those to /dev/zero are ours.
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.ends_with("zero"))
            .count()
    }

    #[test]
    fn an_end_that_is_gone_and_one_that_is_silent_are_told_apart() {
        let (broker, worker) = pair();
        assert!(matches!(broker.receive_within::<Report>(Duration::from_millis(10)), Err(ChannelError::Late)));
        drop(worker);
        assert!(matches!(broker.receive_within::<Report>(Duration::from_secs(1)), Err(ChannelError::Closed)));
        assert!(matches!(broker.send(&Ask::Inode(2), &[]), Err(ChannelError::Closed)));
    }
}
