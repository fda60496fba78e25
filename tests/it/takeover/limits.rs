//! The memory store over takeovers: what one process admitted counts in the next, and the old one asks it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::support::calls::{call, read_head, switchboard};
use crate::support::client::{get, http1, raw};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

async fn site(plan: &str) -> (Upstream, Arc<Site>) {
    let (upstream, calls) = (Upstream::start().await, switchboard().await);
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nplans:\n  p: {plan}\ndefault_plan: p\n\
         routes:\n  - {{ path: /call, upstream: calls }}\n  - {{ path: \"/{{*rest}}\", upstream: up }}\n\
         upstreams:\n  up: {{ endpoints: [\"http://{}\"] }}\n  calls: {{ endpoints: [\"http://{calls}\"] }}\n",
        upstream.address
    ));
    (upstream, site)
}

/// A request on this connection, and the head of its answer.
async fn ask(stream: &mut TlsStream<tokio::net::TcpStream>, token: &Token) -> String {
    let request = format!("GET /echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", token.secret);
    stream.write_all(request.as_bytes()).await.unwrap();
    read_head(stream).await.unwrap()
}

async fn taken_over(old: &Gateway) {
    eventually("the old process to drain", async || {
        old.log().iter().any(|line| line["message"] == "draining").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_kept_connection_of_the_old_process_counts_in_the_new_one() {
    let (_upstream, site) = site("{ limits: { hour: 3/1h } }").await;
    let token = site.token(&[]);
    let old = site.take_over().unwrap();
    let mut kept = raw(&old, "http/1.1").await;
    let mut handshake = tokio::net::TcpStream::connect(old.https).await.unwrap();
    assert_eq!(get(&http1(&old), &old, "/echo", &token).await.status(), 200);
    site.replace("https: \"127.0.0.1:0\"", &format!("https: \"{}\"", old.https));
    let new = site.take_over().unwrap();
    taken_over(&old).await;
    assert_eq!(get(&http1(&new), &new, "/echo", &token).await.status(), 200);
    // The connection was idle, and is answered once more, by the log of the new process.
    let head = ask(&mut kept, &token).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close"), "{head}");
    assert!(head.contains("x-ratelimit-remaining: 0\r\n"), "{head}");
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).await.unwrap();
    assert_eq!(get(&http1(&new), &new, "/echo", &token).await.status(), 429);
    // A connection without a handshake is not dropped either: the old process waits for it.
    let waits = tokio::time::timeout(std::time::Duration::from_millis(100), handshake.read_u8()).await;
    assert!(waits.is_err(), "{waits:?}");
}

#[tokio::test]
async fn open_calls_count_over_three_processes() {
    let (_upstream, site) = site("{ limits: { hour: 100/1h }, concurrent_calls: 2 }").await;
    let token = site.token(&[]);
    let first = site.take_over().unwrap();
    let mut kept = raw(&first, "http/1.1").await;
    site.replace("https: \"127.0.0.1:0\"", &format!("https: \"{}\"", first.https));
    let one = call(&first, &token, "/call").await.unwrap();
    let second = site.take_over().unwrap();
    taken_over(&first).await;
    let two = call(&second, &token, "/call").await.unwrap();
    let third = site.take_over().unwrap();
    taken_over(&second).await;
    let refused = call(&third, &token, "/call").await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert_eq!(get(&http1(&third), &third, "/echo", &token).await.status(), 200);
    // The first process asks the third one by now: two calls, the refused one not, and two requests.
    let head = ask(&mut kept, &token).await;
    assert!(head.contains("x-ratelimit-remaining: 96\r\n"), "{head}");
    // And tells it of the end of a call.
    drop(one);
    let three =
        eventually("the end of a call to free its place", async || call(&third, &token, "/call").await.ok()).await;
    let refused = call(&third, &token, "/call").await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    // A process that dies frees what it held.
    second.signal(rustix::process::Signal::KILL);
    let four =
        eventually("the call of a dead process to free its place", async || call(&third, &token, "/call").await.ok())
            .await;
    drop((two, three, four));
}
