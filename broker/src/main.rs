//! Lazaret broker.
fn main() {}
