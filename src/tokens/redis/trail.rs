//! The audit trail in Redis.
//!
//! `<ns>:audit` is a sorted set of entries (`<version> <JSON>`, scored by version), bounded. It lies in another Cluster slot than the
//! records, so an entry is first written into its record's hash, in one step with the change, and then taken to the trail. A
//! writer announces itself in `<ns>:audit:due` before it changes anything; should it die on its way, whoever reads the trail later finishes
//! its work. To take an entry there twice changes nothing, for the same entry is the same member.

use std::time::{Duration, SystemTime};

use redis::Cmd;

use super::records::{RedisTokens, decode};
use crate::store::StoreError;
use crate::tokens::audit::{Entry, TRAIL_LENGTH};
use crate::tokens::date::Date;
use crate::tokens::error::RedisTokensError;

/// A writer that announced itself so long ago is dead.
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// Writers whose work is finished by one reader.
const MANY: isize = 1000;
/// The rank, from the newest, of the first entry that is too many.
const FIRST_TOO_MANY: isize = -(TRAIL_LENGTH as isize) - 1;

impl RedisTokens {
    /// Says that an entry of this token is about to be written; returns the announcement.
    pub(super) async fn announce(&self, id: &str) -> Result<String, StoreError> {
        let notice = format!("{id} {:016x}", fastrand::u64(..));
        let now = Date::new(SystemTime::now()).unix();
        self.add(&self.due_key(), &[now.to_string().as_bytes(), notice.as_bytes()]).await?;
        Ok(notice)
    }

    /// Puts a line into the trail, and the oldest out of it when it is full.
    pub(super) async fn enter(&self, version: u64, line: &str) -> Result<(), StoreError> {
        self.redis.call(&Cmd::zadd(self.trail_key(), line, version)).await?;
        self.trim().await
    }

    /// A version of this moment, by Redis's clock in microseconds.
    pub(super) async fn present_version(&self) -> Result<u64, StoreError> {
        let (seconds, micros): (u64, u64) = decode(self.redis.call(&redis::cmd("TIME")).await?)?;
        Ok(seconds * 1_000_000 + micros)
    }

    /// Adds an entry of what was done to a token beside its record.
    pub(in crate::tokens) async fn note(&self, entry: &Entry) -> Result<(), StoreError> {
        let version = self.present_version().await?;
        let json = serde_json::to_string(entry).expect("entries have only text keys");
        // Also if Redis is full.
        let line = format!("{version} {json}");
        self.add(&self.trail_key(), &[version.to_string().as_bytes(), line.as_bytes()]).await?;
        self.trim().await?;
        entry.log();
        Ok(())
    }

    async fn trim(&self) -> Result<(), StoreError> {
        self.redis.call(&Cmd::zremrangebyrank(self.trail_key(), 0, FIRST_TOO_MANY)).await.map(drop)
    }

    /// Takes entries that lie beside a record to the trail, and the announcement back.
    pub(super) async fn deliver(&self, id: &str, due: Option<&str>, notice: &str) -> Result<(), StoreError> {
        if let Some(due) = due {
            let versioned = due.lines().map(|line| (line.split(' ').next().unwrap_or_default(), line));
            let entries: Vec<_> = versioned.flat_map(|(version, line)| [version.as_bytes(), line.as_bytes()]).collect();
            self.add(&self.trail_key(), &entries).await?;
            self.trim().await?;
            self.redis.run(&self.scripts.settle, &[self.key(id).as_bytes()], &[due.as_bytes()]).await?;
        }
        self.redis.call(&Cmd::zrem(self.due_key(), notice)).await.map(drop)
    }

    /// Finishes the work of writers that died.
    pub(super) async fn finish_the_dead(&self, now: SystemTime) -> Result<(), StoreError> {
        let before = Date::new(now).unix().saturating_sub(DEAD_AFTER.as_secs());
        let command = Cmd::zrangebyscore_limit(self.due_key(), "-inf", before, 0, MANY);
        let notices: Vec<String> = decode(self.redis.call(&command).await?)?;
        for notice in notices {
            let id = notice.split(' ').next().unwrap_or_default();
            let due = self.due(id).await?;
            self.deliver(id, due.as_deref(), &notice).await?;
        }
        Ok(())
    }

    /// Makes up for a write whose answer was lost, and which was found to stand: logs its entry and takes it to the trail.
    pub(in crate::tokens) async fn catch_up(&self, id: &str, entry: &Entry) {
        entry.log();
        let delivered = async {
            let due = self.due(id).await?;
            // What that writer announced is not known any more; in a minute it counts as dead, and there is nothing left to finish.
            self.deliver(id, due.as_deref(), "").await
        };
        if let Err(error) = delivered.await {
            tracing::warn!(token = id, "an entry of the audit trail is late: {error}");
        }
    }

    /// The entries that lie beside a record.
    async fn due(&self, id: &str) -> Result<Option<String>, StoreError> {
        decode(self.redis.call(&Cmd::hget(self.key(id), "audit")).await?)
    }

    /// Up to `count` entries with versions below `before`, the newest first, and a few more if they share a version.
    pub(in crate::tokens) async fn trail(
        &self,
        before: Option<u64>,
        count: usize,
        now: SystemTime,
    ) -> Result<Vec<(u64, Entry)>, RedisTokensError> {
        if before.is_none() {
            self.finish_the_dead(now).await?;
        }
        let newest = before.map_or("+inf".to_owned(), |before| format!("({before}"));
        let limit = isize::try_from(count).unwrap_or(isize::MAX);
        let command = Cmd::zrevrangebyscore_limit(self.trail_key(), newest, "-inf", 0, limit);
        let mut lines: Vec<String> = decode(self.redis.call(&command).await?)?;
        if lines.len() == count
            && let Some(last) = lines.last().and_then(|line| version_of(line))
        {
            // The next page begins below this version, so all entries of it belong to this one.
            let same = Cmd::zrevrangebyscore(self.trail_key(), last, last);
            lines.retain(|line| version_of(line) != Some(last));
            lines.extend(decode::<Vec<String>>(self.redis.call(&same).await?)?);
        }
        // What a newer Callgate wrote and this one can't read is left out.
        let read = |line: &String| Some((version_of(line)?, serde_json::from_str(line.split_once(' ')?.1).ok()?));
        Ok(lines.iter().filter_map(read).collect())
    }

    pub(super) fn trail_key(&self) -> String {
        format!("{}:audit", self.redis.namespace())
    }

    fn due_key(&self) -> String {
        format!("{}:audit:due", self.redis.namespace())
    }
}

fn version_of(line: &str) -> Option<u64> {
    line.split(' ').next()?.parse().ok()
}
