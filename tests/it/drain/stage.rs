//! A gateway with calls, requests and streams in flight, and an upstream that says how its calls end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::client::raw;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

/// A gateway whose `/call` leads to WebSockets that echo, and everything else to an ordinary upstream.
pub(super) struct Stage {
    pub(super) upstream: Upstream,
    pub(super) gateway: Gateway,
    pub(super) token: Token,
    closes: Arc<Mutex<Vec<u16>>>,
}

impl Stage {
    pub(super) async fn start(drain: &str) -> Self {
        Self::before(Upstream::start().await, "", drain).await
    }

    /// The same before another upstream; `keys` are more of its settings.
    pub(super) async fn before(upstream: Upstream, keys: &str, drain: &str) -> Self {
        let closes = Arc::<Mutex<Vec<u16>>>::default();
        let calls = echo_calls(closes.clone()).await;
        let site = Site::new(&format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nplans: {{ standard: {{ limits: {{}} }} }}\n\
             routes: [{{ path: /call, upstream: calls }}, {{ path: \"/{{*rest}}\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"]{keys} }}, calls: {{ endpoints: [\"http://{calls}\"] }} }}\n\
             drain: {drain}",
            upstream.address
        ));
        let token = site.token(&[]);
        Self { upstream, gateway: site.serve(), token, closes }
    }

    pub(super) async fn call(&self) -> Caller {
        let mut request = "wss://localhost/call".into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", self.token.secret).parse().unwrap());
        let (socket, _) = tokio_tungstenite::client_async(request, raw(&self.gateway, "http/1.1").await).await.unwrap();
        let mut caller = Caller(socket);
        caller.echoes().await;
        caller
    }

    /// The signal of the system that ends the gateway; returns when it drains.
    pub(super) async fn drain(&self) {
        self.gateway.signal(Signal::TERM);
        self.says("draining").await;
        eventually("the listener to close", async || {
            TcpStream::connect(self.gateway.https).await.is_err().then_some(())
        })
        .await;
    }

    /// Waits for a line of the log that contains this.
    pub(super) async fn says(&self, text: &str) {
        eventually(text, async || {
            self.gateway.log().iter().any(|line| line["message"].to_string().contains(text)).then_some(())
        })
        .await;
    }

    /// The status codes with which calls were closed upstream, once there are so many.
    pub(super) async fn closes(&self, count: usize) -> Vec<u16> {
        eventually(&format!("{count} calls to be closed upstream"), async || {
            let closes = self.closes.lock().unwrap().clone();
            (closes.len() >= count).then_some(closes)
        })
        .await
    }

    /// The end of the program, which must be a good one: the last line of the log.
    pub(super) async fn end(&mut self) -> serde_json::Value {
        assert_eq!(self.gateway.wait().await.code(), Some(0));
        self.gateway.log().into_iter().find(|line| line["message"] == "ended").unwrap()
    }

    /// How many connections, requests and calls the drain waits for, by the metrics.
    pub(super) async fn left(&self) -> [f64; 3] {
        let (_, page) = self.gateway.admin("/metrics").await;
        ["connections", "requests", "calls"].map(|kind| {
            let series = format!("callgate_drain_left{{kind=\"{kind}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap()
        })
    }
}

/// A client in a call.
pub(super) struct Caller(pub(super) WebSocketStream<TlsStream<TcpStream>>);

impl Caller {
    pub(super) async fn echoes(&mut self) {
        self.0.send(Message::text("still there?")).await.unwrap();
        let heard = tokio::time::timeout(WAIT_TIMEOUT, self.0.next()).await.expect("an echo in time");
        assert_eq!(heard.unwrap().unwrap(), Message::text("still there?"));
    }

    /// Listens to the end: the status code, and when it came.
    pub(super) async fn closed(mut self) -> (u16, Instant) {
        let heard = tokio::time::timeout(2 * WAIT_TIMEOUT, self.0.next()).await.expect("an end in time");
        match heard {
            Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), Instant::now()),
            other => panic!("no Close frame: {other:?}"),
        }
    }
}

async fn echo_calls(closes: Arc<Mutex<Vec<u16>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let closes = closes.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Close(frame) = message {
                        closes.lock().unwrap().push(frame.map_or(1005, |frame| frame.code.into()));
                    } else if socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
