//! Closed-loop load: every connection, or every stream of it, sends its next request when its last one is answered.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// HTTP/1.1 connections.
const CONNECTIONS: usize = 64;
/// HTTP/2 connections, and streams at one time on each.
const STREAMS: (usize, usize) = (8, 8);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What is sent where, and what must come back.
pub(crate) struct Load {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) path: String,
    /// Each connection uses one of them, in turn; without any, requests carry no token.
    pub(crate) tokens: Vec<String>,
    pub(crate) status: u16,
    /// The certificate that the server must show.
    pub(crate) trust: PathBuf,
}

/// What a load found out.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// CPU time of the server per request, in microseconds.
    pub(crate) cpu_us: f64,
    /// Requests per second.
    pub(crate) rate: f64,
}

/// What all connections count, and when they stop.
#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    answered: AtomicU64,
    limit: Option<u64>,
    over: AtomicBool,
}

impl Progress {
    /// Whether another request may be sent.
    fn begin(&self) -> bool {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        !self.over.load(Ordering::Relaxed) && self.limit.is_none_or(|limit| number < limit)
    }
}

/// Something that carries one request at a time.
enum Way {
    Connection(Box<TlsStream<TcpStream>>),
    Stream(SendRequest<Empty<Bytes>>),
}

impl Load {
    /// Loads for a while, not counted, and for another, counted; `cpu` tells the server's CPU time in microseconds so far.
    pub(crate) fn for_a_while(&self, (warm_up, measured): (Duration, Duration), cpu: impl Fn() -> f64) -> Cost {
        runtime().block_on(async {
            let progress = Arc::new(Progress::default());
            let look = || (Instant::now(), progress.answered.load(Ordering::Relaxed), cpu());
            let ways = self.open().await;
            let looks = async {
                tokio::time::sleep(warm_up).await;
                let before = look();
                tokio::time::sleep(measured).await;
                let after = look();
                progress.over.store(true, Ordering::Relaxed);
                let requests = (after.1 - before.1) as f64;
                let rate = requests / (after.0 - before.0).as_secs_f64();
                Cost { cpu_us: (after.2 - before.2) / requests, rate }
            };
            tokio::join!(looks, self.run(ways, &progress)).0
        })
    }

    /// Sends `warm_up` requests, then calls `between`, then sends `counted` more, all on the same connections.
    pub(crate) fn so_many(&self, warm_up: u64, counted: u64, between: impl Fn()) {
        let limited = |limit| Arc::new(Progress { limit: Some(limit), ..Progress::default() });
        runtime().block_on(async {
            let ways = self.run(self.open().await, &limited(warm_up)).await;
            between();
            self.run(ways, &limited(counted)).await;
        });
    }

    async fn open(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        match self.protocol {
            Protocol::Http1 => {
                for _ in 0..CONNECTIONS {
                    ways.push(Way::Connection(Box::new(self.connect("http/1.1").await)));
                }
            }
            Protocol::Http2 => {
                for _ in 0..STREAMS.0 {
                    let io = TokioIo::new(self.connect("h2").await);
                    let (sender, connection) =
                        http2::handshake(TokioExecutor::new(), io).await.expect("an HTTP/2 connection");
                    tokio::spawn(connection);
                    ways.extend((0..STREAMS.1).map(|_| Way::Stream(sender.clone())));
                }
            }
        }
        ways
    }

    /// Loads all ways until there is nothing more to send; gives them back.
    async fn run(&self, ways: Vec<Way>, progress: &Arc<Progress>) -> Vec<Way> {
        let mut loops = JoinSet::new();
        for (index, way) in ways.into_iter().enumerate() {
            let (status, progress) = (self.status, progress.clone());
            match way {
                Way::Connection(stream) => loops.spawn(http1_loop(stream, self.http1_request(index), status, progress)),
                Way::Stream(sender) => loops.spawn(http2_loop(sender, self.http2_request(index), status, progress)),
            };
        }
        loops.join_all().await
    }

    async fn connect(&self, alpn: &str) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        // One cipher suite for every server: which one they would choose must not decide.
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.trust).expect("a certificate")).expect("a good one");
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 with its suite")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a TLS handshake")
    }

    fn authorization(&self, index: usize) -> Option<String> {
        (!self.tokens.is_empty()).then(|| format!("Bearer {}", self.tokens[index % self.tokens.len()]))
    }

    fn http1_request(&self, index: usize) -> Vec<u8> {
        let token = self.authorization(index).map_or(String::new(), |value| format!("authorization: {value}\r\n"));
        let Self { path, port, .. } = self;
        format!("GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\naccept: */*\r\nuser-agent: bench\r\n{token}\r\n")
            .into()
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn http1_loop(
    mut stream: Box<TlsStream<TcpStream>>,
    request: Vec<u8>,
    status: u16,
    progress: Arc<Progress>,
) -> Way {
    let first_line = format!("HTTP/1.1 {status} ");
    let mut answer = Vec::with_capacity(8192);
    while progress.begin() {
        stream.write_all(&request).await.expect("a request sent");
        answer.clear();
        let mut length = None;
        while length.is_none_or(|length| answer.len() < length) {
            let read = stream.read_buf(&mut answer).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            length = length.or_else(|| whole_length(&answer));
        }
        assert!(answer.starts_with(first_line.as_bytes()), "{}", String::from_utf8_lossy(&answer));
        progress.answered.fetch_add(1, Ordering::Relaxed);
    }
    Way::Connection(stream)
}

/// Bytes of a whole answer, once its head is there. Every answer here says how long it is.
fn whole_length(answer: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length: ";
    let head = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let at = answer[..head].windows(NAME.len()).position(|part| part.eq_ignore_ascii_case(NAME))?;
    let digits = answer[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + 4 + digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

async fn http2_loop(
    mut sender: SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    status: u16,
    progress: Arc<Progress>,
) -> Way {
    while progress.begin() {
        let answer = sender.send_request(request.clone()).await.expect("an answer");
        assert_eq!(answer.status(), status);
        answer.into_body().collect().await.expect("a whole body");
        progress.answered.fetch_add(1, Ordering::Relaxed);
    }
    Way::Stream(sender)
}
