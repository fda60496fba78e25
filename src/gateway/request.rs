//! The life of one request, from its head to the last byte of its answer: what is counted and logged when it is over.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Request, StatusCode, Uri, header};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::auth::{OpenCall, Principal, Refused};
use crate::body::BodyError;
use crate::config::{LogShare, Plan, Route};
use crate::forward::{CutReason, EndedBy, ResponseGuard, client_address};
use crate::limits::{CallLease, Decision};
use crate::listener::{ActiveRequest, Peer, PeerCall};
use crate::live_calls::{CallKind, CallOrigin, CallState, CallToken, LiveCall};
use crate::occupancy::Occupied;
use crate::response::Rejection;
use crate::telemetry::{AccessRecord, Phase, RequestTrace, RouteMetrics, WindowUse, request_id, trace_id};

use super::metrics::RequestMetrics;
use super::snapshot::ServedRoute;

/// nginx's status for a client that went away before its answer. It is in the log and the metrics only.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// An answer of so many bytes may be long: its token is watched, as if it waited for its upstream.
const LONG_ANSWER: u64 = 64 * 1024;

/// One request on its way. When it is dropped, whatever happened, it is counted and logged once.
pub(super) struct RequestLife {
    pub(super) record: AccessRecord,
    /// Known even where nothing was decided, because Redis does not answer and the plan is in shadow mode.
    pub(super) principal: Option<Arc<Principal>>,
    /// The principal that was decided for and then turned out to be none.
    revoked: Option<Arc<Principal>>,
    pub(super) decision: Option<Decision>,
    /// Held for as long as the call lasts that this may become.
    pub(super) call_lease: Option<CallLease>,
    /// The kind of its answer, if that may last as long as a call.
    pub(super) stream: Option<StreamKind>,
    /// Held for as long as the drain takes it for a call.
    pub(super) drained_call: Option<PeerCall>,
    /// Held until the request is over, where the number of a token's requests is limited.
    pub(super) in_flight: Option<Occupied<Arc<str>>>,
    pub(super) metrics: Arc<RequestMetrics>,
    /// Where operators see it, once it is a call.
    live_call: OnceLock<LiveCall>,
    /// When the principal was looked up, in announcements of changed tokens.
    era: u64,
    route: Option<Arc<ServedRoute>>,
    /// Where requests are traced.
    pub(super) trace: Option<Box<RequestTrace>>,
    pub(super) stage: Stage,
    upstream: Option<ResponseGuard>,
    active: ActiveRequest,
}

/// Answers that may last as long as a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// Server-sent events.
    Events,
    /// gRPC.
    Grpc,
}

impl StreamKind {
    fn kind(self) -> CallKind {
        match self {
            Self::Events => CallKind::Events,
            Self::Grpc => CallKind::Grpc,
        }
    }
}

/// How far a request has come.
pub(super) enum Stage {
    /// There is no answer yet.
    Pending,
    /// The answer leaves. Most end before there is a reason to watch their token.
    Answering,
    /// The answer lasts, until its token no longer allows it or, if it is a call, the drain closes it.
    Streaming(Watched),
    /// The answer has ended, well or not.
    Answered,
    Call,
    CallEnded,
}

/// What ends an answer that lasts.
pub(super) struct Watched {
    /// `None` on a public route.
    token: Option<OpenCall>,
    /// `None` if the answer is no call: then it is cut together with its connection.
    drain: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl RequestLife {
    pub(super) fn begin<B>(
        metrics: &Arc<RequestMetrics>,
        request: &Request<B>,
        peer: &Arc<Peer>,
        trusted: &[IpNet],
    ) -> Self {
        let received = SystemTime::now();
        let trace = metrics.traces.as_ref().map(|traces| Box::new(traces.begin(request.headers())));
        let logged = metrics.log.is_on().then(|| request.headers());
        let record = AccessRecord {
            started: Instant::now(),
            received,
            client: client_address(request.headers(), peer.client.address, trusted),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: Box::default(),
            user_agent: logged.and_then(|headers| headers.get(header::USER_AGENT)).cloned(),
            request_id: request_id(request, received),
            trace_id: match &trace {
                Some(trace) => Some(trace.id()),
                None => logged.and_then(trace_id),
            },
            route: None,
            token: None,
            account: None,
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
            rejection: None,
            reason: None,
            error: None,
            upstream: None,
            endpoint: None,
            attempts: 0,
            decided_by: None,
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
            principal: None,
            revoked: None,
            decision: None,
            call_lease: None,
            stream: None,
            drained_call: None,
            in_flight: None,
            metrics: metrics.clone(),
            live_call: OnceLock::new(),
            era: metrics.open_calls.era(),
            route: None,
            trace,
            stage: Stage::Pending,
            upstream: None,
            active: peer.begin_request(),
        }
    }

    /// A phase is over.
    pub(super) fn phase(&mut self, phase: Phase, took: Duration) {
        self.record.phase(phase, took);
        if let Some(trace) = &mut self.trace {
            trace.phase(phase, took);
        }
    }

    pub(super) fn set_route(&mut self, served: &Arc<ServedRoute>) {
        self.record.route = Some(served.name.clone());
        self.route = Some(served.clone());
    }

    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        Some(&self.route.as_ref()?.route)
    }

    pub(super) fn route_metrics(&self) -> &RouteMetrics {
        self.route.as_ref().map_or(&self.metrics.no_route, |served| &served.metrics)
    }

    pub(super) fn set_principal(&mut self, principal: &Arc<Principal>) {
        self.record.token = Some((principal.id.clone(), principal.name.clone()));
        self.record.account = Some(principal.account.clone());
        self.principal = Some(principal.clone());
    }

    /// The request is nobody's: notes why, and whose token it has if that is known.
    pub(super) fn unauthenticated(&mut self, refused: Refused) -> Rejection {
        self.revoked = self.principal.take();
        self.record.reason = Some(refused.refusal.outcome());
        self.record.token = refused.token.or(self.record.token.take());
        Rejection::Unauthenticated(refused.refusal)
    }

    pub(super) fn set_decision(&mut self, decision: Decision) {
        let took = self.record.phases[Phase::Decision as usize].unwrap_or(Duration::ZERO);
        self.metrics.decided(&decision, took);
        self.record.decided_by = Some(decision.source.as_str());
        self.decision = Some(decision);
    }

    /// The windows of the decision.
    fn windows(&self) -> SmallVec<[WindowUse<'_>; 2]> {
        let principal = self.principal.as_ref().or(self.revoked.as_ref());
        let (Some(decision), Some(principal)) = (&self.decision, principal) else { return SmallVec::new() };
        let limits = principal.plan.limits_with(self.route().and_then(|route| route.limits.as_ref()));
        let windows = limits.zip(decision.windows());
        windows.map(|(limit, window)| WindowUse { name: &limit.name, used: window.used, limit: window.limit }).collect()
    }

    /// The plan denies the request. If it is in shadow mode, the request is marked, counted once, and goes on.
    pub(super) fn deny(&mut self, refusal: Rejection, plan: &Plan) -> Result<(), Rejection> {
        if !plan.shadow {
            return Err(refusal);
        }
        if !std::mem::replace(&mut self.record.shadow_denied, true) {
            self.metrics.shadow_denials.inc();
        }
        Ok(())
    }

    pub(super) fn answered_by(&mut self, endpoint: Arc<str>, upstream: ResponseGuard) {
        if let Some(call) = self.live_call.get() {
            call.state().set_endpoint(&endpoint);
        }
        self.record.endpoint = Some(endpoint);
        self.upstream = Some(upstream);
    }

    pub(super) fn rejected(&mut self, rejection: &Rejection) {
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

    /// Lists this among the calls that operators see, from its first use on, and logs that it was opened. Of a request of gRPC nobody
    /// knows whether it is a long one: it is listed only.
    pub(super) fn live_call(&self, kind: CallKind) -> &Arc<CallState> {
        let open = || {
            let record = &self.record;
            let live = self.metrics.live_calls.open(self.call_origin(kind), SystemTime::now());
            if let Some(endpoint) = &record.endpoint {
                live.state().set_endpoint(endpoint);
            }
            if kind != CallKind::Grpc {
                self.metrics.log.write_opened(record, &live.state().id(), kind.as_str());
            }
            live
        };
        self.live_call.get_or_init(open).state()
    }

    fn call_origin(&self, kind: CallKind) -> CallOrigin {
        let record = &self.record;
        let token = self.principal.as_ref().map(|principal| CallToken {
            id: principal.id.clone(),
            name: principal.name.clone(),
            account: principal.account.clone(),
        });
        CallOrigin {
            kind,
            token,
            client: record.client,
            // A call has both: it was forwarded.
            route: record.route.clone().unwrap_or_default(),
            upstream: record.upstream.clone().unwrap_or_default(),
            request_id: record.request_id.to_str().unwrap_or_default().into(),
        }
    }

    /// Watches the token: the handle resolves when the token no longer allows this. `None` on a public route.
    pub(super) fn watch_token(&self) -> Option<OpenCall> {
        let principal = self.principal.as_ref()?;
        Some(self.metrics.open_calls.open(principal, self.route()?, self.era))
    }

    /// Looks whether the answer must end, and why. `waiting`: nothing of its body is there at the moment.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>, waiting: bool) -> Poll<BodyError> {
        if matches!(self.stage, Stage::Answering) && (waiting || self.record.bytes_out >= LONG_ANSWER) {
            let drain = self.drained_call.as_ref().map(|call| Box::pin(call.closes()) as _);
            self.stage = Stage::Streaming(Watched { token: self.watch_token(), drain });
            detach(&mut self.record);
            if let Some(stream) = self.stream {
                self.live_call(stream.kind());
            }
        }
        let Stage::Streaming(watched) = &mut self.stage else { return Poll::Pending };
        if let Some(call) = self.live_call.get() {
            call.state().note([0, self.record.bytes_out], [0; 2]);
            if let Poll::Ready(reason) = call.state().poll_ended(cx) {
                return Poll::Ready(BodyError::Closed(reason.into()));
            }
        }
        if let Some(Poll::Ready(why)) = watched.token.as_mut().map(|token| token.poll_revoked(cx)) {
            return Poll::Ready(BodyError::Revoked(why.as_str()));
        }
        match &mut watched.drain {
            Some(closes) => closes.as_mut().poll(cx).map(|()| BodyError::Ended),
            None => Poll::Pending,
        }
    }

    /// The body ended as it should, or broke off. A body that is dropped before either was abandoned by its receiver.
    pub(super) fn body_ended(&mut self, result: Result<(), &BodyError>) {
        self.stage = Stage::Answered;
        (self.call_lease, self.drained_call) = (None, None);
        self.live_call.take();
        match (self.upstream.take(), result) {
            (Some(upstream), Ok(())) => upstream.release(),
            (Some(upstream), Err(error)) => upstream.broke_off(error),
            (None, _) => {}
        }
        let Err(error) = result else { return };
        self.record.cut = true;
        let is_too_long = self.stream.is_some() && matches!(error, BodyError::Late(_));
        if is_too_long || matches!(error, BodyError::Revoked(_) | BodyError::Closed(_) | BodyError::Ended) {
            self.record.ended_by = Some(EndedBy::Gateway.as_str());
        }
        let error = if is_too_long { error_chain(&CutReason::TooLong) } else { error_chain(error) };
        self.record.error = Some(error.into());
    }
}

/// Copies what the record keeps of the request: as it came, it is a slice of the buffer that held the whole head, and keeps
/// all of that alive for as long as a call lasts.
fn detach(record: &mut AccessRecord) {
    // Only the path is logged.
    if let Ok(path) = Uri::try_from(record.uri.path()) {
        record.uri = path;
    }
    for value in record.user_agent.iter_mut().chain([&mut record.request_id]) {
        if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = copy;
        }
    }
}

/// An error and its causes in one line.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Drop for RequestLife {
    fn drop(&mut self) {
        let is_call = matches!(self.stage, Stage::Call | Stage::CallEnded);
        let is_over = matches!(self.stage, Stage::Answered | Stage::CallEnded);
        // Before there is an answer the status is still 499; after it, the client did not wait for its end.
        self.record.cut |= !is_over && !matches!(self.stage, Stage::Pending);
        let took = self.record.started.elapsed();
        self.active.over(!is_over, took);
        let metrics = self.route_metrics();
        metrics.count(&self.record.method, self.record.status);
        if !is_call {
            metrics.seconds.observe(took);
        }
        if let (Some(traces), Some(trace)) = (&self.metrics.traces, &self.trace) {
            traces.finish(trace, &self.record, took);
        }
        let share = self.route().map_or(LogShare::ALL, |route| route.log_success);
        let is_left_out = || !is_call && self.stream.is_none() && self.metrics.log.leaves_out(&self.record, share);
        if self.metrics.log.is_on() && !is_left_out() {
            self.metrics.log.write(&self.record, &self.windows(), took);
        }
    }
}
