//! The token in a request's headers (RFC 6750 section 2.1); tokens in the query or the body are no tokens.

use http::HeaderMap;

use super::refusal::{Reason, Refusal};
use crate::bearer::{BearerError, bearer_token};
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
        let text = bearer_token(headers).map_err(|error| match error {
            BearerError::Missing => Refusal::Missing,
            BearerError::Repeated => Refusal::Repeated,
            BearerError::Malformed => Refusal::Invalid(Reason::Malformed),
        })?;
        let shape = if TOKEN_LEN.contains(&text.len()) { Shape::of(text, prefix) } else { Shape::Broken };
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    fn refusal(value: &[u8]) -> Option<Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        Credential::from_headers(&headers, "kal_live").err()
    }

    #[test]
    fn tokens_have_a_bounded_length_and_own_ones_their_checksum() {
        let [long, too_long] = [512, 513].map(|length| format!("Bearer {}", "a".repeat(length)));
        for good in ["Bearer abcdefgh", "Bearer abcdefg==", &long] {
            assert_eq!(refusal(good.as_bytes()), None, "{good}");
        }
        for bad in ["Bearer", "Bearer abcdefg", "Bearer abcd efgh", "Bearer kal_live_abc", &too_long] {
            assert_eq!(refusal(bad.as_bytes()), Some(Refusal::Invalid(Reason::Malformed)), "{bad}");
        }
        assert_eq!(refusal(b"Basic dXNlcjpwYXNz"), Some(Refusal::Missing));
    }

    #[test]
    fn two_lines_are_refused() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer abcdefgh"));
        }
        assert_eq!(Credential::from_headers(&headers, "p").err(), Some(Refusal::Repeated));
    }

    #[test]
    fn a_bar_gives_two_candidates() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer 17|abcdef|gh"));
        let credential = Credential::from_headers(&headers, "p").unwrap();
        let (first, second) = credential.candidates();
        assert!(first.hash == TokenHash::of("abcdef|gh") && first.id == first.hash.derived_id());
        assert!(second.unwrap().hash == TokenHash::of("17|abcdef|gh"));
    }
}
