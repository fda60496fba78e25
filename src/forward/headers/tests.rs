//! Which headers upstreams and clients see of each other.

use std::sync::Arc;

use http::Version;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{HeaderEdits, Route};
use crate::forward::context::ForwardContext;
use crate::listener::ForwardedClient;

use super::{clean_trailers_for_client, clean_trailers_for_upstream, has_websocket, onto_client, onto_upstream};

fn route(forward_credentials: bool) -> Route {
    Route { forward_credentials, ..Route::default() }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn sent(lines: &[(&str, &str)], version: Version, trusted: &[&str], websocket: bool) -> HeaderMap {
    let mut headers = headers(lines);
    let trusted: Vec<ipnet::IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
    let context = ForwardContext {
        trace: None,
        route: &route(false),
        upstream: 0,
        client: &ForwardedClient::new("[2001:db8::7]:5000".parse().unwrap()),
        authority: "api.test:8443",
        request_id: &HeaderValue::from_static("id-1"),
        identity: &[(HeaderName::from_static("x-callgate-token-id"), HeaderValue::from_static("t1"))],
        trusted_proxies: &trusted,
        interim: None,
        attempts: std::sync::atomic::AtomicU32::new(0),
        hold: &|| Box::new(()),
        target: None,
    };
    onto_upstream(&mut headers, version, &context, websocket);
    headers
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn hop_by_hop_headers_of_every_connection_line_are_removed() {
    let sent = sent(
        &[
            ("connection", "keep-alive, X-One"),
            ("connection", "x-two,,x-callgate-token-id"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQ"),
            ("te", "gzip"),
            ("expect", "100-continue"),
        ],
        Version::HTTP_11,
        &[],
        false,
    );
    for gone in [
        "connection",
        "x-one",
        "x-two",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "te",
        "expect",
    ] {
        assert!(!sent.contains_key(gone), "{gone}");
    }
    assert_eq!(all(&sent, "x-three"), ["3"]);
    assert_eq!(all(&sent, "x-callgate-token-id"), ["t1"]);
}

#[test]
fn connection_cannot_remove_what_frames_and_routes_a_message() {
    let sent = sent(
        &[
            ("connection", "host, content-length, content-type"),
            ("host", "a"),
            ("content-length", "5"),
            ("content-type", "t/x"),
        ],
        Version::HTTP_11,
        &[],
        false,
    );
    assert_eq!(all(&sent, "content-length"), ["5"]);
    assert_eq!(all(&sent, "content-type"), ["t/x"]);
    assert!(sent.contains_key("host"));
}

#[test]
fn a_client_cannot_claim_an_identity_in_any_spelling() {
    let sent = sent(
        &[
            ("x-callgate-account", "evil"),
            ("X_Callgate_Token_Id", "evil"),
            ("x-callgate_plan", "evil"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("authorization", "Bearer secret"),
        ],
        Version::HTTP_11,
        &[],
        false,
    );
    for (name, value) in &sent {
        let text = value.to_str().unwrap();
        assert!(!text.contains("evil") && !text.contains("6.6.6.6") && !text.contains("secret"), "{name}: {text}");
    }
    assert_eq!(all(&sent, "x-forwarded-for"), ["2001:db8::7"]);
    assert_eq!(all(&sent, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&sent, "x-forwarded-host"), ["api.test:8443"]);
    assert_eq!(all(&sent, "forwarded"), ["for=\"[2001:db8::7]\";proto=https;host=\"api.test:8443\""]);
    assert_eq!(all(&sent, "x-request-id"), ["id-1"]);
    assert_eq!(all(&sent, "via"), ["1.1 callgate"]);
}

#[test]
fn method_and_path_overrides_are_removed() {
    let lines = [
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "DELETE"),
        ("x_method_override", "DELETE"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("content_length", "7"),
        ("x_request_id", "theirs"),
        ("x-original-sender", "stays"),
        ("content-length", "5"),
    ];
    let sent = sent(&lines, Version::HTTP_11, &[], false);
    for (name, _) in &lines[..7] {
        assert!(!sent.contains_key(*name), "{name}");
    }
    assert_eq!(all(&sent, "x-original-sender"), ["stays"]);
    assert_eq!(all(&sent, "content-length"), ["5"]);
    assert_eq!(all(&sent, "x-request-id"), ["id-1"]);
}

#[test]
fn an_empty_host_of_a_trusted_proxy_is_none() {
    let sent = sent(&[("x-forwarded-host", "")], Version::HTTP_11, &["2001:db8::/32"], false);
    assert_eq!(all(&sent, "x-forwarded-host"), ["api.test:8443"]);
}

/// An answer has no more headers than that.
#[test]
fn no_more_than_a_hundred_connection_options_are_looked_at() {
    let options = |before: usize| format!("{}x-gone", "a,".repeat(before));
    for (connection, is_gone) in [(options(99), true), (options(100), false), (options(15_000), false)] {
        let mut answer = headers(&[("connection", &connection), ("x-gone", "1")]);
        onto_client(&mut answer, false, false);
        assert_eq!((answer.contains_key("x-gone"), answer.contains_key("connection")), (!is_gone, false));
    }
}

#[test]
fn headers_of_a_trusted_proxy_are_kept_and_extended() {
    let sent = sent(
        &[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=1.2.3.4"),
            ("via", "1.0 edge"),
        ],
        Version::HTTP_2,
        &["2001:db8::/32"],
        false,
    );
    assert_eq!(all(&sent, "x-forwarded-for"), ["1.2.3.4, 5.6.7.8, 2001:db8::7"]);
    assert_eq!(all(&sent, "x-forwarded-proto"), ["http"]);
    assert!(all(&sent, "forwarded")[0].starts_with("for=1.2.3.4, for=\"[2001:db8::7]\""));
    assert_eq!(all(&sent, "via"), ["1.0 edge, 2.0 callgate"]);
}

#[test]
fn cookies_of_http2_become_one() {
    let sent = sent(&[("cookie", "a=1"), ("cookie", "b=2")], Version::HTTP_2, &[], false);
    assert_eq!(all(&sent, "cookie"), ["a=1; b=2"]);
}

#[test]
fn a_websocket_keeps_its_handshake() {
    let lines = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "k"),
        ("sec-websocket-version", "13"),
    ];
    let sent = sent(&lines, Version::HTTP_11, &[], true);
    assert_eq!(all(&sent, "connection"), ["upgrade"]);
    assert_eq!(all(&sent, "upgrade"), ["websocket"]);
    assert_eq!(all(&sent, "sec-websocket-key"), ["k"]);
    assert!(has_websocket(&headers(&lines)));
    assert!(!has_websocket(&headers(&[("upgrade", "websocket")])));
    assert!(!has_websocket(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])));
    assert!(!has_websocket(&headers(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")])));
}

#[test]
fn trailers_are_asked_for_on_the_clients_behalf() {
    let sent = sent(&[("te", "trailers")], Version::HTTP_2, &[], false);
    assert_eq!(all(&sent, "te"), ["trailers"]);
    assert_eq!(all(&sent, "connection"), ["te"]);
}

#[test]
fn an_answer_loses_hop_by_hop_headers_and_the_upstreams_limits() {
    let mut answer = headers(&[
        ("connection", "close, x-internal"),
        ("x-internal", "1"),
        ("keep-alive", "timeout=5"),
        ("x-ratelimit-limit", "1"),
        ("X-RateLimit-Remaining", "1"),
        ("ratelimit", "r"),
        ("ratelimit-policy", "p"),
        ("x-request-id", "theirs"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("retry-after", "3"),
    ]);
    onto_client(&mut answer, false, false);
    let mut names: Vec<_> = answer.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["retry-after", "set-cookie"]);
    assert_eq!(all(&answer, "set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn an_upstreams_limits_are_removed_in_every_spelling_unless_nothing_contradicts_them() {
    let limits = [
        "RateLimit",
        "RateLimit-Policy",
        "RateLimit-Limit",
        "Rate-Limit-Reset",
        "rate_limit_remaining",
        "X-RateLimit",
        "X-RateLimit-Limit-Minute",
        "X-Rate-Limit",
        "X-Rate-Limit-Remaining",
        "x_ratelimit_reset",
    ];
    let others = ["retry-after", "ratelimiter", "x-rate-limited", "x-rate", "x-rate-card", "rate", "limit"];
    let lines: Vec<_> = limits.iter().chain(&others).map(|name| (*name, "7")).collect();
    let (mut removed, mut kept) = (headers(&lines), headers(&lines));
    onto_client(&mut removed, false, false);
    assert_eq!(removed, headers(&others.map(|name| (name, "7"))));
    onto_client(&mut kept, false, true);
    assert_eq!(kept, headers(&lines));
}

#[test]
fn trailers_are_cleaned_both_ways() {
    let lines = [
        ("x-sum", "1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x_callgate_account", "1"),
        ("x-ratelimit-limit", "1"),
        ("x-request-id", "1"),
        ("authorization", "1"),
        ("x-forwarded-for", "1"),
    ];
    let names = |headers: &HeaderMap| {
        let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    };
    let (mut upward, mut downward) = (headers(&lines), headers(&lines));
    clean_trailers_for_upstream(&mut upward, None);
    assert_eq!(names(&upward), ["x-ratelimit-limit", "x-sum"]);
    clean_trailers_for_client(&mut downward, None);
    assert_eq!(names(&downward), ["authorization", "x-forwarded-for", "x-sum", "x_callgate_account"]);

    let edits = HeaderEdits {
        set: vec![(HeaderName::from_static("x-set"), HeaderValue::from_static("1"))],
        remove: vec![HeaderName::from_static("x-gone")],
        matched: vec![HeaderName::from_static("x-admin")],
    };
    let lines = [
        ("x-admin", "7"),
        ("x_admin", "8"),
        ("x-set", "2"),
        ("x_set", "3"),
        ("x-gone", "4"),
        ("x.gone", "5"),
        ("access-control-max-age", "6"),
    ];
    let (mut upward, mut downward) = (headers(&lines), headers(&lines));
    clean_trailers_for_upstream(&mut upward, Some(&edits));
    assert_eq!(names(&upward), ["access-control-max-age"]);
    let edits = HeaderEdits { matched: Vec::new(), ..edits };
    clean_trailers_for_client(&mut downward, Some(&edits));
    assert_eq!(names(&downward), ["x-admin", "x.gone", "x_admin", "x_set"]);
}

#[test]
fn a_route_with_cors_drops_the_upstreams_cors_headers() {
    let lines = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("x-a", "1"),
        ("x-a", "2"),
    ];
    let edits = HeaderEdits { remove: vec![HeaderName::from_static("x-a")], ..HeaderEdits::default() };
    let mut route = Route { response_headers: Arc::new(edits), ..Route::default() };
    let onto_client = |route: &Route| {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.headers = headers(&lines);
        super::head_onto_client(&mut parts, route, false);
        parts.headers
    };
    let answer = onto_client(&route);
    assert_eq!((answer.len(), answer.get_all("x-a").iter().count()), (2, 0), "{answer:?}");
    route.cors = Some(crate::config::Cors {
        origins: vec![crate::config::CorsOrigin::Exact("https://app.test".into())],
        headers: HeaderValue::from_static("authorization"),
        expose: Vec::new(),
        credentials: false,
        max_age: std::time::Duration::from_secs(1),
    });
    let answer = onto_client(&route);
    assert!(answer.is_empty(), "{answer:?}");
}
