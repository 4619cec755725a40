//! `mount.lazaret` as mount(8) itself starts it: by type, from fstab, as root and for a user; and mounts that stand on
//! their block device.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use lazaret_tests::block::LoopDevice;
use lazaret_tests::command::{self, finish};
use lazaret_tests::lazaret::{self, Mount};
use lazaret_tests::requirement::{self, Requirement, trial};
use lazaret_tests::workshop::{Workshop, image_of};
use lazaret_tests::{Result, digest, leftover, process, strike, superblock};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Fuse,
    Requirement::Loop,
    Requirement::Tool("mke2fs"),
    Requirement::Tool("sfdisk"),
    Requirement::Tool("partx"),
    Requirement::Tool("mount"),
    Requirement::Tool("umount"),
    Requirement::Tool("unshare"),
    Requirement::Tool("setpriv"),
    Requirement::Tool("fusermount3"),
];

/// Where libmount looks for helpers the program lies under each of its names, as a package puts it there: in a mount
/// namespace of the test's own, and with processes that end with it.
const PRELUDE: &str = r#"
mount -t tmpfs none /run
mkdir upper mnt other
mount -t tmpfs none upper
mkdir upper/u upper/w
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$PWD/upper/u,workdir=$PWD/upper/w" /usr/sbin
for name in mount.lazaret mount.fuse.lazaret mount.fuseblk.lazaret; do ln -s "$BROKER" "/usr/sbin/$name"; done
ends() { wanted=$1; shift; code=0; "$@" 2>said || code=$?; test $code = $wanted || { echo "$*: $code: $(cat said)"; exit 1; }; }
says() { grep -qF -- "$1" said || { echo "not said: $1, but: $(cat said)"; exit 1; }; }
shown() { grep -F " $PWD/$1 " /proc/self/mountinfo | sed 's/.*\/mnt //; s/.*\/other //' | tail -1; }
as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
has() { case "$1" in *"$2"*) ;; *) echo "'$1' has no '$2'"; exit 1 ;; esac; }
reads() { test "$(cat mnt/hello)" = hello; }
gone() { test -z "$(shown mnt)$(shown other)"; }
"#;

/// Scripts that end with 0, each in a directory with `image`.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "mount -t lazaret mounts and umount ends it",
        "ends 0 mount -t lazaret image mnt; reads; has \"$(shown mnt)\" 'ro,nosuid,nodev,noexec'
         has \"$(shown mnt)\" '- fuse.lazaret '; umount mnt; gone",
    ),
    (
        "mount -t fuse.lazaret mounts the same",
        "ends 0 mount -t fuse.lazaret image mnt; reads; has \"$(shown mnt)\" '- fuse.lazaret '; umount mnt; gone",
    ),
    (
        "a type from the mount table mounts the same again",
        "ends 0 mount -t lazaret -o loop image mnt; reads; has \"$(shown mnt)\" '- fuse.lazaret /dev/loop'
         device=$(shown mnt | sed 's/.*fuse.lazaret //; s/ .*//'); umount mnt
         device=$(losetup --find --show image); trap 'losetup -d $device' EXIT
         ends 0 mount -t fuseblk.lazaret $device mnt; reads; has \"$(shown mnt)\" \"- fuseblk.lazaret $device\"
         umount mnt; gone",
    ),
    (
        "a line of fstab mounts with its options",
        "echo \"$PWD/image $PWD/mnt lazaret uid=1000,gid=1000,umask=077,nofail,_netdev,x-foo=1,comment=a 0 0\" >fstab
         ends 0 mount -a --fstab fstab; has \"$(shown mnt)\" 'user_id=1000'
         test \"$(as 1000 cat mnt/hello)\" = hello; test \"$(as 1000 stat -c %u:%g:%a mnt/hello)\" = 1000:1000:600
         ends 1 as 1001 cat mnt/hello; says denied; umount mnt; gone",
    ),
    (
        "an owner that is given reads what the image would keep from him, and nobody else does",
        "ends 0 mount -t lazaret -o uid=1000,gid=1000,allow_other image mnt
         test \"$(as 1000 cat mnt/secret)\" = secret; ends 1 as 1001 cat mnt/secret; says denied
         test \"$(as 1001 cat mnt/hello)\" = hello; umount mnt; gone",
    ),
    (
        "a line with the word user lets a user mount and unmount",
        "chown 1000 other; echo \"$PWD/image $PWD/other lazaret user,noauto 0 0\" >fstab; mount --bind fstab /etc/fstab
         ends 0 as 1000 mount other; has \"$(shown other)\" 'ro,nosuid,nodev,noexec'
         test \"$(as 1000 cat other/hello)\" = hello; ends 1 cat other/hello; says denied
         ends 32 as 1001 umount other; ends 0 as 1000 umount other; gone
         ends 1 as 1000 mount mnt",
    ),
    (
        "a line whose source is not there is no failure with nofail, and one without",
        "echo \"/dev/not/there $PWD/mnt lazaret nofail 0 0\" >fstab; ends 0 mount -a --fstab fstab; gone
         echo \"/dev/not/there $PWD/mnt lazaret defaults 0 0\" >fstab; ends 32 mount -a --fstab fstab; says 'no such file'
         echo \"/usr/bin/env $PWD/mnt lazaret nofail 0 0\" >fstab; ends 32 mount -a --fstab fstab; gone",
    ),
    (
        "a device is found by its label and UUID, and mounted again at once when it was unmounted",
        "device=$(losetup --find --show labelled); trap 'losetup -d $device' EXIT
         uuid=$(blkid -p -s UUID -o value $device); has \"$(blkid -c /dev/null -t LABEL=LZ-helper -o device)\" $device
         for source in LABEL=LZ-helper UUID=$uuid LABEL=LZ-helper UUID=$uuid; do
             echo \"$source $PWD/mnt lazaret noauto 0 0\" >fstab; mount --bind fstab /etc/fstab
             ends 0 mount mnt; has \"$(shown mnt)\" \"- fuse.lazaret $device\"; reads; umount mnt; umount /etc/fstab
         done; gone",
    ),
    (
        // mount(8) resolves these itself, with links that udev has made and without; a disk in a file is no device of its.
        "a partition is found by its PARTUUID and PARTLABEL where it is a device",
        "mkdir dev; mount -t tmpfs -o mode=755,dev none dev; cp -a /dev/null /dev/fuse /dev/loop* dev; mount --move dev /dev
         truncate --size 140M disk; one=aaaaaaaa-0000-4000-8000-000000000001 two=aaaaaaaa-0000-4000-8000-000000000002
         printf 'label: gpt\nsize=68MiB, uuid=%s, name=\"my stick\"\nsize=68MiB, uuid=%s, name=other\n' $one $two |
             sfdisk --quiet --no-reread --no-tell-kernel disk
         dd if=image of=disk bs=1M seek=1 conv=notrunc,sparse status=none
         dd if=labelled of=disk bs=1M seek=69 conv=notrunc,sparse status=none
         device=$(losetup --find --show disk); trap 'partx --delete $device; losetup -d $device' EXIT; partx --add $device
         for number in 1 2; do
             test -b ${device}p$number || mknod ${device}p$number b \
                 $(tr : ' ' </sys/class/block/${device##*/}p$number/dev)
         done
         tries() {
             for source in PARTUUID=$one 'PARTLABEL=my stick' PARTUUID=$two PARTLABEL=other; do
                 case $source in *1 | *stick) part=${device}p1 ;; *) part=${device}p2 ;; esac
                 ends 0 mount -t lazaret \"$source\" mnt; has \"$(shown mnt)\" \"- fuse.lazaret $part \"; reads; umount mnt
             done
             echo \"PARTUUID=$two $PWD/mnt lazaret noauto,nofail 0 0\" >fstab; mount --bind fstab /etc/fstab
             ends 0 mount mnt; has \"$(shown mnt)\" \"- fuse.lazaret ${device}p2 \"; umount mnt; umount /etc/fstab
         }
         tries
         mkdir -p /dev/disk/by-partuuid /dev/disk/by-partlabel
         ln -s ${device}p1 /dev/disk/by-partuuid/$one; ln -s ${device}p2 /dev/disk/by-partuuid/$two
         ln -s ${device}p1 '/dev/disk/by-partlabel/my\\x20stick'; ln -s ${device}p2 /dev/disk/by-partlabel/other
         tries
         partx --delete $device; losetup -d $device; trap - EXIT
         rm -r /dev/disk ${device}p*; ends 1 mount -t lazaret PARTUUID=$two mnt; says \"can't find PARTUUID=$two\"
         ends 0 mount -t lazaret -o part=$two disk mnt; reads; umount mnt; gone",
    ),
    (
        "a mount is not changed while it stands, but for its flags",
        "ends 0 mount -t lazaret image mnt; ends 1 mount -o remount,rw mnt; says 'unmount it and mount it again'
         ends 1 mount -t lazaret -o remount,uid=1 image mnt; says 'unmount it and mount it again'
         ends 0 mount -o remount,bind,nosymfollow mnt; has \"$(shown mnt)\" nosymfollow; reads; umount mnt; gone",
    ),
    (
        "umount -l leaves what is open readable, and the rest ends with it",
        "ends 0 mount -t lazaret image mnt; exec 7<mnt/hello; ends 32 umount mnt; says busy; umount -l mnt; gone
         test \"$(cat <&7)\" = hello; exec 7<&-
         for try in {1..100}; do ls -l /proc/[0-9]*/exe 2>/dev/null | grep -q lazaret-worker || exit 0; sleep 0.05; done
         echo 'the worker is left'; exit 1",
    ),
    (
        "exit codes and words pass through mount(8)",
        "ends 1 mount -t lazaret -o frobnicate image mnt; says \"unknown option 'frobnicate'\"
         ends 0 mount -t lazaret -o suid,dev,exec image mnt; has \"$(shown mnt)\" 'ro,nosuid,nodev,noexec'; umount mnt
         ends 0 mount -t lazaret -o allow_exec image mnt; has \"$(shown mnt)\" 'ro,nosuid,nodev,relatime'; umount mnt
         ends 32 mount -t lazaret none mnt; says 'no such file'
         ends 32 mount -t lazaret /usr/bin/env mnt; says '/usr/bin/env: '
         ends 32 mount -t lazaret -o blkdev image mnt; says 'is not a block device'
         ends 1 mount -t lazaret -N /proc/1/ns/mnt image mnt; says nsenter; gone",
    ),
    (
        "the letters of mount(8) are taken",
        "ends 0 mount -f -t lazaret image mnt; gone; ends 1 mount -f -t lazaret -o frobnicate image mnt
         ends 0 mount -s -t lazaret -o frobnicate image mnt; umount mnt
         has \"$(mount -v -n -r -t lazaret image mnt)\" 'NoNewPrivs        1'; umount mnt; gone",
    ),
];

type Test = fn(&Path, &LoopDevice) -> Result;

const TESTS: &[(&str, Test)] = &[
    ("a mount on the device has its number and claims it", claimed),
    ("a mount on a device without its broker gives way to the next", replaced),
    ("umount of a silent worker's mount on a device ends in time", silent),
];

fn main() {
    requirement::main_in_turn(|workshop| {
        let scripts = SCRIPTS.iter().map(|(name, lines)| trial(*name, NEEDS, workshop, |w| script(name, lines, w)));
        scripts.chain(TESTS.iter().map(|(name, test)| trial(*name, NEEDS, workshop, |w| one(name, *test, w)))).collect()
    })
}

fn prepare(name: &str, workshop: &Workshop) -> Result<(PathBuf, PathBuf)> {
    let place = workshop.directory(&name.replace([' ', '\'', '(', ')', '.', ','], "-"))?;
    let image = image_of(&place, &["-t", "ext4"], |tree| {
        std::fs::write(tree.join("hello"), "hello")?;
        std::fs::write(tree.join("secret"), "secret")?;
        std::fs::set_permissions(tree.join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(())
    })?;
    Ok((place, image))
}

fn script(name: &str, lines: &str, workshop: &Workshop) -> Result {
    let (place, image) = prepare(name, workshop)?;
    std::fs::rename(image, place.join("image"))?;
    let labelled = place.join("labelled");
    std::fs::copy(place.join("image"), &labelled)?;
    superblock::change(&labelled, |bytes| bytes[0x78..0x81].copy_from_slice(b"LZ-helper"))?;
    let before = digest::of_file(&place.join("image"))?;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc"]);
    shell.arg(format!("{PRELUDE}\n{lines}")).current_dir(&place).env("BROKER", lazaret::broker());
    // Who calls through sudo means himself.
    shell.env_remove("SUDO_UID").env_remove("SUDO_GID");
    command::run(&mut shell)?;
    if digest::of_file(&place.join("image"))? != before {
        return Err("the image was written to".into());
    }
    leftover::nothing_of(&place)
}

fn one(name: &str, test: Test, workshop: &Workshop) -> Result {
    let (place, image) = prepare(name, workshop)?;
    let before = digest::of_file(&image)?;
    let device = LoopDevice::attach(&image, false)?;
    test(&place, &device)?;
    drop(device);
    if digest::of_file(&image)? != before {
        return Err("the image was written to".into());
    }
    leftover::nothing_of(&place)
}

fn claimed(place: &Path, device: &LoopDevice) -> Result {
    let point = place.join("point");
    let mount = Mount::with(device.path(), &point, "blkdev")?;
    let own = rustix::fs::stat(device.path())?.st_rdev;
    assert_eq!(rustix::fs::stat(&point)?.st_dev, own, "the mount has the number of its device");
    assert_eq!(std::fs::read(point.join("hello"))?, b"hello");
    let exclusive = open(device.path(), OFlags::RDONLY | OFlags::EXCL, Mode::empty());
    assert_eq!(exclusive.err(), Some(Errno::BUSY), "the device is claimed");
    for options in ["blkdev", ""] {
        let other = lazaret::run(["mount", "-o", options, &device.path().to_string_lossy(), "/mnt"])?;
        assert!(other.code() == Some(32) && other.stderr.contains("is in use"), "{other:?}");
    }
    let status = lazaret::run(["status"])?;
    assert!(status.code() == Some(0) && status.stdout.contains(&*point.to_string_lossy()), "{status:?}");
    mount.unmount(Duration::from_secs(1))?;
    // Nothing of the claim stays.
    open(device.path(), OFlags::RDONLY | OFlags::EXCL, Mode::empty())?;
    Ok(())
}

fn replaced(place: &Path, device: &LoopDevice) -> Result {
    let point = place.join("point");
    let first = Mount::with(device.path(), &point, "blkdev")?;
    process::kill(first.broker.pid);
    first.gone_within(Duration::from_secs(1))?;
    assert!(std::fs::read(point.join("secret")).is_err(), "nobody is there to answer");
    let again = lazaret::run(["mount", "-o", "blkdev", &device.path().to_string_lossy(), &point.to_string_lossy()])?;
    assert_eq!(again.code(), Some(0), "{again:?}");
    let second = Mount::adopt(&point)?;
    assert_eq!(std::fs::read(point.join("hello"))?, b"hello");
    second.unmount(Duration::from_secs(1))?;
    drop(first);
    Ok(())
}

/// The last unmount of such a mount waits in the kernel for the worker's answer.
fn silent(place: &Path, device: &LoopDevice) -> Result {
    let point = place.join("point");
    let mount = Mount::with(device.path(), &point, "blkdev,timeout=2")?;
    strike::stop(mount.worker.pid)?;
    let begin = Instant::now();
    let umount = thread::spawn(move || finish(Command::new("umount").arg(point), Duration::from_secs(10)));
    mount.gone_within(Duration::from_secs(5))?;
    let umount = umount.join().map_err(|_| "umount was not run")??;
    assert!(begin.elapsed() < Duration::from_secs(5), "umount took {:?}", begin.elapsed());
    assert_eq!(umount.code(), Some(0), "{umount:?}");
    Ok(())
}
