//! The kernel's side of fuse-iomap, for a worker on a host whose kernel has none: the real program behind a socket in
//! the place of /dev/fuse.
//!
//! What holds here: nothing is taken from the worker's own source, every number and every rule is written down a second
//! time, from what the kernel series (version 7) does. A rule that the kernel enforces ends the test by its name; the
//! bytes of a file are taken from the image by the mappings alone, as the kernel would take them from the device.
//!
//! - [`wire`]: the numbers, and requests and answers as bytes.
//! - [`rules`]: what the kernel holds a mapping to.
//! - [`cache`]: the mappings that it keeps of a file, and forgets.
//! - [`line`]: the way to the worker.
//! - [`worker`]: starts the program and plays the broker.
//! - [`kernel`]: the connection, and what it knows of inodes.
//! - [`file`]: what programs do with a file: read, map, ask where it lies.
//! - [`compare`]: all of it, for every file of a mount.
//! - [`zone`]: the file system's own blocks, as dumpe2fs knows them.

pub mod cache;
pub mod compare;
pub mod file;
pub mod kernel;
pub mod line;
pub mod rules;
pub mod wire;
pub mod worker;
pub mod zone;
