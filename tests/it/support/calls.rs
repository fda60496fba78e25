//! Calls: both ends of a connection that switches protocols.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use super::client::try_raw_to;
use super::gateway::{Gateway, Token};

/// An upstream that switches protocols for requests to `/call` and only listens then.
pub async fn switchboard() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let answer = match read_head(&mut socket).await {
                    Ok(head) if head.starts_with("GET /call ") => {
                        // Right for the key that every client here sends: HAProxy checks it.
                        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                    }
                    _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                };
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
            });
        }
    });
    address
}

/// The head of a message, to its empty line.
///
/// # Errors
/// When the connection ends before.
pub async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// Asks for a call; `Err` is the head of an answer that is no call.
pub async fn call(gateway: &Gateway, token: &Token, path: &str) -> Result<TlsStream<TcpStream>, String> {
    try_call(gateway, token, path, "").await.unwrap()
}

/// The same with more header lines, each with its end, to a gateway that may end meanwhile.
pub async fn try_call(
    gateway: &Gateway,
    token: &Token,
    path: &str,
    more: &str,
) -> io::Result<Result<TlsStream<TcpStream>, String>> {
    let mut stream = try_raw_to(gateway, &gateway.site.path("cert.pem"), "localhost", "http/1.1").await?;
    let handshake = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n",
        token.secret
    );
    stream.write_all(handshake.as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    Ok(if head.starts_with("HTTP/1.1 101 ") { Ok(stream) } else { Err(head) })
}
