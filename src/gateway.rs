//! The way of one request, in order. The order is the security policy: what is cheap and certain is refused first, nothing is
//! told to who has not shown a token, and nothing of a body is read before the request is admitted.

mod exchange;
mod target;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use http::{Method, Request, Response, header};

use crate::auth::{Authenticator, Principal, Refusal, UsageBook};
use crate::body::{Arriving, Body, Observed};
use crate::config::{self, Access, Config};
use crate::forward::{self, Answer, Forwarder, Onward, asks_for_websocket, is_grpc};
use crate::limits::{Asker, Charge, Limiter, Outcome, Source};
use crate::listener::{Certificates, Handler, Interim, Peer};
use crate::response::{self, Rejection};
use crate::route::{Found, RouteTable};
use crate::shutdown::Shutdown;
use crate::telemetry::Phase;

use exchange::Exchange;
use target::Target;

pub use exchange::Cells;

/// How a request is answered that nothing refuses.
enum Served {
    /// By its upstream.
    Forwarded(Answer),
    /// By Callgate itself.
    Here(Response<Body>),
}

/// A record that changes under one request more often than this is being fought over.
const MAX_REREADS: usize = 3;

/// What one worker serves requests with.
pub struct Gateway {
    /// The configuration that holds for every request of this worker.
    pub config: Arc<Config>,
    /// Its routes.
    pub routes: Arc<RouteTable>,
    /// Which certificate belongs to which host.
    pub certificates: Arc<Certificates>,
    /// Who asks.
    pub authenticator: Authenticator,
    /// May they, now.
    pub limiter: Limiter,
    /// How tokens are used, to be written later.
    pub usage: Arc<UsageBook>,
    /// To the upstream and back.
    pub forwarder: Forwarder,
    /// Metrics and the access log.
    pub cells: Arc<Cells>,
    /// The drain waits for calls.
    pub shutdown: Shutdown,
}

impl Handler for Gateway {
    type Body = Observed<Option<Exchange>>;

    /// The outer half: makes the record, turns an error into an answer, stamps it. Every path is logged and counted once.
    async fn handle(
        self: &Arc<Self>,
        mut request: Request<Arriving>,
        peer: &Arc<Peer>,
        interim: Option<Interim>,
    ) -> Response<Self::Body> {
        forward::unfold_websocket(&mut request);
        let mut exchange = Exchange::begin(&self.cells, &request, peer, &self.config.trusted_proxies);
        let (is_head, is_grpc) = (request.method() == Method::HEAD, is_grpc(&request));
        let origin = request.headers().get(header::ORIGIN).cloned();
        // A connection keeps room for this future even when no request is under way.
        let result = Box::pin(self.serve(request, peer, interim, &mut exchange)).await;
        let mut tunnel = None;
        let mut response = match result {
            Ok(Served::Forwarded(answer)) => {
                tunnel = answer.tunnel;
                exchange.answered(answer.endpoint, answer.lease);
                answer.response
            }
            Ok(Served::Here(response)) => {
                exchange.answered_here();
                response
            }
            Err(rejection) => {
                exchange.rejected(&rejection);
                let realm = &self.config.tokens.realm;
                if is_grpc {
                    rejection.into_grpc_response(realm)
                } else {
                    rejection.into_response(realm, &exchange.record.request_id, is_head)
                }
            }
        };
        let headers = response.headers_mut();
        response::stamp_request_id(headers, &exchange.record.request_id);
        if let Some((decision, principal)) = &exchange.decision {
            let limits = principal.plan.limits_with(exchange.route_limits(&self.config));
            response::stamp_limits(headers, decision, limits, &self.config.limits);
        }
        if exchange.record.shadow_denied {
            response::stamp_shadow_denial(headers);
        }
        if let Some(cors) = exchange.cors(&self.config) {
            response::stamp_cors(headers, cors, origin.as_ref(), &self.config.limits);
        }
        if exchange.record.rejection.is_none() {
            exchange.record.status = response.status();
        }
        if tunnel.is_none() {
            // It did not become a call.
            exchange.call_lease = None;
        }
        if let Some(tunnel) = tunnel {
            peer.became_tunnel();
            let (exchange, gateway, peer) = (Box::new(exchange), self.clone(), peer.clone());
            self.shutdown.tasks().spawn(async move {
                exchange.call(tunnel, &gateway.shutdown).await;
                drop(peer);
            });
            return response.map(|body| Observed::new(body, None));
        }
        response.map(|body| Observed::new(body, Some(exchange)))
    }
}

impl Gateway {
    /// The inner half: the steps, each of which may refuse.
    async fn serve(
        &self,
        mut request: Request<Arriving>,
        peer: &Arc<Peer>,
        interim: Option<Interim>,
        exchange: &mut Exchange,
    ) -> Result<Served, Rejection> {
        if let Some(fault) = peer.fault(&request) {
            return Err(Rejection::Fault(fault));
        }
        let target = Target::judge(self, &request, peer)?;
        // Browsers ask without a token; what they are told is what any page could try out.
        if let Some((index, method)) = &target.preflight {
            return Ok(Served::Here(self.preflight(*index, method, exchange)));
        }
        let route = target.route(&self.config);
        if let Some(route) = route {
            exchange.route(route, target.found);
        }
        // Without a good token nobody learns which routes there are: authentication comes before 404 and 405.
        let principal = match route.map(|route| &route.access) {
            Some(Access::Public) => None,
            Some(Access::Token(_)) | None => Some(self.admit(&request, route, exchange).await?),
        };
        if target.is_whole_server {
            return Ok(Served::Here(response::options(None)));
        }
        let route = permit(&target, route, principal.as_deref())?;
        if *request.method() == Method::OPTIONS && forward::is_last_hop(request.headers_mut()) {
            return Ok(Served::Here(response::options(target.allow)));
        }
        if announced_length(&request) > Some(route.max_body) {
            return Err(Rejection::TooLarge);
        }
        let upstream = route.upstream.choose(principal.as_deref().map(|principal| &*principal.id));
        exchange.record.upstream = Some(self.config.upstreams[upstream].name.clone());
        let onward = Onward {
            route,
            upstream,
            peer: peer.address,
            https: peer.certificate.is_some(),
            authority: &target.authority,
            target: target.rewritten.as_ref(),
            request_id: &exchange.record.request_id,
            identity: principal.as_deref().map_or(&[], Principal::identity_headers),
            trusted_proxies: &self.config.trusted_proxies,
            interim,
            hold: &|| Box::new(peer.busy()),
            attempts: AtomicU32::new(0),
        };
        let started = Instant::now();
        let forwarded = self.forwarder.forward(request, &onward).await;
        exchange.record.attempts = onward.attempts.into_inner();
        exchange.record.phase(Phase::Upstream, started.elapsed());
        let answer = forwarded.map_err(Rejection::Forward)?;
        // Who does not wait for the switch has sent its first frames as a request, and they were refused as one.
        match peer.refusal() {
            Some(fault) if answer.tunnel.is_some() => Err(Rejection::Fault(fault)),
            _ => Ok(Served::Forwarded(answer)),
        }
    }

    fn preflight(&self, index: usize, method: &Method, exchange: &mut Exchange) -> Response<Body> {
        let route = &self.config.routes[index];
        exchange.route(route, Found::Route(index));
        route.cors.as_ref().map_or_else(|| response::options(None), |cors| response::preflight(cors, method))
    }

    /// Who asks, and may they now; the authentication is counted by how it ended.
    async fn admit(
        &self,
        request: &Request<Arriving>,
        route: Option<&config::Route>,
        exchange: &mut Exchange,
    ) -> Result<Arc<Principal>, Rejection> {
        let admitted = self.authenticate_and_decide(request, route, exchange).await;
        self.cells.authenticated(match &admitted {
            Err(Rejection::Unauthenticated(refusal)) => Some(*refusal),
            Ok(_) | Err(_) => None,
        });
        admitted
    }

    /// A record that has changed since it was cached is read again before anything is counted.
    async fn authenticate_and_decide(
        &self,
        request: &Request<Arriving>,
        route: Option<&config::Route>,
        exchange: &mut Exchange,
    ) -> Result<Arc<Principal>, Rejection> {
        let charge = route.map_or(Charge::from(1), Charge::from);
        let opens_call = route.is_some() && asks_for_websocket(request);
        let (now, client) = (exchange.record.received, exchange.record.client);
        let started = Instant::now();
        let found = self.authenticator.authenticate(request.headers(), client, now).await;
        exchange.record.phase(Phase::Auth, started.elapsed());
        let mut principal = found.map_err(Rejection::Unauthenticated)?;
        exchange.principal(&principal);
        for _ in 0..MAX_REREADS {
            let asker = Asker { token_id: &principal.id, version: principal.version };
            let started = Instant::now();
            let (plan, now_ms) = (&principal.plan, exchange.now_ms());
            let asked = self.authenticator.epoch();
            let is_current = || self.authenticator.is_current(&principal, asked);
            let outcome = if opens_call {
                self.limiter.decide_call(&asker, plan, charge, now_ms, &is_current).await
            } else {
                let decided = self.limiter.decide_cached(&asker, plan, charge, now_ms, &is_current).await;
                decided.map(|outcome| (outcome, None))
            };
            exchange.record.phase(Phase::Decision, started.elapsed());
            let (outcome, lease) = match outcome {
                Ok(outcome) => outcome,
                // The token may have changed, and no version was compared.
                Err(_) if !is_current() => return Err(Rejection::Unauthenticated(Refusal::Unavailable)),
                Err(_) if plan.shadow => {
                    exchange.forwarded_on_trial();
                    self.usage.note(&principal.id, now);
                    return Ok(principal);
                }
                Err(_) => return Err(Rejection::Undecided),
            };
            exchange.call_lease = lease;
            match outcome {
                Outcome::Decided(decision) => {
                    if decision.source == Source::Redis {
                        self.authenticator.confirm(&principal, asked, now);
                    }
                    let principal = exchange.decided(decision, charge, principal)?;
                    self.usage.note(&principal.id, now);
                    return Ok(principal);
                }
                Outcome::Stale => {
                    let found = self.authenticator.reread(&principal, request.headers(), client, now).await;
                    principal = found.map_err(Rejection::Unauthenticated)?;
                    exchange.principal(&principal);
                }
            }
        }
        Err(Rejection::Undecided)
    }
}

/// What a good token may reach: a route that is there, with a method it takes, and permissions that the token holds.
fn permit<'a>(
    target: &Target<'_>,
    route: Option<&'a config::Route>,
    principal: Option<&Principal>,
) -> Result<&'a config::Route, Rejection> {
    let route = match (target.found, route) {
        (Found::Route(_), Some(route)) => route,
        (Found::WrongMethod(allow), _) => return Err(Rejection::MethodNotAllowed(allow.clone())),
        (Found::Route(_) | Found::Nothing, _) => return Err(Rejection::NotFound),
    };
    if let (Access::Token(permissions), Some(principal)) = (&route.access, principal)
        && let Some(lacking) = permissions.iter().find(|permission| !principal.may(permission))
    {
        return Err(Rejection::Forbidden(lacking.clone()));
    }
    Ok(route)
}

/// The length that the client announces; `None` for a chunked body, which is counted as it passes.
fn announced_length(request: &Request<Arriving>) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
