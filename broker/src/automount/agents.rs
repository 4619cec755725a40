//! The agents of desktop users, who are told what happens to their sticks and may answer a question.
//!
//! What holds here: an agent is told of its own user's sticks and of no other's, and answers for those only; who asks, is
//! the kernel's word. None is waited for, and each user has a few.

use crate::exit::{Failure, words};
use lazaret_policy::channel::{Channel, ChannelError};
use lazaret_policy::notice::{Choice, Notice, SOCKET};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, chmodat, flock, open};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// So many agents one user may have, and all together.
const EACH: usize = 4;
const ALL: usize = 256;

/// The socket, and who is connected to it.
pub(super) struct Agents {
    /// Nobody else listens here while it is locked.
    _lock: OwnedFd,
    listener: OwnedFd,
    connected: Vec<Agent>,
}

struct Agent {
    uid: u32,
    channel: Channel,
}

impl Agents {
    /// Opens the socket. There is one daemon at a time.
    pub(super) fn listen() -> Result<Self, Failure> {
        let place = Path::new(SOCKET).parent().unwrap_or(Path::new("/run"));
        let failed = |errno: Errno| Failure::system(words(errno)).about(SOCKET);
        fs::create_dir_all(place).map_err(|error| Failure::system(words(error)).about(place))?;
        let lock = open(place, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => Failure::system("another lazaret automount runs already"),
            errno => failed(errno),
        })?;
        // One that was left by a daemon that was struck.
        let _ = fs::remove_file(SOCKET);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
        bind(&listener, &SocketAddrUnix::new(SOCKET).map_err(failed)?).map_err(failed)?;
        chmodat(CWD, SOCKET, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty()).map_err(failed)?;
        listen(&listener, 16).map_err(failed)?;
        Ok(Self { _lock: lock, listener, connected: vec![] })
    }

    /// What to wait for.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        let all = self.connected.iter().map(|agent| agent.channel.as_fd());
        std::iter::once(self.listener.as_fd()).chain(all).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
    }

    /// Takes who has connected, and gives their uids.
    pub(super) fn admit(&mut self) -> Vec<u32> {
        let mut uids = vec![];
        while let Ok(fd) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            let Ok(credentials) = socket_peercred(&fd) else { continue };
            let uid = credentials.uid.as_raw();
            let own = self.connected.iter().filter(|agent| agent.uid == uid).count();
            if own < EACH && self.connected.len() < ALL {
                self.connected.push(Agent { uid, channel: Channel::over(fd) });
                uids.push(uid);
            }
        }
        uids
    }

    /// What agents have answered, and for which user. Who says anything else is let go.
    pub(super) fn choices(&mut self) -> Vec<(u32, Choice)> {
        let mut choices = vec![];
        self.connected.retain(|agent| {
            loop {
                match agent.channel.receive::<Choice>() {
                    Ok((choice, _)) => choices.push((agent.uid, choice)),
                    Err(ChannelError::System(Errno::AGAIN)) => break true,
                    Err(_) => break false,
                }
                // One that says more than there are questions says nothing.
                if choices.len() > ALL {
                    break false;
                }
            }
        });
        choices
    }

    /// Tells a user's agents. One that does not read misses it; one that is gone is let go when it is listened to.
    pub(super) fn tell(&self, uid: u32, notice: &Notice) {
        for agent in self.connected.iter().filter(|agent| agent.uid == uid) {
            let _ = agent.channel.send(notice, &[]);
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let _ = fs::remove_file(SOCKET);
    }
}
