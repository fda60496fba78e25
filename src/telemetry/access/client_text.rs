//! What clients choose, as the log has it: without secrets of tokens, and not longer than allowed.

use std::borrow::Cow;

use http::{Method, Uri};

/// Bytes of a method that are logged.
const MAX_METHOD_BYTES: usize = 32;

/// A text without secrets of tokens, cut after `max` bytes.
pub(super) fn logged(text: &str, max: usize) -> Cow<'_, str> {
    match without_secrets(text) {
        long if long.len() > max => (long[..long.floor_char_boundary(max)].to_owned() + "…").into(),
        short => short,
    }
}

/// The path; a hyphen where the target has none.
pub(super) fn logged_path(uri: &Uri, max: usize) -> Cow<'_, str> {
    match uri.path() {
        "" => "-".into(),
        path => logged(path, max),
    }
}

pub(super) fn logged_method(method: &Method) -> &str {
    // Methods are ASCII.
    &method.as_str()[..method.as_str().len().min(MAX_METHOD_BYTES)]
}

/// The text with each of Callgate's tokens cut after its id. After its prefix and an underscore (which may be escaped), a
/// token has 45 letters and digits, of which the first 12 are the id. Its checksum is not verified.
fn without_secrets(text: &str) -> Cow<'_, str> {
    const ID: usize = 12;
    const BODY: usize = 45;
    let bytes = text.as_bytes();
    if !has_run(bytes, BODY) {
        return text.into();
    }
    let mut logged = String::new();
    let mut from = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| matches!(**byte, b'_' | b'F' | b'f')) {
        let escaped = bytes[at] != b'_';
        if at < from || (escaped && !bytes[..at].ends_with(b"%5")) {
            continue;
        }
        let run = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if run == BODY {
            logged.push_str(&text[from..=at + ID]);
            logged.push('…');
            from = at + 1 + BODY;
        }
    }
    if from == 0 {
        return text.into();
    }
    logged.push_str(&text[from..]);
    logged.into()
}

/// Whether so many letters and digits follow each other. Such a run covers one of the places that are looked at, so most bytes are not.
fn has_run(bytes: &[u8], length: usize) -> bool {
    (length - 1..bytes.len()).step_by(length).any(|at| {
        let (before, after) = bytes.split_at(at);
        let after = after.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let before = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        after > 0 && before + after >= length
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_wherever_it_begins() {
        for begin in 0..100 {
            let text = |length: usize| format!("{}{}-b", "-".repeat(begin), "a".repeat(length));
            assert!(has_run(text(45).as_bytes(), 45) && has_run(text(60).as_bytes(), 45), "{begin}");
            assert!(!has_run(text(44).as_bytes(), 45), "{begin}");
        }
    }
}
