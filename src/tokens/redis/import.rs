//! Many records written together, with one entry in the audit trail.

use std::time::SystemTime;

use futures_util::future;

use super::records::{RedisTokens, decode};
use crate::store::StoreError;
use crate::tokens::audit::{Actor, Entry};
use crate::tokens::record::Record;

impl RedisTokens {
    /// Writes those of the records whose ids are free; says of each whether it was written. They are in the audit trail before they are
    /// there, so that a writer that dies leaves no token without a trace: at worst, one is in the trail that was not made.
    ///
    /// # Errors
    /// [`StoreError`]; some may have been written all the same.
    pub(in crate::tokens) async fn import(
        &self,
        records: &[&Record],
        by: &Actor,
        now: SystemTime,
    ) -> Result<Vec<bool>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (seconds, micros): (u64, u64) = decode(self.redis.call(&redis::cmd("TIME")).await?)?;
        let version = seconds * 1_000_000 + micros;
        let line = |records: &[&Record]| {
            let entry = Entry::of_import(records.iter().copied(), by, now);
            let json = serde_json::to_string(&entry).expect("entries have only text keys");
            (entry, format!("{version} {json}"))
        };
        let (entry, announced) = line(records);
        self.enter(version, &announced).await?;
        self.index(records.iter().copied()).await?;
        let written = future::try_join_all(records.iter().map(|record| async {
            let json = serde_json::to_vec(record).expect("records have only text keys");
            let answer = self.redis.run(&self.scripts.import, &[self.key(&record.id).as_bytes()], &[&json]).await?;
            decode::<u8>(answer).map(|written| written == 1)
        }));
        let written = written.await?;
        // Once more: a listing in between takes ids off that are old and have no record.
        self.index(records.iter().copied()).await?;
        if written.iter().all(|written| *written) {
            entry.log();
            return Ok(written);
        }
        let made: Vec<&Record> = records.iter().zip(&written).filter(|(_, made)| **made).map(|(one, _)| *one).collect();
        if !made.is_empty() {
            let (entry, line) = line(&made);
            self.enter(version, &line).await?;
            entry.log();
        }
        let mut retract = redis::cmd("ZREM");
        retract.arg(self.trail_key()).arg(&announced);
        self.redis.call(&retract).await?;
        Ok(written)
    }
}
