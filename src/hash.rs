//! SHA-256: all that is kept of a secret.

use std::fmt;

use aws_lc_rs::{constant_time, digest};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

/// The SHA-256 of a token. It doesn't print, and compares in constant time.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Reads 64 hexadecimal digits, small or capital.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 2 * hash.len() {
            return None;
        }
        HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut hash).ok()?;
        Some(Self(hash))
    }

    /// 64 small hexadecimal digits: for the store, and nowhere else.
    #[must_use]
    pub fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Its first 16 bytes as a big-endian number.
    pub(crate) fn first_128_bits(&self) -> u128 {
        self.0.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }

    /// Its first 8 bytes as a big-endian number.
    pub(crate) fn first_64_bits(&self) -> u64 {
        (self.first_128_bits() >> 64) as u64
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for TokenHash {}

impl std::hash::Hash for TokenHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash([hidden])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_sha_256_in_hexadecimal() {
        let hash = TokenHash::of("abc");
        // FIPS 180-4's own example.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_hex(), hex);
        assert!(TokenHash::from_hex(hex) == Some(hash));
        assert!(TokenHash::from_hex(&hex.to_uppercase()) == Some(hash));
        for bad in [&hex[1..], &format!("{hex}0"), &hex.replace('b', "g"), &hex.replace('b', "é"), "", "+a"] {
            assert!(TokenHash::from_hex(bad).is_none(), "{bad}");
        }
        assert_eq!(hash.first_128_bits(), 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223);
        assert_eq!(hash.first_64_bits(), 0xba78_16bf_8f01_cfea);
    }
}
