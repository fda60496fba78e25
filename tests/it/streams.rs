//! Large and long transfers: uploads, downloads, server-sent events and WebSockets through the gateway.

use std::time::{Duration, Instant};

use callgate::demo::voice;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::CancellationToken;

use crate::support::client::{get, header, http1, http2, raw};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

const GIBIBYTE: u64 = 1 << 30;
/// How long one may take on a slow machine.
const LONG: Duration = Duration::from_secs(300);

async fn stage(more_of_the_route: &str) -> (Upstream, Gateway, Token) {
    let upstream = Upstream::start().await;
    let route = format!("  - {{ path: \"/{{*rest}}\", upstream: up, max_body: 2GiB{more_of_the_route} }}");
    let site = Site::in_memory(upstream.address, &route);
    let token = site.token(&[]);
    let gateway = site.serve();
    (upstream, gateway, token)
}

/// The sample voice-call API behind a gateway.
async fn voice_stage(call: &str) -> (CancellationToken, Gateway, Token) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(voice::serve(listener, stop.clone()));
    let site = Site::in_memory(address, &format!("  - {{ path: \"/{{*rest}}\", upstream: up{call} }}"));
    let token = site.token(&[]);
    let gateway = site.serve();
    (stop, gateway, token)
}

#[tokio::test]
async fn a_download_of_a_gibibyte_takes_constant_memory() {
    let (_upstream, gateway, token) = stage("").await;
    for client in [http1(&gateway), http2(&gateway)] {
        let before = gateway.resident();
        let request = client.get(gateway.url(&format!("/bytes/{GIBIBYTE}"))).bearer_auth(&token.secret);
        let mut response = request.timeout(LONG).send().await.unwrap();
        assert_eq!(header(&response, "content-length"), GIBIBYTE.to_string());
        let (mut seen, mut most) = (0, before);
        while let Some(chunk) = response.chunk().await.unwrap() {
            if (seen >> 26) != ((seen + chunk.len() as u64) >> 26) {
                most = most.max(gateway.resident());
            }
            seen += chunk.len() as u64;
        }
        assert_eq!(seen, GIBIBYTE);
        assert!(most - before < 20 << 20, "{} MiB more than before", (most - before) >> 20);
    }
}

#[tokio::test]
async fn an_upload_of_a_gibibyte_takes_constant_memory() {
    let (_upstream, gateway, token) = stage("").await;
    for client in [http1(&gateway), http2(&gateway)] {
        let before = gateway.resident();
        let piece = bytes::Bytes::from(vec![b'x'; 1 << 20]);
        let pieces = futures_util::stream::iter((0..1024).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
        let upload = client
            .post(gateway.url("/upload"))
            .bearer_auth(&token.secret)
            .body(reqwest::Body::wrap_stream(pieces))
            .timeout(LONG);
        let sending = tokio::spawn(upload.send());
        let mut most = before;
        while !sending.is_finished() {
            most = most.max(gateway.resident());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let reported: serde_json::Value = sending.await.unwrap().unwrap().json().await.unwrap();
        assert_eq!(reported["body_length"], GIBIBYTE);
        assert!(most - before < 20 << 20, "{} MiB more than before", (most - before) >> 20);
    }
}

#[tokio::test]
async fn the_gateway_does_not_read_ahead_of_a_client_that_does_not_read() {
    let (_upstream, gateway, token) = stage("").await;
    let mut stream = raw(&gateway, "http/1.1").await;
    let before = gateway.resident();
    let request =
        format!("GET /bytes/{GIBIBYTE} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", token.secret);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).await.unwrap();
    // Long enough for a gateway that buffers to have taken in hundreds of megabytes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 20 << 20, "{} MiB were buffered", grown >> 20);
}

#[tokio::test]
async fn events_come_frame_by_frame_and_end_upstream_when_the_client_leaves() {
    let (upstream, gateway, token) = stage("").await;
    for client in [http1(&gateway), http2(&gateway)] {
        // Each arrives before the next one goes out: a proxy that gathers would wait for ever.
        upstream.step();
        let mut response = get(&client, &gateway, "/steps", &token).await;
        for number in 0..5 {
            let frame = response.chunk().await.unwrap().unwrap();
            assert_eq!(frame, format!("id: {number}\ndata: tick\n\n"));
            upstream.step();
        }
        assert_eq!(upstream.open_streams(), 1);
        drop(response);
        drop(client);
        eventually("the upstream to see the client go", async || (upstream.open_streams() == 0).then_some(())).await;
    }
    let lines = gateway.access("/steps", 2).await;
    assert!(lines.iter().all(|line| line["cut"] == true && line["bytes_out"].as_u64() > Some(50)), "{lines:?}");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_499() {
    let (upstream, gateway, token) = stage("").await;
    let client = http1(&gateway);
    let request = client.get(gateway.url("/slow/60000")).bearer_auth(&token.secret);
    let waiting = tokio::spawn(request.send());
    eventually("the request to arrive", async || (upstream.seen().len() == 1).then_some(())).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    drop(client);
    let line = gateway.access("/slow/60000", 1).await.remove(0);
    assert_eq!(line["status"], 499);
    assert_eq!(upstream.seen().len(), 1);
}

async fn open_socket(
    gateway: &Gateway,
    token: &Token,
) -> tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let stream = raw(gateway, "http/1.1").await;
    let mut request = "wss://localhost/api/v1/calls/call_1/stream".into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {}", token.secret).parse().unwrap());
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["x-ratelimit-limit"], "60");
    socket
}

#[tokio::test]
async fn audio_frames_echo_through_a_websocket() {
    let (stop, gateway, token) = voice_stage("").await;
    let mut socket = open_socket(&gateway, &token).await;
    for size in [0, 1, 125, 126, 320, 65_535, 65_536, 1 << 20] {
        let frame = Message::binary(vec![size as u8; size]);
        socket.send(frame.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), frame, "{size}");
    }
    for number in 0..500 {
        socket.send(Message::text(format!("frame {number}"))).await.unwrap();
    }
    for number in 0..500 {
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(format!("frame {number}")));
    }
    let series = r#"callgate_calls_open{route="/{*rest}"}"#;
    assert_eq!(gateway.metric(series).await, Some(1.0));
    socket.close(None).await.unwrap();
    let line = gateway.access("/api/v1/calls/call_1/stream", 1).await.remove(0);
    assert_eq!(line["status"], 101);
    assert!(line["bytes_in"].as_u64() > Some(1 << 20) && line["bytes_out"].as_u64() > Some(1 << 20), "{line}");
    eventually("the call to be over", async || (gateway.metric(series).await == Some(0.0)).then_some(())).await;
    stop.cancel();
}

#[tokio::test]
async fn a_websocket_without_a_token_or_over_the_limit_gets_an_ordinary_rejection() {
    let (stop, gateway, token) = voice_stage("").await;
    let handshake = |auth: &str| {
        format!(
            "GET /api/v1/calls/call_1/stream HTTP/1.1\r\nhost: localhost\r\n{auth}connection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
             GET /after HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
    };
    let answer = crate::support::client::exchange(&gateway, handshake("").as_bytes()).await;
    // The second request is read as a request: there is no tunnel without a 101.
    assert_eq!(answer.matches("HTTP/1.1 401 ").count(), 2, "{answer}");
    let client = http2(&gateway);
    for _ in 0..60 {
        get(&client, &gateway, "/api/v1/calls", &token).await;
    }
    let auth = format!("authorization: Bearer {}\r\n", token.secret);
    let answer = crate::support::client::exchange(&gateway, handshake(&auth).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    stop.cancel();
}

#[tokio::test]
async fn calls_end_when_silent_or_too_long() {
    for (limit, why) in [("idle_timeout: 1s", "silent"), ("max_duration: 1s", "maximum")] {
        let (stop, gateway, token) = voice_stage(&format!(", call: {{ {limit} }}")).await;
        let started = Instant::now();
        let mut socket = open_socket(&gateway, &token).await;
        while let Some(Ok(_)) = socket.next().await {}
        assert!(started.elapsed() >= Duration::from_secs(1), "{limit}: {:?}", started.elapsed());
        let line = gateway.access("/api/v1/calls/call_1/stream", 1).await.remove(0);
        assert!(line["error"].as_str().unwrap().contains(why), "{limit}: {line}");
        stop.cancel();
    }
}

#[tokio::test]
async fn bytes_sent_before_the_switch_are_dropped() {
    // An upstream that switches at once and tells what it hears then.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(socket.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.unwrap();
        let mut after = Vec::new();
        let _ = socket.read_to_end(&mut after).await;
        String::from_utf8_lossy(&after).into_owned()
    });
    let site = Site::in_memory(address, "  - { path: \"/{*rest}\", upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let mut handshake = format!(
        "GET /call HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token.secret
    )
    .into_bytes();
    // A frame, although the answer to the handshake is not there yet (RFC 6455 §4.1 forbids that).
    handshake.extend(b"\x82\x85\x01\x02\x03\x04early");
    let answer = crate::support::client::exchange(&gateway, &handshake).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("not an HTTP request"), "{answer}");
    assert_eq!(received.await.unwrap(), "");
}
