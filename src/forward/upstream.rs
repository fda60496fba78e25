//! One upstream, as one worker reaches it: which endpoint takes a request, and when it may be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::body::{Body, BodyFault, Progress};
use crate::config;
use crate::telemetry::UpstreamMetrics;

use super::error::ForwardError;
use super::pool::{EndpointPool, Lease, NoConnection};
use super::{Onward, headers, http2};

/// How often a request is sent again that an HTTP/2 peer did not look at.
const MOST_RESENT: usize = 2;

/// The connections of one worker to the endpoints of one upstream.
pub(super) struct UpstreamPools {
    pub(super) config: Arc<config::Upstream>,
    pub(super) endpoints: Vec<Arc<EndpointPool>>,
    pub(super) turn: AtomicUsize,
    pub(super) metrics: UpstreamMetrics,
}

impl UpstreamPools {
    /// Tries connections until one takes the request. A request is sent again only while nothing of it has left, or when the peer
    /// says that it has not looked at it.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        onward: &Onward<'_>,
        progress: Option<Arc<Progress>>,
        websocket: bool,
    ) -> Result<(Lease, Response<Incoming>), ForwardError> {
        let deadline = onward.route.first_byte_timeout.unwrap_or(self.config.first_byte_timeout);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (mut tried, mut resent, mut refused) = (0, 0, None);
        loop {
            let pool = &self.endpoints[(turn + tried) % self.endpoints.len()];
            let mut lease = match pool.lease(websocket, refused.as_deref()).await {
                Ok(lease) => lease,
                Err(reason) => {
                    tried += 1;
                    let error = self.unconnected(pool, reason);
                    if tried < self.endpoints.len() {
                        continue;
                    }
                    return Err(error);
                }
            };
            headers::set_host(request.headers_mut(), onward, self.config.host, &pool.authority);
            let copy = lease.shared().and_then(|_| http2::copy_of(&request));
            let started = Instant::now();
            match within(deadline, progress.as_deref(), lease.send(request)).await {
                Some(Ok(response)) => {
                    self.metrics.seconds.observe(started.elapsed().as_secs_f64());
                    return Ok((lease, response));
                }
                Some(Err(mut error)) => {
                    let may_resend = resent < MOST_RESENT && lease.shared().is_some();
                    request = match (error.take_message(), error.into_error(), copy) {
                        (Some(unsent), ..) if lease.reused || may_resend => unsent,
                        (None, error, Some(copy)) if may_resend && http2::is_unprocessed(&error) => copy,
                        (_, error, _) => return Err(self.broken(pool, progress.as_deref(), error)),
                    };
                    resent += 1;
                    refused = lease.shared().cloned();
                }
                None => {
                    lease.retire();
                    self.metrics.timeouts.inc();
                    return Err(ForwardError::Slow { endpoint: pool.label.clone(), after: deadline });
                }
            }
        }
    }

    pub(super) fn late(&self, after: Duration) -> ForwardError {
        self.metrics.timeouts.inc();
        ForwardError::Slow { endpoint: self.config.name.clone(), after }
    }

    fn unconnected(&self, pool: &EndpointPool, reason: NoConnection) -> ForwardError {
        let endpoint = pool.label.clone();
        match reason {
            NoConnection::Failed(source) => {
                self.metrics.connect_failures.inc();
                ForwardError::Connect { endpoint, source }
            }
            NoConnection::Full => ForwardError::Full(endpoint),
        }
    }

    /// Tells whose fault it was: the client's, whose body broke off, or the upstream's.
    fn broken(&self, pool: &EndpointPool, progress: Option<&Progress>, source: hyper::Error) -> ForwardError {
        match progress.and_then(Progress::fault) {
            Some(BodyFault::TooLarge) => ForwardError::TooLarge,
            Some(BodyFault::Stalled) => ForwardError::Stalled,
            Some(BodyFault::Broken) => ForwardError::ClientGone,
            None => {
                self.metrics.broken.inc();
                ForwardError::Broken { endpoint: pool.label.clone(), source }
            }
        }
    }
}

/// Waits for the head of a response. While the request's body is still moving, the deadline moves with it; while the client lets
/// us wait for its body, nothing can be expected of the upstream, and the body has a deadline of its own.
async fn within<F: Future>(deadline: Duration, progress: Option<&Progress>, sent: F) -> Option<F::Output> {
    let mut sent = std::pin::pin!(sent);
    let mut wait = deadline;
    loop {
        match tokio::time::timeout(wait, sent.as_mut()).await {
            Ok(output) => return Some(output),
            Err(_) => wait = deadline.checked_sub(progress?.hesitation()).filter(|left| !left.is_zero())?,
        }
    }
}
