//! Which requests reach which upstream, what of them is changed on the way, and which pages may read the answers.

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

const CORS: &str = r#"
  - path: /api/{id}
    methods: [GET, PUT]
    cors: { origins: ["https://app.test", "https://*.pages.test:8443"], headers: [authorization, x-own], expose: x-sum, credentials: true }
    response_headers: { set: { x-sum: "1" } }
    upstream: up
  - { path: "/api/{id}", methods: [DELETE], upstream: up }
  - { path: /open, auth: none, cors: { origins: "*" }, upstream: up }
  - { path: /plain, upstream: up }
"#;

#[tokio::test]
async fn preflights_are_answered_without_a_token_on_routes_with_cors() {
    let stage = Stage::new(CORS).await;
    for client in &stage.clients {
        let ask = async |path: &str, origin: &str, method: &str| {
            let request = client.request(reqwest::Method::OPTIONS, stage.gateway.url(path)).header("origin", origin);
            request.header("access-control-request-method", method).send().await.unwrap()
        };
        for origin in ["https://app.test", "https://a.b.pages.test:8443"] {
            let response = ask("/api/7", origin, "PUT").await;
            assert_eq!(response.status(), 204);
            for (name, value) in [
                ("access-control-allow-origin", origin),
                ("access-control-allow-methods", "PUT"),
                ("access-control-allow-headers", "authorization, x-own"),
                ("access-control-allow-credentials", "true"),
                ("access-control-max-age", "600"),
                // It is counted in no limit.
                ("x-ratelimit-limit", ""),
            ] {
                assert_eq!(header(&response, name), value, "{name}");
            }
            let vary: Vec<_> = response.headers().get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
            assert!(vary.join(", ").contains("Origin"), "{vary:?}");
        }
        let open = ask("/open", "null", "GET").await;
        assert_eq!((open.status().as_u16(), header(&open, "access-control-allow-origin")), (204, "*"));
        assert_eq!(header(&open, "access-control-allow-headers"), "authorization, content-type, x-request-id");
        // Another page: a request without a token.
        for (path, origin, method) in [
            ("/api/7", "https://evil.test", "PUT"),
            ("/api/7", "https://app.test.evil", "PUT"),
            ("/plain", "https://evil.test", "GET"),
            ("/nowhere", "null", "GET"),
        ] {
            let response = ask(path, origin, method).await;
            assert_eq!(response.status(), 401, "{path} {origin} {method}");
            assert_eq!(header(&response, "access-control-allow-origin"), "", "{path} {origin} {method}");
            assert_eq!(header(&response, "access-control-allow-methods"), "", "{path} {origin} {method}");
        }
    }
    assert!(stage.upstream.seen().is_empty());
    let decided = stage.gateway.metric(r#"callgate_decisions_total{outcome="admitted",source="local"}"#).await;
    assert_eq!(decided, Some(0.0));
}

/// Whether a path has a route, and what of a path it takes, is not for those who have no token.
#[tokio::test]
async fn answers_without_a_token_do_not_show_which_routes_exist() {
    let stage = Stage::new(
        r#"
  - { path: "/api/{id}", methods: [GET, PUT], cors: { origins: "https://app.test", expose: x-sum }, upstream: up }
  - { path: "/forms/{*rest}", allow_path_forms: [semicolon, empty-segments], upstream: up }
  - { path: "/v{n}", rewrite: "/{n}/x", upstream: up }
  - { path: /other, cors: { origins: "https://other.test", headers: x-own, credentials: true, max_age: 5s }, upstream: up }
  - { path: /plain, upstream: up }
"#,
    )
    .await;
    for client in &stage.clients {
        let ask = async |method: &str, path: &str, more: &[(&str, &str)]| {
            let method: reqwest::Method = method.parse().unwrap();
            let mut request = client.request(method, stage.gateway.url(path));
            for (name, value) in more {
                request = request.header(*name, *value);
            }
            let response = request.send().await.unwrap();
            let mut headers: Vec<_> = response
                .headers()
                .iter()
                .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            headers.sort();
            (response.status().as_u16(), headers)
        };
        for origin in ["https://app.test", "https://other.test", "https://evil.test"] {
            let told = ask("GET", "/nowhere", &[("origin", origin)]).await;
            assert_eq!(told.0, 401);
            for path in
                ["/api/7", "/forms/a", "/forms/a;b", "/forms//", "/nowhere;b", "/v..", "/other", "/plain", "/plain;"]
            {
                assert_eq!(ask("GET", path, &[("origin", origin)]).await, told, "{origin} {path}");
            }
            for method in ["GET", "PUT", "DELETE"] {
                let asks = [("origin", origin), ("access-control-request-method", method)];
                let told = ask("OPTIONS", "/nowhere", &asks).await;
                assert_eq!(told.0, if origin.contains("evil") { 401 } else { 204 });
                for path in ["/api/7", "/forms/a;b", "/nowhere;b", "/other", "/plain"] {
                    assert_eq!(ask("OPTIONS", path, &asks).await, told, "{origin} {method} {path}");
                }
            }
        }
    }
    assert!(stage.upstream.seen().is_empty());
}

/// A public route answers a preflight for itself; the answer of another one is not read by pages that it does not name.
#[tokio::test]
async fn preflights_for_another_spelling_of_a_guarded_path_are_not_answered_by_a_public_route() {
    let stage = Stage::new(
        r#"
  - { path: "/{*rest}", auth: none, cors: { origins: "*" }, upstream: up }
  - { path: "/admin/{*rest}", upstream: up }
  - { path: "/page/{*rest}", cors: { origins: "https://app.test" }, upstream: up }
"#,
    )
    .await;
    for client in &stage.clients {
        for (path, status, origin) in [
            ("/open/", 204, "*"),
            ("/page/", 204, "https://app.test"),
            ("/page", 204, "https://app.test"),
            ("/PAGE/", 204, "https://app.test"),
            ("/admin/", 204, "https://app.test"),
            ("/admin", 204, "https://app.test"),
            ("/Admin", 204, "https://app.test"),
        ] {
            let request = client.request(reqwest::Method::OPTIONS, stage.gateway.url(path));
            let request = request.header("origin", "https://app.test").header("access-control-request-method", "GET");
            let response = request.send().await.unwrap();
            let reported = (response.status().as_u16(), header(&response, "access-control-allow-origin"));
            assert_eq!(reported, (status, origin), "{path}");
        }
        let request = client.get(stage.gateway.url("/admin/x")).bearer_auth(&stage.token.secret);
        let response = request.header("origin", "https://app.test").send().await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "access-control-allow-origin")), (200, ""));
    }
    assert_eq!(stage.upstream.seen().len(), 2);
}

/// A route takes its path with a slash more at its end, or one less, where a route that asks for less would take it otherwise.
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
async fn pages_may_read_answers_limits_and_rejections() {
    let stage = Stage::new(CORS).await;
    let ask = async |origin: &str, token: &str| {
        let request = stage.clients[1].get(stage.gateway.url("/api/7")).bearer_auth(token).header("origin", origin);
        request.send().await.unwrap()
    };
    for (token, status) in [(&*stage.token.secret, 200), ("wrong", 401)] {
        let response = ask("https://app.test", token).await;
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "access-control-allow-origin"), "https://app.test");
        assert_eq!(
            header(&response, "access-control-expose-headers"),
            "x-request-id, retry-after, www-authenticate, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, x-sum"
        );
        let other = ask("https://evil.test", token).await;
        assert_eq!((other.status().as_u16(), header(&other, "access-control-allow-origin")), (status, ""));
        assert_eq!(header(&other, "vary"), "Origin");
    }
}

#[tokio::test]
async fn pages_may_read_the_header_of_a_shadow_plan() {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, CORS);
    let config = std::fs::read_to_string(site.config()).unwrap();
    let trial = "plans: { standard: { limits: { minute: 1/1m }, shadow: true } }";
    std::fs::write(site.config(), format!("{config}{trial}\n")).unwrap();
    let (token, gateway) = (site.token(&[]), site.serve());
    for (path, marked) in [("/plain", ""), ("/api/7", "denied")] {
        let request = http2(&gateway).get(gateway.url(path)).bearer_auth(&token.secret);
        let response = request.header("origin", "https://app.test").send().await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "x-ratelimit-shadow")), (200, marked));
        let exposed = header(&response, "access-control-expose-headers");
        assert_eq!(exposed.contains("x-ratelimit-shadow"), !marked.is_empty(), "{exposed}");
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
