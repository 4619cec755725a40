//! `lazaret status`: the mounts, and of each worker the proof of its confinement.
//!
//! What holds here: everything is read from the kernel now and nothing was remembered; no mount is asked, so one that
//! does not answer is shown like any other. What this user may not see is said to be so, and counts for nothing.

use super::output::{Output, put_bytes};
use crate::attest::{self, Proof, Stage};
use crate::connection::Connection;
use crate::escape::escaped;
use crate::exit::{Code, Failure, words};
use crate::iomap;
use crate::mountinfo::{self, MountLine};
use crate::options::Strictness;
use crate::quarters::{Namespaces, Quarters};
use crate::served::{self, Pair};
use lazaret_policy::message::Purpose;
use rustix::process::geteuid;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

const STATUS_HELP: &str = "\
A worker is confined if each layer that can be seen from outside holds in full: on a host that lacks one (see lazaret
doctor) the verdict names it. Landlock cannot be seen from outside. Root sees everything, a user the mounts of all and
of his own the processes.

--json prints one object:
  schema      \"lazaret.status/1\"; the number changes when a field goes or means something else
  mounts      [{mountpoint, source, options (text), user (uid it is for), connection (its number in fusectl), waiting
              (requests without an answer, or null), iomap (true where the kernel reads the bytes of files itself), state
              (served, dead, unseen), broker (pid or null), worker (null or as below), confined (true, false, or null
              where it is not to be seen), reason (text or null)}]
  worker      pid, uid, broker_uid, threads, namespaces {NAME: null or {link, own}}, capabilities {CapInh, CapPrm,
              CapEff, CapBnd, CapAmb: hexadecimal}, no_new_privs, seccomp (2: filtered), filters [one number a thread],
              empty_root, fds {NUMBER: where it leads}; null: not readable
Text that is not UTF-8 has its bytes in hexadecimal beside it, as mountpoint_bytes for mountpoint.

Exit codes: 0 no mount, or none that is dead or less than confined; 1 usage, 2 the host lacks or refuses something, 32
else.";

#[derive(clap::Args)]
#[command(after_help = STATUS_HELP)]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One mount, as it is now.
struct Mounted {
    line: MountLine,
    waiting: Option<u64>,
    /// The kernel reads the bytes of files itself.
    iomap: bool,
    pair: Option<Pair>,
    proof: Option<Proof>,
    /// Whether the worker is confined, as far as that is to be seen; else why not.
    verdict: Option<Result<(), String>>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let table = |error| Failure::system(format!("the mount table cannot be read: {}", words(error)));
    let lines = mountinfo::read().map_err(table)?.into_iter().filter(MountLine::is_lazaret);
    let mounts: Vec<Mounted> = lines.map(look).collect();
    let mut output = Output::new();
    if arguments.json {
        let mounts: Vec<Value> = mounts.iter().map(Mounted::object).collect();
        output.object(&json!({ "schema": "lazaret.status/1", "mounts": mounts }))?;
    } else if mounts.is_empty() {
        output.write(b"nothing is mounted by lazaret\n")?;
    } else {
        let texts: Vec<String> = mounts.iter().map(Mounted::text).collect();
        output.write(texts.join("\n").as_bytes())?;
    }
    output.end()?;
    let bad = mounts.iter().any(|one| matches!(one.verdict, Some(Err(_))));
    if bad { Err(Failure::said(Code::Mount as u8)) } else { Ok(()) }
}

fn look(line: MountLine) -> Mounted {
    let waiting = Connection::open(line.device).waiting();
    let pair = served::pair(line.device);
    let proof = pair.and_then(|pair| {
        let stage = Stage::Ready(Purpose::Mount);
        attest::look(pair.worker?, pair.broker, stage, None).ok()
    });
    let verdict = match (&pair, &proof) {
        (_, Some(proof)) => Some(judge(proof)),
        (Some(Pair { worker: None, .. }), _) => Some(Err("its worker has ended".to_owned())),
        (None, None) if geteuid().is_root() => Some(Err("nobody serves it; lazaret umount takes it away".to_owned())),
        _ => None,
    };
    let iomap = iomap::is_used(line.device);
    Mounted { line, waiting, iomap, pair, proof, verdict }
}

/// Whether every layer holds that can be seen from outside. What was planned is not known here, so it is held to all.
fn judge(proof: &Proof) -> Result<(), String> {
    let uid = proof.status.first("Uid").parse().unwrap_or(0);
    if uid == 0 {
        return Err("it runs as root".to_owned());
    }
    let all = Quarters { namespaces: Namespaces::all(), uid, bounding: true, empty_root: true, given_up: vec![] };
    proof.check(&all, Strictness::Strict)
}

impl Mounted {
    fn state(&self) -> &'static str {
        match (&self.proof, &self.verdict) {
            (Some(_), _) => "served",
            (None, Some(_)) => "dead",
            (None, None) => "unseen",
        }
    }

    fn words(&self) -> String {
        match &self.verdict {
            Some(Ok(())) => "confined: every layer that can be seen holds".to_owned(),
            Some(Err(reason)) if self.proof.is_some() => format!("NOT FULLY CONFINED: {}", escaped(reason)),
            Some(Err(reason)) => format!("DEAD: {}", escaped(reason)),
            None => "who serves it is not to be seen by this user".to_owned(),
        }
    }

    fn text(&self) -> String {
        let (source, point) = (OsStr::from_bytes(&self.line.source), self.line.mountpoint.as_os_str());
        let mut text = format!("{} on {}\n", escaped(source), escaped(point));
        let mut row = |name: &str, value: &dyn std::fmt::Display| writeln!(text, "  {name:18}{value}");
        let waiting = self.waiting.map_or("not readable".to_owned(), |count| count.to_string());
        let broker = self.pair.map_or("-".to_owned(), |pair| pair.broker.as_raw_nonzero().to_string());
        let user = self.line.user.map_or("-".to_owned(), |user| user.to_string());
        let options = escaped(OsStr::from_bytes(&self.line.options)).to_string();
        let reader = if self.iomap { "the kernel, by mappings of the worker (iomap)" } else { "the worker" };
        let rows: [(&str, &dyn std::fmt::Display); 6] = [
            ("verdict", &self.words()),
            ("options", &options),
            ("for uid", &user),
            ("files read by", &reader),
            ("requests waiting", &waiting),
            ("broker pid", &broker),
        ];
        // Writing into a text cannot fail.
        let _ = rows.into_iter().try_for_each(|(name, value)| row(name, value));
        if let Some(proof) = &self.proof {
            text.push_str(&proof.to_string());
        }
        text
    }

    fn object(&self) -> Value {
        let mut object = json!({
            "user": self.line.user,
            "connection": self.line.device,
            "waiting": self.waiting,
            "iomap": self.iomap,
            "state": self.state(),
            "broker": self.pair.map(|pair| pair.broker.as_raw_nonzero().get()),
            "worker": self.proof.as_ref().map(Proof::object),
            "confined": self.verdict.as_ref().map(Result::is_ok),
            "reason": self.verdict.as_ref().and_then(|verdict| verdict.as_ref().err()),
        });
        put_bytes(&mut object, "mountpoint", self.line.mountpoint.as_os_str().as_bytes());
        put_bytes(&mut object, "source", &self.line.source);
        put_bytes(&mut object, "options", &self.line.options);
        object
    }
}
