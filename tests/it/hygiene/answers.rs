//! Upstreams whose answers can be read in two ways, or that say more than they were asked: nobody gets another one's answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{EVERYTHING, Stage, statuses};
use crate::support::calls::read_head;
use crate::support::client::{http1, http2};
use crate::support::gateway::Site;
use crate::support::recorder::Recorder;

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
                    if read_head(&mut socket).await.is_err() {
                        return;
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
async fn no_answer_is_poisoned(method: Method, poisoned: &'static str, expected: &[(u16, &str)]) {
    let address = upstream(poisoned).await;
    // Asked again, which it may be after a bad answer, the upstream would answer well.
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
         upstreams: {{ up: {{ endpoints: [\"http://{address}\"], retry: {{ on: [connect, refused] }} }} }}"
    ));
    let token = site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
    let gateway = site.serve();
    for client in [http1(&gateway), http2(&gateway)] {
        for _ in 0..10 {
            let ask = |method: &Method| client.request(method.clone(), gateway.url("/x")).bearer_auth(&token.secret);
            // An answer that breaks off, before or after its head was sent, is never taken for a whole one.
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
async fn rfc9110_6_4_1_left_over_bytes_of_a_response_answer_no_request() {
    for poisoned in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    ] {
        no_answer_is_poisoned(Method::GET, poisoned, &[(200, "first")]).await;
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 56\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    no_answer_is_poisoned(Method::HEAD, head, &[(200, "")]).await;
    for status in ["204 No Content", "304 Not Modified"] {
        let reported = format!("HTTP/1.1 {status}\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison");
        no_answer_is_poisoned(Method::GET, reported.leak(), &[(status[..3].parse().unwrap(), "")]).await;
    }
}

#[tokio::test]
async fn rfc9112_6_3_an_answer_of_two_lengths_is_refused() {
    for poisoned in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length : 5\r\n\r\nfirst",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 50\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        // Nobody takes off the other coding.
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
    ] {
        no_answer_is_poisoned(Method::GET, poisoned, &[(502, "bad_gateway")]).await;
    }
    let broken = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nfirst\r\n0\r\n\r\n";
    no_answer_is_poisoned(Method::GET, broken, &[(0, "broken"), (200, "broken"), (502, "bad_gateway")]).await;
}

#[tokio::test]
async fn rfc9110_8_6_equal_lengths_of_an_answer_are_one() {
    for lengths in ["content-length: 5\r\ncontent-length: 5", "content-length: 5, 5", "content-length: 005"] {
        let head = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nfirst");
        let stage = Stage::before(Recorder::answering(move |_| head.clone().into_bytes()).await, EVERYTHING);
        for client in [http1(&stage.gateway), http2(&stage.gateway)] {
            let answer = client.get(stage.gateway.url("/x")).bearer_auth(&stage.token.secret).send().await.unwrap();
            let sent: Vec<_> = answer.headers().get_all("content-length").iter().cloned().collect();
            assert_eq!((answer.status().as_u16(), sent), (200, vec!["5".parse().unwrap()]), "{lengths}");
            assert_eq!(answer.text().await.unwrap(), "first", "{lengths}");
        }
    }
}

#[tokio::test]
async fn rfc9112_5_1_blanks_before_a_colon_of_an_answer_are_removed() {
    let answer = "HTTP/1.1 200 OK\r\nx-own : a\r\ncontent-length\t: 5\r\n\r\nfirst";
    let stage = Stage::before(Recorder::answering(move |_| answer.as_bytes().to_vec()).await, EVERYTHING);
    let answer = stage.send("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nfirst"), "{answer}");
    assert!(answer.contains("\r\nx-own: a\r\n"), "{answer}");
}

/// Heads that hold what no head may, or that are no heads: nobody gets half of one.
#[tokio::test]
async fn rfc9112_5_and_2_2_malformed_heads_of_answers_are_502() {
    for poisoned in [
        "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\n x: a\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 2000 OK\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 20 OK\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 099 OK\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
        "ICY 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\n\r\n<html>no head</html>",
    ] {
        no_answer_is_poisoned(Method::GET, poisoned, &[(502, "bad_gateway")]).await;
    }
}

/// A value that a client could read as two header lines, or as an answer of its own, goes out as one line or not at all.
#[tokio::test]
async fn an_upstream_can_not_split_an_answer() {
    for split in ["a\r\r\nset-cookie: b", "a%0d%0aset-cookie: b", "a\u{560d}\u{560a}set-cookie: b"] {
        let stage = Stage::before(
            Recorder::answering(move |_| {
                format!("HTTP/1.1 200 OK\r\nlocation: {split}\r\ncontent-length: 2\r\n\r\nok").into_bytes()
            })
            .await,
            EVERYTHING,
        );
        let answer = stage.send("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n").await;
        assert_eq!(statuses(&answer).len(), 1, "{answer}");
        assert!(!answer.contains("\nset-cookie") && !answer.contains("\rset-cookie"), "{answer}");
    }
}

#[tokio::test]
async fn an_endless_response_head_is_502_and_not_buffered() {
    let endless: [fn(usize) -> String; 3] =
        [|_| "x: y\r\n".to_owned(), |number| format!("x-{number}: {}\r\n", "y".repeat(1000)), |_| "y".repeat(10_000)];
    for line in endless {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = socket.read(&mut [0; 4096]).await;
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nx: y").await;
                    // As much as anybody would ever keep, and much more.
                    for number in 0..20_000 {
                        if socket.write_all(line(number).as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let site = Site::in_memory(address, "  - { path: \"/{*rest}\", upstream: up }");
        let (token, gateway) = (site.token(&[]), site.serve());
        let before = gateway.resident();
        for client in [http1(&gateway), http2(&gateway)] {
            let answer = client.get(gateway.url("/x")).bearer_auth(&token.secret).send().await.unwrap();
            assert_eq!(answer.status(), 502);
        }
        assert!(gateway.resident() < before + (20 << 20), "{before} {}", gateway.resident());
    }
}

/// A 101 that nobody asked for would leave the gateway's rules behind (RFC 9110 §7.8).
#[tokio::test]
async fn rfc9110_7_8_an_unrequested_switch_of_protocols_is_502() {
    for poisoned in [
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ] {
        no_answer_is_poisoned(Method::GET, poisoned, &[(502, "bad_gateway")]).await;
    }
}

/// Interim responses of the upstream are not its final response.
#[tokio::test]
async fn rfc9110_15_2_an_interim_response_does_not_end_the_exchange() {
    for poisoned in [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
        "HTTP/1.1 102 Processing\r\ncontent-length: 5\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
    ] {
        no_answer_is_poisoned(Method::GET, poisoned, &[(200, "first")]).await;
    }
}

/// The upstream reads a request and hangs up: whatever it has done with it, it is not asked again (RFC 9110 §9.2.2).
#[tokio::test]
async fn rfc9112_9_3_1_a_request_that_was_sent_is_never_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut received = Vec::new();
            // A first request is answered, so that the second one comes on a connection that was used before.
            for answer in [CLEAN, ""] {
                while !received.ends_with(b"hello") {
                    if socket.read_buf(&mut received).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                received.clear();
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        }
    });
    let site = Site::in_memory(address, "  - { path: \"/{*rest}\", upstream: up }");
    let (token, gateway) = (site.token(&[]), site.serve());
    let client = http1(&gateway);
    for method in [Method::POST, Method::PUT] {
        let before = asked.load(Ordering::SeqCst);
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let request = client.request(method.clone(), gateway.url("/x")).bearer_auth(&token.secret).body("hello");
            statuses.push(request.send().await.unwrap().status().as_u16());
        }
        assert_eq!(statuses, [200, 502], "{method}");
        assert_eq!(asked.load(Ordering::SeqCst) - before, 2, "{method}");
    }
}

#[tokio::test]
async fn rfc9110_6_6_1_every_answer_has_one_date() {
    let dated = Recorder::answering(|message| {
        let date = if message.line().contains("/dated") { "date: Tue, 15 Nov 1994 08:12:31 GMT\r\n" } else { "" };
        format!("HTTP/1.1 200 OK\r\n{date}content-length: 2\r\n\r\nok").into_bytes()
    })
    .await;
    let stage = Stage::before(dated, EVERYTHING);
    for (target, auth) in [("/dated", "AUTH\r\n"), ("/undated", "AUTH\r\n"), ("/refused", ""), ("/a/../b", "AUTH\r\n")]
    {
        let answer = stage.send(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n{auth}connection: close\r\n\r\n")).await;
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{target}: {answer}");
        assert_eq!(answer.contains("15 Nov 1994"), target == "/dated", "{answer}");
    }
}

#[tokio::test]
async fn rfc9110_8_6_a_204_has_no_length() {
    for answer in
        ["HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"]
    {
        let stage = Stage::before(Recorder::answering(move |_| answer.into()).await, EVERYTHING);
        for client in [http1(&stage.gateway), http2(&stage.gateway)] {
            let answer = client.get(stage.gateway.url("/x")).bearer_auth(&stage.token.secret).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.headers().get("content-length")), (204, None));
            assert_eq!(answer.text().await.unwrap(), "");
        }
    }
}
