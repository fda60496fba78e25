//! The sample voice-call upstream, asked directly over real sockets by clients that were not written here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::Bytes;
use callgate::demo::voice;
use futures_util::{SinkExt, Stream, StreamExt, stream};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

/// Nothing here takes longer; what does is a failure.
const DEADLINE: Duration = Duration::from_secs(30);

/// One running upstream; it ends with the value.
struct Upstream {
    address: SocketAddr,
    client: Client,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Upstream {
    async fn start() -> Self {
        // Another test may have been first; which provider it is does not matter here.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(voice::serve(listener, stop.clone()));
        Self { address, client: Client::builder().no_proxy().build().unwrap(), stop, served }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    /// Places a call and gives its path.
    async fn place(&self) -> String {
        let order = json!({ "to": "+15551234567", "from": "+15557654321" });
        let answer = self.request(Method::POST, "/api/v1/calls").json(&order).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn hang_up(&self, call: &str) {
        let answer = self.request(Method::DELETE, call).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }

    async fn open_stream(&self, call: &str) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        Ok(client_async(format!("ws://{}{call}/stream", self.address), socket).await?.0)
    }

    async fn feed(&self, path: &str, last_event_id: Option<&str>) -> Feed {
        let mut request = self.request(Method::GET, path);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Feed { bytes: Box::pin(answer.bytes_stream()), text: String::new() }
    }
}

/// A feed of server-sent events, read frame by frame.
struct Feed {
    bytes: std::pin::Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>>>>,
    text: String,
}

#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Feed {
    /// The next frame, comments too; `None` at the end.
    async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let frame = frame.to_owned();
                self.text = rest.to_owned();
                return Some(frame);
            }
            let bytes = timeout(DEADLINE, self.bytes.next()).await.expect("a frame comes in time")?.unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            let frame = self.frame().await?;
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(id), Some(name), Some(data)) = (field("id: "), field("event: "), field("data: ")) {
                return Some(Event { id, name, data: serde_json::from_str(&data).unwrap() });
            }
            assert!(frame.starts_with(':'), "{frame:?}");
        }
    }
}

/// Checks an error answer and gives its body.
async fn refused(answer: Response, status: StatusCode) -> Value {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body: Value = answer.json().await.unwrap();
    assert!(body["message"].as_str().is_some_and(|message| message.ends_with('.')), "{body}");
    body
}

/// The state of a call, once it is `state`.
async fn reaches(upstream: &Upstream, call: &str, state: &str) {
    let reached = async {
        while upstream.get(call).await.json::<Value>().await.unwrap()["state"] != state {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("{call} is never {state}"));
}

#[tokio::test]
async fn a_call_is_placed_shown_listed_answered_and_hung_up() {
    let upstream = Upstream::start().await;
    let order = json!({ "to": "+15551234567", "from": "+442071838750", "record": true, "colour": "ignored" });
    let answer = upstream.request(Method::POST, "/api/v1/calls").json(&order).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let path = answer.headers()["location"].to_str().unwrap().to_owned();
    let placed: Value = answer.json().await.unwrap();
    assert_eq!(path, format!("/api/v1/calls/{}", placed["id"].as_str().unwrap()));
    assert_eq!((&placed["to"], &placed["from"]), (&order["to"], &order["from"]));
    assert_eq!((&placed["record"], &placed["state"]), (&json!(true), &json!("ringing")));
    humantime::parse_rfc3339(placed["created_at"].as_str().unwrap()).unwrap();

    assert_eq!(upstream.get(&path).await.json::<Value>().await.unwrap()["id"], placed["id"]);
    let list: Value = upstream.get("/api/v1/calls").await.json().await.unwrap();
    assert_eq!(list["data"][0]["id"], placed["id"], "the newest comes first");

    reaches(&upstream, &path, "answered").await;
    upstream.hang_up(&path).await;
    reaches(&upstream, &path, "ended").await;
    upstream.hang_up(&path).await;
}

#[tokio::test]
async fn every_invalid_field_is_reported_at_once() {
    let upstream = Upstream::start().await;
    let order = json!({ "to": "5551234567", "record": 1 });
    let answer = upstream.request(Method::POST, "/api/v1/calls").json(&order).send().await.unwrap();
    assert_eq!(
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY).await,
        json!({
            "message": "The given data was invalid.",
            "errors": {
                "to": ["The to field must be an E.164 number, such as +15551234567."],
                "from": ["The from field is required."],
                "record": ["The record field must be true or false."],
            },
        })
    );
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_refused() {
    let upstream = Upstream::start().await;
    let post = |kind: &str, body: Vec<u8>| {
        upstream.request(Method::POST, "/api/v1/calls").header("content-type", kind).body(body).send()
    };
    refused(post("application/json", b"{\"to\":".to_vec()).await.unwrap(), StatusCode::BAD_REQUEST).await;
    refused(post("application/json", b"[]".to_vec()).await.unwrap(), StatusCode::BAD_REQUEST).await;
    refused(post("text/plain", b"{}".to_vec()).await.unwrap(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    // The largest body that is read, and then three larger ones: by a byte, by much, and without an announced length.
    refused(post("application/json", vec![b' '; 65_536]).await.unwrap(), StatusCode::BAD_REQUEST).await;
    refused(post("application/json", vec![b' '; 65_537]).await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await;
    refused(post("application/json", vec![b' '; 1_000_000]).await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await;
    let chunks = stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 10_000]))));
    let request = upstream.request(Method::POST, "/api/v1/calls").header("content-type", "application/json");
    let answer = request.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    refused(answer, StatusCode::PAYLOAD_TOO_LARGE).await;
}

#[tokio::test]
async fn a_connection_survives_a_413() {
    let upstream = Upstream::start().await;
    let mut socket = TcpStream::connect(upstream.address).await.unwrap();
    let post =
        "POST /api/v1/calls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n";
    let get = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for bytes in [post.as_bytes(), &[b' '; 500_000], get.as_bytes()] {
        socket.write_all(bytes).await.unwrap();
    }
    let mut answers = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answers)).await.unwrap().unwrap();
    let statuses: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["413", "200"]);
}

#[tokio::test]
async fn the_list_comes_in_pages() {
    let upstream = Upstream::start().await;
    for _ in 0..4 {
        upstream.place().await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/calls?limit=2".to_owned();
    loop {
        let page: Value = upstream.get(&path).await.json().await.unwrap();
        seen.extend(page["data"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_before"].as_str() else { break };
        path = format!("/api/v1/calls?limit=2&before={next}");
    }
    assert_eq!(seen, ["call_5", "call_4", "call_3", "call_2", "call_1"]);
    let body = refused(upstream.get("/api/v1/calls?limit=0&before=x").await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(body["errors"]["limit"].is_array() && body["errors"]["before"].is_array(), "{body}");
}

#[tokio::test]
async fn unknown_paths_and_methods_get_json() {
    let upstream = Upstream::start().await;
    let missing =
        ["calls/call_99", "calls/7", "calls/x/stream", "calls/call_99/events", "calls/", "/calls", "nothing", ""];
    let missing = missing.map(|path| format!("/api/v1/{path}"));
    for path in missing.iter().map(String::as_str).chain(["/", "/healthz/", "/api/v1", "/api/v2/calls"]) {
        refused(upstream.get(path).await, StatusCode::NOT_FOUND).await;
    }
    for (method, path, allow) in [
        (Method::PUT, "/api/v1/calls", "GET, HEAD, POST"),
        (Method::POST, "/api/v1/calls/call_1", "GET, HEAD, DELETE"),
        (Method::GET, "/api/v1/recordings", "POST"),
        (Method::DELETE, "/healthz", "GET, HEAD"),
    ] {
        let answer = upstream.request(method, path).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], allow);
        refused(answer, StatusCode::METHOD_NOT_ALLOWED).await;
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_a_get() {
    let upstream = Upstream::start().await;
    for path in
        ["/healthz", "/api/v1/calls", "/api/v1/recordings/1000", "/api/v1/nothing", "/api/v1/calls/call_1/stream"]
    {
        let get = upstream.get(path).await;
        let head = upstream.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        for name in ["content-type", "content-length", "upgrade"] {
            assert_eq!(head.headers().get(name), get.headers().get(name), "{path}: {name}");
        }
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
    }
    let head = upstream.request(Method::HEAD, "/api/v1/events").send().await.unwrap();
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    assert!(timeout(DEADLINE, head.bytes()).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn the_identity_that_a_gateway_sends_is_shown() {
    let upstream = Upstream::start().await;
    let request = upstream.request(Method::GET, "/api/v1/whoami").header("x-callgate-token-id", "abc");
    let shown = request.header("x-callgate-plan", "standard").bearer_auth("secret").send().await.unwrap();
    assert_eq!(
        shown.json::<Value>().await.unwrap(),
        json!({
            "headers": { "x-callgate-plan": "standard", "x-callgate-token-id": "abc" },
            "authorization_received": true,
        })
    );
    let shown: Value = upstream.get("/api/v1/whoami").await.json().await.unwrap();
    assert_eq!(shown, json!({ "headers": {}, "authorization_received": false }));
}

#[tokio::test]
async fn a_stream_answers_the_call_and_echoes_its_messages() {
    let upstream = Upstream::start().await;
    let call = upstream.place().await;
    let mut socket = upstream.open_stream(&call).await.unwrap();
    let state = upstream.get(&call).await.json::<Value>().await.unwrap()["state"].clone();
    assert_eq!(state, "answered");

    for length in [0, 1, 160, 65_536, 1_048_576] {
        let audio = Message::binary(vec![0x5a; length]);
        socket.send(audio.clone()).await.unwrap();
        assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), audio);
    }
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), Message::Pong("there?".into()));

    let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.close(Some(bye.clone())).await.unwrap();
    assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), Message::Close(Some(bye)));
    assert!(timeout(DEADLINE, socket.next()).await.unwrap().is_none(), "then the connection ends");
}

#[tokio::test]
async fn a_stream_ends_with_its_call_and_with_a_message_too_large() {
    let upstream = Upstream::start().await;
    let call = upstream.place().await;
    let mut first = upstream.open_stream(&call).await.unwrap();
    let mut second = upstream.open_stream(&call).await.unwrap();
    // The client may see its connection closed while it is still sending.
    let _ = first.send(Message::binary(vec![0; 1_048_577])).await;
    assert_eq!(close_code(&mut first).await, CloseCode::Size);
    upstream.hang_up(&call).await;
    assert_eq!(close_code(&mut second).await, CloseCode::Normal);
}

async fn close_code(socket: &mut WebSocketStream<TcpStream>) -> CloseCode {
    loop {
        match timeout(DEADLINE, socket.next()).await.expect("a close comes in time").unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code,
            _ => continue,
        }
    }
}

#[tokio::test]
async fn an_invalid_handshake_gets_an_http_error() {
    let upstream = Upstream::start().await;
    let call = upstream.place().await;
    let path = format!("{call}/stream");
    let answer = upstream.get(&path).await;
    assert_eq!(answer.headers()["upgrade"], "websocket");
    refused(answer, StatusCode::UPGRADE_REQUIRED).await;

    let handshake = |version: &str, key: &str| {
        let request = upstream.request(Method::GET, &path).header("connection", "upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", version);
        request.header("sec-websocket-key", key).send()
    };
    let answer = handshake("8", "dGhlIHNhbXBsZSBub25jZQ==").await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-version"], "13");
    refused(answer, StatusCode::UPGRADE_REQUIRED).await;
    refused(handshake("13", "short").await.unwrap(), StatusCode::BAD_REQUEST).await;

    let status_of = |outcome: Result<_, tungstenite::Error>| match outcome {
        Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("expected an HTTP answer, got {:?}", other.map(|_: WebSocketStream<TcpStream>| "a stream")),
    };
    assert_eq!(status_of(upstream.open_stream("/api/v1/calls/call_99").await), 404);
    upstream.hang_up(&call).await;
    assert_eq!(status_of(upstream.open_stream(&call).await), 409);
}

#[tokio::test]
async fn a_feed_reports_a_call_from_ringing_to_ended() {
    let upstream = Upstream::start().await;
    let start = Instant::now();
    let call = upstream.place().await;
    let path = format!("{call}/events");
    let mut feed = upstream.feed(&path, None).await;
    assert!(feed.frame().await.unwrap().starts_with(':'), "a comment opens the feed");
    let first = feed.event().await.unwrap();
    assert_eq!(first.name, "call.ringing");
    assert_eq!(first.data["call_id"], call.rsplit('/').next().unwrap());

    assert_eq!(feed.event().await.unwrap().name, "call.answered");
    for _ in 0..2 {
        let event = feed.event().await.unwrap();
        assert_eq!(event.name, "call.audio_level");
        assert!((-50.0..=-10.0).contains(&event.data["level_dbfs"].as_f64().unwrap()), "{event:?}");
    }
    // One each second since the answer.
    assert!(start.elapsed() > Duration::from_millis(1_900), "{:?}", start.elapsed());

    upstream.hang_up(&call).await;
    let mut last = feed.event().await.unwrap();
    while last.name == "call.audio_level" {
        last = feed.event().await.unwrap();
    }
    assert_eq!((last.name.as_str(), &last.data["state"]), ("call.ended", &json!("ended")));
    assert!(feed.frame().await.is_none(), "the feed ends with the call");

    // A client that comes back goes on behind what it saw, and is told to stay away when it saw all.
    let mut feed = upstream.feed(&path, Some(&first.id)).await;
    assert_eq!(feed.event().await.unwrap().name, "call.answered");
    let request = upstream.request(Method::GET, &path).header("last-event-id", &last.id);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_feed_of_all_calls_resumes_after_the_last_event() {
    let upstream = Upstream::start().await;
    let mut feed = upstream.feed("/api/v1/events", None).await;
    let first = feed.event().await.unwrap();
    let placed: Vec<String> = vec![upstream.place().await, upstream.place().await];
    let ringing = |events: &[Event]| -> Vec<String> {
        let ringing = events.iter().filter(|event| event.name == "call.ringing");
        ringing.map(|event| format!("/api/v1/calls/{}", event.data["call_id"].as_str().unwrap())).collect()
    };
    for mut feed in [feed, upstream.feed("/api/v1/events", Some(&first.id)).await] {
        let mut events = Vec::new();
        while ringing(&events).len() < 2 {
            events.push(feed.event().await.unwrap());
        }
        assert_eq!(ringing(&events), placed);
        let ids: Vec<u64> = events.iter().map(|event| event.id.parse().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "no event is left out: {ids:?}");
    }
    // An id that this server never gave is no place to go on from.
    let mut feed = upstream.feed("/api/v1/events", Some("999999")).await;
    feed.event().await.unwrap();
}

#[tokio::test]
async fn uploads_stream_and_are_digested() {
    let upstream = Upstream::start().await;
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let mut expected = digest::Context::new(&digest::SHA256);
    (0..32).for_each(|_| expected.update(&chunk));
    let expected: String = expected.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let chunks = stream::iter(std::iter::repeat_n(chunk, 32).map(Ok::<_, std::io::Error>));
    let request = upstream.request(Method::POST, "/api/v1/recordings").body(reqwest::Body::wrap_stream(chunks));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({ "bytes": 32 << 20, "sha256": expected }));
}

#[tokio::test]
async fn downloads_have_exactly_the_requested_size() {
    let upstream = Upstream::start().await;
    for length in [0_usize, 1, 65_536, 1_000_003] {
        let answer = upstream.get(&format!("/api/v1/recordings/{length}")).await;
        assert_eq!(answer.content_length(), Some(length as u64));
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(bytes.len(), length);
        assert!(bytes.iter().zip((0..=255_u8).cycle()).all(|(byte, expected)| *byte == expected));
    }
    let head = upstream.request(Method::HEAD, "/api/v1/recordings/4294967296").send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "4294967296");
    for length in ["4294967297", "99999999999999999999999"] {
        refused(upstream.get(&format!("/api/v1/recordings/{length}")).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    refused(upstream.get("/api/v1/recordings/-1").await, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_stop_closes_streams_and_feeds_and_ends_the_server() {
    let mut upstream = Upstream::start().await;
    let mut socket = upstream.open_stream("/api/v1/calls/call_1").await.unwrap();
    let mut feed = upstream.feed("/api/v1/events", None).await;
    feed.event().await.unwrap();
    upstream.stop.cancel();
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
    while feed.frame().await.is_some() {}
    timeout(DEADLINE, &mut upstream.served).await.expect("the server ends in time").unwrap();
    assert!(TcpStream::connect(upstream.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_endless_upload_does_not_delay_the_stop() {
    let mut upstream = Upstream::start().await;
    let mut upload = TcpStream::connect(upstream.address).await.unwrap();
    let head = b"POST /api/v1/recordings HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    upload.write_all(head).await.unwrap();
    // The server says this once it waits for the body, which never comes.
    let mut said = [0; 25];
    timeout(DEADLINE, upload.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    upstream.stop.cancel();
    timeout(DEADLINE, &mut upstream.served).await.expect("the server ends in time").unwrap();
    let rest = timeout(DEADLINE, upload.read(&mut said)).await.expect("the upload is cut");
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
}
