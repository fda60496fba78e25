//! What goes on beside the decisions: leases are renewed and given back, and local admissions merged.

use std::time::Duration;

use redis::Value;

use super::super::calls::LeaseName;
use super::RedisLimiter;
use crate::store::StoreError;

/// Leases are renewed this often; they end 30 s after they were renewed last.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// At the end of an instance its leases must be given back within this time, or else they end by themselves.
const GIVE_BACK: Duration = Duration::from_millis(500);

impl RedisLimiter {
    /// Renews leases and gives them back, for ever.
    pub(in crate::limits) async fn keep_calls(&self) {
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
    pub(in crate::limits) async fn keep_merging(&self) {
        self.merger.keep().await;
    }

    /// Gives leases back and merges what is left to be merged, as far as a moment suffices.
    pub(in crate::limits) async fn end(&self) {
        self.ledger.end_all();
        // A lease that is not given back ends by itself.
        let both = async { tokio::join!(self.give_calls_back(), self.merger.finish()) };
        let _ = tokio::time::timeout(GIVE_BACK, both).await;
    }

    async fn tell_calls(&self, token_id: Box<str>, verb: &[u8], names: Vec<LeaseName>) {
        let args: Vec<&[u8]> = std::iter::once(verb).chain(names.iter().map(|name| &name[..])).collect();
        // A lease that could not be renewed is renewed by the next beat, one that could not be given back ends by itself; an
        // outage is reported by the connection.
        let _ = self.redis.run(&self.calls, &[&self.key(&token_id, "calls")], &args).await;
    }

    /// Calls that a token has open, over all instances.
    pub(in crate::limits) async fn open_calls(&self, token_id: &str) -> Result<u32, StoreError> {
        match self.redis.run(&self.calls, &[&self.key(token_id, "calls")], &[b"count"]).await? {
            Value::Int(open) => Ok(u32::try_from(open).unwrap_or(u32::MAX)),
            _ => Err(StoreError::Unexpected("a count that is no number")),
        }
    }
}
