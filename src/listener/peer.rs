//! The other end of a connection, and the requests in flight on it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Version};

use crate::body::Progress;
use crate::shutdown::{CountGuard, Counted, Shutdown};

use super::forwarded::ForwardedClient;
use super::head::{self, HeadLimits, RequestFault};
use super::interim::Interim;
use super::slot::ConnectionSlot;
use super::tls::ShownCertificate;

/// HTTP/2: requests that a client may cancel as soon as they are made, beyond those that complete. One more, and the connection gets a
/// GOAWAY; twice as many, and it is cut (CVE-2023-44487).
const MAX_CANCELLED: usize = 100;
/// As soon as they are made: within this time.
const CANCELLED_AT_ONCE: Duration = Duration::from_secs(1);

/// How the bytes of a connection travel.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Over TLS; the client was shown this certificate.
    Tls(ShownCertificate),
    /// In clear.
    Clear,
    /// In clear, from a proxy that ends TLS and says of each request whether it came over HTTPS.
    ClearFromProxy,
}

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The client's address, as the socket says, or a proxy that speaks the PROXY protocol, and what services are told of it.
    pub client: ForwardedClient,
    pub transport: Transport,
    /// Why what it sent behind a request for another protocol was refused.
    refusal: OnceLock<RequestFault>,
    limits: HeadLimits,
    /// Requests, and uploads that outlive their answers.
    active: AtomicUsize,
    /// Requests cancelled at once, less those that completed.
    cancelled: AtomicUsize,
    moved: Progress,
    /// Calls that are open on it. One that upgrades the connection outlives it.
    calls: AtomicUsize,
    pub(super) shutdown: Shutdown,
    _counted: CountGuard,
    /// A call outlives the HTTP connection that it began on; it holds the slot until it ends.
    _slot: ConnectionSlot,
}

impl Peer {
    /// A connection that has its slot.
    pub(super) fn new(
        address: SocketAddr,
        transport: Transport,
        limits: HeadLimits,
        slot: ConnectionSlot,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        Arc::new(Self {
            client: ForwardedClient::new(address),
            transport,
            refusal: OnceLock::new(),
            limits,
            active: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            moved: Progress::new(),
            calls: AtomicUsize::new(0),
            shutdown: shutdown.clone(),
            _counted: shutdown.count(Counted::Connection),
            _slot: slot,
        })
    }

    /// Why this request of HTTP/2 can't be served; `None` for a good one.
    #[must_use]
    pub(crate) fn fault<B>(&self, request: &Request<B>) -> Option<RequestFault> {
        if request.version() == Version::HTTP_2 { head::fault_of_http2(request, &self.limits) } else { None }
    }

    /// What was sent behind a request for another protocol is no request.
    pub(super) fn refuse(&self, fault: RequestFault) {
        // The first is as good as the next.
        let _ = self.refusal.set(fault);
    }

    /// Why the bytes behind this request for another protocol were refused, if they were.
    #[must_use]
    pub(crate) fn refusal(&self) -> Option<RequestFault> {
        self.refusal.get().copied()
    }
}

/// Something is in flight on a connection, which is not idle while one of these lives.
#[derive(Debug)]
pub(crate) struct ActivityGuard {
    peer: Arc<Peer>,
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.peer.moved.note();
        self.peer.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request on a connection, from its head to the end of its answer.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    begin_activity: ActivityGuard,
}

impl ActiveRequest {
    /// The request is over, `after` so long; `cancelled`: the client did not wait for the end.
    pub(crate) fn over(&self, cancelled: bool, after: Duration) {
        let count = &self.begin_activity.peer.cancelled;
        if !cancelled {
            // Completed requests can't be saved up. A race may lose one: the bound is not exact to one.
            count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        } else if after < CANCELLED_AT_ONCE {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.begin_activity.peer.shutdown.uncount(Counted::Request);
    }
}

/// A call on a connection, until this is dropped.
#[derive(Debug)]
pub(crate) struct PeerCall {
    peer: Arc<Peer>,
    _counted: CountGuard,
}

impl PeerCall {
    /// Resolves when the drain has this call close.
    pub(crate) fn closes(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let shutdown = self.peer.shutdown.clone();
        async move { shutdown.call_closes().await }
    }
}

impl Drop for PeerCall {
    fn drop(&mut self) {
        self.peer.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peer {
    /// A request begins.
    #[must_use]
    pub(crate) fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.shutdown.count_one(Counted::Request);
        ActiveRequest { begin_activity: self.begin_activity() }
    }

    /// A request is a call, which the drain lets go on when it cuts requests. `interim`: of that request.
    #[must_use]
    pub(crate) fn begin_call(self: &Arc<Self>, interim: Option<&Interim>) -> PeerCall {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(interim) = interim {
            interim.becomes_call();
        }
        PeerCall { peer: self.clone(), _counted: self.shutdown.count(Counted::Call) }
    }

    /// Whether a call is open on the connection.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Something begins that may outlive its request.
    #[must_use]
    pub(crate) fn begin_activity(self: &Arc<Self>) -> ActivityGuard {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActivityGuard { peer: self.clone() }
    }

    /// Whether the client cancels more than `times` the allowed requests.
    pub(super) fn cancels_too_much(&self, times: usize) -> bool {
        self.cancelled.load(Ordering::Relaxed) > MAX_CANCELLED * times
    }

    /// Resolves when nothing has been in flight for so long.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps room for its arguments twice, as long as the connection"
    )]
    pub(super) fn idle(&self, timeout: Duration) -> impl Future<Output = ()> {
        async move {
            loop {
                let is_idle = self.active.load(Ordering::Relaxed) == 0;
                let silence = if is_idle { self.moved.silence() } else { Duration::ZERO };
                match timeout.checked_sub(silence) {
                    None | Some(Duration::ZERO) => return,
                    Some(left) => tokio::time::sleep(left).await,
                }
            }
        }
    }
}
