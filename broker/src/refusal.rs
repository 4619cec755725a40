//! What a worker's refusal means, in words and as an exit code.
//!
//! What holds here: a refusal is numbers, so a lying worker chooses among sentences of ours and writes none.

use crate::exit::{Failure, words};
use lazaret_policy::feature::Incompat;
use lazaret_policy::message::{Refusal, Step};
use rustix::io::Errno;

/// The failure that this refusal is.
pub(crate) fn failure(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::NotExt => Failure::mount("is not an ext2, ext3 or ext4 file system"),
        Refusal::TooShort { length, needed } => {
            Failure::mount(format!("is cut short: it has {length} bytes, its file system needs {needed}"))
        }
        Refusal::Incompat(bits) => features(&Incompat::from_bits_retain(bits).names()),
        Refusal::JournalDevice => Failure::mount("is the journal of another file system, and no file system itself"),
        Refusal::ExternalJournal => Failure::mount(
            "was not unmounted, and its journal, which lies on another device, is not read by this version",
        ),
        Refusal::SuperblockLost { broken, copies } => {
            let broken = broken.map_or("it is not there".to_owned(), |broken| format!("broken rule: {}", broken.rule));
            let copies: Vec<_> = copies.iter().filter(|&&copy| copy > 0).map(|copy| format!("sb={copy}")).collect();
            let copies = copies.join(", ");
            Failure::mount(format!("has no usable superblock ({broken}); a copy can be taken by an option: {copies}"))
        }
        Refusal::Corrupt(corruption) => {
            Failure::mount(format!("is damaged: {}: broken rule: {}", corruption.place, corruption.rule))
        }
        Refusal::Checksum(corruption) => {
            Failure::mount(format!("is damaged: {}: wrong checksum: {}", corruption.place, corruption.rule))
        }
        Refusal::Device { offset } => Failure::mount(format!("cannot be read at byte {offset}")),
        Refusal::OutOfMemory => Failure::mount("needs more memory than it is granted; see the option memory="),
        Refusal::Setup { step, errno } => {
            let reason = if errno == 0 { "refused".to_owned() } else { words(Errno::from_raw_os_error(errno)) };
            Failure::system(format!("the worker cannot confine itself or start: {}: {reason}", step_words(step)))
        }
    }
}

fn features(names: &[String]) -> Failure {
    let noun = if names.len() == 1 { "a feature" } else { "features" };
    Failure::mount(format!("uses {noun} that this version does not read: {}", names.join(", ")))
}

fn step_words(step: Step) -> &'static str {
    match step {
        Step::Limits => "resource limits",
        Step::Capabilities => "dropping capabilities",
        Step::NoNewPrivs => "no_new_privs",
        Step::Landlock => "Landlock",
        Step::Seccomp => "seccomp",
        Step::Init => "answering FUSE_INIT",
        Step::Map => "mapping the device",
        Step::Threads => "starting threads",
        Step::Protocol => "an unexpected message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_policy::corruption::{Corruption, Place, Rule};

    #[test]
    fn a_refusal_names_the_reason() {
        let said = |refusal| failure(refusal).to_string();
        assert_eq!(said(Refusal::NotExt), "is not an ext2, ext3 or ext4 file system");
        assert_eq!(
            said(Refusal::TooShort { length: 10, needed: 20 }),
            "is cut short: it has 10 bytes, its file system needs 20"
        );
        assert_eq!(
            said(Refusal::Incompat(0x18000)),
            "uses features that this version does not read: inline_data, encrypt"
        );
        assert!(said(Refusal::ExternalJournal).contains("on another device"));
        assert!(said(Refusal::JournalDevice).contains("the journal of another file system"));
        let lost = said(Refusal::SuperblockLost { broken: None, copies: [32768, 98304, 0] });
        assert_eq!(
            lost,
            "has no usable superblock (it is not there); a copy can be taken by an option: sb=32768, sb=98304"
        );
        let corruption = Corruption { rule: Rule::ALL[0], place: Place::GroupDescriptor(7) };
        assert!(said(Refusal::Corrupt(corruption)).contains("descriptor of group 7"));
        assert!(
            said(Refusal::Setup { step: Step::Map, errno: 12 }).ends_with("mapping the device: cannot allocate memory")
        );
    }
}
