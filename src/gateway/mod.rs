//! The way of one request, in order. The order is the security policy: what is cheap and certain is refused first, routes
//! are shown to nobody without a good token, and no byte of a body is read before the request is admitted.

mod admission;
mod answer_body;
mod call;
mod metrics;
mod request;
mod snapshot;
mod target;

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, Response, Uri, header};

use crate::auth::{Principal, Reason, Refusal};
use crate::body::{Body, IncomingBody};
use crate::config::{self, RouteAccess};
use crate::forward::{self, ForwardContext, ForwardedResponse, Forwarder, Tunnel, is_grpc};
use crate::listener::{Handler, Interim, Peer, RequestFault};
use crate::live_calls::CallKind;
use crate::response::{self, Rejection};
use crate::route::RouteMatch;
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, Phase};

use answer_body::AnswerBody;
use request::{RequestLife, Stage, StreamKind};
use target::{Preflight, Target};

pub(crate) use admission::Admission;
pub(crate) use admission::TokensInFlight;
pub(crate) use metrics::RequestMetrics;
pub(crate) use snapshot::{ServedRoute, Snapshot, SnapshotError};

/// Requests whose answer comes sooner need not be watched.
const WATCHED_AFTER: Duration = Duration::from_millis(500);

/// The answer to a request that no step refused; with a tunnel, a call begins.
type Served = (Response<Body>, Option<Box<Tunnel>>);

/// What one worker serves requests with, by one configuration.
pub(crate) struct Gateway {
    /// All that the configuration means.
    pub snapshot: Arc<Snapshot>,
    /// In the order of the configuration.
    pub routes: Vec<Arc<ServedRoute>>,
    /// Authentication and limits.
    pub admission: Admission,
    /// To the upstream and back.
    pub forwarder: Forwarder,
    /// Metrics and the access log.
    pub metrics: Arc<RequestMetrics>,
    /// The drain waits for calls.
    pub shutdown: Shutdown,
}

impl Handler for Gateway {
    type Body = AnswerBody;

    /// The outer half: makes the record, turns an error into an answer, stamps it. Every path is logged and counted once.
    async fn handle(
        self: &Arc<Self>,
        mut request: Box<Request<IncomingBody>>,
        peer: &Arc<Peer>,
        interim: Option<Interim>,
    ) -> Response<Self::Body> {
        forward::extended_connect_to_upgrade(&mut request);
        // Boxed: it moves with the answer, and is large.
        let mut life =
            Box::new(RequestLife::begin(&self.metrics, &request, peer, &self.snapshot.config.trusted_proxies));
        let (is_head, is_grpc) = (*request.method() == Method::HEAD, is_grpc(&request));
        let origin = request.headers().get(header::ORIGIN).cloned();
        let served = self.serve(request, peer, interim, &mut life).await;
        life.stage = Stage::Answering;
        let (mut response, tunnel) =
            served.unwrap_or_else(|rejection| (self.reject(rejection, &mut life, is_head, is_grpc), None));
        self.stamp(&mut response, &mut life, origin.as_ref());
        let Some(tunnel) = tunnel else {
            if life.stream.is_none() {
                // The request did not become a call.
                life.call_lease = None;
            }
            return response.map(|body| AnswerBody::new(body, Some(life)));
        };
        life.drained_call = Some(peer.begin_call(None));
        let peer = peer.clone();
        self.shutdown.tasks().spawn(async move {
            call::run(life, tunnel).await;
            drop(peer);
        });
        response.map(|body| AnswerBody::new(body, None))
    }

    fn refuse(self: &Arc<Self>, fault: RequestFault, peer: &Arc<Peer>) -> Response<Self::Body> {
        // Nothing of it is the client's. A hyphen is a token, and so a method.
        let mut request = Request::new(IncomingBody::Empty);
        *request.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
        *request.uri_mut() = Uri::from_static("-");
        let mut life =
            Box::new(RequestLife::begin(&self.metrics, &request, peer, &self.snapshot.config.trusted_proxies));
        life.stage = Stage::Answering;
        let mut response = self.reject(Rejection::Fault(fault), &mut life, false, false);
        self.stamp(&mut response, &mut life, None);
        response.map(|body| AnswerBody::new(body, Some(life)))
    }
}

impl Gateway {
    /// The gateway of the same worker under another configuration. What is unchanged of the upstreams keeps its connections.
    pub(crate) fn under(&self, snapshot: Arc<Snapshot>, metrics: &Metrics) -> Self {
        let Snapshot { config, plans, failures, upstreams, .. } = &*snapshot;
        let admission = &self.admission;
        Self {
            admission: Admission {
                authenticator: admission.authenticator.under(config.clone(), plans.clone(), failures.clone()),
                limiter: admission.limiter.clone(),
                in_flight: admission.in_flight.clone(),
                usage: admission.usage.clone(),
            },
            forwarder: Forwarder::new(config, upstreams, metrics, &self.shutdown, Some(&self.forwarder)),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            routes: snapshot.routes_for_worker(),
            snapshot,
        }
    }

    /// The inner half: the steps, each of which may refuse.
    async fn serve(
        &self,
        mut request: Box<Request<IncomingBody>>,
        peer: &Arc<Peer>,
        interim: Option<Interim>,
        life: &mut RequestLife,
    ) -> Result<Served, Rejection> {
        if let Some(fault) = peer.fault(&request) {
            return Err(Rejection::Fault(fault));
        }
        let snapshot = &*self.snapshot;
        let config = &snapshot.config;
        let mut target = Target::judge(snapshot, &request, peer)
            .inspect_err(|_| life.record.host = target::authority(&request).unwrap_or_default().into())?;
        life.record.host = std::mem::take(&mut target.authority);
        // Browsers send a preflight without a token.
        if let Some(Preflight { route, cors, method }) = &target.preflight {
            if let Some(index) = route {
                life.set_route(&self.routes[*index]);
            }
            return Ok((response::preflight(cors, method), None));
        }
        let route = target.route().map(|index| {
            life.set_route(&self.routes[index]);
            &*self.routes[index].route
        });
        // Without a good token nobody learns which routes there are: authentication comes before 404 and 405.
        let principal = match route.map(|route| &route.access) {
            Some(RouteAccess::Public) => None,
            Some(RouteAccess::Token(_)) | None => Some(self.admission.admit(&request, route, life).await?),
        };
        if target.is_whole_server {
            return Ok((response::options(None), None));
        }
        if let Some(fault) = target.fault.take() {
            return Err(fault);
        }
        let route = permit(&target, route, principal.as_deref())?;
        if *request.method() == Method::OPTIONS && forward::is_last_hop(request.headers_mut()) {
            return Ok((response::options(target.allow), None));
        }
        if announced_length(&request) > Some(route.max_body) {
            return Err(Rejection::TooLarge);
        }
        let stream = is_grpc(&request).then_some(StreamKind::Grpc);
        if stream.is_some() {
            life.drained_call = Some(peer.begin_call(interim.as_ref()));
        }
        let upstream = route.upstream.choose(principal.as_deref().map(|principal| &*principal.id));
        life.record.upstream = Some(self.forwarder.name_of(upstream).clone());
        let context = ForwardContext {
            route,
            upstream,
            client: &peer.client,
            authority: &life.record.host,
            target: target.rewritten.as_ref(),
            request_id: &life.record.request_id,
            identity: principal.as_deref().map_or(&[], |principal| &principal.identity_headers[..]),
            trusted_proxies: &config.trusted_proxies,
            interim,
            hold: &|| Box::new(peer.begin_activity()),
            attempts: AtomicU32::new(0),
            trace: life.trace.as_deref(),
        };
        let started = Instant::now();
        let forwarded = {
            // The answer to a gRPC request may come at the end of a call: meanwhile its token must allow it, and the drain may close it.
            // Boxed: other requests need no room for this.
            let mut ended = stream.is_some().then(|| Box::pin(ended(life)));
            let mut forwarding = pin!(self.forwarder.forward(request, &context));
            // Polled in one place, so that it is compiled into this future and not copied.
            poll_fn(|cx| {
                if let Some(Poll::Ready(why)) = ended.as_mut().map(|ended| ended.as_mut().poll(cx)) {
                    return Poll::Ready(Err(why));
                }
                forwarding.as_mut().poll(cx).map(Ok)
            })
            .await
        };
        let ForwardContext { attempts, interim, .. } = context;
        life.record.attempts = attempts.into_inner();
        life.phase(Phase::Upstream, started.elapsed());
        let forwarded = match forwarded {
            Ok(forwarded) => forwarded.map_err(Rejection::Forward)?,
            Err(CallEnd::Revoked) => return Err(life.unauthenticated(Refusal::Invalid(Reason::Revoked).into())),
            Err(CallEnd::Drained) => return Err(Rejection::Ending),
            Err(CallEnd::Closed) => return Err(Rejection::CallClosed),
        };
        if forwarded.is_stream && forwarded.tunnel.is_none() && life.drained_call.is_none() {
            life.drained_call = Some(peer.begin_call(interim.as_ref()));
        }
        self.accept(forwarded, route, stream, peer, life).await
    }

    /// Takes over an upstream's answer, unless it begins a call that may not be.
    async fn accept(
        &self,
        answer: ForwardedResponse,
        route: &config::Route,
        stream: Option<StreamKind>,
        peer: &Peer,
        life: &mut RequestLife,
    ) -> Result<Served, Rejection> {
        // A client that does not wait for the switch has sent its first frames as a request, which was refused as one.
        if let Some(fault) = peer.refusal().filter(|_| answer.tunnel.is_some()) {
            return Err(Rejection::Fault(fault));
        }
        if answer.is_stream && answer.tunnel.is_none() {
            if stream.is_none() {
                Box::pin(self.admission.admit_events(route, life)).await?;
            }
            life.stream = stream.or(Some(StreamKind::Events));
        }
        life.answered_by(answer.endpoint, answer.guard);
        Ok((answer.response, answer.tunnel))
    }

    /// The answer to a request that a step refused.
    fn reject(&self, rejection: Rejection, life: &mut RequestLife, is_head: bool, is_grpc: bool) -> Response<Body> {
        life.rejected(&rejection);
        let realm = &self.snapshot.config.tokens.realm;
        match is_grpc {
            true => rejection.into_grpc_response(realm),
            false => rejection.into_response(realm, &life.record.request_id, is_head),
        }
    }

    /// Adds the headers of every answer: request id, limits, and what lets pages read it.
    fn stamp(&self, response: &mut Response<Body>, life: &mut RequestLife, origin: Option<&HeaderValue>) {
        let headers = response.headers_mut();
        response::stamp_request_id(headers, &life.record.request_id);
        let route = life.route();
        if let (Some(decision), Some(principal)) = (&life.decision, &life.principal) {
            let limits = principal.plan.limits_with(route.and_then(|route| route.limits.as_ref()));
            response::stamp_limits(headers, decision, limits, &self.snapshot.config.limits);
        }
        if life.record.shadow_denied {
            response::stamp_shadow_denial(headers);
        }
        // Without a good token the answer must not show which route this would have been.
        let is_guarded = route.is_none_or(|route| route.access != RouteAccess::Public) && life.principal.is_none();
        let cors = if is_guarded { self.snapshot.table.cors() } else { route.and_then(|route| route.cors.as_ref()) };
        if let Some(cors) = cors {
            response::stamp_cors(headers, cors, origin, &self.snapshot.config.limits);
        }
        if life.record.rejection.is_none() {
            life.record.status = response.status();
        }
    }
}

/// Why a call ends before there is an answer.
enum CallEnd {
    /// Its token no longer allows it.
    Revoked,
    /// The drain closes it.
    Drained,
    /// An operator closes it.
    Closed,
}

/// Returns when a call must end, if it lasts long enough to be watched.
async fn ended(life: &RequestLife) -> CallEnd {
    tokio::time::sleep(WATCHED_AFTER).await;
    let mut open = life.watch_token();
    let revoked = async {
        match &mut open {
            Some(open) => drop(open.revoked().await),
            None => pending().await,
        }
    };
    let closes = async {
        match &life.drained_call {
            Some(call) => call.closes().await,
            None => pending().await,
        }
    };
    let state = life.live_call(CallKind::Grpc);
    tokio::select! {
        () = revoked => CallEnd::Revoked,
        _ = state.ended() => CallEnd::Closed,
        () = closes => CallEnd::Drained,
    }
}

/// The route that a principal may use: it exists, takes the method, and asks for no permission that the principal lacks.
fn permit<'a>(
    target: &Target<'_>,
    route: Option<&'a config::Route>,
    principal: Option<&Principal>,
) -> Result<&'a config::Route, Rejection> {
    let route = route.ok_or_else(|| match target.found {
        RouteMatch::WrongMethod(allow) => Rejection::MethodNotAllowed(allow.clone()),
        RouteMatch::Route(_) | RouteMatch::Nothing => Rejection::NotFound,
    })?;
    if let (RouteAccess::Token(permissions), Some(principal)) = (&route.access, principal)
        && let Some(lacking) = permissions.iter().find(|permission| !principal.may(permission))
    {
        return Err(Rejection::Forbidden(lacking.clone()));
    }
    Ok(route)
}

/// The length that the client announces; `None` for a chunked body, which is counted as it passes.
fn announced_length(request: &Request<IncomingBody>) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
