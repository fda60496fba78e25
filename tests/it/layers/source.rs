//! Reads Rust sources as far as the house rules need it: without comments, literals and tests, word by word.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below a folder of the repository, its path relative to the repository and with slashes.
pub(super) fn rust_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(folder != "src" || files.len() > 10, "the sources are found");
    files.sort();
    files
}

/// Whether a file is compiled for tests only, by its name.
pub(super) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The text with comments and the insides of literals blanked; lines stay where they are.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        match end {
            Some(end) => code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' })),
            None => code.push(chars[at]),
        }
        at = end.unwrap_or(at + 1);
    }
    code
}

/// Where the comment or literal ends that starts at `at`, if one does.
fn literal_or_comment_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let after = |length: usize| Some((at + length).min(chars.len()));
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => after(rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => {
            let (mut depth, mut i) = (0, 0);
            while i < rest.len() {
                match &rest[i..] {
                    ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
                    ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            after(i)
        }
        ['r', next @ ..] if !in_word || matches!(chars[at - 1], 'b' | 'c') => {
            let hashes = next.iter().take_while(|c| **c == '#').count();
            if next.get(hashes) != Some(&'"') {
                return None;
            }
            let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = hashes + 2;
            let length = rest[body..].windows(closing.len()).position(|window| window == closing);
            after(length.map_or(rest.len(), |length| body + length + closing.len()))
        }
        ['"', ..] => after(quoted_length(rest)),
        ['\'', '\\', ..] => after(quoted_length(rest)),
        ['\'', _, '\'', ..] => after(3),
        _ => None,
    }
}

/// The length of a literal with escapes that opens and closes with its first character.
fn quoted_length(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != rest[0] {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The code with every item blanked that is compiled for tests only.
pub(super) fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = code[from..].find("#[cfg(").map(|found| from + found) {
        let close = balanced_end(code, start + 1);
        let words: Vec<&str> = code[start..close].split(|c: char| !c.is_alphanumeric()).collect();
        from = close;
        if words.contains(&"test") && !words.contains(&"not") {
            from = item_end(code, close);
            bytes[start..from].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Where the item ends that starts behind `at`, further attributes included.
fn item_end(code: &str, at: usize) -> usize {
    let mut at = at + (code[at..].len() - code[at..].trim_start().len());
    while code[at..].starts_with("#[") {
        at = balanced_end(code, at + 1);
        at += code[at..].len() - code[at..].trim_start().len();
    }
    // The braces of an import are not its end.
    let ends_with_brace = !code[at..].trim_start_matches("pub ").starts_with("use ");
    while let Some(c) = code[at..].chars().next() {
        match c {
            ';' => return at + 1,
            '{' if ends_with_brace => return balanced_end(code, at),
            '{' | '(' | '[' => at = balanced_end(code, at),
            _ => at += c.len_utf8(),
        }
    }
    at
}

/// Where the bracket closes that opens at `at`.
fn balanced_end(code: &str, at: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[at..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + i + c.len_utf8();
        }
    }
    code.len()
}

/// Words, `::` and single other characters, each with its line.
pub(super) fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            found.push((index + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    found
}
