//! The text of a configuration file without the secrets in it, for people who may look at a running instance.

use super::yaml::{self, YamlNode, YamlValue};

const REDACTED: &str = "[redacted]";
/// Keys whose values are secrets, or as good as.
const SECRET_KEYS: [&str; 2] = ["password", "sha256"];
/// Shown instead, where a secret is written in a form that is not found.
const HIDDEN: &str = "# Not shown: a secret in it is written in several lines, or with a default.\n";

/// Replaces passwords and hashes where they are written. References such as `${NAME}` stay. The result is read once more: if it still
/// holds a secret, nothing of it is shown.
pub(super) fn redacted(text: &str) -> String {
    let text: String = text.split_inclusive('\n').map(redacted_line).collect();
    match yaml::parse(&text, usize::MAX) {
        Ok(root) if !holds_secret(&root) => text,
        Ok(_) | Err(_) => HIDDEN.to_owned(),
    }
}

/// Whether a secret is left under its key, or in a URL.
fn holds_secret(node: &YamlNode) -> bool {
    match &node.value {
        YamlValue::Map(entries) => entries.iter().any(|entry| {
            let is_secret = SECRET_KEYS.contains(&&*entry.key) && !is_harmless(&entry.node);
            is_secret || holds_secret(&entry.node)
        }),
        YamlValue::List(items) => items.iter().any(holds_secret),
        value => value.as_text().is_some_and(|text| redacted_line(text) != text),
    }
}

/// Whether a value is redacted, or says only where the secret is.
fn is_harmless(node: &YamlNode) -> bool {
    match &node.value {
        YamlValue::List(items) => matches!(&items[..], [item] if item.value.is_text("redacted")),
        value => value.as_text().is_some_and(|text| text.is_empty() || is_reference(text)),
    }
}

/// Whether a text is `${NAME}` and nothing else: a default is a secret in the file.
fn is_reference(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// By its keys, and by the form of URLs with a login.
fn redacted_line(line: &str) -> String {
    let mut line = line.to_owned();
    for key in SECRET_KEYS {
        let mut from = 0;
        while let Some(at) = line[from..].find(key).map(|at| from + at) {
            from = at + key.len();
            let in_flow = line[..at].contains('{');
            let rest = &line[from..];
            // The key may be quoted itself.
            let value = rest.trim_start_matches(['"', '\'']).trim_start().strip_prefix(':').map(str::trim_start);
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            let start = line.len() - value.len();
            let end = start + value_len(value, in_flow);
            if !is_reference(line[start..end].trim_matches(['"', '\''])) {
                line.replace_range(start..end, REDACTED);
                from = start + REDACTED.len();
            }
        }
    }
    let mut from = 0;
    while let Some(at) = line[from..].find("://").map(|at| from + at + 3) {
        from = at;
        let authority = line[at..].find(['/', '"', '\'', ' ', ',', '\n', '}']).map_or(line.len(), |end| at + end);
        // A password may hold what ends other parts, but no `@`.
        let Some(end) =
            line[at..].find('@').map(|end| at + end).filter(|end| *end < authority || line[at..*end].contains(':'))
        else {
            continue;
        };
        if let Some(colon) = line[at..end].find(':').map(|colon| at + colon + 1)
            && !is_reference(&line[colon..end])
            && !line[colon..end].contains(' ')
        {
            line.replace_range(colon..end, REDACTED);
        }
    }
    line
}

/// Bytes of a scalar: to its closing quote; else, in a flow, to what ends it there, and otherwise to the end of its line.
fn value_len(value: &str, in_flow: bool) -> usize {
    let line = value.trim_end().len();
    let bytes = value.as_bytes();
    match bytes.first() {
        Some(b'"') => (1..line).find(|at| bytes[*at] == b'"' && !is_escaped(bytes, *at)).map_or(line, |end| end + 1),
        Some(b'\'') => {
            let mut at = 1;
            while at < line && (bytes[at] != b'\'' || bytes.get(at + 1) == Some(&b'\'')) {
                at += if bytes[at] == b'\'' { 2 } else { 1 };
            }
            (at + 1).min(line)
        }
        // What follows a reference is part of the value.
        Some(b'$') if in_flow && value.starts_with("${") => value.find('}').map_or(line, |close| {
            let end = value[close + 1..].find([',', '}']).map_or(line, |more| close + 1 + more);
            value[..end].trim_end().len()
        }),
        _ if in_flow => value.find([',', '}']).map_or(line, |end| value[..end].trim_end().len()),
        _ => line,
    }
}

/// Whether an odd number of backslashes stands before a byte.
fn is_escaped(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left_and_nothing_else_is_gone() {
        for (line, shown) in [
            ("password: hunter2\n", "password: [redacted]\n"),
            (
                "  - { name: ops, role: write, sha256: \"ab cd\" } # x\n",
                "  - { name: ops, role: write, sha256: [redacted] } # x\n",
            ),
            ("redis: { user: a, password: 'it', tls: true }", "redis: { user: a, password: [redacted], tls: true }"),
            ("{\"password\": \"a\", \"sha256\": \"b\"}", "{\"password\": [redacted], \"sha256\": [redacted]}"),
            ("password: ${REDIS_PASSWORD}\n", "password: ${REDIS_PASSWORD}\n"),
            ("url: \"redis://gate:p%40ss@10.0.0.1:6379/0\"\n", "url: \"redis://gate:[redacted]@10.0.0.1:6379/0\"\n"),
            ("url: \"redis://:secret@host\"", "url: \"redis://:[redacted]@host\""),
            ("url: redis://:${PASS}@host", "url: redis://:${PASS}@host"),
            (
                "endpoints: [\"http://10.0.0.11:3000\", \"http://a:1\"] # mail@x",
                "endpoints: [\"http://10.0.0.11:3000\", \"http://a:1\"] # mail@x",
            ),
            ("# the password is in a file\n", "# the password is in a file\n"),
            ("password: hunter2,sword}fish\n", "password: [redacted]\n"),
            (r#"password: "ab\"cdefghij""#, "password: [redacted]"),
            ("{ password: 'it''s-secret', tls: true }", "{ password: [redacted], tls: true }"),
            ("password: $hunter", "password: [redacted]"),
            ("url: redis://u:$p%40ss@h", "url: redis://u:[redacted]@h"),
            ("url: redis://:${P:-hunter2}@h", "url: redis://:[redacted]@h"),
        ] {
            assert_eq!(redacted_line(line), shown);
        }
    }

    #[test]
    fn a_text_whose_secrets_are_not_found_is_not_shown() {
        for text in [
            "admin: { tokens: [{ name: a,\n  sha256:\n    abcdef }] }\n",
            "sha256: >-\n  abcdef\n",
            "password:\n  hunter2\n",
            "password: \"one\n  two\"\n",
        ] {
            assert!(!["abcdef", "hunter2", "two"].iter().any(|secret| redacted(text).contains(secret)), "{text}");
        }
        for text in ["password: ${P}\n", "{ password: \"${P}\", sha256: [redacted] }\n"] {
            assert_eq!(redacted(text), text);
        }
        assert!(!redacted("a: { password: ${P:-hunter2} }\n").contains("hunter2"));
        assert!(!redacted("password: ${P}hunter2\n").contains("hunter2"));
    }

    #[test]
    fn the_text_of_a_configuration_is_kept_without_its_password() {
        let text = "store: { redis: { url: \"redis://gate:hunter2x@127.0.0.1:6379\" } }\n\
                    tls: { certificates: [{ cert: a, key: a }] }\nroutes: [{ path: /, upstream: a }]\n\
                    upstreams: { a: { endpoints: [\"http://a\"] } }\n";
        let config = super::super::parse("a.yaml".as_ref(), text, &|_| None).unwrap().config;
        assert_eq!(&*config.text, text.replace("hunter2x", "[redacted]"));
    }
}
