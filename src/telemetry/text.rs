//! Text put together piece by piece, without the machinery of `format!` where that would be dear.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

pub(super) fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    // A `String` takes everything.
    let _ = line.write_fmt(text);
}

/// A key, and a text as a JSON string.
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

/// A JSON string: no control character of a client reaches the terminal of who reads the log.
pub(super) fn push_json_string(line: &mut String, text: &str) {
    line.push('"');
    if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\')) {
        line.push_str(text);
        line.push('"');
        return;
    }
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => push(line, format_args!("\\u{:04x}", u32::from(character))),
            other => line.push(other),
        }
    }
    line.push('"');
}

/// An address. That of version 4 costs a twentieth of what its `Display` does.
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
    fn an_address_reads_as_it_does_everywhere() {
        for address in ["0.0.0.0", "127.0.0.1", "203.0.113.255", "::1", "2001:db8::7"] {
            let mut line = "at ".to_owned();
            push_ip(&mut line, address.parse().unwrap());
            assert_eq!(line, format!("at {address}"));
        }
    }
}
