//! The limiter that all instances share: one script, one round trip, Redis's clock.

mod keep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use redis::Value;
use smallvec::SmallVec;

use super::answer::{read, read_pair};
use super::calls::{CallLease, LeaseName, Ledger};
use super::decision::{Decision, Source};
use super::deny_cache::{DenyCache, Look};
use super::journal::Journal;
use super::memory::MemoryLimiter;
use super::merge::{Merger, merged_key};
use super::question::{Question, pack};
use super::{Asker, Charge, Outcome, Unavailable};
use crate::config::{Limit, OnFailure, Plan, RouteLimits};
use crate::store::{Redis, Script, StoreError};

/// The decision script.
pub const DECIDE: &str = include_str!("decide.lua");

/// The same for a request through a route with limits of its own: one decision on two logs.
pub const PAIR: &str =
    concat!("local function decide(KEYS, ARGV)\n", include_str!("decide.lua"), "\nend\n", include_str!("pair.lua"));

/// The script that keeps leases of calls.
pub const CALLS: &str = include_str!("calls.lua");

/// Clears logs of a token, and remembers when, lest what an instance admitted before is merged into them later. (No window is
/// longer than 30 days.) It is announced where changed records are; that it may not be (by the user's rights) is no reason to
/// fail.
const RESET: &str = "local time = redis.call('TIME')
for i = 1, #KEYS, 2 do
  redis.call('DEL', KEYS[i])
  redis.call('ZADD', KEYS[i + 1], string.format('%d', time[1] * 1000 + time[2] / 1000), 'reset')
  redis.call('PEXPIRE', KEYS[i + 1], '2592000000')
end
redis.pcall('PUBLISH', ARGV[1], ARGV[2])";

/// What stands before a token's id when not its record has changed, but its logs were cleared.
const CLEARED: &str = "cleared ";

/// Errors that only this limiter sees are logged once in so many milliseconds.
const LOG_INTERVAL_MS: u64 = 10_000;

type Key = SmallVec<[u8; 64]>;

/// The limiter in Redis. One per worker; the local limiter and the deny cache are shared by all workers of a process.
pub struct RedisLimiter {
    redis: Redis,
    script: Script,
    pair: Script,
    reset: Script,
    calls: Script,
    ledger: Arc<Ledger>,
    on_failure: OnFailure,
    local: Arc<MemoryLimiter>,
    merger: Box<Merger>,
    denials: Arc<DenyCache>,
    next_log_ms: AtomicU64,
}

impl RedisLimiter {
    /// A limiter on one connection. While it does not answer, `on_failure` decides; `local` then stands in, and until then
    /// is kept warm with what this process admits.
    #[must_use]
    pub fn new(redis: Redis, on_failure: OnFailure, local: Arc<MemoryLimiter>, denials: Arc<DenyCache>) -> Self {
        Self {
            merger: Box::new(Merger::new(redis.clone(), Arc::default())),
            redis,
            script: Script::new(DECIDE),
            pair: Script::new(PAIR),
            reset: Script::new(RESET),
            calls: Script::new(CALLS),
            ledger: Arc::default(),
            on_failure,
            local,
            denials,
            next_log_ms: AtomicU64::new(0),
        }
    }

    /// The same with a journal that other workers share, of what is admitted locally while Redis does not answer.
    #[must_use]
    pub fn with_journal(self, journal: Arc<Journal>) -> Self {
        Self { merger: Box::new(Merger::new(self.redis.clone(), journal)), ..self }
    }

    /// The same with scripts in place of [`DECIDE`], [`PAIR`] and [`CALLS`], so that a test can put another clock in them.
    #[doc(hidden)]
    #[must_use]
    pub fn with_scripts(self, decide: &'static str, pair: &'static str, calls: &'static str) -> Self {
        let [script, pair, calls] = [decide, pair, calls].map(Script::new);
        Self { script, pair, calls, ..self }
    }

    pub(super) async fn decide(&self, question: &Question<'_>, now_ms: u64) -> Result<Outcome, Unavailable> {
        let started = Instant::now();
        let turn = match self.denials.look(question, self.redis.deadline()).await {
            Look::Refused(refusal) => return Ok(Outcome::Decided(refusal)),
            Look::Failed => return self.decide_without(question, now_ms + millis_since(started)),
            Look::Ask(turn) => turn,
        };
        let answer = match self.catch_up(question).await {
            Ok(()) => Box::pin(self.ask(question, None)).await,
            Err(error) => Err(error),
        };
        let now_ms = now_ms + millis_since(started);
        match answer {
            Ok(None) => {
                turn.stale();
                Ok(Outcome::Stale)
            }
            Ok(Some(decision)) => {
                turn.decided(&decision, Instant::now());
                if decision.admitted {
                    self.record(question, now_ms);
                }
                Ok(Outcome::Decided(decision))
            }
            Err(error) => {
                turn.failed();
                self.report(&error, now_ms);
                self.decide_without(question, now_ms)
            }
        }
    }

    /// Sees to it that Redis knows what this process admitted in its stead, in the logs that are asked.
    async fn catch_up(&self, question: &Question<'_>) -> Result<(), StoreError> {
        if self.merger.journal().is_empty() {
            return Ok(());
        }
        let logs = self.logs(question);
        Box::pin(self.merger.catch_up(logs.iter().map(|(log, _)| &log[..]))).await
    }

    /// Asks Redis; `None` if the token's version is another one by now.
    async fn ask(
        &self,
        question: &Question<'_>,
        call: Option<(u32, LeaseName)>,
    ) -> Result<Option<Decision>, StoreError> {
        let Question { asker, plan, charge: Charge { cost, limits: own }, .. } = *question;
        let [token, log] = ["token", "log"].map(|name| self.key(asker.token_id, name));
        let (mut version, mut digits) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (version, limits) = (version.format(asker.version).as_bytes(), pack(cost, &plan.limits));
        let route = own.map(|own| (self.route_key(asker.token_id, own), pack(cost, &own.limits)));
        let (most, calls) = (call.map(|(most, _)| most), self.key(asker.token_id, "calls"));
        let mut keys = SmallVec::<[&[u8]; 4]>::from_slice(&[&token, &log]);
        let mut args = SmallVec::<[&[u8]; 5]>::from_slice(&[version, &limits]);
        if let Some((log, limits)) = &route {
            keys.push(log);
            args.push(limits);
        }
        if let Some((most, name)) = &call {
            keys.push(&calls);
            args.extend_from_slice(&[digits.format(*most).as_bytes(), name]);
        }
        let script = if own.is_some() { &self.pair } else { &self.script };
        read_answer(self.redis.run(script, &keys, &args).await?, |bytes| match own {
            None => read(bytes, &plan.limits, cost, most),
            Some(own) => read_pair(bytes, &plan.limits, &own.limits, cost, most),
        })
    }

    /// Keeps the local limiter warm with what Redis has admitted.
    fn record(&self, question: &Question<'_>, now_ms: u64) {
        if self.on_failure == OnFailure::Local {
            self.local.record(question.asker.token_id, question.plan, question.charge, now_ms);
        }
    }

    /// Where a token stands, in its plan's limits and in those of each of `routes`; `None` if its version is another one by now.
    pub(super) async fn peek(
        &self,
        asker: &Asker<'_>,
        plan: &Plan,
        routes: &[&RouteLimits],
    ) -> Result<Option<Vec<Decision>>, StoreError> {
        let logs = std::iter::once((self.key(asker.token_id, "log"), &plan.limits));
        let logs = logs.chain(routes.iter().map(|own| (self.route_key(asker.token_id, own), &own.limits)));
        let logs: Vec<_> = logs.collect();
        self.merger.catch_up(logs.iter().map(|(log, _)| &log[..])).await?;
        let seen = logs.iter().map(async |(log, limits)| self.look(asker, log, limits).await);
        futures_util::future::try_join_all(seen).await.map(|seen| seen.into_iter().collect())
    }

    /// What a request of cost 1 would be told if the limits on this log refused it.
    async fn look(&self, asker: &Asker<'_>, log: &[u8], limits: &[Limit]) -> Result<Option<Decision>, StoreError> {
        let (token, mut version) = (self.key(asker.token_id, "token"), itoa::Buffer::new());
        let args = [version.format(asker.version).as_bytes(), &pack(0, limits)];
        let answer = self.redis.run(&self.script, &[&token, log], &args).await?;
        read_answer(answer, |bytes| read(bytes, limits, 1, None))
    }

    pub(super) fn forget(&self, token_id: &str) {
        self.denials.forget(token_id);
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
        self.local.reset(token_id);
        logs.iter().for_each(|log| self.merger.journal().forget(log));
        self.denials.forget(token_id);
        Ok(())
    }

    /// Decides on a request that opens a call, of which its token may have `most` open.
    pub(super) async fn decide_call(
        &self,
        question: &Question<'_>,
        most: u32,
        now_ms: u64,
    ) -> Result<(Outcome, Option<CallLease>), Unavailable> {
        let started = Instant::now();
        let turn = match self.denials.look(question, self.redis.deadline()).await {
            Look::Refused(refusal) => return Ok((Outcome::Decided(refusal), None)),
            Look::Failed => {
                let (lease, _) = self.ask_for_call(question);
                return self.decide_call_without(question, most, lease, now_ms + millis_since(started));
            }
            Look::Ask(turn) => turn,
        };
        let caught_up = self.catch_up(question).await;
        // From here on the lease may be taken, even if nobody waits for the answer any more.
        let (lease, name) = self.ask_for_call(question);
        let answer = match caught_up {
            Ok(()) => Box::pin(self.ask(question, Some((most, name)))).await,
            Err(error) => Err(error),
        };
        let now_ms = now_ms + millis_since(started);
        match answer {
            Ok(None) => {
                turn.stale();
                lease.refused();
                Ok((Outcome::Stale, None))
            }
            Ok(Some(decision)) => {
                turn.decided(&decision, Instant::now());
                if decision.admitted {
                    self.record(question, now_ms);
                    return Ok((Outcome::Decided(decision), Some(lease.granted(false))));
                }
                lease.refused();
                Ok((Outcome::Decided(decision), None))
            }
            Err(error) => {
                turn.failed();
                self.report(&error, now_ms);
                self.decide_call_without(question, most, lease, now_ms)
            }
        }
    }

    fn ask_for_call(&self, question: &Question<'_>) -> (CallLease, LeaseName) {
        CallLease::asked_for(self.local.clone(), self.ledger.clone(), question.asker.token_id)
    }

    /// `<namespace>:{<token id>}:<name>`: the braces put all keys of a token into one slot of a cluster.
    fn key(&self, token_id: &str, name: &str) -> Key {
        let mut key = Key::new();
        for part in [self.redis.namespace(), ":{", token_id, "}:", name] {
            key.extend_from_slice(part.as_bytes());
        }
        key
    }

    fn route_key(&self, token_id: &str, own: &RouteLimits) -> Key {
        let mut key = self.key(token_id, "log/");
        key.extend_from_slice(own.route.as_bytes());
        key
    }

    /// The logs that a question is about, and the limits on them.
    fn logs<'q>(&self, question: &Question<'q>) -> SmallVec<[(Key, &'q [Limit]); 2]> {
        let Question { asker, plan, charge, .. } = *question;
        let plan = (!plan.limits.is_empty()).then(|| (self.key(asker.token_id, "log"), &plan.limits[..]));
        let route = charge.limits.map(|own| (self.route_key(asker.token_id, own), &own.limits[..]));
        plan.into_iter().chain(route).collect()
    }

    /// Writes down what Redis has to be told of when it is back.
    fn note(&self, question: &Question<'_>, decision: &Decision) {
        if decision.admitted {
            for (log, limits) in self.logs(question) {
                self.merger.journal().write(&log, limits, question.charge.cost, Instant::now());
            }
        }
    }

    fn decide_without(&self, question: &Question<'_>, now_ms: u64) -> Result<Outcome, Unavailable> {
        let Question { asker, plan, charge, is_current } = *question;
        if !is_current() {
            return Err(Unavailable);
        }
        match self.on_failure {
            OnFailure::Local => {
                let decision = self.local.decide(asker.token_id, plan, charge, now_ms);
                self.note(question, &decision);
                Ok(Outcome::Decided(decision))
            }
            OnFailure::Deny => Err(Unavailable),
            OnFailure::Allow => Ok(Outcome::Decided(Decision::uncounted(Source::Local, now_ms))),
        }
    }

    /// The same for a call. Whether Redis took the lease before it fell silent is not known: one that this process does not
    /// grant is given back, one that it grants keeps its name.
    fn decide_call_without(
        &self,
        question: &Question<'_>,
        most: u32,
        lease: CallLease,
        now_ms: u64,
    ) -> Result<(Outcome, Option<CallLease>), Unavailable> {
        let Question { asker, plan, charge, is_current } = *question;
        if !is_current() {
            return Err(Unavailable);
        }
        match self.on_failure {
            OnFailure::Local => {
                let decision = self.local.decide_call(asker.token_id, plan, most, charge, now_ms);
                self.note(question, &decision);
                let lease = decision.admitted.then(|| lease.granted(true));
                Ok((Outcome::Decided(decision), lease))
            }
            OnFailure::Deny => Err(Unavailable),
            OnFailure::Allow => {
                let decision = Decision::uncounted(Source::Local, now_ms);
                Ok((Outcome::Decided(decision), Some(lease.granted(false))))
            }
        }
    }

    /// An outage is reported by the connection, once; what is wrong with this script alone is reported here.
    fn report(&self, error: &StoreError, now_ms: u64) {
        match error {
            StoreError::Down | StoreError::Deadline => {}
            StoreError::Refused(_) | StoreError::Unexpected(_) => {
                let due = self.next_log_ms.load(Ordering::Relaxed);
                if now_ms >= due {
                    self.next_log_ms.store(now_ms + LOG_INTERVAL_MS, Ordering::Relaxed);
                    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(cause, "{error}; this request is decided by store.redis.on_failure");
                }
            }
        }
    }
}

/// Takes notice of what somebody announced on `<namespace>:changed`, of a token's record or of its logs: what this process
/// remembers of it holds no longer.
pub fn heed(announced: &str, local: &MemoryLimiter, denials: &DenyCache) {
    match announced.strip_prefix(CLEARED) {
        Some(token_id) => {
            local.reset(token_id);
            denials.forget(token_id);
        }
        None => denials.forget(announced),
    }
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

fn millis_since(started: Instant) -> u64 {
    started.elapsed().as_millis() as u64
}
