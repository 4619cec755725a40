//! The Debian package of the programs that are tested.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::debian::Debian;
use crate::{Result, command};

/// Where it lies in a Debian.
pub const PLACE: &str = "/run/lazaret.deb";

/// Builds it, once.
fn built() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| error.to_string())).clone().map_err(Into::into)
}

fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "deb", "BUILD=--profile checks", "PACKAGES=--workspace"]).current_dir(source);
    // It is no part of the make that may have started the tests.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    Ok(PathBuf::from(command::run(&mut make)?.trim()))
}

/// Lays it into a Debian.
pub fn bring(debian: &Debian) -> Result {
    std::fs::copy(built()?, debian.path(PLACE))?;
    Ok(())
}

/// Puts it in.
pub fn install(debian: &Debian) -> Result {
    bring(debian)?;
    debian.run(&format!("dpkg --install {PLACE}")).map(drop)
}
