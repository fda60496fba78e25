//! Listings of the records in Redis, page by page, in the order of their creation.

use std::time::{Duration, SystemTime};

use futures_util::future::try_join_all;
use redis::Cmd;

use super::records::{RedisTokens, decode};
use crate::store::StoreError;
use crate::tokens::cursor::{Cursor, RecordPage};
use crate::tokens::date::Date;
use crate::tokens::error::RedisTokensError;

/// An id without a record is taken off the index when it is older than this: a younger one may be about to get its record.
const ORPHAN_AGE: Duration = Duration::from_secs(60);

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
        if !orphans.is_empty() {
            self.redis.call(&Cmd::zrem(self.index_key(), orphans)).await?;
        }
        Ok((records, last))
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
