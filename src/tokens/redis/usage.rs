//! How tokens are used, in Redis: in all, by the hour, and which were refused the most.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use redis::Cmd;

use crate::store::StoreError;
use crate::tokens::hour::{Hour, HourUsage, KEPT_HOURS};
use crate::tokens::recent_refusals::most;
use crate::tokens::usage_counts::NewUsage;

use super::records::{RedisTokens, decode};

/// Bytes of the use of one hour.
const ENTRY: usize = 12;
/// Seconds of one set of refused tokens, and how many of them are the last hour: the current one has just begun.
const SLICE_S: u64 = 600;
const SLICES: u64 = 7;
/// Tokens that an instance adds to a set at one time.
const MAX_REFUSED: usize = 200;

impl RedisTokens {
    /// Adds to the use of a token.
    ///
    /// # Errors
    /// [`StoreError`]; at a deadline it may have been added all the same.
    pub(in crate::tokens) async fn add_usage(&self, id: &str, new: NewUsage) -> Result<(), StoreError> {
        let mut buffers = [(); 5].map(|()| itoa::Buffer::new());
        let [admitted, last, hour, refused, kept] = &mut buffers;
        let last = new.last.map_or("", |second| last.format(second.unix()));
        let args = [
            admitted.format(new.requests).as_bytes(),
            last.as_bytes(),
            hour.format(new.hour.0).as_bytes(),
            refused.format(new.refused).as_bytes(),
            kept.format(KEPT_HOURS).as_bytes(),
        ];
        let keys = [self.key(id), self.usage_key(id)];
        let keys = [keys[0].as_bytes(), keys[1].as_bytes()];
        self.redis.run(&self.scripts.add_usage, &keys, &args).await.map(drop)
    }

    /// The use of a token in each of the last hours, the oldest first.
    pub(in crate::tokens) async fn usage(&self, id: &str, now: SystemTime) -> Result<Vec<HourUsage>, StoreError> {
        let text: Option<Vec<u8>> = decode(self.redis.call(&Cmd::get(self.usage_key(id))).await?)?;
        let oldest = Hour::of(now).oldest_kept();
        let hours = text.as_deref().unwrap_or_default().chunks_exact(ENTRY).map(|entry| {
            let number = |at: usize| u32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            HourUsage { hour: Hour(number(0)), admitted: number(4).into(), refused: number(8).into() }
        });
        Ok(hours.filter(|usage| usage.hour >= oldest).collect())
    }

    /// Adds to the refused requests of these tokens.
    pub(in crate::tokens) async fn add_refused(&self, refused: Vec<(Arc<str>, u64)>) -> Result<(), StoreError> {
        if refused.is_empty() {
            return Ok(());
        }
        let refused = most(refused, MAX_REFUSED);
        let counts: Vec<String> = refused.iter().map(|(_, count)| count.to_string()).collect();
        let pairs = refused.iter().zip(&counts).flat_map(|((id, _), count)| [id.as_bytes(), count.as_bytes()]);
        let key = self.refused_key(slice(SystemTime::now()));
        self.redis.run(&self.scripts.add_refused, &[key.as_bytes()], &pairs.collect::<Vec<_>>()).await.map(drop)
    }

    /// The tokens with the most refused requests of the last hour, over all instances.
    pub(in crate::tokens) async fn most_refused(
        &self,
        limit: usize,
        now: SystemTime,
    ) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        let newest = slice(now);
        let slices = (newest.saturating_sub(SLICES - 1)..=newest).map(async |slice| {
            let command = Cmd::zrevrange_withscores(self.refused_key(slice), 0, -1);
            decode::<Vec<(String, f64)>>(self.redis.call(&command).await?)
        });
        let mut sums = HashMap::<Arc<str>, u64>::new();
        for (id, refused) in try_join_all(slices).await?.into_iter().flatten() {
            *sums.entry(id.into()).or_default() += refused as u64;
        }
        Ok(most(sums.into_iter().collect(), limit))
    }

    fn usage_key(&self, id: &str) -> String {
        format!("{}:{{{id}}}:usage", self.redis.namespace())
    }

    /// All of them are in one slot.
    fn refused_key(&self, slice: u64) -> String {
        format!("{}:{{refused}}:{slice}", self.redis.namespace())
    }
}

fn slice(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) / SLICE_S
}
