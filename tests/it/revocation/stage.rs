//! A gateway before an upstream with calls, and clients in the middle of theirs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::client::{get, raw};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

/// A status code and a reason.
pub(super) type CloseReason = (u16, String);

/// An upstream of ordinary answers and streams, and one of calls.
pub(super) struct Stage {
    pub(super) upstream: Upstream,
    pub(super) calls: Calls,
}

/// An upstream whose calls get a frame of 100 kB every 10 ms, and say "quiet" to be left in peace.
pub(super) struct Calls {
    address: SocketAddr,
    close_reasons: Arc<Mutex<Vec<Option<CloseReason>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stage {
    pub(super) async fn start() -> Self {
        Self { upstream: Upstream::start().await, calls: Calls::start().await }
    }

    /// A configuration: `/call` are calls, with these settings, that ask for `calls:stream`; `/free` are calls that ask for nothing.
    pub(super) fn site(&self, store: &str, call: &str, rest: &str) -> Arc<Site> {
        Site::new(&format!(
            "{store}\nplans: {{ standard: {{ limits: {{ minute: 100000/1m }} }} }}\n\
             routes:\n  - {{ path: /call, permission: \"calls:stream\", upstream: calls{call} }}\n  \
             - {{ path: /free, upstream: calls{call} }}\n  - {{ path: \"/{{*rest}}\", upstream: up }}\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }}, calls: {{ endpoints: [\"http://{}\"] }} }}\n{rest}",
            self.upstream.address, self.calls.address
        ))
    }

    /// The same with the memory store.
    pub(super) fn in_memory(&self, call: &str, rest: &str) -> Arc<Site> {
        self.site("store: memory\ntokens: { file: tokens.yaml }", call, rest)
    }
}

impl Calls {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let close_reasons = Arc::<Mutex<Vec<_>>>::default();
        let reported = close_reasons.clone();
        let task = tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let reported = reported.clone();
                calls.spawn(async move {
                    let close_reason = carry(socket).await;
                    reported.lock().unwrap().push(close_reason);
                });
            }
        });
        Self { address, close_reasons, task }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Close frames that calls got, once so many have ended; `None` for one that just broke off.
    pub(super) async fn close_reasons(&self, count: usize) -> Vec<Option<CloseReason>> {
        eventually(&format!("{count} calls to have ended upstream"), async || {
            let close_reasons = self.close_reasons.lock().unwrap().clone();
            (close_reasons.len() >= count).then_some(close_reasons)
        })
        .await
    }
}

async fn carry(socket: TcpStream) -> Option<CloseReason> {
    let mut socket = tokio_tungstenite::accept_async(socket).await.ok()?;
    let (mut number, mut quiet) = (0_u8, false);
    loop {
        tokio::select! {
            said = socket.next() => match said?.ok()? {
                Message::Close(frame) => return frame.map(|frame| (frame.code.into(), frame.reason.to_string())),
                Message::Text(text) if text == "quiet" => quiet = true,
                _ => {}
            },
            () = tokio::time::sleep(Duration::from_millis(10)), if !quiet => {
                number = number.wrapping_add(1);
                socket.send(Message::binary(vec![number; 100_000])).await.ok()?;
            }
        }
    }
}

/// A client in the middle of a call.
pub(super) struct Caller(pub(super) WebSocketStream<TlsStream<TcpStream>>);

impl Caller {
    /// Opens a call and hears its first frame.
    pub(super) async fn open(gateway: &Gateway, path: &str, token: &Token) -> Self {
        let stream = raw(gateway, "http/1.1").await;
        let mut request = format!("wss://localhost{path}").into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", token.secret).parse().unwrap());
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let mut caller = Self(socket);
        assert!(caller.0.next().await.unwrap().unwrap().is_binary());
        caller
    }

    /// Has the upstream say nothing more, and hears what it has said.
    pub(super) async fn quiet(&mut self) {
        self.0.send(Message::text("quiet")).await.unwrap();
    }

    /// Listens to the end: whole frames, and then what it is told; `None` when the call just breaks off.
    pub(super) async fn close_reason(mut self) -> Option<CloseReason> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(frame))) => {
                    assert!(frame.len() == 100_000 && frame.iter().all(|byte| *byte == frame[0]), "a whole frame");
                }
                Some(Ok(Message::Close(frame))) => {
                    return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(Error::Protocol(error))) if !error.to_string().contains("without closing handshake") => {
                    panic!("the stream of frames is broken: {error}")
                }
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// An answer that never ends; the first of it has come.
pub(super) async fn stream(client: &Client, gateway: &Gateway, token: &Token) -> reqwest::Response {
    let mut response = get(client, gateway, "/events", token).await;
    assert_eq!(response.status(), 200);
    response.chunk().await.unwrap().unwrap();
    response
}

/// Reads a stream to its end; whether it was told that the stream is not whole.
pub(super) async fn breaks_off(mut response: reqwest::Response) -> bool {
    loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
