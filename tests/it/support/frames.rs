//! HTTP/2 frame by frame (RFC 9113 §4), without a library that would keep the sender from mistakes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::WAIT_TIMEOUT;
use super::client::raw;
use super::gateway::{Gateway, Token};

/// Frame types.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// One frame that came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The status in a block of headers, which begins with it.
    pub fn status(&self) -> u16 {
        match self.payload[..] {
            [first @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)],
            // Literal with incremental indexing and an indexed name, which is one of the seven `:status`.
            [0x48..=0x4e, length, ref rest @ ..] => status_text(length, rest),
            _ => panic!("no status: {:?}", self.payload),
        }
    }
}

/// Three digits, plain or in Huffman's code, where a digit has five or six bits (RFC 7541, appendix B).
fn status_text(length: u8, rest: &[u8]) -> u16 {
    let text = &rest[..usize::from(length & 0x7f)];
    if length & 0x80 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    let bits = text.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)) << (64 - 8 * text.len());
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let five = (bits << at >> 59) as u16;
        let (digit, length) = if five < 3 { (five, 5) } else { ((bits << at >> 58) as u16 - 0x19 + 3, 6) };
        status = status * 10 + digit;
        at += length;
    }
    status
}

/// A client's end of a connection.
pub struct Frames {
    stream: TlsStream<TcpStream>,
}

impl Frames {
    /// Connects and sends the preface and empty settings.
    pub async fn connect(gateway: &Gateway) -> Self {
        Self::connect_with(gateway, &[]).await
    }

    /// The same with these settings.
    pub async fn connect_with(gateway: &Gateway, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self { stream: raw(gateway, "h2").await };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &encode(kind::SETTINGS, 0, 0, &payload)[..]].concat();
        frames.write(&bytes).await.unwrap();
        frames
    }

    /// Sends bytes as they are; an error when the gateway has closed.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(WAIT_TIMEOUT, written).await.expect("the gateway reads or closes")
    }

    /// Sends one frame.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // The gateway may have closed; what it said is to be read.
        let _ = self.write(&encode(kind, flags, stream, payload)).await;
    }

    /// Sends a block of headers in one frame.
    pub async fn headers(&mut self, stream: u32, block: &[u8], is_end: bool) {
        let flags = END_HEADERS | if is_end { END_STREAM } else { 0 };
        self.send(kind::HEADERS, flags, stream, block).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(WAIT_TIMEOUT, read(&mut self.stream)).await.expect("a frame, or the end").ok()
    }

    /// What receives, and what sends. A frame of which a part was received must not be lost, so `next` must not be dropped midway.
    pub fn split(self) -> (ReceivedFrames, WriteHalf<TlsStream<TcpStream>>) {
        let (receiver, sender) = tokio::io::split(self.stream);
        (ReceivedFrames(receiver), sender)
    }

    /// Reads to the end of the connection: the code of the last GOAWAY, if one came.
    pub async fn goodbye(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == kind::GOAWAY {
                code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}

/// The receiving half of a connection.
pub struct ReceivedFrames(ReadHalf<TlsStream<TcpStream>>);

impl ReceivedFrames {
    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        read(&mut self.0).await.ok()
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, stream_id @ ..] = head;
    let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
    stream.read_exact(&mut payload).await?;
    Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream_id), payload })
}

/// A frame's bytes.
pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is not added to the table of fields (RFC 7541 §6.2.2).
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(&mut bytes, text.len());
        bytes.extend_from_slice(text);
    }
    bytes
}

/// A length in seven bits, or more (RFC 7541 §5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// The fields of a request for a path.
pub fn request(method: &str, path: &str, token: Option<&Token>) -> Vec<u8> {
    let mut block: Vec<u8> = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")]
        .iter()
        .flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes()))
        .collect();
    if let Some(token) = token {
        block.extend(field(b"authorization", format!("Bearer {}", token.secret).as_bytes()));
    }
    block
}
