//! The rooms of the worker, and who may use whom: `main → {fuse, tool} → {partition, ext4} → device`, never back.
//!
//! - [`device`]: the medium. Copies bytes out, checks every range; a bad sector is an error and not a signal.
//! - [`partition`]: MBR and GPT, where the file systems lie on a whole device.
//! - [`ext4`]: an ext2, ext3 or ext4 file system on a device. Knows nothing of FUSE.
//! - [`fuse`]: the talk with the kernel. Knows the file system only through [`ext4::Filesystem`].
//! - [`memory`]: the heap of fixed size that a confined worker lives in. None of the rooms knows it.
//! - [`tool`]: the same file system, answered over the channel for those who look without mounting.
//!
//! Every room may name an [`error`] and enter it in the [`ledger`] of the damage that was met.

pub mod device;
pub mod error;
pub mod ext4;
pub mod fuse;
mod layout;
pub mod ledger;
pub mod memory;
pub mod partition;
pub mod tool;
