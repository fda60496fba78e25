//! Streams that share an HTTP/2 connection: a fault of one of them, or a service that reads nothing of it, leaves the others alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::stage;
use crate::support::client::{get, http1, http2};
use crate::support::frames::{END_HEADERS, END_STREAM, Frame, Frames, encode, field, kind, request};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

/// `:status: 200`.
const OK: &[u8] = &[0x88];

/// A service's end of one connection, frame by frame. It answers settings, and leaves the rest to the test.
struct Service {
    socket: TcpStream,
}

impl Service {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_exact(&mut [0; 24]).await.unwrap();
        let mut service = Self { socket };
        service.send(kind::SETTINGS, 0, 0, &[]).await;
        service
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.socket.write_all(&encode(kind, flags, stream, payload)).await.unwrap();
    }

    /// The next frame that is not about settings or windows.
    async fn next(&mut self) -> Frame {
        loop {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).await.expect("the connection goes on");
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
            self.socket.read_exact(&mut payload).await.unwrap();
            match kind {
                kind::SETTINGS if flags == 0 => self.send(kind::SETTINGS, 1, 0, &[]).await,
                kind::SETTINGS | kind::WINDOW_UPDATE => {}
                kind => return Frame { kind, flags, stream: u32::from_be_bytes(stream), payload },
            }
        }
    }

    /// The stream of the next request.
    async fn request(&mut self) -> u32 {
        loop {
            let frame = self.next().await;
            assert_ne!(frame.kind, kind::GOAWAY, "{frame:?}");
            if frame.kind == kind::HEADERS {
                return frame.stream;
            }
        }
    }
}

/// A call that must not suffer: a stream on the only connection to the service, whose answer has begun.
struct LiveCall {
    stream: u32,
    body: JoinHandle<Bytes>,
}

impl LiveCall {
    async fn goes_on(self, mut service: Service) {
        service.send(kind::DATA, END_STREAM, self.stream, b"still here").await;
        assert_eq!(self.body.await.unwrap(), "still here");
    }
}

async fn with_live_call() -> (Gateway, Token, Service, LiveCall) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (gateway, token) = stage(&[endpoint], ", protocol: http2, max_connections: 1", "");
    let request = http1(&gateway).get(gateway.url("/live")).bearer_auth(&token.secret).send();
    let body = tokio::spawn(async move { request.await.unwrap().bytes().await.unwrap() });
    let mut service = Service::accept(&listener).await;
    let stream = service.request().await;
    service.send(kind::HEADERS, END_HEADERS, stream, OK).await;
    (gateway, token, service, LiveCall { stream, body })
}

#[tokio::test]
async fn a_malformed_answer_of_a_service_ends_no_other_stream() {
    let malformed_heads = [
        [OK, &field(b"grpc-message", b"no such\ncall")].concat(),
        [OK, &field(b"X-Capital", b"1")].concat(),
        [OK, &field(b":voice", b"1")].concat(),
        field(b":status", b"2x0"),
        [OK, &field(b"connection", b"close")].concat(),
        [OK, &field(b"content-length", b"five")].concat(),
    ];
    let malformed_trailers = [field(b"grpc-message", b"\r\n"), field(b"", b"1"), field(b":path", b"/")];
    let (gateway, token, mut service, live) = with_live_call().await;
    let other = http1(&gateway);
    for head in malformed_heads {
        let (answer, ()) = tokio::join!(get(&other, &gateway, "/bad", &token), async {
            let stream = service.request().await;
            service.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &head).await;
        });
        assert_eq!(answer.status(), 502, "{head:?}");
    }
    for trailers in malformed_trailers {
        let (body, ()) = tokio::join!(async { get(&other, &gateway, "/bad", &token).await.bytes().await }, async {
            let stream = service.request().await;
            service.send(kind::HEADERS, END_HEADERS, stream, OK).await;
            service.send(kind::DATA, 0, stream, b"some").await;
            service.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &trailers).await;
        });
        // h2 drops pseudo-headers from trailers.
        assert!(body.is_err() || trailers.starts_with(b"\0\x05:path"), "{trailers:?}");
    }
    live.goes_on(service).await;
}

#[tokio::test]
async fn a_body_before_the_head_of_its_answer_ends_no_other_stream() {
    let (gateway, token, mut service, live) = with_live_call().await;
    let other = http1(&gateway);
    let interim: [&[u8]; 3] = [b"", &field(b":status", b"103"), b"\x48\x03103"];
    // The last one is in the table of fields then.
    for head in interim.into_iter().chain([&b"\xbe"[..]]) {
        let (answer, ()) = tokio::join!(get(&other, &gateway, "/bad", &token), async {
            let stream = service.request().await;
            if !head.is_empty() {
                service.send(kind::HEADERS, END_HEADERS, stream, head).await;
            }
            service.send(kind::DATA, 0, stream, b"early").await;
            service.send(kind::DATA, END_STREAM, stream, b" and more").await;
        });
        assert_eq!(answer.status(), 502, "{head:?}");
    }
    let (answer, ()) = tokio::join!(get(&other, &gateway, "/good", &token), async {
        let stream = service.request().await;
        service.send(kind::HEADERS, END_HEADERS, stream, b"\xbe").await;
        service.send(kind::HEADERS, END_HEADERS, stream, OK).await;
        service.send(kind::DATA, END_STREAM, stream, b"good").await;
    });
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "good"));
    live.goes_on(service).await;
}

#[tokio::test]
async fn frames_that_come_late_on_reset_streams_end_no_other_stream() {
    const CANCELLED: usize = 70;
    let (gateway, token, mut service, live) = with_live_call().await;
    let others = http2(&gateway);
    let asks = tokio::spawn({
        let requests: Vec<_> =
            (0..CANCELLED).map(|_| others.get(gateway.url("/x")).bearer_auth(&token.secret).send()).collect();
        join_all(requests)
    });
    let mut streams = Vec::new();
    while streams.len() < CANCELLED {
        let stream = service.request().await;
        service.send(kind::HEADERS, END_HEADERS, stream, OK).await;
        streams.push(stream);
    }
    // The answers are dropped, and their streams with them.
    drop(asks.await.unwrap());
    let mut reset = 0;
    while reset < CANCELLED {
        reset += usize::from(service.next().await.kind == kind::RST_STREAM);
    }
    // In all more than the 1,024 errors that h2 takes from one connection. Answered pings tell that it has read a round.
    for _ in 0..80 {
        for stream in &streams {
            service.send(kind::DATA, 0, *stream, b"late").await;
        }
        service.send(kind::PING, 0, 0, b"a round.").await;
        while service.next().await.kind != kind::PING {}
    }
    live.goes_on(service).await;
}

#[tokio::test]
async fn a_malformed_request_ends_no_other_stream() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(&[format!("http://{}", upstream.address)], "", "");
    let mut client = Frames::connect(&gateway).await;
    client.headers(1, &request("POST", "/echo", Some(&token)), false).await;
    let malformed: [&[u8]; 4] = [
        &field(b"x-text", b"a\nb"),
        &field(b"X-Capital", b"1"),
        &field(b":voice", b"1"),
        // Added to the table of fields, which must stay the same on both sides.
        b"\x40\x06x-text\x03a\rb",
    ];
    for (number, more) in (0_u32..).zip(malformed) {
        let stream = 3 + 2 * number;
        client.headers(stream, &[&request("GET", "/echo", Some(&token)), more].concat(), true).await;
        let reset = loop {
            let frame = client.next().await.expect("the connection goes on");
            if frame.kind == kind::RST_STREAM {
                break frame;
            }
        };
        assert_eq!((reset.stream, &reset.payload[..]), (stream, &[0, 0, 0, 1][..]), "PROTOCOL_ERROR");
    }
    client.send(kind::DATA, END_STREAM, 1, b"still here").await;
    let answer = loop {
        let frame = client.next().await.expect("an answer");
        if frame.kind == kind::HEADERS {
            break frame;
        }
    };
    assert_eq!((answer.stream, answer.status()), (1, 200));
}

#[tokio::test]
async fn uploads_that_a_service_leaves_unread_stop_no_other_upload() {
    const STALLED: u32 = 12;
    let socket = TcpSocket::new_v4().unwrap();
    // The service's system takes little of a body.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let stalled = socket.listen(16).unwrap();
    let well = Upstream::start().await;
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nplans: {{ standard: {{ limits: {{ minute: 1000/1m }} }} }}\n\
         routes:\n  - {{ path: /stalled, upstream: stalled }}\n  - {{ path: \"/{{*rest}}\", upstream: well }}\n\
         upstreams: {{ stalled: {{ endpoints: [\"http://{}\"] }}, well: {{ endpoints: [\"http://{}\"] }} }}",
        stalled.local_addr().unwrap(),
        well.address
    ));
    let token = site.token(&[]);
    let gateway = site.serve();
    let held = tokio::spawn(async move {
        let mut sockets = Vec::new();
        while let Ok(accepted) = stalled.accept().await {
            sockets.push(accepted);
        }
    });
    let mut client = Frames::connect(&gateway).await;
    // The larger windows of streams apply once their setting is acknowledged.
    client.send(kind::SETTINGS, 1, 0, &[]).await;
    let mut windows = Windows::default();
    for number in 0..STALLED {
        client.headers(1 + 2 * number, &request("POST", "/stalled", Some(&token)), false).await;
        windows.streams.insert(1 + 2 * number, 0);
    }
    // Until each of them has sent all that it may.
    while windows.of_new_streams == 0 || windows.streams.values().any(|room| *room > 0) {
        let sendable = windows.streams.iter().find(|(_, room)| **room > 0).map(|(stream, room)| (*stream, *room));
        match sendable {
            Some((stream, room)) if windows.connection > 0 => {
                let length = room.min(windows.connection).min(16_384);
                windows.take(stream, length);
                client.send(kind::DATA, 0, stream, &vec![0; length as usize]).await;
            }
            Some(_) | None => windows.note(&client.next().await.expect("the connection goes on")),
        }
    }
    client.headers(101, &request("POST", "/echo", Some(&token)), false).await;
    while windows.connection < 1000 {
        windows.note(&client.next().await.expect("the connection goes on"));
    }
    client.send(kind::DATA, END_STREAM, 101, &[0; 1000]).await;
    let answer = loop {
        let frame = client.next().await.expect("an answer");
        assert_ne!((frame.stream, frame.kind), (101, kind::RST_STREAM));
        if (frame.stream, frame.kind) == (101, kind::HEADERS) {
            break frame;
        }
    };
    assert_eq!(answer.status(), 200);
    held.abort();
}

/// What a client may send (RFC 9113 §5.2).
#[derive(Default)]
struct Windows {
    connection: i64,
    of_new_streams: i64,
    streams: BTreeMap<u32, i64>,
}

impl Windows {
    fn take(&mut self, stream: u32, length: i64) {
        self.connection -= length;
        *self.streams.get_mut(&stream).unwrap() -= length;
    }

    fn note(&mut self, frame: &Frame) {
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
        match frame.kind {
            kind::SETTINGS if frame.flags == 0 => {
                let window = frame.payload.chunks(6).find(|setting| setting[..2] == [0, 4]).expect("a window");
                self.of_new_streams = number(&window[2..]);
                self.connection += 65_535;
                self.streams.values_mut().for_each(|room| *room += self.of_new_streams);
            }
            kind::WINDOW_UPDATE if frame.stream == 0 => self.connection += number(&frame.payload),
            kind::WINDOW_UPDATE => *self.streams.get_mut(&frame.stream).unwrap() += number(&frame.payload),
            _ => {}
        }
    }
}
