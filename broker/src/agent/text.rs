//! Texts from outside on their way to a notification.
//!
//! What holds here: no control character, none that hides or turns a line, and no markup comes through, whether or not the
//! server reads markup, and whatever the daemon has let pass.

use lazaret_broker::acts;
use lazaret_policy::notice::TEXT;

/// The text as a server shows it and does nothing with it. With `markup` it reads entities; without, markup is spelt out for
/// those who read it all the same.
pub(crate) fn harmless(text: &str, markup: bool) -> String {
    let mut shown = String::new();
    for letter in text.chars().take(TEXT) {
        match letter {
            _ if letter.is_control() || acts(letter) => shown.push('?'),
            '<' | '>' | '&' if !markup => shown.push_str(&format!("\\x{:02x}", u32::from(letter))),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            _ => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text() {
        assert_eq!(harmless("R&D <b>", true), "R&amp;D &lt;b&gt;");
        assert_eq!(harmless("R&D <b>", false), "R\\x26D \\x3cb\\x3e");
        assert_eq!(harmless("&lt;img src='x'/&gt;", true), "&amp;lt;img src='x'/&amp;gt;");
    }

    #[test]
    fn no_letter_acts() {
        for letter in (0..=0x10_ffff).filter_map(char::from_u32) {
            for markup in [false, true] {
                let text = harmless(&letter.to_string(), markup);
                let bad = |letter: char| letter.is_control() || acts(letter) || "<>".contains(letter);
                assert!(!text.contains(bad) && (markup || !text.contains('&')), "{letter:?}: {text:?}");
            }
        }
        assert!(harmless(&"x".repeat(10_000), true).len() <= TEXT);
    }
}
