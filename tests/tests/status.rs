//! `lazaret status` and `lazaret doctor`: what they show is what the kernel says now, they hang on no mount, and nothing
//! of an image or a path acts on a terminal.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use lazaret_tests::command::{Finished, eventually, finish};
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::process::{self, kill, runs, signal};
use lazaret_tests::requirement::{self, BY_USER, MOUNTS, Requirement, trial};
use lazaret_tests::strike;
use lazaret_tests::unprivileged::{self, NOBODY};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, leftover, recipe};

const AS_NOBODY: &[Requirement] = &[Requirement::Root, Requirement::Fuse, Requirement::Tool("setpriv")];

fn main() {
    requirement::main(|workshop| {
        vec![
            trial("status shows a worker as the kernel does", MOUNTS, workshop, shows_the_worker),
            trial("status hangs on no mount that hangs", MOUNTS, workshop, does_not_hang),
            trial("status tells a mount that nobody serves", MOUNTS, workshop, tells_the_dead),
            trial("status as another user says what it does not see", MOUNTS, workshop, as_nobody),
            trial("status shows a user the own mount", BY_USER, workshop, own_mount),
            trial("a name acts on no terminal", MOUNTS, workshop, escapes),
            trial("doctor as root", MOUNTS, workshop, doctor),
            trial("doctor as another user", AS_NOBODY, workshop, doctor_as_nobody),
        ]
    })
}

fn status(words: &[&str]) -> Result<Finished> {
    lazaret::run(["status"].iter().chain(words))
}

/// What status says of the mount at this place.
fn entry(finished: &Finished, point: &Path) -> Result<Value> {
    let object: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!(object["schema"], "lazaret.status/1");
    let mounts = object["mounts"].as_array().ok_or("no list of mounts")?;
    let found = mounts.iter().find(|mount| mount["mountpoint"].as_str() == point.to_str());
    found.cloned().ok_or_else(|| format!("{} is not listed: {finished:?}", point.display()).into())
}

fn shows_the_worker(workshop: &Workshop) -> Result {
    let (place, image) = (workshop.directory("shows")?, workshop.image(recipe::default())?);
    let mount = Mount::new(&image, &place.join("point"))?;
    let one = entry(&status(&["--json"])?, mount.path())?;
    let worker = &one["worker"];
    let pids = (mount.broker.pid, mount.worker.pid);
    assert_eq!((one["broker"].as_u64(), worker["pid"].as_u64()), (Some(pids.0.into()), Some(pids.1.into())), "{one}");
    assert_eq!(
        (&one["state"], &one["confined"], &one["reason"]),
        (&"served".into(), &true.into(), &Value::Null),
        "{one}"
    );
    assert_eq!(one["source"].as_str(), image.to_str());
    let of = pids.1.to_string();
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(worker["capabilities"][name].as_str(), Some(&*process::status(&of, name)?), "{one}");
    }
    let uid = process::status(&of, "Uid")?.split_whitespace().next().and_then(|uid| uid.parse::<u64>().ok());
    assert_eq!(worker["uid"].as_u64(), uid, "{one}");
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = fs::read_link(format!("/proc/{of}/ns/{name}"))?;
        assert_eq!(worker["namespaces"][name]["link"].as_str(), link.to_str(), "{one}");
        assert_eq!(worker["namespaces"][name]["own"], true, "{one}");
    }
    assert_eq!(worker["fds"]["3"], "/dev/fuse", "{one}");
    let text = status(&[])?.stdout;
    for word in [&format!("worker pid        {of}"), "confined: every layer", "not to be seen from outside"] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    mount.unmount(Duration::from_secs(1))?;
    assert!(entry(&status(&["--json"])?, &place.join("point")).is_err(), "it is listed after its end");
    leftover::nothing_of(&place)
}

fn does_not_hang(workshop: &Workshop) -> Result {
    let (place, image) = (workshop.directory("does-not-hang")?, workshop.image(recipe::default())?);
    let mount = Mount::new(&image, &place.join("point"))?;
    strike::stop(mount.worker.pid)?;
    let path = mount.path().join("sizes/4096");
    let client = thread::spawn(move || fs::read(path).map(drop));
    let mut one = Value::Null;
    let (waits, _) = eventually(Duration::from_secs(5), || {
        one = status(&["--json"]).and_then(|finished| entry(&finished, mount.path())).unwrap_or_default();
        one["waiting"].as_u64().is_some_and(|waiting| waiting > 0)
    });
    signal(mount.worker.pid, rustix::process::Signal::CONT);
    assert!(waits && one["state"] == "served", "{one}");
    client.join().map_err(|_| "a panic")??;
    mount.unmount(Duration::from_secs(1))?;
    leftover::nothing_of(&place)
}

fn tells_the_dead(workshop: &Workshop) -> Result {
    let (place, image) = (workshop.directory("tells-the-dead")?, workshop.image(recipe::default())?);
    let mount = Mount::new(&image, &place.join("point"))?;
    kill(mount.broker.pid);
    let (gone, _) = eventually(Duration::from_secs(1), || !runs(mount.worker.pid) && !runs(mount.broker.pid));
    assert!(gone, "a worker outlives its broker");
    let finished = status(&["--json"])?;
    let one = entry(&finished, mount.path())?;
    assert_eq!(
        (&one["state"], &one["worker"], &one["confined"]),
        (&"dead".into(), &Value::Null, &false.into()),
        "{one}"
    );
    assert_eq!(finished.code(), Some(32), "{finished:?}");
    let finished = lazaret::run(["umount".as_ref(), mount.path().as_os_str()])?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    drop(mount);
    leftover::nothing_of(&place)
}

/// The command as a user without any right.
fn nobody(words: &[&str]) -> Result<Finished> {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(lazaret::broker()).args(words);
    finish(&mut setpriv, lazaret::PATIENCE)
}

fn as_nobody(workshop: &Workshop) -> Result {
    let (place, image) = (workshop.directory("as-nobody")?, workshop.image(recipe::default())?);
    let mount = Mount::new(&image, &place.join("point"))?;
    let finished = nobody(&["status", "--json"])?;
    let one = entry(&finished, mount.path())?;
    assert_eq!(
        (&one["state"], &one["confined"], &one["worker"]),
        (&"unseen".into(), &Value::Null, &Value::Null),
        "{one}"
    );
    assert_eq!(finished.code(), Some(0), "what is not seen is no fault: {finished:?}");
    mount.unmount(Duration::from_secs(1))?;
    leftover::nothing_of(&place)
}

/// Who has mounted without any right sees that the own worker is confined, as far as the kernel shows it to its owner.
fn own_mount(workshop: &Workshop) -> Result {
    let (place, image) = (workshop.directory("own-mount")?, workshop.image(recipe::default())?);
    let point = place.join("point");
    for directory in [&place.join("dev"), &point] {
        fs::create_dir(directory)?;
    }
    chown(&point, Some(NOBODY), Some(NOBODY))?;
    let script = "\"$0\" mount \"$1\" \"$2\" && \"$0\" status --json; \"$0\" umount \"$2\"";
    let program = lazaret::broker();
    // As systemd mounts it: without, a user does not see which broker is whose.
    let fusectl = "mount -t fusectl none /sys/fs/fuse/connections";
    let words = ["sh", "-c", script];
    let mut command = unprivileged::command_after(fusectl, &place, &words, &[&program, &image, &point]);
    let finished = finish(&mut command, lazaret::PATIENCE)?;
    let one = entry(&finished, &point)?;
    assert_eq!((&one["state"], &one["confined"]), (&"served".into(), &true.into()), "{finished:?}");
    assert_eq!(one["worker"]["uid"], NOBODY, "{one}");
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(one["worker"]["namespaces"][name]["own"], true, "{name}: {one}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(one["worker"]["capabilities"][set], "0000000000000000", "{set}: {one}");
    }
    assert_eq!((&one["worker"]["seccomp"], &one["worker"]["no_new_privs"]), (&2.into(), &true.into()), "{one}");
    leftover::nothing_of(&place)
}

fn escapes(workshop: &Workshop) -> Result {
    let place = workshop.directory("escapes")?;
    let image = workshop.copy(recipe::default(), &place)?;
    let named = place.join("a\u{1b}[2J\u{202e}b.img");
    fs::rename(&image, &named)?;
    let mount = Mount::new(&named, &place.join("po\u{9b}int"))?;
    for words in [&[][..], &["--json"]] {
        let text = status(words)?.stdout;
        assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text:?}");
        assert!(text.contains("[2J"), "{text:?}");
    }
    mount.unmount(Duration::from_secs(1))?;
    leftover::nothing_of(&place)
}

fn examined(finished: &Finished) -> Result<Value> {
    let object: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
    assert_eq!(object["schema"], "lazaret.doctor/1");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    assert_eq!(object["kernel"].as_str(), Some(release.trim()));
    let list = object["vulnerabilities"].as_array().ok_or("no vulnerabilities")?;
    let states = ["prevented", "fixed", "open", "unknown"];
    assert!(list.len() >= 8 && list.iter().all(|one| states.iter().any(|state| one["state"] == *state)), "{object}");
    assert!(list.iter().all(|one| one["id"].as_str().is_some_and(|id| id.starts_with("CVE-"))), "{object}");
    Ok(object)
}

fn doctor(workshop: &Workshop) -> Result {
    let place = workshop.directory("doctor")?;
    let finished = lazaret::run(["doctor", "--json"])?;
    let object = examined(&finished)?;
    assert_eq!((finished.code(), &object["mount"], &object["uid"]), (Some(0), &true.into(), &0.into()), "{finished:?}");
    // A worker of a mount has what the one had that was tried.
    let mount = Mount::new(&workshop.image(recipe::default())?, &place.join("point"))?;
    let worker = &entry(&status(&["--json"])?, mount.path())?["worker"];
    let own = |name: &&str| worker["namespaces"][*name]["own"] == true;
    let names: Vec<&str> = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"].into_iter().filter(own).collect();
    assert_eq!(object["confinement"]["namespaces"], Value::from(names), "{object}");
    mount.unmount(Duration::from_secs(1))?;
    let text = lazaret::run(["doctor"])?;
    assert!(text.code() == Some(0) && text.stdout.contains("CVE-2026-31694"), "{text:?}");
    leftover::nothing_of(&place)
}

/// Without a right on /dev/fuse there is no mount, and still a worker is confined.
fn doctor_as_nobody(_: &Workshop) -> Result {
    let finished = nobody(&["doctor", "--json"])?;
    let object = examined(&finished)?;
    let device = object["fuse"]["device"] == true;
    assert_eq!(object["uid"], 65_534);
    assert!(object["tools"] == true && object["confinement"]["landlock"].is_u64(), "{object}");
    assert!(device || object["mount"] == false && finished.code() == Some(2), "{finished:?}");
    Ok(())
}
