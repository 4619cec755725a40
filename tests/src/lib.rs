//! What the checks share: real images, real mounts, and the kernel and e2fsprogs as those who know the right answer.
//!
//! Nothing here outlives a test: every mount, loop device and process has a guard that ends it, also when a test panics.
//!
//! - [`requirement`]: what a test needs of the host, and what happens when it is missing.
//! - [`prove`]: the promises of SECURITY.md, and how a test records that it has shown one.
//! - [`command`]: run a tool to its end, within a time.
//! - [`recipe`], [`matrix`], [`fill`], [`many`]: the images, how mke2fs makes them and what is written to them through
//!   the kernel.
//! - [`workshop`]: a temporary directory for a run, where each image is made once.
//! - [`block`]: loop devices and mounts by the kernel.
//! - [`lazaret`]: the program under test, and mounts by it.
//! - [`process`], [`leftover`]: what runs, and what must not be left.
//! - [`strike`]: a start of the program that is killed or stopped at a system call, and a worker made to spin.
//! - [`extents`]: where the kernel says that a file lies.
//! - [`object`], [`compare`]: two mounts of one image, compared in everything.
//! - [`evil_disk`]: a device that fails as it is told.
//! - [`damage`]: an image damaged on purpose.
//! - [`mutate`], [`walk`], [`heap`]: mutated images, all that can be asked of one in this process, and what it takes.
//! - [`apart`], [`udev`], [`automount`]: a machine of our own, the real udevd on it, and the daemon with sticks to plug in.
//! - [`fuzz`]: the targets of the fuzzers, and what must hold whatever the input is.
//! - [`fusectl`]: the kernel's view of every FUSE connection, and its switch.
//! - [`bare`], [`unprivileged`]: the program as nobody, where there is next to nothing, and where there is what a desktop has.
//! - [`double`]: a kernel with fuse-iomap.
//! - [`disk`]: a whole disk with partitions, and damage to its table.
//! - [`evil`]: a worker that is already lost, and what it tries.
//! - [`debian`], [`package`]: a Debian for the daemons of a desktop, also with systemd, and the package that goes into it.
//! - [`digest`]: the sha256 of a file.
//! - [`mapped`]: a file read through a mapping.
//! - [`verdicts`]: images with one field changed, as our check and e2fsck judge them.
//! - [`superblock`]: changes one field of a superblock.
//! - [`series`]: a stand-in for a kernel with iomap, as a broker meets it.
//! - [`source`]: the source of the workspace, for rules that it must keep.

pub mod apart;
pub mod automount;
pub mod bare;
pub mod block;
pub mod command;
pub mod compare;
pub mod damage;
pub mod debian;
pub mod digest;
pub mod disk;
pub mod double;
pub mod evil;
pub mod evil_disk;
pub mod exchange;
pub mod extents;
pub mod fill;
pub mod fusectl;
pub mod fuzz;
pub mod heap;
pub mod lazaret;
pub mod leftover;
pub mod many;
pub mod mapped;
pub mod matrix;
pub mod mutate;
pub mod object;
pub mod package;
pub mod process;
pub mod prove;
pub mod recipe;
pub mod requirement;
pub mod series;
pub mod source;
pub mod strike;
pub mod superblock;
pub mod udev;
pub mod unprivileged;
pub mod verdicts;
pub mod walk;
pub mod workshop;

/// What a step of a test returns: an error is a sentence a person can act on.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
