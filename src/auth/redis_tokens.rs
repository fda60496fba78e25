//! Token records in Redis, one hash per token, found by one key.
//!
//! `<ns>:{<id>}:token` is a hash with the fields `version` (decimal) and `record` (JSON). The version is the server's time in
//! microseconds and always above the previous one: no two writes share one, not even when a record is deleted and made again.
//! The fields `used` (Unix seconds) and `requests` tell of its use and change no version; `audit` holds entries of the audit trail that
//! are not in the trail yet.
//! `<ns>:tokens` is a sorted set of all ids with the time of their creation in seconds, for listings. The two live in
//! different Cluster slots, so they are written one after the other, the index first: a writer that dies in between leaves an id
//! without a record, which the next listing removes, and never a token that works and isn't listed.

mod import;
mod listing;
mod trail;
mod usage;

pub(super) use listing::{Page, Place};

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use redis::{Cmd, FromRedisValue, Value};

use super::audit::Entry;
use super::date::Date;
use super::record::{self, Record, Usage};
use super::token;
use crate::store::{Redis, Script, StoreError};

/// Writes a record if its version is still the expected one (empty: if there is none), together with an entry for the audit trail.
/// Answers with the new version and all entries that are due, or nil. A change is announced to whom may have calls of the token open;
/// that it may not be (by the user's rights) is no reason to fail.
const WRITE: &str = r"
local old = redis.call('HGET', KEYS[1], 'version')
if (old or '') ~= ARGV[1] then return false end
local time = redis.call('TIME')
local version = time[1] * 1000000 + time[2]
if old and version <= tonumber(old) then version = tonumber(old) + 1 end
version = string.format('%.0f', version)
local due = version .. ' ' .. ARGV[3]
local before = redis.call('HGET', KEYS[1], 'audit')
if before then due = before .. '\n' .. due end
redis.call('HSET', KEYS[1], 'version', version, 'record', ARGV[2], 'audit', due)
if old then redis.pcall('PUBLISH', ARGV[4], ARGV[5]) end
return {version, due}
";

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

type OnChange = Arc<dyn Fn(&str) + Send + Sync>;

/// The token records of one Redis.
#[derive(Clone)]
pub struct RedisTokens {
    redis: Redis,
    scripts: Arc<Scripts>,
    /// Called with the id of each token whose record was changed here, or may have been.
    changed: Option<OnChange>,
}

struct Scripts {
    write: Script,
    settle: Script,
    import: Script,
    add_use: Script,
    page: Script,
}

/// A record with all that is kept beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) version: u64,
    pub(super) record: Record,
    pub(super) usage: Usage,
}

impl RedisTokens {
    /// Uses a connection.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let scripts = Scripts {
            write: Script::new(WRITE),
            settle: Script::new(trail::SETTLE),
            import: Script::new(import::IMPORT),
            add_use: Script::new(usage::ADD_USE),
            page: Script::new(listing::READ_PAGE),
        };
        Self { redis, scripts: Arc::new(scripts), changed: None }
    }

    /// The same, that calls `changed` with the id of each token whose record it has changed, or may have.
    pub(super) fn on_change(self, changed: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { changed: Some(Arc::new(changed)), ..self }
    }

    /// One record with its version, in one round trip.
    ///
    /// # Errors
    /// [`RedisTokensError`]
    pub async fn read(&self, id: &str) -> Result<Option<(u64, Record)>, RedisTokensError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.key(id)).arg("version").arg("record");
        let (version, json) = decode(self.redis.call(&command).await?)?;
        stored(id, version, json)
    }

    /// One record with its use.
    pub(super) async fn read_whole(&self, id: &str) -> Result<Option<Stored>, RedisTokensError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.key(id)).arg("version").arg("record").arg("used").arg("requests");
        let (version, json, used, requests) = decode(self.redis.call(&command).await?)?;
        let used: Option<u64> = used;
        let last_used = used.map(|seconds| Date::new(UNIX_EPOCH + Duration::from_secs(seconds.min(u64::MAX >> 2))));
        let usage = Usage { last_used, requests: Option::<u64>::unwrap_or_default(requests) };
        Ok(stored(id, version, json)?.map(|(version, record)| Stored { version, record, usage }))
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
    /// [`StoreError`]; the record may have been written all the same when the answer was late.
    pub(super) async fn create(&self, record: &Record, entry: &Entry) -> Result<Option<u64>, StoreError> {
        self.write(record, "", entry).await
    }

    /// Replaces a record whose version is still `version` and returns the new version; `None` if somebody else was faster.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(super) async fn replace(
        &self,
        record: &Record,
        version: u64,
        entry: &Entry,
    ) -> Result<Option<u64>, StoreError> {
        self.write(record, &version.to_string(), entry).await
    }

    /// The one place where records are changed.
    async fn write(&self, record: &Record, expected: &str, entry: &Entry) -> Result<Option<u64>, StoreError> {
        let ((), notice) = futures_util::future::try_join(self.index([record]), self.announce(&record.id)).await?;
        let json = serde_json::to_vec(record).expect("records have only text keys");
        let entry_json = serde_json::to_vec(entry).expect("entries have only text keys");
        let (key, channel) = (self.key(&record.id), self.channel());
        let args = [expected.as_bytes(), &json, &entry_json, channel.as_bytes(), record.id.as_bytes()];
        let answer = self.redis.run(&self.scripts.write, &[key.as_bytes()], &args).await;
        if let Some(changed) = self.changed.as_ref().filter(|_| !expected.is_empty()) {
            changed(&record.id);
        }
        let written: Option<(u64, String)> = decode(answer?)?;
        if written.is_some() {
            entry.log();
        }
        // The change is made, and its entry lies beside it: should this fail, the entry is taken to the trail later.
        let due = written.as_ref().map(|(_, due)| due.as_str());
        if let Err(error) = self.deliver(&record.id, due, &notice).await {
            tracing::warn!(token = record.id, "an entry of the audit trail is late: {error}");
        }
        Ok(written.map(|(version, _)| version))
    }

    /// Puts records on the list.
    async fn index<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Result<(), StoreError> {
        let mut command: Cmd = redis::cmd("ZADD");
        command.arg(self.index_key()).arg("NX");
        for record in records {
            command.arg(record.created_at.map_or(0, Date::unix)).arg(&record.id);
        }
        self.redis.call(&command).await.map(drop)
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

fn stored(id: &str, version: Option<String>, json: Option<Vec<u8>>) -> Result<Option<(u64, Record)>, RedisTokensError> {
    let (version, json) = match (version, json) {
        (Some(version), Some(json)) => (version, json),
        (None, None) => return Ok(None),
        _ => return Err(damaged(id, "a field is missing")),
    };
    let version = version.parse().map_err(|_| damaged(id, "its version is no number"))?;
    Ok(Some((version, parse(id, &json)?)))
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
