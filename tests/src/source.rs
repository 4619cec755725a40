//! The source files of the workspace, and their text without what the compiler does not read: a rule about code must
//! not stumble over a comment or a string that speaks of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// One file of Rust, by its path from the root of the workspace.
pub struct Source {
    /// Such as `worker/src/main.rs`.
    pub path: String,
    /// All of it.
    pub text: String,
    /// The same without comments and without what stands in strings; line for line.
    pub code: String,
}

impl Source {
    /// A file with this text.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: without_comments(text) }
    }

    /// The code up to the tests at the foot.
    pub fn code_before_tests(&self) -> &str {
        let is_tests = |at: &usize| {
            self.code[*at..].lines().nth(1).is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
        };
        let tests = self.code.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_tests);
        &self.code[..tests.unwrap_or(self.code.len())]
    }

    /// Lines that hold code, up to the tests at the foot.
    pub fn lines_of_code(&self) -> usize {
        self.code_before_tests().lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Whether the code holds this word, whole.
    pub fn has_word(&self, word: &str) -> bool {
        words(&self.code).any(|one| one == word)
    }

    /// What stands behind each `prefix::` in the code; of `prefix::{a::b, c}` both `a` and `c`.
    pub fn named_after(&self, prefix: &str) -> Vec<String> {
        let mut found = Vec::new();
        let prefix = format!("{prefix}::");
        for (at, _) in self.code.match_indices(&prefix) {
            let inside_a_word = self.code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
            if !inside_a_word {
                found.extend(heads(&self.code[at + prefix.len()..]));
            }
        }
        found
    }
}

/// Every `.rs` file of the workspace, but what is built.
pub fn all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for room in ["broker", "worker", "policy", "tests"] {
        collect(root, &root.join(room), &mut sources)?;
    }
    Ok(sources)
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) -> Result {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.ends_with("target") {
            collect(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::new(&path.strip_prefix(root)?.to_string_lossy(), &fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty())
}

/// The first word, or the first word of each part where a list in braces follows.
fn heads(rest: &str) -> Vec<String> {
    let Some(list) = rest.strip_prefix('{') else { return words(rest).take(1).map(str::to_owned).collect() };
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for letter in list.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                part.push(letter);
            }
        }
    }
    parts.push(part);
    parts.iter().filter_map(|part| words(part).next()).map(str::to_owned).collect()
}

/// Blanks comments and the inside of strings; every newline stays.
fn without_comments(text: &str) -> String {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| string(rest)).or_else(|| character(rest));
        let length = match skipped {
            Some(length) => {
                code.extend(rest[..length].chars().filter(|letter| *letter == '\n'));
                code.push(' ');
                length
            }
            None => {
                code.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    code
}

/// The length of the comment that begins here.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

/// The length of the string that begins here, raw or not.
fn string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r').map(|rest| rest.len() - rest.trim_start_matches('#').len());
    if let Some(hashes) = hashes.filter(|hashes| text[1 + hashes..].starts_with('"')) {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = hashes + 2;
        return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
    }
    text.starts_with('"').then(|| {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|(_, letter)| {
            let ends = *letter == '"' && !escaped;
            escaped = *letter == '\\' && !escaped;
            ends
        });
        end.map_or(text.len(), |(at, _)| at + 1)
    })
}

/// The length of the character that begins here; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let length = match inside.strip_prefix('\\') {
        Some(escape) => 1 + escape.chars().next()?.len_utf8() + escape[1..].find('\'')?,
        None => inside.chars().next()?.len_utf8(),
    };
    inside[length..].starts_with('\'').then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked() {
        let text =
            "a // unsafe\nb /* unsafe\n*/ c \"unsafe \\\" unsafe\" d r#\"unsafe \" \"# e '\"' f '\\'' g<'a> // x";
        let source = Source::new("x.rs", text);
        assert!(!source.has_word("unsafe"), "{}", source.code);
        for word in ["a", "b", "c", "d", "e", "f", "g"] {
            assert!(source.has_word(word), "{word}: {}", source.code);
        }
        assert_eq!(source.code.lines().count(), text.lines().count());
    }

    #[test]
    fn what_is_named_behind_a_prefix_is_found() {
        let source = Source::new("x.rs", "use crate::{a::{b, c}, d as e};\nfn f() { crate::g::h(); notcrate::i() }");
        assert_eq!(source.named_after("crate"), ["a", "d", "g"]);
    }

    #[test]
    fn lines_of_code_end_at_the_tests() {
        let source = Source::new("x.rs", "//! doc\n\nuse a;\n// why\nfn b() {}\n#[cfg(test)]\nmod tests {\n}\n");
        assert_eq!(source.lines_of_code(), 2);
    }
}
