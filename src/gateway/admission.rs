//! Two steps that belong together, because a changed record is read again before anything is counted: authentication and
//! limits.

use std::sync::Arc;
use std::time::Instant;

use http::Request;

use crate::auth::{Authenticator, Principal, Refusal};
use crate::body::IncomingBody;
use crate::config::{self, Plan};
use crate::forward::{asks_for_events, asks_for_websocket, is_grpc};
use crate::limits::{Charge, Decision, LimitOutcome, LimitSubject, Limiter, Moment, Source};
use crate::occupancy::Occupancy;
use crate::response::Rejection;
use crate::telemetry::Phase;
use crate::tokens::UsageCounts;

use super::request::RequestLife;

/// A record that changes under one request more often than this is being fought over.
const MAX_REREADS: usize = 3;

/// Requests in flight, by the id of their token.
pub(crate) type TokensInFlight = Occupancy<Arc<str>>;

/// Authentication, permission and limits: whether a request may pass now.
pub(crate) struct Admission {
    /// Token → principal.
    pub authenticator: Authenticator,
    /// The limits of its plan.
    pub limiter: Arc<Limiter>,
    /// The requests in flight of each token, in this process.
    pub(crate) in_flight: Arc<TokensInFlight>,
    /// How often tokens are used, saved later.
    pub usage: Arc<UsageCounts>,
}

impl Admission {
    /// Admits the principal of a request, or refuses the request.
    pub(super) async fn admit(
        &self,
        request: &Request<IncomingBody>,
        route: Option<&config::Route>,
        life: &mut RequestLife,
    ) -> Result<Arc<Principal>, Rejection> {
        let admitted = self.authenticate_and_decide(request, route, life).await;
        life.metrics.authenticated(match &admitted {
            Err(Rejection::Unauthenticated(refusal)) => Some(*refusal),
            Ok(_) | Err(_) => None,
        });
        match (&admitted, &life.principal) {
            (Ok(principal), _) => self.usage.note(&principal.id, life.record.received),
            (
                Err(Rejection::RateLimited { .. } | Rejection::TooManyCalls(_) | Rejection::TooManyInFlight(_)),
                Some(principal),
            ) => self.usage.note_refused(&principal.id, life.record.received),
            (Err(_), _) => {}
        }
        admitted
    }

    async fn authenticate_and_decide(
        &self,
        request: &Request<IncomingBody>,
        route: Option<&config::Route>,
        life: &mut RequestLife,
    ) -> Result<Arc<Principal>, Rejection> {
        let (cost, limits) = route.map_or((1, None), |route| (route.cost, route.limits.as_ref()));
        let (now, client) = (life.record.received, life.record.client);
        let started = Instant::now();
        let found = self.authenticator.authenticate(request.headers(), client, now).await;
        life.phase(Phase::Auth, started.elapsed());
        let mut principal = found.map_err(|refused| life.unauthenticated(refused))?;
        life.set_principal(&principal);
        self.hold_in_flight(&principal, life)?;
        for _ in 0..MAX_REREADS {
            let subject = LimitSubject { token_id: &principal.id, version: principal.version };
            let charge = Charge { cost, limits, opens_call: opens_call(request, route, &principal.plan) };
            let started = Instant::now();
            let plan = &principal.plan;
            let asked = self.authenticator.epoch();
            let is_current = || self.authenticator.is_current(&principal, asked);
            let outcome = self.limiter.decide(&subject, plan, charge, Moment::now(), &is_current).await;
            life.phase(Phase::Decision, started.elapsed());
            let refusal = match outcome {
                Ok(LimitOutcome::Decided(decision, lease)) => {
                    life.call_lease = lease;
                    if decision.source == Source::Redis {
                        self.authenticator.confirm(&principal, asked, now);
                    }
                    let refusal = refusal(&decision, charge, &principal);
                    life.set_decision(decision);
                    refusal
                }
                Ok(LimitOutcome::Stale) => {
                    let found = self.authenticator.reread(&principal, request.headers(), client, now).await;
                    principal = found.map_err(|refused| life.unauthenticated(refused))?;
                    life.set_principal(&principal);
                    continue;
                }
                // The token may have changed, and no version was compared.
                Err(_) if !is_current() => return Err(life.unauthenticated(Refusal::Unavailable.into())),
                Err(_) => Some(Rejection::Undecided),
            };
            return match refusal {
                Some(refusal) => life.deny(refusal, &principal.plan).map(|()| principal),
                None => Ok(principal),
            };
        }
        Err(Rejection::Undecided)
    }

    /// Takes the lease of an answer that turned out to be a stream of events, if the request did not say so.
    pub(super) async fn admit_events(&self, route: &config::Route, life: &mut RequestLife) -> Result<(), Rejection> {
        let Some(principal) = &life.principal else { return Ok(()) };
        let principal = principal.clone();
        let Some(max_calls) = principal.plan.concurrent_calls else { return Ok(()) };
        if life.call_lease.is_some() || !route.call.counted {
            return Ok(());
        }
        // The request has been counted already.
        let plan = Plan { concurrent_calls: Some(max_calls), ..Plan::default() };
        let charge = Charge { cost: 1, limits: None, opens_call: true };
        let subject = LimitSubject { token_id: &principal.id, version: principal.version };
        let asked = self.authenticator.epoch();
        let is_current = || self.authenticator.is_current(&principal, asked);
        let refusal = match self.limiter.decide(&subject, &plan, charge, Moment::now(), &is_current).await {
            Ok(LimitOutcome::Decided(decision, lease)) if decision.admitted => {
                life.call_lease = lease;
                return Ok(());
            }
            Ok(LimitOutcome::Decided(..)) => Rejection::TooManyCalls(max_calls),
            Ok(LimitOutcome::Stale) | Err(_) => Rejection::Undecided,
        };
        life.deny(refusal, &principal.plan)
    }

    /// Counts the request among those of its token that are in flight, if their number is limited.
    fn hold_in_flight(&self, principal: &Principal, life: &mut RequestLife) -> Result<(), Rejection> {
        let Some(max) = principal.plan.in_flight else { return Ok(()) };
        life.in_flight = self.in_flight.take(principal.id.clone(), max);
        match &life.in_flight {
            Some(_) => Ok(()),
            None => life.deny(Rejection::TooManyInFlight(max), &principal.plan),
        }
    }
}

/// Whether a request opens a call, and the plan limits their number: a WebSocket, gRPC (of any kind: nobody knows before its end how
/// long it lasts), or a stream of events and nothing else.
fn opens_call(request: &Request<IncomingBody>, route: Option<&config::Route>, plan: &Plan) -> bool {
    plan.concurrent_calls.is_some()
        && route.is_some_and(|route| route.call.counted)
        && (asks_for_websocket(request) || is_grpc(request) || asks_for_events(request))
}

/// The rejection that a decision means; `None` for an admission.
fn refusal(decision: &Decision, charge: Charge<'_>, principal: &Principal) -> Option<Rejection> {
    if decision.admitted {
        return None;
    }
    if let Some(max_calls) = decision.too_many_calls {
        return Some(Rejection::TooManyCalls(max_calls));
    }
    let window = decision.reported()?;
    let limit = principal.plan.limits_with(charge.limits).nth(window.index)?;
    Some(Rejection::RateLimited {
        limit: limit.name.clone(),
        count: limit.count,
        cost: charge.cost,
        window_s: limit.window_ms.get().div_ceil(1000),
        retry_after_s: window.retry_after_s,
    })
}
