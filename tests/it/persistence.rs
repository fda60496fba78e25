//! Whether a client's connection goes on after an answer: it does, or the answer says `Connection: close`.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::WAIT_TIMEOUT;
use crate::support::client::raw;
use crate::support::frames::{Frames, kind, request};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

const ROUTES: &str = r#"
  - { path: /forbidden, permission: "admin:all", upstream: up }
  - { path: /small, max_body: 1, upstream: up }
  - { path: "/api/{*rest}", strip_prefix: /api, upstream: up }
"#;

struct Stage {
    _upstream: Upstream,
    gateway: Gateway,
    token: Token,
    /// Its limit is used up.
    poor: Token,
}

impl Stage {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let site = Site::in_memory(upstream.address, ROUTES);
        let token = site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
        let poor = site.token_with(&[], &["--limit", "minute=1/1m"]);
        let gateway = site.serve();
        let mut client = Client::connect(&gateway).await;
        client.send(format!("GET /api/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", poor.secret)).await;
        assert!(client.answer().await.contains(" 200 "));
        Self { _upstream: upstream, gateway, token, poor }
    }

    /// Statuses, credentials and targets of requests that are refused before anybody reads their body.
    fn refusals(&self) -> [(u16, String, &'static str); 5] {
        let bearer = |secret: &str| format!("authorization: Bearer {secret}\r\n");
        let good = || bearer(&self.token.secret);
        [
            (401, bearer("wrong"), "/api/x"),
            (403, good(), "/forbidden"),
            (404, good(), "/nowhere"),
            (413, good(), "/small"),
            (429, bearer(&self.poor.secret), "/api/x"),
        ]
    }
}

struct Client<S>(S);

impl Client<TlsStream<TcpStream>> {
    async fn connect(gateway: &Gateway) -> Self {
        Self(raw(gateway, "http/1.1").await)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// One answer: its head and its body, whose length is known.
    async fn answer(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(WAIT_TIMEOUT, self.0.read_u8()).await;
            head.push(byte.expect("an answer in time").expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        head
    }

    /// The connection ends, and nothing more is answered on it.
    async fn ends(mut self) {
        let mut rest = Vec::new();
        // A close without a goodbye ends it too.
        let _ = tokio::time::timeout(WAIT_TIMEOUT, self.0.read_to_end(&mut rest)).await.expect("a close in time");
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1."), "{rest:?}");
    }

    /// Whether the next request on the connection is answered, if the last answer did not say that there is no next one.
    async fn goes_on(mut self, last: &str, token: &Token) -> bool {
        if last.contains("connection: close\r\n") {
            self.ends().await;
            return false;
        }
        self.send(format!("GET /api/echo HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", token.secret)).await;
        let next = self.answer().await;
        assert!(next.starts_with("HTTP/1.1 200 "), "{last}{next}");
        true
    }
}

#[tokio::test]
async fn a_refused_body_leaves_the_connection_usable_or_the_answer_says_close() {
    let stage = Stage::new().await;
    let (gateway, token) = (&stage.gateway, &stage.token);
    for (status, credential, path) in stage.refusals() {
        let head =
            |length: usize| format!("POST {path} HTTP/1.1\r\nhost: a\r\n{credential}content-length: {length}\r\n\r\n");
        // With its head, and only after the answer.
        for (length, is_late) in [(20, true), (20, false), (1_000, false), (60_000, true), (60_000, false)] {
            let mut client = Client::connect(gateway).await;
            client.send(head(length)).await;
            let early = if is_late { Some(client.answer().await) } else { None };
            client.send(vec![b'x'; length]).await;
            let answer = match early {
                Some(answer) => answer,
                None => client.answer().await,
            };
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {answer}");
            assert!(client.goes_on(&answer, token).await, "{length}: {answer}");
        }
        // Too much to be read for nothing.
        let mut client = Client::connect(gateway).await;
        client.send(head(300_000)).await;
        let answer = client.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(!client.goes_on(&answer, token).await, "{answer}");
    }
}

#[tokio::test]
async fn refused_chunks_leave_the_connection_usable_or_the_answer_says_close() {
    let stage = Stage::new().await;
    let (gateway, token) = (&stage.gateway, &stage.token);
    // A body that turns out too long says close in any case.
    for (status, credential, path) in stage.refusals().into_iter().filter(|(status, ..)| *status != 413) {
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{credential}transfer-encoding: chunked\r\n\r\n");
        for (body, goes_on) in
            [("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", true), ("5\r\nhello\r\n", false), ("", false)]
        {
            let mut client = Client::connect(gateway).await;
            client.send(format!("{head}{body}")).await;
            let answer = client.answer().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body:?}: {answer}");
            assert_eq!(client.goes_on(&answer, token).await, goes_on, "{body:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_refused_body_on_the_admin_listener_says_close() {
    let stage = Stage::new().await;
    for (path, length) in [("/api/tokens", 20), ("/nowhere", 300_000)] {
        let mut client = Client(TcpStream::connect(stage.gateway.admin).await.unwrap());
        client.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("connection: close\r\n"), "{answer}");
        client.ends().await;
    }
}

/// Nobody is asked for a body that is thrown away.
#[tokio::test]
async fn a_refusal_instead_of_100_says_close() {
    let stage = Stage::new().await;
    let (gateway, token) = (&stage.gateway, &stage.token);
    for (status, credential, path) in stage.refusals() {
        let mut client = Client::connect(gateway).await;
        let expect = "expect: 100-continue\r\ncontent-length: 20\r\n";
        client.send(format!("POST {path} HTTP/1.1\r\nhost: a\r\n{credential}{expect}\r\n")).await;
        let answer = client.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(!client.goes_on(&answer, token).await, "{answer}");
    }
}

/// A service that refuses what it has seen the head of, and closes.
async fn refusing_service() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = socket.read_u8().await else { return };
                    head.push(byte);
                }
                let status = if head.starts_with(b"GET") { "200 OK" } else { "409 Conflict" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = socket.shutdown().await;
                let _ = socket.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_early_refusal_of_a_service_leaves_the_connection_usable_or_says_close() {
    let site = Site::in_memory(refusing_service().await, ROUTES);
    let (token, gateway) = (&site.token(&[]), &site.serve());
    for (length, goes_on) in [(20, true), (300_000, false)] {
        let mut client = Client::connect(gateway).await;
        client
            .send(format!(
                "POST /api/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\n\r\n",
                token.secret
            ))
            .await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
        if goes_on {
            client.send(vec![b'x'; length]).await;
        }
        assert_eq!(client.goes_on(&answer, token).await, goes_on, "{length}: {answer}");
    }
}

#[tokio::test]
async fn a_refused_body_on_http2_costs_no_other_stream_anything() {
    let stage = Stage::new().await;
    let (gateway, token) = (&stage.gateway, &stage.token);
    let mut frames = Frames::connect(gateway).await;
    frames.headers(1, &request("POST", "/api/x", None), false).await;
    for _ in 0..3 {
        frames.send(kind::DATA, 0, 1, &[b'x'; 16_384]).await;
    }
    frames.headers(3, &request("GET", "/api/echo", Some(token)), true).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let frame = frames.next().await.expect("the connection lives");
        assert_ne!(frame.kind, kind::GOAWAY, "{frame:?}");
        if frame.kind == kind::HEADERS {
            seen.push((frame.stream, frame.status()));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, 401), (3, 200)]);
}

/// A client of HTTP/1.0 that asks for it keeps its connection when it can see where the answer ends.
#[tokio::test]
async fn keep_alive_that_http_1_0_is_promised_is_kept() {
    let stage = Stage::new().await;
    let (gateway, token) = (&stage.gateway, &stage.token);
    let ask = |path: &str, credential: &str| {
        format!("GET {path} HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n{credential}\r\n")
    };
    let credential = format!("authorization: Bearer {}\r\n", token.secret);
    for (path, credential, is_kept) in [
        ("/api/echo", &*credential, true),
        ("/api/echo", "", true),
        ("/nowhere", &credential, true),
        ("/api/%zz", &credential, false),
        // Without a length: the end of the connection is its end.
        ("/api/trailers", &credential, false),
    ] {
        let mut client = Client::connect(gateway).await;
        client.send(ask(path, credential)).await;
        let answer = client.answer().await;
        assert_eq!(answer.contains("connection: keep-alive"), is_kept, "{path}: {answer}");
        if is_kept {
            client.send(ask("/api/echo", &format!("authorization: Bearer {}\r\n", token.secret))).await;
            assert!(client.answer().await.contains(" 200 "), "{path}");
        } else {
            client.ends().await;
        }
    }
}
