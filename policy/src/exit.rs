//! How a worker ends, as its parent sees it. The broker's own exit codes are those of mount(8).

/// The mount was ended, or the tool has no more questions.
pub const DONE: i32 = 0;
/// It refused: a [`crate::message::Report::Refused`] said why.
pub const REFUSED: i32 = 69;
/// A bug of the worker's: a [`crate::message::Report::Panicked`] said where.
pub const PANIC: i32 = 70;
/// A page of the mapping was gone where no copy was under way.
pub const BUS: i32 = 71;
/// The broker is gone, or spoke nonsense.
pub const CHANNEL: i32 = 72;
/// Its heap was used up where no error could be answered.
pub const MEMORY: i32 = 73;
/// It ran out of stack, or touched what is not mapped: SIGSEGV.
pub const FAULT: i32 = 74;
