//! The limiter that all instances share: one script, one round trip, Redis's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Value;
use smallvec::SmallVec;

use super::answer::{Answer, read, read_pair};
use super::calls::{CallLease, LeaseName, Ledger};
use super::decision::{Decision, Source};
use super::deny_cache::DenyCache;
use super::memory::MemoryLimiter;
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

/// Leases are renewed this often; they end 30 s after they were renewed last.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// At the end of an instance its leases must be given back within this time, or else they end by themselves.
const GIVE_BACK: Duration = Duration::from_millis(500);

/// Clears logs of a token.
const RESET: &str = "return redis.call('DEL', unpack(KEYS))";

/// Errors that only this limiter sees are logged once in so many milliseconds.
const LOG_INTERVAL_MS: u64 = 10_000;

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
    denials: Arc<DenyCache>,
    next_log_ms: AtomicU64,
}

impl RedisLimiter {
    /// A limiter on one connection. While it does not answer, `on_failure` decides; `local` then stands in, and until then
    /// is kept warm with what this process admits.
    #[must_use]
    pub fn new(redis: Redis, on_failure: OnFailure, local: Arc<MemoryLimiter>, denials: Arc<DenyCache>) -> Self {
        Self {
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

    /// The same with scripts in place of [`DECIDE`], [`PAIR`] and [`CALLS`], so that a test can put another clock in them.
    #[doc(hidden)]
    #[must_use]
    pub fn with_scripts(self, decide: &'static str, pair: &'static str, calls: &'static str) -> Self {
        let [script, pair, calls] = [decide, pair, calls].map(Script::new);
        Self { script, pair, calls, ..self }
    }

    pub(super) async fn decide(&self, question: &Question<'_>, now_ms: u64) -> Result<Outcome, Unavailable> {
        let sent = Instant::now();
        if let Some(refusal) = self.denials.answer(question, sent) {
            return Ok(Outcome::Decided(refusal));
        }
        let answer = self.ask(question, None).await;
        let received = Instant::now();
        let now_ms = now_ms + (received - sent).as_millis() as u64;
        match answer {
            Ok(None) => Ok(Outcome::Stale),
            Ok(Some(Answer { decision, steady_ms })) => {
                if !decision.admitted {
                    self.denials.remember(question, &decision, steady_ms, sent, received);
                } else {
                    self.record(question, now_ms);
                }
                Ok(Outcome::Decided(decision))
            }
            Err(error) => {
                self.report(&error, now_ms);
                self.decide_without(question, now_ms)
            }
        }
    }

    /// Asks Redis; `None` if the token's version is another one by now.
    async fn ask(&self, question: &Question<'_>, call: Option<(u32, LeaseName)>) -> Result<Option<Answer>, StoreError> {
        let Question { asker, plan, charge: Charge { cost, limits: own } } = *question;
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
        let seen = logs.map(async |(log, limits)| self.look(asker, &log, limits).await);
        futures_util::future::try_join_all(seen).await.map(|seen| seen.into_iter().collect())
    }

    /// What a request of cost 1 would be told if the limits on this log refused it.
    async fn look(&self, asker: &Asker<'_>, log: &[u8], limits: &[Limit]) -> Result<Option<Decision>, StoreError> {
        let (token, mut version) = (self.key(asker.token_id, "token"), itoa::Buffer::new());
        let args = [version.format(asker.version).as_bytes(), &pack(0, limits)];
        let answer = self.redis.run(&self.script, &[&token, log], &args).await?;
        let answer = read_answer(answer, |bytes| read(bytes, limits, 1, None))?;
        Ok(answer.map(|answer| answer.decision))
    }

    /// Clears a token's log, and those for `routes`.
    pub(super) async fn reset(&self, token_id: &str, routes: &[&RouteLimits]) -> Result<(), StoreError> {
        let logs = std::iter::once(self.key(token_id, "log"));
        let logs: Vec<_> = logs.chain(routes.iter().map(|own| self.route_key(token_id, own))).collect();
        let keys: Vec<_> = logs.iter().map(|key| &key[..]).collect();
        self.redis.run(&self.reset, &keys, &[]).await?;
        self.local.reset(token_id);
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
        let sent = Instant::now();
        if let Some(refusal) = self.denials.answer(question, sent) {
            return Ok((Outcome::Decided(refusal), None));
        }
        // From here on the lease may be taken, even if nobody waits for the answer any more.
        let (lease, name) = CallLease::asked_for(self.local.clone(), self.ledger.clone(), question.asker.token_id);
        let answer = self.ask(question, Some((most, name))).await;
        let received = Instant::now();
        let now_ms = now_ms + (received - sent).as_millis() as u64;
        match answer {
            Ok(None) => {
                lease.refused();
                Ok((Outcome::Stale, None))
            }
            Ok(Some(Answer { decision, .. })) if decision.admitted => {
                self.record(question, now_ms);
                Ok((Outcome::Decided(decision), Some(lease.granted(false))))
            }
            Ok(Some(Answer { decision, steady_ms })) => {
                lease.refused();
                if decision.too_many_calls.is_none() {
                    self.denials.remember(question, &decision, steady_ms, sent, received);
                }
                Ok((Outcome::Decided(decision), None))
            }
            Err(error) => {
                self.report(&error, now_ms);
                self.decide_call_without(question, most, lease, now_ms)
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

    pub(super) async fn end_calls(&self) {
        self.ledger.end_all();
        // What is not given back ends by itself.
        let _ = tokio::time::timeout(GIVE_BACK, self.give_calls_back()).await;
    }

    async fn tell_calls(&self, token_id: Box<str>, verb: &[u8], names: Vec<LeaseName>) {
        let args: Vec<&[u8]> = std::iter::once(verb).chain(names.iter().map(|name| &name[..])).collect();
        // A lease that could not be renewed is renewed by the next beat, one that could not be given back ends by itself; an
        // outage is reported by the connection.
        let _ = self.redis.run(&self.calls, &[&self.key(&token_id, "calls")], &args).await;
    }

    /// Calls that a token has open, over all instances.
    pub(super) async fn open_calls(&self, token_id: &str) -> Result<u32, StoreError> {
        match self.redis.run(&self.calls, &[&self.key(token_id, "calls")], &[b"count"]).await? {
            Value::Int(open) => Ok(u32::try_from(open).unwrap_or(u32::MAX)),
            _ => Err(StoreError::Unexpected("a count that is no number")),
        }
    }

    /// `<namespace>:{<token id>}:<name>`: the braces put all keys of a token into one slot of a cluster.
    fn key(&self, token_id: &str, name: &str) -> SmallVec<[u8; 64]> {
        let mut key = SmallVec::new();
        for part in [self.redis.namespace(), ":{", token_id, "}:", name] {
            key.extend_from_slice(part.as_bytes());
        }
        key
    }

    fn route_key(&self, token_id: &str, own: &RouteLimits) -> SmallVec<[u8; 64]> {
        let mut key = self.key(token_id, "log/");
        key.extend_from_slice(own.route.as_bytes());
        key
    }

    fn decide_without(&self, question: &Question<'_>, now_ms: u64) -> Result<Outcome, Unavailable> {
        let Question { asker, plan, charge } = *question;
        match self.on_failure {
            OnFailure::Local => Ok(Outcome::Decided(self.local.decide(asker.token_id, plan, charge, now_ms))),
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
        let Question { asker, plan, charge } = *question;
        match self.on_failure {
            OnFailure::Local => {
                let decision = self.local.decide_call(asker.token_id, plan, most, charge, now_ms);
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

/// What a script answered: `None` if the token's version is another one by now.
fn read_answer(answer: Value, read: impl FnOnce(&[u8]) -> Option<Answer>) -> Result<Option<Answer>, StoreError> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => {
            read(&bytes).map(Some).ok_or(StoreError::Unexpected("the decision script's answer has another length"))
        }
        _ => Err(StoreError::Unexpected("the decision script's answer is not a string")),
    }
}
