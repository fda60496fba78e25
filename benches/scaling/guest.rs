//! The clients and the service of one worker, in its event loop.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Clients of each worker, each with one request in flight.
const CLIENTS: usize = 8;
/// The first answer on each connection of the service comes after this time, so that every client's request gets a connection.
const FIRST_ANSWER: Duration = Duration::from_millis(30);
/// Rounds of requests before anything is measured.
const WARM_UP: Duration = Duration::from_millis(150);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\
    date: Thu, 01 Jan 2026 12:00:00 GMT\r\n\r\n{\"answer\":true}";
/// How every answer ends.
const END: &[u8] = b"}";

/// What the clients send where.
pub(crate) struct Load {
    pub(crate) port: u16,
    pub(crate) path: &'static str,
    pub(crate) token: Option<String>,
    pub(crate) tls: Arc<ClientConfig>,
}

/// Clients whose connections are open.
pub(crate) struct Guest {
    request: Rc<[u8]>,
    connections: Vec<TlsStream<TcpStream>>,
}

impl Guest {
    /// Begins to serve, and opens all connections.
    pub(crate) async fn open(load: Load, service: Vec<std::net::TcpListener>) -> Self {
        let endpoints = service.len();
        for listener in service {
            let listener = TcpListener::from_std(listener).expect("a listener");
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(answer(socket));
                }
            });
        }
        let token = load.token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: localhost:{}\r\naccept: */*\r\nuser-agent: bench\r\n{token}\r\n",
            load.path, load.port
        );
        let (connector, mut connections) = (TlsConnector::from(load.tls), Vec::new());
        for _ in 0..CLIENTS * endpoints * 2 {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, load.port)).await.expect("a connection");
            socket.set_nodelay(true).expect("TCP_NODELAY");
            let name = ServerName::try_from("localhost").expect("a name");
            connections.push(connector.connect(name, socket).await.expect("a TLS handshake"));
        }
        let mut guest = Self { request: request.into_bytes().into(), connections };
        guest.send_for(WARM_UP).await;
        // All endpoints have more connections now than these clients can use.
        guest.connections.truncate(CLIENTS);
        guest
    }

    /// Sends one request after the other on each connection for so long; returns how many were answered.
    pub(crate) async fn send_for(&mut self, time: Duration) -> u64 {
        let end = Instant::now() + time;
        let clients = self.connections.iter_mut().map(|connection| {
            let request = self.request.clone();
            async move {
                let (mut answer, mut count) = (Vec::with_capacity(4096), 0);
                while Instant::now() < end {
                    exchange(connection, &request, &mut answer).await;
                    count += 1;
                }
                count
            }
        });
        futures_util::future::join_all(clients).await.into_iter().sum()
    }
}

async fn exchange(connection: &mut TlsStream<TcpStream>, request: &[u8], answer: &mut Vec<u8>) {
    connection.write_all(request).await.expect("a request sent");
    answer.clear();
    while !answer.ends_with(END) {
        assert!(connection.read_buf(answer).await.expect("an answer") > 0, "the connection was closed");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
}

/// Answers until the other side goes. No request has a body.
async fn answer(mut socket: TcpStream) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let (mut request, mut is_first) = (Vec::with_capacity(4096), true);
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            socket.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
        }
        if std::mem::take(&mut is_first) {
            tokio::time::sleep(FIRST_ANSWER).await;
        }
        socket.write_all(ANSWER).await.ok()?;
    }
}
