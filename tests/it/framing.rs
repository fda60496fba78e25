//! Bounds on heads and connections, and input that is not HTTP. Malformed messages are in `hygiene/`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{exchange, raw, read_to_end};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

async fn stage(listen: &str) -> (Upstream, Gateway, Token) {
    let upstream = Upstream::start().await;
    let site = Site::with_listen(
        listen,
        &format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
            upstream.address
        ),
    );
    let token = site.token(&[]);
    let gateway = site.serve();
    (upstream, gateway, token)
}

/// One message, with `AUTH` in place of the credential.
fn message(text: &str, token: &Token) -> Vec<u8> {
    text.replace("AUTH", &format!("authorization: Bearer {}", token.secret)).into_bytes()
}

#[tokio::test]
async fn well_formed_messages_pass_however_their_bytes_are_split() {
    let (upstream, gateway, token) = stage("").await;
    let text = "POST /one HTTP/1.1\r\nhost: a\r\nAUTH\r\ntransfer-encoding: chunked\r\n\r\n5;name=\"value\"\r\nhello\r\n6\r\n world\r\n0\r\nx-trailer: 1\r\n\r\n\
                POST /two HTTP/1.1\r\nhost: a\r\nAUTH\r\ncontent-length: 5\r\n\r\nhello\
                GET http://b/three HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n";
    let bytes = message(text, &token);
    for step in [1, 7, 64, bytes.len()] {
        let mut stream = raw(&gateway, "http/1.1").await;
        for piece in bytes.chunks(step) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let answer = read_to_end(&mut stream).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{step}: {answer}");
        assert!(answer.contains("\"body_length\":11") && answer.contains("\"body_length\":5"), "{step}: {answer}");
        assert!(!answer.contains("name="), "{step}: {answer}");
    }
    let seen = upstream.seen();
    assert_eq!(seen.iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(), ["/one", "/two", "/three"].repeat(4));
    // An absolute target names the host; the Host header beside it is ignored (RFC 9112 §3.2.2).
    assert_eq!(seen[2].headers["host"], "b");
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_slow_get_their_status() {
    let bounds = ", max_target_bytes: 1024, max_head_bytes: 8192";
    let (upstream, gateway, token) = stage(&format!(", header_timeout: 5m{bounds}")).await;
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n", "a".repeat(2000));
    let endless_target = format!("GET /{}", "a".repeat(100_000));
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\nx: {}\r\n\r\n", "a".repeat(9000));
    let endless = format!("GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\nx: {}", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\n{}\r\n", "x: y\r\n".repeat(101));
    let slow = "GET / HTTP/1.1\r\nhost: a\r\n".to_owned();
    let (_upstream, hasty, _) = stage(&format!(", header_timeout: 1s{bounds}")).await;
    for (gateway, status, text) in [
        (&gateway, "414", long_target),
        (&gateway, "414", endless_target),
        (&gateway, "431", large),
        (&gateway, "431", endless),
        (&gateway, "431", many),
        (&hasty, "408", slow),
    ] {
        let answer = exchange(gateway, &message(&text, &token)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.contains("\"message\""), "{status}: {answer}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_refused_upload_is_answered_while_the_client_still_sends() {
    let (upstream, gateway, _) = stage("").await;
    let mut stream = raw(&gateway, "http/1.1").await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..8 {
        // The gateway may have closed already; that is what is tested.
        let _ = stream.write_all(&piece).await;
    }
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("unauthenticated"), "{answer}");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn garbage_instead_of_tls_affects_no_other_client() {
    let (_upstream, gateway, token) = stage(", handshake_timeout: 5m").await;
    let mut plain = TcpStream::connect(gateway.https).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("https_required"), "{answer}");

    let mut garbage = TcpStream::connect(gateway.https).await.unwrap();
    garbage.write_all(&[0x5a; 4096]).await.unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer).await;

    let (_other, hasty, _) = stage(", handshake_timeout: 1s").await;
    let mut silent = TcpStream::connect(hasty.https).await.unwrap();
    let _ =
        tokio::time::timeout(WAIT_TIMEOUT, silent.read_to_end(&mut answer)).await.expect("a silent client is let go");

    let answer =
        exchange(&gateway, &message("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n", &token)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for (gateway, count) in [(&gateway, 2.0), (&hasty, 1.0)] {
        let failures = gateway.metric("callgate_tls_handshake_failures_total").await.unwrap();
        assert!(failures >= count, "{failures}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (_upstream, gateway, token) = stage(", idle_timeout: 1s").await;
    let mut stream = raw(&gateway, "http/1.1").await;
    stream.write_all(&message("GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n", &token)).await.unwrap();
    let started = Instant::now();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_and_a_busy_one_is_not() {
    let (_upstream, gateway, token) = stage(", idle_timeout: 1s").await;
    let open = async || gateway.metric(r#"callgate_connections_open{listener="https"}"#).await;
    let client = crate::support::client::http2(&gateway);
    let mut events = crate::support::client::get(&client, &gateway, "/events", &token).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2500) {
        events.chunk().await.unwrap().unwrap();
    }
    assert_eq!(open().await, Some(1.0));
    drop(events);
    crate::support::eventually("the idle connection to be closed", async || (open().await == Some(0.0)).then_some(()))
        .await;
    assert!(started.elapsed() >= Duration::from_millis(3400), "{:?}", started.elapsed());
    drop(client);
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_close_notify() {
    let (_upstream, gateway, token) = stage(", idle_timeout: 1s").await;
    for request in ["", "GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n"] {
        let mut stream = raw(&gateway, "http/1.1").await;
        stream.write_all(&message(request, &token)).await.unwrap();
        // Without close_notify this is an error: an attacker's cut would look the same (RFC 8446 §6.1).
        tokio::time::timeout(WAIT_TIMEOUT, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    }
}

/// An HTTP/2 connection for requests that a proper client would put right before sending them.
async fn http2(gateway: &Gateway) -> h2::client::SendRequest<bytes::Bytes> {
    let (sender, connection) = h2::client::handshake(raw(gateway, "h2").await).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn an_http2_client_that_reads_nothing_is_disconnected() {
    let (_upstream, gateway, token) = stage(", body_idle_timeout: 1s, idle_timeout: 1s").await;
    let open = async || gateway.metric(r#"callgate_connections_open{listener="https"}"#).await;
    let mut sender = http2(&gateway).await.ready().await.unwrap();
    let request = http::Request::get("https://localhost/bytes/10000000");
    let request = request.header("authorization", format!("Bearer {}", token.secret)).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    // The window is never opened again; pings are answered all the while.
    let _unread = response.await.unwrap().into_body();
    eventually("the connection to be closed", async || (open().await == Some(0.0)).then_some(())).await;
    assert_eq!(gateway.access("/bytes/10000000", 1).await[0]["cut"], true);
}

#[tokio::test]
async fn http2_requests_obey_the_bounds_of_http1_requests() {
    let (upstream, gateway, token) = stage("").await;
    let long = format!("/{}", "a".repeat(9000));
    let many: Vec<_> = (0..120).map(|number| (format!("x-{number}"), "y")).collect();
    let length = |text| ("content-length".to_owned(), text);
    let large = "y".repeat(40_000);
    for (target, headers, status) in [
        ("/good", &[][..], 200),
        (&*long, &[], 414),
        ("/a?\u{9b}31m", &[], 400),
        ("/\u{9b}31m", &[], 400),
        ("/many", &many, 431),
        ("/twice", &[length("0"), length("0")], 400),
        // Above the bound, which is 32 KiB, and below what HTTP/2 refuses by itself.
        ("/large", &[("x".to_owned(), large.as_str())], 431),
    ] {
        let mut sender = http2(&gateway).await.ready().await.unwrap();
        let mut request = http::Request::get(format!("https://localhost{target}"));
        request = request.header("authorization", format!("Bearer {}", token.secret));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), status, "{target:.20}");
        assert_eq!(response.headers()["content-type"], "application/json", "{target:.20}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn connections_over_the_cap_are_closed_at_once() {
    let (_upstream, gateway, token) = stage_with_cap(3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(raw(&gateway, "http/1.1").await);
    }
    let mut refused = TcpStream::connect(gateway.https).await.unwrap();
    let mut bytes = Vec::new();
    let _ = refused.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty());
    assert_eq!(gateway.metric(r#"callgate_connections_refused_total{listener="https"}"#).await, Some(1.0));
    assert_eq!(gateway.metric(r#"callgate_connections_open{listener="https"}"#).await, Some(3.0));
    held.pop();
    crate::support::eventually("a place to be free", async || {
        (gateway.metric(r#"callgate_connections_open{listener="https"}"#).await == Some(2.0)).then_some(())
    })
    .await;
    let answer =
        exchange(&gateway, &message("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n", &token)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

async fn stage_with_cap(cap: usize) -> (Upstream, Gateway, Token) {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let caps = format!("max_connections: {cap}, max_connections_per_client: {cap}");
    site.replace("max_connections: 2000", &caps);
    let token = site.token(&[]);
    let gateway = site.serve();
    (upstream, gateway, token)
}
