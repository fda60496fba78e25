//! The limiter in this process's memory: the memory store, and the substitute while Redis does not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bounded_map::BoundedMap;
use super::call_counts::CallCounts;
use super::decision::{Decision, Source};
use super::log::JUMP_MS;
use super::query::{Charge, LimitQuery, LimitSubject};
use super::successor::{SuccessorRequest, SuccessorSender};
use super::token_logs::TokenLogs;
use crate::config::{Plan, RouteLimits};

/// A sweep checks so many tokens of each of the 64 shards, which holds each lock for some 10 µs.
const SWEEP: usize = 256;

/// The logs of this process's tokens, one limiter for all workers.
///
/// It holds a bounded number of tokens. When it is full, a new token evicts one of a few picked at random: one whose windows
/// are all empty, or else the one not admitted for longest. Only then can a token be admitted beyond its limits, so the
/// bound should exceed the tokens that are active within their longest window.
pub struct MemoryLimiter {
    pub(super) logs: BoundedMap<TokenLogs>,
    /// How many calls of a token are open, if any and if their number is limited. Calls are few and long.
    calls: Mutex<CallCounts>,
    /// Whether a successor decides. It is read under the locks, so that it changes for all at one moment.
    pub(super) frozen: AtomicBool,
    /// The way to it.
    pub(super) successor: Mutex<Option<SuccessorSender>>,
}

impl MemoryLimiter {
    /// A limiter for at most `tokens` tokens (rounded up to a multiple of 64), at some 130 bytes and 4 to 5 bytes per
    /// admission in its longest window each.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self {
            logs: BoundedMap::new(tokens),
            calls: Mutex::default(),
            frozen: AtomicBool::new(false),
            successor: Mutex::default(),
        }
    }

    /// Holds at most so many tokens from here on; those beyond leave one by one, as others come.
    pub fn resize(&self, tokens: usize) {
        self.logs.resize(tokens);
    }

    /// Decides whether a token's request may pass at `now_ms` (Unix ms): a cost counts all or not at all. Calls are not
    /// limited here.
    pub fn decide<'a>(&self, token_id: &str, plan: &Plan, charge: impl Into<Charge<'a>>, now_ms: u64) -> Decision {
        let charge = charge.into();
        if plan.limits.is_empty() && charge.limits.is_none() {
            return Decision::uncounted(Source::Local, now_ms);
        }
        self.with_logs(token_id, now_ms, |logs| logs.decide(plan, charge, now_ms, true))
    }

    /// Decides on a request, and on the call that it opens if calls of its token are limited. An admitted call is counted
    /// for its holder (`None`: this process) until it ends. `None`: a successor decides.
    pub(super) fn decide_query(&self, holder: Option<u64>, query: &LimitQuery<'_>, now_ms: u64) -> Option<Decision> {
        let LimitQuery { subject: LimitSubject { token_id, .. }, plan, charge, .. } = *query;
        let Some(max_calls) = query.max_calls() else {
            return self.decide_unless_frozen(token_id, plan, charge, now_ms);
        };
        let mut calls = self.calls();
        if self.frozen.load(Ordering::Relaxed) {
            return None;
        }
        if calls.of(token_id) >= max_calls {
            let deny = |logs: &mut TokenLogs| logs.decide(plan, charge, now_ms, false);
            return Some(self.without_keeping(token_id, deny).with_too_many_calls(max_calls));
        }
        let decision = self.decide_unless_frozen(token_id, plan, charge, now_ms)?;
        if decision.admitted {
            calls.open(holder, token_id);
        }
        Some(decision)
    }

    fn decide_unless_frozen(&self, token_id: &str, plan: &Plan, charge: Charge<'_>, now_ms: u64) -> Option<Decision> {
        if plan.limits.is_empty() && charge.limits.is_none() {
            return Some(Decision::uncounted(Source::Local, now_ms));
        }
        self.with_logs(token_id, now_ms, |logs| {
            (!self.frozen.load(Ordering::Relaxed)).then(|| logs.decide(plan, charge, now_ms, true))
        })
    }

    /// Logs what Redis admitted, so that this limiter is warm when Redis stops answering.
    pub(super) fn record(&self, query: &LimitQuery<'_>, now_ms: u64) {
        let LimitQuery { subject, plan, charge, .. } = *query;
        if !plan.limits.is_empty() || charge.limits.is_some() {
            self.with_logs(subject.token_id, now_ms, |logs| logs.record(plan, charge, now_ms));
        }
    }

    /// Counts a call that Redis admitted.
    pub(super) fn open_call(&self, token_id: &str) {
        self.calls().open(None, token_id);
    }

    /// Counts the end of a call.
    pub(super) fn end_call(&self, token_id: &str) {
        let mut calls = self.calls();
        let ended = calls.end(token_id);
        if self.frozen.load(Ordering::Relaxed) {
            self.tell_successor(SuccessorRequest::EndCall { token: token_id.into(), ended });
        }
    }

    /// Calls of a token that are counted here.
    pub(super) fn open_calls(&self, token_id: &str) -> u32 {
        self.calls().of(token_id)
    }

    pub(super) fn calls(&self) -> MutexGuard<'_, CallCounts> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answers of the plan's limits, and of each route's own, to a request of cost 1 at `now_ms` (Unix ms) if it were
    /// denied. Counts nothing.
    pub(super) fn peek(&self, token_id: &str, plan: &Plan, routes: &[&RouteLimits], now_ms: u64) -> Vec<Decision> {
        self.without_keeping(token_id, |logs| logs.peek(plan, routes, now_ms))
    }

    pub(super) fn with_logs<R>(&self, token_id: &str, now_ms: u64, f: impl FnOnce(&mut TokenLogs) -> R) -> R {
        // An empty log is worth nothing, another one the more, the younger its newest admission.
        let worth = |logs: &TokenLogs| if logs.is_expired(now_ms) { 0 } else { logs.newest_ms() };
        self.logs.with_entry(token_id, TokenLogs::default, worth, f)
    }

    /// The same, for what admits nothing: the logs of an unknown token are not kept.
    fn without_keeping<R>(&self, token_id: &str, f: impl Fn(&mut TokenLogs) -> R) -> R {
        self.logs.with(token_id, &f).unwrap_or_else(|| f(&mut TokenLogs::default()))
    }

    /// Clears all logs of a token.
    pub fn reset(&self, token_id: &str) {
        self.logs.remove(token_id);
        if self.frozen.load(Ordering::SeqCst) {
            self.tell_successor(SuccessorRequest::Reset(token_id.into()));
        }
    }

    /// Drops tokens whose windows are all empty at `now_ms` (Unix ms): a bounded part of them at each call, so that it
    /// can be called every second or so on a worker.
    pub fn sweep(&self, now_ms: u64) {
        // Even if the clock runs back a little.
        let surely_ms = now_ms.saturating_sub(JUMP_MS);
        self.logs.sweep(SWEEP, |logs| !logs.is_expired(surely_ms));
    }

    /// How many tokens were evicted, although their windows were not empty, since the last time: they may be admitted beyond
    /// their limits.
    pub fn take_forgotten(&self) -> u64 {
        self.logs.take_evicted()
    }

    /// Tokens that it holds.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.logs.len()
    }
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
    fn a_plan_without_limits_admits_everything_and_stores_nothing() {
        let limiter = MemoryLimiter::new(1_000);
        let plan = Plan { name: "free".into(), limits: [].into(), ..Plan::default() };
        let decision = limiter.decide("a", &plan, 1, 1_000_000);
        assert!(decision.admitted && decision.windows().is_empty() && decision.reported().is_none());
        assert_eq!(limiter.tokens(), 0);
    }

    #[test]
    fn recorded_admissions_count() {
        let limiter = MemoryLimiter::new(1_000);
        let subject = LimitSubject { token_id: "a", version: 1 };
        limiter
            .record(&LimitQuery { subject, plan: &plan(3, 1_000), charge: 2.into(), is_current: &|| true }, 1_000_000);
        assert!(limiter.decide("a", &plan(3, 1_000), 1, 1_000_000).admitted);
        assert!(!limiter.decide("a", &plan(3, 1_000), 1, 1_000_999).admitted);
        assert!(limiter.decide("a", &plan(3, 1_000), 1, 1_001_000).admitted);
    }
}
