//! Standard output: text of ours, and bytes of an image in the form that its reader can bear.
//!
//! What holds here: on a terminal no byte of an image is written that a terminal acts upon; elsewhere names are the bytes
//! they are, as ls has it. JSON is ASCII, with everything else spelt out.

use crate::escape::escaped;
use crate::exit::{Code, Failure, words};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write};
use std::os::unix::ffi::OsStrExt;

/// Standard output.
pub(super) struct Output {
    to: BufWriter<Stdout>,
    terminal: bool,
}

impl Output {
    /// It, as it is.
    pub(super) fn new() -> Self {
        Self { to: BufWriter::with_capacity(1 << 16, std::io::stdout()), terminal: std::io::stdout().is_terminal() }
    }

    /// Whether a person sees it at once.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// How wide it is, in letters.
    pub(super) fn width(&self) -> usize {
        let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let seen = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
        told.or_else(seen).filter(|&width| width > 0).unwrap_or(80)
    }

    /// A name of the image as it is shown here.
    pub(super) fn name(&self, name: &[u8]) -> Vec<u8> {
        if self.terminal { escaped(OsStr::from_bytes(name)).to_string().into_bytes() } else { name.to_vec() }
    }

    /// Content of a file: on a terminal lines and tabs stay, and all else that acts is spelt out.
    pub(super) fn content(&mut self, bytes: &[u8], raw: bool) -> Result<(), Failure> {
        if raw || !self.terminal {
            return self.write(bytes);
        }
        for piece in bytes.split_inclusive(|&byte| matches!(byte, b'\n' | b'\t')) {
            let (text, end) = match piece.split_last() {
                Some((last, text)) if matches!(last, b'\n' | b'\t') => (text, std::slice::from_ref(last)),
                _ => (piece, &[][..]),
            };
            self.write(escaped(OsStr::from_bytes(text)).to_string().as_bytes())?;
            self.write(end)?;
        }
        Ok(())
    }

    /// One object on a line of its own.
    pub(super) fn object(&mut self, object: &Value) -> Result<(), Failure> {
        self.write(format!("{}\n", ascii(&object.to_string())).as_bytes())
    }

    /// Bytes that are shown as they are.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(unwritten)
    }

    /// All of it is out.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.to.flush().map_err(unwritten)
    }
}

/// A reader that has gone has seen enough, and needs no line about it.
fn unwritten(error: std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::said(Code::System as u8),
        _ => Failure::system(format!("stdout: {}", words(error))),
    }
}

/// The same JSON with every letter beyond ASCII, and DEL, as `\uXXXX`: outside of strings there is none.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            ' '..='~' => text.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    text
}

/// Text of an image for JSON: what is not UTF-8 is shown with U+FFFD, and its bytes in hexadecimal beside it.
pub(super) fn put_bytes(object: &mut Value, field: &str, bytes: &[u8]) {
    object[field] = Value::from(String::from_utf8_lossy(bytes));
    if std::str::from_utf8(bytes).is_err() {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        object[format!("{field}_bytes")] = Value::from(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_ascii_and_means_the_same() {
        let name = "ü\u{202e}\u{7f}\u{1f600}\u{1b}\"\\\u{9b}";
        let text = ascii(&json!({ "name": name }).to_string());
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["name"], name);
    }

    #[test]
    fn what_is_not_utf8_has_its_bytes_beside_it() {
        let mut object = json!({});
        put_bytes(&mut object, "name", b"a\xff");
        put_bytes(&mut object, "path", b"/a");
        assert_eq!(object, json!({ "name": "a\u{fffd}", "name_bytes": "61ff", "path": "/a" }));
    }

    #[test]
    fn a_terminal_gets_nothing_that_acts() {
        let mut output = Output { terminal: true, ..Output::new() };
        assert_eq!(output.name(b"\x1b[2J"), b"\\x1b[2J");
        output.terminal = false;
        assert_eq!(output.name(b"\x1b[2J"), b"\x1b[2J");
    }
}
