//! Text built piece by piece, without `format!` where that costs too much.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

pub(super) fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` never fails.
    let _ = line.write_fmt(text);
}

/// A comma, a JSON key and a text.
pub(super) fn push_text(line: &mut String, key: &str, value: &str) {
    line.push_str(",\"");
    line.push_str(key);
    line.push_str("\":");
    push_json_string(line, value);
}

pub(super) fn push_number(line: &mut String, before: &str, number: u64) {
    line.push_str(before);
    line.push_str(itoa::Buffer::new().format(number));
}

/// A duration in milliseconds, with three decimals.
pub(super) fn push_millis(line: &mut String, before: &str, took: Duration) {
    // 64 bits of microseconds outlast every request.
    let micros = took.as_micros() as u64;
    push_number(line, before, micros / 1000);
    let decimals = 1000 + micros % 1000;
    line.push('.');
    line.push_str(&itoa::Buffer::new().format(decimals)[1..]);
}

/// A JSON string.
pub(super) fn push_json_string(line: &mut String, text: &str) {
    line.push('"');
    // Without a way out in the middle, so that many bytes are compared at a time.
    let is_plain = |byte: u8| (0x20..=0x7e).contains(&byte) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |so_far, byte| so_far & is_plain(byte)) {
        line.push_str(text);
    } else {
        push_visible(line, &text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    line.push('"');
}

/// A line in which everything is visible and in its place: what would control a terminal, break the line, or change the order in which
/// it is read is escaped as in JSON.
pub(super) fn visible_line(line: &str) -> Cow<'_, str> {
    let text = line.strip_suffix('\n').unwrap_or(line);
    if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return line.into();
    }
    let mut visible = String::with_capacity(line.len() + 32);
    push_visible(&mut visible, text);
    visible.push_str(&line[text.len()..]);
    visible.into()
}

/// The same for the last line of a text, which begins at `begin`.
pub(super) fn make_visible(text: &mut String, begin: usize) {
    if let Cow::Owned(visible) = visible_line(&text[begin..]) {
        text.truncate(begin);
        text.push_str(&visible);
    }
}

pub(super) fn push_visible(line: &mut String, text: &str) {
    for character in text.chars() {
        if !is_hidden(character) {
            line.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            push(line, format_args!("\\u{unit:04x}"));
        }
    }
}

/// Controls, line and paragraph separators, marks of direction, and characters without a width.
const fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// An address. For IPv4, this takes a twentieth of the time of its `Display`.
pub(crate) fn push_ip(line: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address else { return push(line, format_args!("{address}")) };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            line.push('.');
        }
        line.push_str(itoa::Buffer::new().format(octet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_characters_are_left_as_they_are() {
        let line = "/é/\u{9b}31m\u{202e}\u{2028}\u{e0041}\nforged\u{1b}\\\n";
        assert_eq!(visible_line(line), "/é/\\u009b31m\\u202e\\u2028\\udb40\\udc41\\u000aforged\\u001b\\\n");
        assert!(matches!(visible_line("an \"ordinary\" line\n"), Cow::Borrowed(_)));
        let mut line = String::new();
        push_json_string(&mut line, "a\"\\\u{202e}");
        assert_eq!(line, r#""a\"\\\u202e""#);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), "a\"\\\u{202e}");
    }

    #[test]
    fn an_address_looks_as_its_display() {
        for address in ["0.0.0.0", "127.0.0.1", "203.0.113.255", "::1", "2001:db8::7"] {
            let mut line = "at ".to_owned();
            push_ip(&mut line, address.parse().unwrap());
            assert_eq!(line, format!("at {address}"));
        }
    }
}
