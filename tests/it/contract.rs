//! What clients see: every answer of the contract, over HTTP/1.1 and HTTP/2.

use http::{Method, StatusCode};
use reqwest::{Client, Response};
use serde_json::Value;

use crate::support::client::{self, exchange, get, header, http1, http2};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

const ROUTES: &str = r#"
  - { path: /echo, methods: [GET, POST], permission: "calls:read", upstream: up }
  - { path: "/echo/{*rest}", upstream: up, max_body: 100 }
  - { path: "/status/{n}", upstream: up }
  - { path: "/slow/{n}", upstream: up, first_byte_timeout: 200ms }
  - { path: /limits, upstream: up }
  - { path: /public, auth: none, upstream: up }
  - { path: /dead, upstream: dead }
"#;

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    token: Token,
    clients: [Client; 2],
}

impl Stage {
    async fn new() -> Self {
        Self::with("", "").await
    }

    async fn with(listen: &str, more: &str) -> Self {
        let upstream = Upstream::start().await;
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = upstream.address;
        let site = Site::with_listen(
            listen,
            &format!(
                "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes:\n{ROUTES}\n\
                 upstreams: {{ up: {{ endpoints: [\"http://{at}\"] }}, dead: {{ endpoints: [\"http://{dead}\"] }} }}\n{more}"
            ),
        );
        let token = site.token(&["calls:*"]);
        let gateway = site.serve();
        let clients = [http1(&gateway), http2(&gateway)];
        Self { upstream, gateway, token, clients }
    }

    async fn get(&self, path: &str) -> [Response; 2] {
        let [h1, h2] = &self.clients;
        [get(h1, &self.gateway, path, &self.token).await, get(h2, &self.gateway, path, &self.token).await]
    }
}

/// Checks an answer that Callgate made itself, and returns its message.
async fn rejected(response: Response, status: u16, code: &str) -> String {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(header(&response, "cache-control"), "no-store");
    let request_id = header(&response, "x-request-id").to_owned();
    let text = response.text().await.unwrap();
    assert!(text.starts_with("{\"message\":"), "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["code"], code);
    assert_eq!(body["request_id"], request_id.as_str());
    assert_eq!(body.as_object().unwrap().len(), 3);
    body["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_token_is_401_without_an_error_code_wherever_it_is_sent() {
    let stage = Stage::new().await;
    for client in &stage.clients {
        for path in ["/echo", "/nowhere", "/echo?access_token=x", "/status/200"] {
            let response = client.get(stage.gateway.url(path)).send().await.unwrap();
            assert_eq!(header(&response, "www-authenticate"), "Bearer realm=\"api\"");
            assert_eq!(header(&response, "x-ratelimit-limit"), "");
            rejected(response, 401, "unauthenticated").await;
        }
        let basic = client.get(stage.gateway.url("/echo")).basic_auth("a", Some("b")).send().await.unwrap();
        rejected(basic, 401, "unauthenticated").await;
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn every_bad_token_gets_one_and_the_same_answer() {
    let stage = Stage::new().await;
    let site = &stage.gateway.site;
    let revoked = site.token(&[]);
    assert!(site.run(&["token", "revoke", &revoked.id]).status.success());
    let mut last = stage.token.secret.clone();
    let flipped = if last.pop() == Some('a') { 'b' } else { 'a' };
    last.push(flipped);
    let client = &stage.clients[1];
    crate::support::eventually("the revocation to be seen", async || {
        let response = get(client, &stage.gateway, "/echo", &revoked).await;
        (response.status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    let mut answers = std::collections::BTreeSet::new();
    for secret in
        [revoked.secret.as_str(), &last, "kal_live_short", "foreign-but-unknown-token", "12|unknownunknownunknown"]
    {
        let response = client.get(stage.gateway.url("/echo")).bearer_auth(secret).send().await.unwrap();
        assert_eq!(header(&response, "www-authenticate"), "Bearer realm=\"api\", error=\"invalid_token\"");
        answers.insert(rejected(response, 401, "invalid_token").await);
    }
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn two_authorization_headers_are_400() {
    let stage = Stage::new().await;
    let request = format!(
        "GET /echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {0}\r\nauthorization: Bearer {0}\r\nconnection: close\r\n\r\n",
        stage.token.secret
    );
    let answer = exchange(&stage.gateway, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("error=\"invalid_request\""), "{answer}");
}

#[tokio::test]
async fn a_good_token_is_forwarded_with_limit_headers() {
    let stage = Stage::new().await;
    let [h1, h2] = stage.get("/echo?a=b").await;
    assert_eq!(header(&h1, "x-ratelimit-remaining"), "59");
    assert_eq!(header(&h2, "x-ratelimit-remaining"), "58");
    for response in [h1, h2] {
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        let reset: u64 = header(&response, "x-ratelimit-reset").parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((now + 50..=now + 61).contains(&reset), "{reset} at {now}");
        let told: Value = response.json().await.unwrap();
        assert_eq!(told["target"], "/echo?a=b");
    }
}

#[tokio::test]
async fn a_missing_permission_is_403_and_named() {
    let stage = Stage::new().await;
    let token = stage.gateway.site.token(&["calls:write", "other:*"]);
    for (count, client) in stage.clients.iter().enumerate() {
        let response = crate::support::eventually("the new token to be known", async || {
            let response = get(client, &stage.gateway, "/echo", &token).await;
            (response.status() != StatusCode::UNAUTHORIZED).then_some(response)
        })
        .await;
        assert_eq!(
            header(&response, "www-authenticate"),
            "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"calls:read\""
        );
        assert_eq!(header(&response, "x-ratelimit-remaining"), (59 - count).to_string());
        let message = rejected(response, 403, "insufficient_permission").await;
        assert!(message.contains("calls:read"), "{message}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_count_and_carry_limit_headers() {
    let stage = Stage::new().await;
    for response in stage.get("/nowhere").await {
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        rejected(response, 404, "not_found").await;
    }
    let client = &stage.clients[1];
    let response = client.delete(stage.gateway.url("/echo")).bearer_auth(&stage.token.secret).send().await.unwrap();
    assert_eq!(header(&response, "allow"), "GET, HEAD, POST");
    assert_eq!(header(&response, "x-ratelimit-remaining"), "57");
    rejected(response, 405, "method_not_allowed").await;
}

#[tokio::test]
async fn trace_and_connect_are_405() {
    let stage = Stage::new().await;
    for request in
        ["TRACE /echo HTTP/1.1\r\nhost: localhost\r\n", "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n"]
    {
        let request = format!("{request}authorization: Bearer {}\r\nconnection: close\r\n\r\n", stage.token.secret);
        let answer = exchange(&stage.gateway, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nallow: "), "{answer}");
    }
    let trace = stage.clients[1].request(Method::TRACE, stage.gateway.url("/echo")).send().await.unwrap();
    rejected(trace, 405, "method_not_allowed").await;
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn the_sixty_first_request_is_429_and_free() {
    let stage = Stage::new().await;
    for _ in 0..30 {
        for response in stage.get("/echo").await {
            assert_eq!(response.status(), 200);
        }
    }
    for _ in 0..3 {
        for response in stage.get("/echo").await {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let retry: u64 = header(&response, "retry-after").parse().unwrap();
            let reset: u64 = header(&response, "x-ratelimit-reset").parse().unwrap();
            assert!((1..=60).contains(&retry));
            assert!(reset.abs_diff(now.as_secs() + retry) <= 1, "{reset} {retry} {now:?}");
            assert_eq!(header(&response, "x-ratelimit-limit"), "60");
            assert_eq!(header(&response, "x-ratelimit-remaining"), "0");
            let message = rejected(response, 429, "rate_limited").await;
            assert!(message.contains("\"minute\""), "{message}");
        }
    }
    assert_eq!(stage.upstream.seen().len(), 60);
    let line = stage.gateway.access("/echo", 66).await.pop().unwrap();
    assert_eq!(line["limits"]["hour"]["used"], 60);
    assert_eq!(line["code"], "rate_limited");
    assert_eq!(stage.gateway.metric(r#"callgate_decisions_total{outcome="denied",source="local"}"#).await, Some(6.0));
}

#[tokio::test]
async fn head_gets_the_headers_without_the_body() {
    let stage = Stage::new().await;
    for client in &stage.clients {
        for (path, status) in [("/nowhere", 404), ("/echo", 200)] {
            let request = client.head(stage.gateway.url(path)).bearer_auth(&stage.token.secret);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status);
            assert!(header(&response, "content-length").parse::<u64>().unwrap() > 10, "{path}");
            assert_eq!(response.bytes().await.unwrap().len(), 0);
        }
        let response = client.head(stage.gateway.url("/echo")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (401, 0));
    }
}

#[tokio::test]
async fn a_422_of_the_upstream_passes_untouched() {
    let stage = Stage::new().await;
    for response in stage.get("/status/422").await {
        assert_eq!(response.status(), 422);
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        assert_eq!(response.text().await.unwrap(), r#"{"message":"from the upstream","errors":{"to":["no"]}}"#);
    }
}

#[tokio::test]
async fn the_upstreams_own_limit_headers_are_replaced() {
    let stage = Stage::with("", "limits: { headers: [x-ratelimit, ietf] }").await;
    for (count, response) in stage.get("/limits").await.into_iter().enumerate() {
        assert_eq!(response.headers().get_all("x-ratelimit-limit").iter().count(), 1);
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        assert_eq!(header(&response, "x-internal"), "");
        assert_eq!(header(&response, "ratelimit-policy"), "\"minute\";q=60;w=60, \"hour\";q=1000;w=3600");
        let expected = format!("\"minute\";r={};t=60, \"hour\";r={};t=3600", 59 - count, 999 - count);
        assert_eq!(header(&response, "ratelimit"), expected);
    }
}

#[tokio::test]
async fn upstream_failures_are_502_and_504_and_say_nothing_of_the_upstream() {
    let stage = Stage::new().await;
    for response in stage.get("/dead").await {
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        let message = rejected(response, 502, "bad_gateway").await;
        assert!(!message.contains("127.0.0.1"), "{message}");
    }
    for response in stage.get("/slow/5000").await {
        rejected(response, 504, "gateway_timeout").await;
    }
    let line = stage.gateway.access("/dead", 2).await.pop().unwrap();
    assert!(line["error"].as_str().unwrap().contains("Connection refused"), "{line}");
}

#[tokio::test]
async fn bodies_over_the_routes_limit_are_413_announced_or_not() {
    let stage = Stage::new().await;
    let url = stage.gateway.url("/echo/upload");
    for client in &stage.clients {
        let request = || client.post(&url).bearer_auth(&stage.token.secret);
        let told: Value = request().body(vec![b'x'; 100]).send().await.unwrap().json().await.unwrap();
        assert_eq!(told["body_length"], 100);
        let announced = request().body(vec![b'x'; 101]).send().await.unwrap();
        rejected(announced, 413, "body_too_large").await;
        let pieces = futures_util::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 50])));
        let chunked = request().body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
        rejected(chunked, 413, "body_too_large").await;
    }
}

#[tokio::test]
async fn a_public_route_asks_nothing_and_counts_nothing() {
    let stage = Stage::new().await;
    for client in &stage.clients {
        let response = client.get(stage.gateway.url("/public")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-limit"), "");
        let told: Value = response.json().await.unwrap();
        assert!(!told["headers"].to_string().contains("x-callgate-"), "{told}");
    }
}

#[tokio::test]
async fn upstreams_learn_who_asks_and_never_the_token() {
    let stage = Stage::new().await;
    let client = &stage.clients[0];
    let request = client
        .get(stage.gateway.url("/echo"))
        .bearer_auth(&stage.token.secret)
        .header("x-callgate-account", "forged")
        .header("x_callgate_plan", "forged")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-request-id", "mine-1");
    let response = request.send().await.unwrap();
    assert_eq!(header(&response, "x-request-id"), "mine-1");
    let told = response.text().await.unwrap();
    assert!(!told.contains("forged") && !told.contains("6.6.6.6") && !told.contains(&stage.token.secret), "{told}");
    let headers = &stage.upstream.seen()[0].headers;
    assert_eq!(headers["x-callgate-token-id"], stage.token.id.as_str());
    assert_eq!(headers["x-callgate-account"], "acme");
    assert_eq!(headers["x-callgate-permissions"], "calls:*");
    assert_eq!(headers["x-callgate-plan"], "standard");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-request-id"], "mine-1");
    assert_eq!(headers["via"], "1.1 callgate");
    assert_eq!(headers["host"], format!("localhost:{}", stage.gateway.https.port()));
    assert!(!stage.gateway.output().contains(&stage.token.secret));
}

#[tokio::test]
async fn plain_http_is_refused_and_redirected_only_without_a_credential() {
    let stage = Stage::with(", http: \"127.0.0.1:0\", redirect: true", "").await;
    let plain = format!("http://localhost:{}/echo?a=b", stage.gateway.http.unwrap().port());
    let client = client::builder(&stage.gateway).build().unwrap();
    let redirected = client.get(&plain).send().await.unwrap();
    // Port 0 in the configuration: the redirect can only name what is configured.
    assert_eq!(redirected.status(), 308);
    assert!(header(&redirected, "location").starts_with("https://localhost"));
    // A host that neither a route nor a certificate names may be anybody's.
    for host in ["evil.test", "localhost.evil.test", "192.0.2.1", "[2001:db8::1]"] {
        rejected(client.get(&plain).header("host", host).send().await.unwrap(), 403, "https_required").await;
    }
    for host in ["localhost", "LOCALHOST:80", "localhost.", "127.0.0.1"] {
        assert_eq!(client.get(&plain).header("host", host).send().await.unwrap().status(), 308, "{host}");
    }
    for request in [
        client.get(&plain).bearer_auth(&stage.token.secret),
        client.get(&plain).header("cookie", "a=b"),
        client.get(format!("{plain}&access_token=x")),
        client.post(&plain),
    ] {
        rejected(request.send().await.unwrap(), 403, "https_required").await;
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn plain_http_is_403_where_no_redirect_is_configured() {
    let stage = Stage::with(", http: \"127.0.0.1:0\"", "").await;
    let plain = format!("http://localhost:{}/echo", stage.gateway.http.unwrap().port());
    let client = client::builder(&stage.gateway).build().unwrap();
    rejected(client.get(&plain).send().await.unwrap(), 403, "https_required").await;
}

#[tokio::test]
async fn ambiguous_paths_never_reach_a_route() {
    let stage = Stage::new().await;
    let paths = [
        "/echo/../status/200",
        "/echo/./x",
        "/echo//x",
        "/echo/%2e%2e/x",
        "/echo/a%2fb",
        "/echo/a%5cb",
        "/echo/a;b",
        "/echo/%00",
        "/echo/%c0%ae",
        "/echo/%zz",
        "/%65cho/..%2fx",
    ];
    for path in paths {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", stage.token.secret);
        let answer = exchange(&stage.gateway, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty());
    let response = &stage.get("/%65cho").await[0];
    assert_eq!(response.status(), 200);
    assert_eq!(stage.upstream.seen()[0].target, "/%65cho");
}

#[tokio::test]
async fn options_end_at_the_gateway_when_they_are_meant_for_it() {
    let stage = Stage::new().await;
    let auth = format!("authorization: Bearer {}\r\n", stage.token.secret);
    let ask = async |target: &str, more: &str| {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nhost: localhost\r\n{more}connection: close\r\n\r\n");
        crate::support::client::exchange(&stage.gateway, request.as_bytes()).await
    };
    assert!(ask("*", "").await.starts_with("HTTP/1.1 401 "));
    for (target, hops) in [("*", ""), ("/status/200", "max-forwards: 0\r\n")] {
        let answer = ask(target, &format!("{auth}{hops}")).await;
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("\r\nx-ratelimit-limit: 60\r\n"), "{answer}");
        assert!(answer.contains("\r\nallow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n"), "{answer}");
    }
    assert!(stage.upstream.seen().is_empty());
    for (hops, left) in [("1", "0"), ("10", "9"), ("many", "many")] {
        let answer = ask("/status/200", &format!("{auth}max-forwards: {hops}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(stage.upstream.seen().pop().unwrap().headers["max-forwards"], left);
    }
}
