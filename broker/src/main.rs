//! The program `lazaret`, under each of its names: all of it is the library beside this.

use std::process::ExitCode;

fn main() -> ExitCode {
    lazaret_broker::run()
}
