//! WebSockets that begin on HTTP/2 connections (RFC 8441), against an upstream that speaks HTTP/1.1.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::support::client::{raw, read_to_end};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::{WAIT_TIMEOUT, eventually};

type Client = SendRequest<Empty<bytes::Bytes>>;
type Socket = WebSocketStream<TokioIo<Upgraded>>;

fn unbounded() -> Option<WebSocketConfig> {
    Some(WebSocketConfig::default().max_message_size(None).max_frame_size(None))
}

/// `/call`: a WebSocket that echoes, and closes when it hears "bye". `/forged`: a switch without the right answer to the key.
/// `/never`: 200. Anything else: 403.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(socket));
        }
    });
    address
}

async fn answer(mut socket: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let lower = head.to_ascii_lowercase();
    assert!(lower.contains("connection: upgrade\r\n") && lower.contains("upgrade: websocket\r\n"), "{head}");
    assert!(lower.contains("sec-websocket-version: 13\r\n") && lower.contains("via: 2.0 callgate\r\n"), "{head}");
    let at = lower.find("sec-websocket-key: ").expect("there is a key") + "sec-websocket-key: ".len();
    let key = head[at..].split("\r\n").next().unwrap();
    assert_eq!((key.len(), lower.matches("sec-websocket-key").count()), (24, 1), "{head}");
    let path = head.strip_prefix("GET ").unwrap().split(' ').next().unwrap();
    let key = if path == "/forged" { "dGhlIHNhbXBsZSBub25jZQ==" } else { key };
    let accept = derive_accept_key(key.as_bytes());
    let answer = match path {
        "/call" | "/forged" => format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\
             sec-websocket-protocol: audio.v1\r\nx-own: 1\r\n\r\n"
        ),
        "/never" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno".to_owned(),
        _ => "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_owned(),
    };
    socket.write_all(answer.as_bytes()).await.ok()?;
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, unbounded()).await;
    while let Some(Ok(message)) = socket.next().await {
        if message == Message::text("bye") {
            socket.close(None).await.ok()?;
        } else if message.is_text() || message.is_binary() {
            socket.send(message).await.ok()?;
        }
    }
    Some(())
}

async fn stage(listen: &str, call: &str, token: &[&str]) -> (Gateway, Token) {
    let address = upstream().await;
    let site = Site::with_listen(
        listen,
        &format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", methods: [GET], upstream: up{call} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{address}\"] }} }}\ndrain: {{ timeout: 2s, calls: 2s, spread: 0s }}"
        ),
    );
    let token = site.token_with(&[], token);
    (site.serve(), token)
}

/// A connection on which calls may begin.
async fn connect(gateway: &Gateway) -> Client {
    let io = TokioIo::new(raw(gateway, "h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let (settled, settles) = tokio::sync::oneshot::channel();
    let mut connection = Box::pin(connection);
    tokio::spawn(async move {
        let mut settled = Some(settled);
        std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx).map(drop);
            if connection.is_extended_connect_protocol_enabled()
                && let Some(settled) = settled.take()
            {
                let _ = settled.send(());
            }
            if settled.is_some() {
                cx.waker().wake_by_ref();
            }
            polled
        })
        .await;
    });
    tokio::time::timeout(WAIT_TIMEOUT, settles).await.expect("WebSockets are offered").unwrap();
    sender
}

/// An extended CONNECT for any protocol, or an ordinary one.
async fn ask(client: &mut Client, token: &str, path: &str, protocol: Option<&'static str>) -> Response<Incoming> {
    let target = if protocol.is_some() { format!("https://localhost{path}") } else { "localhost:443".to_owned() };
    let mut request = Request::builder().method(Method::CONNECT).uri(target).body(Empty::new()).unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-version", "13".parse().unwrap());
    headers.insert("sec-websocket-protocol", "audio.v1, audio.v2".parse().unwrap());
    if !token.is_empty() {
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    client.send_request(request).await.unwrap()
}

async fn call(client: &mut Client, token: &Token) -> Socket {
    let mut response = ask(client, &token.secret, "/call", Some("websocket")).await;
    assert_eq!(response.status(), 200);
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, unbounded()).await
}

async fn echoes(socket: &mut Socket, message: Message) {
    socket.send(message.clone()).await.unwrap();
    assert_eq!(tokio::time::timeout(WAIT_TIMEOUT, socket.next()).await.unwrap().unwrap().unwrap(), message);
}

#[tokio::test]
async fn calls_and_requests_share_a_connection() {
    let (gateway, token) = stage("", "", &[]).await;
    let mut client = connect(&gateway).await;
    let response = ask(&mut client, &token.secret, "/call", Some("websocket")).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["sec-websocket-protocol"]),
        (200, &"audio.v1".parse().unwrap())
    );
    assert_eq!(
        (&response.headers()["x-own"], &response.headers()["x-ratelimit-remaining"]),
        (&"1".parse().unwrap(), &"59".parse().unwrap())
    );
    for name in ["sec-websocket-accept", "sec-websocket-key", "connection", "upgrade", "content-length"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    drop(response);
    let (mut first, mut second) = (call(&mut client, &token).await, call(&mut client, &token).await);
    for size in [0, 1, 125, 126, 320, 65_535, 65_536, 1 << 20, 16 << 20] {
        echoes(&mut first, Message::binary(vec![size as u8; size])).await;
        echoes(&mut second, Message::text(format!("{size}"))).await;
    }
    assert_eq!(ask(&mut client, &token.secret, "/no", Some("websocket")).await.status(), 403);
    let series = r#"callgate_calls_open{route="GET /{*rest}"}"#;
    assert_eq!(gateway.metric(series).await, Some(2.0));
    // The client says goodbye to one, the service to the other.
    first.close(None).await.unwrap();
    while first.next().await.is_some_and(|message| message.is_ok()) {}
    second.send(Message::text("bye")).await.unwrap();
    while second.next().await.is_some_and(|message| message.is_ok()) {}
    let lines = gateway.access("/call", 3).await;
    assert!(
        lines.iter().all(|line| line["status"] == 200 && line["method"] == "GET" && line["protocol"] == "h2"),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line["bytes_in"].as_u64() > Some(16 << 20) && line["bytes_out"].as_u64() > Some(16 << 20))
    );
    eventually("both calls to be over", async || (gateway.metric(series).await == Some(0.0)).then_some(())).await;
}

#[tokio::test]
async fn a_call_is_rejected_like_any_request() {
    let (gateway, token) = stage("", "", &["--limit", "minute=3/1m", "--concurrent-calls", "1"]).await;
    let mut client = connect(&gateway).await;
    let code = async |response: Response<Incoming>| {
        let status = response.status().as_u16();
        let reported: Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        (status, reported["code"].as_str().unwrap().to_owned())
    };
    let refused = ask(&mut client, "", "/call", Some("websocket")).await;
    assert_eq!(code(refused).await, (401, "unauthenticated".to_owned()));
    let socket = call(&mut client, &token).await;
    let refused = ask(&mut client, &token.secret, "/call", Some("websocket")).await;
    assert_eq!(code(refused).await, (429, "too_many_calls".to_owned()));
    drop(socket);
    // An answer that opens no WebSocket must not look as if it did.
    for path in ["/never", "/forged"] {
        let refused = eventually("the place to be free", async || {
            let refused = ask(&mut client, &token.secret, path, Some("websocket")).await;
            (refused.status() != 429).then_some(refused)
        });
        assert_eq!(code(refused.await).await, (502, "bad_gateway".to_owned()), "{path}");
    }
    let refused = ask(&mut client, &token.secret, "/call", Some("websocket")).await;
    assert_eq!(code(refused).await, (429, "rate_limited".to_owned()));
    for protocol in [None, Some("connect-udp")] {
        let refused = ask(&mut client, &token.secret, "/call", protocol).await;
        assert_eq!(code(refused).await, (405, "method_not_allowed".to_owned()), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_silent_call_keeps_its_connection_until_its_own_idle_timeout() {
    let (gateway, token) =
        stage(", idle_timeout: 1s, body_idle_timeout: 1s", ", call: { idle_timeout: 5m }", &[]).await;
    let mut client = connect(&gateway).await;
    let mut socket = call(&mut client, &token).await;
    // Two connections without a call, one after the other, are idle for too long in the meantime.
    for _ in 0..2 {
        read_to_end(&mut raw(&gateway, "h2").await).await;
    }
    echoes(&mut socket, Message::text("still there")).await;

    let (gateway, token) =
        stage(", idle_timeout: 5m, body_idle_timeout: 5m", ", call: { idle_timeout: 1s }", &[]).await;
    let mut client = connect(&gateway).await;
    let started = Instant::now();
    let mut socket = call(&mut client, &token).await;
    let mut closed = None;
    while let Some(Ok(message)) = tokio::time::timeout(WAIT_TIMEOUT, socket.next()).await.expect("a close in time") {
        closed = Some(message);
    }
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let Some(Message::Close(Some(frame))) = closed else { panic!("no goodbye: {closed:?}") };
    assert_eq!(u16::from(frame.code), 1001);
}

#[tokio::test]
async fn a_drain_waits_for_calls_and_closes_those_that_remain() {
    let (mut gateway, token) = stage("", "", &[]).await;
    let mut client = connect(&gateway).await;
    let mut socket = call(&mut client, &token).await;
    gateway.signal(Signal::TERM);
    eventually("the listener to close", async || TcpStream::connect(gateway.https).await.is_err().then_some(())).await;
    echoes(&mut socket, Message::text("still there")).await;
    let mut closed = None;
    while let Some(Ok(message)) = socket.next().await {
        closed = Some(message);
    }
    let Some(Message::Close(Some(frame))) = closed else { panic!("no goodbye: {closed:?}") };
    assert_eq!(u16::from(frame.code), 1012);
    assert_eq!(gateway.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_client_that_leaves_ends_only_its_own_calls() {
    let (gateway, token) = stage("", "", &[]).await;
    let (mut here, mut gone) = (connect(&gateway).await, connect(&gateway).await);
    let mut stays = call(&mut here, &token).await;
    let dropped = call(&mut here, &token).await;
    let _lost = call(&mut gone, &token).await;
    let series = r#"callgate_calls_open{route="GET /{*rest}"}"#;
    assert_eq!(gateway.metric(series).await, Some(3.0));
    drop((dropped, gone, _lost));
    eventually("two calls to be over", async || (gateway.metric(series).await == Some(1.0)).then_some(())).await;
    echoes(&mut stays, Message::text("still there")).await;
}
