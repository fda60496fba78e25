//! Which requests reach which upstream, what of them is changed on the way, and which pages may read the answers.

mod cors;

use reqwest::{Client, Response};

use crate::support::client::{exchange, header, http1, http2};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    token: Token,
    clients: [Client; 2],
}

impl Stage {
    async fn new(routes: &str) -> Self {
        let upstream = Upstream::start().await;
        let site = Site::in_memory(upstream.address, routes);
        // How many are asked without a token depends on the machine.
        site.replace("file: tokens.yaml", "file: tokens.yaml, failures: { limit: none }");
        let token = site.token(&[]);
        let gateway = site.serve();
        let clients = [http1(&gateway), http2(&gateway)];
        Self { upstream, gateway, token, clients }
    }

    /// The status of a GET for a host.
    async fn routed(&self, host: &str, path: &str, more: &str) -> String {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n{more}connection: close\r\n\r\n",
            self.token.secret
        );
        let answer = exchange(&self.gateway, request.as_bytes()).await;
        let status = &answer["HTTP/1.1 ".len()..][..3];
        status.to_owned()
    }

    async fn get(&self, client: &Client, path: &str) -> Response {
        client.get(self.gateway.url(path)).bearer_auth(&self.token.secret).send().await.unwrap()
    }

    fn last_target(&self) -> String {
        self.upstream.seen().pop().unwrap().target
    }
}

#[tokio::test]
async fn hosts_have_routes_of_their_own() {
    let stage = Stage::new(
        r#"
  - { host: API.test, path: /a, rewrite: /exact, upstream: up }
  - { host: "*.test", path: "/{*rest}", rewrite: /wild, upstream: up }
  - { path: "/{*rest}", rewrite: /others, upstream: up }
"#,
    )
    .await;
    for (host, path, target) in [
        ("api.test", "/a", Some("/exact")),
        ("Api.Test:8443", "/a", Some("/exact")),
        // Routes of another host do not match on this one.
        ("api.test", "/b", None),
        ("x.test", "/b", Some("/wild")),
        ("a.b.test", "/b", Some("/wild")),
        // A full stop behind a host changes nothing (RFC 1034 §3.1).
        ("api.test.", "/b", None),
        ("x.test.", "/b", Some("/wild")),
        ("test", "/b", Some("/others")),
        ("localhost", "/b", Some("/others")),
    ] {
        let before = stage.upstream.seen().len();
        let reported = stage.routed(host, path, "").await;
        match target {
            Some(target) => assert_eq!((&*reported, &*stage.last_target()), ("200", target), "{host}{path}"),
            None => assert!(
                reported.starts_with("404") && stage.upstream.seen().len() == before,
                "{host}{path}: {reported}"
            ),
        }
    }
}

#[tokio::test]
async fn headers_choose_between_routes() {
    let stage = Stage::new(
        r#"
  - { path: /a, rewrite: /plain, upstream: up }
  - { path: /a, name: two, headers: { x-version: "2" }, rewrite: /two, upstream: up }
  - { path: /beta, headers: { x-beta: "*" }, upstream: up }
"#,
    )
    .await;
    for (path, more, status, target) in [
        ("/a", "", "200", "/plain"),
        ("/a", "x-version: 1\r\n", "200", "/plain"),
        ("/a", "X-Version: 2\r\n", "200", "/two"),
        ("/beta", "x-beta: 1\r\n", "200", "/beta"),
        ("/beta", "", "404", "/beta"),
    ] {
        let reported = stage.routed("localhost", path, more).await;
        assert!(reported.starts_with(status), "{path} {more}: {reported}");
        assert_eq!(stage.last_target(), target, "{path} {more}");
    }
    let lines = stage.gateway.access("/a", 3).await;
    assert_eq!(lines.iter().filter(|line| line["route"] == "two").count(), 1, "{lines:?}");
}

#[tokio::test]
async fn paths_are_rewritten_and_queries_kept() {
    let stage = Stage::new(
        r#"
  - { path: "/api/v1/{*rest}", strip_prefix: /api/v1, upstream: up }
  - { path: "/calls/{id}/stream", rewrite: "/v2/{id}/events", upstream: up }
  - { path: "/v{n}", rewrite: "/{n}/x", upstream: up }
"#,
    )
    .await;
    for client in &stage.clients {
        for (path, target) in [
            ("/api/v1/echo/a%20b?x=1&y=%2F", "/echo/a%20b?x=1&y=%2F"),
            ("/api/v1/?q", "/?q"),
            ("/calls/c%C3%A9/stream?a=b", "/v2/c%C3%A9/events?a=b"),
            ("/v7", "/7/x"),
        ] {
            assert_eq!(stage.get(client, path).await.status(), 200, "{path}");
            assert_eq!(stage.last_target(), target, "{path}");
        }
    }
    // A form that the client's path did not have, but the new one would.
    let before = stage.upstream.seen().len();
    let reported = stage.routed("localhost", "/v..", "").await;
    assert!(reported.starts_with("400"), "{reported}");
    assert_eq!(stage.upstream.seen().len(), before);
}

#[tokio::test]
async fn headers_are_set_and_removed_both_ways() {
    let stage = Stage::new(
        r#"
  - path: "/{*rest}"
    request_headers: { set: { Authorization: "Basic aHVudGVyMg==", X-Tenant: one }, remove: [cookie, x-debug] }
    response_headers: { set: { Strict-Transport-Security: max-age=1, content-type: text/x }, remove: [x-internal, server] }
    upstream: up
"#,
    )
    .await;
    for client in &stage.clients {
        let request = client.get(stage.gateway.url("/echo")).bearer_auth(&stage.token.secret);
        let request =
            request.header("x-tenant", "two").header("cookie", "a=b").header("x-debug", "1").header("x-kept", "1");
        let response = request.send().await.unwrap();
        let headers = stage.upstream.seen().pop().unwrap().headers;
        assert_eq!(
            (&headers["authorization"], &headers["x-tenant"]),
            (&"Basic aHVudGVyMg==".parse().unwrap(), &"one".parse().unwrap())
        );
        assert_eq!(headers.get_all("x-tenant").iter().count(), 1);
        assert!(headers.contains_key("x-kept") && !headers.contains_key("cookie") && !headers.contains_key("x-debug"));
        assert_eq!(header(&response, "strict-transport-security"), "max-age=1");
        assert_eq!(header(&response, "content-type"), "text/x");
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        // Without a token nobody learns which route this would have been.
        let refused = client.get(stage.gateway.url("/echo")).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), header(&refused, "strict-transport-security")), (401, ""));
    }
}

#[tokio::test]
async fn paths_with_and_without_a_final_slash_are_rewritten() {
    let stage = Stage::new(
        r#"
  - { path: "/{*rest}", auth: none, upstream: up }
  - { path: "/old/{*rest}", strip_prefix: /old, upstream: up }
  - { path: "/new/{*rest}", rewrite: "/newer/{rest}", upstream: up }
  - { path: "/users/{id}/", rewrite: "/people/{id}/all", upstream: up }
"#,
    )
    .await;
    for (path, target) in [
        ("/old?a", "/?a"),
        ("/old/", "/"),
        ("/new", "/newer/"),
        ("/users/7", "/people/7/all"),
        ("/users/7/", "/people/7/all"),
    ] {
        assert_eq!(stage.get(&stage.clients[0], path).await.status(), 200, "{path}");
        assert_eq!(stage.last_target(), target, "{path}");
    }
}

#[tokio::test]
async fn a_response_has_a_timeout_and_an_event_stream_has_none() {
    let stage = Stage::new("  - { path: \"/{*rest}\", timeout: 2s, upstream: up }").await;
    for client in &stage.clients {
        let response = stage.get(client, "/slow/60000").await;
        assert_eq!(response.status(), 504);
        assert!(response.text().await.unwrap().contains("gateway_timeout"));
        assert_eq!(stage.get(client, "/slow/10").await.text().await.unwrap(), "late");
        // The stream of the sample upstream has no type that would make it one of events.
        assert!(stage.get(client, "/events").await.bytes().await.is_err());
    }
    let lines = stage.gateway.access("/events", 2).await;
    assert!(lines.iter().all(|line| line["error"].as_str().unwrap().contains("not whole within 2s")), "{lines:?}");
}

#[tokio::test]
async fn a_split_keeps_a_token_on_its_side_or_draws_each_request() {
    let [stable, canary] = [Upstream::start().await, Upstream::start().await];
    let split = "upstream: { stable: 50, canary: 50 }";
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes:\n  - {{ path: /token, {split} }}\n  - {{ path: /again, {split} }}\n  \
         - {{ path: /request, {split}, split_by: request }}\n  - {{ path: /public, {split}, auth: none }}\n\
         upstreams: {{ stable: {{ endpoints: [\"http://{}\"] }}, canary: {{ endpoints: [\"http://{}\"] }} }}",
        stable.address, canary.address
    ));
    let tokens: Vec<Token> = (0..16).map(|_| site.token(&[])).collect();
    let gateway = site.serve();
    let client = http2(&gateway);
    let ask = async |path: &str, token: &Token| {
        let before = (stable.seen().len(), canary.seen().len());
        let response = client.get(gateway.url(path)).bearer_auth(&token.secret).send().await.unwrap();
        assert_eq!(response.status(), 200);
        match (stable.seen().len() - before.0, canary.seen().len() - before.1) {
            (1, 0) => "stable",
            (0, 1) => "canary",
            other => panic!("{other:?}"),
        }
    };
    let mut sides = Vec::new();
    for token in &tokens {
        let side = ask("/token", token).await;
        for path in ["/token", "/again", "/again"] {
            assert_eq!(ask(path, token).await, side);
        }
        sides.push(side);
    }
    // One in thirty thousand times all are on one side.
    assert!(sides.contains(&"stable") && sides.contains(&"canary"), "{sides:?}");
    let logged = gateway.access("/token", 32).await;
    for side in ["stable", "canary"] {
        let count = logged.iter().filter(|line| line["upstream"] == side).count();
        assert_eq!(count, 2 * sides.iter().filter(|it| **it == side).count());
    }
    for path in ["/request", "/public"] {
        let mut drawn = Vec::new();
        for _ in 0..40 {
            drawn.push(ask(path, &tokens[0]).await);
        }
        assert!(drawn.contains(&"stable") && drawn.contains(&"canary"), "{path}: {drawn:?}");
    }
}
