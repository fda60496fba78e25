//! Listings of the records in Redis, page by page, in the order of their creation.

use std::time::{Duration, SystemTime};

use futures_util::future::try_join_all;
use redis::Cmd;

use super::records::{RedisTokens, decode};
use crate::store::StoreError;
use crate::tokens::cursor::{Cursor, RecordPage};
use crate::tokens::date::Date;
use crate::tokens::error::{RedisTokensError, RegistryError};
use crate::tokens::record::StoredRecord;
use crate::tokens::token::is_id;

/// An id without a record is taken off the index when it is older than this: a younger one may be about to get its record.
const ORPHAN_AGE: Duration = Duration::from_secs(60);

/// Keys that Redis looks at in one step of a scan.
const SCAN_STEP: usize = 1_000;

/// A page of the list.
pub(super) struct Places {
    pub(super) records: Vec<(Cursor, StoredRecord)>,
    /// The place of the last id, unless there is none behind it.
    pub(super) last: Option<Cursor>,
    /// Ids that have no record and are not new.
    pub(super) orphans: Vec<String>,
}

impl RedisTokens {
    /// Up to `count` records behind a place, and the place of the last id that was looked at, unless there is none behind it. Ids
    /// that have no record are skipped, and taken off the index when they are a minute old.
    ///
    /// # Errors
    /// [`RedisTokensError`]; a damaged record fails the listing with its id.
    pub(in crate::tokens) async fn page(
        &self,
        after: &Cursor,
        count: usize,
        now: SystemTime,
    ) -> Result<RecordPage, RedisTokensError> {
        let Places { records, last, orphans } = self.places(after, count, now).await?;
        if !orphans.is_empty() {
            tracing::warn!(
                ids = orphans.join(" "),
                "Redis has lost the records of listed tokens: they are listed no more"
            );
            self.redis.call(&Cmd::zrem(self.index_key(), orphans)).await?;
        }
        Ok((records, last))
    }

    /// The same, and ids that have had no record for a minute.
    pub(super) async fn places(
        &self,
        after: &Cursor,
        count: usize,
        now: SystemTime,
    ) -> Result<Places, RedisTokensError> {
        let orphaned_before = Date::new(now).unix().saturating_sub(ORPHAN_AGE.as_secs());
        let places = self.ids(after, count).await?;
        let last = places.last().filter(|_| places.len() == count).cloned();
        let found = try_join_all(places.iter().map(|place| self.read_whole(&place.id))).await?;
        let (mut records, mut orphans) = (Vec::with_capacity(places.len()), Vec::new());
        for (place, found) in places.into_iter().zip(found) {
            match found {
                Some(stored) => records.push((place, stored)),
                None if place.created <= orphaned_before => orphans.push(place.id),
                None => {}
            }
        }
        Ok(Places { records, last, orphans })
    }

    /// How the record of an id may have been lost that has none.
    pub(in crate::tokens) async fn trace_of(&self, id: &str) -> Result<Option<RegistryError>, StoreError> {
        // What can be no id is in no list; it may be the text of a token.
        if !is_id(id) {
            return Ok(None);
        }
        let score: Option<f64> = decode(self.redis.call(&Cmd::zscore(self.index_key(), id)).await?)?;
        if score.is_some() {
            return Ok(Some(RegistryError::Lost { id: id.to_owned() }));
        }
        let keys = self.redis.retention().await.evicted;
        Ok((keys > 0).then_some(RegistryError::Evicted { keys }))
    }

    /// The ids of all tokens that have a record, whether they are listed or not. It looks at every key that there is.
    pub(super) async fn scan(&self) -> Result<Vec<String>, StoreError> {
        let (before, after) = (format!("{}:{{", self.redis.namespace()), "}:token");
        let pattern = format!("{before}*{after}");
        let mut ids = Vec::new();
        for server in 0..self.redis.servers() {
            let mut cursor = "0".to_owned();
            loop {
                let mut command = redis::cmd("SCAN");
                command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
                let (next, keys): (String, Vec<String>) = decode(self.redis.call_server(server, &command).await?)?;
                let id = |key: &String| Some(key.strip_prefix(&before)?.strip_suffix(after)?.to_owned());
                ids.extend(keys.iter().filter_map(id));
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(ids)
    }

    /// Up to `count` ids behind a place.
    pub(in crate::tokens) async fn ids(&self, after: &Cursor, count: usize) -> Result<Vec<Cursor>, StoreError> {
        let (created, count) = (after.created.to_string(), count.to_string());
        let args = [created.as_bytes(), after.id.as_bytes(), count.as_bytes()];
        let answer = self.redis.run(&self.scripts.page, &[self.index_key().as_bytes()], &args).await?;
        let rows: Vec<(String, f64)> = decode(answer)?;
        // Scores are seconds that this program wrote; a stranger's are cut to what a number of seconds can be.
        Ok(rows.into_iter().map(|(id, created)| Cursor { created: created as u64, id }).collect())
    }
}
