//! HTTP/2 towards an upstream: connections that many requests share, requests in its form, and what its errors leave undone.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Uri, Version};
use http_body::Body as _;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{Body, Progress};

use super::open::Open;

/// Requests that share one connection at most, whatever its peer would take: what RFC 9113 §6.5.2 advises servers to take at least.
const MOST_STREAMS: usize = 100;
/// What may wait for one client that reads slowly.
const STREAM_WINDOW: u32 = 256 * 1024;
/// As much as all streams together: an answer that nobody reads must not hold up the others on its connection.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;
/// Bytes of the headers of an answer.
const MAX_HEADERS: u32 = 64 * 1024;
/// How long a peer may take to answer a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look whether the peer's settings have come: hyper tells nobody when they do.
const SETTINGS_PAUSE: Duration = Duration::from_millis(1);

/// One connection, shared by requests.
pub(super) struct Shared {
    sender: SendRequest<Body>,
    /// How many requests the peer takes at one time.
    places: Box<dyn Fn() -> usize + Send + Sync>,
    streams: AtomicUsize,
    retired: AtomicBool,
    used: Progress,
    open: Open,
}

/// A request's place on a shared connection; dropped, it is free again.
pub(super) struct Stream {
    pub(super) sender: SendRequest<Body>,
    connection: Arc<Shared>,
}

impl Shared {
    /// Makes a connection of a byte stream and starts its task; returns when the peer has said what it takes. `ping`: how long
    /// it may be silent before it is asked whether it still lives.
    ///
    /// # Errors
    /// When the other side does not speak HTTP/2.
    pub(super) async fn handshake<S>(io: S, ping: Option<Duration>, open: Open) -> io::Result<Arc<Self>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(ping)
            .keep_alive_timeout(PONG_TIMEOUT)
            // Until the peer's settings have come: nothing of a request is sent to somebody who may not speak HTTP/2.
            .initial_max_send_streams(0);
        let (sender, connection) = builder.handshake::<_, Body>(TokioIo::new(io)).await.map_err(io::Error::other)?;
        let connection = Arc::new(Mutex::new(Some(connection)));
        let asked = connection.clone();
        let places = move || {
            let connection = asked.lock().unwrap_or_else(PoisonError::into_inner);
            connection.as_ref().map_or(0, http2::Connection::current_max_send_streams)
        };
        tokio::spawn(std::future::poll_fn(move |cx| {
            let mut place = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(running) = place.as_mut() else { return std::task::Poll::Ready(()) };
            Pin::new(running).poll(cx).map(|ended| {
                // Whoever uses the connection learns of its end by its own error.
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upstream connection broke off");
                }
                *place = None;
            })
        }));
        while places() == 0 {
            if sender.is_closed() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the other side does not speak HTTP/2"));
            }
            tokio::time::sleep(SETTINGS_PAUSE).await;
        }
        Ok(Arc::new(Self {
            sender,
            places: Box::new(places),
            streams: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            used: Progress::new(),
            open,
        }))
    }

    /// A place for one more request, if there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Stream> {
        if !self.is_fit() {
            return None;
        }
        if self.streams.fetch_add(1, Ordering::Relaxed) >= self.most() {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Stream { sender: self.sender.clone(), connection: self.clone() })
    }

    /// Requests that it may carry at one time.
    fn most(&self) -> usize {
        (self.places)().min(MOST_STREAMS)
    }

    /// Whether it may carry one more now.
    pub(super) fn has_room(&self) -> bool {
        self.is_fit() && self.streams.load(Ordering::SeqCst) < self.most()
    }

    /// What it is among the connections of its endpoint.
    pub(super) fn open(&self) -> &Open {
        &self.open
    }

    /// Requests that are under way on it.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// It takes no more requests, and ends with those that it has.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it may carry more requests, now or later.
    pub(super) fn is_fit(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    /// Whether nobody has used it for so long.
    pub(super) fn is_unused_for(&self, time: Duration) -> bool {
        self.streams.load(Ordering::Relaxed) == 0 && self.used.silence() >= time
    }
}

impl Stream {
    /// The connection that it is a place on.
    pub(super) fn connection(&self) -> &Arc<Shared> {
        &self.connection
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::SeqCst);
        self.connection.used.note();
        self.connection.open.freed();
    }
}

/// Gives a request the form that HTTP/2 has (RFC 9113 §8.3.1): the host moves from `Host` to the target, and nothing speaks of the
/// connection. `fallback` is for a client that named no host.
pub(super) fn onto_http2(request: &mut Request<Body>, tls: bool, fallback: &HeaderValue) {
    let host = request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    let read = |host: &HeaderValue| Authority::try_from(host.as_bytes()).ok();
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = host.as_ref().and_then(read).or_else(|| read(fallback));
    // With a scheme, an authority and a path there is nothing left to complain about.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// Gives a request the form that HTTP/1.1 has; it may have been tried on an HTTP/2 connection before.
pub(super) fn onto_http1(request: &mut Request<Body>) {
    let is_endless = request.body().size_hint().exact().is_none();
    if is_endless && !request.headers().contains_key(header::CONTENT_LENGTH) {
        // Of a GET or HEAD hyper would leave the body out unless told.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if request.version() != Version::HTTP_2 {
        return;
    }
    if let Some(target) = request.uri().path_and_query() {
        *request.uri_mut() = Uri::from(target.clone());
    }
    if request.headers().contains_key(header::TE) {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    *request.version_mut() = Version::HTTP_11;
}

/// Whether the peer says that it has not looked at the request: it refused the stream, or ended the connection before it
/// (RFC 9113 §8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        source = cause.source();
    }
    false
}
