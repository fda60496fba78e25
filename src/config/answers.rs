//! Changes of headers by a route, and the web pages that may read its answers.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// Headers that a route sets and removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Set, in place of any that are there. Values of requests are marked sensitive: they may be credentials.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Headers of requests that routes match by: left as they are, but removed in other spellings and from trailers.
    pub matched: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty() && self.matched.is_empty()
    }
}

/// Which web pages may read a route's answers (CORS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Their origins, at least one.
    pub origins: Vec<CorsOrigin>,
    /// Headers that they may send, as a list.
    pub headers: HeaderValue,
    /// Headers that they may read beside those of Callgate's own.
    pub expose: Vec<HeaderName>,
    /// Whether they may let the browser send cookies along.
    pub credentials: bool,
    /// How long a browser may keep the answer to a preflight.
    pub max_age: Duration,
}

/// Origins of web pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// Anywhere.
    Any,
    /// This one.
    Exact(Box<str>),
    /// Every host below one: the scheme with `://`, and how the rest ends, for example `.example.com:8080`.
    Below(Box<str>, Box<str>),
}

impl Cors {
    /// What any of these allows.
    #[must_use]
    pub fn union<'a>(all: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let names = |list: &HeaderValue| list.to_str().unwrap_or_default().to_owned();
        all.cloned().reduce(|mut union, other| {
            union.origins.extend(other.origins);
            union.expose.extend(other.expose);
            union.expose.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            union.expose.dedup();
            let mut headers = names(&union.headers);
            for name in names(&other.headers).split(", ") {
                if !headers.split(", ").any(|known| known == name) {
                    headers = [&*headers, name].join(if headers.is_empty() { "" } else { ", " });
                }
            }
            // Names of headers are what a header can hold.
            union.headers = HeaderValue::try_from(headers).unwrap_or(other.headers);
            union.credentials |= other.credentials;
            union.max_age = union.max_age.min(other.max_age);
            union
        })
    }

    /// Whether every page may read the answers.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.origins.contains(&CorsOrigin::Any)
    }

    /// Whether pages from this origin may read the answers.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(text) = origin.to_str() else { return false };
        self.origins.iter().any(|allowed| match allowed {
            CorsOrigin::Any => true,
            CorsOrigin::Exact(exact) => text == &**exact,
            CorsOrigin::Below(scheme, end) => {
                let label = text.strip_prefix(&**scheme).and_then(|rest| rest.strip_suffix(&**end));
                let is_host_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                label.is_some_and(|label| !label.is_empty() && label.bytes().all(is_host_char))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_whole() {
        let cors = |origins: Vec<CorsOrigin>| Cors {
            origins,
            headers: HeaderValue::from_static(""),
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::ZERO,
        };
        let exact = cors(vec![CorsOrigin::Exact("https://app.test".into())]);
        let below = cors(vec![CorsOrigin::Below("https://".into(), ".app.test".into())]);
        for (origin, by_exact, by_below) in [
            ("https://app.test", true, false),
            ("https://a.app.test", false, true),
            ("https://a.b.app.test", false, true),
            ("http://a.app.test", false, false),
            ("https://.app.test", false, false),
            ("https://evil.test/.app.test", false, false),
            ("https://evil.test#.app.test", false, false),
            ("https://app.test.evil", false, false),
            ("https://evilapp.test", false, false),
            ("null", false, false),
        ] {
            let value = HeaderValue::from_static(origin);
            assert_eq!((exact.allows(&value), below.allows(&value)), (by_exact, by_below), "{origin}");
        }
        assert!(cors(vec![CorsOrigin::Any]).allows(&HeaderValue::from_static("null")));
    }
}
