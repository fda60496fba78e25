//! The limiter that all instances share: one script, one round trip, Redis's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Value;
use smallvec::SmallVec;

use super::answer::{Answer, read};
use super::calls::{CallLease, LeaseName, Ledger};
use super::decision::{Decision, Source};
use super::deny_cache::{DenyCache, Question};
use super::journal::Journal;
use super::memory::MemoryLimiter;
use super::merge::Merger;
use super::{Asker, Outcome, Unavailable};
use crate::config::{OnFailure, Plan};
use crate::store::{Redis, Script, StoreError};

/// The decision script.
pub const DECIDE: &str = include_str!("decide.lua");

/// The script that keeps leases of calls.
pub const CALLS: &str = include_str!("calls.lua");

/// Leases are renewed this often; they end 30 s after they were renewed last.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// At the end of an instance its leases must be given back within this time, or else they end by themselves.
const GIVE_BACK: Duration = Duration::from_millis(500);

/// Clears a log, and remembers when, lest what an instance admitted before is merged into it later. (No window is longer than
/// 30 days.)
const RESET: &str = "local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], string.format('%d', time[1] * 1000 + time[2] / 1000), 'reset')
redis.call('PEXPIRE', KEYS[2], '2592000000')
return redis.call('DEL', KEYS[1])";

/// Errors that only this limiter sees are logged once in so many milliseconds.
const LOG_INTERVAL_MS: u64 = 10_000;

/// The limiter in Redis. One per worker; the local limiter and the deny cache are shared by all workers of a process.
pub struct RedisLimiter {
    redis: Redis,
    script: Script,
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

    /// The same with a script in place of [`DECIDE`], so that a test can put another clock in it.
    #[doc(hidden)]
    #[must_use]
    pub fn with_script(self, source: &'static str) -> Self {
        Self { script: Script::new(source), ..self }
    }

    /// The same with a script in place of [`CALLS`].
    #[doc(hidden)]
    #[must_use]
    pub fn with_calls_script(self, source: &'static str) -> Self {
        Self { calls: Script::new(source), ..self }
    }

    pub(super) async fn decide(
        &self,
        asker: &Asker<'_>,
        plan: &Plan,
        cost: u32,
        now_ms: u64,
    ) -> Result<Outcome, Unavailable> {
        let question = Question { asker: *asker, plan, cost };
        let sent = Instant::now();
        if let Some(refusal) = self.denials.answer(&question, sent) {
            return Ok(Outcome::Decided(refusal));
        }
        let answer = match self.merger.catch_up(asker.token_id).await {
            Ok(()) => self.ask(&question, None).await,
            Err(error) => Err(error),
        };
        let received = Instant::now();
        let now_ms = now_ms + (received - sent).as_millis() as u64;
        match answer {
            Ok(None) => Ok(Outcome::Stale),
            Ok(Some(Answer { decision, steady_ms })) => {
                if !decision.admitted {
                    self.denials.remember(&question, &decision, steady_ms, sent, received);
                } else if self.on_failure == OnFailure::Local {
                    self.local.record(asker.token_id, plan, cost, now_ms);
                }
                Ok(Outcome::Decided(decision))
            }
            Err(error) => {
                self.report(&error, now_ms);
                self.decide_without(&question, now_ms, received)
            }
        }
    }

    /// Asks Redis; `None` if the token's version is another one by now.
    async fn ask(&self, question: &Question<'_>, call: Option<(u32, LeaseName)>) -> Result<Option<Answer>, StoreError> {
        let Question { asker, plan, cost } = question;
        let [token, log] = ["token", "log"].map(|name| key(&self.redis, asker.token_id, name));
        let mut version = itoa::Buffer::new();
        let version = version.format(asker.version).as_bytes();
        let mut packed = SmallVec::<[u8; 36]>::from_slice(&cost.to_le_bytes());
        for limit in &plan.limits {
            packed.extend_from_slice(&limit.count.to_le_bytes());
            packed.extend_from_slice(&limit.window_ms.get().to_le_bytes());
        }
        let answer = match call {
            None => self.redis.run(&self.script, &[&token, &log], &[version, &packed]).await?,
            Some((most, name)) => {
                let (calls, mut digits) = (key(&self.redis, asker.token_id, "calls"), itoa::Buffer::new());
                let args = [version, &packed, digits.format(most).as_bytes(), &name];
                self.redis.run(&self.script, &[&token, &log, &calls], &args).await?
            }
        };
        match answer {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => {
                let answer = read(&bytes, plan, *cost, call.map(|(most, _)| most));
                answer.map(Some).ok_or(StoreError::Unexpected("the decision script's answer has another length"))
            }
            _ => Err(StoreError::Unexpected("the decision script's answer is not a string")),
        }
    }

    /// Where a token stands; `None` if its version is another one by now.
    pub(super) async fn peek(&self, asker: &Asker<'_>, plan: &Plan) -> Result<Option<Decision>, StoreError> {
        self.merger.catch_up(asker.token_id).await?;
        let answer = self.ask(&Question { asker: *asker, plan, cost: 0 }, None).await?;
        Ok(answer.map(|answer| answer.decision))
    }

    /// Clears a token's log.
    pub(super) async fn reset(&self, token_id: &str) -> Result<(), StoreError> {
        let [log, merged] = ["log", "merged"].map(|name| key(&self.redis, token_id, name));
        self.redis.run(&self.reset, &[&log, &merged], &[]).await?;
        self.local.reset(token_id);
        self.merger.journal().forget(token_id);
        self.denials.forget(token_id);
        Ok(())
    }

    /// Decides on a request that opens a call, of which its token may have `most` open.
    pub(super) async fn decide_call(
        &self,
        asker: &Asker<'_>,
        plan: &Plan,
        most: u32,
        cost: u32,
        now_ms: u64,
    ) -> Result<(Outcome, Option<CallLease>), Unavailable> {
        let question = Question { asker: *asker, plan, cost };
        let sent = Instant::now();
        if let Some(refusal) = self.denials.answer(&question, sent) {
            return Ok((Outcome::Decided(refusal), None));
        }
        let caught_up = self.merger.catch_up(asker.token_id).await;
        // From here on the lease may be taken, even if nobody waits for the answer any more.
        let (lease, name) = CallLease::asked_for(self.local.clone(), self.ledger.clone(), asker.token_id);
        let answer = match caught_up {
            Ok(()) => self.ask(&question, Some((most, name))).await,
            Err(error) => Err(error),
        };
        let received = Instant::now();
        let now_ms = now_ms + (received - sent).as_millis() as u64;
        match answer {
            Ok(None) => {
                lease.refused();
                Ok((Outcome::Stale, None))
            }
            Ok(Some(Answer { decision, .. })) if decision.admitted => {
                if self.on_failure == OnFailure::Local {
                    self.local.record(asker.token_id, plan, cost, now_ms);
                }
                Ok((Outcome::Decided(decision), Some(lease.granted(false))))
            }
            Ok(Some(Answer { decision, steady_ms })) => {
                lease.refused();
                if decision.too_many_calls.is_none() {
                    self.denials.remember(&question, &decision, steady_ms, sent, received);
                }
                Ok((Outcome::Decided(decision), None))
            }
            Err(error) => {
                self.report(&error, now_ms);
                self.decide_call_without(&question, most, lease, now_ms, received)
            }
        }
    }

    /// Renews leases and gives them back, for ever.
    pub(super) async fn keep_calls(&self) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => self.renew_calls().await,
                () = self.ledger.ended() => {}
            }
            self.give_calls_back().await;
        }
    }

    /// Renews all leases now.
    #[doc(hidden)]
    pub async fn renew_calls(&self) {
        self.ledger.renew(|token_id, names| self.tell_calls(token_id, b"renew", names)).await;
    }

    /// Gives back what has ended, now.
    #[doc(hidden)]
    pub async fn give_calls_back(&self) {
        self.ledger.give_back(|token_id, names| self.tell_calls(token_id, b"end", names)).await;
    }

    /// Merges into Redis what this process admitted while it was away, for ever.
    pub(super) async fn keep_merging(&self) {
        self.merger.keep().await;
    }

    /// Gives leases back and merges what is left to be merged, as far as a moment suffices.
    pub(super) async fn end(&self) {
        self.ledger.end_all();
        // A lease that is not given back ends by itself.
        let both = async { tokio::join!(self.give_calls_back(), self.merger.finish()) };
        let _ = tokio::time::timeout(GIVE_BACK, both).await;
    }

    async fn tell_calls(&self, token_id: Box<str>, verb: &[u8], names: Vec<LeaseName>) {
        let args: Vec<&[u8]> = std::iter::once(verb).chain(names.iter().map(|name| &name[..])).collect();
        // A lease that could not be renewed is renewed by the next beat, one that could not be given back ends by itself; an
        // outage is reported by the connection.
        let _ = self.redis.run(&self.calls, &[&key(&self.redis, &token_id, "calls")], &args).await;
    }

    /// Calls that a token has open, over all instances.
    pub(super) async fn open_calls(&self, token_id: &str) -> Result<u32, StoreError> {
        match self.redis.run(&self.calls, &[&key(&self.redis, token_id, "calls")], &[b"count"]).await? {
            Value::Int(open) => Ok(u32::try_from(open).unwrap_or(u32::MAX)),
            _ => Err(StoreError::Unexpected("a count that is no number")),
        }
    }

    fn decide_without(&self, question: &Question<'_>, now_ms: u64, at: Instant) -> Result<Outcome, Unavailable> {
        let Question { asker, plan, cost } = *question;
        match self.on_failure {
            OnFailure::Local => {
                let decision = self.local.decide(asker.token_id, plan, cost, now_ms);
                self.note(question, &decision, at);
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
        at: Instant,
    ) -> Result<(Outcome, Option<CallLease>), Unavailable> {
        let Question { asker, plan, cost } = *question;
        match self.on_failure {
            OnFailure::Local => {
                let decision = self.local.decide_call(asker.token_id, plan, most, cost, now_ms);
                self.note(question, &decision, at);
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

    /// Writes down what Redis has to be told of when it is back.
    fn note(&self, question: &Question<'_>, decision: &Decision, at: Instant) {
        if decision.admitted {
            self.merger.journal().write(question.asker.token_id, question.plan, question.cost, at);
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

/// `<namespace>:{<token id>}:<name>`: the braces put all keys of a token into one slot of a cluster.
pub(super) fn key(redis: &Redis, token_id: &str, name: &str) -> SmallVec<[u8; 64]> {
    let mut key = SmallVec::new();
    for part in [redis.namespace(), ":{", token_id, "}:", name] {
        key.extend_from_slice(part.as_bytes());
    }
    key
}
