//! The smallest upstream there can be: one fixed answer to every request, without a look at it.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BODY: &str = r#"{"id":"0192f0c4-7d5e-7a10-9c52-2f3b8f6f4f01","from":"+4930123456","to":"+4930654321","status":"ringing","direction":"outbound","created_at":"2026-01-01T12:00:00Z","duration":0,"recording":null,"tags":[]}"#;

/// Starts it on a thread of its own, for as long as the process lives; returns its port.
pub(crate) fn start() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket that doesn't block");
    let port = listener.local_addr().expect("its address").port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket));
            }
        });
    });
    port
}

/// Answers until the client goes. Requests have no body, and a new one comes only after the last answer.
async fn answer(mut socket: TcpStream) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\ndate: Thu, 01 Jan 2026 12:00:00 GMT\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut head = Vec::with_capacity(4096);
    let _ = socket.set_nodelay(true);
    while let Ok(1..) = socket.read_buf(&mut head).await {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
