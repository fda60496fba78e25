//! Token records in Redis, one hash per token, found by one key.
//!
//! `<ns>:{<id>}:token` is a hash with the fields `version` (decimal) and `record` (JSON). The version is the server's time in
//! microseconds and always above the previous one: no two writes share one, not even when a record is deleted and made again.
//! `<ns>:tokens` is a sorted set of all ids with the time of their creation in seconds, for listings. The two live in
//! different Cluster slots, so they are written one after the other, the index first: a writer that dies in between leaves an id
//! without a record, which the next listing removes, and never a token that works and isn't listed.

use std::time::{Duration, SystemTime};

use futures_util::future;
use redis::{Cmd, FromRedisValue, Value};

use super::date::Date;
use super::record::{self, Record};
use super::token;
use crate::store::{Redis, Script, StoreError};

/// Writes a record if its version is still the expected one (empty: if there is none). Answers with the new version, or nil. A change
/// is announced to whom may have calls of the token open; that it may not be (by the user's rights) is no reason to fail.
const WRITE: &str = r"
local old = redis.call('HGET', KEYS[1], 'version')
if (old or '') ~= ARGV[1] then return false end
local time = redis.call('TIME')
local version = time[1] * 1000000 + time[2]
if old and version <= tonumber(old) then version = tonumber(old) + 1 end
version = string.format('%.0f', version)
redis.call('HSET', KEYS[1], 'version', version, 'record', ARGV[2])
if old then redis.pcall('PUBLISH', ARGV[3], ARGV[4]) end
return version
";

/// An id without a record is taken off the index when it is older than this: a younger one may be about to get its record.
const ORPHAN_AGE: Duration = Duration::from_secs(60);
/// Ids listed in one command, and records read at one time.
const PAGE: usize = 256;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RedisTokensError {
    /// Redis gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not what Callgate writes.
    #[error("the record of token {id} in Redis can't be read: {why}")]
    Damaged {
        /// The token's id.
        id: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The token records of one Redis.
#[derive(Clone)]
pub struct RedisTokens {
    redis: Redis,
    write: std::sync::Arc<Script>,
}

impl RedisTokens {
    /// Uses a connection.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis, write: std::sync::Arc::new(Script::new(WRITE)) }
    }

    /// One record with its version, in one round trip.
    ///
    /// # Errors
    /// [`RedisTokensError`]
    pub async fn read(&self, id: &str) -> Result<Option<(u64, Record)>, RedisTokensError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.key(id)).arg("version").arg("record");
        let answer = self.redis.call(&command).await?;
        let (version, json): (Option<String>, Option<Vec<u8>>) = decode(answer)?;
        let (version, json) = match (version, json) {
            (Some(version), Some(json)) => (version, json),
            (None, None) => return Ok(None),
            _ => return Err(damaged(id, "a field is missing")),
        };
        let version = version.parse().map_err(|_| damaged(id, "its version is no number"))?;
        Ok(Some((version, parse(id, &json)?)))
    }

    /// The version of a record, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(super) async fn version(&self, id: &str) -> Result<Option<u64>, StoreError> {
        let mut command = redis::cmd("HGET");
        decode(self.redis.call(command.arg(self.key(id)).arg("version")).await?)
    }

    /// Stores a new record and returns its version, or `None` if its id is taken.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn create(&self, record: &Record) -> Result<Option<u64>, StoreError> {
        self.index(record).await?;
        self.write(record, "").await
    }

    /// Replaces a record whose version is still `version` and returns the new version; `None` if somebody else was faster.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn replace(&self, record: &Record, version: u64) -> Result<Option<u64>, StoreError> {
        self.index(record).await?;
        self.write(record, &version.to_string()).await
    }

    /// All records, in the order of their creation. Ids on the index that have no record are skipped, and removed when they are a
    /// minute old.
    ///
    /// # Errors
    /// [`RedisTokensError`]; a damaged record fails the listing with its id.
    pub async fn list(&self, now: SystemTime) -> Result<Vec<Record>, RedisTokensError> {
        let orphaned_before = Date::new(now).unix().saturating_sub(ORPHAN_AGE.as_secs());
        let mut records = Vec::new();
        let mut orphans = Vec::new();
        for start in (0..).step_by(PAGE) {
            let mut command = redis::cmd("ZRANGE");
            command.arg(self.index_key()).arg(start).arg(start + PAGE - 1).arg("WITHSCORES");
            let page: Vec<(String, f64)> = decode(self.redis.call(&command).await?)?;
            let found = future::try_join_all(page.iter().map(|(id, _)| self.read(id))).await?;
            for ((id, created), found) in page.iter().zip(found) {
                match found {
                    Some((_, record)) => records.push(record),
                    None if *created <= orphaned_before as f64 => orphans.push(id.clone()),
                    None => {}
                }
            }
            if page.len() < PAGE {
                break;
            }
        }
        // Only now: removing while paging would shift the pages.
        for id in orphans {
            self.redis.call(redis::cmd("ZREM").arg(self.index_key()).arg(id)).await?;
        }
        Ok(records)
    }

    async fn index(&self, record: &Record) -> Result<(), StoreError> {
        let mut command: Cmd = redis::cmd("ZADD");
        command.arg(self.index_key()).arg("NX").arg(record.created_at.map_or(0, Date::unix)).arg(&record.id);
        self.redis.call(&command).await.map(drop)
    }

    async fn write(&self, record: &Record, expected: &str) -> Result<Option<u64>, StoreError> {
        let json = serde_json::to_vec(record).expect("records have only text keys");
        let (key, channel) = (self.key(&record.id), self.channel());
        let args = [expected.as_bytes(), &json, channel.as_bytes(), record.id.as_bytes()];
        decode(self.redis.run(&self.write, &[key.as_bytes()], &args).await?)
    }

    /// The channel on which the id of each token is published whose record has changed.
    pub(super) fn channel(&self) -> String {
        format!("{}:changed", self.redis.namespace())
    }

    fn key(&self, id: &str) -> String {
        format!("{}:{{{id}}}:token", self.redis.namespace())
    }

    fn index_key(&self) -> String {
        format!("{}:tokens", self.redis.namespace())
    }
}

/// Reads a record and checks what other parts rely on.
fn parse(id: &str, json: &[u8]) -> Result<Record, RedisTokensError> {
    let record: Record = serde_json::from_slice(json).map_err(|error| {
        // The text of the error could quote the record; its place and kind don't.
        damaged(id, &format!("{:?} error at column {}", error.classify(), error.column()))
    })?;
    if record.id != id || !token::is_id(id) {
        return Err(damaged(id, "it belongs to another id"));
    }
    record::check_name(&record.name).map_err(|why| damaged(id, &format!("name {why}")))?;
    record::check_account(&record.account).map_err(|why| damaged(id, &format!("account {why}")))?;
    Ok(record)
}

fn damaged(id: &str, why: &str) -> RedisTokensError {
    RedisTokensError::Damaged { id: id.to_owned(), why: why.to_owned() }
}

fn decode<T: FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    T::from_redis_value(answer).map_err(|_| StoreError::Unexpected("another type than asked for"))
}
