//! May this token's request pass, now? Exact sliding windows over one log of admissions, in memory or in Redis.
//!
//! A request at time *t* is admitted if and only if, for each limit *n per w* of its plan, fewer than *n* admitted requests
//! of its token lie in *(t − w, t]*. A refused request writes nothing. A plan may change at any time: its limits are
//! tested on the log as it is, which remembers as far back as the longest window of the plan at the last admission.

mod answer;
mod calls;
mod decision;
mod deny_cache;
mod journal;
mod log;
mod logs;
mod memory;
mod merge;
mod question;
mod redis;
mod report;
mod shards;

use std::sync::Arc;

pub use calls::CallLease;
pub use decision::{Decision, Reported, Source, Standing};
pub use deny_cache::DenyCache;
pub use journal::Journal;
pub use memory::MemoryLimiter;
pub use merge::MERGE;
pub use question::{Charge, IsCurrent};
pub use redis::{CALLS, DECIDE, PAIR, RedisLimiter, heed};
pub use report::{Report, WindowReport};

use question::Question;

use crate::config::{Plan, RouteLimits};
use crate::store::StoreError;

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The token's public id.
    pub token_id: &'a str,
    /// The version of its record, as this instance knows it.
    pub version: u64,
}

/// The limiter of one worker.
pub enum Limiter {
    /// In this process.
    Memory(Arc<MemoryLimiter>),
    /// In Redis, shared by all instances.
    Redis(RedisLimiter),
}

/// What came of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It was decided.
    Decided(Decision),
    /// The token's record has another version by now, or is gone: nothing was counted, the record must be read again.
    Stale,
}

/// Redis does not answer, and the policy is to admit nobody then, or the token's record is not known to be current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis does not answer, and store.redis.on_failure is deny or the token may have changed")]
pub struct Unavailable;

impl Limiter {
    /// Decides whether a request may pass: only if all limits of its token's plan, and all that its route has of its own, have
    /// room for all that it costs. `now_ms` is this process's Unix time in milliseconds; where Redis decides, its own clock
    /// counts instead.
    ///
    /// # Errors
    /// [`Unavailable`] while Redis does not answer, if the policy is `deny`.
    pub async fn decide<'a>(
        &self,
        asker: &Asker<'_>,
        plan: &Plan,
        charge: impl Into<Charge<'a>>,
        now_ms: u64,
    ) -> Result<Outcome, Unavailable> {
        self.decide_cached(asker, plan, charge, now_ms, &|| true).await
    }

    /// The same for a record from a cache: Redis compares its version; without Redis it must be known to be current.
    ///
    /// # Errors
    /// [`Unavailable`] while Redis does not answer, if the policy is `deny` or the record is not known to be current.
    pub async fn decide_cached<'a>(
        &self,
        asker: &Asker<'_>,
        plan: &Plan,
        charge: impl Into<Charge<'a>>,
        now_ms: u64,
        is_current: IsCurrent<'_>,
    ) -> Result<Outcome, Unavailable> {
        let charge = at_least_one(charge.into());
        match self {
            Self::Memory(memory) => Ok(Outcome::Decided(memory.decide(asker.token_id, plan, charge, now_ms))),
            Self::Redis(redis) => redis.decide(&Question { asker: *asker, plan, charge, is_current }, now_ms).await,
        }
    }

    /// Decides like [`Limiter::decide_cached`] on a request that opens a call. If the number of calls that the token may have open is
    /// limited, an admission comes with a lease, to be kept until the call ends. A refusal only because of open calls counts
    /// nothing in any window.
    ///
    /// # Errors
    /// As [`Limiter::decide_cached`].
    pub async fn decide_call<'a>(
        &self,
        asker: &Asker<'_>,
        plan: &Plan,
        charge: impl Into<Charge<'a>>,
        now_ms: u64,
        is_current: IsCurrent<'_>,
    ) -> Result<(Outcome, Option<CallLease>), Unavailable> {
        let charge = at_least_one(charge.into());
        let Some(most) = plan.concurrent_calls else {
            return Ok((self.decide_cached(asker, plan, charge, now_ms, is_current).await?, None));
        };
        match self {
            Self::Memory(memory) => {
                let decision = memory.decide_call(asker.token_id, plan, most, charge, now_ms);
                let lease = decision.admitted.then(|| CallLease::counted(memory.clone(), asker.token_id));
                Ok((Outcome::Decided(decision), lease))
            }
            Self::Redis(redis) => {
                redis.decide_call(&Question { asker: *asker, plan, charge, is_current }, most, now_ms).await
            }
        }
    }

    /// Renews the leases of this worker's calls, gives back those of calls that have ended, and merges into Redis what was
    /// admitted while it did not answer. To be run for as long as requests are served.
    pub async fn keep(&self) {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Redis(redis) => {
                tokio::join!(redis.keep_calls(), redis.keep_merging());
            }
        }
    }

    /// At the end of the instance: gives back all leases of this worker, and merges what is left to be merged, if that can
    /// be done within a moment.
    pub async fn end(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(redis) => redis.end().await,
        }
    }

    /// Forgets what this process remembers of a token's refusals. To be called when it changes the token's record or plan.
    pub fn forget(&self, token_id: &str) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(redis) => redis.forget(token_id),
        }
    }

    /// Where a token stands at this moment, in its plan's limits and in those of `routes`, without counting anything; `None` if
    /// its record has another version by now.
    ///
    /// # Errors
    /// [`StoreError`] when Redis does not answer; no policy stands in for it.
    pub async fn peek(
        &self,
        asker: &Asker<'_>,
        plan: &Plan,
        routes: &[&RouteLimits],
        now_ms: u64,
    ) -> Result<Option<Report>, StoreError> {
        let (id, is_limited) = (asker.token_id, plan.concurrent_calls.is_some());
        let (seen, open_calls) = match self {
            Self::Memory(memory) => {
                let own = routes.iter().map(|own| memory.peek_route(id, own, now_ms));
                let seen = std::iter::once(memory.peek(id, plan, 1.into(), now_ms)).chain(own).collect();
                (Some(seen), is_limited.then(|| memory.open_calls(id)))
            }
            Self::Redis(redis) => {
                let seen = redis.peek(asker, plan, routes).await?;
                (seen, if is_limited { Some(redis.open_calls(id).await?) } else { None })
            }
        };
        Ok(seen.map(|seen: Vec<_>| Report::new(id, plan, routes, &seen, open_calls)))
    }

    /// Clears a token's log, and those for `routes`, as if it had never been used. Other instances are told; one that does
    /// not hear of it may repeat a refusal from its memory for up to a second.
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

fn at_least_one(charge: Charge<'_>) -> Charge<'_> {
    Charge { cost: charge.cost.max(1), ..charge }
}
