//! Base 62: numbers and random texts in digits, capital and small letters, so that a double click selects a whole token.

/// The digits, in the order of their values.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The lowest `count` base-62 digits of `number`, highest first, with leading zeros.
pub(super) fn digits(mut number: u128, count: usize) -> String {
    let mut buffer = [0; 32];
    let digits = &mut buffer[..count];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(number % 62) as usize];
        number /= 62;
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

/// Writes a number like [`digits`] into `text`.
pub(super) fn write(mut number: u32, text: &mut [u8]) {
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[(number % 62) as usize];
        number /= 62;
    }
}

/// `count` characters drawn from the operating system's randomness, each of the 62 equally likely.
///
/// # Errors
/// [`getrandom::Error`] when the operating system gives no randomness.
pub(super) fn random(count: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0u8; 64];
    while text.len() < count {
        getrandom::fill(&mut bytes)?;
        // 248 is the largest multiple of 62 in a byte: higher values would favour the first eight characters.
        let fair = bytes.iter().filter(|&&byte| byte < 248).take(count - text.len());
        text.extend(fair.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
    }
    Ok(text)
}

/// Whether all of `text` is base 62.
pub(super) fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_highest_digit_first() {
        assert_eq!(digits(0, 3), "000");
        assert_eq!(digits(61, 2), "0z");
        assert_eq!(digits(62, 2), "10");
        assert_eq!(digits(62 * 62 + 36, 3), "10a");
        // The largest CRC-32 fits six digits.
        assert_eq!(digits(u128::from(u32::MAX), 6), "4gfFC3");
        let mut text = [0; 6];
        write(u32::MAX, &mut text);
        assert_eq!(&text, b"4gfFC3");
        // Higher digits are cut off.
        assert_eq!(digits(62 * 62, 2), "00");
    }

    #[test]
    fn random_characters_are_spread_evenly() {
        let text = random(62_000).unwrap();
        assert_eq!(text.len(), 62_000);
        let mut counts = std::collections::BTreeMap::new();
        text.chars().for_each(|c| *counts.entry(c).or_insert(0u32) += 1);
        assert_eq!(counts.len(), 62);
        // 1,000 expected, standard deviation 31. Taking a byte modulo 62 without rejection gives the first eight characters
        // 1,211: beyond six deviations.
        assert!(counts.values().all(|count| (800..=1_190).contains(count)), "{counts:?}");
    }
}
