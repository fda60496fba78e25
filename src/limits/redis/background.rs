//! What happens beside the decisions: leases are renewed and given back, and local admissions merged.

use std::time::Duration;

use futures_util::StreamExt;
use redis::Value;

use super::super::calls::{ByToken, LeaseName};
use super::super::clock::Moment;
use super::RedisLimiter;
use crate::store::StoreError;

/// Leases are renewed this often; they expire 30 s after they were renewed last.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often to check whether a connection is back: then all leases are renewed, for they may have expired or been lost.
const RECOVERY_POLL: Duration = Duration::from_millis(250);
/// By then every instance is connected again after an outage of Redis, and has renewed its leases.
const RECOVERY: Duration = Duration::from_secs(10);
/// Leases are renewed, and given back, for so many tokens at one time.
const TOKENS_AT_ONCE: usize = 64;
/// At the end of an instance its leases must be given back within this time, or else they expire.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_millis(500);

impl RedisLimiter {
    /// Renews leases and gives them back, and merges into Redis what this process admitted while it did not answer. Never
    /// returns.
    pub(in crate::limits) async fn run(&self) {
        tokio::join!(self.run_leases(), self.merger.run());
    }

    async fn run_leases(&self) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut poll = tokio::time::interval(RECOVERY_POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed_after = self.redis.recovery();
        loop {
            tokio::select! {
                _ = heartbeat.tick() => self.renew_calls().await,
                _ = poll.tick() => {
                    self.skew.report(Moment::now());
                    let recovery = self.redis.recovery();
                    if recovery != renewed_after {
                        renewed_after = recovery;
                        self.renew_calls().await;
                    }
                }
                () = self.leases.ended.notified() => {}
            }
            self.give_calls_back().await;
        }
    }

    /// Renews all leases now.
    #[doc(hidden)]
    pub async fn renew_calls(&self) {
        self.update_leases(b"renew", self.leases.held()).await;
    }

    /// Gives back what has ended, now.
    #[doc(hidden)]
    pub async fn give_calls_back(&self) {
        self.update_leases(b"end", self.leases.take_ended()).await;
    }

    /// Gives leases back and merges what is left to be merged, as far as a moment suffices.
    pub(in crate::limits) async fn end(&self) {
        self.leases.end_all();
        // A lease that is not given back expires.
        let both = async { tokio::join!(self.give_calls_back(), self.merger.finish()) };
        let _ = tokio::time::timeout(GIVE_BACK_TIMEOUT, both).await;
    }

    async fn update_leases(&self, verb: &[u8], leases: ByToken) {
        let update = |(token_id, names): (Box<str>, Vec<LeaseName>)| async move {
            let args: Vec<&[u8]> = std::iter::once(verb).chain(names.iter().map(|name| &name[..])).collect();
            // A lease that could not be renewed is renewed by the next heartbeat, one that could not be given back expires;
            // an outage is reported by the connection.
            let _ = self.redis.run(&self.calls, &[&self.key(&token_id, "calls")], &args).await;
        };
        futures_util::stream::iter(leases).for_each_concurrent(TOKENS_AT_ONCE, update).await;
    }

    /// So long ago (ms) a lease may have ended whose call lives: its instance could not renew it in an outage that has just
    /// ended.
    pub(super) fn unrenewed_ms(&self) -> u128 {
        let recent = self.redis.recovery().filter(|recovery| recovery.at.elapsed() < RECOVERY);
        recent.map_or(0, |recovery| (recovery.outage + recovery.at.elapsed()).as_millis())
    }

    /// Calls that a token has open, over all instances.
    pub(in crate::limits) async fn open_calls(&self, token_id: &str) -> Result<u32, StoreError> {
        match self.redis.run(&self.calls, &[&self.key(token_id, "calls")], &[b"count"]).await? {
            Value::Int(open) => Ok(u32::try_from(open).unwrap_or(u32::MAX)),
            _ => Err(StoreError::Unexpected("the number of open calls is no number")),
        }
    }
}
