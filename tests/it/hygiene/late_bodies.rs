//! Services that send a body behind an answer that must not have one: that body must not be taken for the answer to the next request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::calls::read_head;
use crate::support::client::{header, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};

/// Shorter than a connection rests.
const AT_ONCE: Duration = Duration::from_millis(700);

/// Answers requests to `/first` with this head, and others well; says which connection it is that answers.
async fn service(head: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                loop {
                    let Ok(request) = read_head(&mut socket).await else { return };
                    let is_first = request.contains(" /first ");
                    let answer = if is_first { head } else { "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" };
                    let _ = socket.write_all(format!("{answer}x-connection: {number}\r\n\r\n").as_bytes()).await;
                }
            });
        }
    });
    address
}

fn before(address: SocketAddr, upstream: &str) -> (Gateway, Token) {
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
         upstreams: {{ up: {{ endpoints: [\"http://{address}\"]{upstream} }} }}"
    ));
    site.replace("workers: 2", "workers: 1");
    let token = site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
    (site.serve(), token)
}

/// The connections over which two requests in a row went, and how long both took.
async fn connections(gateway: &Gateway, token: &Token, method: &Method) -> (String, String, Duration) {
    let client = http1(gateway);
    let started = Instant::now();
    let ask = async |method: &Method, path: &str| {
        let answer = client.request(method.clone(), gateway.url(path)).bearer_auth(&token.secret).send().await.unwrap();
        let connection = header(&answer, "x-connection").to_owned();
        assert!(!connection.is_empty(), "{method} {path}: {}, not an answer of the service", answer.status());
        answer.bytes().await.unwrap();
        connection
    };
    (ask(method, "/first").await, ask(&Method::GET, "/second").await, started.elapsed())
}

#[tokio::test]
async fn a_204_that_announces_a_body_is_the_last_answer_on_its_connection() {
    for announced in ["content-length: 42\r\n", "transfer-encoding: chunked\r\n"] {
        let head: &'static str = format!("HTTP/1.1 204 No Content\r\n{announced}").leak();
        let (gateway, token) = before(service(head).await, "");
        for _ in 0..3 {
            let (first, second, _) = connections(&gateway, &token, &Method::DELETE).await;
            assert_ne!(first, second, "{announced}");
        }
    }
    let (gateway, token) = before(service("HTTP/1.1 204 No Content\r\n").await, "");
    let (first, second, _) = connections(&gateway, &token, &Method::DELETE).await;
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_connection_rests_after_an_answer_with_the_length_of_another_one() {
    for (method, head) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n"),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 42\r\n"),
    ] {
        let (gateway, token) = before(service(head).await, "");
        eventually("two requests in time", async || {
            let (first, second, took) = connections(&gateway, &token, &method).await;
            assert!(first != second || took > AT_ONCE, "{method} {head}: {first} {second} {took:?}");
            (took < AT_ONCE).then_some(())
        })
        .await;
        eventually("a connection that has rested", async || {
            let (first, ..) = connections(&gateway, &token, &method).await;
            (first == "0").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_rests_makes_room_for_a_new_one() {
    let address = service("HTTP/1.1 200 OK\r\ncontent-length: 42\r\n").await;
    let (gateway, token) = before(address, ", max_connections: 1, max_waiting: 1, max_wait: 10ms");
    eventually("two requests in time", async || {
        let (first, second, took) = connections(&gateway, &token, &Method::HEAD).await;
        assert!(first != second || took > AT_ONCE, "{first} {second}");
        (took < AT_ONCE).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_304_keeps_its_length() {
    let (gateway, token) = before(service("HTTP/1.1 304 Not Modified\r\ncontent-length: 42\r\n").await, "");
    for client in [http2(&gateway), http1(&gateway)] {
        let answer = client.get(gateway.url("/first")).bearer_auth(&token.secret).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "content-length")), (304, "42"));
        assert_eq!(answer.text().await.unwrap(), "");
    }
}
