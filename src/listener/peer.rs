//! Who is at the other end of a connection, and what is under way on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Version};

use crate::body::Progress;

use super::head::{self, HeadLimits, RequestFault};
use super::interim::Interim;
use super::signals::Signals;
use super::slot::ConnectionSlot;

/// HTTP/2: requests that a client may give up as soon as they are made, beyond those that come to an end. With one more it is told to
/// go, with twice as many it is cut off: somebody makes work and throws it away (CVE-2023-44487).
const MAX_GIVEN_UP: usize = 100;
/// As soon as they are made: within this time.
const GIVEN_UP_AT_ONCE: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address, as the socket says, or a proxy that speaks the PROXY protocol.
    pub address: SocketAddr,
    /// Which certificate it was shown; `None` on the plain listener.
    pub certificate: Option<usize>,
    pub(super) signals: Arc<Signals>,
    limits: HeadLimits,
    /// Exchanges, and uploads that outlive theirs.
    active: AtomicUsize,
    /// Requests given up at once, less those that came to an end.
    given_up: AtomicUsize,
    moved: Progress,
    /// A call outlives the HTTP connection that it began on; it holds the slot until it ends.
    _slot: ConnectionSlot,
}

impl Peer {
    /// A connection that has its place; `certificate`: which it was shown.
    pub(super) fn new(
        address: SocketAddr,
        certificate: Option<usize>,
        limits: HeadLimits,
        slot: ConnectionSlot,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            certificate,
            signals: Arc::default(),
            limits,
            active: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            moved: Progress::new(),
            _slot: slot,
        })
    }

    /// Why this request can't be served: it stands in for one that could not be trusted, or is one that breaks the bounds of its
    /// kind; `None` for a good one.
    #[must_use]
    pub fn fault<B>(&self, request: &Request<B>) -> Option<RequestFault> {
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
    pub fn refusal(&self) -> Option<RequestFault> {
        self.signals.refusal()
    }

    /// What passes interim answers to a request on a connection of HTTP/1 on; `None` where the client can't be sent any: HTTP/1.0
    /// has none (RFC 9110 §15.2).
    pub(super) fn interim<B>(&self, request: &Request<B>) -> Option<Interim> {
        (request.version() == Version::HTTP_11).then(|| Interim::open(&self.signals))
    }

    /// From here on the connection is a tunnel, and its bytes are no longer judged as requests; of HTTP/2, it carries one.
    pub fn became_tunnel(&self) {
        self.signals.tunnel();
    }
}

/// Something is under way on a connection; the connection is not idle while one lives.
#[derive(Debug)]
pub struct ActivityGuard {
    peer: Arc<Peer>,
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.peer.moved.note();
        self.peer.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An exchange on a connection, from the head of its request to the end of its answer.
#[derive(Debug)]
pub struct ActiveRequest {
    begin_activity: ActivityGuard,
}

impl ActiveRequest {
    /// The exchange is over, so long after it began; `given_up`: because the client did not wait for its end.
    pub fn over(&self, given_up: bool, after: Duration) {
        let count = &self.begin_activity.peer.given_up;
        if !given_up {
            // Less than nothing is nothing: good manners can't be saved up. Not worth a loop: nobody counts on one more or less.
            count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        } else if after < GIVEN_UP_AT_ONCE {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.begin_activity.peer.signals.exchange_over();
    }
}

impl Peer {
    /// An exchange begins.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        ActiveRequest { begin_activity: self.begin_activity() }
    }

    /// Something begins that may outlive its exchange.
    #[must_use]
    pub fn begin_activity(self: &Arc<Self>) -> ActivityGuard {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActivityGuard { peer: self.clone() }
    }

    /// Whether the client gives up too many requests, so many times over.
    pub(super) fn gives_up(&self, times: usize) -> bool {
        self.given_up.load(Ordering::Relaxed) > MAX_GIVEN_UP * times
    }

    /// Resolves when nothing has been under way for so long.
    pub(super) async fn idle(&self, patience: Duration) {
        loop {
            let is_idle = self.active.load(Ordering::Relaxed) == 0;
            let silence = if is_idle { self.moved.silence() } else { Duration::ZERO };
            match patience.checked_sub(silence) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}
