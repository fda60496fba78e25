//! Timeouts on slow upstreams and slow clients, and which side is blamed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{get, http1, http2, raw, read_to_end};
use crate::support::frames::{self, END_STREAM, Frames, kind};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

/// A gateway before one upstream called `up`.
fn serve(listen: &str, endpoint: &str, upstream: &str, route: &str) -> (Gateway, Token) {
    let site = Site::with_listen(
        listen,
        &format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up{route} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"{endpoint}\"]{upstream} }} }}"
        ),
    );
    let token = site.token(&[]);
    (site.serve(), token)
}

#[tokio::test]
async fn an_upstream_that_makes_no_tls_handshake_is_504() {
    // The kernel takes the connection; nobody makes the TLS handshake.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let (gateway, token) = serve("", &endpoint, ", connect_timeout: 200ms", "");
    for client in [http1(&gateway), http2(&gateway)] {
        let response = get(&client, &gateway, "/x", &token).await;
        assert_eq!(response.status(), 504);
        assert!(response.text().await.unwrap().contains("gateway_timeout"));
    }
}

/// Answers each request with this type and one piece of a body, and with another one after a silence; without one it is
/// silent until the connection closes.
async fn hesitant(content_type: &'static str, silence: Option<Duration>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                assert!(socket.read(&mut request).await.unwrap() > 0);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: 22\r\n\r\n");
                socket.write_all(format!("{head}data: one\n\n").as_bytes()).await.unwrap();
                match silence {
                    Some(silence) => tokio::time::sleep(silence).await,
                    None => drop(socket.read(&mut request).await),
                }
                // It may have been given up.
                let _ = socket.write_all(b"data: two\n\n").await;
            });
        }
    });
    address
}

#[tokio::test]
async fn event_streams_have_the_idle_timeout_of_calls() {
    let read = async |kind, route, silence| {
        let endpoint = format!("http://{}", hesitant(kind, silence).await);
        let (gateway, token) = serve("", &endpoint, ", idle_timeout: 200ms", route);
        let body = get(&http1(&gateway), &gateway, "/x", &token).await.text().await;
        (body, gateway.access("/x", 1).await.remove(0))
    };
    for kind in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
        // Nor does a deadline for whole answers end them.
        let (body, _) = read(kind, ", timeout: 2s", Some(Duration::from_secs(4))).await;
        assert_eq!(body.unwrap(), "data: one\n\ndata: two\n\n", "{kind}");
    }
    for (kind, route, limit) in [
        ("text/event-stream", ", call: { idle_timeout: 1s }", "for 1s"),
        ("text/plain", "", "for 200ms"),
        ("text/event-streams", "", "for 200ms"),
    ] {
        let (body, line) = read(kind, route, None).await;
        assert!(body.is_err(), "{kind}: {body:?}");
        assert!(line["error"].as_str().unwrap().contains(limit), "{kind}: {line}");
    }
}

#[tokio::test]
async fn a_route_overrides_the_idle_timeout_of_its_upstream() {
    for (upstream, route, silence, whole) in [
        (", idle_timeout: 200ms", ", idle_timeout: 5m", Some(Duration::from_millis(1_500)), true),
        (", idle_timeout: 5m", ", idle_timeout: 200ms", None, false),
    ] {
        let endpoint = format!("http://{}", hesitant("text/plain", silence).await);
        let (gateway, token) = serve("", &endpoint, upstream, route);
        for client in [http1(&gateway), http2(&gateway)] {
            let body = get(&client, &gateway, "/x", &token).await.text().await;
            assert_eq!(body.is_ok_and(|body| body == "data: one\n\ndata: two\n\n"), whole, "{route}");
        }
    }
}

fn post(token: &Token, path: &str, length: usize) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n",
        token.secret
    )
    .into_bytes()
}

#[tokio::test]
async fn a_paused_upload_does_not_spend_the_first_byte_timeout() {
    let upstream = Upstream::start().await;
    let endpoint = format!("http://{}", upstream.address);
    let upload = async |gateway: &Gateway, token: &Token, path: &str| {
        let mut stream = raw(gateway, "http/1.1").await;
        stream.write_all(&post(token, path, 10)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (gateway, token) = serve(", body_idle_timeout: 5m", &endpoint, ", first_byte_timeout: 5s", "");
    let mut paused = upload(&gateway, &token, "/echo").await;
    eventually("the upload to begin", async || (upstream.connections() == 1).then_some(())).await;
    // A later upload that is whole has no answer in time: the pause of the first one is longer than that time.
    let mut whole = upload(&gateway, &token, "/slow/60000").await;
    whole.write_all(b"hello").await.unwrap();
    let answer = read_to_end(&mut whole).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    paused.write_all(b"hello").await.unwrap();
    let answer = read_to_end(&mut paused).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let (gateway, token) = serve(", body_idle_timeout: 1s", &endpoint, ", first_byte_timeout: 5m", "");
    let answer = read_to_end(&mut upload(&gateway, &token, "/echo").await).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

/// An HTTP/2 connection whose windows open only when the test opens them. The window of the whole connection is never full:
/// a stream that stalls must not stall the others.
async fn raw_http2(gateway: &Gateway) -> h2::client::SendRequest<bytes::Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(16 << 20);
    let (sender, connection) = builder.handshake(raw(gateway, "h2").await).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn request(method: &str, path: &str, token: &Token) -> http::Request<()> {
    let request = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
    request.header("authorization", format!("Bearer {}", token.secret)).body(()).unwrap()
}

#[tokio::test]
async fn a_stalled_stream_is_reset_while_others_continue() {
    let upstream = Upstream::start().await;
    let (gateway, token) = serve(", body_idle_timeout: 1s", &format!("http://{}", upstream.address), "", "");
    let mut sender = raw_http2(&gateway).await;
    let (events, _) = sender.send_request(request("GET", "/events", &token), true).unwrap();
    let mut events = events.await.unwrap().into_body();
    let reading = tokio::spawn(async move {
        loop {
            let piece = events.data().await.expect("the events to go on").unwrap();
            events.flow_control().release_capacity(piece.len()).unwrap();
        }
    });
    let (unread, _) = sender.send_request(request("GET", "/bytes/10000000", &token), true).unwrap();
    let mut unread = unread.await.unwrap().into_body();
    assert_eq!(gateway.access("/bytes/10000000", 1).await[0]["cut"], true);
    let end = async {
        loop {
            match unread.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("the answer was whole"),
            }
        }
    };
    assert!(tokio::time::timeout(WAIT_TIMEOUT, end).await.unwrap().is_reset());
    // The others don't notice.
    assert!(!reading.is_finished());
    let (after, _) = sender.send_request(request("GET", "/echo", &token), true).unwrap();
    assert_eq!(after.await.unwrap().status(), 200);
    reading.abort();
}

#[tokio::test]
async fn a_slow_http2_reader_gets_the_whole_body() {
    let upstream = Upstream::start().await;
    let (gateway, token) = serve(", body_idle_timeout: 4s", &format!("http://{}", upstream.address), "", "");
    let mut sender = raw_http2(&gateway).await;
    let (response, _) = sender.send_request(request("GET", "/bytes/400000", &token), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let (mut read, started) = (0, Instant::now());
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        read += piece.len();
        // All pieces take longer than the timeout, and each takes far less.
        tokio::time::sleep(Duration::from_millis(250)).await;
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    assert_eq!(read, 400_000);
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_upload_goes_on_after_its_answer_has_ended() {
    const PIECE: usize = 1_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Answers at once, and reads on.
    let received = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let read = socket.read(&mut bytes).await.unwrap();
        let mut pieces = bytes[..read].iter().filter(|byte| **byte == b'#').count();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        while let Ok(read @ 1..) = socket.read(&mut bytes).await {
            pieces += bytes[..read].iter().filter(|byte| **byte == b'#').count();
            if bytes[..read].contains(&b'!') {
                break;
            }
        }
        pieces
    });
    let (gateway, token) = serve(", idle_timeout: 3s, body_idle_timeout: 3s", &endpoint, "", "");
    let mut sender = raw_http2(&gateway).await;
    let (response, mut upload) = sender.send_request(request("POST", "/x", &token), false).unwrap();
    upload.send_data(bytes::Bytes::from_static(&[b'#'; PIECE]), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "ok");
    let (mut sent, started) = (1, Instant::now());
    // Longer than both timeouts, in pieces that come far more often.
    while started.elapsed() < Duration::from_secs(7) {
        upload.send_data(bytes::Bytes::from_static(&[b'#'; PIECE]), false).unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    upload.send_data("!".into(), true).unwrap();
    assert_eq!(received.await.unwrap(), sent * PIECE);
}

/// A reset right behind the answer makes clients forget the answer. But nobody is read for ever whose request is refused.
#[tokio::test]
async fn a_refused_http2_upload_is_drained_for_a_limited_time() {
    let upstream = Upstream::start().await;
    let (gateway, _token) = serve("", &format!("http://{}", upstream.address), "", "");
    let refused = async |frames: &mut Frames, stream| {
        frames.headers(stream, &frames::request("POST", "/x", None), false).await;
        loop {
            let frame = frames.next().await.unwrap();
            assert!(frame.stream != stream || frame.kind != kind::RST_STREAM, "reset before the answer");
            if frame.stream == stream && frame.kind == kind::DATA {
                return;
            }
        }
    };
    // A client that is slow to continue after the answer is reset: a busy machine may need another try.
    eventually("an upload that may go on", async || {
        let mut frames = Frames::connect(&gateway).await;
        refused(&mut frames, 1).await;
        frames.send(kind::DATA, 0, 1, &[b'x'; 16_000]).await;
        frames.send(kind::DATA, END_STREAM, 1, &[b'x'; 16_000]).await;
        frames.headers(3, &frames::request("GET", "/x", None), true).await;
        loop {
            let frame = frames.next().await.unwrap();
            match (frame.stream, frame.kind) {
                (1, kind::RST_STREAM) => return None,
                (3, kind::HEADERS) => return Some(()),
                _ => {}
            }
        }
    })
    .await;
    let mut frames = Frames::connect(&gateway).await;
    refused(&mut frames, 1).await;
    let reset = loop {
        let frame = frames.next().await.unwrap();
        if (frame.stream, frame.kind) == (1, kind::RST_STREAM) {
            break frame;
        }
    };
    assert_eq!(reset.payload, [0; 4], "NO_ERROR: the answer stands (RFC 9113 §8.1)");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_disconnect_after_garbage_is_noticed() {
    let upstream = Upstream::start().await;
    let (gateway, token) = serve("", &format!("http://{}", upstream.address), "", "");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", token.secret);
    let mut stream = raw(&gateway, "http/1.1").await;
    stream.write_all(format!("{}\0garbage\r\n\r\n", get("/slow/60000")).as_bytes()).await.unwrap();
    eventually("the request to arrive", async || (upstream.seen().len() == 1).then_some(())).await;
    // More of it, which nobody will read.
    stream.write_all(&[b'x'; 10_000]).await.unwrap();
    drop(stream);
    assert_eq!(gateway.access("/slow/60000", 1).await[0]["status"], 499);

    // A client that stays gets both answers, in order.
    let mut stream = raw(&gateway, "http/1.1").await;
    stream.write_all(format!("{}{}\0garbage\r\n\r\n", get("/slow/300"), get("/echo")).as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    let statuses: Vec<_> =
        answer.match_indices("HTTP/1.1 ").map(|(at, text)| &answer[at + text.len()..][..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
    let refused = gateway.access("-", 1).await.pop().unwrap();
    assert_eq!((&refused["method"], &refused["status"]), (&"-".into(), &400.into()), "{refused}");
}

#[tokio::test]
async fn running_out_of_file_descriptors_is_logged_once() {
    let upstream = Upstream::start().await;
    let (gateway, token) = serve("", &format!("http://{}", upstream.address), "", "");
    let pid = rustix::process::Pid::from_raw(gateway.pid().try_into().unwrap());
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count() as u64;
    let limit = |current| {
        let limits = rustix::process::Rlimit { current: Some(current), maximum: None };
        let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let limits = rustix::process::Rlimit { maximum: before.maximum, ..limits };
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limits).unwrap()
    };
    let before = limit(open + 5);
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(gateway.https).await.unwrap());
    }
    let reported = || gateway.log().iter().filter(|line| line.to_string().contains("can't accept")).count();
    eventually("the trouble to be told", async || (reported() > 0).then_some(())).await;
    // Each worker tries ten times a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(reported() <= 2, "{}", gateway.output());
    limit(before.current.unwrap());
    drop(held);
    let client = http1(&gateway);
    eventually("connections to be taken again", async || {
        let answer = client.get(gateway.url("/echo")).bearer_auth(&token.secret).send().await;
        answer.is_ok_and(|response| response.status() == 200).then_some(())
    })
    .await;
}
