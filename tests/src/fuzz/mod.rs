//! Fuzzing the worker: what an input is, what is done with it, and what must hold whatever it is.
//!
//! The targets are plain functions of this package, so that the checks run them over the committed corpus with any
//! compiler; `tests/fuzz` makes programs of them for libFuzzer and AFL++.
//!
//! - [`target`]: all targets by name, each with its mutator and its first inputs.
//! - [`corpus`]: the inputs that are kept.
//! - [`stock`], [`scratch`]: sound images, and one that is changed for one input and whole again for the next.
//! - [`image`]: inputs that are changes of a whole image; [`window`]: those that are the bytes of one structure;
//!   `unsealed`: the ones that must be refused.
//! - [`tour`]: everything that can be asked of a file system, and what must hold of the answers;
//!   [`own`]: what no file may hold.
//! - [`grammar`], [`dictionary`], [`mutator`]: the fields and numbers of the format, read from the worker's source, and
//!   what is done to them.
//! - [`changing`]: a device that answers otherwise the next time; [`disk`]: partition tables.
//! - [`requests`], [`mappings`], [`messages`]: what the kernel and the broker send.

pub mod changing;
pub mod corpus;
pub mod dictionary;
pub mod disk;
pub mod grammar;
pub mod image;
pub mod mappings;
pub mod messages;
pub mod mutator;
pub mod own;
pub mod requests;
pub mod scratch;
mod session;
pub mod stock;
pub mod target;
pub mod tour;
mod unsealed;
pub mod window;
