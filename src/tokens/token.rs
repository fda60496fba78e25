//! How tokens look: Callgate's own format, and the ids of records.
//!
//! An own token is `<prefix>_<id><secret><checksum>`, all behind the last underscore in base 62: 12 characters of public id, 27 of
//! secret (160.7 bits) and the CRC-32 (IEEE) of everything before it in 6. As a regular expression, for scanners that look for
//! leaked tokens: `\b<prefix>_[0-9A-Za-z]{45}\b`.
//!
//! Any other text in the syntax of a Bearer token is *foreign* and known by its hash alone.

use super::base62;
use crate::config::Secret;
pub use crate::hash::TokenHash;

/// Characters of an id.
pub(super) const ID_LEN: usize = 12;
/// Characters of a secret: 62^27 is 2^160.7, above the 160 bits that RFC 6749 section 10.10 asks for.
const SECRET_LEN: usize = 27;
/// Characters of a checksum: 62^6 is above 2^32.
const CHECKSUM_LEN: usize = 6;
/// Characters behind the last underscore.
const BODY_LEN: usize = ID_LEN + SECRET_LEN + CHECKSUM_LEN;

impl TokenHash {
    /// The id under which Redis keeps a foreign token with this hash: the first 16 bytes as a big-endian number, modulo 62^12, in
    /// base 62. So one look-up by key finds it, with no index of hashes beside the records.
    pub fn derived_id(&self) -> String {
        base62::digits(self.first_128_bits(), ID_LEN)
    }
}

/// A token that was just made: the only moment its text is known.
#[derive(Debug)]
pub struct NewToken {
    /// Its public id.
    pub id: String,
    /// Its text, to be shown once.
    pub secret: Secret,
    /// What is kept of it.
    pub hash: TokenHash,
}

impl NewToken {
    /// Makes a token that starts with `prefix` and an underscore.
    ///
    /// # Errors
    /// [`getrandom::Error`] when the operating system gives no randomness.
    pub fn generate(prefix: &str) -> Result<Self, getrandom::Error> {
        Self::with_id(prefix, base62::random(ID_LEN)?)
    }

    /// The same with an id that is given, of which [`can_be_own`] is true.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub(super) fn with_id(prefix: &str, id: String) -> Result<Self, getrandom::Error> {
        let mut text = format!("{prefix}_{id}{}", base62::random(SECRET_LEN)?);
        text.extend(checksum(&text).map(char::from));
        let hash = TokenHash::of(&text);
        Ok(Self { id, secret: Secret::new(text), hash })
    }
}

/// What a token's text tells without a look-up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape<'a> {
    /// Callgate's format with a good checksum.
    Own {
        /// The id inside it.
        id: &'a str,
        /// Whether it starts with the configured prefix; tokens made before a change of the prefix don't.
        current_prefix: bool,
    },
    /// It claims to be one of ours and is mistyped, cut off or made up.
    Broken,
    /// Anything else.
    Foreign,
}

impl<'a> Shape<'a> {
    /// Looks at a token's text.
    pub(crate) fn of(token: &'a str, prefix: &str) -> Self {
        let current_prefix = token.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
        let underscore = memchr::memrchr(b'_', token.as_bytes()).map(|at| (at, &token[at + 1..]));
        match underscore {
            Some((at, body)) if body.len() == BODY_LEN && base62::is_base62(body) && checksum_holds(token) => {
                Self::Own { id: &body[..ID_LEN], current_prefix: current_prefix && at == prefix.len() }
            }
            _ if current_prefix => Self::Broken,
            _ => Self::Foreign,
        }
    }
}

/// Whether the last six characters are the CRC-32 of the others. `token` must be ASCII and longer than that.
fn checksum_holds(token: &str) -> bool {
    let (text, given) = token.split_at(token.len() - CHECKSUM_LEN);
    checksum(text) == given.as_bytes()
}

fn checksum(text: &str) -> [u8; CHECKSUM_LEN] {
    let mut digits = [0; CHECKSUM_LEN];
    base62::write(crc32fast::hash(text.as_bytes()), &mut digits);
    digits
}

/// Whether `id` can stand in an own token.
pub(super) fn can_be_own(id: &str) -> bool {
    id.len() == ID_LEN && base62::is_base62(id)
}

/// The id inside the text of an own token, of whichever prefix, for those who mistake the one for the other.
pub(super) fn id_inside(text: &str) -> Option<&str> {
    match Shape::of(text, "") {
        Shape::Own { id, .. } => Some(id),
        Shape::Broken | Shape::Foreign => None,
    }
}

/// Whether `id` can name a record: 1 to 64 letters, digits, `.`, `_` and `-`, and not the text of a token, which must get into no key.
pub(crate) fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id_inside(id).is_none()
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with Python's binascii.crc32 and a base-62 of its own.
    const KNOWN: &str = "kal_live_0123456789AB0123456789ABCDEFGHIJKLMNOPQ1eHJcq";

    #[test]
    fn a_made_token_has_the_documented_format() {
        let token = NewToken::generate("kal_live").unwrap();
        let text = token.secret.expose();
        let body = text.strip_prefix("kal_live_").unwrap();
        assert_eq!(body.len(), 45);
        assert!(base62::is_base62(body));
        assert_eq!(token.id, &body[..12]);
        assert!(Shape::of(text, "kal_live") == Shape::Own { id: &token.id, current_prefix: true });
        assert!(token.hash == TokenHash::of(text));
        assert_ne!(NewToken::generate("kal_live").unwrap().secret, token.secret);
    }

    #[test]
    fn the_checksum_is_that_of_others() {
        assert!(matches!(Shape::of(KNOWN, "kal_live"), Shape::Own { id: "0123456789AB", current_prefix: true }));
    }

    #[test]
    fn every_change_of_one_character_is_noticed() {
        for at in "kal_live_".len()..KNOWN.len() {
            for other in ["0", "z", "-", "Q"] {
                let mut text = KNOWN.to_owned();
                if &text[at..=at] != other {
                    text.replace_range(at..=at, other);
                    assert!(Shape::of(&text, "kal_live") == Shape::Broken, "{text}");
                }
            }
        }
    }

    #[test]
    fn wrong_lengths_and_prefixes_are_distinguished() {
        assert!(Shape::of(&KNOWN[..KNOWN.len() - 1], "kal_live") == Shape::Broken);
        assert!(Shape::of(&format!("{KNOWN}0"), "kal_live") == Shape::Broken);
        assert!(Shape::of("kal_live_", "kal_live") == Shape::Broken);
        assert!(Shape::of("kal_liveX", "kal_live") == Shape::Foreign);
        assert!(Shape::of("17|abcdefgh", "kal_live") == Shape::Foreign);
        // Made before the prefix was changed, also when the new one starts the old one.
        for prefix in ["acme", "kal"] {
            assert!(matches!(Shape::of(KNOWN, prefix), Shape::Own { id: "0123456789AB", current_prefix: false }));
        }
    }

    #[test]
    fn a_derived_id_is_twelve_characters_of_the_hash() {
        // 0xba7816bf8f01cfea414140de5dae2223 modulo 62^12, by Python.
        assert_eq!(TokenHash::of("abc").derived_id(), "rJOLG43t7nIh");
        assert!(is_id(&TokenHash::of("x").derived_id()));
    }

    #[test]
    fn nothing_that_holds_a_secret_prints_it() {
        let token = NewToken::generate("kal_live").unwrap();
        let printed = format!("{token:?} {:?} {:?}", token.hash, token.secret);
        assert!(!printed.contains(&token.secret.expose()[21..]));
        assert!(!printed.contains(&token.hash.to_hex()[..8]));
    }
}
