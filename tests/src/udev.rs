//! A real systemd-udevd with the rules of this machine, for a test executable that is apart ([`crate::apart`]).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::command::{self, eventually};

/// Where distributions keep it.
const PLACES: &[&str] = &["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"];

/// The daemon. Dropping it ends it.
pub struct Udev(Child);

impl Udev {
    /// Starts it, and waits until it has dealt with what is plugged in.
    pub fn start() -> Result<Self> {
        let program = PLACES.iter().find(|place| Path::new(place).exists()).ok_or("systemd-udevd is not installed")?;
        // It ends with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).env("SYSTEMD_LOG_LEVEL", "err");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let udev = Self(child);
        let (listens, _) = eventually(Duration::from_secs(10), || Path::new("/run/udev/control").exists());
        assert!(listens, "udevd does not listen");
        command::run(Command::new("udevadm").args(["settle", "--timeout=20"]))?;
        Ok(udev)
    }
}

impl Drop for Udev {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}
