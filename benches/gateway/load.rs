//! Closed-loop load: every connection, or every stream of it, sends its next request when its last one is answered.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::client_config;

/// Streams at one time on each HTTP/2 connection.
const STREAMS: usize = 8;
/// What is read at one time.
const READ_BUFFER: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// HTTP/1.1 with a connection, and a full handshake, for each request.
    Http1Once,
}

/// What is sent where, and what must come back.
pub(crate) struct Load {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Requests in flight.
    pub(crate) concurrency: usize,
    pub(crate) path: &'static str,
    /// Bytes of a body to send (HTTP/1.1 only).
    pub(crate) body: usize,
    /// Each connection or stream uses one of them, in turn; without any, requests carry no token.
    pub(crate) tokens: Vec<String>,
    pub(crate) status: u16,
    /// The certificate that the server must show.
    pub(crate) trust: PathBuf,
}

/// A load whose connections are open.
pub(crate) struct Client {
    load: Arc<Load>,
    runtime: Runtime,
    connector: Connector,
    channels: Vec<Channel>,
}

/// Something that carries one request at a time.
enum Channel {
    Connection(Box<TlsStream<TcpStream>>),
    Stream(SendRequest<Empty<Bytes>>),
    /// Connects for each request.
    None,
}

/// How many requests are to be sent, and how many were begun.
struct Requests {
    begun: AtomicU64,
    count: u64,
}

impl Requests {
    /// Whether another request is to be sent.
    fn begin(&self) -> bool {
        self.begun.fetch_add(1, Ordering::Relaxed) < self.count
    }
}

impl Client {
    pub(crate) fn open(load: Load) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connector = Connector::new(&load);
        let channels = runtime.block_on(async {
            let mut channels = Vec::new();
            match load.protocol {
                Protocol::Http1 => {
                    for _ in 0..load.concurrency {
                        channels.push(Channel::Connection(Box::new(connector.connect().await)));
                    }
                }
                Protocol::Http2 => {
                    for _ in 0..load.concurrency / STREAMS {
                        let io = TokioIo::new(connector.connect().await);
                        let (sender, connection) =
                            http2::handshake(TokioExecutor::new(), io).await.expect("an HTTP/2 connection");
                        tokio::spawn(connection);
                        channels.extend((0..STREAMS).map(|_| Channel::Stream(sender.clone())));
                    }
                }
                Protocol::Http1Once => channels.extend((0..load.concurrency).map(|_| Channel::None)),
            }
            channels
        });
        Self { load: Arc::new(load), runtime, connector, channels }
    }

    /// Sends so many requests on the open connections, and waits until all are answered.
    pub(crate) fn send(&mut self, count: u64) {
        let requests = Arc::new(Requests { begun: AtomicU64::new(0), count });
        let mut loops = JoinSet::new();
        let _entered = self.runtime.enter();
        for (index, channel) in self.channels.drain(..).enumerate() {
            let (load, requests, connector) = (self.load.clone(), requests.clone(), self.connector.clone());
            loops.spawn(channel.carry(index, load, requests, connector));
        }
        self.channels = self.runtime.block_on(loops.join_all());
    }
}

impl Channel {
    /// Sends one request after the other until there are no more; returns itself.
    async fn carry(self, index: usize, load: Arc<Load>, requests: Arc<Requests>, connector: Connector) -> Self {
        let mut answer = Vec::with_capacity(READ_BUFFER);
        match self {
            Self::Connection(mut stream) => {
                let request = load.http1_request(index);
                while requests.begin() {
                    exchange(&mut stream, &request, load.status, &mut answer).await;
                }
                Self::Connection(stream)
            }
            Self::Stream(mut sender) => {
                let request = load.http2_request(index);
                while requests.begin() {
                    let answer = sender.send_request(request.clone()).await.expect("an answer");
                    assert_eq!(answer.status(), load.status);
                    answer.into_body().collect().await.expect("a whole body");
                }
                Self::Stream(sender)
            }
            Self::None => {
                let request = load.http1_request(index);
                while requests.begin() {
                    let mut stream = connector.connect().await;
                    exchange(&mut stream, &request, load.status, &mut answer).await;
                }
                Self::None
            }
        }
    }
}

impl Load {
    fn authorization(&self, index: usize) -> Option<String> {
        (!self.tokens.is_empty()).then(|| format!("Bearer {}", self.tokens[index % self.tokens.len()]))
    }

    fn http1_request(&self, index: usize) -> Vec<u8> {
        let token = self.authorization(index).map_or(String::new(), |value| format!("authorization: {value}\r\n"));
        let (method, length) = match self.body {
            0 => ("GET", String::new()),
            body => ("POST", format!("content-length: {body}\r\n")),
        };
        let Self { path, port, .. } = self;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\naccept: */*\r\nuser-agent: bench\r\n{token}{length}\r\n"
        );
        let mut request = head.into_bytes();
        request.resize(request.len() + self.body, b'.');
        request
    }

    fn http2_request(&self, index: usize) -> Request<Empty<Bytes>> {
        let mut request = Request::get(format!("https://localhost:{}{}", self.port, self.path))
            .header(header::ACCEPT, "*/*")
            .header(header::USER_AGENT, "bench");
        if let Some(value) = self.authorization(index) {
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Empty::new()).expect("a request")
    }
}

/// Connects to the server.
#[derive(Clone)]
struct Connector {
    port: u16,
    tls: TlsConnector,
}

impl Connector {
    fn new(load: &Load) -> Self {
        let mut config = client_config(&load.trust);
        config.resumption = Resumption::disabled();
        let protocol = if load.protocol == Protocol::Http2 { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![protocol.into()];
        Self { port: load.port, tls: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let name = ServerName::try_from("localhost").expect("a name");
        self.tls.connect(name, socket).await.expect("a TLS handshake")
    }
}

/// Sends a request and reads its whole answer, of which only the head is kept.
async fn exchange(stream: &mut TlsStream<TcpStream>, request: &[u8], status: u16, answer: &mut Vec<u8>) {
    stream.write_all(request).await.expect("a request sent");
    stream.flush().await.expect("a request sent");
    answer.clear();
    let (mut received, mut length) = (0, None);
    while length.is_none_or(|length| received < length) {
        if length.is_some() {
            answer.clear();
        }
        let read = stream.read_buf(answer).await.expect("an answer");
        assert!(read > 0, "the connection was closed");
        received += read;
        if length.is_none() {
            length = whole_length(answer);
            let first_line = format!("HTTP/1.1 {status} ");
            assert!(
                length.is_none() || answer.starts_with(first_line.as_bytes()),
                "{}",
                String::from_utf8_lossy(answer)
            );
        }
    }
}

/// Bytes of a whole message, once its head is there. Messages with bodies say here how long they are.
pub(crate) fn whole_length(message: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length: ";
    let head = memchr::memmem::find(message, b"\r\n\r\n")?;
    let at = message[..head].windows(NAME.len()).position(|part| part.eq_ignore_ascii_case(NAME));
    let digits = at.map_or(&[][..], |at| &message[at + NAME.len()..]).iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + 4 + digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}
