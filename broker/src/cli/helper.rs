//! `mount.lazaret`: the same for mount(8), which starts it for `mount -t lazaret` and for the lines of fstab of that type.
//!
//! What holds here: the arguments are those of mount(8)'s helpers, and the exit codes are its own, which it passes on. A
//! helper for `ext4` does not exist: libmount would start it for every ext4 mount, that of the root among them.

use super::mount::{self, OPTIONS_HELP};
use crate::exit::Failure;
use crate::options::{Options, known, says};
use clap::{ColorChoice, Parser};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Every name under which mount(8) looks for a helper of ours: by type, and by the types that the mount table shows.
const NAMES: [&str; 3] = ["mount.lazaret", "mount.fuse.lazaret", "mount.fuseblk.lazaret"];

/// Mounts ext2, ext3 and ext4 from media nobody vouches for, as a helper of mount(8): for `mount -t lazaret` and for lines
/// of that type in /etc/fstab.
#[derive(Parser)]
#[command(name = NAMES[0], version, color = ColorChoice::Never, after_help = OPTIONS_HELP)]
pub(super) struct Line {
    /// An image file or a block device
    source: PathBuf,
    /// A directory
    mountpoint: PathBuf,
    /// Mount options, separated by commas; may be repeated
    #[arg(short = 'o', value_name = "OPTS")]
    options: Vec<OsString>,
    /// Pass over options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Look at the options, and mount nothing
    #[arg(short = 'f')]
    fake: bool,
    /// Taken and ignored: there is no /etc/mtab to write
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Print the proof of the worker's confinement
    #[arg(short = 'v')]
    verbose: bool,
    /// The type: lazaret or fuse.lazaret, or fuseblk.lazaret, which is the option blkdev
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
    /// Refused: a mount in another namespace is nsenter(1)'s to begin
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
}

const REMOUNT: &str = "a mount is not changed while it stands: unmount it and mount it again (its flags alone: mount -o \
                       remount,bind,FLAGS DIRECTORY)";

/// The name under which this program was started, if it is one of a helper.
pub(super) fn name(program: &OsStr) -> Option<&'static str> {
    let file = Path::new(program).file_name()?;
    NAMES.into_iter().find(|name| file == *name)
}

/// Does what mount(8) asks for.
pub(super) fn run(line: Line, name: &str) -> Result<(), Failure> {
    if line.namespace.is_some() {
        return Err(Failure::usage("-N is refused: start mount(8) within the other namespace, by nsenter(1)"));
    }
    let mut options = line.options;
    if says(&options, "remount") {
        return Err(Failure::usage(REMOUNT));
    }
    // mount(8) leaves it to its helpers to see whether what need not be there is.
    if says(&options, "nofail")
        && line.source.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
    {
        return Ok(());
    }
    if name == NAMES[2] || line.kind.as_deref() == Some(OsStr::new("fuseblk.lazaret")) {
        options.push("blkdev".into());
    }
    let options = if line.sloppy { known(&options) } else { options.join(OsStr::new(",")) };
    if line.fake {
        return Options::parse(&[options]).map(drop);
    }
    mount::run(&mount::Arguments::of_helper(line.source, line.mountpoint, options, line.verbose))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(arguments: &str) -> Result<(), String> {
        let line = Line::try_parse_from(["mount.lazaret"].into_iter().chain(arguments.split(' '))).unwrap();
        run(line, NAMES[0]).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_helper_is_known_by_its_name() {
        assert_eq!(name(OsStr::new("/sbin/mount.lazaret")), Some("mount.lazaret"));
        assert_eq!(name(OsStr::new("mount.fuse.lazaret")), Some("mount.fuse.lazaret"));
        for other in ["", "/", "lazaret", "mount", "mount.ext4", "xmount.lazaret", "/mount.lazaret/lazaret"] {
            assert_eq!(name(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn the_arguments_are_those_of_mount() {
        assert_eq!(fake("/dev/sdx1 /mnt -f -o rw"), Ok(()));
        assert_eq!(fake("/dev/sdx1 /mnt -sfnv -o ro,noexec,what=1 -t fuse.lazaret"), Ok(()));
        assert_eq!(fake("/dev/sdx1 /mnt -f -o what=1").unwrap_err(), "unknown option 'what=1'");
        assert!(fake("/dev/sdx1 /mnt -s -f -o suid").unwrap_err().contains("refused"));
        assert!(
            fake("/dev/sdx1 /mnt -f -o ro,remount,user_id=0").unwrap_err().contains("unmount it and mount it again")
        );
        assert!(fake("/dev/sdx1 /mnt -N /proc/1/fd/3 -o rw").unwrap_err().contains("nsenter"));
    }
}
