//! Keeps web pages away from the admin API: it asks for no credential, and a browser on the operator's machine reaches it.

use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{Method, Request};

/// What a request that changes something must carry, with any value: no page of another origin can send it, for the browser
/// would have to ask first (a CORS preflight), and is refused.
pub const CONFIRMATION: HeaderName = HeaderName::from_static("x-callgate-admin");

/// Why a request to the API is not answered, if it is not.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let text = |name: &HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = request.uri().authority().map(|named| named.as_str()).or_else(|| text(&header::HOST));
    // A name that an attacker makes point here (DNS rebinding) is no name of this machine.
    if !host.is_some_and(names_loopback) {
        return Err("The API answers to 127.0.0.1, [::1] and localhost only.");
    }
    let site = text(&HeaderName::from_static("sec-fetch-site"));
    let foreign = text(&header::ORIGIN).is_some_and(|origin| origin.split_once("://").map(|(_, it)| it) != host);
    if foreign || site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err("The API is not for pages of other origins.");
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read && !request.headers().contains_key(CONFIRMATION) {
        return Err("Requests that change something must carry the header X-Callgate-Admin.");
    }
    Ok(())
}

/// Whether a `Host` is a name of this machine's loopback interface.
fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: Method, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/api/limits/a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for good in ["localhost", "LocalHost:9901", "127.0.0.1:9901", "127.1.2.3", "[::1]:9901", "[::1]"] {
            assert!(checked(Method::GET, &[("host", good)]), "{good}");
        }
        for bad in ["", "evil.example", "127.0.0.1.evil.example:9901", "localhost.evil.example", "10.0.0.1", "::1:x"] {
            assert!(!checked(Method::GET, &[("host", bad)]), "{bad}");
        }
        assert!(!checked(Method::GET, &[]));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let with = |name, value| checked(Method::GET, &[("host", "localhost:9901"), (name, value)]);
        assert!(with("origin", "http://localhost:9901") && with("sec-fetch-site", "same-origin"));
        assert!(with("sec-fetch-site", "none"));
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:3000"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(!with(name, value), "{name}: {value}");
        }
    }

    #[test]
    fn changes_must_be_confirmed() {
        let host = ("host", "localhost:9901");
        assert!(!checked(Method::DELETE, &[host]));
        assert!(!checked(Method::POST, &[host]));
        assert!(checked(Method::DELETE, &[host, ("x-callgate-admin", "1")]));
        assert!(!checked(Method::DELETE, &[host, ("x-callgate-admin", "1"), ("origin", "https://evil.example")]));
    }
}
