//! `make prove` ends with this: one line a promise of SECURITY.md, by the records that the proving tests have left.

use std::path::Path;
use std::process::ExitCode;

use lazaret_tests::prove::{promises, verdicts};

fn main() -> ExitCode {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md");
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let records = std::env::args_os().nth(1).ok_or_else(|| "prove RECORDS".to_owned());
    match (read(&page), records.and_then(|path| read(Path::new(&path)))) {
        (Ok(page), Ok(records)) => {
            let (text, good) = verdicts(&promises(&page), &records);
            print!("{text}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("prove: {error}");
            ExitCode::FAILURE
        }
    }
}
