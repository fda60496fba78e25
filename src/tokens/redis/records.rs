//! One record: read, and written if its version is still the expected one.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use redis::{Cmd, FromRedisValue, Value};

use crate::store::{Redis, StoreError};
use crate::tokens::audit::Entry;
use crate::tokens::date::Date;
use crate::tokens::error::RedisTokensError;
use crate::tokens::record::{self, Record, StoredRecord, Usage};
use crate::tokens::token;

use super::scripts::Scripts;

type OnChange = Arc<dyn Fn(&str) + Send + Sync>;

/// The token records of one Redis.
#[derive(Clone)]
pub struct RedisTokens {
    pub(super) redis: Redis,
    pub(super) scripts: Arc<Scripts>,
    /// Called with the id of each token whose record was changed here, or may have been.
    pub(in crate::tokens) on_change: Option<OnChange>,
}

impl RedisTokens {
    /// Uses a connection.
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::new(Scripts::new()), on_change: None }
    }

    /// One record with its version, in one round trip.
    ///
    /// # Errors
    /// [`RedisTokensError`]
    pub async fn read(&self, id: &str) -> Result<Option<(u64, Record)>, RedisTokensError> {
        let command = Cmd::hmget(self.key(id), &["version", "record"]);
        let (version, json) = decode(self.redis.call(&command).await?)?;
        stored(id, version, json)
    }

    /// One record with its use.
    pub(in crate::tokens) async fn read_whole(&self, id: &str) -> Result<Option<StoredRecord>, RedisTokensError> {
        let command = Cmd::hmget(self.key(id), &["version", "record", "used", "requests"]);
        let (version, json, used, requests) = decode(self.redis.call(&command).await?)?;
        let used: Option<u64> = used;
        let last_used = used.map(|seconds| Date::new(UNIX_EPOCH + Duration::from_secs(seconds.min(u64::MAX >> 2))));
        let usage = Usage { last_used, requests: Option::<u64>::unwrap_or_default(requests) };
        Ok(stored(id, version, json)?.map(|(version, record)| StoredRecord { version, record, usage }))
    }

    /// The version of a record, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(crate) async fn version(&self, id: &str) -> Result<Option<u64>, StoreError> {
        decode(self.redis.call(&Cmd::hget(self.key(id), "version")).await?)
    }

    /// The one place where records are changed, also in a Redis that is full. Writes a record whose version is still `expected` (`None`: that is not there yet)
    /// and returns the new version; `None` if somebody else was faster.
    ///
    /// # Errors
    /// [`StoreError`]; the record may have been written all the same when the answer was late.
    pub(super) async fn write(
        &self,
        record: &Record,
        expected: Option<u64>,
        entry: &Entry,
    ) -> Result<Option<u64>, StoreError> {
        let ((), notice) =
            futures_util::future::try_join(self.index_for(record, expected), self.announce(&record.id)).await?;
        let json = serde_json::to_vec(record).expect("records have only text keys");
        let entry_json = serde_json::to_vec(entry).expect("entries have only text keys");
        let (key, channel) = (self.key(&record.id), self.channel());
        let before = expected.map_or(String::new(), |version| version.to_string());
        let args = [before.as_bytes(), &json, &entry_json, channel.as_bytes(), record.id.as_bytes()];
        let answer = self.redis.run(&self.scripts.write, &[key.as_bytes()], &args).await;
        if let Some(on_change) = self.on_change.as_ref().filter(|_| expected.is_some()) {
            on_change(&record.id);
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

    /// Puts a record on the list; one that is changed, even if Redis is full.
    async fn index_for(&self, record: &Record, expected: Option<u64>) -> Result<(), StoreError> {
        match expected {
            None => self.index([record]).await,
            Some(_) => self.add(&self.index_key(), &[b"NX", created(record).as_bytes(), record.id.as_bytes()]).await,
        }
    }

    /// Adds to a sorted set, even if Redis is full. The arguments are those of ZADD.
    pub(super) async fn add(&self, key: &str, args: &[&[u8]]) -> Result<(), StoreError> {
        self.redis.run(&self.scripts.add, &[key.as_bytes()], args).await.map(drop)
    }

    /// Puts records on the list.
    pub(super) async fn index<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Result<(), StoreError> {
        let mut command: Cmd = redis::cmd("ZADD");
        command.arg(self.index_key()).arg("NX");
        for record in records {
            command.arg(created(record)).arg(&record.id);
        }
        self.redis.call(&command).await.map(drop)
    }

    /// Whether a replica has a record as it was written last; `None`: there is no replica.
    pub(in crate::tokens) async fn has_replicated(&self, id: &str) -> Option<bool> {
        self.redis.has_replicated(&self.key(id)).await
    }

    /// Whether any token is listed.
    pub(crate) async fn knows_any(&self) -> Result<bool, StoreError> {
        decode(self.redis.call(&Cmd::exists(self.index_key())).await?)
    }

    /// The channel on which the id of each token is published whose record has changed.
    pub(crate) fn channel(&self) -> String {
        format!("{}:changed", self.redis.namespace())
    }

    pub(super) fn key(&self, id: &str) -> String {
        format!("{}:{{{id}}}:token", self.redis.namespace())
    }

    pub(super) fn index_key(&self) -> String {
        format!("{}:tokens", self.redis.namespace())
    }
}

/// The score of a record on the list.
fn created(record: &Record) -> String {
    record.created_at.map_or(0, Date::unix).to_string()
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

pub(super) fn decode<T: FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    T::from_redis_value(answer).map_err(|_| StoreError::Unexpected("another type than asked for"))
}
