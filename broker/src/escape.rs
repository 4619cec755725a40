//! Bytes from outside (paths, names, labels) on their way to a terminal.
//!
//! What holds here: nothing that a terminal acts upon comes through, neither a control character nor one that turns
//! the direction of a line. Printable text of any language does.

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;

/// These bytes as text that a terminal only shows. A backslash is doubled, so that nothing can look escaped.
pub(crate) fn escaped<T: AsRef<OsStr> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped(text.as_ref().as_bytes())
}

/// Displays bytes escaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '\\' => f.write_str("\\\\")?,
                    ' '..='~' => f.write_char(letter)?,
                    '\0'..='\u{9f}' => write!(f, "\\x{:02x}", u32::from(letter))?,
                    _ if acts(letter) => write!(f, "\\u{{{:x}}}", u32::from(letter))?,
                    _ => f.write_char(letter)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Whether a character beyond ASCII is invisible, breaks a line, or turns the direction of what follows.
#[must_use]
pub fn acts(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}'
        | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        escaped(OsStr::from_bytes(bytes)).to_string()
    }

    #[test]
    fn text_stays_and_what_acts_is_spelt_out() {
        assert_eq!(shown(b"plain name.txt"), "plain name.txt");
        assert_eq!(shown("Überfluß, 文字".as_bytes()), "Überfluß, 文字");
        assert_eq!(shown(b"\x1b[31m\n\r\x07\x7f"), "\\x1b[31m\\x0a\\x0d\\x07\\x7f");
        assert_eq!(shown("\u{202e}gpj.exe\u{2066}\u{9b}".as_bytes()), "\\u{202e}gpj.exe\\u{2066}\\x9b");
        assert_eq!(shown(b"bad\xff\xfe"), "bad\\xff\\xfe");
        assert_eq!(shown(b"\\x1b"), "\\\\x1b");
    }

    #[test]
    fn no_byte_yields_a_control_character() {
        for byte in 0..=u8::MAX {
            assert!(!shown(&[byte]).chars().any(char::is_control), "{byte:#x}");
        }
        for letter in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = shown(letter.to_string().as_bytes());
            assert!(!text.chars().any(|letter| letter.is_control() || acts(letter)), "{letter:?}");
        }
    }
}
