//! The attempts at one request: which endpoint gets it, and when another one follows.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use smallvec::SmallVec;

use crate::body::{Body, BodyCopy, Progress, ServiceBody};
use crate::config::{HeaderCase, RetryOn};
use crate::telemetry::AttemptTrace;

use super::acquire::Reserved;
use super::balance::{InFlight, NoPermit};
use super::context::ForwardContext;
use super::endpoint_pool::{EndpointPool, NoConnection, PooledConnection};
use super::error::ForwardError;
use super::first_byte::within;
use super::replayable_head::ReplayableHead;
use super::request_context::RequestContext;
use super::response_guard::{ResponseGuard, gateway_error};
use super::shared_connection::{SharedConnection, is_left_out, is_unprocessed};
use super::upstream_pools::{MAX_STALE, UpstreamPools};
use super::{headers, interim};

/// How often a request may be woken for a connection that another request then gets.
const MAX_WAKEUPS: usize = 8;

/// How far the attempts at one request have come.
#[derive(Default)]
struct RetryState {
    /// Endpoints that are not to be tried again.
    tried: SmallVec<[usize; 4]>,
    /// Attempts that count.
    attempts: u32,
    /// Reused connections that turned out to be closed.
    stale: usize,
    /// How often there was no connection.
    full: usize,
    /// Since when it waits for a permit or a connection, if it had to.
    waiting_since: Option<Instant>,
    /// What it waited for.
    reserved: Option<Box<Reserved>>,
    /// A connection that has just refused the request.
    avoid: Option<Arc<SharedConnection>>,
}

type Answered = (PooledConnection, InFlight, Response<ServiceBody>);

/// An attempt that another one may follow.
struct FailedAttempt {
    /// The outcome if none does.
    outcome: Result<Answered, ForwardError>,
    /// The request, as long as sending it again can't make anything happen twice.
    request: Option<Box<Request<Body>>>,
    kind: FailureKind,
    /// Whether the same endpoint may be tried if there is no other: its connection failed, not itself.
    same_endpoint: bool,
    /// The connection that failed, if other requests share it.
    shared: Option<Arc<SharedConnection>>,
}

#[derive(Clone, Copy)]
enum FailureKind {
    /// No connection may be made; the endpoint has not seen the request.
    Full,
    /// The connection was closed already, or closing; the endpoint has not looked at the request.
    Stale,
    Failed(RetryOn),
}

impl UpstreamPools {
    /// Tries one endpoint after the other until one answers, as long as nothing can happen twice by that and the retry budget lasts.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Box<Request<Body>>,
        mut context: RequestContext<'_>,
    ) -> Result<(ResponseGuard, Response<ServiceBody>), ForwardError> {
        let permit = self.state.admit().await.map_err(|why| self.overloaded("requests", why))?;
        if let Some(copy) = context.copy.take() {
            // At the end of a drain the copy's task is gone.
            let _ = copy.send(BodyCopy::Whole(Bytes::new()));
        }
        let mut retry = RetryState { attempts: 1, waiting_since: permit.waiting_since, ..RetryState::default() };
        let mut index = if self.queues.of(context.is_call).is_empty() {
            // There is at least one endpoint, and none was tried.
            self.choose(context.key, &[]).unwrap_or_default()
        } else {
            self.wait_for_connection(&context, &mut retry).await?
        };
        let mut is_new = true;
        let outcome = loop {
            // A request that is sent again has lost this extension, unless it kept all of them.
            if (std::mem::take(&mut is_new) || request.extensions().is_empty())
                && let Some(interim) = context.interim
            {
                interim::pass_on(&mut request, interim, context.forward.route, context.keeps_limits);
            }
            let trace = context.forward.trace;
            let trace = trace.map(|trace| trace.begin_attempt(request.headers_mut(), &self.endpoints[index].label));
            let attempted = self.attempt(index, request, &context, &mut retry).await;
            if let Some(trace) = trace {
                end_trace(trace, &attempted);
            }
            let failed = match attempted {
                Ok(answered) => break Ok(answered),
                Err(failed) => failed,
            };
            let next = match (failed.request.is_some(), failed.kind) {
                (false, _) => None,
                (true, FailureKind::Full) => Some(self.wait_for_connection(&context, &mut retry).await?),
                (true, FailureKind::Stale | FailureKind::Failed(_)) => {
                    let next = self.next(index, &failed, &mut retry, context.key);
                    next.inspect(|_| self.log_retry(index, &failed.outcome, &context))
                }
            };
            let (Some(next), Some(again)) = (next, failed.request) else { break failed.outcome };
            if let Ok((connection, _, response)) = failed.outcome
                && response.body().is_end_stream()
            {
                connection.release();
            }
            (index, request, retry.avoid) = (next, again, failed.shared);
        };
        let (connection, in_flight, response) = outcome?;
        let answered = (connection, in_flight, response.status());
        Ok((ResponseGuard::new(answered, permit, self.clone(), index, context.progress), response))
    }

    /// Chooses an endpoint that can take one more request, and reserves a connection: at once if no other request waits for that, else
    /// when it is its turn.
    /// Boxed: few requests need this.
    fn wait_for_connection<'a>(
        &'a self,
        context: &'a RequestContext<'_>,
        retry: &'a mut RetryState,
    ) -> Pin<Box<dyn Future<Output = Result<usize, ForwardError>> + Send + 'a>> {
        Box::pin(async move {
            let wanted = context.wanted(retry.avoid.as_deref());
            let has_room = |index: usize| self.endpoints[index].has_room(wanted);
            let look = || {
                let index = self.state.choose_with_room(&self.round_robin, context.key, &retry.tried, has_room)?;
                // Another worker may have been faster.
                Some((index, Box::new(self.endpoints[index].reserve(wanted)?)))
            };
            let queue = self.queues.of(context.is_call);
            retry.full += 1;
            let found = if retry.full == 1 && queue.is_empty() { look() } else { None };
            let (index, reserved) = match found {
                Some(found) => found,
                None => {
                    let since = *retry.waiting_since.get_or_insert_with(Instant::now);
                    let waited = match retry.full {
                        ..=MAX_WAKEUPS => self.state.permits.wait(since, queue.wait(look)).await,
                        _ => Err(NoPermit::Waited(since.elapsed())),
                    };
                    waited.map_err(|why| self.overloaded(self.what_is_full(context), why))?
                }
            };
            retry.reserved = Some(reserved);
            Ok(index)
        })
    }

    /// What there are as many of as allowed.
    fn what_is_full(&self, context: &RequestContext<'_>) -> &'static str {
        let is_full = |pool: &Arc<EndpointPool>| !pool.has_room_for_call();
        if context.is_call && self.endpoints.iter().any(is_full) { "calls" } else { "connections" }
    }

    fn log_retry(&self, index: usize, outcome: &Result<Answered, ForwardError>, context: &RequestContext<'_>) {
        let (upstream, endpoint) = (&*self.config.name, &*self.endpoints[index].label);
        let request_id = context.forward.request_id.to_str().unwrap_or_default();
        let status = outcome.as_ref().ok().map(|(_, _, response)| response.status().as_u16());
        let error = outcome.as_ref().err().map(|error| error as &dyn std::error::Error);
        tracing::debug!(upstream, endpoint, request_id, status, error, "an attempt failed; trying again");
    }

    /// The endpoint to try next, if any: another one, or the same when only its connection failed.
    fn next(&self, index: usize, failed: &FailedAttempt, retry: &mut RetryState, key: Option<u64>) -> Option<usize> {
        let FailureKind::Failed(on) = failed.kind else {
            retry.stale += 1;
            // What has closed one connection may have closed others.
            self.endpoints[index].sweep();
            return (retry.stale <= MAX_STALE).then_some(index);
        };
        retry.tried.push(index);
        let next = self.choose(key, &retry.tried).or(failed.same_endpoint.then_some(index))?;
        if !self.state.may_retry(on, retry.attempts) {
            return None;
        }
        retry.attempts += 1;
        Some(next)
    }

    /// Sends the request to one endpoint.
    async fn attempt(
        &self,
        index: usize,
        mut request: Box<Request<Body>>,
        context: &RequestContext<'_>,
        retry: &mut RetryState,
    ) -> Result<Answered, Box<FailedAttempt>> {
        let pool = &self.endpoints[index];
        let in_flight = self.loads[index].begin();
        context.forward.attempts.store(retry.attempts, Ordering::Relaxed);
        let wanted = context.wanted(retry.avoid.as_deref());
        let connection = match retry.reserved.take() {
            None => pool.connection(wanted).await,
            Some(reserved) => Box::pin(pool.redeem(*reserved, wanted)).await,
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(reason) => return Err(self.not_connected(index, reason, request, context)),
        };
        let host = headers::preserved_host(request.headers(), context.forward, self.config.host);
        request.headers_mut().insert(header::HOST, host.unwrap_or_else(|| pool.authority.clone()));
        let is_idempotent = request.method().is_idempotent();
        // A handshake that was sent may have begun a call, unless the connection had ended before.
        let is_repeatable = is_idempotent && (!context.websocket || connection.reused);
        let head = self.replayable_head(&request, connection.shared().is_some(), is_repeatable);
        let deadline = context.forward.route.first_byte_timeout.unwrap_or(self.config.first_byte_timeout);
        let started = Instant::now();
        let mut timer = connection.timer().map(std::mem::take).unwrap_or_default();
        let sent = {
            let sent = pin!(connection.send(*request));
            within(deadline, &mut timer, context.progress.as_deref(), sent).await
        };
        if let Some(kept) = connection.timer() {
            *kept = timer;
        }
        match sent {
            Some(Ok(response)) => {
                self.metrics.seconds.observe(started.elapsed());
                if let Some(why) = gateway_error(response.status()) {
                    self.state.failed(index, why);
                }
                let is_retried = response.status() == StatusCode::SERVICE_UNAVAILABLE
                    && is_idempotent
                    && !context.websocket
                    && self.state.retries_on(RetryOn::Unavailable);
                let answered = (connection, in_flight, response);
                match head.filter(|_| is_retried) {
                    None => Ok(answered),
                    Some(head) => {
                        let kind = FailureKind::Failed(RetryOn::Unavailable);
                        Err(FailedAttempt::new(Ok(answered), kind, Some(head.into_request())))
                    }
                }
            }
            Some(Err(mut error)) => {
                let (unsent, error) = (error.take_message().map(Box::new), error.into_error());
                let head = head.map(|head| (head, is_idempotent));
                Err(self.broken(index, &connection, unsent, error, head, context, retry.stale == 0))
            }
            None => {
                connection.retire();
                self.metrics.timeouts.inc();
                self.state.failed(index, "timeout");
                let error = ForwardError::Timeout { endpoint: pool.label.clone(), after: deadline };
                Err(FailedAttempt::new(Err(error), FailureKind::Failed(RetryOn::Broken), None))
            }
        }
    }

    /// What may be sent again after it was sent, if the request has no body: on a shared connection, whose peer may refuse it, every
    /// request; else an idempotent one (RFC 9110 §9.2.2).
    fn replayable_head(&self, request: &Request<Body>, is_shared: bool, is_repeatable: bool) -> Option<ReplayableHead> {
        let retries = || self.state.retries_on(RetryOn::Broken) || self.state.retries_on(RetryOn::Unavailable);
        let head = if is_shared || (is_repeatable && retries()) { ReplayableHead::of_bodiless(request) } else { None };
        match self.config.header_case {
            HeaderCase::Preserve => head.map(|head| head.with_extensions(request)),
            HeaderCase::Lower | HeaderCase::Title => head,
        }
    }

    /// There was no connection for the request.
    fn not_connected(
        &self,
        index: usize,
        reason: NoConnection,
        request: Box<Request<Body>>,
        context: &RequestContext<'_>,
    ) -> Box<FailedAttempt> {
        let (error, kind) = match reason {
            NoConnection::Failed(source) => {
                self.metrics.connect_failures.inc();
                self.state.failed(index, "connect");
                let endpoint = self.endpoints[index].label.clone();
                (ForwardError::Connect { endpoint, source }, FailureKind::Failed(RetryOn::Connect))
            }
            NoConnection::Full => {
                // This attempt does not count: no endpoint was tried.
                context.forward.attempts.fetch_sub(1, Ordering::Relaxed);
                (self.overloaded("connections", NoPermit::QueueFull), FailureKind::Full)
            }
        };
        FailedAttempt::new(Err(error), kind, Some(request))
    }

    /// The connection broke before there was an answer. `unsent`: the request, if none of it was sent. `head`: what was kept of it, and
    /// whether it is idempotent. `is_first`: the request met no closed connection yet.
    #[expect(clippy::too_many_arguments, reason = "one place judges all of it")]
    fn broken(
        &self,
        index: usize,
        connection: &PooledConnection,
        unsent: Option<Box<Request<Body>>>,
        source: hyper::Error,
        head: Option<(ReplayableHead, bool)>,
        context: &RequestContext<'_>,
        is_first: bool,
    ) -> Box<FailedAttempt> {
        let shared = connection.shared().cloned();
        let replay = |(head, _): (ReplayableHead, bool)| head.into_request();
        // A shared connection carries other requests meanwhile: it does not break because it was idle.
        let (request, kind, same_endpoint) = match unsent {
            Some(whole) if connection.reused => (Some(whole), FailureKind::Stale, true),
            Some(whole) => (Some(whole), FailureKind::Failed(RetryOn::Refused), true),
            // One GOAWAY may leave out many requests: they cost no retry. A service that does nothing else is not asked for ever.
            None if is_left_out(&source) && (is_first || connection.reused) => {
                (head.map(replay), FailureKind::Stale, true)
            }
            None if is_unprocessed(&source) => (head.map(replay), FailureKind::Failed(RetryOn::Refused), true),
            None => {
                // An endpoint that answered nonsense would do so again.
                let again = head.filter(|(_, is_idempotent)| *is_idempotent && !source.is_parse());
                let was_idle = connection.reused && shared.is_none();
                (again.map(replay), FailureKind::Failed(RetryOn::Broken), was_idle)
            }
        };
        let error = match context.progress.as_deref().and_then(Progress::fault) {
            Some(fault) => ForwardError::Body(fault),
            None => ForwardError::Broken { endpoint: self.endpoints[index].label.clone(), source },
        };
        let is_endpoints_fault = matches!(error, ForwardError::Broken { .. });
        if let FailureKind::Failed(on) = kind
            && is_endpoints_fault
        {
            let is_refused = on == RetryOn::Refused;
            let failures = if is_refused { &self.metrics.refused } else { &self.metrics.broken };
            failures.inc();
            // An orderly refusal on an open connection is no failure.
            if !is_refused || !connection.reused {
                self.state.failed(index, "broken");
            }
        }
        // The client's body broke off: sending it again makes it no better.
        let request = request.filter(|_| is_endpoints_fault);
        Box::new(FailedAttempt { outcome: Err(error), request, kind, same_endpoint, shared })
    }

    /// The time for the whole answer was over before any of it came.
    pub(super) fn timed_out(&self, after: Duration, context: &ForwardContext<'_>) -> ForwardError {
        // While a request waits for a permit, no endpoint is at fault.
        if context.attempts.load(Ordering::Relaxed) > 0 {
            self.metrics.timeouts.inc();
        }
        ForwardError::Timeout { endpoint: self.config.name.clone(), after }
    }

    fn overloaded(&self, what: &'static str, why: NoPermit) -> ForwardError {
        ForwardError::Overloaded { upstream: self.config.name.clone(), what, why }
    }
}

/// An attempt for which there was no room is none.
#[cold]
fn end_trace(trace: AttemptTrace<'_>, attempted: &Result<Answered, Box<FailedAttempt>>) {
    match attempted {
        Ok((_, _, response)) => trace.end(Some(response.status())),
        Err(failed) => match (failed.kind, &failed.outcome) {
            (FailureKind::Full, _) => trace.discard(),
            (_, Ok((_, _, response))) => trace.end(Some(response.status())),
            (_, Err(_)) => trace.end(None),
        },
    }
}

impl FailedAttempt {
    /// `request`: what may be sent again, to another endpoint.
    fn new(
        outcome: Result<Answered, ForwardError>,
        kind: FailureKind,
        request: Option<Box<Request<Body>>>,
    ) -> Box<Self> {
        Box::new(Self { outcome, request, kind, same_endpoint: false, shared: None })
    }
}
