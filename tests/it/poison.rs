//! Upstreams whose answers can be read in two ways, or that say more than they were asked: nobody gets another one's answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::{http1, http2};
use crate::support::gateway::Site;

const CLEAN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nclean";

/// Answers every odd request with `poisoned` and every even one well, and leaves connections open: only what it said can tell
/// that something is wrong with one.
async fn upstream(poisoned: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                loop {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = socket.read_u8().await else { return };
                        request.push(byte);
                    }
                    let is_odd = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                    let _ = socket.write_all(if is_odd { poisoned } else { CLEAN }.as_bytes()).await;
                }
            });
        }
    });
    address
}

/// Asks twice, again and again: the first answer has one of these statuses and bodies, and the second is the right one.
async fn nobody_is_poisoned(method: Method, poisoned: &'static str, expected: &[(u16, &str)]) {
    let address = upstream(poisoned).await;
    let site = Site::in_memory(address, "  - { path: \"/{*rest}\", upstream: up }");
    let token = site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
    let gateway = site.serve();
    for client in [http1(&gateway), http2(&gateway)] {
        for _ in 0..10 {
            let ask = |method: &Method| client.request(method.clone(), gateway.url("/x")).bearer_auth(&token.secret);
            // What breaks off, before its head has left or after, nobody takes for whole.
            let (status, body) = match ask(&method).send().await {
                Ok(first) => (first.status().as_u16(), first.text().await.unwrap_or_else(|_| "broken".into())),
                Err(_) => (0, "broken".to_owned()),
            };
            let body = if body.contains("bad_gateway") { "bad_gateway" } else { &body };
            assert!(expected.contains(&(status, body)), "{poisoned:?}: {status} {body:?}");
            let second = ask(&Method::GET).send().await.unwrap();
            assert_eq!(
                (second.status().as_u16(), second.text().await.unwrap().as_str()),
                (200, "clean"),
                "{poisoned:?}"
            );
        }
    }
}

#[tokio::test]
async fn left_over_bytes_of_an_answer_are_nobodys_answer() {
    for poisoned in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    ] {
        nobody_is_poisoned(Method::GET, poisoned, &[(200, "first")]).await;
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 56\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    nobody_is_poisoned(Method::HEAD, head, &[(200, "")]).await;
    for status in ["204 No Content", "304 Not Modified"] {
        let told = format!("HTTP/1.1 {status}\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison");
        nobody_is_poisoned(Method::GET, told.leak(), &[(status[..3].parse().unwrap(), "")]).await;
    }
}

#[tokio::test]
async fn an_answer_of_two_lengths_is_refused() {
    for poisoned in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length : 5\r\n\r\nfirst",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 50\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
    ] {
        nobody_is_poisoned(Method::GET, poisoned, &[(502, "bad_gateway")]).await;
    }
    let twice = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nfirst";
    nobody_is_poisoned(Method::GET, twice, &[(200, "first"), (502, "bad_gateway")]).await;
    let broken = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nfirst\r\n0\r\n\r\n";
    nobody_is_poisoned(Method::GET, broken, &[(0, "broken"), (200, "broken"), (502, "bad_gateway")]).await;
}
