//! What the decision script is asked, written from what is known of the request.

use super::super::calls::{CallLease, LeaseName};
use super::super::query::{Charge, LimitQuery, pack};
use super::RedisLimiter;
use crate::store::{Request, Script, write_bulk, write_bulk_of, write_number};

/// A query of the limiter as a run of the script. Its keys are those of [`RedisLimiter::key`].
pub(super) struct Question<'a> {
    limiter: &'a RedisLimiter,
    query: &'a LimitQuery<'a>,
    call: Option<RequestedCall>,
}

/// A call that the request would open.
struct RequestedCall {
    max_calls: u32,
    lease: LeaseName,
    /// See [`RedisLimiter::unrenewed_ms`].
    unrenewed_ms: u128,
}

impl<'a> Question<'a> {
    pub(super) fn new(limiter: &'a RedisLimiter, query: &'a LimitQuery<'a>, lease: Option<&CallLease>) -> Self {
        let call = query.max_calls().zip(lease.and_then(CallLease::name)).map(|(max_calls, lease)| {
            // What this process holds by itself is known without Redis, which may have lost it.
            let is_free = limiter.local.open_calls(query.subject.token_id) < max_calls;
            RequestedCall {
                max_calls: if is_free { max_calls } else { 0 },
                lease,
                unrenewed_ms: limiter.unrenewed_ms(),
            }
        });
        Self { limiter, query, call }
    }
}

impl Request for Question<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let LimitQuery { subject, plan, charge: Charge { cost, limits: own, .. }, .. } = *self.query;
        let (pairs, calls) = (usize::from(own.is_some()), usize::from(self.call.is_some()));
        self.script_run().write_call(out, 2 + pairs + calls, 2 + pairs + 3 * calls);
        let namespace = self.limiter.redis.namespace().as_bytes();
        let key = |out: &mut Vec<u8>, name: &[u8], route: &[u8]| {
            write_bulk_of(out, &[namespace, b":{", subject.token_id.as_bytes(), b"}:", name, route]);
        };
        key(out, b"token", b"");
        key(out, b"log", b"");
        own.iter().for_each(|own| key(out, b"log/", own.route.as_bytes()));
        self.call.iter().for_each(|_| key(out, b"calls", b""));
        write_number(out, subject.version);
        write_bulk(out, &pack(cost, &plan.limits));
        own.iter().for_each(|own| write_bulk(out, &pack(cost, &own.limits)));
        if let Some(call) = &self.call {
            write_number(out, call.max_calls);
            write_bulk(out, &call.lease);
            write_number(out, call.unrenewed_ms);
        }
    }

    fn key(&self) -> Option<&[u8]> {
        // All its keys have the token's id in braces.
        Some(self.query.subject.token_id.as_bytes())
    }

    fn script(&self) -> Option<&Script> {
        Some(self.script_run())
    }
}

impl Question<'_> {
    fn script_run(&self) -> &Script {
        if self.query.charge.limits.is_some() { &self.limiter.pair } else { &self.limiter.decide }
    }
}
