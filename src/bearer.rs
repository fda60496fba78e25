//! The Bearer token in an `Authorization` header (RFC 6750 §2.1, RFC 9110 §11.6.2).

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Why a request has no usable Bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BearerError {
    /// No `Authorization` header, or one of another scheme.
    Missing,
    /// More than one `Authorization` line: two readers could disagree on which one counts.
    Repeated,
    /// The Bearer scheme without a token of its syntax.
    Malformed,
}

/// Returns the token of `Bearer 1*SP token`; the scheme is compared without case (RFC 9110 §11.1).
pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<&str, BearerError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let value = lines.next().ok_or(BearerError::Missing)?.as_bytes();
    if lines.next().is_some() {
        return Err(BearerError::Repeated);
    }
    let end = value.iter().position(|&byte| byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(BearerError::Missing);
    }
    let token = &rest[rest.iter().position(|&byte| byte != b' ').unwrap_or(rest.len())..];
    std::str::from_utf8(token).ok().filter(|token| is_bearer_token(token)).ok_or(BearerError::Malformed)
}

/// The characters of RFC 6750's `b64token` before its `=`, and `|`, for Laravel Sanctum.
const TOKEN_CHARS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_mark = matches!(byte as u8, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'|');
        table[byte] = is_mark || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// Whether a text has the syntax of a Bearer token.
pub(crate) fn is_bearer_token(text: &str) -> bool {
    let mut significant = text.as_bytes();
    while let [rest @ .., b'='] = significant {
        significant = rest;
    }
    !significant.is_empty() && significant.iter().all(|byte| TOKEN_CHARS[usize::from(*byte)])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(lines: &[&[u8]]) -> Result<String, BearerError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line).unwrap());
        }
        bearer_token(&headers).map(str::to_owned)
    }

    #[test]
    fn the_syntax_of_rfc_6750_and_no_other() {
        for (good, token) in [
            ("Bearer a", "a"),
            ("bearer abc", "abc"),
            ("BEARER   abc", "abc"),
            ("Bearer aZ09-._~+/|=", "aZ09-._~+/|="),
            ("Bearer abc==", "abc=="),
        ] {
            assert_eq!(parse(&[good.as_bytes()]).as_deref(), Ok(token));
        }
        for bad in [
            "Bearer",
            "Bearer ",
            "Bearer abc def",
            "Bearer abc, Bearer def",
            "Bearer =abc",
            "Bearer ====",
            "Bearer abc=def",
            "Bearer \"abc\"",
            "Bearer abcé",
            "Bearer abc\t",
        ] {
            assert_eq!(parse(&[bad.as_bytes()]), Err(BearerError::Malformed), "{bad}");
        }
        assert_eq!(parse(&[b"Bearer \xff\xff"]), Err(BearerError::Malformed));
    }

    #[test]
    fn another_scheme_is_no_bearer_token() {
        for other in ["Basic dXNlcjpwYXNz", "", "Bearerabc", "Bearer\tabc", "Digest username=x"] {
            assert_eq!(parse(&[other.as_bytes()]), Err(BearerError::Missing), "{other}");
        }
        assert_eq!(parse(&[]), Err(BearerError::Missing));
    }

    #[test]
    fn two_lines_are_refused_whatever_they_say() {
        for second in ["Bearer abc", "Basic dXNlcjpwYXNz", ""] {
            assert_eq!(parse(&[b"Bearer abc", second.as_bytes()]), Err(BearerError::Repeated));
        }
    }
}
