//! The length of an answer: it has one, or is refused.

use http::header::{self, HeaderMap, HeaderValue};

use super::detect::list_items;

/// What `u64` holds in any case.
const MAX_DIGITS: usize = 19;

/// Sees to it that everybody finds the same end of an answer: equal lengths become one (RFC 9110 §8.6).
///
/// # Errors
/// Why another reader may see its end elsewhere (RFC 9112 §6.3).
pub(crate) fn settle_length(headers: &mut HeaderMap) -> Result<(), &'static str> {
    const UNCLEAR_LENGTH: &str = "sent an answer whose length is unclear";
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (length, is_one) = (lengths.next(), lengths.next().is_none());
    if let Some(coding) = headers.get(header::TRANSFER_ENCODING) {
        let is_known = [&b"chunked"[..], b"identity"].iter().any(|known| coding.as_bytes().eq_ignore_ascii_case(known));
        if length.is_some() {
            // hyper reads the chunks.
            return Err(UNCLEAR_LENGTH);
        }
        if !is_known || headers.get_all(header::TRANSFER_ENCODING).iter().nth(1).is_some() {
            // hyper takes off the last chunked and leaves the others.
            return Err("sent an answer in a transfer coding that was not asked for");
        }
    }
    if length.is_none_or(|length| is_one && is_plain(length.as_bytes())) {
        return Ok(());
    }
    let length = common_length(headers).ok_or(UNCLEAR_LENGTH)?;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(())
}

/// The length that all lines and items have.
fn common_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = list_items(headers, &header::CONTENT_LENGTH).map(parse);
    let first = lengths.next()??;
    lengths.all(|other| other == Some(first)).then_some(first)
}

/// Whether a length is written in the shortest form.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
        && (1..=MAX_DIGITS).contains(&text.len())
        && (text[0] != b'0' || text.len() == 1)
}

/// The number, if it consists of digits only.
fn parse(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(lines: &[(&'static str, &'static str)]) -> Result<Vec<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        settle_length(&mut headers)?;
        Ok(headers.get_all(header::CONTENT_LENGTH).iter().map(|value| value.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn equal_lengths_are_one() {
        const LENGTH: &str = "content-length";
        for lines in [
            &[(LENGTH, "5")][..],
            &[(LENGTH, "5"), (LENGTH, "5")],
            &[(LENGTH, "5, 5"), (LENGTH, "5")],
            &[(LENGTH, "005")],
        ] {
            assert_eq!(settled(lines), Ok(vec!["5".to_owned()]), "{lines:?}");
        }
        assert_eq!(settled(&[]), Ok(vec![]));
        assert_eq!(settled(&[("transfer-encoding", "Chunked")]), Ok(vec![]));
    }

    #[test]
    fn unclear_lengths_are_refused() {
        const LENGTH: &str = "content-length";
        const CODING: &str = "transfer-encoding";
        for lines in [
            &[(LENGTH, "5"), (LENGTH, "6")][..],
            &[(LENGTH, "5, 6")],
            &[(LENGTH, "5,")],
            &[(LENGTH, "+5")],
            &[(LENGTH, "")],
            &[(LENGTH, "99999999999999999999")],
            &[(LENGTH, "5"), (CODING, "chunked")],
            &[(LENGTH, "5"), (CODING, "identity")],
            &[(CODING, "gzip, chunked")],
            &[(CODING, "gzip")],
            &[(CODING, "chunked, chunked")],
            &[(CODING, "chunked"), (CODING, "chunked")],
            &[(CODING, "chunked,")],
        ] {
            assert!(settled(lines).is_err(), "{lines:?}");
        }
    }
}
