//! Two steps that belong together, because a changed record is read again before anything is counted: who asks, and may
//! they, now.

use std::sync::Arc;
use std::time::Instant;

use http::Request;

use crate::auth::{Authenticator, Principal, Refusal};
use crate::body::IncomingBody;
use crate::config;
use crate::forward::asks_for_websocket;
use crate::limits::{Charge, Decision, LimitOutcome, LimitSubject, Limiter, Moment, Source};
use crate::response::Rejection;
use crate::telemetry::Phase;
use crate::tokens::UsageCounts;

use super::request::RequestLife;

/// A record that changes under one request more often than this is being fought over.
const MAX_REREADS: usize = 3;

/// Authentication, permission and limits: whether a request may pass now.
pub struct Admission {
    /// Token → principal.
    pub authenticator: Authenticator,
    /// The limits of its plan.
    pub limiter: Limiter,
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
        if let Ok(principal) = &admitted {
            self.usage.note(&principal.id, life.record.received);
        }
        admitted
    }

    async fn authenticate_and_decide(
        &self,
        request: &Request<IncomingBody>,
        route: Option<&config::Route>,
        life: &mut RequestLife,
    ) -> Result<Arc<Principal>, Rejection> {
        let opens_call = route.is_some() && asks_for_websocket(request);
        let (cost, limits) = route.map_or((1, None), |route| (route.cost, route.limits.as_ref()));
        let charge = Charge { cost, limits, opens_call };
        let (now, client) = (life.record.received, life.record.client);
        let started = Instant::now();
        let found = self.authenticator.authenticate(request.headers(), client, now).await;
        life.record.phase(Phase::Auth, started.elapsed());
        let mut principal = found.map_err(Rejection::Unauthenticated)?;
        life.set_principal(&principal);
        for _ in 0..MAX_REREADS {
            let subject = LimitSubject { token_id: &principal.id, version: principal.version };
            let started = Instant::now();
            let plan = &principal.plan;
            let asked = self.authenticator.epoch();
            let is_current = || self.authenticator.is_current(&principal, asked);
            let outcome = self.limiter.decide(&subject, plan, charge, Moment::now(), &is_current).await;
            life.record.phase(Phase::Decision, started.elapsed());
            let refusal = match outcome {
                Ok(LimitOutcome::Decided(decision, lease)) => {
                    life.call_lease = lease;
                    if decision.source == Source::Redis {
                        self.authenticator.confirm(&principal, asked, now);
                    }
                    let refusal = refusal(&decision, charge, &principal);
                    life.set_decision(decision, charge, &principal);
                    refusal
                }
                Ok(LimitOutcome::Stale) => {
                    let found = self.authenticator.reread(&principal, request.headers(), client, now).await;
                    principal = found.map_err(Rejection::Unauthenticated)?;
                    life.set_principal(&principal);
                    continue;
                }
                // The token may have changed, and no version was compared.
                Err(_) if !is_current() => return Err(Rejection::Unauthenticated(Refusal::Unavailable)),
                Err(_) => Some(Rejection::Undecided),
            };
            return match refusal {
                Some(_) if principal.plan.shadow => {
                    life.set_shadow_denied();
                    Ok(principal)
                }
                Some(refusal) => Err(refusal),
                None => Ok(principal),
            };
        }
        Err(Rejection::Undecided)
    }
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
