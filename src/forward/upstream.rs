//! One upstream, as one worker reaches it: which endpoint takes a request, and when it may be sent again.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use smallvec::SmallVec;

use crate::body::{Body, BodyFault, Progress};
use crate::config::{self, RetryOn};
use crate::telemetry::UpstreamMetrics;

use super::balance::{InFlight, NoPlace, Place, Roster, Turns};
use super::error::ForwardError;
use super::http2::Shared;
use super::kept::Kept;
use super::mirror::Copy;
use super::open::Open;
use super::pool::{self, EndpointPool, NoConnection};
use super::{Onward, headers, http2};

/// Connections that turn out to have been closed while they waited, one after the other, for one request.
pub(super) const MOST_STALE: usize = 8;

/// The connections of one worker to the endpoints of one upstream.
pub(super) struct UpstreamPools {
    pub(super) config: Arc<config::Upstream>,
    pub(super) endpoints: Vec<Arc<EndpointPool>>,
    /// What all workers know of them.
    pub(super) roster: Arc<Roster>,
    pub(super) turns: Turns,
    pub(super) metrics: UpstreamMetrics,
}

/// A connection in use, and the places that its request takes. Dropped, an HTTP/1.1 connection is closed; released, it waits for
/// its next request.
pub struct Lease {
    connection: pool::Lease,
    _in_flight: InFlight,
    _place: Place,
}

impl Lease {
    /// Who is at the other end.
    pub(super) fn endpoint(&self) -> Arc<str> {
        self.connection.endpoint()
    }

    /// The exchange is over, request and response: the connection may carry the next.
    pub fn release(self) {
        self.connection.release();
    }

    /// The connection has become a call, and can't be used again.
    #[must_use]
    pub fn into_call(self) -> CallPlaces {
        CallPlaces { _open: self.connection.into_open(), _in_flight: self._in_flight, _place: self._place }
    }
}

/// What a call takes of its upstream; dropped, it is free again.
pub struct CallPlaces {
    _open: Option<Open>,
    _in_flight: InFlight,
    _place: Place,
}

/// What all attempts at one request have in common.
pub(super) struct Errand<'a> {
    pub(super) onward: &'a Onward<'a>,
    pub(super) progress: Option<Arc<Progress>>,
    pub(super) websocket: bool,
    /// What chooses the endpoint, if it is that.
    pub(super) key: Option<u64>,
    /// A copy that goes out when the request does.
    pub(super) copy: Option<Copy>,
}

/// How far the attempts at one request have come.
#[derive(Default)]
struct Course {
    /// Endpoints that are not to be asked again.
    tried: SmallVec<[usize; 4]>,
    /// Attempts that count.
    attempts: u32,
    stale: usize,
    /// A connection that has just refused the request.
    avoid: Option<Arc<Shared>>,
}

type Answered = (pool::Lease, InFlight, Response<Incoming>);

/// An attempt after which there may be another.
struct Vain {
    /// What is told if there is none.
    told: Result<Answered, ForwardError>,
    /// The request, as long as sending it again can't make anything happen twice.
    request: Option<Request<Body>>,
    why: Why,
    /// Whether the connection may have been closed because it waited for so long.
    waited: bool,
    shared: Option<Arc<Shared>>,
}

enum Why {
    /// No connection may be made; nobody was asked.
    Full,
    /// The connection had been closed while it waited; nobody has seen the request.
    Stale,
    Failed(RetryOn),
}

impl UpstreamPools {
    /// Asks one endpoint after the other until one answers, as long as nothing can happen twice by that and the retry budget lasts.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        mut errand: Errand<'_>,
    ) -> Result<(Lease, Response<Incoming>), ForwardError> {
        let place = self.roster.admit().await.map_err(|why| self.overloaded(why))?;
        if let Some(copy) = errand.copy.take() {
            copy.go();
        }
        let mut course = Course { attempts: 1, ..Course::default() };
        // There is at least one endpoint, and none was tried.
        let mut index = self.roster.choose(&self.turns, errand.key, &[], self.roster.now()).unwrap_or_default();
        let told = loop {
            let vain = match self.attempt(index, request, &errand, course.avoid.as_deref()).await {
                Ok(answered) => break Ok(answered),
                Err(vain) => *vain,
            };
            let Some(again) = vain.request else { break vain.told };
            let Some(next) = self.next(index, &vain.why, vain.waited, &mut course, errand.key) else { break vain.told };
            if let Ok((connection, _, response)) = vain.told
                && response.body().is_end_stream()
            {
                connection.release();
            }
            (index, request, course.avoid) = (next, again, vain.shared);
        };
        let (connection, in_flight, response) = told?;
        Ok((Lease { connection, _in_flight: in_flight, _place: place }, response))
    }

    /// Who is to be asked next, if anybody: another endpoint, or the same one when it was its connection that failed.
    fn next(&self, index: usize, why: &Why, waited: bool, course: &mut Course, key: Option<u64>) -> Option<usize> {
        let same_again = match why {
            Why::Stale => {
                course.stale += 1;
                return (course.stale <= MOST_STALE).then_some(index);
            }
            Why::Full | Why::Failed(RetryOn::Connect | RetryOn::Unavailable) => false,
            Why::Failed(RetryOn::Refused) => true,
            Why::Failed(RetryOn::Broken) => waited,
        };
        course.tried.push(index);
        let now = self.roster.now();
        let next = self.roster.choose(&self.turns, key, &course.tried, now).or(same_again.then_some(index))?;
        if let Why::Failed(on) = *why {
            if !self.roster.may_retry(on, course.attempts, now) {
                return None;
            }
            course.attempts += 1;
        }
        Some(next)
    }

    /// Asks one endpoint.
    async fn attempt(
        &self,
        index: usize,
        mut request: Request<Body>,
        errand: &Errand<'_>,
        avoid: Option<&Shared>,
    ) -> Result<Answered, Box<Vain>> {
        let pool = &self.endpoints[index];
        let in_flight = self.roster.begin(index);
        let mut lease = match pool.lease(errand.websocket, avoid).await {
            Ok(lease) => lease,
            Err(reason) => return Err(Box::new(self.unconnected(index, reason, request))),
        };
        headers::set_host(request.headers_mut(), errand.onward, self.config.host, &pool.authority);
        let kept = self.kept(&request, lease.shared().is_some(), errand.websocket);
        let repeatable = request.method().is_idempotent();
        let deadline = errand.onward.route.first_byte_timeout.unwrap_or(self.config.first_byte_timeout);
        let started = Instant::now();
        let sent = {
            let sent = pin!(lease.send(request));
            within(deadline, errand.progress.as_deref(), sent).await
        };
        let Some(sent) = sent else {
            lease.retire();
            self.metrics.timeouts.inc();
            self.roster.failed(index, "timeout");
            let told = Err(ForwardError::Slow { endpoint: pool.label.clone(), after: deadline });
            return Err(Box::new(Vain::last(told, RetryOn::Broken)));
        };
        let mut error = match sent {
            Ok(response) => {
                self.metrics.seconds.observe(started.elapsed().as_secs_f64());
                self.note(index, response.status());
                let unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE;
                let again = kept.filter(|_| unavailable && repeatable && self.roster.retries_on(RetryOn::Unavailable));
                let answered = (lease, in_flight, response);
                if again.is_none() {
                    return Ok(answered);
                }
                return Err(Box::new(Vain {
                    request: again.map(Kept::request),
                    ..Vain::last(Ok(answered), RetryOn::Unavailable)
                }));
            }
            Err(error) => error,
        };
        let (unsent, source) = (error.take_message(), error.into_error());
        let (request, why) = match unsent {
            Some(whole) if lease.reused => (Some(whole), Why::Stale),
            Some(whole) => (Some(whole), Why::Failed(RetryOn::Refused)),
            None if http2::is_unprocessed(&source) => (kept.map(Kept::request), Why::Failed(RetryOn::Refused)),
            // Who answered, if only nonsense, would do so again.
            None => {
                let again = kept.filter(|_| repeatable && !source.is_parse());
                (again.map(Kept::request), Why::Failed(RetryOn::Broken))
            }
        };
        let told = self.broken(pool, errand.progress.as_deref(), source);
        let theirs = matches!(told, ForwardError::Broken { .. });
        if theirs && !matches!(why, Why::Stale) {
            self.metrics.broken.inc();
            // An orderly refusal is no failure.
            if matches!(why, Why::Failed(RetryOn::Broken)) || !lease.reused {
                self.roster.failed(index, "broken");
            }
        }
        // A client's body that broke off makes no better request.
        let request = request.filter(|_| theirs);
        let shared = lease.shared().cloned();
        // A connection that others use meanwhile does not break because it has waited.
        let waited = lease.reused && shared.is_none();
        Err(Box::new(Vain { told: Err(told), request, why, waited, shared }))
    }

    /// What may be sent again after it has left, if the request has no body: on a shared connection, which may be refused by its peer,
    /// anything; else what is idempotent (RFC 9110 §9.2.2).
    fn kept(&self, request: &Request<Body>, is_shared: bool, websocket: bool) -> Option<Kept> {
        let asked_for = || self.roster.retries_on(RetryOn::Broken) || self.roster.retries_on(RetryOn::Unavailable);
        let wanted = is_shared || (!websocket && request.method().is_idempotent() && asked_for());
        if wanted { Kept::whole(request) } else { None }
    }

    /// Takes note of an answer. Only what a gateway says for want of a service counts against an endpoint; 429, 401 or 500 don't.
    fn note(&self, index: usize, status: StatusCode) {
        match status {
            StatusCode::BAD_GATEWAY => self.roster.failed(index, "502"),
            StatusCode::SERVICE_UNAVAILABLE => self.roster.failed(index, "503"),
            StatusCode::GATEWAY_TIMEOUT => self.roster.failed(index, "504"),
            _ => self.roster.succeeded(index),
        }
    }

    pub(super) fn late(&self, after: Duration) -> ForwardError {
        self.metrics.timeouts.inc();
        ForwardError::Slow { endpoint: self.config.name.clone(), after }
    }

    fn overloaded(&self, why: NoPlace) -> ForwardError {
        let upstream = self.config.name.clone();
        match why {
            NoPlace::QueueFull => ForwardError::QueueFull(upstream),
            NoPlace::Waited(after) => ForwardError::Waited { upstream, after },
        }
    }

    fn unconnected(&self, index: usize, reason: NoConnection, request: Request<Body>) -> Vain {
        let endpoint = self.endpoints[index].label.clone();
        let (told, why) = match reason {
            NoConnection::Failed(source) => {
                self.metrics.connect_failures.inc();
                self.roster.failed(index, "connect");
                (ForwardError::Connect { endpoint, source }, Why::Failed(RetryOn::Connect))
            }
            NoConnection::Full => (ForwardError::Full(endpoint), Why::Full),
        };
        Vain { told: Err(told), request: Some(request), why, waited: false, shared: None }
    }

    /// Tells whose fault it was: the client's, whose body broke off, or the upstream's.
    fn broken(&self, pool: &EndpointPool, progress: Option<&Progress>, source: hyper::Error) -> ForwardError {
        match progress.and_then(Progress::fault) {
            Some(BodyFault::TooLarge) => ForwardError::TooLarge,
            Some(BodyFault::Stalled) => ForwardError::Stalled,
            Some(BodyFault::Broken) => ForwardError::ClientGone,
            None => ForwardError::Broken { endpoint: pool.label.clone(), source },
        }
    }
}

impl Vain {
    /// One that there is nothing to be done about.
    fn last(told: Result<Answered, ForwardError>, on: RetryOn) -> Self {
        Self { told, request: None, why: Why::Failed(on), waited: false, shared: None }
    }
}

/// Waits for the head of a response. While the request's body is still moving, the deadline moves with it; while the client lets
/// us wait for its body, nothing can be expected of the upstream, and the body has a deadline of its own.
async fn within<F: Future>(
    deadline: Duration,
    progress: Option<&Progress>,
    mut sent: Pin<&mut F>,
) -> Option<F::Output> {
    let mut wait = deadline;
    loop {
        match tokio::time::timeout(wait, sent.as_mut()).await {
            Ok(output) => return Some(output),
            Err(_) => wait = deadline.checked_sub(progress?.hesitation()).filter(|left| !left.is_zero())?,
        }
    }
}
