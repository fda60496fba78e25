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

/// Clears a log, and answers whether there was one.
const RESET: &str = "return redis.call('DEL', KEYS[1])";

/// Errors that only this limiter sees are logged once in so many milliseconds.
const LOG_INTERVAL_MS: u64 = 10_000;

/// The limiter in Redis. One per worker; the local limiter and the deny cache are shared by all workers of a process.
pub struct RedisLimiter {
    redis: Redis,
    script: Script,
    reset: Script,
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
        let (script, reset) = (Script::new(DECIDE), Script::new(RESET));
        Self { redis, script, reset, on_failure, local, denials, next_log_ms: AtomicU64::new(0) }
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

    /// Where a token stands; `None` if its version is another one by now.
    pub(super) async fn peek(&self, asker: &Asker<'_>, plan: &Plan) -> Result<Option<Decision>, StoreError> {
        let answer = self.ask(&Question { asker: *asker, plan, cost: 0 }).await?;
        Ok(answer.map(|answer| answer.decision))
    }

    /// Clears a token's log.
    pub(super) async fn reset(&self, token_id: &str) -> Result<(), StoreError> {
        self.redis.run(&self.reset, &[&self.key(token_id, "log")], &[]).await?;
        self.local.reset(token_id);
        self.denials.forget(token_id);
        Ok(())
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

/// Reads the script's answer, of which `decide.lua` says what it looks like; `None` if its length is not the right one.
fn read(bytes: &[u8], plan: &Plan, cost: u32) -> Option<Answer> {
    if plan.limits.is_empty() {
        let decision = Decision::uncounted(Source::Redis, 0);
        return bytes.is_empty().then_some(Answer { decision, steady_ms: 0 });
    }
    let ([staged, time @ ..], rest) = bytes.split_first_chunk::<7>()?;
    let admitted = *staged != 0;
    let (numbers, behind) = rest.split_at_checked(8 * plan.limits.len() + 4)?;
    let time_ms = u48(time);
    let clock_ms = match behind.len() {
        0 => time_ms,
        6 if admitted => u48(behind),
        _ => return None,
    };
    let number = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| numbers[4 * i + byte]));
    let last = number(2 * plan.limits.len());
    let windows = plan.limits.iter().enumerate().map(|(i, limit)| {
        let (used, second) = (number(2 * i), number(2 * i + 1));
        let window_ms = limit.window_ms.get();
        // The oldest stamp that counts, next to the newest, or else the wait itself.
        let frees_ms = match admitted {
            true => (time_ms + u64::from(window_ms)).saturating_sub(u64::from(last.wrapping_sub(second))),
            false => time_ms + u64::from(second),
        };
        Standing { used, limit: limit.count, window_ms, frees_ms }
    });
    let decision = Decision::new(admitted, Source::Redis, cost, clock_ms, windows);
    Some(Answer { decision, steady_ms: if admitted { 0 } else { last } })
}

/// 6 bytes, little-endian.
fn u48(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limit;

    fn plan() -> Plan {
        let limit = Limit { name: "w".into(), count: 5, window_ms: 60_000.try_into().unwrap() };
        Plan { name: "p".into(), limits: [limit].into(), ..Plan::default() }
    }

    #[test]
    fn reads_an_admission() {
        let clock = 1_700_000_000_123u64.to_le_bytes();
        // The newest stamp has wrapped round, the oldest has not.
        let [oldest, newest] = [u32::MAX - 999, 9_000].map(u32::to_le_bytes);
        let front = [&[4], &clock[..6], &[3, 0, 0, 0], &oldest, &newest].concat();
        let decision = read(&front, &plan(), 1).unwrap().decision;
        let expected = Standing { used: 3, limit: 5, window_ms: 60_000, frees_ms: 1_700_000_050_123 };
        assert!(decision.admitted);
        assert_eq!(decision.windows(), [expected]);
        assert_eq!(decision.reported().unwrap().retry_after_s, 50);
        // The server's clock is two seconds behind.
        let behind = (1_700_000_000_123u64 - 2_000).to_le_bytes();
        let decision = read(&[&front, &behind[..6]].concat(), &plan(), 1).unwrap().decision;
        assert_eq!(decision.windows(), [expected]);
        assert_eq!(decision.reported().unwrap().retry_after_s, 52);
    }

    #[test]
    fn reads_a_refusal() {
        let clock = 1_700_000_000_123u64.to_le_bytes();
        let refused = [&[0], &clock[..6], &[3, 0, 0, 0], &[0x10, 0x27, 0, 0], &[9, 0, 0, 0]].concat();
        let answer = read(&refused, &plan(), 3).unwrap();
        let expected = Standing { used: 3, limit: 5, window_ms: 60_000, frees_ms: 1_700_000_010_123 };
        assert!(!answer.decision.admitted);
        assert_eq!(answer.decision.windows(), [expected]);
        assert_eq!(answer.steady_ms, 9);
    }

    #[test]
    fn refuses_answers_of_another_length() {
        for (staged, right) in [(0, &[19][..]), (1, &[19, 25])] {
            for length in 1..40 {
                let mut bytes = vec![0; length];
                bytes[0] = staged;
                assert_eq!(read(&bytes, &plan(), 1).is_some(), right.contains(&length), "{staged} {length}");
            }
        }
        assert!(read(&[], &plan(), 1).is_none());
    }
}
