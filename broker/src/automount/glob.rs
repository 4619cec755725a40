//! Patterns with `*` and `?`, as a policy has them for labels and serial numbers.
//!
//! What holds here: the text comes from a stick and may be anything; the time taken is at most the product of the two
//! lengths. Other signs of a shell's patterns are plain letters, so there is no library for it here.

/// Whether the whole text is as the pattern says: `*` stands for any letters or none, `?` for one.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut next) = (0, 0);
    // The last `*`, and up to where it reaches so far.
    let mut star: Option<(usize, usize)> = None;
    while next < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, next));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[next] => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((place, reach)) = star else { return false };
                star = Some((place, reach + 1));
                at = place + 1;
                next = reach + 1;
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_is_matched() {
        for (pattern, text) in [("", ""), ("*", ""), ("*", "any"), ("a?c", "abc"), ("a*c", "ac"), ("a*b*c", "aXbYbc")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("?", ""), ("a", "ab"), ("a*c", "acb"), ("a?c", "ac"), ("[a]", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(matches("KIOSK-??*", "KIOSK-äöü") && matches("a\\*", "a\\b"));
    }

    #[test]
    fn a_text_made_to_take_long_does_not() {
        let start = std::time::Instant::now();
        assert!(!matches(&"*a".repeat(128), &"a".repeat(127)));
        assert!(!matches(&format!("{}b", "*a".repeat(100)), &"a".repeat(1000)));
        assert!(start.elapsed() < std::time::Duration::from_secs(1));
    }
}
