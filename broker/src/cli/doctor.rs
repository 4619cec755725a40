//! `lazaret doctor`: what this host offers, what falls back, what is refused, and what is known against its kernel.
//!
//! What holds here: confinement is not looked up but tried: a worker is started as for a mount, looked at, and ended
//! before it has seen anything. Nothing on the host is changed.

use super::output::Output;
use crate::escape::escaped;
use crate::exit::{Code, Failure, words};
use crate::host::{self, Cgroup, Fuse};
use crate::iomap;
use crate::options::Options;
use crate::quarters::Namespaces;
use crate::signal::Signals;
use crate::vulnerability::{self, State, TABLE};
use crate::worker::Worker;
use lazaret_policy::message::{Layers, Purpose};
use rustix::process::geteuid;
use serde_json::{Map, Value, json};
use std::fmt::Write;

const DOCTOR_HELP: &str = "\
A worker is started as for a mount, looked at and ended. A vulnerability of the kernel's FUSE client is prevented
(a worker cannot reach it), fixed, open (by the kernel's number; a distribution may have mended it under the same), or
unknown (the table does not know this series: ask your distribution).

--json prints one object:
  schema           \"lazaret.doctor/1\"; the number changes when a field goes or means something else
  kernel, uid      the release; who asks
  stands_on        the release of the main line that the kernel stands on, as far as its distribution tells
  mount, tools     whether this user can mount here, and use the commands that do not mount
  fuse             device, fusectl (true, false), mounts_by (text or null), max_pages_limit, default_request_timeout,
                   max_request_timeout (numbers, or null where the kernel has none)
  iomap            offered (whether -o iomap does something here), reason (text: why not, or null)
  confinement      null with a reason, or landlock (ABI, 0 for none), scopes, mdwe, namespaces [names of its own],
                   missing [text: layers that fall back]
  reason           why no worker can be confined here, or null
  settings         user/max_user_namespaces, kernel/unprivileged_userns_clone,
                   kernel/apparmor_restrict_unprivileged_userns (numbers, or null where there is none)
  cgroup           null, or the cgroup v2 tree: place, controllers [names]
  vulnerabilities  [{id, what, state (prevented, fixed, open, unknown), why (text or null)}]

Exit codes: 0 this user can mount here, 1 usage, 2 the host lacks or refuses something that a mount needs.";

const SETTINGS: [&str; 3] =
    ["user/max_user_namespaces", "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns"];

#[derive(clap::Args)]
#[command(after_help = DOCTOR_HELP)]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a worker that was tried has.
struct Tried {
    layers: Layers,
    namespaces: Vec<&'static str>,
    missing: Vec<String>,
}

struct Findings {
    kernel: String,
    stands_on: String,
    fuse: Fuse,
    iomap: Result<(), String>,
    tried: Result<Tried, String>,
    cgroup: Option<Cgroup>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let signals = Signals::block()?;
    let findings = Findings {
        kernel: host::release(),
        stands_on: host::stands_on(),
        fuse: host::fuse(),
        iomap: iomap::available(),
        tried: try_worker(&signals).map_err(|failure| failure.to_string()),
        cgroup: host::cgroup(),
    };
    signals.check()?;
    let mut output = Output::new();
    if arguments.json {
        output.object(&findings.object())?;
    } else {
        output.write(findings.text().as_bytes())?;
    }
    output.end()?;
    if findings.mounts() { Ok(()) } else { Err(Failure::said(Code::System as u8)) }
}

fn try_worker(signals: &Signals) -> Result<Tried, Failure> {
    let options = Options::default();
    let worker = Worker::start(Purpose::Mount, &options, signals)?;
    let proof = worker.proof();
    let own = |name: &&'static str| {
        proof.namespaces.iter().any(|(one, link)| one == name && link.as_ref().is_some_and(|(_, own)| *own))
    };
    Ok(Tried {
        layers: proof.layers.unwrap_or_default(),
        namespaces: Namespaces::NAMES.iter().map(|(_, name)| *name).filter(own).collect(),
        missing: worker.missing(),
    })
}

impl Findings {
    fn tools(&self) -> bool {
        self.tried.is_ok()
    }

    fn mounts(&self) -> bool {
        self.tools() && self.fuse.device.is_ok() && self.fuse.mounts_by.is_some()
    }

    /// Each vulnerability with what the kernel's number says of it.
    fn vulnerabilities(&self) -> impl Iterator<Item = (&'static vulnerability::Vulnerability, State)> {
        let version = vulnerability::version(&self.stands_on);
        TABLE.iter().map(move |one| {
            let unknown = if one.prevented.is_some() { State::Prevented } else { State::Unknown };
            (one, version.map_or(unknown, |version| one.state(version)))
        })
    }

    fn text(&self) -> String {
        let mut rows: Vec<(String, String)> = vec![];
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        let can = |can: bool| if can { "yes" } else { "NO" }.to_owned();
        row("kernel", escaped(&self.kernel).to_string());
        if self.stands_on != self.kernel {
            row("stands on", escaped(&self.stands_on).to_string());
        }
        row("mounts", can(self.mounts()));
        row("tools", format!("{} (info, ls, cat, check)", can(self.tools())));
        let device = self.fuse.device.map_or_else(words, |()| "can be opened".to_owned());
        row("/dev/fuse", device);
        row("mounted by", self.fuse.mounts_by.unwrap_or("nobody: fusermount3, or root, is missing").to_owned());
        let watch = match (self.fuse.fusectl, geteuid().is_root()) {
            (true, _) => "mounted",
            (false, true) => "not mounted; the broker, as root, looks at it all the same",
            (false, false) => {
                "NOT MOUNTED: a silent worker is not noticed (mount -t fusectl none /sys/fs/fuse/connections)"
            }
        };
        row("fusectl", watch.to_owned());
        let number = |value: Option<u64>| value.map_or("this kernel has none".to_owned(), |value| value.to_string());
        row("max_pages_limit", number(self.fuse.max_pages_limit));
        row("request timeout", number(self.fuse.default_request_timeout));
        let iomap = self.iomap.as_ref().map_or_else(|why| format!("falls back: {why}"), |()| "offered".to_owned());
        row("iomap", iomap);
        match &self.tried {
            Err(reason) => row("confinement", format!("REFUSED: {reason}")),
            Ok(tried) => {
                row("Landlock", format!("ABI {}", tried.layers.landlock));
                row("namespaces", tried.namespaces.join(" "));
                let missing = if tried.missing.is_empty() { "nothing".to_owned() } else { tried.missing.join(", ") };
                row("falls back", missing);
            }
        }
        for name in SETTINGS {
            if let Some(value) = host::setting(name) {
                row(name.rsplit('/').next().unwrap_or(name), value.to_string());
            }
        }
        row("cgroup v2", self.cgroup.as_ref().map_or("not mounted".to_owned(), cgroup_words));
        for (at, (one, state)) in self.vulnerabilities().enumerate() {
            let why = one.prevented.map_or(String::new(), |why| format!(": {why}"));
            let name = if at == 0 { "vulnerabilities" } else { "" };
            row(name, format!("{:<9} {:<15} {}{why}", state.word(), one.id, one.what));
        }
        rows.into_iter().fold(String::new(), |mut text, (name, value)| {
            // Writing into a text cannot fail.
            let _ = writeln!(text, "{name:40}{value}");
            text
        })
    }

    fn object(&self) -> Value {
        let confinement = self.tried.as_ref().ok().map(|tried| {
            let Layers { landlock, scopes, mdwe, .. } = tried.layers;
            let (namespaces, missing) = (&tried.namespaces, &tried.missing);
            json!({ "landlock": landlock, "scopes": scopes, "mdwe": mdwe, "namespaces": namespaces, "missing": missing })
        });
        let vulnerabilities: Vec<Value> = self
            .vulnerabilities()
            .map(|(one, state)| json!({ "id": one.id, "what": one.what, "state": state.word(), "why": one.prevented }))
            .collect();
        let settings: Map<_, _> =
            SETTINGS.map(|name| (name.to_owned(), json!(host::setting(name)))).into_iter().collect();
        let cgroup = self.cgroup.as_ref();
        json!({
            "schema": "lazaret.doctor/1",
            "kernel": self.kernel,
            "stands_on": self.stands_on,
            "uid": geteuid().as_raw(),
            "mount": self.mounts(),
            "tools": self.tools(),
            "fuse": {
                "device": self.fuse.device.is_ok(),
                "mounts_by": self.fuse.mounts_by,
                "fusectl": self.fuse.fusectl,
                "max_pages_limit": self.fuse.max_pages_limit,
                "default_request_timeout": self.fuse.default_request_timeout,
                "max_request_timeout": self.fuse.max_request_timeout,
            },
            "iomap": { "offered": self.iomap.is_ok(), "reason": self.iomap.as_ref().err() },
            "confinement": confinement,
            "reason": self.tried.as_ref().err(),
            "settings": settings,
            "cgroup": cgroup.map(|one| json!({ "place": one.place.to_string_lossy(), "controllers": one.controllers })),
            "vulnerabilities": vulnerabilities,
        })
    }
}

fn cgroup_words(cgroup: &Cgroup) -> String {
    let missing: Vec<&str> = ["memory", "pids", "cpu"]
        .into_iter()
        .filter(|name| !cgroup.controllers.iter().any(|one| one == name))
        .collect();
    let place = escaped(&cgroup.place).to_string();
    if missing.is_empty() { place } else { format!("{place}, without {}", missing.join(", ")) }
}
