//! The limiter of one worker, in memory or in Redis.

use std::sync::Arc;

use super::calls::CallLease;
use super::clock::Moment;
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
    /// costs, and if it opens a call, only if its token may have one more open. Where Redis decides, its own clock counts in
    /// place of `now`, and it compares the record's version; without Redis the record must be known to be current. The times
    /// of the decision are on this process's wall clock.
    ///
    /// # Errors
    /// [`Unavailable`] while Redis does not answer, if the policy is `deny` or the record is not known to be current.
    pub async fn decide<'a>(
        &self,
        subject: &LimitSubject<'_>,
        plan: &Plan,
        charge: impl Into<Charge<'a>>,
        now: impl Into<Moment>,
        is_current: IsCurrent<'_>,
    ) -> Result<LimitOutcome, Unavailable> {
        let Moment { mut steady_ms, wall_offset_ms } = now.into();
        let charge = charge.into();
        let charge = Charge { cost: charge.cost.max(1), ..charge };
        let query = LimitQuery { subject: *subject, plan, charge, is_current };
        let mut outcome = match self {
            Self::Memory(memory) => loop {
                if let Some(decision) = memory.decide_query(None, &query, steady_ms) {
                    let takes_lease = decision.admitted && query.max_calls().is_some();
                    let lease = takes_lease.then(|| CallLease::counted(memory.clone(), subject.token_id));
                    break LimitOutcome::Decided(decision, lease);
                }
                // Boxed: only a process that is being drained needs it.
                if let Some((decision, lease)) = Box::pin(memory.ask_successor(&query)).await {
                    break LimitOutcome::Decided(decision, lease);
                }
                // It has waited; others were decided meanwhile.
                steady_ms = steady_ms.max(Moment::now().steady_ms());
            },
            Self::Redis(redis) => redis.decide(&query, steady_ms).await?,
        };
        if let LimitOutcome::Decided(decision, _) = &mut outcome {
            decision.shift(wall_offset_ms);
        }
        Ok(outcome)
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
        now: impl Into<Moment>,
    ) -> Result<Option<LimitReport>, StoreError> {
        let Moment { steady_ms, wall_offset_ms } = now.into();
        let (id, is_limited) = (subject.token_id, plan.concurrent_calls.is_some());
        let (mut logs, open_calls) = match self {
            Self::Memory(memory) => {
                (Some(memory.peek(id, plan, routes, steady_ms)), is_limited.then(|| memory.open_calls(id)))
            }
            Self::Redis(redis) => {
                let logs = redis.peek(subject, plan, routes, steady_ms).await?;
                (logs, if is_limited { Some(redis.open_calls(id).await?) } else { None })
            }
        };
        logs.iter_mut().flatten().for_each(|decision| decision.shift(wall_offset_ms));
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::decision::Decision;
    use super::*;
    use crate::config::Limit;

    #[test]
    fn a_step_of_the_wall_clock_moves_reported_times_and_no_window() {
        let limiter = Limiter::Memory(Arc::new(MemoryLimiter::new(64)));
        let limit = Limit { name: "w".into(), count: 1, window_ms: 60_000.try_into().unwrap() };
        let plan = Plan { name: "p".into(), limits: [limit].into(), ..Plan::default() };
        let decide = |steady_ms, wall_offset_ms| -> Decision {
            let subject = LimitSubject { token_id: "t", version: 1 };
            let now = Moment { steady_ms, wall_offset_ms };
            match limiter.decide(&subject, &plan, 1, now, &|| true).now_or_never().unwrap().unwrap() {
                LimitOutcome::Decided(decision, _) => decision,
                LimitOutcome::Stale => panic!("stale"),
            }
        };
        assert!(decide(10_000_000, 0).admitted);
        for hour in [-3_600_000, 3_600_000] {
            let denial = decide(10_030_000, hour);
            assert_eq!((denial.admitted, denial.reported().unwrap().retry_after_s), (false, 30));
            assert_eq!(denial.windows()[0].frees_ms, 10_060_000u64.saturating_add_signed(hour));
            assert_eq!(denial.clock_ms(), 10_030_000u64.saturating_add_signed(hour));
        }
        assert!(decide(10_060_000, -3_600_000).admitted);
    }
}
