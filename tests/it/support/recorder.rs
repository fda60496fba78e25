//! An upstream that keeps every byte it is sent, and answers each whole message with what it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The default answer of a recorder.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A raw upstream; dropped, it takes no more connections.
pub struct Recorder {
    pub address: SocketAddr,
    received: Arc<Mutex<TransferStats>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct TransferStats {
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

/// One message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub head: String,
    pub body: String,
}

impl Message {
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap()
    }

    /// The values of a header, its name compared as it is spelled, without regard to case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(this, _)| this.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The names of its headers in lower case.
    pub fn names(&self) -> Vec<String> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.map(|(name, _)| name.to_ascii_lowercase()).collect()
    }
}

impl Recorder {
    pub async fn start() -> Self {
        Self::answering(|_| OK.to_vec()).await
    }

    /// One that answers a message with these bytes.
    pub async fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (received, answer) = (Arc::new(Mutex::new(TransferStats::default())), Arc::new(answer));
        let kept = received.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, kept.clone(), answer.clone()));
            }
        });
        Self { address, received, task }
    }

    /// One that answers each head with these bytes, whatever comes behind it.
    pub async fn heads(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
                    while let Ok(read @ 1..) = socket.read(&mut bytes).await {
                        head.extend_from_slice(&bytes[..read]);
                        if head.windows(4).any(|at| at == b"\r\n\r\n") && socket.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, received: Arc::default(), task }
    }

    /// Every whole message so far, in the order of their ends.
    pub fn messages(&self) -> Vec<Message> {
        self.received.lock().unwrap().messages.clone()
    }

    /// The one message that arrived.
    pub fn only(&self) -> Message {
        let mut messages = self.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    /// The last one that arrived.
    pub fn last(&self) -> Message {
        self.messages().pop().expect("something arrived")
    }

    /// All bytes so far.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap().bytes).into_owned()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, received: Arc<Mutex<TransferStats>>, answer: Arc<impl Fn(&Message) -> Vec<u8>>) {
    let (mut unanswered, mut bytes) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(read @ 1..) = socket.read(&mut bytes).await {
        received.lock().unwrap().bytes.extend_from_slice(&bytes[..read]);
        unanswered.extend_from_slice(&bytes[..read]);
        while let Some((message, length)) = whole(&unanswered) {
            unanswered.drain(..length);
            received.lock().unwrap().messages.push(message.clone());
            if socket.write_all(&answer(&message)).await.is_err() {
                return;
            }
        }
    }
}

/// The first message of these bytes and its length, if it is whole. It is read as strictly as the gateway must have written it.
fn whole(bytes: &[u8]) -> Option<(Message, usize)> {
    let end = bytes.windows(4).position(|at| at == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let message = Message { head, body: String::new() };
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "ambiguous: {}", message.head);
    let length = match (lengths.first(), codings.first()) {
        (Some(length), _) => length.parse().expect("a plain length"),
        (_, Some(coding)) => {
            assert_eq!(*coding, "chunked", "{}", message.head);
            chunks(rest)?
        }
        (None, None) => 0,
    };
    let body = String::from_utf8_lossy(rest.get(..length)?).into_owned();
    Some((Message { body, ..message }, end + 4 + length))
}

/// How long a chunked body is, if it is whole.
fn chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).expect("a chunk's size");
        assert!(size.bytes().all(|byte| byte.is_ascii_hexdigit()), "no plain chunk size: {size:?}");
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        at += line + 2;
        if size > 0 {
            bytes.get(..at + size + 2)?;
            assert_eq!(&bytes[at + size..at + size + 2], b"\r\n");
            at += size + 2;
            continue;
        }
        loop {
            let line = bytes[at..].windows(2).position(|pair| pair == b"\r\n")?;
            at += line + 2;
            if line == 0 {
                return Some(at);
            }
        }
    }
}
