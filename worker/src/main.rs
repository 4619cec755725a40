//! The life of a worker on one screen.
fn main() {}
