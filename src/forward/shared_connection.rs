//! An HTTP/2 connection to an endpoint, which many requests share.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{Body, Progress};
use crate::http2::FrameGuard;

use super::connection_slot::ConnectionSlot;

/// Requests on one connection at a time, even if its peer allows more: the least that servers should allow (RFC 9113 §6.5.2).
const MAX_STREAMS: usize = 100;
/// Bytes that may wait for one client that reads slowly.
const STREAM_WINDOW: u32 = 256 * 1024;
/// As much as all streams together: an answer that is not read must not block the others on its connection.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Bytes of the headers of an answer.
const MAX_HEADERS: u32 = 64 * 1024;
/// Streams that were reset and whose late frames are ignored, and how long: more than a round trip.
const MAX_RESET_STREAMS: usize = 1000;
const RESET_STREAM_TIME: Duration = Duration::from_secs(30);
/// How long a peer may take to answer a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to check whether the peer's settings have come: hyper has no event for it.
const SETTINGS_CHECK_INTERVAL: Duration = Duration::from_millis(1);

pub(super) struct SharedConnection {
    sender: SendRequest<Body>,
    /// How many requests the peer allows at one time.
    peer_limit: Box<dyn Fn() -> usize + Send + Sync>,
    streams: AtomicUsize,
    retired: AtomicBool,
    last_used: Progress,
    pub(super) slot: ConnectionSlot,
}

/// A request's right to a stream on a shared connection, until it is dropped.
pub(super) struct StreamPermit {
    pub(super) sender: SendRequest<Body>,
    pub(super) connection: Arc<SharedConnection>,
}

impl SharedConnection {
    /// Makes a connection of a byte stream and starts its task; returns when the peer's settings have come. `ping`: how long the
    /// peer may be silent before it is pinged.
    ///
    /// # Errors
    /// When the peer does not speak HTTP/2.
    pub(super) async fn handshake<S>(io: S, ping: Option<Duration>, slot: ConnectionSlot) -> io::Result<Arc<Self>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .reset_stream_duration(RESET_STREAM_TIME)
            // Each is an error of one answer; the other answers go on.
            .max_local_error_reset_streams(None)
            .keep_alive_interval(ping)
            .keep_alive_timeout(PONG_TIMEOUT)
            // Until the peer's settings have come: no part of a request is sent to a server that may not speak HTTP/2.
            .initial_max_send_streams(0);
        let (sender, connection) =
            builder.handshake::<_, Body>(TokioIo::new(FrameGuard::of_server(io))).await.map_err(io::Error::other)?;
        let running = Arc::new(Mutex::new(Some(connection)));
        let connection = running.clone();
        let peer_limit = move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            connection.as_ref().map_or(0, http2::Connection::current_max_send_streams)
        };
        tokio::spawn(std::future::poll_fn(move |cx| {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(connection) = running.as_mut() else { return Poll::Ready(()) };
            Pin::new(connection).poll(cx).map(|ended| {
                // The requests on this connection get errors of their own.
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upstream connection broke off");
                }
                *running = None;
            })
        }));
        while peer_limit() == 0 {
            if sender.is_closed() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak HTTP/2"));
            }
            tokio::time::sleep(SETTINGS_CHECK_INTERVAL).await;
        }
        Ok(Arc::new(Self {
            sender,
            peer_limit: Box::new(peer_limit),
            streams: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            last_used: Progress::new(),
            slot,
        }))
    }

    /// A stream for one more request, if one is free.
    pub(super) fn try_stream(self: &Arc<Self>) -> Option<StreamPermit> {
        if !self.is_usable() {
            return None;
        }
        if self.streams.fetch_add(1, Ordering::Relaxed) >= self.max_streams() {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(StreamPermit { sender: self.sender.clone(), connection: self.clone() })
    }

    fn max_streams(&self) -> usize {
        (self.peer_limit)().min(MAX_STREAMS)
    }

    /// Whether it can carry one more request now.
    pub(super) fn has_room(&self) -> bool {
        self.is_usable() && self.streams.load(Ordering::SeqCst) < self.max_streams()
    }

    /// Requests in flight on it.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// From now on it takes no more requests, and ends with those that it has.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it can carry more requests, now or later.
    pub(super) fn is_usable(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    pub(super) fn is_unused_for(&self, time: Duration) -> bool {
        self.streams() == 0 && self.last_used.silence() >= time
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::SeqCst);
        self.connection.last_used.note();
        self.connection.slot.count.queues.on_freed();
    }
}

/// Whether the peer states that it has not processed the request: it refused the stream, or ended the connection before it
/// (RFC 9113 §8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let refused = Some(h2::Reason::REFUSED_STREAM);
    is_left_out(error)
        || cause(error).is_some_and(|error| error.is_remote() && error.is_reset() && error.reason() == refused)
}

/// Whether the peer ended the connection and left the request out.
pub(super) fn is_left_out(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| error.is_remote() && error.is_go_away())
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref())
}
