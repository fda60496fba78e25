//! An HTTP/2 connection, by h2: each stream becomes a task of its own, and a silent client is pinged.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake};
use h2::{Ping, PingPong, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::InspectReader;

use crate::config::ListenSettings;
use crate::deadline::WriteTimeout;
use crate::http2::FrameGuard;

use super::handler::Handler;
use super::interim::InterimQueue;
use super::peer::Peer;
use super::stream;

/// A client that is silent for so long is pinged.
const PING_AFTER: Duration = Duration::from_secs(20);
/// Streams of a connection that Callgate may have to reset for errors of the client (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 100;
/// Streams that a client may reset before they are accepted (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Bytes of a body that may wait for an upstream that takes nothing of it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The largest window of a connection (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Streams that Callgate has reset and whose late frames it ignores, and how long: a slow client learns of the reset after seconds.
const MAX_RESET_STREAMS: usize = 1000;
const RESET_STREAM_TIME: Duration = Duration::from_secs(30);
/// Streams that are over are forgotten when there are as many of them as others, and at least so many.
const MIN_FORGOTTEN: usize = 8;

/// A connection of HTTP/2; as a future it ends when the connection does.
pub(super) struct Http2<F, S> {
    /// Answers a request that begins now.
    handler: F,
    peer: Arc<Peer>,
    /// How long a client may leave a piece of an answer where it is.
    write_timeout: Duration,
    /// How long it may leave a ping unanswered.
    ping_timeout: Duration,
    /// The client has sent something since this was looked at last.
    has_sent: Arc<AtomicBool>,
    state: ConnectionState<S>,
    streams: Streams,
}

/// The streams of a connection, for the drain.
#[derive(Default)]
struct Streams {
    open: Vec<Weak<InterimQueue>>,
    /// How many to have before those that are over are forgotten.
    forget_at: usize,
    are_cut: bool,
}

impl Streams {
    /// One more stream begins.
    fn begin(&mut self) -> Arc<InterimQueue> {
        if self.open.len() >= self.forget_at {
            self.open.retain(|stream| stream.strong_count() > 0);
            self.forget_at = (2 * self.open.len()).max(MIN_FORGOTTEN);
        }
        let stream = Arc::<InterimQueue>::default();
        self.open.push(Arc::downgrade(&stream));
        if self.are_cut {
            stream.cut();
        }
        stream
    }

    /// Cuts the requests among them.
    fn cut(&mut self) {
        self.are_cut = true;
        self.open.iter().filter_map(Weak::upgrade).for_each(|stream| stream.cut());
    }
}

/// A client's bytes. It must take what is written, and whatever it sends is noted, for [`Liveness`].
type ClientStream<S> = InspectReader<WriteTimeout<S>, Box<dyn FnMut(&[u8]) + Send>>;

enum ConnectionState<S> {
    Opening(Handshake<FrameGuard<ClientStream<S>>, Bytes>),
    Open(Connection<FrameGuard<ClientStream<S>>, Bytes>, Option<Liveness>),
    /// Closed before it was open.
    Closed,
}

impl<F: Fn() -> Arc<H>, H: Handler, S: AsyncRead + AsyncWrite + Unpin> Http2<F, S> {
    /// Takes over a connection from its first byte.
    pub(super) fn new(handler: F, peer: Arc<Peer>, io: S, settings: &ListenSettings) -> Self {
        let has_sent = Arc::<AtomicBool>::default();
        let note = Box::new({
            let has_sent = has_sent.clone();
            move |_: &[u8]| has_sent.store(true, Ordering::Relaxed)
        });
        let io = InspectReader::new(WriteTimeout::new(io, settings.body_idle_timeout), note as _);
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(settings.max_concurrent_streams)
            // For WebSockets (RFC 8441).
            .enable_connect_protocol()
            // h2 refuses larger heads without an answer. With room for twice the limit, most of them get one.
            .max_header_list_size(u32::try_from(settings.max_head_bytes * 2).unwrap_or(u32::MAX))
            .initial_window_size(STREAM_WINDOW)
            // As much as all streams together: a body that an upstream leaves unread must not stop the others.
            .initial_connection_window_size(
                STREAM_WINDOW.saturating_mul(settings.max_concurrent_streams).min(MAX_WINDOW),
            )
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .reset_stream_duration(RESET_STREAM_TIME)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS));
        Self {
            handler,
            peer,
            write_timeout: settings.body_idle_timeout,
            ping_timeout: settings.header_timeout,
            has_sent,
            state: ConnectionState::Opening(builder.handshake(FrameGuard::of_client(io))),
            streams: Streams::default(),
        }
    }

    /// Whether no request can have come yet.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.state, ConnectionState::Opening(_))
    }

    /// Ends the connection after its open streams.
    pub(super) fn close(&mut self) {
        match &mut self.state {
            ConnectionState::Opening(_) => self.state = ConnectionState::Closed,
            ConnectionState::Open(connection, _) => connection.graceful_shutdown(),
            ConnectionState::Closed => {}
        }
    }
}

impl<F: Fn() -> Arc<H> + Unpin, H: Handler, S: AsyncRead + AsyncWrite + Unpin> Future for Http2<F, S> {
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { handler, peer, write_timeout, ping_timeout, has_sent, state, streams } = self.get_mut();
        if let ConnectionState::Opening(handshake) = state {
            let mut connection = ready!(Pin::new(handshake).poll(cx))?;
            let liveness = connection.ping_pong().map(|ping| Liveness::new(ping, *ping_timeout));
            *state = ConnectionState::Open(connection, liveness);
        }
        let ConnectionState::Open(connection, liveness) = state else { return Poll::Ready(Ok(())) };
        if liveness.as_mut().is_some_and(|liveness| liveness.poll(has_sent, cx).is_ready()) {
            tracing::debug!(client = %peer.client.address, "the client does not answer pings");
            *liveness = None;
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
        if !streams.are_cut && peer.shutdown.are_requests_cut() {
            streams.cut();
        }
        while let Some(accepted) = ready!(connection.poll_accept(cx)) {
            let (request, respond) = accepted?;
            tokio::spawn(stream::carry(handler(), peer.clone(), request, respond, streams.begin(), *write_timeout));
        }
        Poll::Ready(Ok(()))
    }
}

/// Finds out whether a silent client is still there.
struct Liveness {
    ping: PingPong,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    is_pinged: bool,
}

impl Liveness {
    fn new(ping: PingPong, timeout: Duration) -> Self {
        Self { ping, timeout, timer: Box::pin(sleep(PING_AFTER)), is_pinged: false }
    }

    /// Ready when it was pinged and has sent nothing since. Any byte counts as an answer.
    fn poll(&mut self, has_sent: &AtomicBool, cx: &mut Context<'_>) -> Poll<()> {
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
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

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
