//! The smallest upstream there can be: it reads every request and gives one of two fixed answers.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::load::whole_length;

const BODY: &str = r#"{"id":"0192f0c4-7d5e-7a10-9c52-2f3b8f6f4f01","from":"+4930123456","to":"+4930654321","status":"ringing","direction":"outbound","created_at":"2026-01-01T12:00:00Z","duration":0,"recording":null,"tags":[]}"#;
/// Bytes of the body that is at [`BULK_PATH`].
pub(crate) const BULK: usize = 8 * 1024 * 1024;
pub(crate) const BULK_PATH: &str = "/public/bulk";
/// What is read at one time.
const READ_BUFFER: usize = 64 * 1024;

/// Starts it on a thread of its own, for as long as the process lives; returns its port.
pub(crate) fn start() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket that doesn't block");
    let port = listener.local_addr().expect("its address").port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answers: &'static _ = Box::leak(Box::new(Answers::new()));
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, answers));
            }
        });
    });
    port
}

struct Answers {
    small: Vec<u8>,
    bulk: Vec<u8>,
    bulk_request: String,
}

impl Answers {
    fn new() -> Self {
        let answer = |body: &[u8]| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\ndate: Thu, 01 Jan 2026 12:00:00 GMT\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        let bulk_request = format!("GET {BULK_PATH} ");
        Self { small: answer(BODY.as_bytes()), bulk: answer(&vec![b'.'; BULK]), bulk_request }
    }
}

/// Answers until the client goes. A new request comes only after the last answer.
async fn answer(mut socket: TcpStream, answers: &Answers) -> Option<()> {
    let mut request = Vec::with_capacity(READ_BUFFER);
    socket.set_nodelay(true).ok()?;
    loop {
        request.clear();
        let mut received = 0;
        let length = loop {
            received += read(&mut socket, &mut request).await?;
            if let Some(length) = whole_length(&request) {
                break length;
            }
        };
        let is_bulk = request.starts_with(answers.bulk_request.as_bytes());
        while received < length {
            request.clear();
            received += read(&mut socket, &mut request).await?;
        }
        socket.write_all(if is_bulk { &answers.bulk } else { &answers.small }).await.ok()?;
    }
}

/// Bytes that were read; `None` at the end.
async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<usize> {
    socket.read_buf(buffer).await.ok().filter(|read| *read > 0)
}
