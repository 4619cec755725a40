//! What is plugged in, as udev's database and sysfs show it.
//!
//! What holds here: udev (its builtin blkid, a process of its own) has looked at the medium; here only udev's text is
//! read. Every value may be what the maker of a stick has chosen, and is only ever compared or escaped.

use super::place::safe;
use crate::escape::escaped;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The types of file systems that are mounted here.
pub(super) const KINDS: [&str; 3] = ["ext2", "ext3", "ext4"];
/// Where udev keeps what it has found, a file for each device, which is written anew each time it has looked.
const DATABASE: &str = "/run/udev/data";
/// The longest text of udev that is looked at, for one device.
const LONGEST: usize = 64 << 10;

/// A file system on a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stick {
    /// The kernel's name, as `sdb1`.
    pub name: String,
    /// Its major and minor number.
    pub number: (u32, u32),
    /// Which medium it is: never given twice while the machine runs. Zero where the kernel (5.15) does not tell.
    pub sequence: u64,
    /// Its bytes.
    pub size: u64,
    pub bus: Option<String>,
    pub vendor: Option<String>,
    pub product: Option<String>,
    pub serial: Option<String>,
    pub port: Option<String>,
    pub kind: Option<String>,
    pub label: Option<OsString>,
    pub uuid: Option<String>,
}

impl Stick {
    /// What people call it: its label, else its UUID, else its device.
    pub(crate) fn title(&self) -> String {
        let texts = [self.label.as_deref(), self.uuid.as_deref().map(OsStr::new), Some(OsStr::new(&self.name))];
        let title =
            texts.into_iter().flatten().map(|text| escaped(text).to_string()).find(|text| !text.trim().is_empty());
        title.unwrap_or_default()
    }

    /// The name of its directory: made of the same.
    pub(super) fn directory(&self) -> String {
        let texts = [self.label.as_deref(), self.uuid.as_deref().map(OsStr::new)];
        texts.into_iter().flatten().find_map(safe).unwrap_or_else(|| self.name.clone())
    }

    /// The device's path.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// Every block device that carries a file system of ours, as udev has found it.
pub(super) fn all() -> Vec<Stick> {
    all_of(Path::new("/sys"), Path::new(DATABASE))
}

fn all_of(sysfs: &Path, database: &Path) -> Vec<Stick> {
    let entries = fs::read_dir(sysfs.join("class/block")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut sticks: Vec<Stick> = names.filter_map(|name| one(sysfs, database, &name)).collect();
    sticks.sort_by(|one, other| one.name.cmp(&other.name));
    sticks
}

/// A device by the kernel's name, if it has a medium and a file system of ours.
fn one(sysfs: &Path, database: &Path, name: &str) -> Option<Stick> {
    let place = sysfs.join("class/block").join(name);
    let dev = attribute(&place, "dev")?;
    let (major, minor) = dev.split_once(':')?;
    let number: (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    // sysfs counts in units of 512 bytes, whatever the device does.
    let size = attribute(&place, "size")?.parse::<u64>().ok()?.checked_mul(512).filter(|&size| size > 0)?;
    let text = fs::read(database.join(format!("b{}:{}", number.0, number.1))).ok()?;
    let text = String::from_utf8_lossy(&text[..text.len().min(LONGEST)]).into_owned();
    let property = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('='));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let kind = property("ID_FS_TYPE").filter(|kind| KINDS.contains(&kind.as_str()))?;
    if property("ID_FS_USAGE").as_deref() != Some("filesystem") {
        return None;
    }
    Some(Stick {
        name: name.to_owned(),
        number,
        sequence: sequence(&place),
        size,
        bus: property("ID_BUS").or_else(|| bus(name)),
        vendor: property("ID_VENDOR_ID"),
        product: property("ID_MODEL_ID"),
        serial: property("ID_SERIAL_SHORT").or_else(|| property("ID_SERIAL")),
        port: property("ID_PATH"),
        kind: Some(kind),
        label: property("ID_FS_LABEL_ENC").map(|text| decoded(&text)),
        uuid: property("ID_FS_UUID"),
    })
}

/// Where udev keeps what it has found on a device.
fn record(name: &str) -> Option<PathBuf> {
    let dev = attribute(&Path::new("/sys/class/block").join(name), "dev")?;
    Some(Path::new(DATABASE).join(format!("b{dev}")))
}

/// Whether udev has dealt with a device.
pub(super) fn was_looked_at(name: &str) -> bool {
    let text = record(name).and_then(|record| fs::read_to_string(record).ok());
    text.is_some_and(|text| text.lines().any(|line| line.starts_with("I:")))
}

/// When udev has looked at a device last.
pub(super) fn looked_at(name: &str) -> Option<SystemTime> {
    fs::metadata(record(name)?).and_then(|record| record.modified()).ok()
}

/// Makes udev look at a device again. Whether that can be.
pub(super) fn look_again(name: &str) -> bool {
    fs::write(Path::new("/sys/class/block").join(name).join("uevent"), "change").is_ok()
}

/// Whether a device is there and has a medium. A partition that is in use keeps its size; that of its disk tells.
pub(super) fn has_medium(name: &str) -> bool {
    let place = Path::new("/sys/class/block").join(name);
    let is_disk = || !place.join("partition").exists();
    let sized = |place: &Path| attribute(place, "size").is_some_and(|size| size != "0");
    sized(&place) && (is_disk() || place.canonicalize().is_ok_and(|place| sized(&place.join(".."))))
}

/// Whether this very medium is still there. What udev finds on it does not count: a look at a medium may fail once.
pub(super) fn is_there(name: &str, medium: u64) -> bool {
    has_medium(name) && sequence(&Path::new("/sys/class/block").join(name)) == medium
}

/// Whether a disk has this medium, whatever its partitions are now.
pub(super) fn is_in_a_disk(medium: u64) -> bool {
    let disks = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    let numbers = disks.filter_map(|disk| attribute(&disk.path(), "diskseq")?.parse::<u64>().ok());
    medium != 0 && numbers.into_iter().any(|number| number == medium)
}

/// Which medium a device has. A partition has no number of its own, and that of its disk lies above.
fn sequence(place: &Path) -> u64 {
    let above = || attribute(&place.canonicalize().ok()?.join(".."), "diskseq");
    attribute(place, "diskseq").or_else(above).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn attribute(place: &Path, name: &str) -> Option<String> {
    fs::read_to_string(place.join(name)).ok().map(|text| text.trim().to_owned())
}

/// The bus of a device for which udev names none, by what its driver calls it.
fn bus(name: &str) -> Option<String> {
    let buses = ["mmc", "loop", "nvme"];
    buses.into_iter().find(|bus| name.starts_with(bus)).map(str::to_owned)
}

/// udev writes what is not plain as `\x` and two hexadecimal digits, and a backslash, too.
fn decoded(text: &str) -> OsString {
    let (mut bytes, mut rest) = (vec![], text.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.strip_prefix(b"x").filter(|_| byte == b'\\').and_then(|tail| tail.get(..2));
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "S:disk/by-label/X\nI:77\nE:ID_FS_TYPE=ext4\nE:ID_FS_USAGE=filesystem\nE:ID_FS_UUID=ab-cd\n\
                        E:ID_FS_LABEL=a_b\nE:ID_FS_LABEL_ENC=a\\x2fb\\x5cx\\xff\nE:ID_BUS=usb\nE:ID_VENDOR_ID=0781\n\
                        E:ID_MODEL_ID=5567\nE:ID_SERIAL=Long\nE:ID_SERIAL_SHORT=4C53\nE:ID_PATH=pci-usb-0:3\nG:systemd\n";

    fn shown(text: &str, size: &str) -> Vec<Stick> {
        let place = tempfile::tempdir().unwrap();
        let (sysfs, database) = (place.path().join("sys"), place.path().join("data"));
        let device = sysfs.join("class/block/sdb1");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir(&database).unwrap();
        fs::write(device.join("dev"), "8:17\n").unwrap();
        fs::write(device.join("size"), size).unwrap();
        fs::write(sysfs.join("class/block/diskseq"), "41\n").unwrap();
        fs::write(database.join("b8:17"), text).unwrap();
        all_of(&sysfs, &database)
    }

    #[test]
    fn a_stick_is_what_udev_says_of_it() {
        let some = |text: &str| Some(text.to_owned());
        let expected = Stick {
            name: "sdb1".into(),
            number: (8, 17),
            sequence: 41,
            size: 4096,
            bus: some("usb"),
            vendor: some("0781"),
            product: some("5567"),
            serial: some("4C53"),
            port: some("pci-usb-0:3"),
            kind: some("ext4"),
            label: Some(OsString::from_vec(b"a/b\\x\xff".to_vec())),
            uuid: some("ab-cd"),
        };
        assert_eq!(shown(TEXT, "8\n"), [expected]);
    }

    #[test]
    fn what_is_no_file_system_of_ours_is_not_there() {
        assert_eq!(shown(TEXT, "0\n"), [], "no medium");
        assert_eq!(shown(&TEXT.replace("ext4", "vfat"), "8\n"), []);
        assert_eq!(shown(&TEXT.replace("=filesystem", "=raid"), "8\n"), []);
        assert_eq!(shown("", "8\n"), [], "udev has not looked yet");
        assert_eq!(shown(TEXT, "99999999999999999999999\n"), []);
    }

    #[test]
    fn escapes_that_are_none_stay() {
        for text in ["\\", "\\x", "\\x4", "\\xg0", "\\y41", "a\\"] {
            assert_eq!(decoded(text), text, "{text}");
        }
        assert_eq!(decoded("\\x41\\x42"), "AB");
    }
}
