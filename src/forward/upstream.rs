//! One upstream, as one worker reaches it: which endpoint takes a request, and when it may be sent again.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use smallvec::SmallVec;

use crate::body::{Body, BodyFault, Progress};
use crate::config::{self, Protocol, RetryOn};
use crate::telemetry::UpstreamMetrics;

use super::balance::{InFlight, NoPlace, RoundRobin, UpstreamState};
use super::error::ForwardError;
use super::http2::Shared;
use super::kept::Kept;
use super::lease::{Lease, gateway_error};
use super::line::WaitQueues;
use super::mirror::Copy;
use super::pool::{self, EndpointPool, NoConnection};
use super::{ForwardContext, headers, http2, interim};

/// Connections that turn out to have been closed while they waited, one after the other, for one request.
pub(super) const MAX_STALE: usize = 8;
/// How often a request may be passed by another one when it was its turn to have a connection.
const MAX_WAKEUPS: usize = 8;

/// The connections of one worker to the endpoints of one upstream.
pub(super) struct UpstreamPools {
    pub(super) config: Arc<config::Upstream>,
    pub(super) endpoints: Vec<Arc<EndpointPool>>,
    /// What all workers know of them.
    pub(super) roster: Arc<UpstreamState>,
    pub(super) turns: RoundRobin,
    /// Who waits for a connection.
    pub(super) lines: Arc<WaitQueues>,
    pub(super) metrics: UpstreamMetrics,
}

/// What all attempts at one request have in common.
pub(super) struct RequestContext<'a> {
    pub(super) onward: &'a ForwardContext<'a>,
    pub(super) progress: Option<Arc<Progress>>,
    pub(super) websocket: bool,
    /// What chooses the endpoint, if it is that.
    pub(super) key: Option<u64>,
    /// A copy that goes out when the request does.
    pub(super) copy: Option<Copy>,
}

impl RequestContext<'_> {
    /// Has the interim answers to this request passed on to a client that can be sent any.
    pub(super) fn pass_interim_answers_on(&self, request: &mut Request<Body>, protocol: Protocol) {
        if let Some(interim) = self.onward.interim.as_ref().filter(|_| protocol != Protocol::Http2) {
            interim::pass_on(request, interim, self.onward.route);
        }
    }
}

/// How far the attempts at one request have come.
#[derive(Default)]
struct RetryState {
    /// Endpoints that are not to be asked again.
    tried: SmallVec<[usize; 4]>,
    /// Attempts that count.
    attempts: u32,
    stale: usize,
    /// How often there was no connection to be had.
    full: usize,
    /// Since when it waits for a place or a connection, if it had to.
    waits_since: Option<Instant>,
    /// A connection that has just refused the request.
    avoid: Option<Arc<Shared>>,
}

type Answered = (pool::Lease, InFlight, Response<Incoming>);

/// An attempt after which there may be another.
struct FailedAttempt {
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
        self: &Arc<Self>,
        mut request: Request<Body>,
        mut errand: RequestContext<'_>,
    ) -> Result<(Lease, Response<Incoming>), ForwardError> {
        let place = self.roster.admit().await.map_err(|why| self.overloaded("requests", why))?;
        if let Some(copy) = errand.copy.take() {
            copy.go();
        }
        let mut course = RetryState { attempts: 1, waits_since: place.since, ..RetryState::default() };
        let mut index = if self.lines.of(self.needs_own_connection(&errand)).is_empty() {
            // There is at least one endpoint, and none was tried.
            self.roster.choose(&self.turns, errand.key, &[], self.roster.now()).unwrap_or_default()
        } else {
            self.wait_for_connection(&errand, &mut course).await?
        };
        let told = loop {
            let vain = match self.attempt(index, request, &errand, &course).await {
                Ok(answered) => break Ok(answered),
                Err(vain) => *vain,
            };
            let Some(again) = vain.request else { break vain.told };
            let next = match vain.why {
                Why::Full => self.wait_for_connection(&errand, &mut course).await?,
                why => {
                    let next = self.next(index, &why, vain.waited, &mut course, errand.key);
                    let Some(next) = next else { break vain.told };
                    self.tell(index, &vain.told, &errand);
                    next
                }
            };
            if let Ok((connection, _, response)) = vain.told
                && response.body().is_end_stream()
            {
                connection.release();
            }
            (index, request, course.avoid) = (next, again, vain.shared);
            if request.extensions().is_empty() {
                // What was kept of it does not know what is to become of interim answers.
                errand.pass_interim_answers_on(&mut request, self.config.protocol);
            }
        };
        let (connection, in_flight, response) = told?;
        let answered = (connection, in_flight, response.status());
        Ok((Lease::new(answered, place, self.clone(), index, errand.progress), response))
    }

    /// Whether its connection is not one of those that others share: it waits in a line of its own.
    fn needs_own_connection(&self, errand: &RequestContext<'_>) -> bool {
        errand.websocket && self.config.protocol == Protocol::Auto
    }

    /// Whom to ask while connections are short: who has room for one request more, at once if nobody waits for that.
    fn wait_for_connection<'a>(
        &'a self,
        errand: &'a RequestContext<'_>,
        course: &'a mut RetryState,
    ) -> Pin<Box<dyn Future<Output = Result<usize, ForwardError>> + Send + 'a>> {
        // Boxed, as few requests come here.
        Box::pin(async move {
            let avoid = course.avoid.as_deref();
            let has_room = |index: usize| self.endpoints[index].has_room(errand.websocket, avoid);
            let look =
                || self.roster.choose_with_room(&self.turns, errand.key, &course.tried, self.roster.now(), has_room);
            let line = self.lines.of(self.needs_own_connection(errand));
            course.full += 1;
            if course.full == 1
                && line.is_empty()
                && let Some(index) = look()
            {
                return Ok(index);
            }
            let since = *course.waits_since.get_or_insert_with(Instant::now);
            if course.full > MAX_WAKEUPS {
                return Err(self.overloaded("connections", NoPlace::Waited(since.elapsed())));
            }
            self.roster.wait(since, line.wait(look)).await.map_err(|why| self.overloaded("connections", why))
        })
    }

    /// For those who look for the reason of a retry.
    fn tell(&self, index: usize, told: &Result<Answered, ForwardError>, errand: &RequestContext<'_>) {
        let (upstream, endpoint) = (&*self.config.name, &*self.endpoints[index].label);
        let request_id = errand.onward.request_id.to_str().unwrap_or_default();
        match told {
            Ok((_, _, response)) => {
                let status = response.status().as_u16();
                tracing::debug!(upstream, endpoint, request_id, status, "an attempt failed: another one follows");
            }
            Err(error) => {
                let error = error as &dyn std::error::Error;
                tracing::debug!(upstream, endpoint, request_id, error, "an attempt failed: another one follows");
            }
        }
    }

    /// Who is to be asked next, if anybody: another endpoint, or the same one when it was its connection that failed.
    fn next(&self, index: usize, why: &Why, waited: bool, course: &mut RetryState, key: Option<u64>) -> Option<usize> {
        let same_again = match why {
            Why::Stale => {
                course.stale += 1;
                return (course.stale <= MAX_STALE).then_some(index);
            }
            // There is no connection to be had; who is asked then is found elsewhere.
            Why::Full => return None,
            Why::Failed(RetryOn::Connect | RetryOn::Unavailable) => false,
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
        errand: &RequestContext<'_>,
        course: &RetryState,
    ) -> Result<Answered, Box<FailedAttempt>> {
        let pool = &self.endpoints[index];
        let in_flight = self.roster.begin(index);
        errand.onward.attempts.store(course.attempts, Ordering::Relaxed);
        let mut lease = match pool.lease(errand.websocket, course.avoid.as_deref()).await {
            Ok(lease) => lease,
            Err(reason) => {
                if matches!(reason, NoConnection::Full) {
                    // It was none: nobody was asked.
                    errand.onward.attempts.store(course.attempts - 1, Ordering::Relaxed);
                }
                return Err(Box::new(self.unconnected(index, reason, request)));
            }
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
            return Err(Box::new(FailedAttempt::last(told, RetryOn::Broken)));
        };
        let mut error = match sent {
            Ok(response) => {
                self.metrics.seconds.observe(started.elapsed().as_secs_f64());
                if let Some(why) = gateway_error(response.status()) {
                    self.roster.failed(index, why);
                }
                let unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE;
                let again = kept.filter(|_| unavailable && repeatable && self.roster.retries_on(RetryOn::Unavailable));
                let answered = (lease, in_flight, response);
                if again.is_none() {
                    return Ok(answered);
                }
                return Err(Box::new(FailedAttempt {
                    request: again.map(Kept::request),
                    ..FailedAttempt::last(Ok(answered), RetryOn::Unavailable)
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
            match why {
                Why::Failed(RetryOn::Refused) => self.metrics.refused.inc(),
                Why::Failed(RetryOn::Broken | RetryOn::Connect | RetryOn::Unavailable) | Why::Full | Why::Stale => {
                    self.metrics.broken.inc();
                }
            }
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
        Err(Box::new(FailedAttempt { told: Err(told), request, why, waited, shared }))
    }

    /// What may be sent again after it has left, if the request has no body: on a shared connection, which may be refused by its peer,
    /// anything; else what is idempotent (RFC 9110 §9.2.2).
    fn kept(&self, request: &Request<Body>, is_shared: bool, websocket: bool) -> Option<Kept> {
        let asked_for = || self.roster.retries_on(RetryOn::Broken) || self.roster.retries_on(RetryOn::Unavailable);
        let wanted = is_shared || (!websocket && request.method().is_idempotent() && asked_for());
        if wanted { Kept::whole(request) } else { None }
    }

    /// The time for the whole answer is over before there was anything of it.
    pub(super) fn late(&self, after: Duration, onward: &ForwardContext<'_>) -> ForwardError {
        // Nobody failed where nobody was asked.
        if onward.attempts.load(Ordering::Relaxed) > 0 {
            self.metrics.timeouts.inc();
        }
        ForwardError::Slow { endpoint: self.config.name.clone(), after }
    }

    fn overloaded(&self, what: &'static str, why: NoPlace) -> ForwardError {
        let upstream = self.config.name.clone();
        match why {
            NoPlace::QueueFull => ForwardError::QueueFull { upstream, what },
            NoPlace::Waited(after) => ForwardError::Waited { upstream, what, after },
        }
    }

    fn unconnected(&self, index: usize, reason: NoConnection, request: Request<Body>) -> FailedAttempt {
        let endpoint = self.endpoints[index].label.clone();
        let (told, why) = match reason {
            NoConnection::Failed(source) => {
                self.metrics.connect_failures.inc();
                self.roster.failed(index, "connect");
                (ForwardError::Connect { endpoint, source }, Why::Failed(RetryOn::Connect))
            }
            NoConnection::Full => (self.overloaded("connections", NoPlace::QueueFull), Why::Full),
        };
        FailedAttempt { told: Err(told), request: Some(request), why, waited: false, shared: None }
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

impl FailedAttempt {
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
