//! A network that can fail: a TCP proxy that stops passing bytes, one way or both, while every connection stays open.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

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
    way: Arc<Way>,
    task: tokio::task::JoinHandle<()>,
}

struct Way {
    passing: watch::Sender<Passing>,
    /// A text, and the mode to switch to when a request contains it.
    trap: Mutex<Option<(String, Passing)>>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(Way { passing: watch::Sender::new(Passing::Both), trap: Mutex::default() });
        let task = tokio::spawn(accept(listener, to, way.clone()));
        Self { address, way, task }
    }

    /// From now on bytes pass this way.
    pub fn let_pass(&self, passing: Passing) {
        self.way.passing.send_replace(passing);
    }

    /// The same from the next question on, itself included, that has `text` in it.
    pub fn when_asked(&self, text: &str, passing: Passing) {
        *self.way.trap.lock().unwrap() = Some((text.to_owned(), passing));
    }

    /// Whether such a question has come.
    pub fn was_asked(&self) -> bool {
        self.way.trap.lock().unwrap().is_none()
    }
}

impl Way {
    fn asked(&self, question: &[u8]) {
        let is_it =
            |(text, _): &mut (String, Passing)| question.windows(text.len()).any(|part| part == text.as_bytes());
        if let Some((_, passing)) = self.trap.lock().unwrap().take_if(is_it) {
            self.passing.send_replace(passing);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, way: Arc<Way>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let way = way.clone();
        connections.spawn(async move {
            // A server that is not there is one that breaks off.
            let Ok(server) = TcpStream::connect(to).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let there =
                pump(from_client, to_server, &way, |question| way.asked(question), |now| now != Passing::Nothing);
            let back = pump(from_server, to_client, &way, |_| (), |now| now == Passing::Both);
            tokio::join!(there, back);
        });
    }
}

/// Passes bytes on for as long as it may, and the end when it comes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: &Way,
    comes: impl Fn(&[u8]),
    may: impl Fn(Passing) -> bool,
) {
    let mut passing = way.passing.subscribe();
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await.unwrap_or(0);
        comes(&bytes[..count]);
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
