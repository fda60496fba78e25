//! Admin tokens, roles, failed attempts, web pages.

use reqwest::Method;
use serde_json::Value;

use super::{AdminToken, admin_token, request, send, site};
use crate::support::client::exchange;
use crate::support::gateway::{Gateway, PROGRAM};

/// Statuses of a read, a change, metrics and a probe, asked with these headers.
async fn statuses(gateway: &Gateway, headers: &[(&str, &str)]) -> [u16; 4] {
    let ask = async |method, path: &str| {
        let with =
            |request: reqwest::RequestBuilder| headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        send(with(request(gateway, method, path))).await.0
    };
    [
        ask(Method::GET, "/api/limits/nobody").await,
        ask(Method::DELETE, "/api/limits/nobody").await,
        ask(Method::GET, "/metrics").await,
        ask(Method::GET, "/readyz").await,
    ]
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

#[tokio::test]
async fn a_public_admin_address_requires_a_token_with_the_role() {
    let (watch, ops) = (AdminToken::new(), AdminToken::new());
    let tokens = format!("{}, {}", watch.line("watch", "read"), ops.line("ops", "write"));
    let gateway = site(&format!("admin: {{ tokens: [{tokens}] }}"), true).serve();
    let confirmed = ("x-callgate-admin", "1");
    assert_eq!(statuses(&gateway, &[]).await, [401, 401, 401, 200]);
    assert_eq!(statuses(&gateway, &[confirmed]).await, [401, 401, 401, 200]);
    assert_eq!(statuses(&gateway, &[("authorization", &bearer(&watch.secret))]).await, [404, 403, 200, 200]);
    assert_eq!(statuses(&gateway, &[("authorization", &bearer(&ops.secret))]).await, [404, 404, 200, 200]);
    let wrong = bearer(&AdminToken::new().secret);
    assert_eq!(statuses(&gateway, &[("authorization", &wrong)]).await, [401, 401, 401, 200]);

    let (_, headers, body) = send(request(&gateway, Method::GET, "/api/limits/x")).await;
    assert_eq!(body["code"], "unauthenticated");
    assert_eq!(headers["www-authenticate"], "Bearer realm=\"callgate-admin\"");
    assert_eq!(body["request_id"], headers["x-request-id"].to_str().unwrap());
    assert_eq!(headers["cache-control"], "no-store");
    let (_, headers, body) = send(request(&gateway, Method::GET, "/api/limits/x").header("authorization", wrong)).await;
    assert_eq!(body["code"], "invalid_token");
    assert!(headers["www-authenticate"].to_str().unwrap().ends_with("error=\"invalid_token\""));
    let twice = request(&gateway, Method::GET, "/metrics").bearer_auth(&ops.secret).bearer_auth(&ops.secret);
    assert_eq!(send(twice).await.0, 400);
    let refused = request(&gateway, Method::DELETE, "/api/limits/x").bearer_auth(&watch.secret);
    assert_eq!(send(refused).await.2["code"], "insufficient_role");
    // Without a token nothing shows which paths the API has.
    for path in ["/api", "/api/tokens", "/nowhere"] {
        assert_eq!(send(request(&gateway, Method::GET, path)).await.0, 401, "{path}");
    }
    assert_eq!(send(request(&gateway, Method::GET, "/nowhere").bearer_auth(&watch.secret)).await.0, 404);
    let output = gateway.output();
    assert!(!output.contains("callgate_admin_") && !output.contains(&ops.sha256));
}

#[tokio::test]
async fn a_loopback_address_requires_tokens_once_some_are_configured() {
    let ops = AdminToken::new();
    let confirmed = ("x-callgate-admin", "1");
    let open = site("admin: { anonymous: write }", false).serve();
    assert_eq!(statuses(&open, &[confirmed]).await, [404, 404, 200, 200]);
    assert_eq!(statuses(&open, &[]).await, [404, 403, 200, 200], "a change must be meant");
    let untouched = site("admin: { max_failures: 10 }", false).serve();
    assert_eq!(
        statuses(&untouched, &[confirmed]).await,
        [404, 403, 200, 200],
        "others may share the network namespace"
    );
    let listed = ops.line("ops", "write");
    let closed = site(&format!("admin: {{ tokens: [{listed}] }}"), false).serve();
    assert_eq!(statuses(&closed, &[confirmed]).await, [401, 401, 401, 200]);
    assert_eq!(statuses(&closed, &[("authorization", &bearer(&ops.secret))]).await, [404, 404, 200, 200]);
    let readable = site(&format!("admin: {{ anonymous: read, tokens: [{listed}] }}"), false).serve();
    assert_eq!(statuses(&readable, &[confirmed]).await, [404, 403, 200, 200]);
    assert_eq!(statuses(&readable, &[("authorization", &bearer(&ops.secret))]).await, [404, 404, 200, 200]);
    assert_eq!(statuses(&readable, &[("authorization", "Bearer wrong")]).await, [401, 401, 401, 200]);
    let scraped = site(&format!("admin: {{ public_metrics: true, tokens: [{listed}] }}"), true).serve();
    assert_eq!(statuses(&scraped, &[]).await, [401, 401, 200, 200]);
}

#[tokio::test]
async fn an_address_with_too_many_wrong_tokens_must_wait() {
    let ops = AdminToken::new();
    let gateway = site(&format!("admin: {{ max_failures: 3, tokens: [{}] }}", ops.line("ops", "write")), false).serve();
    let ask = async |secret: &str| send(request(&gateway, Method::GET, "/metrics").bearer_auth(secret)).await;
    for attempt in 0..3 {
        assert_eq!(ask(&format!("guess{attempt}")).await.0, 401);
        assert_eq!(send(request(&gateway, Method::GET, "/metrics")).await.0, 401, "no token is no guess");
    }
    for secret in ["guess", &ops.secret] {
        let (status, headers, body) = ask(secret).await;
        assert_eq!((status, &body["code"]), (429, &"too_many_failures".into()));
        let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=20).contains(&wait), "{wait}");
    }
    assert_eq!(send(request(&gateway, Method::GET, "/readyz")).await.0, 200);
    assert!(!gateway.output().contains("guess"));
}

#[tokio::test]
async fn foreign_origins_and_host_names_are_refused() {
    let ops = AdminToken::new();
    let private = site("", false).serve();
    let open = site(&format!("admin: {{ tokens: [{}] }}", ops.line("ops", "write")), true).serve();
    let own = format!("http://127.0.0.1:{}", private.admin.port());
    let confirmed = ("x-callgate-admin", "1");
    for headers in [
        &[confirmed, ("origin", "https://evil.example")][..],
        &[confirmed, ("origin", "null")],
        &[confirmed, ("sec-fetch-site", "cross-site")],
        &[confirmed, ("sec-fetch-site", "same-site")],
        &[confirmed, ("host", "evil.example")],
        &[confirmed, ("host", "127.0.0.1.evil.example")],
    ] {
        assert_eq!(statuses(&private, headers).await, [403, 403, 403, 200], "{headers:?}");
    }
    assert_eq!(
        statuses(&private, &[confirmed, ("origin", &own), ("sec-fetch-site", "same-origin")]).await,
        [404, 404, 200, 200]
    );
    // A preflight of a page elsewhere.
    let preflight = request(&private, Method::OPTIONS, "/api/limits/a").header("origin", "https://evil.example");
    let (status, headers, _) = send(preflight.header("access-control-request-method", "DELETE")).await;
    assert!(status == 403 && !headers.keys().any(|name| name.as_str().starts_with("access-control")));
    // Elsewhere any name will do, for a token is what counts; pages of other origins won't.
    let token = bearer(&ops.secret);
    assert_eq!(statuses(&open, &[("host", "gateway.internal"), ("authorization", &token)]).await, [404, 404, 200, 200]);
    let foreign = [("origin", "https://evil.example"), ("authorization", token.as_str())];
    assert_eq!(statuses(&open, &foreign).await, [403, 403, 403, 200]);
}

#[tokio::test]
async fn the_console_is_served_without_a_token_and_by_the_admin_listener_alone() {
    let ops = AdminToken::new();
    let gateway = site(&format!("admin: {{ tokens: [{}] }}", ops.line("ops", "read")), true).serve();
    let (status, headers, _) = send(request(&gateway, Method::GET, "/")).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "text/html; charset=utf-8"));
    assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    let (status, known, _) =
        send(request(&gateway, Method::GET, "/").header("if-none-match", headers["etag"].clone())).await;
    assert_eq!((status, &known["etag"]), (304, &headers["etag"]));
    // A link from a page elsewhere may lead here; the page's own requests for data need the token.
    assert_eq!(send(request(&gateway, Method::GET, "/").header("sec-fetch-site", "cross-site")).await.0, 200);
    assert_eq!(send(request(&gateway, Method::POST, "/")).await.0, 405);
    assert_eq!(send(request(&gateway, Method::GET, "/api/me")).await.0, 401);
    assert_eq!(send(request(&gateway, Method::GET, "/assets/other.js")).await.0, 401);
    let public = exchange(&gateway, b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(!public.starts_with("HTTP/1.1 200") && !public.contains("content-security-policy"), "{public}");
}

#[test]
fn an_admin_token_is_printed_once_with_its_config_line() {
    let output = admin_token(&["--name", "ops", "--role", "write"]);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && out.starts_with("callgate_admin_") && out.lines().count() == 1, "{out}");
    assert!(!err.contains(out.trim()));
    let line = err.lines().find(|line| line.trim().starts_with("- {")).unwrap();
    let admin = format!("admin:\n  tokens:\n    {}\n", line.trim());
    let checked = |admin: &str| {
        let site = site(admin, true);
        std::fs::write(site.path("tokens.yaml"), "tokens: []\n").unwrap();
        std::process::Command::new(PROGRAM).arg("check").arg(site.config()).output().unwrap()
    };
    let output = checked(&admin);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (bad, code) in [(&["--name", "o ps"][..], 2), (&["--name", "ops", "--role", "root"], 2), (&[], 2)] {
        assert_eq!(admin_token(bad).status.code(), Some(code), "{bad:?}");
    }
    let made: Value = serde_json::from_slice(&admin_token(&["--name", "ops", "--json"]).stdout).unwrap();
    assert_eq!((&made["role"], made["sha256"].as_str().unwrap().len()), (&"read".into(), 64));
}

#[test]
fn commands_take_the_admin_token_from_the_environment() {
    let ops = AdminToken::new();
    let site = site(&format!("admin: {{ tokens: [{}] }}", ops.line("ops", "write")), false);
    let token = site.token(&[]);
    let gateway = site.serve();
    let peek = |secret: &str| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["limits", "peek", "--admin", &gateway.admin.to_string(), &token.id, "--json"]);
        let output = command.env("CALLGATE_ADMIN_TOKEN", secret).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(peek(&ops.secret), (Some(0), String::new()));
    let (code, error) = peek("");
    assert!(code == Some(1) && error.contains("admin token"), "{error}");
    let (code, error) = peek("broken\r\nx: y");
    assert!(code == Some(1) && !error.contains("broken"), "{error}");
}
