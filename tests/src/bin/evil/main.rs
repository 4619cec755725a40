//! A worker that is already lost (`lazaret_tests::evil`): it goes through the real start order, and then does what the
//! first bytes of its image say.
//!
//! What holds here: confinement, the heap, the handlers of signals, the handshake and the mapping are the shipped
//! worker's own code; what is wrong with this worker was written into a copy of this binary by the test.

mod answer;
mod bomb;
mod double;
mod life;
mod serve;
mod sweep;

use lazaret_tests::evil::MARK;

lazaret_worker::fixed_memory!();

/// The mark of [`MARK`], and the weakness behind it.
static MARKED: [u8; 26] = *b"LAZARET-EVIL-WEAKNESS=0000";

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("sweep") => sweep::main(),
        Some("mount") => double::main(),
        _ => life::main(weakness()),
    }
}

/// What is wrong with this copy.
fn weakness() -> u16 {
    let marked = std::hint::black_box(&MARKED);
    let digits = std::str::from_utf8(&marked[MARK.len()..]).unwrap_or_default();
    u16::from_str_radix(digits, 16).unwrap_or_default()
}
