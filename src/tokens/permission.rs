//! Permissions: texts such as `calls:write`, held by tokens and asked by routes.

use std::collections::BTreeSet;

use crate::config::{Config, RouteAccess, hint};

/// Characters of a permission.
const MAX_LEN: usize = 100;

/// Whether a token that holds `held` may do what `asked` names: the same text, `*`, or `calls:*` for all that starts with `calls:`.
pub(crate) fn covers(held: &str, asked: &str) -> bool {
    if held == asked || held == "*" {
        return true;
    }
    // The star is cut off and the colon stays, so `calls:*` covers neither `calls` nor `callsign:read`.
    held.ends_with(":*") && asked.len() >= held.len() && asked.starts_with(&held[..held.len() - 1])
}

/// Whether a text is a permission: words of letters, digits, `.`, `_` and `-` joined by colons, the last of which may be `*`.
pub(super) fn is_permission(text: &str) -> bool {
    let words = text.strip_suffix(":*").unwrap_or(text);
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    text.len() <= MAX_LEN && (text == "*" || words.split(':').all(is_word))
}

/// A remark for each permission that no route of this configuration asks for: it may be mistyped.
pub(crate) fn strange_permissions(config: &Config, held: &[String]) -> Vec<String> {
    let asked = config.routes.iter().flat_map(|route| match &route.access {
        RouteAccess::Token(permissions) => &permissions[..],
        RouteAccess::Public => &[],
    });
    let asked: BTreeSet<&str> = asked.map(|permission| &**permission).collect();
    let is_strange = |held: &&String| *held != "*" && !asked.iter().any(|asked| covers(held, asked));
    let remark = |held: &String| format!("no route asks for \"{held}\"{}", hint(held, asked.iter().copied()));
    held.iter().filter(is_strange).map(remark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_expected() {
        for (held, asked) in [
            ("calls:read", "calls:read"),
            ("*", "calls:read"),
            ("*", "x"),
            ("calls:*", "calls:read"),
            ("calls:*", "calls:read:all"),
            ("calls:read:*", "calls:read:all"),
        ] {
            assert!(covers(held, asked), "{held} {asked}");
        }
        for (held, asked) in [
            ("calls:read", "calls:write"),
            ("calls:read", "calls:readable"),
            ("calls:*", "calls"),
            ("calls:*", "calls:"),
            ("calls:*", "callsign:read"),
            ("calls:read:*", "calls:read"),
            ("calls", "calls:read"),
            ("calls*", "calls:read"),
            ("calls:read", "*"),
            ("calls:read", "calls:*"),
            ("Calls:*", "calls:read"),
            ("", ""),
        ] {
            assert_eq!(covers(held, asked), held == asked, "{held} {asked}");
        }
    }

    #[test]
    fn only_plain_words_are_permissions() {
        for good in ["*", "calls", "calls:read", "calls:*", "a:b:c", "calls.v2:read-all", "a:b:*"] {
            assert!(is_permission(good), "{good}");
        }
        let long = "a".repeat(101);
        for bad in [
            "",
            ":",
            "calls:",
            ":read",
            "calls::read",
            "*:read",
            "calls:*:x",
            "calls*",
            "a b",
            "a,b",
            "é",
            "a\n",
            &long,
        ] {
            assert!(!is_permission(bad), "{bad}");
        }
    }
}
