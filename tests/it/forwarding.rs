//! How requests reach upstreams: connections, endpoints, hosts, credentials, and the headers of trusted proxies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::{get, http1, http2, raw};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

async fn stage(endpoints: &[SocketAddr], upstream: &str, route: &str, more: &str) -> (Gateway, Token) {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("\"http://{address}\"")).collect();
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up{route} }}]\n\
         upstreams: {{ up: {{ endpoints: [{}]{upstream} }} }}\n{more}",
        endpoints.join(", ")
    ));
    site.replace("workers: 2", "workers: 1");
    let token = site.token(&[]);
    let gateway = site.serve();
    (gateway, token)
}

#[tokio::test]
async fn connections_are_reused() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(&[upstream.address], "", "", "").await;
    for client in [http1(&gateway), http2(&gateway)] {
        for path in ["/echo", "/bytes/100000", "/status/422", "/echo"] {
            get(&client, &gateway, path, &token).await.bytes().await.unwrap();
        }
        let upload = client.post(gateway.url("/echo")).bearer_auth(&token.secret).body(vec![0; 100_000]);
        assert_eq!(upload.send().await.unwrap().status(), 200);
    }
    assert_eq!((upstream.connections(), upstream.seen().len()), (1, 10));
}

#[tokio::test]
async fn a_connection_closed_by_the_upstream_is_replaced_without_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Answers one request a connection and closes it without saying so.
    let upstream = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let (gateway, token) = stage(&[address], "", "", "").await;
    let client = http1(&gateway);
    for _ in 0..20 {
        let response = client.post(gateway.url("/x")).bearer_auth(&token.secret).body("hello").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), "ok");
    }
    upstream.await.unwrap();
}

#[tokio::test]
async fn endpoints_alternate_and_a_dead_one_is_skipped() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keys = ", balance: round_robin, ejection: none";
    let (gateway, token) = stage(&[first.address, dead, second.address], keys, "", "").await;
    let client = http2(&gateway);
    for _ in 0..30 {
        assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 200);
    }
    let (first, second) = (first.seen().len(), second.seen().len());
    // The others take the dead one's turns too.
    assert!(first >= 10 && second >= 10 && first + second == 30, "{first} and {second}");
    let failures = gateway.metric(r#"callgate_upstream_failures_total{kind="connect",upstream="up"}"#).await;
    assert!(failures.is_some_and(|failures| (9.0..=11.0).contains(&failures)), "{failures:?}");
}

#[tokio::test]
async fn the_host_and_the_credential_are_as_configured() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(&[upstream.address], ", host: endpoint", ", forward_credentials: true", "").await;
    get(&http2(&gateway), &gateway, "/echo", &token).await;
    let headers = &upstream.seen()[0].headers;
    assert_eq!(headers["host"], upstream.address.to_string());
    assert_eq!(headers["authorization"], format!("Bearer {}", token.secret));
    assert_eq!(headers["x-forwarded-host"], format!("localhost:{}", gateway.https.port()));
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(&[upstream.address], "", "", "trusted_proxies: [127.0.0.0/8]").await;
    let request = http1(&gateway)
        .get(gateway.url("/echo"))
        .bearer_auth(&token.secret)
        .header("x-forwarded-for", "6.6.6.6, 203.0.113.9")
        .header("x-forwarded-proto", "https");
    request.send().await.unwrap();
    assert_eq!(upstream.seen()[0].headers["x-forwarded-for"], "6.6.6.6, 203.0.113.9, 127.0.0.1");
    assert_eq!(gateway.access("/echo", 1).await[0]["client"], "203.0.113.9");
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_upstream() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(&[upstream.address], "", "", "").await;
    let request = format!(
        "POST /echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
         connection: close\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\nauthorization: Bearer other\r\n\r\n",
        token.secret
    );
    let answer = crate::support::client::exchange(&gateway, request.as_bytes()).await;
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let reported: Value = serde_json::from_str(body).unwrap();
    assert_eq!(reported["trailers"]["x-sum"], "42", "{reported}");
    assert!(!reported["headers"].to_string().contains("other"), "{reported}");
}

#[tokio::test]
async fn forbidden_headers_are_removed_from_trailers_too() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(&[upstream.address], "", "", "").await;
    let names = "x-callgate-account, x_callgate_plan, x-forwarded-for, authorization, connection, x-sum";
    let lines: String = names.split(", ").map(|name| format!("{name}: forged\r\n")).collect();
    let request = format!(
        "POST /echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\ntrailer: {names}\r\n\
         content_length: 3\r\nconnection: close\r\n\r\n5\r\nhello\r\n0\r\n{lines}\r\n",
        token.secret
    );
    let answer = crate::support::client::exchange(&gateway, request.as_bytes()).await;
    let reported: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(reported["trailers"], serde_json::json!({ "x-sum": "forged" }), "{reported}");
    // Some servers take this name for the other one.
    assert!(!reported["headers"].to_string().contains("content_length"), "{reported}");
}

/// Answers every request on a connection with these bytes; counts connections.
async fn canned(reply: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                    socket.write_all(reply).await.unwrap();
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn an_answer_with_trailers_is_complete_and_its_connection_reused() {
    let (address, connections) = canned(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-ratelimit-limit\r\n\r\n\
          5\r\nhello\r\n0\r\nx-sum: 42\r\nx-ratelimit-limit: 7\r\nconnection: close\r\n\r\n",
    )
    .await;
    let (gateway, token) = stage(&[address], "", "", "").await;
    let request = format!(
        "GET /x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nte: trailers\r\nconnection: close, te\r\n\r\n",
        token.secret
    );
    for number in 1..=2 {
        let answer = crate::support::client::exchange(&gateway, request.as_bytes()).await;
        assert!(answer.ends_with("5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
        let lines = gateway.access("/x", number).await;
        assert_eq!(lines[number - 1].get("cut"), None, "{lines:?}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // Over HTTP/2 an answer is reset when its trailers hold what concerns a connection.
    assert_eq!(get(&http2(&gateway), &gateway, "/x", &token).await.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn an_answer_of_http_1_0_is_passed_on_as_http_1_1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
    });
    let (gateway, token) = stage(&[address], "", "", "").await;
    let response = get(&http1(&gateway), &gateway, "/x", &token).await;
    assert_eq!(response.version(), http::Version::HTTP_11);
    assert_eq!(response.text().await.unwrap(), "until the end");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_502_and_a_short_body_is_never_completed() {
    for (reply, whole) in [
        ("garbage\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", false),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", false),
        ("", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(reply.as_bytes()).await;
            }
        });
        let (gateway, token) = stage(&[address], "", "", "").await;
        for client in [http1(&gateway), http2(&gateway)] {
            let response = get(&client, &gateway, "/x", &token).await;
            assert_eq!(response.status(), if whole { 200 } else { 502 }, "{reply:?}");
            assert_eq!(response.bytes().await.is_err(), whole, "{reply:?}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_answers_and_stops_reading_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        std::future::pending::<()>().await;
    });
    let (gateway, token) = stage(&[address], ", idle_timeout: 1s", "", "").await;
    let mut client = raw(&gateway, "http/1.1").await;
    let head = format!(
        "POST /x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: 1000000000\r\n\r\n",
        token.secret
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let endless = async { while client.write_all(&[b'x'; 65536]).await.is_ok() {} };
    tokio::time::timeout(crate::support::WAIT_TIMEOUT, endless).await.expect("the gateway to stop reading the upload");
    drop(client);
    eventually("the connections to be closed", async || {
        (gateway.metric(r#"callgate_connections_open{listener="https"}"#).await == Some(0.0)).then_some(())
    })
    .await;
}
