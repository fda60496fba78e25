//! Copies of a share of a route's requests for another upstream, whose answers nobody gets. No exchange of a client's waits for one, fails
//! by one or knows of one: a copy is a task of its own, of which there are only so many, with a body of only so many bytes, that is
//! sent once the request is whole. What it meets says nothing of the endpoint to those who choose one for requests proper: a service
//! that is on trial may well refuse what it is not meant to do.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::body::{Body, Copied};
use crate::config;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

use super::balance::Upstreams;
use super::kept::Kept;
use super::pool::{self, NoConnection};
use super::upstream::{MAX_STALE, UpstreamPools};
use super::{ForwardContext, affinity, headers};

/// By this the receiver knows a copy: nobody will get its answer. Clients can't send it.
const MARK: HeaderName = HeaderName::from_static("x-callgate-mirrored");
/// Bytes of an answer that are read so that the connection can be used again.
const MOST_READ: usize = 256 << 10;

/// One worker's way to a route's mirror.
pub(super) struct Mirroring {
    upstream: Arc<UpstreamPools>,
    settings: config::Mirror,
    /// Of all workers.
    places: Arc<Semaphore>,
    cells: [IntCounter; Outcome::ALL.len()],
    shutdown: Shutdown,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was answered with a status below 500.
    Answered,
    /// It was answered with another one.
    ServerError,
    /// There was no connection, or it broke.
    Failed,
    /// There was no whole answer in time.
    Timeout,
    /// There were as many as may be, of copies or of what the upstream takes.
    Busy,
    /// The body is too long to be kept.
    TooLarge,
    /// The request itself was not whole, or did not go out.
    Unfinished,
}

impl Outcome {
    /// With the names that metrics have for them, in this order.
    const ALL: [(Self, &'static str); 7] = [
        (Self::Answered, "answered"),
        (Self::ServerError, "server_error"),
        (Self::Failed, "failed"),
        (Self::Timeout, "timeout"),
        (Self::Busy, "busy"),
        (Self::TooLarge, "too_large"),
        (Self::Unfinished, "unfinished"),
    ];
}

/// A copy of a request without a body. Dropped, it goes nowhere.
pub(super) struct Copy(oneshot::Sender<Copied>);

impl Copy {
    /// The request itself goes out.
    pub(super) fn go(self) {
        // At the end of a drain nobody waits for it any more.
        let _ = self.0.send(Copied::Whole(Bytes::new()));
    }
}

/// A copy that waits for its body.
struct Draft {
    request: Request<Body>,
    /// The `Host`, where it is not the endpoint's own.
    host: Option<HeaderValue>,
    /// What chooses the endpoint, if it is that.
    key: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl Mirroring {
    /// `None` when the route has no mirror.
    pub(super) fn new(
        route: &config::Route,
        upstreams: &[Arc<UpstreamPools>],
        shared: &Upstreams,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Option<Self> {
        let settings = route.mirror.clone()?;
        let upstream = upstreams[settings.upstream].clone();
        let cells = Outcome::ALL.map(|(_, name)| metrics.mirrored(&route.name, &upstream.config.name, name));
        Some(Self { places: shared.copies(&route.name)?, upstream, settings, cells, shutdown: shutdown.clone() })
    }

    /// Copies a request that is on its way to its own upstream, if the lot falls on it. With a body the copy follows when that is whole;
    /// without one it is given back, and follows when the request goes out.
    pub(super) fn copy(self: &Arc<Self>, request: &mut Request<Body>, onward: &ForwardContext<'_>) -> Option<Copy> {
        if !self.settings.takes(fastrand::u32(..config::FULL_SHARE)) {
            return None;
        }
        if request.body().size_hint().lower() > self.settings.max_body as u64 {
            self.count(Outcome::TooLarge);
            return None;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.count(Outcome::Busy);
            return None;
        };
        let upstream = &self.upstream.config;
        let draft = Draft {
            host: headers::kept_host(request.headers(), onward, upstream.host),
            key: affinity::key_of(&upstream.balancing.balance, request.headers(), onward),
            request: Kept::head(request).request(),
            _place: place,
        };
        let (body, copy) = match request.body_mut().copy(self.settings.max_body) {
            Some(body) => (body, None),
            None => {
                let (go, body) = oneshot::channel();
                (body, Some(Copy(go)))
            }
        };
        let mirroring = self.clone();
        self.shutdown.tasks().spawn(async move {
            tokio::select! {
                outcome = mirroring.deliver(draft, body) => mirroring.count(outcome),
                () = mirroring.shutdown.ended() => {}
            }
        });
        copy
    }

    fn count(&self, outcome: Outcome) {
        self.cells[outcome as usize].inc();
    }

    /// Waits until the request is whole, and sends its copy.
    async fn deliver(&self, mut draft: Draft, body: oneshot::Receiver<Copied>) -> Outcome {
        let bytes = match body.await {
            Ok(Copied::Whole(bytes)) => bytes,
            Ok(Copied::TooLong) => return Outcome::TooLarge,
            Err(_) => return Outcome::Unfinished,
        };
        if !bytes.is_empty() {
            *draft.request.body_mut() = Body::Full(bytes);
        }
        let headers = draft.request.headers_mut();
        headers.insert(MARK, HeaderValue::from_static("true"));
        // They were not kept.
        headers.remove(header::TRAILER);
        let exchange = tokio::time::timeout(self.settings.timeout, self.exchange(draft));
        exchange.await.unwrap_or(Outcome::Timeout)
    }

    /// Sends a copy to one endpoint, once: only a connection that turns out to have been closed while it waited is replaced.
    async fn exchange(&self, draft: Draft) -> Outcome {
        let Draft { mut request, host, key, _place } = draft;
        let upstream = &*self.upstream;
        // Requests that wait for a place or a connection are not passed.
        let Some(_spare) = upstream.roster.spare_place().filter(|_| upstream.lines.of(false).is_empty()) else {
            return Outcome::Busy;
        };
        // A connection that is free is for those who wait for one.
        if !upstream.lines.of(false).is_empty() {
            return Outcome::Busy;
        }
        let Some(index) = upstream.roster.choose(&upstream.turns, key, &[], upstream.roster.now()) else {
            return Outcome::Failed;
        };
        let _in_flight = upstream.roster.begin(index);
        let pool = &upstream.endpoints[index];
        for _ in 0..MAX_STALE {
            let mut lease = match pool.lease(false, None).await {
                Ok(lease) => lease,
                Err(NoConnection::Full) => return Outcome::Busy,
                Err(NoConnection::Failed(error)) => {
                    tracing::debug!(endpoint = &*pool.label, %error, "a copy found no connection");
                    return Outcome::Failed;
                }
            };
            request.headers_mut().insert(header::HOST, host.clone().unwrap_or_else(|| pool.authority.clone()));
            let started = Instant::now();
            match lease.send(request).await {
                Ok(response) => {
                    upstream.metrics.seconds.observe(started.elapsed().as_secs_f64());
                    return drop_answer(lease, response).await;
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if lease.reused => request = unsent,
                    Some(_) | None => {
                        tracing::debug!(endpoint = &*pool.label, error = %error.into_error(), "a copy broke off");
                        return Outcome::Failed;
                    }
                },
            }
        }
        Outcome::Failed
    }
}

/// Reads an answer to its end, so that its connection can be used again, if that is not far.
async fn drop_answer(lease: pool::Lease, response: Response<Incoming>) -> Outcome {
    let outcome = if response.status().is_server_error() { Outcome::ServerError } else { Outcome::Answered };
    let endless = headers::has_events(response.headers());
    let mut body = response.into_body();
    let mut read = 0;
    while !endless && body.size_hint().lower() <= MOST_READ as u64 {
        match body.frame().await {
            None => {
                lease.release();
                break;
            }
            Some(Err(_)) => return Outcome::Failed,
            Some(Ok(frame)) => {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > MOST_READ {
                    break;
                }
            }
        }
    }
    outcome
}
