//! Pages of other origins: preflights, and which answers they may read.

use super::*;
use crate::support::client::get;
use crate::support::eventually;

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
    // A token that was good shows no more than none.
    let revoked = stage.gateway.site.token(&[]);
    let status = async || get(&stage.clients[0], &stage.gateway, "/plain", &revoked).await.status().as_u16();
    eventually("the token to be known", async || (status().await == 200).then_some(())).await;
    assert!(stage.gateway.site.run(&["token", "revoke", "--yes", &revoked.id]).status.success());
    eventually("the token to be revoked", async || (status().await == 401).then_some(())).await;
    let bearer = format!("Bearer {}", revoked.secret);
    let before = stage.upstream.seen().len();
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
            let with_revoked = [("origin", origin), ("authorization", &*bearer)];
            let refused = ask("GET", "/nowhere", &with_revoked).await;
            assert_eq!(refused.0, 401);
            for path in ["/api/7", "/other", "/plain"] {
                assert_eq!(ask("GET", path, &with_revoked).await, refused, "{origin} {path}");
            }
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
    assert_eq!(stage.upstream.seen().len(), before);
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
