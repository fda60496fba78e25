//! Header names that an upstream may fold into others: identity, method and path come from the gateway alone.

use super::Stage;

/// CGI, WSGI, PHP and others make one variable of names that differ in more than letter case.
fn spellings(name: &str) -> [String; 6] {
    let camel: String = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<Vec<_>>().join("-");
    [
        name.to_owned(),
        camel.clone(),
        camel.replace('-', "_"),
        name.to_uppercase().replace('-', "_"),
        name.replacen('-', "_", 1),
        name.replace('-', "."),
    ]
}

#[tokio::test]
async fn identity_headers_of_clients_are_removed_in_every_spelling() {
    let stage = Stage::new().await;
    let names =
        ["x-callgate-token-id", "x-callgate-account", "x-callgate-permissions", "x-callgate-plan", "x-callgate-new"];
    for name in names {
        for spelling in spellings(name) {
            let message = stage.forwarded(&format!("{spelling}: forged\r\n{spelling}: forged again\r\n")).await;
            assert!(!message.head.contains("forged"), "{spelling}: {message:?}");
        }
    }
    assert_eq!(stage.upstream.last().all("x-callgate-account"), ["acme"]);
}

#[tokio::test]
async fn method_and_path_overrides_are_removed_in_every_spelling() {
    let stage = Stage::new().await;
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-request-id",
    ] {
        for spelling in spellings(name) {
            let message = stage.forwarded(&format!("{spelling}: forged thing\r\n")).await;
            assert!(!message.head.contains("forged"), "{spelling}: {message:?}");
        }
    }
}

/// A program that is run for a request takes `Proxy` for the variable `HTTP_PROXY`, and asks through it (CVE-2016-5385).
#[tokio::test]
async fn the_proxy_header_of_clients_is_removed() {
    let stage = Stage::new().await;
    for name in ["proxy", "Proxy", "PROXY"] {
        assert!(!stage.forwarded(&format!("{name}: http://evil\r\n")).await.head.contains("evil"));
    }
}

/// The header that a route sets counts, and the request has no other spelling of it.
#[tokio::test]
async fn headers_that_a_route_sets_or_removes_are_removed_in_every_spelling() {
    let stage = Stage::with(
        "routes: [{ path: \"/{*rest}\", upstream: up, request_headers: { set: { X-User-Id: \"42\" }, remove: [x-debug-mode] } }]",
    )
    .await;
    for name in ["x-user-id", "x-debug-mode"] {
        for spelling in spellings(name) {
            let message = stage.forwarded(&format!("{spelling}: forged\r\n")).await;
            assert!(!message.head.contains("forged"), "{spelling}: {message:?}");
            assert_eq!(message.all("x-user-id"), ["42"]);
        }
    }
    // Names that are like these, and others, are the client's own.
    let message = stage.forwarded("x-user-identity: 7\r\nxuserid: 8\r\n").await;
    assert_eq!((message.all("x-user-identity"), message.all("xuserid")), (vec!["7"], vec!["8"]));
}

/// A request that was not routed by a header must not look to the upstream as if it had that header: neither as a header nor
/// as a trailer that is merged into the headers.
#[tokio::test]
async fn headers_that_routes_match_have_one_spelling() {
    let stage = Stage::with(
        "routes:\n  - { path: \"/{*rest}\", upstream: up }\n  \
         - { path: \"/{*rest}\", name: staff, headers: { x-is-admin: \"1\" }, permission: \"none:*\", upstream: up }",
    )
    .await;
    for spelling in spellings("x-is-admin").iter().filter(|spelling| !spelling.eq_ignore_ascii_case("x-is-admin")) {
        let message = stage.forwarded(&format!("{spelling}: 1\r\n")).await;
        assert!(!message.head.to_ascii_lowercase().contains("admin"), "{spelling}: {message:?}");
    }
    // This spelling selects the route, or has a value that the route does not match.
    assert_eq!(stage.forwarded("X-Is-Admin: 2\r\n").await.all("x-is-admin"), ["2"]);
    let refused = stage.send("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nX-IS-ADMIN: 1\r\nconnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let chunked = "POST /x HTTP/1.1\r\nhost: a\r\nAUTH\r\ntransfer-encoding: chunked\r\ntrailer: x-is-admin, x-sum\r\nconnection: close\r\n\r\n\
                   5\r\nhello\r\n0\r\nx-is-admin: 1\r\nx-sum: 42\r\n\r\n";
    assert!(stage.send(chunked).await.starts_with("HTTP/1.1 200 "));
    let body = stage.upstream.last().body;
    assert!(body.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{body}");
}

/// The client's own headers pass as they are, in their order, underscores and all.
#[tokio::test]
async fn other_headers_pass_untouched() {
    let stage = Stage::new().await;
    let message =
        stage.forwarded("x_my_own: 1\r\nX-Twice: a\r\nx-twice: b\r\naccept: */*\r\nidempotency-key: \"k\"\r\n").await;
    assert_eq!(message.all("x_my_own"), ["1"]);
    assert_eq!(message.all("x-twice"), ["a", "b"]);
    assert_eq!((message.all("accept"), message.all("idempotency-key")), (vec!["*/*"], vec!["\"k\""]));
}
