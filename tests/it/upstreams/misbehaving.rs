//! HTTP/2 upstreams that refuse, reset, go away or fall silent: which requests are retried.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::Response;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::stage;
use crate::support::client::{get, http1, http2};
use crate::support::upstream::Upstream;

type Answer = SendResponse<Bytes>;

/// Answers the n-th request of all with `act(n)`; counts connections.
async fn scripted(
    act: impl Fn(usize, Answer, &mut Connection<TcpStream, Bytes>) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, requests, act) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(act));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let (requests, act) = (requests.clone(), act.clone());
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_request, answer))) = connection.accept().await {
                    act(requests.fetch_add(1, Ordering::SeqCst), answer, &mut connection);
                }
            });
        }
    });
    (address, connections)
}

fn good(mut answer: Answer) {
    let mut body = answer.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from("ok"), true).unwrap();
}

#[tokio::test]
async fn requests_that_the_upstream_refused_unprocessed_are_retried() {
    for (reason, resent) in [(Reason::REFUSED_STREAM, true), (Reason::INTERNAL_ERROR, false), (Reason::CANCEL, false)] {
        let (address, _) =
            scripted(move |number, mut answer, _| if number == 0 { answer.send_reset(reason) } else { good(answer) })
                .await;
        let (gateway, token) = stage(&[format!("http://{address}")], ", protocol: http2", "");
        let client = http2(&gateway);
        let first = get(&client, &gateway, "/x", &token).await;
        assert_eq!(first.status(), if resent { 200 } else { 502 }, "{reason:?}");
        assert_eq!(get(&client, &gateway, "/x", &token).await.status(), 200, "{reason:?}");
    }
}

#[tokio::test]
async fn endless_refusals_are_reported() {
    let (address, _) = scripted(|_, mut answer, _| answer.send_reset(Reason::REFUSED_STREAM)).await;
    let (gateway, token) = stage(&[format!("http://{address}")], ", protocol: http2", "");
    assert_eq!(get(&http2(&gateway), &gateway, "/x", &token).await.status(), 502);
    let line = gateway.access("/x", 1).await.remove(0);
    assert!(line["error"].as_str().unwrap().contains("refused"), "{line}");
}

#[tokio::test]
async fn a_goaway_loses_no_request() {
    // Each connection takes five requests and announces its end with the fifth.
    let (address, connections) = scripted(|number, answer, connection| {
        good(answer);
        if number % 5 == 4 {
            connection.graceful_shutdown();
        }
    })
    .await;
    let (gateway, token) = stage(&[format!("http://{address}")], ", protocol: http2", "");
    let client = http1(&gateway);
    for number in 0..40 {
        let request = client.post(gateway.url("/x")).bearer_auth(&token.secret);
        let answer = if number % 2 == 0 { request.body("hello") } else { request }.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), number), (200, number));
        assert_eq!(answer.text().await.unwrap(), "ok");
    }
    assert!(connections.load(Ordering::SeqCst) >= 8);
}

#[tokio::test]
async fn only_requests_after_the_last_stream_of_a_goaway_are_retried() {
    for (last, statuses) in [(0, [200, 200]), (1, [502, 200]), (3, [502, 502])] {
        let address = going_away(2, last).await;
        let (gateway, token) = stage(&[format!("http://{address}")], ", protocol: http2", "");
        let client = http2(&gateway);
        let (a, b) = tokio::join!(get(&client, &gateway, "/a", &token), get(&client, &gateway, "/b", &token));
        let mut answered = [a.status().as_u16(), b.status().as_u16()];
        answered.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(answered, statuses, "GOAWAY({last})");
    }
}

#[tokio::test]
async fn all_requests_that_a_goaway_leaves_out_are_sent_again() {
    const REQUESTS: usize = 60;
    let address = going_away(REQUESTS, 0).await;
    let retry = ", protocol: http2, retry: { budget: 1%, min_per_second: 1 }";
    let (gateway, token) = stage(&[format!("http://{address}")], retry, "");
    let client = http2(&gateway);
    let asked = (0..REQUESTS).map(|_| get(&client, &gateway, "/x", &token));
    let statuses = futures_util::future::join_all(asked).await.into_iter().map(|answer| answer.status().as_u16());
    assert_eq!(statuses.collect::<Vec<_>>(), [200; REQUESTS]);
}

/// Its first connection takes so many requests, says with GOAWAY which was the last that it looked at, and ends. The others are good.
async fn going_away(requests: usize, last: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut received = Vec::new();
        while count_of(&received, 1) < requests {
            assert!(socket.read_buf(&mut received).await.unwrap() > 0);
        }
        socket.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0]).await.unwrap();
        socket.shutdown().await.unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, answer))) = connection.accept().await {
                    good(answer);
                }
            });
        }
    });
    address
}

/// How many frames of a type are in what a client sent.
fn count_of(received: &[u8], kind: u8) -> usize {
    let mut rest = received.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or_default();
    let mut count = 0;
    while let [a, b, c, this, _, _, _, _, _, payload @ ..] = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        count += usize::from(*this == kind);
        rest = payload.get(length..).unwrap_or_default();
    }
    count
}

#[tokio::test]
async fn an_answer_that_is_reset_half_way_is_never_completed() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        is_never_completed(reason).await;
    }
}

async fn is_never_completed(reason: Reason) {
    for client_of in [http1, http2] {
        let half_way = Arc::new(Notify::new());
        let has_head = half_way.clone();
        let (address, _) = scripted(move |number, mut answer, _| {
            if number > 0 {
                return good(answer);
            }
            let half_way = half_way.clone();
            let mut body = answer.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from("half"), false).unwrap();
            tokio::spawn(async move {
                half_way.notified().await;
                body.send_reset(reason);
            });
        })
        .await;
        let (gateway, token) = stage(&[format!("http://{address}")], ", protocol: http2", "");
        let client = client_of(&gateway);
        let answer = get(&client, &gateway, "/x", &token).await;
        assert_eq!(answer.status(), 200);
        has_head.notify_one();
        assert!(answer.bytes().await.is_err(), "half an answer passed for a whole one: {reason}");
        let line = gateway.access("/x", 1).await.remove(0);
        assert_eq!(line["cut"], true, "{line}");
        assert_eq!(get(&client, &gateway, "/x", &token).await.text().await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn a_server_without_http2_is_detected_before_a_request_is_sent() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(&[format!("http://{}", upstream.address)], ", protocol: http2", "");
    let answer = http2(&gateway).post(gateway.url("/x")).bearer_auth(&token.secret).body("hello").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let line = gateway.access("/x", 1).await.remove(0);
    assert!(line["error"].as_str().unwrap().contains("does not speak HTTP/2"), "{line}");
    assert!(upstream.seen().is_empty());
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "bad_gateway");
}

#[tokio::test]
async fn a_silent_server_times_out_once_for_all_waiting_requests() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gateway, token) = stage(&[format!("http://{address}")], ", protocol: http2, connect_timeout: 1s", "");
    let client = http2(&gateway);
    // One after the other they would wait for longer than the client does.
    let answers = futures_util::future::join_all((0..60).map(|_| get(&client, &gateway, "/x", &token))).await;
    assert!(answers.iter().all(|answer| answer.status() == 504));
}

#[tokio::test]
async fn a_silent_connection_is_pinged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut received = Vec::new();
        while count_of(&received, 6) < 1 {
            assert!(socket.read_buf(&mut received).await.unwrap() > 0, "it gave up without asking");
        }
        // A dead peer does not answer; then the connection ends.
        while socket.read_buf(&mut received).await.is_ok_and(|read| read > 0) {}
    });
    let (gateway, token) = stage(&[format!("http://{address}")], ", protocol: http2, ping: 1s", "");
    assert_eq!(get(&http2(&gateway), &gateway, "/x", &token).await.status(), 502);
    asked.await.unwrap();
}
