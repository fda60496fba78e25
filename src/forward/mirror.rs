//! Copies of a share of a route's requests for another upstream, whose answers are discarded. No request of a client waits for a copy,
//! fails because of it or can see it: a copy is a task of its own, with bounded number and body, and is sent once the request is
//! complete. Its outcome does not count for the health of the endpoint: a service on trial may fail.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, oneshot};

use crate::body::{Body, BodyCopy, ServiceBody};
use crate::config;
use crate::shutdown::{Counted, Shutdown};
use crate::telemetry::{Metrics, MirrorMetrics};

use super::acquire::Wanted;
use super::context::ForwardContext;
use super::endpoint_pool::{NoConnection, PooledConnection};
use super::replayable_head::ReplayableHead;
use super::upstream_pools::{MAX_STALE, UpstreamPools};
use super::upstreams::Upstreams;
use super::{affinity, headers};

/// Marks a copy for its receiver: the answer is discarded. Clients can't send it.
const MARK: HeaderName = HeaderName::from_static("x-callgate-mirrored");
/// Bytes of an answer that are read so that the connection can be used again.
const MAX_READ: usize = 256 << 10;

/// One worker's copies of the requests of one route.
pub(super) struct RequestMirror {
    upstream: Arc<UpstreamPools>,
    settings: config::Mirror,
    /// Shared by all workers.
    permits: Arc<Semaphore>,
    metrics: MirrorMetrics<{ CopyOutcome::NAMES.len() }>,
    shutdown: Shutdown,
}

enum CopyOutcome {
    /// The status was below 500.
    Answered,
    ServerError,
    /// There was no connection, or it broke.
    Failed,
    /// There was no complete answer in time.
    Timeout,
    /// There were as many copies as allowed, or as many requests as the upstream takes.
    Busy,
    /// The body is longer than `max_body`.
    TooLarge,
    /// The request itself was not complete, or was not sent.
    Unfinished,
}

impl CopyOutcome {
    /// The names in metrics, in the order of the variants.
    const NAMES: [&str; 7] = ["answered", "server_error", "failed", "timeout", "busy", "too_large", "unfinished"];
}

impl RequestMirror {
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
        let metrics = metrics.mirrored(&route.name, &upstream.config.name, CopyOutcome::NAMES);
        let permits = shared.copy_permits(&route.name)?.clone();
        Some(Self { permits, upstream, settings, metrics, shutdown: shutdown.clone() })
    }

    /// Copies a request on its way to its own upstream, if it is in the sampled share. With a body the copy is sent when that is
    /// complete; without one the caller sends it, together with the request.
    pub(super) fn copy(
        self: &Arc<Self>,
        request: &mut Request<Body>,
        context: &ForwardContext<'_>,
    ) -> Option<oneshot::Sender<BodyCopy>> {
        if fastrand::u32(..config::FULL_SHARE) >= self.settings.share {
            return None;
        }
        if request.body().size_hint().lower() > self.settings.max_body as u64 {
            self.count(CopyOutcome::TooLarge);
            return None;
        }
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            self.count(CopyOutcome::Busy);
            return None;
        };
        let upstream = &self.upstream.config;
        let host = headers::preserved_host(request.headers(), context, upstream.host);
        let key = affinity::key_of(&upstream.balancing.balance, request.headers(), context);
        let copy = *ReplayableHead::of(request).into_request();
        let (send, body) = match request.body_mut().copy(self.settings.max_body) {
            Some(body) => (None, body),
            None => {
                let (send, body) = oneshot::channel();
                (Some(send), body)
            }
        };
        let mirror = self.clone();
        let counted = self.shutdown.count(Counted::Request);
        self.shutdown.tasks().spawn(async move {
            let (_permit, _counted) = (permit, counted);
            tokio::select! {
                outcome = mirror.deliver(copy, host, key, body) => mirror.count(outcome),
                () = mirror.shutdown.requests_cut() => {}
            }
        });
        send
    }

    fn count(&self, outcome: CopyOutcome) {
        self.metrics.copies[outcome as usize].inc();
    }

    /// Waits until the request is complete, and sends its copy. `host`: where it is not the endpoint's own; `key`: the hash that
    /// chooses the endpoint, if the upstream is balanced so.
    async fn deliver(
        &self,
        mut copy: Request<Body>,
        host: Option<HeaderValue>,
        key: Option<u64>,
        body: oneshot::Receiver<BodyCopy>,
    ) -> CopyOutcome {
        match body.await {
            Ok(BodyCopy::Whole(bytes)) if bytes.is_empty() => {}
            Ok(BodyCopy::Whole(bytes)) => *copy.body_mut() = Body::Full(bytes),
            Ok(BodyCopy::TooLong) => return CopyOutcome::TooLarge,
            Err(_) => return CopyOutcome::Unfinished,
        }
        copy.headers_mut().insert(MARK, HeaderValue::from_static("true"));
        // Trailers are not copied.
        copy.headers_mut().remove(header::TRAILER);
        let sent = tokio::time::timeout(self.settings.timeout, self.send(copy, host, key));
        sent.await.unwrap_or(CopyOutcome::Timeout)
    }

    /// Sends a copy to one endpoint, once: only a reused connection that turns out to be closed is replaced.
    async fn send(&self, mut request: Request<Body>, host: Option<HeaderValue>, key: Option<u64>) -> CopyOutcome {
        let upstream = &*self.upstream;
        // Requests that wait for a permit or a connection come first.
        let Some(_spare) = upstream.state.permits.try_acquire().filter(|_| upstream.queues.of(false).is_empty()) else {
            return CopyOutcome::Busy;
        };
        let Some(index) = upstream.choose(key, &[]) else { return CopyOutcome::Failed };
        let _in_flight = upstream.loads[index].begin();
        let pool = &upstream.endpoints[index];
        for _ in 0..MAX_STALE {
            let mut connection = match pool.connection(Wanted::default()).await {
                Ok(connection) => connection,
                Err(NoConnection::Full) => return CopyOutcome::Busy,
                Err(NoConnection::Failed(error)) => {
                    tracing::debug!(endpoint = &*pool.label, %error, "no connection for a mirrored copy");
                    return CopyOutcome::Failed;
                }
            };
            request.headers_mut().insert(header::HOST, host.clone().unwrap_or_else(|| pool.authority.clone()));
            let started = Instant::now();
            match connection.send(request).await {
                Ok(response) => {
                    upstream.metrics.seconds.observe(started.elapsed());
                    return discard(connection, response).await;
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if connection.reused => {
                        request = unsent;
                        // What has closed one connection may have closed others.
                        pool.sweep();
                    }
                    Some(_) | None => {
                        tracing::debug!(endpoint = &*pool.label, error = %error.into_error(), "a mirrored copy broke off");
                        return CopyOutcome::Failed;
                    }
                },
            }
        }
        CopyOutcome::Failed
    }
}

/// Reads an answer to its end if that is near, so that its connection can be used again.
async fn discard(connection: PooledConnection, response: Response<ServiceBody>) -> CopyOutcome {
    let is_failure = response.status().is_server_error();
    let outcome = if is_failure { CopyOutcome::ServerError } else { CopyOutcome::Answered };
    let is_endless = headers::has_events(response.headers());
    let mut body = response.into_body();
    let mut read = 0;
    while !is_endless && read <= MAX_READ && body.size_hint().lower() <= MAX_READ as u64 {
        match body.frame().await {
            None => {
                connection.release();
                break;
            }
            Some(Err(_)) => return CopyOutcome::Failed,
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
        }
    }
    outcome
}
