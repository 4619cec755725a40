//! The magic numbers and flags of the format as a dictionary of libFuzzer and AFL++, read from the worker's source.

use std::fmt::Write;

use super::grammar::SOURCES;

/// The flags of the features, which stand in the contract.
const FEATURES: &str = include_str!("../../../policy/src/feature.rs");

/// One entry a line: `name="\x53\xef"`.
pub fn dictionary() -> String {
    let mut text = String::new();
    let mut seen = std::collections::BTreeSet::new();
    for (source, big_endian) in SOURCES.iter().copied().chain([(FEATURES, false)]) {
        for (name, value, width) in source.lines().filter_map(constant) {
            let mut bytes = value.to_le_bytes()[..width].to_vec();
            if big_endian {
                bytes.reverse();
            }
            if !seen.insert(bytes.clone()) {
                continue;
            }
            let escaped = bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "\\x{byte:02x}");
                text
            });
            let _ = writeln!(text, "{}=\"{escaped}\"", name.to_lowercase());
        }
    }
    text
}

/// A constant that is a number: its name, the number, and how many bytes it has.
fn constant(line: &str) -> Option<(&str, u64, usize)> {
    let line = line.trim().trim_start_matches("pub(super) ").trim_start_matches("pub ");
    let (name, value) = line.strip_prefix("const ")?.strip_suffix(';')?.split_once(" = ")?;
    let value = value.replace('_', "");
    let number = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => value.parse().ok()?,
    };
    // Flags have no type of their own: all are 32 bits.
    let (name, kind) = name.split_once(": ").unwrap_or((name, "u32"));
    let width = match kind {
        "u8" => 1,
        "u16" => 2,
        "u32" => 4,
        "u64" => 8,
        _ => return None,
    };
    Some((name, number, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_numbers_and_flags_are_in_it() {
        let text = dictionary();
        for line in [r#"superblock_magic="\x53\xef""#, r#"magic="\xc0\x3b\x39\x98""#, r#"extent_magic="\x0a\xf3""#] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
        assert!(text.lines().count() > 40, "{text}");
    }
}
