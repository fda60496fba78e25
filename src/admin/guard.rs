//! Keeps web pages away from the admin listener: it may need no credential, and a browser on the operator's machine reaches it.

use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{Method, Request};

/// A request without a token that changes something must carry this header, with any value. No page of another origin can send
/// it: the browser would have to ask first (a CORS preflight), and is refused.
pub(crate) const CONFIRMATION: HeaderName = HeaderName::from_static("x-callgate-admin");

/// Refuses requests that a web page of another origin may have made. `is_private`: the listener is on a loopback address.
pub(super) fn check_origin<B>(request: &Request<B>, is_private: bool) -> Result<(), &'static str> {
    let text = |name: &HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = request.uri().authority().map(|named| named.as_str()).or_else(|| text(&header::HOST));
    // A name that an attacker makes point here (DNS rebinding) is no name of this machine. On other addresses every request needs
    // a token, which such a page doesn't have.
    if is_private && !host.is_some_and(is_loopback_name) {
        return Err("The admin listener answers requests for 127.0.0.1, [::1] and localhost only.");
    }
    let site = text(&HeaderName::from_static("sec-fetch-site"));
    let foreign = text(&header::ORIGIN).is_some_and(|origin| origin.split_once("://").map(|(_, it)| it) != host);
    if foreign || site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err("The admin listener refuses requests from pages of other origins.");
    }
    Ok(())
}

/// Refuses requests without a token that change something and don't carry [`CONFIRMATION`].
pub(super) fn check_intent<B>(request: &Request<B>) -> Result<(), &'static str> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read && !request.headers().contains_key(CONFIRMATION) {
        return Err("Requests that change something must carry the header X-Callgate-Admin, or an admin token.");
    }
    Ok(())
}

/// Whether a `Host` is a name of this machine's loopback interface.
fn is_loopback_name(host: &str) -> bool {
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

    fn request(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/api/limits/a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn is_allowed(is_private: bool, headers: &[(&str, &str)]) -> bool {
        check_origin(&request(Method::GET, headers), is_private).is_ok()
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_answered() {
        for good in ["localhost", "LocalHost:9901", "127.0.0.1:9901", "127.1.2.3", "[::1]:9901", "[::1]"] {
            assert!(is_allowed(true, &[("host", good)]), "{good}");
        }
        for bad in ["", "evil.example", "127.0.0.1.evil.example:9901", "localhost.evil.example", "10.0.0.1", "::1:x"] {
            assert!(!is_allowed(true, &[("host", bad)]), "{bad}");
        }
        assert!(!is_allowed(true, &[]));
        assert!(is_allowed(false, &[("host", "gateway.internal:9901")]) && is_allowed(false, &[]));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let with = |name, value| {
            let headers = [("host", "localhost:9901"), (name, value)];
            assert_eq!(is_allowed(true, &headers), is_allowed(false, &headers));
            is_allowed(true, &headers)
        };
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
    fn changes_need_the_admin_header() {
        let meant = |method: Method, headers: &[(&str, &str)]| check_intent(&request(method, headers)).is_ok();
        assert!(!meant(Method::DELETE, &[]) && !meant(Method::POST, &[("content-type", "application/json")]));
        assert!(meant(Method::GET, &[]) && meant(Method::HEAD, &[]));
        assert!(meant(Method::DELETE, &[("x-callgate-admin", "1")]));
    }
}
