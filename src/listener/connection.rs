//! One client connection, from handshake to close: protocol by ALPN, HTTP/1.1 or HTTP/2 by hyper, drained when the time comes.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::body::{BodyError, Progress};
use crate::shutdown::Shutdown;

use super::gate::{Gate, Signals};
use super::head::{self, Fault, HeadLimits};
use super::interim::Interim;
use super::proxy_protocol::{self, ProxyError};
use super::streams::{StreamClock, Streams};
use super::{Listener, Place, Tls};

/// At the end of the drain the calls on an HTTP/2 connection get so long to say goodbye on it; the instance waits a second.
const LAST_WORDS: Duration = Duration::from_millis(900);

/// HTTP/2: requests that a client may give up as soon as they are made, beyond those that come to an end. With one more it is told to
/// go, with twice as many it is cut off: somebody makes work and throws it away (CVE-2023-44487).
const MOST_GIVEN_UP: usize = 100;
/// As soon as they are made: within this time.
const GIVEN_UP_AT_ONCE: Duration = Duration::from_secs(1);
/// HTTP/2: mistakes of a client that make us reset a stream, of which there may be so many on a connection (CVE-2025-8671).
const MOST_MISTAKES: usize = 100;

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// The body of its answers.
    type Body: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static;

    /// Answers one request.
    fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address, as the socket says, or a proxy that speaks the PROXY protocol.
    pub address: SocketAddr,
    /// Which certificate it was shown; `None` on the plain listener.
    pub certificate: Option<usize>,
    signals: Arc<Signals>,
    limits: HeadLimits,
    /// Exchanges, and uploads that outlive theirs.
    under_way: AtomicUsize,
    /// Requests given up at once, less those that came to an end.
    given_up: AtomicUsize,
    moved: Progress,
    /// A call outlives the HTTP connection that it began on; it holds the place until it ends.
    _place: Place,
}

impl Peer {
    /// Why this request can't be served: it stands in for one that could not be trusted, or is one that breaks the bounds of its
    /// kind; `None` for a good one.
    #[must_use]
    pub fn fault<B>(&self, request: &Request<B>) -> Option<Fault> {
        if request.version() == Version::HTTP_2 {
            return head::fault_of_http2(request, &self.limits);
        }
        self.signals.fault(request)
    }

    /// Whether this is no request of the client's, but stands in for what was none.
    #[must_use]
    pub fn is_stand_in<B>(&self, request: &Request<B>) -> bool {
        self.signals.is_stand_in(request)
    }

    /// Why what the client sent after this request was refused, if it was: then nothing more can come from it.
    #[must_use]
    pub fn refusal(&self) -> Option<Fault> {
        self.signals.refusal()
    }

    /// What passes interim answers to this request on; `None` where the client can't be sent any: HTTP/1.0 has none (RFC 9110
    /// §15.2), and hyper has no way to send them over HTTP/2.
    #[must_use]
    pub fn interim<B>(&self, request: &Request<B>) -> Option<Interim> {
        (request.version() == Version::HTTP_11).then(|| Interim::open(&self.signals))
    }

    /// From here on the connection is a tunnel, and its bytes are no longer judged as requests; of HTTP/2, it carries one.
    pub fn became_tunnel(&self) {
        self.signals.tunnel();
    }
}

/// Something is under way on a connection; the connection is not idle while one lives.
#[derive(Debug)]
pub struct Busy {
    peer: Arc<Peer>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.peer.moved.note();
        self.peer.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An exchange on a connection, from the head of its request to the end of its answer.
#[derive(Debug)]
pub struct Attention {
    busy: Busy,
    /// What measures the client's patience with us, and ours with it; `None` on HTTP/1.1, where the socket does.
    clock: Option<Arc<StreamClock>>,
}

impl Attention {
    /// A piece of the answer is handed over; until it is [`Attention::taken`], the client owes us its attention.
    pub fn handed(&self) {
        if let Some(clock) = &self.clock {
            clock.handed();
        }
    }

    /// The client has room for the next piece.
    pub fn taken(&self) {
        if let Some(clock) = &self.clock {
            clock.taken();
        }
    }
}

impl Attention {
    /// The exchange is over, so long after it began; `given_up`: because the client did not wait for its end.
    pub fn over(&self, given_up: bool, after: Duration) {
        let count = &self.busy.peer.given_up;
        if !given_up {
            // Less than nothing is nothing: good manners can't be saved up. Not worth a loop: nobody counts on one more or less.
            count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        } else if after < GIVEN_UP_AT_ONCE {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.taken();
        self.busy.peer.signals.exchange_over();
    }
}

impl Peer {
    /// An exchange begins. To be called on the task that will carry it to its end.
    #[must_use]
    pub fn attend(self: &Arc<Self>) -> Attention {
        Attention { busy: self.busy(), clock: StreamClock::current() }
    }

    /// Something begins that may outlive its exchange.
    #[must_use]
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Busy { peer: self.clone() }
    }

    /// Whether the client gives up too many requests, so many times over.
    fn gives_up(&self, times: usize) -> bool {
        self.given_up.load(Ordering::Relaxed) > MOST_GIVEN_UP * times
    }

    /// Resolves when nothing has been under way for so long.
    async fn idle(&self, patience: Duration) {
        loop {
            let is_idle = self.under_way.load(Ordering::Relaxed) == 0;
            let silence = if is_idle { self.moved.silence() } else { Duration::ZERO };
            match patience.checked_sub(silence) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}

/// Serves one accepted connection to its end.
pub(super) async fn serve<H: Handler>(
    listener: &Listener<H>,
    mut socket: TcpStream,
    address: SocketAddr,
    place: Place,
) {
    let introduced = tokio::select! {
        introduced = introduce(listener, &mut socket, address) => introduced,
        () = listener.shutdown.draining() => return,
    };
    let Some(address) = introduced else { return };
    let peer = |certificate| {
        let limits = listener.head_limits();
        Arc::new(Peer {
            address,
            certificate,
            signals: Arc::default(),
            limits,
            under_way: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            moved: Progress::new(),
            _place: place,
        })
    };
    let Some(tls) = &listener.tls else {
        return serve_http1(listener, socket, peer(None)).await;
    };
    let started = Instant::now();
    // A connection's task is as large as the largest of the things that it does one after the other, and a handshake is soon over.
    let handshake = tokio::time::timeout(listener.settings.handshake_timeout, Box::pin(handshake(tls, socket)));
    let shaken = tokio::select! {
        shaken = handshake => shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        () = listener.shutdown.draining() => return,
    };
    let stream = match shaken {
        Ok(stream) => stream,
        Err(error) => {
            listener.metrics.handshake_failures.inc();
            tracing::debug!(client = %address, %error, "TLS handshake failed");
            return;
        }
    };
    listener.metrics.handshake_seconds.observe(started.elapsed().as_secs_f64());
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let certificate = session.server_name().map_or(0, |name| tls.certificates.index_for(name));
    if is_http2 {
        // The larger of the two is not to take its room of every connection.
        Box::pin(serve_http2(listener, stream, peer(Some(certificate)))).await;
    } else {
        serve_http1(listener, stream, peer(Some(certificate))).await;
    }
}

/// The client's address: the socket's, or what a proxy tells that must speak the PROXY protocol; `None` when it does not.
async fn introduce<H>(listener: &Listener<H>, socket: &mut TcpStream, address: SocketAddr) -> Option<SocketAddr> {
    let ip = address.ip().to_canonical();
    if !listener.settings.proxy_protocol.iter().any(|network| network.contains(&ip)) {
        return Some(address);
    }
    let told = tokio::time::timeout(listener.settings.handshake_timeout, proxy_protocol::read(socket)).await;
    match told.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
        Ok(told) => Some(told.unwrap_or(address)),
        Err(ProxyError::Closed) => None,
        Err(error @ (ProxyError::Absent | ProxyError::Malformed(_) | ProxyError::Io(_))) => {
            listener.metrics.proxy_failures.inc();
            tracing::debug!(proxy = %address, error = &error as &dyn std::error::Error, "a proxy did not say whose connection it passes on");
            None
        }
    }
}

/// Makes a TLS session. Somebody who speaks plain HTTP is told so in plain HTTP. The session comes in a box, because it is handed on from
/// here several times, and each time would have room of its own in the connection's task.
async fn handshake(tls: &Tls, mut socket: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        const BODY: &str =
            r#"{"message":"This port speaks HTTPS. Use https:// in the address.","code":"https_required"}"#;
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nconnection: close\r\n\r\n{BODY}",
            BODY.len()
        );
        // What has come of the request is taken off the socket, or closing it would destroy the answer on its way.
        if socket.read(&mut [0; 4096]).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        socket.write_all(answer.as_bytes()).await?;
        socket.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP on the HTTPS port"));
    }
    tls.acceptor.accept(socket).await.map(Box::new)
}

async fn serve_http1<H: Handler, S>(listener: &Listener<H>, io: S, peer: Arc<Peer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let gate = Gate::http1(io, listener.head_limits(), listener.patience(), peer.signals.clone());
    let service = service_fn(|request| {
        let (handler, peer) = (listener.handler.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(handler.handle(request, &peer).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        // The gate bounds a head that comes slowly, and `idle` the time before its first byte: closed by hyper's timer, a connection
        // would end without TLS's goodbye.
        .header_read_timeout(None)
        // The gate bounds heads more tightly; hyper must never be the one to refuse.
        .max_buf_size((listener.settings.max_head_bytes * 2).max(64 * 1024));
    let connection = pin!(builder.serve_connection(TokioIo::new(gate), service).with_upgrades());
    let idle = peer.idle(listener.settings.idle_timeout);
    let cut = listener.shutdown.ended();
    let ended = drive(connection, &listener.shutdown, &peer, idle, pending(), cut, |it| it.graceful_shutdown()).await;
    log_end(peer.address, ended);
}

async fn serve_http2<H: Handler, S>(listener: &Listener<H>, io: S, peer: Arc<Peer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let gate = Gate::http2(io, listener.patience(), peer.signals.clone());
    let service = service_fn(|request| {
        let (handler, peer) = (listener.handler.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(handler.handle(request, &peer).await) }
    });
    let patience = listener.settings.body_idle_timeout;
    let mut builder = hyper::server::conn::http2::Builder::new(Streams::new(patience));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(listener.settings.max_concurrent_streams)
        // For WebSockets (RFC 8441).
        .enable_connect_protocol()
        // What is larger is refused without a word. So that most of what is too large gets an answer like all others, there is
        // room for twice as much as passes.
        .max_header_list_size(u32::try_from(listener.settings.max_head_bytes * 2).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(MOST_MISTAKES)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(listener.settings.header_timeout);
    let connection = pin!(builder.serve_connection(TokioIo::new(gate), service));
    let idle = peer.idle(listener.settings.idle_timeout);
    // The last piece of an answer can wait for a window that stays closed even when its exchange is over.
    let lost = peer.idle(listener.settings.idle_timeout + patience);
    let cut = async {
        listener.shutdown.ended().await;
        if peer.signals.is_tunnel() {
            tokio::time::sleep(LAST_WORDS).await;
        }
    };
    let ended = drive(connection, &listener.shutdown, &peer, idle, lost, cut, |it| it.graceful_shutdown()).await;
    log_end(peer.address, ended);
}

/// Polls a connection until it ends, which it is asked to when it is `idle`, drained or makes requests only to give them up, and must
/// when it is `lost`, goes on giving up, or is `cut` at the end of the drain. The drain is looked at once, to be woken by it, and from
/// then on by a flag: a connection wakes up for every packet, and all connections share that one signal.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    shutdown: &Shutdown,
    peer: &Peer,
    idle: impl Future<Output = ()>,
    lost: impl Future<Output = ()>,
    cut: impl Future<Output = ()>,
    close: impl Fn(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut draining = pin!(shutdown.draining());
    let (mut idle, mut lost, mut cut) = (pin!(idle), pin!(lost), pin!(cut));
    let (mut listens, mut closing) = (false, false);
    poll_fn(|cx: &mut Context<'_>| {
        if !listens {
            listens = true;
            let _ = draining.as_mut().poll(cx);
        }
        if !closing && (shutdown.is_draining() || peer.gives_up(1) || idle.as_mut().poll(cx).is_ready()) {
            closing = true;
            close(connection.as_mut());
        }
        if peer.gives_up(2) {
            tracing::debug!(client = %peer.address, "the client makes requests only to give them up");
            return Poll::Ready(Ok(()));
        }
        if lost.as_mut().poll(cx).is_ready() || (shutdown.is_draining() && cut.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        connection.as_mut().poll(cx)
    })
    .await
}

fn log_end(address: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::debug!(client = %address, %error, cause, "the connection broke off");
    }
}
