//! `lazaret automount`: the daemon's command line, and the check of a policy before it counts.

use crate::automount;
use crate::automount::policy::{PLACE, Policy};
use crate::escape::escaped;
use crate::exit::{Failure, words};
use rustix::process::geteuid;
use std::io::Write;
use std::path::{Path, PathBuf};

const AUTOMOUNT_HELP: &str = "\
For each ext2, ext3 or ext4 file system that udev finds, the policy, lazaret.toml(5), says whether it is mounted, for whom
and where: unless told otherwise for who sits at this machine, at /run/media/USER/LABEL. A stick that is pulled out has
its mount ended: who reads from it gets an error. One that the worker refuses is mounted by nothing else.

The daemon can be ended and started at any moment: mounts stay, and are found again. What is mounted by hand is left
alone, and so is what was unmounted by hand, until it is plugged in again or formatted. What the policy has left alone or
the worker has refused is decided anew when somebody has written to it: relabelled, formatted or repaired it. It is for
machines without udisks2.

Signals: SIGHUP reads the policy again, and keeps the one before if it is bad; SIGTERM ends the daemon. It tells systemd
when it is ready, writes to the journal with the fields LAZARET_EVENT (mounted, refused, unplugged, ended, asked,
ignored, waiting, found, reloaded, not-reloaded), LAZARET_DEVICE, LAZARET_LABEL, LAZARET_UUID, LAZARET_UID,
LAZARET_PLACE and LAZARET_REASON, else to stderr, and tells the desktop through lazaret agent(1).

Exit codes: 0 ended by a signal, or a good policy; 1 a bad policy or usage, 2 the host lacks or refuses something, 32 with
--only: it was refused.";

#[derive(clap::Args)]
#[command(after_help = AUTOMOUNT_HELP)]
pub(super) struct Arguments {
    /// The policy
    #[arg(long, value_name = "FILE", default_value = PLACE)]
    policy: PathBuf,
    /// Tell whether a policy is good, and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "only"])]
    check_policy: Option<PathBuf>,
    /// Mount this one device, as the policy says, until it is pulled out or a signal comes, which unmounts it
    #[arg(long, value_name = "DEVICE")]
    only: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(path) = &arguments.check_policy {
        let rules = Policy::read(path)?.count();
        let line = format!("{}: good, {rules} rules\n", escaped(path));
        let shown = std::io::stdout().write_all(line.as_bytes());
        return shown.map_err(|error| Failure::system(format!("stdout: {}", words(error))));
    }
    if !geteuid().is_root() {
        return Err(Failure::system("automount needs root"));
    }
    let only = arguments.only.as_deref().map(name_of).transpose()?;
    automount::run(&arguments.policy, only)
}

/// The kernel's name of a device.
fn name_of(path: &Path) -> Result<String, Failure> {
    let whole = path.canonicalize().map_err(|error| Failure::mount(words(error)).about(path))?;
    let name = whole.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let name = name.filter(|name| Path::new("/sys/class/block").join(name).exists());
    name.ok_or_else(|| Failure::mount("is not a block device").about(path))
}
