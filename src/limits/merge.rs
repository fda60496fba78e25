//! Merges into Redis what this process admitted while it was unreachable.
//!
//! That is done before Redis decides on the next request from here that needs the same log, and in the background, so that
//! other instances see them soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::Value;

use super::pending_merges::{Batch, ClaimResult, Merged, PendingMerges};
use crate::store::{LateAnswer, Redis, Script, StoreError};

/// The script that merges.
pub const MERGE: &str = concat!(include_str!("layout.lua"), include_str!("ring.lua"), include_str!("merge.lua"));

/// The time on the server of a log, in Unix milliseconds.
const CLOCK: &str = "local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000)";

/// How often to check whether Redis is back, while something waits to be merged.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The pause after merges none of which succeeded.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// An answer that comes late is waited for, but not when the server has answered others so often at this interval.
const LATE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_OVERTAKEN: u32 = 2;
/// When nothing has been left to merge for so long, the recovery is over, and one line sums it up.
const QUIET: Duration = Duration::from_secs(3);
/// The pause after other merges.
const PAUSE: Duration = Duration::from_millis(10);

/// Merges over one worker's connection. What is pending is shared by all workers of a process.
pub(super) struct Merger {
    redis: Redis,
    script: Script,
    clock: Script,
    pub(super) pending: Arc<PendingMerges>,
}

impl Merger {
    pub(super) fn new(redis: Redis, pending: Arc<PendingMerges>) -> Self {
        Self { redis, script: Script::new(MERGE), clock: Script::new(CLOCK), pending }
    }

    /// Makes sure that Redis knows of all that this process admitted, as far as these logs go. Where there is nothing to
    /// merge, which is always but for some time after an outage, that costs next to nothing; otherwise a round trip of its
    /// own, because a script or a slot of a cluster that is not where it was expected would turn the order round. After as
    /// long as a call may take it begins nothing new; what is not done by then is done later.
    ///
    /// # Errors
    /// [`StoreError`]: then Redis must not decide on the token yet.
    pub(super) async fn catch_up<'k>(&self, logs: impl Iterator<Item = &'k [u8]>) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.redis.deadline();
        for log in logs {
            while !self.pending.is_empty() {
                if !self.redis.is_up() {
                    return Err(StoreError::Down);
                }
                let now = Instant::now();
                if now >= deadline {
                    return Err(StoreError::Deadline(None));
                }
                match self.pending.claim(log, now) {
                    ClaimResult::Nothing => break,
                    ClaimResult::Taken(mut done) => {
                        let waited = tokio::time::timeout_at(deadline.into(), done.changed()).await;
                        // A Redis that has just not answered another task is not waited for a second time.
                        if waited.is_ok() && *done.borrow() {
                            return Err(StoreError::Deadline(None));
                        }
                    }
                    // The refusal was reported then, and a request that asks Redis again is not answered sooner.
                    ClaimResult::Refused => return Err(StoreError::Down),
                    // (Cut short, it would not count as a call without an answer, and the connection would be dropped later.)
                    ClaimResult::Batch(batch) => self.merge(batch).await?,
                }
            }
        }
        Ok(())
    }

    async fn merge(&self, batch: Batch) -> Result<(), StoreError> {
        // It has a name: it is sent again, whatever the answer would be.
        let merged = self.send(&batch).await.map_err(StoreError::without_answer);
        match &merged {
            Ok(took) => batch.acknowledge(*took),
            Err(StoreError::Refused(_) | StoreError::Unexpected(_)) => batch.refuse(),
            Err(StoreError::Down | StoreError::Deadline(_)) => batch.fail(),
        }
        merged.map(drop)
    }

    /// A Redis that hangs may carry a call out when nothing waits for it any more. So it learns how old the admissions were by
    /// its own clock; they become that much younger, and no more, than they were as its answer to that query took. Returns how
    /// long the merge kept it busy, as far as can be told.
    async fn send(&self, batch: &Batch) -> Result<Duration, StoreError> {
        let asked = Instant::now();
        let Value::Int(clock) = self.redis.run(&self.clock, &[&batch.log[..]], &[]).await? else {
            return Err(StoreError::Unexpected("its clock is no number"));
        };
        let round_trip = asked.elapsed();
        let (merged, ages) = (merged_key(&batch.log), batch.ages(asked));
        let mut digits = itoa::Buffer::new();
        let args: [&[u8]; 4] = [batch.name(), &batch.windows, &ages, digits.format(clock).as_bytes()];
        match self.redis.run(&self.script, &[&batch.log, &merged], &args).await? {
            Value::Int(_) => Ok(asked.elapsed().saturating_sub(2 * round_trip)),
            _ => Err(StoreError::Unexpected("the merging script's answer is no number")),
        }
    }

    /// What Redis answered late to a question on this log; `None` if that will never be known.
    pub(super) async fn late_answer(&self, mut answer: LateAnswer, log: &[u8]) -> Option<Value> {
        let mut overtaken = 0;
        while overtaken < MAX_OVERTAKEN {
            if let Ok(answer) = tokio::time::timeout(LATE_INTERVAL, &mut answer).await {
                return answer.ok();
            }
            let answers = self.redis.run(&self.clock, &[log], &[]).await.is_ok();
            overtaken = if answers { overtaken + 1 } else { 0 };
        }
        None
    }

    /// Takes admissions back that Redis counted at `stamp_ms` on its clock, for a request that was refused for want of its
    /// answer.
    pub(super) async fn take_back(
        &self,
        log: &[u8],
        windows: &[u8],
        cost: u32,
        stamp_ms: u64,
    ) -> Result<(), StoreError> {
        let mut name = [0; 16];
        fastrand::fill(&mut name);
        let (cost, stamp_ms) = (cost.to_string(), stamp_ms.to_string());
        let args: [&[u8]; 6] = [&name, windows, &[], b"0", cost.as_bytes(), stamp_ms.as_bytes()];
        self.redis.run(&self.script, &[log, &merged_key(log)], &args).await.map(drop)
    }

    /// Merges whatever there is to merge whenever Redis answers. Never returns.
    pub(super) async fn run(&self) {
        loop {
            if tokio::time::timeout(QUIET, self.pending.added()).await.is_err() {
                self.report();
                self.pending.added().await;
            }
            while !self.pending.is_empty() {
                let pause = match self.redis.is_up() {
                    false => POLL_INTERVAL,
                    true => match self.merge_some(true).await {
                        (0, failed) if failed > 0 => FAILED_PAUSE,
                        _ => PAUSE,
                    },
                };
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Merges all that can be merged without any pause.
    pub(super) async fn finish(&self) {
        while !self.pending.is_empty() && self.redis.is_up() {
            match self.merge_some(false).await {
                // Another worker is merging.
                (0, 0) => tokio::time::sleep(PAUSE).await,
                (0, _) => break,
                _ => {}
            }
        }
        self.report();
    }

    /// Merges batches of some logs; returns how many succeeded and failed.
    async fn merge_some(&self, paced: bool) -> (usize, usize) {
        let batches = self.pending.claim_some(Instant::now(), paced);
        let results = join_all(batches.into_iter().map(|batch| self.merge(batch))).await;
        let failed = results.iter().filter(|result| result.is_err()).count();
        (results.len() - failed, failed)
    }

    fn report(&self) {
        if let Some(Merged { admissions, logs }) = self.pending.take_merged() {
            tracing::info!(
                admissions,
                logs,
                "merged {admissions} admissions made while Redis was unreachable into {logs} logs"
            );
        }
    }
}

/// Which batches have been merged into a log: `<namespace>:{<token id>}:merged` beside `…:log`.
pub(super) fn merged_key(log: &[u8]) -> Vec<u8> {
    let (name, merged) = (b"}:log", b"}:merged");
    // Neither a namespace nor a token's id has braces; a route, which may follow, may.
    let at = log.windows(name.len()).position(|part| part == name).unwrap_or(log.len());
    [&log[..at], merged, log.get(at + name.len()..).unwrap_or_default()].concat()
}
