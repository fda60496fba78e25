//! The limiter in this process's memory: the memory store, and the stand-in while Redis is out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::decision::{Decision, Source};
use super::log::JUMP_MS;
use super::logs::Logs;
use super::question::Charge;
use super::shards::Shards;
use crate::config::{Plan, RouteLimits};

/// A sweep looks at so many tokens of each of the 64 shards, which holds each lock for some 10 µs.
const SWEEP: usize = 256;

/// The logs of this process's tokens, one limiter for all workers.
///
/// It holds a bounded number of tokens. When it is full, a new token takes the place of one of a few looked at: one whose
/// windows are all empty, or else the one not admitted for longest. Only then can a token be admitted beyond its limits,
/// so the bound should exceed the tokens that are active within their longest window.
pub struct MemoryLimiter {
    logs: Shards<Logs>,
    /// How many calls of a token are open in this process, if any and if their number is limited. Calls are few and long.
    calls: Mutex<HashMap<Box<str>, u32>>,
}

impl MemoryLimiter {
    /// A limiter for at most `tokens` tokens (rounded up to a multiple of 64), at some 130 bytes and 4 to 5 bytes per
    /// admission in its longest window each.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self { logs: Shards::new(tokens), calls: Mutex::default() }
    }

    /// Decides whether a token's request may pass at `now_ms` (Unix ms): a cost counts all or not at all.
    pub fn decide<'a>(&self, token_id: &str, plan: &Plan, charge: impl Into<Charge<'a>>, now_ms: u64) -> Decision {
        let charge = charge.into();
        if plan.limits.is_empty() && charge.limits.is_none() {
            return Decision::uncounted(Source::Local, now_ms);
        }
        self.logs.with_entry(token_id, Logs::default, worth(now_ms), |logs| logs.decide(plan, charge, now_ms))
    }

    /// Writes down what the shared store admitted, so that this limiter is warm when it has to stand in.
    pub(super) fn record(&self, token_id: &str, plan: &Plan, charge: Charge<'_>, now_ms: u64) {
        if !plan.limits.is_empty() || charge.limits.is_some() {
            self.logs.with_entry(token_id, Logs::default, worth(now_ms), |logs| logs.record(plan, charge, now_ms));
        }
    }

    /// Decides like [`MemoryLimiter::decide`] on a request that opens a call, of which the token may have `most` open. If it
    /// is admitted, the call is counted until [`MemoryLimiter::end_call`].
    pub(super) fn decide_call(
        &self,
        token_id: &str,
        plan: &Plan,
        most: u32,
        charge: Charge<'_>,
        now_ms: u64,
    ) -> Decision {
        let mut calls = self.calls();
        let open = calls.get(token_id).copied().unwrap_or(0);
        if open < most {
            let decision = self.decide(token_id, plan, charge, now_ms);
            if decision.admitted {
                calls.insert(token_id.into(), open + 1);
            }
            return decision;
        }
        let refuse = |logs: &mut Logs| logs.refuse(plan, charge, now_ms);
        let refusal = self.logs.with(token_id, refuse).unwrap_or_else(|| refuse(&mut Logs::default()));
        refusal.with_too_many_calls(most)
    }

    /// Counts a call that somebody else let in.
    pub(super) fn open_call(&self, token_id: &str) {
        *self.calls().entry(token_id.into()).or_default() += 1;
    }

    /// Counts the end of a call.
    pub(super) fn end_call(&self, token_id: &str) {
        let mut calls = self.calls();
        let Some(open) = calls.get_mut(token_id) else { return };
        *open -= 1;
        if *open == 0 {
            calls.remove(token_id);
        }
    }

    /// Calls of a token that are counted here.
    pub(super) fn open_calls(&self, token_id: &str) -> u32 {
        self.calls().get(token_id).copied().unwrap_or(0)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<Box<str>, u32>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What such a request would be told at `now_ms` (Unix ms) if it were refused. Counts nothing.
    pub(super) fn peek(&self, token_id: &str, plan: &Plan, charge: Charge<'_>, now_ms: u64) -> Decision {
        let peek = |logs: &mut Logs| logs.peek(plan, charge, now_ms);
        self.logs.with(token_id, peek).unwrap_or_else(|| peek(&mut Logs::default()))
    }

    /// What a request of cost 1 would be told at `now_ms` (Unix ms) if a route's own limits refused it. Counts nothing.
    pub(super) fn peek_route(&self, token_id: &str, own: &RouteLimits, now_ms: u64) -> Decision {
        let peek = |logs: &mut Logs| logs.peek_route(own, 1, now_ms);
        self.logs.with(token_id, peek).unwrap_or_else(|| peek(&mut Logs::default()))
    }

    /// Clears all logs of a token.
    pub(super) fn reset(&self, token_id: &str) {
        self.logs.remove(token_id);
    }

    /// Forgets tokens whose windows are all empty at `now_ms` (Unix ms): a bounded part of them at each call, so that it
    /// can be called every second or so on a worker.
    pub fn sweep(&self, now_ms: u64) {
        // Even if the clock runs back a little.
        let surely_ms = now_ms.saturating_sub(JUMP_MS);
        self.logs.sweep(SWEEP, |logs| !logs.is_expired(surely_ms));
    }

    /// How many tokens had to make room for others, although their windows were not empty, since this was asked last: they may be
    /// admitted beyond their limits.
    pub fn take_forgotten(&self) -> u64 {
        self.logs.take_lost()
    }

    /// Tokens that it holds.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.logs.len()
    }
}

/// What a token's logs are worth keeping: nothing if it is empty, otherwise the more, the younger its newest admission.
fn worth(now_ms: u64) -> impl Fn(&Logs) -> u64 {
    move |logs| if logs.is_expired(now_ms) { 0 } else { logs.newest_ms() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Limit;

    fn plan(count: u32, window_ms: u32) -> Plan {
        let limit = Limit { name: "w".into(), count, window_ms: NonZeroU32::new(window_ms).unwrap() };
        Plan { name: "p".into(), limits: [limit].into(), ..Plan::default() }
    }

    #[test]
    fn a_full_limiter_gives_up_empty_logs_first() {
        let limiter = MemoryLimiter::new(64);
        let plan = plan(1, 1_000);
        for i in 0..1_000 {
            limiter.decide(&format!("old{i}"), &plan, 1, 1_000_000);
        }
        assert_eq!((limiter.tokens(), limiter.take_forgotten()), (64, 1_000 - 64));
        // Theirs are empty by now, and are no loss.
        limiter.decide("new", &plan, 1, 1_001_000);
        assert_eq!((limiter.tokens(), limiter.take_forgotten()), (64, 0));
    }

    #[test]
    fn a_sweep_forgets_what_has_left_its_windows_and_nothing_else() {
        let limiter = MemoryLimiter::new(1_000);
        limiter.decide("a", &plan(1, 1_000), 1, 1_000_000);
        limiter.decide("b", &plan(1, 2_000), 1, 1_000_000);
        limiter.sweep(1_005_999);
        assert_eq!(limiter.tokens(), 2);
        limiter.sweep(1_006_000);
        assert_eq!(limiter.tokens(), 1);
        assert!(!limiter.decide("b", &plan(1, 2_000), 1, 1_001_000).admitted);
    }

    #[test]
    fn a_plan_without_limits_admits_and_holds_nothing() {
        let limiter = MemoryLimiter::new(1_000);
        let plan = Plan { name: "free".into(), limits: [].into(), ..Plan::default() };
        let decision = limiter.decide("a", &plan, 1, 1_000_000);
        assert!(decision.admitted && decision.windows().is_empty() && decision.reported().is_none());
        assert_eq!(limiter.tokens(), 0);
    }

    #[test]
    fn what_was_recorded_counts() {
        let limiter = MemoryLimiter::new(1_000);
        limiter.record("a", &plan(3, 1_000), 2.into(), 1_000_000);
        assert!(limiter.decide("a", &plan(3, 1_000), 1, 1_000_000).admitted);
        assert!(!limiter.decide("a", &plan(3, 1_000), 1, 1_000_999).admitted);
        assert!(limiter.decide("a", &plan(3, 1_000), 1, 1_001_000).admitted);
    }
}
