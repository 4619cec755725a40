//! Where the root of the Debian lies that the tests enter, made if it is not there; for `make vm-stick`.

use std::process::ExitCode;

use lazaret_tests::debian::TRIXIE;

fn main() -> ExitCode {
    match TRIXIE.root() {
        Ok(root) => {
            println!("{}", root.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("debian: {error}");
            ExitCode::FAILURE
        }
    }
}
