//! The limiter of one worker, in memory or in Redis.

use std::sync::Arc;

use super::calls::CallLease;
use super::memory::MemoryLimiter;
use super::outcome::{LimitOutcome, Unavailable};
use super::query::{Charge, IsCurrent, LimitQuery, LimitSubject};
use super::redis::RedisLimiter;
use super::report::LimitReport;
use crate::config::{Plan, RouteLimits};
use crate::store::StoreError;

/// The limiter of one worker.
pub enum Limiter {
    /// In this process.
    Memory(Arc<MemoryLimiter>),
    /// In Redis, shared by all instances.
    Redis(RedisLimiter),
}

impl Limiter {
    /// Decides whether a request may pass: only if all limits of its token's plan and of its route have room for all that it
    /// costs, and if it opens a call, only if its token may have one more open. `now_ms` is this process's Unix time in
    /// milliseconds; where Redis decides, its own clock counts instead, and it compares the record's version. Without
    /// Redis the record must be known to be current.
    ///
    /// # Errors
    /// [`Unavailable`] while Redis does not answer, if the policy is `deny` or the record is not known to be current.
    pub async fn decide<'a>(
        &self,
        subject: &LimitSubject<'_>,
        plan: &Plan,
        charge: impl Into<Charge<'a>>,
        now_ms: u64,
        is_current: IsCurrent<'_>,
    ) -> Result<LimitOutcome, Unavailable> {
        let charge = charge.into();
        let charge = Charge { cost: charge.cost.max(1), ..charge };
        let query = LimitQuery { subject: *subject, plan, charge, is_current };
        match self {
            Self::Memory(memory) => {
                let decision = memory.decide_query(&query, now_ms);
                let takes_lease = decision.admitted && query.max_calls().is_some();
                let lease = takes_lease.then(|| CallLease::counted(memory.clone(), subject.token_id));
                Ok(LimitOutcome::Decided(decision, lease))
            }
            Self::Redis(redis) => redis.decide(&query, now_ms).await,
        }
    }

    /// Renews the leases of this worker's calls, gives back those of calls that have ended, and merges into Redis what was
    /// admitted while it did not answer. Never returns.
    pub async fn run(&self) {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Redis(redis) => redis.run().await,
        }
    }

    /// At the end of the instance: gives back all leases of this worker, and merges what is left to be merged, if that can
    /// be done within a moment.
    pub async fn end(&self) {
        if let Self::Redis(redis) = self {
            redis.end().await;
        }
    }

    /// The state of a token's windows at this moment, of its plan's limits and of those of `routes`, without counting
    /// anything; `None` if its record has another version by now.
    ///
    /// # Errors
    /// [`StoreError`] when Redis does not answer; no policy applies here.
    pub async fn peek(
        &self,
        subject: &LimitSubject<'_>,
        plan: &Plan,
        routes: &[&RouteLimits],
        now_ms: u64,
    ) -> Result<Option<LimitReport>, StoreError> {
        let (id, is_limited) = (subject.token_id, plan.concurrent_calls.is_some());
        let (logs, open_calls) = match self {
            Self::Memory(memory) => {
                (Some(memory.peek(id, plan, routes, now_ms)), is_limited.then(|| memory.open_calls(id)))
            }
            Self::Redis(redis) => {
                let logs = redis.peek(subject, plan, routes).await?;
                (logs, if is_limited { Some(redis.open_calls(id).await?) } else { None })
            }
        };
        Ok(logs.map(|logs| LimitReport::new(id, plan, routes, &logs, open_calls)))
    }

    /// Clears a token's log, and those for `routes`, as if it had never been used. Other instances are notified; one that
    /// misses it may repeat a denial from its memory for up to a second.
    ///
    /// # Errors
    /// [`StoreError`] when Redis does not answer.
    pub async fn reset(&self, token_id: &str, routes: &[&RouteLimits]) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => memory.reset(token_id),
            Self::Redis(redis) => redis.reset(token_id, routes).await?,
        }
        Ok(())
    }
}
