//! The smallest voice service there can be: it opens every WebSocket and says each frame again, and answers other requests with nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::HOST;
use crate::line::{FRAME, HEAD_FROM_CLIENT, HEAD_FROM_SERVER};

/// What this program is started with to be the service.
pub(crate) const WORD: &str = "--echo";

/// The service, in a process of its own: its sockets are not to count among the clients'. Dropped, it ends.
pub(crate) struct Echo {
    child: Child,
    pub(crate) port: u16,
}

/// Starts it and waits until it listens.
pub(crate) fn start() -> Echo {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program).arg(WORD).stdout(Stdio::piped()).spawn().expect("this program once more");
    let mut line = String::new();
    let said = child.stdout.take().expect("a pipe");
    BufReader::new(said).read_line(&mut line).expect("its port");
    Echo { port: line.trim().parse().expect("a number"), child }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says its port and serves until it is ended.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((HOST, 0)).await.expect("a free port");
        println!("{}", listener.local_addr().expect("its address").port());
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(call(socket));
        }
    });
}

/// One call, until its client goes.
async fn call(mut socket: TcpStream) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut bytes = Vec::with_capacity(2 * (HEAD_FROM_CLIENT.len() + FRAME));
    let key = loop {
        while !bytes.ends_with(b"\r\n\r\n") {
            if socket.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8(std::mem::take(&mut bytes)).ok()?;
        let named = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        };
        match head.lines().find_map(named) {
            Some(key) => break key,
            None => socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?,
        }
    };
    let accept = derive_accept_key(key.as_bytes());
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    socket.write_all(switch.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let whole = HEAD_FROM_CLIENT.len() + FRAME;
        while bytes.len() >= whole {
            assert!(bytes.starts_with(&HEAD_FROM_CLIENT), "another frame than was sent");
            answer.extend_from_slice(&HEAD_FROM_SERVER);
            answer.extend_from_slice(&bytes[HEAD_FROM_CLIENT.len()..whole]);
            bytes.drain(..whole);
        }
        socket.write_all(&answer).await.ok()?;
        answer.clear();
    }
}
