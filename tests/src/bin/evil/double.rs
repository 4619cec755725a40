//! A broker that hands over before it has looked: what a test of the order must tell from the shipped one.

use std::process::{Command, Stdio};

use lazaret_policy::channel::Channel;
use lazaret_policy::exit;
use lazaret_policy::message::{Checksum, Order, Purpose, Report, Special, Start, Verity, Xattrs};
use lazaret_worker::memory;

/// Starts the worker beside this program, believes it, and prints what it says then.
pub(crate) fn main() -> ! {
    let Ok((channel, theirs)) = Channel::pair() else { memory::end(exit::CHANNEL) };
    let own = std::env::current_exe().unwrap_or_default();
    let mut worker = Command::new(own.with_file_name("lazaret-worker"));
    let Ok(mut child) = worker.stdin(Stdio::from(theirs)).env_clear().spawn() else { memory::end(exit::CHANNEL) };
    let start = Start {
        purpose: Purpose::Tool,
        checksum: Checksum::Strict,
        trust_descriptors: false,
        verity: Verity::Ignore,
        superblock: None,
        special: Special::Show,
        xattrs: Xattrs::User,
        uid: None,
        gid: None,
        umask: 0,
        open_without_asking: false,
        request_timeout: 0,
        iomap: false,
        threads: 1,
        memory: 1 << 20,
    };
    let mut last = None;
    if matches!(channel.receive::<Report>(), Ok((Report::Confined(_), _)))
        && channel.send(&Order::Start(start), &[]).is_ok()
    {
        last = channel.receive::<Report>().ok();
    }
    if let Some((Report::Panicked { line, column }, _)) = last {
        let said =
            format!("lazaret: the worker met a bug of its own (line {line}, column {column}); please report it\n");
        // Not by std, whose `write` ends a worker.
        let _ = rustix::io::write(rustix::stdio::stderr(), said.as_bytes());
    }
    drop(channel);
    let _ = child.wait();
    memory::end(32)
}
