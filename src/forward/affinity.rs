//! The key of a request, where requests with the same key go to the same endpoint.

use http::header::{self, HeaderMap};

use crate::config::{Balance, HashKey};

use super::balance::hash;
use super::context::ForwardContext;

/// The header in which the gateway names the token.
const TOKEN_ID: &str = "x-callgate-token-id";

/// The hash of a request's key; `None` when it has none, or the upstream is not balanced by one.
pub(super) fn key_of(balance: &Balance, headers: &HeaderMap, context: &ForwardContext<'_>) -> Option<u64> {
    let Balance::Hash(key) = balance else { return None };
    match key {
        HashKey::Token => {
            let id = context.identity.iter().find(|(name, _)| name == TOKEN_ID);
            id.map(|(_, value)| hash(value.as_bytes()))
        }
        HashKey::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
        HashKey::Cookie(name) => cookie(headers, name).map(hash),
    }
}

/// The value of a cookie (RFC 6265 §5.4).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE).into_iter().map(|line| line.as_bytes());
    lines.flat_map(|line| line.split(|byte| *byte == b';')).find_map(|pair| {
        pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=").filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "xsid=1; sid2=2;sid=; a=b".parse().unwrap());
        headers.append(header::COOKIE, "c=d; sid=call-7".parse().unwrap());
        assert_eq!(cookie(&headers, "sid"), Some(&b"call-7"[..]));
        assert_eq!(cookie(&headers, "c"), Some(&b"d"[..]));
        assert_eq!(cookie(&headers, "id"), None);
    }
}
