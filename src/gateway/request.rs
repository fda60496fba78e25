//! The life of one request, from its head to the last byte of its answer: what is counted and logged when it is over.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::auth::{OpenCall, Principal};
use crate::body::{BodyError, BodyObserver};
use crate::config::{self, Config};
use crate::forward::{EndedBy, ResponseGuard, client_address};
use crate::limits::{CallLease, Charge, Decision};
use crate::listener::{ActiveRequest, Peer};
use crate::response::Rejection;
use crate::route::RouteMatch;
use crate::telemetry::{AccessRecord, Phase, RouteMetrics, WindowUse, request_id};

use super::metrics::RequestMetrics;

/// A client on HTTP/2 has to take so many bytes of an answer within `body_idle_timeout`.
const HTTP2_PIECE: usize = 32 * 1024;
/// nginx's status for a client that went away before its answer. It is in the log and the metrics only.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// An answer of so many bytes may be long: its token is watched, as if it waited for its upstream.
const LONG_ANSWER: u64 = 64 * 1024;

/// One request on its way. When it is dropped, whatever happened, it is counted and logged once.
pub struct RequestLife {
    pub(super) record: AccessRecord,
    pub(super) decision: Option<(Decision, Arc<Principal>)>,
    /// Held for as long as the call lasts that this may become.
    pub(super) call_lease: Option<CallLease>,
    pub(super) metrics: Arc<RequestMetrics>,
    /// When the principal was looked up, in announcements of changed tokens.
    era: u64,
    route: Option<usize>,
    stage: Stage,
    upstream: Option<ResponseGuard>,
    active: ActiveRequest,
}

/// How far a request has come.
enum Stage {
    /// There is no answer yet.
    Pending,
    /// The answer leaves. Most end before there is a reason to watch their token.
    Answering,
    /// The answer lasts, until its token no longer allows it; `None` on a public route.
    Streaming(Option<OpenCall>),
    /// The answer has ended, well or not.
    Answered,
    Call,
    CallEnded,
}

impl RequestLife {
    pub(super) fn begin<B>(
        metrics: &Arc<RequestMetrics>,
        request: &Request<B>,
        peer: &Arc<Peer>,
        trusted: &[IpNet],
    ) -> Self {
        let received = SystemTime::now();
        // A stand-in for a refused request has nothing of the client's. A hyphen is a token, and so a method.
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
            metrics: metrics.clone(),
            era: metrics.open_calls.era(),
            route: None,
            stage: Stage::Pending,
            upstream: None,
            active: peer.begin_request(),
        }
    }

    /// When the request came, in Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970; 64 bits of milliseconds outlast it.
        self.record.received.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    pub(super) fn set_route(&mut self, route: &config::Route, found: RouteMatch<'_>) {
        self.record.route = Some(route.name.clone());
        if let RouteMatch::Route(index) = found {
            self.route = Some(index);
        }
    }

    pub(super) fn route<'c>(&self, config: &'c Config) -> Option<&'c config::Route> {
        config.routes.get(self.route?).map(|route| &**route)
    }

    pub(super) fn route_metrics(&self) -> &RouteMetrics {
        self.metrics.route(self.route)
    }

    pub(super) fn set_principal(&mut self, principal: &Principal) {
        self.record.token = Some((principal.id.clone(), principal.name.clone()));
    }

    pub(super) fn set_decision(&mut self, decision: Decision, charge: Charge<'_>, principal: &Arc<Principal>) {
        let took = self.record.phases[Phase::Decision as usize].unwrap_or(Duration::ZERO);
        self.metrics.decided(&decision, took);
        self.record.decided_by = Some(decision.source.as_str());
        let windows = principal.plan.limits_with(charge.limits).zip(decision.windows());
        self.record.windows = windows
            .map(|(limit, window)| WindowUse { name: limit.name.clone(), used: window.used, limit: window.limit })
            .collect();
        self.decision = Some((decision, principal.clone()));
    }

    /// The plan is in shadow mode: the request was denied and goes on.
    pub(super) fn set_shadow_denied(&mut self) {
        self.record.shadow_denied = true;
        self.metrics.shadow_denials.inc();
    }

    pub(super) fn answered(&mut self) {
        self.stage = Stage::Answering;
    }

    pub(super) fn answered_by(&mut self, endpoint: Arc<str>, upstream: ResponseGuard) {
        self.stage = Stage::Answering;
        self.record.endpoint = Some(endpoint);
        self.upstream = Some(upstream);
    }

    pub(super) fn rejected(&mut self, rejection: &Rejection) {
        self.stage = Stage::Answering;
        self.record.rejection = Some(rejection.code());
        // A gRPC client's answer says 200.
        self.record.status = rejection.status();
        if let Rejection::Forward(error) = rejection {
            self.record.error = Some(error_chain(error).into());
        }
    }

    /// From here on this is a call, which takes over what the answer held of its upstream.
    pub(super) fn begin_call(&mut self) -> Option<ResponseGuard> {
        self.stage = Stage::Call;
        detach(&mut self.record);
        self.upstream.take()
    }

    pub(super) fn call_ended(&mut self) {
        self.stage = Stage::CallEnded;
    }

    /// Watches the token: the handle resolves when the token no longer allows this. `None` on a public route.
    pub(super) fn watch_token(&self) -> Option<OpenCall> {
        let (_, principal) = self.decision.as_ref()?;
        let route = &self.metrics.routes[self.route?];
        Some(self.metrics.open_calls.open(principal, route, self.era))
    }
}

/// Copies what the record keeps of the request: as it came, it is a slice of the buffer that held the whole head, and keeps
/// all of that alive for as long as a call lasts.
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
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl BodyObserver for Option<RequestLife> {
    fn sent(&mut self, bytes: usize) {
        if let Some(life) = self {
            life.record.bytes_out += bytes as u64;
        }
    }

    fn longest_piece(&self) -> usize {
        match self {
            Some(life) if life.record.version == Version::HTTP_2 => HTTP2_PIECE,
            Some(_) | None => usize::MAX,
        }
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>, waiting: bool) -> Poll<&'static str> {
        let Some(life) = self else { return Poll::Pending };
        if matches!(life.stage, Stage::Answering) && (waiting || life.record.bytes_out >= LONG_ANSWER) {
            life.stage = Stage::Streaming(life.watch_token());
            detach(&mut life.record);
        }
        match &mut life.stage {
            Stage::Streaming(Some(open)) => open.poll_revoked(cx).map(|why| why.as_str()),
            _ => Poll::Pending,
        }
    }

    fn ended(&mut self, result: Result<(), &BodyError>) {
        let Some(life) = self else { return };
        life.stage = Stage::Answered;
        let upstream = life.upstream.take();
        let Err(error) = result else {
            if let Some(upstream) = upstream {
                upstream.release();
            }
            return;
        };
        if let Some(upstream) = upstream {
            upstream.broke_off(error);
        }
        life.record.cut = true;
        if matches!(error, BodyError::Revoked(_)) {
            life.record.ended_by = Some(EndedBy::Gateway.as_str());
        }
        life.record.error = Some(error_chain(error).into());
    }
}

impl Drop for RequestLife {
    fn drop(&mut self) {
        // Before there is an answer the status is still 499; after it, the client did not wait for its end.
        let (is_over, is_call) = match self.stage {
            Stage::Pending => (false, false),
            Stage::Answering | Stage::Streaming(_) => {
                self.record.cut = true;
                (false, false)
            }
            Stage::Answered => (true, false),
            Stage::Call => {
                self.record.cut = true;
                (false, true)
            }
            Stage::CallEnded => (true, true),
        };
        let took = self.record.started.elapsed();
        self.active.over(!is_over, took);
        let metrics = self.route_metrics();
        metrics.count(&self.record.method, self.record.status);
        if !is_call {
            metrics.seconds.observe(took.as_secs_f64());
        }
        self.metrics.log.write(&self.record);
    }
}

fn client_of<B>(request: &Request<B>, socket: SocketAddr, trusted: &[IpNet]) -> IpAddr {
    if trusted.is_empty() { socket.ip().to_canonical() } else { client_address(request.headers(), socket, trusted) }
}
