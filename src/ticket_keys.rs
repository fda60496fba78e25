//! The file with the keys of session tickets: one key a line, the newest first.

use std::fmt;
use std::io::Read;
use std::path::Path;

use data_encoding::BASE64;

/// Keys of a file. Tickets live for half a day, so two are enough for a daily rotation.
const MAX_KEYS: usize = 16;
/// Bytes of a file with so many keys and some comments. Some files never end.
const MAX_BYTES: u64 = 64 << 10;

const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;

/// A line of the file: the base64 of 48 random bytes.
pub(crate) struct TicketKey {
    /// Marks the tickets of this key.
    pub(crate) name: [u8; NAME_BYTES],
    pub(crate) secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

/// The keys of a file, at least one. Empty lines and lines that start with `#` are skipped.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence about it. It repeats no key.
pub(crate) fn read(file: &Path) -> Result<Vec<TicketKey>, String> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("can't be read: {error} (it must hold lines of `openssl rand -base64 48`)"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<TicketKey>, String> {
    let mut keys: Vec<(usize, TicketKey)> = Vec::new();
    let lines = text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let key = key(line).ok_or_else(|| {
            format!("has no key on line {number}: 48 random bytes in base64, 64 characters (`openssl rand -base64 48`)")
        })?;
        if let Some((first, _)) = keys.iter().find(|(_, other)| other.name == key.name) {
            return Err(format!("has the key of line {first} on line {number} again (delete one of them)"));
        }
        keys.push((number, key));
    }
    match keys.len() {
        0 => Err("holds no key (write one into it: `openssl rand -base64 48`)".to_owned()),
        1..=MAX_KEYS => Ok(keys.into_iter().map(|(_, key)| key).collect()),
        count => Err(format!("has {count} keys, and {MAX_KEYS} are the most (delete the oldest, which come last)")),
    }
}

fn key(line: &str) -> Option<TicketKey> {
    let bytes: [u8; NAME_BYTES + SECRET_BYTES] = BASE64.decode(line.as_bytes()).ok()?.try_into().ok()?;
    let (name, secret) = bytes.split_first_chunk()?;
    Some(TicketKey { name: *name, secret: secret.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(byte: u8) -> String {
        BASE64.encode(&[byte; 48])
    }

    #[test]
    fn keys_are_read_in_their_order() {
        let text = format!("# the newest first\n{}\r\n\n  {}\n", line(2), line(1));
        let names: Vec<u8> = parse(&text).unwrap().iter().map(|key| key.name[0]).collect();
        assert_eq!(names, [2, 1]);
        let shown = format!("{:?}", parse(&text).unwrap());
        assert_eq!(shown, "[TicketKey, TicketKey]");
    }

    #[test]
    fn what_is_no_key_is_reported_without_repeating_it() {
        for (text, wanted) in [
            (String::new(), "holds no key"),
            ("# nothing\n".to_owned(), "holds no key"),
            (format!("{}\nsecret\n", line(1)), "has no key on line 2: "),
            (BASE64.encode(&[1; 32]), "has no key on line 1: "),
            (BASE64.encode(&[1; 80]), "has no key on line 1: "),
            (format!("{}\n\n{}", line(1), line(1)), "has the key of line 1 on line 3 again"),
            ((1..=17).map(|byte| line(byte) + "\n").collect(), "has 17 keys, and 16 are the most"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(wanted) && !error.contains("secret") && !error.contains("AQEB"), "{error}");
        }
    }
}
