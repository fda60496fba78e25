//! Ends of calls on one instance with a token file: by the token, by the clock, by the route's bounds, by the drain.

use futures_util::StreamExt;
use rustix::process::Signal;

use super::stage::{breaks_off, stream};
use super::*;
use crate::support::client::{http1, http2};
use crate::support::eventually;

fn close_reason(code: u16, reason: &str) -> Option<(u16, String)> {
    Some((code, reason.to_owned()))
}

#[tokio::test]
async fn revoking_in_the_file_ends_calls_and_streams_of_that_token_only() {
    let stage = Stage::start().await;
    let site = stage.in_memory("", "");
    let (token, other) = (site.token(&["calls:stream"]), site.token(&["calls:stream"]));
    let gateway = site.serve();
    let (first, second) = (http1(&gateway), http2(&gateway));
    let mut quiet = Caller::open(&gateway, "/call", &token).await;
    quiet.quiet().await;
    let busy = Caller::open(&gateway, "/call", &token).await;
    let mut untouched = Caller::open(&gateway, "/call", &other).await;
    let streams = [stream(&first, &gateway, &token).await, stream(&second, &gateway, &token).await];
    let mut own = stream(&first, &gateway, &other).await;
    run(&site, &["token", "revoke", "--yes", &token.id]);
    assert_eq!(busy.close_reason().await, close_reason(NO_LONGER.0, NO_LONGER.1));
    assert_eq!(quiet.close_reason().await, close_reason(NO_LONGER.0, NO_LONGER.1));
    for stream in streams {
        assert!(breaks_off(stream).await, "an answer that is not whole must not look so");
    }
    assert_eq!(stage.calls.close_reasons(2).await, vec![close_reason(NO_LONGER.0, NO_LONGER.1); 2]);
    eventually("the upstream's streams to end", async || (stage.upstream.open_streams() == 1).then_some(())).await;
    assert!(own.chunk().await.unwrap().is_some());
    untouched.quiet().await;
    untouched.0.close(None).await.unwrap();
    while untouched.0.next().await.is_some() {}
    drop(untouched);
    let lines = gateway.access("/call", 3).await;
    assert_eq!(lines[0]["error"], "the token was revoked");
    assert_eq!((&lines[0]["ended_by"], &lines[1]["ended_by"]), (&"gateway".into(), &"gateway".into()));
    assert_eq!(lines[2]["ended_by"], "client");
    let lines = gateway.access("/events", 2).await;
    assert!(lines.iter().all(|line| line["error"] == "the token was revoked" && line["ended_by"] == "gateway"));
    let ended = |by: &str| format!("callgate_calls_ended_total{{by=\"{by}\"}}");
    assert_eq!(gateway.metric(&ended("gateway")).await, Some(2.0));
    assert_eq!(gateway.metric(&ended("client")).await, Some(1.0));
}

#[tokio::test]
async fn calls_end_with_their_token() {
    let stage = Stage::start().await;
    let site = stage.in_memory("", "");
    let token = site.token_with(&["calls:stream"], &["--expires", "3s"]);
    let gateway = site.serve();
    let (call, stream) = (Caller::open(&gateway, "/call", &token), stream(&http1(&gateway), &gateway, &token).await);
    assert_eq!(call.await.close_reason().await, close_reason(NO_LONGER.0, NO_LONGER.1));
    assert!(breaks_off(stream).await);
    assert_eq!(gateway.access("/call", 1).await[0]["error"], "the token has expired");
}

#[tokio::test]
async fn disabling_a_token_or_removing_a_permission_ends_its_calls() {
    let stage = Stage::start().await;
    let site = stage.in_memory("", "");
    let token = site.token(&["calls:stream"]);
    let gateway = site.serve();
    let change = |from: &str, to: &str| {
        let file = site.path("tokens.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(site.path("next.yaml"), text.replace(from, to)).unwrap();
        std::fs::rename(site.path("next.yaml"), file).unwrap();
    };
    let (guarded, free) =
        (Caller::open(&gateway, "/call", &token).await, Caller::open(&gateway, "/free", &token).await);
    change("calls:stream", "calls:read");
    assert_eq!(guarded.close_reason().await, close_reason(NO_LONGER.0, NO_LONGER.1));
    assert_eq!(gateway.access("/call", 1).await[0]["error"], "the token lost the permission");
    assert_eq!(gateway.metric("callgate_calls_open{route=\"/free\"}").await, Some(1.0));
    change("    account:", "    enabled: false\n    account:");
    assert_eq!(free.close_reason().await, close_reason(NO_LONGER.0, NO_LONGER.1));
    assert_eq!(gateway.access("/free", 1).await[0]["error"], "the token was disabled");
}

#[tokio::test]
async fn both_sides_get_a_close_frame_at_the_bounds_of_a_call() {
    for (bound, quiet, reported) in [
        ("idle_timeout: 1s", true, close_reason(1001, "silent for too long")),
        ("max_duration: 1s", false, close_reason(1000, "longest duration reached")),
    ] {
        let stage = Stage::start().await;
        let site = stage.in_memory(&format!(", call: {{ {bound} }}"), "");
        let token = site.token(&["calls:stream"]);
        let gateway = site.serve();
        let mut call = Caller::open(&gateway, "/call", &token).await;
        if quiet {
            call.quiet().await;
        }
        assert_eq!(call.close_reason().await, reported);
        assert_eq!(stage.calls.close_reasons(1).await, [reported]);
    }
}

#[tokio::test]
async fn calls_get_close_code_1012_at_the_end_of_a_drain() {
    let stage = Stage::start().await;
    let site = stage.in_memory("", "drain: { timeout: 1s, calls: 1s, spread: 0s }");
    let token = site.token(&["calls:stream"]);
    let mut gateway = site.serve();
    let mut calls = Vec::new();
    for _ in 0..8 {
        calls.push(Caller::open(&gateway, "/call", &token).await);
    }
    gateway.signal(Signal::TERM);
    let reported = futures_util::future::join_all(calls.into_iter().map(Caller::close_reason)).await;
    assert_eq!(reported, vec![close_reason(1012, "the gateway restarts"); 8]);
    assert_eq!(stage.calls.close_reasons(8).await, vec![close_reason(1001, "the gateway restarts"); 8]);
    assert_eq!(gateway.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_frame_that_never_ends_does_not_keep_a_call_alive() {
    // An upstream that begins a frame of a megabyte and never goes on.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            received.push(socket.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.write_all(&[0x82, 127, 0, 0, 0, 0, 0, 16, 0, 0, 1, 2, 3]).await.unwrap();
        let mut after = Vec::new();
        let _ = socket.read_to_end(&mut after).await;
        after
    });
    let site = Site::in_memory(address, "  - { path: \"/{*rest}\", upstream: up, call: { max_duration: 1s } }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let handshake = format!(
        "GET /call HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token.secret
    );
    let answer = crate::support::client::exchange(&gateway, handshake.as_bytes()).await;
    assert!(answer.ends_with("\u{1}\u{2}\u{3}"), "nothing but the frame came: {answer:?}");
    // Towards the upstream no frame was under way: a Close of 26 bytes, masked.
    assert_eq!(served.await.unwrap()[..2], [0x88, 0x80 | 26]);
}
