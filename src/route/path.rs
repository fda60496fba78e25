//! Judges a request path: which forms in it another parser might read differently (RFC 3986 §2.3, §5.2.4, §6.2.2).

use std::borrow::Cow;

use crate::config::PathForms;

/// A path that can be matched.
#[derive(Debug, PartialEq, Eq)]
pub struct JudgedPath<'a> {
    /// The path with escapes of unreserved characters decoded: what routes are matched against.
    pub matched: Cow<'a, str>,
    /// Ambiguous forms found in it; a route must allow each of them by name.
    pub forms: PathForms,
}

/// Why a path can't be matched at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// `%` without two hexadecimal digits.
    #[error("the path holds a malformed escape")]
    MalformedEscape,
    /// An escaped control character, or a byte that is in no UTF-8 text.
    #[error("the path holds %{0:02X}, an escape of a byte that no path holds")]
    ForbiddenByte(u8),
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
}

/// Judges a path as received.
///
/// # Errors
/// [`PathFault`] for what no route can allow.
pub fn judge(path: &str) -> Result<JudgedPath<'_>, PathFault> {
    if !path.starts_with('/') {
        return Err(PathFault::NotAbsolute);
    }
    let mut forms = PathForms::default();
    let matched =
        if path.as_bytes().contains(&b'%') { Cow::Owned(decode(path, &mut forms)?) } else { Cow::Borrowed(path) };
    let mut previous = 0;
    for (at, byte) in matched.bytes().enumerate() {
        forms = match byte {
            b'/' if at > 0 && previous == b'/' => forms.with(PathForms::EMPTY_SEGMENTS),
            b'.' if previous == b'/' && is_dot_segment(&matched[at..]) => forms.with(PathForms::DOT_SEGMENTS),
            b'\\' => forms.with(PathForms::BACKSLASH),
            b';' => forms.with(PathForms::SEMICOLON),
            _ => forms,
        };
        previous = byte;
    }
    Ok(JudgedPath { matched, forms })
}

/// Whether a text begins with `.` or `..` as a whole segment. Some parsers end a segment at `;`, `\` or an escaped slash too.
fn is_dot_segment(text: &str) -> bool {
    let rest = text.strip_prefix("..").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    rest.is_empty() || rest.starts_with(['/', ';', '\\', '%'])
}

fn decode(path: &str, forms: &mut PathForms) -> Result<String, PathFault> {
    let mut decoded = String::with_capacity(path.len());
    let (mut rest, mut lead) = (path, 0);
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3).ok_or(PathFault::MalformedEscape)?;
        let byte = u8::from_str_radix(&escape[1..], 16).map_err(|_| PathFault::MalformedEscape)?;
        // `from_str_radix` takes a sign; an escape doesn't.
        if !escape.as_bytes()[1].is_ascii_hexdigit() {
            return Err(PathFault::MalformedEscape);
        }
        // The byte before it, if that was escaped too: a character that is written longer than it need be may be a slash.
        lead = if at == 0 { lead } else { 0 };
        match (std::mem::replace(&mut lead, byte), byte) {
            (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f) => return Err(PathFault::ForbiddenByte(byte)),
            _ => {}
        }
        match byte {
            b'\t' => *forms = forms.with(PathForms::ENCODED_TAB),
            b'\n' => *forms = forms.with(PathForms::ENCODED_LINE_FEED),
            b'\r' => *forms = forms.with(PathForms::ENCODED_RETURN),
            0x00..=0x1f | 0x7f | 0xc0 | 0xc1 | 0xf5.. => return Err(PathFault::ForbiddenByte(byte)),
            b'/' => *forms = forms.with(PathForms::ENCODED_SLASH),
            b'\\' => *forms = forms.with(PathForms::BACKSLASH),
            b';' => *forms = forms.with(PathForms::SEMICOLON),
            _ => {}
        }
        match char::from(byte) {
            plain @ ('A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '.' | '_' | '~') => decoded.push(plain),
            _ => decoded.push_str(escape),
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forms(path: &str) -> PathForms {
        judge(path).unwrap().forms
    }

    #[test]
    fn an_ordinary_path_is_matched_as_it_is() {
        let judged = judge("/api/v1/calls/a.b..c~d/%20x").unwrap();
        assert_eq!(judged, JudgedPath { matched: "/api/v1/calls/a.b..c~d/%20x".into(), forms: PathForms::default() });
        assert!(matches!(judge("/api/v1/calls").unwrap().matched, Cow::Borrowed(_)));
    }

    #[test]
    fn escapes_of_unreserved_characters_are_decoded_once() {
        assert_eq!(judge("/%61dmin").unwrap().matched, "/admin");
        assert_eq!(judge("/%2561dmin").unwrap().matched, "/%2561dmin");
    }

    #[test]
    fn every_ambiguous_form_is_seen() {
        for path in ["/./a", "/a/.", "/a/..", "/a/../b", "/%2e/a", "/a/%2E%2e/b", "/a/.%2e", "/..;/a", "/a/..%2fb"] {
            assert!(!forms(path).without(PathForms::default()).is_empty(), "{path}");
            assert!(forms(path).0 & PathForms::DOT_SEGMENTS.0 != 0, "{path}");
        }
        assert_eq!(forms("//a"), PathForms::EMPTY_SEGMENTS);
        assert_eq!(forms("/a//"), PathForms::EMPTY_SEGMENTS);
        assert_eq!(forms("/a%2fb"), PathForms::ENCODED_SLASH);
        assert_eq!(forms("/a%5Cb"), PathForms::BACKSLASH);
        assert_eq!(forms("/a\\b"), PathForms::BACKSLASH);
        assert_eq!(forms("/a;b=c"), PathForms::SEMICOLON);
        assert_eq!(forms("/a%3bb"), PathForms::SEMICOLON);
        assert_eq!(forms("/a%09b"), PathForms::ENCODED_TAB);
        assert_eq!(forms("/a%0A"), PathForms::ENCODED_LINE_FEED);
        assert_eq!(forms("/a%0db"), PathForms::ENCODED_RETURN);
    }

    #[test]
    fn forbidden_bytes_are_faults_whatever_the_route_allows() {
        for path in ["/%", "/%2", "/%zz", "/%+1", "/a%2"] {
            assert_eq!(judge(path), Err(PathFault::MalformedEscape), "{path}");
        }
        for (path, byte) in [
            ("/%00", 0),
            ("/a%0b%0a", 0x0b),
            ("/%7f", 0x7f),
            ("/%c0%ae", 0xc0),
            ("/%ff", 0xff),
            ("/%e0%80%af", 0x80),
            ("/a%F0%80%80%af", 0x80),
        ] {
            assert_eq!(judge(path), Err(PathFault::ForbiddenByte(byte)), "{path}");
        }
        assert_eq!(judge("*"), Err(PathFault::NotAbsolute));
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "/[ -~]{0,40}") {
            let _ = judge(&path);
        }

        #[test]
        fn a_path_without_forms_has_no_other_reading(path in "(/[a-z.%2eEfF5cC;]{0,6}){1,4}") {
            if let Ok(judged) = judge(&path) && judged.forms.is_empty() {
                let segments: Vec<_> = judged.matched.split('/').collect();
                prop_assert!(!segments.iter().any(|segment| *segment == "." || *segment == ".."));
                prop_assert!(!judged.matched.contains("//"));
                let lower = path.to_ascii_lowercase();
                prop_assert!(!lower.contains("%2f") && !lower.contains("%5c") && !lower.contains(';'));
            }
        }
    }
}
