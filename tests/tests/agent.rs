//! `lazaret agent` against a real notification daemon: dunst under Xvfb with a session bus, all of a user's own, and sticks
//! that real uevents tell of. What a label holds is shown, and does nothing.
//!
//! `LAZARET_PICTURE` names a file for a picture of the screen.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lazaret_tests::automount::{Daemon, Stick, mounted_within, nothing_within, place_of};
use lazaret_tests::command::{self, eventually};
use lazaret_tests::prove::Figures;
use lazaret_tests::requirement::{self, Requirement, proof};
use lazaret_tests::udev::Udev;
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, apart, lazaret, superblock};
use serde_json::Value;

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::Apart,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("losetup"),
    Requirement::Tool("udevadm"),
    Requirement::Tool("setpriv"),
    Requirement::Tool("unshare"),
    Requirement::Tool("dbus-daemon"),
    Requirement::Tool("Xvfb"),
    Requirement::Tool("dunst"),
    Requirement::Tool("dunstctl"),
    Requirement::Tool("import"),
];

/// The user whose desktop it is: nobody, whom every machine has, since a bus wants a name for its user.
const USER: u32 = 65534;
const SHOWN: Duration = Duration::from_secs(5);

/// Markup, an escape sequence, a letter that turns the line around, and an entity: 15 bytes.
const LABEL: &[u8] = "<b>A</b>&\x1b\u{202e}gp".as_bytes();

const DUNST: &str = "\
[global]
    font = DejaVu Sans 14
    width = 620
    height = 300
    offset = 20x20
    origin = top-left
    markup = full
    format = \"<b>%s</b>\\n%b\"
    show_indicators = no
    icon_position = off
    dmenu = MENU
    idle_threshold = 0
[urgency_low]
    timeout = 0
[urgency_normal]
    timeout = 0
    background = \"#20303c\"
    foreground = \"#ffffff\"
[urgency_critical]
    timeout = 0
    background = \"#5c1f1f\"
    foreground = \"#ffffff\"
";

fn main() {
    if let Err(error) = apart::enter() {
        eprintln!("{error}");
        std::process::exit(1);
    }
    let udev =
        if NEEDS.iter().all(|need| need.missing().is_none()) { Some(Udev::start().expect("udevd")) } else { None };
    requirement::main_in_turn_with(udev, |workshop| {
        vec![proof("P13", "what a stick is called does nothing to a desktop", NEEDS, workshop, shown)]
    })
}

/// A program of the user's session. Dropping it ends it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A desktop: what has to run for a notification to be seen.
struct Desktop {
    place: PathBuf,
    display: String,
    /// In the order in which they end.
    _running: Vec<Running>,
}

impl Desktop {
    fn start(place: &Path) -> Result<Self> {
        let home = place.join("home");
        fs::create_dir(&home)?;
        chown(&home, Some(USER), Some(USER))?;
        let menu = place.join("menu");
        fs::write(&menu, "#!/bin/sh\nexec grep '^#Mount '\n")?;
        fs::set_permissions(&menu, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::write(place.join("dunstrc"), DUNST.replace("MENU", &menu.to_string_lossy()))?;
        let mut desktop = Self { place: place.to_owned(), display: String::new(), _running: vec![] };
        // Root's, since it makes a directory in /tmp; it listens to this machine alone.
        let mut screen = Command::new("setpriv");
        screen.args([
            "--pdeathsig",
            "KILL",
            "--",
            "Xvfb",
            "-displayfd",
            "1",
            "-screen",
            "0",
            "680x220x24",
            "-nolisten",
            "tcp",
        ]);
        let mut screen = Running(screen.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
        let mut number = String::new();
        BufReader::new(screen.0.stdout.take().ok_or("no stdout")?).read_line(&mut number)?;
        desktop.display = format!(":{}", number.trim());
        let bus = home.join("bus");
        let address = format!("--address=unix:path={}", bus.display());
        let bus_daemon = desktop.run("dbus-daemon", &["--session", "--nofork", "--nopidfile", &address])?;
        assert!(eventually(SHOWN, || bus.exists()).0, "no session bus");
        let config = place.join("dunstrc").to_string_lossy().into_owned();
        let dunst = desktop.run("dunst", &["-conf", &config])?;
        let ready = || command::run(desktop.command("dunstctl").arg("count")).is_ok();
        assert!(eventually(SHOWN, ready).0, "dunst does not answer");
        desktop._running = vec![dunst, bus_daemon, screen];
        Ok(desktop)
    }

    /// A program as the user would run it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let home = self.place.join("home");
        let mut command = Command::new("setpriv");
        let user = USER.to_string();
        command.args(["--pdeathsig", "KILL", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(program);
        command.current_dir("/").env("HOME", &home).env("XDG_RUNTIME_DIR", &home).env("DISPLAY", &self.display);
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", home.join("bus").display()));
        command
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<Running> {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running(command.spawn()?))
    }

    /// How many notifications are on the screen.
    fn count(&self) -> Result<u64> {
        Ok(command::run(self.command("dunstctl").args(["count", "displayed"]))?.trim().parse()?)
    }

    /// Demands that so many are on the screen.
    fn shows(&self, count: u64) -> Result {
        let (there, _) = eventually(SHOWN, || self.count().is_ok_and(|now| now == count));
        if there { Ok(()) } else { Err(format!("{} are on the screen and not {count}", self.count()?).into()) }
    }

    /// Closes all, and gives the summary and the body of each, the last closed first.
    fn close(&self) -> Result<Vec<(String, String)>> {
        command::run(self.command("dunstctl").arg("close-all"))?;
        self.shows(0)?;
        let history: Value = serde_json::from_str(&command::run(self.command("dunstctl").arg("history"))?)?;
        let entries = history["data"][0].as_array().ok_or("no history")?;
        let text = |entry: &Value, key: &str| entry[key]["data"].as_str().unwrap_or_default().to_owned();
        let texts = entries.iter().map(|entry| (text(entry, "summary"), text(entry, "body"))).collect();
        Ok(texts)
    }
}

fn shown(workshop: &Workshop) -> Result<Figures> {
    let place = workshop.directory("desktop")?;
    let desktop = Desktop::start(&place)?;
    let policy = format!(
        "[defaults]\nfor = '{USER}:{USER}'\n[[rule]]\nmatch = {{ bus = 'loop', label = 'ASK' }}\naction = 'ask'\n\
         [[rule]]\nmatch = {{ bus = 'loop', size = '..100M' }}\naction = 'mount'\n"
    );
    let daemon = Daemon::start(&place, &policy)?;
    let agent = desktop.run(lazaret::broker(), &["agent"])?;
    let (mut hostile, mut ask) = (Stick::new(&place, "hostile", &[])?, Stick::new(&place, "ask", &["-L", "ASK"])?);
    superblock::change(hostile.image(), |bytes| {
        bytes[0x78..0x88].fill(0);
        bytes[0x78..0x78 + LABEL.len()].copy_from_slice(LABEL);
    })?;
    // The question waits for an agent, so that this one is known to listen from here on.
    ask.plug()?;
    desktop.shows(1)?;
    assert_eq!(place_of(ask.device()), None, "mounted without an answer");
    hostile.plug()?;
    let (point, _) = mounted_within(hostile.device(), SHOWN)?;
    assert_eq!(point, Path::new("/run/media/nobody/_b_A__b____gp"));
    desktop.shows(2)?;
    if let Some(picture) = std::env::var_os("LAZARET_PICTURE") {
        // What is drawn is on the screen a moment later.
        std::thread::sleep(Duration::from_millis(500));
        command::run(Command::new("import").env("DISPLAY", &desktop.display).args(["-window", "root"]).arg(picture))?;
    }
    // The menu's script takes the line with the button to mount.
    command::run(desktop.command("dunstctl").arg("context"))?;
    mounted_within(ask.device(), SHOWN)?;
    let mounted =
        |texts: &[(String, String)]| texts.iter().filter(|(summary, _)| summary == "A stick was mounted").count();
    let (both, _) = eventually(SHOWN, || desktop.count().is_ok_and(|count| count == 2));
    assert!(both, "the question is replaced by what came of it");
    std::thread::sleep(Duration::from_millis(300));
    let texts = desktop.close()?;
    assert_eq!(mounted(&texts), 2, "{texts:#?}");
    let body = &texts.iter().find(|(_, body)| body.contains("gp")).ok_or("the hostile one is not shown")?.1;
    // As the server has got it: entities, which it shows as the letters that they stand for, and escapes spelt out.
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines, ["&lt;b&gt;A&lt;/b&gt;&amp;\\x1b\\u{202e}gp", "/run/media/nobody/_b_A__b____gp"]);
    hostile.pull()?;
    desktop.shows(1)?;
    let texts = desktop.close()?;
    assert!(texts.iter().any(|(summary, _)| summary == "A stick was pulled out while it was mounted"), "{texts:#?}");
    command::run(Command::new("umount").arg(place_of(ask.device()).ok_or("not mounted")?))?;
    desktop.shows(1)?;
    assert!(desktop.close()?.iter().any(|(summary, _)| summary == "A stick is not mounted any more"));
    ask.pull()?;
    // A question that is over before it is answered is closed.
    ask.plug()?;
    desktop.shows(1)?;
    ask.pull()?;
    desktop.shows(0)?;
    nothing_within(SHOWN)?;
    drop(agent);
    drop(daemon);
    Ok(vec![("notifications read", 5)])
}
