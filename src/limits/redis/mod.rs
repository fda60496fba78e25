//! The limiter that all instances share: one script, one round trip, Redis's clock.

mod background;
mod late;
mod question;
mod skew;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use question::{Question, RequestedCall};
use redis::Value;
pub use skew::ClockSkew;
use smallvec::SmallVec;

use super::answer::{read, read_pair};
use super::calls::{CallLease, CallLeases};
use super::decision::{Decision, Source};
use super::deny_cache::{CacheAnswer, DenyCache};
use super::memory::MemoryLimiter;
use super::merge::{Merger, merged_key};
use super::outcome::{LimitOutcome, Unavailable};
use super::pending_merges::PendingMerges;
use super::query::{Charge, LimitQuery, LimitSubject, pack};
use crate::config::{Limit, OnFailure, Plan, RouteLimits};
use crate::store::{LateAnswer, Redis, Script, StoreError};

macro_rules! decide {
    () => {
        concat!(
            include_str!("../layout.lua"),
            include_str!("../decide.lua"),
            include_str!("../ring.lua"),
            include_str!("../rewrite.lua")
        )
    };
}

/// The decision script.
pub const DECIDE: &str = decide!();

/// The same for a request through a route with limits of its own: one decision on two logs.
pub const PAIR: &str =
    concat!("local function decide(KEYS, ARGV)\n", decide!(), "\nend\n", include_str!("../pair.lua"));

/// The script that keeps leases of calls.
pub const CALLS: &str = include_str!("../calls.lua");

/// Clears logs of a token, and remembers when, lest what an instance admitted before is merged into them later. (No window is
/// longer than 30 days.) It is announced where changed records are; lacking the right to publish is no reason to fail.
const RESET: &str = "local time = redis.call('TIME')
for i = 1, #KEYS, 2 do
  redis.call('DEL', KEYS[i])
  redis.call('ZADD', KEYS[i + 1], string.format('%d', time[1] * 1000 + time[2] / 1000), 'reset')
  redis.call('PEXPIRE', KEYS[i + 1], '2592000000')
end
redis.pcall('PUBLISH', ARGV[1], ARGV[2])";

/// The prefix of a token's id when its record has not changed, but its logs were cleared.
const CLEARED: &str = "cleared ";

/// Errors that only this limiter sees are logged once in so many milliseconds.
const LOG_INTERVAL_MS: u64 = 10_000;

type RedisKey = SmallVec<[u8; 64]>;

/// The limiter in Redis. One per worker; the local limiter and the deny cache are shared by all workers of a process.
pub struct RedisLimiter {
    redis: Redis,
    decide: Script,
    pair: Script,
    reset: Script,
    calls: Script,
    leases: Arc<CallLeases>,
    on_failure: OnFailure,
    local: Arc<MemoryLimiter>,
    merger: Arc<Merger>,
    denials: Arc<DenyCache>,
    skew: Arc<ClockSkew>,
    next_log_ms: AtomicU64,
}

impl RedisLimiter {
    /// A limiter on one connection. While it does not answer, `on_failure` decides, and `local` if it says so: until
    /// then that is kept warm with what this process admits. `pending` is what was admitted locally meanwhile.
    #[must_use]
    pub fn new(
        redis: Redis,
        on_failure: OnFailure,
        local: Arc<MemoryLimiter>,
        denials: Arc<DenyCache>,
        pending: Arc<PendingMerges>,
    ) -> Self {
        let [decide, pair, reset, calls] = [DECIDE, PAIR, RESET, CALLS].map(Script::new);
        let merger = Arc::new(Merger::new(redis.clone(), pending));
        let (leases, skew, next_log_ms) = (Arc::default(), Arc::default(), AtomicU64::new(0));
        Self { redis, decide, pair, reset, calls, leases, on_failure, local, merger, denials, skew, next_log_ms }
    }

    /// The same with what all workers know of Redis's clock.
    #[must_use]
    pub fn with_clock_skew(self, skew: Arc<ClockSkew>) -> Self {
        Self { skew, ..self }
    }

    /// The same with scripts in place of [`DECIDE`], [`PAIR`] and [`CALLS`], so that a test can put another clock in them.
    #[doc(hidden)]
    #[must_use]
    pub fn with_scripts(self, decide: &'static str, pair: &'static str, calls: &'static str) -> Self {
        let [decide, pair, calls] = [decide, pair, calls].map(Script::new);
        Self { decide, pair, calls, ..self }
    }

    pub(super) async fn decide(&self, query: &LimitQuery<'_>, now_ms: u64) -> Result<LimitOutcome, Unavailable> {
        let started = Instant::now();
        let recheck = match self.denials.check(query, self.redis.deadline()).await {
            CacheAnswer::Denied(denial) => return Ok(LimitOutcome::Decided(denial, None)),
            CacheAnswer::Unanswered => {
                return self.decide_locally(query, self.new_lease(query), now_ms + millis_since(started), None);
            }
            CacheAnswer::Ask(recheck) => recheck,
        };
        let caught_up = self.catch_up(query).await;
        // From here on the lease may be taken, even if the request goes away before the answer.
        let lease = self.new_lease(query);
        let answer = match caught_up {
            Ok(()) => {
                // An answer that a broken connection takes along may count twice.
                let question = self.question(query, lease.as_ref());
                self.redis.ask(&question).await.and_then(|answer| read_answer(answer, |bytes| read_for(query, bytes)))
            }
            Err(error) => Err(error),
        };
        let answered = Instant::now();
        let (asked_ms, now_ms) = (now_ms, now_ms + answered.duration_since(started).as_millis() as u64);
        match answer {
            Ok(None) => {
                recheck.stale();
                drop(lease.and_then(|lease| lease.answered(false)));
                Ok(LimitOutcome::Stale)
            }
            Ok(Some(mut decision)) => {
                self.skew.translate(&mut decision, asked_ms, now_ms);
                recheck.decided(&decision, answered);
                if decision.admitted && self.on_failure == OnFailure::Local {
                    self.local.record(query, now_ms);
                }
                let lease = lease.and_then(|lease| lease.answered(decision.admitted));
                Ok(LimitOutcome::Decided(decision, lease))
            }
            Err(error) => {
                recheck.failed();
                self.report(&error, now_ms);
                let late = if let StoreError::Deadline(late) = error { late } else { None };
                self.decide_locally(query, lease, now_ms, late)
            }
        }
    }

    /// A lease to be requested, if the request needs one.
    fn new_lease(&self, query: &LimitQuery<'_>) -> Option<CallLease> {
        query.max_calls()?;
        Some(CallLease::requested(self.local.clone(), self.leases.clone(), query.subject.token_id))
    }

    /// Makes sure that Redis knows what this process admitted in its stead, in the logs of the query.
    async fn catch_up(&self, query: &LimitQuery<'_>) -> Result<(), StoreError> {
        if self.merger.pending.is_empty() {
            return Ok(());
        }
        let logs = self.logs(query);
        Box::pin(self.merger.catch_up(logs.iter().map(|(log, _)| &log[..]))).await
    }

    /// What Redis is asked, with the keys of [`RedisLimiter::key`].
    fn question<'a>(&'a self, query: &'a LimitQuery<'a>, lease: Option<&CallLease>) -> Question<'a> {
        let call = query.max_calls().zip(lease.and_then(CallLease::name)).map(|(max_calls, lease)| {
            // What this process holds by itself is known without Redis, which may have lost it.
            let is_free = self.local.open_calls(query.subject.token_id) < max_calls;
            let max_calls = if is_free { max_calls } else { 0 };
            RequestedCall { max_calls, lease, unrenewed_ms: self.unrenewed_ms() }
        });
        let script = if query.charge.limits.is_some() { &self.pair } else { &self.decide };
        Question { namespace: self.redis.namespace(), script, query, call }
    }

    /// Decides while Redis does not answer. It may have taken the lease before it fell silent: one that this process does not
    /// grant is given back, one that it grants keeps its name.
    fn decide_locally(
        &self,
        query: &LimitQuery<'_>,
        lease: Option<CallLease>,
        now_ms: u64,
        late: Option<LateAnswer>,
    ) -> Result<LimitOutcome, Unavailable> {
        let decided = self.decide_by_policy(query, now_ms);
        let is_counted =
            self.on_failure == OnFailure::Local && decided.as_ref().is_ok_and(|decision| decision.admitted);
        match late {
            Some(answer) => {
                let passes = query.plan.shadow || decided.as_ref().is_ok_and(|decision| decision.admitted);
                self.follow(query, answer, is_counted, passes);
            }
            None if is_counted => {
                for (log, limits) in self.logs(query) {
                    self.merger.pending.add(&log, limits, query.charge.cost, Instant::now());
                }
            }
            None => {}
        }
        let decision = decided?;
        let lease = lease.filter(|_| decision.admitted).map(|lease| lease.granted(is_counted));
        Ok(LimitOutcome::Decided(decision, lease))
    }

    fn decide_by_policy(&self, query: &LimitQuery<'_>, now_ms: u64) -> Result<Decision, Unavailable> {
        if !(query.is_current)() {
            return Err(Unavailable);
        }
        self.redis.note_decided_without();
        let full = query.max_calls().filter(|max_calls| self.local.open_calls(query.subject.token_id) >= *max_calls);
        match (self.on_failure, full) {
            (OnFailure::Local, _) => {
                let decision = self.local.decide_query(None, query, now_ms);
                // Beside Redis nothing is handed over.
                decision.ok_or(Unavailable)
            }
            (OnFailure::Allow, _) => Ok(Decision::uncounted(Source::Local, now_ms)),
            (OnFailure::Deny, None) => Err(Unavailable),
            (OnFailure::Deny, Some(max_calls)) => {
                let denial = Decision::new(false, Source::Local, query.charge.cost, now_ms, []);
                Ok(denial.with_too_many_calls(max_calls))
            }
        }
    }

    /// The answers of the plan's limits, and of each route's own, to a request of cost 1 if it were denied; `None` if the
    /// token's version is another one by now.
    pub(super) async fn peek(
        &self,
        subject: &LimitSubject<'_>,
        plan: &Plan,
        routes: &[&RouteLimits],
        now_ms: u64,
    ) -> Result<Option<Vec<Decision>>, StoreError> {
        let started = Instant::now();
        let [token, log] = ["token", "log"].map(|name| self.key(subject.token_id, name));
        let own = routes.iter().map(|own| (self.route_key(subject.token_id, own), &own.limits));
        let logs: Vec<_> = std::iter::once((log, &plan.limits)).chain(own).collect();
        self.merger.catch_up(logs.iter().map(|(log, _)| &log[..])).await?;
        let version = subject.version.to_string();
        let denials = logs.iter().map(async |(log, limits)| {
            let args = [version.as_bytes(), &pack(0, limits)];
            let answer = self.redis.run(&self.decide, &[&token, log], &args).await?;
            let mut denial = read_answer(answer, |bytes| read(bytes, limits, 1, None))?;
            let answered_ms = now_ms + millis_since(started);
            denial.iter_mut().for_each(|denial| self.skew.translate(denial, now_ms, answered_ms));
            Ok(denial)
        });
        futures_util::future::try_join_all(denials).await.map(|denials| denials.into_iter().collect())
    }

    /// Clears a token's log, and those for `routes`.
    pub(super) async fn reset(&self, token_id: &str, routes: &[&RouteLimits]) -> Result<(), StoreError> {
        let logs = std::iter::once(self.key(token_id, "log"));
        let logs: Vec<_> = logs.chain(routes.iter().map(|own| self.route_key(token_id, own))).collect();
        let merged: Vec<_> = logs.iter().map(|log| merged_key(log)).collect();
        let keys: Vec<_> = logs.iter().zip(&merged).flat_map(|(log, merged)| [&log[..], &merged[..]]).collect();
        let channel = format!("{}:changed", self.redis.namespace());
        let announced = [CLEARED, token_id].concat();
        self.redis.run(&self.reset, &keys, &[channel.as_bytes(), announced.as_bytes()]).await?;
        logs.iter().for_each(|log| self.merger.pending.forget(log));
        on_invalidation(&announced, &self.local, &self.denials);
        Ok(())
    }

    /// `<namespace>:{<token id>}:<name>`: the braces put all keys of a token into one slot of a cluster.
    fn key(&self, token_id: &str, name: &str) -> RedisKey {
        let mut key = RedisKey::new();
        for part in [self.redis.namespace(), ":{", token_id, "}:", name] {
            key.extend_from_slice(part.as_bytes());
        }
        key
    }

    fn route_key(&self, token_id: &str, own: &RouteLimits) -> RedisKey {
        let mut key = self.key(token_id, "log/");
        key.extend_from_slice(own.route.as_bytes());
        key
    }

    /// The logs of a query, and the limits on them.
    fn logs<'q>(&self, query: &LimitQuery<'q>) -> SmallVec<[(RedisKey, &'q [Limit]); 2]> {
        let LimitQuery { subject, plan, charge, .. } = *query;
        let plan = (!plan.limits.is_empty()).then(|| (self.key(subject.token_id, "log"), &plan.limits[..]));
        let route = charge.limits.map(|own| (self.route_key(subject.token_id, own), &own.limits[..]));
        plan.into_iter().chain(route).collect()
    }

    /// An outage is reported by the connection, once; what is wrong with this script alone is reported here.
    fn report(&self, error: &StoreError, now_ms: u64) {
        if matches!(error, StoreError::Down | StoreError::Deadline(_))
            || now_ms < self.next_log_ms.load(Ordering::Relaxed)
        {
            return;
        }
        self.next_log_ms.store(now_ms + LOG_INTERVAL_MS, Ordering::Relaxed);
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            cause,
            on_failure = self.on_failure.as_str(),
            "{error}; this request is decided by store.redis.on_failure"
        );
    }
}

/// Forgets what this process remembers of a token after an announcement on `<namespace>:changed`, of its record or of its
/// logs.
pub fn on_invalidation(announced: &str, local: &MemoryLimiter, denials: &DenyCache) {
    let cleared = announced.strip_prefix(CLEARED);
    if let Some(token_id) = cleared {
        local.reset(token_id);
    }
    denials.forget(cleared.unwrap_or(announced));
}

/// What a script answered: `None` if the token's version is another one by now.
fn read_answer(answer: Value, read: impl FnOnce(&[u8]) -> Option<Decision>) -> Result<Option<Decision>, StoreError> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => {
            read(&bytes).map(Some).ok_or(StoreError::Unexpected("the decision script's answer has another length"))
        }
        _ => Err(StoreError::Unexpected("the decision script's answer is not a string")),
    }
}

fn read_for(query: &LimitQuery<'_>, bytes: &[u8]) -> Option<Decision> {
    let LimitQuery { plan, charge: Charge { cost, limits: own, .. }, .. } = *query;
    match own {
        None => read(bytes, &plan.limits, cost, query.max_calls()),
        Some(own) => read_pair(bytes, &plan.limits, &own.limits, cost, query.max_calls()),
    }
}

fn millis_since(started: Instant) -> u64 {
    started.elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests;
