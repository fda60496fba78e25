//! An HTTP/2 connection, by h2: its streams are polled in its own task, and a silent client is pinged.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection, Handshake};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::has_budget_remaining;

use crate::body::BodyError;
use crate::config::ListenSettings;
use crate::deadline::WriteTimeout;
use crate::http2::FrameGuard;

use super::client_stream::{ClientStream, Reads};
use super::liveness::Liveness;
use super::open_streams::OpenStreams;
use super::peer::Peer;
use super::reused_handler::HandlerSlot;
use super::wakeups::Wakeups;

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
/// How often in one turn streams and h2 are polled that wake each other, before other tasks have theirs.
const MAX_ROUNDS: usize = 4;

/// A connection of HTTP/2; as a future it ends when the connection does. `F` and `B` are those of its
/// reused handlers.
pub(super) struct Http2<H, S, F, B> {
    /// Begins to handle the requests that come to a slot.
    start: H,
    peer: Arc<Peer>,
    /// How long a client may leave a ping unanswered.
    ping_timeout: Duration,
    reads: Arc<Reads>,
    /// Heads that have come, and requests that h2 has given out.
    heads: Arc<AtomicUsize>,
    accepted: usize,
    state: ConnectionState<S>,
    streams: OpenStreams<F, B>,
    wakeups: Arc<Wakeups>,
    /// Wakes h2.
    waker: Waker,
}

enum ConnectionState<S> {
    Opening(Handshake<FrameGuard<ClientStream<S>>, Bytes>),
    Open(Connection<FrameGuard<ClientStream<S>>, Bytes>, Option<Liveness>),
    /// Closed before it was open.
    Closed,
}

impl<H, S, F, B> Http2<H, S, F, B>
where
    H: Fn(Arc<HandlerSlot<B>>) -> F,
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    /// Takes over a connection from its first byte.
    pub(super) fn new(start: H, peer: Arc<Peer>, io: S, settings: &ListenSettings) -> Self {
        let wakeups = Arc::<Wakeups>::default();
        let reads = Reads::new(wakeups.clone());
        let io = ClientStream::new(WriteTimeout::new(io, settings.body_idle_timeout), &reads);
        let guard = FrameGuard::of_client(io);
        Self {
            start,
            peer,
            ping_timeout: settings.header_timeout,
            reads,
            heads: guard.heads(),
            accepted: 0,
            state: ConnectionState::Opening(builder(settings).handshake(guard)),
            streams: OpenStreams::new(wakeups.clone(), settings.body_idle_timeout),
            waker: wakeups.clone().into(),
            wakeups,
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
            ConnectionState::Open(connection, _) => {
                connection.graceful_shutdown();
                self.waker.wake_by_ref();
            }
            ConnectionState::Closed => {}
        }
    }
}

fn builder(settings: &ListenSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.max_concurrent_streams)
        // For WebSockets (RFC 8441).
        .enable_connect_protocol()
        // h2 refuses larger heads without an answer. With room for twice the limit, most of them get one.
        .max_header_list_size(u32::try_from(settings.max_head_bytes * 2).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        // As much as all streams together: a body that an upstream leaves unread must not stop the others.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(settings.max_concurrent_streams).min(MAX_WINDOW))
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .reset_stream_duration(RESET_STREAM_TIME)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS));
    builder
}

impl<H, S, F, B> Future for Http2<H, S, F, B>
where
    H: Fn(Arc<HandlerSlot<B>>) -> F + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { start, peer, ping_timeout, reads, heads, accepted, state, streams, wakeups, waker } = self.get_mut();
        wakeups.begin_turn();
        if let ConnectionState::Opening(handshake) = state {
            wakeups.take_h2();
            let Poll::Ready(opened) = Pin::new(handshake).poll(&mut Context::from_waker(waker)) else {
                if !wakeups.rests(cx) {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            };
            let mut connection = opened?;
            let liveness = connection.ping_pong().map(|ping| Liveness::new(ping, *ping_timeout));
            *state = ConnectionState::Open(connection, liveness);
            waker.wake_by_ref();
        }
        let ConnectionState::Open(connection, liveness) = state else { return Poll::Ready(Ok(())) };
        if liveness.as_mut().is_some_and(|liveness| liveness.poll(&reads.has_sent, cx).is_ready()) {
            tracing::debug!(client = %peer.client.address, "the client does not answer pings");
            *liveness = None;
            connection.abrupt_shutdown(Reason::NO_ERROR);
            waker.wake_by_ref();
        }
        if liveness.as_ref().is_some_and(|liveness| liveness.is_pinged()) {
            streams.shrink();
        }
        if !streams.are_cut() && peer.shutdown.are_requests_cut() {
            streams.cut();
        }
        // What the streams send leaves in the same turn, and requests that come in it begin in it.
        for _ in 0..MAX_ROUNDS {
            let are_polled = streams.poll_woken();
            if wakeups.take_h2() {
                let mut cx = Context::from_waker(waker);
                while let Poll::Ready(next) = connection.poll_accept(&mut cx) {
                    let Some(next) = next else { return Poll::Ready(Ok(())) };
                    let (request, respond) = next?;
                    streams.begin(request, respond, &*start);
                    *accepted += 1;
                    // h2 has no more, so that it need not be asked. It has waited for the client before it gave this one out.
                    if *accepted == heads.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            if are_polled && wakeups.rests(cx) {
                return Poll::Pending;
            }
            if !has_budget_remaining() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<H, S, F, B> Drop for Http2<H, S, F, B> {
    /// What still has a waker of a stream must not keep the memory of the task.
    fn drop(&mut self) {
        self.wakeups.begin_turn();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use h2::client::SendRequest;
    use http::{Request, Response};

    use super::*;
    use crate::body::Body as AnswerBody;
    use crate::listener::head::HeadLimits;
    use crate::listener::http1::harness;

    const LIMITS: HeadLimits = HeadLimits { bytes: 4096, lines: 20, target: 1000 };

    /// A client of a connection that answers at once, panics for `/panic`, and leaves `/slow` without an answer; and how many handlers
    /// there have been.
    async fn connect() -> (SendRequest<Bytes>, Arc<AtomicUsize>) {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (peer, settings) = harness::client(LIMITS);
        let handlers = Arc::<AtomicUsize>::default();
        let start = {
            let handlers = handlers.clone();
            move |slot: Arc<HandlerSlot<AnswerBody>>| {
                handlers.fetch_add(1, Ordering::Relaxed);
                async move {
                    loop {
                        let (request, _interim) = slot.next().await;
                        match request.uri().path() {
                            "/panic" => panic!("as it was asked to"),
                            "/slow" => std::future::pending::<()>().await,
                            _ => slot.answer(Response::new(AnswerBody::Full(Bytes::from("an answer")))),
                        }
                    }
                }
            }
        };
        tokio::spawn(Http2::new(start, peer, server, &settings));
        let (send, connection) = h2::client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        (send, handlers)
    }

    /// Sends a request; returns what comes of it.
    fn ask(send: &SendRequest<Bytes>, path: &str) -> impl Future<Output = Result<usize, h2::Error>> + use<> {
        let request = Request::get(format!("http://localhost{path}")).body(()).unwrap();
        let (answer, _) = send.clone().send_request(request, true).unwrap();
        async move {
            let mut body = answer.await?.into_body();
            let mut length = 0;
            while let Some(piece) = body.data().await {
                length += piece?.len();
            }
            Ok(length)
        }
    }

    #[tokio::test]
    async fn a_panic_and_a_slow_answer_cost_one_stream_each() {
        let (send, _) = connect().await;
        let mut slow = std::pin::pin!(ask(&send, "/slow"));
        let (panics, good) = (ask(&send, "/panic"), ask(&send, "/"));
        tokio::select! {
            _ = &mut slow => panic!("an answer from nobody"),
            (panicked, length) = async { tokio::join!(panics, good) } => {
                assert!(panicked.unwrap_err().is_reset());
                assert_eq!(length.unwrap(), 9);
            }
        }
        assert_eq!(ask(&send, "/").await.unwrap(), 9);
    }

    #[tokio::test]
    async fn a_handler_serves_one_request_after_the_other() {
        let (send, handlers) = connect().await;
        for _ in 0..5 {
            assert_eq!(ask(&send, "/").await.unwrap(), 9);
        }
        assert_eq!(handlers.load(Ordering::Relaxed), 1);
        let answers = [ask(&send, "/"), ask(&send, "/"), ask(&send, "/")];
        for length in futures_util::future::join_all(answers).await {
            assert_eq!(length.unwrap(), 9);
        }
        assert!(handlers.load(Ordering::Relaxed) <= 3);
    }
}
