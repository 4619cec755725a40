//! The daemon's side of the agent: notices come in, choices go out.
//!
//! What holds here: only root is listened to. When the daemon goes, its successor is looked for.

use lazaret_policy::channel::Channel;
use lazaret_policy::notice::{Choice, Notice, SOCKET};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// How long to wait before a daemon is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the two sides of the agent share.
#[derive(Default)]
struct Shared {
    /// Where choices go.
    channel: Mutex<Option<Arc<Channel>>>,
    /// Who waits for a notice.
    waker: Mutex<Option<Waker>>,
}

/// The daemon, or the next one.
pub(crate) struct Daemon {
    shared: Arc<Shared>,
    notices: Receiver<Notice>,
}

impl Daemon {
    /// Listens from now on, in a thread of its own.
    pub(crate) fn listen() -> Self {
        let shared = Arc::<Shared>::default();
        let (sender, notices) = channel();
        let own = shared.clone();
        std::thread::spawn(move || {
            loop {
                if let Ok(channel) = connected() {
                    let channel = Arc::new(channel);
                    *own.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
                    hear(&channel, &own, &sender);
                    *own.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { shared, notices }
    }

    /// A notice that has come; until then whoever this wakes is to ask again.
    pub(crate) fn notice(&self, waker: &Waker) -> Option<Notice> {
        // First, so that none comes between the look and the wait.
        *self.shared.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        self.notices.try_recv().ok()
    }

    /// Sends a choice. A daemon that is gone has forgotten the question.
    pub(crate) fn choose(&self, choice: Choice) {
        let channel = self.shared.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = channel {
            let _ = channel.send(&choice, &[]);
        }
    }
}

fn hear(channel: &Channel, shared: &Shared, notices: &Sender<Notice>) {
    while let Ok((notice, _)) = channel.receive::<Notice>() {
        if notices.send(notice).is_err() {
            return;
        }
        if let Some(waker) = shared.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

/// A connection to a daemon that is root's.
fn connected() -> Result<Channel, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    if !socket_peercred(&socket)?.uid.is_root() {
        return Err(Errno::PERM);
    }
    Ok(Channel::over(socket))
}
