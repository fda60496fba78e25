//! Which requests reach which upstream, and what of them is changed on the way.

use reqwest::{Client, Response};

use crate::support::client::{exchange, http1, http2};
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
        // What another host's routes would take is not found on this one.
        ("api.test", "/b", None),
        ("x.test", "/b", Some("/wild")),
        ("test", "/b", Some("/others")),
        ("localhost", "/b", Some("/others")),
    ] {
        let before = stage.upstream.seen().len();
        let told = stage.routed(host, path, "").await;
        match target {
            Some(target) => assert_eq!((&*told, &*stage.last_target()), ("200", target), "{host}{path}"),
            None => assert!(told.starts_with("404") && stage.upstream.seen().len() == before, "{host}{path}: {told}"),
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
        let told = stage.routed("localhost", path, more).await;
        assert!(told.starts_with(status), "{path} {more}: {told}");
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
    let told = stage.routed("localhost", "/v..", "").await;
    assert!(told.starts_with("400"), "{told}");
    assert_eq!(stage.upstream.seen().len(), before);
}
