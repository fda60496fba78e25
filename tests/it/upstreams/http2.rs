//! HTTP/2 to an upstream without negotiation: shared connections, bounded streams, and the form of requests.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Version;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage;
use crate::support::client::{exchange, get, header, http1, http2, raw, read_to_end};
use crate::support::gateway::{Gateway, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

async fn http2_stage(streams: u32, upstream: &str, route: &str) -> (Upstream, Gateway, Token) {
    let up = Upstream::http2(streams).await;
    let (gateway, token) = stage(&[format!("http://{}", up.address)], &format!(", protocol: http2{upstream}"), route);
    (up, gateway, token)
}

#[tokio::test]
async fn requests_share_one_connection() {
    let (upstream, gateway, token) = http2_stage(250, "", "").await;
    for client in [http1(&gateway), http2(&gateway)] {
        let answers = join_all((0..40).map(|_| get(&client, &gateway, "/slow/1000", &token))).await;
        assert!(answers.iter().all(|answer| answer.status() == 200));
        for path in ["/echo", "/bytes/1000000", "/status/422"] {
            get(&client, &gateway, path, &token).await.bytes().await.unwrap();
        }
        let upload = client.post(gateway.url("/echo")).bearer_auth(&token.secret).body(vec![0; 1_000_000]);
        let reported: Value = upload.send().await.unwrap().json().await.unwrap();
        assert_eq!(reported["body_length"], 1_000_000);
    }
    assert_eq!((upstream.connections(), upstream.seen().len()), (1, 88));
    assert!(upstream.seen().iter().all(|seen| seen.version == Version::HTTP_2));
    assert!(upstream.most_at_once() > 10, "{} at once", upstream.most_at_once());
}

#[tokio::test]
async fn no_connection_gets_more_streams_than_its_peer_allows() {
    let (upstream, gateway, token) = http2_stage(5, "", "").await;
    let client = http2(&gateway);
    let answers = join_all((0..23).map(|_| get(&client, &gateway, "/slow/3000", &token))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!((upstream.connections(), upstream.most_at_once()), (5, 5));
}

#[tokio::test]
async fn beyond_max_connections_an_upstream_is_overloaded() {
    for (protocol, most) in [("http2", 6), ("http1", 2)] {
        let upstream = if protocol == "http2" { Upstream::http2(3).await } else { Upstream::start().await };
        let more = format!(", protocol: {protocol}, max_connections: 2, max_waiting: 0");
        let (gateway, token) = stage(&[format!("http://{}", upstream.address)], &more, "");
        let client = http2(&gateway);
        let answers = join_all((0..10).map(|_| get(&client, &gateway, "/slow/3000", &token))).await;
        let (good, busy): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
        assert_eq!((good.len(), busy.len()), (most, 10 - most), "{protocol}");
        for answer in busy {
            assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (503, "1"));
            assert_eq!(answer.json::<Value>().await.unwrap()["code"], "overloaded");
        }
        assert_eq!(upstream.connections(), 2);
        // They are not used up for ever.
        for _ in 0..3 {
            assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 200, "{protocol}");
        }
    }
}

#[tokio::test]
async fn a_request_has_the_form_of_http2() {
    for (host, authority) in [("preserve", "api.test:99"), ("endpoint", "")] {
        let (upstream, gateway, token) = http2_stage(10, &format!(", host: {host}"), "").await;
        let authority = if authority.is_empty() { upstream.address.to_string() } else { authority.to_owned() };
        let request = format!(
            "GET /echo?a=%2F&b HTTP/1.1\r\nhost: api.test:99\r\nauthorization: Bearer {}\r\nconnection: close, x-hop, te\r\n\
             x-hop: 1\r\nkeep-alive: 5\r\nte: trailers, deflate\r\ncookie: a=1; b=2\r\nupgrade: h2c\r\n\r\n",
            token.secret
        );
        assert!(exchange(&gateway, request.as_bytes()).await.starts_with("HTTP/1.1 200 "));
        let seen = upstream.seen().remove(0);
        assert_eq!(seen.target, format!("http://{authority}/echo?a=%2F&b"));
        for name in ["host", "connection", "x-hop", "keep-alive", "te", "upgrade", "transfer-encoding"] {
            assert!(!seen.headers.contains_key(name), "{name}: {seen:?}");
        }
        assert_eq!(seen.headers["cookie"], "a=1; b=2");
        assert_eq!(seen.headers["x-forwarded-host"], "api.test:99");
        assert!(seen.headers.contains_key("x-callgate-token-id"));
    }
    let (upstream, gateway, token) = http2_stage(10, "", "").await;
    let request = http1(&gateway).get(gateway.url("/echo")).bearer_auth(&token.secret);
    request.header("te", "trailers").header("connection", "te").send().await.unwrap();
    assert_eq!(upstream.seen()[0].headers["te"], "trailers");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (upstream, gateway, token) = http2_stage(10, "", "").await;
    let stream = raw(&gateway, "h2").await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| {
        http::Request::post(format!("https://localhost{path}"))
            .header("authorization", format!("Bearer {}", token.secret))
            .header("te", "trailers")
            .body(())
            .unwrap()
    };
    sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(request("/trailers"), false).unwrap();
    body.send_data(Bytes::from("up"), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "body");
    assert!(answer.data().await.is_none());
    let trailers = answer.trailers().await.unwrap().unwrap();
    assert_eq!((trailers["x-sum"].to_str().unwrap(), trailers.len()), ("42", 1), "{trailers:?}");
    sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(request("/echo"), false).unwrap();
    body.send_data(Bytes::from("up"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    trailers.insert("x-callgate-account", "somebody".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    let reported: Value = serde_json::from_slice(&answer.data().await.unwrap().unwrap()).unwrap();
    assert_eq!((&reported["trailers"], &reported["body_length"]), (&serde_json::json!({ "x-sum": "7" }), &2.into()));
    assert_eq!(upstream.seen()[1].headers["te"], "trailers");
}

/// A client that does not say that it takes trailers may not know them (RFC 9110 §6.5.1).
#[tokio::test]
async fn trailers_pass_both_ways_over_http1() {
    let (_upstream, gateway, token) = http2_stage(10, "", "").await;
    let ask = async |path: &str, te: &str| {
        let mut stream = raw(&gateway, "http/1.1").await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n{te}connection: close\r\n\
             transfer-encoding: chunked\r\n\r\n2\r\nup\r\n0\r\nx-sum: 7\r\nX-Callgate-Account: somebody\r\n\r\n",
            token.secret
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    };
    let answer = ask("/trailers", "te: trailers\r\n").await;
    assert!(answer.ends_with("\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
    let answer = ask("/trailers", "").await;
    assert!(answer.ends_with("\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), "{answer}");
    let answer = ask("/echo", "te: trailers\r\n").await;
    assert!(answer.contains(r#""trailers":{"x-sum":"7"}"#), "{answer}");
}

/// A server that merges trailers into headers would otherwise get headers that the route removed or set.
#[tokio::test]
async fn trailers_contain_nothing_that_a_route_removes_or_sets() {
    let edits = ", request_headers: { set: { x-user: one }, remove: [x-debug] }, response_headers: { remove: [X-Sum] }";
    let (upstream, gateway, token) = http2_stage(10, "", edits).await;
    let (mut sender, connection) = h2::client::handshake(raw(&gateway, "h2").await).await.unwrap();
    tokio::spawn(connection);
    for path in ["/echo", "/trailers"] {
        let request = http::Request::post(format!("https://localhost{path}"));
        let request = request.header("authorization", format!("Bearer {}", token.secret)).header("te", "trailers");
        sender = sender.ready().await.unwrap();
        let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from("up"), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        for name in ["x-user", "x_user", "x.user", "x-debug", "x_debug", "x-own"] {
            trailers.insert(name, "7".parse().unwrap());
        }
        body.send_trailers(trailers).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        let bytes = answer.data().await.unwrap().unwrap();
        if path == "/echo" {
            let reported: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(reported["trailers"], serde_json::json!({ "x-own": "7" }));
        } else {
            let trailers = answer.trailers().await.unwrap().unwrap_or_default();
            assert!(trailers.is_empty(), "{trailers:?}");
        }
    }
    assert_eq!(upstream.seen()[0].headers["x-user"], "one");
}

#[tokio::test]
async fn a_client_that_leaves_ends_only_its_stream() {
    let (upstream, gateway, token) = http2_stage(10, "", "").await;
    for client in [http1(&gateway), http2(&gateway)] {
        let mut response = get(&client, &gateway, "/events", &token).await;
        response.chunk().await.unwrap();
        let mut other = get(&http1(&gateway), &gateway, "/events", &token).await;
        other.chunk().await.unwrap();
        assert_eq!(upstream.open_streams(), 2);
        drop((response, client));
        eventually("the stream to end", async || (upstream.open_streams() == 1).then_some(())).await;
        other.chunk().await.unwrap().unwrap();
        drop(other);
        eventually("the other one to end", async || (upstream.open_streams() == 0).then_some(())).await;
    }
    assert_eq!((upstream.connections(), upstream.open_connections()), (1, 1));
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_block_others() {
    let (upstream, gateway, token) = http2_stage(100, "", "").await;
    let before = gateway.resident();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = raw(&gateway, "http/1.1").await;
        let request =
            format!("GET /bytes/100000000 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", token.secret);
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 16]).await.unwrap();
        stalled.push(stream);
    }
    let answer = get(&http2(&gateway), &gateway, "/bytes/20000000", &token).await;
    assert_eq!(answer.bytes().await.unwrap().len(), 20_000_000);
    assert_eq!(upstream.connections(), 1);
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 60 << 20, "{} MiB were buffered", grown >> 20);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_the_clients_fault() {
    let (upstream, gateway, token) = http2_stage(10, "", ", max_body: 100KB").await;
    for client in [http1(&gateway), http2(&gateway)] {
        let pieces = futures_util::stream::iter((0..50).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 10_000])));
        let upload = client.post(gateway.url("/echo")).bearer_auth(&token.secret);
        let answer = upload.body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
        assert_eq!(answer.status(), 413);
    }
    assert_eq!(get(&http2(&gateway), &gateway, "/echo", &token).await.status(), 200);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let (upstream, gateway, token) = http2_stage(10, ", keep_alive: 1s", "").await;
    assert_eq!(get(&http2(&gateway), &gateway, "/echo", &token).await.status(), 200);
    eventually("the connection to be closed", async || (upstream.open_connections() == 0).then_some(())).await;
    assert_eq!(get(&http2(&gateway), &gateway, "/echo", &token).await.status(), 200);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn health_checks_leave_no_connection_behind() {
    // One that answers, and one that does not: the next question never depends on the last one's connection.
    for (path, timeout, state) in [("/status/200", "10s", "up"), ("/slow/60000", "200ms", "down")] {
        let health = format!(", max_connections: 3, health: {{ path: {path}, interval: 100ms, timeout: {timeout} }}");
        let (upstream, gateway, _token) = http2_stage(10, &health, "").await;
        eventually("ten questions", async || (upstream.connections() >= 10).then_some(())).await;
        eventually("their connections to be closed", async || (upstream.open_connections() <= 2).then_some(())).await;
        let (_, report) = gateway.admin("/api/upstreams").await;
        assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["upstreams"][0]["endpoints"][0]["state"], state);
    }
}

#[tokio::test]
async fn after_a_timeout_a_connection_serves_only_its_present_requests() {
    let (upstream, gateway, token) = http2_stage(10, ", first_byte_timeout: 6s", "").await;
    let client = http2(&gateway);
    let mut events = get(&client, &gateway, "/events", &token).await;
    assert_eq!(get(&client, &gateway, "/slow/60000", &token).await.status(), 504);
    // The connection may be dead: the next request does not depend on it.
    assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 200);
    assert_eq!(upstream.connections(), 2);
    for _ in 0..20 {
        tokio::time::timeout(WAIT_TIMEOUT, events.chunk()).await.unwrap().unwrap().unwrap();
    }
    drop(events);
    eventually("the old one to be closed", async || (upstream.open_connections() == 1).then_some(())).await;
}
