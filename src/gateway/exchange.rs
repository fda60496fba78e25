//! One request and its answer, from the first to the last byte: what is counted and logged when it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use ipnet::IpNet;
use prometheus::{Histogram, IntCounter};
use smallvec::SmallVec;

use crate::auth::{self, Principal, Refusal};
use crate::body::{BodyError, Observer};
use crate::config::{self, REQUEST_ID};
use crate::forward::{Lease, TunnelEnd, client_address};
use crate::limits::{CallLease, Decision, Source};
use crate::listener::{Attention, Peer};
use crate::response::Rejection;
use crate::route::Found;
use crate::telemetry::{AccessLog, Metrics, Phase, Record, RouteMetrics, WindowUse};

/// The longest request id that is taken over from a client.
const MAX_REQUEST_ID: usize = 128;
/// A client on HTTP/2 has to take so many bytes of an answer within `body_idle_timeout`.
const HTTP2_PIECE: usize = 32 * 1024;
/// nginx's status for a client that went away before its answer; it stands in the log and the metrics only.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The metric cells and the log of all requests, resolved when the configuration is loaded.
pub struct Cells {
    log: AccessLog,
    routes: Vec<Arc<RouteMetrics>>,
    no_route: Arc<RouteMetrics>,
    auth: Vec<(&'static str, IntCounter)>,
    decisions: [[IntCounter; 3]; 2],
    decision_seconds: Histogram,
    shadow_denials: IntCounter,
}

impl Cells {
    /// Resolves every cell.
    #[must_use]
    pub fn new(metrics: &Metrics, routes: &[Arc<config::Route>], log: AccessLog) -> Self {
        let decisions = |outcome| Source::ALL.map(|source| metrics.decisions(outcome, source.as_str()));
        Self {
            log,
            routes: routes.iter().map(|route| metrics.route(&route.name)).collect(),
            no_route: metrics.route("none"),
            auth: auth::OUTCOMES.iter().map(|outcome| (*outcome, metrics.auth(outcome))).collect(),
            decisions: [decisions("denied"), decisions("admitted")],
            decision_seconds: metrics.decision_seconds.clone(),
            shadow_denials: metrics.shadow_denials.clone(),
        }
    }

    /// Counts an authentication by its outcome.
    pub(super) fn authenticated(&self, found: Result<Arc<Principal>, Refusal>) -> Result<Arc<Principal>, Refusal> {
        let outcome = found.as_ref().err().map_or(auth::OUTCOMES[0], |refusal| refusal.outcome());
        if let Some((_, cell)) = self.auth.iter().find(|(name, _)| *name == outcome) {
            cell.inc();
        }
        found
    }
}

/// One request on its way. Dropped, it is over: whatever happened, it is counted and logged once.
pub struct Exchange {
    pub(super) record: Record,
    pub(super) decision: Option<(Decision, Arc<Principal>)>,
    /// Held for as long as the call lasts that this may become.
    pub(super) call_lease: Option<CallLease>,
    cells: Arc<Cells>,
    route: Option<usize>,
    lease: Option<Lease>,
    answered: bool,
    over: bool,
    is_call: bool,
    attention: Attention,
}

impl Exchange {
    pub(super) fn begin<B>(cells: &Arc<Cells>, request: &Request<B>, peer: &Arc<Peer>, trusted: &[IpNet]) -> Self {
        let received = SystemTime::now();
        // Of what stands in for a refused request nothing is the client's. A hyphen is a token, and so a method.
        let (method, uri) = match peer.is_stand_in(request) {
            true => (Method::from_bytes(b"-").unwrap_or_default(), Uri::from_static("-")),
            false => (request.method().clone(), request.uri().clone()),
        };
        let record = Record {
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
            endpoint: None,
            decided_by: None,
            windows: SmallVec::new(),
            shadow_denied: false,
            phases: [None; 3],
            bytes_out: 0,
            bytes_in: 0,
            cut: false,
        };
        Self {
            record,
            decision: None,
            call_lease: None,
            cells: cells.clone(),
            route: None,
            lease: None,
            answered: false,
            over: false,
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

    pub(super) fn principal(&mut self, principal: &Principal) {
        self.record.token = Some((principal.id.clone(), principal.name.clone()));
    }

    /// Takes note of a decision on a request of this cost; a refusal ends the request's way, unless its plan is on trial.
    pub(super) fn decided(
        &mut self,
        decision: Decision,
        cost: u32,
        principal: Arc<Principal>,
    ) -> Result<Arc<Principal>, Rejection> {
        self.cells.decisions[usize::from(decision.admitted)][decision.source as usize].inc();
        let took = self.record.phases[Phase::Decision as usize].unwrap_or(Duration::ZERO);
        self.cells.decision_seconds.observe(took.as_secs_f64());
        self.record.decided_by = Some(decision.source.as_str());
        let windows = principal.plan.limits.iter().zip(decision.windows());
        self.record.windows = windows
            .map(|(limit, window)| WindowUse { name: limit.name.clone(), used: window.used, limit: window.limit })
            .collect();
        let too_many_calls = decision.too_many_calls;
        let refused = if decision.admitted { None } else { decision.reported() };
        let is_refused = !decision.admitted;
        self.decision = Some((decision, principal.clone()));
        if is_refused && principal.plan.shadow {
            self.record.shadow_denied = true;
            self.cells.shadow_denials.inc();
            return Ok(principal);
        }
        if let Some(most) = too_many_calls {
            return Err(Rejection::TooManyCalls(most));
        }
        let Some(refused) = refused else { return Ok(principal) };
        let limit = &principal.plan.limits[refused.index];
        Err(Rejection::RateLimited {
            limit: limit.name.clone(),
            count: limit.count,
            cost,
            window_s: limit.window_ms.get().div_ceil(1000),
            retry_after_s: refused.retry_after_s,
        })
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

    /// Goes on as a call until its tunnel ends.
    pub(super) async fn call(mut self, tunnel: impl Future<Output = TunnelEnd>) {
        self.is_call = true;
        let open = self.metrics().calls_open.clone();
        open.inc();
        let end = tunnel.await;
        open.dec();
        self.record.bytes_in = end.from_client;
        self.record.bytes_out = end.from_upstream;
        self.record.error = end.cut.as_ref().map(|cut| chain(cut).into());
        // A call's connection has become the call; it can't be used again.
        self.lease = None;
        self.over = true;
    }

    fn metrics(&self) -> &RouteMetrics {
        self.route.map_or(&self.cells.no_route, |index| &self.cells.routes[index])
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

impl Observer for Option<Exchange> {
    fn asked(&mut self) {
        if let Some(exchange) = self {
            exchange.attention.taken();
        }
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(exchange) = self {
            exchange.attention.handed();
            exchange.record.bytes_out += bytes as u64;
        }
    }

    fn longest_piece(&self) -> usize {
        match self {
            Some(exchange) if exchange.record.version == Version::HTTP_2 => HTTP2_PIECE,
            Some(_) | None => usize::MAX,
        }
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
                exchange.record.error = Some(chain(error).into());
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Before the answer the status is still 499; after it, the client did not wait for the end.
        self.record.cut |= self.answered && !self.over;
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

/// The client's request id if it is one that a log can hold, else a new UUIDv7 (RFC 9562 §5.7).
fn request_id<B>(request: &Request<B>, now: SystemTime) -> HeaderValue {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    if let Some(given) = request.headers().get(REQUEST_ID)
        && (1..=MAX_REQUEST_ID).contains(&given.len())
        && given.as_bytes().iter().all(is_plain)
    {
        return given.clone();
    }
    let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    // A UUID is made of hexadecimal digits and hyphens.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
