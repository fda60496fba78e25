//! The sample voice-call upstream, asked directly over real sockets by clients that were not written here.

mod calls;
mod recordings;
mod stop;
mod streams;

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

async fn close_code(socket: &mut WebSocketStream<TcpStream>) -> CloseCode {
    loop {
        match timeout(DEADLINE, socket.next()).await.expect("a close comes in time").unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code,
            _ => continue,
        }
    }
}
