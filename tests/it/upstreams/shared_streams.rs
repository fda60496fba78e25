//! Streams that share an HTTP/2 connection: a fault of one of them, or a service that reads nothing of it, leaves the others alone.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::stage;
use crate::support::client::{get, http1, http2, raw};
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
                kind::SETTINGS | kind::WINDOW_UPDATE | kind::PING => {}
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

async fn listen() -> (TcpListener, Gateway, Token) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (gateway, token) = stage(&[endpoint], ", protocol: http2, max_connections: 1", "");
    (listener, gateway, token)
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
    let (listener, gateway, token) = listen().await;
    let (client, other) = (http2(&gateway), http1(&gateway));
    let live = tokio::spawn({
        let request = client.get(gateway.url("/live")).bearer_auth(&token.secret).send();
        async move { request.await.unwrap().bytes().await.unwrap() }
    });
    let mut service = Service::accept(&listener).await;
    let call = service.request().await;
    service.send(kind::HEADERS, END_HEADERS, call, OK).await;
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
    service.send(kind::DATA, END_STREAM, call, b"still here").await;
    assert_eq!(live.await.unwrap(), "still here");
}

#[tokio::test]
async fn frames_that_come_late_on_reset_streams_end_no_other_stream() {
    const CANCELLED: usize = 70;
    let (listener, gateway, token) = listen().await;
    let client = http1(&gateway);
    let live = tokio::spawn({
        let request = client.get(gateway.url("/live")).bearer_auth(&token.secret).send();
        async move { request.await.unwrap().bytes().await.unwrap() }
    });
    let mut service = Service::accept(&listener).await;
    let call = service.request().await;
    service.send(kind::HEADERS, END_HEADERS, call, OK).await;
    let others = http2(&gateway);
    let asks = tokio::spawn({
        let requests: Vec<_> =
            (0..CANCELLED).map(|_| others.get(gateway.url("/x")).bearer_auth(&token.secret).send()).collect();
        join_all(requests)
    });
    let mut streams = Vec::new();
    while streams.len() < CANCELLED {
        streams.push(service.request().await);
    }
    asks.abort();
    drop(others);
    let mut reset = 0;
    while reset < CANCELLED {
        reset += usize::from(service.next().await.kind == kind::RST_STREAM);
    }
    // More than the 1,024 errors that h2 takes from one connection.
    for _ in 0..20 {
        for stream in &streams {
            service.send(kind::DATA, 0, *stream, b"late").await;
        }
    }
    service.send(kind::DATA, END_STREAM, call, b"still here").await;
    assert_eq!(live.await.unwrap(), "still here");
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
    const STALLED: usize = 6;
    const LENGTH: usize = 600_000;
    let stalled = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
    let (sender, connection) = h2::client::handshake(raw(&gateway, "h2").await).await.unwrap();
    tokio::spawn(connection);
    let post = |path: &str| {
        let request = http::Request::post(format!("https://localhost{path}"));
        request.header("authorization", format!("Bearer {}", token.secret)).body(()).unwrap()
    };
    let (held, mut sockets) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = stalled.accept().await {
            held.send(socket).unwrap();
        }
    });
    let mut uploads = Vec::new();
    for _ in 0..STALLED {
        let (answer, mut body) = sender.clone().ready().await.unwrap().send_request(post("/stalled"), false).unwrap();
        body.send_data(Bytes::from(vec![0; LENGTH]), false).unwrap();
        uploads.push((answer, body, sockets.recv().await.unwrap()));
    }
    // They wait for room first, so they have all that the windows allow.
    let (answer, mut body) = sender.clone().ready().await.unwrap().send_request(post("/echo"), false).unwrap();
    body.send_data(Bytes::from(vec![0; 100_000]), true).unwrap();
    let answer =
        tokio::time::timeout(crate::support::PATIENCE, answer).await.expect("room for a small upload").unwrap();
    assert_eq!(answer.status(), 200);
}
