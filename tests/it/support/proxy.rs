//! A network that can fail: a TCP proxy that stops passing bytes, one way or both, while every connection stays open.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which way bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    Both,
    /// Neither way. New connections are taken, and nothing ever comes back on them.
    Nothing,
    /// Only towards the server: it hears what it is asked, and its answers are lost on the way.
    Questions,
}

/// A way to one server; dropped, its connections break. What is held up passes, late, once the way is open again: so does
/// what a network has in its buffers, and what TCP sends once more.
pub struct Proxy {
    pub address: SocketAddr,
    passing: Arc<watch::Sender<Passing>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passing = Arc::new(watch::Sender::new(Passing::Both));
        let task = tokio::spawn(accept(listener, to, passing.clone()));
        Self { address, passing, task }
    }

    /// From now on bytes pass this way.
    pub fn let_pass(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, passing: Arc<watch::Sender<Passing>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let passing = passing.subscribe();
        connections.spawn(async move {
            // A server that is not there is one that breaks off.
            let Ok(server) = TcpStream::connect(to).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let there = pump(from_client, to_server, passing.clone(), |passing| passing != Passing::Nothing);
            let back = pump(from_server, to_client, passing, |passing| passing == Passing::Both);
            tokio::join!(there, back);
        });
    }
}

/// Passes bytes on for as long as it may, and the end when it comes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passing: watch::Receiver<Passing>,
    may: impl Fn(Passing) -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await.unwrap_or(0);
        if passing.wait_for(|now| may(*now)).await.is_err() {
            return;
        }
        if count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            // The other side has gone, or learns that this one has.
            let _ = to.shutdown().await;
            return;
        }
    }
}
