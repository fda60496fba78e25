//! One request and its answer, from the first to the last byte: what is counted and logged when it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use ipnet::IpNet;
use prometheus::{Histogram, IntCounter};
use smallvec::SmallVec;

use crate::auth::{self, OpenCall, OpenCalls, Principal, Refusal};
use crate::body::{BodyError, BodyObserver};
use crate::config::{self, Config, Cors, RouteLimits};
use crate::forward::{CutReason, EndedBy, Lease, Tunnel, client_address};
use crate::limits::{CallLease, Charge, Decision, Source};
use crate::listener::{Attention, Peer};
use crate::response::Rejection;
use crate::route::Found;
use crate::shutdown::Shutdown;
use crate::telemetry::{AccessLog, AccessRecord, Metrics, Phase, RouteMetrics, WindowUse, request_id};

/// A client on HTTP/2 has to take so many bytes of an answer within `body_idle_timeout`.
const HTTP2_PIECE: usize = 32 * 1024;
/// nginx's status for a client that went away before its answer; it stands in the log and the metrics only.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// An answer of which so much was sent is watched over like one that waits for its upstream: it may be long.
const LONG_ANSWER: u64 = 64 * 1024;

/// The metric cells and the log of all requests, resolved when the configuration is loaded.
pub struct RequestMetrics {
    log: AccessLog,
    open_calls: Arc<OpenCalls>,
    settings: Vec<Arc<config::Route>>,
    routes: Vec<Arc<RouteMetrics>>,
    no_route: Arc<RouteMetrics>,
    auth: Vec<(&'static str, IntCounter)>,
    decisions: [[IntCounter; 3]; 2],
    decision_seconds: Histogram,
    shadow_denials: IntCounter,
    calls_ended: [IntCounter; ENDERS.len()],
}

/// Who can have ended a call, in the order of [`EndedBy`].
const ENDERS: [EndedBy; 3] = [EndedBy::Client, EndedBy::Upstream, EndedBy::Gateway];

impl RequestMetrics {
    /// Resolves every cell.
    #[must_use]
    pub fn new(metrics: &Metrics, routes: &[Arc<config::Route>], log: AccessLog, open_calls: Arc<OpenCalls>) -> Self {
        let decisions = |outcome| Source::ALL.map(|source| metrics.decisions(outcome, source.as_str()));
        Self {
            log,
            open_calls,
            settings: routes.to_vec(),
            calls_ended: ENDERS.map(|by| metrics.calls_ended(by.as_str())),
            routes: routes.iter().map(|route| metrics.route(&route.name)).collect(),
            no_route: metrics.route("none"),
            auth: auth::OUTCOMES.iter().map(|outcome| (*outcome, metrics.auth(outcome))).collect(),
            decisions: [decisions("denied"), decisions("admitted")],
            decision_seconds: metrics.decision_seconds.clone(),
            shadow_denials: metrics.shadow_denials.clone(),
        }
    }

    /// Counts an authentication by its outcome.
    pub(super) fn authenticated(&self, refusal: Option<Refusal>) {
        let outcome = refusal.map_or(auth::OUTCOMES[0], Refusal::outcome);
        if let Some((_, cell)) = self.auth.iter().find(|(name, _)| *name == outcome) {
            cell.inc();
        }
    }
}

/// One request on its way. Dropped, it is over: whatever happened, it is counted and logged once.
pub struct Exchange {
    pub(super) record: AccessRecord,
    pub(super) decision: Option<(Decision, Arc<Principal>)>,
    /// Held for as long as the call lasts that this may become.
    pub(super) call_lease: Option<CallLease>,
    /// When the principal was looked up, in announcements of changed tokens.
    era: u64,
    /// What ends this answer when its token no longer entitles to it.
    open: Option<OpenCall>,
    cells: Arc<RequestMetrics>,
    route: Option<usize>,
    lease: Option<Lease>,
    answered: bool,
    over: bool,
    /// Its answer is not over at once.
    lasts: bool,
    is_call: bool,
    attention: Attention,
}

impl Exchange {
    pub(super) fn begin<B>(
        cells: &Arc<RequestMetrics>,
        request: &Request<B>,
        peer: &Arc<Peer>,
        trusted: &[IpNet],
    ) -> Self {
        let received = SystemTime::now();
        // Of what stands in for a refused request nothing is the client's. A hyphen is a token, and so a method.
        let (method, uri) = match peer.is_stand_in(request) {
            true => (Method::from_bytes(b"-").unwrap_or_default(), Uri::from_static("-")),
            false => (request.method().clone(), request.uri().clone()),
        };
        let record = AccessRecord {
            started: Instant::now(),
            received,
            client: client_of(request, peer.address, trusted),
            method,
            uri,
            version: request.version(),
            request_id: request_id(request, received),
            route: None,
            token: None,
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
            rejection: None,
            error: None,
            upstream: None,
            endpoint: None,
            attempts: 0,
            decided_by: None,
            windows: SmallVec::new(),
            shadow_denied: false,
            phases: [None; 3],
            bytes_out: 0,
            bytes_in: 0,
            messages: None,
            cut: false,
            ended_by: None,
        };
        Self {
            record,
            decision: None,
            call_lease: None,
            era: cells.open_calls.era(),
            open: None,
            cells: cells.clone(),
            route: None,
            lease: None,
            answered: false,
            over: false,
            lasts: false,
            is_call: false,
            attention: peer.attend(),
        }
    }

    /// When the request came, in Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970; 64 bits of milliseconds outlast it.
        self.record.received.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    pub(super) fn route(&mut self, route: &config::Route, found: Found<'_>) {
        self.record.route = Some(route.name.clone());
        if let Found::Route(index) = found {
            self.route = Some(index);
        }
    }

    /// Which pages may read its answer, if its route says so.
    pub(super) fn cors<'c>(&self, config: &'c Config) -> Option<&'c Cors> {
        config.routes.get(self.route?)?.cors.as_ref()
    }

    /// Limits that its route has of its own.
    pub(super) fn route_limits<'c>(&self, config: &'c Config) -> Option<&'c RouteLimits> {
        config.routes.get(self.route?)?.limits.as_ref()
    }

    pub(super) fn principal(&mut self, principal: &Principal) {
        self.record.token = Some((principal.id.clone(), principal.name.clone()));
    }

    /// Takes note of a decision on a request that is charged so; a refusal ends the request's way, unless its plan is on trial.
    pub(super) fn decided(
        &mut self,
        decision: Decision,
        charge: Charge<'_>,
        principal: Arc<Principal>,
    ) -> Result<Arc<Principal>, Rejection> {
        self.cells.decisions[usize::from(decision.admitted)][decision.source as usize].inc();
        let took = self.record.phases[Phase::Decision as usize].unwrap_or(Duration::ZERO);
        self.cells.decision_seconds.observe(took.as_secs_f64());
        self.record.decided_by = Some(decision.source.as_str());
        let windows = principal.plan.limits_with(charge.limits).zip(decision.windows());
        self.record.windows = windows
            .map(|(limit, window)| WindowUse { name: limit.name.clone(), used: window.used, limit: window.limit })
            .collect();
        let too_many_calls = decision.too_many_calls;
        let refused = if decision.admitted { None } else { decision.reported() };
        let is_refused = !decision.admitted;
        self.decision = Some((decision, principal.clone()));
        if is_refused && principal.plan.shadow {
            self.forwarded_on_trial();
            return Ok(principal);
        }
        if let Some(most) = too_many_calls {
            return Err(Rejection::TooManyCalls(most));
        }
        let named = |index| principal.plan.limits_with(charge.limits).nth(index);
        let Some((refused, limit)) = refused.and_then(|refused| Some((refused, named(refused.index)?))) else {
            return Ok(principal);
        };
        Err(Rejection::RateLimited {
            limit: limit.name.clone(),
            count: limit.count,
            cost: charge.cost,
            window_s: limit.window_ms.get().div_ceil(1000),
            retry_after_s: refused.retry_after_s,
        })
    }

    /// Its plan, which is on trial, would have denied it.
    pub(super) fn forwarded_on_trial(&mut self) {
        self.record.shadow_denied = true;
        self.cells.shadow_denials.inc();
    }

    pub(super) fn answered_here(&mut self) {
        self.answered = true;
    }

    pub(super) fn answered(&mut self, endpoint: Arc<str>, lease: Lease) {
        self.answered = true;
        self.record.endpoint = Some(endpoint);
        self.lease = Some(lease);
    }

    pub(super) fn rejected(&mut self, rejection: &Rejection) {
        self.answered = true;
        self.record.rejection = Some(rejection.code());
        // To a gRPC client the answer says 200.
        self.record.status = rejection.status();
        if let Rejection::Forward(error) = rejection {
            self.record.error = Some(chain(error).into());
        }
    }

    /// Goes on as a call until its tunnel ends, the instance, or what entitles to it.
    pub(super) async fn call(mut self: Box<Self>, tunnel: Box<Tunnel>, shutdown: &Shutdown) {
        self.is_call = true;
        detach(&mut self.record);
        let places = self.lease.take().map(Lease::into_call);
        let gauge = self.metrics().calls.open.clone();
        gauge.inc();
        let mut open = self.watched_over();
        let revoked = async {
            match &mut open {
                Some(open) => open.revoked().await,
                None => std::future::pending().await,
            }
        };
        let told = async {
            tokio::select! {
                () = shutdown.ended() => CutReason::Ended,
                why = revoked => CutReason::Revoked(why.as_str()),
            }
        };
        let end = tunnel.run(told).await;
        gauge.dec();
        self.cells.calls_ended[end.by as usize].inc();
        self.record.ended_by = Some(end.by.as_str());
        self.record.bytes_in = end.from_client.bytes;
        self.record.bytes_out = end.from_upstream.bytes;
        let messages = [end.from_client.messages, end.from_upstream.messages];
        self.record.messages = Some(messages);
        let bytes = [self.record.bytes_in, self.record.bytes_out];
        self.metrics().calls.ended(self.record.started.elapsed(), bytes, messages);
        self.record.error = end.cut.as_ref().map(|cut| chain(cut).into());
        drop(places);
        self.over = true;
    }

    /// Has this exchange ended when its token no longer entitles to it; `None` on a public route.
    fn watched_over(&self) -> Option<OpenCall> {
        let (_, principal) = self.decision.as_ref()?;
        let route = &self.cells.settings[self.route?];
        Some(self.cells.open_calls.open(principal, route, self.era))
    }

    fn metrics(&self) -> &RouteMetrics {
        self.route.map_or(&self.cells.no_route, |index| &self.cells.routes[index])
    }
}

/// Copies what is the client's own. As it came it is a part of the buffer that the whole head was read into, and keeps all of that: no
/// matter for a moment, but for a call.
fn detach(record: &mut AccessRecord) {
    // Only the path is logged.
    if let Ok(path) = Uri::try_from(record.uri.path()) {
        record.uri = path;
    }
    if let Ok(id) = HeaderValue::from_bytes(record.request_id.as_bytes()) {
        record.request_id = id;
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl BodyObserver for Option<Exchange> {
    fn sent(&mut self, bytes: usize) {
        if let Some(exchange) = self {
            exchange.record.bytes_out += bytes as u64;
        }
    }

    fn longest_piece(&self) -> usize {
        match self {
            Some(exchange) if exchange.record.version == Version::HTTP_2 => HTTP2_PIECE,
            Some(_) | None => usize::MAX,
        }
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>, waiting: bool) -> Poll<&'static str> {
        let Some(exchange) = self else { return Poll::Pending };
        // Most answers are over before there is anything to watch over.
        if !exchange.lasts && (waiting || exchange.record.bytes_out >= LONG_ANSWER) {
            exchange.lasts = true;
            exchange.open = exchange.watched_over();
            detach(&mut exchange.record);
        }
        let Some(open) = &mut exchange.open else { return Poll::Pending };
        open.poll_revoked(cx).map(|why| why.as_str())
    }

    fn ended(&mut self, result: Result<(), &BodyError>) {
        let Some(exchange) = self else { return };
        exchange.over = true;
        match result {
            Ok(()) => {
                if let Some(lease) = exchange.lease.take() {
                    lease.release();
                }
            }
            Err(error) => {
                exchange.record.cut = true;
                if let Some(lease) = exchange.lease.take() {
                    lease.broke_off(error);
                }
                if matches!(error, BodyError::Revoked(_)) {
                    exchange.record.ended_by = Some(EndedBy::Gateway.as_str());
                }
                exchange.record.error = Some(chain(error).into());
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Before the answer the status is still 499; after it, the client did not wait for the end.
        self.record.cut |= self.answered && !self.over;
        self.attention.over(!self.over, self.record.started.elapsed());
        let metrics = self.metrics();
        metrics.count(&self.record.method, self.record.status);
        if !self.is_call {
            metrics.seconds.observe(self.record.started.elapsed().as_secs_f64());
        }
        self.cells.log.write(&self.record);
    }
}

fn client_of<B>(request: &Request<B>, socket: SocketAddr, trusted: &[IpNet]) -> std::net::IpAddr {
    if trusted.is_empty() { socket.ip().to_canonical() } else { client_address(request.headers(), socket, trusted) }
}
