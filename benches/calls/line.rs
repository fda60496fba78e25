//! Clients of calls: WebSockets that send frames at a steady pace and follow each one's echo.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::HOST;
use crate::tls::client_config;

/// 20 ms of audio, 8 kHz and 16 bits.
pub(crate) const FRAME: usize = 320;
/// The head of a binary frame of that length from a client, whose mask changes nothing.
pub(crate) const HEAD_FROM_CLIENT: [u8; 8] = [0x82, 0xfe, 0x01, 0x40, 0, 0, 0, 0];
/// The same from a server.
pub(crate) const HEAD_FROM_SERVER: [u8; 4] = [0x82, 0x7e, 0x01, 0x40];
/// The last frames' echoes may take so long; what has not come by then is lost.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}
pub(crate) type Line = Pin<Box<dyn Stream>>;

/// The length of the head of an echo.
pub(crate) const ECHO: usize = HEAD_FROM_SERVER.len();

/// How calls get to the service.
pub(crate) struct Way {
    port: u16,
    tls: Option<ClientConfig>,
    /// The value of that header.
    pub(crate) authorization: String,
}

/// Calls that are open.
pub(crate) struct Calls(Vec<Line>);

/// What became of all frames.
pub(crate) struct TransferStats {
    pub(crate) sent: usize,
    /// Echoes that came before one that should have come first.
    pub(crate) disordered: usize,
    pub(crate) took: Duration,
    /// There and back, in µs, sorted.
    latencies: Vec<u32>,
}

impl Way {
    pub(crate) fn direct(port: u16) -> Self {
        Self { port, tls: None, authorization: String::new() }
    }

    pub(crate) fn through(port: u16, certificate: &Path, token: &str) -> Self {
        Self { port, tls: Some(client_config(certificate)), authorization: format!("Bearer {token}") }
    }

    /// A connection on which this protocol is spoken.
    pub(crate) async fn connect(&self, protocol: &[u8]) -> Line {
        let socket = TcpStream::connect((HOST, self.port)).await.expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let Some(config) = &self.tls else { return Box::pin(socket) };
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        Box::pin(connected.expect("a TLS handshake"))
    }

    /// A call of its own connection.
    async fn open(&self) -> Line {
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.ask(upgrade, "HTTP/1.1 101 ").await
    }

    /// A connection on which one request was answered.
    async fn ask(&self, lines: &str, answer: &str) -> Line {
        let mut line = self.connect(b"http/1.1").await;
        let authorization = &self.authorization;
        let request = format!("GET /call HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\n{lines}\r\n");
        say(&mut line, request.as_bytes()).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = line.read_buf(&mut head).await.expect("an answer");
            assert!(read > 0, "no answer: {}", String::from_utf8_lossy(&head));
        }
        assert!(head.starts_with(answer.as_bytes()), "{}", String::from_utf8_lossy(&head));
        line
    }

    /// So many connections, each of which has had an answer and waits for its next request.
    pub(crate) async fn waiting(&self, count: usize, at_a_time: usize) -> Vec<Line> {
        let asked = stream::iter(0..count).map(|_| self.ask("", "HTTP/1.1 204 "));
        asked.buffer_unordered(at_a_time).collect().await
    }
}

impl Calls {
    /// Opens so many, some at one time.
    pub(crate) async fn open(way: &Way, count: usize, at_a_time: usize) -> Self {
        Self(stream::iter(0..count).map(|_| way.open()).buffer_unordered(at_a_time).collect().await)
    }

    /// Sees that each of them still is one: a frame comes back.
    pub(crate) async fn are_answered(&mut self) {
        for line in &mut self.0 {
            say(line, &frame(0, 0)).await;
            let mut echo = [0; ECHO + FRAME];
            line.read_exact(&mut echo).await.expect("an echo");
        }
    }

    /// Sends a frame on each call every `period`, the calls one after the other, and follows the echoes.
    pub(crate) async fn speak(self, period: Duration, time: Duration) -> TransferStats {
        let (began, count) = (Instant::now(), self.0.len() as u32);
        let frames = (time.as_nanos() / period.as_nanos()) as u32;
        let mut speakers = tokio::task::JoinSet::new();
        for (number, line) in self.0.into_iter().enumerate() {
            let first = began + period * number as u32 / count;
            speakers.spawn(speak(line, began, first, period, frames));
        }
        let mut heard =
            TransferStats { sent: frames as usize * count as usize, disordered: 0, took: time, latencies: Vec::new() };
        while let Some(one) = speakers.join_next().await {
            let (latencies, disordered) = one.expect("a call that does not panic");
            heard.latencies.extend(latencies);
            heard.disordered += disordered;
        }
        heard.took = began.elapsed();
        heard.latencies.sort_unstable();
        heard
    }
}

/// One call; what its echoes took in µs, and how many of them were out of order.
async fn speak(line: Line, began: Instant, first: Instant, period: Duration, frames: u32) -> (Vec<u32>, usize) {
    let (mut from, mut to) = tokio::io::split(line);
    let says = async {
        for number in 0..frames {
            tokio::time::sleep_until((first + period * number).into()).await;
            let sent_us = began.elapsed().as_micros() as u64;
            say(&mut to, &frame(number, sent_us)).await;
        }
    };
    let hears = async {
        let (mut latencies, mut disordered) = (Vec::with_capacity(frames as usize), 0);
        let mut bytes = Vec::with_capacity(2 * FRAME);
        while latencies.len() < frames as usize {
            if from.read_buf(&mut bytes).await.expect("an echo") == 0 {
                break;
            }
            let now_us = began.elapsed().as_micros() as u64;
            let whole = HEAD_FROM_SERVER.len() + FRAME;
            while bytes.len() >= whole {
                assert!(bytes.starts_with(&HEAD_FROM_SERVER), "another frame than was said");
                let number = u32::from_le_bytes([4, 5, 6, 7].map(|at| bytes[at]));
                let sent_us = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|at| bytes[at]));
                disordered += usize::from(number as usize != latencies.len());
                latencies.push((now_us - sent_us) as u32);
                bytes.drain(..whole);
            }
        }
        (latencies, disordered)
    };
    let last = first + period * frames + WAIT_TIMEOUT;
    let ((), heard) = tokio::join!(says, async { tokio::time::timeout_at(last.into(), hears).await });
    heard.unwrap_or_default()
}

/// A client's frame that holds its number, and when it was sent.
pub(crate) fn frame(number: u32, sent_us: u64) -> [u8; HEAD_FROM_CLIENT.len() + FRAME] {
    let mut frame = [0; HEAD_FROM_CLIENT.len() + FRAME];
    frame[..8].copy_from_slice(&HEAD_FROM_CLIENT);
    frame[8..12].copy_from_slice(&number.to_le_bytes());
    frame[12..20].copy_from_slice(&sent_us.to_le_bytes());
    frame
}

/// Says something and sees it go: over TLS, what is written may wait for the next turn of a task that has done much in this one.
async fn say(line: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    line.write_all(bytes).await.expect("something said");
    line.flush().await.expect("something sent");
}

impl TransferStats {
    pub(crate) fn echoed(&self) -> usize {
        self.latencies.len()
    }

    pub(crate) fn lost(&self) -> usize {
        self.sent - self.latencies.len()
    }

    /// A quantile (0 to 1) of there and back, in µs.
    pub(crate) fn latency_us(&self, quantile: f64) -> u32 {
        let at = (quantile * (self.latencies.len().max(1) - 1) as f64) as usize;
        self.latencies.get(at).copied().unwrap_or(0)
    }
}
