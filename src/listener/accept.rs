//! Accepts connections, each of which becomes a task that the drain waits for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use super::connection;
use super::handler::Handler;
use super::service::Listener;

/// The pause after a failed accept (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The same error is logged again after this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl<H: Handler> Listener<H> {
    /// Accepts until the drain begins; each connection is a task that the drain waits for.
    pub(crate) async fn run(self: Arc<Self>, socket: TcpListener) {
        let mut errors = AcceptErrors::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.draining() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address),
                // The client left in the queue; that says nothing of the next one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if let Some(times) = errors.note(error.raw_os_error(), Instant::now()) {
                        tracing::error!(%error, times, "can't accept connections; trying again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let config = self.serving.load().config.clone();
        let Some(slot) = self.slots.take(config.listen.max_connections, &self.metrics) else { return };
        // Answers are small and urgent. A socket without this option still works.
        let _ = stream.set_nodelay(true);
        self.shutdown.tasks().spawn(connection::serve(self.clone(), config, stream, address, slot));
    }
}

/// Failures to accept: logged when they change, and now and then while they last.
#[derive(Debug, Default)]
struct AcceptErrors {
    last: Option<(Option<i32>, Instant)>,
    /// Failures since the last log line.
    unlogged: u64,
}

impl AcceptErrors {
    /// Counts a failure; returns how many there were since the last log line when the next is due.
    fn note(&mut self, error: Option<i32>, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        let known = self.last.is_some_and(|(last, at)| last == error && now.duration_since(at) < LOG_INTERVAL);
        if known {
            return None;
        }
        self.last = Some((error, now));
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_logged_when_they_change_and_now_and_then() {
        let (mut errors, start) = (AcceptErrors::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(errors.note(Some(24), start), Some(1));
        assert_eq!(errors.note(Some(24), start + second), None);
        assert_eq!(errors.note(Some(23), start + second), Some(2));
        assert_eq!(errors.note(Some(23), start + LOG_INTERVAL), None);
        assert_eq!(errors.note(Some(23), start + second + LOG_INTERVAL), Some(2));
    }
}
