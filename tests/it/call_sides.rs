//! The two sides of a call: raw frames of each other and of Callgate.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::support::WAIT_TIMEOUT;
use crate::support::calls::call;
use crate::support::gateway::{Gateway, Site, Token};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// The key that clients here mask with.
const KEY: [u8; 4] = [1, 2, 3, 4];

/// A gateway, and the place where its calls arrive.
struct Exchange {
    gateway: Gateway,
    token: Token,
    listener: TcpListener,
}

impl Exchange {
    async fn start(settings: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let route = format!("  - {{ path: /call, upstream: up, call: {{ {settings} }} }}");
        let site = Site::in_memory(listener.local_addr().unwrap(), &route);
        let token = site.token(&[]);
        Self { gateway: site.serve(), token, listener }
    }

    /// Both ends of a call that has just begun.
    async fn call(&self) -> (TlsStream<TcpStream>, TcpStream) {
        let answer = async {
            let (mut socket, _) = self.listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
            socket.write_all(switch.as_bytes()).await.unwrap();
            socket
        };
        let (client, upstream) = tokio::join!(call(&self.gateway, &self.token, "/call"), answer);
        (client.unwrap(), upstream)
    }

    /// The access line of the only call.
    async fn line(&self) -> Value {
        self.gateway.access("/call", 1).await.remove(0)
    }
}

/// A frame of at most 125 bytes, as a client or as a server makes it.
fn frame(kind: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut bytes = vec![kind, payload.len() as u8 | if masked { 0x80 } else { 0 }];
    if masked {
        bytes.extend(KEY);
    }
    bytes.extend(payload.iter().zip(KEY.into_iter().cycle()).map(|(byte, key)| byte ^ if masked { key } else { 0 }));
    bytes
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// The next frame, unmasked; `None` at the end.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let hearing = async {
        let kind = stream.read_u8().await.ok()?;
        let second = stream.read_u8().await.unwrap();
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            stream.read_exact(&mut key).await.unwrap();
        }
        let mut payload = vec![0; usize::from(second & 0x7f)];
        stream.read_exact(&mut payload).await.unwrap();
        Some((kind, payload.iter().zip(key.into_iter().cycle()).map(|(byte, key)| byte ^ key).collect()))
    };
    timeout(WAIT_TIMEOUT, hearing).await.expect("a frame, or the end")
}

/// The next frame that is none of these.
async fn read_frame_except(ours: &[(u8, Vec<u8>)], stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    loop {
        let received = read_frame(stream).await;
        if received.as_ref().is_none_or(|received| !ours.contains(received)) {
            return received;
        }
    }
}

/// The status and the reason of the Close frame that comes next.
async fn close_reason(stream: &mut (impl AsyncRead + Unpin)) -> (u16, String) {
    let (kind, payload) = read_frame(stream).await.expect("a frame");
    assert_eq!(kind, CLOSE, "{payload:?}");
    (u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8(payload[2..].to_vec()).unwrap())
}

fn close(code: u16, masked: bool) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes(), masked)
}

#[tokio::test]
async fn a_silent_side_is_pinged_and_its_pongs_are_not_forwarded() {
    // An answer brings the next ping forward.
    let stage = Exchange::start("ping: 1s, ping_timeout: 10m").await;
    let (mut client, mut upstream) = stage.call().await;
    let mut ours = Vec::new();
    for round in 0..2 {
        let (kind, asked) = read_frame(&mut client).await.unwrap();
        assert_eq!((kind, asked.len()), (PING, 8), "{round}");
        send(&mut client, &frame(PONG, &asked, true)).await;
        ours.push((kind, asked));
        let (kind, asked) = read_frame(&mut upstream).await.unwrap();
        assert_eq!((kind, asked.len()), (PING, 8), "{round}");
        send(&mut upstream, &frame(PONG, &asked, false)).await;
        ours.push((kind, asked));
    }
    assert!(ours[0] == ours[2] && ours[1] == ours[3] && ours[0] != ours[1], "{ours:?}");
    // Pings and pongs of the sides themselves pass, unasked pongs too.
    for (kind, text) in [(PING, "there?"), (PONG, "there?"), (PONG, "unasked!"), (TEXT, "hello")] {
        send(&mut client, &frame(kind, text.as_bytes(), true)).await;
        send(&mut upstream, &frame(kind, text.as_bytes(), false)).await;
    }
    for (kind, text) in [(PING, "there?"), (PONG, "there?"), (PONG, "unasked!"), (TEXT, "hello")] {
        for received in [read_frame_except(&ours, &mut upstream).await, read_frame_except(&ours, &mut client).await] {
            assert_eq!(received, Some((kind, text.as_bytes().to_vec())));
        }
    }
    send(&mut client, &close(1000, true)).await;
    assert_eq!(read_frame_except(&ours, &mut upstream).await, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    drop(upstream);
    assert_eq!(read_frame_except(&ours, &mut client).await, None);
    drop(client);
    let line = stage.line().await;
    // Six, eight and five bytes, and the Close frame's two, in frames with headers of six bytes here and of two there.
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&57.into(), &33.into()), "{line}");
    assert_eq!((&line["messages_in"], &line["messages_out"]), (&1.into(), &1.into()), "{line}");
    assert_eq!((&line["ended_by"], &line["error"]), (&"client".into(), &Value::Null), "{line}");
    let count = async |what: &str, from: &str| {
        let series = format!("callgate_call_{what}_total{{from=\"{from}\",route=\"/call\"}}");
        stage.gateway.metric(&series).await
    };
    assert_eq!((count("bytes", "client").await, count("bytes", "upstream").await), (Some(57.0), Some(33.0)));
    assert_eq!((count("messages", "client").await, count("messages", "upstream").await), (Some(1.0), Some(1.0)));
    assert_eq!(stage.gateway.metric("callgate_call_duration_seconds_count{route=\"/call\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_side_that_answers_no_ping_is_disconnected() {
    let cases = [
        ("client", [(1001, "the client does not answer"); 2], "the client did not answer a ping"),
        (
            "upstream",
            [(1011, "the service does not answer"), (1001, "the service does not answer")],
            "the upstream did not answer a ping",
        ),
    ];
    futures_util::future::join_all(cases.map(async |(silent, reported, error)| {
        // Long enough for the side that answers, on any machine.
        let stage = Exchange::start("ping: 1s, ping_timeout: 10s").await;
        let (mut client, mut upstream) = stage.call().await;
        let (at_client, at_upstream) = tokio::join!(
            answer_until_close(&mut client, true, silent != "client"),
            answer_until_close(&mut upstream, false, silent != "upstream"),
        );
        for ((pings, code, reason), reported) in [at_client, at_upstream].iter().zip(reported) {
            assert!(*pings > 0 && (*code, reason.as_str()) == reported, "{silent}: {pings} {code} {reason}");
        }
        let line = stage.line().await;
        assert_eq!((&line["ended_by"], &line["error"]), (&"gateway".into(), &error.into()), "{line}");
    }))
    .await;
}

/// Answers pings, or doesn't; how many there were, and the Close frame at the end.
async fn answer_until_close(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    masked: bool,
    answers: bool,
) -> (usize, u16, String) {
    let mut pings = 0;
    loop {
        let (kind, payload) = read_frame(stream).await.expect("a farewell");
        if kind == CLOSE {
            let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
            return (pings, u16::from_be_bytes([payload[0], payload[1]]), reason);
        }
        assert_eq!(kind, PING);
        pings += 1;
        if answers {
            // It may be over already.
            let _ = stream.write_all(&frame(PONG, &payload, masked)).await;
            let _ = stream.flush().await;
        }
    }
}

#[tokio::test]
async fn a_ping_waits_for_the_end_of_a_frame() {
    let stage = Exchange::start("ping: 1s, ping_timeout: 10m").await;
    let (mut client, mut upstream) = stage.call().await;
    let frames = [frame(0x01, b"first", false), frame(0x80, b"rest", false)];
    send(&mut upstream, &frames[0][..4]).await;
    // The side that fell silent first is pinged first: by now the client's ping is due.
    assert_eq!(read_frame(&mut upstream).await.unwrap().0, PING);
    send(&mut upstream, &[&frames[0][4..], &frames[1]].concat()).await;
    let received = [read_frame(&mut client).await, read_frame(&mut client).await, read_frame(&mut client).await]
        .map(Option::unwrap);
    assert_eq!((&received[0], &received[2]), (&(0x01, b"first".to_vec()), &(0x80, b"rest".to_vec())));
    // Between two fragments of a message, which is allowed (RFC 6455 §5.4).
    assert_eq!(received[1].0, PING);
}

#[tokio::test]
async fn pongs_do_not_keep_a_silent_call_open() {
    let stage = Exchange::start("ping: 1s, idle_timeout: 5s").await;
    let (mut client, mut upstream) = stage.call().await;
    let mut pings = 0;
    let reported = loop {
        match read_frame(&mut client).await.expect("a farewell") {
            (PING, asked) => send(&mut client, &frame(PONG, &asked, true)).await,
            (_, close) => break close,
        }
        pings += 1;
        let (_, asked) = read_frame(&mut upstream).await.unwrap();
        // It may be over already.
        let _ = upstream.write_all(&frame(PONG, &asked, false)).await;
    };
    assert!((1..=5).contains(&pings), "{pings}");
    assert_eq!(reported, [&1001_u16.to_be_bytes()[..], b"silent for too long"].concat());
    assert_eq!(stage.line().await["error"], "the call was silent for too long");
}

#[tokio::test]
async fn each_side_gets_a_close_frame_when_the_other_disconnects() {
    let ended = "the connection ended without a Close frame";
    for (gone, way, error) in [
        ("upstream", "ends", ended),
        ("upstream", "resets", "the call broke off"),
        ("client", "ends", ended),
        ("client", "vanishes", ended),
        ("client", "resets", "the call broke off"),
    ] {
        let stage = Exchange::start("").await;
        let (mut client, mut upstream) = stage.call().await;
        send(&mut client, &frame(TEXT, b"hello", true)).await;
        assert_eq!(read_frame(&mut upstream).await, Some((TEXT, b"hello".to_vec())));
        let reported = match (gone, way) {
            ("upstream", way) => {
                if way == "resets" {
                    upstream.set_zero_linger().unwrap();
                }
                drop(upstream);
                close_reason(&mut client).await
            }
            (_, "resets") => {
                client.get_ref().0.set_zero_linger().unwrap();
                drop(client);
                close_reason(&mut upstream).await
            }
            (_, "vanishes") => {
                // Without a goodbye of TLS.
                drop(client);
                close_reason(&mut upstream).await
            }
            _ => {
                client.shutdown().await.unwrap();
                close_reason(&mut upstream).await
            }
        };
        let expected = if gone == "upstream" { (1011, "the service is gone") } else { (1001, "the client is gone") };
        assert_eq!((reported.0, reported.1.as_str()), expected, "{gone} {way}");
        let line = stage.line().await;
        assert_eq!(line["ended_by"], gone, "{way}: {line}");
        assert!(line["error"].as_str().unwrap().starts_with(error), "{way}: {line}");
    }
}

#[tokio::test]
async fn data_sent_before_a_disconnect_is_delivered() {
    // A Close frame, and then a reset, as from servers that close with something unread.
    let stage = Exchange::start("").await;
    let (mut client, mut upstream) = stage.call().await;
    send(&mut client, &frame(TEXT, b"unread", true)).await;
    upstream.readable().await.unwrap();
    send(&mut upstream, &close(1013, false)).await;
    drop(upstream);
    assert_eq!(close_reason(&mut client).await.0, 1013);
    drop(client);
    let line = stage.line().await;
    assert_eq!((&line["ended_by"], &line["error"]), (&"upstream".into(), &Value::Null), "{line}");

    // In the middle of a frame there is no place for a goodbye.
    let stage = Exchange::start("").await;
    let (mut client, mut upstream) = stage.call().await;
    send(&mut upstream, &frame(TEXT, b"half of it", false)[..5]).await;
    drop(upstream);
    let mut received = Vec::new();
    timeout(WAIT_TIMEOUT, client.read_to_end(&mut received)).await.unwrap().unwrap();
    assert_eq!(received, frame(TEXT, b"half of it", false)[..5]);
}

#[tokio::test]
async fn a_half_closed_side_still_receives_data() {
    let stage = Exchange::start("").await;
    let (mut client, mut upstream) = stage.call().await;
    upstream.shutdown().await.unwrap();
    assert_eq!(close_reason(&mut client).await.0, 1011);
    assert_eq!(read_frame(&mut client).await, None);
    for text in [&b"one"[..], b"two"] {
        send(&mut client, &frame(TEXT, text, true)).await;
        assert_eq!(read_frame(&mut upstream).await, Some((TEXT, text.to_vec())));
    }
    drop(client);
    assert_eq!(close_reason(&mut upstream).await.0, 1001);
    assert_eq!(read_frame(&mut upstream).await, None);

    let (mut client, mut upstream) = stage.call().await;
    client.shutdown().await.unwrap();
    assert_eq!(close_reason(&mut upstream).await.0, 1001);
    assert_eq!(read_frame(&mut upstream).await, None);
    for text in [&b"one"[..], b"two"] {
        send(&mut upstream, &frame(TEXT, text, false)).await;
        assert_eq!(read_frame(&mut client).await, Some((TEXT, text.to_vec())));
    }
    drop(upstream);
    assert_eq!(close_reason(&mut client).await.0, 1011);
    assert_eq!(read_frame(&mut client).await, None);
}

#[tokio::test]
async fn a_slow_reader_slows_the_sender_and_loses_no_data() {
    let stage = Exchange::start("ping: 1s, ping_timeout: 10m").await;
    let (mut client, mut upstream) = stage.call().await;
    // 64 MB in frames of 64 kB, while the client takes nothing for a moment: far more than all buffers hold.
    let payload = vec![7; 65_536];
    let (stalls, stalled) = tokio::sync::oneshot::channel();
    let sent = tokio::spawn(async move {
        let message = [&[0x82, 127][..], &65_536_u64.to_be_bytes(), &payload].concat();
        let mut stalls = Some(stalls);
        for _ in 0..1_000 {
            let mut write = std::pin::pin!(upstream.write_all(&message));
            // Longer than the time between two pings.
            if timeout(Duration::from_millis(1_500), &mut write).await.is_err() {
                let _ = stalls.take().map(|stalls| stalls.send(()));
                write.await.unwrap();
            }
        }
        upstream.write_all(&close(1000, false)).await.unwrap();
        upstream
    });
    timeout(WAIT_TIMEOUT, stalled).await.expect("the sender has to wait").unwrap();
    assert!(stage.gateway.resident() < 100 << 20);
    let (mut messages, mut pings) = (0, 0);
    loop {
        let (kind, second) = (client.read_u8().await.unwrap(), client.read_u8().await.unwrap());
        let length = if second == 127 { client.read_u64().await.unwrap() } else { second.into() };
        let mut payload = vec![0; length as usize];
        client.read_exact(&mut payload).await.unwrap();
        match kind {
            PING => pings += 1,
            CLOSE => break,
            _ => {
                assert!(length == 65_536 && payload.iter().all(|byte| *byte == 7));
                messages += 1;
            }
        }
    }
    // It could not hear any, but one is said as soon as there is room.
    assert_eq!((messages, pings), (1_000, 1));
    drop((client, sent.await.unwrap()));
    assert_eq!(stage.line().await["messages_out"], 1_000);
}
