//! Finds out whether a silent client of HTTP/2 is still there.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// A client that is silent for so long is pinged.
const PING_AFTER: Duration = Duration::from_secs(20);

/// Pings a silent client.
pub(super) struct Liveness {
    ping: PingPong,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    is_pinged: bool,
}

impl Liveness {
    pub(super) fn new(ping: PingPong, timeout: Duration) -> Self {
        Self { ping, timeout, timer: Box::pin(sleep(PING_AFTER)), is_pinged: false }
    }

    /// Ready when it was pinged and has sent nothing since. Any byte counts as an answer.
    pub(super) fn poll(&mut self, has_sent: &AtomicBool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let is_there = has_sent.swap(false, Ordering::Relaxed);
            if self.is_pinged && !is_there {
                return Poll::Ready(());
            }
            self.is_pinged = !is_there;
            if self.is_pinged {
                // The answer to the last ping makes room for the next.
                let _ = self.ping.poll_pong(cx);
                let _ = self.ping.send_ping(Ping::opaque());
            }
            let wait = if self.is_pinged { self.timeout } else { PING_AFTER };
            self.timer.as_mut().reset(Instant::now() + wait);
        }
    }
    /// Whether the client is silent, and has not answered yet.
    pub(super) fn is_pinged(&self) -> bool {
        self.is_pinged
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use h2::server::{Builder, Connection};
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A connection whose client says hello, and nothing more.
    async fn silent() -> (Liveness, Connection<tokio::io::DuplexStream, Bytes>, tokio::io::DuplexStream) {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut connection = Builder::new().handshake(server).await.unwrap();
        let ping = connection.ping_pong().unwrap();
        (Liveness::new(ping, Duration::from_secs(5)), connection, client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_no_ping_is_dropped() {
        let (mut liveness, mut connection, _client) = silent().await;
        let (has_sent, began) = (AtomicBool::default(), Instant::now());
        tokio::select! {
            _ = connection.accept() => panic!("the connection has ended"),
            () = poll_fn(|cx| liveness.poll(&has_sent, cx)) => {}
        }
        assert_eq!(began.elapsed().as_secs(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn any_byte_of_a_client_counts_as_an_answer() {
        let (mut liveness, mut connection, _client) = silent().await;
        let (has_sent, began) = (AtomicBool::default(), Instant::now());
        let speaks = async {
            for at in [15, 37, 55] {
                tokio::time::sleep_until(began + Duration::from_secs(at)).await;
                has_sent.store(true, Ordering::Relaxed);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = connection.accept() => panic!("the connection has ended"),
            () = speaks => {}
            () = poll_fn(|cx| liveness.poll(&has_sent, cx)) => {}
        }
        // After 20, 40 and 60 seconds it has sent something; after 80 it is pinged.
        assert_eq!(began.elapsed().as_secs(), 85);
    }
}
