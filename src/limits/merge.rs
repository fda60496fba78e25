//! Merges into Redis what this process admitted while it was away.
//!
//! That is done before Redis decides on the next request from here that asks the same log, and in the background, so that other
//! instances see them soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::Value;

use super::journal::{Claim, Offer, PendingMerges};
use crate::store::{Redis, Script, StoreError};

/// The script that merges.
pub const MERGE: &str = include_str!("merge.lua");

/// What Redis's clock says where a log is, in Unix milliseconds.
const CLOCK: &str = "local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000)";

/// How often it is looked whether Redis is back, while something waits to be merged.
const LOOK: Duration = Duration::from_millis(100);
/// The pause after merges none of which succeeded.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause after a batch of merges.
const BREATH: Duration = Duration::from_millis(10);

/// What merges over one worker's connection. The journal is shared by all workers of a process.
pub(super) struct Merger {
    redis: Redis,
    script: Script,
    clock: Script,
    journal: Arc<PendingMerges>,
}

impl Merger {
    pub(super) fn new(redis: Redis, journal: Arc<PendingMerges>) -> Self {
        Self { redis, script: Script::new(MERGE), clock: Script::new(CLOCK), journal }
    }

    pub(super) fn journal(&self) -> &Arc<PendingMerges> {
        &self.journal
    }

    /// Sees to it that Redis knows of all that this process admitted, as far as these logs go. Where there is nothing to merge, which is
    /// always but for some time after an outage, that costs next to nothing; otherwise a round trip of its own, because a
    /// script or a slot of a cluster that is not where it was expected would turn the order round. After as long as
    /// a call may take it begins nothing new; what is not done by then is done later.
    ///
    /// # Errors
    /// [`StoreError`]: then Redis must not decide on the token yet.
    pub(super) async fn catch_up<'k>(&self, logs: impl Iterator<Item = &'k [u8]>) -> Result<(), StoreError> {
        let begun = Instant::now();
        for log in logs {
            self.catch_up_one(log, begun).await?;
        }
        Ok(())
    }

    async fn catch_up_one(&self, log: &[u8], begun: Instant) -> Result<(), StoreError> {
        while !self.journal.is_empty() {
            if !self.redis.is_up() {
                return Err(StoreError::Down);
            }
            let now = Instant::now();
            let left = self.redis.deadline().saturating_sub(now - begun);
            if left.is_zero() {
                return Err(StoreError::Deadline);
            }
            match self.journal.claim(log, now) {
                Claim::Nothing => return Ok(()),
                // Its holder is done with it when the channel closes.
                Claim::Taken(mut done) => {
                    let _ = tokio::time::timeout(left, done.changed()).await;
                }
                // It has been told already, and whoever asks Redis again is not answered sooner.
                Claim::Refused => return Err(StoreError::Down),
                // (Cut short, it would not count as a call without an answer, and the connection be given up later.)
                Claim::Offer(offer) => self.merge(offer).await?,
            }
        }
        Ok(())
    }

    /// A Redis that hangs may carry a call out when nobody waits for it any more. So it is told how old the admissions were by its own
    /// clock; they get that much younger, and no more, than they were as its answer to that question took to come.
    async fn merge(&self, offer: Offer) -> Result<(), StoreError> {
        let merged = self.send(&offer).await;
        match &merged {
            Ok(()) => offer.settle(),
            Err(StoreError::Refused(_) | StoreError::Unexpected(_)) => offer.refuse(),
            Err(StoreError::Down | StoreError::Deadline) => {}
        }
        merged
    }

    async fn send(&self, offer: &Offer) -> Result<(), StoreError> {
        let asked = Instant::now();
        let Value::Int(clock) = self.redis.run(&self.clock, &[offer.log()], &[]).await? else {
            return Err(StoreError::Unexpected("its clock is no number"));
        };
        let (merged, windows, ages) = (merged_key(offer.log()), offer.windows(), offer.ages(asked));
        let mut digits = itoa::Buffer::new();
        let args: [&[u8]; 4] = [offer.name(), &windows, &ages, digits.format(clock).as_bytes()];
        match self.redis.run(&self.script, &[offer.log(), &merged], &args).await? {
            Value::Int(_) => Ok(()),
            _ => Err(StoreError::Unexpected("the merging script's answer is no number")),
        }
    }

    /// Merges whatever there is to merge whenever Redis answers, for ever.
    pub(super) async fn keep(&self) {
        loop {
            self.journal.written().await;
            while !self.journal.is_empty() {
                let pause = match self.redis.is_up() {
                    false => LOOK,
                    true => match self.merge_some(true).await {
                        (0, failed) if failed > 0 => PAUSE,
                        _ => BREATH,
                    },
                };
                tokio::time::sleep(pause).await;
            }
            self.tell();
        }
    }

    /// Merges all that can be merged without any pause.
    pub(super) async fn finish(&self) {
        while !self.journal.is_empty() && self.redis.is_up() {
            match self.merge_some(false).await {
                // Somebody else is at it.
                (0, 0) => tokio::time::sleep(BREATH).await,
                (0, _) => break,
                _ => {}
            }
        }
        self.tell();
    }

    /// Merges pages of some logs; answers how many times that succeeded and failed.
    async fn merge_some(&self, at_leisure: bool) -> (usize, usize) {
        let offers = self.journal.claim_some(Instant::now(), at_leisure);
        let results = join_all(offers.into_iter().map(|offer| self.merge(offer))).await;
        let failed = results.iter().filter(|result| result.is_err()).count();
        (results.len() - failed, failed)
    }

    fn tell(&self) {
        if let Some(merged) = self.journal.finished() {
            tracing::info!(
                admissions = merged.admissions,
                logs = merged.logs,
                "merged {} admissions made while Redis was away into {} logs",
                merged.admissions,
                merged.logs
            );
        }
    }
}

/// Where it is kept what has been merged into a log: `<namespace>:{<token id>}:merged` beside `…:log`.
pub(super) fn merged_key(log: &[u8]) -> Vec<u8> {
    let (name, kept) = (b"}:log", b"}:merged");
    // Neither a namespace nor a token's id has braces; a route, which may follow, may.
    let at = log.windows(name.len()).position(|part| part == name).unwrap_or(log.len());
    [&log[..at], kept, log.get(at + name.len()..).unwrap_or_default()].concat()
}
