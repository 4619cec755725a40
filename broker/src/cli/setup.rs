//! `lazaret setup desktop`: from now on a click on removable media goes through Lazaret; `--undo` takes that back.
//!
//! What holds here: it is one file of ours in /etc/udev/rules.d, and nobody else's is touched. The rules are those that the
//! package has under dist/setup.

use crate::escape::escaped;
use crate::exit::{Failure, say, words};
use rustix::process::geteuid;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Behind the rules that say what a medium is (60), before those of udisks2 (80).
const PLACE: &str = "/etc/udev/rules.d/75-lazaret.rules";
/// For udisks2 that knows drivers, from `DRIVERS` on, and for an older one.
const DESKTOP: &str = include_str!("../../dist/setup/desktop.rules");
const IGNORE: &str = include_str!("../../dist/setup/older-udisks.rules");
const DRIVERS: (u32, u32) = (2, 10);
/// Where libmount looks for the helper; what udisks2 mounts by it.
const HELPERS: [&str; 2] = ["/sbin/mount.lazaret", "/usr/sbin/mount.lazaret"];

const SETUP_HELP: &str = "\
Removable media are what comes over USB, FireWire or an SD card reader, or says so itself. Fixed disks stay as they were.
With udisks2 2.10 or later a click in a file manager mounts them through Lazaret, and what the worker refuses is not
mounted at all: there is no way on to the kernel's own ext4. Before 2.10 (Debian 12) udisks2 is told not to
offer such media and is refused the kernel's own ext4, and lazaret automount is to mount them.";

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Let udisks2 and the file managers above it mount removable media through Lazaret
    Desktop(Desktop),
}

#[derive(clap::Args)]
#[command(after_help = SETUP_HELP)]
struct Desktop {
    /// Take it back: udisks2 mounts by the kernel as before
    #[arg(long)]
    undo: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let What::Desktop(Desktop { undo }) = &arguments.what;
    if !geteuid().is_root() {
        return Err(Failure::system("needs root").about("setup desktop"));
    }
    let done = if *undo { take_away(Path::new(PLACE)) } else { set_up() };
    if done.map_err(|failure| failure.about(PLACE))? {
        tell_udev();
    }
    Ok(())
}

/// Puts the rules there that this udisks2 understands. False if they are there already.
fn set_up() -> Result<bool, Failure> {
    if !HELPERS.iter().any(|place| Path::new(place).exists()) {
        return Err(Failure::system("is missing: udisks2 could mount nothing").about(HELPERS[0]));
    }
    let version = udisks_version();
    let rules = match version {
        Some(version) if version < DRIVERS => {
            say(&format!(
                "udisks2 {}.{} knows no drivers and leaves removable media with ext2, ext3 and ext4 alone from now on; \
                 lazaret automount mounts them",
                version.0, version.1
            ));
            IGNORE
        }
        Some(_) => DESKTOP,
        None => {
            say(
                "udisks2 does not answer; the rules are those for 2.10 and later, and with an older one it mounts none",
            );
            DESKTOP
        }
    };
    write(Path::new(PLACE), rules)
}

/// Writes the rules in one step. False if they are there already; what is there and not ours is left.
fn write(place: &Path, rules: &str) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::system(format!("cannot be written: {}", words(error)));
    match ours(place)? {
        Some(there) if there == rules => return Ok(false),
        _ => {}
    }
    let folder = place.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(rules.as_bytes()).map_err(failed)?;
    file.as_file().set_permissions(PermissionsExt::from_mode(0o644)).map_err(failed)?;
    file.persist(place).map_err(|error| failed(error.error))?;
    Ok(true)
}

/// Takes the rules away. False if there were none.
fn take_away(place: &Path) -> Result<bool, Failure> {
    if ours(place)?.is_none() {
        return Ok(false);
    }
    let failed = |error: std::io::Error| Failure::system(format!("cannot be removed: {}", words(error)));
    std::fs::remove_file(place).map(|()| true).map_err(failed)
}

/// The rules that are there, if there are any; they are ours if they begin as ours do.
fn ours(place: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(place) {
        Ok(text) if text.lines().next() == DESKTOP.lines().next() => Ok(Some(text)),
        Ok(_) => Err(Failure::system("is there and was not made by lazaret setup desktop")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::system(format!("cannot be read: {}", words(error)))),
    }
}

/// udev reads the rules anew, and looks at what is plugged in once more. Where it does not run it will at its start.
fn tell_udev() {
    for arguments in [&["control", "--reload"][..], &["trigger", "--subsystem-match=block", "--action=change"]] {
        let told = Command::new("udevadm").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).output();
        let why = match told {
            Ok(output) if output.status.success() => continue,
            Ok(output) => escaped(String::from_utf8_lossy(&output.stderr).trim()).to_string(),
            Err(error) => words(error),
        };
        say(&format!("udevadm {}: {why}; it holds from the next start on", arguments.join(" ")));
        return;
    }
}

/// The version of the udisks2 that answers here, which is started for it.
fn udisks_version() -> Option<(u32, u32)> {
    let mut ask = Command::new("dbus-send");
    ask.args([
        "--system",
        "--print-reply=literal",
        "--dest=org.freedesktop.UDisks2",
        "/org/freedesktop/UDisks2/Manager",
    ]);
    ask.args(["org.freedesktop.DBus.Properties.Get", "string:org.freedesktop.UDisks2.Manager", "string:Version"]);
    let output = ask.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    version(&String::from_utf8_lossy(&output.stdout))
}

/// `variant       2.10.1`
fn version(answer: &str) -> Option<(u32, u32)> {
    let mut numbers = answer.split_whitespace().last()?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_the_answer() {
        assert_eq!(version("   variant       2.10.1\n"), Some((2, 10)));
        assert!(version("variant 2.9.4") < Some(DRIVERS) && version("variant 2.11.0") > Some(DRIVERS));
        for nonsense in ["", "variant", "variant x.y", "2"] {
            assert_eq!(version(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn rules_come_once_and_go_and_those_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("rules.d/75-lazaret.rules");
        assert!(!take_away(&place).unwrap());
        assert!(write(&place, IGNORE).unwrap() && !write(&place, IGNORE).unwrap());
        assert!(write(&place, DESKTOP).unwrap());
        assert_eq!(std::fs::read_to_string(&place).unwrap(), DESKTOP);
        assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(folder.path().join("rules.d")).unwrap().count(), 1);
        assert!(take_away(&place).unwrap() && !place.exists());
        std::fs::write(&place, "# another's\n").unwrap();
        assert!(write(&place, DESKTOP).is_err() && take_away(&place).is_err() && place.exists());
    }

    #[test]
    fn every_type_has_its_driver_and_no_other() {
        for kind in ["EXT2", "EXT3", "EXT4"] {
            for line in [
                format!("ENV{{UDISKS_MOUNT_OPTIONS_{kind}_DRIVERS}}=\"lazaret\"\n"),
                format!("ENV{{UDISKS_MOUNT_OPTIONS_{kind}_DEFAULTS}}=\"only-lazaret\"\n"),
            ] {
                assert!(DESKTOP.contains(&line), "{line}");
            }
        }
    }
}
