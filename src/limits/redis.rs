//! The limiter that all instances share: one script, one round trip, Redis's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use redis::Value;
use smallvec::SmallVec;

use super::decision::{Decision, Source, Standing};
use super::deny_cache::{DenyCache, Question};
use super::memory::MemoryLimiter;
use super::{Asker, Outcome, Unavailable};
use crate::config::{OnFailure, Plan};
use crate::store::{Redis, Script, StoreError};

/// The decision script.
pub const DECIDE: &str = include_str!("decide.lua");

/// Errors that only this limiter sees are logged once in so many milliseconds.
const LOG_INTERVAL_MS: u64 = 10_000;

/// The limiter in Redis. One per worker; the local limiter and the deny cache are shared by all workers of a process.
pub struct RedisLimiter {
    redis: Redis,
    script: Script,
    on_failure: OnFailure,
    local: Arc<MemoryLimiter>,
    denials: Arc<DenyCache>,
    next_log_ms: AtomicU64,
}

/// What the script answered to a question about a token whose version it confirmed.
struct Answer {
    decision: Decision,
    /// The numbers of a refusal stand for so many milliseconds.
    steady_ms: u32,
}

impl RedisLimiter {
    /// A limiter on one connection. While it does not answer, `on_failure` decides; `local` then stands in, and until then
    /// is kept warm with what this process admits.
    #[must_use]
    pub fn new(redis: Redis, on_failure: OnFailure, local: Arc<MemoryLimiter>, denials: Arc<DenyCache>) -> Self {
        Self { redis, script: Script::new(DECIDE), on_failure, local, denials, next_log_ms: AtomicU64::new(0) }
    }

    /// The same with a script in place of [`DECIDE`], so that a test can put another clock in it.
    #[doc(hidden)]
    #[must_use]
    pub fn with_script(self, source: &'static str) -> Self {
        Self { script: Script::new(source), ..self }
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
        let answer = self.ask(&question).await;
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
                self.decide_without(&question, now_ms)
            }
        }
    }

    /// Asks Redis; `None` if the token's version is another one by now.
    async fn ask(&self, question: &Question<'_>) -> Result<Option<Answer>, StoreError> {
        let Question { asker, plan, cost } = question;
        let [token, log] = ["token", "log"].map(|name| self.key(asker.token_id, name));
        let mut version = itoa::Buffer::new();
        let version = version.format(asker.version).as_bytes();
        let mut packed = SmallVec::<[u8; 36]>::from_slice(&cost.to_le_bytes());
        for limit in &plan.limits {
            packed.extend_from_slice(&limit.count.to_le_bytes());
            packed.extend_from_slice(&limit.window_ms.get().to_le_bytes());
        }
        match self.redis.run(&self.script, &[&token, &log], &[version, &packed]).await? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => {
                let answer = read(&bytes, plan, *cost);
                answer.map(Some).ok_or(StoreError::Unexpected("the decision script's answer has another length"))
            }
            _ => Err(StoreError::Unexpected("the decision script's answer is not a string")),
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

    fn decide_without(&self, question: &Question<'_>, now_ms: u64) -> Result<Outcome, Unavailable> {
        let Question { asker, plan, cost } = *question;
        match self.on_failure {
            OnFailure::Local => Ok(Outcome::Decided(self.local.decide(asker.token_id, plan, cost, now_ms))),
            OnFailure::Deny => Err(Unavailable),
            OnFailure::Allow => Ok(Outcome::Decided(Decision::uncounted(Source::Local, now_ms))),
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

/// Reads the script's answer; `None` if its length is not the right one.
fn read(bytes: &[u8], plan: &Plan, cost: u32) -> Option<Answer> {
    if plan.limits.is_empty() {
        let decision = Decision::uncounted(Source::Redis, 0);
        return bytes.is_empty().then_some(Answer { decision, steady_ms: 0 });
    }
    let (&[verdict, ref clock @ ..], numbers) = bytes.split_first_chunk::<7>()?;
    let admitted = verdict == 1;
    let mut clock_ms = [0; 8];
    clock_ms[..clock.len()].copy_from_slice(clock);
    let clock_ms = u64::from_le_bytes(clock_ms);
    let (numbers, rest) = numbers.as_chunks::<4>();
    if numbers.len() != 2 * plan.limits.len() + usize::from(!admitted) || !rest.is_empty() {
        return None;
    }
    let number = |i: usize| u32::from_le_bytes(numbers[i]);
    let windows = plan.limits.iter().enumerate().map(|(i, limit)| Standing {
        used: number(2 * i),
        limit: limit.count,
        window_ms: limit.window_ms.get(),
        frees_ms: clock_ms + u64::from(number(2 * i + 1)),
    });
    let steady_ms = if admitted { 0 } else { number(numbers.len() - 1) };
    Some(Answer { decision: Decision::new(admitted, Source::Redis, cost, clock_ms, windows), steady_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limit;

    fn plan() -> Plan {
        let limit = Limit { name: "w".into(), count: 5, window_ms: 60_000.try_into().unwrap() };
        Plan { name: "p".into(), limits: [limit].into() }
    }

    #[test]
    fn reads_admissions_and_refusals() {
        let clock = 1_700_000_000_123u64.to_le_bytes();
        let admitted = [&[1], &clock[..6], &[3, 0, 0, 0], &[0x10, 0x27, 0, 0]].concat();
        let answer = read(&admitted, &plan(), 1).unwrap();
        assert!(answer.decision.admitted);
        let expected = Standing { used: 3, limit: 5, window_ms: 60_000, frees_ms: 1_700_000_010_123 };
        assert_eq!(answer.decision.windows(), [expected]);
        let refused = [&[0], &admitted[1..], &[9, 0, 0, 0]].concat();
        let answer = read(&refused, &plan(), 3).unwrap();
        assert!(!answer.decision.admitted);
        assert_eq!(answer.steady_ms, 9);
    }

    #[test]
    fn refuses_answers_of_another_length() {
        for (verdict, right) in [(0, 19), (1, 15)] {
            for length in 1..40 {
                let mut bytes = vec![0; length];
                bytes[0] = verdict;
                assert_eq!(read(&bytes, &plan(), 1).is_some(), length == right, "{verdict} {length}");
            }
        }
        assert!(read(&[], &plan(), 1).is_none());
    }
}
