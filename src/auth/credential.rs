//! The token in a request's headers (RFC 6750 section 2.1); tokens in the query or the body are no tokens.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap};

use super::refusal::{Reason, Refusal};
use crate::tokens::{Shape, TokenHash};

/// Characters of a token: shorter ones can be guessed, longer ones are no tokens.
const TOKEN_LEN: std::ops::RangeInclusive<usize> = 8..=512;

/// A token as a client sent it. It doesn't print.
pub(super) struct Credential<'a> {
    text: &'a str,
    shape: Shape<'a>,
    /// The hash of the whole text.
    pub(super) hash: TokenHash,
}

/// A record that a credential may belong to.
pub(super) struct Candidate {
    /// Where Redis would keep it.
    pub(super) id: String,
    /// The hash that the record must hold.
    pub(super) hash: TokenHash,
}

impl<'a> Credential<'a> {
    /// Takes the token out of the headers. `prefix` is what own tokens start with, before the underscore.
    ///
    /// # Errors
    /// [`Refusal::Missing`], [`Refusal::Repeated`], or [`Reason::Malformed`].
    pub(super) fn from_headers(headers: &'a HeaderMap, prefix: &str) -> Result<Self, Refusal> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let line = lines.next().ok_or(Refusal::Missing)?;
        // Callgate and an upstream could disagree on which line counts.
        if lines.next().is_some() {
            return Err(Refusal::Repeated);
        }
        let text = bearer(line.as_bytes())?;
        let shape = Shape::of(text, prefix);
        if shape == Shape::Broken {
            return Err(Refusal::Invalid(Reason::Malformed));
        }
        Ok(Self { text, shape, hash: TokenHash::of(text) })
    }

    /// The hash of what follows the first `|`, if there is one: Laravel Sanctum's `id|secret` is stored as SHA-256 of `secret`.
    pub(super) fn hash_behind_bar(&self) -> Option<TokenHash> {
        self.text.split_once('|').map(|(_, secret)| TokenHash::of(secret))
    }

    /// The records to ask a store for that finds by id: one for own tokens, up to two otherwise, the likelier first.
    pub(super) fn candidates(&self) -> (Candidate, Option<Candidate>) {
        let by_hash = |hash: TokenHash| Candidate { id: hash.derived_id(), hash };
        match self.shape {
            Shape::Own { id, current_prefix } => {
                let own = Candidate { id: id.to_owned(), hash: self.hash };
                // One of another prefix may also have been registered by its hash.
                (own, (!current_prefix).then(|| by_hash(self.hash)))
            }
            Shape::Foreign | Shape::Broken => match self.hash_behind_bar() {
                Some(behind) => (by_hash(behind), Some(by_hash(self.hash))),
                None => (by_hash(self.hash), None),
            },
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential([hidden])")
    }
}

/// The token in `Bearer 1*SP token`; the scheme is compared without case (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Result<&str, Refusal> {
    const MALFORMED: Refusal = Refusal::Invalid(Reason::Malformed);
    let end = value.iter().position(|&byte| byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Refusal::Missing);
    }
    let token = &rest[rest.iter().position(|&byte| byte != b' ').unwrap_or(rest.len())..];
    let padding = token.iter().rev().take_while(|&&byte| byte == b'=').count();
    let significant = &token[..token.len() - padding];
    if !TOKEN_LEN.contains(&token.len()) || significant.is_empty() || !significant.iter().all(|&byte| is_token(byte)) {
        return Err(MALFORMED);
    }
    std::str::from_utf8(token).map_err(|_| MALFORMED)
}

/// The characters of RFC 6750's `b64token`, and `|` for Laravel Sanctum.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'|')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn refusal(value: &[u8]) -> Option<Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        Credential::from_headers(&headers, "kal_live").err()
    }

    #[test]
    fn the_syntax_of_rfc_6750_and_no_other() {
        let long = format!("Bearer {}", "a".repeat(512));
        for good in [
            "Bearer abcdefgh",
            "bearer abcdefgh",
            "BEARER   abcdefgh",
            "Bearer aZ09-._~+/|=",
            "Bearer abcdefg==",
            &long,
        ] {
            assert_eq!(refusal(good.as_bytes()), None, "{good}");
        }
        let too_long = format!("Bearer {}", "a".repeat(513));
        let bad = [
            "Bearer",
            "Bearer ",
            "Bearer abcdefg",
            "Bearer abcd efgh",
            "Bearer abcdefgh, Bearer abcdefgh",
            "Bearer =abcdefgh",
            "Bearer ========",
            "Bearer abc=defgh",
            "Bearer \"abcdefgh\"",
            "Bearer abcdefgé",
            "Bearer abcdefgh\t",
            "Bearer kal_live_abc",
            &too_long,
        ];
        for bad in bad {
            assert_eq!(refusal(bad.as_bytes()), Some(Refusal::Invalid(Reason::Malformed)), "{bad}");
        }
        assert_eq!(refusal(b"Bearer \xff\xff\xff\xff\xff\xff\xff\xff"), Some(Refusal::Invalid(Reason::Malformed)));
    }

    #[test]
    fn another_scheme_is_no_token() {
        for other in ["Basic dXNlcjpwYXNz", "", "Bearerabcdefgh", "Bearer\tabcdefgh", "Digest username=x"] {
            assert_eq!(refusal(other.as_bytes()), Some(Refusal::Missing), "{other}");
        }
        assert_eq!(Credential::from_headers(&HeaderMap::new(), "p").err(), Some(Refusal::Missing));
    }

    #[test]
    fn two_lines_are_refused_whatever_they_say() {
        for second in ["Bearer abcdefgh", "Basic dXNlcjpwYXNz", ""] {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer abcdefgh"));
            headers.append(AUTHORIZATION, HeaderValue::from_str(second).unwrap());
            assert_eq!(Credential::from_headers(&headers, "p").err(), Some(Refusal::Repeated));
        }
    }

    #[test]
    fn a_bar_gives_two_candidates() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer 17|abcdef|gh"));
        let credential = Credential::from_headers(&headers, "p").unwrap();
        let (first, second) = credential.candidates();
        assert!(first.hash == TokenHash::of("abcdef|gh") && first.id == first.hash.derived_id());
        assert!(second.unwrap().hash == TokenHash::of("17|abcdef|gh"));
        assert_eq!(format!("{credential:?}"), "Credential([hidden])");
    }
}
